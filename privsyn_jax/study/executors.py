"""Where the runs of a study are done: worker processes here, or jobs of submitit here or under SLURM."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import getpass
import json
import multiprocessing
import multiprocessing.process
import os
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from tqdm import tqdm

from privsyn_jax.study.jobs import Batch, Job, do, failure_file, share_compiled_programs
from privsyn_jax.study.plan import run_hash
from privsyn_jax.study.results import Results
from privsyn_jax.study.submitted import Submitted
from privsyn_jax.types import UserError

EXECUTORS = ("local", "submitit", "slurm")
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_DEFAULTS = {"timeout_min": 240}  # of a job; submitit's own is 5
_SECONDS_TO_SAVE = 10.0
_LARGEST_ARRAY = 1000  # SLURM's MaxArraySize is 1001 unless a cluster says otherwise
_ONE_PROCESS = ("nodes", "slurm_nodes", "tasks_per_node", "slurm_tasks_per_node", "slurm_ntasks_per_node")
_POLLS_WITHOUT_RESULT = 3  # of a job that has ended: a shared file system may show its result late


@dataclasses.dataclass(frozen=True)
class Engine:
    """How runs are done.

    Attributes:
      executor: "local" (worker processes of this one), "submitit" (jobs on this machine), "slurm" (job arrays).
      workers: how many at the same time.
      retries: how often a run is begun again after its process died.
      parameters: of submitit's jobs, as in {"slurm_partition": "gpu", "timeout_min": 60}.
      vectorize: train runs of equal shape together, in one program.
      poll_seconds: between two looks at jobs and results.
    """

    executor: str = "local"
    workers: int = 2
    retries: int = 3
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    vectorize: bool = False
    poll_seconds: float = 2.0


def do_all(
    batches: Sequence[Batch],
    results: Results,
    engine: Engine,
    what: str,
    watch: Callable[[], None] = lambda: None,
) -> None:
    """Does every batch; each result is on disk as soon as it is there.

    Args:
      what: is done, for the progress bar.
      watch: called whenever a batch is finished.

    Raises:
      UserError: a run failed, or its process died more than engine.retries times. What is done is kept.
    """
    with Progress(sum(map(len, batches)), what, watch) as progress:
        if engine.executor == "local":
            _in_workers(batches, results, engine, progress)
        else:
            _as_jobs(batches, results, engine, progress, _Submitit(engine, results.folder))


class Progress:
    """A bar on a terminal, a line per step elsewhere; `watch` is called after each."""

    def __init__(self, total: int, what: str, watch: Callable[[], None] = lambda: None):
        self._total, self._what, self._done, self._started = total, what, 0, time.perf_counter()
        self._watch = watch
        self._bar = tqdm(total=total, desc=what, unit="run", dynamic_ncols=True, disable=not sys.stderr.isatty())

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.close()

    def step(self, count: int) -> None:
        self._done += count
        self._bar.update(count)
        left = (time.perf_counter() - self._started) / self._done * (self._total - self._done)
        self.say(f"{self._what} {self._done}/{self._total}, about {left / 60:.0f} min left", only_off_terminal=True)
        self._watch()

    def say(self, message: str, *, only_off_terminal: bool = False) -> None:
        if not self._bar.disable:
            if not only_off_terminal:
                self._bar.write(message, file=sys.stderr)
        else:
            print(message, file=sys.stderr, flush=True)


def _is_done(batch: Batch, results: Results) -> bool:
    return all(results.get(settings) is not None for settings in batch)


def _in_workers(batches: Iterable[Batch], results: Results, engine: Engine, progress: Progress) -> None:
    """In processes that do one batch after the other, so that they import and compile once."""
    os.environ.update(_ONE_THREAD)  # inherited by the workers
    left = list(batches)
    for attempt in range(engine.retries + 1):
        if attempt:
            progress.say("a worker process died: its runs are gone on with")
        try:
            _pool(left, results, engine, progress)
            return
        except BrokenProcessPool:
            left = [batch for batch in left if not _is_done(batch, results)]
    raise UserError(
        f"a worker process died {engine.retries + 1} times, perhaps of lack of memory: lower --workers and start "
        "again; runs done are kept"
    )


def _pool(batches: Sequence[Batch], results: Results, engine: Engine, progress: Progress) -> None:
    context = multiprocessing.get_context("spawn")
    turns = context.Queue()
    for number in range(engine.workers):
        turns.put(number)
    arguments = (turns, engine.workers, str(results.folder))
    with concurrent.futures.ProcessPoolExecutor(engine.workers, context, _start_worker, arguments) as pool:
        futures = {pool.submit(_do_or_leave, batch, str(results.folder)): batch for batch in batches}
        try:
            for future in concurrent.futures.as_completed(futures):
                future.result()
                progress.step(len(futures[future]))
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            if not isinstance(error, BrokenProcessPool):
                _stop(multiprocessing.active_children())
            raise


def _do_or_leave(batch: Batch, folder: str) -> None:
    """A worker that is asked to stop does not take the next batch."""
    import jax

    try:
        do(batch, folder)
        jax.clear_caches()  # programs of hundreds of runs would fill the worker's memory
    except (KeyboardInterrupt, SystemExit) as stop:
        os._exit(int(stop.code or 0) if isinstance(stop, SystemExit) else 1)


def _stop(workers: Sequence[multiprocessing.process.BaseProcess]) -> None:
    """Ends workers; a run that is training is given time to save."""
    for worker in workers:
        worker.terminate()
    deadline = time.monotonic() + _SECONDS_TO_SAVE
    for worker in workers:
        worker.join(max(0.0, deadline - time.monotonic()))
        if worker.is_alive():
            worker.kill()


def _start_worker(turns: Any, workers: int, folder: str) -> None:
    """A worker takes its share of the cores, before JAX counts them, and shares compiled programs with the others."""
    cores = sorted(os.sched_getaffinity(0))
    number = turns.get()
    if workers > 1:
        os.sched_setaffinity(0, cores[number % len(cores) :: workers] or cores)
    share_compiled_programs(folder)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed study leaves no worker behind, waiting for work."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _as_jobs(
    batches: Sequence[Batch], results: Results, engine: Engine, progress: Progress, submitter: _Submitit
) -> None:
    """The results on disk are what counts; a job that ends without one is submitted again."""
    waiting, running = deque(batches), dict[str, tuple[Batch, Any]]()
    begun, missed = Counter[str](), Counter[str]()
    try:
        while waiting or running:
            room = engine.workers - len(running) if running else submitter.room
            batch_of_jobs = [waiting.popleft() for _ in range(min(room, len(waiting)))]
            for batch, job in zip(batch_of_jobs, submitter.submit(batch_of_jobs), strict=True):
                name = run_hash(batch[0])
                begun[name] += 1
                running[name] = (batch, job)
            time.sleep(engine.poll_seconds)
            alive = submitter.alive([job for _, job in running.values()])
            for name, (batch, job) in list(running.items()):
                if _is_done(batch, results):
                    progress.step(len(batch))
                elif job.job_id in alive or missed[name] < _POLLS_WITHOUT_RESULT - 1:
                    missed[name] = 0 if job.job_id in alive else missed[name] + 1
                    continue
                else:
                    _require_another_try(batch, results.folder, begun[name], engine)
                    progress.say(f"job {job.job_id} ended without a result: its run is submitted again")
                    waiting.append(batch)
                del running[name], missed[name]
    except BaseException:
        submitter.cancel([job for _, job in running.values()])
        raise


def _require_another_try(batch: Batch, folder: Path, begun: int, engine: Engine) -> None:
    """Raises UserError for a run that failed by itself, or died too often."""
    failure = failure_file(batch, folder)
    if failure.is_file():
        reason = json.loads(failure.read_text())["error"]
        raise UserError(f"a run failed ({' '.join(reason.split())}): see {failure}; runs done are kept")
    if begun > engine.retries:
        raise UserError(
            f"a run died {begun} times without a result: see the logs in {folder / 'jobs'}, ask for more memory or "
            "time with --job, and start again; runs done are kept"
        )


class _Submitit:
    """Jobs by submitit."""

    def __init__(self, engine: Engine, folder: Path):
        try:
            import submitit
        except ImportError:
            raise UserError(f"--executor={engine.executor} needs submitit: pip install 'privsyn_jax[slurm]'") from None
        self._folder, self._is_slurm = str(folder), engine.executor == "slurm"
        self.room = _LARGEST_ARRAY if self._is_slurm else engine.workers  # SLURM queues by itself
        logs = folder / "jobs"
        logs.mkdir(exist_ok=True)
        self._logs, self._job_class = logs, submitit.SlurmJob
        self._submitted = Submitted(logs)
        cluster = "slurm" if self._is_slurm else "local"
        limit = {"slurm_array_parallelism": engine.workers} if self._is_slurm else {}
        try:
            self._executor = submitit.AutoExecutor(
                logs, cluster=cluster, **({"slurm_max_num_timeout": engine.retries} if self._is_slurm else {})
            )
            self._executor.update_parameters(name="privsyn_jax", **{**_DEFAULTS, **limit, **engine.parameters})
        except (AssertionError, NameError, RuntimeError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"--executor={engine.executor} with these --job values is refused ({reason})") from None

    def submit(self, batches: Sequence[Batch]) -> list[Any]:
        """A job for every batch: one array of new ones, and those that still do their batch since an earlier start."""
        alive = self._ids_alive(self._submitted.ids) if batches and self._is_slurm else set[str]()
        held = [self._submitted.holder(batch, alive) for batch in batches]
        fresh = [batch for batch, job_id in zip(batches, held, strict=True) if job_id is None]
        made = iter(self._submit_new(fresh) if fresh else [])
        return [next(made) if job_id is None else self._job_class(self._logs, job_id) for job_id in held]

    def _submit_new(self, batches: Sequence[Batch]) -> list[Any]:
        for batch in batches:
            failure_file(batch, self._folder).unlink(missing_ok=True)
        try:
            with self._executor.batch():
                jobs = [self._executor.submit(Job(batch, self._folder)) for batch in batches]
        except RuntimeError as error:  # what submitit makes of a refusal by sbatch
            reason = " ".join(str(error).split())
            raise UserError(
                f"the jobs cannot be submitted ({reason}): correct --job, or ask the cluster's people"
            ) from None
        if self._is_slurm:
            self._submitted.add(batches, [job.job_id for job in jobs])
        return jobs

    def alive(self, jobs: Sequence[Any]) -> set[str]:
        """Ids of the jobs that wait or run."""
        if not self._is_slurm:
            return {job.job_id for job in jobs if not job.done()}
        return self._ids_alive({job.job_id for job in jobs})

    def _ids_alive(self, ids: Set[str]) -> set[str]:
        """Those of the ids that squeue lists."""
        queue = subprocess.run(
            ["squeue", "--noheader", "--array", "--format=%i", f"--user={getpass.getuser()}"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if queue.returncode:  # the controller does not answer: nothing is known, so nothing is given up
            return set(ids)
        return ids_in_queue(queue.stdout) & ids

    def cancel(self, jobs: Sequence[Any]) -> None:
        for job in jobs:
            job.cancel(check=False)
        self._submitted.clear()


def ids_in_queue(listing: str) -> set[str]:
    """Job ids of squeue's listing, an element of an array as 12_3."""
    return {line.strip() for line in listing.splitlines() if line.strip()}


def parse_parameters(texts: Iterable[str], executor: str) -> dict[str, Any]:
    """--job=NAME=VALUE flags as submitit's parameters: its own names as they are, SLURM's with slurm_ in front.

    Raises:
      UserError: a text that is no NAME=VALUE, or values for workers that are no jobs, or a run of several processes.
    """
    parameters: dict[str, Any] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not (sign and name and value):
            raise UserError(f"--job={text} is not understood: write NAME=VALUE, as in --job=slurm_partition=gpu")
        parameters[name] = _number(value)
        if name in _ONE_PROCESS and parameters[name] != 1:
            raise UserError(
                f"--job={text} is refused: a run of a study is one process; use launch.run for a larger one"
            )
    if parameters and executor == "local":
        raise UserError("--job is for --executor=submitit or slurm: local workers have no such parameters")
    return parameters


def _number(text: str) -> Any:
    kinds: tuple[Callable[[str], Any], ...] = (int, float)
    for kind in kinds:
        try:
            return kind(text)
        except ValueError:
            continue
    return text
