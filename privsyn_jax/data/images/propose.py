"""An image schema proposed from a folder of images or an .npz, for its owner to edit.

Every fact here is taken from the private images. Each is therefore listed under "declared_public", which the privacy
report repeats: by keeping the proposal, the owner declares that fact public.

How facts are proposed:
- shape: the size that most images have (the larger one of a tie); 1 channel if all are grey, else 3;
- classes: the names of the subfolders, or the numbers from 0 to the largest label of an .npz;
- num_records: the number of images, rounded to two digits.
"""

from __future__ import annotations

import collections
import math
import os
from typing import Any, NamedTuple

from privsyn_jax.data.images.folder import list_files
from privsyn_jax.data.images.npz import read_arrays
from privsyn_jax.data.images.picture import size_and_channels
from privsyn_jax.data.images.schema import MAX_SIDE, check_image_schema, image_schema_to_dict
from privsyn_jax.types import ImageSchema, UserError

_MAX_LABEL = 9_999


class Survey(NamedTuple):
    """What was seen of the images: how many of each (height, width), their most channels, and the classes' names."""

    sizes: dict[tuple[int, int], int]
    channels: int
    classes: tuple[str, ...]


def survey(path: str) -> Survey:
    """Looks at the headers of the files of a folder, or at the arrays of an .npz.

    Raises:
      UserError: it cannot be read, or holds no images.
    """
    seen = _survey_folder(path) if os.path.isdir(path) else _survey_npz(path)
    if not seen.sizes:
        raise UserError(f"{path} holds no images: give a folder of CLASS/NAME.png, or an .npz of images and labels")
    return seen


def propose_image_schema(seen: Survey, *, source: str = "the folder") -> dict[str, Any]:
    """A schema object, in the form of `image_schema_from_dict`.

    Raises:
      UserError: a rule of `check_image_schema` is broken, as by a single class.
    """
    num_images = sum(seen.sizes.values())
    height, width = max(seen.sizes, key=lambda size: (seen.sizes[size], size))
    schema = ImageSchema(
        shape=(min(height, MAX_SIDE), min(width, MAX_SIDE), seen.channels),
        classes=seen.classes,
        num_records=_two_digits(num_images),
        declared_public=("shape", "classes", "num_records"),
    )
    check_image_schema(schema, source=source)
    return image_schema_to_dict(schema)


def image_proposal_notes(seen: Survey, proposal: dict[str, Any]) -> list[str]:
    """Sentences on what the owner should look at, for a proposal made from what was seen."""
    if all(list(size) == proposal["shape"][:2] for size in seen.sizes):
        return []
    sides = [side for size in seen.sizes for side in size]
    return [
        f"the images have sides of {min(sides)} to {max(sides)} pixels: choose one shape for all, and set "
        "data.resize=True, which scales the shorter side and cuts out the centre."
    ]


def _survey_folder(folder: str) -> Survey:
    files = list_files(folder)
    shapes = [size_and_channels(path) for paths in files.values() for path in paths]
    sizes = collections.Counter((height, width) for height, width, _ in shapes)
    return Survey(dict(sizes), max((channels for _, _, channels in shapes), default=1), tuple(files))


def _survey_npz(path: str) -> Survey:
    pixels, labels = read_arrays(path, "train")
    if len(pixels) == 0:
        return Survey({}, 1, ())
    if not 0 <= labels.min() <= labels.max() <= _MAX_LABEL:
        raise UserError(f"{path} has labels from {labels.min()} to {labels.max()}: number the classes from 0")
    height, width = pixels.shape[1:3]
    channels = pixels.shape[3] if pixels.ndim == 4 else 1
    return Survey({(height, width): len(pixels)}, channels, tuple(str(i) for i in range(labels.max() + 1)))


def _two_digits(count: int) -> int:
    step = 10 ** max(0, math.floor(math.log10(count)) - 1)
    return round(count / step) * step
