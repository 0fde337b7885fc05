"""Scores of canaries with a coordinate of their own, from the noisy sums of all steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import logsumexp


def likelihood_scores(
    observed: np.ndarray,
    *,
    stddev: np.ndarray,
    sampling_rate: np.ndarray,
    coefficients: Sequence[float] = (1.0,),
    num_groups: int = 1,
) -> np.ndarray:
    """Log likelihood ratio of "the canary was in" to "it was out", under the mechanism as it is claimed.

    No other score tells the two apart better for that mechanism (Neyman and Pearson); for a broken one it is a score
    like others. In a step that draws it, a canary adds its sign to its coordinate; canaries change sign from step to
    step (the first is +1), so that noise that repeats cancels in the sum.

    Args:
      observed: finite float [steps, m], a step's noisy sum at every canary's coordinate, in units of the clipping norm.
      stddev: float [steps], of the noise, in the same units and before correlation.
      sampling_rate: float [steps], probability that a step draws a record of its group.
      coefficients: of correlated noise, see `privacy.noise.add_correlated_noise`.
      num_groups: step t draws from group t mod num_groups, and the canary's group is not known.

    Returns:
      float64 [m], higher = more likely in.
    """
    observed = np.asarray(observed, np.float64)
    num_steps = len(observed)
    white = _correlate(observed, coefficients, forward=True)
    matched = _correlate(white, coefficients, forward=False)
    sign = np.where(np.arange(num_steps) % 2, -1.0, 1.0)[:, None]
    stddev, rate = (np.asarray(value, np.float64)[:, None] for value in (stddev, sampling_rate))
    # What a participation leaves in the steps that follow: less than 1 in the last ones.
    energy = np.array([np.sum(np.square(coefficients[: num_steps - step])) for step in range(num_steps)])[:, None]
    drawn = (2 * sign * matched - energy) / (2 * np.square(stddev))
    with np.errstate(divide="ignore"):
        ratios = np.logaddexp(np.log1p(-rate), np.log(rate) + drawn)
    by_group = [ratios[group::num_groups].sum(axis=0) for group in range(num_groups)]
    return logsumexp(by_group, axis=0) - np.log(num_groups)


def _correlate(values: np.ndarray, coefficients: Sequence[float], *, forward: bool) -> np.ndarray:
    """C values, for the banded Toeplitz matrix C, or its transpose times values."""
    total = np.zeros_like(values)
    for lag, coefficient in enumerate(coefficients):
        size = len(values) - lag
        if size > 0 and forward:
            total[lag:] += coefficient * values[:size]
        elif size > 0:
            total[:size] += coefficient * values[lag:]
    return total
