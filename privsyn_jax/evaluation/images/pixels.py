"""Mean and spread of every class's pixels, synthetic beside real."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from privsyn_jax.evaluation.images.grid import tiles_png
from privsyn_jax.evaluation.rows import Rows
from privsyn_jax.types import Images, ImageSchema


class ClassMoments(NamedTuple):
    """Of every class: number of images [k]; mean and standard deviation of pixels, float64 [k, h, w, c] in [0, 1]."""

    count: np.ndarray
    mean: np.ndarray
    stddev: np.ndarray


def class_moments(images: Images, num_classes: int) -> ClassMoments:
    """Moments of every class; NaN for a class without images."""
    pixels, labels = np.asarray(images.pixels), np.asarray(images.labels)
    count = np.bincount(labels, minlength=num_classes)
    mean = np.full((num_classes, *pixels.shape[1:]), np.nan)
    stddev = mean.copy()
    for k in np.flatnonzero(count):
        of_class = pixels[labels == k].astype(np.float32) / 255
        mean[k], stddev[k] = of_class.mean(axis=0, dtype=np.float64), of_class.std(axis=0, dtype=np.float64)
    return ClassMoments(count, mean, stddev)


def pixel_rows(
    schema: ImageSchema, train: Images, test: Images, synthetic: Images, *, seed: int
) -> tuple[Rows, bytes | None]:
    """Differences of class means and of class standard deviations from real train, and a picture of the means.

    Metrics, each in [0, 1], 0 for equal classes, lower is better; the reference is of real held-out images:
      class_mean_difference: absolute difference of mean images, averaged over pixels; per class and averaged.
      class_stddev_difference: the same of the standard deviations of the pixels.
    Classes that are absent from one of the sets are left out and named in `skipped`.

    Args:
      schema: public facts.
      train: real images that were trained on.
      test: real held-out images.
      synthetic: synthetic images.
      seed: written into the rows; nothing is drawn.

    Returns:
      (rows, PNG or None); the PNG shows synthetic means above means of real training images, a column for a class.
    """
    rows = Rows("fidelity", seed)
    parts = {"synthetic": synthetic, "real training": train, "real held-out": test}
    all_moments = [class_moments(images, len(schema.classes)) for images in parts.values()]
    present = np.all([found.count > 0 for found in all_moments], axis=0)
    for described, found in zip(parts, all_moments, strict=True):
        for k in np.flatnonzero(found.count == 0):
            rows.skip("class_mean_difference", f"there is no {described} image of it", column=schema.classes[k])
    if not present.any():
        return rows, None
    of_synthetic, of_train, of_test = all_moments
    for metric, field in (("class_mean_difference", "mean"), ("class_stddev_difference", "stddev")):
        value, reference = (_difference(getattr(x, field), getattr(of_train, field)) for x in (of_synthetic, of_test))
        rows.add(metric, value[present].mean(), reference[present].mean())
        for k in np.flatnonzero(present):
            rows.add(metric, value[k], reference[k], column=schema.classes[k])
    return rows, tiles_png([_tiles(of_synthetic), _tiles(of_train)], schema.shape)


def _difference(of_one: np.ndarray, of_other: np.ndarray) -> np.ndarray:
    return np.abs(of_one - of_other).mean(axis=(1, 2, 3))


def _tiles(found: ClassMoments) -> Sequence[np.ndarray | None]:
    scaled = np.round(255 * np.nan_to_num(found.mean)).astype(np.uint8)
    return [scaled[k] if found.count[k] else None for k in range(len(found.count))]
