"""Epsilon by dp-accounting's own privacy-loss distributions: what is claimed must agree before it is released."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Sequence
from typing import Any

from privsyn_jax.privacy import accounting
from privsyn_jax.privacy.accounting import Event

_GRID = accounting.COARSE
_TOLERANCE = 1e-3


def confirm(events: Sequence[Event], delta: float) -> None:
    """Composes the events with dp-accounting and compares, both at accounting.COARSE.

    Renyi-only ledgers are dp-accounting's already, and infinite epsilons claim nothing: neither is compared.

    Raises:
      RuntimeError: the two differ by more than 1e-3, relative or in epsilon.
    """
    claimed = accounting.epsilon_of(events, delta, discretization=_GRID)
    if not events or math.isinf(claimed) or any(accounting.renyi_only(event) for event in events):
        return
    theirs = _epsilon(json.dumps(list(events), sort_keys=True), delta)
    if not math.isclose(claimed, theirs, rel_tol=_TOLERANCE, abs_tol=_GRID):
        raise RuntimeError(f"epsilon is {claimed} here and {theirs} by dp-accounting: nothing was released")


@functools.lru_cache(maxsize=64)  # the runs of a study have equal ledgers
def _epsilon(events: str, delta: float) -> float:
    """Of events as JSON."""
    from dp_accounting.pld import privacy_loss_distribution as pld

    total = pld.identity(value_discretization_interval=_GRID)
    for event in json.loads(events):
        one = _distribution(event)
        total = total.compose(one if event["count"] == 1 else one.self_compose(int(event["count"])))
    return float(total.get_epsilon_for_delta(delta))


def _distribution(event: Event):
    from dp_accounting.pld import common
    from dp_accounting.pld import privacy_loss_distribution as pld

    kind, noise = event["kind"], event.get("noise_multiplier", 0.0)
    more: Any = {
        "sensitivity": event.get("sensitivity"),
        "use_connect_dots": True,
        "value_discretization_interval": _GRID,
    }
    if kind in ("gaussian", "poisson_gaussian"):
        return pld.from_gaussian_mechanism(
            noise, sampling_prob=event.get("sampling_rate", 1.0), value_discretization_interval=_GRID
        )
    if kind == "laplace":
        return pld.from_laplace_mechanism(noise, value_discretization_interval=_GRID)
    if kind == "discrete_gaussian":
        return pld.from_discrete_gaussian_mechanism(noise * more["sensitivity"], **more)
    if kind == "discrete_laplace":
        return pld.from_discrete_laplace_mechanism(1 / (noise * more["sensitivity"]), **more)
    parameters = common.DifferentialPrivacyParameters(event["epsilon"], event.get("delta", 0.0))
    return pld.from_privacy_parameters(parameters, value_discretization_interval=_GRID)
