"""Small sets of images, how they are written as MNIST files, and how tests look at what was loaded."""

import gzip
import struct

import numpy as np
import pytest

from privsyn_jax.data.images import mnist
from privsyn_jax.data.images.content import PublishedImages, digest_of_set
from privsyn_jax.privacy.ledger import Ledger
from privsyn_jax.types import Images, ImageSchema, UserError

GREY = ImageSchema((8, 6, 1), ("cat", "dog", "emu"), num_records=120)
COLOUR = ImageSchema((8, 6, 3), ("cat", "dog", "emu"), num_records=120)


def opened(private):
    """What a wrapper holds, paid for."""
    return private.open(Ledger().charge("test", "all", "test", {"kind": "pure", "epsilon": 1.0, "count": 1}))


def random_images(num_images, shape, num_classes=10, *, seed=0):
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (num_images, *shape), dtype=np.uint8)
    return Images(pixels, (np.arange(num_images) % num_classes).astype(np.int32))


def assert_same_images(found, expected):
    assert found.pixels.dtype == np.uint8 and found.labels.dtype == np.int32
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    np.testing.assert_array_equal(found.labels, expected.labels)


def refusal(function, *args, **kwargs):
    """The one sentence with which a call is refused."""
    with pytest.raises(UserError) as error:
        function(*args, **kwargs)
    message = str(error.value)
    assert "\n" not in message and 20 < len(message) < 400
    return message


def known_as(images):
    """What would be published about these images."""
    return PublishedImages(tuple(np.bincount(images.labels, minlength=10).tolist()), digest_of_set(images))


def idx_bytes(values):
    return struct.pack(f">{1 + values.ndim}I", 0x800 + values.ndim, *values.shape) + values.tobytes()


def write_mnist(folder, train, test, *, dotted=False, compressed=True):
    for stem, part in (("train", train), ("t10k", test)):
        for kind, values in (("images-idx3", part.pixels[..., 0]), ("labels-idx1", part.labels.astype(np.uint8))):
            name = f"{stem}-{kind}-ubyte".replace("-idx", ".idx" if dotted else "-idx") + (".gz" if compressed else "")
            content = idx_bytes(values)
            (folder / name).write_bytes(gzip.compress(content) if compressed else content)


MNIST_PARTS = random_images(30, mnist.SHAPE, seed=1), random_images(20, mnist.SHAPE, seed=2)
