"""Public grids: one fine, ordered domain of cells per column, from the schema alone."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
from typing import Any

import numpy as np
import pandas as pd

from privsyn_jax.types import NUMERIC_KINDS, Column, UserError

_TIME_OF_DAY_MARKS = ("%H", "%I", "%M", "%S", "%f", "%X", "%c", "%s")
_DAY, _SECOND, _MICROSECOND = 86_400_000_000, 1_000_000, 1
_MAX_EXACT = 2**53  # integers up to here are exact in float64


@dataclasses.dataclass(frozen=True)
class Grid:
    """The cells of one column, in order; the last cell holds missing values if the column is nullable.

    Attributes:
      column: the schema's column.
      lower, upper: float64 [num_value_cells], numeric kinds only; a cell is [lower, upper), or the single
        point lower when lower == upper; an interval that follows its own lower point is open there. Integers
        and dates count in whole units, so that every cell [a, b) of theirs holds b - a values.
      whole: whether values are whole numbers.
      merge: whether neighbouring cells may be merged into bins (not when the schema gives edges).
    """

    column: Column
    lower: np.ndarray
    upper: np.ndarray
    whole: bool
    merge: bool

    @property
    def is_numeric(self) -> bool:
        return self.column.kind in NUMERIC_KINDS

    @property
    def num_value_cells(self) -> int:
        return len(self.lower) if self.is_numeric else len(self.column.values)

    @property
    def size(self) -> int:
        return self.num_value_cells + self.column.nullable

    def encode(self, values: Any) -> np.ndarray:
        """Cell numbers, int32 [n], of a pandas Series in its canonical dtype and within its bounds."""
        if self.is_numeric:
            missing = values.isna().to_numpy()
            numbers = np.where(missing, self.lower[0], to_numbers(values, self.column))
            # Cells are sorted by (lower, upper), so a point precedes the interval that starts at it;
            # the last cell that starts at or below a value is that interval, or a closing point.
            cells = np.searchsorted(self.lower, numbers, side="right") - 1
            before = np.maximum(cells - 1, 0)
            at_point = (self.lower[before] == self.upper[before]) & (self.lower[before] == numbers)
            cells = np.where(at_point, before, cells)
        else:
            position = {value: code for code, value in enumerate(self.column.values)}
            cells = values.map(position).to_numpy(dtype=np.float64, na_value=np.nan)
            missing = np.isnan(cells)  # null, or a category that a private release did not bring out
        return np.where(missing, self.num_value_cells, cells).astype(np.int32)

    def draw(self, cells: np.ndarray, rng: np.random.Generator) -> pd.Series:
        """Values in the canonical dtype, uniform within each cell."""
        missing = cells == self.num_value_cells
        inside = np.where(missing, 0, cells)
        if not self.is_numeric:
            lookup = pd.Series(list(self.column.values), dtype=object)
            values = lookup.take(inside).reset_index(drop=True)
            if self.column.kind == "boolean":
                values = values.astype("boolean" if self.column.nullable else bool)
            return values.mask(missing, None) if missing.any() else values
        low, high = self.lower[inside], self.upper[inside]
        numbers = low + rng.random(len(cells)) * (high - low)
        # Rounding may have carried a number to an end that belongs to a neighbouring cell.
        if self.whole:
            numbers = np.maximum(np.minimum(np.floor(numbers), high - 1), low)
        else:
            within = np.minimum(np.maximum(numbers, np.nextafter(low, np.inf)), np.nextafter(high, -np.inf))
            numbers = np.where(low == high, low, within)
        return from_numbers(numbers, missing, self.column)


def make_grid(column: Column, num_cells: int) -> Grid:
    """Grid of a column: categories as they are; numbers cut evenly into about `num_cells` cells.

    A whole-number range of at most `num_cells` values gets one cell per value. The bounds, zero and the
    schema's point masses are cells of their own, so that a spike stays a spike. Edges given in the schema
    replace the even cut and are not merged.
    """
    if column.kind not in NUMERIC_KINDS:
        empty = np.zeros(0)
        return Grid(column, empty, empty, whole=False, merge=False)
    lower, upper = numeric_bounds(column)
    points = {float(point) for point in column.point_masses}
    if not column.edges:
        points |= {lower, upper}
        if lower <= 0 <= upper and column.kind != "datetime":
            points.add(0.0)
    whole = column.kind != "numeric"
    cells = (_whole_cells if whole else _real_cells)(column, lower, upper, points, num_cells)
    starts, ends = (np.array(bounds) for bounds in zip(*cells, strict=True))
    return Grid(column, starts, ends, whole, merge=not column.edges)


def _whole_cells(
    column: Column, lower: float, upper: float, points: set[float], num_cells: int
) -> list[tuple[float, float]]:
    """Cells [a, b) of whole numbers; a point is [point, point + 1)."""
    span = upper - lower + 1
    count = min(span, num_cells)
    cut = np.asarray(column.edges[:-1]) if column.edges else lower + np.arange(count) * span / count
    starts = sorted({*np.ceil(cut), *points, *(point + 1 for point in points if point < upper)})
    return list(itertools.pairwise([*starts, upper + 1]))


def _real_cells(
    column: Column, lower: float, upper: float, points: set[float], num_cells: int
) -> list[tuple[float, float]]:
    """Cells [a, b) of real numbers, (a, b) next to a point; a point is (point, point). The upper bound is one."""
    points = points | {upper}
    cut = column.edges or np.clip(np.linspace(lower, upper, num_cells + 1), lower, upper)
    edges = sorted({*(float(edge) for edge in cut), *points})
    holding = [(a, b) for a, b in itertools.pairwise(edges) if not (a in points and np.nextafter(a, np.inf) >= b)]
    return sorted([(point, point) for point in points] + holding)


def numeric_bounds(column: Column) -> tuple[float, float]:
    """Public bounds as numbers (datetime: units since 1970)."""
    if column.lower is None or column.upper is None:
        raise UserError(f"column {column.name!r} has no public bounds: state lower and upper in the schema")
    if column.kind != "datetime":
        return float(column.lower), float(column.upper)
    lower, upper = to_numbers(pd.Series(_moments(column)), column)
    return float(lower), float(upper)


def to_numbers(values: pd.Series, column: Column) -> np.ndarray:
    """Float64 [n]: numbers as they are; dates as whole days, seconds or microseconds since 1970."""
    if column.kind != "datetime":
        return values.to_numpy(dtype=np.float64, na_value=np.nan)
    microseconds = values.astype("datetime64[us]").to_numpy().astype("datetime64[us]").astype(np.int64)
    return (microseconds // _unit(column)).astype(np.float64)


def from_numbers(numbers: np.ndarray, missing: np.ndarray, column: Column) -> pd.Series:
    """Inverse of `to_numbers`, in the canonical dtype of the column's kind."""
    if column.kind == "numeric":
        return pd.Series(np.where(missing, np.nan, numbers))
    if column.kind == "integer":
        whole = pd.Series(numbers.astype(np.int64))
        return whole.astype("Int64").mask(missing) if column.nullable else whole
    dates = pd.Series((numbers.astype(np.int64) * _unit(column)).astype("datetime64[us]"))
    return dates.mask(missing) if missing.any() else dates


def _unit(column: Column) -> int:
    """Microseconds per unit of a date column: what its written form, or else its bounds, can tell apart."""
    lower, upper = _moments(column)
    text_format = column.datetime_format
    if text_format is None:
        has_time = len(str(column.lower)) > 10 or len(str(column.upper)) > 10
    else:
        has_time = any(mark in text_format for mark in _TIME_OF_DAY_MARKS)
    if not has_time:
        return _DAY
    has_fractions = lower.astype(np.int64) % _SECOND != 0 or "%f" in (text_format or "")
    is_exact = max(abs(lower.astype(np.int64)), abs(upper.astype(np.int64))) < _MAX_EXACT
    return _MICROSECOND if has_fractions and is_exact else _SECOND


def _moments(column: Column) -> np.ndarray:
    """Public bounds of a date column, datetime64[us] [2]."""
    moments = [datetime.datetime.fromisoformat(str(bound)) for bound in (column.lower, column.upper)]
    return np.array(moments, dtype="datetime64[us]")
