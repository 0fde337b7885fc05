"""Builders that prepare MNIST and CIFAR-10 for tensorflow-datasets from their original files, without TensorFlow.

The builders inside tensorflow-datasets need TensorFlow to prepare. These write the same features, `image` and `label`,
in the same splits, as array_record files that `data.source=tfds:NAME` and tensorflow-datasets itself read.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from privsyn_jax.data.images import cifar10, mnist
from privsyn_jax.data.images.tfds import DEFAULT_DIR, import_tfds
from privsyn_jax.types import Images, UserError

VERSION = "1.0.0"


class Original(NamedTuple):
    """A published set: its public facts, and folder -> (train, test)."""

    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    read: Callable[[str], tuple[Images, Images]]


ORIGINALS = {
    "mnist": Original(mnist.SHAPE, mnist.CLASSES, mnist.read_published),
    "cifar10": Original(cifar10.SHAPE, cifar10.CLASSES, cifar10.read_published),
}


def builder_class(dataset_name: str, original: Original) -> type:
    """A GeneratorBasedBuilder of that name; made in here so that tensorflow_datasets is imported on call only."""
    tfds = import_tfds()

    class OriginalFiles(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # pyright: ignore
        """Examples in the order of the original files."""

        name = dataset_name
        VERSION = tfds.core.Version(VERSION)
        MANUAL_DOWNLOAD_INSTRUCTIONS = "Put the original files into manual_dir."

        def _info(self):
            image = tfds.features.Tensor(shape=original.shape, dtype=np.uint8, encoding="zlib")
            label = tfds.features.ClassLabel(names=original.classes)
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict({"image": image, "label": label}),
                supervised_keys=("image", "label"),
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager):
            train, test = original.read(os.fspath(dl_manager.manual_dir))
            return {"train": self._generate_examples(train), "test": self._generate_examples(test)}

        def _generate_examples(self, images: Images):
            for i, (pixels, label) in enumerate(zip(images.pixels, images.labels, strict=True)):
                yield i, {"image": pixels, "label": int(label)}

    return OriginalFiles


def prepare(dataset_name: str, *, manual_dir: str, data_dir: str, originals: dict[str, Original] = ORIGINALS) -> str:
    """Prepares a key of `originals` below `data_dir` (array_record); does nothing where that is done already.

    Args:
      dataset_name: "mnist" or "cifar10".
      manual_dir: folder of the original files.
      data_dir: folder of tensorflow-datasets; "" for DEFAULT_DIR.
      originals: name -> what to prepare.

    Returns:
      The folder that was written.

    Raises:
      UserError: tensorflow-datasets is not installed, or a file is absent, damaged or not the published one.
    """
    if dataset_name not in originals:
        raise UserError(f"{dataset_name!r} cannot be prepared: use one of {', '.join(originals)}")
    if not os.path.isdir(manual_dir):
        raise UserError(f"--manual_dir {manual_dir!r} is no folder: give the folder of the original files")
    builder: Any = builder_class(dataset_name, originals[dataset_name])(
        data_dir=os.path.expanduser(data_dir or DEFAULT_DIR), file_format="array_record"
    )
    tfds = import_tfds()
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=manual_dir, try_download_gcs=False)
    )
    return os.fspath(builder.data_dir)
