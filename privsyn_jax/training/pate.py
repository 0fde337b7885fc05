"""The mechanism PATE: encoded records to parameters, by noisy votes of teachers. `vote_step` says why it is private."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from privsyn_jax.plan import Plan
from privsyn_jax.privacy.guard import Private
from privsyn_jax.privacy.ledger import Ledger
from privsyn_jax.privacy.spending import Account, FixedSpending
from privsyn_jax.settings import Settings
from privsyn_jax.training import loop
from privsyn_jax.training.attempt import TRAINING, Attempt
from privsyn_jax.training.marginals import Marginals
from privsyn_jax.training.optimizer import cosine_adam
from privsyn_jax.training.state import controls_of
from privsyn_jax.training.teachers import Parts, assign, divide
from privsyn_jax.training.vote_step import PateState, PateStep, Teachers
from privsyn_jax.types import Generator, Params

_ASSIGNMENT_STREAM = 2**32 - 1  # folded into the run's key; steps are below 2^31


def parts_of(records: Any, state: PateState, num_teachers: int) -> Parts:
    """Units by teacher, as the state has them."""
    key = jax.random.wrap_key_data(state.assignment, impl="threefry2x32")
    return divide(records, assign(key, len(jax.tree.leaves(records)[0]), num_teachers), num_teachers)


def begin(
    generator: Generator, bought: Marginals | None, *, key: jax.Array, plan: Plan, settings: Settings
) -> tuple[PateStep, PateState]:
    """The step that the plan pays for, and the state before the first one.

    Args:
      key: secret, of the run.
    """
    training, teaching, votes = settings.training, generator.teaching, plan.votes
    assert generator.private_loss is not None and generator.public_loss is not None
    assert teaching is not None and votes is not None
    init_key, teachers_key, calibration_key, _ = _public_keys(settings)
    params = generator.init(init_key)
    if generator.calibrate is not None and bought is not None:
        params = generator.calibrate(params, bought, calibration_key)
    init_teachers = jax.jit(jax.vmap(lambda key: generator.init(key)["private"]))
    private = _strong(init_teachers(jax.random.split(teachers_key, votes.num_teachers)))
    public = _strong(params["public"])
    rate, generator_rate = training.learning_rate, training.generator_learning_rate or training.learning_rate
    optimizers = (
        cosine_adam(rate, plan.num_steps * teaching.teacher_steps, b1=training.adam_b1),
        cosine_adam(rate, plan.num_steps * teaching.student_steps, b1=training.adam_b1),
        cosine_adam(generator_rate, max(1, plan.num_steps // training.critic_steps), b1=training.adam_b1),
    )
    step = PateStep(
        generator.private_loss,
        generator.public_loss,
        teaching,
        optimizers,
        votes,
        teacher_batch_size=max(1, round(plan.expected_batch_size / votes.num_teachers)),
        generator_every=training.critic_steps,
        ema_decay=training.ema_decay,
        adds_noise=plan.has_noise,
    )
    of_teachers, of_student, of_generator = (optimizer.init for optimizer in optimizers)
    assignment = jax.random.key_data(jax.random.fold_in(key, jnp.uint32(_ASSIGNMENT_STREAM)))
    return step, PateState(
        public=public,
        ema=jax.tree.map(jnp.copy, public),
        student_opt=of_student(public),
        generator_opt=of_generator(public),
        step=jnp.int32(0),
        controls=controls_of(plan.levels[0]),
        teachers=Teachers(private, of_teachers(private)),
        assignment=assignment,
    )


def make_spending(plan: Plan, settings: Settings, ledger: Ledger, *, first_step: int = 0) -> FixedSpending:
    """Charges the votes as the plan has them; the ledger's origin begins with `first_step`."""
    assert plan.votes is not None
    num_teachers, num_rows = plan.votes
    whose = "record" if plan.rows_per_unit == 1 else f"unit with its rows (at most {plan.rows_per_unit})"
    account = Account(
        ledger,
        TRAINING,
        f"every {whose}, by the one of {num_teachers} teachers that it is given to",
        f"PATE: noisy votes of {num_teachers} teachers on {num_rows} generated rows a step, of L2 sensitivity "
        f"sqrt({num_rows})",
    )
    multiple = settings.training.steps_per_dispatch
    return FixedSpending(plan.levels, plan.sampler, account, max_steps=multiple, first_step=first_step)


def train(
    generator: Generator,
    records: Private[Any],
    bought: Marginals | None,
    *,
    plan: Plan,
    settings: Settings,
    attempt: Attempt,
    hooks: Sequence[loop.Hook] = (),
) -> tuple[Params, list[dict[str, Any]]]:
    """Parameters without a teacher, and the path; see `dp_sgd.train`.

    Args:
      records: pytree of arrays [n, ...], encoded; one entry per unit.
      bought: what was bought before.
      attempt: holds the ledger, the secret key, and the state to go on from.
    """
    step, state = begin(generator, bought, key=attempt.key, plan=plan, settings=settings)
    spending = make_spending(plan, settings, attempt.ledger, first_step=attempt.first_step)
    carried: Any = attempt.take_up(state, spending)  # type: ignore[arg-type]  # a pytree with `step` and `controls`
    parts = parts_of(records.open(spending.receipt), carried, step.votes.num_teachers)
    with attempt.keeping(spending) as keep:
        carried = loop.fit(step, carried, parts, key=attempt.key, spending=spending, hooks=[*hooks, keep])
    return end(generator, carried, bought, settings=settings), spending.path


def end(generator: Generator, state: PateState, bought: Marginals | None, *, settings: Settings) -> Params:
    """Parameters to sample from: the average over steps, calibrated to the purchased marginals."""
    params = {"private": {}, "public": state.ema}
    if generator.calibrate is not None and bought is not None:
        params = generator.calibrate(params, bought, _public_keys(settings)[3])
    return params


def _public_keys(settings: Settings) -> jax.Array:
    """Of the initial weights of student and generator, of those of the teachers, and of the two calibrations."""
    return jax.random.split(jax.random.key(settings.seed), 4)


def _strong(tree: Any) -> Any:
    """Without weakly typed leaves, for which the second dispatch would compile anew."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), tree)
