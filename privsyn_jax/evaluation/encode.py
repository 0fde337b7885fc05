"""Tables as arrays for the metrics: scaled numbers, category codes, quantile bins.

Everything here looks at real rows without noise, so its results belong under `private/`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import pandas as pd

from privsyn_jax.evaluation.threads import in_threads
from privsyn_jax.types import NUMERIC_KINDS, Column

NUM_BINS = 20  # quantile bins of the real training table for a numeric column
LARGEST = 1e30  # of a number: single precision has room for it, and for some scaling
_BLOCK_ROWS = 1 << 14  # of one column: they stay in the cache
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
    """A numeric, integer or datetime (as seconds since 1970) column, float64 [n]; NaN if not finite.

    Numbers beyond LARGEST, which only a broken generator makes, count as that.
    """
    if column.kind == "datetime":
        instants = pd.to_datetime(values, errors="coerce").to_numpy("datetime64[us]")
        return np.where(np.isnat(instants), np.nan, instants.astype(np.int64) / 1e6)
    if values.dtype == np.float64:
        floats = values.to_numpy()
    else:
        floats = pd.Series(pd.to_numeric(values, errors="coerce")).to_numpy(np.float64, na_value=np.nan)
    is_extreme = np.abs(floats) > LARGEST
    if is_extreme.any():
        floats = np.where(np.isinf(floats), np.nan, np.clip(floats, -LARGEST, LARGEST))
    return floats


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
    places, distinct = pd.factorize(values)  # few are distinct: only those are looked up
    found = pd.Index(list(categories), dtype=object).get_indexer(pd.Index(distinct).astype(object))
    code_of = np.append(np.where(found < 0, num, found), num + 1).astype(np.int32)
    return code_of[places]  # -1, the last, is missing


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
    return _levels_and_codes(column, [_parsed(column, values) for values in tables])[0]


def column_codes(levels: Levels, values: pd.Series) -> np.ndarray:
    """One column as int32 codes [n] in 0..k+1."""
    return _codes(levels, _parsed(levels.column, values))


def encode_table(all_levels: Sequence[Levels], table: pd.DataFrame) -> Encoded:
    """All columns of a table as arrays; see Encoded."""
    encoded = _blank(len(table), len(all_levels))
    for i, levels in enumerate(all_levels):
        parsed = _parsed(levels.column, pd.Series(table[levels.column.name]))
        _fill(encoded, i, levels, parsed, _codes(levels, parsed))
    return encoded


def encode_tables(columns: Sequence[Column], frames: Sequence[pd.DataFrame]) -> tuple[list[Levels], list[Encoded]]:
    """`make_levels` of every column and `encode_table` of every table, with each column read once.

    Args:
      columns: public facts of D columns, which all tables have.
      frames: real train first, synthetic last.

    Returns:
      (D levels, one Encoded per table).
    """
    tables = [_blank(len(frame), len(columns)) for frame in frames]

    def encode(place: int) -> Levels:
        column = columns[place]
        parsed = [_parsed(column, pd.Series(frame[column.name])) for frame in frames]
        levels, codes = _levels_and_codes(column, parsed)
        for table, values, of_table in zip(tables, parsed, codes, strict=True):
            _fill(table, place, levels, values, of_table)
        return levels

    return in_threads(encode, range(len(columns))), tables


def _parsed(column: Column, values: pd.Series):
    """What codes are made from: float64 [n] of a numeric kind, the values themselves of another."""
    return numbers(column, values) if column.kind in NUMERIC_KINDS else values


def _levels_and_codes(column, parsed):
    bounds, edges, categories = (0.0, 1.0), np.zeros(0), ()
    if column.kind in NUMERIC_KINDS:
        bounds, edges = numeric_bounds(column, parsed[0]), bin_edges(parsed[0])
        size = len(edges) + 1
    else:
        categories = observed_categories(column, parsed)
        size = len(categories)
    levels = Levels(column, bounds, edges, categories, np.ones(size + 2, bool))
    codes = [_codes(levels, values) for values in parsed]
    present = [np.bincount(of_table, minlength=size + 2) > 0 for of_table in codes]
    return levels._replace(occurs=np.logical_or.reduce(present)), codes


def _codes(levels, parsed):
    if not levels.is_numeric:
        return category_codes(parsed, levels.categories)
    bins = np.zeros(len(parsed), np.int32)
    for start in range(0, len(parsed), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        for edge in levels.edges:  # a few comparisons of many numbers are faster than a search for each
            bins[block] += parsed[block] > edge
    bins[np.isnan(parsed)] = len(levels.edges) + 2
    return bins


def _blank(num_rows, num_columns):
    """Codes 0 and numbers NaN; a column lies together in memory, as most metrics read columns."""
    codes = np.zeros((num_rows, num_columns), np.int32, order="F")
    return Encoded(codes, np.full((num_rows, num_columns), np.nan, order="F"))


def _fill(encoded, place, levels, parsed, codes):
    encoded.codes[:, place] = codes
    if levels.is_numeric:
        encoded.scaled[:, place] = scaled_numeric(parsed, levels.bounds)


def level_counts(codes: np.ndarray, num_codes: int) -> np.ndarray:
    """How often each code occurs in each column: codes [n, D] -> int64 [D, num_codes]."""
    counts = [np.bincount(column, minlength=num_codes) for column in codes.T]
    return np.stack(counts) if counts else np.zeros((0, num_codes), np.int64)
