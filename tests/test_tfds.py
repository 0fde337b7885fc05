"""Images that tensorflow-datasets prepared, and the builders that prepare them without TensorFlow."""

import io
import json
import sys

import pytest
from image_sets import (
    COLOUR,
    GREY,
    MNIST_PARTS,
    assert_same_images,
    known_as,
    opened,
    random_images,
    refusal,
    write_mnist,
)
from PIL import Image

from launch import prepare_tfds
from privsyn_jax.data import dataset_of
from privsyn_jax.data.images import mnist, tfds
from privsyn_jax.data.images.content import (
    hash_images,
    split_images,
)
from privsyn_jax.data.images.tfds_builders import Original, prepare
from privsyn_jax.settings import DataSettings
from privsyn_jax.types import ImageSchema


def make_versions(folder, *versions):
    for version in versions:
        (folder / version).mkdir(parents=True)
        (folder / version / "dataset_info.json").write_text("{}")


def test_the_newest_or_the_named_version_is_found(tmp_path):
    make_versions(tmp_path / "mnist", "3.0.9", "3.0.10", "2.9.0")
    make_versions(tmp_path / "corrupted" / "fog", "1.0.0")
    (tmp_path / "mnist" / "4.0.0").mkdir()  # prepared halfway
    for source, expected in (
        ("tfds:mnist", "mnist/3.0.10"),
        ("tfds:mnist:3.0.9", "mnist/3.0.9"),
        ("tfds:corrupted/fog", "corrupted/fog/1.0.0"),
        ("tfds:corrupted/fog:1.0.0", "corrupted/fog/1.0.0"),
    ):
        assert tfds.find_prepared(source, str(tmp_path)) == str(tmp_path / expected)
    for source, problem in (
        ("tfds:mnist:4.0.0", "which has 2.9.0, 3.0.9, 3.0.10"),
        ("tfds:corrupted", "say which, as in tfds:corrupted/fog"),
        ("tfds:cifar10", "prepare it there as array_record (nothing is downloaded from here), for instance"),
        ("tfds:caltech101", "caltech101: prepare it there as array_record"),
        ("tfds:mnist[train]", "write tfds:NAME"),
        ("tfds:../mnist", "write tfds:NAME"),
    ):
        assert problem in refusal(tfds.find_prepared, source, str(tmp_path))


def test_without_data_dir_the_home_of_tensorflow_datasets_is_looked_in(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    make_versions(tmp_path / "tensorflow_datasets" / "mnist", "1.0.0")
    assert tfds.find_prepared("tfds:mnist", "").startswith(str(tmp_path))


def test_without_the_package_it_is_said_how_to_install_it(tmp_path, monkeypatch):
    make_versions(tmp_path / "mnist", "1.0.0")
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    data = DataSettings(source="tfds:mnist", dir=str(tmp_path))
    assert "install privsyn_jax[tfds]" in refusal(dataset_of(data).read_schema, data)


TFDS_PARTS = random_images(130, GREY.shape, 3, seed=1), random_images(110, GREY.shape, 3, seed=2)


@pytest.fixture(scope="module")
def prepared_dir(tmp_path_factory):
    """Two tiny sets prepared by the shipped builder; a test that changes one copies it."""
    pytest.importorskip(
        "tensorflow_datasets", reason="tensorflow-datasets is not installed: it is in privsyn_jax[tfds]"
    )
    folder = tmp_path_factory.mktemp("tfds")
    originals = {"tiny": Original(GREY.shape, GREY.classes, lambda _: TFDS_PARTS)}
    for _ in range(2):  # the second time it is there
        found = prepare("tiny", manual_dir=str(folder), data_dir=str(folder), originals=originals)
        assert found == str(folder / "tiny" / "1.0.0")
    return folder


def load_tfds(folder, name="tiny"):
    data = DataSettings(source=f"tfds:{name}", dir=str(folder))
    dataset = dataset_of(data)
    return dataset.load(data, dataset.read_schema(data))


def test_what_is_prepared_is_read_back(prepared_dir):
    records = load_tfds(prepared_dir)
    assert records.schema == ImageSchema(GREY.shape, GREY.classes, 130, declared_public=("num_records",))
    assert_same_images(opened(records.train), TFDS_PARTS[0])
    assert_same_images(opened(records.test), TFDS_PARTS[1])
    assert records.content_hash == hash_images(*TFDS_PARTS)
    assert "tensorflow" not in sys.modules


def copied(prepared_dir, folder, name, edit):
    """A copy of the tiny set below `folder`, with the text of one of its files edited."""
    place = folder / "tiny" / "1.0.0"
    place.mkdir(parents=True)
    for file in (prepared_dir / "tiny" / "1.0.0").iterdir():
        content = file.read_bytes()
        (place / file.name).write_bytes(edit(content) if file.name == name else content)
    return folder


def without_test(content):
    info = json.loads(content)
    info["splits"] = [split for split in info["splits"] if split["name"] == "train"]
    return json.dumps(info).encode()


def test_a_set_without_a_test_split_is_split_by_the_public_rule(prepared_dir, tmp_path):
    records = load_tfds(copied(prepared_dir, tmp_path, "dataset_info.json", without_test))
    train, test = split_images(TFDS_PARTS[0], 0.3)
    assert_same_images(opened(records.train), train)
    assert_same_images(opened(records.test), test)
    assert records.schema.num_records == round(130 * 0.7)


@pytest.mark.parametrize(
    "name, edit, problem",
    [
        ("dataset_info.json", lambda text: text.replace(b"array_record", b"tfrecord"), "is prepared as tfrecord"),
        ("dataset_info.json", lambda text: b"{", "is not readable by tensorflow-datasets"),
        ("dataset_info.json", lambda text: text.replace(b'"train"', b'"all"'), "no split 'train', but all, test"),
        ("features.json", lambda text: text.replace(b"uint8", b"int32"), "0 features of kind image"),
        ("label.labels.txt", lambda text: b"cat\n", "tiny"),
        ("tiny-train.array_record-00000-of-00001", lambda content: content[:1000], "split 'train' of tfds:tiny"),
    ],
)
def test_a_set_that_is_not_usable_is_refused(prepared_dir, tmp_path, name, edit, problem):
    assert problem in refusal(load_tfds, copied(prepared_dir, tmp_path, name, edit))


def test_pictures_that_tfds_compressed_are_read_and_those_of_many_sizes_refused(tmp_path):
    library = pytest.importorskip("tensorflow_datasets", reason="tensorflow-datasets is not installed")
    images = random_images(100, COLOUR.shape, 2)

    def example(pixels, label):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "png")
        return {"image": io.BytesIO(buffer.getvalue()), "label": int(label), "other": int(label)}

    for dataset_name, shape in (("fixed", COLOUR.shape), ("loose", (None, None, 3))):

        class Pictures(library.core.GeneratorBasedBuilder, skip_registration=True):
            name = dataset_name
            VERSION = library.core.Version("1.0.0")
            image_shape = shape

            def _info(self):
                features = {
                    "image": library.features.Image(shape=self.image_shape, encoding_format="png"),
                    "label": library.features.ClassLabel(names=["a", "b"]),
                    "other": library.features.ClassLabel(num_classes=2),
                }
                return library.core.DatasetInfo(
                    builder=self,
                    features=library.features.FeaturesDict(features),
                    supervised_keys=("image", "label"),
                    disable_shuffling=True,
                )

            def _split_generators(self, dl_manager):
                del dl_manager
                return {"train": enumerate(map(example, *images))}

            def _generate_examples(self):
                raise NotImplementedError

        Pictures(data_dir=str(tmp_path), file_format="array_record").download_and_prepare()
    records = load_tfds(tmp_path, "fixed")
    assert records.schema.classes == ("a", "b") and records.content_hash == hash_images(images)
    assert "images of many sizes" in refusal(load_tfds, tmp_path, "loose")


def test_the_program_prepares_only_published_files(tmp_path, capsys, monkeypatch):
    pytest.importorskip("tensorflow_datasets", reason="tensorflow-datasets is not installed")
    arguments = ["mnist", f"--manual_dir={tmp_path}", f"--data_dir={tmp_path / 'out'}"]
    for problem in ("was not found", "30 images instead of the published 60000"):
        assert prepare_tfds.main(arguments) == 2
        assert problem in capsys.readouterr().err
        write_mnist(tmp_path, *MNIST_PARTS)
    assert prepare_tfds.main(["mnist", "--manual_dir=/absent"]) == 2
    assert "is no folder" in capsys.readouterr().err
    monkeypatch.setattr(mnist, "PUBLISHED", tuple(map(known_as, MNIST_PARTS)))
    assert prepare_tfds.main(arguments) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "out" / "mnist" / "1.0.0")
