"""Epsilon by dp-accounting's own privacy-loss distributions: what is claimed must agree before it is released."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Sequence
from typing import Any

from privsyn_jax.privacy import accounting
from privsyn_jax.privacy.accounting import Event

_GRIDS = (accounting.COARSE, accounting.FINE)
_TOLERANCE = 1e-3


def confirm(events: Sequence[Event], delta: float) -> None:
    """Composes the events with dp-accounting and compares, both at accounting.COARSE, or else at accounting.FINE.

    Losses far smaller than the coarse grid, as of hundreds of Gaussians with much noise, are rounded in ways that
    differ; what differs for another reason does so on the fine grid too.

    Renyi-only ledgers are dp-accounting's already, and infinite epsilons claim nothing: neither is compared.

    Raises:
      RuntimeError: on both grids the two differ by more than 1e-3, relative, and by more than a point of the grid.
    """
    if not events or any(accounting.renyi_only(event) for event in events):
        return
    claimed, theirs = math.inf, math.inf
    for grid in _GRIDS:
        claimed = accounting.epsilon_of(events, delta, discretization=grid)
        if math.isinf(claimed):
            return
        theirs = _epsilon(json.dumps(list(events), sort_keys=True), delta, grid)
        if math.isclose(claimed, theirs, rel_tol=_TOLERANCE, abs_tol=grid):
            return
    raise RuntimeError(f"epsilon is {claimed} here and {theirs} by dp-accounting: nothing was released")


@functools.lru_cache(maxsize=64)  # the runs of a study have equal ledgers
def _epsilon(events: str, delta: float, grid: float) -> float:
    """Of events as JSON."""
    from dp_accounting.pld import privacy_loss_distribution as pld

    total = pld.identity(value_discretization_interval=grid)
    for event in json.loads(events):
        one = _distribution(event, grid)
        total = total.compose(one if event["count"] == 1 else one.self_compose(int(event["count"])))
    return float(total.get_epsilon_for_delta(delta))


def _distribution(event: Event, grid: float):
    from dp_accounting.pld import common
    from dp_accounting.pld import privacy_loss_distribution as pld

    kind, noise = event["kind"], event.get("noise_multiplier", 0.0)
    more: Any = {
        "sensitivity": event.get("sensitivity"),
        "use_connect_dots": True,
        "value_discretization_interval": grid,
    }
    if kind in ("gaussian", "poisson_gaussian"):
        return pld.from_gaussian_mechanism(
            noise, sampling_prob=event.get("sampling_rate", 1.0), value_discretization_interval=grid
        )
    if kind == "laplace":
        return pld.from_laplace_mechanism(noise, value_discretization_interval=grid)
    if kind == "discrete_gaussian":
        return pld.from_discrete_gaussian_mechanism(noise * more["sensitivity"], **more)
    if kind == "discrete_laplace":
        return pld.from_discrete_laplace_mechanism(1 / (noise * more["sensitivity"]), **more)
    parameters = common.DifferentialPrivacyParameters(event["epsilon"], event.get("delta", 0.0))
    return pld.from_privacy_parameters(parameters, value_discretization_interval=grid)
