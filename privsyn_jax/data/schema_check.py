"""The rules that a schema must keep. Each broken rule is one sentence with its remedy."""

from __future__ import annotations

import datetime
import difflib
import math
from collections.abc import Iterable
from typing import Any

from privsyn_jax.data.categories import category_text
from privsyn_jax.types import CATEGORICAL_KINDS, COLUMN_KINDS, NUMERIC_KINDS, Column, Schema, UserError

MAX_INTEGER = 2**53  # integers up to here are exact in float64

_KEYS_OF_KINDS = {
    "lower": NUMERIC_KINDS,
    "upper": NUMERIC_KINDS,
    "categories": CATEGORICAL_KINDS,
    "nullable": COLUMN_KINDS,
    "point_masses": ("numeric", "integer"),
    "edges": ("numeric", "integer"),
    "datetime_format": ("datetime",),
    "groups": ("categorical", "ordinal"),
}


def check_schema(schema: Schema, *, source: str = "the schema") -> None:
    """Raises UserError, naming the column and the remedy, when the schema breaks a rule.

    Rules: known kinds; public bounds for numeric, integer and datetime columns, lower < upper; categories
    non-empty, unique and distinguishable in a file; groups of known categories, each in one of them; point masses
    within bounds; edges increasing from lower to upper; unique column names; target and sensitive columns exist; two
    columns or more besides ids; a unit column of kind id, with a bound on its rows and a number of units, or none of
    the three.
    """
    _check_table(schema, source)
    for column in schema.columns:
        _check_column(column, f"column {column.name!r} of {source}")


def refuse_unknown(keys: Iterable[str], known: Iterable[str], *, place: str) -> None:
    """Raises UserError for the first of `keys` that is not in `known`, naming the nearest one."""
    for key in keys:
        if key not in known:
            raise UserError(f"{place} has the unknown key {key!r}: {nearest(key, known)}")


def nearest(word: Any, options: Iterable[str]) -> str:
    """ "did you mean 'x'?", or the list of options when none is near."""
    options = [str(option) for option in options]
    close = difflib.get_close_matches(str(word), options, n=1)
    return f"did you mean {close[0]!r}?" if close else f"use one of {', '.join(options)}"


def _check_table(schema: Schema, source: str) -> None:
    names = schema.names
    repeated = next((name for name in names if names.count(name) > 1), None)
    _require(repeated is None, f"{source} has two columns named {repeated!r}: rename one")
    _require(
        _is_integer(schema.num_records) and schema.num_records > 0,
        f"num_records of {source} is {schema.num_records!r}: give a positive whole number, "
        "a rough public figure is enough",
    )
    _require(
        isinstance(schema.privacy_unit, str) and schema.privacy_unit != "",
        f"privacy_unit of {source} is {schema.privacy_unit!r}: say in a word what one record stands for",
    )
    _require(
        len(schema.modelled) >= 2,
        f"{source} has {len(schema.modelled)} column(s) besides ids: at least 2 are needed",
    )
    for key, listed in (("target", (schema.target,)), ("sensitive", schema.sensitive)):
        for name in listed:
            if name is not None and name not in names:
                raise UserError(f"{key} {name!r} is no column of {source}: {nearest(name, names)}")
    _require(
        schema.target is None or schema[schema.target].kind != "id",
        f"target {schema.target!r} of {source} is an id, which is never learned: choose another column",
    )
    _check_texts(schema.declared_public, f"declared_public of {source}")
    _check_unit(schema, source)


def _check_unit(schema: Schema, source: str) -> None:
    name = schema.unit_column
    if name is None:
        for key in ("max_records_per_unit", "num_units"):
            _require(
                getattr(schema, key) is None,
                f"{source} has {key} but no unit_column: name the column whose equal values belong to one unit",
            )
        return
    if name not in schema.names:
        raise UserError(f"unit_column {name!r} is no column of {source}: {nearest(name, schema.names)}")
    _require(
        schema[name].kind == "id",
        f"unit_column {name!r} of {source} is of kind {schema[name].kind!r}, and who a row belongs to is not learned: "
        "make it an id",
    )
    for key, example in (
        ("max_records_per_unit", "how many rows of one unit are read at most, a small number: noise grows with it"),
        ("num_units", "a public figure for the number of units, a rough one is enough"),
    ):
        value = getattr(schema, key)
        _require(value is not None, f'{source} has the unit_column {name!r} and no {key}: add "{key}", {example}')
        _require(_is_integer(value) and value > 0, f"{key} of {source} is {value!r}: give a positive whole number")
    _require(
        (schema.num_units or 0) <= schema.num_records,
        f"{source} has num_units {schema.num_units} and num_records {schema.num_records}: every unit has a row, so "
        "correct one of them",
    )


def _check_column(column: Column, place: str) -> None:
    _require(isinstance(column.name, str), f"{place} has a name that is no text: rename it")
    _require(
        column.kind in COLUMN_KINDS,
        f"{place} has the unknown kind {column.kind!r}: {nearest(column.kind, COLUMN_KINDS)}",
    )
    for key, kinds in _KEYS_OF_KINDS.items():
        if getattr(column, key) not in (None, (), False) and column.kind not in kinds:
            raise UserError(f"{place} has {key}, which does not apply to kind {column.kind!r}: remove it")
    _require(isinstance(column.nullable, bool), f"nullable of {place} is {column.nullable!r}: use true or false")
    _check_texts(column.declared_public, f"declared_public of {place}")
    if column.kind in ("numeric", "integer"):
        _check_number_bounds(column, place)
    elif column.kind == "datetime":
        _check_datetime_bounds(column, place)
    elif column.kind in CATEGORICAL_KINDS:
        _check_categories(column, place)
        _check_groups(column, place)


def _check_bounds_stated(column: Column, place: str) -> None:
    for key in ("lower", "upper"):
        _require(
            getattr(column, key) is not None,
            f"{place} has no {key}: state public bounds, they are never read from the rows",
        )


def _check_number_bounds(column: Column, place: str) -> None:
    _check_bounds_stated(column, place)
    numbers: dict[str, Any] = {"lower": [column.lower], "upper": [column.upper]}
    numbers |= {"point_masses": column.point_masses, "edges": column.edges or ()}
    for key, values in numbers.items():
        for value in values:
            _require(_is_number(value), f"{key} of {place} holds {value!r}: use finite numbers")
            if column.kind == "integer" and key != "edges":
                _require(
                    value == int(value) and abs(value) <= MAX_INTEGER,
                    f"{key} of {place} holds {value!r}: use whole numbers up to 2**53, or kind 'numeric'",
                )
    (lower,), (upper,) = numbers["lower"], numbers["upper"]
    _require(lower < upper, f"{place} has lower {lower} and upper {upper}: lower must be smaller")
    for value in column.point_masses:
        _require(
            lower <= value <= upper,
            f"point mass {value} of {place} lies outside {lower} to {upper}: remove it",
        )
    if column.edges is not None:
        increasing = all(a < b for a, b in zip(column.edges, column.edges[1:], strict=False))
        _require(
            len(column.edges) >= 2 and increasing and column.edges[0] == lower and column.edges[-1] == upper,
            f"edges of {place} must increase from lower {lower} to upper {upper}: correct them",
        )


def _check_datetime_bounds(column: Column, place: str) -> None:
    _check_bounds_stated(column, place)
    moments = {}
    for key in ("lower", "upper"):
        value = getattr(column, key)
        try:
            moments[key] = datetime.datetime.fromisoformat(value)
        except (TypeError, ValueError):
            raise UserError(f"{key} of {place} is {value!r}: write it as ISO 8601, such as '2020-01-31'") from None
        _require(moments[key].tzinfo is None, f"{key} of {place} has a time zone: leave it out, it is taken as UTC")
    lower, upper = moments["lower"], moments["upper"]
    _require(lower < upper, f"{place} has lower {lower} and upper {upper}: lower must be earlier")
    if column.datetime_format is not None:
        _require(
            _format_can_write(column.datetime_format, lower, upper),
            f"datetime_format {column.datetime_format!r} of {place} cannot write its bounds "
            f"{column.lower!r} and {column.upper!r}: add the year to the format, or round the bounds",
        )


def _format_can_write(text_format: Any, lower: datetime.datetime, upper: datetime.datetime) -> bool:
    """Whether what is written stays within the bounds: lower survives exactly, upper may lose precision."""
    try:
        low, high = (datetime.datetime.strptime(m.strftime(text_format), text_format) for m in (lower, upper))
    except (TypeError, ValueError):
        return False
    return low == lower and high.year == upper.year


def _check_categories(column: Column, place: str) -> None:
    categories = column.categories
    if categories is None:
        _require(
            column.kind != "ordinal",
            f"{place} has no categories: list them in order, an ordinal column needs them",
        )
        return
    _require(
        len(categories) > 0,
        f"{place} has an empty list of categories: list them, or leave them out if unknown",
    )
    texts = {}
    for value in categories:
        valid = isinstance(value, str | bool | int) or _is_number(value)
        _require(
            valid,
            f"categories of {place} hold {value!r}: use texts, numbers or booleans, and nullable for missing",
        )
        text = category_text(value)
        if text in texts:
            raise UserError(f"categories of {place} hold {texts[text]!r} and {value!r}, which look the same: keep one")
        texts[text] = value
    _require(
        len(set(categories)) == len(categories),  # True and 1 differ as texts and are one value to Python
        f"categories of {place} hold both a boolean and the number equal to it: write one of them as text",
    )
    _require(
        column.kind != "boolean" or len({text.casefold() for text in texts}) == len(categories) == 2,
        f"categories of {place} must be two labels that differ, false first and true second: correct them",
    )


def _check_groups(column: Column, place: str) -> None:
    group_of: dict[Any, str] = {}
    for name, members in column.groups:
        _require(isinstance(name, str) and name != "", f"groups of {place} have the name {name!r}: use a text")
        _require(len(members) > 0, f"group {name!r} of {place} is empty: list its categories, or remove it")
        for value in members:
            _require(
                column.categories is None or value in column.categories,
                f"group {name!r} of {place} holds {value!r}, which is not among its categories: add it there",
            )
            _require(
                value not in group_of,
                f"{value!r} of {place} is in the groups {group_of.get(value)!r} and {name!r}: leave it in one of them",
            )
            group_of[value] = name


def _check_texts(values: tuple[Any, ...], place: str) -> None:
    for value in values:
        _require(isinstance(value, str), f"{place} holds {value!r}: use texts")


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_integer(value) or (isinstance(value, float) and math.isfinite(value))


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UserError(message)
