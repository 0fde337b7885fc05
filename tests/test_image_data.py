"""Images: schemas, what is checked of every set, the user's own images, digits, proposals."""

import io
import json
import pickle
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_sets import COLOUR, GREY, assert_same_images, known_as, opened, random_images, refusal
from PIL import Image

from launch.schema import main
from privsyn_jax.data import DATASETS, dataset_of
from privsyn_jax.data.images import digits, tfds
from privsyn_jax.data.images.content import (
    check_labels,
    check_published,
    digest_of_set,
    hash_images,
    split_images,
)
from privsyn_jax.data.images.picture import fit_picture, read_picture
from privsyn_jax.data.images.schema import (
    check_image_schema,
    image_schema_from_dict,
    image_schema_to_dict,
    read_image_schema,
)
from privsyn_jax.data.split import held_out
from privsyn_jax.settings import DataSettings, settings_from_dict
from privsyn_jax.types import Images, ImageSchema, UserError

# --- image schemas


NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=5)


@settings(max_examples=50, deadline=None)
@given(
    st.tuples(st.integers(4, 256), st.integers(4, 256), st.sampled_from([1, 3])),
    st.lists(NAMES, min_size=2, max_size=9, unique=True),
    st.integers(1, 10**9),
    NAMES,
    st.lists(st.sampled_from(["shape", "classes", "num_records"]), unique=True),
)
def test_a_schema_survives_json(shape, classes, num_records, privacy_unit, declared_public):
    schema = ImageSchema(shape, tuple(classes), num_records, privacy_unit, tuple(declared_public))
    assert image_schema_from_dict(json.loads(json.dumps(image_schema_to_dict(schema)))) == schema


@pytest.mark.parametrize(
    "change, problem",
    [
        ({"shape": None}, "no shape"),
        ({"shape": 28}, "write a list"),
        ({"shape": [28, 28]}, "[height, width, channels]"),
        ({"shape": [28.0, 28, 1]}, "whole numbers"),
        ({"shape": [28, 28, True]}, "whole numbers"),
        ({"shape": [3, 28, 1]}, "height 3: give 4 to 256"),
        ({"shape": [28, 257, 1]}, "width 257"),
        ({"shape": [28, 28, 2]}, "2 channels: give 1 for grey or 3"),
        ({"classes": []}, "0 class(es)"),
        ({"classes": ["cat"]}, "1 class(es), and utility is measured by telling classes apart: give at least two"),
        ({"classes": ["cat", "dog", "cat"]}, "'cat' twice"),
        ({"classes": ["cat", 1]}, "hold 1: use names"),
        ({"classes": ["cat", ""]}, "hold '': use names"),
        ({"num_records": None}, "a public figure"),
        ({"num_records": 0}, "is 0: give a positive"),
        ({"num_records": 1.5}, "is 1.5"),
        ({"privacy_unit": ""}, "say in a word"),
        ({"declared_public": "shape"}, "write a list"),
        ({"declared_public": [1]}, "holds 1: use texts"),
        ({"clases": []}, "did you mean 'classes'?"),
        ({"columns": {}}, "describes a table"),
    ],
)
def test_a_schema_that_breaks_a_rule_is_refused(change, problem):
    content = {"shape": [28, 28, 1], "classes": ["cat", "dog"], "num_records": 60} | change
    message = refusal(image_schema_from_dict, content, source="s.json")
    assert "s.json" in message and problem in message


def test_a_schema_file_that_is_no_schema_is_refused(tmp_path):
    path = tmp_path / "schema.json"
    for content, problem in (
        (b"[1]", "not a JSON object"),
        (b'{"shape": [28,', "not valid JSON at line 1"),
        (b'{"shape": [], "shape": []}', "'shape' twice"),
        (b'{"shape": "caf\xe9"}', "not UTF-8 at byte 14"),
    ):
        path.write_bytes(content)
        message = refusal(read_image_schema, str(path))
        assert str(path) in message and problem in message
    assert "launch.schema" in refusal(read_image_schema, str(tmp_path / "absent.json"))
    assert "is a folder" in refusal(read_image_schema, str(tmp_path))


@pytest.mark.parametrize("name, num_records", [("mnist", 60_000), ("cifar10", 50_000), ("digits", 1258)])
def test_public_schemas_keep_the_rules_and_open_no_file(name, num_records):
    schema = DATASETS[name].read_schema(DataSettings(name=name, dir="/absent"))
    check_image_schema(schema)
    assert schema.num_records == num_records and schema.privacy_unit == "image" and schema.declared_public == ()


# --- content


def test_the_hash_sees_pixels_labels_shape_and_order():
    images = random_images(6, (4, 4, 1))
    other_pixel, other_label = images.pixels.copy(), images.labels.copy()
    other_pixel[5, 3, 3, 0] ^= 1
    other_label[5] = 0
    variants = [
        images,
        Images(other_pixel, images.labels),
        Images(images.pixels, other_label),
        Images(images.pixels.reshape(6, 2, 8, 1), images.labels),
        Images(images.pixels[::-1], images.labels[::-1]),
    ]
    assert len({hash_images(variant) for variant in variants}) == len(variants)
    assert hash_images(images) == hash_images(Images(images.pixels.copy(), images.labels.astype(np.int64)))


def test_the_digest_of_a_set_sees_pairs_of_image_and_label_but_no_order():
    images = random_images(20, (4, 4, 1))
    order = np.random.default_rng(1).permutation(20)
    assert digest_of_set(images) == digest_of_set(Images(images.pixels[order], images.labels[order]))
    assert digest_of_set(images) != digest_of_set(Images(images.pixels[order], images.labels))


def test_other_images_than_the_published_are_refused():
    images = random_images(20, (4, 4, 1))
    published = known_as(images)
    check_published(images, published, source="s", remedy="get it again")
    swapped = np.where(images.labels < 2, 1 - images.labels, images.labels)
    for altered, problem in (
        (Images(images.pixels[:19], images.labels[:19]), "has 19 images instead of the published 20"),
        (Images(images.pixels, np.zeros(20, np.int32)), "other numbers of images per class"),
        (Images(images.pixels, swapped), "other content"),
    ):
        message = refusal(check_published, altered, published, source="s", remedy="get it again")
        assert problem in message and message.endswith("get it again")


@pytest.mark.parametrize(
    "labels, problem",
    [
        ([], "no images"),
        ([0, 1] * 49, "98 images, too few"),
        ([0, 1] * 50 + [3], "label 3, and the schema's 3 classes are numbered 0 to 2"),
        ([0, 1] * 50 + [-1], "label -1"),
        ([2] * 100, "one class only ('emu')"),
    ],
)
def test_labels_must_fit_the_schema(labels, problem):
    check_labels(np.array([0, 1] * 50), GREY, "s")
    assert problem in refusal(check_labels, np.array(labels, np.int32), GREY, "s")


@settings(max_examples=30, deadline=None)
@given(st.integers(20, 300), st.floats(0.2, 0.8))
def test_the_split_is_the_public_rule_and_keeps_every_image_once(num_images, test_fraction):
    images = Images(np.zeros((num_images, 1, 1, 1), np.uint8), np.arange(num_images, dtype=np.int32))
    train, test = split_images(images, test_fraction)
    np.testing.assert_array_equal(test.labels, np.flatnonzero(held_out(num_images, test_fraction)))
    assert sorted([*train.labels, *test.labels]) == list(range(num_images)) and len(test.pixels) == len(test.labels)


def test_a_split_with_an_empty_part_is_refused():
    assert "data.test_fraction" in refusal(split_images, random_images(100, (1, 1, 1)), 1e-9)


# --- the user's own images


def write_schema(folder, schema):
    path = folder / "schema.json"
    path.write_text(json.dumps(image_schema_to_dict(schema)))
    return str(path)


def write_folder(folder, images, classes, suffix=".png"):
    """CLASS/NAME files, named in order within their class."""
    for i, (pixels, label) in enumerate(zip(images.pixels, images.labels, strict=True)):
        (folder / classes[label]).mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        picture.save(folder / classes[label] / f"{i:04d}{suffix}")
    return str(folder)


def by_class(images):
    order = np.argsort(images.labels, kind="stable")
    return Images(images.pixels[order], images.labels[order])


def load_own(path, schema, folder, **more):
    data = DataSettings(name="images", path=str(path), schema=write_schema(folder, schema), **more)
    dataset = dataset_of(data)
    return dataset.load(data, dataset.read_schema(data))


@pytest.mark.parametrize("schema", [GREY, COLOUR])
@pytest.mark.parametrize("suffix", [".png", ".BMP"])
def test_a_folder_is_read_by_class_and_name(tmp_path, schema, suffix):
    images = random_images(120, schema.shape, 3)
    folder = write_folder(tmp_path / "pictures", images, schema.classes, suffix)
    (tmp_path / "pictures" / ".hidden").write_text("")
    (tmp_path / "pictures" / "cat" / "Thumbs.db").write_text("")
    records = load_own(folder, schema, tmp_path)
    train, test = split_images(by_class(images), 0.3)
    assert_same_images(opened(records.train), train)
    assert_same_images(opened(records.test), test)
    assert records.schema.num_records == 84 and opened(records.clamped) == {}


def test_jpeg_is_read_within_its_loss(tmp_path):
    ramp = np.broadcast_to(np.arange(0, 240, 10, dtype=np.uint8)[:, None], (24, 24))
    Image.fromarray(ramp).save(tmp_path / "a.jpeg", quality=95)
    found = read_picture(str(tmp_path / "a.jpeg"), (24, 24, 1), resize=False)
    assert found.shape == (24, 24, 1) and np.abs(found[..., 0].astype(int) - ramp).max() < 8


NPZ_NAMES = [("images", "labels"), ("pixels", "y"), ("x", "labels"), ("x_train", "y_train")]


@pytest.mark.parametrize("names", NPZ_NAMES)
@pytest.mark.parametrize("schema", [GREY, COLOUR])
def test_an_npz_is_read_in_its_order(tmp_path, names, schema):
    images = random_images(120, schema.shape, 3)
    label_types = {"labels": images.labels.astype(np.uint8), "y": images.labels[:, None].astype(np.int64)}
    pixels = images.pixels[..., 0] if names[0] == "x" and schema is GREY else images.pixels
    labels = label_types.get(names[1], images.labels)
    np.savez(tmp_path / "a.npz", **{names[0]: pixels, names[1]: labels})
    records = load_own(tmp_path / "a.npz", schema, tmp_path)
    train, test = split_images(images, 0.3)
    assert_same_images(opened(records.train), train)
    assert_same_images(opened(records.test), test)
    assert records.content_hash == hash_images(images)


def test_images_of_their_own_can_be_held_out(tmp_path):
    images, others = random_images(120, GREY.shape, 3), random_images(110, GREY.shape, 3, seed=1)
    keras = str(tmp_path / "mnist.npz")
    np.savez(keras, x_train=images.pixels, y_train=images.labels, x_test=others.pixels, y_test=others.labels)
    assert "give it as data.test_path, too" in refusal(load_own, keras, GREY, tmp_path)
    folder = write_folder(tmp_path / "test", others, GREY.classes)
    for test_path, expected in ((keras, others), (folder, by_class(others))):
        records = load_own(keras, GREY, tmp_path, test_path=test_path)
        assert_same_images(opened(records.train), images)
        assert_same_images(opened(records.test), expected)
        assert records.schema.num_records == 120 and records.content_hash == hash_images(images, expected)


def test_reading_the_schema_opens_no_image(tmp_path):
    data = DataSettings(name="images", path=str(tmp_path / "absent"), schema=write_schema(tmp_path, GREY))
    assert DATASETS["images"].read_schema(data).classes == GREY.classes


def test_what_was_forgotten_or_is_absent_is_said(tmp_path):
    assert "data.path is not given" in refusal(load_own, "", GREY, tmp_path)
    assert "data.schema is not given" in refusal(DATASETS["images"].read_schema, DataSettings(name="images"))
    assert "does not exist" in refusal(load_own, tmp_path / "absent.npz", GREY, tmp_path)
    assert "neither a folder nor an .npz" in refusal(load_own, tmp_path / "schema.json", GREY, tmp_path)


def make_file(folder, name, array=None, content=b"no image", **options):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if array is None:
        path.write_bytes(content)
    else:
        Image.fromarray(array).save(path, **options)
    return path


PICTURE = np.arange(48, dtype=np.uint8).reshape(8, 6)
FOLDER_MISTAKES = [
    ("cat/a.png", PICTURE[:, :5], "8 x 5 pixels and the schema says 8 x 6: resize it, or set data.resize=True"),
    ("cat/a.png", np.stack([PICTURE] * 3, -1), "is colour and the schema's 1 channel(s) mean grey"),
    ("cat/a.png", np.stack([PICTURE] * 4, -1), "is colour with transparency"),
    ("cat/a.png", PICTURE.astype(np.uint16), "more than 8 bits"),
    ("cat/a.png", None, "damaged or no image"),
    ("cat/a.tiff", PICTURE, "is not one of .png, .jpg, .jpeg, .bmp"),
    ("cat/b/a.png", PICTURE, "folder within a class"),
    ("a.png", PICTURE, "lies in no class folder"),
    ("cats/a.png", PICTURE, "no class of the schema: did you mean 'cat'?"),
]


@pytest.mark.parametrize("name, array, problem", FOLDER_MISTAKES)
def test_a_file_that_does_not_belong_is_named(tmp_path, name, array, problem):
    folder = tmp_path / "pictures"
    write_folder(folder, random_images(3, GREY.shape, 3), GREY.classes)
    path = make_file(folder, name, array)
    message = refusal(load_own, folder, GREY, tmp_path)
    assert problem in message and str(path.parent if problem.startswith(("no class", "folder")) else path) in message


def test_a_folder_of_nothing_or_of_one_class_is_refused(tmp_path):
    folder = tmp_path / "pictures"
    (folder / "cat").mkdir(parents=True)
    (folder / "emu").mkdir()
    assert "holds no images" in refusal(load_own, folder, GREY, tmp_path)
    write_folder(folder, random_images(120, GREY.shape, 1), GREY.classes)
    assert "one class only ('cat')" in refusal(load_own, folder, GREY, tmp_path)


@pytest.mark.parametrize("wanted", [(8, 6, 1), (8, 6, 3)])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_resizing_takes_any_size_and_mode(tmp_path, wanted, mode):
    format_ = ".jpg" if mode == "CMYK" else ".png"
    path = tmp_path / f"a{format_}"
    Image.fromarray(np.full((31, 17, 3), 255, np.uint8)).convert(mode).save(path)
    found = read_picture(str(path), wanted, resize=True)
    assert found.shape == wanted and found.dtype == np.uint8 and found.min() >= 250


def test_resizing_scales_the_shorter_side_and_cuts_out_the_centre():
    wide = np.zeros((8, 32), np.uint8)
    wide[:, 12:20] = 200  # the central square
    square = fit_picture(Image.fromarray(wide), (8, 8, 1))
    assert (square == 200).all()
    square = fit_picture(Image.fromarray(np.kron(wide, np.ones((4, 4), np.uint8))), (8, 8, 1))[..., 0]
    assert (square[:, 2:-2] == 200).all() and (square > 180).all()
    small = fit_picture(Image.fromarray(np.kron(PICTURE, np.ones((2, 2), np.uint8))), GREY.shape)
    assert np.abs(small[..., 0].astype(int) - PICTURE).max() <= 2
    assert (fit_picture(Image.fromarray(PICTURE), GREY.shape)[..., 0] == PICTURE).all()


def test_resizing_is_a_setting_for_folders_and_npz(tmp_path):
    images = random_images(120, (20, 11, 3), 3)
    np.savez(tmp_path / "a.npz", images=images.pixels, labels=images.labels)
    folder = write_folder(tmp_path / "pictures", images, GREY.classes)
    for path in (tmp_path / "a.npz", folder):
        assert "data.resize=True" in refusal(load_own, path, GREY, tmp_path)
        records = load_own(path, GREY, tmp_path, resize=True)
        expected = images if path != folder else by_class(images)
        fitted = np.stack([fit_picture(Image.fromarray(pixels), GREY.shape) for pixels in expected.pixels])
        assert records.content_hash == hash_images(Images(fitted, expected.labels))
    assert settings_from_dict({"data": {"resize": True}}).data.resize


@pytest.mark.parametrize("format_", ["png", "jpeg", "bmp"])
def test_a_damaged_picture_is_refused_or_read_whole(tmp_path, format_):
    buffer = io.BytesIO()
    Image.fromarray(random_images(1, (16, 16, 3)).pixels[0]).save(buffer, format_)
    content = buffer.getvalue()
    path = tmp_path / f"a.{format_}"
    damaged = [content[:length] for length in range(0, len(content) - 1, 20)]
    for i in range(64):  # headers
        damaged += [content[:i] + bytes([content[i] ^ bit]) + content[i + 1 :] for bit in (1, 32, 255)]
    num_refused = 0
    for bad in damaged:
        path.write_bytes(bad)
        try:
            assert read_picture(str(path), (16, 16, 3), resize=False).shape == (16, 16, 3)
        except UserError as error:
            num_refused += 1
            assert str(path) in str(error) and "\n" not in str(error)
    assert num_refused >= len(damaged) // 4


@pytest.mark.parametrize("width", [10_000, 40_000])  # Pillow warns of the one and refuses the other
def test_a_picture_of_a_hundred_million_pixels_is_refused_unread(tmp_path, width):
    header = struct.pack("<2sIHHI", b"BM", 54, 0, 0, 54)
    header += struct.pack("<IiiHHIIiiII", 40, width, 10_000, 1, 24, *[0] * 6)
    path = make_file(tmp_path, "a.bmp", content=header)
    assert "too many pixels" in refusal(read_picture, str(path), (8, 8, 3), resize=True)


def npz_arrays(**changes):
    images = random_images(120, COLOUR.shape, 3)
    kept = {"images": images.pixels, "labels": images.labels} | changes
    return {name: array for name, array in kept.items() if array is not None}


PIXELS = npz_arrays()["images"]


@pytest.mark.parametrize(
    "changes, problem",
    [
        ({"images": PIXELS / 255}, "is float64: store pixels as uint8"),
        ({"images": PIXELS.transpose(0, 3, 1, 2)}, "channels first, (120, 3, 8, 6)"),
        ({"images": PIXELS[..., 0]}, "1 channel(s) and the schema says 3"),
        ({"images": PIXELS[..., :2]}, "2 channel(s)"),
        ({"images": PIXELS[:, :7]}, "7 x 6 pixels and the schema says 8 x 6"),
        ({"images": PIXELS[:, 0, 0]}, "has the shape (120, 3)"),
        ({"images": PIXELS[:0], "labels": np.zeros(0, int)}, "holds no images"),
        ({"labels": np.zeros(119, int)}, "119 labels for 120 images"),
        ({"labels": np.zeros(120)}, "store one whole number per image"),
        ({"labels": np.eye(3, dtype=int)[np.arange(120) % 3]}, "store one whole number per image"),
        ({"labels": np.array(["cat", "dog"] * 60)}, "store one whole number per image"),
        ({"labels": np.array([0, 1, 2, 3] * 30)}, "label 3"),
        ({"labels": np.array([0, 2**40] * 60)}, "number the classes from 0"),
        ({"labels": np.array([{}] * 120, object)}, "holds objects"),
        ({"labels": np.ones(120, int)}, "one class only ('dog')"),
        ({"images": None}, "no array images or pixels or x or x_train, but labels"),
        ({"labels": None}, "no array labels or y or y_train"),
        ({"y": np.zeros(120, int)}, "both labels and y"),
    ],
)
def test_a_bad_npz_is_refused(tmp_path, changes, problem):
    path = tmp_path / "a.npz"
    np.savez(path, **npz_arrays(**changes))
    message = refusal(load_own, path, COLOUR, tmp_path)
    assert str(path) in message and problem in message


def test_an_npz_that_is_none_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, **npz_arrays())
    content = path.read_bytes()
    single = io.BytesIO()
    np.save(single, PIXELS)
    entry = content.index(b"PK\1\2") + 8  # its flags, of which the first says that it is encrypted
    encrypted = content[:entry] + bytes([content[entry] | 1]) + content[entry + 1 :]
    unclosed = content.replace(b"}", b" ", 1)  # in the header of the first array
    for bad in (b"", b"text", content[:-30], content[:200], pickle.dumps([1]), single.getvalue(), encrypted, unclosed):
        path.write_bytes(bad)
        assert str(path) in refusal(load_own, path, COLOUR, tmp_path)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_flipped_byte_in_an_npz_is_refused_or_harmless(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("npz")
    np.savez_compressed(folder / "a.npz", **npz_arrays())
    content = bytearray((folder / "a.npz").read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    (folder / "a.npz").write_bytes(bytes(content))
    try:
        load_own(folder / "a.npz", COLOUR, folder)
    except UserError as error:
        assert "a.npz" in str(error)


# --- proposals


@pytest.mark.parametrize("kind", ["folder", "npz"])
def test_a_proposal_fits_the_images_that_it_was_made_from(tmp_path, capsys, kind):
    images = random_images(127, COLOUR.shape, 3)
    path = write_folder(tmp_path / "pictures", images, COLOUR.classes)
    if kind == "npz":
        path = str(tmp_path / "a.npz")
        np.savez(path, images=images.pixels, labels=images.labels)
    assert main([path]) == 0
    printed = capsys.readouterr()
    schema = image_schema_from_dict(json.loads(printed.out))
    assert schema == ImageSchema(
        COLOUR.shape,
        COLOUR.classes if kind == "folder" else ("0", "1", "2"),
        num_records=130,
        declared_public=("shape", "classes", "num_records"),
    )
    assert "private images" in printed.err and "shape, classes, num_records" in printed.err
    assert "data.resize" not in printed.err
    assert load_own(path, schema, tmp_path).schema.classes == schema.classes


def test_a_proposal_for_images_of_many_sizes_takes_the_commonest(tmp_path, capsys):
    write_folder(tmp_path, random_images(6, (8, 6, 1), 2), COLOUR.classes)
    make_file(tmp_path, "dog/z.png", np.zeros((300, 290, 3), np.uint8))
    assert main([str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["shape"] == [8, 6, 3]
    assert "sides of 6 to 300 pixels" in printed.err and "data.resize=True" in printed.err


@pytest.mark.parametrize("files, problem", [({}, "no images"), ({"cat": 2}, "1 class(es)"), ({"cat": 0}, "no images")])
def test_what_no_schema_can_be_proposed_for_is_refused(tmp_path, capsys, files, problem):
    for name, num_files in files.items():
        (tmp_path / name).mkdir()
        for i in range(num_files):
            make_file(tmp_path, f"{name}/{i}.png", PICTURE)
    assert main([str(tmp_path)]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("error: ") and problem in printed.err
    assert main([str(tmp_path), "--target", "cat"]) == 2
    assert "names a column" in capsys.readouterr().err


# --- digits


def test_digits_are_scaled_and_split_by_the_public_rules():
    from sklearn.datasets import load_digits

    data = DataSettings(name="digits")
    schema = DATASETS["digits"].read_schema(data)
    records = DATASETS["digits"].load(data, schema)
    train, test = opened(records.train), opened(records.test)
    bundle = load_digits()
    is_test = held_out(1797, 0.3)
    for part, rows in ((train, ~is_test), (test, is_test)):
        assert part.pixels.shape[1:] == schema.shape == (8, 8, 1)
        np.testing.assert_array_equal(part.labels, bundle.target[rows])
        np.testing.assert_allclose(part.pixels[..., 0], bundle.images[rows] * 255 / 16, atol=0.5)
    assert abs(len(train.labels) / schema.num_records - 1) < 0.02
    assert (digits.scale(np.array([0, 8, 16])) == [0, 128, 255]).all()


def test_a_data_set_is_picked_by_source_or_name():
    for name, dataset in DATASETS.items():
        assert dataset_of(DataSettings(name=name)) is dataset
    assert "data.name is 'minst': use one of adult, cifar10" in refusal(dataset_of, DataSettings(name="minst"))
    assert "data.source is 'tf:mnist'" in refusal(dataset_of, DataSettings(source="tf:mnist"))
    assert dataset_of(DataSettings(name="minst", source="tfds:mnist")).load is tfds.load


@pytest.mark.parametrize("settings", [{"target": "sex"}, {"max_records_per_unit": 2}])
def test_what_a_data_set_does_not_read_is_refused(settings):
    for own in ({"name": "adult"}, {"name": "mnist"}, {"source": "tfds:mnist"}):
        assert f"data.{next(iter(settings))} is" in refusal(dataset_of, DataSettings(**own, **settings))
    for name in ("csv", "mimic3", "mimic3_demo"):
        assert dataset_of(DataSettings(name=name, **settings)) is DATASETS[name]
