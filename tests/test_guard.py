"""Private records stay wrapped: they open for a charge or for what stays private, and every config keeps to it."""

import ast
import copy
import dataclasses
import json
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ml_collections import ConfigDict

from launch.config import to_settings, to_study
from privsyn_jax.data import DATASETS, Dataset, adult
from privsyn_jax.data.images.content import hash_images
from privsyn_jax.data.texts import grammar
from privsyn_jax.data.texts.content import hash_texts
from privsyn_jax.learn import learn
from privsyn_jax.plan import make_plan
from privsyn_jax.privacy.guard import Opening, Private, PrivateFolder, UnchargedAccess
from privsyn_jax.privacy.ledger import Ledger, Receipt
from privsyn_jax.privacy.secret import Secret
from privsyn_jax.run import execute
from privsyn_jax.settings import DataSettings, settings_from_dict
from privsyn_jax.training.attempt import Attempt
from privsyn_jax.types import Column, Images, ImageSchema, Records, Schema, TextSchema

ROOT = Path(__file__).parent.parent
EVENT = {"kind": "gaussian", "noise_multiplier": 4.0, "count": 1}
SECRET = np.arange(5)


@pytest.fixture
def folder(tmp_path) -> PrivateFolder:
    (tmp_path / "private").mkdir(mode=0o700)
    return PrivateFolder(tmp_path / "private")


@pytest.mark.parametrize(
    "look",
    [
        len, iter, bool, hash, np.asarray, copy.copy, copy.deepcopy, pickle.dumps, sorted, pd.DataFrame,
        lambda x: x == x, lambda x: 0 in x, lambda x: x[0], lambda x: x.shape, lambda x: x.__value, vars,
    ],
)  # fmt: skip
def test_a_wrapper_shows_nothing(look):
    with pytest.raises((UnchargedAccess, TypeError, AttributeError)):
        look(Private(SECRET))


def test_its_text_shows_nothing():
    assert repr(Private(SECRET)) == str(Private(SECRET)) == f"{Private(SECRET)}" == "<private records>"


def test_it_opens_for_a_charge_and_for_a_private_folder_and_notes_both(folder):
    records, ledger = Private(SECRET), Ledger()
    assert records.open(ledger.charge("counts", "all", "noisy counts", EVENT)) is SECRET
    codes = records.map(lambda values: values + 1)
    assert isinstance(codes, Private) and np.array_equal(codes.open_under(folder), SECRET + 1)
    assert records.openings == codes.openings == (Opening("counts", None), Opening(None, folder.path))


@pytest.mark.parametrize(
    "receipt", [None, "counts", EVENT, True, Receipt(Ledger(), "counts"), Receipt({"counts": 1}, "counts")]
)
def test_without_a_charge_it_stays_closed(receipt):
    records = Private(SECRET)
    with pytest.raises(UnchargedAccess, match=r"pass what Ledger\.charge\(\) returns"):
        records.open(receipt)
    assert records.openings == ()


@pytest.mark.parametrize("folder", [None, "private", Path("private"), Ledger()])
def test_a_folder_must_be_a_private_one(folder):
    with pytest.raises(UnchargedAccess, match="pass the PrivateFolder"):
        Private(SECRET).open_under(folder)


def test_a_folder_that_others_may_enter_is_not_private(tmp_path):
    for name, mode in (("private", 0o750), ("private", 0o701), ("release", 0o700)):
        path = tmp_path / f"{mode}" / name
        path.mkdir(parents=True)
        path.chmod(mode)
        with pytest.raises(UnchargedAccess, match="must be a folder called private of mode 0700"):
            PrivateFolder(path)
    with pytest.raises(UnchargedAccess):
        PrivateFolder(tmp_path / "absent" / "private")


def test_nothing_outside_the_guard_reaches_into_a_wrapper():
    for path in sorted(
        path for folder in ("privsyn_jax", "launch", "benchmarks") for path in ROOT.glob(f"{folder}/**/*.py")
    ):
        if path.name == "guard.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [getattr(node, "attr", ""), getattr(node, "value", "") if isinstance(node, ast.Constant) else ""]
            assert not any(str(name).startswith(("_Private", "__value")) for name in names), path


_FAST = (  # stand for the rest by default
    "configs/csv.py",
    "configs/digits_class_gaussian.py",
    "configs/grammar_ngram.py",
)
_IMAGES = ("cifar10", "digits", "mnist")
_TEXTS = ("grammar", "imdb")
_SMALLER = {  # arguments of generators, where they have them
    "channels": (8,),
    "generator_channels": (8,),
    "num_features": 50,
    "num_frequencies": 6,
    "num_sampling_steps": 2,
    "num_steps": 3,
    "latent_dim": 3,
    "released_dim": 2,
    "width": 8,
}


def configs() -> list:
    names = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "configs").rglob("*.py"))
    assert set(_FAST) <= set(names)
    return [pytest.param(name, marks=[] if name in _FAST else [pytest.mark.slow]) for name in names]


def random_images(schema: ImageSchema, num_images: int, seed: int) -> Images:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (num_images, *schema.shape), np.uint8)
    return Images(pixels, (np.arange(num_images) % len(schema.classes)).astype(np.int32))


def few_random_images(dataset: Dataset) -> Dataset:
    """A published set of images with a few hundred random ones in its place."""

    def load(settings, schema):
        train, test = random_images(schema, 400, 0), random_images(schema, 100, 1)
        return Records(schema, Private(train), Private(test), hash_images(train, test), Private({}))

    return Dataset(lambda settings: dataclasses.replace(dataset.read_schema(settings), num_records=400), load)


def few_texts(dataset: Dataset) -> Dataset:
    """A published set of texts with a few hundred made-up ones in its place."""

    def load(settings, schema):
        train, test = grammar.draw(400, seed=0), grammar.draw(100, seed=1)
        return Records(schema, Private(train), Private(test), hash_texts(train, test), Private({}))

    return Dataset(lambda settings: dataclasses.replace(dataset.read_schema(settings), num_records=400), load)


def small_adult(path: Path) -> None:
    """Files in the format of UCI Adult with a few hundred rows."""
    schema, rng = adult.read_schema(DataSettings(name="adult")), np.random.default_rng(0)
    for name, count in ((adult.TRAIN_FILE, 400), (adult.TEST_FILE, 100)):
        columns = [
            rng.choice([str(value) for value in column.values], count)
            if column.values
            else rng.integers(int(column.lower), min(int(column.upper), int(column.lower) + 60), count).astype(str)
            for column in schema.columns
        ]
        lines = [", ".join(row) + ("." if name == adult.TEST_FILE else "") for row in zip(*columns, strict=True)]
        header = "|1x3 Cross validator\n" if name == adult.TEST_FILE else ""
        (path / name).write_text(header + "\n".join(lines) + "\n")


def small_table(path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"age": rng.integers(0, 90, 400), "sex": rng.choice(["f", "m"], 400)})
    frame.to_csv(path / "data.csv", index=False)
    schema = {
        "columns": {
            "age": {"kind": "integer", "lower": 0, "upper": 90},
            "sex": {"kind": "categorical", "categories": ["f", "m"]},
        },
        "num_records": 400,
        "target": "sex",
    }
    (path / "schema.json").write_text(json.dumps(schema))


def small_settings(name: str, folder: Path) -> list[ConfigDict]:
    """The config's runs, shrunk to seconds; a study gives one per model and contestant."""
    namespace: dict = {}
    exec(compile((ROOT / name).read_text(), name, "exec"), namespace)  # as the config flag does
    if "studies" not in name:
        return [_shrunk(namespace["get_config"]("smoke"), folder)]
    smoke = "smoke" if name.endswith("tabular.py") else None  # whose runs are those of configs/adult_*.py
    study = to_study(namespace["get_config"](smoke))
    return [
        _shrunk(ConfigDict(study.settings(model, contestant, 1.0, 0, {})), folder)
        for model in study.models
        for contestant in study.contestants
    ]


def _shrunk(config: ConfigDict, folder: Path) -> ConfigDict:
    config.data.dir, config.data.path = str(folder), str(folder / "data.csv")
    config.data.schema = str(folder / "schema.json")
    config.training.num_steps, config.training.steps_per_dispatch = 20 if config.privacy.adaptive.rule else 4, 2
    config.training.expected_batch_size = 64
    config.synthesis.num_samples = 60
    config.privacy.delta = 1e-4
    if config.data.name in _IMAGES:
        config.evaluation.classifier_steps, config.evaluation.feature_images = 2, 40
        config.warm_start.num_steps, config.warm_start.num_images, config.warm_start.batch_size = 2, 20, 8
        config.warm_start.num_frequencies = 6
        with config.unlocked():
            config.model.update({name: value for name, value in _SMALLER.items() if name in config.model})
    if config.data.name in _TEXTS:
        config.tokens.max_length, config.tokens.num_words = 12, 200
        config.evaluation.lstm_steps, config.evaluation.lstm_length = 2, 8
        config.model.update({name: value for name, value in _SMALLER.items() if name in config.model})
    return config


class Watch:
    """Remembers what data sets gave out, the receipts that opened it and the functions mapped over it."""

    def __init__(self, monkeypatch):
        self.given: list[Records] = []
        self.receipts: list[Receipt] = []
        self.mapped: set[str] = set()
        open_with, map_by = Private.open, Private.map

        def opened(private, receipt):
            self.receipts.append(receipt)
            return open_with(private, receipt)

        def mapped(private, function):
            self.mapped.add(function.__qualname__)
            return map_by(private, function)

        monkeypatch.setattr(Private, "open", opened)
        monkeypatch.setattr(Private, "map", mapped)
        for name, dataset in DATASETS.items():
            monkeypatch.setitem(DATASETS, name, Dataset(dataset.read_schema, self._loaded(dataset.load)))

    def _loaded(self, load):
        def loaded(settings, schema):
            self.given.append(load(settings, schema))
            return self.given[-1]

        return loaded


def run_watched(config: ConfigDict, workdir: Path) -> None:
    """Runs the config and asserts that every look at its records is in the report's ledger or stays private."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        watch = Watch(monkeypatch)
        execute(to_settings(config), workdir, announce=lambda message: None)
    (records,) = watch.given
    report = json.loads((workdir / "release" / "privacy_report.json").read_text())
    charged = {entry["name"] for entry in report["ledger"]}
    looks = [opening for part in (records.train, records.test, records.clamped) for opening in part.openings]
    assert any(opening.charged_as == report["ledger"][-1]["name"] for opening in looks) and len(looks) >= 4
    for opening in looks:
        assert opening.charged_as in charged or opening.folder == workdir / "private", opening
    assert {opening.charged_as for opening in records.test.openings} == {None}  # held-out records train nothing
    booked = [(entry["name"], entry["event"]) for entry in report["ledger"]]
    for receipt in watch.receipts:
        assert [(entry.name, entry.event) for entry in receipt.ledger.entries] == booked, receipt
    transform = "Image" if config.data.name in _IMAGES else "Text" if config.data.name in _TEXTS else None
    encodes = f"{transform}Transform.encode" if transform else "Discretizer.encode"
    assert f"{encodes}_units" in watch.mapped
    assert watch.mapped <= {encodes, f"{encodes}_units", "bounded_by.<locals>.require_bounded"}


@pytest.mark.parametrize("name", configs())
def test_no_config_opens_private_records_uncharged(name, tmp_path, monkeypatch):
    monkeypatch.setattr(adult, "check_published", lambda *_, **__: None)
    for data in _IMAGES:
        monkeypatch.setitem(DATASETS, data, few_random_images(DATASETS[data]))
    for data in _TEXTS:
        monkeypatch.setitem(DATASETS, data, few_texts(DATASETS[data]))
    small_adult(tmp_path)
    small_table(tmp_path)
    for number, config in enumerate(small_settings(name, tmp_path)):
        run_watched(config, tmp_path / f"run{number}")


def opens_before_charging(frame, *arguments, **keywords):
    frame.open(Receipt(arguments[-1], "histograms"))
    return learn(frame, *arguments, **keywords)


def opens_on_another_ledger(frame, *arguments, **keywords):
    frame.open(Ledger().charge("training", "all", "a look ahead", EVENT))
    return learn(frame, *arguments, **keywords)


def leaks_by_mapping(frame, *arguments, **keywords):
    frame.map(lambda rows: rows.describe())
    return learn(frame, *arguments, **keywords)


@pytest.mark.parametrize(
    "mutant, error, message",
    [
        (opens_before_charging, UnchargedAccess, r"pass what Ledger\.charge\(\) returns"),
        (opens_on_another_ledger, AssertionError, "Receipt"),
        (leaks_by_mapping, AssertionError, "lambda"),
    ],
)
def test_a_run_that_looks_uncharged_is_caught(mutant, error, message, tmp_path, monkeypatch):
    small_table(tmp_path)
    (config,) = small_settings("configs/csv.py", tmp_path)
    config.model, config.evaluation.enabled = ConfigDict({"name": "tvae"}), False  # compiles faster
    monkeypatch.setattr("privsyn_jax.run.learn", mutant)
    with pytest.raises(error, match=message):
        run_watched(config, tmp_path / "run")


SCHEMA = Schema((Column("age", "integer", lower=0, upper=90), Column("sex", "categorical", categories=("f", "m"))), 400)
FRAME = pd.DataFrame({"age": [1, 2, 3, 40] * 100, "sex": ["f", "m", "f", "m"] * 100})


def run_of(privacy, model="tvae"):
    sections = {
        "model": {"name": model},
        "privacy": {"epsilon": 1.0, "delta": 1e-4, **privacy},
        "training": {"num_steps": 6, "steps_per_dispatch": 2, "expected_batch_size": 64},
    }
    settings, records, ledger = settings_from_dict(sections), Private(FRAME), Ledger()
    return (
        records,
        learn(records, SCHEMA, make_plan(settings, SCHEMA), settings, Attempt(Secret.fresh(), ledger)),
        ledger,
    )


@pytest.mark.parametrize(
    "privacy",
    [
        {"schedule": {"noise": "cosine", "clip": "linear", "batch": "linear"}},
        {"adaptive": {"rule": "signal", "num_blocks": 3}},
        {"adaptive": {"rule": "loss", "filter": "renyi", "num_blocks": 3}, "adaptive_clip": {"target_quantile": 0.5}},
        {"num_bands": 2},
        {"sampling": "partition"},
    ],
    ids=["schedule", "adaptive", "renyi, loss, clip", "bands", "partition"],
)
def test_whatever_changes_over_the_steps_is_paid_for_first(privacy):
    records, run, ledger = run_of(privacy)
    charged = {entry.name for entry in ledger.entries}
    opened = {opening.charged_as for opening in records.openings}
    assert opened == {"histograms", "training", "latent prior"} <= charged
    assert 0.97 <= run.privacy["epsilon"] <= 1.0
    path = run.privacy["path"]
    assert sum(block["num_steps"] for block in path) == 6
    if "adaptive" in privacy:  # the odometer rises to what is claimed
        shown = [block["epsilon_so_far"] for block in path]
        assert shown == sorted(shown) and 0.97 <= shown[-1] <= 1.02 * run.privacy["epsilon"]


IMAGE_SCHEMA = ImageSchema((8, 8, 1), ("cat", "dog"), 400)
IMAGE_SECTIONS = {
    "one shot": {"model": {"name": "class_gaussian", "num_frequencies": 6}},
    "warm start": {
        "model": {"name": "dcgan", "channels": (4,), "latent_dim": 3},
        "warm_start": {"images": "central", "num_images": 20, "num_steps": 2, "batch_size": 8, "num_frequencies": 6},
        "training": {"num_steps": 4, "steps_per_dispatch": 2, "expected_batch_size": 32, "generator_batch_size": 8},
    },
}


def image_run_of(kind):
    settings = settings_from_dict({**IMAGE_SECTIONS[kind], "privacy": {"epsilon": 1.0, "delta": 1e-4}})
    records, ledger = Private(random_images(IMAGE_SCHEMA, 400, 0)), Ledger()
    plan = make_plan(settings, IMAGE_SCHEMA)
    return records, learn(records, IMAGE_SCHEMA, plan, settings, Attempt(Secret.fresh(), ledger)), ledger


@pytest.mark.parametrize(
    ("kind", "names"), [("one shot", ["class means", "covariances"]), ("warm start", ["class means", "training"])]
)
def test_images_are_opened_once_for_every_charge_and_in_its_order(kind, names):
    records, run, ledger = image_run_of(kind)
    assert [opening.charged_as for opening in records.openings] == [entry.name for entry in ledger.entries] == names
    assert 0.97 <= run.privacy["epsilon"] <= 1.0


TEXT_SCHEMA = TextSchema(("negative", "positive"), 400)


def text_run_of(model, vocabulary="english"):
    sections = {
        "model": {"name": model},
        "tokens": {"vocabulary": vocabulary, "max_length": 12, "num_words": 200},
        "privacy": {"epsilon": 1.0, "delta": 1e-4},
        "training": {"num_steps": 4, "steps_per_dispatch": 2, "expected_batch_size": 32},
    }
    if model != "ngram":
        sections["model"] |= {"width": 8, "released_dim": 2}
    settings, records, ledger = settings_from_dict(sections), Private(grammar.draw(400, seed=0)), Ledger()
    plan = make_plan(settings, TEXT_SCHEMA)
    return records, learn(records, TEXT_SCHEMA, plan, settings, Attempt(Secret.fresh(), ledger)), ledger


@pytest.mark.parametrize(
    ("model", "vocabulary", "names"),
    [
        ("ngram", "english", ["words by class", "pairs of words"]),
        ("language_model", "bytes", ["words by class", "pairs of words", "training"]),
        ("ngram", "bought", ["vocabulary", "words by class", "pairs of words"]),
    ],
)
def test_texts_are_opened_once_for_every_charge_and_in_its_order(model, vocabulary, names):
    records, run, ledger = text_run_of(model, vocabulary)
    booked = [entry.name for entry in ledger.entries if entry.event["kind"] != "approximate"]
    assert [opening.charged_as for opening in records.openings] == booked == names
    assert 0.97 <= run.privacy["epsilon"] <= 1.0
    assert len(ledger.entries) == len(names) + (vocabulary == "bought")


@pytest.mark.parametrize(
    "start",
    [
        lambda: run_of({}),
        lambda: image_run_of("one shot"),
        lambda: image_run_of("warm start"),
        lambda: text_run_of("ngram"),
        lambda: text_run_of("ngram", "bought"),
    ],
)
def test_a_ledger_that_books_nothing_opens_nothing(start, monkeypatch):
    monkeypatch.setattr(Ledger, "charge", lambda self, name, *_, **__: Receipt(self, name))
    with pytest.raises(UnchargedAccess, match="private records were to be opened with"):
        start()


@pytest.mark.parametrize(
    ("mechanism", "start"),
    [
        ("modalities.tables.discretize.fit_purchased", lambda: run_of({})),
        ("training.stages.release.embedding_sum", lambda: image_run_of("one shot")),
        ("training.stages.release.embedding_sum", lambda: image_run_of("warm start")),
        ("modalities.texts.release.sparse_sum", lambda: text_run_of("ngram")),
    ],
)
def test_a_mechanism_that_reports_another_event_than_was_charged_is_stopped(mechanism, start, monkeypatch):
    other = {"kind": "gaussian", "noise_multiplier": 1.0, "count": 1}
    result = (None, other) if "tables" in mechanism else (None, 1.0, other)
    monkeypatch.setattr(f"privsyn_jax.{mechanism}", lambda *_, **__: result)
    with pytest.raises(RuntimeError, match="was charged, but the mechanism reports"):
        start()
