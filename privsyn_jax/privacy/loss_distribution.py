"""Distributions of the privacy loss on a grid: of one mechanism, and of many together.

A mechanism is known here by its excess r(t) = delta(t) - max(0, 1 - e^t), the hockey-stick divergence of its worst pair
of neighbouring tables beyond that of equal ones, for all real t. r is zero without loss, largest at t = 0 and small at
both ends, so that no digits cancel. Losses between grid points move to both of their neighbours such that delta is
exact at every grid point and never understated between them.

Source: Doroshenko et al. 2022, "Connect the Dots: Tighter Discrete Approximations of Privacy Loss Distributions".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import numpy as np
from scipy.fft import next_fast_len
from scipy.signal import lfilter
from scipy.special import erfcx, expit, log_ndtr, ndtr

MAX_POINTS = 2**23  # of one distribution
_TAIL = 1e-15  # mass of a composition, at each end, that is moved to infinity or wrapped to larger losses
_REACH = 10.0  # standard deviations of Gaussian noise that the grid covers: 1e-23 beyond are moved to infinity
_SLOPES = np.array([0.5, 2.0, 4.0, 6.0, 8.0, 12.0])  # of Chernoff bounds for many losses, per standard deviation
_RARE_SLOPES = np.array([8.0, 24.0])  # for few losses, per largest loss
_HUGE = 1e100  # more noise, or a smaller sampling rate, counts as this much
_SMOOTH = 1e6  # discrete Gaussian noise from here on is summed by the midpoint rule

Array = np.ndarray


class Pmf(NamedTuple):
    """Probabilities of the losses `lower`, `lower` + 1, ... (in grid steps), and of an infinite loss."""

    lower: int
    probabilities: Array
    infinity: float


class TooWide(Exception):
    """The losses span more than MAX_POINTS grid points: epsilon is in the hundreds."""


def sampled_gaussian(noise_multiplier: float, sampling_rate: float, grid: float) -> tuple[Pmf, Pmf]:
    """(remove, add) of a Poisson-sampled Gaussian release; the same twice for sampling rate 1.

    Sampling moves the threshold and scales what lies beyond it: for t >= 0, delta(t) = q delta_Gaussian(t') with
    t' = log(1 + (e^t - 1) / q).

    Source: Balle et al. 2018, "Privacy Amplification by Subsampling: Tight Analyses via Couplings and Divergences",
    Theorem 2; Zhu et al. 2022, "Optimal Accounting of Differential Privacy via Characteristic Function".
    """
    sigma, rate = min(noise_multiplier, _HUGE), max(sampling_rate, 1 / _HUGE)
    half, reach = _gaussian_span(sigma)
    _fits(half + reach, grid)

    def above(t):  # excess of remove at t >= 0
        near, far = np.minimum(t, 1.0), np.maximum(t, 1.0)
        nearly, largely = np.log1p(np.expm1(near) / rate), far + np.log1p((rate - 1) * np.exp(-far)) - math.log(rate)
        shifted = np.where(t < 1, nearly, largely)
        return rate * gaussian_delta(shifted, sigma)

    def below(t):  # excess of remove at -t <= 0; zero where the unsampled records alone explain the ratio
        kept = np.maximum(rate + np.expm1(-t), 0.0)
        shifted = math.log(rate) - np.log(np.where(kept > 0, kept, rate))
        return kept * np.where(kept > 0, gaussian_delta(shifted, sigma), 0.0)

    def loss(unsampled):
        if rate == 1.0:
            return unsampled
        return math.log1p(rate * math.expm1(unsampled)) if unsampled < 500 else unsampled + math.log(rate)

    least, most = loss(-half - reach), loss(half + reach)
    remove = connect(above, below, least, most, grid)
    if rate == 1.0:
        return remove, remove
    add = connect(lambda t: np.exp(t) * below(t), lambda t: np.exp(-t) * above(t), -loss(reach - half), -least, grid)
    return remove, add


def symmetric(delta: Callable[[Array], Array], most: float, grid: float) -> tuple[Pmf, Pmf]:
    """(remove, add) of a mechanism whose worst pair is its own mirror image.

    Args:
      delta: hockey-stick divergence at thresholds t >= 0.
      most: largest loss that counts.
    """
    pmf = connect(delta, lambda t: np.exp(-t) * delta(t), -most, most, grid)
    return pmf, pmf


def laplace(noise_multiplier: float, grid: float) -> tuple[Pmf, Pmf]:
    largest = 1.0 / max(noise_multiplier, 1 / _HUGE)
    return symmetric(lambda t: np.maximum(0.0, -np.expm1((t - largest) / 2)), largest, grid)


def discrete_laplace(noise_multiplier: float, sensitivity: int, grid: float) -> tuple[Pmf, Pmf]:
    """Noise proportional to exp(-|x| / scale) on the integers, scale = noise_multiplier * sensitivity."""
    noise_multiplier = min(max(noise_multiplier, 1 / _HUGE), _HUGE)
    largest, rate = 1.0 / noise_multiplier, 1.0 / (noise_multiplier * sensitivity)

    def cdf(x):
        tail = np.exp(-rate * np.where(x < 0, -x, x + 1)) / (1 + math.exp(-rate))
        return np.where(x < 0, tail, 1 - tail)

    def delta(t):
        x = np.floor((-sensitivity - t / rate) / 2)
        return np.where(t < largest, np.maximum(0.0, cdf(x + sensitivity) - np.exp(t) * cdf(x)), 0.0)

    return symmetric(delta, largest, grid)


def discrete_gaussian(noise_multiplier: float, sensitivity: int, grid: float) -> tuple[Pmf, Pmf]:
    """Noise proportional to exp(-x^2 / 2 sigma^2) on the integers, sigma = noise_multiplier * sensitivity."""
    noise_multiplier = min(noise_multiplier, _HUGE)
    most, sigma = sum(_gaussian_span(noise_multiplier)), noise_multiplier * sensitivity
    _fits(most, grid)
    if sigma < _SMOOTH:
        first = -math.ceil(_REACH * sigma) - sensitivity
        weights = np.exp(-0.5 * np.square(np.arange(first, 1 - first) / sigma))
        cumulated, slack = np.cumsum(weights / weights.sum()), math.exp(-(_REACH**2) / 2)
    else:  # the midpoint rule is off by at most max |second derivative of the cdf| / 24 on either side
        first, cumulated, slack = 0, None, 0.25 / sigma / sigma

    def cdf(x):
        if cumulated is None:
            return ndtr((x + 0.5) / sigma)
        return np.where(x < first, 0.0, cumulated[np.clip(x - first, 0, len(cumulated) - 1).astype(int)])

    def delta(t):
        x = np.floor(-0.5 * sensitivity - t * noise_multiplier * sigma)
        return np.clip(cdf(x + sensitivity) - np.exp(t) * cdf(x) + slack, 0.0, 1.0)

    return symmetric(delta, most, grid)


def pure(epsilon: float, delta: float, grid: float) -> tuple[Pmf, Pmf]:
    """(remove, add) of the worst (epsilon, delta)-DP mechanism, losses rounded up.

    Source: Kairouz, Oh and Viswanath 2015, "The Composition Theorem for Differential Privacy".
    """
    _fits(2 * epsilon, grid)
    lower, upper = math.ceil(-epsilon / grid), math.ceil(epsilon / grid)
    probabilities = np.zeros(upper - lower + 1)
    probabilities[-1] = (1 - delta) * expit(epsilon)
    probabilities[0] += (1 - delta) * expit(-epsilon)
    pmf = Pmf(lower, probabilities, delta)
    return pmf, pmf


def gaussian_delta(t: Array, sigma: float) -> Array:
    """Hockey-stick divergence at t >= 0 of N(1, sigma^2) from N(0, sigma^2): Phi(a) - e^t Phi(a - 1 / sigma).

    As phi(a) times a difference of Mills ratios it keeps its digits in the tail.
    """
    step = 1.0 / sigma
    a = step / 2 - t * sigma
    z = np.clip(-a, 0.0, 1e3)
    mills = _mills(z)
    # Mills ratios are convex: the slope at the left end bounds their fall, and is all there is for a tiny step.
    fall = mills - _mills(z + step) if step > 1e-7 else step * np.maximum(0.0, 1 - z * mills)
    tail = np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi) * fall
    return np.where(a > 0, ndtr(a) - np.exp(t + log_ndtr(a - step)), tail) if step > 1e-7 else tail


def connect(
    above: Callable[[Array], Array], below: Callable[[Array], Array], least: float, most: float, grid: float
) -> Pmf:
    """Distribution from the excess r: above(t) = r(t) and below(t) = r(-t) for t >= 0.

    Smaller losses than `least` are rounded up to it, what exceeds `most` is infinite.
    """
    _fits(most - least, grid)
    lower, upper = min(-1, math.floor(least / grid)), max(1, math.ceil(most / grid))
    excess = np.concatenate([below(grid * np.arange(-lower, 0, -1)), above(grid * np.arange(upper + 1))])
    fall = -np.diff(excess) / math.expm1(grid)
    probabilities = np.empty_like(excess)
    probabilities[0] = -excess[0] - fall[0]
    probabilities[1:] = math.exp(grid) * fall
    probabilities[1:-1] -= fall[1:]
    probabilities[-lower] += 1.0
    return Pmf(lower, np.maximum(probabilities, 0.0), float(excess[-1]))


def compose(pmfs: Sequence[Pmf], rows: Sequence[Sequence[int]], grid: float) -> list[Pmf]:
    """For every row of counts, the distribution of that many losses of each kind, added up.

    One Fourier transform of each pmf serves all rows. Mass 2e-15 at most is moved to infinity or to larger losses.
    """
    counts = np.asarray(rows, dtype=float)
    centres, starts, stops = _windows(pmfs, counts)
    size = max(int(max(stops - starts)) + 1, max(len(pmf.probabilities) for pmf in pmfs))
    size = cast(int, next_fast_len(size, real=True))
    logs = np.zeros((len(rows), size // 2 + 1), dtype=complex)
    for pmf, centre, column in zip(pmfs, centres, counts.T, strict=True):
        wrapped = np.zeros(size)
        wrapped[: len(pmf.probabilities)] = pmf.probabilities
        spectrum = np.fft.rfft(np.roll(wrapped, pmf.lower - centre))  # around its mean: the phase stays small
        log = np.log(np.where(spectrum == 0, 1e-300, spectrum))
        for row in np.flatnonzero(column):
            logs[row] += column[row] * log
    found = []
    for log, row, start, stop in zip(logs, rows, starts.tolist(), stops.tolist(), strict=True):
        mean = sum(int(count) * centre for count, centre in zip(row, centres, strict=True))
        probabilities = np.roll(np.fft.irfft(np.exp(log), size), mean - start)[: stop - start + 1]
        finite = sum(count * math.log1p(-min(pmf.infinity, 1 - 1e-16)) for count, pmf in zip(row, pmfs, strict=True))
        found.append(Pmf(start, np.maximum(probabilities, 0.0), _TAIL - math.expm1(finite)))
    return found


def epsilon(pmf: Pmf, delta: float, grid: float) -> float:
    """Smallest epsilon >= 0 with hockey-stick divergence at most delta."""
    if pmf.infinity > delta:
        return math.inf
    probabilities = pmf.probabilities[max(0, -pmf.lower) :][::-1]  # from the largest loss down to zero
    losses = grid * (max(pmf.lower, 0) + np.arange(len(probabilities))[::-1])
    mass = pmf.infinity + np.cumsum(probabilities)
    discounted = lfilter([1.0], [1.0, -math.exp(-grid)], probabilities)  # sum of p e^(loss here - loss)
    over = np.flatnonzero(mass - discounted > delta)  # delta at a grid point
    if not len(over) and pmf.lower <= 0:
        return 0.0
    last = max(0, int(over[0]) - 1) if len(over) else len(losses) - 1  # epsilon lies less than a step below this loss
    if mass[last] <= delta:
        return float(losses[last])
    return max(0.0, float(losses[last] + math.log((mass[last] - delta) / discounted[last])))


def delta(pmf: Pmf, epsilon: float, grid: float) -> float:
    """Hockey-stick divergence at epsilon."""
    losses = grid * (pmf.lower + np.arange(len(pmf.probabilities)))
    over = losses > epsilon
    return float(pmf.infinity - np.expm1(epsilon - losses[over]) @ pmf.probabilities[over])


def _windows(pmfs: Sequence[Pmf], counts: Array) -> tuple[list[int], Array, Array]:
    """Mean loss of each pmf, and per row of counts the steps between which all but 2e-15 of the total loss lies."""
    steps = [np.arange(pmf.lower, pmf.lower + len(pmf.probabilities), dtype=float) for pmf in pmfs]
    means = [round(float(pmf.probabilities @ step)) for pmf, step in zip(pmfs, steps, strict=True)]
    variances = [
        float(pmf.probabilities @ np.square(step - mean)) for pmf, step, mean in zip(pmfs, steps, means, strict=True)
    ]
    deviation = max(math.sqrt(max(counts @ variances)), 1.0)
    reach = max(max(-step[0], step[-1], 1.0) for step in steps)
    slopes = np.concatenate([_SLOPES / deviation, _RARE_SLOPES / reach])
    ends = []
    for side, sign in ((-1, 1), (0, -1)):  # Chernoff's bound, and the support itself
        cumulants = [_cumulants(pmf, step, sign * slopes) for pmf, step in zip(pmfs, steps, strict=True)]
        chernoff = np.min((counts @ np.array(cumulants) - math.log(_TAIL)) / slopes, axis=1)
        ends.append(np.minimum(np.ceil(chernoff), counts @ [sign * step[side] for step in steps]))
    if np.max(ends[0] + ends[1]) > MAX_POINTS:
        raise TooWide
    return means, -ends[1].astype(int), ends[0].astype(int)


def _gaussian_span(sigma: float) -> tuple[float, float]:
    """Mean loss, and how far from it losses count."""
    return (0.5 / sigma / sigma, _REACH / sigma) if sigma > 1 / _HUGE else (math.inf, math.inf)


def _mills(z: Array) -> Array:
    return math.sqrt(math.pi / 2) * erfcx(z / math.sqrt(2))


def _cumulants(pmf: Pmf, steps: Array, slopes: Array) -> list[float]:
    """Log moment generating function of the loss, in grid steps; rounded up where it underflows."""
    found = []
    for slope in slopes.tolist():
        end = max(slope * steps[0], slope * steps[-1])
        found.append(end + math.log(max(float(np.exp(slope * steps - end) @ pmf.probabilities), 1e-300)))
    return found


def _fits(width: float, grid: float) -> None:
    if not width / grid < MAX_POINTS:
        raise TooWide
