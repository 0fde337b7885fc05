"""Gaussian noise and the secret keys that draw it."""

from __future__ import annotations

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from scipy.special import ndtri

_LANES = 128


def secret_key(seed: int | None) -> jax.Array:
    """PRNG key for noise and sampling: 64 bits of OS entropy, or from `seed` (then NOT secret).

    A seeded run is reproducible and, to anyone who knows the seed, not private.
    """
    if seed is not None:
        return jax.random.key(seed, impl="threefry2x32")
    words = np.frombuffer(os.urandom(8), dtype=np.uint32)
    return jax.random.wrap_key_data(jnp.asarray(words), impl="threefry2x32")


def add_gaussian_noise(tree: Any, *, stddev: jax.Array | float, key: jax.Array) -> Any:
    """Adds independent N(0, stddev^2) to every entry of a float32 pytree.

    Each variate is the sum of four standard normals divided by two. One float32 normal has its tails
    cut near 5.4 standard deviations and few distinct values near zero; the sum of four reaches 10.8 and
    hides the grid of the single draws.

    Source: Holohan and Braghin 2021, "Secure Random Sampling in Differential Privacy", section 4.
    """
    flat, unravel = ravel_pytree(jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tree))
    # One after the other: as one array [4, n] they would go through memory. XLA does not vectorise arrays of an odd
    # length, and without the barrier may draw once for every leaf.
    size = -(-flat.size // _LANES) * _LANES
    draws = sum(jax.random.normal(draw_key, (size,), jnp.float32) for draw_key in jax.random.split(key, 4))
    return unravel(flat + stddev * 0.5 * jax.lax.optimization_barrier(draws)[: flat.size])


class HostNoise:
    """Float64 Gaussian noise for one-off releases, from os.urandom (or a seeded stream, NOT secret)."""

    def __init__(self, seed: int | None):
        self._seeded = None if seed is None else np.random.Generator(np.random.Philox(seed))

    def normal(self, shape: tuple[int, ...], *, stddev: float) -> np.ndarray:
        """Array of independent N(0, stddev^2), float64."""
        count = int(np.prod(shape, dtype=np.int64))
        raw = os.urandom(8 * count) if self._seeded is None else self._seeded.bytes(8 * count)
        words = np.frombuffer(raw, dtype=np.uint64)
        # The midpoints of 2^52 equal cells of (0, 1): exact in float64, never 0 or 1, tails to 8.1 sigma.
        uniform = ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
        return stddev * ndtri(uniform).reshape(shape)
