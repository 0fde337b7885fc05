"""Runs of a study in worker processes: each result a file, so that a killed study goes on where it was."""

from __future__ import annotations

import concurrent.futures
import functools
import itertools
import json
import multiprocessing
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from privsyn_jax.privacy.guard import PrivateFolder
from privsyn_jax.settings import DataSettings
from privsyn_jax.study.plan import Study, best_choice, run_hash
from privsyn_jax.types import Records, Schema
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
        for cell in cells
        for choice in tuning.choices()
        for seed in tuning.seeds
    }
    finish(jobs.values(), results, workers, "tuning")
    values: dict[tuple[str, float], dict[str, list[float]]] = {cell: {} for cell in cells}
    for (cell, choice, _), settings in jobs.items():
        values[cell].setdefault(choice, []).append(_found(results, settings)["metrics"][tuning.metric])
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
    rows = []
    for (model, epsilon, contestant, seed), settings in jobs.items():
        result = _found(results, settings)
        rows.append(
            {
                "model": model, "epsilon": epsilon, "contestant": contestant, "seed": seed,
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
    with pool, tqdm(total=len(missing), desc=what, unit="run", dynamic_ncols=True) as bar:
        futures = {pool.submit(run, settings, str(results.folder)): settings for settings in missing}
        try:
            for future in concurrent.futures.as_completed(futures):
                results.put(futures[future], future.result())
                bar.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def run(settings: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """One run from records to metrics, in this process."""
    import jax

    from privsyn_jax import evaluation
    from privsyn_jax.learn import learn
    from privsyn_jax.privacy.ledger import Ledger
    from privsyn_jax.run import prepare
    from privsyn_jax.settings import settings_from_dict

    started = time.perf_counter()
    checked = settings_from_dict(settings)
    schema, plan = prepare(checked)
    records = _records(checked.data, schema)
    trained = learn(records.train, schema, plan, checked, Ledger())
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


def _found(results: Results, settings: Mapping[str, Any]) -> dict[str, Any]:
    result = results.get(settings)
    assert result is not None
    return result
