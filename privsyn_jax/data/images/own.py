"""The user's own images, a folder or an .npz, with an image schema JSON."""

from __future__ import annotations

import dataclasses
import os

from privsyn_jax.data.images.content import check_labels, check_range, hash_images, split_images
from privsyn_jax.data.images.folder import read_folder
from privsyn_jax.data.images.npz import names_of, read_npz
from privsyn_jax.data.images.schema import read_image_schema
from privsyn_jax.data.split import num_train_records
from privsyn_jax.privacy.guard import Private
from privsyn_jax.settings import DataSettings
from privsyn_jax.types import Images, ImageSchema, Records, UserError


def read_schema(settings: DataSettings) -> ImageSchema:
    """The image schema at `settings.schema`.

    Its num_records speaks of all of `path`; where `load` holds images out of it, the result's num_records is that of
    the training part.
    """
    if not settings.schema:
        raise UserError(
            "data.schema is not given: propose one with `python -m launch.schema FOLDER > schema.json`, edit it, and "
            "give its path"
        )
    schema = read_image_schema(settings.schema)
    if settings.test_path:
        return schema
    return dataclasses.replace(schema, num_records=num_train_records(schema.num_records, settings.test_fraction))


def load(settings: DataSettings, schema: ImageSchema) -> Records:
    """The records of `settings.path`; held out are those of `test_path`, or some of `path` by `split_images`.

    An .npz with x_train and x_test is given as both `path` and `test_path`.

    Raises:
      UserError: a file is bad, or does not agree with the schema.
    """
    if not settings.path:
        raise UserError("data.path is not given: give a folder of CLASS/NAME.png, or an .npz of images and labels")
    train = _read(settings, settings.path, schema, "train")
    if settings.test_path:
        test = _read(settings, settings.test_path, schema, "test")
        return Records(schema, Private(train), Private(test), hash_images(train, test), Private({}))
    if settings.path.endswith(".npz") and "x_test" in names_of(settings.path):
        raise UserError(f"{settings.path} holds x_test besides x_train: give it as data.test_path, too")
    content_hash = hash_images(train)
    train, test = split_images(train, settings.test_fraction)
    return Records(schema, Private(train), Private(test), content_hash, Private({}))


def read_synthetic(path: str, schema: ImageSchema) -> tuple[Images, list[str]]:
    """Images made elsewhere, as few and of as few classes as they come; and what is odd about them: nothing.

    Raises:
      UserError: the file is bad or holds no images, they have another shape, or a label is no class.
    """
    images = _read_images(path, schema, "train", resize=False)
    if not len(images.labels):
        raise UserError(f"{path} holds no images: there is nothing to evaluate")
    check_range(images.labels, schema, path)
    return images, []


def _read(settings: DataSettings, path: str, schema: ImageSchema, part: str) -> Images:
    images = _read_images(path, schema, part, resize=settings.resize)
    check_labels(images.labels, schema, path)
    return images


def _read_images(path: str, schema: ImageSchema, part: str, *, resize: bool) -> Images:
    if os.path.isdir(path):
        return read_folder(path, schema, resize=resize)
    if path.endswith(".npz"):
        return read_npz(path, schema, part=part, resize=resize)
    if os.path.exists(path):
        raise UserError(f"{path} is neither a folder nor an .npz file: give a folder of CLASS/NAME.png, or an .npz")
    raise UserError(f"{path} does not exist: give a folder of CLASS/NAME.png, or an .npz of images and labels")
