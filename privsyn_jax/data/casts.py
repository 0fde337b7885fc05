"""One column, as read, → the canonical dtype of its kind (stated at `types.Records`)."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from privsyn_jax.data.categories import UnknownValue, missing_mask, to_booleans, to_categories
from privsyn_jax.types import Column, UserError


class Cast(NamedTuple):
    """A column in its canonical dtype, and how many values lay outside the public bounds (now clipped)."""

    values: pd.Series
    num_outside: int


def cast_column(values: pd.Series, column: Column, *, out_of_bounds: str, source: str) -> Cast:
    """Casts `values` [n] to the canonical dtype of `column`; ids pass unchanged.

    Args:
      values: as read, any dtype, with a RangeIndex.
      column: its public facts.
      out_of_bounds: "clip" or "error", for numbers and moments outside the public bounds.
      source: file name for messages.

    Raises:
      UserError: a value does not fit; the message names column, row (1 is the first data row) and value.
    """
    if column.kind == "id":
        return Cast(values, 0)
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(object)
    place = _Place(column.name, source)
    missing = missing_mask(values, column.categories)
    if not column.nullable and missing.any():
        raise place.error(
            np.flatnonzero(missing)[0], 'is empty: set "nullable": true in the schema, or fill the value in'
        )
    return _CASTS[column.kind](values, missing, column, out_of_bounds, place)


class _Place(NamedTuple):
    name: str
    source: str

    def error(self, row: Any, problem: str) -> UserError:
        return UserError(f"column {self.name!r} of {self.source}, row {int(row) + 1}, {problem}")


def _cast_numeric(values, missing, column, out_of_bounds, place) -> Cast:
    numbers = _finite_numbers(values, missing, place).astype(np.float64)
    numbers, num_outside = _within_bounds(numbers, column.lower, column.upper, missing, out_of_bounds, place)
    result = np.full(len(values), np.nan)
    result[~missing] = numbers
    return Cast(pd.Series(result), num_outside)


def _cast_integer(values, missing, column, out_of_bounds, place) -> Cast:
    numbers = _finite_numbers(values, missing, place)
    if numbers.dtype.kind in "ib" or (numbers.dtype.kind == "u" and numbers.dtype.itemsize < 8):
        numbers = numbers.astype(np.int64)
    else:
        numbers = numbers.astype(np.float64)
        fractional = numbers != np.floor(numbers)
        _refuse_first(fractional, numbers, missing, place, "no whole number: correct it, or use kind 'numeric'")
    numbers, num_outside = _within_bounds(numbers, column.lower, column.upper, missing, out_of_bounds, place)
    result = np.zeros(len(values), dtype=np.int64)
    result[~missing] = numbers.astype(np.int64)
    if column.nullable:
        return Cast(pd.Series(pd.arrays.IntegerArray(result, missing)), num_outside)
    return Cast(pd.Series(result), num_outside)


def _cast_datetime(values: Any, missing, column, out_of_bounds, place) -> Cast:
    present = values[~missing]
    if pd.api.types.is_numeric_dtype(present.dtype):
        present = present.astype(str)
    moments = pd.to_datetime(present, format=column.datetime_format or "ISO8601", errors="coerce", utc=True)
    expected = f"format {column.datetime_format!r}" if column.datetime_format else "ISO 8601"
    _refuse_first(
        moments.isna().to_numpy(),
        present,
        missing,
        place,
        f"no date in {expected}: correct it or datetime_format",
    )
    moments = moments.dt.tz_localize(None).to_numpy(dtype="datetime64[us]")
    lower, upper = (np.datetime64(datetime.datetime.fromisoformat(b), "us") for b in (column.lower, column.upper))
    moments, num_outside = _within_bounds(moments, lower, upper, missing, out_of_bounds, place)
    result = np.full(len(values), np.datetime64("NaT", "us"), dtype="datetime64[us]")
    result[~missing] = moments
    return Cast(pd.Series(result), num_outside)


def _cast_categorical(values, missing, column, out_of_bounds, place) -> Cast:
    try:
        result = to_categories(values, missing, column.categories)
    except UnknownValue as error:
        raise place.error(
            error.row,
            f"holds {_show(error.value)}, which is no category of the schema: add it there or correct it",
        ) from None
    return Cast(pd.Series(result, dtype=object), 0)


def _cast_boolean(values, missing, column, out_of_bounds, place) -> Cast:
    try:
        result = to_booleans(values, missing, column.categories)
    except UnknownValue as error:
        raise place.error(
            error.row,
            f"holds {_show(error.value)}, which is neither true nor false: "
            "list both labels, false first, as its categories in the schema, or correct it",
        ) from None
    if column.nullable:
        return Cast(pd.Series(pd.arrays.BooleanArray(result, missing)), 0)
    return Cast(pd.Series(result), 0)


_CASTS: dict[str, Callable[..., Cast]] = {
    "numeric": _cast_numeric,
    "integer": _cast_integer,
    "datetime": _cast_datetime,
    "categorical": _cast_categorical,
    "ordinal": _cast_categorical,
    "boolean": _cast_boolean,
}


def _finite_numbers(values: pd.Series, missing: np.ndarray, place: _Place) -> np.ndarray:
    """The numbers of the rows that are not missing [m]."""
    present: Any = values[~missing]
    if pd.api.types.is_numeric_dtype(present.dtype):
        numbers: Any = present.to_numpy()
    else:
        parsed: Any = pd.to_numeric(present, errors="coerce")
        _refuse_first(parsed.isna().to_numpy(), present, missing, place, "no number: correct it, or change the kind")
        numbers = parsed.to_numpy()
    _refuse_first(~np.isfinite(numbers), numbers, missing, place, "not finite: correct it or leave it empty")
    return numbers


def _within_bounds(present, lower, upper, missing, out_of_bounds, place) -> tuple[np.ndarray, int]:
    """`present` [m] clipped to the bounds, and how many were outside; or UserError."""
    outside = (present < lower) | (present > upper)
    if out_of_bounds == "error":
        problem = f"outside the public bounds {lower} to {upper}: widen them, or set data.out_of_bounds to 'clip'"
        _refuse_first(outside, present, missing, place, problem)
    return np.clip(present, lower, upper), int(outside.sum())


def _refuse_first(bad: np.ndarray, present: Any, missing: np.ndarray, place: _Place, problem: str) -> None:
    """Raises UserError for the first true entry of `bad` [m]; `present` [m] are the rows not missing."""
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        row = np.flatnonzero(~missing)[first]
        value = present.iloc[first] if isinstance(present, pd.Series) else present[first].item()
        raise place.error(row, f"holds {_show(value)}, which is {problem}")


def _show(value: Any) -> str:
    """A value for a message, cut after 60 characters."""
    text = repr(value if isinstance(value, str) else str(value))
    return text if len(text) <= 60 else text[:57] + "..."
