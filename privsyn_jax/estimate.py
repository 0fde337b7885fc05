"""Memory and time of a run, measured on random records: no private row is opened."""

from __future__ import annotations

import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from privsyn_jax.fitted import build_generator
from privsyn_jax.plan import Plan
from privsyn_jax.privacy.clipping import num_parameters
from privsyn_jax.settings import Settings
from privsyn_jax.training.dp_sgd import make_step
from privsyn_jax.training.state import initial_state
from privsyn_jax.training.step import many_steps
from privsyn_jax.transforms.grid import make_grid
from privsyn_jax.types import Schema

_STEPS = 3
_UNKNOWN_CATEGORIES = 20  # assumed for a column whose categories are yet to be bought


def estimate(settings: Settings, schema: Schema, plan: Plan) -> list[str]:
    """Lines on parameters, device memory and training time on this machine.

    The step is compiled and run on uniformly random codes, as many as the schema's public num_records.
    Data-dependent bins are taken at the number aimed at.
    """
    grids = [make_grid(column, settings.transform.num_bins) for column in schema.modelled]
    cardinalities = tuple(grid.size or _UNKNOWN_CATEGORIES for grid in grids)
    generator = build_generator(settings, schema, cardinalities)
    params = generator.init(jax.random.key(0))
    step = make_step(generator.private_loss, optax.adam(1e-3), plan, settings, loss_bound=1.0)
    codes = np.random.default_rng(0).integers(cardinalities, size=(schema.num_records, len(cardinalities)))
    records = jnp.asarray(codes, jnp.int32)
    state = initial_state(params, optax.adam(1e-3), plan.levels[0], coefficients=step.coefficients)
    gradients = step.gradient_choice(params, records).headline  # before the state's buffers are donated
    started = time.perf_counter()
    compiled = many_steps(step, _STEPS).lower(state, records, jax.random.key(1)).compile()
    compile_seconds = time.perf_counter() - started
    memory = compiled.memory_analysis()
    state, _ = jax.block_until_ready(compiled(state, records, jax.random.key(1)))
    started = time.perf_counter()
    jax.block_until_ready(compiled(state, records, jax.random.key(2)))
    seconds = (time.perf_counter() - started) / _STEPS
    used = (memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes) / 2**20
    return [
        f"parameters that receive noise: {num_parameters(params['private']):,}",
        f"device memory of a training step: {used:,.0f} MiB (microbatch of {step.microbatch_size})",
        f"clipped gradients: {gradients}",
        f"training on {jax.devices()[0].device_kind}: {seconds:.3f} s a step, "
        f"{seconds * plan.num_steps / 60:.1f} min in all, after {compile_seconds:.0f} s of compilation",
    ]
