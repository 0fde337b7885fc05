"""Sanity of a synthetic table: repeated rows, copies of training rows, values within public bounds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from privsyn_jax.evaluation import encode
from privsyn_jax.evaluation.rows import Rows
from privsyn_jax.synthesis.constraints import Rule
from privsyn_jax.types import NUMERIC_KINDS, Column


def sanity_rows(
    columns: Sequence[Column],
    train: pd.DataFrame,
    test: pd.DataFrame,
    synthetic: pd.DataFrame,
    *,
    seed: int,
) -> Rows:
    """Checks on whole rows and on single values, over the given columns.

    Metrics, each a share in [0, 1]:
      duplicate_rate: rows that repeat an earlier one, of the synthetic table; reference: of real train.
        Both are cut to the size of the smaller, since repeats grow with the size.
      training_copy_rate: synthetic rows that equal a row of real train; reference: real test rows that do.
      heldout_copy_rate: synthetic rows that equal a row of real test; reference: real train rows that do.
        Real train and test are cut to one size, so the two values can be compared: a generator that
        has memorised nothing copies both at the same rate.
      within_bounds_rate: values that the schema allows (public bounds, categories, missing only where
        nullable, whole numbers for integers), over all columns and per column; must be 1.

    Args:
      columns: the columns to compare, without ids.
      train: real training table.
      test: real held-out table.
      synthetic: synthetic table.
      seed: draws the subsets.
    """
    rows = Rows("sanity", seed)
    rng = np.random.default_rng(seed)
    train_ids, test_ids, synthetic_ids = row_ids(columns, (train, test, synthetic))
    size = min(len(synthetic_ids), len(train_ids))
    rows.add("duplicate_rate", *(duplicate_rate(_subset(ids, size, rng)) for ids in (synthetic_ids, train_ids)))
    size = min(len(train_ids), len(test_ids))
    train_ids, test_ids = _subset(train_ids, size, rng), _subset(test_ids, size, rng)
    rows.add("training_copy_rate", *(np.isin(ids, train_ids).mean() for ids in (synthetic_ids, test_ids)))
    rows.add("heldout_copy_rate", *(np.isin(ids, test_ids).mean() for ids in (synthetic_ids, train_ids)))
    allowed = [
        [within_bounds(column, pd.Series(table[column.name])) for column in columns] for table in (synthetic, test)
    ]
    rows.add("within_bounds_rate", *(np.mean(table) for table in allowed), higher_is_better=True)
    for column, values, references in zip(columns, *allowed, strict=True):
        share = (values.mean(), references.mean())
        rows.add("within_bounds_rate", *share, higher_is_better=True, column=column.name)
    return rows


def rule_rows(rules: Sequence[Rule], test: pd.DataFrame, synthetic: pd.DataFrame, *, seed: int) -> Rows:
    """rules_kept_rate: share of rows that break none of the rules; reference: of real test. One row, if any rules."""
    rows, absent = Rows("sanity", seed), [name for rule in rules for name in rule.columns if name not in synthetic]
    if absent:
        rows.skip("rules_kept_rate", f"column {absent[0]!r}, which a rule is about, is not in the synthetic table")
    elif rules:
        kept = (np.mean(np.all([rule.kept(table) for rule in rules], axis=0)) for table in (synthetic, test))
        rows.add("rules_kept_rate", *kept, higher_is_better=True)
    return rows


def row_ids(columns: Sequence[Column], tables: Sequence[pd.DataFrame]) -> list[np.ndarray]:
    """Integers [n] per table, equal for rows that agree in every given column (missing equals missing)."""
    ids = np.zeros(sum(len(table) for table in tables), np.int64)
    for column in columns:
        if column.kind in NUMERIC_KINDS:
            values = np.concatenate([encode.numbers(column, pd.Series(table[column.name])) for table in tables])
        else:
            values = pd.concat([table[column.name].astype(object) for table in tables]).to_numpy(object)
        codes, distinct = pd.factorize(values)  # -1 where missing
        ids, _ = pd.factorize(ids * (len(distinct) + 1) + codes + 1)
    return np.split(ids, np.cumsum([len(table) for table in tables])[:-1])


def duplicate_rate(ids: np.ndarray) -> float:
    """Share of rows that repeat an earlier one, from `row_ids`."""
    return 1.0 - len(np.unique(ids)) / len(ids)


def within_bounds(column: Column, values: pd.Series) -> np.ndarray:
    """Whether the schema allows each value, bool [n]; what the schema leaves unknown allows anything."""
    is_missing = values.isna().to_numpy(bool)
    if column.kind in NUMERIC_KINDS:
        floats = encode.numbers(column, values)
        lower, upper = encode.numeric_bounds(column, np.zeros(0))
        is_allowed = np.isfinite(floats)
        is_allowed &= (floats >= lower) if column.lower is not None else True
        is_allowed &= (floats <= upper) if column.upper is not None else True
        if column.kind == "integer":
            is_allowed &= floats == np.floor(floats)
    elif column.kind == "boolean":
        is_allowed = encode.category_codes(values, (False, True)) < 2
    elif column.categories is None:
        is_allowed = ~is_missing
    else:
        is_allowed = encode.category_codes(values, column.categories) < len(column.categories)
    return np.where(is_missing, column.nullable, is_allowed)


def _subset(ids, size, rng):
    """A random subset of the given size without replacement."""
    return ids if len(ids) == size else rng.choice(ids, size, replace=False)
