"""A frame in canonical dtypes, back to the pandas dtypes of the table that its generator learned from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from privsyn_jax.data.validate import to_file_frame
from privsyn_jax.types import CATEGORICAL_KINDS, Column, Schema

_TEXT = ("str", "string")


def restore_dtypes(frame: pd.DataFrame, schema: Schema, dtypes: Mapping[str, str]) -> pd.DataFrame:
    """The frame with its columns in `dtypes` (column -> name of a pandas dtype), values unchanged.

    A column that a dtype cannot hold (a missing value in int64, 300 in uint8, a year 9999 in nanoseconds)
    keeps its canonical dtype. The categories of a categorical dtype are those of the schema.
    """
    written = to_file_frame(frame, schema)
    columns = {name: _restore(frame[name], written[name], schema[name], dtypes.get(name)) for name in frame.columns}
    return pd.DataFrame(columns)


def _restore(values: Any, written: Any, column: Column, dtype: str | None) -> pd.Series:
    """One column; `written` is the column as its file would show it."""
    has_labels = column.kind == "boolean" or column.datetime_format is not None
    if dtype in _TEXT or (dtype == "object" and has_labels):
        return written.astype(dtype)
    if dtype is None or (dtype == "category" and column.kind not in CATEGORICAL_KINDS):
        return values
    if dtype == "category":
        categories = list(column.categories or column.values)
        return written.astype(pd.CategoricalDtype(categories, ordered=column.kind == "ordinal"))
    if column.kind == "datetime" and values.dt.tz is None and ", " in dtype:  # "datetime64[ns, UTC]"
        values = values.dt.tz_localize("UTC")
    try:
        wanted: Any = pd.api.types.pandas_dtype(dtype)
        whole = pd.api.types.is_integer_dtype(wanted)
        if whole and column.kind == "numeric":  # whole numbers that the schema calls numeric
            values = values.round().clip(np.ceil(float(str(column.lower))), np.floor(float(str(column.upper))))
        cast = values.astype(wanted)
    except (TypeError, ValueError):
        return values
    return values if whole and not (cast == values).all() else cast
