"""Runs that are killed: the same command goes on, to the same bits and the same ledger."""

import json
import random
import shutil
import time

import killed
import numpy as np
import pandas as pd
import pytest

NUM_STEPS, NUM_KILLS = 60, 24

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
        "release/synthetic.csv", "release/model/params.npz", "release/model/model.json", "private/ledger.json",
        "private/training.jsonl", "release/privacy_report.json",
    ]  # fmt: skip
    return {name: (folder / name).read_bytes() for name in names}


def test_killed_at_any_moment_a_run_ends_as_an_unbroken_one(unbroken, tmp_path):
    plain, whole, begun, compiled = unbroken
    folder, rng = tmp_path / "run", random.Random(0)
    shutil.copytree(begun, folder)
    states = folder / "private" / "checkpoints" / "states"
    kills = 0
    while kills < NUM_KILLS:
        process = killed.start(plain, folder, compiled)
        before = set(states.glob("*"))
        if kills % 3:
            moment = rng.uniform(0.0, 3.0)
        else:
            moment = lambda: any("tmp" in path.name for path in set(states.glob("*")) - before)
        t = time.monotonic()
        done = killed.kill(process, moment)
        print(kills, moment, done, time.monotonic() - t, sorted(p.name for p in states.glob("*")))
        kills += done
        if not done:
            break
    t = time.monotonic()
    assert killed.run(plain, folder, compiled) == 0, (tmp_path / "run.txt").read_text()
    print("last", time.monotonic() - t)
    assert outcome(folder) == outcome(whole)
