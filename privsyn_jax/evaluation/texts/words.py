"""Texts as words for the evaluation, by a splitter of its own whatever tokens a generator uses; and runs of words."""

from __future__ import annotations

import array
import collections
import re
import string
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from privsyn_jax.types import Texts

Sparse = Any  # scipy.sparse.csr_array, which type checkers take for having no shape

# Letters, with apostrophes inside; digits; or one mark. What is none of these, such as a pictogram, is left out.
_WORD = re.compile(rf"[^\W\d_]+(?:'[^\W\d_]+)*|\d+|[{re.escape(string.punctuation)}“”‘…–—]")
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, of the hash of long runs


class Words(NamedTuple):
    """The words of n texts, one text after the other.

    Attributes:
      ids: int32 [num_words], places in a vocabulary.
      starts: int64 [n + 1]: text i is ids[starts[i] : starts[i + 1]].
    """

    ids: np.ndarray
    starts: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Words of every text, int64 [n]."""
        return np.diff(self.starts)


class Part(NamedTuple):
    """One set of texts: as written object [n], their labels int32 [n], and their words."""

    texts: np.ndarray
    labels: np.ndarray
    words: Words


class Corpora(NamedTuple):
    """The three sets of an evaluation and the vocabulary that their words share, object [v] of str."""

    vocabulary: np.ndarray
    train: Part
    test: Part
    synthetic: Part


def split(text: str) -> list[str]:
    """Lower-case words with inner apostrophes, runs of digits, and single marks of a text."""
    return _WORD.findall(text.lower().replace("’", "'"))


def make_corpora(train: Texts, test: Texts, synthetic: Texts) -> Corpora:
    """Splits the texts of the three sets and numbers their words in order of first appearance."""
    numbers: collections.defaultdict[str, int] = collections.defaultdict()
    numbers.default_factory = numbers.__len__
    parts = []
    for texts in (train, test, synthetic):
        ids, starts = array.array("i"), [0]
        for text in texts.texts:
            ids.extend(map(numbers.__getitem__, split(text)))
            starts.append(len(ids))
        words = Words(np.array(ids, np.int32), np.array(starts, np.int64))
        parts.append(Part(np.asarray(texts.texts, object), np.asarray(texts.labels, np.int32), words))
    return Corpora(np.array([*numbers], object), *parts)


def take(words: Words, chosen: np.ndarray) -> Words:
    """The texts with the indices `chosen`, int [m], in that order."""
    lengths = words.lengths[chosen]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    places = np.arange(starts[-1]) + np.repeat(words.starts[:-1][chosen] - starts[:-1], lengths)
    return Words(words.ids[places], starts)


def equal_totals(first: Words, second: Words, rng: np.random.Generator) -> tuple[Words, Words]:
    """Both sets in random order, cut off after as many words as the smaller one holds."""
    size = min(len(first.ids), len(second.ids))
    shuffled = (take(words, rng.permutation(len(words.lengths))) for words in (first, second))
    cut_first, cut_second = (Words(words.ids[:size], np.minimum(words.starts, size)) for words in shuffled)
    return cut_first, cut_second


def text_of_each(words: Words) -> np.ndarray:
    """The text that each word belongs to, int64 [num_words]."""
    return np.repeat(np.arange(len(words.lengths)), words.lengths)


def runs(words: Words, length: int, vocabulary_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Every run of `length` words within a text.

    Returns:
      (uint64 [m] keys, int64 [m] the text of each), in order. Equal runs have equal keys. Keys are
      sum_i ids[i] * vocabulary_size^(length - 1 - i) while that fits 64 bits, so different runs have different keys;
      longer runs are hashed, and two different ones share a key with a chance of about 2^-62.
    """
    count = max(0, len(words.ids) - length + 1)
    is_exact = vocabulary_size**length < 2**64
    factor = np.uint64(vocabulary_size) if is_exact else _MULTIPLIER
    values = words.ids.astype(np.uint64)
    if not is_exact:
        values = np.random.default_rng(0).integers(0, 2**64, vocabulary_size, np.uint64)[words.ids]
    keys = np.zeros(count, np.uint64)
    for i in range(length):
        keys = keys * factor + values[i : i + count]
    text = text_of_each(words)
    within = text[:count] == text[length - 1 :][:count]
    return keys[within], text[:count][within]


def frequent(keys: np.ndarray, num_kept: int) -> np.ndarray:
    """The `num_kept` most frequent of the keys, sorted; of equally frequent ones the smallest."""
    found, counts = np.unique(keys, return_counts=True)
    return np.sort(found[np.argsort(-counts, kind="stable")[:num_kept]])


def locate(keys: np.ndarray, table: np.ndarray) -> np.ndarray:
    """The place of each key in a sorted table without repeats, or len(table) where it is absent."""
    if not len(table):
        return np.zeros(len(keys), np.int64)
    places = np.minimum(np.searchsorted(table, keys), len(table) - 1)
    return np.where(table[places] == keys, places, len(table))


def word_counts(words: Words, vocabulary_size: int) -> Sparse:
    """How often every text holds every word, float32 [n, vocabulary_size]."""
    ones = np.ones(len(words.ids), np.float32)
    shape = len(words.lengths), vocabulary_size
    counts = scipy.sparse.csr_array((ones, words.ids, words.starts), shape=shape, copy=True)
    counts.sum_duplicates()  # reorders its indices, which are no longer those of `words`
    return counts


def excerpt(text: str, max_characters: int) -> str:
    """The text, or its beginning and an ellipsis."""
    return text if len(text) <= max_characters else text[:max_characters].rstrip() + " …"


def first_words(words: Words, table: Sequence[int] | np.ndarray, length: int) -> np.ndarray:
    """int32 [n, length]: the first words of each text looked up in `table` [vocabulary_size], then 0."""
    places = words.starts[:-1, None] + np.arange(length)[None, :]
    found = np.asarray(table, np.int32)[words.ids[np.minimum(places, len(words.ids) - 1)]]
    return np.where(places < words.starts[1:, None], found, 0).astype(np.int32)
