"""The idx format of the original MNIST files: a big-endian header (magic, sizes), then one byte per value."""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib

import numpy as np

from privsyn_jax.types import UserError

_CONTENTS = {1: "labels", 3: "images"}


def read_idx(path: str, num_axes: int) -> np.ndarray:
    """The uint8 array of an idx file, compressed if its name ends in .gz.

    Args:
      path: the file.
      num_axes: 1 for labels [n], 3 for images [n, height, width].

    Raises:
      UserError: the file cannot be read, is a damaged gzip file, has another magic number or another length.
    """
    try:
        with open(path, "rb") as file:
            content = file.read()
        if path.endswith(".gz"):
            content = gzip.decompress(content)
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise UserError(f"{path} is a damaged gzip file: get it again") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): make it readable") from None
    magic, header_bytes = 0x800 + num_axes, 4 * (1 + num_axes)
    found = int.from_bytes(content[:4], "big")
    if len(content) >= 4 and found != magic:
        raise UserError(
            f"{path} starts with the number {found} instead of {magic}, so it is no idx file of {_CONTENTS[num_axes]}: "
            f"get it again, or correct its name{'' if path.endswith('.gz') else ' (.gz if it is compressed)'}"
        )
    if len(content) < header_bytes:
        raise UserError(f"{path} ends after {len(content)} bytes, within its header: get it again")
    sizes = struct.unpack(f">{num_axes}I", content[4:header_bytes])
    num_values = len(content) - header_bytes
    if num_values != math.prod(sizes):
        raise UserError(
            f"{path} holds {num_values} values where its header says {' x '.join(map(str, sizes))}: "
            f"it is {'cut short' if num_values < math.prod(sizes) else 'too long'}, get it again"
        )
    return np.frombuffer(content, np.uint8, offset=header_bytes).reshape(sizes)


def find_idx(folder: str, stem: str) -> str | None:
    """The path of train-images-idx3-ubyte and the like, also spelled with a dot and with .gz; None if absent."""
    for name in (stem, stem.replace("-idx", ".idx")):
        for suffix in ("", ".gz"):
            path = os.path.join(folder, name + suffix)
            if os.path.isfile(path):
                return path
    return None
