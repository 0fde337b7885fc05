"""Private records to a trained generator: every look at a record is booked in the ledger on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import pandas as pd

from privsyn_jax.fitted import Run, build_generator
from privsyn_jax.plan import Plan, Release
from privsyn_jax.privacy.guard import Private
from privsyn_jax.privacy.ledger import Ledger, check_charged
from privsyn_jax.privacy.noise import HostNoise
from privsyn_jax.settings import Settings
from privsyn_jax.statement import privacy_statement
from privsyn_jax.training import dp_sgd, loop
from privsyn_jax.training.attempt import Attempt
from privsyn_jax.training.processes import hear
from privsyn_jax.training.purchases import Purchases
from privsyn_jax.transforms import discretize
from privsyn_jax.transforms.discretize import Discretizer
from privsyn_jax.types import Schema, UserError


def learn(
    frame: Private[pd.DataFrame],
    schema: Schema,
    plan: Plan,
    settings: Settings,
    attempt: Attempt,
    *,
    hooks: Sequence[loop.Hook] = (),
    announce: Callable[[str], None] = lambda message: None,
) -> Run:
    """Transform, marginals, DP-SGD.

    Args:
      frame: records that conform to the schema.
      plan: made from the same settings and schema.
      attempt: draws, receives every charge, and goes on where the one before it was killed.
      hooks: see training.loop.
      announce: told in words what comes next.
    """

    def buy_now(noise: HostNoise) -> Purchases:
        announce("buying histograms and marginals")
        return buy(frame, schema, plan, settings, attempt.ledger, noise)

    bought = attempt.purchases(buy_now)
    attempt.leader.say(bought.to_bytes({}))
    transform, marginals = bought
    generator = build_generator(settings, transform.schema, transform.cardinalities)
    announce(f"training on {jax.devices()[0].device_kind}")
    params, path = dp_sgd.train(
        generator,
        frame.map(transform.encode),
        transform.cardinalities,
        marginals,
        plan=plan,
        settings=settings,
        attempt=attempt,
        hooks=hooks,
    )
    statement = privacy_statement(attempt.ledger, plan, settings, schema, path, warnings=attempt.warnings)
    return Run(settings, transform, params, statement)


def buy(
    frame: Private[pd.DataFrame], schema: Schema, plan: Plan, settings: Settings, ledger: Ledger, noise: HostNoise
) -> Purchases:
    """All that is bought before training."""
    transform = fit_transform(frame, schema, plan, settings, ledger, noise)
    codes, cardinalities = frame.map(transform.encode), transform.cardinalities
    marginals = dp_sgd.buy_marginals(codes, cardinalities, transform.one_way, plan=plan, ledger=ledger, noise=noise)
    return Purchases(transform, marginals)


def learn_along(frame: Private[pd.DataFrame], plan: Plan, settings: Settings) -> None:
    """`learn` in the processes that compute along with process 0, see `training.processes`."""
    while (bought := hear()) is not None:
        transform = Purchases.from_bytes(bought)[0].transform
        codes, cardinalities = frame.map(transform.encode), transform.cardinalities
        generator = build_generator(settings, transform.schema, cardinalities)
        dp_sgd.train_along(generator, codes, cardinalities, plan=plan, settings=settings)


def fit_transform(
    frame: Private[pd.DataFrame], schema: Schema, plan: Plan, settings: Settings, ledger: Ledger, noise: HostNoise
) -> Discretizer:
    """Fits the transform, charging what it buys: unknown categories, histograms."""
    unknown = plan.release("categories")
    if unknown is not None:
        schema = _buy_categories(frame, schema, unknown, plan.category_delta, ledger, noise)
    histograms = plan.release("histograms")
    if settings.transform.edges == "public" or histograms is None:
        return discretize.fit_public(schema, num_bins=settings.transform.num_bins)
    what = "noisy counts of every column on a fine public grid"
    receipt = ledger.charge(histograms.name, "all columns", what, histograms.event, upto=1)
    transform, event = discretize.fit_purchased(
        schema,
        frame.open(receipt),
        num_bins=settings.transform.num_bins,
        num_cells=settings.transform.num_cells,
        noise_multiplier=histograms.noise_multiplier,
        noise=noise,
    )
    check_charged([histograms.event], [event])
    return transform


def _buy_categories(
    frame: Private[pd.DataFrame], schema: Schema, bought: Release, delta: float, ledger: Ledger, noise: HostNoise
) -> Schema:
    """The schema with its unknown categories filled in."""
    names = discretize.unknown_columns(schema)
    reads = f"the values of {', '.join(names)}"
    alone = {"kind": "approximate", "epsilon": 0.0, "delta": delta, "count": 1}
    what = "the chance that such a value passes the threshold"
    ledger.charge("categories held by one record", reads, what, alone, upto=1)
    what = "values whose noisy count is above a threshold"
    receipt = ledger.charge(bought.name, reads, what, bought.event, upto=1)
    schema, events = discretize.buy_categories(
        schema, frame.open(receipt), noise_multiplier=bought.noise_multiplier, delta=delta, noise=noise
    )
    check_charged([bought.event, alone], events)
    for name in names:
        if not schema[name].categories:
            raise UserError(
                f"no value of column {name!r} is frequent enough to be released: list its categories in the "
                "schema, raise privacy.budget.categories, or leave the column out"
            )
    return schema
