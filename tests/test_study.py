"""A study: tuned on other seeds, every run once, gone on with after a stop, and what its table says."""

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from configs.studies import noise_schedules
from launch.config import to_study
from privsyn_jax.privacy.accounting import epsilon_of
from privsyn_jax.run import prepare
from privsyn_jax.settings import settings_from_dict
from privsyn_jax.study import execute as execution
from privsyn_jax.study import figures, runs
from privsyn_jax.study.analyse import analyse
from privsyn_jax.study.cells import Cells
from privsyn_jax.study.execute import execute
from privsyn_jax.study.executors import Engine, Progress
from privsyn_jax.study.jobs import named
from privsyn_jax.study.plan import Study, Tuning, best_choice, override, run_hash
from privsyn_jax.types import UserError
from privsyn_jax.workdir import PRIVATE_NOTICE

ROOT = Path(__file__).parent.parent
ENGINE = Engine(workers=1)
TUNING = Tuning({"privacy.l2_clip_norm": (0.5, 2.0)}, (100, 101), "auc")
MODEL = {"data": {"name": "rand_hie"}, "training": {"num_steps": 5}}


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()[1:]))


def study(**changes) -> Study:
    arguments = {
        "models": {"a": MODEL, "b": {**MODEL, "model": {"name": "tvae"}}},
        "contestants": {"constant": {}, "cosine": {"privacy.schedule.noise": "cosine"}},
        "baseline": "constant",
        "epsilons": (1.0, 2.0),
        "seeds": (0, 1, 2),
        "metrics": ("auc",),
        "tuning": TUNING,
    }
    return Study(**{**arguments, **changes})


def pretended(settings, folder):
    """In place of a run: better with a small clipping norm, and with a cosine schedule."""
    del folder
    privacy = settings["privacy"]
    auc = 0.8 + 0.01 * (settings["seed"] % 3) - 0.05 * privacy["l2_clip_norm"]
    auc += {"constant": 0.0, "cosine": 0.02 + 0.001 * settings["seed"]}[privacy["schedule"]["noise"]]
    return {
        "settings": settings, "epsilon": privacy["epsilon"], "metrics": {"auc": auc}, "reference": {"auc": 0.9},
        "path": [], "seconds": 1.0,
    }  # fmt: skip


def pretended_rows(found: Study) -> list[dict]:
    """A row for every run: cosine is better by 0.03."""
    return [
        {"model": m, "epsilon": e, "contestant": c, "seed": s, "auc": 0.8 + 0.01 * s + (0.03 if c == "cosine" else 0)}
        for m in found.models for e in found.epsilons for c in found.contestants for s in found.seeds
    ]  # fmt: skip


@pytest.fixture
def made(monkeypatch):
    """The settings of every run, which are made in this process and pretend."""
    done = []

    def finish(jobs, results, engine, what, watch=lambda: None):
        for settings in {run_hash(job): job for job in jobs}.values():
            if results.get(settings) is None:
                done.append(settings)
                results.put(settings, pretended(settings, results.folder))
                watch()

    monkeypatch.setattr(runs, "finish", finish)
    return done


def test_a_study_tunes_runs_and_compares(tmp_path, made):
    lines = execute(study(), str(tmp_path / "s"), ENGINE)
    private = tmp_path / "s" / "private"
    assert private.stat().st_mode & 0o777 == 0o700 and [p.name for p in (tmp_path / "s").iterdir()] == ["private"]
    rows = table(private / "results.csv")
    assert len(rows) == 2 * 2 * 2 * 3 and {row["tuned privacy.l2_clip_norm"] for row in rows} == {"0.5"}
    assert {row["tuned_on_private_data"] for row in rows} == {"True"}
    assert {(s["seed"] >= 100) for s in made[: 2 * 2 * 2 * 2]} == {True} and {s["seed"] for s in made[16:]} == {0, 1, 2}
    report = (private / "report.md").read_text()
    assert report.startswith("PRIVATE") and "tuned_on_private_data" in report
    assert report.count("**+0.02") == 4  # significant in every cell
    assert "auc: 4 of 4 comparisons significant" in lines[0] and str(private / "report.html") in lines
    against_real = [row for row in table(private / "tests.csv") if row["test"] == "versus real"]
    assert len(against_real) == 8 and {row["real"] for row in against_real} == {"0.9"}
    assert {(row["modality"], row["data"], row["real auc"]) for row in rows} == {("tables", "rand_hie", "0.9")}
    ElementTree.parse(private / "differences_tables.svg")
    assert (private / "differences_tables.png").read_bytes()[:4] == b"\x89PNG"


def test_a_run_keeps_metrics_of_whole_tables_and_fairness_of_every_sensitive_column():
    names = [("fidelity", "emd", "age"), ("fidelity", "mean_emd", None), ("fairness", "auc_gap", "sex")]
    rows = [{"family": f, "metric": m, "column": c, "value": 0.1, "reference": 0.2} for f, m, c in names]
    assert named(rows) == {"mean_emd": (0.1, 0.2), "auc_gap_sex": (0.1, 0.2)}


def test_while_it_runs_a_page_shows_what_is_done(tmp_path, made, monkeypatch):
    shown = []

    def write_page(found, rows, analysis, folder, *, total):
        shown.append((len(rows), total, len(analysis.comparison)))
        return folder / "report.html"

    def at_once(action):
        return lambda: action() if len(made) % 10 == 0 else None

    monkeypatch.setattr(execution, "write_page", write_page)
    monkeypatch.setattr(execution, "_now_and_then", at_once)
    execute(study(tuning=None), str(tmp_path), ENGINE)
    assert shown == [(10, 24, 4), (20, 24, 4), (24, 24, 4)]


def test_every_finished_batch_is_told():
    told = []
    with Progress(3, "runs", lambda: told.append(1)) as progress:
        progress.step(2)
        progress.step(1)
    assert told == [1, 1]


def test_what_is_done_is_not_done_again(tmp_path, made):
    execute(study(), str(tmp_path / "s"), ENGINE)
    first = len(made)
    execute(study(), str(tmp_path / "s"), ENGINE)
    assert len(made) == first == 2 * 2 * (2 * 2 + 2 * 3)
    execute(study(seeds=(0, 1, 2, 3)), str(tmp_path / "s"), ENGINE)
    assert len(made) == first + 2 * 2 * 2
    (tmp_path / "s" / "private" / "runs" / f"{run_hash(made[-1])}.json").unlink()
    execute(study(seeds=(0, 1, 2, 3)), str(tmp_path / "s"), ENGINE)
    assert len(made) == first + 2 * 2 * 2 + 1


def test_tables_and_figure_say_that_they_are_private_and_are_the_same_again(tmp_path, made):
    for folder in ("one", "other"):
        execute(study(), str(tmp_path / folder), ENGINE)
    one, other = (tmp_path / folder / "private" for folder in ("one", "other"))
    for name in ("results.csv", "comparison.csv", "report.md"):
        assert PRIVATE_NOTICE in (one / name).read_text().splitlines()[0]
    assert PRIVATE_NOTICE in (one / "differences_tables.svg").read_text()
    assert (one / "differences_tables.svg").read_bytes() == (other / "differences_tables.svg").read_bytes()


def test_a_run_without_a_metric_leaves_out_its_pair_only(tmp_path, made, monkeypatch):
    def collapses(settings, folder):
        result = dict(whole(settings, folder))
        if settings["seed"] == 1 and settings["privacy"]["schedule"]["noise"] == "cosine":
            result["metrics"] = {}
        return result

    whole = pretended
    monkeypatch.setitem(globals(), "pretended", collapses)
    execute(study(), str(tmp_path), ENGINE)
    rows = table(tmp_path / "private" / "comparison.csv")
    assert {row["num_seeds"] for row in rows} == {"2"} and all(math.isfinite(float(row["p_holm"])) for row in rows)


@pytest.mark.parametrize("where", [{"metrics": ("acu",)}, {"tuning": Tuning(TUNING.grid, (100,), "acu")}])
def test_a_metric_that_no_run_has_is_named_with_those_there_are(tmp_path, made, where):
    with pytest.raises(UserError, match="'acu', which no run measured: use one of auc"):
        execute(study(**where), str(tmp_path), ENGINE)


def test_two_studies_do_not_share_a_folder_at_the_same_time(tmp_path, made, monkeypatch):
    def starts_another(settings, folder):
        with pytest.raises(UserError, match="in use by another process"):
            execute(study(), str(tmp_path), ENGINE)
        return whole(settings, folder)

    whole = pretended
    monkeypatch.setitem(globals(), "pretended", starts_another)
    execute(study(tuning=None), str(tmp_path), ENGINE)


def test_two_tables_of_ones_own_are_two_runs():
    one, other = (
        study(models={"a": {"data": {"name": "csv", "schema": "s.json", "path": path}}}).settings(
            "a", "constant", 1.0, 0, {}
        )
        for path in ("a.csv", "b.csv")
    )
    assert run_hash(one) != run_hash(other)


def test_the_figure_lists_contestants_from_the_top_in_every_panel():
    found = study(epsilons=(1.0,), seeds=(0, 1))
    comparison = analyse(found, pretended_rows(found)).comparison
    assert all(axes.yaxis_inverted() for axes in figures.differences(found, comparison, ["a", "b"]).axes)


def test_without_tuning_nothing_is_marked(tmp_path, made):
    execute(study(tuning=None), str(tmp_path / "s"), ENGINE)
    rows = table(tmp_path / "s" / "private" / "results.csv")
    assert {row["tuned_on_private_data"] for row in rows} == {"False"} and {s["seed"] for s in made} == {0, 1, 2}


def test_a_run_is_known_by_what_it_does_and_not_by_where_its_data_lie():
    one = study().settings("a", "constant", 1.0, 0, {})
    moved = {**one, "data": {**one["data"], "dir": "/elsewhere"}}
    assert run_hash(one) == run_hash(moved) == run_hash(json.loads(json.dumps(one)))
    for other in (
        study().settings("a", "constant", 2.0, 0, {}),
        study().settings("a", "constant", 1.0, 1, {}),
        study().settings("a", "cosine", 1.0, 0, {}),
        study().settings("b", "constant", 1.0, 0, {}),
        study().settings("a", "constant", 1.0, 0, {"privacy.l2_clip_norm": 0.7}),
    ):
        assert run_hash(other) != run_hash(one)


def test_contestants_override_what_was_tuned_and_the_noise_has_a_seed_of_its_own():
    contestants = {"constant": {}, "own": {"privacy.l2_clip_norm": 9.0}}
    found = study(contestants=contestants).settings("a", "own", 1.0, 3, {"privacy.l2_clip_norm": 0.7})
    assert found["privacy"]["l2_clip_norm"] == 9.0 and found["seed"] == 3 != found["privacy"]["seed"]
    assert override({"a": {"b": 1, "c": 2}}, {"a.b": 5, "d.e": 6}) == {"a": {"b": 5, "c": 2}, "d": {"e": 6}}


def test_the_best_choice_is_that_of_the_largest_mean():
    assert best_choice(TUNING, {'{"x": 1}': [0.8, 0.7], '{"x": 2}': [0.9, 0.2]}) == {"x": 1}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"baseline": "best"}, "baseline is 'best': use one of constant, cosine"),
        ({"seeds": (0,)}, "needs at least 2"),
        ({"seeds": (0, 100)}, "tuning.seeds and seeds share a seed"),
        ({"contestants": {"constant": {"privacy.schedule.nose": "cosine"}}}, "unknown setting 'privacy.schedule.nose'"),
    ],
)
def test_a_study_that_cannot_be_is_refused(changes, complaint):
    with pytest.raises(UserError, match=complaint):
        study(**changes)


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds files that are not a study's"):
        execute(study(), str(tmp_path), ENGINE)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_the_schedule_study_compares_at_equal_epsilon():
    config = noise_schedules.get_config()
    found = to_study(config)
    assert {"linear", "exponential", "cosine", "step", "warm-up, decay", "growing"} <= set(found.contestants)
    assert (
        found.epsilons == (0.5, 1.0, 2.0) and len(found.seeds) >= 5 and set(found.models) == {"autoregressive", "tvae"}
    )

    for name in ("constant", "cosine", "noise and clip decay", "batch growth", "adaptive clip"):
        settings = settings_from_dict(found.settings("tvae", name, 1.0, 0, {}))
        _, plan = prepare(settings)
        spent = epsilon_of([*plan.release_events, *plan.training_events], plan.delta)
        assert 0.995 <= spent <= 1.0 and plan.delta == 1e-5


def test_the_figure_has_a_panel_for_every_cell(tmp_path):
    rows = pretended_rows(study())
    found = analyse(study(), rows)
    assert len(found.comparison) == 4
    assert all(row["difference"] == pytest.approx(0.03) for row in found.comparison)
    paths = {path.name: path for path in figures.draw(study(), Cells(rows, study()), found, tmp_path)}
    text = paths["differences_tables.svg"].read_text()
    assert text.count("epsilon 1") == text.count("epsilon 2") == 2 and "cosine" in text


def is_over(group: int) -> bool:
    """Whether all processes of a group end within 20 seconds; those that do not are killed."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.2)
    os.killpg(group, signal.SIGKILL)
    return False


@pytest.mark.slow
def test_the_smoke_study_runs_through_and_goes_on_after_a_kill(tmp_path):
    command = [sys.executable, "-m", "launch.study", "--config=configs/studies/noise_schedules.py:smoke"]
    command += [f"--workdir={tmp_path / 's'}", "--workers=1"]
    killed = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True)
    results = tmp_path / "s" / "private" / "runs"
    while not (results.is_dir() and len(list(results.glob("*.json"))) >= 2):
        assert killed.poll() is None
    killed.kill()
    killed.wait()
    assert is_over(killed.pid), "a worker outlived the study"
    kept = {path.name: path.read_bytes() for path in results.glob("*.json")}
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert all((results / name).read_bytes() == content for name, content in kept.items())
    rows = table(tmp_path / "s" / "private" / "results.csv")
    assert len(rows) == 8 and all(0.97 <= float(row["epsilon_spent"]) <= 1.0 for row in rows)


def test_a_study_of_models_alone_has_their_means_and_a_figure(tmp_path, made):
    alone = study(contestants={"constant": {}}, epsilons=(1.0, math.inf), tuning=None)
    lines = execute(alone, str(tmp_path / "s"), ENGINE)
    private = tmp_path / "s" / "private"
    report = (private / "report.md").read_text()
    assert report.startswith(PRIVATE_NOTICE)
    assert "| model | epsilon | auc | epsilon spent | seconds |" in report
    assert "| a | 1 | 0.76 ± 0.01 | 1 ± 0 | 1 ± 0 |" in report and "| b | inf | 0.76 ± 0.01 |" in report
    texts = {
        text.text for text in ElementTree.parse(private / "by_epsilon_tables.svg").iter() if text.tag.endswith("text")
    }
    assert {"a", "b", "inf", "auc"} <= texts
    assert not (private / "comparison.csv").exists() and (private / "tests.csv").exists()
    assert str(private / "by_epsilon_tables.png") in lines and not (private / "differences_tables.png").exists()
