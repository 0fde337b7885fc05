"""Schemas as JSON: reading, checking, writing back exactly. SDV metadata files are read too."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from privsyn_jax.data import sdv
from privsyn_jax.data.schema_check import check_schema, refuse_unknown
from privsyn_jax.types import Column, Schema, UserError

COLUMN_KEYS = (
    "kind",
    "lower",
    "upper",
    "categories",
    "nullable",
    "point_masses",
    "edges",
    "datetime_format",
    "declared_public",
    "groups",
)
UNIT_KEYS = ("unit_column", "max_records_per_unit", "num_units")
SCHEMA_KEYS = ("columns", "target", "sensitive", "privacy_unit", "num_records", "declared_public", *UNIT_KEYS)
_LISTS = ("categories", "point_masses", "edges", "declared_public", "sensitive")


def read_schema(path: str) -> Schema:
    """Reads the schema JSON, or the SDV metadata JSON, at `path`.

    Raises:
      UserError: the file is absent, is not JSON, repeats a key, or breaks a rule of `check_schema`.
    """
    return schema_from_dict(read_json(path, propose_from="data.csv"), source=path)


def read_json(path: str, *, propose_from: str) -> Any:
    """The content of a schema file; raises UserError unless it is JSON without repeated keys.

    Args:
      propose_from: what launch.schema would be given, for a message.
    """
    if os.path.isdir(path):
        raise UserError(f"schema {path} is a folder: give the path of a JSON file")
    try:
        with open(path, encoding="utf-8-sig") as file:
            return json.load(file, object_pairs_hook=_dict_without_repeats)
    except FileNotFoundError:
        raise UserError(
            f"schema {path} does not exist: propose one with `python -m launch.schema {propose_from} > schema.json`"
        ) from None
    except OSError as error:
        raise UserError(f"schema {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"schema {path} is not UTF-8 at byte {error.start}: save it as UTF-8") from None
    except json.JSONDecodeError as error:
        raise UserError(
            f"schema {path} is not valid JSON at line {error.lineno}, column {error.colno}: {error.msg}"
        ) from None
    except _RepeatedKey as error:
        raise UserError(f"schema {path} has the key {error.args[0]!r} twice in one object: keep one") from None


def schema_from_dict(content: Any, *, source: str = "the schema") -> Schema:
    """The Schema that a parsed JSON object describes; absent optional keys take their defaults.

    Args:
      content: {"columns": {name: {"kind": ..., ...}}, "num_records": ..., ...}, or SDV metadata of one table.
      source: file name for messages.

    Raises:
      UserError: a key is unknown or missing, or a rule of `check_schema` is broken.
    """
    if not isinstance(content, Mapping):
        raise UserError(f"{source} is not a JSON object: it must start with {{ and hold 'columns'")
    if sdv.is_sdv(content):
        content = sdv.convert(content, source)
    refuse_unknown(content, SCHEMA_KEYS, place=source)
    columns = content.get("columns")
    if not isinstance(columns, Mapping) or not columns:
        raise UserError(f'{source} has no columns: add "columns": {{name: {{"kind": ...}}}}')
    if content.get("num_records") is None:
        raise UserError(
            f'{source} has no num_records: add "num_records", a public figure for the number of records, '
            "a rough one is enough"
        )
    table_facts = {key: _read_value(content, key, source) for key in SCHEMA_KEYS[1:] if content.get(key) is not None}
    schema = Schema(
        columns=tuple(_read_column(name, column, source) for name, column in columns.items()), **table_facts
    )
    check_schema(schema, source=source)
    return schema


def schema_to_dict(schema: Schema) -> dict[str, Any]:
    """The JSON object from which `schema_from_dict` gives an equal Schema; what is at its default is left out."""
    return {
        "columns": {column.name: _write_column(column) for column in schema.columns},
        "target": schema.target,
        "sensitive": list(schema.sensitive),
        "privacy_unit": schema.privacy_unit,
        "num_records": schema.num_records,
        "declared_public": list(schema.declared_public),
        **({key: getattr(schema, key) for key in UNIT_KEYS} if schema.unit_column is not None else {}),
    }


def _read_column(name: str, content: Any, source: str) -> Column:
    place = f"column {name!r} of {source}"
    if not isinstance(content, Mapping):
        raise UserError(f'{place} is not a JSON object: write {{"kind": ...}}')
    refuse_unknown(content, COLUMN_KEYS, place=place)
    if "kind" not in content:
        raise UserError(f'{place} has no kind: add "kind"')
    facts = {key: _read_value(content, key, place) for key in COLUMN_KEYS if content.get(key) is not None}
    if facts["kind"] == "boolean":
        facts.setdefault("categories", (False, True))
    if facts["kind"] == "integer":
        for key in ("lower", "upper"):
            if isinstance(facts.get(key), float) and facts[key].is_integer():
                facts[key] = int(facts[key])
    return Column(name, **facts)


def _read_value(content: Mapping[str, Any], key: str, place: str) -> Any:
    value = content[key]
    if key == "groups":
        return _read_groups(value, place)
    if key not in _LISTS:
        return value
    if not isinstance(value, list | tuple):
        raise UserError(f"{key} of {place} is {value!r}: write a list in [ ]")
    return tuple(value)


def _read_groups(value: Any, place: str) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    if not isinstance(value, Mapping) or not all(isinstance(members, list | tuple) for members in value.values()):
        raise UserError(f'groups of {place} are {value!r}: write {{"name": [categories], ...}}')
    return tuple((name, tuple(members)) for name, members in value.items())


def _write_column(column: Column) -> dict[str, Any]:
    defaults = Column(column.name, column.kind)
    content: dict[str, Any] = {"kind": column.kind}
    for key in COLUMN_KEYS[1:]:
        value = getattr(column, key)
        if value != getattr(defaults, key):
            content[key] = list(value) if key in _LISTS else value
    if column.groups:
        content["groups"] = {name: list(members) for name, members in column.groups}
    return content


class _RepeatedKey(Exception):
    """A JSON object names one key twice; args[0] is the key."""


def _dict_without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key, value in pairs:
        if key in content:
            raise _RepeatedKey(key)
        content[key] = value
    return content
