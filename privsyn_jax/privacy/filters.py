"""Privacy filters: how much noise later steps need may depend on what was released, and the total still holds.

A filter has a budget, fixed before the first step, and a cost for every block of steps. Costs add up; whoever spends
(`spending.AdaptiveSpending`) never starts a block that would take the sum past the budget. `events` is what the ledger
is charged with, in full, before the first block.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from privsyn_jax.privacy import accounting, renyi, search
from privsyn_jax.privacy.accounting import Event
from privsyn_jax.privacy.loss_distribution import Pmf, compose, sampled_gaussian
from privsyn_jax.privacy.schedules import Level

_ROUNDING = 1e-12  # of hockey-stick divergences, in float64
_LARGEST_RATIO = 100  # of a block's cost to its length, beyond which it may not be run at all


class Filter(Protocol):
    """What `spending.AdaptiveSpending` asks of a filter."""

    budget: float

    def cost(self, noise_multiplier: float, num_steps: int) -> float:
        """Of a block; infinite if it may not be run at all."""
        ...

    def events(self) -> list[Event]:
        """What the whole of it is charged as."""
        ...

    def epsilon(self, spent: float, before: Sequence[Event], delta: float) -> float:
        """The odometer: epsilon of blocks of this cost, on top of `before`; for showing, not for claiming."""
        ...


class RenyiFilter:
    """Poisson-sampled Gaussian steps inside a budget of Renyi divergence of one order.

    If the divergences of order a of all blocks, each given the past, add up to at most B on every path, then all of
    them together are (a, B)-Renyi differentially private.

    Args:
      order: a > 1, fixed beforehand.
      budget: B.

    Source: Feldman and Zrnic 2021, "Individual Privacy Accounting via a Renyi Filter", Theorem 3.1; Lecuyer 2021,
    "Practical Privacy Filters and Odometers with Renyi Differential Privacy and Applications to Differentially Private
    Deep Learning", Theorem 1.
    """

    def __init__(self, *, sampling_rate: float, order: float, budget: float):
        self.sampling_rate, self.order, self.budget = sampling_rate, order, budget

    def cost(self, noise_multiplier: float, num_steps: int) -> float:
        return _divergence(_steps(self.sampling_rate, noise_multiplier, num_steps), self.order)

    def events(self) -> list[Event]:
        return [{"kind": "renyi", "order": self.order, "epsilon": self.budget, "count": 1}]

    def epsilon(self, spent: float, before: Sequence[Event], delta: float) -> float:
        part = {"kind": "renyi", "order": self.order, "epsilon": spent, "count": 1}
        return accounting.epsilon_of([*before, part], delta)


class ReferenceFilter:
    """Poisson-sampled Gaussian steps, paid in steps of one reference: nothing is lost against composing it exactly.

    The reference is a step with a fixed sampling rate and noise multiplier; the budget is a number of them. A block
    costs the smallest number k of reference steps which dominates it: for every threshold, and in both directions of
    the neighbouring relation, the hockey-stick divergence of the block is at most (1 - leak) times that of k reference
    steps, plus leak. By Blackwell's theorem (Zhu et al. 2022, "Optimal Accounting of Differential Privacy via
    Characteristic Function", on dominating pairs) such a block can be simulated from k independent reference outcomes
    and one event of probability `leak`, whatever was chosen before. A whole run with costs of at most K therefore is a
    randomised function of K reference outcomes and the leaks of its blocks, so it is at most as revealing as K
    reference steps, with the leaks added to delta. (For Gaussian steps this is time change: a run reads off a Brownian
    path at times of its choice; compare Smith and Thakurta 2022, "Fully Adaptive Composition for Gaussian Differential
    Privacy", and Koskela et al. 2022, "Individual Privacy Accounting with Gaussian Differential Privacy".)

    The reference is the discretised pair at accounting.FINE, the one that the ledger composes, and both sides are
    piecewise linear between its grid points: the comparison there is exact.

    Args:
      num_steps: K.
      max_blocks: how many blocks may be run.
      leak: their probabilities together.
    """

    def __init__(self, *, sampling_rate: float, noise_multiplier: float, num_steps: int, max_blocks: int, leak: float):
        self.sampling_rate, self.noise_multiplier, self.budget = sampling_rate, noise_multiplier, float(num_steps)
        self._leak, self._max_blocks = leak, max_blocks

    def events(self) -> list[Event]:
        return [_steps(self.sampling_rate, self.noise_multiplier, int(self.budget)), leak_event(self._leak)]

    def epsilon(self, spent: float, before: Sequence[Event], delta: float) -> float:
        count = round(spent)
        steps = [_steps(self.sampling_rate, self.noise_multiplier, count)] if count else []
        return accounting.epsilon_of([*before, *steps, leak_event(self._leak)], delta, discretization=accounting.COARSE)

    def cost(self, noise_multiplier: float, num_steps: int) -> float:
        if noise_multiplier == self.noise_multiplier:
            return float(num_steps)
        return _dominating_count(
            self.sampling_rate, self.noise_multiplier, noise_multiplier, num_steps, self._leak / self._max_blocks
        )


@functools.lru_cache(maxsize=1024)
def _dominating_count(
    sampling_rate: float, reference_noise: float, noise_multiplier: float, num_steps: int, leak: float
) -> float:
    """The smallest number of reference steps that dominates a block, up to a large multiple of its own length."""
    block = _Profile(sampling_rate, noise_multiplier, num_steps)

    def enough(count: int) -> bool:
        return count > 0 and _reference(sampling_rate, reference_noise, count).dominates(block, leak)

    # From the central limit outwards until the answer is bracketed: not low, but high.
    high = max(1, round(num_steps * math.expm1(noise_multiplier**-2) / math.expm1(reference_noise**-2)))
    low = 0
    while not enough(high):
        low, high = high, high + max(1, high // 8)
        if high > _LARGEST_RATIO * num_steps:
            return math.inf
    while low == 0 and high > 1:
        lower = high - max(1, high // 8)
        if not enough(lower):
            low = lower
            break
        high = lower
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return float(high)


def leak_event(delta: float) -> Event:
    """The part of delta that blocks may exceed their reference steps by."""
    return {"kind": "approximate", "epsilon": 0.0, "delta": delta, "count": 1}


def best_renyi_budget(
    level: Level, before: Sequence[Event], epsilon: float, delta: float
) -> tuple[float, float, float]:
    """(noise multiplier, order, budget) with which a constant schedule of these steps needs the least noise.

    With the budget at its order, everything together is (epsilon, delta)-differentially private.

    Raises:
      ValueError: `before` leaves nothing at any order.
    """
    found = []
    for order in renyi.ORDERS:
        budget = renyi.budget(before, order, epsilon, delta)
        if budget <= 0:
            continue
        noise = _noise_for(level, order, budget)
        if noise is not None:
            found.append((noise, float(order), budget))
    if not found:
        raise ValueError(f"epsilon {epsilon} is spent before training starts")
    return min(found)


def _noise_for(level: Level, order: float, budget: float) -> float | None:
    """The noise multiplier at which the level spends the budget, or None if none within reach does."""

    def excess(log_noise):
        event = _steps(level.sampling_rate, math.exp(log_noise), level.num_steps)
        return math.log(_divergence(event, order) / budget)

    lower, upper = math.log(0.2), math.log(1e4)
    if excess(upper) > 0 or excess(lower) < 0:
        return None
    noise = math.exp(search.find_root(excess, lower, upper, tolerance=1e-6))
    return noise * (1 + 2e-6)  # the root may lie on either side


class _Profile:
    """Composed steps: the distributions of their losses, in both directions of the neighbouring relation."""

    def __init__(self, sampling_rate: float, noise_multiplier: float, count: int):
        step = sampled_gaussian(noise_multiplier, sampling_rate, accounting.FINE)
        self._directions = [compose([pmf], [[count]], accounting.FINE)[0] for pmf in step]

    def dominates(self, other: _Profile, leak: float) -> bool:
        return all(
            _dominates(own, others, leak) for own, others in zip(self._directions, other._directions, strict=True)
        )


@functools.lru_cache(maxsize=64)
def _reference(sampling_rate: float, noise_multiplier: float, count: int) -> _Profile:
    return _Profile(sampling_rate, noise_multiplier, count)


def _dominates(own: Pmf, other: Pmf, leak: float) -> bool:
    """Whether divergence(other) <= leak + (1 - leak) divergence(own) for all thresholds exp(e), e real.

    Between grid points both are linear in exp(e). Above the last grid point they are constant; below the first,
    divergence(other) is linear from 1 at exp(e) = 0, and the right side at least 1 - (1 - leak) exp(e).
    """
    first = min(own.lower, other.lower) - 1
    last = max(own.lower + len(own.probabilities), other.lower + len(other.probabilities))
    ours, theirs = (_divergences(part, first, last) for part in (own, other))
    return bool(np.all(theirs + _ROUNDING <= leak + (1 - leak) * ours))


def _divergences(pmf: Pmf, first: int, last: int) -> np.ndarray:
    """sum_l max(0, 1 - exp(e - l)) p(l) + p(infinity) at the grid points e from first to last."""
    losses = np.arange(pmf.lower, pmf.lower + len(pmf.probabilities)) * accounting.FINE
    upper = np.cumsum(pmf.probabilities[::-1])[::-1]
    lower = np.cumsum((pmf.probabilities * np.exp(-losses))[::-1])[::-1]
    points = np.arange(first, last + 1)
    place = np.clip(points - pmf.lower + 1, 0, len(losses))  # of the first loss above the point
    upper, lower = (np.append(values, 0.0)[place] for values in (upper, lower))
    return pmf.infinity + upper - np.exp(points * accounting.FINE) * lower


def _divergence(event: Event, order: float) -> float:
    return float(renyi.divergences(event, (order,))[0])


def _steps(sampling_rate: float, noise_multiplier: float, count: int) -> Event:
    return {
        "kind": "poisson_gaussian",
        "sampling_rate": sampling_rate,
        "noise_multiplier": noise_multiplier,
        "count": count,
    }
