"""What a training run carries from step to step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from privsyn_jax.privacy.noise import noise_memory
from privsyn_jax.privacy.sampling import sampling_threshold
from privsyn_jax.privacy.schedules import Level
from privsyn_jax.types import Params


class Controls(NamedTuple):
    """The numbers that the next steps run with, public or made from released values; runtime values, not compiled in.

    `noise_multiplier` is that of all which a step releases, together.
    """

    sampling_threshold: jax.Array  # scalar uint32, see `sampling.sampling_threshold`
    expected_batch_size: jax.Array  # scalar float32
    noise_multiplier: jax.Array  # scalar float32
    l2_clip_norm: jax.Array  # scalar float32


class PublicState(NamedTuple):
    """What training of params["public"] carries from step to step."""

    opt_state: Any
    ema: Any  # exponential moving average of params["public"]


class TrainState(NamedTuple):
    """A pytree. Only released values reach it: noisy sums and what follows from them (`noise_memory` is secret)."""

    params: Params
    ema: Any  # exponential moving average of params["private"]
    opt_state: Any
    step: jax.Array  # scalar int32, steps done
    controls: Controls
    noise_memory: Any  # earlier noise, for correlated noise
    public: PublicState | None = None  # where params["public"] is trained


def initial_state(
    params: Params,
    optimizer: optax.GradientTransformation,
    level: Level,
    *,
    coefficients: Sequence[float] = (1.0,),
    public_optimizer: optax.GradientTransformation | None = None,
) -> TrainState:
    """State before the first step.

    Args:
      level: what the first steps run with.
      coefficients: see `noise.add_correlated_noise`.
      public_optimizer: of params["public"], where they are trained.
    """
    # A weakly typed parameter becomes a strong one in the first dispatch, and the second would compile anew.
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), params)
    private = params["private"]
    memory = noise_memory(private, coefficients)
    public = None
    if public_optimizer is not None:
        public = PublicState(public_optimizer.init(params["public"]), jax.tree.map(jnp.copy, params["public"]))
    copied = jax.tree.map(jnp.copy, private)
    return TrainState(params, copied, optimizer.init(private), jnp.int32(0), controls_of(level), memory, public)


def with_level(state: TrainState, level: Level, *, keep_clip_norm: bool = False) -> TrainState:
    """The state before steps of another level; an adaptive clipping norm is kept."""
    controls = controls_of(level)
    if keep_clip_norm:
        controls = controls._replace(l2_clip_norm=state.controls.l2_clip_norm)
    return state._replace(controls=controls)


def controls_of(level: Level) -> Controls:
    """The numbers of a level, as the device takes them."""
    return Controls(
        jnp.uint32(sampling_threshold(level.sampling_rate)),
        jnp.float32(level.expected_batch_size),
        jnp.float32(level.noise_multiplier),
        jnp.float32(level.l2_clip_norm),
    )
