"""Images in one NumPy archive: arrays `images` (or `pixels`, `x`) and `labels` (or `y`), or x_train and so on."""

from __future__ import annotations

import zipfile

import numpy as np
from PIL import Image

from privsyn_jax.data.images.picture import fit_picture
from privsyn_jax.types import Images, ImageSchema, UserError

_PIXELS, _LABELS = ("images", "pixels", "x"), ("labels", "y")
_NAMES = "name the arrays images and labels, or x_train, y_train, x_test and y_test"


def read_npz(path: str, schema: ImageSchema, *, part: str, resize: bool) -> Images:
    """The images of an .npz, in its order.

    Args:
      path: the file.
      schema: what the images must agree with.
      part: "train" or "test", for a file that holds both.
      resize: whether images of another size or with other channels are fitted, see `fit_picture`.

    Raises:
      UserError: the file is damaged, an array is absent, or the arrays are not uint8 images with a label each.
    """
    pixels, labels = read_arrays(path, part)
    pixels = _fit(pixels, schema.shape, path) if resize else _as_shape(pixels, schema.shape, path)
    return Images(pixels, labels)


def read_arrays(path: str, part: str) -> tuple[np.ndarray, np.ndarray]:
    """(uint8 [n, height, width] or [n, height, width, channels], int32 [n]) before any schema is looked at.

    Raises:
      UserError: see `read_npz`.
    """
    try:
        with open(path, "rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise UserError(f"{path} is a single array: save images and labels together with numpy.savez")
            pixels_name = _pick(archive.files, (*_PIXELS, f"x_{part}"), path)
            labels_name = _pick(archive.files, (*_LABELS, f"y_{part}"), path)
            pixels, labels = archive[pixels_name], archive[labels_name]
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: correct the path") from None
    except PermissionError:
        raise UserError(f"{path} cannot be read: make it readable") from None
    except Exception:  # a damaged archive or header comes to much else: a TokenError, a RuntimeError, a MemoryError
        raise UserError(f"{path} is damaged or holds objects: save plain arrays with numpy.savez") from None
    return _check_pixels(pixels, pixels_name, path), _check_labels(labels, labels_name, len(pixels), path)


def names_of(path: str) -> list[str]:
    """The names of its arrays, none of which is read."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except (zipfile.BadZipFile, OSError):
        return []


def _pick(names: list[str], accepted: tuple[str, ...], path: str) -> str:
    found = [name for name in accepted if name in names]
    if not found:
        has = ", ".join(names[:8]) or "nothing"
        raise UserError(f"{path} has no array {' or '.join(accepted)}, but {has}: {_NAMES}")
    if len(found) > 1:
        raise UserError(f"{path} has both {found[0]} and {found[1]}: remove one, or rename it")
    return found[0]


def _check_pixels(pixels: np.ndarray, name: str, path: str) -> np.ndarray:
    if pixels.dtype != np.uint8:
        raise UserError(f"{name} of {path} is {pixels.dtype}: store pixels as uint8, from 0 to 255")
    if pixels.ndim not in (3, 4):
        raise UserError(
            f"{name} of {path} has the shape {pixels.shape}: store images as [n, height, width] or "
            "[n, height, width, channels]"
        )
    return pixels


def _check_labels(labels: np.ndarray, name: str, num_images: int, path: str) -> np.ndarray:
    """Labels as int32 [n]; [n, 1], as some CIFAR files have them, passes."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise UserError(
            f"{name} of {path} is {labels.dtype} of shape {labels.shape}: store one whole number per image, "
            "from 0, in the order of the schema's classes"
        )
    if len(labels) != num_images:
        raise UserError(f"{path} has {len(labels)} {name} for {num_images} images: give one label per image")
    if len(labels) and not -(2**31) <= int(labels.min()) <= int(labels.max()) < 2**31:
        raise UserError(f"{name} of {path} reach {labels.max()}: number the classes from 0")
    return labels.astype(np.int32)


def _as_shape(pixels: np.ndarray, shape: tuple[int, int, int], path: str) -> np.ndarray:
    """Images of exactly this shape; grey ones may lack the axis of channels."""
    height, width, channels = shape
    if pixels.ndim == 4 and pixels.shape[1:] == (channels, height, width) != shape:
        raise UserError(
            f"{path} has its channels first, {pixels.shape}: store images as [n, height, width, channels], "
            "images.transpose(0, 2, 3, 1)"
        )
    size, found_channels = pixels.shape[1:3], pixels.shape[3] if pixels.ndim == 4 else 1
    if size != (height, width):
        raise UserError(
            f"{path} has images of {size[0]} x {size[1]} pixels and the schema says {height} x {width}: resize them, "
            "or set data.resize=True"
        )
    if found_channels != channels:
        raise UserError(
            f"{path} has images of {found_channels} channel(s) and the schema says {channels}: convert them, set "
            "data.resize=True, or correct the schema's shape"
        )
    return pixels.reshape(len(pixels), *shape)


def _fit(pixels: np.ndarray, shape: tuple[int, int, int], path: str) -> np.ndarray:
    """Images of this shape, resized and converted one by one."""
    if pixels.ndim == 4 and pixels.shape[3] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim == 4 and pixels.shape[3] != 3:
        raise UserError(
            f"{path} has the shape {pixels.shape}: store images as [n, height, width], or as "
            "[n, height, width, channels] with 1 or 3 channels"
        )
    if 0 in pixels.shape[1:]:
        raise UserError(f"{path} has images without pixels, {pixels.shape}: save it again")
    fitted = np.empty((len(pixels), *shape), np.uint8)
    for i, image in enumerate(pixels):
        fitted[i] = fit_picture(Image.fromarray(image), shape)
    return fitted
