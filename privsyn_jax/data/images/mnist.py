"""MNIST, handwritten digits, from its four original idx files.

Source: LeCun, Cortes and Burges, http://yann.lecun.com/exdb/mnist/ (given as CC BY-SA 3.0).
"""

from __future__ import annotations

import numpy as np

from privsyn_jax.data.images.content import PublishedImages, check_published, hash_images
from privsyn_jax.data.images.idx import find_idx, read_idx
from privsyn_jax.privacy.guard import Private
from privsyn_jax.settings import DataSettings
from privsyn_jax.types import Images, ImageSchema, Records, UserError

SHAPE, CLASSES = (28, 28, 1), tuple("0123456789")
PUBLISHED = (  # the training part (files train-...), the test part (t10k-...)
    PublishedImages(
        (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
        "3655811c0e1223700a4714a92a51f55bd215ed7dc1fa2baa4326a2b58042d82d",
    ),
    PublishedImages(
        (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009),
        "634538fb34c5277fce98470b8b285d1e8419eb87f328da42ef1faf690d2c3911",
    ),
)
_STEMS = ("train", "t10k")
_WHERE = (
    "put train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz and "
    "t10k-labels-idx1-ubyte.gz (unpacked or not) there"
)


def read_schema(settings: DataSettings) -> ImageSchema:
    """The public codebook; num_records is that of the published training part."""
    del settings
    return ImageSchema(SHAPE, CLASSES, num_records=sum(PUBLISHED[0].class_counts))


def load(settings: DataSettings, schema: ImageSchema) -> Records:
    """The records of the folder `settings.dir`, in the published split.

    Raises:
      UserError: a file is absent or damaged, or its images are not the published ones.
    """
    train, test = read_published(settings.dir)
    return Records(schema, Private(train), Private(test), hash_images(train, test), Private({}))


def read_published(folder: str) -> tuple[Images, Images]:
    """(train, test), which are the published images."""
    parts = read(folder)
    for stem, images, published in zip(_STEMS, parts, PUBLISHED, strict=True):
        check_published(images, published, source=f"{stem}-images in {folder}", remedy="get the original MNIST files")
    return parts


def read(folder: str) -> tuple[Images, Images]:
    """(train, test) of the four files in `folder`, whatever their number.

    Raises:
      UserError: a file is absent, damaged, or does not go with the others.
    """
    if not folder:
        raise UserError(f"data.dir is not given: give the folder of the MNIST files, {_WHERE}")
    train, test = (_read_part(folder, stem) for stem in _STEMS)
    return train, test


def _read_part(folder: str, stem: str) -> Images:
    paths = {}
    for name, suffix in (("images", "-images-idx3-ubyte"), ("labels", "-labels-idx1-ubyte")):
        path = find_idx(folder, stem + suffix)
        if path is None:
            raise UserError(f"{stem}{suffix} was not found in {folder!r}: {_WHERE}")
        paths[name] = path
    pixels, labels = read_idx(paths["images"], 3), read_idx(paths["labels"], 1)
    if pixels.shape[1:] != SHAPE[:2]:
        height, width = pixels.shape[1:]
        raise UserError(f"{paths['images']} holds images of {height} x {width} instead of 28 x 28: get it again")
    if len(labels) != len(pixels):
        raise UserError(f"{paths['labels']} has {len(labels)} labels for {len(pixels)} images: get both again")
    if (labels >= len(CLASSES)).any():
        raise UserError(f"{paths['labels']} has the label {labels.max()}, and digits go to 9: get it again")
    return Images(pixels[..., None], labels.astype(np.int32))
