"""The contestants of `benchmarks/dp_step.py` that run on JAX."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from dp_step_workloads.contestant import Prepared
from dp_step_workloads.workload import Workload
from privsyn_jax.privacy.clipping import clipped_grad_sum
from privsyn_jax.privacy.sampling import exact_sampling_rate
from privsyn_jax.privacy.schedules import Level
from privsyn_jax.settings import TrainingSettings
from privsyn_jax.training.parallel import DataParallel
from privsyn_jax.training.placement import automatic_microbatch_size, place
from privsyn_jax.training.state import TrainState, initial_state
from privsyn_jax.training.step import DPStep

METHODS = ("vmap", "microbatch", "ghost", "auto")
MICROBATCHES = 8  # slices of the batch for contestants that take one microbatch size
RECORDS_PER_BATCH = 16  # rows of the resident table, in batches
PERTURBATION = 0.02  # of initial weights: a last layer of zeros would hide the gradients of all others
NOISE_MULTIPLIER, LEARNING_RATE, EMA_DECAY = 1.0, 1e-3, 0.999


class JaxContestants:
    """One workload's data and model, and a compiled call for each contestant.

    The clip norm is the mean norm of the batch, so that some examples are clipped and others are not.
    """

    peers = ("jax_privacy", "jax_privacy_microbatch")

    def __init__(self, workload: Workload, batch_size: int):
        model = workload.jax_model()
        self.private_loss, self.batch_size = model.private_loss, batch_size
        params = jax.jit(model.init)(jax.random.key(0))
        flat, unravel = ravel_pytree(params["private"])
        noise = PERTURBATION * jax.random.normal(jax.random.key(1), flat.shape)
        self.params = {**params, "private": unravel(flat + noise)}
        self.records = jnp.asarray(workload.draw(np.random.default_rng(0), RECORDS_PER_BATCH * batch_size))
        self.inputs = (self.params, self.records[:batch_size], jnp.zeros(batch_size, bool), jax.random.key(2))

    def prepare(self, name: str) -> Prepared:
        """Compiles one contestant. Compilation seconds are wall time and include tracing."""
        if name == "plain_step":
            return self._prepare_step(jax.jit(self._plain_step, donate_argnums=0), self.records)
        if name == "dp_step":
            step = self._dp_step()
            records, compile_steps = place(step, self.params, np.asarray(self.records), TrainingSettings(num_devices=1))
            return self._prepare_step(compile_steps(step, 1), records)
        gradient = self._plain if name == "plain" else self._clipped(name)
        compiled, facts = compile_with_facts(jax.jit(gradient), *self.inputs, self.reference.clip_norm)

        def call():
            return jax.block_until_ready(compiled(*self.inputs, self.reference.clip_norm))

        if name != "plain":
            facts["relative_error"] = relative_error(call(), self.reference.gradient)
        return Prepared(call, facts)

    @property
    def num_parameters(self) -> int:
        return sum(leaf.size for leaf in jax.tree.leaves(self.params["private"]))

    @functools.cached_property
    def reference(self) -> Reference:
        """Method vmap: its mean norm becomes the clip norm, its sum the one that others must agree with."""
        return Reference(jax.jit(functools.partial(self._ours, "vmap")), self.inputs)

    def _plain(self, params, examples, is_padding, key, clip_norm):
        """Gradient of the summed loss: the floor."""
        del is_padding, clip_norm
        return jax.grad(self._summed_loss)(params["private"], params, examples, key)

    def _summed_loss(self, private, params, examples, key):
        keys = example_keys(key, self.batch_size)
        losses = jax.vmap(self.private_loss, in_axes=(None, 0, 0))({**params, "private": private}, examples, keys)
        return losses.sum()

    def _clipped(self, name: str) -> Callable[..., Any]:
        if name in METHODS:
            return functools.partial(self._grad_sum, name)
        microbatch_size = max(1, self.batch_size // MICROBATCHES) if name == "jax_privacy_microbatch" else None
        return functools.partial(self._jax_privacy, microbatch_size)

    def _grad_sum(self, method, *inputs):
        return self._ours(method, *inputs).grad_sum

    def _ours(self, method, params, examples, is_padding, key, clip_norm):
        return clipped_grad_sum(
            self.private_loss, params, examples, is_padding, key, l2_clip_norm=clip_norm, method=method
        )

    def _jax_privacy(self, microbatch_size, params, examples, is_padding, key, clip_norm):
        from jax_privacy.clipping import clipped_grad

        def loss(private, example, example_key):
            return self.private_loss({**params, "private": private}, example, example_key)

        clipped = clipped_grad(
            loss,
            l2_clip_norm=clip_norm,
            batch_argnums=(1, 2),
            keep_batch_dim=False,
            microbatch_size=microbatch_size,
        )
        return clipped(params["private"], examples, example_keys(key, self.batch_size), is_padding_example=is_padding)

    def _plain_step(self, state, records, key):
        """As many random records as a DP step expects; gradient of the mean loss, Adam."""
        row_key, model_key = jax.random.split(jax.random.fold_in(key, state.step))
        rows = jax.random.randint(row_key, (self.batch_size,), 0, records.shape[0])
        total = jax.grad(self._summed_loss)(state.params["private"], state.params, records[rows], model_key)
        grads = jax.tree.map(lambda leaf: leaf / self.batch_size, total)
        updates, opt_state = optax.adam(LEARNING_RATE).update(grads, state.opt_state)
        private = optax.apply_updates(state.params["private"], updates)
        return state._replace(params={**state.params, "private": private}, opt_state=opt_state, step=state.step + 1), {}

    def _dp_step(self) -> DPStep:
        return DPStep(
            self.private_loss,
            optax.adam(LEARNING_RATE),
            microbatch_size=automatic_microbatch_size(self.batch_size),
            ema_decay=EMA_DECAY,
        )

    def _initial_state(self) -> TrainState:
        rate = exact_sampling_rate(self.batch_size, len(self.records))
        level = Level(1, rate, self.batch_size, NOISE_MULTIPLIER, float(self.reference.clip_norm))
        return jax.tree.map(jnp.copy, initial_state(self.params, optax.adam(LEARNING_RATE), level))

    def _prepare_step(self, step: Callable[..., Any], records: Any) -> Prepared:
        # The state is donated, so it is a copy, and each call carries it on to the next.
        carried = [self._initial_state()]
        key = jax.random.key(3)

        def call():
            carried[0], log = jax.block_until_ready(step(carried[0], records, key))
            return log

        started = time.perf_counter()
        call()
        return Prepared(call, {"compile_seconds": time.perf_counter() - started})

    def shared_step(self, wrapper: str, count: int, *, plain: bool) -> Callable[[], Any]:
        """`count` steps over all devices in one dispatch, the state carried on from call to call."""
        parallel = DataParallel(tuple(jax.devices()), len(self.records), wrapper)
        step = PlainShared(**vars(self._dp_step())) if plain else self._dp_step()
        run, records = parallel.many_steps(step, count), parallel.place(np.asarray(self.records))
        carried = [self._initial_state()]

        def call():
            carried[0], log = run(carried[0], records, jax.random.key(3))
            return log

        return call


class PlainShared(DPStep):
    """The first rows of every device, as many together as a DP step expects: gradient, psum, Adam."""

    def __call__(self, state, records, key):
        assert self.shard is not None
        size = len(records) // RECORDS_PER_BATCH
        keys = jax.random.split(key, size)
        total = jax.grad(self._summed)(state.params["private"], state.params, records[:size], keys)
        total = jax.lax.psum(total, self.shard.axis_name)
        updates, opt_state = self.optimizer.update(total, state.opt_state)
        private = optax.apply_updates(state.params["private"], updates)
        return state._replace(params={**state.params, "private": private}, opt_state=opt_state, step=state.step + 1), {}

    def _summed(self, private, params, examples, keys):
        loss = jax.vmap(self.private_loss, in_axes=(None, 0, 0))
        return loss({**params, "private": private}, examples, keys).sum()


class Reference:
    """Clip norm and clipped sum of method vmap."""

    def __init__(self, vmap: Callable[..., Any], inputs: tuple[Any, ...]):
        self.clip_norm = jnp.float32(vmap(*inputs, jnp.float32(1.0)).nonprivate_norm_sum / len(inputs[2]))
        self.gradient = jax.device_get(vmap(*inputs, self.clip_norm).grad_sum)


def example_keys(key: jax.Array, batch_size: int) -> jax.Array:
    """One key per example, derived as `clipped_grad_sum` does, so that all contestants draw the same noise."""
    return jax.vmap(lambda number: jax.random.fold_in(key, number))(jnp.arange(batch_size))


def compile_with_facts(function: Any, *arguments: Any) -> tuple[Callable[..., Any], dict[str, float]]:
    """The compiled function, seconds of compilation, bytes of temporaries and outputs by XLA's own account."""
    started = time.perf_counter()
    compiled = function.lower(*arguments).compile()
    seconds = time.perf_counter() - started
    memory = compiled.memory_analysis()
    return compiled, {
        "compile_seconds": seconds,
        "memory_bytes": memory.temp_size_in_bytes + memory.output_size_in_bytes,
    }


def relative_error(gradient: Any, reference: Any) -> float:
    """L2 norm of the difference over that of the reference, all parameters together."""
    found, expected = (np.asarray(ravel_pytree(tree)[0], np.float64) for tree in (gradient, reference))
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
