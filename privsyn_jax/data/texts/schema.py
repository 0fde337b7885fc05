"""Text schemas as JSON: reading, checking, writing back exactly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from privsyn_jax.data.schema import read_json
from privsyn_jax.data.schema_check import refuse_unknown
from privsyn_jax.refuse import require
from privsyn_jax.types import TextSchema, UserError

SCHEMA_KEYS = ("classes", "num_records", "text", "label", "unit", "privacy_unit", "declared_public")
_PROPOSE_FROM = "reviews.csv --text COLUMN"
_PROPOSE = f"propose one with `python -m launch.schema {_PROPOSE_FROM} > schema.json`"


def read_text_schema(path: str) -> TextSchema:
    """Reads the text schema JSON at `path`.

    Raises:
      UserError: the file is absent, is not JSON, repeats a key, or breaks a rule of `check_text_schema`.
    """
    return text_schema_from_dict(read_json(path, propose_from=_PROPOSE_FROM), source=path)


def text_schema_from_dict(content: Any, *, source: str = "the schema") -> TextSchema:
    """The TextSchema that a parsed JSON object describes; label, unit, privacy_unit, declared_public may be absent.

    Args:
      content: {"text": name of a column, "classes": [name, ...], "num_records": ..., ...}.
      source: file name for messages.

    Raises:
      UserError: a key is unknown or missing, or a rule of `check_text_schema` is broken.
    """
    if not isinstance(content, Mapping):
        raise UserError(f"{source} is not a JSON object: it must start with {{ and hold 'text' and 'classes'")
    for key, kind in (("columns", "a table"), ("shape", "images")):
        if key in content:
            raise UserError(f"{source} has {key}, so it describes {kind}: for texts {_PROPOSE}")
    refuse_unknown(content, SCHEMA_KEYS, place=source)
    for key, example in (
        ("text", "the name of the column that holds the text"),
        ("classes", "a list of the classes' names, [] for texts without labels"),
        ("num_records", "a public figure for the number of texts, a rough one is enough"),
    ):
        require(content.get(key) is not None, f'{source} has no {key}: add "{key}", {example}')
    facts = {key: content[key] for key in SCHEMA_KEYS if content.get(key) is not None}
    for key in ("classes", "declared_public"):
        if key in facts:
            require(isinstance(facts[key], list | tuple), f"{key} of {source} is {facts[key]!r}: write a list in [ ]")
            facts[key] = tuple(facts[key])
    schema = TextSchema(**facts)
    check_text_schema(schema, source=source)
    return schema


def text_schema_to_dict(schema: TextSchema) -> dict[str, Any]:
    """The JSON object from which `text_schema_from_dict` gives an equal TextSchema."""
    facts = {key: getattr(schema, key) for key in SCHEMA_KEYS}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in facts.items()}


def check_text_schema(schema: TextSchema, *, source: str = "the schema") -> None:
    """Raises UserError, naming the fact and the remedy, when the schema breaks a rule.

    Rules: no class, or two or more, with names that are texts, not empty and unique; the columns of text and label
    have names, and they and the unit's are different; num_records a positive whole number; a privacy unit.
    """
    for name in schema.classes:
        require(isinstance(name, str) and name != "", f"classes of {source} hold {name!r}: use names as texts")
    require(
        len(schema.classes) != 1,
        f"{source} has 1 class, and utility is measured by telling classes apart: give at least two, or none",
    )
    repeated = next((name for name in schema.classes if schema.classes.count(name) > 1), None)
    require(repeated is None, f"classes of {source} hold {repeated!r} twice: keep one")
    for key, empty in (("text", False), ("label", False), ("unit", True)):
        name = getattr(schema, key)
        require(
            isinstance(name, str) and (name != "" or empty), f"{key} of {source} is {name!r}: give the name of a column"
        )
    for key, other in (("text", "label"), ("text", "unit"), ("label", "unit")):
        name = getattr(schema, key)
        require(name != getattr(schema, other), f"{key} and {other} of {source} are both {name!r}: name two columns")
    require(
        isinstance(schema.num_records, int) and not isinstance(schema.num_records, bool) and schema.num_records > 0,
        f"num_records of {source} is {schema.num_records!r}: give a positive whole number, a rough public figure is "
        "enough",
    )
    require(
        isinstance(schema.privacy_unit, str) and schema.privacy_unit != "",
        f"privacy_unit of {source} is {schema.privacy_unit!r}: say in a word what one text stands for",
    )
    for fact in schema.declared_public:
        require(isinstance(fact, str), f"declared_public of {source} holds {fact!r}: use texts")
