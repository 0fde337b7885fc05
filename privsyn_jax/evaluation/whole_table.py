"""Distances between two samples of whole records; jitted, lower is better."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from privsyn_jax.evaluation.record_vectors import RecordVectors, squared_distances

_BANDWIDTH_ROWS = 1000  # records whose distances give the bandwidth


@functools.partial(jax.jit, static_argnames="num_projections")
def sliced_wasserstein(real, synthetic, *, key, num_projections=128):
    """Sliced 1-Wasserstein distance between two samples of equal size.

    Mean over random directions of the exact distance between sorted projections.

    Args:
      real: float [n, d], every column scaled to [0, 1] by its public bounds, see `record_vectors.as_matrix`.
      synthetic: float [n, d], scaled the same way.
      key: draws the directions; share it between tables being compared.
      num_projections: number of directions (static: a new value recompiles).

    Returns:
      Scalar >= 0 in units of a scaled column; 0 for equal samples. Samples of one law differ too, by about 1 / sqrt(n).

    Raises:
      ValueError: the shapes differ.

    Source: Rabin et al. 2011, "Wasserstein Barycenter and its Application to Texture Mixing".
    """
    if real.shape != synthetic.shape:
        raise ValueError(f"real {real.shape} and synthetic {synthetic.shape} must share one shape [n, d]")
    directions = jax.random.normal(key, (num_projections, real.shape[1]))
    directions /= jnp.linalg.norm(directions, axis=1, keepdims=True)

    def sorted_projections(sample):
        return jnp.sort(jnp.matmul(directions, sample.T, precision=jax.lax.Precision.HIGHEST), axis=1)

    return jnp.mean(jnp.abs(sorted_projections(real) - sorted_projections(synthetic)))


@jax.jit
def maximum_mean_discrepancy(real: RecordVectors, synthetic: RecordVectors, bandwidth):
    """Maximum mean discrepancy with the Gaussian kernel exp(-distance² / (2 bandwidth²)).

    The root of the unbiased estimate of its square, 0 where that is negative. Memory is O(n² + nm + m²).

    Args:
      real: n >= 2 records.
      synthetic: m >= 2 records, encoded the same way.
      bandwidth: > 0, in units of the distance; see `median_distance`.

    Returns:
      Scalar in [0, sqrt(2)]. Samples of one law are about n^(-1/2) apart or 0.

    Source: Gretton et al. 2012, "A Kernel Two-Sample Test", equation 3.
    """

    def kernel(one, other):
        return jnp.exp(-squared_distances(one, other) / (2 * jnp.square(bandwidth)))

    def mean_of_others(sample):
        size = len(sample.numbers)
        own = kernel(sample, sample)
        return jnp.sum(jnp.mean(jnp.where(jnp.eye(size, dtype=bool), 0.0, own), axis=1)) / (size - 1)

    across = jnp.mean(jnp.mean(kernel(real, synthetic), axis=1))
    return jnp.sqrt(jnp.maximum(mean_of_others(real) + mean_of_others(synthetic) - 2 * across, 0.0))


def median_distance(real: RecordVectors) -> float:
    """Bandwidth by the median heuristic: the median distance between two real records.

    Of the first 1000 records, which should be in random order. Their mean distance if the median is 0 (most records are
    equal), and 1 if that is 0 too.

    Args:
      real: n >= 2 records.

    Source: Gretton et al. 2012, section 8.
    """
    few = RecordVectors(*(block[:_BANDWIDTH_ROWS] for block in real))
    distances = np.sqrt(np.asarray(squared_distances(few, few), np.float64))
    distances = distances[np.triu_indices(len(distances), k=1)]
    return float(np.median(distances)) or float(distances.mean()) or 1.0
