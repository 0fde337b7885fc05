"""Events to (epsilon, delta). An event is plain JSON from which anyone can recompute; docs/ledger.md explains them.

  {"kind": "poisson_gaussian", "sampling_rate", "noise_multiplier", "count"}  Poisson-sampled Gaussian steps
  {"kind": "gaussian", "noise_multiplier", "count"}                           Gaussian releases
  {"kind": "laplace", "noise_multiplier", "count"}                            Laplace releases (scale / L1 sensitivity)
  {"kind": "discrete_gaussian", "noise_multiplier", "sensitivity", "count"}   the same for one whole number
  {"kind": "discrete_laplace", "noise_multiplier", "sensitivity", "count"}
  {"kind": "exponential", "epsilon", "count"}                                 exponential mechanisms, epsilon-DP each
  {"kind": "pure", "epsilon", "count"}                                        any epsilon-DP mechanism
  {"kind": "approximate", "epsilon", "delta", "count"}                        any (epsilon, delta)-DP mechanism
  {"kind": "select", "events", "mean", "shape", "count"}                      best of a random number of trials
  {"kind": "renyi", "order", "epsilon", "count"}                              any (order, epsilon)-Renyi-DP mechanism

The last two have no privacy-loss distribution: events with one of them are accounted by Renyi divergence.
Neighbouring relation: add or remove one record.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any

from privsyn_jax.privacy import loss_distribution, renyi
from privsyn_jax.privacy.loss_distribution import Pmf
from privsyn_jax.privacy.search import COARSE, FINE

Event = dict[str, Any]

NEIGHBORING_RELATION = "add or remove one record"

_FIELDS = {
    "poisson_gaussian": ("sampling_rate", "noise_multiplier", "count"),
    "gaussian": ("noise_multiplier", "count"),
    "laplace": ("noise_multiplier", "count"),
    "discrete_gaussian": ("noise_multiplier", "sensitivity", "count"),
    "discrete_laplace": ("noise_multiplier", "sensitivity", "count"),
    "exponential": ("epsilon", "count"),
    "pure": ("epsilon", "count"),
    "approximate": ("epsilon", "delta", "count"),
    "select": ("events", "mean", "shape", "count"),
    "renyi": ("order", "epsilon", "count"),
}
_RENYI_ONLY = ("select", "renyi")
_IN_NO_TRIAL = (*_RENYI_ONLY, "approximate")
_WHOLE = ("count", "sensitivity")
_ABOVE_ZERO = ("sampling_rate",)
_LEAST = {"count": 1, "sensitivity": 1, "mean": 1}
_MOST = {"sampling_rate": 1, "delta": 1, "sensitivity": 2**53}


def check_event(event: Event) -> None:
    """Raises ValueError, naming the event, unless it is one that `epsilon_of` can account for."""
    kind = event.get("kind")
    if kind not in _FIELDS:
        raise ValueError(f"event {event} has a kind that is not accounted for: use one of {', '.join(_FIELDS)}")
    if set(event) != {"kind", *_FIELDS[kind]}:
        raise ValueError(f"event {event} must have exactly the fields kind, {', '.join(_FIELDS[kind])}")
    for name in _FIELDS[kind]:
        value = event[name]
        if name == "events":
            _check_trial(event)
            continue
        if name == "shape" and value == "poisson":
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"event {event} has {name} = {value!r}: it must be a finite number")
        if name in _WHOLE and value != int(value):
            raise ValueError(f"event {event} has {name} = {value}: it must be a whole number")
        outside = value < _LEAST.get(name, 0) or value > _MOST.get(name, math.inf)
        if outside or (name in _ABOVE_ZERO and value == 0) or (name == "order" and value <= 1):
            raise ValueError(f"event {event} has {name} = {value}, out of range")


def _check_trial(event: Event) -> None:
    if not isinstance(event["events"], list) or not event["events"]:
        raise ValueError(f"event {event} has events = {event['events']!r}: list what one trial is charged as")
    for part in event["events"]:
        if not isinstance(part, dict) or part.get("kind") in _IN_NO_TRIAL:
            raise ValueError(f"event {event} has a trial with {part!r}: no bound is known for the selection among such")
        check_event(part)


def renyi_only(event: Event) -> bool:
    """Whether the event has no privacy-loss distribution."""
    return event["kind"] in _RENYI_ONLY


def epsilon_of(events: Iterable[Event], delta: float, *, discretization: float = FINE) -> float:
    """Epsilon at delta of all events together, an upper bound: by composing privacy-loss distributions, or by Renyi
    divergence if one of the events is `renyi_only`.

    Infinite when an event adds no noise, when approximate events use up delta, or when losses span more than
    `loss_distribution.MAX_POINTS` grid points (an epsilon of several hundred).
    """
    events = _checked(events)
    if not events:
        return 0.0
    if _without_noise(events):
        return math.inf
    if any(map(renyi_only, events)):
        return renyi.epsilon(events, delta)
    try:
        total = _total(events, discretization)
    except loss_distribution.TooWide:
        return math.inf
    return max(loss_distribution.epsilon(one, delta, discretization) for one in total)


def delta_of(events: Iterable[Event], epsilon: float, *, discretization: float = FINE) -> float:
    """Delta at epsilon of all events together; see `epsilon_of`."""
    events = _checked(events)
    if not events:
        return 0.0
    if _without_noise(events):
        return 1.0
    if any(map(renyi_only, events)):
        return renyi.delta(events, epsilon)
    try:
        total = _total(events, discretization)
    except loss_distribution.TooWide:
        return 1.0
    return max(loss_distribution.delta(one, epsilon, discretization) for one in total)


def epsilon_rdp(events: Iterable[Event], delta: float) -> float:
    """Epsilon at delta by Renyi accounting: looser, independent of privacy-loss distributions, printed beside them.

    Of an exponential mechanism both know only that it is epsilon-DP, unless `epsilon_of` is by Renyi divergence too.
    """
    events = _checked(events)
    if _without_noise(events):
        return math.inf
    if not any(map(renyi_only, events)):
        events = [{**event, "kind": "pure"} if event["kind"] == "exponential" else event for event in events]
    return renyi.epsilon(events, delta)


def epsilon_over_steps(
    before: Sequence[Event], steps: Event | Sequence[Event], at: Sequence[int], delta: float
) -> list[tuple[int, float]]:
    """(step, epsilon) after each of the given numbers of steps, on top of what was spent `before`, at COARSE.

    Args:
      steps: events in the order in which they run, each for `count` steps.
    """
    steps = [steps] if isinstance(steps, dict) else list(steps)
    before, steps = _merged(_checked(before)), _checked(steps)
    if _without_noise([*before, *steps]):
        return [(int(step), math.inf) for step in at]
    events, rows = [*before, *steps], []
    for step in at:
        left, row = int(step), [event["count"] for event in before]
        for event in steps:
            row.append(min(left, event["count"]))
            left -= row[-1]
        rows.append(row)
    if any(map(renyi_only, events)):
        run = [[{**event, "count": n} for event, n in zip(events, row, strict=True) if n] for row in rows]
        epsilons = [renyi.epsilon(part, delta) for part in run]
    else:
        try:
            totals = _compose(events, rows, COARSE)
            epsilons = [max(loss_distribution.epsilon(one, delta, COARSE) for one in total) for total in totals]
        except loss_distribution.TooWide:
            epsilons = [math.inf] * len(rows)
    return [(int(step), epsilon) for step, epsilon in zip(at, epsilons, strict=True)]


def _checked(events: Iterable[Event]) -> list[Event]:
    events = list(events)
    for event in events:
        check_event(event)
    return events


def _without_noise(events: Sequence[Event]) -> bool:
    return any(event.get("noise_multiplier", 1.0) == 0 or _without_noise(event.get("events", ())) for event in events)


def _merged(events: Sequence[Event]) -> list[Event]:
    """The same events with all Gaussian releases as one: their inverse squared noise multipliers add up exactly."""
    gaussian = [event for event in events if event["kind"] == "gaussian"]
    if not gaussian:
        return list(events)
    precision = math.fsum(event["count"] / event["noise_multiplier"] / event["noise_multiplier"] for event in gaussian)
    whole = {"kind": "gaussian", "noise_multiplier": max(precision, 1e-200) ** -0.5, "count": 1}
    return [whole, *(event for event in events if event["kind"] != "gaussian")]


def _total(events: Sequence[Event], grid: float) -> tuple[Pmf, ...]:
    return _total_of(tuple(tuple(sorted(event.items())) for event in _merged(events)), grid)


@functools.lru_cache(maxsize=8)  # a report asks for the same ledger several times, and the runs of a study share theirs
def _total_of(events: tuple[tuple[tuple[str, Any], ...], ...], grid: float) -> tuple[Pmf, ...]:
    merged = [dict(event) for event in events]
    return _compose(merged, [[event["count"] for event in merged]], grid)[0]


def _compose(events: Sequence[Event], rows: Sequence[Sequence[int]], grid: float) -> list[tuple[Pmf, ...]]:
    """Per row of counts, the total loss in every direction of the neighbouring relation that differs."""
    mechanisms = [tuple(sorted((name, event[name]) for name in event if name != "count")) for event in events]
    columns = {mechanism: column for column, mechanism in enumerate(dict.fromkeys(mechanisms))}
    counts = [[0] * len(columns) for _ in rows]
    for total, row in zip(counts, rows, strict=True):
        for mechanism, count in zip(mechanisms, row, strict=True):
            total[columns[mechanism]] += int(count)
    pairs = [_distributions(mechanism, grid) for mechanism in columns]
    directions = 1 if all(remove is add for remove, add in pairs) else 2
    totals = (loss_distribution.compose([pair[side] for pair in pairs], counts, grid) for side in range(directions))
    return list(zip(*totals, strict=True))


@functools.lru_cache(maxsize=64)
def _distributions(mechanism: tuple[tuple[str, Any], ...], grid: float) -> tuple[Pmf, Pmf]:
    """(remove, add) of one mechanism, an event without its count as sorted items."""
    event = dict(mechanism)
    kind = event["kind"]
    if kind in ("gaussian", "poisson_gaussian"):
        return loss_distribution.sampled_gaussian(event["noise_multiplier"], event.get("sampling_rate", 1.0), grid)
    if kind == "laplace":
        return loss_distribution.laplace(event["noise_multiplier"], grid)
    if kind == "discrete_gaussian":
        return loss_distribution.discrete_gaussian(event["noise_multiplier"], int(event["sensitivity"]), grid)
    if kind == "discrete_laplace":
        return loss_distribution.discrete_laplace(event["noise_multiplier"], int(event["sensitivity"]), grid)
    return loss_distribution.pure(event["epsilon"], event.get("delta", 0.0), grid)
