"""Groups of a sensitive column and classes of an outcome, from public facts alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from privsyn_jax.types import CATEGORICAL_KINDS, Column, UserError

NUM_BINS = 4  # even ones between the public bounds, where the schema gives no edges
NO_GROUP = -1  # code of a missing value, of an unknown category, and of a number outside the bounds


class Groups(NamedTuple):
    """The groups of one column.

    Attributes:
      column: its public facts.
      names: of the groups, for people.
      conditions: what `Run.sample` is told to draw records of each group: a value, or {"min", "max"}.
      edges: [g + 1] of the bins of a number; empty for categories.
      described: how the groups were made, in words.
    """

    column: Column
    names: tuple[str, ...]
    conditions: tuple[Any, ...]
    edges: tuple[float, ...]
    described: str


def make_groups(column: Column, tables: Sequence[pd.Series] = ()) -> Groups:
    """Groups of a categorical column: its categories; of a number: its public bins.

    A number's bins are the schema's edges, else NUM_BINS even ones between its bounds. A bin holds its lower edge and
    not the upper one, but for the last bin, which holds both; the bins of whole numbers begin at whole numbers.

    Args:
      column: public facts.
      tables: the column in tables whose values are the categories if the schema knows none.

    Raises:
      UserError: a number without public bounds or edges, or a date.
    """
    if column.kind in CATEGORICAL_KINDS:
        values, described = column.values, "the schema's categories"
        if not values:
            found = pd.concat([table.astype(object) for table in tables]).dropna().unique() if tables else []
            values, described = tuple(sorted(found, key=str)), "the values found"
        return Groups(column, tuple(str(value) for value in values), tuple(values), (), described)
    if column.kind not in ("numeric", "integer"):
        raise UserError(f"{column.name!r} is of kind {column.kind}, which has no groups: use a category or a number")
    edges = _edges(column)
    is_whole = column.kind == "integer"
    conditions, names = [], []
    for lower, upper in itertools.pairwise(edges):
        is_last = upper == edges[-1]
        largest = upper if is_last else upper - 1 if is_whole else math.nextafter(upper, -math.inf)
        conditions.append({"min": lower, "max": largest})
        names.append(
            f"{lower:g} to {largest:g}" if is_whole else f"{lower:g} to {'' if is_last else 'below '}{upper:g}"
        )
    how = "the schema's edges" if column.edges else f"{len(names)} even bins between the public bounds"
    return Groups(column, tuple(names), tuple(conditions), edges, how)


def group_codes(groups: Groups, values: pd.Series) -> np.ndarray:
    """The group of each value, int [n]; NO_GROUP where it has none."""
    if not groups.edges:
        known = pd.Index(list(groups.conditions), dtype=object)
        return known.get_indexer(pd.Index(values.astype(object), dtype=object))
    floats = pd.Series(pd.to_numeric(values, errors="coerce")).to_numpy(np.float64, na_value=np.nan)
    edges = np.asarray(groups.edges)
    codes = np.minimum(np.searchsorted(edges, floats, side="right") - 1, len(edges) - 2)
    is_inside = (floats >= edges[0]) & (floats <= edges[-1])
    return np.where(is_inside, codes, NO_GROUP)


def _edges(column: Column) -> tuple[float, ...]:
    """Increasing edges, whole for an integer column."""
    edges = column.edges
    if not edges:
        if column.lower is None or column.upper is None:
            raise UserError(
                f"{column.name!r} is a number without public bounds, so it has no public groups: give lower and upper, "
                "or edges, in the schema"
            )
        edges = np.linspace(float(column.lower), float(column.upper), NUM_BINS + 1).tolist()
    if column.kind == "integer":
        edges = [math.ceil(edge) for edge in edges]
    distinct = sorted({float(edge) for edge in edges})
    return tuple(distinct) if len(distinct) > 1 else (distinct[0], distinct[0])
