"""What noisy counts of pairs of neighbouring words say: the chance of a word after another, and vectors of words."""

from __future__ import annotations

import numpy as np
import scipy.sparse

from privsyn_jax.models.word_counts import NEVER

END_HEAD = 0  # of END, which has a head of its own

_THRESHOLD = 4.0  # standard deviations above which the count of a pair is taken for more than noise
_LEAST_RATIO = 0.05  # of the count of a pair to that of independent words
_LARGEST_KEPT = 0.98  # of the probability of what follows a word, by counts of pairs
_LEAST_RESIDUAL = 0.02  # of the frequency of a word that pairs leave to other words before it
_BALANCING_STEPS = 50
_LEAST_FREQUENCY = 1e-9  # of a head that has tokens


def _before_counts(frequencies: np.ndarray, total: float, num_texts: float) -> np.ndarray:
    """How often every head, and last the start, stands before another [H + 1]: nothing follows an END."""
    goes_on = np.where(np.arange(len(frequencies)) == END_HEAD, 0.0, frequencies)
    return np.append(goes_on / goes_on.sum() * max(total - num_texts, 1.0), num_texts)


def pair_log_probabilities(
    noisy: np.ndarray, stddev: np.ndarray, total: float, num_texts: float, frequencies: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Log p(after | before) [H + 1, H], and how far it is from log p(after) where a count says so, else 0.

    A pair whose count stands out keeps a probability of its own, shrunk by the non-negative garrote (Breiman 1995). The
    rest of each row is shared in proportion to weights of the heads after, such that each is as frequent as it should
    be (iterative proportional fitting: Deming and Stephan 1940).

    Args:
      noisy: counts of pairs [H + 1, H], the last row of first heads.
      stddev: of their noise, same shape.
      total, num_texts: how many pairs there are, and how many of them are the first of a text.
      frequencies: [H], of heads among all tokens.
    """
    before = np.maximum(_before_counts(frequencies, total, num_texts), 1e-9)
    expected = before[:, None] * frequencies
    excess = noisy - expected
    keeps = 1.0 - np.square(_THRESHOLD * stddev) / np.maximum(np.square(excess), 1e-300)
    is_kept = keeps > 0
    is_kept[END_HEAD] = False
    is_kept[:, frequencies < _LEAST_FREQUENCY] = False
    counts = np.maximum(expected + excess * np.maximum(keeps, 0.0), _LEAST_RATIO * expected)
    found = np.where(is_kept, counts / before[:, None], 0.0)
    found *= np.minimum(1.0, _LARGEST_KEPT / np.maximum(found.sum(axis=1, keepdims=True), 1e-300))
    rest, others = 1.0 - found.sum(axis=1), np.where(is_kept, 0.0, 1.0)
    residual = np.maximum(frequencies * total - before @ found, _LEAST_RESIDUAL * frequencies * total)
    weights = frequencies
    for _ in range(_BALANCING_STEPS):
        shared = before * rest / np.maximum(others @ weights, 1e-300)
        weights = residual / np.maximum(shared @ others, 1e-300)
    found += others * weights * (rest / np.maximum(others @ weights, 1e-300))[:, None]
    log_found = np.maximum(np.log(np.maximum(found, 1e-300)), NEVER)
    return log_found, np.where(is_kept, log_found - np.log(frequencies), 0.0)


def balanced(
    pairs: np.ndarray, frequencies: np.ndarray, of_all: np.ndarray, total: float, num_texts: float
) -> np.ndarray:
    """Logits [H] that, added to log p(after | before), make heads as frequent as they are in one class.

    Args:
      pairs: p(after | before) [H + 1, H].
      frequencies, of_all: [H], of heads in the class and in all.
      total, num_texts: see `pair_log_probabilities`.
    """
    logits = np.log(frequencies / of_all)
    before = _before_counts(frequencies, total, num_texts)
    for _ in range(_BALANCING_STEPS):
        weights = np.exp(logits)
        flow = weights * (pairs.T @ (before / (pairs @ weights)))
        logits += np.log(frequencies * total / np.maximum(flow, 1e-300))
    return logits - logits.mean()


def vectors(lifts: np.ndarray, by_class: np.ndarray, dim: int) -> np.ndarray:
    """Vectors of heads [H + 1, 2 dim + 1] that the released counts imply; columns of standard deviation 1.

    Left and right singular vectors of the table of pairs, and how much a head speaks for the last class rather than the
    first. Zero where nothing is known.

    Source: Levy and Goldberg 2014, "Neural Word Embedding as Implicit Matrix Factorization", section 3.3.
    """
    num_heads = lifts.shape[1]
    columns = np.zeros((num_heads + 1, 2 * dim + 1))
    if np.any(lifts):
        left, values, right = scipy.sparse.linalg.svds(scipy.sparse.csr_matrix(lifts), k=dim, random_state=0)
        signs = np.sign(left[np.abs(left).argmax(axis=0), np.arange(dim)])
        columns[:, :dim] = left * np.sqrt(values) * signs
        columns[:num_heads, dim : 2 * dim] = right.T * np.sqrt(values) * signs
    columns[:num_heads, -1] = by_class[-1] - by_class[0]
    return columns / np.maximum(columns.std(axis=0), 1e-6)
