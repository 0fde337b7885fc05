"""Numeric columns in order: what ranks, distribution functions and quantiles are made from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from privsyn_jax.evaluation.encode import Tables


class Ordered(NamedTuple):
    """One column of three tables on its K distinct values.

    Attributes:
      values: float64 [K], increasing.
      positions: int32 [n] of each table, into `values`; -1 is missing.
      counts: int32 [K] of each table.
    """

    values: np.ndarray
    positions: Tables[np.ndarray]
    counts: Tables[np.ndarray]


def order_column(column: Tables[np.ndarray]) -> Ordered:
    """Sorts one column of all tables together, once, in double precision.

    Args:
      column: float64 [n] of each table; NaN is missing.
    """
    values = np.concatenate(column)
    order = ascending_order(values)
    ascending = values[order]
    is_new = np.ones(len(values), bool)
    is_new[1:] = ascending[1:] != ascending[:-1]
    num_present = len(values) - int(np.isnan(values).sum())
    positions = np.empty(len(values), np.int32)
    positions[order] = np.cumsum(is_new, dtype=np.int32) - 1
    positions[order[num_present:]] = -1
    distinct = ascending[:num_present][is_new[:num_present]]
    parts = np.split(positions, np.cumsum([len(table) for table in column])[:-1])
    counts = (np.bincount(part[part >= 0], minlength=len(distinct)).astype(np.int32) for part in parts)
    return Ordered(distinct, Tables(*parts), Tables(*counts))


def ascending_order(values: np.ndarray) -> np.ndarray:
    """As np.argsort, but faster: sorts whole numbers that hold the first bits of a value and its place.

    Args:
      values: float64 [n]; NaN comes last.

    Returns:
      int64 [n], a permutation.
    """
    num_place_bits = max(len(values) - 1, 0).bit_length()
    positive_nan = np.where(np.isnan(values), np.nan, values)  # a NaN may have a sign
    keys = positive_nan.view(np.int64)
    if (keys < 0).any():  # of two negative numbers, the larger has the smaller bits
        keys ^= (keys >> 63) & np.iinfo(np.int64).max
    keys &= -1 << num_place_bits
    keys |= np.arange(len(values))
    keys.sort()
    order = keys & ((1 << num_place_bits) - 1)
    ascending = values[order]
    if (ascending[1:] < ascending[:-1]).any():  # values that differ in their last bits only; fast if these are few
        order = order[np.argsort(ascending, kind="stable")]
    return order


def average_ranks(positions: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Ranks 1..n of one table's values, ties sharing their mean.

    Args:
      positions: int [n] of the table, see Ordered.
      counts: int [K] of the same table.

    Returns:
      float64 [n]; NaN where missing.
    """
    ranks = np.cumsum(counts, dtype=np.int64) - 0.5 * (counts - 1.0)
    return np.append(ranks, np.nan)[positions]
