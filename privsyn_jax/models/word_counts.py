"""What a text adds to the first noisy sum (words by class, how often, its length), and what the sum says of words."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.linalg import helmert

from privsyn_jax.privacy.release import Counts
from privsyn_jax.transforms.tokens import END, PAD
from privsyn_jax.types import Tokens

NEVER = -30.0  # log probability of what does not occur, and of PAD

# Shares of the squared norm of a text's first vector: words by class, words, how often, and the text's length. The last
# three serve the first: they are common to all classes and need less precision.
_BY_CLASS, _PRESENCE, _COUNTS, _LENGTHS = 0.69, 0.05, 0.25, 0.01
_LENGTH_BINS, _LEAST_ENDS = 32, 3e-5  # parts of the length; share of texts taken to end in each, at least
_WHITENING = 0.3  # a word of guessed frequency p weighs p^-0.3 in it, so that the norm is not all function words
_COUNTS_NORM = 1.2  # norm up to which counts are not cut, over that of a text of independent words of full length
_COUNTS_SPREAD, _PRESENCE_SPREAD = 1.0, 3.0  # relative standard deviation of the public guess, a wide one for presence
_LEAST_SHARE = 0.02  # of the public guess that a word keeps
_CLASS_THRESHOLD = 2.0  # standard deviations above which a class is taken to like or dislike a word
_DEVIATIONS_SPREAD = 1.0  # standard deviation of the part of its frequency by which a class likes a word
_DEVIATIONS = (-0.95, 4.0)  # of a word's frequency in a class from that in all, relative: limits


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


def layout_of(num_tokens: int, num_classes: int, guess: np.ndarray, length: int) -> Layout:
    """The layout for texts of `length` tokens at most, from a public guess of log frequencies [num_tokens]."""
    weights, expected = np.exp(-_WHITENING * guess), length * np.exp(guess)
    weights[PAD] = 0.0
    squared_norm = np.sum(np.square(weights) * (expected + np.square(expected)))
    # Divided by a public number, not by each text's own norm: short texts must not weigh more.
    return Layout(num_tokens, num_classes, weights, weights / (_COUNTS_NORM * np.sqrt(squared_norm)))


def word_counts(layout: Layout, tokens: Tokens) -> Counts:
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


def class_log_probabilities(layout: Layout, noisy: np.ndarray, stddev: float, guess: np.ndarray) -> np.ndarray:
    """Log p(word | class) [num_classes, num_tokens] from the noisy sum of `word_counts`, block by block."""
    content, num_classes = slice(END, None), layout.num_classes
    noisy, stddev = noisy / layout.scale, stddev / layout.scale
    weights, guessed = layout.count_weights[content] * np.sqrt(_COUNTS), np.exp(guess[content])
    often = _shrunk(noisy[-1, content] / weights, stddev / weights, guessed, _COUNTS_SPREAD)
    log_probabilities = np.full((num_classes, layout.num_tokens), NEVER)
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
    stands out from the noise is kept, shrunk by the non-negative garrote (Breiman 1995), so that classes differ in
    few words that they truly differ in rather than in many that they seem to differ in.

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
