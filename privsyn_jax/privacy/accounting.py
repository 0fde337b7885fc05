"""Events to (epsilon, delta). An event is plain JSON from which anyone can recompute.

  {"kind": "poisson_gaussian", "sampling_rate", "noise_multiplier", "count"}  Poisson-sampled Gaussian steps
  {"kind": "gaussian", "noise_multiplier", "count"}                           Gaussian releases
  {"kind": "laplace", "noise_multiplier", "count"}                            Laplace releases (scale / L1 sensitivity)
  {"kind": "pure", "epsilon", "count"}                                        any epsilon-DP mechanism
  {"kind": "approximate", "epsilon", "delta", "count"}                        any (epsilon, delta)-DP mechanism

Neighbouring relation: add or remove one record.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from scipy.optimize import root_scalar
from scipy.stats import norm

Event = dict[str, Any]

NEIGHBORING_RELATION = "add or remove one record"
COARSE, FINE = 1e-3, 1e-4  # discretisation of the privacy loss: for searching, for reporting

_FIELDS = {
    "poisson_gaussian": ("sampling_rate", "noise_multiplier", "count"),
    "gaussian": ("noise_multiplier", "count"),
    "laplace": ("noise_multiplier", "count"),
    "pure": ("epsilon", "count"),
    "approximate": ("epsilon", "delta", "count"),
}
_RDP_ORDERS = (*range(2, 65), 80, 96, 128, 192, 256, 512, 1024)  # whole orders have a closed form, and are quick
_AT_MOST_ONE = ("sampling_rate", "delta")


def check_event(event: Event) -> None:
    """Raises ValueError, naming the event, unless it is one that `epsilon` can account for."""
    kind = event.get("kind")
    if kind not in _FIELDS:
        raise ValueError(f"event {event} has a kind that is not accounted for: use one of {', '.join(_FIELDS)}")
    if set(event) != {"kind", *_FIELDS[kind]}:
        raise ValueError(f"event {event} must have exactly the fields kind, {', '.join(_FIELDS[kind])}")
    for name in _FIELDS[kind]:
        value = event[name]
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"event {event} has {name} = {value!r}: it must be a finite number")
        if value < 0 or (name in _AT_MOST_ONE and value > 1) or (name == "sampling_rate" and value == 0):
            raise ValueError(f"event {event} has {name} = {value}, out of range")
    if event["count"] != int(event["count"]) or event["count"] < 1:
        raise ValueError(f"event {event} has count = {event['count']}: it must be a whole number, at least 1")


def epsilon_of(events: Iterable[Event], delta: float, *, discretization: float = FINE) -> float:
    """Epsilon at delta of all events together, by composing privacy-loss distributions (an upper bound).

    Infinite when an event adds no noise, or when approximate events use up delta.

    Source: Doroshenko et al. 2022, "Connect the Dots: Tighter Discrete Approximations of Privacy Loss Distributions".
    """
    events = list(events)
    if not events:
        return 0.0
    if _without_noise(events):
        return math.inf
    return float(_compose(events, discretization).get_epsilon_for_delta(delta))


def delta_of(events: Iterable[Event], epsilon: float, *, discretization: float = FINE) -> float:
    """Delta at epsilon of all events together; see `epsilon_of`."""
    events = list(events)
    if not events:
        return 0.0
    if _without_noise(events):
        return 1.0
    return float(_compose(events, discretization).get_delta_for_epsilon(epsilon))


def epsilon_rdp(events: Iterable[Event], delta: float) -> float:
    """Epsilon at delta by Renyi accounting: looser, independent of `epsilon_of`, printed beside it.

    A pure event counts as epsilon^2 / 2 zero-concentrated DP; an approximate one as pure after its delta
    is set aside.
    """
    import dp_accounting
    from dp_accounting import rdp

    events = list(events)
    for event in events:
        check_event(event)
    if _without_noise(events):
        return math.inf
    accountant = rdp.RdpAccountant(_RDP_ORDERS)
    for event in events:
        count = int(event["count"])
        if event["kind"] == "poisson_gaussian":
            step = dp_accounting.GaussianDpEvent(event["noise_multiplier"])
            accountant.compose(dp_accounting.PoissonSampledDpEvent(event["sampling_rate"], step), count)
        elif event["kind"] == "gaussian":
            accountant.compose(dp_accounting.GaussianDpEvent(event["noise_multiplier"]), count)
        elif event["kind"] == "laplace":
            accountant.compose(dp_accounting.LaplaceDpEvent(event["noise_multiplier"]), count)
        elif event["epsilon"] > 0:
            accountant.compose(dp_accounting.dp_event.ZCDpEvent(event["epsilon"] ** 2 / 2), count)
        if event["kind"] == "approximate":
            delta -= event["delta"] * count
    return float(accountant.get_epsilon(delta)) if delta > 0 else math.inf


def epsilon_over_steps(
    before: Sequence[Event], step: Event, steps: Sequence[int], delta: float
) -> list[tuple[int, float]]:
    """Epsilon after each of the given numbers of training steps, on top of what was spent `before`."""
    if _without_noise([*before, step]):
        return [(int(count), math.inf) for count in steps]
    spent = _compose(before, COARSE) if before else None
    one = _compose([{**step, "count": 1}], COARSE)
    curve = []
    for count in steps:
        distribution = one.self_compose(int(count)) if count else None
        parts = [part for part in (spent, distribution) if part is not None]
        total = parts[0] if len(parts) == 1 else parts[0].compose(parts[1]) if parts else None
        curve.append((int(count), float(total.get_epsilon_for_delta(delta)) if total else 0.0))
    return curve


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
    """Smallest noise multiplier, to about 2e-4 relative, whose epsilon does not exceed the target.

    Args:
      epsilon_at: (noise_multiplier, discretization) -> epsilon, decreasing in the noise.
      target: epsilon never to be exceeded.
      guess: where to start looking.

    Raises:
      ValueError: no amount of noise reaches the target.
    """

    def excess(log_noise, discretization):
        return min(epsilon_at(math.exp(log_noise), discretization), 1e3) - target

    lower, upper = math.log(guess) - 0.1, math.log(guess) + 0.1
    while excess(upper, COARSE) > 0:
        lower, upper = upper, upper + 0.4
        if upper > math.log(1e5):
            raise ValueError(f"epsilon {target} is spent before training starts")
    while excess(lower, COARSE) < 0:
        lower, upper = lower - 0.4, lower
        if lower < math.log(1e-3):
            raise ValueError(f"epsilon {target} is out of reach: it needs less noise than {math.exp(lower):g}")
    coarse = find_root(lambda log_noise: excess(log_noise, COARSE), lower, upper, tolerance=1e-3)
    lower, upper = coarse - 0.03, coarse + 0.002
    while excess(upper, FINE) > 0:
        lower, upper = upper, upper + 0.01
    while excess(lower, FINE) < 0:  # at a small target the coarse grid overstates epsilon by more
        lower, upper = lower - 0.1, lower
    upper = find_root(lambda log_noise: excess(log_noise, FINE), lower, upper, tolerance=2e-4)
    while excess(upper, FINE) > 0:
        upper += 1e-4
    return math.exp(upper)


def subsampled_guess(sampling_rate: float, num_steps: int, equivalent_noise: float) -> float:
    """Noise multiplier at which `num_steps` sampled steps weigh about as much as one Gaussian release.

    Source: Dong et al. 2019, "Gaussian Differential Privacy", Corollary 5.4 (central limit).
    """
    ratio = 1.0 / (sampling_rate * equivalent_noise) ** 2 / num_steps
    return max(0.3, 1.0 / math.sqrt(math.log1p(ratio)))


def find_root(function: Callable[[float], Any], lower: float, upper: float, *, tolerance: float) -> float:
    """Where a function that changes sign between lower and upper is zero, by Brent's method.

    Raises:
      ValueError: the sign does not change.
    """
    return float(root_scalar(function, bracket=(lower, upper), method="brentq", xtol=tolerance).root)


def _without_noise(events: Sequence[Event]) -> bool:
    return any(event.get("noise_multiplier", 1.0) == 0 for event in events)


def _compose(events: Sequence[Event], discretization: float):
    for event in events:
        check_event(event)
    # Gaussian releases add up exactly: their inverse squared noise multipliers do.
    precision = sum(event["count"] / event["noise_multiplier"] ** 2 for event in events if event["kind"] == "gaussian")
    parts = [event for event in events if event["kind"] != "gaussian"]
    if precision:
        parts.append({"kind": "gaussian", "noise_multiplier": precision**-0.5, "count": 1})
    distributions = [_distribution(tuple(sorted(event.items())), discretization) for event in parts]
    return functools.reduce(lambda total, distribution: total.compose(distribution), distributions)


@functools.lru_cache(maxsize=8)  # a search asks again only for what was spent before training
def _distribution(items: tuple[tuple[str, Any], ...], discretization: float):
    """Privacy-loss distribution of one event, given as sorted items."""
    from dp_accounting.pld import common
    from dp_accounting.pld import privacy_loss_distribution as pld

    event = dict(items)
    kind, count = event["kind"], int(event["count"])
    if kind in ("gaussian", "poisson_gaussian"):
        one = pld.from_gaussian_mechanism(
            event["noise_multiplier"],
            sampling_prob=event.get("sampling_rate", 1.0),
            value_discretization_interval=discretization,
        )
    elif kind == "laplace":
        one = pld.from_laplace_mechanism(event["noise_multiplier"], value_discretization_interval=discretization)
    else:
        parameters = common.DifferentialPrivacyParameters(event["epsilon"], event.get("delta", 0.0))
        one = pld.from_privacy_parameters(parameters, value_discretization_interval=discretization)
    return one if count == 1 else one.self_compose(count)
