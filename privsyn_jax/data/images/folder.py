"""A folder of images, one subfolder per class: FOLDER/CLASS/NAME.png."""

from __future__ import annotations

import os

import numpy as np

from privsyn_jax.data.images.picture import SUFFIXES, read_picture
from privsyn_jax.data.schema_check import nearest
from privsyn_jax.types import Images, ImageSchema, UserError

_IGNORED = ("Thumbs.db", "desktop.ini")  # what a file manager leaves, besides names that start with a dot


def read_folder(folder: str, schema: ImageSchema, *, resize: bool) -> Images:
    """The images below `folder`, ordered by class as in the schema and then by file name.

    A class of the schema may have no folder or an empty one.

    Raises:
      UserError: there is no image; a folder is no class; a file is no image, damaged, or not of the schema's shape.
    """
    files = list_files(folder)
    for name in files:
        if name not in schema.classes:
            raise UserError(
                f"{os.path.join(folder, name)} is no class of the schema: {nearest(name, schema.classes)} "
                "(list the class there, or remove the folder)"
            )
    paths = [(label, path) for label, name in enumerate(schema.classes) for path in files.get(name, ())]
    if not paths:
        raise UserError(f"{folder} holds no images: put them in one subfolder per class, FOLDER/CLASS/NAME.png")
    pixels = np.empty((len(paths), *schema.shape), np.uint8)
    for i, (_, path) in enumerate(paths):
        pixels[i] = read_picture(path, schema.shape, resize=resize)
    return Images(pixels, np.array([label for label, _ in paths], np.int32))


def list_files(folder: str) -> dict[str, list[str]]:
    """Class -> paths of its images, both sorted by name; hidden files are passed over.

    Raises:
      UserError: `folder` is no folder, or something in it is neither an image nor a folder of images.
    """
    if not os.path.isdir(folder):
        raise UserError(f"{folder} does not exist as a folder: correct the path")
    classes = {}
    for entry in _entries(folder):
        if not entry.is_dir():
            raise UserError(
                f"{entry.path} lies in no class folder: put it in a subfolder called as its class, or remove it"
            )
        files = _entries(entry.path)
        for file in files:
            if file.is_dir():
                raise UserError(
                    f"{file.path} is a folder within a class: give the folder whose subfolders are the classes"
                )
            if not file.name.lower().endswith(SUFFIXES):
                raise UserError(f"{file.path} is not one of {', '.join(SUFFIXES)}: convert or remove it")
        classes[entry.name] = [file.path for file in files]
    return classes


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            kept = [entry for entry in entries if not entry.name.startswith(".") and entry.name not in _IGNORED]
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({error.strerror}): make it readable") from None
    return sorted(kept, key=lambda entry: entry.name)
