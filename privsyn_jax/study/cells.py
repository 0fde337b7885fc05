"""The runs of a study, by model, contestant and epsilon; some of them may be yet to come."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from privsyn_jax.evaluation.statistics import mean_interval
from privsyn_jax.study.plan import Study

Row = dict[str, Any]


class Cell(NamedTuple):
    model: str
    contestant: str
    epsilon: float


class Cells:
    """Columns of the table of runs, a value for every seed.

    Attributes:
      columns: names of all that there are.

    Args:
      runs: as `runs.rows_of` returns them.
    """

    def __init__(self, runs: Sequence[Row], study: Study):
        self._seeds = study.seeds
        self._rows = {(Cell(row["model"], row["contestant"], row["epsilon"]), row["seed"]): row for row in runs}
        self.columns = list(dict.fromkeys(column for row in runs for column in row))
        self._known = {(row["model"], column) for row in runs for column in row if _is_finite(row[column])}

    def values(self, cell: Cell, column: str) -> list[float]:
        """One per seed, in order; NaN where there is none."""
        found: list[Any] = [self._rows.get((cell, seed), {}).get(column) for seed in self._seeds]
        return [float(value) if _is_finite(value) else math.nan for value in found]

    def is_begun(self, cell: Cell) -> bool:
        """Whether a run of it is finished."""
        return any((cell, seed) in self._rows for seed in self._seeds)

    def has(self, model: str, column: str) -> bool:
        """Whether any run of the model has a value."""
        return (model, column) in self._known


def mean(values: Sequence[float]) -> float:
    """Of those that are finite; NaN if none is."""
    present = [value for value in values if math.isfinite(value)]
    return math.fsum(present) / len(present) if present else math.nan


def with_interval(name: str, values: Sequence[float]) -> Row:
    """NAME, NAME_low and NAME_high: the mean of the seeds that have a value and its 95 % interval, from two on."""
    _, low, high = mean_interval(values)
    return {name: mean(values), f"{name}_low": low, f"{name}_high": high}


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
