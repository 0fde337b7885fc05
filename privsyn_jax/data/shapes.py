"""Images of single shapes, made here from a seed: what varies in them is known and independent.

For measuring whether the latents of a generator are those factors one by one, as with dSprites, but small enough for
minutes on a CPU. They are of no one: nothing in them is private.

Source of the idea: Matthey et al. 2017, "dSprites: Disentanglement Testing Sprites Dataset".
"""

from __future__ import annotations

import numpy as np

from privsyn_jax.types import Images

KINDS = ("square", "disc", "triangle")
FACTORS = {"kind": len(KINDS), "x": 8, "y": 8, "size": 4, "brightness": 4}  # name -> number of values
_SUBPIXELS = 4  # a side, of which a pixel's grey is the mean


def shapes(num_images: int, side: int, *, seed: int) -> tuple[Images, np.ndarray]:
    """Grey images of one shape on black.

    Args:
      num_images: n.
      side: pixels, 8 or more.
      seed: of the factors; an image is a function of its factors alone.

    Returns:
      Images with pixels uint8 [n, side, side, 1], the label being the kind of shape, and factors int32 [n, 5] in the
      order of FACTORS, each uniform over its values and independent of the others.

    Raises:
      ValueError: fewer than 8 pixels a side, or less than no image.
    """
    if side < 8 or num_images < 0:
        raise ValueError(f"side {side} must be 8 or more, and num_images {num_images} 0 or more")
    rng = np.random.default_rng(seed)
    factors = np.stack([rng.integers(0, count, num_images) for count in FACTORS.values()], axis=1).astype(np.int32)
    kind, x, y, size, brightness = factors.T
    radius = 0.12 + 0.04 * size  # of the circle around the shape's middle, where a side of the image is 1
    centers = 0.32 + 0.36 * np.stack([x, y], axis=1) / 7  # the largest shape touches no border
    grid = (np.arange(side * _SUBPIXELS) + 0.5) / (side * _SUBPIXELS)
    coverage = np.empty((num_images, side, side))
    for number in range(num_images):
        across, down = (grid - centers[number, 0])[None, :], (grid - centers[number, 1])[:, None]
        inside = _is_inside(KINDS[kind[number]], across / radius[number], down / radius[number])
        coverage[number] = inside.reshape(side, _SUBPIXELS, side, _SUBPIXELS).mean(axis=(1, 3))
    grey = coverage * (0.4 + 0.2 * brightness)[:, None, None]
    return Images(np.round(255 * grey).astype(np.uint8)[..., None], kind.astype(np.int32)), factors


def _is_inside(kind: str, across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Whether points, in radii from the middle, lie in a shape."""
    if kind == "square":
        return np.maximum(np.abs(across), np.abs(down)) <= 0.85
    if kind == "disc":
        return across**2 + down**2 <= 0.96**2
    return (down <= 0.75) & (1.6 * np.abs(across) <= down + 1.1)  # on a horizontal base
