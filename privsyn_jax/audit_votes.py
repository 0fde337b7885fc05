"""Audit of a step of PATE: repeated with and without one canary that turns every vote of its teacher.

The step is the planned one but for what teachers are: one number, which the canary moves from below zero to above, and
which says for which half of the generated rows a teacher votes. So the canary goes the way of a record, through its
teacher's training and its votes to the noisy counts, and moves each of them by one, the most that is charged for.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from privsyn_jax.evaluation.audit import AuditResult, audit_result, repeated_bound
from privsyn_jax.plan import Plan
from privsyn_jax.privacy import accounting
from privsyn_jax.settings import Settings
from privsyn_jax.training import pate
from privsyn_jax.training.teachers import divide
from privsyn_jax.training.vote_step import PateStep
from privsyn_jax.types import Generator, Teaching


def audit_votes(
    settings: Settings,
    plan: Plan,
    *,
    key: jax.Array,
    num_repeats: int,
    confidence: float = 0.95,
    alter: Callable[[PateStep], PateStep] = lambda step: step,
) -> AuditResult:
    """Lower bound on epsilon of the plan's first step, against what the accountant makes of one such step.

    Args:
      plan: with votes and noise.
      num_repeats: half of them with the canary.
      alter: makes another step of the planned one, to see whether the audit finds what is wrong with it.
    """
    assert plan.votes is not None
    assignment_key, with_key, without_key = jax.random.split(key, 3)
    step, state = pate.begin(_planted(settings, plan), None, key=assignment_key, plan=plan, settings=settings)
    step, num_teachers = alter(step), plan.votes.num_teachers

    def scores(num_records: int, key: jax.Array) -> np.ndarray:
        parts = divide(np.ones(num_records, np.float32), np.zeros(num_records, np.int32), num_teachers)

        def one(key: jax.Array) -> jax.Array:
            _, vote, _ = step.vote(state, parts, key)
            without = step.count(state.teachers.params, vote.rows)
            change = jnp.where(without == 0, 1.0, -1.0)  # the canary turns every vote of one teacher
            return jnp.sum(change * (vote.noisy - without - change / 2))

        run = jax.jit(lambda keys: jax.lax.map(one, keys))
        return np.asarray(run(jax.random.split(key, num_repeats // 2)))

    event: accounting.Event = {"kind": "gaussian", "noise_multiplier": plan.levels[0].noise_multiplier, "count": 1}
    bound = repeated_bound(
        scores(1, with_key),
        scores(0, without_key),
        delta=plan.delta,
        confidence=confidence,
        method="gaussian",
        threshold=0.0,
    )
    return audit_result(
        "one step of votes",
        claimed_epsilon=accounting.epsilon_of([event], plan.delta),
        delta=plan.delta,
        lower_bound=bound,
        confidence=confidence,
        num_canaries=num_repeats,
    )


def _planted(settings: Settings, plan: Plan) -> Generator:
    """Teachers of one number, which starts below zero by half of what a record adds to it in its first step."""
    assert plan.votes is not None
    start = -0.5 * settings.training.learning_rate
    teaching = Teaching(
        num_teachers=plan.votes.num_teachers,
        teacher_steps=1,
        student_steps=1,
        votes_are_relative=bool(settings.model["votes_are_relative"]),
        draw=lambda public, key: jax.random.normal(key),
        score=lambda private, row: private["number"] * row,
        student_loss=lambda public, row, share: jnp.float32(0.0),
    )
    return Generator(
        init=lambda key: {"private": {"number": jnp.float32(start)}, "public": {"none": jnp.zeros(1)}},
        private_loss=lambda params, example, key: -params["private"]["number"] * example,
        public_loss=lambda params, key: jnp.float32(0.0),
        calibrate=None,
        sample=lambda params, key, num_samples, conditions: jnp.zeros((num_samples, 1)),
        exact_conditions=lambda indices: (),
        teaching=teaching,
    )
