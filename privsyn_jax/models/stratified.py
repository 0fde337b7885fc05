"""Draws of codes by inversion, from uniform numbers that are stratified among neighbours in an order."""

from __future__ import annotations

import jax
import jax.numpy as jnp

_STRATA = 64  # consecutive rows that share them; divides the number of rows


def dense_ranks(values):
    """Int32 [n]: how many different smaller values there are."""
    order = jnp.argsort(values)
    is_new = jnp.concatenate([jnp.zeros(1, bool), values[order[1:]] != values[order[:-1]]])
    return jnp.zeros_like(values).at[order].set(jnp.cumsum(is_new).astype(values.dtype))


def stratified(key, order):
    """Uniform numbers [n]; of every _STRATA that follow each other in `order`, one is in each of as many strata."""
    strata_key, inside_key = jax.random.split(key)
    strata = jnp.argsort(jax.random.uniform(strata_key, (len(order) // _STRATA, _STRATA)), axis=1)
    inside = jax.random.uniform(inside_key, strata.shape)
    return jnp.zeros(len(order)).at[order].set(((strata + inside) / _STRATA).ravel())


def inverted(scores, uniform):
    """int [n]: codes at which the cumulative softmax of scores [n, S] passes uniform [n]; none of probability 0."""
    probabilities = jax.nn.softmax(scores, axis=-1)
    cumulative = jnp.where(probabilities > 0, jnp.cumsum(probabilities, axis=-1), -1.0)
    cumulative = jax.lax.cummax(cumulative, axis=1)  # rounding may have made it fall; no step where there is no code
    total = cumulative[:, -1]
    threshold = jnp.minimum(uniform * total, jnp.nextafter(total, 0.0))
    return (threshold[:, None] >= cumulative).sum(axis=-1)
