"""One DP-SGD step: sample, clip, sum, add noise, divide. The order is the proof."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from privsyn_jax.privacy.clipping import Choice, ClippedSum, choose, clipped_grad_sum
from privsyn_jax.privacy.microbatch import microbatched_grad_sum
from privsyn_jax.privacy.noise import add_correlated_noise, add_gaussian_noise
from privsyn_jax.privacy.sampling import POISSON, Sampler, first_rows
from privsyn_jax.training.state import Controls, PublicState, TrainState

_COUNT_STREAM, _LOSS_STREAM, _PUBLIC_STREAM = 2**31, 2**31 + 1, 2**31 + 2  # folded into a step's noise key
_CLIP_NORM_RANGE = (1e-10, 1e10)  # of an adaptive clipping norm


class Shard(NamedTuple):
    """Where a device stands when the rows are split over devices, see `training.parallel`."""

    axis_name: str
    num_rows: int  # of the whole table; every device holds the same number, the last ones are filled up


class Members(NamedTuple):
    """Records of which a run trains on some only: the others are never drawn.

    For runs that share one table, each with a part of its own.
    """

    records: Any  # pytree of arrays [n, ...]
    is_member: jax.Array  # bool [n]


class QuantileClip(NamedTuple):
    """The clipping norm follows a quantile of the gradient norms, by a noisy count in every step.

    Each record adds 1/2 or -1/2 to the count, so its sensitivity is 1/2; it takes `share` of the step's precision.

    Source: Andrew et al. 2021, "Differentially Private Learning with Adaptive Clipping", Algorithm 1.
    """

    target_quantile: float
    learning_rate: float
    share: float


class LossQuery(NamedTuple):
    """A noisy mean loss in every step: each record adds its loss, bounded to [0, bound], minus bound / 2."""

    bound: float
    share: float


class PublicUpdate(NamedTuple):
    """A step on params["public"] after every `every` steps on records: the generator of a GAN. Reads no record.

    Attributes:
      loss: (params, key) -> scalar, for one draw; the step takes the mean over `batch_size` of them.
    """

    loss: Callable[..., jax.Array]
    optimizer: optax.GradientTransformation
    batch_size: int
    every: int


@dataclasses.dataclass(frozen=True, eq=False)
class DPStep:
    """(state, records, key) -> (state, log). What the log calls released_* is; the rest of it is not private.

    Sampling rate, expected batch size, noise multiplier and clipping norm come with the state (`Controls`).
    Sensitivity of the sum under adding or removing one record: l2_clip_norm. What a step releases is one Gaussian
    mechanism with controls.noise_multiplier z: scaled to sensitivity 1, the gradient sum has noise of stddev
    z / sqrt(1 - s), s being the sum of the shares of the other queries, and each of those z / sqrt(its share); their
    inverse squares add up to 1 / z^2 exactly. The divisor is the expected batch size, never the drawn one.

    Attributes:
      private_loss: (params, example, key) -> scalar.
      microbatch_size: examples per gradient sum; a draw takes as many sums as it needs.
      ema_decay: of the average of params["private"].
      method, num_draws: see `clipped_grad_sum`.
      sampler: who is in a batch.
      adds_noise: False for a run that is not private.
      quantile_clip, loss_query: further queries on the same batch, or None.
      coefficients: of correlated noise, see `noise.add_correlated_noise`.
      public_update: of a generator that has a public loss, or None.
      advance: (params, step) -> params, what the losses of a step see; or None for the state's own.
      shard: the device's part, None for one device with all rows.

    Source: Abadi et al. 2016, "Deep Learning with Differential Privacy", Algorithm 1.
    """

    private_loss: Callable[..., jax.Array]
    optimizer: optax.GradientTransformation
    microbatch_size: int
    ema_decay: float
    method: str = "auto"
    num_draws: int = 1
    sampler: Sampler = POISSON
    adds_noise: bool = True
    quantile_clip: QuantileClip | None = None
    loss_query: LossQuery | None = None
    coefficients: tuple[float, ...] = (1.0,)
    public_update: PublicUpdate | None = None
    advance: Callable[..., Any] | None = None
    shard: Shard | None = None

    def __call__(self, state: TrainState, records: Any, key: jax.Array) -> tuple[TrainState, dict[str, jax.Array]]:
        _, model_key, noise_key = self.keys(state.step, key)
        records, is_member = records if isinstance(records, Members) else (records, None)
        num_local = jax.tree.leaves(records)[0].shape[0]
        num_rows, first_row = num_local, jnp.int32(0)
        if self.shard is not None:
            num_rows, first_row = self.shard.num_rows, num_local * jax.lax.axis_index(self.shard.axis_name)
        drawn = self.draw(state.step, state.controls, key, num_rows)
        indices, batch_size = first_rows(
            drawn if is_member is None else drawn & is_member,
            capacity=-(-num_local // self.microbatch_size) * self.microbatch_size,
            first_row=first_row,
            num_local=num_local,
        )
        clipped = microbatched_grad_sum(
            self.private_loss,
            self._advanced(state),
            records,
            indices,
            batch_size,
            model_key,
            l2_clip_norm=state.controls.l2_clip_norm,
            microbatch_size=self.microbatch_size,
            first_id=first_row,
            method=self.method,
            num_draws=self.num_draws,
            loss_bound=self._loss_bound,
        )
        if self.shard is not None:
            clipped, batch_size = jax.lax.psum((clipped, batch_size), self.shard.axis_name)
        state, log = self.update(state, clipped, batch_size, noise_key)
        if self.public_update is not None:
            is_due = state.step % self.public_update.every == 0
            state = jax.lax.cond(is_due, self.update_public, lambda state, key: state, state, noise_key)
        return state, log

    def keys(self, step: jax.Array, key: jax.Array) -> jax.Array:
        """Keys of the draw, of the losses and of the noise of a step; the same on every device."""
        return jax.random.split(jax.random.fold_in(key, step), 3)

    def draw(self, step: jax.Array, controls: Controls, key: jax.Array, num_rows: int) -> jax.Array:
        """Bool [num_rows]: the rows of the step's batch, as `__call__` draws them."""
        batch_key = self.keys(step, key)[0]
        return self.sampler.draw(key, step, batch_key, num_rows=num_rows, threshold=controls.sampling_threshold)

    def clipped(self, state: TrainState, examples: Any, ids: jax.Array, is_padding: jax.Array, key: jax.Array):
        """The clipped sum over some of the step's examples, as `__call__` takes it."""
        return clipped_grad_sum(
            self.private_loss,
            self._advanced(state),
            examples,
            is_padding,
            self.keys(state.step, key)[1],
            l2_clip_norm=state.controls.l2_clip_norm,
            method=self.method,
            num_draws=self.num_draws,
            example_ids=ids,
            loss_bound=self._loss_bound,
        )

    def _advanced(self, state: TrainState) -> Any:
        return state.params if self.advance is None else self.advance(state.params, state.step)

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
        controls, memory = state.controls, state.noise_memory
        noisy_sum, log = clipped.grad_sum, _nonprivate_log(clipped, batch_size)
        if self.adds_noise:
            stddev = self.gradient_noise(controls) * controls.l2_clip_norm
            noisy_sum, memory = add_correlated_noise(noisy_sum, memory, self.coefficients, stddev=stddev, key=noise_key)
            log |= self._released(noisy_sum, stddev, controls)
        if self.quantile_clip is not None:
            count = batch_size / 2 - (clipped.nonprivate_clipped_count + clipped.nonprivate_nonfinite_count)
            noisy_count = self._noisy(count, 0.5, self.quantile_clip.share, controls, noise_key, _COUNT_STREAM)
            unclipped = 0.5 + noisy_count / controls.expected_batch_size
            exponent = self.quantile_clip.learning_rate * (unclipped - self.quantile_clip.target_quantile)
            new_norm = jnp.clip(controls.l2_clip_norm * jnp.exp(-exponent), *_CLIP_NORM_RANGE)
            log |= {"released_clip_norm": controls.l2_clip_norm, "released_unclipped": unclipped}
            controls = controls._replace(l2_clip_norm=new_norm)
        if self.loss_query is not None:
            half, total = self.loss_query.bound / 2, clipped.nonprivate_bounded_loss_sum
            noisy_total = self._noisy(total, half, self.loss_query.share, controls, noise_key, _LOSS_STREAM)
            log |= {"released_loss": half + noisy_total / controls.expected_batch_size}
        grads = jax.tree.map(lambda total: total / controls.expected_batch_size, noisy_sum)
        updates, opt_state = self.optimizer.update(grads, state.opt_state, state.params["private"])
        private = optax.apply_updates(state.params["private"], updates)
        ema = optax.incremental_update(private, state.ema, 1 - self.ema_decay)
        params = {**state.params, "private": private}
        return TrainState(params, ema, opt_state, state.step + 1, controls, memory, state.public), log

    def update_public(self, state: TrainState, noise_key: jax.Array) -> TrainState:
        """One step of `public_update`.

        Args:
          state: after the step on records that noise_key is of.
        """
        update, params = self.public_update, state.params
        assert update is not None and state.public is not None
        keys = jax.random.split(jax.random.fold_in(noise_key, jnp.uint32(_PUBLIC_STREAM)), update.batch_size)

        def mean_loss(public):
            return jax.vmap(update.loss, in_axes=(None, 0))({**params, "public": public}, keys).mean()

        grads = jax.grad(mean_loss)(params["public"])
        updates, opt_state = update.optimizer.update(grads, state.public.opt_state, params["public"])
        public = optax.apply_updates(params["public"], updates)
        ema = optax.incremental_update(public, state.public.ema, 1 - self.ema_decay)
        return state._replace(params={**params, "public": public}, public=PublicState(opt_state, ema))

    @property
    def _loss_bound(self) -> float | None:
        return self.loss_query.bound if self.loss_query is not None else None

    def gradient_noise(self, controls: Controls) -> jax.Array:
        """Noise multiplier of the gradient sum alone."""
        shares = sum(query.share for query in (self.quantile_clip, self.loss_query) if query is not None)
        return controls.noise_multiplier / math.sqrt(1 - shares)

    def _noisy(self, total, sensitivity: float, share: float, controls: Controls, key: jax.Array, stream: int):
        """A scalar query with its share of the step's precision."""
        total = jnp.asarray(total, jnp.float32)
        if not self.adds_noise:
            return total
        stddev = sensitivity * controls.noise_multiplier / math.sqrt(share)
        return add_gaussian_noise(total, stddev=stddev, key=jax.random.fold_in(key, jnp.uint32(stream)))

    def _released(self, noisy_sum: Any, stddev: jax.Array, controls: Controls) -> dict[str, jax.Array]:
        """Squared norm of the released sum minus the known energy of its noise, in units of the clipping norm.

        Expectation: the squared norm of the clipped sum; standard deviation: about stddev^2 sqrt(2 n).
        """
        if len(self.coefficients) > 1:
            return {}
        leaves = jax.tree.leaves(noisy_sum)
        excess = sum(jnp.sum(jnp.square(leaf) - jnp.square(stddev)) for leaf in leaves)
        return {"released_signal": excess / jnp.square(controls.l2_clip_norm)}


def _nonprivate_log(clipped: ClippedSum, batch_size: jax.Array) -> dict[str, jax.Array]:
    size = jnp.maximum(batch_size, 1)
    return {
        "loss": clipped.nonprivate_loss_sum / size,
        "grad_norm": clipped.nonprivate_norm_sum / size,
        "clip_fraction": clipped.nonprivate_clipped_count / size,
        "nonfinite": clipped.nonprivate_nonfinite_count,
        "batch_size": batch_size,
    }


def computed_in(dtype: str, loss: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """The loss (params, ...) computed in bfloat16 or as it is; parameters, norms, sums, noise and the optimiser stay
    float32. An argument that is no float stays what it is, keys among them.
    """
    if dtype == "float32":
        return loss

    def cast(leaf):
        return leaf.astype(jnp.bfloat16) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return lambda *arguments: loss(*jax.tree.map(cast, arguments)).astype(jnp.float32)


def many_steps(step: Callable[..., Any], count: int) -> Callable[..., Any]:
    """Jitted (state, records, key) -> (state, logs [count]): `count` steps in one dispatch, the state donated."""
    return jax.jit(repeated(step, count), donate_argnums=0)


def repeated(step: Callable[..., Any], count: int) -> Callable[..., Any]:
    """The same without jit."""
    return lambda state, records, key: jax.lax.scan(lambda carry, _: step(carry, records, key), state, length=count)
