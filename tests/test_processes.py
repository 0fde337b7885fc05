"""Two processes of one run: the result of one process, one ledger, one writer."""

import json
import signal

import killed
import numpy as np
import pytest
from test_resume import NUM_STEPS, outcome, said, steps_saved, tiny, training_count

from privsyn_jax.training.processes import Leader, agree


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(settings, folder of a run by one process, folder of the same run by two, compiled programs)."""
    base = tmp_path_factory.mktemp("processes")
    plain = {**tiny(base, steps_per_dispatch=5, checkpoint_seconds=3600), "privacy": {"seed": 3}}
    one, two, compiled = base / "one", base / "two", base / "compiled"
    assert killed.run(plain, one, compiled) == 0, said(one)
    assert finish(killed.start_group(plain, two, compiled, 2)) == [0, 0], said(two)
    return plain, one, two, compiled


def finish(processes) -> list[int]:
    for process in processes:
        process.join(120)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    return codes


def params(folder) -> dict[str, np.ndarray]:
    with np.load(folder / "release" / "model" / "params.npz") as found:
        return {name: found[name] for name in found.files}


def test_two_processes_give_the_parameters_of_one(runs):
    _, one, two, _ = runs
    expected, found = params(one), params(two)
    assert expected.keys() == found.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-5)


def test_two_processes_charge_one_ledger_once(runs):
    _, one, two, _ = runs
    entries = [json.loads((run / "private" / "ledger.json").read_text())["entries"] for run in (one, two)]
    assert entries[0] == entries[1]
    assert training_count(two) == NUM_STEPS


def test_only_process_0_speaks_and_writes(runs):
    _, _, two, _ = runs
    assert said(two).count("buying histograms") == said(two).count("sampling\n") == 1
    lines = (two / "private" / "training.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines[1:]] == list(range(1, NUM_STEPS + 1))


@pytest.mark.slow
def test_processes_that_are_asked_to_stop_save_and_go_on(runs, tmp_path):
    plain, _, two, compiled = runs
    folder = tmp_path / "run"
    processes = killed.start_group(plain, folder, compiled, 2)
    log = folder / "private" / "training.jsonl"
    for process in processes:  # as SLURM does, to all
        killed.kill(process, lambda: log.is_file() and log.read_text().count("\n") > 10, signal.SIGTERM, wait=False)
    assert finish(processes) == [128 + signal.SIGTERM] * 2, said(folder)
    assert 0 < steps_saved(folder)[-1] == training_count(folder) < NUM_STEPS
    assert finish(killed.start_group(plain, folder, compiled, 2)) == [0, 0], said(folder)
    assert outcome(folder) == outcome(two)


def test_what_stops_process_0_is_told_to_the_others(runs, tmp_path):
    plain, _, _, compiled = runs
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "holiday.jpg").write_text("x")
    codes = finish(killed.start_group(plain, folder, compiled, 2))
    assert all(codes) and f"UserError: process 0: --workdir {folder} holds files that are not" in said(folder)


def test_alone_nothing_is_said(monkeypatch):
    monkeypatch.setattr("privsyn_jax.training.processes._broadcast", None)
    leader = Leader()
    with leader.telling_failures():
        agree("records", "hash")
        leader.say(b"content")
    leader.let_go()
