"""Noisy statistics of words, of words by class and of pairs of neighbouring words, and the distribution that they give.

Every text adds one vector of norm at most 1 to each of two sums. The first tells which words a text has, by class, and
how often; the second, which word follows which. What is made of the sums is post-processing: a number is pulled towards
a public guess as far as its noise demands, and a pair of words keeps a probability of its own where its count stands
out from the noise. Networks for texts start from this distribution and learn what it misses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from scipy.linalg import helmert

from privsyn_jax.privacy.release import Counts
from privsyn_jax.transforms.tokens import END, PAD
from privsyn_jax.types import CountStage, Params, Tokens

WORDS_SHARE = 0.6  # of what both sums may spend
# Shares of the squared norm of a text's first vector: words by class, words, how often. The second and the last serve
# the first: words are common to all classes and need less precision.
_BY_CLASS, _PRESENCE, _COUNTS = 0.6, 0.1, 0.3
# A word of guessed frequency p weighs p^-0.5 or p^-0.25 in it, so that the norm is not all function words.
_PRESENCE_WHITENING, _COUNTS_WHITENING = 0.5, 0.25
_TOTAL_WEIGHT = 0.02  # of the coordinate that counts the pairs of a text: a few percent of its vector's squared norm
_COUNTS_NORM = 1.2  # norm up to which counts are not cut, over that of a text of independent words of full length
_PAIRS_NORM = 1.2  # the same for pairs, over the root of the full length
_THRESHOLD = 4.0  # standard deviations above which the count of a pair is taken for more than noise
_LEAST_RATIO = 0.05  # of the count of a pair to that of independent words
_PRIOR_SPREAD = 2.0  # relative standard deviation of the public guess of a word's frequency
_LEAST_SHARE = 0.02  # of the public guess that a word keeps
_DEVIATIONS = (-0.95, 4.0)  # of a word's frequency in a class from that in all, relative: limits
_SPREAD_STEPS, _LARGEST_SPREAD = 30, 0.2  # of the estimate of the variance of these deviations
_NEVER = -30.0  # log probability of PAD


def public_log_frequencies(num_tokens: int, ranks: Sequence[int]) -> np.ndarray:
    """A guess of log p [num_tokens] from public ranks, 0 for the most common: p falls as 1 / (10 + rank).

    Source: Zipf 1949, with the offset of Mandelbrot 1953.
    """
    frequencies = 1.0 / (10.0 + np.asarray(ranks, np.float64))
    frequencies[PAD] = 0.0
    assert len(frequencies) == num_tokens
    with np.errstate(divide="ignore"):
        return np.maximum(np.log(frequencies / frequencies.sum()), _NEVER)


def initial(num_tokens: int, num_classes: int, guess: np.ndarray) -> dict[str, Any]:
    """What is known before anything is bought: words independent, of guessed frequency, alike in all classes."""
    return {
        "words": jnp.broadcast_to(jnp.asarray(guess, jnp.float32), (num_classes, num_tokens)),
        "pairs": jnp.zeros((num_tokens + 1, num_tokens), jnp.float32),
    }


def log_ratios(public: Any, label: jax.Array, before: jax.Array) -> jax.Array:
    """Logits [..., num_tokens] of the word after `before` [...], ids; num_tokens stands for the start of a text."""
    words = public["words"][label]
    return words.reshape((1,) * before.ndim + words.shape) + public["pairs"][before]


class Layout(NamedTuple):
    """The blocks of a text's first vector, of V = num_tokens coordinates each."""

    num_tokens: int
    num_classes: int
    presence_weights: np.ndarray  # [V], of a word's presence; 0 for PAD
    count_weights: np.ndarray  # [V], of how often it occurs, over the largest norm that is not cut

    @property
    def num_codes(self) -> int:
        return self.num_classes - 1

    @property
    def size(self) -> int:
        return (self.num_codes + 2) * self.num_tokens

    @property
    def codes(self) -> np.ndarray:
        """[num_classes, num_codes]: corners of a simplex, as far apart as vectors of norm 1 can be; their sum is 0."""
        if self.num_classes == 1:
            return np.zeros((1, 0))
        corners = helmert(self.num_classes).T
        return corners / np.linalg.norm(corners, axis=1, keepdims=True)


def stages(
    num_tokens: int, num_classes: int, guess: np.ndarray, *, length: int, num_paired: int
) -> tuple[CountStage, ...]:
    """The two sums; without pairs, the first alone.

    Args:
      guess: public, see `public_log_frequencies`.
      length: tokens of a text, at most.
      num_paired: most frequent words, by the first sum, whose pairs are counted; 0 for no pairs.
    """
    layout = _layout(num_tokens, num_classes, guess, length)
    num_paired = min(num_paired, num_tokens - 1)
    num_pairs = (num_paired + 1) * num_paired

    def count_words(params: Params, tokens: Tokens) -> Counts:
        del params
        return _word_counts(layout, tokens)

    def absorb_words(params: Params, noisy_sum: np.ndarray, stddev: float, key: jax.Array) -> Params:
        del key
        words = _class_log_probabilities(layout, noisy_sum.reshape(-1, num_tokens), stddev, guess)
        return {**params, "public": {**params["public"], "words": jnp.asarray(words, jnp.float32)}}

    def count_pairs(params: Params, tokens: Tokens) -> Counts:
        place = np.full(num_tokens + 1, -1)
        place[_most_frequent(params, num_paired)] = np.arange(num_paired)
        place[num_tokens] = num_paired  # the start of a text
        record, position = np.nonzero(tokens.ids)
        after = place[tokens.ids[record, position]]
        before = place[np.where(position > 0, tokens.ids[record, np.maximum(position - 1, 0)], num_tokens)]
        counted, first = (before >= 0) & (after >= 0), position == 0
        parts = (  # records, coordinates, values: the pairs, how many there are of all words, and the texts
            (record[counted], before[counted] * num_paired + after[counted], 1.0),
            (record, np.full(len(record), num_pairs), _TOTAL_WEIGHT),
            (record[first], np.full(first.sum(), num_pairs + 1), 1.0),
        )
        # Divided by a public number, not by each text's own norm: short texts must not weigh more.
        scale = 1.0 / (_PAIRS_NORM * np.sqrt(length))
        return Counts(
            np.concatenate([part[0] for part in parts]),
            np.concatenate([part[1] for part in parts]),
            np.concatenate([np.full(len(part[0]), scale * part[2]) for part in parts]),
        )

    def absorb_pairs(params: Params, noisy_sum: np.ndarray, stddev: float, key: jax.Array) -> Params:
        del key
        noisy = noisy_sum[:num_pairs].reshape(num_paired + 1, num_paired)
        total, num_texts = max(noisy_sum[-2] / _TOTAL_WEIGHT, 1.0), max(noisy_sum[-1], 1.0)
        paired = _most_frequent(params, num_paired)
        found = _pair_log_ratios(noisy, stddev, total, num_texts, _frequencies(params)[paired], paired == END)
        pairs = np.zeros((num_tokens + 1, num_tokens), np.float32)
        pairs[np.ix_(np.append(paired, num_tokens), paired)] = found
        return {**params, "public": {**params["public"], "pairs": jnp.asarray(pairs)}}

    share = WORDS_SHARE if num_paired else 1.0
    found = (CountStage("words by class", share, layout.size, count_words, absorb_words),)
    if num_paired:
        found += (CountStage("pairs of words", 1.0 - share, num_pairs + 2, count_pairs, absorb_pairs),)
    return found


def _frequencies(params: Params) -> np.ndarray:
    """Of words in all classes [num_tokens], as released."""
    return np.exp(np.asarray(params["public"]["words"], np.float64)).mean(axis=0)


def _most_frequent(params: Params, number: int) -> np.ndarray:
    """Ids of the most frequent words, as released."""
    return np.argsort(-_frequencies(params), kind="stable")[:number]


def _layout(num_tokens: int, num_classes: int, guess: np.ndarray, length: int) -> Layout:
    of_presence, of_counts = (np.exp(-power * guess) for power in (_PRESENCE_WHITENING, _COUNTS_WHITENING))
    of_presence[PAD] = of_counts[PAD] = 0.0
    frequencies = np.exp(guess)
    squared_norm = np.sum(np.square(of_counts) * (length * frequencies + np.square(length * frequencies)))
    # Divided by a public number, not by each text's own norm: short texts must not weigh more.
    return Layout(num_tokens, num_classes, of_presence, of_counts / (_COUNTS_NORM * np.sqrt(squared_norm)))


def _word_counts(layout: Layout, tokens: Tokens) -> Counts:
    """A vector of norm at most 1 of every text: presence of words times the code of its class, presence, counts."""
    num_tokens = layout.num_tokens
    record, position = np.nonzero(tokens.ids)
    keys, often = np.unique(record * num_tokens + tokens.ids[record, position], return_counts=True)
    record, ids = np.divmod(keys, num_tokens)
    presence = layout.presence_weights[ids]
    presence = presence / np.sqrt(np.bincount(record, np.square(presence)))[record]
    often = often * layout.count_weights[ids]
    often = often / np.maximum(1.0, np.sqrt(np.bincount(record, np.square(often))))[record]
    codes = layout.codes[tokens.labels[record]]
    by_class = 1.0 if layout.num_codes else 0.0
    scale = np.sqrt(1.0 / (by_class * _BY_CLASS + _PRESENCE + _COUNTS))
    blocks = [np.sqrt(_BY_CLASS) * presence * code for code in codes.T]
    blocks += [np.sqrt(_PRESENCE) * presence, np.sqrt(_COUNTS) * often]
    return Counts(
        np.tile(record, len(blocks)),
        np.concatenate([number * num_tokens + ids for number in range(len(blocks))]),
        scale * np.concatenate(blocks),
    )


def _class_log_probabilities(layout: Layout, noisy: np.ndarray, stddev: float, guess: np.ndarray) -> np.ndarray:
    """Log p(word | class) [num_classes, num_tokens] from the noisy sum of `_word_counts`, block by block."""
    content, num_classes = slice(END, None), layout.num_classes
    by_class = 1.0 if layout.num_codes else 0.0
    stddev = stddev / np.sqrt(1.0 / (by_class * _BY_CLASS + _PRESENCE + _COUNTS))
    weights, guessed = layout.count_weights[content] * np.sqrt(_COUNTS), np.exp(guess[content])
    often = _shrunk(noisy[-1, content] / weights, stddev / weights, guessed)
    log_probabilities = np.full((num_classes, layout.num_tokens), _NEVER)
    factors = np.ones((num_classes, len(often)))
    if layout.num_codes:
        weights = layout.presence_weights[content]
        scaled = noisy[:, content] / weights
        present = _shrunk(scaled[-2] / np.sqrt(_PRESENCE), stddev / np.sqrt(_PRESENCE) / weights, guessed)
        to_mean = (num_classes - 1) / num_classes
        deviation = to_mean * layout.codes @ scaled[: layout.num_codes] / np.sqrt(_BY_CLASS)
        factors += _relative_deviations(deviation, to_mean * stddev / np.sqrt(_BY_CLASS) / weights, present)
    found = often[None] * factors
    log_probabilities[:, content] = np.log(found / found.sum(axis=1, keepdims=True))
    return log_probabilities


def _shrunk(counts: np.ndarray, stddev: np.ndarray | float, guessed: np.ndarray) -> np.ndarray:
    """Noisy counts [V] and the public guess of them, averaged by their precisions; above 0."""
    guessed = guessed / guessed.sum() * max(counts.sum(), 1.0)
    of_guess, variance = np.square(_PRIOR_SPREAD * guessed), np.square(stddev)
    return np.maximum((counts * of_guess + guessed * variance) / (of_guess + variance), _LEAST_SHARE * guessed)


def _relative_deviations(deviation: np.ndarray, stddev: np.ndarray, present: np.ndarray) -> np.ndarray:
    """How far the frequency of a word in a class is from that in all, relative [num_classes, V].

    The part of the deviations from the mean of the classes that is a class's size is taken out; of the rest, as much is
    kept as the noise leaves over: the variance of true deviations is estimated by weighted moments, after Efron and
    Morris 1975, "Data Analysis Using Stein's Estimator and its Generalizations".

    Args:
      deviation: of the class's sum from the mean of the classes' sums, noisy.
      stddev: [V], of its noise.
      present: [V], the sum over all classes.
    """
    num_classes, precision = len(deviation), 1.0 / np.square(stddev)
    sizes = 1.0 / num_classes + deviation @ (present * precision) / np.sum(np.square(present) * precision)
    sizes = np.clip(sizes, 0.01 / num_classes, 1.0)
    expected = sizes[:, None] * present
    rest, variance = deviation - (sizes - 1.0 / num_classes)[:, None] * present, np.square(stddev)
    spread = 0.05
    for _ in range(_SPREAD_STEPS):
        trust = np.square(expected) / np.square(spread * np.square(expected) + variance)
        spread = np.sum((np.square(rest) - variance) * trust) / np.sum(np.square(expected) * trust)
        spread = min(max(float(spread), 1e-6), _LARGEST_SPREAD)
    true = spread * np.square(expected)
    return np.clip(rest / expected * true / (true + variance), *_DEVIATIONS)


def _pair_log_ratios(
    noisy: np.ndarray, stddev: float, total: float, num_texts: float, frequencies: np.ndarray, is_end: np.ndarray
) -> np.ndarray:
    """Log of p(after | before) / p(after), up to a constant for each `before`, [K + 1, K] for K words.

    A pair whose count stands out keeps a probability of its own, shrunk by the non-negative garrote (Breiman 1995); the
    rest of the row shares what is left in proportion to the words' frequencies.

    Args:
      noisy: sums [K + 1, K], the last row of first words.
      total, num_texts: the sums of all pairs and of first words, in the same units.
      frequencies: [K], of the words among all words.
      is_end: bool [K], of END, after which there is nothing.
    """
    before = np.append(frequencies * max(total - num_texts, 1.0), num_texts)[:, None]
    expected = before * frequencies[None]
    excess = noisy - expected
    keeps = 1.0 - np.square(_THRESHOLD * stddev) / np.maximum(np.square(excess), 1e-300)
    kept = keeps > 0
    kept[:-1][is_end] = False
    counts = np.maximum(expected + excess * np.maximum(keeps, 0.0), _LEAST_RATIO * expected)
    probabilities = np.where(kept, counts / before, 0.0)
    probabilities *= np.minimum(1.0, 0.98 / np.maximum(probabilities.sum(axis=1, keepdims=True), 1e-300))
    rest = 1.0 - probabilities.sum(axis=1, keepdims=True)
    others = 1.0 - np.where(kept, frequencies[None], 0.0).sum(axis=1, keepdims=True)
    scale = rest / np.maximum(others, 1e-6)
    ratios = np.where(kept, probabilities, 1.0) / np.where(kept, frequencies[None] * scale, 1.0)
    return np.log(np.maximum(ratios, 1e-6))


def factors(public: Any, dim: int) -> np.ndarray:
    """Word vectors float32 [num_tokens + 1, 2 dim + 1] that the released counts imply; columns of standard deviation 1.

    Left and right singular vectors of the table of pairs, and how much a word speaks for the last class rather than the
    first. Zero where nothing is known.

    Source: Levy and Goldberg 2014, "Neural Word Embedding as Implicit Matrix Factorization", section 3.3.
    """
    pairs, words = np.asarray(public["pairs"], np.float64), np.asarray(public["words"], np.float64)
    num_tokens = pairs.shape[1]
    columns = np.zeros((num_tokens + 1, 2 * dim + 1))
    if np.any(pairs):
        left, values, right = scipy.sparse.linalg.svds(scipy.sparse.csr_matrix(pairs), k=dim, random_state=0)
        signs = np.sign(left[np.abs(left).argmax(axis=0), np.arange(dim)])
        columns[:, :dim] = left * np.sqrt(values) * signs
        columns[:num_tokens, dim : 2 * dim] = right.T * np.sqrt(values) * signs
    columns[:num_tokens, -1] = words[-1] - words[0]
    return (columns / np.maximum(columns.std(axis=0), 1e-6)).astype(np.float32)
