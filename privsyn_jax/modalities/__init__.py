"""Kinds of records: one file each."""

from __future__ import annotations

from privsyn_jax.modalities.images import IMAGES
from privsyn_jax.modalities.modality import Modality
from privsyn_jax.modalities.tables import TABLES
from privsyn_jax.types import ImageSchema, Schema

__all__ = ["IMAGES", "TABLES", "Modality", "modality_of"]


def modality_of(schema: Schema | ImageSchema) -> Modality:
    return IMAGES if isinstance(schema, ImageSchema) else TABLES
