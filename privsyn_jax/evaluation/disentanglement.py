"""How far the latents of a representation are the known factors behind the images, one by one."""

from __future__ import annotations

import numpy as np


def mutual_information_gap(latents, factors, num_bins: int = 20) -> tuple[float, np.ndarray]:
    """Mutual information gap: how much more the best latent tells of a factor than the next best.

    Each latent is cut into bins of equal counts, so that only the order of its values matters, and its mutual
    information with each factor is that of the table of counts. It is biased upwards, by about
    (num_bins - 1)(values - 1) / 2n nats for a latent that tells nothing; the gap, a difference of two, much less so.

    Args:
      latents: float [n, d], d at least 2; means of the posterior, say.
      factors: int [n, k], each with at least two values.
      num_bins: of every latent. Fewer than a factor has values bounds its gap below 1.

    Returns:
      The mean over factors, and the gap of each factor [k]: (largest - second largest mutual information) / entropy of
      the factor. In [0, 1] but for rounding; higher is better. 1: one latent alone tells the factor exactly, and no
      other tells anything of it; 0: two tell equally much, or none anything. A factor's gap is not lowered by
      a latent that tells several factors.

    Raises:
      ValueError: fewer than two latents, lengths that differ, a latent that is not finite, or a constant factor.

    Source: Chen et al. 2018, "Isolating Sources of Disentanglement in Variational Autoencoders", section 4.
    """
    latents, factors = np.asarray(latents, np.float64), np.asarray(factors)
    if latents.ndim != 2 or factors.ndim != 2 or len(latents) != len(factors):
        raise ValueError(f"latents {latents.shape} and factors {factors.shape} must be [n, d] and [n, k] of one n")
    if latents.shape[1] < 2 or num_bins < 2:
        raise ValueError(f"a gap needs two latents and two bins or more, not {latents.shape[1]} and {num_bins}")
    if not np.isfinite(latents).all():
        raise ValueError("latents must be finite numbers")
    bins = [_equal_counts(column, num_bins) for column in latents.T]
    gaps = []
    for number, factor in enumerate(factors.T):
        values = np.unique(factor, return_inverse=True)[1]
        if not values.any():
            raise ValueError(f"factor {number} has one value only: leave it out")
        second, largest = np.sort([_mutual_information(own, values) for own in bins])[-2:]
        gaps.append((largest - second) / _entropy(np.bincount(values)))
    return float(np.mean(gaps)), np.asarray(gaps)


def _equal_counts(column: np.ndarray, num_bins: int) -> np.ndarray:
    """int [n]: bin of each value; equal values share one, and a few distinct ones have one each."""
    values, numbers = np.unique(column, return_inverse=True)
    if len(values) <= num_bins:
        return numbers
    edges = np.quantile(column, np.arange(1, num_bins) / num_bins, method="inverted_cdf")
    return np.searchsorted(edges, column, side="left")


def _mutual_information(one: np.ndarray, other: np.ndarray) -> float:
    """In nats, of the table of counts."""
    table = np.zeros((one.max() + 1, other.max() + 1))
    np.add.at(table, (one, other), 1)
    return _entropy(table.sum(axis=0)) + _entropy(table.sum(axis=1)) - _entropy(table)


def _entropy(counts: np.ndarray) -> float:
    """In nats."""
    shares = counts[counts > 0] / counts.sum()
    return float(-np.sum(shares * np.log(shares)))
