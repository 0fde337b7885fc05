"""One DP-SGD step: sample, clip, sum, add noise, divide. The order is the proof."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from privsyn_jax.privacy.clipping import Choice, ClippedSum, choose, clipped_grad_sum
from privsyn_jax.privacy.microbatch import microbatched_grad_sum
from privsyn_jax.privacy.noise import add_gaussian_noise
from privsyn_jax.privacy.sampling import poisson_batch, poisson_draw
from privsyn_jax.training.state import TrainState

Schedule = float | Callable[[jax.Array], jax.Array]  # a value, or its value at a step (traced int32)


class Shard(NamedTuple):
    """Where a device stands when the rows are split over devices, see `training.parallel`."""

    axis_name: str
    num_rows: int  # of the whole table; every device holds the same number, the last ones are filled up


@dataclasses.dataclass(frozen=True, eq=False)
class DPStep:
    """(state, records, key) -> (state, nonprivate log).

    Sensitivity of the sum under adding or removing one record: l2_clip_norm. Noise stddev:
    noise_multiplier * l2_clip_norm. The divisor is the expected batch size, never the drawn one. With
    noise_multiplier 0 the step is not private.

    Attributes:
      private_loss: (params, example, key) -> scalar.
      sampling_rate: probability of each record to enter the batch, see `exact_sampling_rate`.
      l2_clip_norm, noise_multiplier: values, or functions of the step; what they read must be public or released.
      microbatch_size: examples per gradient sum; a draw takes as many sums as it needs.
      ema_decay: of the average of params["private"].
      method, num_draws: see `clipped_grad_sum`.
      shard: the device's part, None for one device with all rows.

    Source: Abadi et al. 2016, "Deep Learning with Differential Privacy", Algorithm 1.
    """

    private_loss: Callable[..., jax.Array]
    optimizer: optax.GradientTransformation
    sampling_rate: float
    expected_batch_size: float
    l2_clip_norm: Schedule
    noise_multiplier: Schedule
    microbatch_size: int
    ema_decay: float
    method: str = "auto"
    num_draws: int = 1
    shard: Shard | None = None

    def __call__(self, state: TrainState, records: Any, key: jax.Array) -> tuple[TrainState, dict[str, jax.Array]]:
        batch_key, model_key, noise_key = self.keys(state.step, key)
        num_local = jax.tree.leaves(records)[0].shape[0]
        num_rows, first_row = num_local, jnp.int32(0)
        if self.shard is not None:
            num_rows, first_row = self.shard.num_rows, num_local * jax.lax.axis_index(self.shard.axis_name)
        indices, batch_size = poisson_batch(
            batch_key,
            num_rows=num_rows,
            sampling_rate=self.sampling_rate,
            capacity=-(-num_local // self.microbatch_size) * self.microbatch_size,
            first_row=first_row,
            num_local=num_local,
        )
        clipped = microbatched_grad_sum(
            self.private_loss,
            state.params,
            records,
            indices,
            batch_size,
            model_key,
            l2_clip_norm=_at(self.l2_clip_norm, state.step),
            microbatch_size=self.microbatch_size,
            first_id=first_row,
            method=self.method,
            num_draws=self.num_draws,
        )
        if self.shard is not None:
            clipped, batch_size = jax.lax.psum((clipped, batch_size), self.shard.axis_name)
        return self.update(state, clipped, batch_size, noise_key)

    def keys(self, step: jax.Array, key: jax.Array) -> jax.Array:
        """Keys of the draw, of the losses and of the noise of a step; the same on every device."""
        return jax.random.split(jax.random.fold_in(key, step), 3)

    def draw(self, step: jax.Array, key: jax.Array, num_rows: int) -> jax.Array:
        """Bool [num_rows]: the rows of the step's batch, as `__call__` draws them."""
        return poisson_draw(self.keys(step, key)[0], num_rows=num_rows, sampling_rate=self.sampling_rate)

    def clipped(self, state: TrainState, examples: Any, ids: jax.Array, is_padding: jax.Array, key: jax.Array):
        """The clipped sum over some of the step's examples, as `__call__` takes it."""
        return clipped_grad_sum(
            self.private_loss,
            state.params,
            examples,
            is_padding,
            self.keys(state.step, key)[1],
            l2_clip_norm=_at(self.l2_clip_norm, state.step),
            method=self.method,
            num_draws=self.num_draws,
            example_ids=ids,
        )

    def gradient_choice(self, params: Any, records: Any) -> Choice:
        """How the gradients of a microbatch of these records are taken."""
        size = self.microbatch_size
        examples = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((size, *leaf.shape[1:]), leaf.dtype), records)
        keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), size))
        return choose(self.private_loss, params, examples, keys, method=self.method, num_draws=self.num_draws)

    def update(
        self, state: TrainState, clipped: ClippedSum, batch_size: jax.Array, noise_key: jax.Array
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """Noise, once, and what follows from the noisy sum."""
        noisy_sum = clipped.grad_sum
        if callable(self.noise_multiplier) or self.noise_multiplier > 0:
            stddev = _at(self.noise_multiplier, state.step) * _at(self.l2_clip_norm, state.step)
            noisy_sum = add_gaussian_noise(noisy_sum, stddev=stddev, key=noise_key)
        grads = jax.tree.map(lambda total: total / self.expected_batch_size, noisy_sum)
        updates, opt_state = self.optimizer.update(grads, state.opt_state, state.params["private"])
        private = optax.apply_updates(state.params["private"], updates)
        ema = optax.incremental_update(private, state.ema, 1 - self.ema_decay)
        size = jnp.maximum(batch_size, 1)
        nonprivate_log = {
            "loss": clipped.nonprivate_loss_sum / size,
            "grad_norm": clipped.nonprivate_norm_sum / size,
            "clip_fraction": clipped.nonprivate_clipped_count / size,
            "nonfinite": clipped.nonprivate_nonfinite_count,
            "batch_size": batch_size,
        }
        return TrainState({**state.params, "private": private}, ema, opt_state, state.step + 1), nonprivate_log


def _at(schedule: Schedule, step: jax.Array) -> jax.Array | float:
    return schedule(step) if callable(schedule) else schedule


def in_bfloat16(private_loss: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """The loss computed in bfloat16; parameters, norms, sums, noise and the optimiser stay float32."""

    def cast(tree):
        return jax.tree.map(
            lambda leaf: leaf.astype(jnp.bfloat16) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree
        )

    return lambda params, example, key: private_loss(cast(params), cast(example), key).astype(jnp.float32)


def many_steps(step: Callable[..., Any], count: int) -> Callable[..., Any]:
    """Jitted (state, records, key) -> (state, logs [count]): `count` steps in one dispatch, the state donated."""
    return jax.jit(repeated(step, count), donate_argnums=0)


def repeated(step: Callable[..., Any], count: int) -> Callable[..., Any]:
    """The same without jit."""
    return lambda state, records, key: jax.lax.scan(lambda carry, _: step(carry, records, key), state, length=count)
