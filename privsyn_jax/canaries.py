"""Canaries: records whose gradient is known, trained on by the step and the loop of a real run.

A canary is a record like any other: a coin decides whether it is in the table, the sampler whether it is in a batch,
its gradient is longer than the clipping norm and is cut to it, summed, hidden in noise and divided. Its gradient lies
on a coordinate of its own, added to the parameters; what the noisy sums have there is all that an observer looks at.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from privsyn_jax.training.state import TrainState
from privsyn_jax.training.step import DPStep
from privsyn_jax.types import Generator

NO_CANARY = -1
GRADIENT_NORM = 100.0  # of a canary, in units of the largest clipping norm: without clipping it stands out


class Planted(NamedTuple):
    """Encoded records with the canaries among them.

    Attributes:
      record: pytree of arrays [n, ...], encoded; ignored where the row is a canary.
      canary: int32 [n], the coordinate of a canary, NO_CANARY for a record.
      sign: float32 [n], of a canary's gradient.
    """

    record: Any
    canary: jax.Array
    sign: jax.Array


class Seen(NamedTuple):
    """State of an optimizer that remembers the last gradient of the canaries' coordinates."""

    inner: Any
    gradient: jax.Array  # [num_canaries]


def plant(generator: Generator, num_canaries: int, *, num_steps: int, gradient_norm: float) -> Generator:
    """The generator, whose private parameters have one more coordinate for every canary and whose loss takes Planted.

    The gradient of a canary is gradient_norm times its sign on its own coordinate, whatever the parameters are; it
    changes sign from step to step, see `evaluation.audit.likelihood_scores`. That of a record is what it was.

    Args:
      num_steps: of the training, which progress in `advance` is relative to.
    """
    private_loss, advance, public_loss = generator.private_loss, generator.advance, generator.public_loss
    project = generator.project
    assert private_loss is not None

    def own(params):
        return {name: part["model"] for name, part in params.items()}

    def init(key):
        params = generator.init(key)
        private = {"model": params["private"], "canary": jnp.zeros(num_canaries)}
        return {"private": private, "public": {"model": params["public"], "sign": jnp.float32(1)}}

    def planted_loss(params, example, key):
        loss = private_loss(own(params), example.record, key)
        coordinate = params["private"]["canary"][jnp.maximum(example.canary, 0)]
        canary_loss = gradient_norm * params["public"]["sign"] * example.sign * coordinate
        return jnp.where(example.canary == NO_CANARY, loss, canary_loss)

    def alternate(params, progress):
        model = own(params) if advance is None else advance(own(params), progress)
        is_odd = jnp.round(progress * num_steps).astype(jnp.int32) % 2
        return {
            "private": {**params["private"], "model": model["private"]},
            "public": {"model": model["public"], "sign": 1.0 - 2.0 * is_odd},
        }

    return generator._replace(
        init=init,
        private_loss=planted_loss,
        public_loss=None if public_loss is None else lambda params, key: public_loss(own(params), key),
        advance=alternate,
        project=None if project is None else lambda private: {**private, "model": project(private["model"])},
        calibrate=None,
        stages=(),
        after=(),
    )


def plant_among(records: Any, num_canaries: int) -> Planted:
    """Canaries 0, 1, ... first, then the records.

    Args:
      records: pytree of arrays [n, ...] of at least one encoded record.
    """
    num_records = len(jax.tree.leaves(records)[0])
    rows = np.concatenate([np.arange(num_canaries) % num_records, np.arange(num_records)])
    canary = np.concatenate([np.arange(num_canaries), np.full(num_records, NO_CANARY)]).astype(np.int32)
    return Planted(
        jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[rows]), records),
        jnp.asarray(canary),
        jnp.ones(len(canary), jnp.float32),
    )


def observed(step: DPStep, state: TrainState) -> tuple[Callable[..., Any], TrainState]:
    """The step and its first state, watched: the log has what an adversary sees of the canaries.

    "canary_sum" [num_canaries]: the noisy sum on their coordinates; "canary_stddev": of its noise, before correlation,
    both in units of the clipping norm; "canary_rate": the sampling rate.
    """
    seen = Seen(state.opt_state, jnp.zeros_like(state.params["private"]["canary"]))
    watched = dataclasses.replace(step, optimizer=_remembering(step.optimizer))

    def run(state: TrainState, records: Any, key: jax.Array):
        controls = state.controls
        state, log = watched(state, records, key)
        log["canary_sum"] = state.opt_state.gradient * controls.expected_batch_size / controls.l2_clip_norm
        log["canary_stddev"] = watched.gradient_noise(controls)
        log["canary_rate"] = (controls.sampling_threshold.astype(jnp.float32) + 1) / 2.0**32
        return state, log

    return run, state._replace(opt_state=seen)


def _remembering(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    def init(params):
        return Seen(optimizer.init(params), jnp.zeros_like(params["canary"]))

    def update(updates, state, params=None):
        changes, inner = optimizer.update(updates, state.inner, params)
        return changes, Seen(inner, updates["canary"])

    return optax.GradientTransformation(init, update)
