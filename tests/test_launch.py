"""The programs as a user calls them: every file of a workdir, and one sentence for bad input."""

import collections
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import privsyn_jax
from privsyn_jax.data import DATASETS
from privsyn_jax.privacy.ledger import Entry, Ledger
from privsyn_jax.run import execute, prepare
from privsyn_jax.settings import settings_from_dict
from privsyn_jax.types import UserError
from privsyn_jax.workdir import PRIVATE_NOTICE

ROOT = Path(__file__).parents[1]
TINY = {
    "model": {"width": 8, "num_layers": 1, "num_calibration_rows": 256},
    "training": {"num_steps": 3, "expected_batch_size": 32, "microbatch_size": 32},
    "evaluation": {"enabled": False},
}


def launch(program, *arguments):
    command = [sys.executable, "-m", f"launch.{program}", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    """One smoke run of the main job, through the command line."""
    workdir = tmp_path_factory.mktemp("launch") / "quickstart"
    result = launch("run", "--config=configs/quickstart.py:smoke", f"--workdir={workdir}")
    assert result.returncode == 0, result.stderr
    return workdir, result


def test_the_workdir_holds_what_the_design_promises(quickstart):
    workdir, _ = quickstart
    found = {str(path.relative_to(workdir)) for path in workdir.rglob("*") if path.is_file()}
    figures = {name for name in found if name.startswith("private/figures/")}
    assert found - figures == {
        ".lock", "config.json", "environment.json", "plan.json",
        "release/synthetic.csv", "release/privacy_report.json", "release/privacy_report.md",
        "release/model/model.json", "release/model/params.npz",
        "private/README.txt", "private/source.json", "private/clamped.json", "private/ledger.json",
        "private/training.jsonl", "private/timing.json", "private/report.html",
        "private/evaluation/metrics.json", "private/evaluation/details.json", "private/attacks/attacks.json",
    }  # fmt: skip
    assert {f"private/figures/{name}.svg" for name in ("budget", "epsilon", "training_loss", "column_health")} < figures
    assert all(PRIVATE_NOTICE in (workdir / name).read_text() for name in figures)
    assert (workdir / "private").stat().st_mode & 0o777 == 0o700


def test_the_synthetic_table_looks_like_the_source(quickstart):
    workdir, _ = quickstart
    table = pd.read_csv(workdir / "release" / "synthetic.csv")
    settings = settings_from_dict({"data": {"name": "rand_hie"}})
    schema = DATASETS["rand_hie"].read_schema(settings.data)
    assert list(table.columns) == list(schema.names)
    assert len(table) == 500
    assert not table.isna().any().any()
    for column in schema.columns:
        if column.kind in ("numeric", "integer"):
            assert table[column.name].between(column.lower, column.upper).all()
        elif column.categories:
            assert set(table[column.name].astype(str)) <= {str(value) for value in column.categories}


def test_the_reported_epsilon_is_what_the_ledger_adds_up_to(quickstart):
    workdir, _ = quickstart
    report = json.loads((workdir / "release" / "privacy_report.json").read_text())
    keys = ("name", "reads", "mechanism", "event")
    ledger = Ledger(Entry(**{key: entry[key] for key in keys}) for entry in report["ledger"])
    assert report["epsilon"] == pytest.approx(ledger.epsilon(report["delta"]), rel=1e-9)
    assert 0.995 <= report["epsilon"] <= 1.0
    assert report["epsilon_rdp"] >= report["epsilon"]
    assert report["private"] is True and report["seeded_noise"] is False
    assert [entry["name"] for entry in report["ledger"]] == ["histograms", "pair scores", "pair marginals", "training"]
    assert json.loads((workdir / "private" / "ledger.json").read_text())["entries"] == ledger.to_list()
    assert sum(entry["share"] for entry in report["ledger"]) == pytest.approx(1.0)


def test_metrics_are_finite_and_beside_real_data(quickstart):
    workdir, _ = quickstart
    metrics = json.loads((workdir / "private" / "evaluation" / "metrics.json").read_text())
    assert {"fidelity", "utility", "sanity"} == {row["family"] for row in metrics}
    for row in metrics:
        assert set(row) == {"family", "metric", "value", "reference", "higher_is_better", "column", "seed"}
        assert np.isfinite(row["value"]) and np.isfinite(row["reference"])


def test_nothing_released_names_where_the_records_lie_or_a_seed_of_the_noise(quickstart):
    workdir, _ = quickstart
    for path in (workdir / "release").rglob("*"):
        if path.suffix in (".json", ".md"):
            text = path.read_text()
            assert str(workdir) not in text and str(ROOT) not in text
    settings = json.loads((workdir / "release" / "model" / "model.json").read_text())["settings"]
    assert "data" not in settings and "seed" not in settings["privacy"]


def test_the_run_ends_with_files_costs_and_headline_metrics(quickstart):
    workdir, result = quickstart
    for name in ("release/synthetic.csv", "release/privacy_report.md", "private/report.html"):
        assert str(workdir / name) in result.stdout
    assert re.search(r"epsilon (0\.99\d*|1\.0000), delta 1e-05 per person-year", result.stdout)
    assert len(re.findall(r"(higher|lower) is better", result.stdout)) == 5
    assert "training:" in result.stderr  # the progress bar


def test_the_released_model_samples_without_the_records(quickstart):
    workdir, _ = quickstart
    run = privsyn_jax.load(workdir)
    frame = run.sample(50, conditions={"any_visit": True}, seed=1)
    assert len(frame) == 50 and frame["any_visit"].all()
    pd.testing.assert_frame_equal(frame, run.sample(50, conditions={"any_visit": True}, seed=1))


def test_a_finished_run_is_shown_again_and_not_repeated(quickstart):
    workdir, first = quickstart
    before = (workdir / "release" / "synthetic.csv").stat().st_mtime_ns
    again = launch("run", "--config=configs/quickstart.py:smoke", f"--workdir={workdir}")
    assert again.returncode == 0
    assert "spend the budget again" in again.stdout
    assert first.stdout.splitlines()[-5:] == again.stdout.splitlines()[-5:]
    assert (workdir / "release" / "synthetic.csv").stat().st_mtime_ns == before


def test_other_settings_in_the_same_folder_are_refused(quickstart):
    workdir, _ = quickstart
    result = launch("run", "--config=configs/quickstart.py:smoke", "--config.privacy.epsilon=2", f"--workdir={workdir}")
    assert_one_sentence(result, "privacy.epsilon 1.0 there, 2.0 here")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--config=configs/quickstart.py", "--config.privacy.epsilonn=1"], "did you mean 'epsilon'"),
        (["--config=configs/quickstart.py", "--config.privacy.epsilon=-1"], "privacy.epsilon is -1.0"),
        (["--config=configs/quickstart.py", "--config.privacy.noise_multiplier=1.0"], "exclude each other"),
        (["--config=configs/quickstart.py:smok"], "'smok' is unknown"),
        (["--config=configs/absent.py"], "cannot be read"),
        (["--config=configs/quickstart.py", "--workdirs=x"], "did you mean --workdir"),
    ],
)
def test_bad_flags_get_one_sentence(arguments, expected, tmp_path):
    result = launch("run", *arguments, f"--workdir={tmp_path / 'run'}")
    assert_one_sentence(result, expected)
    assert not (tmp_path / "run").exists()


def assert_one_sentence(result, expected):
    assert result.returncode == 2
    assert result.stderr.startswith("error: ") and expected in result.stderr, result.stderr
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr


def test_plan_opens_no_private_row():
    """The plan of the Adult run works with no file of it anywhere."""
    result = launch("plan", "--config=configs/adult_autoregressive.py:smoke", "--config.data.dir=/nowhere")
    assert result.returncode == 0, result.stderr
    for words in (
        "epsilon 1, delta 1e-05",
        "pair marginals",
        "parameters that receive noise",
        "MiB",
        "clipped gradients: ghost",
        "s a step",
    ):
        assert words in result.stdout


# --- bad tables, without starting a process each time ---


def make_frame(num_rows=150):
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": rng.integers(18, 90, num_rows),
            "city": rng.choice(["Bonn", "Köln"], num_rows),
            "ill": rng.integers(0, 2, num_rows),
        }
    )


SCHEMA = {
    "columns": {
        "age": {"kind": "integer", "lower": 18, "upper": 90},
        "city": {"kind": "categorical", "categories": ["Bonn", "Köln"]},
        "ill": {"kind": "boolean"},
    },
    "target": "ill",
    "num_records": 150,
}


def write_inputs(folder, frame=None, text=None, raw=None, schema=SCHEMA):
    path = folder / "data.csv"
    if raw is not None:
        path.write_bytes(raw)
    else:
        path.write_text(text if text is not None else frame.to_csv(index=False))
    (folder / "schema.json").write_text(json.dumps(schema))
    return {**TINY, "data": {"path": str(path), "schema": str(folder / "schema.json")}}


def run_tiny(plain, folder):
    return execute(settings_from_dict(plain), folder / "run", announce=lambda message: None)


def frame_with(**changes):
    frame = make_frame().astype(object)
    for name, value in changes.items():
        frame.loc[7, name] = value
    return frame


BAD_TABLES = {
    "missing column": ({"frame": make_frame().drop(columns="city")}, "'city'"),
    "further column": ({"frame": make_frame().assign(extra=1)}, "'extra'"),
    "unknown category": ({"frame": frame_with(city="Ulm")}, "'city'"),
    "missing value": ({"frame": frame_with(age=None)}, "'age'"),
    "text in a number": ({"frame": frame_with(age="old")}, "'age'"),
    "empty file": ({"text": ""}, "data.csv"),
    "header only": ({"text": "age,city,ill\n"}, "data.csv"),
    "too few rows": ({"frame": make_frame(60)}, "100"),
    "duplicate names": ({"text": "age,age,ill\n" + "20,20,1\n" * 150}, "'age'"),
    "wrong encoding": ({"raw": make_frame().to_csv(index=False).encode("latin-1")}, "UTF-8"),
    "ragged rows": ({"text": "age,city,ill\n" + "20,Bonn,1,5\n" * 150}, "data.csv"),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_a_bad_table_gets_one_sentence_and_leaves_nothing(case, tmp_path):
    inputs, expected = BAD_TABLES[case]
    plain = {**write_inputs(tmp_path, **inputs), "privacy": {"enabled": False}}  # skips the search for the noise
    with pytest.raises(UserError, match=re.escape(expected)) as caught:
        run_tiny(plain, tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_missing_file_gets_one_sentence(tmp_path):
    plain = write_inputs(tmp_path, frame=make_frame())
    os.remove(plain["data"]["path"])
    with pytest.raises(UserError, match=r"data\.csv"):
        run_tiny(plain, tmp_path)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("treatment", "lines"), [("clip", 1), ("error", 0)])
def test_numbers_outside_the_bounds_are_clamped_and_counted_or_refused(treatment, lines, tmp_path):
    plain = write_inputs(tmp_path, frame=frame_with(age=120))
    plain["data"]["out_of_bounds"] = treatment
    if treatment == "error":
        with pytest.raises(UserError, match="'age'"):
            run_tiny(plain, tmp_path)
        assert not (tmp_path / "run").exists()
        return
    assert run_tiny(plain, tmp_path)
    assert json.loads((tmp_path / "run" / "private" / "clamped.json").read_text())["age"] == lines
    assert pd.read_csv(tmp_path / "run" / "release" / "synthetic.csv")["age"].between(18, 90).all()


def test_a_large_delta_is_warned_of_loudly(tmp_path):
    plain = write_inputs(tmp_path, frame=make_frame())
    plain["privacy"] = {"delta": 0.01}
    _, plan = prepare(settings_from_dict(plain))
    assert any("DELTA TOO LARGE" in warning for warning in plan.warnings)


@pytest.mark.parametrize("privacy", [{"epsilon": float("inf")}, {"enabled": False}])
def test_without_noise_every_output_says_not_private(privacy, tmp_path):
    lines = run_tiny({**write_inputs(tmp_path, frame=make_frame()), "privacy": privacy}, tmp_path)
    release = tmp_path / "run" / "release"
    assert "NOT PRIVATE" in "\n".join(lines)
    assert (release / "NOT_PRIVATE.txt").is_file()
    assert "NOT PRIVATE" in (release / "privacy_report.md").read_text()
    assert "NOT PRIVATE" in (tmp_path / "run" / "private" / "report.html").read_text()
    report = json.loads((release / "privacy_report.json").read_text())
    assert report["private"] is False and report["epsilon"] is None


def test_unknown_categories_are_bought_and_booked(tmp_path):
    schema = json.loads(json.dumps(SCHEMA))
    schema["columns"]["city"] = {"kind": "categorical"}
    schema["num_records"] = 3000
    plain = write_inputs(tmp_path, frame=make_frame(3000), schema=schema)
    plain["privacy"] = {"epsilon": 5.0}
    run_tiny(plain, tmp_path)
    report = json.loads((tmp_path / "run" / "release" / "privacy_report.json").read_text())
    assert [entry["name"] for entry in report["ledger"]][:2] == ["categories held by one record", "categories"]
    assert report["ledger"][0]["event"]["delta"] == pytest.approx(0.1 * report["delta"])
    assert report["epsilon"] <= 5.0
    assert set(pd.read_csv(tmp_path / "run" / "release" / "synthetic.csv")["city"].dropna()) <= {"Bonn", "Köln"}


def test_a_run_stopped_after_its_release_is_finished_without_training_again(tmp_path):
    plain = {**write_inputs(tmp_path, frame=make_frame()), "privacy": {"epsilon": float("inf")}}
    run_tiny(plain, tmp_path)
    workdir = tmp_path / "run"
    released = (workdir / "release" / "synthetic.csv").read_bytes()
    ledger = json.loads((workdir / "private" / "ledger.json").read_text())
    (workdir / "private" / "report.html").unlink()
    run_tiny(plain, tmp_path)
    assert (workdir / "private" / "report.html").is_file()
    assert (workdir / "release" / "synthetic.csv").read_bytes() == released
    assert json.loads((workdir / "private" / "ledger.json").read_text()) == ledger


def test_a_run_whose_release_was_removed_pays_again(tmp_path):
    """Its secret is gone, so whatever comes out now is a second outcome beside the one that was there."""
    plain = {**write_inputs(tmp_path, frame=make_frame()), "privacy": {"epsilon": 1.0}}
    run_tiny(plain, tmp_path)
    workdir = tmp_path / "run"

    def counts():
        entries = json.loads((workdir / "private" / "ledger.json").read_text())["entries"]
        found = collections.Counter()
        for entry in entries:
            found[entry["name"]] += entry["event"]["count"]
        return found

    once = counts()
    shutil.rmtree(workdir / "release")
    run_tiny(plain, tmp_path)
    assert counts() == once + once
    report = json.loads((workdir / "release" / "privacy_report.json").read_text())
    assert report["epsilon"] > 1.3
    assert any("bought again" in warning for warning in report["warnings"])
    assert any("EPSILON ABOVE THE PLAN" in warning for warning in report["warnings"])


def test_an_impossible_condition_is_refused_before_any_record_is_read(tmp_path):
    plain = write_inputs(tmp_path, frame=make_frame())
    os.remove(plain["data"]["path"])
    plain["synthesis"] = {"conditions": '{"city": "Ulm"}'}
    with pytest.raises(UserError, match="'city'"):
        prepare(settings_from_dict(plain))


@pytest.mark.slow
def test_adult_reaches_its_numbers(adult_dir, tmp_path):
    """The whole run at epsilon 1 on the original files, held to the targets that the benchmark reports on."""
    result = launch(
        "run",
        "--config=configs/adult_autoregressive.py",
        f"--config.data.dir={adult_dir}",
        f"--workdir={tmp_path / 'a'}",
    )
    assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / "a" / "private" / "evaluation" / "metrics.json").read_text())
    whole = {row["metric"]: row["value"] for row in metrics if row["column"] is None}
    assert whole["logistic_regression_auc"] >= 0.88 and whole["boosting_auc"] >= 0.885
    assert whole["logistic_regression_accuracy"] >= 0.83
    assert whole["pairwise_total_variation"] <= 0.10
    assert max(row["value"] for row in metrics if row["metric"] == "emd") < 0.02
