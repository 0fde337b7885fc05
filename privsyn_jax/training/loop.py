"""Runs the steps: dispatches of many steps, each followed by the hooks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from privsyn_jax.training.state import TrainState
from privsyn_jax.training.step import many_steps

Compiled = Callable[..., tuple[TrainState, dict[str, jax.Array]]]  # (state, records, key) -> (state, logs [count])

Hook = Callable[[TrainState, dict[str, np.ndarray]], None]


def fit(
    step: Callable[..., Any],
    state: TrainState,
    records: Any,
    *,
    key: jax.Array,
    num_steps: int,
    steps_per_dispatch: int,
    hooks: Sequence[Hook] = (),
    compile_steps: Callable[[Callable[..., Any], int], Compiled] | None = None,
) -> TrainState:
    """Trains from state.step to num_steps.

    Everything random in a step comes from `key` folded with the step's number, so a run that starts
    from a saved state repeats the unbroken one.

    Args:
      step: (state, records, key) -> (state, nonprivate log).
      records: pytree of arrays, the whole encoded table, where compile_steps wants it.
      key: secret.
      compile_steps: how many steps become one dispatch, (step, count) -> Compiled; default `step.many_steps`, on one
        device that holds the records. See also `parallel` and `feed`.
      hooks: called before the first dispatch with empty logs, and after every dispatch with one log entry per step.
    """
    dispatch = {}
    done = int(state.step)
    for hook in hooks:
        hook(state, {})
    while done < num_steps:
        count = min(steps_per_dispatch, num_steps - done)
        if count not in dispatch:
            dispatch[count] = (compile_steps or many_steps)(step, count)
        state, logs = dispatch[count](state, records, key)
        done += count
        logs = {name: np.asarray(values) for name, values in logs.items()}
        for hook in hooks:
            hook(state, logs)
    return state
