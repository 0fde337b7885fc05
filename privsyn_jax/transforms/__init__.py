"""Records to encoded examples and back."""

from __future__ import annotations

from typing import Any

from privsyn_jax.transforms.discretize import Discretizer
from privsyn_jax.transforms.images import ImageTransform
from privsyn_jax.transforms.texts import TextTransform

Transform = Discretizer | ImageTransform | TextTransform
_KINDS = {"image_schema": ImageTransform, "text_schema": TextTransform}  # by a key that only its content has


def transform_from_dict(content: dict[str, Any]) -> Transform:
    """What `to_dict` of any of them was made from."""
    kind = next((kind for key, kind in _KINDS.items() if key in content), Discretizer)
    return kind.from_dict(content)
