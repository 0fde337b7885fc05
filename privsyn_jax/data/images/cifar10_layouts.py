"""The layouts that CIFAR-10 is found in: Python batches, binary batches, either as tar.gz, and planes of differences.

Every reader gives [(source, Images)] for the training batches and the test batch, of whatever size.
"""

from __future__ import annotations

import gzip
import io
import os
import pickle
import tarfile
import zlib
from collections.abc import Callable

import numpy as np

from privsyn_jax.types import Images, UserError

NUM_TRAIN_BATCHES = 5
_SIDE, _NUM_VALUES = 32, 3 * 32 * 32
_PYTHON_BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
_BINARY_BATCHES = tuple(f"{name}.bin" for name in _PYTHON_BATCHES)
_PLANES = (*(f"train_{i}" for i in range(1, 6)), "test")
_AGAIN = "get it again"


def read_batches(folder: str) -> list[Images] | None:
    """The five training batches and the test batch of whichever layout `folder` holds; None if it holds none.

    Looked for, in this order: Python batches and binary batches in the folder or in its cifar-10-batches-py or
    cifar-10-batches-bin; cifar-10-python.tar.gz; cifar-10-binary.tar.gz; train_1_images.u8.gz and its like.

    Raises:
      UserError: a layout is there, but one of its files is absent or damaged.
    """
    for subfolder, names, decode in (
        ("cifar-10-batches-py", _PYTHON_BATCHES, decode_python_batch),
        ("cifar-10-batches-bin", _BINARY_BATCHES, decode_binary_batch),
    ):
        for place in (folder, os.path.join(folder, subfolder)):
            if os.path.isfile(os.path.join(place, names[0])):
                paths = [os.path.join(place, name) for name in names]
                return [decode(_read(path), path) for path in paths]
    for archive, names, decode in (
        ("cifar-10-python.tar.gz", _PYTHON_BATCHES, decode_python_batch),
        ("cifar-10-binary.tar.gz", _BINARY_BATCHES, decode_binary_batch),
    ):
        path = os.path.join(folder, archive)
        if os.path.isfile(path):
            return _read_archive(path, names, decode)
    if os.path.isfile(os.path.join(folder, f"{_PLANES[0]}_images.u8.gz")):
        return [_read_planes(folder, name) for name in _PLANES]
    return None


def decode_python_batch(content: bytes, source: str) -> Images:
    """A pickled {b"data": uint8 [n, 3072], b"labels": list} as Images; nothing but arrays is unpickled.

    Raises:
      UserError: it is damaged, names other code, or holds something else.
    """
    try:
        batch = _BatchUnpickler(io.BytesIO(content), encoding="bytes").load()
        planes, labels = batch[b"data"], np.asarray(batch[b"labels"])
    except Exception as error:  # whatever a damaged or hostile pickle comes to
        raise UserError(f"{source} is no readable batch of CIFAR-10 ({error}): {_AGAIN}") from None
    is_batch = (
        isinstance(planes, np.ndarray) and planes.dtype == np.uint8 and planes.shape == (labels.size, _NUM_VALUES)
    )
    if not is_batch or labels.ndim != 1 or labels.dtype.kind != "i":
        raise UserError(f"{source} holds no labelled rows of {_NUM_VALUES} bytes: {_AGAIN}")
    return _to_images(planes, labels, source)


def decode_binary_batch(content: bytes, source: str) -> Images:
    """Rows of a label byte and 3072 bytes of planes as Images.

    Raises:
      UserError: the length is no multiple of a row.
    """
    row_bytes = 1 + _NUM_VALUES
    if len(content) % row_bytes:
        raise UserError(f"{source} has {len(content)} bytes, no multiple of {row_bytes}: it is cut short, {_AGAIN}")
    rows = np.frombuffer(content, np.uint8).reshape(-1, row_bytes)
    return _to_images(rows[:, 1:], rows[:, 0], source)


def decode_planes(differences: bytes, labels: np.ndarray, source: str) -> Images:
    """Differences [channel 3, row 32, column 32, image n] along rows and columns, red and blue less green, modulo 256.

    Raises:
      UserError: the length does not go with the labels.
    """
    if len(differences) != len(labels) * _NUM_VALUES:
        raise UserError(f"{source} holds {len(differences)} bytes for {len(labels)} images of {_NUM_VALUES}: {_AGAIN}")
    planes = np.frombuffer(differences, np.uint8).reshape(3, _SIDE, _SIDE, len(labels))
    planes = planes.cumsum(1, dtype=np.uint8).cumsum(2, dtype=np.uint8)
    planes[0] += planes[1]
    planes[2] += planes[1]
    return _to_images(planes.transpose(3, 0, 1, 2), labels, source)


def _to_images(planes: np.ndarray, labels: np.ndarray, source: str) -> Images:
    """Planes of n images, channel first, with any labels, as Images."""
    if ((labels < 0) | (labels > 9)).any():
        raise UserError(f"{source} has a label outside 0 to 9: {_AGAIN}")
    pixels = planes.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)
    return Images(np.ascontiguousarray(pixels), labels.astype(np.int32))


class _BatchUnpickler(pickle.Unpickler):
    """Makes arrays, texts, numbers, lists and dicts; calls nothing else that a pickle may name."""

    def find_class(self, module: str, name: str):
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return np.dtype
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np.empty(0).__reduce__()[0]
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is no array")


def _read_archive(path: str, names: tuple[str, ...], decode: Callable[[bytes, str], Images]) -> list[Images]:
    """The batches of a tar.gz, decoded as they are met; nothing is unpacked to disk."""
    batches = {}
    try:
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                name = os.path.basename(member.name)
                file = archive.extractfile(member) if name in names and member.isfile() else None
                if file is not None:
                    batches[name] = decode(file.read(), f"{name} in {path}")
    except (tarfile.TarError, EOFError, zlib.error, OSError):
        raise UserError(f"{path} is a damaged or unreadable tar.gz file: {_AGAIN}") from None
    for name in names:
        if name not in batches:
            raise UserError(f"{path} has no {name}: {_AGAIN}")
    return [batches[name] for name in names]


def _read_planes(folder: str, name: str) -> Images:
    path = os.path.join(folder, f"{name}_labels.npy")
    try:
        labels = np.load(io.BytesIO(_read(path)), allow_pickle=False)
    except Exception:  # whatever a damaged header comes to
        raise UserError(f"{path} is no readable .npy file: {_AGAIN}") from None
    if labels.ndim != 1 or labels.dtype != np.uint8:
        raise UserError(f"{path} holds no list of uint8 labels: {_AGAIN}")
    path = os.path.join(folder, f"{name}_images.u8.gz")
    try:
        differences = gzip.decompress(_read(path))
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise UserError(f"{path} is a damaged gzip file: {_AGAIN}") from None
    return decode_planes(differences, labels, path)


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise UserError(f"{path} does not exist, and files beside it do: {_AGAIN}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): make it readable") from None
