"""Tables: columns become codes at a stated price, generators learn codes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from privsyn_jax import evaluation, report
from privsyn_jax.data.dtypes import restore_dtypes
from privsyn_jax.data.foreign import read_foreign
from privsyn_jax.data.schema import schema_to_dict
from privsyn_jax.data.units import bounded_by
from privsyn_jax.data.validate import to_file_frame
from privsyn_jax.evaluation.attacks import TABLE_ATTACKS, attack_table
from privsyn_jax.evaluation.sanity import rule_rows
from privsyn_jax.files import write_json
from privsyn_jax.modalities.modality import Modality
from privsyn_jax.models import ONE_SHOT, SUMS_OF_TABLES, TABLE_GENERATORS, USES_MARGINALS, USES_ONE_WAY, make_of
from privsyn_jax.models.units import of_units
from privsyn_jax.plan import Plan, Release
from privsyn_jax.privacy.guard import Private
from privsyn_jax.privacy.ledger import Ledger, check_charged
from privsyn_jax.privacy.noise import HostNoise
from privsyn_jax.settings import Settings
from privsyn_jax.synthesis.conditions import parse_conditions
from privsyn_jax.synthesis.constraints import parse_constraints
from privsyn_jax.synthesis.sampler import check_conditions, synthesize
from privsyn_jax.training import aim, bayesian_network, mst
from privsyn_jax.training.marginals import Measuring, buy_one_way, buy_pairs
from privsyn_jax.training.purchases import Purchases
from privsyn_jax.training.stages import buy_stages
from privsyn_jax.transforms import discretize
from privsyn_jax.transforms.discretize import Discretizer, fit_public, public_bins, unknown_columns
from privsyn_jax.transforms.grid import make_grid
from privsyn_jax.types import Generator, Schema, UnitRows, UserError, num_units_of
from privsyn_jax.workdir import PRIVATE_NOTICE

_MEASURES = {"aim": aim.buy, "bayesian_network": bayesian_network.buy, "mst": mst.buy}  # else pairs, all at once
_UNKNOWN_CATEGORIES = 20  # assumed for a column whose categories are yet to be bought
_CONDITIONED = "The synthetic rows met synthesis.conditions and are compared with all real rows: expect a difference."


def check(schema: Schema, settings: Settings) -> None:
    """Raises UserError for conditions, a generator or a warm start that do not fit the schema."""
    if settings.warm_start.images:
        raise UserError(f"warm_start.images is {settings.warm_start.images!r}, which is for images: set it to ''")
    check_conditions(schema, parse_conditions(settings.synthesis.conditions))
    parse_constraints(settings.synthesis.constraints, schema)
    known = (
        fit_public(schema, num_bins=2, most_categories=settings.transform.most_categories)
        if not unknown_columns(schema)
        else None
    )
    build(settings, schema, known.cardinalities if known else (2,) * len(schema.modelled))


def buy(
    frame: Private[pd.DataFrame], schema: Schema, plan: Plan, settings: Settings, ledger: Ledger, noise: HostNoise
) -> Purchases:
    """Unknown categories, histograms, marginals."""
    if plan.rows_per_unit != schema.rows_per_unit:
        raise ValueError(f"the plan pays for {plan.rows_per_unit} rows per unit, the schema has {schema.rows_per_unit}")
    frame = frame.map(bounded_by(schema))
    transform = fit_transform(frame, schema, plan, settings, ledger, noise)
    name = settings.model["name"]
    if name in SUMS_OF_TABLES:
        units, generator = frame.map(transform.encode_units), build(settings, transform.schema, transform.cardinalities)
        common: dict[str, Any] = {"plan": plan, "seed": settings.seed, "ledger": ledger, "noise": noise}
        return Purchases(transform, buy_stages(generator, units, what="the codes of all columns", **common))
    if plan.release("histograms") is None or (name not in USES_MARGINALS | USES_ONE_WAY):
        return Purchases(transform, None)
    if name in USES_MARGINALS - ONE_SHOT and plan.release("pair marginals") is None:
        return Purchases(transform, None)  # a histogram for bin edges alone: the generator is not calibrated to it
    codes, cardinalities = frame.map(transform.encode), transform.cardinalities
    one_way = transform.one_way or buy_one_way(codes, cardinalities, plan=plan, ledger=ledger, noise=noise)
    assert one_way is not None
    first = column_order(settings.model["column_order"], schema)[0]
    target = next((j for j, column in enumerate(schema.modelled) if column.name == schema.target), None)
    task = Measuring(codes, cardinalities, one_way, first, target, settings.model, plan, ledger, noise)
    return Purchases(transform, _MEASURES.get(name, buy_pairs)(task))


def fit_transform(
    frame: Private[pd.DataFrame], schema: Schema, plan: Plan, settings: Settings, ledger: Ledger, noise: HostNoise
) -> Discretizer:
    """Fits the transform, charging what it buys: unknown categories, histograms."""
    unknown = plan.release("categories")
    if unknown is not None:
        schema = _buy_categories(frame, schema, unknown, plan.category_delta, ledger, noise)
    histograms = plan.release("histograms")
    if settings.transform.edges == "public" or histograms is None:
        return discretize.fit_public(
            schema, num_bins=settings.transform.num_bins, most_categories=settings.transform.most_categories
        )
    what = "noisy counts of every column on a fine public grid"
    receipt = ledger.charge(histograms.name, "all columns", what, histograms.event, upto=1)
    transform, event = discretize.fit_purchased(
        schema,
        frame.open(receipt),
        num_bins=settings.transform.num_bins,
        num_cells=settings.transform.num_cells,
        most_categories=settings.transform.most_categories,
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


def build(settings: Settings, schema: Schema, cardinalities: tuple[int, ...]) -> Generator:
    """The generator named by the settings, for columns with these numbers of codes, which learns from whole units.

    Raises:
      UserError: an argument that the generator refuses, or a column order that is not one.
    """
    arguments = dict(settings.model)
    make = make_of(arguments.pop("name"))
    order = column_order(arguments.pop("column_order"), schema)
    try:
        return of_units(make(cardinalities=cardinalities, column_order=order, **arguments), schema.rows_per_unit)
    except (TypeError, ValueError) as error:
        raise UserError(f"the section model of the settings does not fit: {error}") from None


def column_order(names: tuple[str, ...], schema: Schema) -> tuple[int, ...]:
    """Indices of the modelled columns in the order that the generator draws them."""
    known = [column.name for column in schema.modelled]
    if not names:
        names = tuple(sorted(known, key=lambda name: name != schema.target))
    if sorted(names) != sorted(known):
        odd = sorted(set(names) ^ set(known))
        raise UserError(
            f"model.column_order must name every modelled column once; it disagrees with the schema on "
            f"{', '.join(map(repr, odd)) or 'how often a column occurs'}: correct it or leave it empty"
        )
    return tuple(known.index(name) for name in names)


def random_records(
    settings: Settings, schema: Schema, rng: np.random.Generator
) -> tuple[Generator, np.ndarray | UnitRows]:
    """(generator, random codes). Data-dependent bins are taken at the number aimed at, units with all their rows."""
    grids = [make_grid(column, settings.transform.num_bins) for column in schema.modelled]
    bins = [public_bins(grid, settings.transform.most_categories) for grid in grids]
    cardinalities = tuple(int(own.max()) + 1 if own.size else _UNKNOWN_CATEGORIES for own in bins)
    generator, num_units, most = build(settings, schema, cardinalities), num_units_of(schema), schema.rows_per_unit
    codes = rng.integers(cardinalities, size=(num_units * most, len(cardinalities))).astype(np.int32)
    if most == 1:
        return generator, codes
    return generator, UnitRows(codes.reshape(num_units, most, -1), np.ones((num_units, most), bool))


def write(frame: pd.DataFrame, schema: Schema, folder: Path) -> None:
    """CSV in the form of the source: dates by their format, booleans by their labels, missing as empty."""
    to_file_frame(frame, schema).to_csv(folder / "synthetic.csv", index=False)


def evaluate(
    run: Any,
    train: pd.DataFrame,
    test: pd.DataFrame,
    synthetic: pd.DataFrame,
    schema: Schema,
    settings: Settings,
    folder: Path,
    announce: Callable[[str], None],
) -> None:
    del run, announce
    rules = parse_constraints(settings.synthesis.constraints, schema)
    result = evaluation.evaluate(schema, train, test, synthetic, seed=settings.seed, settings=settings.evaluation)
    on_rules = rule_rows(rules, test, synthetic, seed=settings.seed)
    write_json(folder / "metrics.json", [*result.metrics, *on_rules.metrics])
    conditions = [_CONDITIONED] if settings.synthesis.conditions else []
    details = {
        "notice": PRIVATE_NOTICE,
        "curves": result.curves,
        "pair_errors": result.pair_errors,
        "skipped": [*conditions, *result.skipped, *on_rules.skipped],
        "tests": result.tests,
        "fairness": result.fairness,
    }
    write_json(folder / "details.json", details)


def metrics_of(
    run: Any, schema: Schema, train: pd.DataFrame, test: pd.DataFrame, synthetic: pd.DataFrame, settings: Settings
) -> list[dict[str, Any]]:
    """Without the models of further seeds, which add tests but no rows."""
    del run
    once = dataclasses.replace(settings.evaluation, num_seeds=0)
    return evaluation.evaluate(schema, train, test, synthetic, seed=settings.seed, settings=once).metrics


def render(
    common: Mapping[str, Any],
    train: pd.DataFrame,
    test: pd.DataFrame,
    synthetic: pd.DataFrame,
    schema: Schema,
    folder: Path,
) -> str:
    details = {
        "curves": {},
        "pair_errors": {},
        "skipped": ["the evaluation was switched off"],
        "tests": {},
        "fairness": {},
    }
    if common["metrics"]:
        details = json.loads((folder / "details.json").read_text())
    names = ("curves", "pair_errors", "skipped", "tests", "fairness")
    return report.render_page(
        report.PageData(
            **common,
            **{name: details[name] for name in names},
            train=train,
            test=test,
            synthetic=synthetic,
            schema=schema,
        )
    )


def _build_for(settings: Settings, transform: Discretizer) -> Generator:
    return build(settings, transform.schema, transform.cardinalities)


def _loss_bound(transform: Discretizer) -> float:
    """Of a unit, all of whose codes are guessed evenly."""
    return float(np.sum(np.log(transform.cardinalities))) * transform.schema.rows_per_unit


def _no_warm_up(generator: Generator, settings: Settings, bought: Purchases, announce: Callable[[str], None]) -> None:
    """A table has purchased marginals to start from, by `calibrate`."""


TABLES = Modality(
    name="tables",
    generators=TABLE_GENERATORS,
    check=check,
    buy=buy,
    build_generator=_build_for,
    loss_bound=_loss_bound,
    warm_up=_no_warm_up,
    random_records=random_records,
    synthesize=synthesize,
    finish=restore_dtypes,
    write=write,
    released_files={"synthetic table": "synthetic.csv"},
    read_synthetic=read_foreign,
    evaluate=evaluate,
    attacks=TABLE_ATTACKS,
    attack=attack_table,
    render=render,
    metrics=metrics_of,
    schema_to_dict=schema_to_dict,
    public_facts=lambda schema: [
        "column names, order and kinds; bounds, categories, point masses and nullability as the schema states them"
    ],
)
