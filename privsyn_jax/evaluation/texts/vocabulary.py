"""Whether synthetic texts use words and pairs of words as often as real ones do."""

from __future__ import annotations

import numpy as np

from privsyn_jax.evaluation.rows import Rows
from privsyn_jax.evaluation.texts.words import Corpora, Part, Words, equal_totals, frequent, locate, runs, take
from privsyn_jax.types import TextSchema

NUM_WORDS = 5_000
NUM_PAIRS = 20_000
PSEUDO_COUNT = 0.5


def smoothed_kl(counts1: np.ndarray, counts2: np.ndarray, *, pseudo_count: float = PSEUDO_COUNT) -> float:
    """Kullback-Leibler divergence of the first distribution from the second, sum p1 ln(p1 / p2).

    Args:
      counts1: [k], at least 0.
      counts2: [k], of the same cells.
      pseudo_count: above 0, added to every cell of both, so that no cell is impossible.

    Returns:
      Nats, at least 0; lower is better, 0 for equal shares.

    Source: the half-count is that of Krichevsky and Trofimov 1981, "The Performance of Universal Encoding".
    """
    shares = [(counts + pseudo_count) / (counts.sum() + pseudo_count * len(counts)) for counts in (counts1, counts2)]
    return max(0.0, float(np.sum(shares[0] * np.log(shares[0] / shares[1]))))


def vocabulary_rows(schema: TextSchema, corpora: Corpora, *, seed: int) -> Rows:
    """Divergences of the use of words from that in real training texts.

    Metrics in nats, lower is better; the reference is of real held-out texts. Cells are the NUM_WORDS words (NUM_PAIRS
    pairs) most frequent in the training texts and one for all others, and PSEUDO_COUNT is added to each. Synthetic and
    held-out texts are cut to the same number of words, since the values depend on it.
      vocabulary_kl: KL(training || synthetic) over words: large where words of real texts are missing; of all texts,
        and of every class, training texts of the class against synthetic ones of it.
      vocabulary_reverse_kl: KL(synthetic || training) over words: large where words are far too frequent.
      bigram_kl: KL(training || synthetic) over pairs of neighbouring words.

    Args:
      schema: public facts.
      corpora: the three sets, each with at least one word.
      seed: draws the cuts.

    Returns:
      Rows; a class without words in one of the sets is left out and named in `skipped`.
    """
    rows, rng = Rows("fidelity", seed), np.random.default_rng(seed)
    size = len(corpora.vocabulary)
    cells = frequent(runs(corpora.train.words, 1, size)[0], NUM_WORDS)
    of_train = _cell_counts(corpora.train.words, 1, size, cells)
    compared = equal_totals(corpora.synthetic.words, corpora.test.words, rng)
    counts = [_cell_counts(words, 1, size, cells) for words in compared]
    rows.add("vocabulary_kl", *(smoothed_kl(of_train, found) for found in counts))
    rows.add("vocabulary_reverse_kl", *(smoothed_kl(found, of_train) for found in counts))
    pairs = frequent(runs(corpora.train.words, 2, size)[0], NUM_PAIRS)
    pairs_of_train = _cell_counts(corpora.train.words, 2, size, pairs)
    pair_counts = [_cell_counts(words, 2, size, pairs) for words in compared]
    if all(found.sum() for found in (pairs_of_train, *pair_counts)):
        rows.add("bigram_kl", *(smoothed_kl(pairs_of_train, found) for found in pair_counts))
    else:
        rows.skip("bigram_kl", "one of the sets holds no text of two words")
    for k, name in enumerate(schema.classes if len(schema.classes) > 1 else ()):
        train, test, synthetic = (_of_class(part, k) for part in (corpora.train, corpora.test, corpora.synthetic))
        if not all(len(words.ids) for words in (train, test, synthetic)):
            rows.skip("vocabulary_kl", "one of the sets holds no word of it", column=name)
            continue
        of_class = _cell_counts(train, 1, size, cells)
        found = (_cell_counts(words, 1, size, cells) for words in equal_totals(synthetic, test, rng))
        rows.add("vocabulary_kl", *(smoothed_kl(of_class, counts) for counts in found), column=name)
    return rows


def _cell_counts(words: Words, length: int, vocabulary_size: int, cells: np.ndarray) -> np.ndarray:
    """Runs in each of the cells, and in none of them: int64 [len(cells) + 1]."""
    return np.bincount(locate(runs(words, length, vocabulary_size)[0], cells), minlength=len(cells) + 1)


def _of_class(part: Part, label: int) -> Words:
    return take(part.words, np.flatnonzero(part.labels == label))
