"""Noise multipliers from a target: closed forms, first guesses, and a search that never overshoots."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from scipy.optimize import root_scalar
from scipy.stats import norm

COARSE, FINE = 1e-3, 1e-4  # discretisation of the privacy loss: for searching, for reporting
_CLOSE = 2e-4  # below the target, relative: where the search stops
_FARTHEST = 1e3  # times the target: larger epsilons count as this


def gaussian_noise_multiplier(epsilon: float, delta: float) -> float:
    """Noise multiplier of the one Gaussian release that spends exactly (epsilon, delta).

    Source: Balle and Wang 2018, "Improving the Gaussian Mechanism for Differential Privacy", Theorem 8.
    """

    def excess(sigma):
        spent = norm.cdf(0.5 / sigma - epsilon * sigma) - math.exp(
            epsilon + norm.logcdf(-0.5 / sigma - epsilon * sigma)
        )
        return spent - delta

    return find_root(excess, 1e-2, 1e6, tolerance=1e-12)


def smallest_noise(epsilon_at: Callable[[float, float], float], target: float, guess: float) -> float:
    """Smallest noise multiplier, to a few 1e-4 relative, whose epsilon does not exceed the target.

    The root is found on the coarse grid; from there two or three steps on the fine one, along log epsilon as a line in
    log noise, mostly do (secants).

    Args:
      epsilon_at: (noise_multiplier, discretization) -> epsilon, decreasing in the noise.
      target: epsilon never to be exceeded.
      guess: where to start looking.

    Raises:
      ValueError: no amount of noise reaches the target.
    """

    def excess(log_noise, discretization):
        ratio = epsilon_at(math.exp(log_noise), discretization) / target
        return math.log(min(max(ratio, 1 / _FARTHEST), _FARTHEST))

    lower, upper = _bracket(lambda log_noise: excess(log_noise, COARSE), math.log(guess), target)
    coarse = find_root(lambda log_noise: excess(log_noise, COARSE), lower, upper, tolerance=1e-3)
    slope = (excess(coarse + 0.05, COARSE) - excess(coarse - 0.05, COARSE)) / 0.1
    at, over = coarse, excess(coarse, FINE)
    for _ in range(6):
        if -_CLOSE <= over <= 0:
            return math.exp(at)
        step = min(max((over + _CLOSE / 2) / -min(slope, -0.1), -0.5), 0.5)
        before, at, over = over, at + step, excess(at + step, FINE)
        slope = (over - before) / step
    return _fallback(lambda log_noise: excess(log_noise, FINE), coarse)


def schedule_guess(levels: Sequence[tuple[float, float, int]], equivalent_noise: float) -> float:
    """The scale at which the steps of all levels weigh about as much as one Gaussian release; at least 0.3.

    Solves sum over levels of count q^2 (exp(1 / (scale r)^2) - 1) = 1 / equivalent_noise^2.

    Args:
      levels: (sampling rate q, relative noise r, count) each.

    Source: Dong et al. 2019, "Gaussian Differential Privacy", Corollary 5.4 (central limit).
    """
    goal = 1.0 / equivalent_noise**2

    def excess(log_scale):
        weights = (min(700.0, (math.exp(log_scale) * noise) ** -2) for _, noise, _ in levels)
        total = math.fsum(
            count * rate**2 * math.expm1(weight) for (rate, _, count), weight in zip(levels, weights, strict=True)
        )
        return math.log(total) - math.log(goal)

    least = 0.3 / max(noise for _, noise, _ in levels)
    if excess(math.log(least)) <= 0:
        return least
    return math.exp(find_root(excess, math.log(least), math.log(1e8 * least), tolerance=1e-6))


def find_root(function: Callable[[float], Any], lower: float, upper: float, *, tolerance: float) -> float:
    """Where a function that changes sign between lower and upper is zero, by Brent's method.

    Raises:
      ValueError: the sign does not change.
    """
    return float(root_scalar(function, bracket=(lower, upper), method="brentq", xtol=tolerance).root)


def _bracket(excess: Callable[[float], float], log_guess: float, target: float) -> tuple[float, float]:
    """(lower, upper) with a sign change of a decreasing function between them, from a guess outwards."""
    lower, upper = log_guess - 0.1, log_guess + 0.1
    while excess(upper) > 0:
        lower, upper = upper, upper + 0.4
        if upper > math.log(1e5):
            raise ValueError(f"epsilon {target} is spent before training starts")
    while excess(lower) < 0:
        lower, upper = lower - 0.4, lower
        if lower < math.log(1e-3):
            raise ValueError(f"epsilon {target} is out of reach: it needs less noise than {math.exp(lower):g}")
    return lower, upper


def _fallback(excess: Callable[[float], float], start: float) -> float:
    """The root by a bracket around `start`, moved to the side that does not exceed."""
    lower, upper = start - 0.03, start + 0.002
    while excess(upper) > 0:
        lower, upper = upper, upper + 0.01
    while excess(lower) < 0:
        lower, upper = lower - 0.1, lower
    upper = find_root(excess, lower, upper, tolerance=_CLOSE)
    while excess(upper) > 0:
        upper += _CLOSE / 2
    return math.exp(upper)
