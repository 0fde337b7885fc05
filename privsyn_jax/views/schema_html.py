"""What a notebook shows of a schema."""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup

from privsyn_jax.views import html_parts as html

if TYPE_CHECKING:
    from privsyn_jax.types import AnySchema, Column, ImageSchema, Schema, TextSchema

_SHOWN = 12  # categories of a column
_HEADER = ("column", "kind", "values", "may be missing", "taken from the rows")


def of_table(schema: Schema) -> str:
    return _with_facts(schema, html.table(_HEADER, map(_row, schema.columns)))


def of_images(schema: ImageSchema) -> str:
    height, width, channels = schema.shape
    return _with_facts(schema, html.note(f"{height} x {width} pixels, {channels} channels; {_classes(schema)}."))


def of_texts(schema: TextSchema) -> str:
    return _with_facts(schema, html.note(f"Texts in {schema.text!r}, labels in {schema.label!r}; {_classes(schema)}."))


def _with_facts(schema: AnySchema, content: Markup) -> str:
    taken = f" Taken from the records: {', '.join(schema.declared_public)}." if schema.declared_public else ""
    facts = f"About {schema.num_records} records; what is protected as one: a {schema.privacy_unit}.{taken}"
    return html.block("What is public", html.note(facts), content)


def _classes(schema: ImageSchema | TextSchema) -> str:
    return f"classes: {', '.join(map(str, schema.classes)) or 'none'}"


def _row(column: Column) -> tuple[str, ...]:
    if column.kind == "id":
        values = "made up anew"
    elif column.lower is not None:
        values = f"{column.lower} to {column.upper}"
    else:
        more = len(column.values) - _SHOWN
        values = ", ".join(map(str, column.values[:_SHOWN])) or "unknown: to be bought"
        values += f" and {more} more" if more > 0 else ""
    return column.name, column.kind, values, "yes" if column.nullable else "no", ", ".join(column.declared_public)
