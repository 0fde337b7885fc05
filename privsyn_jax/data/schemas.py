"""The kind of a schema, by what it holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from privsyn_jax.data.images.schema import image_schema_from_dict
from privsyn_jax.data.schema import schema_from_dict
from privsyn_jax.data.texts.schema import text_schema_from_dict
from privsyn_jax.types import AnySchema


def any_schema_from_dict(content: Any, *, source: str = "the schema") -> AnySchema:
    """The Schema, ImageSchema (it has a shape) or TextSchema (it names the text) of a parsed JSON object.

    Raises:
      UserError: a rule of its kind is broken.
    """
    if isinstance(content, Mapping) and "columns" not in content:
        if "shape" in content:
            return image_schema_from_dict(content, source=source)
        if "text" in content:
            return text_schema_from_dict(content, source=source)
    return schema_from_dict(content, source=source)
