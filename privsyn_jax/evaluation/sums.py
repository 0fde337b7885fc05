"""Sums of very many float32 numbers that keep their digits."""

from __future__ import annotations

import jax
import jax.numpy as jnp

CHUNK_ROWS = 4096  # rows of one matrix product
_GROUP = 128


def tree_sum(values: jax.Array) -> jax.Array:
    """Sum over the first axis in groups of 128, groups of groups and so on: few roundings lie on the way of a term.

    Args:
      values: float [n, ...].

    Returns:
      [...], with a relative error of some tens of roundings of the sum of absolute values, whatever n is.
    """
    while len(values) > 1:
        size = min(_GROUP, len(values))
        padding = [(0, -len(values) % size)] + [(0, 0)] * (values.ndim - 1)
        values = jnp.sum(jnp.pad(values, padding).reshape(-1, size, *values.shape[1:]), axis=1)
    return jnp.sum(values, axis=0)


def row_product(left: jax.Array, right: jax.Array) -> jax.Array:
    """left.T @ right over very many rows: chunks of rows first, then the sum of the chunks.

    Args:
      left: float [n, d].
      right: float [n, e].

    Returns:
      [d, e].
    """
    padding = -len(left) % CHUNK_ROWS
    left, right = (
        jnp.pad(side, ((0, padding), (0, 0))).reshape(-1, CHUNK_ROWS, side.shape[1]) for side in (left, right)
    )
    return tree_sum(jnp.einsum("cnd,cne->cde", left, right, precision=jax.lax.Precision.HIGHEST))
