"""Private records to a trained generator: every look at a record is booked in the ledger on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from privsyn_jax.fitted import Run
from privsyn_jax.modalities import modality_of
from privsyn_jax.models import PRIOR
from privsyn_jax.plan import Plan
from privsyn_jax.privacy.guard import Private
from privsyn_jax.privacy.noise import HostNoise
from privsyn_jax.settings import Settings
from privsyn_jax.statement import privacy_statement
from privsyn_jax.training import dp_sgd, loop
from privsyn_jax.training.attempt import Attempt
from privsyn_jax.training.processes import hear
from privsyn_jax.training.purchases import Purchases
from privsyn_jax.transforms import Transform
from privsyn_jax.types import AnySchema, Generator, Params


def learn(
    records: Private[Any],
    schema: AnySchema,
    plan: Plan,
    settings: Settings,
    attempt: Attempt,
    *,
    hooks: Sequence[loop.Hook] = (),
    announce: Callable[[str], None] = lambda message: None,
) -> Run:
    """`train_generator`, and the statement of what it cost; raises RuntimeError where epsilon is not confirmed."""
    trained = train_generator(records, schema, plan, settings, attempt, hooks=hooks, announce=announce)
    statement = privacy_statement(attempt.ledger, plan, settings, schema, trained.path, warnings=attempt.warnings)
    return Run(settings, trained.transform, trained.params, statement)


class Trained(NamedTuple):
    """A generator with what it needs to draw records.

    Attributes:
      path: what every block of steps ran with and released.
    """

    generator: Generator
    params: Params
    transform: Transform
    path: list[dict[str, Any]]


def train_generator(
    records: Private[Any],
    schema: AnySchema,
    plan: Plan,
    settings: Settings,
    attempt: Attempt,
    *,
    hooks: Sequence[loop.Hook] = (),
    announce: Callable[[str], None] = lambda message: None,
) -> Trained:
    """What is bought beforehand, then DP-SGD.

    Args:
      records: a DataFrame or Images that conform to the schema.
      plan: made from the same settings and schema.
      attempt: draws, receives every charge, and goes on where the one before it was killed.
      hooks: see training.loop.
      announce: told in words what comes next.
    """
    modality = modality_of(schema)

    def buy_now(noise: HostNoise) -> Purchases:
        if names := [release.name for release in plan.releases if release.name != PRIOR]:
            announce(f"buying {', '.join(names)}")
        return modality.buy(records, schema, plan, settings, attempt.ledger, noise)

    bought = attempt.purchases(buy_now)
    attempt.leader.say(bought.to_bytes({}))
    transform = bought.transform
    generator = modality.build_generator(settings, transform)
    if plan.levels:
        announce(f"training on {jax.devices()[0].device_kind}")
    params, path = dp_sgd.train(
        generator,
        records.map(transform.encode_units),
        bought.released,
        plan=plan,
        settings=settings,
        attempt=attempt,
        loss_bound=modality.loss_bound(transform),
        warm_up=modality.warm_up(generator, settings, bought, announce),
        hooks=hooks,
    )
    return Trained(generator, params, transform, path)


def learn_along(records: Private[Any], schema: AnySchema, plan: Plan, settings: Settings) -> None:
    """`learn` in the processes that compute along with process 0, see `training.processes`."""
    modality = modality_of(schema)
    while (bought := hear()) is not None:
        transform = Purchases.from_bytes(bought)[0].transform
        generator = modality.build_generator(settings, transform)
        dp_sgd.train_along(
            generator,
            records.map(transform.encode_units),
            plan=plan,
            settings=settings,
            loss_bound=modality.loss_bound(transform),
        )
