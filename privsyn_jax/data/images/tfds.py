"""Images that tensorflow-datasets prepared as array_record files: read without TensorFlow, and never downloaded.

Source: https://www.tensorflow.org/datasets (package tensorflow-datasets, an optional dependency).
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from privsyn_jax.data.images.content import check_labels, hash_images, split_images
from privsyn_jax.data.images.schema import check_image_schema
from privsyn_jax.data.split import num_train_records
from privsyn_jax.privacy.guard import Private
from privsyn_jax.settings import DataSettings
from privsyn_jax.types import Images, ImageSchema, Records, UserError

PREFIX = "tfds:"
DEFAULT_DIR = "~/tensorflow_datasets"
_SOURCE = re.compile(r"tfds:(?P<name>\w+)(/(?P<config>[\w.+-]+))?(:(?P<version>\d+\.\d+\.\d+))?")
_BLOCK = 1024  # examples decoded at a time


def read_schema(settings: DataSettings) -> ImageSchema:
    """The public facts in the prepared metadata; no image is read.

    num_records is the size of split "train" (of its training part where there is no split "test"), which whoever
    prepared the images wrote down: it is listed as declared public.

    Raises:
      UserError: tensorflow-datasets is not installed, nothing usable is prepared there, or it is not one labelled
        image of a fixed size per example.
    """
    info = open_prepared(settings).info
    image_key, label_key = _find_keys(info, settings.source)
    schema = ImageSchema(
        shape=tuple(info.features[image_key].shape),
        classes=tuple(info.features[label_key].names),
        num_records=num_in_training_part(info, settings),
        declared_public=("num_records",),
    )
    check_image_schema(schema, source=settings.source)
    return schema


def load(settings: DataSettings, schema: ImageSchema) -> Records:
    """The records of splits "train" and "test"; without the latter, some of "train" are held out by `split_images`.

    Raises:
      UserError: see `read_schema`; or an example cannot be read, or is not of the schema's shape and classes.
    """
    builder = open_prepared(settings)
    parts = [_read_split(builder, name, schema, settings) for name in ("train", "test") if name in builder.info.splits]
    train, test = parts if len(parts) == 2 else split_images(parts[0], settings.test_fraction)
    return Records(schema, Private(train), Private(test), hash_images(*parts), Private({}))


def open_prepared(settings: DataSettings) -> Any:
    """The read-only builder of what is prepared in `settings.dir` under the name in `settings.source`.

    Raises:
      UserError: it is not there, not as array_record, or not readable; or tensorflow-datasets is not installed.
    """
    folder = find_prepared(settings.source, settings.dir)
    tfds = import_tfds()
    try:
        builder = tfds.builder_from_directory(folder)
        file_format = getattr(builder.info.file_format, "value", None)
    except Exception as error:  # whatever damaged metadata comes to
        first_line = (str(error).splitlines() or [""])[0]
        raise UserError(f"{folder} is not readable by tensorflow-datasets ({first_line}): prepare it again") from None
    if file_format != "array_record":
        raise UserError(
            f"{folder} is prepared as {file_format}, which needs TensorFlow to read: prepare it again with "
            "file_format='array_record'"
        )
    return builder


def find_prepared(source: str, data_dir: str) -> str:
    """The folder DATA_DIR/NAME[/CONFIG]/VERSION of "tfds:NAME[/CONFIG][:VERSION]"; the newest version if none is said.

    Raises:
      UserError: the source is written otherwise, or there is no such folder.
    """
    found = _SOURCE.fullmatch(source)
    if found is None:
        raise UserError(f"data.source is {source!r}: write tfds:NAME, tfds:NAME/CONFIG or tfds:NAME/CONFIG:VERSION")
    name, config, wanted = found["name"], found["config"], found["version"]
    root = os.path.join(os.path.expanduser(data_dir or DEFAULT_DIR), name, *([config] if config else []))
    versions = _versions(root)
    if versions and (wanted is None or wanted in versions):
        return os.path.join(root, wanted or versions[-1])
    if versions:
        raise UserError(f"{source} is not prepared in {root}, which has {', '.join(versions)}: choose one of these")
    configs = [] if config else [name for name in _folders(root) if _versions(os.path.join(root, name))]
    if configs:
        raise UserError(f"{source} has configurations in {root}: say which, as in tfds:{name}/{configs[0]}")
    remedy = "prepare it there as array_record (nothing is downloaded from here)"
    if name in ("mnist", "cifar10"):
        remedy += f", for instance by `python -m launch.prepare_tfds {name} --manual_dir=FOLDER_OF_ORIGINAL_FILES`"
    raise UserError(f"{source} is not prepared in {root}: {remedy}, or correct data.dir")


def import_tfds() -> Any:
    """The module tensorflow_datasets, which takes seconds to import: only where it is wanted.

    Raises:
      UserError: it is not installed.
    """
    try:
        importlib.import_module("array_record.python.array_record_data_source")  # what it reads and writes with
        return importlib.import_module("tensorflow_datasets")
    except ImportError as error:
        raise UserError(
            f"sources that start with {PREFIX!r} need packages that are not installed ({error}): "
            "install privsyn_jax[tfds]"
        ) from None


def num_in_training_part(info: Any, settings: DataSettings) -> int:
    """The size of split "train", or of its training part where there is no split "test", as the metadata say.

    Raises:
      UserError: there is no split "train".
    """
    if "train" not in info.splits:
        raise UserError(f"{settings.source} has no split 'train', but {', '.join(info.splits)}: prepare one")
    num_records = info.splits["train"].num_examples
    return num_records if "test" in info.splits else num_train_records(num_records, settings.test_fraction)


def is_image(feature: Any) -> bool:
    """Whether a feature of tensorflow-datasets is an image or an array like one."""
    shape = feature.shape
    return isinstance(shape, tuple) and len(shape) == 3 and feature.np_dtype == np.uint8


def one_of_kind(info: Any, names: list[str], kind: str, source: str) -> str:
    """The one feature of a kind; of several, the one among the supervised keys.

    Raises:
      UserError: there is none, or more than one is left.
    """
    names = [name for name in names if name in (info.supervised_keys or ())] or names
    if len(names) != 1:
        raise UserError(f"{source} has {len(names)} features of kind {kind}, and one is needed: choose another")
    return names[0]


def label_names(info: Any) -> list[str]:
    """Names of the features that are class labels."""
    class_label = import_tfds().features.ClassLabel
    return [name for name, feature in info.features.items() if isinstance(feature, class_label)]


@contextlib.contextmanager
def refuse_damage(place: str) -> Iterator[None]:
    """Whatever damaged files come to is raised as UserError, which names `place`."""
    try:
        yield
    except Exception as error:
        first_line = (str(error).splitlines() or [""])[0]
        raise UserError(f"{place} cannot be read ({first_line}): prepare it again") from None


def in_blocks(examples: Any) -> Iterator[dict[str, Any]]:
    """The examples of a data source in their order, some of them decoded at a time."""
    for start in range(0, len(examples), _BLOCK):
        yield from examples.__getitems__(list(range(start, min(start + _BLOCK, len(examples)))))


def _find_keys(info: Any, source: str) -> tuple[str, str]:
    """(name of the image, name of the label) among the features."""
    images = [name for name, feature in info.features.items() if is_image(feature)]
    image_key = one_of_kind(info, images, "image (uint8, three axes)", source)
    label_key = one_of_kind(info, label_names(info), "class label", source)
    if None in info.features[image_key].shape:
        raise UserError(
            f"{source} has images of many sizes: export them to a folder of CLASS/NAME.png, and use data.name=images "
            "with data.resize=True"
        )
    return image_key, label_key


def _read_split(builder: Any, name: str, schema: ImageSchema, settings: DataSettings) -> Images:
    image_key, label_key = _find_keys(builder.info, settings.source)
    place = f"split {name!r} of {settings.source}"
    with refuse_damage(place):
        examples = builder.as_data_source(split=name)
        pixels = np.empty((len(examples), *schema.shape), np.uint8)
        labels = np.empty(len(examples), np.int32)
        for i, example in enumerate(in_blocks(examples)):
            pixels[i], labels[i] = example[image_key], example[label_key]
    check_labels(labels, schema, place)
    return Images(pixels, labels)


def _versions(root: str) -> list[str]:
    """The versions prepared in `root`, the newest last."""
    prepared = [
        name
        for name in _folders(root)
        if re.fullmatch(r"\d+\.\d+\.\d+", name) and os.path.isfile(os.path.join(root, name, "dataset_info.json"))
    ]
    return sorted(prepared, key=lambda version: [int(number) for number in version.split(".")])


def _folders(root: str) -> list[str]:
    if not os.path.isdir(root):
        return []
    return sorted(name for name in os.listdir(root) if os.path.isdir(os.path.join(root, name)))
