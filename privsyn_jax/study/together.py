"""Runs of a study whose shapes agree, trained together in one program."""

from __future__ import annotations

import contextlib
import functools
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from privsyn_jax.fitted import Run
from privsyn_jax.modalities import TABLES
from privsyn_jax.models import ONE_SHOT, PATE, TABLE_GENERATORS
from privsyn_jax.plan import Plan
from privsyn_jax.privacy.guard import Private
from privsyn_jax.run import prepare
from privsyn_jax.settings import Settings, settings_from_dict
from privsyn_jax.statement import privacy_statement
from privsyn_jax.study.jobs import alone_in, measure, read_records, run
from privsyn_jax.study.plan import override, run_hash
from privsyn_jax.study.results import Results
from privsyn_jax.training import dp_sgd
from privsyn_jax.training.attempt import Attempt, open_attempt
from privsyn_jax.training.loop import Hook
from privsyn_jax.training.processes import Leader
from privsyn_jax.training.purchases import Purchases
from privsyn_jax.training.stages import buy_after
from privsyn_jax.training.state import TrainState
from privsyn_jax.training.together import fit_together
from privsyn_jax.training_log import TrainingLog
from privsyn_jax.transforms.discretize import Discretizer
from privsyn_jax.types import Generator, Params, Records, Schema

LARGEST = 32  # runs in one program: memory grows with them

# What runs may differ in and still be one program: numbers that a step takes at run time, and seeds.
_RUNTIME = {
    "seed": 0,
    "privacy.seed": None,
    "privacy.epsilon": 1.0,
    "privacy.noise_multiplier": None,
    "privacy.l2_clip_norm": 1.0,
    "privacy.schedule": None,  # its levels begin at multiples of a dispatch, whatever their shape
    "training.learning_rate": 1.0,
}


class Ready(NamedTuple):
    """A run before its first step."""

    settings: Mapping[str, Any]
    checked: Settings
    plan: Plan
    attempt: Attempt
    bought: Purchases
    codes: Private[Any]
    cardinalities: tuple[int, ...]
    generator: Generator


def group(runs: Sequence[Mapping[str, Any]], largest: int = LARGEST) -> list[list[Mapping[str, Any]]]:
    """Runs that can be trained together, at most `largest`, in the order of their first; a run that cannot is alone."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for settings in runs:
        groups.setdefault(_shape(settings), []).append(settings)
    return [alike[first : first + largest] for alike in groups.values() for first in range(0, len(alike), largest)]


def run_together(runs: Sequence[Mapping[str, Any]], folder: str) -> list[dict[str, Any]]:
    """As `jobs.run` of each, for runs that `group` has put together.

    A killed group begins again; its ledgers know what was paid, and its draws repeat. A run that was begun alone, and
    saved, goes on alone.
    """
    started = time.perf_counter()
    first = settings_from_dict(runs[0])
    schema, _ = prepare(first)
    assert isinstance(schema, Schema)  # images are not grouped
    records = read_records(first.data, schema)
    kept = Results(Path(folder))
    folders = [kept.unfinished(settings, records.content_hash) for settings in runs]
    fresh = [number for number, private in enumerate(folders) if not (private / "checkpoints" / "states").is_dir()]
    if len(fresh) == 1:
        fresh = []
    results = {n: run(settings, folder) for n, settings in enumerate(runs) if n not in fresh}
    if fresh:
        with contextlib.ExitStack() as locks:
            privates = [locks.enter_context(alone_in(folders[number])) for number in fresh]
            of_all = {"num_steps": first.training.num_steps, "curve": (), "quiet": True}
            logs = [locks.enter_context(TrainingLog(private, **of_all)) for private in privates]
            learned = learn_together([runs[number] for number in fresh], schema, records, privates, logs=logs)
        for number, trained in zip(fresh, learned, strict=True):
            kept.keep_log(runs[number], folders[number] / "training.jsonl")
            checked = settings_from_dict(runs[number])
            num_samples = checked.synthesis.num_samples or schema.num_records
            synthesis = trained.synthesize(num_samples, conditions={}, key=jax.random.key(checked.seed))
            results[number] = measure(runs[number], trained, synthesis.records, schema, records, folder)
    seconds = round((time.perf_counter() - started) / len(runs), 2)
    return [{**results[number], "seconds": seconds} for number in range(len(runs))]


def learn_together(
    runs: Sequence[Mapping[str, Any]],
    schema: Schema,
    records: Records,
    folders: Sequence[Path],
    *,
    logs: Sequence[Hook] = (),
    hooks: Sequence[Hook] = (),
) -> list[Run]:
    """`learn.learn` of each, with its own purchases, ledger and privacy statement.

    Bins are bought, so the number of codes may differ from run to run: runs of equal numbers share a program.

    Args:
      folders: of each run, private; see `attempt.open_attempt`.
      logs: see `train`.
      hooks: see `fit_together`; for a run that shares its program with no other, `loop.fit`.
    """
    ready = [make_ready(settings, records, private, runs) for settings, private in zip(runs, folders, strict=True)]
    by_codes: dict[tuple[int, ...], list[int]] = {}
    for number, one in enumerate(ready):
        by_codes.setdefault(one.cardinalities, []).append(number)
    learned: dict[int, Run] = {}
    for alike in by_codes.values():
        own = [logs[number] for number in alike] if logs else []
        trained = train([ready[number] for number in alike], logs=own, hooks=hooks)
        for number, (params, path) in zip(alike, trained, strict=True):
            one = ready[number]
            warnings = one.attempt.warnings
            privacy = privacy_statement(one.attempt.ledger, one.plan, one.checked, schema, path, warnings=warnings)
            learned[number] = Run(one.checked, one.bought.transform, params, privacy)
    return [learned[number] for number in range(len(runs))]


def train(
    runs: Sequence[Ready], *, logs: Sequence[Hook] = (), hooks: Sequence[Hook] = ()
) -> list[tuple[Params, list[dict[str, Any]]]]:
    """(params, path) of each. One run alone is the program that it is anywhere else, which may be compiled already.

    Args:
      logs: a hook for each run, given its own step and log.
      hooks: see `fit_together`.
    """
    if len(runs) == 1:
        return [train_alone(runs[0], [*logs, *hooks])]
    generator = runs[0].generator  # equal for all; one object compiles its initial weights once
    beginnings = [
        dp_sgd.begin(
            generator,
            one.bought.released,
            plan=one.plan,
            settings=one.checked,
            loss_bound=TABLES.loss_bound(one.bought.transform),
        )
        for one in runs
    ]
    # Schedules may ask for microbatches of different sizes: the largest serves all.
    step = max((step for step, _ in beginnings), key=lambda step: step.microbatch_size)
    states = [state for _, state in beginnings]
    spendings = [dp_sgd.make_spending(one.plan, one.checked, one.attempt.ledger) for one in runs]
    codes = [one.codes.open(spending.receipt) for one, spending in zip(runs, spendings, strict=True)]
    is_shared = all(jax.tree.all(jax.tree.map(np.array_equal, codes[0], other)) for other in codes[1:])
    states = fit_together(
        step,
        states,
        jax.tree.map(jnp.asarray, codes[0] if is_shared else jax.tree.map(lambda *parts: np.stack(parts), *codes)),
        keys=[one.attempt.key for one in runs],
        spendings=spendings,
        records_are_shared=is_shared,
        are_seeded=all(one.checked.privacy.noise_seed is not None for one in runs),
        keep_clip_norm=step.quantile_clip is not None,
        hooks=[functools.partial(_tell_each, logs), *hooks] if logs else hooks,
    )
    return [
        (
            dp_sgd.end(
                generator,
                state,
                one.bought.released,
                settings=one.checked,
                after=functools.partial(
                    buy_after,
                    generator,
                    one.codes,
                    plan=one.plan,
                    seed=one.checked.seed,
                    ledger=one.attempt.ledger,
                    noise=one.attempt.noise_after,
                ),
            ),
            spending.path,
        )
        for one, state, spending in zip(runs, states, spendings, strict=True)
    ]


def _tell_each(logs: Sequence[Hook], stacked: TrainState, found: Mapping[str, np.ndarray]) -> None:
    """Calls every run's hook with its step and its rows; of the state, the step alone is its own."""
    for number, (log, step) in enumerate(zip(logs, np.asarray(stacked.step), strict=True)):
        log(stacked._replace(step=step), {name: rows[number] for name, rows in found.items()})


def train_alone(one: Ready, hooks: Sequence[Hook]) -> tuple[Params, list[dict[str, Any]]]:
    return dp_sgd.train(
        one.generator,
        one.codes,
        one.bought.released,
        plan=one.plan,
        settings=one.checked,
        attempt=one.attempt,
        loss_bound=TABLES.loss_bound(one.bought.transform),
        hooks=hooks,
    )


def make_ready(settings: Mapping[str, Any], records: Records, private: Path, runs: Sequence[Any]) -> Ready:
    checked = settings_from_dict(settings)
    schema, plan = prepare(checked)
    together = sorted(run_hash(other) for other in runs)
    with open_attempt(private, checked, leader=Leader(), announce=_announce, together=together) as attempt:
        ledger = attempt.ledger
        bought = attempt.purchases(lambda noise: TABLES.buy(records.train, schema, plan, checked, ledger, noise))
    transform = bought.transform
    generator = TABLES.build_generator(checked, transform)
    assert isinstance(transform, Discretizer)
    codes = records.train.map(transform.encode_units)
    return Ready(settings, checked, plan, attempt, bought, codes, transform.cardinalities, generator)


def _shape(settings: Mapping[str, Any]) -> str:
    """Equal for runs of one program; a name of its own for a run that must be alone."""
    privacy = settings["privacy"]
    is_fed = settings["training"]["records_on"] == "host"
    if (
        privacy["adaptive"]["rule"]
        or is_fed
        or settings["model"]["name"] not in TABLE_GENERATORS.keys() - PATE - ONE_SHOT
    ):
        return run_hash(settings)  # its blocks end when they will; records are fed to it; no table; or not by DP-SGD
    is_private = privacy["enabled"] and privacy["epsilon"] != "inf"
    common = override(settings, _RUNTIME)
    return json.dumps([is_private, common], sort_keys=True)


def _announce(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
