"""Runs on texts from end to end: files, guarantee, samples, and one sentence for what does not fit."""

import json
import re

import numpy as np
import pandas as pd
import pytest

import privsyn_jax
from privsyn_jax.data import DATASETS
from privsyn_jax.data.texts import grammar
from privsyn_jax.data.texts.schema import text_schema_to_dict
from privsyn_jax.estimate import estimate
from privsyn_jax.privacy.ledger import Entry, Ledger
from privsyn_jax.run import execute, prepare
from privsyn_jax.settings import settings_from_dict
from privsyn_jax.types import Texts, TextSchema, UserError

NUM_SAMPLES, CLASSES = 100, ("negative", "positive")
LEDGERS = {
    "ngram": ["words by class", "pairs of words"],
    "language_model": ["words by class", "pairs of words", "training"],
}
MODELS = ["ngram", pytest.param("language_model", marks=pytest.mark.slow)]


def tiny(model, /, **sections):
    """Settings of a run on the grammar that takes seconds."""
    plain = {
        "data": {"name": "grammar"},
        "tokens": {"max_length": 20, "num_words": 400},
        "model": {"name": model, **({"width": 8, "released_dim": 2} if model != "ngram" else {})},
        "privacy": {"epsilon": 2.0, "delta": 1e-5},
        "training": {"num_steps": 4, "steps_per_dispatch": 2, "expected_batch_size": 32, "microbatch_size": 32},
        "synthesis": {"num_samples": NUM_SAMPLES},
        "evaluation": {"enabled": False},
    }
    return {**plain, **{name: {**plain.get(name, {}), **section} for name, section in sections.items()}}


def run(plain, workdir):
    """What was said on the way, and the lines at the end."""
    said = []
    return said, execute(settings_from_dict(plain), workdir, announce=said.append)


def read_json(path):
    return json.loads(path.read_text(), parse_constant=pytest.fail)


def read_lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """model -> (its folder, what was said, the lines at the end), each run once."""
    base, done = tmp_path_factory.mktemp("texts"), {}

    def get(model):
        if model not in done:
            evaluated = {"enabled": True, "lstm_steps": 2, "lstm_length": 8, "net_seeds": 2}
            sections = {"evaluation": evaluated} if model == "ngram" else {}
            done[model] = (base / model, *run(tiny(model, **sections), base / model))
        return done[model]

    return get


@pytest.mark.parametrize("model", MODELS)
def test_the_workdir_holds_what_the_design_promises(runs, model):
    workdir, _, lines = runs(model)
    found = {str(path.relative_to(workdir)) for path in workdir.rglob("*") if path.is_file()}
    wanted = {
        ".lock", "config.json", "environment.json", "plan.json",
        "release/synthetic.jsonl", "release/privacy_report.json", "release/privacy_report.md",
        "release/model/model.json", "release/model/params.npz",
        "private/README.txt", "private/source.json", "private/clamped.json", "private/ledger.json",
        "private/training.jsonl", "private/timing.json", "private/report.html",
    }  # fmt: skip
    if model == "ngram":
        names = ("evaluation/metrics.json", "evaluation/details.json", "attacks/attacks.json")
        wanted |= {f"private/{name}" for name in names}
    assert {name for name in found if not name.startswith("private/figures/")} == wanted
    assert any(str(workdir / "release" / "synthetic.jsonl") in line for line in lines)


@pytest.mark.parametrize("model", MODELS)
def test_the_release_holds_texts_of_both_classes(runs, model):
    rows = read_lines(runs(model)[0] / "release" / "synthetic.jsonl")
    assert len(rows) == NUM_SAMPLES and all(list(row) == ["text", "label"] for row in rows)
    labels = [row["label"] for row in rows]
    assert [labels.count(name) for name in CLASSES] == [NUM_SAMPLES // 2] * 2
    assert len({row["text"] for row in rows}) > NUM_SAMPLES // 2


@pytest.mark.parametrize("model", MODELS)
def test_the_reported_epsilon_is_what_the_ledger_adds_up_to(runs, model):
    report = read_json(runs(model)[0] / "release" / "privacy_report.json")
    assert [entry["name"] for entry in report["ledger"]] == LEDGERS[model]
    keys = ("name", "reads", "mechanism", "event")
    ledger = Ledger(Entry(**{key: entry[key] for key in keys}) for entry in report["ledger"])
    assert report["epsilon"] == pytest.approx(ledger.epsilon(report["delta"]), rel=1e-9)
    assert report["private"] is True and 0.99 * 2.0 <= report["epsilon"] <= 2.0
    assert sum(entry["share"] for entry in report["ledger"]) == pytest.approx(1.0)
    assert any("2 classes" in fact for fact in report["declared_public"])


def test_metrics_and_the_page(runs):
    workdir, _, lines = runs("ngram")
    metrics = read_json(workdir / "private" / "evaluation" / "metrics.json")
    names = {row["metric"] for row in metrics}
    assert {"linear_f1", "lstm_f1", "vocabulary_kl", "bits_per_byte", "copied_8gram_rate", "membership_auc"} <= names
    bits = next(row for row in metrics if row["metric"] == "bits_per_byte")
    entropy = grammar.entropy_per_text() / np.log(2)
    mean_bytes = np.mean([len(text.encode()) for text in grammar.draw(500, seed=3).texts])
    assert bits["value"] > 0.8 * entropy / mean_bytes and bits["reference"] == pytest.approx(bits["value"], rel=0.1)
    page = (workdir / "private" / "report.html").read_text()
    assert "100 synthetic texts in 2 classes" in page and "PRIVATE" in page[: page.index("<main>")]
    assert any("LSTM" in line for line in lines)
    assert read_json(workdir / "private" / "evaluation" / "details.json")["tests"]["num_seeds"] == 2
    assert "against models trained on real texts" in page and "Every seed trains on a bootstrap resample" in page


@pytest.mark.parametrize("model", MODELS)
def test_no_page_and_no_report_speaks_of_rows_or_tables(runs, model):
    workdir = runs(model)[0]
    page = (workdir / "private" / "report.html").read_text()
    # Scripts are the same on every page, details hold names of settings, and texts any word.
    scripts = r'<script(?! type="application/json").*?</script>'
    page = re.sub(rf"{scripts}|<style>.*?</style>|<details>.*?</details>|<dd>.*?</dd>", "", page, flags=re.DOTALL)
    for text in (re.sub(r"<[^>]*>", "", page), (workdir / "release" / "privacy_report.md").read_text()):
        assert re.findall(r"[^.\n]*\b(?:rows?|columns?|tables?)\b[^.\n]*", text, re.IGNORECASE) == []


@pytest.mark.parametrize("model", MODELS)
def test_a_finished_run_is_loaded_and_sampled_from(runs, model):
    again = privsyn_jax.load(runs(model)[0])
    frame = again.sample(11, seed=1)
    assert list(frame.columns) == ["text", "label"] and sorted(frame.label.value_counts()) == [5, 6]
    pd.testing.assert_frame_equal(frame, again.sample(11, seed=1))
    assert (frame.text != again.sample(11, seed=2).text).any()
    assert (again.sample(5, conditions={"label": "positive"}, seed=1).label == "positive").all()
    with pytest.raises(UserError, match=r"^condition on 'label' is 'good': name classes of the schema"):
        again.sample(5, conditions={"label": "good"})


def test_the_released_texts_are_data_again(runs, tmp_path):
    path = runs("ngram")[0] / "release" / "synthetic.jsonl"
    (tmp_path / "schema.json").write_text(json.dumps(text_schema_to_dict(TextSchema(CLASSES, NUM_SAMPLES))))
    data = {"name": "texts", "path": str(path), "test_path": str(path), "schema": str(tmp_path / "schema.json")}
    settings = settings_from_dict({"data": data, "model": {"name": "ngram"}}).data
    loaded = DATASETS["texts"].load(settings, DATASETS["texts"].read_schema(settings))
    receipt = Ledger().charge("test", "all", "test", {"kind": "pure", "epsilon": 1.0, "count": 1})
    assert list(loaded.train.open(receipt).texts) == [row["text"] for row in read_lines(path)]


def test_labels_change_what_is_drawn():
    fitted = privsyn_jax.fit(
        grammar.draw(2000, seed=0),
        TextSchema(CLASSES, 2000),
        model="ngram",
        epsilon=50.0,
        settings={"tokens": {"max_length": 40}, "privacy": {"seed": 0}},
    )
    shares = {}
    for name in CLASSES:
        texts = fitted.sample(300, conditions={"label": name}, seed=1).text
        shares[name] = np.mean([word in text for text in texts for word in ("awful", "terrible", "boring", "dull")])
    assert shares["negative"] > 1.5 * shares["positive"]


def test_texts_come_as_a_table_or_as_texts_and_go_out_as_a_table(tmp_path):
    schema = TextSchema((), 300, text="note")
    frame = pd.DataFrame({"note": grammar.draw(300, seed=0).texts})
    settings = {"tokens": {"max_length": 16, "num_words": 300}, "privacy": {"seed": 0}}
    fitted = privsyn_jax.fit(frame, schema, model="ngram", epsilon=50.0, settings=settings)
    assert list(fitted.sample(5).columns) == ["note"]
    fitted.save(tmp_path / "saved")
    again = privsyn_jax.load(tmp_path / "saved")
    assert again.schema == schema and again.sample(5, seed=3).equals(fitted.sample(5, seed=3))


TABLE = {"columns": {name: {"kind": "boolean"} for name in "xy"}, "num_records": 300}


@pytest.mark.parametrize(
    ("records", "schema", "message"),
    [
        (pd.DataFrame({"x": ["a"] * 300}), TextSchema((), 300), "'text'"),
        (Texts(np.array(["a b"] * 300, object), np.zeros(300)), TABLE,
         "^the records are texts, and the schema describes a table: "),
        ((np.zeros((300, 8, 8, 1), np.uint8), np.zeros(300, int)), TextSchema((), 300),
         "^the records are images, and the schema describes texts: "),
    ],
)  # fmt: skip
def test_what_is_no_set_of_texts_is_refused_in_one_sentence(records, schema, message):
    with pytest.raises(UserError, match=message) as caught:
        privsyn_jax.fit(records, schema, model="ngram" if isinstance(schema, TextSchema) else "autoregressive")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        (tiny("ngram", model={"name": "dcgan"}), r"^model\.name is 'dcgan', which does not make texts"),
        (tiny("ngram", model={"order": 3}), r"^the section model of the settings does not fit: order 3"),
        (tiny("ngram", tokens={"vocabulary": "absent.json"}), r"absent\.json"),
        (tiny("ngram", warm_start={"images": "central"}), r"^warm_start\.images is 'central', which is for images"),
        (tiny("ngram", privacy={"budget": {"vocabulary": 0.0}}, tokens={"vocabulary": "bought"}),
         r"^privacy\.budget\.vocabulary is 0: give a share to buy words"),
        (tiny("language_model", privacy={"adaptive": {"rule": "loss"}}), r"^privacy\.adaptive\.rule='loss' needs"),
        (tiny("language_model", model={"width": 9}), r"^the section model .* width 9 must be a multiple"),
        (tiny("ngram", synthesis={"conditions": '{"text": "x"}'}), r"^condition on 'text'"),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_are_refused_in_one_sentence(plain, message):
    plain["model"] = {
        key: value for key, value in plain["model"].items() if plain["model"]["name"] != "dcgan" or key == "name"
    }
    with pytest.raises(UserError) as caught:
        prepare(settings_from_dict(plain))
    assert re.search(message, str(caught.value)) and "\n" not in str(caught.value)


def test_a_tokenizer_from_a_file_is_said_to_be_taken_as_public(tmp_path):
    (tmp_path / "words.txt").write_text("film\nthe\n")
    of_file = tiny("ngram", tokens={"vocabulary": str(tmp_path / "words.txt")})
    for plain, said in ((of_file, 1), (tiny("ngram"), 0)):
        _, plan = prepare(settings_from_dict(plain))
        assert (
            sum(
                warning.startswith("TOKENIZER TAKEN AS PUBLIC: tokens come from words.txt") for warning in plan.warnings
            )
            == said
        )


@pytest.mark.slow
def test_an_estimate_opens_no_record(monkeypatch):
    monkeypatch.setattr("privsyn_jax.privacy.guard.Private.open", lambda *_: pytest.fail("a record was opened"))
    settings = settings_from_dict(tiny("language_model"))
    schema, plan = prepare(settings)
    assert any(re.search(r"\d+\.\d{3} s a step", line) for line in estimate(settings, schema, plan))
