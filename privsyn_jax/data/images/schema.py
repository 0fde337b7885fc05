"""Image schemas as JSON: reading, checking, writing back exactly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from privsyn_jax.data.schema import read_json
from privsyn_jax.data.schema_check import refuse_unknown
from privsyn_jax.refuse import require
from privsyn_jax.types import ImageSchema, UserError

SCHEMA_KEYS = ("shape", "classes", "num_records", "privacy_unit", "declared_public")
MIN_SIDE, MAX_SIDE = 4, 256  # pixels
CHANNELS = (1, 3)
_PROPOSE = "propose one with `python -m launch.schema FOLDER > schema.json`"


def read_image_schema(path: str) -> ImageSchema:
    """Reads the image schema JSON at `path`.

    Raises:
      UserError: the file is absent, is not JSON, repeats a key, or breaks a rule of `check_image_schema`.
    """
    return image_schema_from_dict(read_json(path, propose_from="FOLDER"), source=path)


def image_schema_from_dict(content: Any, *, source: str = "the schema") -> ImageSchema:
    """The ImageSchema that a parsed JSON object describes; privacy_unit and declared_public may be absent.

    Args:
      content: {"shape": [height, width, channels], "classes": [name, ...], "num_records": ..., ...}.
      source: file name for messages.

    Raises:
      UserError: a key is unknown or missing, or a rule of `check_image_schema` is broken.
    """
    if not isinstance(content, Mapping):
        raise UserError(f"{source} is not a JSON object: it must start with {{ and hold 'shape' and 'classes'")
    if "columns" in content:
        raise UserError(f"{source} has columns, so it describes a table: for images {_PROPOSE}")
    refuse_unknown(content, SCHEMA_KEYS, place=source)
    for key, example in (
        ("shape", "[height, width, channels]"),
        ("classes", "a list of the classes' names"),
        ("num_records", "a public figure for the number of images, a rough one is enough"),
    ):
        require(content.get(key) is not None, f'{source} has no {key}: add "{key}", {example}')
    facts = {key: content[key] for key in SCHEMA_KEYS if content.get(key) is not None}
    for key in ("shape", "classes", "declared_public"):
        if key in facts:
            require(isinstance(facts[key], list | tuple), f"{key} of {source} is {facts[key]!r}: write a list in [ ]")
            facts[key] = tuple(facts[key])
    schema = ImageSchema(**facts)
    check_image_schema(schema, source=source)
    return schema


def image_schema_to_dict(schema: ImageSchema) -> dict[str, Any]:
    """The JSON object from which `image_schema_from_dict` gives an equal ImageSchema."""
    return {
        "shape": list(schema.shape),
        "classes": list(schema.classes),
        "num_records": schema.num_records,
        "privacy_unit": schema.privacy_unit,
        "declared_public": list(schema.declared_public),
    }


def check_image_schema(schema: ImageSchema, *, source: str = "the schema") -> None:
    """Raises UserError, naming the fact and the remedy, when the schema breaks a rule.

    Rules: sides from MIN_SIDE to MAX_SIDE pixels, 1 or 3 channels; two classes or more, with names that are texts,
    not empty and unique; num_records a positive whole number; a privacy unit.
    """
    shape = schema.shape
    require(
        len(shape) == 3 and all(_is_integer(size) for size in shape),
        f"shape of {source} is {list(shape)!r}: write [height, width, channels] in whole numbers",
    )
    height, width, channels = shape
    for side, size in (("height", height), ("width", width)):
        require(
            MIN_SIDE <= size <= MAX_SIDE,
            f"shape of {source} has {side} {size}: give {MIN_SIDE} to {MAX_SIDE} pixels, and resize the images "
            "(data.resize=True)",
        )
    require(channels in CHANNELS, f"shape of {source} has {channels} channels: give 1 for grey or 3 for colour")
    for name in schema.classes:
        require(isinstance(name, str) and name != "", f"classes of {source} hold {name!r}: use names as texts")
    require(
        len(schema.classes) >= 2,
        f"{source} has {len(schema.classes)} class(es), and utility is measured by telling classes apart: "
        "give at least two",
    )
    repeated = next((name for name in schema.classes if schema.classes.count(name) > 1), None)
    require(repeated is None, f"classes of {source} hold {repeated!r} twice: keep one")
    require(
        _is_integer(schema.num_records) and schema.num_records > 0,
        f"num_records of {source} is {schema.num_records!r}: give a positive whole number, a rough public figure is "
        "enough",
    )
    require(
        isinstance(schema.privacy_unit, str) and schema.privacy_unit != "",
        f"privacy_unit of {source} is {schema.privacy_unit!r}: say in a word what one image stands for",
    )
    for fact in schema.declared_public:
        require(isinstance(fact, str), f"declared_public of {source} holds {fact!r}: use texts")


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
