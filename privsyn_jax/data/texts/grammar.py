"""Film reviews written by a small probabilistic grammar: public, and with a known entropy and a known best classifier.

A review is an opener, which names a kind of film, 0 to 4 middle sentences on that kind, and a closing sentence. Given
the label and the kind, its sentences are independent, and each text has one derivation. So the probability of every
text is known exactly: what a generator reaches can be held against what can be reached.
"""

from __future__ import annotations

import functools
import itertools
import re
import string
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from privsyn_jax.data.texts.content import hash_texts
from privsyn_jax.data.texts.grammar_words import (
    CLOSINGS,
    GENRES,
    MIDDLES,
    NUM_SENTENCES,
    OPENERS,
    SLOTS,
    Weight,
)
from privsyn_jax.privacy.guard import Private
from privsyn_jax.settings import DataSettings
from privsyn_jax.types import Records, Texts, TextSchema

CLASSES = ("negative", "positive")
NUM_TRAIN, NUM_TEST = 20_000, 4_000
_SEED = 20240601  # of the records: training ones come from it, held-out ones from the number after it
_SENTENCE_END = re.compile(r"(?<=[.!?]) ")


class Sentences(NamedTuple):
    """Everything that can be said at one place of a review.

    Attributes:
      texts: object [n], all different.
      probabilities: float64 [2, n] given the label; each row sums to 1.
    """

    texts: np.ndarray
    probabilities: np.ndarray


def read_schema(settings: DataSettings) -> TextSchema:
    """The public facts of what `load` draws."""
    del settings
    return TextSchema(CLASSES, NUM_TRAIN, privacy_unit="review")


def load(settings: DataSettings, schema: TextSchema) -> Records:
    """NUM_TRAIN and NUM_TEST independent reviews, the same ones each time."""
    del settings
    train, test = draw(NUM_TRAIN, seed=_SEED), draw(NUM_TEST, seed=_SEED + 1)
    return Records(schema, Private(train), Private(test), hash_texts(train, test), Private({}))


def draw(num_texts: int, *, seed: int) -> Texts:
    """Independent reviews with labels, both classes equally likely; the same for the same seed."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(CLASSES), num_texts).astype(np.int32)
    genres = rng.integers(0, len(GENRES), num_texts)
    lengths = rng.choice(list(NUM_SENTENCES), num_texts, p=list(NUM_SENTENCES.values()))
    sentences = np.empty((num_texts, max(NUM_SENTENCES)), object)
    for label, (number, genre) in itertools.product(range(len(CLASSES)), enumerate(GENRES)):
        rows = np.flatnonzero((labels == label) & (genres == number))
        for place, said in enumerate([_openers(genre), *[_middles(genre)] * (max(NUM_SENTENCES) - 2), _closings()]):
            sentences[rows, place] = rng.choice(said.texts, len(rows), p=said.probabilities[label])
    texts = np.empty(num_texts, object)
    texts[:] = [" ".join([*row[: length - 1], row[-1]]) for row, length in zip(sentences, lengths, strict=True)]
    return Texts(texts, labels)


def log_probability(text: str, label: int) -> float:
    """Natural logarithm of the probability of a text given its label; -inf if the grammar does not make the text."""
    return float(_log_probabilities(text)[label])


def posterior(text: str) -> np.ndarray:
    """float64 [2]: the probability of each label given the text, so the best that a classifier can know.

    Raises:
      ValueError: the grammar does not make this text.
    """
    logarithms = _log_probabilities(text)
    if np.isneginf(logarithms).all():
        raise ValueError(f"the grammar does not make the text {text[:80]!r}")
    odds = np.exp(logarithms - logarithms.max())
    return odds / odds.sum()


def entropy_per_text() -> float:
    """Entropy of a text given its label, in nats: no generator that knows the label has a smaller mean log loss."""
    lengths, shares = np.array(list(NUM_SENTENCES)), np.array(list(NUM_SENTENCES.values()))
    middle = np.mean([_entropy(_middles(genre)) for genre in GENRES])
    opener = np.mean([_entropy(_openers(genre)) for genre in GENRES])
    kinds = np.log(len(GENRES)) - shares @ np.log(shares)  # of film, and of length
    return float(kinds + opener + shares @ (lengths - 2) * middle + _entropy(_closings()))


def split_sentences(text: str) -> list[str]:
    """The sentences of a review; joined by spaces they are the text."""
    return _SENTENCE_END.split(text)


def expand(rules: Mapping[str, Weight], slots: Mapping[str, Mapping[str, Weight]]) -> Sentences:
    """All sentences that rules make, in no particular order.

    Args:
      rules: patterns with {slots}, and their weights.
      slots: what fills each, and with which weights; independent of each other given the label.

    Raises:
      ValueError: two derivations give the same sentence.
    """
    texts, probabilities = [], []
    for pattern, chance in zip(rules, _normalized(rules.values()), strict=True):
        names = [name for _, name, _, _ in string.Formatter().parse(pattern) if name]
        tables = [_normalized(slots[name].values()) for name in names]
        product = chance[:, None]
        for table in tables:
            product = (product[:, :, None] * table.T[:, None, :]).reshape(len(chance), -1)
        probabilities.append(product)
        texts += [
            pattern.format(**dict(zip(names, words, strict=True)))
            for words in itertools.product(*(slots[name] for name in names))
        ]
    if len(set(texts)) != len(texts):
        raise ValueError("two derivations give the same sentence: make the rules differ")
    return Sentences(np.array(texts, object), np.concatenate(probabilities, axis=1))


@functools.cache
def _openers(genre: str) -> Sentences:
    return expand(OPENERS, {**SLOTS, "genre": {genre: 1.0}})


@functools.cache
def _middles(genre: str) -> Sentences:
    own = dict.fromkeys(GENRES[genre], 1.0)
    return expand(MIDDLES, {**SLOTS, "own": own, "aspect": {**own, **SLOTS["common"]}})


@functools.cache
def _closings() -> Sentences:
    return expand(CLOSINGS, SLOTS)


@functools.cache
def _tables() -> tuple[dict[str, str], dict[str, dict[str, np.ndarray]]]:
    """(kind of film that an opener names, log-probabilities [2] of each sentence by place: a kind, or "closing")."""
    kinds = {text: genre for genre in GENRES for text in _openers(genre).texts}
    tables = {"closing": _by_text(_closings())}
    for genre in GENRES:
        tables[f"opening {genre}"], tables[genre] = _by_text(_openers(genre)), _by_text(_middles(genre))
    return kinds, tables


def _log_probabilities(text: str) -> np.ndarray:
    """float64 [2]: of a text given each label."""
    opener, *others = split_sentences(text)
    kinds, tables = _tables()
    impossible = np.full(len(CLASSES), -np.inf)
    genre, share = kinds.get(opener), NUM_SENTENCES.get(1 + len(others))
    if genre is None or share is None:
        return impossible
    terms = [tables[f"opening {genre}"][opener], tables["closing"].get(others[-1], impossible)]
    terms += [tables[genre].get(sentence, impossible) for sentence in others[:-1]]
    return np.log(share) - np.log(len(GENRES)) + np.sum(terms, axis=0)


def _by_text(said: Sentences) -> dict[str, np.ndarray]:
    return dict(zip(said.texts, np.log(said.probabilities).T, strict=True))


def _entropy(said: Sentences) -> float:
    """In nats, on average over the labels."""
    return float(-(said.probabilities * np.log(said.probabilities)).sum(axis=1).mean())


def _normalized(weights) -> np.ndarray:
    """Weights as probabilities given each label, float64 [n, 2]."""
    pairs = np.array([weight if isinstance(weight, tuple) else (weight, weight) for weight in weights], float)
    return pairs / pairs.sum(axis=0)
