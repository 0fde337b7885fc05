"""Steps on records that stay on the host: drawn rows are gathered there while the device works on the step before."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from privsyn_jax.privacy.clipping import empty_sum
from privsyn_jax.training.state import TrainState
from privsyn_jax.training.step import DPStep


def many_steps(step: DPStep, count: int) -> Callable[..., Any]:
    """(state, records, key) -> (state, logs [count]): the steps of `training.step.many_steps`, the same draws and keys.

    `records` is a pytree of NumPy arrays (memory-mapped files are fine). One batch travels to the device in slices of
    microbatch_size rows, as many as the draw needs.
    """
    draw, nothing = jax.jit(step.draw, static_argnums=3), jax.jit(empty_sum)

    @functools.partial(jax.jit, donate_argnums=0)
    def add_slice(total, state, examples, ids, is_padding, key):
        return jax.tree.map(jnp.add, total, step.clipped(state, examples, ids, is_padding, key))

    def finish(state, total, batch_size, key):
        return step.update(state, total, batch_size, step.keys(state.step, key)[2])

    update = jax.jit(finish, donate_argnums=0)
    public_every, update_public = 0, None
    if step.public_update is not None:  # apart: inside a condition, XLA convolves slowly on CPU
        public_every = step.public_update.every
        update_public = jax.jit(
            lambda state, key: step.update_public(state, step.keys(state.step - 1, key)[2]), donate_argnums=0
        )

    def run(state: TrainState, records: Any, key: jax.Array):
        num_rows, first = len(jax.tree.leaves(records)[0]), int(state.step)
        logs, drawn = [], draw(jnp.int32(first), state.controls, key, num_rows)
        for number in range(first, first + count):
            rows = np.flatnonzero(drawn)
            if number + 1 < first + count:
                drawn = draw(jnp.int32(number + 1), state.controls, key, num_rows)  # queued before this step's work
            total = nothing(state.params["private"])
            for start in range(0, len(rows), step.microbatch_size):
                total = add_slice(total, state, *_slice(records, rows[start:], step.microbatch_size), key)
            state, log = update(state, total, jnp.int32(len(rows)), key)
            if update_public is not None and (number + 1) % public_every == 0:
                state = update_public(state, key)
            logs.append(log)
        return state, jax.tree.map(lambda *values: jnp.stack(values), *logs)

    return run


def _slice(records: Any, rows: np.ndarray, size: int) -> tuple[Any, np.ndarray, np.ndarray]:
    """(examples [size, ...], ids [size], is_padding [size]) of the first rows, filled up with row 0."""
    ids = np.zeros(size, np.int32)
    taken = min(size, len(rows))
    ids[:taken] = rows[:taken]
    return jax.tree.map(lambda array: array[ids], records), ids, np.arange(size) >= taken
