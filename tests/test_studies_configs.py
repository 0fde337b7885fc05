"""The configs of studies: what they run, by which words, and that no run of theirs is refused."""

import csv
import dataclasses
import itertools
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from configs.studies import paper
from launch.config import to_study
from privsyn_jax.modalities import modality_of
from privsyn_jax.run import prepare
from privsyn_jax.settings import settings_from_dict
from privsyn_jax.study.plan import run_hash
from privsyn_jax.study.runs import jobs_of
from privsyn_jax.workdir import PRIVATE_NOTICE

ROOT = Path(__file__).parent.parent


def jobs(study):
    return jobs_of(study, {cell: {} for cell in itertools.product(study.models, study.epsilons)})


def test_the_study_of_the_paper_has_its_grid_and_our_own_settings():
    study = to_study(paper.get_config())
    assert study.epsilons == (0.5, 1.0, 2.0, math.inf) and study.baseline in study.contestants
    assert set(study.kinds()) == {
        ("tables", "adult"), ("images", "mnist"), ("images", "cifar10"), ("texts", "imdb"),
    }  # fmt: skip
    grid, runs = set(), jobs(dataclasses.replace(study, epsilons=(1.0,), seeds=(0, 1)))
    assert len({run_hash(settings) for settings in runs.values()}) == len(runs)  # none is made twice
    for (model, _, contestant, _), settings in runs.items():
        assert settings["synthesis"]["num_samples"] == 10_000 and settings["attacks"]["names"] == "shadow_posteriors"
        assert settings["data"]["split"] == ("paper" if model.startswith("adult") else "uci")
        if contestant != study.baseline:
            training = settings["training"]
            grid.add((training["learning_rate"], training["expected_batch_size"]))
            if model == "mnist_dcgan":
                assert training["num_steps"] == 200 * 60_000 / training["expected_batch_size"]
    assert grid == set(itertools.product((1e-4, 2e-4), (64, 128)))


@pytest.mark.parametrize(
    ("arg", "models"),
    [
        ("images,dcgan", {"mnist_dcgan", "cifar10_dcgan"}),
        ("adult,ctgan,tvae", {"adult_ctgan", "adult_tvae"}),
        ("mimic3", {"mimic3_autoregressive"}),
        ("ngram,gpu", {"imdb_ngram"}),
        ("smoke,texts", {"grammar_bag_of_words"}),
        ("smoke", {"rand_hie_tvae", "rand_hie_mst", "digits_dcgan", "grammar_bag_of_words"}),
    ],
)
def test_words_choose_a_part(arg, models):
    study = to_study(paper.get_config(arg))
    assert set(study.models) == models
    kinds = {kind.modality for kind in study.kinds()}
    assert [metric for metric in study.metrics if metric not in paper.ATTACK_METRICS] == [
        metric for modality, metrics in paper.METRICS.items() if modality in kinds for metric in metrics
    ]


@pytest.mark.parametrize(
    ("arg", "complaint"), [("dcgann", "'dcgann' is unknown"), ("tables,dcgan", "leaves no model"), ("smok", "unknown")]
)
def test_words_that_name_nothing_are_refused(arg, complaint):
    with pytest.raises(ValueError, match=complaint):
        paper.get_config(arg)


def test_the_axes_of_the_frontier_are_measured():
    study = to_study(paper.get_config())
    assert all(set(study.axes(kind.modality)) <= set(study.metrics) for kind in study.kinds())


def test_the_runs_of_the_smoke_study_fit_their_data():
    study = to_study(paper.get_config("smoke"))
    for model, contestant in [(m, c) for m in study.models for c in study.contestants_of(m)]:
        schema, _ = prepare(settings_from_dict(study.settings(model, contestant, 1.0, 0, {})))
        assert modality_of(schema).name == study.kind(model).modality


@pytest.mark.slow
def test_the_smoke_study_does_all_of_it(tmp_path):
    command = [sys.executable, "-m", "launch.study", "--config=configs/studies/paper.py:smoke"]
    subprocess.run([*command, f"--workdir={tmp_path}"], cwd=ROOT, check=True, capture_output=True)
    private, study = tmp_path / "private", to_study(paper.get_config("smoke"))

    def table(name):
        return list(csv.DictReader((private / f"{name}.csv").read_text().splitlines()[1:]))

    rows = table("results")
    assert len(rows) == len(jobs(study))
    for row in rows:
        for metric in study.axes(row["modality"]):
            assert math.isfinite(float(row[metric])) and math.isfinite(float(row[f"real {metric}"]))
    best = {row["modality"] for row in table("frontier") if row["is_optimal"] == "True"}
    assert best == {"tables", "images", "texts"}
    assert {f"frontier_{modality}.{kind}" for modality in best for kind in ("png", "svg")} <= {
        path.name for path in private.iterdir()
    }
    assert {row["test"] for row in table("tests")} == {"versus real", "versus model"}
    logs = [path.read_text() for path in (private / "training").iterdir()]
    assert len(logs) == len(rows) and all(PRIVATE_NOTICE in log.splitlines()[0] for log in logs)
    trained = [json.loads(log.splitlines()[-1]) for log in logs if len(log.splitlines()) > 1]
    assert len(trained) == 16 and all(math.isfinite(row["loss"]) for row in trained)
