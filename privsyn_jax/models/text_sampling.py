"""Drawing texts token by token, the same way for every generator of texts."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from privsyn_jax.models.word_pairs import END_HEAD
from privsyn_jax.models.word_statistics import WordStatistics
from privsyn_jax.transforms.tokens import PAD
from privsyn_jax.types import Tokens

_IMPOSSIBLE = -1e9
_BLOCK = 64  # texts drawn at once: few enough that what a network remembers of them stays in the cache


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How texts are drawn.

    Attributes:
      length: tokens of a text, at most.
      temperature: logits of heads are divided by it.
      top_p: only the most likely heads are drawn, as few as have this probability together.
      min_length: tokens before an END, at least.
      label_strength: what words by class differ by, in log probability, is multiplied with it. It makes a class clearer
        in fewer texts, and is none of the texts' own: 1 draws what was learned.

    Raises:
      ValueError: a setting that makes no sense.
    """

    length: int
    temperature: float
    top_p: float
    min_length: int
    label_strength: float

    def __post_init__(self):
        for name in ("temperature", "label_strength"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} {getattr(self, name)} must be above 0")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p {self.top_p} must be above 0, at most 1")
        if not 0 <= self.min_length < self.length:
            raise ValueError(
                f"min_length {self.min_length} must be from 0 to below the {self.length} tokens of tokens.max_length"
            )


def draw_head(logits: jax.Array, position: jax.Array, uniform: jax.Array, sampling: Sampling) -> jax.Array:
    """One head: from the smallest set of most likely ones whose probability is at least top_p, and no END too early.

    Args:
      logits: float [num_heads].
      position: of the token in the text, from 0.
      uniform: variate from 0 to below 1: one draw, where jax.random.categorical takes one for every head.

    Source: Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration", section 3.1.
    """
    early = position < sampling.min_length
    logits = jnp.where(early, logits.at[END_HEAD].set(_IMPOSSIBLE), logits) / sampling.temperature
    if sampling.top_p < 1.0:
        ordered = jnp.sort(logits)[::-1]
        before = jnp.cumsum(jax.nn.softmax(ordered)) - jax.nn.softmax(ordered)
        least = jnp.where(before < sampling.top_p, ordered, jnp.inf).min()
        logits = jnp.where(logits >= least, logits, _IMPOSSIBLE)
    cumulated = jnp.cumsum(jax.nn.softmax(logits))
    drawn = (cumulated <= uniform * cumulated[-1]).sum()
    return jnp.minimum(drawn, len(logits) - 1).astype(jnp.int32)


def draw_one(
    words: WordStatistics,
    start: Callable[..., Any],
    step: Callable[..., tuple[Any, jax.Array]],
    sampling: Sampling,
    params: Any,
    shared: jax.Array,
    label: jax.Array,
    key: jax.Array,
) -> jax.Array:
    """int32 ids [length] of one text.

    Args:
      start, step: see `sampler`.
      shared: see `_shared_heads`.
    """
    start_key, draw_key = jax.random.split(key)
    uniforms = jax.random.uniform(draw_key, (sampling.length, 2))

    def draw(state, of_position):
        carry, before, is_over = state
        position, uniform = of_position
        carry, corrections = step(params, label, carry, before, position)
        logits = corrections + words.log_weights(params["public"], label, before, position)
        head = jnp.where(is_over, END_HEAD, draw_head(logits, position, uniform, sampling))
        return (carry, head, is_over | (head == END_HEAD)), (head, is_over)

    first = (start(params, label, start_key), jnp.int32(words.num_heads), jnp.bool_(False))
    _, (heads, is_over) = jax.lax.scan(draw, first, (jnp.arange(sampling.length), uniforms[:, 0]))
    search = functools.partial(jnp.searchsorted, side="right")
    members = jax.vmap(lambda row: search(row, uniforms[:, 1] * row[-1]))(shared[label])
    kinds = jnp.maximum(heads - words.num_alone, 0)
    member = jnp.minimum(jnp.take_along_axis(members, kinds[None], axis=0)[0], words.num_tokens - 1)
    alone = params["public"]["alone"][jnp.minimum(heads, words.num_alone - 1)]
    ids = jnp.where(heads < words.num_alone, alone, member)
    return jnp.where(is_over, PAD, ids).astype(jnp.int32)


def sampler(
    words: WordStatistics,
    start: Callable[..., Any],
    step: Callable[..., tuple[Any, jax.Array]],
    sampling: Sampling,
) -> Callable[..., Tokens]:
    """`Generator.sample` of texts; classes evenly, unless condition 0 sets one.

    Args:
      start: (params, label, key) -> carry, what the network remembers before the first token.
      step: (params, label, carry, head before, position) -> (carry, corrections [num_heads] of the released logits);
        num_heads as the head before stands for the start of the text.
    """
    one = functools.partial(draw_one, words, start, step, sampling)

    @jax.jit
    def draw_block(params, labels, keys):
        params = {**params, "public": _sharpened(params["public"], sampling.label_strength)}
        draw = jax.vmap(one, in_axes=(None, None, 0, 0))
        return draw(params, _shared_heads(words, params["public"]), labels, keys)

    def sample(params: Any, key: jax.Array, num_samples: int, conditions: Mapping[int, int] | None = None) -> Tokens:
        labels = np.arange(num_samples, dtype=np.int32) % words.num_classes
        if conditions:
            labels[:] = conditions[0]
        params, found = jax.device_put(params), []
        for number, begin in enumerate(range(0, num_samples, _BLOCK)):
            keys = jax.random.split(jax.random.fold_in(key, number), _BLOCK)
            found.append(np.asarray(draw_block(params, np.resize(labels[begin : begin + _BLOCK], _BLOCK), keys)))
        return Tokens(np.concatenate(found)[:num_samples], labels)

    return sample


def _sharpened(public: Any, strength: float) -> Any:
    """Tables whose classes differ `strength` times as much."""
    if strength == 1.0:
        return public
    tables = {name: public[name] for name in ("by_class", "members")}
    means = {name: table.mean(axis=0, keepdims=True) for name, table in tables.items()}
    return {**public, **{name: means[name] + strength * (table - means[name]) for name, table in tables.items()}}


def _shared_heads(words: WordStatistics, public: Any) -> jax.Array:
    """Cumulated weights of the tokens that share a head [num_classes, number of kinds, num_tokens]."""
    shared = jnp.arange(words.num_alone, words.num_heads)
    is_member = (public["heads"][None, :] == shared[:, None]) & (jnp.arange(words.num_tokens) != PAD)[None, :]
    return jnp.cumsum(jnp.where(is_member[None], jnp.exp(public["members"])[:, None, :], 0.0), axis=-1)
