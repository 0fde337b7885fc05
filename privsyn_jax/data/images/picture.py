"""One picture: from a file, or from an array, to uint8 pixels of the schema's shape."""

from __future__ import annotations

import contextlib
import struct
import warnings
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageOps

from privsyn_jax.types import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
_FORMATS = ("PNG", "JPEG", "BMP")
_MODES = {1: "L", 3: "RGB"}
_MODE_NAMES = {
    "1": "black and white",
    "L": "grey",
    "LA": "grey with transparency",
    "P": "colours from a palette",
    "RGB": "colour",
    "RGBA": "colour with transparency",
    "CMYK": "printing colours",
}
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, IndexError, OverflowError, struct.error, zlib.error)
_TOO_LARGE = (Image.DecompressionBombWarning, Image.DecompressionBombError)


def read_picture(path: str, shape: tuple[int, int, int], *, resize: bool) -> np.ndarray:
    """The pixels of an image file; uint8 [height, width, channels].

    Args:
      path: a file with one of SUFFIXES.
      shape: (height, width, channels) that the schema asks for.
      resize: see `fit_picture`.

    Raises:
      UserError: the file is damaged, or does not have that shape.
    """
    with _opened(path) as picture:
        if picture.mode.startswith(("I", "F")):
            raise UserError(f"{path} has more than 8 bits per channel: save it with 8")
        if not resize:
            _check_shape(picture, shape, path)
        return fit_picture(picture, shape)


def size_and_channels(path: str) -> tuple[int, int, int]:
    """(height, width, channels) as the file's header says, 1 channel for grey and 3 for all else.

    Raises:
      UserError: the file is damaged.
    """
    with _opened(path) as picture:
        return picture.height, picture.width, 1 if picture.mode in ("1", "L", "LA") else 3


def fit_picture(picture: Image.Image, shape: tuple[int, int, int]) -> np.ndarray:
    """Pixels of that shape, uint8, by a rule that looks at nothing but this picture.

    Channels are converted. Where the size differs, the shorter side is scaled (bicubic) and the centre is cut out.
    """
    height, width, channels = shape
    if picture.mode != _MODES[channels]:
        picture = picture.convert(_MODES[channels])
    if picture.size != (width, height):
        picture = ImageOps.fit(picture, (width, height), Image.Resampling.BICUBIC)
    return np.array(picture).reshape(shape)


def _check_shape(picture: Image.Image, shape: tuple[int, int, int], path: str) -> None:
    height, width, channels = shape
    if (picture.height, picture.width) != (height, width):
        raise UserError(
            f"{path} is {picture.height} x {picture.width} pixels and the schema says {height} x {width}: "
            "resize it, or set data.resize=True"
        )
    if picture.mode != _MODES[channels]:
        found, wanted = (_MODE_NAMES.get(mode, mode) for mode in (picture.mode, _MODES[channels]))
        raise UserError(
            f"{path} is {found} and the schema's {channels} channel(s) mean {wanted}: convert it, set "
            "data.resize=True, or correct the schema's shape"
        )


@contextlib.contextmanager
def _opened(path: str) -> Iterator[Image.Image]:
    """The picture, with every way in which Pillow fails on it told in one sentence."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as picture:
                yield picture
    except UserError:
        raise
    except _TOO_LARGE:
        raise UserError(f"{path} has too many pixels to be one of these images: resize or remove it") from None
    except _UNREADABLE as error:
        if isinstance(error, OSError) and error.strerror:
            raise UserError(f"{path} cannot be read ({error.strerror}): make it readable") from None
        raise UserError(f"{path} is damaged or no image of its kind: save it again or remove it") from None
