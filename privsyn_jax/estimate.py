"""Memory and time of a run, measured on random records: no private row is opened."""

from __future__ import annotations

import time
from typing import Any

import jax
import numpy as np
import optax

from privsyn_jax.modalities import modality_of
from privsyn_jax.plan import Plan
from privsyn_jax.privacy.clipping import num_parameters
from privsyn_jax.settings import Settings
from privsyn_jax.training import pate
from privsyn_jax.training.dp_sgd import make_step
from privsyn_jax.training.placement import place
from privsyn_jax.training.state import initial_state
from privsyn_jax.training.step import many_steps
from privsyn_jax.types import AnySchema

_STEPS = 3


def estimate(settings: Settings, schema: AnySchema, plan: Plan) -> list[str]:
    """Lines on parameters, device memory and training time on this machine.

    The step is compiled and run on random records, as many as the schema's public num_records.
    """
    rng = np.random.default_rng(0)
    generator, records = modality_of(schema).random_records(settings, schema, rng)
    if not plan.levels:
        return ["no steps: counts of the records, which take seconds, or minutes where they are chosen in rounds"]
    if plan.votes is not None:
        step, state = pate.begin(generator, None, key=jax.random.key(0), plan=plan, settings=settings)
        parts = pate.parts_of(records, state, plan.votes.num_teachers)
        number = num_parameters(state.teachers.params) // plan.votes.num_teachers
        memory, time_line = _measure(step, state, parts, many_steps, plan)
        return [f"parameters of each of {plan.votes.num_teachers} teachers: {number:,}", memory, time_line]
    params = generator.init(jax.random.key(0))
    step = make_step(generator, optax.adam(1e-3), plan, settings, loss_bound=1.0)
    public = step.public_update
    state = initial_state(
        params,
        optax.adam(1e-3),
        plan.levels[0],
        coefficients=step.coefficients,
        public_optimizer=public.optimizer if public is not None else None,
    )
    gradients = step.gradient_choice(params, records).headline  # before the state's buffers are donated
    placed, compile_steps = place(step, params, records, settings.training)
    memory, time_line = _measure(step, state, placed, compile_steps, plan)
    return [
        f"parameters that receive noise: {num_parameters(params['private']):,}",
        f"{memory} (microbatch of {step.microbatch_size})",
        f"clipped gradients: {gradients}",
        time_line,
    ]


def _measure(step: Any, state: Any, placed: Any, compile_steps: Any, plan: Plan) -> tuple[str, str]:
    """Lines on memory and time."""
    started = time.perf_counter()
    memory = "the records stay on the host"
    if compile_steps is many_steps:
        compiled = many_steps(step, _STEPS).lower(state, placed, jax.random.key(1)).compile()
        found = compiled.memory_analysis()
        used = (found.temp_size_in_bytes + found.argument_size_in_bytes + found.output_size_in_bytes) / 2**20
        memory = f"device memory of a training step: {used:,.0f} MiB"
    else:
        compiled = compile_steps(step, _STEPS)
    state, _ = jax.block_until_ready(compiled(state, placed, jax.random.key(1)))
    compile_seconds = time.perf_counter() - started
    started = time.perf_counter()
    jax.block_until_ready(compiled(state, placed, jax.random.key(2)))
    seconds = (time.perf_counter() - started) / _STEPS
    time_line = (
        f"training on {jax.devices()[0].device_kind}: {seconds:.3f} s a step, "
        f"{seconds * plan.num_steps / 60:.1f} min in all, after {compile_seconds:.0f} s of compilation"
    )
    return memory, time_line
