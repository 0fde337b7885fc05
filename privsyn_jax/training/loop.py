"""Runs the steps: dispatches of many steps, each followed by the hooks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from privsyn_jax.privacy.spending import Spending
from privsyn_jax.training.state import TrainState, with_level
from privsyn_jax.training.step import many_steps

Compiled = Callable[..., tuple[TrainState, dict[str, jax.Array]]]  # (state, records, key) -> (state, logs [count])

Hook = Callable[[TrainState, dict[str, np.ndarray]], None]


def fit(
    step: Callable[..., Any],
    state: TrainState,
    records: Any,
    *,
    key: jax.Array,
    spending: Spending,
    keep_clip_norm: bool = False,
    hooks: Sequence[Hook] = (),
    compile_steps: Callable[[Callable[..., Any], int], Compiled] | None = None,
) -> TrainState:
    """Trains from state.step on, block by block, for as long as there is something to spend.

    Everything random in a step comes from `key` folded with the step's number, so a run that starts
    from a saved state repeats the unbroken one.

    Args:
      step: (state, records, key) -> (state, log).
      records: pytree of arrays, the whole encoded table, where compile_steps wants it.
      key: secret.
      spending: chooses and pays every block before it runs; a block is one dispatch.
      keep_clip_norm: the clipping norm is the state's own, not the block's.
      compile_steps: (step, count) -> Compiled, which runs count steps; default `step.many_steps`, on one
        device that holds the records. See also `parallel` and `feed`.
      hooks: called before the first dispatch with empty logs, and after every dispatch with one log entry per step.
    """
    dispatch: dict[int, Compiled] = {}
    for hook in hooks:
        hook(state, {})
    while (block := spending.next_block(int(state.step))) is not None:
        count = block.num_steps
        if count not in dispatch:
            dispatch[count] = (compile_steps or many_steps)(step, count)
        state, logs = dispatch[count](with_level(state, block, keep_clip_norm=keep_clip_norm), records, key)
        found = {name: np.asarray(values) for name, values in logs.items()}
        spending.observe({name: values for name, values in found.items() if name.startswith("released_")})
        for hook in hooks:
            hook(state, found)
    return state
