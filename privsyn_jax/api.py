"""The Python interface: DataFrames in, DataFrames out; Images in, Images out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from privsyn_jax.data.images.content import check_labels
from privsyn_jax.data.images.schema import image_schema_from_dict, image_schema_to_dict, read_image_schema
from privsyn_jax.data.schema import read_schema, schema_from_dict
from privsyn_jax.data.schema_check import check_schema
from privsyn_jax.data.validate import conform
from privsyn_jax.fitted import Run
from privsyn_jax.learn import learn
from privsyn_jax.modalities import modality_of
from privsyn_jax.models import GENERATORS
from privsyn_jax.plan import make_plan
from privsyn_jax.privacy.guard import Private
from privsyn_jax.settings import settings_from_dict
from privsyn_jax.training.attempt import Attempt
from privsyn_jax.types import Images, ImageSchema, Schema, UserError


def fit(
    records: pd.DataFrame | Images,
    schema: Schema | ImageSchema | Mapping[str, Any] | str | Path,
    *,
    model: str = "autoregressive",
    epsilon: float | None = 1.0,
    delta: float | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Run:
    """Trains a generator on private records; all of them, none is held out.

    Args:
      records: the private table, or labelled Images (pixels uint8 [n, h, w, c], labels int [n]).
      schema: their public facts: a Schema or ImageSchema, its dict, or the path of a JSON file.
      model: one of `list_models()`.
      epsilon: of the whole fit; None if settings give privacy.noise_multiplier instead.
      delta: of the whole fit; None means 1 / num_records^1.1 with the schema's public figure.
      settings: sections as in a config, for example {"training": {"num_steps": 200}}.

    Returns:
      A Run: `.sample(n)`, `.privacy`, `.save(folder)`.

    Raises:
      UserError: one sentence that names the column or setting and the remedy.
    """
    is_images = not isinstance(records, pd.DataFrame)
    if is_images and not (isinstance(records, list | tuple) and len(records) == 2):
        raise UserError(f"the records are {type(records).__name__!r}: give a DataFrame, or Images(pixels, labels)")
    schema = _read_images_schema(schema) if is_images else _read_table_schema(schema)
    sections: dict[str, Any] = dict(settings or {})
    sections["model"] = {"name": model, **sections.get("model", {})}
    sections["privacy"] = {"epsilon": epsilon, "delta": delta or 0.0, **sections.get("privacy", {})}
    checked = settings_from_dict(sections)
    modality = modality_of(schema)
    if model not in modality.generators:
        raise UserError(f"model {model!r} does not make {modality.name}: use one of {', '.join(modality.generators)}")
    modality.check(schema, checked)
    plan, attempt = make_plan(checked, schema), Attempt.in_memory(checked.privacy.noise_seed)
    if isinstance(schema, ImageSchema):
        return learn(Private(_conform_images(Images(*records), schema)), schema, plan, checked, attempt)
    assert isinstance(records, pd.DataFrame)
    frame, _ = conform(records, schema, out_of_bounds=checked.data.out_of_bounds, source="the table")
    run = learn(Private(frame), schema, plan, checked, attempt)
    return run.with_dtypes({name: str(records[name].dtype) for name in schema.names})


def _conform_images(images: Images, schema: ImageSchema) -> Images:
    """The images as arrays of the schema's shape."""
    pixels, labels = np.asarray(images.pixels), np.asarray(images.labels)
    if pixels.dtype != np.uint8 or pixels.shape[1:] != schema.shape or labels.shape != pixels.shape[:1]:
        raise UserError(
            f"the images are {pixels.dtype} {list(pixels.shape)} with labels {list(labels.shape)}: give uint8 pixels "
            f"[n, {', '.join(map(str, schema.shape))}] and labels [n]"
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"the labels are {labels.dtype}: give whole numbers from 0 to {len(schema.classes) - 1}")
    check_labels(labels, schema, "the set of images given")
    return Images(pixels, labels.astype(np.int32))


def _read_table_schema(schema: Any) -> Schema:
    if isinstance(schema, str | Path):
        schema = read_schema(str(schema))
    elif isinstance(schema, Mapping):
        schema = schema_from_dict(dict(schema))
    if isinstance(schema, ImageSchema):
        raise UserError("the records are a table, and the schema describes images: give the table's Schema, or Images")
    check_schema(schema)
    return schema


def _read_images_schema(schema: Any) -> ImageSchema:
    if isinstance(schema, str | Path):
        return read_image_schema(str(schema))
    if isinstance(schema, Schema):
        raise UserError("the records are images, and the schema describes a table: give an ImageSchema, or a DataFrame")
    return image_schema_from_dict(dict(schema) if isinstance(schema, Mapping) else image_schema_to_dict(schema))


def list_models() -> list[str]:
    """Names for `fit(model=...)`."""
    return sorted(GENERATORS)
