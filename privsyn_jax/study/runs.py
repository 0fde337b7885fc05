"""Which runs a study needs, in which order, and the table that they make."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from privsyn_jax.study.executors import Engine, do_all
from privsyn_jax.study.plan import Study, best_choice, run_hash
from privsyn_jax.study.results import Results
from privsyn_jax.types import UserError

Tuned = Mapping[tuple[str, float], Mapping[str, Any]]  # (model, epsilon) -> what the baseline was tuned to
Jobs = Mapping[tuple[str, float, str, int], Mapping[str, Any]]  # (model, epsilon, contestant, seed) -> settings


def tune(study: Study, results: Results, engine: Engine) -> dict[tuple[str, float], dict[str, Any]]:
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
    finish(jobs.values(), results, engine, "tuning")
    values: dict[tuple[str, float], dict[str, list[float]]] = {cell: {} for cell in cells}
    found = {job: _found(results, settings)["metrics"] for job, settings in jobs.items()}
    _require_metric("tuning.metric", tuning.metric, found.values())
    for (cell, choice, _), metrics in found.items():
        values[cell].setdefault(choice, []).append(metrics.get(tuning.metric, -math.inf))
    return {cell: best_choice(tuning, values[cell]) for cell in cells}


def jobs_of(study: Study, tuned: Tuned) -> Jobs:
    """Every run but those of the tuning."""
    return {
        (model, epsilon, contestant, seed): study.settings(model, contestant, epsilon, seed, tuned[model, epsilon])
        for seed in study.seeds  # outermost: a study that is cut short has whole seeds
        for model in study.models
        for epsilon, contestant in itertools.product(study.epsilons, study.contestants_of(model))
    }


def compete(
    study: Study, jobs: Jobs, results: Results, engine: Engine, watch: Callable[[], None] = lambda: None
) -> None:
    """Does all runs.

    Args:
      watch: called whenever some are finished.
    """
    finish(jobs.values(), results, engine, "runs", watch)
    found = [_found(results, settings)["metrics"] for settings in jobs.values()]
    for metric in study.metrics:
        _require_metric("metrics", metric, found)


def rows_of(study: Study, tuned: Tuned, jobs: Jobs, results: Results) -> list[dict[str, Any]]:
    """One row per finished run: model, modality, data, epsilon, contestant, seed, metrics, "real METRIC" (what real
    records give, or for an attack a guess), what was spent, the tuned values."""
    rows = []
    for (model, epsilon, contestant, seed), settings in jobs.items():
        if (result := results.get(settings)) is None:
            continue
        rows.append(
            {
                "model": model, **study.kind(model)._asdict(), "epsilon": epsilon, "contestant": contestant,
                "seed": seed, **dict.fromkeys(study.metrics, math.nan), **result["metrics"],
                **{f"real {metric}": value for metric, value in result["reference"].items()},
                "epsilon_spent": result["epsilon"], "seconds": result["seconds"],
                "run": run_hash(result["settings"]),
                "tuned_on_private_data": bool(tuned[model, epsilon]),
                **{f"tuned {path}": value for path, value in tuned[model, epsilon].items()},
            }
        )  # fmt: skip
    return rows


def finish(
    jobs: Iterable[Mapping[str, Any]],
    results: Results,
    engine: Engine,
    what: str,
    watch: Callable[[], None] = lambda: None,
) -> None:
    """Does what has no result yet, each distinct run once; a failing run stops the study with its error.

    Args:
      watch: called whenever runs are finished.
    """
    missing = list({run_hash(settings): settings for settings in jobs if results.get(settings) is None}.values())
    if not missing:
        return
    if engine.vectorize:
        from privsyn_jax.study.together import LARGEST, group

        do_all(group(missing, min(LARGEST, math.ceil(len(missing) / engine.workers))), results, engine, what, watch)
    else:
        do_all([[settings] for settings in missing], results, engine, what, watch)


def _require_metric(setting: str, metric: str, found: Iterable[Mapping[str, float]]) -> None:
    known = {name for metrics in found for name in metrics}
    if metric not in known:
        raise UserError(f"{setting} names {metric!r}, which no run measured: use one of {', '.join(sorted(known))}")


def _found(results: Results, settings: Mapping[str, Any]) -> dict[str, Any]:
    result = results.get(settings)
    assert result is not None
    return result
