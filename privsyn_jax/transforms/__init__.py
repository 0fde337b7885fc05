"""Records to encoded examples and back."""

from __future__ import annotations

from typing import Any

from privsyn_jax.transforms.discretize import Discretizer
from privsyn_jax.transforms.images import ImageTransform


def transform_from_dict(content: dict[str, Any]) -> Discretizer | ImageTransform:
    """What `to_dict` of either was made from."""
    kind = ImageTransform if "image_schema" in content else Discretizer
    return kind.from_dict(content)
