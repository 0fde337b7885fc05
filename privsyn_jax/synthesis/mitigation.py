"""Equal outcomes over groups of synthetic records, by weights or by resampling.

What is equalised is the share of each outcome within each group: afterwards it is that of the whole table, so outcome
and group are independent. Both ways are post-processing, of synthetic records and public facts only, and cost no
privacy; they cost utility where group and outcome do depend on each other, see `evaluation.fairness.mitigation_cost`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from privsyn_jax.synthesis.groups import NO_GROUP, Groups, group_codes, make_groups
from privsyn_jax.types import Schema, UserError


class Mitigated(NamedTuple):
    """A table whose outcomes are shared out equally, and what was done.

    Attributes:
      table: the columns, their order and dtypes are those of the table given.
      report: {"sensitive", "outcome", "groups", "classes", "made_from", "target_rates" [k],
        "before", "after": {"rates" [g][k] (None for a group without records), "counts" [g][k]}, "rows_dropped",
        "rows_drawn" (by `sample`), "rows_repeated", "rows_unassigned" (without a group or an outcome: kept as they
        are), "left_out" (groups that could not be equalised), "notes"}, plain JSON.
    """

    table: pd.DataFrame
    report: dict[str, Any]


class _Cells(NamedTuple):
    """Groups by classes, and where each record stands."""

    sensitive: list[Groups]
    outcome: Groups
    names: list[str]  # of the groups; of several columns, of their combinations
    group: np.ndarray  # int [n], NO_GROUP where group or outcome are missing
    outcome_code: np.ndarray  # int [n]
    counts: np.ndarray  # int [g, k]

    @property
    def target_rates(self) -> np.ndarray:
        return self.counts.sum(axis=0) / self.counts.sum()


def reweight(
    schema: Schema, table: pd.DataFrame, *, sensitive: str | Sequence[str], outcome: str | None = None
) -> tuple[np.ndarray, dict[str, Any]]:
    """Weights under which every group has the same share of each outcome.

    A record's weight is the frequency that its group and outcome would have if they were independent, over the
    frequency that they have.

    Args:
      schema: public facts.
      table: n synthetic records.
      sensitive: a column, or several, whose combinations are the groups; numbers are grouped by public bins.
      outcome: a column; None for the schema's target. A number has its public bins as outcomes.

    Returns:
      (float64 [n], mean 1 over the records of the groups equalised, and 1 for every other record;
      the report of `Mitigated` without counts of rows, "after" by weight, with "effective_rows": the number of
      unweighted records that would be as precise, Kish 1965).

    Raises:
      UserError: a column is absent or has no groups, or no record has a group and an outcome.

    Source: Kamiran and Calders 2012, "Data Preprocessing Techniques for Classification without Discrimination".
    """
    cells = _cells(schema, table, sensitive, outcome)
    wanted = cells.counts.sum(axis=1, keepdims=True) * cells.target_rates[None, :]
    is_left_out = ((cells.counts == 0) & (wanted > 0)).any(axis=1)
    of_cell = np.where(is_left_out[:, None], 1.0, wanted / np.maximum(cells.counts, 1))
    is_assigned = cells.group != NO_GROUP
    weights = np.where(is_assigned, of_cell[cells.group, cells.outcome_code], 1.0)
    report = _report(cells, cells.counts, of_cell * cells.counts, np.flatnonzero(is_left_out), notes=[])
    return weights, {**report, "effective_rows": float(weights.sum() ** 2 / np.square(weights).sum())}


def equalize(
    schema: Schema,
    table: pd.DataFrame,
    *,
    sensitive: str | Sequence[str],
    seed: int,
    outcome: str | None = None,
    sample: Callable[..., pd.DataFrame] | None = None,
) -> Mitigated:
    """A table of the same groups in the same numbers, in which every group has the same share of each outcome.

    Surplus records of a group and outcome are dropped at random. Missing ones are drawn by `sample`, or, without it or
    where it fails, records of that group and outcome are repeated at random. A group whose missing outcome cannot be
    drawn and has no record to repeat is left as it is and named. Shares are equal up to rounding: they differ from the
    target by less than one record of the group.

    Args:
      schema: public facts.
      table: synthetic records.
      sensitive: see `reweight`.
      seed: chooses what is dropped and repeated.
      outcome: see `reweight`.
      sample: (number of records, conditions={column: value or {"min", "max"}}) -> records, such as `Run.sample`; it
        raises UserError where it cannot.

    Raises:
      UserError: see `reweight`; also if `sample` returns other records than it was asked for.
    """
    cells = _cells(schema, table, sensitive, outcome)
    wanted = np.stack([_rounded(total * cells.target_rates, total) for total in cells.counts.sum(axis=1)])
    rng = np.random.default_rng(seed)
    kept, repeated, drawn, left_out, notes = [np.flatnonzero(cells.group == NO_GROUP)], [], [], [], []
    for group in range(len(cells.names)):
        rows_of_group = np.flatnonzero(cells.group == group)
        try:
            parts = [
                _fill(cells, group, code, wanted[group, code], rng, sample, notes) for code in range(wanted.shape[1])
            ]
        except _EmptyCell:
            left_out.append(group)
            kept.append(rows_of_group)
            continue
        for kept_rows, repeated_rows, frame in parts:
            kept.append(kept_rows)
            repeated.append(repeated_rows)
            drawn += [] if frame is None else [frame]
    kept_rows, repeated_rows = np.sort(np.concatenate(kept)), np.concatenate([np.zeros(0, int), *repeated])
    new = [_like(frame, table) for frame in drawn]
    old = table.iloc[np.concatenate([kept_rows, repeated_rows])]
    result = pd.concat([old, *new], ignore_index=True) if new else old.reset_index(drop=True)
    for column in schema.columns:
        if column.kind == "id" and column.name in result.columns:
            result[column.name] = np.arange(1, len(result) + 1)
    counts = _counts(cells, *_codes(cells.sensitive, cells.outcome, result))
    return Mitigated(
        result,
        {
            **_report(cells, cells.counts, counts, left_out, notes),
            "rows_dropped": len(table) - len(kept_rows),
            "rows_repeated": len(repeated_rows),
            "rows_drawn": sum(map(len, new)),
        },
    )


class _EmptyCell(Exception):
    """Nothing to draw from and nothing to repeat."""


def _fill(cells, group, code, wanted, rng, sample, notes):
    """(rows kept, rows repeated, records drawn or None) for one group and outcome."""
    rows = np.flatnonzero((cells.group == group) & (cells.outcome_code == code))
    nothing = np.zeros(0, int)
    if len(rows) >= wanted:
        return rng.choice(rows, wanted, replace=False), nothing, None
    missing = int(wanted - len(rows))
    if sample is not None:
        try:
            return rows, nothing, _drawn(cells, group, code, missing, sample)
        except _CannotDraw as error:
            notes.append(f"{cells.names[group]}, {cells.outcome.names[code]}: repeated instead of drawn, as {error}")
    if not len(rows):
        raise _EmptyCell
    whole, rest = divmod(missing, len(rows))
    return rows, np.concatenate([np.tile(rows, whole), rng.choice(rows, rest, replace=False)]), None


class _CannotDraw(Exception):
    """`sample` says that it has no such record."""


def _drawn(cells, group, code, missing, sample):
    """`missing` new records of one group and outcome."""
    conditions = {cells.outcome.column.name: cells.outcome.conditions[code]}
    positions = np.unravel_index(group, [len(groups.names) for groups in cells.sensitive])
    for groups, position in zip(cells.sensitive, positions, strict=True):
        conditions[groups.column.name] = groups.conditions[position]
    try:
        frame = sample(missing, conditions=conditions)
    except UserError as error:
        raise _CannotDraw(str(error)) from None
    found_group, found_code = _codes(cells.sensitive, cells.outcome, frame)
    if len(frame) != missing or (found_group != group).any() or (found_code != code).any():
        raise UserError(
            f"sample returned {len(frame)} records of which not all meet {conditions}, {missing} were asked for: give "
            "a function that keeps its conditions, such as Run.sample"
        )
    return frame


def _cells(schema, table, sensitive, outcome) -> _Cells:
    """Groups and outcomes of every record."""
    names = [sensitive] if isinstance(sensitive, str) else list(sensitive)
    outcome = schema.target if outcome is None else outcome
    if outcome is None:
        raise UserError("the schema names no target whose rates could be equalised: name a column as outcome")
    if not names or outcome in names or len(set(names)) < len(names):
        raise UserError(f"sensitive is {names} and the outcome {outcome!r}: give different columns, at least one")
    for name in (*names, outcome):
        if name not in schema.names or name not in table.columns:
            raise UserError(f"the schema or the synthetic table has no column {name!r}: name one of both")
    *groups, outcomes = (make_groups(schema[name], [pd.Series(table[name])]) for name in (*names, outcome))
    group_names = [""]
    for part in groups:
        group_names = [f"{before}, {name}" if before else name for before in group_names for name in part.names]
    cells = _Cells(groups, outcomes, group_names, *_codes(groups, outcomes, table), np.zeros(0))
    cells = cells._replace(counts=_counts(cells, cells.group, cells.outcome_code))
    if not cells.counts.sum():
        raise UserError(
            f"no synthetic record has both a valid {', '.join(names)} and a valid {outcome}: check the table"
        )
    return cells


def _codes(sensitive, outcome, table):
    """(group of each record, its outcome), NO_GROUP and 0 where either is missing."""
    of_columns = [group_codes(groups, pd.Series(table[groups.column.name])) for groups in sensitive]
    outcome_codes = group_codes(outcome, pd.Series(table[outcome.column.name]))
    is_assigned = np.logical_and.reduce([codes != NO_GROUP for codes in (*of_columns, outcome_codes)])
    group = np.ravel_multi_index(
        [np.where(is_assigned, codes, 0) for codes in of_columns], [len(groups.names) for groups in sensitive]
    )
    return np.where(is_assigned, group, NO_GROUP), np.where(is_assigned, outcome_codes, 0)


def _counts(cells, group, outcome_code):
    """Records of each group and outcome, int [g, k]."""
    num_groups, num_classes = len(cells.names), len(cells.outcome.names)
    flat = (group * num_classes + outcome_code)[group != NO_GROUP]
    return np.bincount(flat, minlength=num_groups * num_classes).reshape(num_groups, num_classes)


def _rounded(shares: np.ndarray, total: int) -> np.ndarray:
    """Whole numbers with the sum `total`, each less than 1 from its share: the largest remainders are rounded up."""
    whole = np.floor(shares).astype(int)
    largest = np.argsort(-(shares - whole), kind="stable")[: total - whole.sum()]
    whole[largest] += 1
    return whole


def _like(frame, table):
    """Drawn records with the columns and dtypes of the table."""
    absent = [name for name in table.columns if name not in frame.columns]
    if absent:
        raise UserError(f"the records that sample returned lack the column {absent[0]!r}: return all of the table's")
    return frame[list(table.columns)].astype(table.dtypes)


def _report(cells, before, after, left_out, notes):
    return {
        "sensitive": [groups.column.name for groups in cells.sensitive],
        "outcome": cells.outcome.column.name,
        "groups": cells.names,
        "classes": list(cells.outcome.names),
        "made_from": [groups.described for groups in cells.sensitive],
        "target_rates": cells.target_rates.tolist(),
        "before": _rates(before),
        "after": _rates(after),
        "rows_unassigned": int((cells.group == NO_GROUP).sum()),
        "left_out": [cells.names[group] for group in left_out],
        "notes": notes,
    }


def _rates(counts):
    """Shares and counts of each outcome, by group."""
    rates = [(row / row.sum()).tolist() if row.sum() else None for row in counts]
    return {"rates": rates, "counts": counts.tolist()}
