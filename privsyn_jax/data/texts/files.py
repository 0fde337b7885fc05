"""Texts that are files of their own, CLASS/NAME.txt, in a folder or in a .tar of it; nothing is unpacked to disk."""

from __future__ import annotations

import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pandas as pd

from privsyn_jax.data.texts.rows import Rows, decode
from privsyn_jax.types import UserError

ARCHIVES = (".tar", ".tar.gz", ".tgz")
_IGNORED = ("Thumbs.db", "desktop.ini")  # what a file manager leaves, besides names that start with a dot

Parts = tuple[str, ...]  # of a path: folders, then the file's name


class File(NamedTuple):
    """A file in a folder or an archive: its path there, and its content."""

    parts: Parts
    content: bytes


def is_archive(path: str) -> bool:
    """Whether `path` is called as an archive is."""
    return path.lower().endswith(ARCHIVES)


def read_files(path: str, *, wanted: Callable[[Parts], bool] = lambda parts: True) -> list[File]:
    """The files of a folder or an archive that are wanted, sorted by path; hidden ones are passed over.

    Raises:
      UserError: it is absent, or cannot be read.
    """
    files = _read_archive(path, wanted) if is_archive(path) else _read_folder(path, wanted)
    return sorted(files, key=lambda file: file.parts)


def read_text_files(path: str, *, text: str, label: str | None) -> Rows:
    """Rows with columns called as `text` and `label` say, from CLASS/NAME.txt; without a label, from NAME.txt.

    In an archive, folders around these are passed over. A line end at the end of a file is no part of its text.

    Raises:
      UserError: it is absent, damaged or holds no text; a file is no .txt, not UTF-8, or lies elsewhere.
    """
    files = _check_layout(read_files(path), path, is_labelled=label is not None)
    places = [os.path.join(path, *file.parts) for file in files]
    texts = [
        decode(file.content, place).removesuffix("\n").removesuffix("\r")
        for file, place in zip(files, places, strict=True)
    ]
    columns = {text: pd.Series(texts, dtype=object)}
    if label is not None:
        columns[label] = pd.Series([file.parts[-2] for file in files], dtype=object)
    return Rows(pd.DataFrame(columns), places)


def _check_layout(files: list[File], path: str, *, is_labelled: bool) -> list[File]:
    """The files; raises UserError unless there are some, all .txt, in class folders or (not labelled) in none."""
    form = "CLASS/NAME.txt" if is_labelled else "NAME.txt"
    if not files:
        raise UserError(f"{path} holds no texts: give files {form} there")
    depth = 2 if is_labelled else 1
    outer = 0
    if is_archive(path):
        outer = max(0, min(len(file.parts) for file in files) - depth)
    for file in files:
        place = os.path.join(path, *file.parts)
        if not file.parts[-1].lower().endswith(".txt"):
            raise UserError(f"{place} is no .txt file: convert or remove it")
        if len(file.parts) != outer + depth or file.parts[:outer] != files[0].parts[:outer]:
            raise UserError(f"{place} lies elsewhere than {form} says: move it, or correct data.path")
    return files


def _read_folder(folder: str, wanted: Callable[[Parts], bool]) -> Iterator[File]:
    if not os.path.isdir(folder):
        raise UserError(f"{folder} does not exist as a folder: correct the path")
    for place, subfolders, names in os.walk(folder, onerror=_refuse):
        subfolders[:] = [name for name in subfolders if _is_shown(name)]
        inside = os.path.relpath(place, folder)
        above = () if inside == os.curdir else tuple(inside.split(os.sep))
        for name in filter(_is_shown, names):
            if wanted((*above, name)):
                try:
                    with open(os.path.join(place, name), "rb") as file:
                        yield File((*above, name), file.read())
                except OSError as error:
                    _refuse(error)


def _read_archive(path: str, wanted: Callable[[Parts], bool]) -> Iterator[File]:
    if not os.path.exists(path):
        raise UserError(f"{path} does not exist: correct the path")
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                parts = tuple(part for part in member.name.split("/") if part not in ("", "."))
                file = archive.extractfile(member) if member.isfile() else None
                if file is not None and all(map(_is_shown, parts)) and wanted(parts):
                    yield File(parts, file.read())
    except (tarfile.TarError, EOFError, zlib.error, OSError):
        raise UserError(f"{path} is a damaged or unreadable archive: write it again") from None


def _is_shown(name: str) -> bool:
    return not name.startswith(".") and name not in _IGNORED


def _refuse(error: OSError) -> None:
    raise UserError(f"{error.filename} cannot be read ({error.strerror}): make it readable") from None
