"""Runs that are killed: the same command goes on, to the same bits and the same ledger."""

import errno
import json
import os
import random
import shutil
import signal

import killed
import numpy as np
import pandas as pd
import pytest

from privsyn_jax.run import execute
from privsyn_jax.settings import settings_from_dict
from privsyn_jax.types import UserError

NUM_STEPS, NUM_KILLS = 50, 20

SCHEMA = {
    "columns": {
        "age": {"kind": "integer", "lower": 18, "upper": 90},
        "city": {"kind": "categorical", "categories": ["Bonn", "Köln"]},
        "ill": {"kind": "boolean"},
    },
    "target": "ill",
    "num_records": 150,
}


def write_table(folder, num_rows=150):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "age": rng.integers(18, 90, num_rows),
            "city": rng.choice(["Bonn", "Köln"], num_rows),
            "ill": rng.integers(0, 2, num_rows),
        }
    )
    frame.to_csv(folder / "data.csv", index=False)
    (folder / "schema.json").write_text(json.dumps(SCHEMA))
    return {"path": str(folder / "data.csv"), "schema": str(folder / "schema.json")}


def tiny(folder, **training):
    return {
        "data": write_table(folder),
        "model": {"width": 8, "num_layers": 1, "num_calibration_rows": 64},
        "training": {
            "num_steps": NUM_STEPS, "expected_batch_size": 32, "microbatch_size": 32, "steps_per_dispatch": 1,
            "checkpoint_seconds": 0, **training,
        },
        "evaluation": {"enabled": False},
    }  # fmt: skip


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """(settings, folder of a finished run, folder of the same run killed when it had its secret, compiled programs)."""
    base = tmp_path_factory.mktemp("resume")
    plain, compiled = tiny(base), base / "compiled"
    whole, begun = base / "whole", base / "begun"
    process = killed.start(plain, whole, compiled)
    assert killed.kill(process, (whole / "private" / "checkpoints" / "secret.json").is_file)
    shutil.copytree(whole, begun)
    assert killed.run(plain, whole, compiled) == 0, (base / "whole.txt").read_text()
    return plain, whole, begun, compiled


def outcome(folder):
    """All that a run leaves, by name, as bytes."""
    names = [
        "release/synthetic.csv", "release/model/params.npz", "release/privacy_report.json", "private/ledger.json",
        "private/training.jsonl",
    ]  # fmt: skip
    return {name: (folder / name).read_bytes() for name in names}


def write_begins(states):
    """A condition: a checkpoint that was not there is being written."""
    before = set(states.glob("*"))
    return lambda: any("tmp" in path.name for path in set(states.glob("*")) - before)


def steps_saved(folder):
    states = folder / "private" / "checkpoints" / "states"
    return sorted(int(path.name) for path in states.glob("*") if path.name.isdigit())


def kill_after(step, plain, folder, compiled):
    """Kills a run when the checkpoint of a step is whole."""
    process = killed.start(plain, folder, compiled)
    assert killed.kill(process, lambda: (steps_saved(folder) or [0])[-1] >= step), said(folder)


def said(folder):
    return folder.with_name(f"{folder.name}.txt").read_text()


def training_count(folder):
    entries = json.loads((folder / "private" / "ledger.json").read_text())["entries"]
    return sum(entry["event"]["count"] for entry in entries if entry["name"] == "training")


def test_killed_at_any_moment_a_run_ends_as_an_unbroken_one(unbroken, tmp_path):
    plain, whole, begun, compiled = unbroken
    folder, rng, reached = tmp_path / "run", random.Random(0), []
    shutil.copytree(begun, folder)
    states = folder / "private" / "checkpoints" / "states"
    for number in range(NUM_KILLS):
        process = killed.start(plain, folder, compiled)
        moment = rng.uniform(0.5, 2.5) if number % 3 else write_begins(states)
        assert killed.kill(process, moment), said(folder)
        reached.append(max(steps_saved(folder), default=0))
    assert len(set(reached)) > 0 and reached == sorted(reached) and reached[-1] < NUM_STEPS
    assert killed.run(plain, folder, compiled) == 0, said(folder)
    assert outcome(folder) == outcome(whole)
    assert training_count(folder) == NUM_STEPS and not (folder / "private" / "checkpoints").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_asked_to_stop_saves_first(unbroken, tmp_path, number):
    plain, whole, begun, compiled = unbroken
    plain = {**plain, "training": {**plain["training"], "checkpoint_seconds": 3600}}
    folder = tmp_path / "run"
    shutil.copytree(begun, folder)
    process, log = killed.start(plain, folder, compiled), folder / "private" / "training.jsonl"
    assert killed.kill(process, lambda: log.is_file() and log.read_text().count("\n") > 10, number), said(folder)
    assert process.exitcode == 128 + number and f"{number.name}: step " in said(folder)
    (saved,) = steps_saved(folder)
    assert training_count(folder) == saved > 0  # nothing was begun that is not saved
    assert killed.run(plain, folder, compiled) == 0, said(folder)
    assert outcome(folder) == outcome(whole)


def test_a_checkpoint_that_was_damaged_is_left_out(unbroken, tmp_path):
    plain, whole, begun, compiled = unbroken
    folder = tmp_path / "run"
    shutil.copytree(begun, folder)
    kill_after(6, plain, folder, compiled)
    states = folder / "private" / "checkpoints" / "states"
    *_, before, newest = steps_saved(folder)
    for path in (states / str(newest) / "state").rglob("d/*"):
        path.write_bytes(path.read_bytes()[:-40] + bytes(40))
    assert killed.run(plain, folder, compiled) == 0, said(folder)
    assert f"the checkpoint of step {newest} is damaged and left out" in said(folder)
    assert f"going on from step {before}" in said(folder)
    assert outcome(folder) == outcome(whole)


def test_without_any_checkpoint_the_run_is_repeated_at_no_charge(unbroken, tmp_path):
    plain, whole, begun, compiled = unbroken
    folder = tmp_path / "run"
    shutil.copytree(begun, folder)
    kill_after(6, plain, folder, compiled)
    shutil.rmtree(folder / "private" / "checkpoints" / "states")
    (folder / "private" / "checkpoints" / "purchases.npz").unlink()
    assert killed.run(plain, folder, compiled) == 0, said(folder)
    assert outcome(folder) == outcome(whole)


def damaged(ledger):
    ledger.write_text(ledger.read_text()[:-20])


def lagging(ledger):
    plain = json.loads(ledger.read_text())
    plain["entries"][-1]["event"]["count"] = 1
    ledger.write_text(json.dumps(plain))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (damaged, r"ledger\.json is not a ledger .*: restore it"),
        (lagging, r"ledger\.json books less than was charged when the last checkpoint was saved: restore the file"),
        (lambda ledger: ledger.unlink(), r"ledger\.json is missing, so what this run has spent is not known: restore"),
    ],
)
def test_a_ledger_that_cannot_be_trusted_stops_the_run(killed_midway, tmp_path, spoil, words):
    plain, begun, _ = killed_midway
    folder = tmp_path / "run"
    shutil.copytree(begun, folder)
    spoil(folder / "private" / "ledger.json")
    before = steps_saved(folder)
    with pytest.raises(UserError, match=words) as caught:
        execute(settings_from_dict(plain), folder, announce=print)
    assert "\n" not in str(caught.value) and steps_saved(folder) == before


@pytest.fixture(scope="module")
def killed_midway(unbroken, tmp_path_factory):
    """(settings, folder of a run that was killed after some steps, compiled programs)."""
    plain, _, begun, compiled = unbroken
    folder = tmp_path_factory.mktemp("midway") / "run"
    shutil.copytree(begun, folder)
    kill_after(10, plain, folder, compiled)
    return plain, folder, compiled


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"privacy": {"epsilon": 2.0}}, r"privacy\.epsilon 1\.0 there, 2\.0 here"),
        ({"privacy": {"l2_clip_norm": 0.5}}, r"privacy\.l2_clip_norm 1\.0 there, 0\.5 here"),
        ({"training": {"expected_batch_size": 16}}, r"training\.expected_batch_size 32 there, 16 here"),
    ],
)
def test_other_settings_do_not_go_on(killed_midway, changes, words):
    plain, folder, _ = killed_midway
    changed = {**plain, **{name: {**plain.get(name, {}), **section} for name, section in changes.items()}}
    with pytest.raises(UserError, match=words):
        execute(settings_from_dict(changed), folder, announce=print)


def test_another_schema_or_other_records_do_not_go_on(killed_midway, tmp_path):
    plain, folder, _ = killed_midway
    wider = json.loads(json.dumps(SCHEMA))
    wider["columns"]["age"]["upper"] = 95
    (tmp_path / "schema.json").write_text(json.dumps(wider))
    data = {**plain["data"], "schema": str(tmp_path / "schema.json")}
    with pytest.raises(UserError, match=r"another schema \(schema\.columns\.age\.upper 90.* there, 95.* here\)"):
        execute(settings_from_dict({**plain, "data": data}), folder, announce=print)
    other = {**write_table(tmp_path, 160), "schema": plain["data"]["schema"]}
    with pytest.raises(UserError, match=r"other data \(content hash \w+ there, \w+ here\)"):
        execute(settings_from_dict({**plain, "data": other}), folder, announce=print)


def test_another_program_draws_anew_and_pays_for_what_it_repeats(killed_midway, tmp_path):
    plain, begun, compiled = killed_midway
    folder = tmp_path / "run"
    shutil.copytree(begun, folder)
    saved, charged = steps_saved(folder)[-1], training_count(folder)
    shutil.rmtree(folder / "private" / "checkpoints" / "states" / str(saved))  # so that something is repeated
    saved = steps_saved(folder)[-1]
    assert charged > saved
    other = {**plain, "training": {**plain["training"], "microbatch_size": 16}}
    assert killed.run(other, folder, compiled) == 0, said(folder)
    words = f"{charged - saved} steps after step {saved} are repeated by another program"
    assert words in said(folder) and "settings.microbatch_size 32 there, 16 here" in said(folder)
    assert training_count(folder) == NUM_STEPS + charged - saved
    report = json.loads((folder / "release" / "privacy_report.json").read_text())
    assert report["epsilon"] > 1.0 and any(words in warning for warning in report["warnings"])
    assert any("EPSILON ABOVE THE PLAN" in warning for warning in report["warnings"])


@pytest.mark.parametrize(
    "privacy",
    [{"adaptive": {"rule": "signal", "num_blocks": 4}}, pytest.param({"num_bands": 3}, marks=pytest.mark.slow)],
)
def test_adaptive_and_correlated_noise_resume_too_but_not_as_another_program(unbroken, tmp_path, privacy):
    plain, _, _, compiled = unbroken
    plain = {**plain, "privacy": {**privacy, "seed": 1}}
    whole, folder, moved = tmp_path / "whole", tmp_path / "run", tmp_path / "moved"
    assert killed.run(plain, whole, compiled) == 0, said(whole)
    kill_after(25, plain, folder, compiled)
    shutil.copytree(folder, moved)
    assert killed.run(plain, folder, compiled) == 0, said(folder)
    assert outcome(folder) == outcome(whole)
    newest = steps_saved(moved)[-1]
    shutil.rmtree(moved / "private" / "checkpoints" / "states" / str(newest))  # so that something is repeated
    other = {**plain, "training": {**plain["training"], "microbatch_size": 16}}
    with pytest.raises(
        UserError, match=r"this run cannot go on \(.* (one path only|drawn by one)\): go on where it was"
    ):
        execute(settings_from_dict(other), moved, announce=print)


@pytest.mark.slow
def test_an_adaptive_run_that_has_saved_all_goes_on_elsewhere_but_not_on_two_paths(unbroken, tmp_path):
    """Nothing is repeated, so the filter that was charged covers it; back where it came from, it would be."""
    plain, _, _, compiled = unbroken
    plain = {**plain, "privacy": {"adaptive": {"rule": "signal", "num_blocks": 4}}}
    elsewhere = {**plain, "training": {**plain["training"], "microbatch_size": 16}}
    folder, behind = tmp_path / "run", tmp_path / "behind"
    process, log = killed.start(plain, folder, compiled), folder / "private" / "training.jsonl"
    assert killed.kill(process, lambda: log.is_file() and log.read_text().count("\n") > 20, signal.SIGTERM)
    saved = steps_saved(folder)[-1]
    kill_after(saved + 5, elsewhere, folder, compiled)
    shutil.copytree(folder, behind)
    for step in steps_saved(behind):
        if step > saved:
            shutil.rmtree(behind / "private" / "checkpoints" / "states" / str(step))
    if not steps_saved(behind):  # the last 3 are kept
        shutil.rmtree(behind / "private" / "checkpoints" / "states")
    with pytest.raises(UserError, match="adaptive noise allows one path only"):
        execute(settings_from_dict(plain), behind, announce=print)
    assert killed.run(elsewhere, folder, compiled) == 0, said(folder)
    report = json.loads((folder / "release" / "privacy_report.json").read_text())
    assert 0.98 <= report["epsilon"] <= 1.0 and not any("charged again" in warning for warning in report["warnings"])


def test_a_full_disk_gets_one_sentence_and_loses_nothing(killed_midway, tmp_path, monkeypatch):
    plain, begun, compiled = killed_midway
    folder = tmp_path / "run"
    shutil.copytree(begun, folder)
    real, calls = os.replace, []

    def full(source, target):
        calls.append(target)
        if len(calls) > 12:
            raise OSError(errno.ENOSPC, "No space left on device", str(source))
        return real(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\): free space") as caught:
        execute(settings_from_dict(plain), folder, announce=print)
    monkeypatch.undo()
    assert "\n" not in str(caught.value) and steps_saved(folder)
    assert killed.run(plain, folder, compiled) == 0, said(folder)
    assert training_count(folder) == NUM_STEPS
