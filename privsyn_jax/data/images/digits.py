"""Handwritten digits of 8 x 8 pixels, the 1,797 images that ship inside scikit-learn: nothing to fetch.

Source: sklearn.datasets.load_digits, after Alpaydin and Kaynak 1998, "Optical Recognition of Handwritten Digits",
UCI Machine Learning Repository (CC BY 4.0).
"""

from __future__ import annotations

import numpy as np

from privsyn_jax.data.images.content import PublishedImages, check_published, hash_images, split_images
from privsyn_jax.data.split import num_train_records
from privsyn_jax.privacy.guard import Private
from privsyn_jax.settings import DataSettings
from privsyn_jax.types import Images, ImageSchema, Records

SHAPE, CLASSES = (8, 8, 1), tuple("0123456789")
PUBLISHED = PublishedImages(
    (178, 182, 177, 183, 181, 182, 181, 179, 174, 180),
    "dbe83dd3cb9e40866170f1a01492ff250c74ab8f379ff2b8aaf5b99374954c79",
)
_LARGEST = 16  # the file counts the set pixels of 4 x 4 blocks


def read_schema(settings: DataSettings) -> ImageSchema:
    """The public codebook; num_records is that of the training part."""
    return ImageSchema(SHAPE, CLASSES, num_train_records(sum(PUBLISHED.class_counts), settings.test_fraction))


def load(settings: DataSettings, schema: ImageSchema) -> Records:
    """The records of the installed scikit-learn, split by the public rule.

    Raises:
      UserError: the packaged images are not the published ones.
    """
    from sklearn.datasets import load_digits  # slow to import: only where its images are wanted

    counts, labels = load_digits(return_X_y=True)
    images = Images(scale(np.asarray(counts)).reshape(-1, *SHAPE), np.asarray(labels).astype(np.int32))
    remedy = "install the version in constraints.txt"
    check_published(images, PUBLISHED, source="the digits of the installed scikit-learn", remedy=remedy)
    train, test = split_images(images, settings.test_fraction)
    return Records(schema, Private(train), Private(test), hash_images(images), Private({}))


def scale(counts: np.ndarray) -> np.ndarray:
    """Counts from 0 to 16 as uint8 pixels from 0 to 255."""
    return np.round(counts * (255 / _LARGEST)).astype(np.uint8)
