"""Private statistics of one column: each function returns a noisy value and the event that pays for it.

Neighbouring relation: add or remove one record. The private number of values is used nowhere: not as a divisor, not to
place a quantile. Values are clamped to public bounds; missing ones (NaN) are left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from privsyn_jax.privacy.accounting import Event
from privsyn_jax.privacy.noise import HostNoise

_SMALLEST, _LARGEST = -40, 60  # powers of two on the grid of `bounds`
_STANDARD_ERRORS = 5.0  # above which a bin of `bounds` counts as occupied


def count(num_values: int, *, noise_multiplier: float, noise: HostNoise) -> tuple[float, Event]:
    """Noisy number of values, not negative. Sensitivity: 1."""
    noisy = num_values + float(noise.normal((), stddev=noise_multiplier))
    return max(0.0, noisy), {"kind": "gaussian", "noise_multiplier": float(noise_multiplier), "count": 1}


def whole_count(
    num_values: int,
    *,
    noise_multiplier: float,
    noise: HostNoise,
    distribution: Literal["gaussian", "laplace"] = "gaussian",
) -> tuple[int, Event]:
    """Noisy number of values as an integer, with discrete noise: no floating-point number is released.

    Sensitivity: 1. It may come out negative.

    Args:
      noise_multiplier: sigma of the discrete Gaussian, or scale of the discrete Laplace distribution.

    Raises:
      ValueError: noise_multiplier is not a positive number.

    Source: Canonne, Kamath and Steinke 2020, "The Discrete Gaussian for Differential Privacy".
    """
    draw = {"gaussian": noise.discrete_gaussian, "laplace": noise.discrete_laplace}[distribution]
    event = {"kind": f"discrete_{distribution}", "noise_multiplier": float(noise_multiplier), "sensitivity": 1}
    return num_values + draw(noise_multiplier), {**event, "count": 1}


def mean(
    values: np.ndarray, *, lower: float, upper: float, noise_multiplier: float, noise: HostNoise
) -> tuple[float, Event]:
    """Noisy mean of values clamped to public bounds.

    One Gaussian release of (sum of centred values over half the range, count): a record moves each by at most one, so
    the L2 sensitivity is sqrt(2). The sum is exact up to one rounding, whatever the order of the values. The noisy sum
    is divided by the noisy count.

    Args:
      values: float [n].

    Returns:
      a number between lower and upper; their middle if the noisy count is below one.

    Raises:
      ValueError: the bounds are not finite and in order.
    """
    middle, half = _middle_and_half(lower, upper)
    centred = np.clip((_clamped(values, lower, upper) - middle) / half, -1.0, 1.0)
    draws = noise.normal((2,), stddev=math.sqrt(2) * noise_multiplier)
    total, number = math.fsum(centred) + float(draws[0]), len(centred) + float(draws[1])
    shift = min(max(total / number, -1.0), 1.0) if number >= 1 else 0.0
    event = {"kind": "gaussian", "noise_multiplier": float(noise_multiplier), "count": 1}
    return min(max(middle + half * shift, float(lower)), float(upper)), event


def quantiles(
    values: np.ndarray,
    probabilities: Sequence[float],
    *,
    lower: float,
    upper: float,
    epsilon: float,
    noise: HostNoise,
    resolution: float | None = None,
) -> tuple[np.ndarray, Event]:
    """Noisy quantiles by the exponential mechanism, each epsilon-DP.

    A point x scores -|(1 - p) #(values < x) - p #(values >= x)|, which is zero at the p-quantile and needs no number
    of values; one record moves it by at most max(p, 1 - p). The density of the output is proportional to
    exp(epsilon score / (2 max(p, 1 - p))) over [lower, upper]: a gap between sorted values is drawn with its width as
    weight, then a point in it.

    Args:
      values: float [n].
      probabilities: of the quantiles, each in (0, 1).
      resolution: public step of a grid from lower to upper. With it only grid points come out and a gap weighs as many
        as it holds; without it the last bits of an output may show the value next to it.

    Returns:
      float64 [len(probabilities)], sorted as the probabilities are; the event.

    Raises:
      ValueError: a probability outside (0, 1), bounds that are not finite and in order, an epsilon that is negative or
        not finite, a resolution that is not positive or makes more than 2^53 points.

    Source: Smith 2011, "Privacy-preserving Statistical Estimation with Optimal Convergence Rates", Algorithm 2.
    """
    _middle_and_half(lower, upper)
    if not len(probabilities) or not all(0 < p < 1 for p in probabilities):
        raise ValueError(f"probabilities {list(probabilities)} must lie strictly between 0 and 1")
    if not 0 <= epsilon < math.inf:
        raise ValueError(f"epsilon {epsilon} must be a finite number of 0 or more")
    if resolution is not None and not (upper - lower) * 2.0**-53 < resolution < math.inf:
        raise ValueError(f"resolution {resolution} must be positive and cut {upper - lower} into at most 2^53 steps")
    ordered = np.sort(_clamped(values, lower, upper))
    if resolution is None:
        points = np.concatenate([[lower], ordered, [upper]])
    else:  # numbers of grid points; the first one above a value starts the next gap
        num_points = math.floor((upper - lower) / resolution) + 1
        above = np.minimum(np.floor((ordered - lower) / resolution) + 1, num_points)
        points = np.concatenate([[0], above, [num_points]])
    widths = np.diff(points)
    num_below = np.arange(len(widths), dtype=np.float64)  # values below a point inside each gap
    num_above = num_below[::-1]
    with np.errstate(divide="ignore"):
        log_widths = np.log(widths)
    found = []
    for p in probabilities:
        scores = -np.abs((1 - p) * num_below - p * num_above)
        gap = int(np.argmax(log_widths + epsilon / (2 * max(p, 1 - p)) * scores + noise.gumbel((len(widths),))))
        if resolution is None:
            found.append(points[gap] + widths[gap] * float(noise.uniform(())))
        else:
            found.append(lower + resolution * (int(points[gap]) + noise.below(int(widths[gap]))))
    order = np.argsort(np.argsort(probabilities))
    event = {"kind": "exponential", "epsilon": float(epsilon), "count": len(found)}
    return np.minimum(np.sort(np.array(found, np.float64)), upper)[order], event


def bounds(values: np.ndarray, *, noise_multiplier: float, noise: HostNoise) -> tuple[tuple[float, float], Event]:
    """Noisy bounds of values that have no public ones: the outermost occupied bins of a public grid.

    The grid has a bin for zero and, for each sign, one for every power of two from 2^-40 to 2^60; values farther out
    count in the last bin. One Gaussian release of its counts has sensitivity 1, and the grid is public: no delta. A bin
    counts as occupied above five standard deviations of its noise, which some empty bin passes with probability below
    1e-4. Values far out that are too few to pass are cut off.

    Args:
      values: float [n]; infinite ones are left out.

    Returns:
      (lower, upper), powers of two or zero; (0, 0) if no bin is occupied.
    """
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    mantissas, exponents = np.frexp(np.abs(values))
    exponents = np.clip(exponents - (mantissas == 0.5), _SMALLEST, _LARGEST)
    size = _LARGEST - _SMALLEST + 1
    bins = np.where(values == 0, 0, np.sign(values) * (exponents - _SMALLEST + 1)).astype(int) + size
    counts = np.bincount(bins, minlength=2 * size + 1) + noise.normal((2 * size + 1,), stddev=noise_multiplier)
    occupied = np.flatnonzero(counts > _STANDARD_ERRORS * noise_multiplier) - size
    event = {"kind": "gaussian", "noise_multiplier": float(noise_multiplier), "count": 1}
    if not len(occupied):
        return (0.0, 0.0), event

    def outer(bin_number: int, upwards: bool) -> float:
        """The end of a bin that lies farther up, or down."""
        if bin_number == 0:
            return 0.0
        exponent = abs(bin_number) - 1 + _SMALLEST
        is_far_end = (bin_number > 0) == upwards
        inner = 0.0 if exponent == _SMALLEST else 2.0 ** (exponent - 1)
        return math.copysign(2.0**exponent if is_far_end else inner, bin_number)

    return (outer(int(occupied[0]), False), outer(int(occupied[-1]), True)), event


def _middle_and_half(lower: float, upper: float) -> tuple[float, float]:
    middle, half = lower + (upper - lower) / 2, (upper - lower) / 2
    if not (math.isfinite(middle) and 0 < half < math.inf):
        raise ValueError(f"bounds {lower} and {upper} must be finite, the first below the second")
    return middle, half


def _clamped(values: np.ndarray, lower: float, upper: float) -> np.ndarray:
    """What is not NaN, within the bounds: one NaN kept would make the whole output NaN."""
    values = np.asarray(values, np.float64)
    return np.clip(values[~np.isnan(values)], lower, upper)
