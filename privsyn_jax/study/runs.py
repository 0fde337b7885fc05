"""Runs of a study in worker processes: each result a file, so that a killed study goes on where it was."""

from __future__ import annotations

import concurrent.futures
import functools
import itertools
import json
import math
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from tqdm import tqdm

from privsyn_jax.privacy.guard import PrivateFolder
from privsyn_jax.settings import DataSettings
from privsyn_jax.study.plan import Study, best_choice, run_hash
from privsyn_jax.types import Records, Schema, UserError
from privsyn_jax.workdir import PRIVATE_NOTICE, write_json

_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class Results:
    """The finished runs of a study, below its private folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._runs = folder / "runs"
        self._runs.mkdir(exist_ok=True)

    def get(self, settings: Mapping[str, Any]) -> dict[str, Any] | None:
        path = self._path(settings)
        return json.loads(path.read_text()) if path.is_file() else None

    def put(self, settings: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        write_json(self._path(settings), {"notice": PRIVATE_NOTICE, **result})

    def _path(self, settings: Mapping[str, Any]) -> Path:
        return self._runs / f"{run_hash(settings)}.json"


def tune(study: Study, results: Results, workers: int) -> dict[tuple[str, float], dict[str, Any]]:
    """(model, epsilon) -> what the baseline was tuned to; nothing where the study does not tune."""
    cells = list(itertools.product(study.models, study.epsilons))
    tuning = study.tuning
    if tuning is None:
        return {cell: {} for cell in cells}
    jobs = {
        (cell, json.dumps(choice), seed): study.settings(cell[0], study.baseline, cell[1], seed, choice)
        for seed in tuning.seeds  # outermost, so that workers do not compile the same program at the same time
        for cell in cells
        for choice in tuning.choices()
    }
    finish(jobs.values(), results, workers, "tuning")
    values: dict[tuple[str, float], dict[str, list[float]]] = {cell: {} for cell in cells}
    found = {job: _found(results, settings)["metrics"] for job, settings in jobs.items()}
    _require_metric("tuning.metric", tuning.metric, found.values())
    for (cell, choice, _), metrics in found.items():
        values[cell].setdefault(choice, []).append(metrics.get(tuning.metric, -math.inf))
    return {cell: best_choice(tuning, values[cell]) for cell in cells}


def compete(
    study: Study, tuned: Mapping[tuple[str, float], Mapping[str, Any]], results: Results, workers: int
) -> list[dict[str, Any]]:
    """One row per run: model, epsilon, contestant, seed, metrics, what was spent, the tuned values."""
    jobs = {
        (model, epsilon, contestant, seed): study.settings(model, contestant, epsilon, seed, tuned[model, epsilon])
        for seed in study.seeds  # outermost: a study that is cut short has whole seeds
        for model, epsilon, contestant in itertools.product(study.models, study.epsilons, study.contestants)
    }
    finish(jobs.values(), results, workers, "runs")
    found = {job: _found(results, settings) for job, settings in jobs.items()}
    for metric in study.metrics:
        _require_metric("metrics", metric, [result["metrics"] for result in found.values()])
    rows = []
    for (model, epsilon, contestant, seed), result in found.items():
        rows.append(
            {
                "model": model, "epsilon": epsilon, "contestant": contestant, "seed": seed,
                **dict.fromkeys(study.metrics, math.nan),  # where a run has none: a target of one class, for instance
                **result["metrics"],
                "epsilon_spent": result["epsilon"], "seconds": result["seconds"],
                "tuned_on_private_data": bool(tuned[model, epsilon]),
                **{f"tuned {path}": value for path, value in tuned[model, epsilon].items()},
            }
        )  # fmt: skip
    return rows


def finish(jobs: Iterable[Mapping[str, Any]], results: Results, workers: int, what: str) -> None:
    """Runs what has no result yet, each distinct run once; a failing run stops the study with its error."""
    missing = list({run_hash(settings): settings for settings in jobs if results.get(settings) is None}.values())
    if not missing:
        return
    os.environ.update(_ONE_THREAD)  # inherited by the workers
    context = multiprocessing.get_context("spawn")
    turns = context.Queue()
    for number in range(workers):
        turns.put(number)
    pool = concurrent.futures.ProcessPoolExecutor(workers, context, _start, (turns, workers, str(results.folder)))
    is_terminal = sys.stderr.isatty()
    started = time.perf_counter()
    with pool, tqdm(total=len(missing), desc=what, unit="run", dynamic_ncols=True, disable=not is_terminal) as bar:
        futures = {pool.submit(run, settings, str(results.folder)): settings for settings in missing}
        try:
            for number, future in enumerate(concurrent.futures.as_completed(futures), start=1):
                results.put(futures[future], future.result())
                bar.update()
                if not is_terminal:
                    left = (time.perf_counter() - started) / number * (len(missing) - number)
                    print(
                        f"{what} {number}/{len(missing)}, about {left / 60:.0f} min left", file=sys.stderr, flush=True
                    )
        except BrokenProcessPool:
            raise UserError(
                "a worker process died, perhaps of lack of memory: lower --workers and start again; runs done are kept"
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def run(settings: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """One run from records to metrics, in this process."""
    import jax

    from privsyn_jax import evaluation
    from privsyn_jax.learn import learn
    from privsyn_jax.run import prepare
    from privsyn_jax.settings import settings_from_dict
    from privsyn_jax.training.attempt import Attempt

    started = time.perf_counter()
    checked = settings_from_dict(settings)
    schema, plan = prepare(checked)
    records = _records(checked.data, schema)
    trained = learn(records.train, schema, plan, checked, Attempt.in_memory(checked.privacy.noise_seed))
    synthesis = trained.synthesize(
        checked.synthesis.num_samples or schema.num_records, conditions={}, key=jax.random.key(checked.seed)
    )
    private = PrivateFolder(Path(folder))
    train, test = records.train.open_under(private), records.test.open_under(private)
    metrics = evaluation.evaluate(schema, train, test, synthesis.frame, seed=checked.seed).metrics
    return {
        "settings": dict(settings),
        "epsilon": trained.privacy["epsilon"],
        "metrics": {row["metric"]: row["value"] for row in metrics if row["column"] is None},
        "reference": {row["metric"]: row["reference"] for row in metrics if row["column"] is None},
        "path": trained.privacy["path"],
        "seconds": round(time.perf_counter() - started, 2),
    }


@functools.lru_cache(maxsize=1)
def _records(settings: DataSettings, schema: Schema) -> Records:
    """The data set, read once per worker."""
    from privsyn_jax.data import DATASETS

    return DATASETS[settings.name].load(settings, schema)


def _start(turns: Any, workers: int, folder: str) -> None:
    """A worker takes its share of the cores, before JAX counts them, and shares compiled programs with the others."""
    cores = sorted(os.sched_getaffinity(0))
    number = turns.get()
    if workers > 1:
        os.sched_setaffinity(0, cores[number % len(cores) :: workers] or cores)
    import jax

    jax.config.update("jax_compilation_cache_dir", os.path.join(folder, "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed study leaves no worker behind, waiting for work."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _require_metric(setting: str, metric: str, found: Iterable[Mapping[str, float]]) -> None:
    known = {name for metrics in found for name in metrics}
    if metric not in known:
        raise UserError(f"{setting} names {metric!r}, which no run measured: use one of {', '.join(sorted(known))}")


def _found(results: Results, settings: Mapping[str, Any]) -> dict[str, Any]:
    result = results.get(settings)
    assert result is not None
    return result
