"""Rules that every synthetic record keeps: public knowledge about a table, not statistics of it.

A rule is checked on decoded records; rows that break one are drawn again. What can be told from codes alone is told to
the generator beforehand, if it can take it (`forbidden`), so that fewer rows are drawn in vain. A sum is not left to
chance: its total is set to the sum of the parts. As in SQL, a rule does not concern a record that misses one of its
values. Post-processing: no private record is read.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from privsyn_jax.data.categories import category_text
from privsyn_jax.refuse import imported, require
from privsyn_jax.transforms.discretize import Discretizer
from privsyn_jax.transforms.grid import from_numbers, to_numbers
from privsyn_jax.types import NUMERIC_KINDS, Column, Forbidden, Schema, UserError

_KEYS = {  # kind -> keys, besides "kind"
    "inequality": ("low", "high", "strict"),
    "range": ("column", "min", "max"),
    "fixed_combinations": ("columns", "rows"),
    "sum": ("columns", "total"),
    "custom": ("function", "columns"),
}


@dataclasses.dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
      text: what it says.
      columns: that it is about.
      keeps: frame of records without missing values in these columns -> bool [n].
      repair: frame -> frame in which the rule is made true, before it is checked; or None.
      possible: what codes alone can tell: (one column or two, their `CodeValues` -> bool [k] or [k, l]: whether some
        record with these codes keeps the rule).
    """

    text: str
    columns: tuple[str, ...]
    keeps: Callable[[pd.DataFrame], Any]
    repair: Callable[[pd.DataFrame], pd.DataFrame] | None = None
    possible: tuple[tuple[tuple[str, ...], Callable[..., np.ndarray]], ...] = ()

    def kept(self, frame: pd.DataFrame) -> np.ndarray:
        """Bool [n]: the records that do not break the rule."""
        kept = np.ones(len(frame), bool)
        concerned = np.asarray(frame[list(self.columns)].notna()).all(axis=1)
        if concerned.any():
            found = np.asarray(self.keeps(pd.DataFrame(frame[concerned])))
            if found.shape != (int(concerned.sum()),) or found.dtype != bool:
                raise UserError(
                    f"the rule {self.text} gave {found.dtype} with {found.ndim} axes: let it return one bool for each "
                    "record that it is given"
                )
            kept[concerned] = found
        return kept


class CodeValues(NamedTuple):
    """What the codes of a column stand for.

    Attributes:
      low, high: float64 [k], the least and the largest number or moment; NaN for categories and missing values.
      texts: of categories, for each code those that it can stand for; none for numbers and missing values.
      is_missing: bool [k].
    """

    low: np.ndarray
    high: np.ndarray
    texts: tuple[frozenset[str], ...]
    is_missing: np.ndarray

    def holds(self, value: str, column: Column) -> np.ndarray:
        """Bool [k]: whether a code can stand for the value with this text."""
        if column.kind not in NUMERIC_KINDS:
            return np.array([value in own for own in self.texts])
        number = _number(value, column)
        return (self.low <= number) & (number <= self.high)


def parse_constraints(text: str, schema: Schema) -> tuple[Rule, ...]:
    """synthesis.constraints: a JSON list of rules; "" for none.

    Rules, by "kind":
      inequality: "low" and "high" are columns (or one of them a number): low <= high; with "strict": true, low < high.
      range: "column" lies from "min" to "max"; either may be left out.
      fixed_combinations: the values of "columns" are together one of "rows".
      sum: the "columns" add up to the column "total", which is set to it.
      custom: "function" is the import path (module:function) of one from a table of records to a bool for each; it is
        asked about records that miss none of "columns", by default about all.

    Raises:
      UserError: no JSON, an unknown kind, key or column, or a rule that makes no sense, naming the rule.
    """
    if not text:
        return ()
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(
            f"synthesis.constraints is not JSON ({error}): write a list as "
            '\'[{"kind": "inequality", "low": "start", "high": "end"}]\''
        ) from None
    if not isinstance(content, list):
        raise UserError(f"synthesis.constraints is {content!r}: give a JSON list of rules")
    return tuple(_rule(entry, number, schema) for number, entry in enumerate(content, start=1))


def repaired(rules: Sequence[Rule], frame: pd.DataFrame) -> pd.DataFrame:
    """The records with sums set."""
    for rule in rules:
        if rule.repair is not None:
            frame = rule.repair(frame)
    return frame


def forbidden(rules: Sequence[Rule], transform: Discretizer) -> Forbidden:
    """The codes, and pairs of codes, with which no record can keep the rules."""
    index = {column.name: j for j, column in enumerate(transform.schema.modelled)}
    codes: dict[int, np.ndarray] = {}
    pairs: dict[tuple[int, int], np.ndarray] = {}
    for names, possible in itertools.chain.from_iterable(rule.possible for rule in rules):
        values = [_code_values(transform, index[name]) for name in names]
        is_out = ~possible(*values)
        if len(names) == 1:
            own = index[names[0]]
            codes[own] = codes.get(own, False) | (is_out & ~values[0].is_missing)
            continue
        is_out &= ~(values[0].is_missing[:, None] | values[1].is_missing[None])
        i, j = (index[name] for name in names)
        key, is_out = ((i, j), is_out) if i < j else ((j, i), is_out.T)
        pairs[key] = pairs.get(key, False) | is_out
    return Forbidden(codes, pairs)


def _code_values(transform: Discretizer, j: int) -> CodeValues:
    grid, bins = transform.grids[j], transform.bin_of_cell[j]
    size = int(bins.max()) + 1
    low, high = np.full(size, np.inf), np.full(size, -np.inf)
    texts, is_missing = [set() for _ in range(size)], np.zeros(size, bool)
    if grid.is_numeric:
        own = bins[: grid.num_value_cells]
        np.minimum.at(low, own, grid.lower)
        np.maximum.at(high, own, grid.upper - grid.whole)
    else:
        for code, value in zip(bins, grid.column.values, strict=False):
            texts[code].add(category_text(value))
    is_missing[bins[grid.num_value_cells :]] = True
    low, high = (np.where(low > high, np.nan, values) for values in (low, high))
    return CodeValues(low, high, tuple(map(frozenset, texts)), is_missing)


def _number(value: Any, column: Column) -> float:
    """A number, or a moment in the units of the column's grid."""
    if column.kind != "datetime":
        return float(value)
    return float(to_numbers(pd.Series([pd.Timestamp(value)]), column)[0])


def _rule(entry: Any, number: int, schema: Schema) -> Rule:
    place = f"rule {number} of synthesis.constraints"
    kind = entry.get("kind") if isinstance(entry, dict) else None
    if kind not in _KEYS:
        raise UserError(f'{place} is {entry!r}: give an object with "kind" one of {", ".join(_KEYS)}')
    unknown = sorted(set(entry) - {"kind", *_KEYS[kind]})
    needed = {"inequality": ("low", "high"), "range": ("column",), "custom": ("function",)}.get(kind, _KEYS[kind])
    absent = [key for key in needed if key not in entry]
    if unknown or absent:
        odd = f"has the unknown key {unknown[0]!r}" if unknown else f"has no {absent[0]!r}"
        raise UserError(f"{place} {odd}: a rule of kind {kind} has {', '.join(_KEYS[kind])}")
    return _MAKE[kind](entry, place, schema)


def _inequality(entry: dict, place: str, schema: Schema) -> Rule:
    sides = [entry["low"], entry["high"]]
    names = tuple(side for side in sides if isinstance(side, str))
    columns = [_numeric(name, place, schema) for name in names]
    if not names or any(isinstance(side, bool) or not isinstance(side, str | int | float) for side in sides):
        raise UserError(f"{place} compares {sides[0]!r} and {sides[1]!r}: give two columns, or a column and a number")
    if len({column.kind == "datetime" for column in columns}) > 1 or (
        len(names) == 1 and columns[0].kind == "datetime"
    ):
        raise UserError(f"{place} compares a date with a number: compare two dates (for one, use a range)")
    compare = operator.lt if entry.get("strict", False) else operator.le

    def side(frame, value):
        return frame[value] if isinstance(value, str) else float(value)

    def possible(*values):
        if len(values) == 2:
            return compare(values[0].low[:, None], values[1].high[None])
        own = values[0]
        return compare(own.low, float(sides[1])) if sides[0] in names else compare(float(sides[0]), own.high)

    return Rule(
        f"{sides[0]} {'<' if compare is operator.lt else '<='} {sides[1]}",
        names,
        lambda frame: np.asarray(compare(*(side(frame, value) for value in sides)), bool),
        possible=((names, possible),),
    )


def _range(entry: dict, place: str, schema: Schema) -> Rule:
    column = _numeric(entry["column"], place, schema)
    bounds = {key: entry[key] for key in ("min", "max") if entry.get(key) is not None}
    if not bounds:
        raise UserError(f'{place} has neither "min" nor "max": give one')
    try:
        low, high = (
            _number(bounds[key], column) if key in bounds else other
            for key, other in (("min", -np.inf), ("max", np.inf))
        )
    except (TypeError, ValueError):
        raise UserError(
            f"{place} bounds column {column.name!r} by {bounds}: give values of kind {column.kind}"
        ) from None

    def keeps(frame):
        numbers = to_numbers(frame[column.name], column)
        return (numbers >= low) & (numbers <= high)

    text = " and ".join(f"{column.name} {key} {value}" for key, value in bounds.items())
    possible = lambda values: (values.high >= low) & (values.low <= high)  # noqa: E731
    return Rule(text, (column.name,), keeps, possible=(((column.name,), possible),))


def _fixed_combinations(entry: dict, place: str, schema: Schema) -> Rule:
    names = _names(entry["columns"], place, schema, least=2)
    rows = entry["rows"]
    if not isinstance(rows, list) or not rows or any(not isinstance(r, list) or len(r) != len(names) for r in rows):
        raise UserError(f'{place} has no usable "rows": list combinations of {len(names)} values, one for each column')
    columns = [schema[name] for name in names]
    rows = [[_value_text(value, column, place) for value, column in zip(row, columns, strict=True)] for row in rows]
    allowed = {tuple(row) for row in rows}

    def keeps(frame):
        values = zip(*(frame[name].map(category_text) for name in names), strict=True)
        return np.fromiter((row in allowed for row in values), bool, len(frame))

    def holding(name, values):  # bool [k, rows]: whether a code can stand for the value in a row
        place = names.index(name)
        return np.stack([values.holds(row[place], schema[name]) for row in rows], axis=1)

    def possible_pair(first, second):
        return lambda a, b: holding(first, a).astype(np.int64) @ holding(second, b).astype(np.int64).T > 0

    def possible_alone(name):
        return lambda values: np.asarray(holding(name, values).any(axis=1))

    possible = tuple(((a, b), possible_pair(a, b)) for a, b in itertools.combinations(names, 2))
    possible += tuple(((name,), possible_alone(name)) for name in names)
    return Rule(f"{', '.join(names)} is one of {len(allowed)} combinations", names, keeps, possible=possible)


def _sum(entry: dict, place: str, schema: Schema) -> Rule:
    names = _names(entry["columns"], place, schema, least=1)
    total = _numeric(entry["total"], place, schema)
    parts = [_numeric(name, place, schema) for name in names]
    if "datetime" in {column.kind for column in (total, *parts)} or total.name in names:
        raise UserError(
            f"{place} adds up {', '.join(names)} to {total.name}: give numbers, and another column as total"
        )
    if total.kind == "integer" and any(part.kind != "integer" for part in parts):
        raise UserError(f"{place} adds up numbers to the integer {total.name}: declare it numeric in the schema")
    if any(part.nullable for part in parts) and not total.nullable:
        raise UserError(f"{place} adds up values that may be missing: make {total.name} nullable in the schema")
    low, high = (-np.inf if total.lower is None else total.lower), (np.inf if total.upper is None else total.upper)

    def repair(frame):
        found = np.sum([to_numbers(frame[part.name], part) for part in parts], axis=0)
        is_missing = np.isnan(found)
        return frame.assign(**{total.name: from_numbers(np.where(is_missing, 0.0, found), is_missing, total)})

    def keeps(frame):  # the sum, by `repair`, so only what the schema says of the total is left
        numbers = to_numbers(frame[total.name], total)
        return (numbers >= low) & (numbers <= high)

    return Rule(f"{' + '.join(names)} = {total.name}", (*names, total.name), keeps, repair)


def _custom(entry: dict, place: str, schema: Schema) -> Rule:
    path = entry["function"]
    require(isinstance(path, str), f"{place} has the function {path!r}: give module:function")
    function = imported(f"the function of {place}", path)
    names = _names(entry["columns"], place, schema, least=1) if "columns" in entry else ()
    return Rule(path, names, function)


_MAKE = {
    "inequality": _inequality,
    "range": _range,
    "fixed_combinations": _fixed_combinations,
    "sum": _sum,
    "custom": _custom,
}


def _value_text(value: Any, column: Column, place: str) -> str:
    """The text of a value of the column as a frame holds it; a boolean may be written by its labels."""
    text = category_text(value)
    if column.kind in NUMERIC_KINDS:
        if column.kind == "datetime" or not isinstance(value, int | float) or isinstance(value, bool):
            raise UserError(f"{place} lists {value!r} for the column {column.name!r}: list numbers or categories")
        return text
    if column.kind == "boolean" and text in map(category_text, column.categories or ()):
        return str(bool([category_text(label) for label in column.categories or ()].index(text)))
    if column.values and text not in map(category_text, column.values):
        known = ", ".join(map(category_text, column.categories or column.values))
        raise UserError(f"{place} lists {value!r}, which is no category of {column.name!r}: use {known}")
    return text


def _names(found: Any, place: str, schema: Schema, *, least: int) -> tuple[str, ...]:
    if not isinstance(found, list) or len(set(map(str, found))) < least:
        raise UserError(f"{place} has columns {found!r}: list at least {least} of the table")
    return tuple(_column(name, place, schema).name for name in found)


def _column(name: Any, place: str, schema: Schema) -> Column:
    known = [column.name for column in schema.modelled]
    if name not in known:
        raise UserError(f"{place} names the column {name!r}, which the table does not have: use {', '.join(known)}")
    return schema[name]


def _numeric(name: Any, place: str, schema: Schema) -> Column:
    column = _column(name, place, schema)
    if column.kind not in NUMERIC_KINDS:
        raise UserError(f"{place} compares the column {name!r}, which is {column.kind}: use a number or a date")
    return column
