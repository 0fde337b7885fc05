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
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from privsyn_jax.models.word_counts import NEVER, class_log_probabilities, end_log_ratios, layout_of, word_counts
from privsyn_jax.models.word_pairs import END_HEAD, balanced, pair_log_probabilities, vectors
from privsyn_jax.privacy.release import Counts
from privsyn_jax.transforms.tokens import END, PAD
from privsyn_jax.types import CountStage, Params, Tokens

WORDS_SHARE = 0.8  # of what both sums may spend
_PAIRS_NORM = 1.2  # norm up to which the pairs of a text are not cut, over the root of its full length
_SHARED_WEIGHT = 0.5  # of the count of a pair with a shared head: there are many, which need less precision
_TOTAL_WEIGHT = 0.02  # of the coordinate that counts the pairs of a text: a few percent of its vector's squared norm


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
            return np.maximum(np.log(self.frequencies / np.sum(self.frequencies)), NEVER)

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
        layout = layout_of(self.num_tokens, self.num_classes, self.guess, self.length)
        num_pairs = (self.num_heads + 1) * self.num_heads

        def count_words(params: Params, tokens: Tokens) -> Counts:
            del params
            return word_counts(layout, tokens)

        def absorb_words(params: Params, noisy_sum: np.ndarray, stddev: float, key: jax.Array) -> Params:
            del key
            of_words, of_lengths = np.split(noisy_sum, [layout.num_blocks * self.num_tokens])
            words = class_log_probabilities(layout, of_words.reshape(-1, self.num_tokens), stddev, self.guess)
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
            by_head = np.maximum(np.log(by_head), NEVER)
        members = np.maximum(words - by_head[:, heads], NEVER)
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
        found, lifts = pair_log_probabilities(noisy, stddev, total, num_texts, frequencies)
        by_class = [balanced(np.exp(found), np.exp(row), frequencies, total, num_texts) for row in log_by_class]
        tables = {"pairs": found, "by_class": np.stack(by_class)}
        if self.vectors_dim:
            tables["vectors"] = vectors(lifts, tables["by_class"], self.vectors_dim)
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


def _log_mean(log_rows: np.ndarray) -> np.ndarray:
    """Log of the mean over classes."""
    return np.log(np.exp(log_rows).mean(axis=0))
