"""A synthetic table made elsewhere: taken as it is, so that an evaluation can count what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from privsyn_jax.data.categories import UnknownValue, category_text, missing_mask, to_booleans, to_categories
from privsyn_jax.data.table import read_frame
from privsyn_jax.data.validate import check_names
from privsyn_jax.types import NUMERIC_KINDS, Column, Schema, UserError


def read_foreign(path: str, schema: Schema) -> tuple[pd.DataFrame, list[str]]:
    """The columns that the schema knows, and what is odd about the table, a sentence each.

    Unlike `validate.conform` nothing is clipped or refused: numbers out of bounds stay, unknown categories stay as
    text, what is no number or no date becomes missing. Integers are float64, so that fractions stay visible.

    Raises:
      UserError: the file cannot be read, has no rows, or none of the schema's columns.
    """
    return conform_foreign(read_frame(path), schema, source=path)


def conform_foreign(frame: pd.DataFrame, schema: Schema, *, source: str) -> tuple[pd.DataFrame, list[str]]:
    """`read_foreign` of a frame; see there."""
    check_names(list(frame.columns), source)
    if not len(frame):
        raise UserError(f"{source} has no rows: there is nothing to evaluate")
    known = [column for column in schema.modelled if column.name in frame.columns]
    if not known:
        raise UserError(f"{source} has none of the schema's columns: correct its header or the schema")
    notes = [f"column {name!r} of {source} is not in the schema: ignored." for name in _extra(frame, schema)]
    columns = {}
    for column in known:
        values: Any = frame[column.name].reset_index(drop=True)
        columns[column.name], odd = _cast(values, column)
        if odd:
            notes.append(f"column {column.name!r} of {source} has {odd}.")
    return pd.DataFrame(columns), notes


def _extra(frame: pd.DataFrame, schema: Schema) -> list[str]:
    return [str(name) for name in frame.columns if name not in schema.names]


def _cast(values: pd.Series, column: Column) -> tuple[pd.Series, str]:
    """(the column, what is odd about it or "")."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(object)
    missing = missing_mask(values, column.categories)
    if column.kind not in NUMERIC_KINDS:
        return _cast_categories(values, missing, column)
    present: Any = values[~missing]
    if column.kind == "datetime":
        if pd.api.types.is_numeric_dtype(present.dtype):
            present = present.astype(str)
        read: Any = pd.to_datetime(present, format=column.datetime_format or "ISO8601", errors="coerce", utc=True)
        found = pd.Series(np.full(len(values), np.datetime64("NaT", "us")))
        found[~missing] = read.dt.tz_localize(None).to_numpy("datetime64[us]")
        what = "no dates"
    else:
        numbers: Any = pd.to_numeric(present, errors="coerce")
        read = pd.Series(numbers).astype(np.float64).replace([np.inf, -np.inf], np.nan)
        found = pd.Series(np.full(len(values), np.nan))
        found[~missing] = read.to_numpy()
        what = "no finite numbers"
    count = int(read.isna().sum())
    return found, f"{count:,} values that are {what}: taken as missing" if count else ""


def _cast_categories(values: pd.Series, missing: np.ndarray, column: Column) -> tuple[pd.Series, str]:
    is_boolean = column.kind == "boolean"
    read: Callable[..., np.ndarray] = to_booleans if is_boolean else to_categories
    meanings, unknown = {}, set()
    for value in pd.unique(values[~missing]):
        try:
            found = read(pd.Series([value], dtype=object), np.zeros(1, bool), column.categories)[0]
            meanings[value] = bool(found) if is_boolean else found
        except UnknownValue:
            unknown.add(value)
            meanings[value] = category_text(value)
    cast = [None if is_missing else meanings[value] for value, is_missing in zip(values, missing, strict=True)]
    odd = f"{len(unknown):,} values that are no category of the schema" if unknown else ""
    return pd.Series(cast, dtype=object), odd
