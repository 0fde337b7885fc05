"""Runs of a study whose shapes agree, trained together in one program."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from privsyn_jax.fitted import Run, build_generator
from privsyn_jax.learn import buy
from privsyn_jax.plan import Plan
from privsyn_jax.privacy.guard import Private
from privsyn_jax.run import prepare
from privsyn_jax.settings import Settings, settings_from_dict
from privsyn_jax.statement import privacy_statement
from privsyn_jax.study.jobs import alone_in, measure, read_records
from privsyn_jax.study.plan import override, run_hash
from privsyn_jax.study.results import Results
from privsyn_jax.training import dp_sgd
from privsyn_jax.training.attempt import Attempt, open_attempt
from privsyn_jax.training.processes import Leader
from privsyn_jax.training.purchases import Purchases
from privsyn_jax.training.together import fit_together
from privsyn_jax.types import Generator, Params, Records

# What runs may differ in and still be one program: numbers that a step takes at run time, and seeds.
_RUNTIME = {
    "seed": 0,
    "privacy.seed": None,
    "privacy.epsilon": 1.0,
    "privacy.noise_multiplier": None,
    "privacy.l2_clip_norm": 1.0,
    "training.learning_rate": 1.0,
}


class Ready(NamedTuple):
    """A run before its first step."""

    settings: Mapping[str, Any]
    checked: Settings
    plan: Plan
    attempt: Attempt
    bought: Purchases
    codes: Private[np.ndarray]
    generator: Generator


def group(runs: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Runs that can be trained together, in the order of their first; a run that cannot is alone."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for settings in runs:
        groups.setdefault(_shape(settings), []).append(settings)
    return list(groups.values())


def run_together(runs: Sequence[Mapping[str, Any]], folder: str) -> list[dict[str, Any]]:
    """As `jobs.run` of each, for runs that `group` has put together.

    Bins are bought, so the number of codes may differ from run to run: runs of equal numbers share a program. A killed
    group begins again; its ledgers know what was paid, and its draws repeat.
    """
    started = time.perf_counter()
    first = settings_from_dict(runs[0])
    schema, _ = prepare(first)
    records = read_records(first.data, schema)
    results: dict[str, dict[str, Any]] = {}
    with contextlib.ExitStack() as locks:
        by_codes: dict[tuple[int, ...], list[Ready]] = {}
        for settings in runs:
            private = locks.enter_context(alone_in(Results(Path(folder)).unfinished(settings, records.content_hash)))
            one = make_ready(settings, records, private, runs)
            by_codes.setdefault(one.bought.transform.cardinalities, []).append(one)
        for alike in by_codes.values():
            for one, (params, path) in zip(alike, train(alike), strict=True):
                privacy = privacy_statement(
                    one.attempt.ledger, one.plan, one.checked, schema, path, warnings=one.attempt.warnings
                )
                trained = Run(one.checked, one.bought.transform, params, privacy)
                num_samples = one.checked.synthesis.num_samples or schema.num_records
                synthesis = trained.synthesize(num_samples, conditions={}, key=jax.random.key(one.checked.seed))
                result = measure(one.settings, privacy, synthesis.frame, schema, records, folder)
                results[run_hash(one.settings)] = result
    seconds = round((time.perf_counter() - started) / len(runs), 2)
    return [{**results[run_hash(settings)], "seconds": seconds} for settings in runs]


def train(runs: Sequence[Ready]) -> list[tuple[Params, list[dict[str, Any]]]]:
    """(params, path) of each."""
    generator = runs[0].generator  # equal for all; one object compiles its initial weights once
    beginnings = [
        dp_sgd.begin(
            generator, one.bought.transform.cardinalities, one.bought.marginals, plan=one.plan, settings=one.checked
        )
        for one in runs
    ]
    step, states = beginnings[0][0], [state for _, state in beginnings]
    spendings = [dp_sgd.make_spending(one.plan, one.checked, one.attempt.ledger) for one in runs]
    codes = [one.codes.open(spending.receipt) for one, spending in zip(runs, spendings, strict=True)]
    is_shared = all(np.array_equal(codes[0], other) for other in codes[1:])
    states = fit_together(
        step,
        states,
        jnp.asarray(codes[0] if is_shared else np.stack(codes)),
        keys=[one.attempt.key for one in runs],
        spendings=spendings,
        records_are_shared=is_shared,
        keep_clip_norm=step.quantile_clip is not None,
    )
    return [
        (dp_sgd.end(generator, state, one.bought.marginals, settings=one.checked), spending.path)
        for one, state, spending in zip(runs, states, spendings, strict=True)
    ]


def make_ready(settings: Mapping[str, Any], records: Records, private: Path, runs: Sequence[Any]) -> Ready:
    checked = settings_from_dict(settings)
    schema, plan = prepare(checked)
    together = sorted(run_hash(other) for other in runs)
    with open_attempt(private, checked, leader=Leader(), announce=print, together=together) as attempt:
        bought = attempt.purchases(lambda noise: buy(records.train, schema, plan, checked, attempt.ledger, noise))
    transform = bought.transform
    generator = build_generator(checked, transform.schema, transform.cardinalities)
    return Ready(settings, checked, plan, attempt, bought, records.train.map(transform.encode), generator)


def _shape(settings: Mapping[str, Any]) -> str:
    """Equal for runs of one program; a name of its own for a run that must be alone."""
    privacy = settings["privacy"]
    if privacy["adaptive"]["rule"]:  # its blocks end when they will
        return run_hash(settings)
    is_private = privacy["enabled"] and privacy["epsilon"] != "inf"
    common = override(settings, _RUNTIME)
    return json.dumps([is_private, common], sort_keys=True)
