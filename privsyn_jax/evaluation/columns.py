"""How far one column of a synthetic table is from the real one; jitted, lower is better for all distances.

Most take two histograms over common levels. With the distinct values of both samples as the levels (`ordering.py`)
that is exact for numbers too, and one sort on the host serves every metric.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from privsyn_jax.evaluation.sums import tree_sum


class Moments(NamedTuple):
    """Of d columns, over the values present: mean, standard deviation (divided by n), skewness, excess kurtosis.

    Each [d]. The mean and standard deviation are NaN for a column without values, the others for a constant one too.
    """

    mean: jax.Array | np.ndarray
    stddev: jax.Array | np.ndarray
    skewness: jax.Array | np.ndarray
    kurtosis: jax.Array | np.ndarray


@jax.jit
def jensen_shannon(real_counts, synthetic_counts):
    """Jensen-Shannon distance of two histograms: the root of the divergence in bits, a metric.

    Args:
      real_counts: [..., L] number of records per level.
      synthetic_counts: [..., L], the same levels.

    Returns:
      [...] in [0, 1]; 0 for proportional histograms, 1 for disjoint ones. NaN if either is empty.

    Source: Lin 1991, "Divergence measures based on the Shannon entropy"; Endres and Schindelin 2003, "A new metric for
      probability distributions".
    """
    real = real_counts / jnp.sum(real_counts, axis=-1, keepdims=True)
    synthetic = synthetic_counts / jnp.sum(synthetic_counts, axis=-1, keepdims=True)
    middle = 0.5 * (real + synthetic)
    tilt = 0.5 * (real - synthetic) / jnp.where(middle > 0, middle, 1.0)
    # (1 + t) log(1 + t) + (1 - t) log(1 - t); its series where the two terms nearly cancel.
    square = jnp.square(tilt)
    series = square * (1 + square * (1 / 6 + square * (1 / 15)))
    exact = jax.scipy.special.xlogy(1 + tilt, 1 + tilt) + jax.scipy.special.xlogy(1 - tilt, 1 - tilt)
    nats = 0.5 * jnp.sum(middle * jnp.where(square < 0.01, series, exact), axis=-1)
    return jnp.sqrt(jnp.clip(nats / jnp.log(2.0), 0.0, 1.0))


@jax.jit
def kolmogorov_smirnov(real_counts, synthetic_counts):
    """Kolmogorov-Smirnov statistic: the largest gap between two distribution functions.

    Args:
      real_counts: int [..., L] number of records per level, levels in increasing order.
      synthetic_counts: int [..., L], the same levels.

    Returns:
      [...] in [0, 1]; 0 for equal samples, 1 if all of one lies below all of the other. NaN if either is empty.

    Source: Smirnov 1948, "Table for estimating the goodness of fit of empirical distributions".
    """
    return jnp.max(jnp.abs(_distribution_gap(real_counts, synthetic_counts)), axis=-1)


@jax.jit
def wasserstein(real_counts, synthetic_counts, widths):
    """1-Wasserstein (earth mover's) distance between two samples of one column, exactly.

    The area between the two empirical distribution functions.

    Args:
      real_counts: int [..., L] how often each value occurs, values in increasing order.
      synthetic_counts: int [..., L], the same values.
      widths: float [..., L], from each value to the next; the last is not used (0).

    Returns:
      [...] >= 0 in units of the values; 0 for equal samples. NaN if either is empty.

    Source: Vallender 1974, "Calculation of the Wasserstein distance between probability distributions on the line".
    """
    area = jnp.abs(_distribution_gap(real_counts, synthetic_counts)) * widths
    return tree_sum(jnp.moveaxis(area, -1, 0))


@jax.jit
def moments(values):
    """Mean, standard deviation, skewness and excess kurtosis of each column.

    Args:
      values: float [n, d]; NaN is missing.

    Returns:
      Moments, each [d], in units of the columns (the first two) or without a unit.
    """
    is_present = ~jnp.isnan(values)
    count = jnp.sum(is_present, axis=0)

    def mean_of(terms):
        return tree_sum(jnp.where(is_present, terms, 0.0)) / count

    mean = mean_of(values)
    correction = mean_of(values - mean[None, :])  # what rounding left
    centred = values - mean[None, :] - correction[None, :]
    spread = jnp.max(jnp.where(is_present, values, -jnp.inf), axis=0) - jnp.min(
        jnp.where(is_present, values, jnp.inf), axis=0
    )
    scale = jnp.where(spread > 0, spread, 1.0)
    relative = centred / scale[None, :]  # in [-1, 1]: high powers of small numbers do not vanish
    variance, third, fourth = (mean_of(relative**power) for power in (2, 3, 4))
    variance = jnp.where(spread > 0, variance, 0.0)
    divisor = jnp.where(spread > 0, variance, jnp.nan)
    return Moments(
        mean=mean + correction,
        stddev=jnp.where(count > 0, jnp.sqrt(variance) * scale, jnp.nan),
        skewness=third / divisor**1.5,
        kurtosis=fourth / jnp.square(divisor) - 3.0,
    )


def _distribution_gap(real_counts, synthetic_counts):
    """Difference [..., L] of two distribution functions, exactly 0 where equal samples are."""
    real = jnp.cumsum(real_counts, axis=-1)
    synthetic = jnp.cumsum(synthetic_counts, axis=-1)
    num_real, num_synthetic = real[..., -1:], synthetic[..., -1:]
    # real / num_real - synthetic / num_synthetic: counts are subtracted as integers as far as they go.
    excess = (real - synthetic) / num_synthetic
    return excess + real * ((num_synthetic - num_real) / num_synthetic / num_real)
