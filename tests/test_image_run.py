"""Runs on images from end to end: files, guarantee, samples, and one sentence for what does not fit."""

import io
import json
import re
import shutil

import killed
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import privsyn_jax
from privsyn_jax.data import DATASETS
from privsyn_jax.data.images.schema import image_schema_to_dict
from privsyn_jax.data.schema import schema_from_dict
from privsyn_jax.estimate import estimate
from privsyn_jax.privacy.ledger import Entry, Ledger
from privsyn_jax.run import execute, prepare
from privsyn_jax.settings import settings_from_dict
from privsyn_jax.types import Images, ImageSchema, UserError

NUM_SAMPLES = 100
CLASSES = tuple("0123456789")
TRAINING = {"num_steps": 4, "steps_per_dispatch": 2, "expected_batch_size": 32, "microbatch_size": 32}
MODELS = {
    "class_gaussian": {"name": "class_gaussian", "num_frequencies": 10},
    "dcgan": {"name": "dcgan", "channels": (4,), "generator_channels": (4,), "latent_dim": 3},
    "diffusion": {
        "name": "diffusion", "channels": (8,), "embedding_dim": 8, "num_sampling_steps": 2, "label_dropout": 0.0,
        "guidance": 1.0,
    },
}  # fmt: skip
EACH = ["class_gaussian", "dcgan", pytest.param("diffusion", marks=pytest.mark.slow)]
LEDGERS = {
    "class_gaussian": ["class means", "covariances"],
    "dcgan": ["class means", "training"],
    "diffusion": ["training"],
}


def tiny(model, /, **sections):
    """Settings of a run on the digits that takes seconds."""
    plain = {
        "data": {"name": "digits"},
        "model": MODELS[model],
        "privacy": {"epsilon": 2.0, "delta": 1e-4},
        "training": {**TRAINING, "critic_steps": 2, "generator_batch_size": 8},
        "synthesis": {"num_samples": NUM_SAMPLES},
        "evaluation": {"enabled": False},
    }
    if model == "dcgan":
        plain["warm_start"] = {
            "images": "procedural+central", "num_images": 40, "num_steps": 2, "batch_size": 8, "num_frequencies": 10,
        }  # fmt: skip
    return {**plain, **{name: {**plain.get(name, {}), **section} for name, section in sections.items()}}


def run(plain, workdir):
    """What was said on the way, and the lines at the end."""
    said = []
    return said, execute(settings_from_dict(plain), workdir, announce=said.append)


def refusal(plain):
    with pytest.raises(UserError) as error:
        prepare(settings_from_dict(plain))
    message = str(error.value)
    assert "\n" not in message
    return message


def read_json(path):
    return json.loads(path.read_text(), parse_constant=pytest.fail)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """model -> (its folder, what was said, the lines at the end), each run once."""
    base, done = tmp_path_factory.mktemp("images"), {}

    def get(model):
        if model not in done:
            evaluated = {"enabled": True, "features": "random", "feature_images": 40, "classifier_steps": 2}
            sections = {"evaluation": evaluated} if model == "class_gaussian" else {}
            done[model] = (base / model, *run(tiny(model, **sections), base / model))
        return done[model]

    return get


# ---- files


@pytest.mark.parametrize("model", EACH)
def test_the_workdir_holds_what_the_design_promises(runs, model):
    workdir, _, lines = runs(model)
    found = {str(path.relative_to(workdir)) for path in workdir.rglob("*") if path.is_file()}
    wanted = {
        ".lock", "config.json", "environment.json", "plan.json",
        "release/synthetic.npz", "release/grid.png", "release/privacy_report.json", "release/privacy_report.md",
        "release/model/model.json", "release/model/params.npz",
        "private/README.txt", "private/source.json", "private/clamped.json", "private/ledger.json",
        "private/training.jsonl", "private/timing.json", "private/report.html",
    }  # fmt: skip
    if model == "class_gaussian":
        wanted |= {"private/evaluation/metrics.json", "private/evaluation/details.json", "private/attacks/attacks.json"}
        wanted |= {name for name in found if re.fullmatch(r"private/evaluation/picture_\d\.png", name)}
    assert {name for name in found if not name.startswith("private/figures/")} == wanted
    assert (workdir / "private").stat().st_mode & 0o777 == 0o700
    for name in ("synthetic.npz", "grid.png"):
        assert any(str(workdir / "release" / name) in line for line in lines)


@pytest.mark.parametrize("model", EACH)
def test_the_release_holds_images_of_all_classes(runs, model):
    release = runs(model)[0] / "release"
    with np.load(release / "synthetic.npz", allow_pickle=False) as arrays:
        assert sorted(arrays.files) == ["classes", "images", "labels"]
        images, labels, classes = arrays["images"], arrays["labels"], arrays["classes"]
    assert images.dtype == np.uint8 and images.shape == (NUM_SAMPLES, 8, 8, 1) and images.std() > 1
    assert np.bincount(labels, minlength=10).tolist() == [NUM_SAMPLES // 10] * 10
    assert tuple(classes.tolist()) == CLASSES
    with Image.open(io.BytesIO((release / "grid.png").read_bytes())) as grid:
        grid.load()
        assert grid.format == "PNG" and min(grid.size) >= 8 * 10


def test_the_released_images_are_data_again(runs, tmp_path):
    npz = runs("class_gaussian")[0] / "release" / "synthetic.npz"
    schema = ImageSchema((8, 8, 1), CLASSES, NUM_SAMPLES)
    (tmp_path / "schema.json").write_text(json.dumps(image_schema_to_dict(schema)))
    data = {"name": "images", "path": str(npz), "test_path": str(npz), "schema": str(tmp_path / "schema.json")}
    settings = settings_from_dict({"data": data, "model": MODELS["class_gaussian"]}).data
    source = DATASETS["images"]
    loaded = source.load(settings, source.read_schema(settings))
    receipt = Ledger().charge("test", "all", "test", {"kind": "pure", "epsilon": 1.0, "count": 1})
    with np.load(npz) as arrays:
        np.testing.assert_array_equal(loaded.train.open(receipt).pixels, arrays["images"])
        np.testing.assert_array_equal(loaded.train.open(receipt).labels, arrays["labels"])


def test_metrics_and_the_page(runs):
    workdir, _, lines = runs("class_gaussian")
    metrics = read_json(workdir / "private" / "evaluation" / "metrics.json")
    keys = {"family", "metric", "value", "reference", "higher_is_better", "column", "seed"}
    assert all(keys <= set(row) for row in metrics)
    assert {"utility", "fidelity", "sanity"} <= {row["family"] for row in metrics}
    assert {row["column"] for row in metrics} <= {None, *CLASSES}
    assert any("FID" in line for line in lines)
    page = (workdir / "private" / "report.html").read_text()
    assert "PRIVATE" in page[: page.index("<main>")] and page.count("data:image/png;base64,") >= 1
    assert "100 synthetic images of 8 × 8 pixels, grey, in 10 classes" in page


@pytest.mark.parametrize("model", EACH)
def test_no_page_and_no_report_speaks_of_rows_or_tables(runs, model):
    workdir = runs(model)[0]
    page = (workdir / "private" / "report.html").read_text()
    # Scripts are the same on every page, and details hold names of settings.
    scripts = r'<script(?! type="application/json").*?</script>'
    page = re.sub(rf"{scripts}|<style>.*?</style>|<details>.*?</details>", "", page, flags=re.DOTALL)
    texts = [re.sub(r"<[^>]*>", "", page), (workdir / "release" / "privacy_report.md").read_text()]
    for text in texts:
        assert re.findall(r"[^.\n]*\b(?:rows?|columns?|tables?)\b[^.\n]*", text, re.IGNORECASE) == []


# ---- the guarantee


@pytest.mark.parametrize("model", EACH)
def test_the_reported_epsilon_is_what_the_ledger_adds_up_to(runs, model):
    workdir = runs(model)[0]
    report = read_json(workdir / "release" / "privacy_report.json")
    assert [entry["name"] for entry in report["ledger"]] == LEDGERS[model]
    keys = ("name", "reads", "mechanism", "event")
    ledger = Ledger(Entry(**{key: entry[key] for key in keys}) for entry in report["ledger"])
    assert report["epsilon"] == pytest.approx(ledger.epsilon(report["delta"]), rel=1e-9)
    assert report["private"] is True and 0.99 * 2.0 <= report["epsilon"] <= 2.0 and report["privacy_unit"] == "image"
    assert sum(entry["share"] for entry in report["ledger"]) == pytest.approx(1.0)
    assert read_json(workdir / "plan.json")["epsilon"] == 2.0
    assert any("8 x 8 x 1" in fact for fact in report["declared_public"])


def test_a_warm_start_is_paid_and_announced(runs):
    workdir, said, _ = runs("dcgan")
    report = read_json(workdir / "release" / "privacy_report.json")
    assert report["ledger"][0]["share"] == pytest.approx(0.1)  # the default of privacy.budget.warm_start
    words = ["buying class means", "warm start on procedural and central images", "sampling"]
    assert [message for message in said if message in words] == words


@pytest.mark.parametrize("model", ["class_gaussian", pytest.param("dcgan", marks=pytest.mark.slow)])
def test_without_noise_everything_is_stamped(model, tmp_path):
    run(tiny(model, privacy={"epsilon": "inf"}), tmp_path / "run")
    release = tmp_path / "run" / "release"
    report = read_json(release / "privacy_report.json")
    assert report["private"] is False and report["epsilon"] is None
    assert (release / "NOT_PRIVATE.txt").is_file()
    assert "NOT PRIVATE" in (release / "privacy_report.md").read_text()
    assert "NOT PRIVATE" in (tmp_path / "run" / "private" / "report.html").read_text()
    assert read_json(release / "model" / "model.json")["private"] is False


# ---- samples


@pytest.mark.parametrize("model", EACH)
def test_a_finished_run_is_loaded_and_sampled_from(runs, model):
    again = privsyn_jax.load(runs(model)[0])
    images = again.sample(23, seed=1)
    assert isinstance(images, Images) and images.pixels.shape == (23, 8, 8, 1) and images.pixels.dtype == np.uint8
    assert set(np.bincount(images.labels, minlength=10)) == {2, 3}
    np.testing.assert_array_equal(images.pixels, again.sample(23, seed=1).pixels)
    assert (images.pixels != again.sample(23, seed=2).pixels).any()
    assert (again.sample(5, conditions={"label": "3"}, seed=1).labels == 3).all()
    mixed = again.sample(7, conditions={"label": ["9", "0"]}, seed=1)
    assert mixed.pixels.shape == (7, 8, 8, 1) and np.bincount(mixed.labels).tolist() == [3] + [0] * 8 + [4]


def test_conditions_of_the_settings_are_met_and_reported(tmp_path):
    run(tiny("class_gaussian", synthesis={"conditions": '{"label": ["3", "5"]}'}), tmp_path / "run")
    release = tmp_path / "run" / "release"
    with np.load(release / "synthetic.npz") as arrays:
        assert np.bincount(arrays["labels"], minlength=10).tolist() == [0, 0, 0, 50, 0, 50, 0, 0, 0, 0]
    assert read_json(release / "acceptance.json")["exact"] == ["label"]


def test_a_bad_condition_is_one_sentence(runs):
    again = privsyn_jax.load(runs("class_gaussian")[0])
    for conditions, message in (
        ({"label": "x"}, r"^condition on 'label' is 'x': name classes of the schema \(0, 1, 2"),
        ({"label": ["3", "x"]}, r"name classes of the schema"),
        ({"label": []}, r"name classes of the schema"),
        ({"digit": "3"}, r"^condition on 'digit': only 'label' can be conditioned on"),
    ):
        with pytest.raises(UserError, match=message):
            again.sample(3, conditions=conditions)


# ---- a run that is killed


def outcome(folder):
    """All that a run leaves, by name, as bytes."""
    names = [
        "release/synthetic.npz", "release/grid.png", "release/model/params.npz", "release/privacy_report.json",
        "private/ledger.json", "private/training.jsonl",
    ]  # fmt: skip
    return {name: (folder / name).read_bytes() for name in names}


def kill_after(step, plain, folder, compiled):
    """Kills a run when the checkpoint of a step is whole."""
    states = folder / "private" / "checkpoints" / "states"
    process = killed.start(plain, folder, compiled)
    saved = lambda: any(path.name.isdigit() and int(path.name) >= step for path in states.glob("*"))  # noqa: E731
    assert killed.kill(process, saved), said(folder)


def said(folder):
    return folder.with_name(f"{folder.name}.txt").read_text()


@pytest.mark.slow
def test_a_gan_killed_while_training_ends_as_an_unbroken_one(tmp_path):
    plain = tiny("dcgan", training={"num_steps": 60, "steps_per_dispatch": 1, "checkpoint_seconds": 0})
    whole, folder, compiled = tmp_path / "whole", tmp_path / "run", tmp_path / "compiled"
    process = killed.start(plain, whole, compiled)
    assert killed.kill(process, (whole / "private" / "checkpoints" / "secret.json").is_file), said(whole)
    shutil.copytree(whole, folder)
    assert killed.run(plain, whole, compiled) == 0, said(whole)
    for step in (3, 12):  # between two steps of the generator, and right after one
        kill_after(step, plain, folder, compiled)
    assert killed.run(plain, folder, compiled) == 0, said(folder)
    assert outcome(folder) == outcome(whole)
    entries = read_json(folder / "private" / "ledger.json")["entries"]
    assert [(entry["name"], entry["event"]["count"]) for entry in entries] == [("class means", 1), ("training", 60)]
    assert said(folder).count("going on from step") == 2
    assert said(folder).count("warm start on procedural and central images") == 1
    assert said(folder).count("buying class means") == 1


# ---- running again, and what is refused


@pytest.mark.parametrize("model", ["class_gaussian", "dcgan"])
def test_a_finished_run_is_only_reported_on(runs, model):
    workdir, _, lines = runs(model)
    kept = (workdir / "release" / "synthetic.npz").read_bytes()
    plain = read_json(workdir / "config.json")
    said, again = run({name: section for name, section in plain.items()}, workdir)
    assert again == lines and any("already holds the finished run" in message for message in said)
    assert not any("training on" in message or "buying" in message for message in said)
    assert (workdir / "release" / "synthetic.npz").read_bytes() == kept


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"data": {"name": "digits"}}, r"^model\.name is 'autoregressive', which does not make images as"),
        ({"data": {"name": "rand_hie"}, "model": {"name": "dcgan"}}, r"^model\.name is 'dcgan', .* tables as the data"),
        ({"data": {"name": "rand_hie"}, "warm_start": {"images": "procedural"}}, r"^warm_start\.images is .* images: "),
        (tiny("dcgan", privacy={"adaptive": {"rule": "loss"}}), r"^privacy\.adaptive\.rule='loss' needs a loss with"),
        (tiny("class_gaussian", privacy={"adaptive": {"rule": "even"}}), r"^privacy\.adaptive\.rule is 'even', but "),
        (tiny("class_gaussian", warm_start={"images": "central"}), r"^warm_start\.images is 'central', but .* steps"),
        (tiny("class_gaussian", synthesis={"conditions": '{"label": "x"}'}), r"^condition on 'label' is 'x': name"),
        (tiny("dcgan", model={"channels": ()}), r"^the section model of the settings does not fit: "),
        (tiny("class_gaussian", model={"num_splits": 9}), r"^the section model of the settings does not fit: "),
        (tiny("dcgan", training={"expected_batch_size": 9999}), r"^training\.expected_batch_size is 9999, more than"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_sentence(plain, message):
    assert re.search(message, refusal(plain)), refusal(plain)


# ---- the plan


@pytest.mark.parametrize(
    ("model", "words"), [("dcgan", r"\d+\.\d{3} s a step"), ("class_gaussian", "no steps: counts of the records")]
)
def test_an_estimate_opens_no_record(model, words, monkeypatch):
    def opened(*_):
        raise AssertionError("a record was opened")

    monkeypatch.setattr("privsyn_jax.data.images.digits.load", opened)
    monkeypatch.setattr("privsyn_jax.privacy.guard.Private.open", opened)
    settings = settings_from_dict(tiny(model))
    schema, plan = prepare(settings)
    lines = estimate(settings, schema, plan)
    assert any(re.search(words, line) for line in lines), lines


# ---- the Python interface

SCHEMA = ImageSchema((6, 8, 1), ("cat", "dog"), num_records=300)
FEW = {"model": {"num_frequencies": 6}, "privacy": {"seed": 0}}


def photographs(shape=(300, 6, 8, 1)):
    """A light left half or a light right half, by class."""
    labels = np.arange(shape[0]) % 2
    pixels = np.full(shape, 40, np.uint8)
    pixels[labels == 0, :, : shape[2] // 2], pixels[labels == 1, :, shape[2] // 2 :] = 220, 220
    return Images(pixels, labels)


@pytest.fixture(scope="module")
def fitted():
    return privsyn_jax.fit(photographs(), SCHEMA, model="class_gaussian", epsilon=50.0, settings=FEW)


def test_images_in_images_out(fitted, tmp_path):
    assert 49 <= fitted.privacy["epsilon"] <= 50 and "generator of images" in fitted._repr_html_()
    assert fitted.privacy["delta"] == pytest.approx(300**-1.1)
    sample = fitted.sample(10, seed=0)
    assert sample.pixels.shape == (10, 6, 8, 1) and sample.labels.tolist().count(0) == 5
    halves = sample.pixels.reshape(10, 6, 2, 4).mean((1, 3))
    assert (halves.argmax(1) == sample.labels).all()
    fitted.save(tmp_path / "saved")
    again = privsyn_jax.load(tmp_path / "saved")
    assert again.privacy == fitted.privacy and again.schema == fitted.schema == SCHEMA
    np.testing.assert_array_equal(again.sample(10, seed=0).pixels, sample.pixels)
    assert (again.sample(4, conditions={"label": "dog"}).labels == 1).all()
    assert "data" not in read_json(tmp_path / "saved" / "model" / "model.json")["settings"]


def test_a_schema_may_be_a_dict_or_a_path_and_labels_any_whole_numbers(tmp_path, monkeypatch):
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(image_schema_to_dict(SCHEMA)))
    given = []
    monkeypatch.setattr("privsyn_jax.api.learn", lambda records, schema, *_: given.append((records, schema)))
    images = photographs()
    for schema in (SCHEMA, image_schema_to_dict(SCHEMA), path, str(path)):
        pair = (images.pixels, images.labels.astype(np.uint8).tolist())
        privsyn_jax.fit(pair, schema, model="class_gaussian", epsilon=float("inf"))  # type: ignore[arg-type]
    receipt = Ledger().charge("test", "all", "test", {"kind": "pure", "epsilon": 1.0, "count": 1})
    for records, schema in given:
        found = records.open(receipt)
        assert schema == SCHEMA and found.labels.dtype == np.int32 and (found.labels == images.labels).all()


PIXELS, LABELS = photographs()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"records": (PIXELS[:, :5], LABELS)}, r"^the images are uint8 \[300, 5, 8, 1\] with labels \[300\]: give"),
        ({"records": (PIXELS[..., 0], LABELS)}, r"^the images are uint8 \[300, 6, 8\] with labels"),
        ({"records": (PIXELS / 255, LABELS)}, r"^the images are float64 .*: give uint8 pixels \[n, 6, 8, 1\] and"),
        ({"records": (PIXELS, LABELS[:-1])}, r"with labels \[299\]"),
        ({"records": (PIXELS, np.eye(2)[LABELS])}, r"with labels \[300, 2\]"),
        ({"records": (PIXELS, LABELS + 0.5)}, r"^the labels are float64: give whole numbers from 0 to 1$"),
        ({"records": (PIXELS, LABELS + 1)}, r"^the set of images given has the label 2, .* numbered 0 to 1"),
        ({"records": (PIXELS, LABELS - 1)}, r"has the label -1"),
        ({"records": (PIXELS, 0 * LABELS)}, r"holds images of one class only \('cat'\)"),
        ({"records": (PIXELS[:9], LABELS[:9])}, r"has 9 images, too few"),
        ({"records": PIXELS}, r"^the records are 'ndarray': give a DataFrame, Images\(pixels, labels\) or Texts"),
        ({"schema": {**image_schema_to_dict(SCHEMA), "classes": ["cat"]}}, r"has 1 class\(es\)"),
        (
            {"schema": {"columns": {"a": {"kind": "boolean"}, "b": {"kind": "boolean"}}, "num_records": 300}},
            r"describes a table",
        ),
        ({"schema": "absent.json"}, r"absent\.json does not exist"),
        ({"model": "tvae"}, r"^model 'tvae' does not make images: use one of "),
        ({"settings": {"synthesis": {"conditions": '{"label": "emu"}'}}}, r"^condition on 'label' is 'emu'"),
    ],
)
def test_bad_arguments_are_one_sentence(change, message, monkeypatch):
    monkeypatch.setattr("privsyn_jax.api.learn", lambda *_: pytest.fail("it learned"))
    arguments = {"records": photographs(), "schema": SCHEMA, "model": "class_gaussian", "epsilon": float("inf")}
    with pytest.raises(UserError, match=message) as caught:
        privsyn_jax.fit(**{**arguments, **change})
    assert "\n" not in str(caught.value)


def test_images_and_tables_are_not_mixed_up():
    frame = pd.DataFrame({"ill": [False, True] * 150, "old": [True, False] * 150})
    table = {"columns": {"ill": {"kind": "boolean"}, "old": {"kind": "boolean"}}, "num_records": 300}
    for records, schema, words in (
        (frame, SCHEMA, "the records are a table, and the schema describes images: "),
        (frame, image_schema_to_dict(SCHEMA), "the records are a table, and the schema describes images: "),
        (photographs(), schema_from_dict(table), "the records are images, and the schema describes a table: "),
    ):
        with pytest.raises(UserError, match=words) as caught:
            privsyn_jax.fit(records, schema)
        assert "\n" not in str(caught.value)
