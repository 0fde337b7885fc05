"""Noisy statistics of words, of words by class and of pairs of neighbouring words, and the distribution that they give.

Every text adds one vector of norm at most 1 to each of two sums. The first tells which words a text has, by class, and
how often; the second, which word follows which. What is made of the sums is post-processing: a number is pulled towards
a public guess as far as its noise demands, a pair of words keeps a probability of its own where its count stands out
from the noise, and the rest is set so that every word is as frequent in the texts drawn as the first sum says.

Only the most frequent words have a *head* of their own; rarer ones share one for each kind, of which a word is drawn by
its frequency. Networks for texts see heads, and learn what the released distribution of heads misses.
"""

from __future__ import annotations

import dataclasses
import functools
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

END_HEAD = 0

WORDS_SHARE = 0.8  # of what both sums may spend
# Shares of the squared norm of a text's first vector: words by class, words, how often, and the text's length. The last
# three serve the first: they are common to all classes and need less precision.
_BY_CLASS, _PRESENCE, _COUNTS, _LENGTHS = 0.69, 0.05, 0.25, 0.01
_LENGTH_BINS, _LEAST_ENDS = 32, 3e-5  # parts of the length; share of texts taken to end in each, at least
_WHITENING = 0.3  # a word of guessed frequency p weighs p^-0.3 in it, so that the norm is not all function words
_COUNTS_NORM = 1.2  # norm up to which counts are not cut, over that of a text of independent words of full length
_PAIRS_NORM = 1.2  # the same for pairs, over the root of the full length
_SHARED_WEIGHT = 0.5  # of the count of a pair with a shared head: there are many, which need less precision
_TOTAL_WEIGHT = 0.02  # of the coordinate that counts the pairs of a text: a few percent of its vector's squared norm
_THRESHOLD = 4.0  # standard deviations above which the count of a pair is taken for more than noise
_LEAST_RATIO = 0.05  # of the count of a pair to that of independent words
_LARGEST_KEPT = 0.98  # of the probability of what follows a word, by counts of pairs
_LEAST_RESIDUAL = 0.02  # of the frequency of a word that pairs leave to other words before it
_BALANCING_STEPS = 50
_COUNTS_SPREAD, _PRESENCE_SPREAD = 1.0, 3.0  # relative standard deviation of the public guess, a wide one for presence
_LEAST_SHARE = 0.02  # of the public guess that a word keeps
_CLASS_THRESHOLD = 2.0  # standard deviations above which a class is taken to like or dislike a word
_DEVIATIONS_SPREAD = 1.0  # standard deviation of the part of its frequency by which a class likes a word
_DEVIATIONS = (-0.95, 4.0)  # of a word's frequency in a class from that in all, relative: limits
_LEAST_FREQUENCY = 1e-9  # of a head that has tokens
_NEVER = -30.0  # log probability of what does not occur, and of PAD


@dataclasses.dataclass(frozen=True, eq=False)
class WordStatistics:
    """What generators of texts buy before anything else, and how tokens and heads belong together.

    Heads: END, further tokens by falling frequency, then one for each kind; `num_heads` stands for a text's start.

    Attributes:
      frequencies: [num_tokens], a public guess of the share of every token; 0 for PAD.
      kinds: int [num_tokens]; rare tokens of a kind share a head.
      num_classes: number of labels.
      length: tokens of a text, at most.
      num_alone: tokens with a head of their own, END among them.
      has_pairs: whether pairs are bought.
      vectors_dim: singular vectors of the released table of pairs that describe a head, on either side; 0 for none.

    Raises:
      ValueError: there are fewer heads than `vectors_dim` asks for.
    """

    frequencies: np.ndarray
    kinds: np.ndarray
    num_classes: int
    length: int
    num_alone: int
    has_pairs: bool = True
    vectors_dim: int = 0

    def __post_init__(self):
        if self.vectors_dim and not self.vectors_dim < self.num_heads:
            raise ValueError(f"released_dim {self.vectors_dim} must be below the {self.num_heads} heads of words")

    @property
    def num_tokens(self) -> int:
        return len(self.frequencies)

    @property
    def num_heads(self) -> int:
        return self.num_alone + int(self.kinds.max()) + 1

    @property
    def num_features(self) -> int:
        """Columns of the vectors of heads."""
        return 2 * self.vectors_dim + 1

    @functools.cached_property
    def guess(self) -> np.ndarray:
        """Log frequencies [num_tokens]."""
        with np.errstate(divide="ignore"):
            return np.maximum(np.log(self.frequencies / np.sum(self.frequencies)), _NEVER)

    def initial(self) -> dict[str, Any]:
        """What is known before anything is bought: words independent, of guessed frequency, alike in all classes.

        Returns:
          {"words": log p(token | class) [num_classes, num_tokens], "members": log p(token | head, class), of the same
          shape, "heads": int32 [num_tokens], "alone": int32 [num_alone], the tokens of the first heads, "by_class":
          [num_classes, num_heads] and "pairs": [num_heads + 1, num_heads], the sum of which, by class and head before,
          is log p(head) up to a constant, "ends": [length], what is added for END at every position}, and "vectors"
          [num_heads + 1, num_features] where they are asked for.
        """
        words = np.broadcast_to(self.guess, (self.num_classes, self.num_tokens))
        return {**self._with_words(words), "ends": jnp.zeros(self.length)}

    def stages(self) -> tuple[CountStage, ...]:
        """The two sums; without pairs, the first alone."""
        layout = _layout(self.num_tokens, self.num_classes, self.guess, self.length)
        num_pairs = (self.num_heads + 1) * self.num_heads

        def count_words(params: Params, tokens: Tokens) -> Counts:
            del params
            return _word_counts(layout, tokens)

        def absorb_words(params: Params, noisy_sum: np.ndarray, stddev: float, key: jax.Array) -> Params:
            del key
            of_words, of_lengths = np.split(noisy_sum, [layout.num_blocks * self.num_tokens])
            words = _class_log_probabilities(layout, of_words.reshape(-1, self.num_tokens), stddev, self.guess)
            ends = jnp.asarray(end_log_ratios(of_lengths, self.length), jnp.float32)
            return {**params, "public": {**params["public"], **self._with_words(words), "ends": ends}}

        def count_pairs(params: Params, tokens: Tokens) -> Counts:
            heads = np.asarray(params["public"]["heads"])
            record, position = np.nonzero(tokens.ids)
            after = heads[tokens.ids[record, position]]
            is_first = position == 0
            before = np.where(is_first, self.num_heads, heads[tokens.ids[record, np.maximum(position - 1, 0)]])
            parts = (  # records, coordinates, values: the pairs, how many there are, and the texts
                (record, before * self.num_heads + after, self._pair_weights()[before, after]),
                (record, np.full(len(record), num_pairs), np.full(len(record), _TOTAL_WEIGHT)),
                (record[is_first], np.full(is_first.sum(), num_pairs + 1), np.ones(is_first.sum())),
            )
            # Divided by a public number, not by each text's own norm: short texts must not weigh more.
            scale = 1.0 / (_PAIRS_NORM * np.sqrt(self.length))
            record, coordinate, value = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
            return Counts(record, coordinate, scale * value)

        def absorb_pairs(params: Params, noisy_sum: np.ndarray, stddev: float, key: jax.Array) -> Params:
            del key
            weights = self._pair_weights()
            noisy = noisy_sum[:num_pairs].reshape(weights.shape) / weights
            total, num_texts = max(noisy_sum[-2] / _TOTAL_WEIGHT, 1.0), max(noisy_sum[-1], 1.0)
            found = self._with_pairs(params["public"], noisy, stddev / weights, total, num_texts)
            return {**params, "public": {**params["public"], **found}}

        share = WORDS_SHARE if self.has_pairs else 1.0
        found = (CountStage("words by class", share, layout.size, count_words, absorb_words),)
        if self.has_pairs:
            found += (CountStage("pairs of words", 1.0 - share, num_pairs + 2, count_pairs, absorb_pairs),)
        return found

    def log_weights(self, public: Any, label: jax.Array, before: jax.Array, position: jax.Array) -> jax.Array:
        """Logits [..., num_heads] of the head at a position [...] after the head `before` [...], as released."""
        by_class = public["by_class"][label]
        logits = by_class.reshape((1,) * before.ndim + by_class.shape) + public["pairs"][before]
        return logits.at[..., END_HEAD].add(public["ends"][position])

    def heads_before(self, public: Any, ids: jax.Array) -> jax.Array:
        """The head before every position [length]; num_heads before the first."""
        first = jnp.full((1,), self.num_heads, jnp.int32)
        return jnp.concatenate([first, public["heads"][ids[:-1]]])

    def losses(self, public: Any, label: jax.Array, logits: jax.Array, ids: jax.Array) -> jax.Array:
        """Minus log probability of every token [length], 0 for padding.

        Args:
          logits: of heads, float [length, num_heads].
        """
        log_probs = jax.nn.log_softmax(logits, axis=-1)
        of_heads = jnp.take_along_axis(log_probs, public["heads"][ids][:, None], axis=-1)[:, 0]
        return jnp.where(ids == PAD, 0.0, -of_heads - public["members"][label][ids])

    def _pair_weights(self) -> np.ndarray:
        """[num_heads + 1, num_heads]"""
        is_shared = np.arange(self.num_heads + 1) >= self.num_alone
        is_shared[-1] = False  # the start
        return np.where(is_shared[:, None] | is_shared[None, :-1], _SHARED_WEIGHT, 1.0)

    def _with_words(self, words: np.ndarray) -> dict[str, Any]:
        """Tables, see `initial`, of independent words."""
        probabilities = np.exp(words)
        probabilities[:, PAD] = 0.0
        order = np.argsort(-probabilities.mean(axis=0), kind="stable")
        alone = np.concatenate([[END], order[(order != END) & (order != PAD)]])[: self.num_alone]
        heads = self.num_alone + self.kinds
        heads[alone] = np.arange(len(alone))
        by_head = np.stack([np.bincount(heads, row, self.num_heads) for row in probabilities])
        with np.errstate(divide="ignore"):
            by_head = np.maximum(np.log(by_head), _NEVER)
        members = np.maximum(words - by_head[:, heads], _NEVER)
        members[:, alone] = 0.0
        mean = _log_mean(by_head)
        tables = {
            "words": words,
            "members": members,
            "by_class": by_head - mean,
            "pairs": np.broadcast_to(mean, (self.num_heads + 1, self.num_heads)),
        }
        if self.vectors_dim:
            tables["vectors"] = np.zeros((self.num_heads + 1, self.num_features))
        floats = {name: jnp.asarray(table, jnp.float32) for name, table in tables.items()}
        return {**floats, "heads": jnp.asarray(heads, jnp.int32), "alone": jnp.asarray(alone, jnp.int32)}

    def _with_pairs(
        self, public: Any, noisy: np.ndarray, stddev: np.ndarray, total: float, num_texts: float
    ) -> dict[str, Any]:
        """Tables of words that depend on the one before."""
        log_by_class = np.asarray(public["by_class"], np.float64) + np.asarray(public["pairs"][-1], np.float64)
        frequencies = np.exp(_log_mean(log_by_class))
        found, lifts = _pair_log_probabilities(noisy, stddev, total, num_texts, frequencies)
        by_class = [_balanced(np.exp(found), np.exp(row), frequencies, total, num_texts) for row in log_by_class]
        tables = {"pairs": found, "by_class": np.stack(by_class)}
        if self.vectors_dim:
            tables["vectors"] = _vectors(lifts, tables["by_class"], self.vectors_dim)
        return {name: jnp.asarray(table, jnp.float32) for name, table in tables.items()}


def word_statistics(
    frequencies: Sequence[float],
    kinds: Sequence[int],
    num_classes: int,
    length: int,
    num_paired: int,
    *,
    has_pairs: bool = True,
    vectors_dim: int = 0,
) -> WordStatistics:
    """The statistics with a head for each of the `num_paired` most frequent tokens, as far as there are so many.

    Raises:
      ValueError: num_paired is below 1, or there are fewer heads than `vectors_dim` asks for.
    """
    if num_paired < 1:
        raise ValueError(f"num_paired {num_paired} must be at least 1")
    num_alone = min(num_paired, len(frequencies) - 1)
    shares, of_kind = np.asarray(frequencies, np.float64), np.asarray(kinds, np.int32)
    return WordStatistics(shares, of_kind, num_classes, length, num_alone, has_pairs, vectors_dim)


class Layout(NamedTuple):
    """The blocks of a text's first vector, of V = num_tokens coordinates each, and one of its length."""

    num_tokens: int
    num_classes: int
    presence_weights: np.ndarray  # [V], of a word's presence; 0 for PAD
    count_weights: np.ndarray  # [V], of how often it occurs, over the largest norm that is not cut

    @property
    def num_codes(self) -> int:
        return self.num_classes - 1

    @property
    def num_blocks(self) -> int:
        """Of one coordinate for every token: presence times each entry of the code, presence, and counts."""
        return self.num_codes + 2

    @property
    def size(self) -> int:
        return self.num_blocks * self.num_tokens + _LENGTH_BINS + 1

    @property
    def scale(self) -> float:
        """Makes the squared norm 1, with or without classes."""
        return (_PRESENCE + _COUNTS + _LENGTHS + (_BY_CLASS if self.num_codes else 0.0)) ** -0.5

    @property
    def codes(self) -> np.ndarray:
        """[num_classes, num_codes]: corners of a simplex, as far apart as vectors of norm 1 can be; their sum is 0."""
        if self.num_classes == 1:
            return np.zeros((1, 0))
        corners = helmert(self.num_classes).T
        return corners / np.linalg.norm(corners, axis=1, keepdims=True)


def _layout(num_tokens: int, num_classes: int, guess: np.ndarray, length: int) -> Layout:
    weights, expected = np.exp(-_WHITENING * guess), length * np.exp(guess)
    weights[PAD] = 0.0
    squared_norm = np.sum(np.square(weights) * (expected + np.square(expected)))
    # Divided by a public number, not by each text's own norm: short texts must not weigh more.
    return Layout(num_tokens, num_classes, weights, weights / (_COUNTS_NORM * np.sqrt(squared_norm)))


def _word_counts(layout: Layout, tokens: Tokens) -> Counts:
    """A vector of norm at most 1 of every text: presence of words times its class's code, presence, counts, length."""
    num_tokens, length = layout.num_tokens, tokens.ids.shape[1]
    record, position = np.nonzero(tokens.ids)
    keys, often = np.unique(record * num_tokens + tokens.ids[record, position], return_counts=True)
    record, ids = np.divmod(keys, num_tokens)
    presence = layout.presence_weights[ids]
    presence = presence / np.sqrt(np.bincount(record, np.square(presence)))[record]
    often = often * layout.count_weights[ids]
    often = often / np.maximum(1.0, np.sqrt(np.bincount(record, np.square(often))))[record]
    codes = layout.codes[tokens.labels[record]]
    blocks = [np.sqrt(_BY_CLASS) * presence * code for code in codes.T]
    blocks += [np.sqrt(_PRESENCE) * presence, np.sqrt(_COUNTS) * often]
    ends = np.where((tokens.ids == END).any(axis=1), (tokens.ids == END).argmax(axis=1), length)
    return Counts(
        np.concatenate([np.tile(record, len(blocks)), np.arange(len(ends))]),
        np.concatenate(
            [
                *(number * num_tokens + ids for number in range(len(blocks))),
                layout.num_blocks * num_tokens + ends * _LENGTH_BINS // length,
            ]
        ),
        layout.scale * np.concatenate([*blocks, np.full(len(ends), np.sqrt(_LENGTHS))]),
    )


def end_log_ratios(noisy: np.ndarray, length: int) -> np.ndarray:
    """Log of how much more likely a text ends at a position that it reaches than at any [length].

    Args:
      noisy: texts that end in each of equal parts of the length, and last those that go on, up to a factor.
    """
    parts = np.arange(length) * _LENGTH_BINS // length
    widths = np.bincount(parts, minlength=_LENGTH_BINS)
    texts = np.maximum(noisy, 0.0) + _LEAST_ENDS * max(noisy.sum(), 1.0)
    texts[:-1][widths == 0] = 0.0
    reach = np.cumsum(texts[::-1])[::-1]  # texts that reach the beginning of a part
    rates = (1.0 - (1.0 - texts[:-1] / reach[:-1]) ** (1.0 / np.maximum(widths, 1)))[parts]  # of ending at a position
    reached = reach[parts] * (1.0 - rates) ** (np.arange(length) - np.searchsorted(parts, parts))
    return np.log(rates * np.sum(reached) / np.sum(rates * reached))


def _class_log_probabilities(layout: Layout, noisy: np.ndarray, stddev: float, guess: np.ndarray) -> np.ndarray:
    """Log p(word | class) [num_classes, num_tokens] from the noisy sum of `_word_counts`, block by block."""
    content, num_classes = slice(END, None), layout.num_classes
    noisy, stddev = noisy / layout.scale, stddev / layout.scale
    weights, guessed = layout.count_weights[content] * np.sqrt(_COUNTS), np.exp(guess[content])
    often = _shrunk(noisy[-1, content] / weights, stddev / weights, guessed, _COUNTS_SPREAD)
    log_probabilities = np.full((num_classes, layout.num_tokens), _NEVER)
    factors = np.ones((num_classes, len(often)))
    if layout.num_codes:
        weights = layout.presence_weights[content]
        scaled = noisy[:, content] / weights
        noise = stddev / np.sqrt(_PRESENCE) / weights
        present = _shrunk(scaled[-2] / np.sqrt(_PRESENCE), noise, guessed, _PRESENCE_SPREAD)
        to_mean = (num_classes - 1) / num_classes
        deviation = to_mean * layout.codes @ scaled[: layout.num_codes] / np.sqrt(_BY_CLASS)
        factors += _relative_deviations(deviation, to_mean * stddev / np.sqrt(_BY_CLASS) / weights, present)
    found = often[None] * factors
    log_probabilities[:, content] = np.log(found / found.sum(axis=1, keepdims=True))
    return log_probabilities


def _shrunk(counts: np.ndarray, stddev: np.ndarray | float, guessed: np.ndarray, spread: float) -> np.ndarray:
    """Noisy counts [V] and the public guess of them, averaged by their precisions; above 0."""
    guessed = guessed / guessed.sum() * max(counts.sum(), 1.0)
    of_guess, variance = np.square(spread * guessed), np.square(stddev)
    return np.maximum((counts * of_guess + guessed * variance) / (of_guess + variance), _LEAST_SHARE * guessed)


def _relative_deviations(deviation: np.ndarray, stddev: np.ndarray, present: np.ndarray) -> np.ndarray:
    """How far the frequency of a word in a class is from that in all, relative [num_classes, V].

    The part of the deviations from the mean of the classes that is a class's size is taken out; of the rest, what
    stands out from the noise is kept, shrunk by the non-negative garrote (Breiman 1995): a few words that classes truly
    differ in teach a classifier more than many that they seem to differ in.

    Args:
      deviation: of the class's sum from the mean of the classes' sums, noisy.
      stddev: [V], of its noise.
      present: [V], the sum over all classes.
    """
    num_classes, precision = len(deviation), 1.0 / np.square(np.maximum(stddev, 1e-100))
    sizes = 1.0 / num_classes + deviation @ (present * precision) / np.sum(np.square(present) * precision)
    sizes = np.clip(sizes, 0.01 / num_classes, 1.0)
    rest = deviation - (sizes - 1.0 / num_classes)[:, None] * present
    keeps = np.maximum(1.0 - np.square(_CLASS_THRESHOLD * stddev) / np.maximum(np.square(rest), 1e-300), 0.0)
    expected = sizes[:, None] * present
    of_true = np.square(_DEVIATIONS_SPREAD * expected)
    return np.clip(rest / expected * keeps * of_true / (of_true + np.square(stddev)), *_DEVIATIONS)


def _log_mean(log_rows: np.ndarray) -> np.ndarray:
    """Log of the mean over classes."""
    return np.log(np.exp(log_rows).mean(axis=0))


def _before_counts(frequencies: np.ndarray, total: float, num_texts: float) -> np.ndarray:
    """How often every head, and last the start, stands before another [H + 1]: nothing follows an END."""
    goes_on = np.where(np.arange(len(frequencies)) == END_HEAD, 0.0, frequencies)
    return np.append(goes_on / goes_on.sum() * max(total - num_texts, 1.0), num_texts)


def _pair_log_probabilities(
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
    log_found = np.maximum(np.log(np.maximum(found, 1e-300)), _NEVER)
    return log_found, np.where(is_kept, log_found - np.log(frequencies), 0.0)


def _balanced(
    pairs: np.ndarray, frequencies: np.ndarray, of_all: np.ndarray, total: float, num_texts: float
) -> np.ndarray:
    """Logits [H] that, added to log p(after | before), make heads as frequent as they are in one class.

    Args:
      pairs: p(after | before) [H + 1, H].
      frequencies, of_all: [H], of heads in the class and in all.
      total, num_texts: see `_pair_log_probabilities`.
    """
    logits = np.log(frequencies / of_all)
    before = _before_counts(frequencies, total, num_texts)
    for _ in range(_BALANCING_STEPS):
        weights = np.exp(logits)
        flow = weights * (pairs.T @ (before / (pairs @ weights)))
        logits += np.log(frequencies * total / np.maximum(flow, 1e-300))
    return logits - logits.mean()


def _vectors(lifts: np.ndarray, by_class: np.ndarray, dim: int) -> np.ndarray:
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
