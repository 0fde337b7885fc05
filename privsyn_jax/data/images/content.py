"""Loaded images: their hash, whether they fit the schema, whether they are the published ones, and the split."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np

from privsyn_jax.data.split import held_out
from privsyn_jax.data.validate import MIN_RECORDS
from privsyn_jax.types import Images, ImageSchema, UserError


class PublishedImages(NamedTuple):
    """What is known about a published set: images per class, and `digest_of_set`."""

    class_counts: tuple[int, ...]
    sha256: str


def hash_images(*parts: Images) -> str:
    """sha256 of shapes, pixels and labels, in order: the same whatever format the images came from."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(repr(part.pixels.shape).encode())
        digest.update(np.ascontiguousarray(part.pixels).data)
        digest.update(part.labels.astype("<i4").data)
    return digest.hexdigest()


def digest_of_set(images: Images) -> str:
    """sha256 that does not depend on the order of the images: of the sorted hashes of each label and its pixels."""
    pixels = images.pixels.reshape(len(images.pixels), -1)
    labelled = np.concatenate([images.labels.astype(np.uint8)[:, None], pixels], axis=1)
    return hashlib.sha256(b"".join(sorted(hashlib.sha256(row).digest() for row in labelled))).hexdigest()


def check_published(images: Images, published: PublishedImages, *, source: str, remedy: str) -> None:
    """Raises UserError, ending in `remedy`, when `images` are not the published ones, in whatever order."""
    num_published = sum(published.class_counts)
    if len(images.labels) != num_published:
        raise UserError(f"{source} has {len(images.labels)} images instead of the published {num_published}: {remedy}")
    counts = np.bincount(images.labels, minlength=len(published.class_counts)).tolist()
    if tuple(counts) != published.class_counts:
        raise UserError(f"{source} has other numbers of images per class than the published: {remedy}")
    if digest_of_set(images) != published.sha256:
        raise UserError(f"{source} has the published number of images, but other content: {remedy}")


def check_labels(labels: np.ndarray, schema: ImageSchema, source: str) -> None:
    """Raises UserError unless the labels [n] are enough, within the schema's classes, and of two classes or more."""
    if len(labels) == 0:
        raise UserError(f"{source} holds no images: give at least {MIN_RECORDS}")
    if len(labels) < MIN_RECORDS:
        raise UserError(
            f"{source} has {len(labels)} images, too few to learn from privately: give at least {MIN_RECORDS}"
        )
    check_range(labels, schema, source)
    if (labels == labels[0]).all():
        raise UserError(
            f"{source} holds images of one class only ({schema.classes[labels[0]]!r}), and utility is measured by "
            "telling classes apart: add images of another class"
        )


def check_range(labels: np.ndarray, schema: ImageSchema, source: str) -> None:
    """Raises UserError unless the labels [n] number the schema's classes."""
    num_classes = len(schema.classes)
    outside = (labels < 0) | (labels >= num_classes)
    if outside.any():
        raise UserError(
            f"{source} has the label {labels[outside][0]}, and the schema's {num_classes} classes are numbered "
            f"0 to {num_classes - 1}: correct the label or list its class"
        )


def split_images(images: Images, test_fraction: float) -> tuple[Images, Images]:
    """(train, test) by the public rule `held_out`, each in the order that they came in.

    Raises:
      UserError: one of the parts has no image.
    """
    is_test = held_out(len(images.labels), test_fraction)
    if is_test.all() or not is_test.any():
        raise UserError(
            f"data.test_fraction {test_fraction} leaves one part of {len(is_test)} images empty: "
            "choose one nearer to 0.3, or give data.test_path"
        )
    return (
        Images(images.pixels[~is_test], images.labels[~is_test]),
        Images(images.pixels[is_test], images.labels[is_test]),
    )
