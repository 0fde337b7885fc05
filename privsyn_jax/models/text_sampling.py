"""Drawing texts token by token, the same way for every generator of texts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from privsyn_jax.transforms.tokens import END, PAD
from privsyn_jax.types import Tokens

_IMPOSSIBLE = -1e9
_BLOCK = 256  # texts drawn at once


def check_sampling(*, temperature: float, top_p: float, min_length: int, length: int) -> None:
    """Raises ValueError for settings of sampling that make no sense."""
    if not temperature > 0:
        raise ValueError(f"temperature {temperature} must be above 0")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p {top_p} must be above 0, at most 1")
    if not 0 <= min_length < length:
        raise ValueError(f"min_length {min_length} must be from 0 to below the {length} tokens of tokens.max_length")


def draw_token(
    logits: jax.Array, position: jax.Array, key: jax.Array, *, temperature: float, top_p: float, min_length: int
) -> jax.Array:
    """One id: from the smallest set of most likely ones whose probability is at least top_p, and no END too early.

    Args:
      logits: float [num_tokens].
      position: of the token in the text, from 0.
      key: of the draw.

    Source: Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration", section 3.1.
    """
    logits = logits.at[PAD].set(_IMPOSSIBLE)
    logits = jnp.where(position < min_length, logits.at[END].set(_IMPOSSIBLE), logits) / temperature
    if top_p < 1.0:
        ordered = jnp.sort(logits)[::-1]
        before = jnp.cumsum(jax.nn.softmax(ordered)) - jax.nn.softmax(ordered)
        least = jnp.where(before < top_p, ordered, jnp.inf).min()
        logits = jnp.where(logits >= least, logits, _IMPOSSIBLE)
    cumulated = jnp.cumsum(jax.nn.softmax(logits))  # one uniform variate, where categorical() takes one for every id
    drawn = (cumulated <= jax.random.uniform(key) * cumulated[-1]).sum()
    return jnp.minimum(drawn, len(logits) - 1).astype(jnp.int32)


def draw_one(
    start: Callable[..., Any],
    step: Callable[..., tuple[Any, jax.Array]],
    params: Any,
    label: jax.Array,
    key: jax.Array,
    *,
    num_tokens: int,
    length: int,
    choose: Callable[..., jax.Array],
) -> jax.Array:
    """int32 ids [length] of one text.

    Args:
      start: (params, label, key) -> carry, what the network remembers before the first token.
      step: (params, label, carry, id before, position) -> (carry, logits [num_tokens]); num_tokens as the id before
        stands for the start of the text.
      choose: (logits, position, key) -> id, see `draw_token`.
    """
    start_key, token_key = jax.random.split(key)

    def draw(state, position):
        carry, before, is_over = state
        carry, logits = step(params, label, carry, before, position)
        drawn = choose(logits, position, jax.random.fold_in(token_key, position))
        drawn = jnp.where(is_over, PAD, drawn)
        is_over = is_over | (drawn == END)
        return (carry, jnp.where(is_over, END, drawn), is_over), drawn

    first = (start(params, label, start_key), jnp.int32(num_tokens), jnp.bool_(False))
    _, ids = jax.lax.scan(draw, first, jnp.arange(length))
    return ids


def sampler(
    start: Callable[..., Any],
    step: Callable[..., tuple[Any, jax.Array]],
    *,
    num_tokens: int,
    num_classes: int,
    length: int,
    temperature: float,
    top_p: float,
    min_length: int,
) -> Callable[..., Tokens]:
    """`Generator.sample` of texts, see `draw_one`; classes evenly, unless condition 0 sets one."""
    choose = functools.partial(draw_token, temperature=temperature, top_p=top_p, min_length=min_length)
    one = functools.partial(draw_one, start, step, num_tokens=num_tokens, length=length, choose=choose)
    draw_block = jax.jit(jax.vmap(one, in_axes=(None, 0, 0)))

    def sample(params: Any, key: jax.Array, num_samples: int, conditions: Mapping[int, int] | None = None) -> Tokens:
        labels = np.arange(num_samples, dtype=np.int32) % num_classes
        if conditions:
            labels[:] = conditions[0]
        params, found = jax.device_put(params), []
        for number, begin in enumerate(range(0, num_samples, _BLOCK)):
            keys = jax.random.split(jax.random.fold_in(key, number), _BLOCK)
            found.append(np.asarray(draw_block(params, np.resize(labels[begin : begin + _BLOCK], _BLOCK), keys)))
        return Tokens(np.concatenate(found)[:num_samples], labels)

    return sample


def token_losses(logits: jax.Array, ids: jax.Array) -> jax.Array:
    """Minus log probability of every id [length], 0 for padding; PAD itself can never be drawn.

    Args:
      logits: float [length, num_tokens].
    """
    log_probs = jax.nn.log_softmax(logits.at[:, PAD].set(_IMPOSSIBLE), axis=-1)
    found = jnp.take_along_axis(log_probs, ids[:, None], axis=-1)[:, 0]
    return jnp.where(ids == PAD, 0.0, -found)


def ids_before(ids: jax.Array, num_tokens: int) -> jax.Array:
    """The id before every position [length]; num_tokens before the first."""
    return jnp.concatenate([jnp.full((1,), num_tokens, ids.dtype), ids[:-1]])
