"""Tables as arrays for the metrics: scaled numbers, category codes, quantile bins.

Everything here looks at real rows without noise, so its results belong under `private/`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import pandas as pd

from privsyn_jax.types import NUMERIC_KINDS, Column

NUM_BINS = 20  # quantile bins of the real training table for a numeric column
MAX_LEVELS = 100  # categories kept apart; the rarest beyond that share one level


class Levels(NamedTuple):
    """How one column becomes a small set of codes, the same for every table.

    Codes are 0..k-1 for the k bins or categories, k for any other value, k+1 for a missing one.

    Attributes:
      column: the schema's facts.
      bounds: (lower, upper) as numbers, numeric kinds only, else (0, 1).
      edges: [k-1] increasing inner edges; bin i holds edges[i-1] < value <= edges[i]. Numeric kinds only.
      categories: the k values in schema order. Categorical kinds only.
      occurs: bool [k+2], the codes that occur in one of the tables it was made from.
    """

    column: Column
    bounds: tuple[float, float]
    edges: np.ndarray
    categories: tuple
    occurs: np.ndarray

    @property
    def is_numeric(self) -> bool:
        return self.column.kind in NUMERIC_KINDS

    @property
    def num_codes(self) -> int:
        return len(self.occurs)


class Encoded(NamedTuple):
    """A table of n rows and D columns as arrays.

    Attributes:
      codes: int32 [n, D], see Levels.
      scaled: float64 [n, D], numbers with public bounds at 0 and 1; NaN where missing or not numeric.
    """

    codes: np.ndarray
    scaled: np.ndarray


Part = TypeVar("Part")


class Tables(NamedTuple, Generic[Part]):
    """One part for each of the three tables that are compared; the columns are the same."""

    train: Part
    test: Part
    synthetic: Part


def numbers(column: Column, values: pd.Series) -> np.ndarray:
    """A numeric, integer or datetime (as seconds since 1970) column, float64 [n]; NaN if not finite."""
    if column.kind == "datetime":
        instants = pd.to_datetime(values, errors="coerce").to_numpy("datetime64[us]")
        return np.where(np.isnat(instants), np.nan, instants.astype(np.int64) / 1e6)
    floats = pd.Series(pd.to_numeric(values, errors="coerce")).to_numpy(np.float64, na_value=np.nan)
    return np.where(np.isfinite(floats), floats, np.nan)


def numeric_bounds(column: Column, train_numbers: np.ndarray) -> tuple[float, float]:
    """Public (lower, upper) as numbers; a bound that the schema leaves unknown comes from the real rows."""
    present = train_numbers[np.isfinite(train_numbers)]
    observed = (present.min(), present.max()) if len(present) else (0.0, 1.0)
    declared = [
        None if bound is None else numbers(column, pd.Series([bound]))[0] for bound in (column.lower, column.upper)
    ]
    lower, upper = (float(o if d is None else d) for d, o in zip(declared, observed, strict=True))
    return lower, upper


def scaled_numeric(values: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    """Numbers [n] with the bounds at 0 and 1; a value outside them stays outside; NaN stays NaN."""
    lower, upper = bounds
    return (values - lower) / (upper - lower if upper > lower else 1.0)


def bin_edges(train_numbers: np.ndarray, num_bins: int = NUM_BINS) -> np.ndarray:
    """Distinct inner quantiles [at most num_bins - 1] of the real training values.

    As `pandas.qcut`, but a lowest value that fills whole quantiles (capital-gain 0) has a bin of its own.
    """
    present = train_numbers[np.isfinite(train_numbers)]
    if not len(present):
        return np.zeros(0)
    return np.unique(np.quantile(present, np.linspace(0.0, 1.0, num_bins + 1)[1:-1]))


def category_codes(values: pd.Series, categories: Sequence) -> np.ndarray:
    """Position of each value in `categories`, int32 [n]; k for any other value, k+1 if missing."""
    num = len(categories)
    found = pd.Index(list(categories), dtype=object).get_indexer(pd.Index(values.astype(object), dtype=object))
    return np.where(values.isna().to_numpy(bool), num + 1, np.where(found < 0, num, found)).astype(np.int32)


def observed_categories(column: Column, tables: Sequence[pd.Series]) -> tuple:
    """The categories to tell apart, at most MAX_LEVELS of them.

    Boolean columns are (False, True); otherwise the schema's, or where it knows none, every value in
    the first or last table, sorted as text. Beyond MAX_LEVELS the most frequent of the first table stay.
    """
    if column.kind == "boolean":
        return (False, True)
    categories = column.categories
    if categories is None:
        union = pd.concat([tables[0].astype(object), tables[-1].astype(object)]).dropna().unique()
        categories = tuple(sorted(union, key=str))
    if len(categories) <= MAX_LEVELS:
        return tuple(categories)
    counts = np.bincount(category_codes(tables[0], categories), minlength=len(categories))
    kept = np.argsort(-counts[: len(categories)], kind="stable")[:MAX_LEVELS]
    return tuple(categories[i] for i in np.sort(kept))


def make_levels(column: Column, tables: Sequence[pd.Series]) -> Levels:
    """Codes for one column.

    Args:
      column: its public facts.
      tables: the column in each table that will be encoded: real train first, synthetic last.
    """
    bounds, edges, categories = (0.0, 1.0), np.zeros(0), ()
    if column.kind in NUMERIC_KINDS:
        train_numbers = numbers(column, tables[0])
        bounds, edges = numeric_bounds(column, train_numbers), bin_edges(train_numbers)
        size = len(edges) + 1
    else:
        categories = observed_categories(column, tables)
        size = len(categories)
    levels = Levels(column, bounds, edges, categories, np.ones(size + 2, bool))
    present = [np.bincount(column_codes(levels, values), minlength=size + 2) > 0 for values in tables]
    return levels._replace(occurs=np.logical_or.reduce(present))


def column_codes(levels: Levels, values: pd.Series) -> np.ndarray:
    """One column as int32 codes [n] in 0..k+1."""
    if not levels.is_numeric:
        return category_codes(values, levels.categories)
    floats = numbers(levels.column, values)
    bins = np.searchsorted(levels.edges, floats, side="left")
    return np.where(np.isnan(floats), len(levels.edges) + 2, bins).astype(np.int32)


def encode_table(all_levels: Sequence[Levels], table: pd.DataFrame) -> Encoded:
    """All columns of a table as arrays; see Encoded."""
    codes = np.zeros((len(table), len(all_levels)), np.int32)
    scaled = np.full((len(table), len(all_levels)), np.nan)
    for i, levels in enumerate(all_levels):
        values = pd.Series(table[levels.column.name])
        codes[:, i] = column_codes(levels, values)
        if levels.is_numeric:
            scaled[:, i] = scaled_numeric(numbers(levels.column, values), levels.bounds)
    return Encoded(codes, scaled)


def level_counts(codes: np.ndarray, num_codes: int) -> np.ndarray:
    """How often each code occurs in each column: codes [n, D] -> int64 [D, num_codes]."""
    num_columns = codes.shape[1]
    cells = codes + num_codes * np.arange(num_columns)[None, :]
    return np.bincount(cells.ravel(), minlength=num_columns * num_codes).reshape(num_columns, num_codes)
