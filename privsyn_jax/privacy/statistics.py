"""Private statistics of one column: each function returns a noisy value and the event that pays for it.

Neighbouring relation: add or remove one record. The private number of values is used nowhere: not as a divisor, not to
place a quantile. Values are clamped to public bounds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from privsyn_jax.privacy.accounting import Event
from privsyn_jax.privacy.noise import HostNoise

_SMALLEST, _LARGEST = -40, 60  # powers of two on the grid of `bounds`
_STANDARD_ERRORS = 5.0  # above which a bin of `bounds` counts as occupied


def count(num_values: int, *, noise_multiplier: float, noise: HostNoise) -> tuple[float, Event]:
    """Noisy number of values, not negative. Sensitivity: 1."""
    noisy = num_values + float(noise.normal((), stddev=noise_multiplier))
    return max(0.0, noisy), {"kind": "gaussian", "noise_multiplier": float(noise_multiplier), "count": 1}


def whole_count(num_values: int, *, noise_multiplier: float, noise: HostNoise) -> tuple[int, Event]:
    """Noisy number of values as an integer, with discrete Gaussian noise: no floating-point number is released.

    Sensitivity: 1. It may come out negative.

    Source: Canonne, Kamath and Steinke 2020, "The Discrete Gaussian for Differential Privacy".
    """
    noisy = num_values + noise.discrete_gaussian(noise_multiplier)
    event = {"kind": "discrete_gaussian", "noise_multiplier": float(noise_multiplier), "sensitivity": 1, "count": 1}
    return noisy, event


def mean(
    values: np.ndarray, *, lower: float, upper: float, noise_multiplier: float, noise: HostNoise
) -> tuple[float, Event]:
    """Noisy mean of values clamped to public bounds.

    One Gaussian release of (sum of centred values over half the range, count): a record moves each by at most one, so
    the L2 sensitivity is sqrt(2). The noisy sum is divided by the noisy count.

    Returns:
      a number between lower and upper; their middle if the noisy count is below one.

    Raises:
      ValueError: the bounds are not finite and in order.
    """
    middle, half = _middle_and_half(lower, upper)
    centred = (np.clip(np.asarray(values, np.float64), lower, upper) - middle) / half
    draws = noise.normal((2,), stddev=math.sqrt(2) * noise_multiplier)
    total, number = float(np.sum(centred) + draws[0]), float(len(centred) + draws[1])
    shift = np.clip(total / number, -1.0, 1.0) if number >= 1 else 0.0
    event = {"kind": "gaussian", "noise_multiplier": float(noise_multiplier), "count": 1}
    return float(middle + half * shift), event


def quantiles(
    values: np.ndarray,
    probabilities: Sequence[float],
    *,
    lower: float,
    upper: float,
    epsilon: float,
    noise: HostNoise,
) -> tuple[np.ndarray, Event]:
    """Noisy quantiles by the exponential mechanism, each epsilon-DP.

    A point x scores -|(1 - p) #(values < x) - p #(values >= x)|, which is zero at the p-quantile and needs no number
    of values; one record moves it by at most max(p, 1 - p). The density of the output is proportional to
    exp(epsilon score / (2 max(p, 1 - p))) over [lower, upper]: a gap between sorted values is drawn with its width as
    weight, then a point in it.

    Returns:
      float64 [len(probabilities)], sorted as the probabilities are; the event.

    Raises:
      ValueError: a probability outside (0, 1), or bounds that are not finite and in order.

    Source: Smith 2011, "Privacy-preserving Statistical Estimation with Optimal Convergence Rates", Algorithm 2.
    """
    _middle_and_half(lower, upper)
    if not probabilities or not all(0 < p < 1 for p in probabilities):
        raise ValueError(f"probabilities {list(probabilities)} must lie strictly between 0 and 1")
    points = np.concatenate([[lower], np.sort(np.clip(np.asarray(values, np.float64), lower, upper)), [upper]])
    widths = np.diff(points)
    below = np.arange(len(widths), dtype=np.float64)  # values below a point inside each gap
    above = below[::-1]
    with np.errstate(divide="ignore"):
        log_widths = np.log(widths)
    found = []
    for p in probabilities:
        scores = -np.abs((1 - p) * below - p * above)
        gap = int(np.argmax(log_widths + epsilon / (2 * max(p, 1 - p)) * scores + noise.gumbel((len(widths),))))
        found.append(points[gap] + widths[gap] * float(noise.uniform(())))
    order = np.argsort(np.argsort(probabilities))
    return np.sort(np.array(found))[order], {"kind": "exponential", "epsilon": float(epsilon), "count": len(found)}


def bounds(values: np.ndarray, *, noise_multiplier: float, noise: HostNoise) -> tuple[tuple[float, float], Event]:
    """Noisy bounds of values that have no public ones: the outermost occupied bins of a public grid.

    The grid has a bin for zero and, for each sign, one for every power of two from 2^-40 to 2^60. One Gaussian release
    of its counts has sensitivity 1. A bin counts as occupied above five standard deviations of its noise, so that an
    empty one hardly ever does: few values far out are cut off, whatever the noise.

    Returns:
      (lower, upper), powers of two or zero; (0, 0) if no bin is occupied.
    """
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    exponents = np.ceil(np.log2(np.maximum(np.abs(values), 2.0**_SMALLEST)))
    exponents = np.clip(exponents, _SMALLEST, _LARGEST).astype(int)
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
    if not (math.isfinite(lower) and math.isfinite(upper) and lower < upper):
        raise ValueError(f"bounds {lower} and {upper} must be finite, the first below the second")
    return (lower + upper) / 2, (upper - lower) / 2
