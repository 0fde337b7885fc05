"""Parameters and a key to decoded records, with conditions. Post-processing: no record is read here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd

from privsyn_jax.data.categories import category_text
from privsyn_jax.synthesis.constraints import forbidden, parse_constraints, repaired
from privsyn_jax.transforms.discretize import Discretizer
from privsyn_jax.types import CATEGORICAL_KINDS, NUMERIC_KINDS, Column, Generator, Params, Schema, UserError

_MAX_ROUNDS = 50
_SMALLEST_ROUND = 4096
_SIDES = (("min", "lower"), ("max", "upper"))  # of a condition, of a column


class Synthesis(NamedTuple):
    """Synthetic records, and how conditions were met."""

    records: pd.DataFrame
    exact: tuple[str, ...]  # columns fixed before drawing
    rejected_on: tuple[str, ...]  # columns met by drawing again
    drawn: int  # rows drawn in all
    accepted: int  # rows that met every condition and kept every rule
    broken: dict[str, int]  # rule -> rows that broke it


def synthesize(
    generator: Generator,
    params: Params,
    transform: Discretizer,
    *,
    num_samples: int,
    conditions: Mapping[str, Any] | None,
    constraints: str = "",
    key: jax.Array,
) -> Synthesis:
    """Draws records that meet the conditions and keep the rules.

    A condition is a value, a list of values, {"min": ..., "max": ...} (either may be left out), or {"group": ...}, one
    of the schema's groups of categories. What a single code of a categorical column stands for, in columns that
    the generator draws first, is fixed exactly; for the rest, rows are drawn again, at most `_MAX_ROUNDS` times. So are
    rows that break a rule of `constraints`, see `constraints.parse_constraints`.

    Raises:
      UserError: an impossible condition or rule, or too few rows that meet them.
    """
    conditions = dict(conditions or {})
    columns = transform.schema.modelled
    check_conditions(transform.schema, conditions)
    index = {column.name: j for j, column in enumerate(columns)}
    single = {
        index[name]: code
        for name, wanted in conditions.items()
        if columns[index[name]].kind in CATEGORICAL_KINDS
        and (code := _single_code(transform, index[name], wanted)) is not None
    }
    fixed = {j: single[j] for j in generator.exact_conditions(tuple(single))}
    exact = tuple(columns[j].name for j in fixed)
    rest = {name: wanted for name, wanted in conditions.items() if name not in exact}
    rules = parse_constraints(constraints, transform.schema)
    broken = {rule.text: 0 for rule in rules}
    if rules and generator.forbid is not None:
        params = generator.forbid(params, forbidden(rules, transform))
    is_bound = bool(rest or rules)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(jax.random.fold_in(key, 0))).tolist())
    kept, drawn, accepted = [], 0, 0
    for number in range(_MAX_ROUNDS if is_bound else 1):
        missing = num_samples - accepted
        size = missing if not is_bound else max(_SMALLEST_ROUND, int(1.2 * missing * drawn / max(accepted, 1)))
        size = min(size, max(8 * num_samples, _SMALLEST_ROUND))
        codes = generator.sample(params, jax.random.fold_in(key, 1 + number), size, fixed)
        frame = repaired(rules, transform.decode(codes, rng))
        meets = np.ones(len(frame), bool)
        for rule in rules:
            keeps = rule.kept(frame)
            broken[rule.text] += int((~keeps).sum())
            meets = meets & keeps
        for name, wanted in rest.items():
            meets = meets & _meets(frame[name], transform.schema[name], wanted)
        kept.append(frame[meets])
        drawn, accepted = drawn + size, accepted + int(meets.sum())
        if accepted >= num_samples:
            break
    if accepted < num_samples:
        raise UserError(_too_few(num_samples, drawn, accepted, tuple(rest), broken))
    frame = pd.concat(kept, ignore_index=True).iloc[:num_samples]
    for column in transform.schema.columns:
        if column.kind == "id":
            frame[column.name] = np.arange(1, num_samples + 1)
    return Synthesis(frame, exact, tuple(rest), drawn, accepted, broken)


def _too_few(num_samples: int, drawn: int, accepted: int, columns: tuple[str, ...], broken: Mapping[str, int]) -> str:
    """Why there are not as many records as asked for, and what helps."""
    found = f"only {accepted} of {drawn} drawn rows"
    if not broken:
        return (
            f"{found} meet the condition on {', '.join(columns)}, {num_samples} were asked for: ask for fewer rows or "
            "a wider condition, or put the column first in model.column_order"
        )
    worst = max(broken, key=lambda text: broken[text])
    also = f" and meet the condition on {', '.join(columns)}" if columns else ""
    return (
        f"{found} keep the rules{also}, {num_samples} were asked for; {broken[worst]} broke {worst}: ask for fewer "
        "rows, or correct the rule in synthesis.constraints"
    )


def check_conditions(schema: Schema, conditions: Mapping[str, Any]) -> None:
    """Raises UserError, naming the column, for a condition that no record can meet.

    A column whose categories are still unknown passes.
    """
    for name, wanted in conditions.items():
        if name not in {column.name for column in schema.modelled}:
            known = ", ".join(column.name for column in schema.modelled)
            raise UserError(f"condition on column {name!r}, which the generator does not have: use one of {known}")
        if schema[name].kind in NUMERIC_KINDS or schema[name].values:
            _check_condition(schema[name], wanted)


def _check_condition(column: Column, wanted: Any) -> None:
    name = column.name
    if isinstance(wanted, Mapping) and set(wanted) == {"group"}:
        possible = len(_members(column, wanted["group"])) > 0
    elif isinstance(wanted, Mapping):
        if column.kind in CATEGORICAL_KINDS or not wanted or not set(wanted) <= {"min", "max"}:
            raise UserError(
                f"condition on column {name!r} is {wanted}: give a value, a list, min and max of a number, or the "
                "group of a category"
            )
        low, high = (_bound(column, wanted.get(side, getattr(column, end))) for side, end in _SIDES)
        possible = low <= high and low <= _bound(column, column.upper) and high >= _bound(column, column.lower)
    elif column.kind in CATEGORICAL_KINDS:
        possible = len([_code(column, value) for value in _options(column, wanted)]) > 0
    else:
        moments = [_bound(column, value) for value in _options(column, wanted)]
        possible = any(_bound(column, column.lower) <= moment <= _bound(column, column.upper) for moment in moments)
    if not possible:
        raise UserError(
            f"condition on column {name!r} asks for {wanted}, which no record can meet"
            + (f" between {column.lower} and {column.upper}" if column.kind in NUMERIC_KINDS else "")
            + ": widen it"
        )


def _single_code(transform: Discretizer, j: int, wanted: Any) -> int | None:
    """The code that stands for what is wanted of a categorical column and for nothing else, if there is one."""
    grid, bins = transform.grids[j], transform.bin_of_cell[j]
    cells = [_code(grid.column, value) for value in _options(grid.column, wanted)]
    codes = set(bins[cells].tolist())
    return codes.pop() if len(codes) == 1 and (bins == bins[cells[0]]).sum() == len(set(cells)) else None


def _members(column: Column, name: Any) -> tuple[Any, ...]:
    """The categories of a group."""
    groups = dict(column.groups)
    if name not in groups:
        raise UserError(
            f"condition on column {column.name!r} asks for the group {name!r}: use one of {', '.join(groups)}"
            if groups
            else f"condition on column {column.name!r} asks for a group, and the schema gives it none: add groups there"
        )
    members = tuple(value for value in groups[name] if value in column.values)
    if not members:
        raise UserError(
            f"condition on column {column.name!r} asks for the group {name!r}, of which no category was frequent "
            "enough to be released: ask for another"
        )
    return members


def _code(column: Column, value: Any) -> int:
    """Number of a categorical value, as written in a file or as held in a frame, among the categories."""
    for code, known in enumerate(column.values):
        labels = {category_text(known)}
        if column.kind == "boolean" and column.categories:
            labels.add(category_text(column.categories[code]))
        if category_text(value) in labels:
            return code
    raise UserError(
        f"condition on column {column.name!r} asks for {value!r}, which is not a category: use one of "
        f"{', '.join(map(str, column.values))}"
    )


def _meets(values: Any, column: Column, wanted: Any) -> np.ndarray:
    """Bool [n] of a pandas Series: a missing value meets no condition."""
    if column.kind in CATEGORICAL_KINDS:
        options = [column.values[_code(column, value)] for value in _options(column, wanted)]
        return values.isin(options).to_numpy(bool)
    if isinstance(wanted, list):
        return values.isin([_bound(column, value) for value in wanted]).to_numpy(bool)
    bounds = wanted if isinstance(wanted, Mapping) else {"min": wanted, "max": wanted}
    meets = values.notna().to_numpy(bool)
    if "min" in bounds:
        meets = meets & (values >= _bound(column, bounds["min"])).to_numpy(bool, na_value=False)
    if "max" in bounds:
        meets = meets & (values <= _bound(column, bounds["max"])).to_numpy(bool, na_value=False)
    return meets


def _options(column: Column, wanted: Any) -> list[Any]:
    if isinstance(wanted, Mapping):
        return list(_members(column, wanted["group"]))
    return wanted if isinstance(wanted, list) else [wanted]


def _bound(column: Column, value: Any) -> Any:
    """A number, or a moment in UTC without a zone: as the column's file writes it, or ISO 8601."""
    try:
        if column.kind != "datetime":
            return float(value)
        moment: Any = pd.NaT
        if column.datetime_format and isinstance(value, str):
            moment = pd.to_datetime(value, format=column.datetime_format, errors="coerce")
        moment = pd.Timestamp(value) if moment is pd.NaT else moment
        return moment.tz_convert(None) if moment.tzinfo else moment
    except (TypeError, ValueError):
        raise UserError(
            f"condition on column {column.name!r} asks for {value!r}, which is not of kind {column.kind}: correct it"
        ) from None
