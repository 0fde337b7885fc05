"""Adam whose learning rate is part of the state, so that runs which differ in nothing else share one program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class PeakState(NamedTuple):
    count: jax.Array  # scalar int32, updates so far
    peak: jax.Array  # scalar float32, the learning rate at the start


def cosine_adam(learning_rate: float, num_steps: int, *, b1: float = 0.9) -> optax.GradientTransformation:
    """Adam with a learning rate that falls from `learning_rate` to 0 over num_steps by a cosine.

    Args:
      b1: decay of the mean gradient.
    """
    shape = optax.cosine_decay_schedule(1.0, num_steps)

    def init(params: Any) -> PeakState:
        del params
        return PeakState(jnp.int32(0), jnp.float32(learning_rate))

    def update(updates: Any, state: PeakState, params: Any = None) -> tuple[Any, PeakState]:
        del params
        rate = state.peak * shape(state.count)
        return jax.tree.map(lambda leaf: -rate * leaf, updates), PeakState(state.count + 1, state.peak)

    return optax.chain(optax.scale_by_adam(b1=b1), optax.GradientTransformation(init, update))  # type: ignore[arg-type]


def projected(optimizer: optax.GradientTransformation, project: Callable[[Any], Any]) -> optax.GradientTransformation:
    """The optimizer, and after each update a projection of the parameters, which is post-processing of them."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        changes, state = optimizer.update(updates, state, params)
        allowed = project(optax.apply_updates(params, changes))
        return jax.tree.map(jnp.subtract, allowed, params), state

    return optax.GradientTransformation(optimizer.init, update)
