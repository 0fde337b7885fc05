"""Gaussian noise on the device, and noise for one-off releases on the host."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from scipy.special import ndtri

_LANES = 128


def add_gaussian_noise(tree: Any, *, stddev: jax.Array | float, key: jax.Array) -> Any:
    """Adds independent N(0, stddev^2) to every entry of a float32 pytree; see `standard_normal`."""
    noisy, _ = add_correlated_noise(tree, (), (1.0,), stddev=stddev, key=key)
    return noisy


def add_correlated_noise(
    tree: Any, memory: Any, coefficients: Sequence[float], *, stddev: jax.Array | float, key: jax.Array
) -> tuple[Any, Any]:
    """Adds stddev times this step's row of C^-1 Z, for a banded Toeplitz matrix C and standard normal Z.

    Row t of Y = C^-1 Z follows from the rows before: y_t = (z_t - sum_j coefficients[j] y_(t-j)) / coefficients[0].
    With the single coefficient 1 the noise is independent from step to step.

    Args:
      tree: float32 pytree of n entries in all.
      memory: the last len(coefficients) - 1 rows of Y, see `noise_memory`.
      coefficients: of the bands of C, with L2 norm 1.

    Returns:
      the noisy tree; the memory of the next step.

    Source: Choquette-Choo et al. 2023, "(Amplified) Banded Matrix Factorization", section 3.
    """
    flat, unravel = ravel_pytree(jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tree))
    noise = standard_normal(key, flat.size)
    if len(coefficients) > 1:
        first, later = coefficients[0], jnp.asarray(coefficients[1:], jnp.float32)
        noise = (noise - jnp.einsum("j,jn->n", later, memory, precision="highest")) / first
        memory = jnp.concatenate([noise[None], memory[:-1]])
    return unravel(flat + stddev * noise), memory


def noise_memory(tree: Any, coefficients: Sequence[float]) -> Any:
    """The memory before the first step: float32 [len(coefficients) - 1, n], or () without correlation."""
    if len(coefficients) == 1:
        return ()
    return jnp.zeros((len(coefficients) - 1, sum(leaf.size for leaf in jax.tree.leaves(tree))), jnp.float32)


def standard_normal(key: jax.Array, size: int) -> jax.Array:
    """Float32 [size], independent N(0, 1): each the sum of four standard normals divided by two.

    One float32 normal has its tails cut near 5.4 standard deviations and few distinct values near zero; the sum of four
    reaches 10.8 and hides the grid of the single draws.

    Source: Holohan and Braghin 2021, "Secure Random Sampling in Differential Privacy", section 4.
    """
    # One after the other: as one array [4, n] they would go through memory. XLA does not vectorise arrays of an odd
    # length, and without the barrier may draw once for every leaf.
    padded = -(-size // _LANES) * _LANES
    draws = sum(jax.random.normal(draw_key, (padded,), jnp.float32) for draw_key in jax.random.split(key, 4))
    return 0.5 * jax.lax.optimization_barrier(draws)[:size]


class HostNoise:
    """Float64 noise and whole-number noise for one-off releases.

    Args:
      source: None draws from the operating system. Bytes are a secret of at least 128 bits that SHAKE-256 stretches:
        the same calls give the same noise again. A number seeds a stream that anyone can repeat: NOT secret.
    """

    def __init__(self, source: int | bytes | None):
        self._secret, self._num_reads = source if isinstance(source, bytes) else None, 0
        self._seeded = np.random.Generator(np.random.Philox(source)) if isinstance(source, int) else None

    def normal(self, shape: tuple[int, ...], *, stddev: float) -> np.ndarray:
        """Array of independent N(0, stddev^2), float64."""
        return stddev * ndtri(self.uniform(shape))

    def gumbel(self, shape: tuple[int, ...]) -> np.ndarray:
        """Array of independent standard Gumbel variates: added to log weights, their argmax is a draw by weight."""
        return -np.log(-np.log(self.uniform(shape)))

    def uniform(self, shape: tuple[int, ...]) -> np.ndarray:
        """Array of independent uniform variates in (0, 1), float64."""
        count = int(np.prod(shape, dtype=np.int64))
        words = np.frombuffer(self._bytes(8 * count), dtype=np.uint64)
        # The midpoints of 2^52 equal cells of (0, 1): exact in float64, never 0 or 1, tails of a normal to 8.1 sigma.
        return (((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52).reshape(shape)

    def below(self, bound: int) -> int:
        """Whole number, uniform in [0, bound), exactly."""
        num_bytes = (bound.bit_length() + 7) // 8
        limit = (1 << 8 * num_bytes) // bound * bound
        while (drawn := int.from_bytes(self._bytes(num_bytes), "big")) >= limit:
            pass
        return drawn % bound

    def discrete_gaussian(self, stddev: float) -> int:
        """Whole number with probability proportional to exp(-x^2 / (2 stddev^2)), by whole-number arithmetic alone.

        Raises:
          ValueError: stddev is not a positive number.

        Source: Canonne, Kamath and Steinke 2020, "The Discrete Gaussian for Differential Privacy", Algorithm 3.
        """
        variance = _positive(stddev, "stddev") ** 2
        scale = math.floor(stddev) + 1
        while True:
            drawn = self.discrete_laplace(scale)
            excess = abs(drawn) - variance / scale
            if self._bernoulli_exp(excess * excess / (2 * variance)):
                return drawn

    def discrete_laplace(self, scale: float) -> int:
        """Whole number with probability proportional to exp(-|x| / scale), by whole-number arithmetic alone.

        Raises:
          ValueError: scale is not a positive number.

        Source: Canonne, Kamath and Steinke 2020, Algorithm 2.
        """
        steps, divisor = _positive(scale, "scale").as_integer_ratio()
        while True:
            rest = self.below(steps)
            if not self._bernoulli_exp(Fraction(rest, steps)):
                continue
            whole = 0
            while self._bernoulli_exp(Fraction(1)):
                whole += 1
            magnitude, is_negative = (rest + steps * whole) // divisor, self.below(2) == 1
            if magnitude or not is_negative:
                return -magnitude if is_negative else magnitude

    def _bernoulli_exp(self, exponent: Fraction) -> bool:
        """True with probability exp(-exponent), for a fraction of 0 or more."""
        while exponent > 1:
            if not self._bernoulli_exp(Fraction(1)):
                return False
            exponent -= 1
        trials = 1
        while self.below(exponent.denominator * trials) < exponent.numerator:
            trials += 1
        return trials % 2 == 1

    def _bytes(self, count: int) -> bytes:
        if self._seeded is not None:
            return self._seeded.bytes(count)
        if self._secret is None:
            return os.urandom(count)
        self._num_reads += 1
        return hashlib.shake_256(self._secret + self._num_reads.to_bytes(8, "big")).digest(count)


def _positive(value: float, name: str) -> Fraction:
    """The float exactly."""
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} {value} must be a positive number")
    return Fraction(value)
