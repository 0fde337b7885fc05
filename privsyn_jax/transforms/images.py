"""Images are encoded as they are: bytes on the device, which a loss turns into numbers."""

from __future__ import annotations

import dataclasses
from typing import Any

from privsyn_jax.data.images.schema import image_schema_from_dict, image_schema_to_dict
from privsyn_jax.types import Images, ImageSchema


@dataclasses.dataclass(frozen=True)
class ImageTransform:
    """Nothing is fitted, so nothing is bought."""

    schema: ImageSchema

    def encode(self, images: Images) -> Images:
        return images

    def encode_units(self, images: Images) -> Images:
        """One example per unit: an image is a unit by itself."""
        return self.encode(images)

    def decode(self, images: Images) -> Images:
        return images

    def to_dict(self) -> dict[str, Any]:
        return {"image_schema": image_schema_to_dict(self.schema)}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> ImageTransform:
        return cls(image_schema_from_dict(content["image_schema"]))
