"""Images side by side as a PNG. What is drawn of synthetic images alone may be published with them."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import matplotlib.image
import numpy as np

from privsyn_jax.types import Images, ImageSchema

_SMALLEST = 48  # pixels that a tile is enlarged to, at least
_GAP = 4
_PAPER = 224  # grey between the tiles, and where a tile is absent


def grid_png(images: Images, schema: ImageSchema, *, per_class: int = 8) -> bytes:
    """The first images of every class, one class a row; a class with fewer leaves a gap.

    Args:
      images: any number of them, in any order.
      schema: public facts.
      per_class: columns.

    Returns:
      A PNG; tiny images are enlarged by a whole factor, without smoothing.
    """
    pixels, labels = np.asarray(images.pixels), np.asarray(images.labels)
    rows = [[pixels[i] for i in np.flatnonzero(labels == k)[:per_class]] for k in range(len(schema.classes))]
    return tiles_png([[*row, *[None] * (per_class - len(row))] for row in rows], schema.shape)


def tiles_png(rows: Sequence[Sequence[np.ndarray | None]], shape: tuple[int, int, int]) -> bytes:
    """A PNG of rows of equally many images uint8 [height, width, channels] of one shape; None leaves a gap."""
    height, width, _ = shape
    factor = math.ceil(_SMALLEST / max(height, width))
    step_y, step_x = factor * height + _GAP, factor * width + _GAP
    sheet = np.full((len(rows) * step_y + _GAP, len(rows[0]) * step_x + _GAP, 3), _PAPER, np.uint8)
    for i, row in enumerate(rows):
        for j, tile in enumerate(row):
            if tile is not None:
                top, left = _GAP + i * step_y, _GAP + j * step_x
                enlarged = tile.repeat(factor, axis=0).repeat(factor, axis=1)
                sheet[top : top + factor * height, left : left + factor * width] = enlarged  # grey fills all three
    buffer = io.BytesIO()
    matplotlib.image.imsave(buffer, sheet, format="png")
    return buffer.getvalue()
