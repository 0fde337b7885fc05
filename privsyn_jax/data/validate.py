"""Does a table agree with its schema? Conforming on the way in, file formatting on the way out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from privsyn_jax.data.casts import cast_column
from privsyn_jax.data.schema_check import nearest
from privsyn_jax.data.units import keep_rows, unit_names
from privsyn_jax.types import Column, Schema, UserError

MIN_RECORDS = 100  # fewer leave nothing to learn once noise is added
_ISO_DATE, _ISO_FORMAT = "%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"


def conform(
    frame: pd.DataFrame, schema: Schema, *, out_of_bounds: str, source: str
) -> tuple[pd.DataFrame, dict[str, int]]:
    """The table in schema order and canonical dtypes (stated at `types.Records`), with a fresh RangeIndex.

    Texts of `categories.MISSING_TEXTS` count as missing unless they are categories. Moments with a time zone
    become UTC without one. A categorical column with unknown categories keeps every value as text.
    Where the schema has a unit column, at most max_records_per_unit rows of each unit are kept, by a public rule (see
    `data.units`). Conforming twice changes nothing.

    Args:
      frame: [n, columns], as read from a file or given by the user.
      schema: its public facts.
      out_of_bounds: outside the public bounds, "clip" clamps and counts, "error" refuses.
      source: file name for messages.

    Returns:
      (conforming frame, private count of clamped values for each column that had any).

    Raises:
      UserError: columns differ from the schema, fewer than MIN_RECORDS rows or units, a value does not fit, or a row
        does not say whose it is.
    """
    check_names(list(frame.columns), source)
    _compare_names(list(frame.columns), schema.names, source)
    check_num_records(len(frame), source)
    frame = frame.reset_index(drop=True)
    columns, clamped = {}, {}
    for column in schema.columns:
        values: Any = frame[column.name]
        cast = cast_column(values, column, out_of_bounds=out_of_bounds, source=source)
        columns[column.name] = cast.values
        if cast.num_outside:
            clamped[column.name] = cast.num_outside
    conforming = keep_rows(pd.DataFrame(columns, columns=list(schema.names)), schema, source=source)
    if schema.unit_column is not None:
        num_units = len(set(unit_names(conforming, schema)))
        if num_units < MIN_RECORDS:
            raise UserError(
                f"{source} has rows of {num_units} different {schema.unit_column!r}, too few to learn from privately: "
                f"give at least {MIN_RECORDS}"
            )
    return conforming, clamped


def to_file_frame(frame: pd.DataFrame, schema: Schema) -> pd.DataFrame:
    """A conforming frame as its file would show it: moments by datetime_format, booleans by their labels.

    Without a datetime_format, moments are written as ISO 8601: as dates where the bounds are dates, else to the
    second. Missing values stay missing.
    """
    return pd.DataFrame({column.name: _to_file_column(frame[column.name], column) for column in schema.columns})


def check_names(names: Sequence[Any], source: str) -> None:
    """Raises UserError when two columns share a name."""
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{source} has {names.count(name)} columns named {name!r}: rename them")


def check_num_records(num_records: int, source: str) -> None:
    """Raises UserError when there are fewer than MIN_RECORDS rows."""
    if num_records == 0:
        raise UserError(f"{source} has a header but no rows: give at least {MIN_RECORDS}")
    if num_records < MIN_RECORDS:
        raise UserError(
            f"{source} has {num_records} rows, too few to learn from privately: give at least {MIN_RECORDS}"
        )


def _compare_names(found: Sequence[Any], expected: Sequence[str], source: str) -> None:
    """Raises UserError for the first column that is on one side only."""
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    if missing:
        hint = nearest(missing[0], extra) if extra else "add it"
        raise UserError(f"{source} has no column {missing[0]!r}, which the schema lists: {hint}")
    if extra:
        raise UserError(
            f"{source} has a column {extra[0]!r} that the schema does not list: describe it there or remove it"
        )


def _to_file_column(values: Any, column: Column) -> pd.Series:
    if column.kind == "datetime":
        dates_only = len(str(column.lower)) <= 10 and len(str(column.upper)) <= 10
        return values.dt.strftime(column.datetime_format or (_ISO_DATE if dates_only else _ISO_FORMAT))
    # Compared as text, because (0, 1) == (False, True).
    if column.kind == "boolean" and [str(label) for label in column.categories or ()] not in ([], ["False", "True"]):
        labels = np.array(column.categories, dtype=object)
        missing = values.isna().to_numpy()
        written = labels[values.fillna(False).to_numpy(dtype=bool).astype(int)]
        written[missing] = None
        return pd.Series(written, index=values.index, dtype=object)
    return values
