"""One DP-SGD step: sample, clip, sum, add noise, divide. The order is the proof."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from privsyn_jax.privacy.clipping import microbatched_grad_sum
from privsyn_jax.privacy.noise import add_gaussian_noise
from privsyn_jax.privacy.sampling import poisson_batch
from privsyn_jax.training.state import TrainState


def make_dp_step(
    private_loss: Callable[..., jax.Array],
    optimizer: optax.GradientTransformation,
    *,
    sampling_rate: float,
    expected_batch_size: float,
    l2_clip_norm: float,
    noise_multiplier: float,
    microbatch_size: int,
    ema_decay: float,
) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
    """Builds (state, records, key) -> (state, nonprivate log).

    Sensitivity of the sum under adding or removing one record: l2_clip_norm. Noise stddev:
    noise_multiplier * l2_clip_norm. The divisor is the expected batch size, never the drawn one. With
    noise_multiplier 0 the step is not private.

    Args:
      private_loss: (params, example, key) -> scalar.
      sampling_rate: probability of each record to enter the batch, see `exact_sampling_rate`.
      ema_decay: of the average of params["private"].

    Source: Abadi et al. 2016, "Deep Learning with Differential Privacy", Algorithm 1.
    """

    def step(state: TrainState, records: Any, key: jax.Array):
        batch_key, model_key, noise_key = jax.random.split(jax.random.fold_in(key, state.step), 3)
        num_rows = jax.tree.leaves(records)[0].shape[0]
        indices, batch_size = poisson_batch(
            batch_key,
            num_rows=num_rows,
            sampling_rate=sampling_rate,
            capacity=-(-num_rows // microbatch_size) * microbatch_size,
        )
        clipped = microbatched_grad_sum(
            private_loss,
            state.params,
            records,
            indices,
            batch_size,
            model_key,
            l2_clip_norm=l2_clip_norm,
            microbatch_size=microbatch_size,
        )
        noisy_sum = clipped.grad_sum
        if noise_multiplier > 0:
            noisy_sum = add_gaussian_noise(noisy_sum, stddev=noise_multiplier * l2_clip_norm, key=noise_key)
        grads = jax.tree.map(lambda total: total / expected_batch_size, noisy_sum)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params["private"])
        private = optax.apply_updates(state.params["private"], updates)
        ema = optax.incremental_update(private, state.ema, 1 - ema_decay)
        size = jnp.maximum(batch_size, 1)
        nonprivate_log = {
            "loss": clipped.nonprivate_loss_sum / size,
            "grad_norm": clipped.nonprivate_norm_sum / size,
            "clip_fraction": clipped.nonprivate_clipped_count / size,
            "nonfinite": clipped.nonprivate_nonfinite_count,
            "batch_size": batch_size,
        }
        return TrainState({**state.params, "private": private}, ema, opt_state, state.step + 1), nonprivate_log

    return step


def many_steps(step: Callable[..., Any], count: int) -> Callable[..., Any]:
    """Jitted (state, records, key) -> (state, logs [count]): `count` steps in one dispatch, the state donated."""

    def run(state, records, key):
        return jax.lax.scan(lambda carry, _: step(carry, records, key), state, length=count)

    return jax.jit(run, donate_argnums=0)
