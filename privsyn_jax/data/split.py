"""The public rules that decide which rows are held out, the same for every data set."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd

from privsyn_jax.data.units import unit_names, units_held_out
from privsyn_jax.types import Schema, UserError

_PUBLIC_SEED = 20240601  # part of the rule: changing it changes every split


def held_out(num_rows: int, test_fraction: float) -> np.ndarray:
    """Which rows are held out; bool [num_rows].

    Row i is held out when the i-th number of a fixed Philox stream, in [0, 1), is below `test_fraction`. That
    depends on nothing but i: no value is read, and appending a row moves no other. (Deleting a row in the
    middle of a file shifts those after it: the guarantee is about records of the training part, as split.)
    """
    uniform = (np.random.Philox(key=_PUBLIC_SEED).random_raw(num_rows) >> np.uint64(11)) * 2.0**-53
    return uniform < test_fraction


def split_rows(frame: pd.DataFrame, test_fraction: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(train, test) by `held_out`, each in file order with a fresh index.

    Raises:
      UserError: one of the parts has no row.
    """
    return _split(frame, held_out(len(frame), test_fraction), test_fraction)


def split_units(frame: pd.DataFrame, schema: Schema, test_fraction: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`split_rows`, but that all rows of a unit are on one side where the schema has a unit column."""
    if schema.unit_column is None:
        return split_rows(frame, test_fraction)
    return _split(frame, units_held_out(unit_names(frame, schema), test_fraction), test_fraction)


def _split(frame: pd.DataFrame, is_test: np.ndarray, test_fraction: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    if is_test.all() or not is_test.any():
        raise UserError(
            f"data.test_fraction {test_fraction} leaves one part of {len(frame)} rows empty: "
            "choose one nearer to 0.3, or give data.test_path"
        )
    return frame.loc[~is_test].reset_index(drop=True), frame.loc[is_test].reset_index(drop=True)


def num_train_records(num_records: int, test_fraction: float) -> int:
    """The public figure for the training part, from the public figure for the whole table."""
    return max(1, round(num_records * (1 - test_fraction)))


def training_part(schema: Schema, test_fraction: float) -> Schema:
    """The schema with the public figures of the training part, from those of the whole table."""
    num_records = num_train_records(schema.num_records, test_fraction)
    num_units = None if schema.num_units is None else num_train_records(schema.num_units, test_fraction)
    return dataclasses.replace(schema, num_records=num_records, num_units=num_units)
