"""Many runs in one program: states stacked, each with its own key, noise, records and ledger."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from privsyn_jax.privacy.spending import Spending
from privsyn_jax.training.loop import Hook
from privsyn_jax.training.state import TrainState, with_level
from privsyn_jax.training.step import DPStep, Members, repeated


def fit_together(
    step: DPStep,
    states: Sequence[TrainState],
    records: Any,
    *,
    keys: Sequence[jax.Array],
    spendings: Sequence[Spending],
    records_are_shared: bool,
    are_seeded: bool = False,
    keep_clip_norm: bool = False,
    hooks: Sequence[Hook] = (),
    compile_steps: Callable[[DPStep, int, Any], Callable[..., Any]] | None = None,
) -> list[TrainState]:
    """`loop.fit` of R runs at once, by vmap over stacked states.

    Every run draws, clips and adds noise as it would alone, with its own key and its own `Controls`, and pays for its
    own blocks; the results agree up to the order of float32 additions.

    Args:
      step: of every run.
      states: R states of equal shapes. Learning rates may differ, see `optimizer.cosine_adam`.
      records: pytree of arrays, [n, ...] if they are shared, else [R, n, ...]; `Members` of shared records have
        `is_member` [R, n]: a run draws from its own members only.
      keys: R secret keys, all different unless the runs are seeded.
      spendings: R; all must choose blocks of the same length.
      records_are_shared: whether the runs train on one table.
      are_seeded: whether the noise of every run is, and private in none: paired runs then share a seed.
      hooks: as in `loop.fit`, with stacked states and logs [R, count].
      compile_steps: (step, count, axes of the records) -> what runs count steps of all runs; default
        `many_steps_together`. For several calls that share a program.

    Raises:
      ValueError: two keys are equal, or the runs cannot be dispatched together.
    """
    words = np.stack([np.asarray(jax.random.key_data(key)) for key in keys])
    if not are_seeded and len(np.unique(words, axis=0)) < len(keys):
        raise ValueError("two runs have the same key: their noise would be the same")
    stacked_keys = jax.random.wrap_key_data(jnp.asarray(words), impl="threefry2x32")
    axes: Any = None if records_are_shared else 0
    if isinstance(records, Members):
        axes = Members(axes, 0)  # type: ignore[arg-type]
    dispatch: dict[int, Callable[..., Any]] = {}
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    done = int(states[0].step)
    for hook in hooks:
        hook(stacked, {})
    while any(blocks := [spending.next_block(done) for spending in spendings]):
        lengths = {block.num_steps if block is not None else 0 for block in blocks}
        if len(lengths) > 1:
            raise ValueError(f"the runs would take {sorted(lengths)} steps next: train them apart")
        (count,) = lengths
        if count not in dispatch:
            dispatch[count] = (compile_steps or many_steps_together)(step, count, axes)
        stacked, logs = dispatch[count](_with_levels(stacked, blocks, keep_clip_norm), records, stacked_keys)
        found = {name: np.asarray(values) for name, values in logs.items()}
        for number, spending in enumerate(spendings):
            spending.observe({name: rows[number] for name, rows in found.items() if name.startswith("released_")})
        done += count
        for hook in hooks:
            hook(stacked, found)
    return [jax.tree.map(lambda leaf, number=number: leaf[number], stacked) for number in range(len(states))]


def many_steps_together(step: DPStep, count: int, axes: Any) -> Callable[..., Any]:
    """Jitted (stacked states, records, keys) -> (states, logs [R, count]), the states donated."""
    return jax.jit(jax.vmap(repeated(step, count), in_axes=(0, axes, 0)), donate_argnums=0)


def _with_levels(stacked: TrainState, blocks: Sequence[Any], keep_clip_norm: bool) -> TrainState:
    """The stacked state before steps of each run's own level."""
    levels = [with_level(stacked, block).controls for block in blocks]
    controls = jax.tree.map(lambda *values: jnp.stack(values), *levels)
    if keep_clip_norm:
        controls = controls._replace(l2_clip_norm=stacked.controls.l2_clip_norm)
    return stacked._replace(controls=controls)
