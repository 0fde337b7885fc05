"""Audits that see synthetic tables only: was the planted record among the training records?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from privsyn_jax.evaluation.audit.bounds import one_run_bound, repeated_bound
from privsyn_jax.evaluation.audit.result import AuditResult, audit_result
from privsyn_jax.evaluation.encode import numbers, numeric_bounds, scaled_numeric
from privsyn_jax.types import NUMERIC_KINDS, Column, Schema, UserError

_CELL_WEIGHT = 10.0  # nats that a differing cell takes from the closeness of a row


def closeness(synthetic: pd.DataFrame, canaries: pd.DataFrame, schema: Schema) -> np.ndarray:
    """How near synthetic rows come to each canary: float64 [m, 3], finite; higher is nearer.

    The cells of two rows differ by 1 if they are of a category and unequal or one of them is missing, by at most 1 if
    they are numbers, in units of the column's range. Features: minus the difference of the nearest row; the log of the
    mean over rows of exp(-10 difference), a density; the share of rows that differ in nothing.

    Args:
      synthetic: any number of rows; a column that is absent differs everywhere.
      canaries: m rows, every modelled column.
    """
    absent = [column.name for column in schema.modelled if column.name not in canaries]
    if absent:
        raise UserError(f"the canaries have no column {absent[0]!r}: give every modelled column of the schema")
    difference = np.zeros((len(canaries), len(synthetic)))
    for column in schema.modelled:
        if column.name in synthetic:
            difference += _cells(column, pd.Series(canaries[column.name]), pd.Series(synthetic[column.name]))
        else:
            difference += 1.0
    worst = float(len(schema.modelled))
    if not len(synthetic):
        difference = np.full((len(canaries), 1), worst)
    nearest = difference.min(axis=1)
    mass = np.exp(-_CELL_WEIGHT * (difference - nearest[:, None])).mean(axis=1)
    return np.stack([-nearest, np.log(mass) - _CELL_WEIGHT * nearest, (difference < 1e-9).mean(axis=1)], axis=1)


def audit_synthetic(
    synthetic: pd.DataFrame,
    canaries: pd.DataFrame,
    is_in: np.ndarray,
    schema: Schema,
    *,
    claimed_epsilon: float,
    delta: float,
    confidence: float = 0.95,
    name: str = "synthetic records, one run",
) -> AuditResult:
    """From one synthetic table, for whose training every canary was put in by a fair coin of its own.

    Args:
      canaries: m rows, at least 20.
      is_in: bool [m], the coins.
      claimed_epsilon: of the whole run, at delta.
    """
    scores = closeness(synthetic, canaries, schema)[:, 1]
    bound = one_run_bound(scores, is_in, delta=delta, confidence=confidence)
    return audit_result(
        name,
        claimed_epsilon=claimed_epsilon,
        delta=delta,
        lower_bound=bound,
        confidence=confidence,
        num_canaries=len(canaries),
    )


def audit_synthetic_sets(
    with_canary: Sequence[pd.DataFrame],
    without: Sequence[pd.DataFrame],
    canary: pd.DataFrame,
    schema: Schema,
    *,
    claimed_epsilon: float,
    delta: float,
    confidence: float = 0.95,
    name: str = "synthetic records, repeated runs",
) -> AuditResult:
    """From synthetic tables of independent runs that differ in one training record.

    A logistic regression on `closeness`, trained on the first half of both kinds, gives the score, and that half its
    threshold; Clopper and Pearson bound the error rates on the other half.

    Args:
      with_canary, without: tables of runs with and without it, at least 4 of each, in no particular order.
      canary: one row.

    Raises:
      UserError: fewer than 4 tables of a kind.
    """
    members, others = (
        np.concatenate([closeness(table, canary, schema)[:1] for table in tables]) if len(tables) else np.zeros((0, 3))
        for tables in (with_canary, without)
    )
    if min(len(members), len(others)) < 4:
        raise UserError(f"{len(members)} synthetic tables with and {len(others)} without the canary: give 4 or more")
    half, other_half = len(members) // 2, len(others) // 2
    features = np.concatenate([members[:half], others[:other_half]])
    labels = np.arange(len(features)) < half
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(features, labels)
    threshold = _threshold(model.decision_function(features), labels)
    bound = repeated_bound(
        model.decision_function(members[half:]),
        model.decision_function(others[other_half:]),
        delta=delta,
        confidence=confidence,
        threshold=threshold,
    )
    return audit_result(
        name,
        claimed_epsilon=claimed_epsilon,
        delta=delta,
        lower_bound=bound,
        confidence=confidence,
        num_canaries=len(members) + len(others),
    )


def audit_synthesizer(
    synthesize: Callable[..., pd.DataFrame],
    records: pd.DataFrame,
    canary: pd.DataFrame,
    schema: Schema,
    *,
    num_runs: int,
    key: jax.Array,
    claimed_epsilon: float,
    delta: float,
    confidence: float = 0.95,
) -> AuditResult:
    """`audit_synthetic_sets` of a generator given as a function.

    Args:
      synthesize: (records, key) -> synthetic table; trains anew in every call.
      records: training table without the canary.
      num_runs: calls, half of them with the canary.
      key: draws a key for every call.
    """
    planted = pd.concat([records, canary], ignore_index=True)
    keys = jax.random.split(key, num_runs)
    tables = [synthesize(records if number % 2 else planted, one) for number, one in enumerate(keys)]
    return audit_synthetic_sets(
        tables[::2],
        tables[1::2],
        canary,
        schema,
        claimed_epsilon=claimed_epsilon,
        delta=delta,
        confidence=confidence,
    )


def _threshold(scores: np.ndarray, labels: np.ndarray) -> float:
    """Where the score tells the labels apart best: the largest true minus false positive rate."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(labels[order]) / labels.sum() - np.cumsum(~labels[order]) / (~labels).sum()
    last = int(np.argmax(hits))
    if last + 1 == len(order):
        return float(scores[order[last]])
    return float(scores[order[last : last + 2]].mean())


def _cells(column: Column, canaries: pd.Series, synthetic: pd.Series) -> np.ndarray:
    """Differences [m, n] in one column, each in [0, 1]."""
    if column.kind in NUMERIC_KINDS:
        values, others = numbers(column, canaries), numbers(column, synthetic)
        bounds = numeric_bounds(column, np.concatenate([values, others]))
        values, others = scaled_numeric(values, bounds), scaled_numeric(others, bounds)
        difference = np.minimum(np.abs(values[:, None] - others[None, :]), 1.0)
        is_missing, other_is_missing = np.isnan(values), np.isnan(others)
    else:
        codes, _ = pd.factorize(pd.concat([canaries.astype(object), synthetic.astype(object)], ignore_index=True))
        values, others = codes[: len(canaries)], codes[len(canaries) :]
        difference = (values[:, None] != others[None, :]).astype(np.float64)
        is_missing, other_is_missing = values < 0, others < 0
    either: Any = is_missing[:, None] | other_is_missing[None, :]
    both = is_missing[:, None] & other_is_missing[None, :]
    return np.where(both, 0.0, np.where(either, 1.0, difference))
