"""Texts as vectors of weighted words, and the most similar text of a set."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse

from privsyn_jax.evaluation.texts.words import Corpora, Sparse, word_counts

MAX_WORDS = 100_000
_BLOCK = 128  # queries at a time


class Vectors(NamedTuple):
    """One sparse row of Euclidean norm 1 for every text (0 for a text without words), float32 [n, d]."""

    train: Sparse
    test: Sparse
    synthetic: Sparse


class Nearest(NamedTuple):
    """The most similar candidate of every query.

    Attributes:
      index: int64 [n], of the candidate; the first of equally similar ones.
      similarity: float32 [n], the cosine.
    """

    index: np.ndarray
    similarity: np.ndarray


def tfidf_vectors(corpora: Corpora) -> Vectors:
    """TF-IDF with (1 + ln count) and ln((1 + n) / (1 + df)) + 1, over the words most frequent in real texts.

    Document frequencies df are of the training and the held-out texts together. Neither side is preferred by that: with
    weights from the training texts alone, a word that no other text holds would weigh most in a training text and
    nothing in a held-out one, and similarities could not be compared.

    Args:
      corpora: the three sets; at most MAX_WORDS words are kept.

    Returns:
      Rows of the three sets, over the same words.
    """
    size = len(corpora.vocabulary)
    train, test, synthetic = (
        word_counts(part.words, size) for part in (corpora.train, corpora.test, corpora.synthetic)
    )
    total = sum(np.bincount(part.words.ids, minlength=size) for part in (corpora.train, corpora.test))
    kept = np.sort(np.argsort(-np.asarray(total), kind="stable")[:MAX_WORDS])
    frequency = sum(np.bincount(counts.indices, minlength=size) for counts in (train, test))
    num_texts = train.shape[0] + test.shape[0]
    weights = np.log((1 + num_texts) / (1 + np.asarray(frequency)[kept])) + 1
    return Vectors(*(_weighted(counts[:, kept], weights) for counts in (train, test, synthetic)))


def nearest(queries: Sparse, candidates: Sparse) -> Nearest:
    """The most similar of the candidates [m, d], m at least 1, to each of the queries [n, d]; rows as in `Vectors`."""
    num_queries = queries.shape[0]
    index, similarity = np.zeros(num_queries, np.int64), np.zeros(num_queries, np.float32)
    for start in range(0, num_queries, _BLOCK):
        block = slice(start, min(start + _BLOCK, num_queries))
        products = candidates @ np.ascontiguousarray(queries[block].T.toarray())
        index[block] = products.argmax(axis=0)
        similarity[block] = products.max(axis=0)
    return Nearest(index, similarity)


def _weighted(counts: Sparse, weights: np.ndarray) -> Sparse:
    values = (1 + np.log(counts.data)) * weights.astype(np.float32)[counts.indices]
    rows = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    norms = np.sqrt(np.bincount(rows, np.square(values, dtype=np.float64), minlength=counts.shape[0]))
    scaled = (values / norms[rows]).astype(np.float32)
    return scipy.sparse.csr_array((scaled, counts.indices, counts.indptr), shape=counts.shape)
