"""CIFAR-10, photographs of ten classes, from its original archives or batches.

The batches come in several layouts and orders, so that the published content is told by an order-independent digest.

Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images".
"""

from __future__ import annotations

import os

import numpy as np

from privsyn_jax.data.images.cifar10_layouts import NUM_TRAIN_BATCHES, read_batches
from privsyn_jax.data.images.content import PublishedImages, check_published, hash_images
from privsyn_jax.privacy.guard import Private
from privsyn_jax.settings import DataSettings
from privsyn_jax.types import Images, ImageSchema, Records, UserError

SHAPE = (32, 32, 3)
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PUBLISHED = (  # the training part, the test part
    PublishedImages((5000,) * 10, "d59acf989e068e709ce686cda292672c7b212c08d29d3d3e6d8c3aa99eba6a85"),
    PublishedImages((1000,) * 10, "899683d46c3a8c66fd56e1af12202e69fe5a4517be10b0f68e04c78fe585c57c"),
)
_WHERE = "put cifar-10-python.tar.gz or cifar-10-binary.tar.gz (unpacked or not) there"


def read_schema(settings: DataSettings) -> ImageSchema:
    """The public codebook; num_records is that of the published training part."""
    del settings
    return ImageSchema(SHAPE, CLASSES, num_records=sum(PUBLISHED[0].class_counts))


def load(settings: DataSettings, schema: ImageSchema) -> Records:
    """The records of the folder `settings.dir`, in the published split.

    Raises:
      UserError: no layout of CIFAR-10 is there, a file is damaged, or the images are not the published ones.
    """
    train, test = read_published(settings.dir)
    return Records(schema, Private(train), Private(test), hash_images(train, test), Private({}))


def read_published(folder: str) -> tuple[Images, Images]:
    """(train, test), which are the published images."""
    parts = read(folder)
    for name, images, published in zip(("training", "test"), parts, PUBLISHED, strict=True):
        source = f"the {name} part of CIFAR-10 in {folder}"
        check_published(images, published, source=source, remedy="get the original files")
    return parts


def read(folder: str) -> tuple[Images, Images]:
    """(train, test) of whichever layout is in `folder`, whatever their number.

    Raises:
      UserError: there is none, or it is damaged.
    """
    if not folder:
        raise UserError(f"data.dir is not given: give the folder of CIFAR-10, {_WHERE}")
    if not os.path.isdir(folder):
        raise UserError(f"data.dir {folder!r} is no folder: give the folder of CIFAR-10, {_WHERE}")
    batches = read_batches(folder)
    if batches is None:
        raise UserError(f"CIFAR-10 was not found in {folder!r}: {_WHERE}")
    train = Images(*(np.concatenate(arrays) for arrays in zip(*batches[:NUM_TRAIN_BATCHES], strict=True)))
    return train, batches[NUM_TRAIN_BATCHES]
