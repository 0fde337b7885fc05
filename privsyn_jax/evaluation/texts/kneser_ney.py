"""An interpolated Kneser-Ney trigram model in sorted arrays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from privsyn_jax.evaluation.texts.words import Words, locate, text_of_each

MAX_WORDS = 1_000_000  # keys of three words fit 64 bits


class _Level(NamedTuple):
    """Runs of one order: sorted keys context * size + word, counts; sorted contexts, totals, different words."""

    keys: np.ndarray
    counts: np.ndarray
    contexts: np.ndarray
    totals: np.ndarray
    kinds: np.ndarray
    discount: float


class KneserNey(NamedTuple):
    """A fitted model.

    Attributes:
      num_words: ids of words are below it.
      levels: of one, two and three words.
    """

    num_words: int
    levels: tuple[_Level, _Level, _Level]

    @property
    def end(self) -> int:
        """The id that stands for the end of a text."""
        return self.num_words

    @property
    def begin(self) -> int:
        """The id that stands twice before every text and is never predicted."""
        return self.num_words + 1

    def probabilities(self, before: np.ndarray, last: np.ndarray, word: np.ndarray) -> np.ndarray:
        """Of `word` after the words `before` and `last`, float64 [m]; all are int64 [m].

        They sum to 1 over the words and `end`, after any two ids.
        """
        size = self.num_words + 2
        found = np.full(len(word), 1 / (self.num_words + 1))
        contexts = np.zeros_like(word), last, before * size + last
        for level, context in zip(self.levels, contexts, strict=True):
            found = _interpolated(level, context, word, size, found)
        return found


def fit(words: Words, num_words: int) -> KneserNey:
    """Counts runs of up to three words.

    Three words: P(w | u v) = (max(c(u v w) - D, 0) + D k(u v) P(w | v)) / c(u v), where c counts and k(u v) is the
    number of different words after u v. Two and one words: the same with the number of different words before a run in
    place of its count, and an even distribution below. D = n1 / (n1 + 2 n2), one for each order, from the runs with
    counts of one and two; 0.5 where there are none of either.

    Args:
      words: at least one text, ids below num_words; the beginning and end of a text are added here.
      num_words: at most MAX_WORDS.

    Returns:
      The model.

    Source: Kneser and Ney 1995, "Improved Backing-off for M-gram Language Modeling"; the interpolated form and the
    discount as in Chen and Goodman 1999, "An Empirical Study of Smoothing Techniques for Language Modeling".
    """
    size = num_words + 2
    before, last, word = events(words, num_words)
    threes, counts = np.unique((before * size + last) * size + word, return_counts=True)
    twos, kinds_before_two = np.unique(threes % size**2, return_counts=True)
    ones, kinds_before_one = np.unique(twos % size, return_counts=True)
    return KneserNey(
        num_words,
        (_level(ones, kinds_before_one, size), _level(twos, kinds_before_two, size), _level(threes, counts, size)),
    )


def events(words: Words, num_words: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is predicted in the texts: (word before the last, last word, word or end), int64 [num_words + num_texts]."""
    begin, end = num_words + 1, num_words
    num_texts = len(words.lengths)
    starts = words.starts + 3 * np.arange(num_texts + 1)  # of texts with two marks before and one after
    padded = np.full(starts[-1], begin, np.int64)
    padded[np.arange(len(words.ids)) + 3 * text_of_each(words) + 2] = words.ids
    padded[starts[1:] - 1] = end
    places = np.flatnonzero(padded != begin)
    return padded[places - 2], padded[places - 1], padded[places]


def _level(keys: np.ndarray, counts: np.ndarray, size: int) -> _Level:
    contexts, first, kinds = np.unique(keys // size, return_index=True, return_counts=True)
    ones, twos = (counts == 1).sum(), (counts == 2).sum()
    discount = ones / (ones + 2 * twos) if ones and twos else 0.5
    return _Level(keys, counts, contexts, np.add.reduceat(counts, first), kinds, float(discount))


def _interpolated(level: _Level, context: np.ndarray, word: np.ndarray, size: int, lower: np.ndarray) -> np.ndarray:
    """Probabilities of this order, given those of the next lower one; these alone after a context never seen."""
    counts = np.append(level.counts, 0)[locate(context * size + word, level.keys)]
    place = locate(context, level.contexts)
    totals, kinds = np.append(level.totals, 0)[place], np.append(level.kinds, 0)[place]
    discounted = np.maximum(counts - level.discount, 0) + level.discount * kinds * lower
    return np.where(totals > 0, discounted / np.maximum(totals, 1), lower)
