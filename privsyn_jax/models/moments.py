"""Sizes, means and covariances of groups of vectors out of one noisy sum over records.

A record adds (1, its vector, the products of its vector's entries), weighted so that all of it has L2 norm at most 1;
everything after the noise is post-processing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

WEIGHTS = (0.02, 0.1, 0.88)  # squared, of the size, the mean and the products: of sum 1


class Moments(NamedTuple):
    """What a noisy sum says of every group; `noise` is the stddev of a covariance's entries off the diagonal."""

    sizes: np.ndarray  # [g]
    means: np.ndarray  # [g, m]
    covariances: np.ndarray  # [g, m, m]
    noise: np.ndarray  # [g]


def products(vector: Any, variances: Any = 0.0, weights: Sequence[float] = WEIGHTS) -> Any:
    """What a record adds: [1 + m + m (m + 1) / 2] of L2 norm at most 1.

    Args:
      vector: float [m]; longer ones than 1 are scaled down to it.
      variances: of the entries where the vector is the mean of a distribution, [m]: its second moments are then those
        of the distribution, and scaled down to norm 1.
      weights: of the three parts, squared, of sum 1.
    """
    vector = within_unit(vector)
    rows, columns = np.triu_indices(vector.shape[0])
    twice = np.where(rows == columns, 1.0, math.sqrt(2.0)).astype(np.float32)  # the norm of all products is kept
    own = jnp.diag(jnp.zeros(vector.shape) + variances)
    parts = [jnp.ones(1), vector, within_unit(twice * (vector[rows] * vector[columns] + own[rows, columns]))]
    return weighted(parts, weights)


def moments_of(noisy_sum: np.ndarray, stddev: float, largest: float, weights: Sequence[float] = WEIGHTS) -> Moments:
    """Inverts `products` of vectors divided by `largest`, from sums [g, 1 + m + m (m + 1) / 2]."""
    size_weight, mean_weight, weight = (math.sqrt(share) for share in weights)
    m = round((math.sqrt(8 * noisy_sum.shape[1] + 1) - 3) / 2)
    sizes = sizes_of(noisy_sum[:, 0], size_weight, stddev)
    means = noisy_sum[:, 1 : 1 + m] * (largest / mean_weight) / sizes[:, None]
    rows, columns = np.triu_indices(m)
    twice = np.where(rows == columns, 1.0, math.sqrt(2.0))
    seconds = np.zeros((len(sizes), m, m))
    seconds[:, rows, columns] = noisy_sum[:, 1 + m :] * (largest**2 / weight) / sizes[:, None] / twice[None]
    seconds[:, columns, rows] = seconds[:, rows, columns]
    noise = stddev * largest**2 / weight / sizes / math.sqrt(2)
    return Moments(sizes, means, seconds - means[:, :, None] * means[:, None, :], noise)


def within_unit(vector: Any) -> Any:
    return vector / jnp.maximum(1.0, jnp.linalg.norm(vector))


def weighted(parts: Sequence[Any], squared_weights: Sequence[float]) -> Any:
    """One vector of norm at most 1 of parts of norm at most 1."""
    return jnp.concatenate([math.sqrt(w) * part for w, part in zip(squared_weights, parts, strict=True)])


def sizes_of(noisy: np.ndarray, weight: float, stddev: float) -> np.ndarray:
    """Sizes of groups; one that is lost in the noise is taken to be as large as the noise."""
    return np.maximum(noisy / weight, max(1.0, stddev / weight))


def cleaned(parent: np.ndarray, matrix: np.ndarray, noise: float) -> np.ndarray:
    """The covariance nearest to `denoised`."""
    values, vectors = np.linalg.eigh(denoised(parent, matrix, noise))
    return (vectors * np.maximum(values, 0.0)) @ vectors.T


def denoised(parent: np.ndarray, matrix: np.ndarray, noise: float) -> np.ndarray:
    """The symmetric `parent` plus what in `matrix` - `parent` stands out from the noise.

    Symmetric noise of entries with stddev s has eigenvalues up to e = 2 s sqrt(m); sqrt(value^2 - e^2) is the best
    guess, in mean squared error, at a value outside. Source: Shabalin and Nobel 2013, "Reconstruction of a Low-rank
    Matrix in the Presence of Gaussian Noise" (for matrices that are not symmetric).
    """
    values, vectors = np.linalg.eigh(matrix - parent)
    edge = 2.0 * noise * math.sqrt(len(matrix))
    values = np.sign(values) * np.sqrt(np.maximum(np.square(values) - edge**2, 0.0))
    return parent + (vectors * values) @ vectors.T


def factors_of(covariances: np.ndarray) -> np.ndarray:
    """A with A A' = covariance, of every group [g, m, m]; negative eigenvalues count as 0."""
    values, vectors = np.linalg.eigh(covariances)
    return vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]
