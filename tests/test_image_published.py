"""Published images: idx and MNIST, the layouts of CIFAR-10."""

import gzip
import io
import os
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from image_sets import (
    MNIST_PARTS,
    assert_same_images,
    idx_bytes,
    known_as,
    opened,
    random_images,
    refusal,
    write_mnist,
)

from privsyn_jax.data import DATASETS, dataset_of
from privsyn_jax.data.images import cifar10, cifar10_layouts, mnist
from privsyn_jax.data.images.content import (
    check_published,
    hash_images,
)
from privsyn_jax.data.images.idx import read_idx
from privsyn_jax.settings import DataSettings
from privsyn_jax.types import Images

# --- idx and MNIST


@settings(max_examples=40, deadline=None)
@given(
    arrays.arrays(
        np.uint8, st.one_of(arrays.array_shapes(min_dims=1, max_dims=1), arrays.array_shapes(min_dims=3, max_dims=3))
    ),
    st.booleans(),
)
def test_idx_round_trip(tmp_path_factory, values, compressed):
    path = tmp_path_factory.mktemp("idx") / ("f.gz" if compressed else "f")
    path.write_bytes(gzip.compress(idx_bytes(values), 1) if compressed else idx_bytes(values))
    found = read_idx(str(path), values.ndim)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, values)


IMAGES_IDX = idx_bytes(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))


@pytest.mark.parametrize("compressed", [False, True])
def test_an_idx_file_cut_anywhere_is_refused(tmp_path, compressed):
    content = gzip.compress(IMAGES_IDX) if compressed else IMAGES_IDX
    path = tmp_path / ("f.gz" if compressed else "f")
    for length in range(len(content)):
        path.write_bytes(content[:length])
        assert str(path) in refusal(read_idx, str(path), 3)


@pytest.mark.parametrize(
    "name, content, problem",
    [
        ("f", IMAGES_IDX[:-1], "23 values where its header says 2 x 3 x 4: it is cut short"),
        ("f", IMAGES_IDX + b"\0", "too long"),
        ("f", idx_bytes(np.zeros(3, np.uint8)), "number 2049 instead of 2051, so it is no idx file of images"),
        ("f", gzip.compress(IMAGES_IDX, mtime=0), "(.gz if it is compressed)"),
        ("f.gz", IMAGES_IDX, "damaged gzip"),
        ("f.gz", gzip.compress(IMAGES_IDX, mtime=0)[:10] + b"\xff" * 20, "damaged gzip"),
        ("f", b"\0\0\x08\x03\0", "ends after 5 bytes, within its header"),
        ("f", struct.pack(">4I", 2051, 2**32 - 1, 2**32 - 1, 2**32 - 1), "cut short"),
    ],
)
def test_a_bad_idx_file_is_refused(tmp_path, name, content, problem):
    (tmp_path / name).write_bytes(content)
    message = refusal(read_idx, str(tmp_path / name), 3)
    assert str(tmp_path / name) in message and problem in message


@pytest.mark.parametrize("dotted", [False, True])
@pytest.mark.parametrize("compressed", [False, True])
def test_mnist_is_read_from_every_spelling(tmp_path, monkeypatch, dotted, compressed):
    write_mnist(tmp_path, *MNIST_PARTS, dotted=dotted, compressed=compressed)
    data = DataSettings(name="mnist", dir=str(tmp_path))
    schema = DATASETS["mnist"].read_schema(data)
    assert "30 images instead of the published 60000" in refusal(DATASETS["mnist"].load, data, schema)
    monkeypatch.setattr(mnist, "PUBLISHED", tuple(map(known_as, MNIST_PARTS)))
    records = DATASETS["mnist"].load(data, schema)
    assert_same_images(opened(records.train), MNIST_PARTS[0])
    assert_same_images(opened(records.test), MNIST_PARTS[1])
    assert records.content_hash == hash_images(*MNIST_PARTS)
    assert opened(records.clamped) == {} and records.schema is schema


def test_mnist_files_that_do_not_go_together_are_refused(tmp_path):
    assert "data.dir is not given" in refusal(mnist.read, "")
    message = refusal(mnist.read, str(tmp_path))
    assert "train-images-idx3-ubyte was not found" in message and str(tmp_path) in message
    train = MNIST_PARTS[0]
    for bad, problem in (
        (Images(train.pixels[1:], train.labels), "30 labels for 29 images"),
        (Images(train.pixels[:, 1:], train.labels), "27 x 28 instead of 28 x 28"),
        (Images(train.pixels, train.labels + 5), "label 14"),
    ):
        write_mnist(tmp_path, train, bad)
        message = refusal(mnist.read, str(tmp_path))
        assert "t10k" in message and problem in message


# --- CIFAR-10


CIFAR_BATCHES = [random_images(10, cifar10.SHAPE, seed=seed) for seed in range(6)]
CIFAR_NAMES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]


def planes_of(images):
    """uint8 [n, 3072], the red plane first."""
    return images.pixels.transpose(0, 3, 1, 2).reshape(len(images.pixels), -1)


def python_batch(images):
    content = {b"batch_label": b"batch", b"labels": images.labels.tolist(), b"data": planes_of(images)}
    return pickle.dumps(content, protocol=4)


def python2_batch(images):
    """The same as Python 2 wrote it, opcode by opcode: texts are bytes, the array comes from numpy.core."""

    def text(value):
        return b"U" + bytes([len(value)]) + value

    planes = planes_of(images)
    content = planes.tobytes()
    array = b"".join(
        [
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR",
            b"(K\x01K" + bytes([len(planes)]) + b"M\x00\x0c\x86cnumpy\ndtype\n(U\x02u1K\x00K\x01tR",
            b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb",
            b"\x89T" + struct.pack("<I", len(content)) + content + b"tb",
        ]
    )
    labels = b"](" + b"".join(b"K" + bytes([label]) for label in images.labels) + b"e"
    return b"\x80\x02}(" + text(b"labels") + labels + text(b"data") + array + b"u."


def binary_batch(images):
    return np.concatenate([images.labels.astype(np.uint8)[:, None], planes_of(images)], axis=1).tobytes()


def plane_differences(images):
    """The inverse of what the layout's README says to do."""
    pixels = images.pixels.copy()
    pixels[..., 0] -= pixels[..., 1]
    pixels[..., 2] -= pixels[..., 1]
    for axis in (2, 1):
        pixels = np.diff(pixels, axis=axis, prepend=np.zeros_like(pixels).take([0], axis))
    return pixels.transpose(3, 1, 2, 0).tobytes()


def write_cifar(folder, layout):
    """Writes the six batches in one of the layouts; returns the path of the file that holds the third."""
    encode, suffix = (binary_batch, ".bin") if "binary" in layout else (python_batch, "")
    encode = python2_batch if layout == "python2 files" else encode
    if layout == "planes":
        for images, name in zip(CIFAR_BATCHES, [*(f"train_{i}" for i in range(1, 6)), "test"], strict=True):
            np.save(folder / f"{name}_labels.npy", images.labels.astype(np.uint8))
            (folder / f"{name}_images.u8.gz").write_bytes(gzip.compress(plane_differences(images), 1))
        return folder / "train_3_images.u8.gz"
    files = {f"{name}{suffix}": encode(images) for name, images in zip(CIFAR_NAMES, CIFAR_BATCHES, strict=True)}
    subfolder = f"cifar-10-batches-{'bin' if suffix else 'py'}"
    if layout.endswith("archive"):
        path = folder / f"cifar-10-{'binary' if suffix else 'python'}.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            for name, content in reversed({"batches.meta": b"unread", **files}.items()):
                member = tarfile.TarInfo(f"{subfolder}/{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        return path
    place = folder / subfolder if "subfolder" in layout else folder
    place.mkdir(exist_ok=True)
    for name, content in files.items():
        (place / name).write_bytes(content)
    return place / f"data_batch_3{suffix}"


LAYOUTS = ["python files", "python2 files", "python subfolder", "python archive"]
LAYOUTS += ["binary files", "binary subfolder", "binary archive", "planes"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_cifar10_is_the_same_from_every_layout(tmp_path, monkeypatch, layout):
    write_cifar(tmp_path, layout)
    train = Images(*map(np.concatenate, zip(*CIFAR_BATCHES[:5], strict=True)))
    data = DataSettings(name="cifar10", dir=str(tmp_path))
    schema = DATASETS["cifar10"].read_schema(data)
    assert "50 images instead of the published 50000" in refusal(DATASETS["cifar10"].load, data, schema)
    monkeypatch.setattr(cifar10, "PUBLISHED", (known_as(train), known_as(CIFAR_BATCHES[5])))
    records = DATASETS["cifar10"].load(data, schema)
    assert_same_images(opened(records.train), train)
    assert_same_images(opened(records.test), CIFAR_BATCHES[5])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_damaged_or_absent_file_of_cifar10_is_named(tmp_path, layout):
    path = write_cifar(tmp_path, layout)
    content = path.read_bytes()
    num_kept = len(content) // 2 + 1 if layout.endswith("archive") else len(content) - 20
    for damaged in (content[:num_kept], b"<html>"):
        path.write_bytes(damaged)
        assert str(path) in refusal(cifar10.read, str(tmp_path))
    path.unlink()
    message = refusal(cifar10.read, str(tmp_path))
    assert ("cifar-10-python.tar.gz" if layout.endswith("archive") else str(path)) in message


@pytest.mark.parametrize("layout", ["binary archive", "python archive"])
def test_an_archive_that_lacks_a_batch_is_refused(tmp_path, layout, monkeypatch):
    path = write_cifar(tmp_path, layout)
    names = f"_{layout.split()[0].upper()}_BATCHES"
    monkeypatch.setattr(cifar10_layouts, names, (*getattr(cifar10_layouts, names), "data_batch_6"))
    assert f"{path} has no data_batch_6" in refusal(cifar10.read, str(tmp_path))


class Hostile:
    """Unpickles by making a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize(
    "batch, problem",
    [
        ({b"labels": [1]}, "b'data'"),
        ({b"labels": [1], b"data": np.zeros((1, 3071), np.uint8)}, "no labelled rows of 3072"),
        ({b"labels": [1], b"data": np.zeros((1, 3072), np.int64)}, "no labelled rows"),
        ({b"labels": [1, 2], b"data": np.zeros((1, 3072), np.uint8)}, "no labelled rows"),
        ({b"labels": [1.5], b"data": np.zeros((1, 3072), np.uint8)}, "no labelled rows"),
        ({b"labels": [10], b"data": np.zeros((1, 3072), np.uint8)}, "label outside 0 to 9"),
        ([1, 2], "no readable batch"),
        (pytest.raises, "no array"),
    ],
)
def test_a_python_batch_of_something_else_is_refused(batch, problem):
    assert problem in refusal(cifar10_layouts.decode_python_batch, pickle.dumps(batch, protocol=4), "data_batch_1")


def test_a_pickle_cannot_call_anything(tmp_path):
    content = pickle.dumps(Hostile(str(tmp_path / "made")), protocol=2)
    message = refusal(cifar10_layouts.decode_python_batch, content, "data_batch_1")
    assert "mkdir" in message and not (tmp_path / "made").exists()
    pickle.loads(content)
    assert (tmp_path / "made").exists()  # it would have


def test_a_folder_without_cifar10_is_refused(tmp_path):
    assert "data.dir is not given" in refusal(cifar10.read, "")
    assert "is no folder" in refusal(cifar10.read, str(tmp_path / "absent"))
    assert "cifar-10-binary.tar.gz" in refusal(cifar10.read, str(tmp_path))


def data_dir(name):
    """Folder of a real data set: $PRIVSYN_DATA_DIR/NAME, or shared/data/NAME beside the checkout."""
    folder = Path(os.environ.get("PRIVSYN_DATA_DIR", Path(__file__).parents[2] / "shared" / "data")) / name
    if not folder.is_dir():
        pytest.skip(f"{name} is absent: set PRIVSYN_DATA_DIR to the folder that holds {name}/")
    return str(folder)


@pytest.mark.slow
@pytest.mark.parametrize("name, mean", [("mnist", [0.1307]), ("cifar10", [0.4914, 0.4822, 0.4465])])
def test_the_published_images_load(name, mean):
    data = DataSettings(name=name, dir=data_dir(name))
    schema = dataset_of(data).read_schema(data)
    records = dataset_of(data).load(data, schema)
    train, test = opened(records.train), opened(records.test)
    assert train.pixels.shape == (schema.num_records, *schema.shape) and test.pixels.shape == (10_000, *schema.shape)
    np.testing.assert_allclose(train.pixels.mean((0, 1, 2)) / 255, mean, atol=1e-4)
    altered = train.pixels.copy()
    altered[17, 14, 14, 0] ^= 1
    source = mnist if name == "mnist" else cifar10
    assert "other content" in refusal(
        check_published, Images(altered, train.labels), source.PUBLISHED[0], source="s", remedy="get it again"
    )
