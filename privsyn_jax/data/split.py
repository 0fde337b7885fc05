"""The public rule that decides which rows are held out, the same for every data set."""

from __future__ import annotations

import numpy as np
import pandas as pd

from privsyn_jax.types import UserError

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
    is_test = held_out(len(frame), test_fraction)
    if is_test.all() or not is_test.any():
        raise UserError(
            f"data.test_fraction {test_fraction} leaves one part of {len(frame)} rows empty: "
            "choose one nearer to 0.3, or give data.test_path"
        )
    return frame.loc[~is_test].reset_index(drop=True), frame.loc[is_test].reset_index(drop=True)


def num_train_records(num_records: int, test_fraction: float) -> int:
    """The public figure for the training part, from the public figure for the whole table."""
    return max(1, round(num_records * (1 - test_fraction)))
