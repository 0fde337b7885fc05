"""Evidence on a synthetic table: fidelity, utility, fairness and sanity, each beside the same metric on real data."""

from __future__ import annotations

from typing import Any, NamedTuple

import pandas as pd

from privsyn_jax.evaluation.distances import fidelity_rows
from privsyn_jax.evaluation.encode import Tables, encode_tables
from privsyn_jax.evaluation.fairness import fairness_of
from privsyn_jax.evaluation.headlines import headline
from privsyn_jax.evaluation.sanity import sanity_rows
from privsyn_jax.evaluation.utility import utility_of
from privsyn_jax.evaluation_settings import EvaluationSettings
from privsyn_jax.types import Schema, UserError

__all__ = ["Evaluation", "evaluate", "headline"]


class Evaluation(NamedTuple):
    """What was measured. Computed from real rows without noise: keep it under `private/`.

    Attributes:
      metrics: rows {"family": "fidelity" | "utility" | "fairness" | "sanity", "metric", "value", "reference",
        "higher_is_better", "column" (None for the whole table), "seed"}; value and reference are finite
        floats, `reference` is the same metric for real held-out data (utility: for a model trained on real).
      curves: ROC curves {model: {"synthetic" | "reference": {"fpr": [...], "tpr": [...]}}}.
      pair_errors: {"columns": [D names], "synthetic": [D][D], "reference": [D][D]}, total variation of
        every pair of columns against real train; the diagonal is 1-way.
      skipped: one sentence for everything that could not be computed or was left out.
      tests: means over seeds with intervals, and paired tests against real, see `significance.seed_tests`.
      fairness: {sensitive column: what each group gets}, see `fairness.fairness_of`.
    """

    metrics: list[dict[str, Any]]
    curves: dict[str, Any]
    pair_errors: dict[str, Any]
    skipped: list[str]
    tests: dict[str, Any]
    fairness: dict[str, Any]


def evaluate(
    schema: Schema,
    train: pd.DataFrame,
    test: pd.DataFrame,
    synthetic: pd.DataFrame,
    *,
    seed: int,
    settings: EvaluationSettings | None = None,
) -> Evaluation:
    """Compares a synthetic table with the real one that it stands for.

    Args:
      schema: public facts; id columns are ignored.
      train: real records that the generator was trained on, canonical dtypes (see types.Records).
      test: real records that it never saw.
      synthetic: any number of rows, canonical dtypes; further columns are ignored, absent ones are named
        in `skipped`.
      seed: of the downstream models and of the subsets for the sanity checks.
      settings: of the downstream models; None for the defaults.

    Returns:
      An Evaluation, plain JSON types throughout.

    Raises:
      UserError: a table has no rows, a real table lacks a column, or the synthetic one shares none.
    """
    for described, table in (("training", train), ("held-out", test), ("synthetic", synthetic)):
        if not len(table):
            raise UserError(f"the {described} table has no rows: there is nothing to evaluate")
        absent = [column.name for column in schema.modelled if column.name not in table.columns]
        if absent and table is not synthetic:
            raise UserError(f"the {described} table lacks the schema's column {absent[0]!r}")
    columns = [column for column in schema.modelled if column.name in synthetic.columns]
    if not columns:
        raise UserError("the synthetic table has none of the schema's columns")
    names = [column.name for column in columns]
    frames = [pd.DataFrame(table[names]).reset_index(drop=True) for table in (train, test, synthetic)]
    all_levels, encoded = encode_tables(columns, frames)
    tables = Tables(*encoded)

    fidelity, pair_errors = fidelity_rows(all_levels, tables, target=schema.target, seed=seed)
    settings = settings or EvaluationSettings()
    utility = utility_of(all_levels, tables, target=schema.target, seed=seed, settings=settings)
    fairness, group_details = fairness_of(
        all_levels,
        Tables(*frames),
        tables,
        utility.predictions,
        sensitive=schema.sensitive,
        target=schema.target,
        seed=seed,
    )
    sanity = sanity_rows(columns, *frames, seed=seed)
    absent = [column.name for column in schema.modelled if column.name not in names]
    skipped = [f"{name}: not in the synthetic table." for name in absent]
    parts = (fidelity, utility.rows, fairness, sanity)
    return Evaluation(
        metrics=[row for part in parts for row in part.metrics],
        curves=utility.curves,
        pair_errors=pair_errors,
        skipped=skipped + [sentence for part in parts for sentence in part.skipped],
        tests=utility.tests,
        fairness=group_details,
    )
