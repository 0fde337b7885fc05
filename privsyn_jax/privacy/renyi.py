"""Events to Renyi divergence, and from there to (epsilon, delta): what `select` and `renyi` need, and a cross-check."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

Event = dict[str, Any]

ORDERS = (*range(2, 65), 80, 96, 128, 192, 256, 512, 1024)  # whole orders have a closed form, and are quick


def divergences(event: Event, orders: Sequence[float]) -> np.ndarray:
    """Largest Renyi divergence between neighbours of all `count` mechanisms of an event, at each order > 1.

    An approximate event counts as pure: its delta is set aside by `epsilon` and `delta`. A Renyi event holds at its own
    order and all smaller ones, since divergence grows with the order (van Erven and Harremoes 2014, "Renyi Divergence
    and Kullback-Leibler Divergence", Theorem 3).
    """
    if event["kind"] == "renyi":
        each = np.where(np.asarray(orders) <= event["order"], event["epsilon"], math.inf)
    else:
        text = json.dumps({name: event[name] for name in sorted(event) if name != "count"})
        each = _divergences(text, tuple(orders))
    return int(event["count"]) * each


def epsilon(events: Sequence[Event], delta: float) -> float:
    """Epsilon at delta, at the best order."""
    from dp_accounting.rdp import rdp_privacy_accountant as rdp

    delta -= _set_aside(events)
    orders = _orders(events)
    return float(rdp.compute_epsilon(orders, _total(events, orders).tolist(), delta)[0]) if delta > 0 else math.inf


def delta(events: Sequence[Event], epsilon: float) -> float:
    """Delta at epsilon, at the best order."""
    from dp_accounting.rdp import rdp_privacy_accountant as rdp

    orders = _orders(events)
    return min(1.0, float(rdp.compute_delta(orders, _total(events, orders).tolist(), epsilon)[0]) + _set_aside(events))


def budget(before: Sequence[Event], order: float, epsilon: float, delta: float) -> float:
    """Divergence at the order that is left on top of `before` when all together may spend (epsilon, delta).

    Negative infinity if nothing is.

    Source: Canonne, Kamath and Steinke 2020, "The Discrete Gaussian for Differential Privacy", Proposition 12.
    """
    delta -= _set_aside(before)
    if delta <= 0:
        return -math.inf
    whole = epsilon - math.log1p(-1 / order) + math.log(delta * order) / (order - 1)
    return whole * (1 - 1e-12) - float(_total(before, (order,))[0])


def _total(events: Sequence[Event], orders: Sequence[float]) -> np.ndarray:
    return sum((divergences(event, orders) for event in events), np.zeros(len(orders)))


def _orders(events: Sequence[Event]) -> Sequence[float]:
    """The order of the filters among the events, if any: the smallest, where all of them hold."""
    fixed = [event["order"] for event in events if event["kind"] == "renyi"]
    return (min(fixed),) if fixed else ORDERS


def _set_aside(events: Sequence[Event]) -> float:
    return math.fsum(event["delta"] * event["count"] for event in events if event["kind"] == "approximate")


@functools.lru_cache(maxsize=1024)
def _divergences(event: str, orders: tuple[float, ...]) -> np.ndarray:
    """Of one mechanism, given as JSON. The bound for selection looks at all orders of a trial to bound one."""
    from dp_accounting import rdp

    every = tuple(sorted({*ORDERS, *orders}))
    plain = json.loads(event)
    used = every if plain["kind"] == "select" else orders
    found = rdp.RdpAccountant(used).compose(_dp_event(plain)).rdp
    return found[[used.index(order) for order in orders]]


def _dp_event(event: Event):
    """One mechanism as dp_accounting knows it.

    Source: discrete Gaussian: Canonne, Kamath and Steinke 2020, "The Discrete Gaussian for Differential Privacy",
    Proposition 5. epsilon-DP is epsilon^2 / 2 zero-concentrated (Bun and Steinke 2016, "Concentrated Differential
    Privacy", Proposition 1.4). The losses of the exponential mechanism range over epsilon (Dong, Durfee and Rogers
    2020, "Optimal Differential Privacy Composition for Exponential Mechanisms"), which makes it epsilon^2 / 8 (Cesar
    and Rogers 2021, "Bounding, Concentrating, and Truncating: Unifying Privacy Loss Composition for Data Analytics").
    Selection: Papernot and Steinke 2022, "Hyperparameter Tuning with Renyi Differential Privacy", Theorems 2 and 6.
    """
    import dp_accounting as dp

    kind = event["kind"]
    if kind == "poisson_gaussian":
        return dp.PoissonSampledDpEvent(event["sampling_rate"], dp.GaussianDpEvent(event["noise_multiplier"]))
    if kind in ("gaussian", "discrete_gaussian"):
        return dp.GaussianDpEvent(event["noise_multiplier"])
    if kind == "laplace":
        return dp.LaplaceDpEvent(event["noise_multiplier"])
    if kind == "select":
        trial: list[dp.DpEvent] = [
            dp.SelfComposedDpEvent(_dp_event(part), int(part["count"])) for part in event["events"]
        ]
        shape = math.inf if event["shape"] == "poisson" else event["shape"]
        return dp.dp_event.RepeatAndSelectDpEvent(dp.ComposedDpEvent(trial), event["mean"], shape)
    epsilon = 1 / event["noise_multiplier"] if kind == "discrete_laplace" else event["epsilon"]
    return dp.dp_event.ZCDpEvent(epsilon * epsilon / (8 if kind == "exponential" else 2))
