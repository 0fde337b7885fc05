"""Kinds of records: one file each."""

from __future__ import annotations

from privsyn_jax.modalities.images import IMAGES
from privsyn_jax.modalities.modality import Modality
from privsyn_jax.modalities.tables import TABLES
from privsyn_jax.modalities.texts import TEXTS
from privsyn_jax.types import AnySchema, ImageSchema, TextSchema

__all__ = ["IMAGES", "TABLES", "TEXTS", "Modality", "modality_of"]


def modality_of(schema: AnySchema) -> Modality:
    if isinstance(schema, ImageSchema):
        return IMAGES
    return TEXTS if isinstance(schema, TextSchema) else TABLES
