"""Where the runs of a study are done: each once, again after a death, and nothing lost on the way."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from privsyn_jax.study import executors, jobs
from privsyn_jax.study.executors import Engine, do_all, ids_in_queue, parse_parameters
from privsyn_jax.study.plan import run_hash
from privsyn_jax.study.results import Results
from privsyn_jax.study.submitted import Submitted
from privsyn_jax.types import UserError

ROOT = Path(__file__).parent.parent


def settings(number: int) -> dict:
    return {"data": {"dir": ""}, "number": number}


class FakeJob:
    def __init__(self, job_id: str):
        self.job_id, self.is_cancelled = job_id, False

    def cancel(self, check):
        del check
        self.is_cancelled = True


class FakeQueue:
    """Jobs that do what a script says at each attempt: "done", "dies" or "fails"; they take one look to end."""

    room = sys.maxsize

    def __init__(self, script, results):
        self.script, self.results, self.submitted, self.jobs, self.ends = script, results, [], [], {}

    def submit(self, batches):
        made = []
        for batch in batches:
            number = batch[0]["number"]
            self.submitted.append(number)
            fate = self.script[number][self.submitted.count(number) - 1]
            job = FakeJob(f"7_{len(self.jobs)}")
            self.jobs.append(job)
            self.ends[job.job_id] = (fate, batch)
            made.append(job)
        return made

    def alive(self, waiting):
        for job in waiting:
            fate, batch = self.ends.pop(job.job_id, (None, None))
            if fate == "done":
                for one in batch:
                    self.results.put(one, {"metrics": {}})
            elif fate == "fails":
                path = jobs.failure_file(batch, self.results.folder)
                path.parent.mkdir(exist_ok=True)
                path.write_text(json.dumps({"error": "column 'age'\n is missing"}))
        return set()

    def cancel(self, waiting):
        for job in waiting:
            job.cancel(check=False)


def run_jobs(script, folder, retries=2):
    results = Results(folder)
    queue = FakeQueue(script, results)
    engine = Engine("slurm", retries=retries, poll_seconds=0.0)
    batches = [[settings(number)] for number in script]
    with executors.Progress(len(batches), "runs") as progress:
        executors._as_jobs(batches, results, engine, progress, queue)
    return queue, results


def test_a_job_that_dies_is_submitted_again_and_no_other(tmp_path, capsys):
    queue, results = run_jobs({0: ["done"], 1: ["dies", "dies", "done"], 2: ["done"]}, tmp_path)
    assert sorted(queue.submitted) == [0, 1, 1, 1, 2]
    assert all(results.get(settings(number)) is not None for number in range(3))
    assert capsys.readouterr().err.count("submitted again") == 2


def test_a_job_that_dies_too_often_ends_the_study_and_cancels_the_rest(tmp_path):
    with pytest.raises(UserError, match=r"a run died 3 times without a result: see the logs in .*jobs") as caught:
        run_jobs({0: ["dies"] * 9}, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_run_that_fails_by_itself_is_not_tried_again(tmp_path):
    with pytest.raises(UserError, match=r"a run failed \(column 'age' is missing\): see .*error\.json"):
        run_jobs({0: ["fails", "done"]}, tmp_path)


def test_an_interrupted_study_cancels_its_jobs(tmp_path, monkeypatch):
    results = Results(tmp_path)
    queue = FakeQueue({0: ["dies"], 1: ["dies"]}, results)
    monkeypatch.setattr(queue, "alive", lambda waiting: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt), executors.Progress(2, "runs") as progress:
        executors._as_jobs([[settings(0)], [settings(1)]], results, Engine("slurm", poll_seconds=0), progress, queue)
    assert [job.is_cancelled for job in queue.jobs] == [True, True]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # submitit's own
def test_submitit_runs_jobs_here_and_a_killed_one_again(tmp_path):
    """Real processes; the pickled job finds the pretended run through this module."""
    script = tmp_path / "sitecustomize.py"
    script.write_text(f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests')!r}]\nimport pretended\n")
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    results = Results(private)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(tmp_path)
    try:
        do_all([[settings(0)], [settings(1)]], results, Engine("submitit", poll_seconds=0.2), "runs")
    finally:
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before
    assert [results.get(settings(number))["metrics"]["number"] for number in range(2)] == [0, 1]
    assert len(list((private / "jobs").rglob("*_submitted.pkl"))) == 3


def test_without_submitit_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match=r"needs submitit: pip install 'privsyn_jax\[slurm\]'"):
        do_all([[settings(0)]], Results(tmp_path), Engine("slurm"), "runs")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("executor", "texts", "words"),
    [
        ("slurm", ["partition"], "--job=partition is not understood: write NAME=VALUE"),
        ("slurm", ["=gpu"], "--job==gpu is not understood"),
        ("local", ["timeout_min=3"], "--job is for --executor=submitit or slurm"),
        ("submitit", ["timeout_minutes=3"], "--executor=submitit with these --job values is refused"),
    ],
)
def test_parameters_that_no_job_has_are_refused(tmp_path, executor, texts, words):
    with pytest.raises(UserError, match=words):
        do_all(
            [[settings(0)]], Results(tmp_path), Engine(executor, parameters=parse_parameters(texts, executor)), "runs"
        )


def test_parameters_are_numbers_where_they_look_like_numbers():
    texts = ["timeout_min=60", "mem_gb=1.5", "slurm_partition=gpu", "slurm_time=1:00:00"]
    assert parse_parameters(texts, "slurm") == {
        "timeout_min": 60, "mem_gb": 1.5, "slurm_partition": "gpu", "slurm_time": "1:00:00",
    }  # fmt: skip
    assert parse_parameters([], "local") == {}


def test_the_queue_is_read_element_by_element():
    assert ids_in_queue("2_0\n2_1\n 17\n\n") == {"2_0", "2_1", "17"}


def test_local_workers_do_every_run_and_go_on_after_one_died(tmp_path):
    """In a process of its own, since workers are spawned from a main module."""
    script = tmp_path / "main.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\n"
        f"sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests')!r}]\n"
        "import pretended\n"
        "if __name__ == '__main__':\n"
        "    from privsyn_jax.study.executors import Engine, do_all\n"
        "    from privsyn_jax.study.results import Results\n"
        "    folder = Path(sys.argv[1]); folder.mkdir()\n"
        "    batches = [[{'data': {'dir': ''}, 'number': number}] for number in range(3)]\n"
        "    do_all(batches, Results(folder), Engine(workers=1), 'runs')\n"
    )
    done = subprocess.run([sys.executable, str(script), str(tmp_path / "s")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "s" / "runs").glob("*.json"))) == 3
    assert "a worker process died: its runs are gone on with" in done.stderr


def test_ctrl_c_ends_a_study_in_one_sentence_and_it_goes_on(tmp_path):
    command = [sys.executable, "-m", "launch.study", "--config=configs/studies/smoke.py", "--workers=1"]
    command += [f"--workdir={tmp_path / 's'}"]
    study = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    ledgers, deadline = tmp_path / "s" / "private" / "unfinished", time.monotonic() + 240
    while not list(ledgers.rglob("ledger.json")):
        assert study.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    study.send_signal(signal.SIGINT)
    _, said = study.communicate(timeout=240)  # a dispatch under way is finished first, compilation included
    assert study.returncode == 130
    assert said.strip().splitlines()[-1] == "interrupted: what is finished is kept; the same command goes on"
    assert "Traceback" not in said
    assert not (tmp_path / "s" / "private" / "results.csv").exists()
    for path in (tmp_path / "s").rglob("*.json"):
        json.loads(path.read_text())


def test_results_are_known_by_the_content_of_their_settings(tmp_path):
    results = Results(tmp_path)
    results.put(settings(1), {"metrics": {}})
    assert results.get(settings(1)) is not None and results.get(settings(2)) is None
    assert [path.stem for path in (tmp_path / "runs").iterdir()] == [run_hash(settings(1))]
    unfinished = results.unfinished(settings(1), "abcdef")
    unfinished.mkdir(parents=True)
    results.forget(settings(1))
    assert not unfinished.exists()


def test_beside_a_first_array_no_more_jobs_are_submitted_than_workers(tmp_path):
    results = Results(tmp_path)
    queue = FakeQueue({number: ["done"] for number in range(6)}, results)
    queue.room, submit, in_flight = 4, queue.submit, []

    def submit_and_count(batches):
        jobs = submit(batches)
        if batches:
            in_flight.append(len(queue.ends))
        return jobs

    def first_one_ends(waiting):
        FakeQueue.alive(queue, waiting[:1])
        return {job.job_id for job in waiting[1:]}

    queue.submit, queue.alive = submit_and_count, first_one_ends
    with executors.Progress(6, "runs") as progress:
        batches = [[settings(number)] for number in range(6)]
        executors._as_jobs(batches, results, Engine("slurm", workers=2, poll_seconds=0.0), progress, queue)
    assert in_flight == [4, 2, 2] and sorted(queue.submitted) == list(range(6))


def test_a_job_that_still_does_a_run_is_found_again(tmp_path):
    first = Submitted(tmp_path)
    first.add([[settings(0)], [settings(1), settings(2)]], ["7_0", "7_1"])
    again = Submitted(tmp_path)
    assert again.holder([settings(0)], {"7_0", "7_1"}) == "7_0" and again.holder([settings(0)], {"7_1"}) is None
    assert again.holder([settings(1), settings(2)], {"7_1"}) == "7_1"
    assert again.holder([settings(0), settings(1)], {"7_0", "7_1"}) is None
    assert again.holder([settings(9)], {"7_0"}) is None
    again.add([[settings(0)]], ["8"])
    assert Submitted(tmp_path).ids == {"8", "7_1"}
    again.clear()
    assert Submitted(tmp_path).ids == set()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["timeout_min=soon"], "with these --job values is refused .*timeout_min"),
        (["nodes=2"], "--job=nodes=2 is refused: a run of a study is one process"),
        (["slurm_ntasks_per_node=4"], "a run of a study is one process"),
    ],
)
def test_job_values_that_cannot_be_are_refused_in_a_sentence(tmp_path, texts, words):
    with pytest.raises(UserError, match=words) as caught:
        engine = Engine("submitit", parameters=parse_parameters(texts, "submitit"))
        do_all([[settings(0)]], Results(tmp_path), engine, "runs")
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore")
def test_what_sbatch_refuses_is_told_in_a_sentence(tmp_path, monkeypatch):
    """A stand-in for SLURM whose sbatch refuses everything."""
    for name, text in (
        ("sbatch", "echo 'sbatch: error: invalid partition: x' >&2; exit 1"),
        ("srun", ""),
        ("squeue", ""),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    folder = tmp_path / "private"
    folder.mkdir()
    with pytest.raises(UserError, match=r"cannot be submitted \(sbatch: error: invalid partition: x\): correct --job"):
        do_all([[settings(0)], [settings(1)]], Results(folder), Engine("slurm"), "runs")
