"""The Python interface: DataFrames in, DataFrames out; Images in, Images out; texts in, a DataFrame of texts out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from privsyn_jax.data.images.content import check_labels
from privsyn_jax.data.schema import read_json
from privsyn_jax.data.schemas import any_schema_from_dict
from privsyn_jax.data.texts.content import conform_texts
from privsyn_jax.data.validate import conform
from privsyn_jax.fitted import Run
from privsyn_jax.learn import learn
from privsyn_jax.modalities import modality_of
from privsyn_jax.models import GENERATORS, kind_of
from privsyn_jax.plan import make_plan
from privsyn_jax.privacy.guard import Private
from privsyn_jax.settings import settings_from_dict
from privsyn_jax.training.attempt import Attempt
from privsyn_jax.types import AnySchema, Images, ImageSchema, Schema, Texts, TextSchema, UserError


def fit(
    records: pd.DataFrame | Images | Texts,
    schema: AnySchema | Mapping[str, Any] | str | Path,
    *,
    model: str = "autoregressive",
    epsilon: float | None = 1.0,
    delta: float | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Run:
    """Trains a generator on private records; all of them, none is held out.

    Args:
      records: the private table, labelled Images (pixels uint8 [n, h, w, c], labels int [n]), or Texts; texts also as a
        table with the columns that the schema names.
      schema: their public facts: a Schema, ImageSchema or TextSchema, its dict, or the path of a JSON file.
      model: one of `list_models()`, or your own as "module:function", see `models.own`.
      epsilon: of the whole fit; None if settings give privacy.noise_multiplier instead.
      delta: of the whole fit; None means 1 / num_records^1.1 with the schema's public figure.
      settings: sections as in a config, for example {"training": {"num_steps": 200}}.

    Returns:
      A Run: `.sample(n)`, `.privacy`, `.save(folder)`.

    Raises:
      UserError: one sentence that names the column or setting and the remedy.
    """
    schema = _read_schema(schema)
    _check_kind(records, schema)
    sections: dict[str, Any] = dict(settings or {})
    sections["model"] = {"name": model, **sections.get("model", {})}
    sections["privacy"] = {"epsilon": epsilon, "delta": delta or 0.0, **sections.get("privacy", {})}
    checked = settings_from_dict(sections)
    modality = modality_of(schema)
    if kind_of(model) != modality.name:
        raise UserError(f"model {model!r} does not make {modality.name}: use one of {', '.join(modality.generators)}")
    modality.check(schema, checked)
    plan, attempt = make_plan(checked, schema), Attempt.in_memory(checked.privacy.noise_seed)
    if isinstance(schema, ImageSchema):
        return learn(Private(_conform_images(records, schema)), schema, plan, checked, attempt)
    if isinstance(schema, TextSchema):
        assert isinstance(records, pd.DataFrame | Texts)
        texts = conform_texts(records, schema, source="the set of texts given")
        return learn(Private(texts), schema, plan, checked, attempt)
    assert isinstance(records, pd.DataFrame)
    frame, _ = conform(records, schema, out_of_bounds=checked.data.out_of_bounds, source="the table")
    run = learn(Private(frame), schema, plan, checked, attempt)
    return run.with_dtypes({name: str(records[name].dtype) for name in schema.names})


def _read_schema(schema: Any) -> AnySchema:
    """The schema of whatever kind, checked."""
    source = "the schema"
    if isinstance(schema, Schema | ImageSchema | TextSchema):
        schema = modality_of(schema).schema_to_dict(schema)
    elif isinstance(schema, str | Path):
        source, schema = str(schema), read_json(str(schema), propose_from="data.csv")
    return any_schema_from_dict(schema, source=source)


def _check_kind(records: Any, schema: AnySchema) -> None:
    """Raises UserError unless the records are of the kind that the schema describes."""
    kind = "a table" if isinstance(records, pd.DataFrame) else "texts" if isinstance(records, Texts) else "images"
    if kind == "images" and not (isinstance(records, list | tuple) and len(records) == 2):
        raise UserError(
            f"the records are {type(records).__name__!r}: give a DataFrame, Images(pixels, labels) or "
            "Texts(texts, labels)"
        )
    wanted, remedy = "a table", "a DataFrame"
    if isinstance(schema, ImageSchema):
        wanted, remedy = "images", "Images(pixels, labels)"
    elif isinstance(schema, TextSchema):
        wanted, remedy = "texts", f"a DataFrame with the column {schema.text!r}, or Texts(texts, labels)"
    if kind != wanted and (kind, wanted) != ("a table", "texts"):
        raise UserError(
            f"the records are {kind}, and the schema describes {wanted}: give {remedy}, or the schema of {kind}"
        )


def _conform_images(records: Any, schema: ImageSchema) -> Images:
    """The images as arrays of the schema's shape."""
    pixels, labels = (np.asarray(array) for array in records)
    if pixels.dtype != np.uint8 or pixels.shape[1:] != schema.shape or labels.shape != pixels.shape[:1]:
        raise UserError(
            f"the images are {pixels.dtype} {list(pixels.shape)} with labels {list(labels.shape)}: give uint8 pixels "
            f"[n, {', '.join(map(str, schema.shape))}] and labels [n]"
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"the labels are {labels.dtype}: give whole numbers from 0 to {len(schema.classes) - 1}")
    check_labels(labels, schema, "the set of images given")
    return Images(pixels, labels.astype(np.int32))


def list_models() -> list[str]:
    """Names for `fit(model=...)`."""
    return sorted(GENERATORS)
