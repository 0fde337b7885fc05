"""Euclidean distances of vectors to their nearest ones: jitted, in blocks of queries."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

_BLOCK = 128  # queries at a time


def nearest_vectors(queries: np.ndarray, candidates: np.ndarray, k: int = 1) -> np.ndarray:
    """Distances to the k nearest of the candidates float [m, d], m at least k, of each of the queries [n, d].

    The neighbours are found by scalar products in float32 and their distances then computed from differences, so that
    a copy has distance 0.

    Returns:
      float64 [n, k], nearest first.
    """
    centre = candidates.mean(axis=0, keepdims=True)  # small numbers lose less in the scalar products
    moved = jnp.asarray(candidates - centre, jnp.float32)
    blocks = np.minimum(np.arange(-(-len(queries) // _BLOCK) * _BLOCK), len(queries) - 1).reshape(-1, _BLOCK)
    found = [_nearest(jnp.asarray(queries[block] - centre, jnp.float32), moved, k=k) for block in blocks]
    index = np.concatenate([np.asarray(part) for part in found])[: len(queries)]
    squares = [np.square(queries - candidates[places]).sum(axis=1, dtype=np.float64) for places in index.T]
    return np.sort(np.sqrt(np.stack(squares, axis=1)), axis=1)


@functools.partial(jax.jit, static_argnames="k")
def _nearest(queries, candidates, *, k: int):
    products = jnp.matmul(queries, candidates.T, precision="highest")
    return jax.lax.top_k(2 * products - jnp.square(candidates).sum(axis=1)[None, :], k)[1]
