"""What a training run carries from step to step."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from privsyn_jax.types import Params


class TrainState(NamedTuple):
    """A pytree. Only released values reach it: noisy sums and what follows from them."""

    params: Params
    ema: Any  # exponential moving average of params["private"]
    opt_state: Any
    step: jax.Array  # scalar int32, steps done


def initial_state(params: Params, optimizer: optax.GradientTransformation) -> TrainState:
    """State before the first step."""
    # A weakly typed parameter becomes a strong one in the first dispatch, and the second would compile anew.
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), params)
    private = params["private"]
    return TrainState(params, jax.tree.map(jnp.copy, private), optimizer.init(private), jnp.int32(0))
