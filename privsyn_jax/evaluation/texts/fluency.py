"""Perplexity of texts under a model that has seen neither them nor the training texts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from privsyn_jax.evaluation.rows import Rows
from privsyn_jax.evaluation.texts import kneser_ney
from privsyn_jax.evaluation.texts.words import Corpora, Words, take


class Outside(NamedTuple):
    """An outside model: the trigrams, the id of each word of the vocabulary, and the number of rare words."""

    model: kneser_ney.KneserNey
    ids: np.ndarray
    num_rare: int

    @property
    def unknown(self) -> int:
        """The id of a rare word and of one never seen."""
        return self.model.num_words - 1


class Fluency(NamedTuple):
    """Perplexity of a word or end of a text, and the share of words that are unknown."""

    perplexity: float
    unknown_rate: float


def fit_outside(words: Words, vocabulary_size: int) -> Outside:
    """A Kneser-Ney trigram model of the words that occur twice; the others are taken for one unknown word."""
    counts = np.bincount(words.ids, minlength=vocabulary_size)
    known = np.sort(np.argsort(-counts, kind="stable")[: min((counts >= 2).sum(), kneser_ney.MAX_WORDS - 1)])
    ids = np.full(vocabulary_size, len(known), np.int64)
    ids[known] = np.arange(len(known))
    model = kneser_ney.fit(Words(ids[words.ids], words.starts), len(known) + 1)
    return Outside(model, ids, max(1, int((counts > 0).sum()) - len(known)))


def fluency(outside: Outside, words: Words) -> Fluency:
    """exp of the mean negative log-probability of the words and ends of texts, each text by itself.

    An unknown word has the unknown word's probability divided by the number of words that were rare in the model's
    texts: otherwise a text of unknown words alone would seem fluent.
    """
    ids = outside.ids[words.ids]
    before, last, word = kneser_ney.events(Words(ids, words.starts), outside.model.num_words)
    found = outside.model.probabilities(before, last, word)
    nats = -np.log(found) + np.where(word == outside.unknown, np.log(outside.num_rare), 0.0)
    return Fluency(float(np.exp(nats.mean())), float(np.mean(ids == outside.unknown)))


def fluency_rows(corpora: Corpora, *, seed: int) -> Rows:
    """Perplexity under trigrams of one half of the held-out texts; the reference is of the other half.

    Metrics, lower is better:
      outside_perplexity: of a word. No training text has been seen by the model, so a copied text gains nothing. Texts
        that repeat frequent phrases have a low one: read it beside distinct_3 and self_bleu.
      unknown_word_rate: share of words that the model has not seen twice, in [0, 1].

    Args:
      corpora: the three sets, each with at least one word.
      seed: draws the halves.

    Returns:
      Rows.
    """
    rows = Rows("fidelity", seed)
    heldout = corpora.test.words
    order = np.random.default_rng(seed).permutation(np.flatnonzero(heldout.lengths))
    if len(order) < 2:
        rows.skip("outside_perplexity", "there is one held-out text with words only, which cannot be halved")
        return rows
    seen, unseen = (take(heldout, half) for half in np.array_split(order, 2))
    outside = fit_outside(seen, len(corpora.vocabulary))
    written = take(corpora.synthetic.words, np.flatnonzero(corpora.synthetic.words.lengths))
    of_synthetic, of_heldout = fluency(outside, written), fluency(outside, unseen)
    rows.add("outside_perplexity", of_synthetic.perplexity, of_heldout.perplexity)
    rows.add("unknown_word_rate", of_synthetic.unknown_rate, of_heldout.unknown_rate)
    return rows
