"""Codes of rows, grouped by the privacy unit that owns them, so that every mechanism sees one example per unit."""

from __future__ import annotations

import numpy as np

from privsyn_jax.types import UnitRows


def group_rows(codes: np.ndarray, units: np.ndarray, rows_per_unit: int) -> UnitRows:
    """The rows of every unit, filled up to rows_per_unit; units in the order of their first rows.

    Args:
      codes: int32 [n, d].
      units: int [n], numbers from 0 of whose a row is, first occurrences ascending (as pandas.factorize gives).

    Raises:
      ValueError: a unit has more rows, so that what is paid for would not cover it.
    """
    num_units = int(units.max(initial=-1)) + 1
    order = np.argsort(units, kind="stable")
    sizes = np.bincount(units, minlength=num_units)
    if sizes.max(initial=0) > rows_per_unit:
        raise ValueError(f"a unit has {sizes.max()} rows where {rows_per_unit} are paid for: conform the table first")
    place = np.arange(len(units)) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # of a row within its unit
    grouped = np.zeros((num_units, rows_per_unit, codes.shape[1]), np.int32)
    grouped[units[order], place] = codes[order]
    return UnitRows(grouped, np.arange(rows_per_unit) < sizes[:, None])
