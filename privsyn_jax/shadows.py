"""Shadow generators of tables: the attack of `evaluation.attacks.generator_level` on our own.

A shadow repeats the whole mechanism on its own records with its own noise: the purchased histogram and the bins that
follow from it, pair scores, the choice of pairs, their tables, both calibrations, DP-SGD, sampling and decoding.
Nothing of a victim is given to the adversary but one synthetic set; what it knows besides is said in `generator_level`.
The plan (noise, steps, sampling rate) follows from settings and public facts, so it is common to all, and so are the
initial weights, whose seed is among the settings that a release publishes.

Bins are bought, so shadows differ in their numbers of codes. For one program, every column has as many codes as the
largest shadow needs, and a shadow's surplus codes get a logit that no record and no draw reaches: loss, clipped
gradients and samples are those of the generator without them, whose embedding and output rows they do not touch.

Generators that cannot share a program are trained one after the other: those that take no steps, learn from votes,
adapt their noise to what was released, or have no logits to close.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from tqdm import tqdm

from privsyn_jax.evaluation.attacks.generator_level import (
    Targets,
    attack_synthetic_sets,
    generator_of,
    make_design,
    require_columns,
)
from privsyn_jax.evaluation.attacks.scores import AttackResult
from privsyn_jax.learn import train_generator
from privsyn_jax.modalities.tables import build, buy, check, column_order
from privsyn_jax.models import ONE_SHOT, PATE, TABLE_GENERATORS
from privsyn_jax.plan import Plan, make_plan
from privsyn_jax.privacy.guard import Private
from privsyn_jax.privacy.ledger import Ledger
from privsyn_jax.privacy.noise import HostNoise
from privsyn_jax.settings import Settings
from privsyn_jax.synthesis.conditions import parse_conditions
from privsyn_jax.synthesis.sampler import synthesize
from privsyn_jax.training import dp_sgd
from privsyn_jax.training.attempt import Attempt
from privsyn_jax.training.marginals import Marginals
from privsyn_jax.training.stages import buy_after
from privsyn_jax.training.state import TrainState
from privsyn_jax.training.step import DPStep
from privsyn_jax.training.together import fit_together, many_steps_together
from privsyn_jax.transforms.discretize import Discretizer, unknown_columns
from privsyn_jax.types import Generator, Params, Schema, UserError

AT_ONCE_ON_CPU = 8  # runs of one dispatch: the activations of more would leave the cache
_KEPT = 16  # generators of which compiled programs are kept
_NEVER = -1e9  # logit of a code that a shadow does not have


class Shadow(NamedTuple):
    """A trained generator."""

    generator: Generator
    params: Params
    transform: Discretizer


class _Ready(NamedTuple):
    """A shadow before its first step. It stands for no release, so its ledger is thrown away."""

    transform: Discretizer
    codes: np.ndarray
    marginals: Marginals | None
    generator: Generator
    key: jax.Array
    noise_after: HostNoise


def shadow_attack(
    settings: Settings,
    schema: Schema,
    auxiliary: pd.DataFrame,
    targets: Targets,
    *,
    num_shadows: int = 64,
    num_records: int | None = None,
    key: jax.Array,
    announce: Callable[[str], None] = lambda message: None,
) -> list[AttackResult]:
    """Membership inference against the generator of tables that the settings describe.

    Args:
      settings: of the run whose algorithm is attacked; each shadow gives synthesis.num_samples rows, or num_records.
      schema: public facts, every category among them.
      auxiliary: records of the population, in canonical dtypes; members and controls of the attack are drawn from it.
      targets: see `generator_level.choose_targets`.
      num_shadows: half of them are attacked.
      num_records: of each training set; None for schema.num_records.
      announce: told in words what comes next.

    Returns:
      A result for each kind of target.

    Raises:
      UserError: shadows of these settings cannot be trained, or there are too few records.
    """
    _refuse_units(schema)
    num_records = num_records or schema.num_records
    design_key, training_key, sampling_key, attack_key = jax.random.split(key, 4)
    design = make_design(schema, auxiliary, targets, num_shadows=num_shadows, num_records=num_records, key=design_key)
    shadows = train_shadows(settings, schema, design.tables, key=training_key, announce=announce)
    announce(f"sampling from {num_shadows} shadow generators")
    sets = sample_shadows(settings, shadows, settings.synthesis.num_samples or num_records, key=sampling_key)
    announce("attacking")
    return attack_synthetic_sets(schema, auxiliary, targets, design, sets, key=attack_key)


def train_shadows(
    settings: Settings,
    schema: Schema,
    tables: Sequence[pd.DataFrame],
    *,
    key: jax.Array,
    at_once: int | None = None,
    num_threads: int | None = None,
    announce: Callable[[str], None] = lambda message: None,
    after_group: Callable[[], None] = lambda: None,
) -> list[Shadow]:
    """Generators of the same settings, one for each table, by vmap over groups of them, or else one after the other.

    The guarantee of a shadow is of no use to anyone: its noise follows from `key`.

    Args:
      tables: of equal length, which becomes the schema's public number of records.
      at_once: shadows of one dispatch; None for AT_ONCE_ON_CPU there, and all elsewhere.
      num_threads: groups that run at the same time; None for one per core on CPU, and one elsewhere.
      after_group: called, in its thread, when a group, or a shadow alone, is trained.

    Raises:
      UserError: shadows of these settings cannot be trained.
    """
    _refuse_units(schema)
    without_units = dict.fromkeys(("unit_column", "max_records_per_unit", "num_units"))  # each has one row: rows do
    schema = dataclasses.replace(schema, num_records=len(tables[0]), **without_units)
    _refuse(settings, schema, tables)
    check(schema, settings)
    plan = make_plan(settings, schema)
    ready = None
    if settings.model["name"] not in PATE | ONE_SHOT and not settings.privacy.adaptive.rule:
        announce(f"what {len(tables)} shadow generators learn from beforehand is bought")
        ready = _make_ready(settings, schema, plan, tables, key)
    if ready is None:
        announce(f"training {len(tables)} shadow generators, one after the other")
        pairs = zip(tables, jax.random.split(jax.random.fold_in(key, 1), len(tables)), strict=True)
        alone = functools.partial(_train_alone, settings, schema, plan, after_group)
        return _one_by_one(alone, pairs, "training shadows")
    on_cpu = jax.default_backend() == "cpu"
    size = at_once or (AT_ONCE_ON_CPU if on_cpu else len(tables))
    size = -(-len(tables) // -(-len(tables) // size))  # groups as equal as can be, with as few programs
    groups = [ready[first : first + size] for first in range(0, len(ready), size)]
    step, _ = dp_sgd.begin(ready[0].generator, None, plan=plan, settings=settings)
    programs = _Programs()
    announce(f"training {len(tables)} shadow generators, {size} at once")

    def train_group(group: list[_Ready]) -> list[Shadow]:
        trained = _train_group(group, step, plan, settings, programs)
        after_group()
        return trained

    trained = _in_threads(
        train_group,
        groups,
        num_threads or (os.cpu_count() or 1 if on_cpu else 1),
        "training shadows",
    )
    return [shadow for group in trained for shadow in group]


def sample_shadows(
    settings: Settings, shadows: Sequence[Shadow], num_samples: int, *, key: jax.Array
) -> list[pd.DataFrame]:
    """A synthetic set of each shadow, by the one compiled sampler that they share if they were trained together.

    The sampler draws blocks of records, which keep a core busy, so several shadows are drawn from by threads, not vmap.
    """
    conditions = parse_conditions(settings.synthesis.conditions)

    def one(arguments: tuple[Shadow, jax.Array]) -> pd.DataFrame:
        (generator, params, transform), own_key = arguments
        drawn = synthesize(generator, params, transform, num_samples=num_samples, conditions=conditions, key=own_key)
        return drawn.records

    pairs = list(zip(shadows, jax.random.split(key, len(shadows)), strict=True))
    are_alike = all(shadow.generator.sample is shadows[0].generator.sample for shadow in shadows)
    if not are_alike:
        return _one_by_one(one, pairs, "sampling shadows")
    return _in_threads(one, pairs, os.cpu_count() or 1, "sampling shadows")


def _refuse_units(schema: Schema) -> None:
    """Raises UserError where a unit may own several rows: targets are single rows, of which a unit is not made."""
    if schema.rows_per_unit > 1:
        raise UserError(
            f"shadow generators are attacked by single rows, and a {schema.privacy_unit} has up to "
            f"{schema.rows_per_unit}: audit such a run with launch.audit, or set max_records_per_unit to 1"
        )


def _refuse(settings: Settings, schema: Schema, tables: Sequence[pd.DataFrame]) -> None:
    """Raises UserError for what shadows cannot be trained of."""
    if settings.model["name"] not in TABLE_GENERATORS:
        raise UserError(
            f"shadow generators are of tables, and model.name is {settings.model['name']!r}: use one of "
            f"{', '.join(TABLE_GENERATORS)}, or give a function to generator_level.attack_function"
        )
    if unknown := unknown_columns(schema):
        raise UserError(f"shadow generators need the categories of column {unknown[0]!r}: list them in the schema")
    if len({len(table) for table in tables}) > 1:
        raise UserError("the training sets of shadow generators differ in length: give each as many records")
    for table in tables[:1]:
        require_columns(schema, table, "the training records")


def _make_ready(
    settings: Settings, schema: Schema, plan: Plan, tables: Sequence[pd.DataFrame], key: jax.Array
) -> list[_Ready] | None:
    """Shadows for one program; None if there can be none."""
    bought, codes, keys = [], [], jax.random.split(key, (3, len(tables)))
    ledgers = [Ledger() for _ in tables]
    for table, ledger, noise_key in zip(tables, ledgers, keys[0], strict=True):
        bought.append(buy(Private(table), schema, plan, settings, ledger, _noise(noise_key)))
        codes.append(bought[-1].transform.encode(table))
    sizes = np.array([one.transform.cardinalities for one in bought])
    largest = tuple(int(size) for size in sizes.max(axis=0))
    generator = build(settings, schema, largest)
    first = generator.init(jax.random.key(settings.seed))
    if (sizes != sizes[:1]).any() and "tables" not in first["public"]:  # whose bias is in the order of its columns
        return None
    order = column_order(settings.model["column_order"], schema)
    ready = []
    for one, own_codes, own_key, after_key in zip(bought, codes, keys[1], keys[2], strict=True):
        marginals = one.released if isinstance(one.released, Marginals) else None
        closed = np.concatenate([np.arange(largest[j]) >= one.transform.cardinalities[j] for j in order])
        ready.append(
            _Ready(
                one.transform,
                own_codes,
                None if marginals is None else _padded(marginals, largest),
                _closing(generator, closed) if closed.any() else generator,
                own_key,
                _noise(after_key),
            )
        )
    return ready


def _seed(key: jax.Array) -> int:
    return int(generator_of(key).integers(2**63))


def _noise(key: jax.Array) -> HostNoise:
    return HostNoise(_seed(key))


def _closing(generator: Generator, closed: np.ndarray) -> Generator:
    """The generator without the codes that are closed, bool [S] in its own order of codes."""

    def init(key: jax.Array) -> Params:
        params = generator.init(key)
        bias = jnp.where(jnp.asarray(closed), _NEVER, params["public"]["bias"])
        return {**params, "public": {**params["public"], "bias": bias}}

    return generator._replace(init=init)


def _padded(marginals: Marginals, sizes: tuple[int, ...]) -> Marginals:
    """The marginals with counts of 0 for the surplus codes."""

    def grown(array: np.ndarray, *columns: int) -> np.ndarray:
        wanted = [sizes[column] for column in columns]
        return np.pad(array, [(0, new - old) for new, old in zip(wanted, array.shape, strict=True)])

    return Marginals(
        [grown(counts, j) for j, counts in enumerate(marginals.one_way)],
        [grown(stddev, j) for j, stddev in enumerate(marginals.one_way_stddev)],
        {columns: table._replace(counts=grown(table.counts, *columns)) for columns, table in marginals.tables.items()},
    )


def _train_alone(
    settings: Settings,
    schema: Schema,
    plan: Plan,
    after: Callable[[], None],
    table_and_key: tuple[pd.DataFrame, jax.Array],
) -> Shadow:
    """As a run trains its generator, with a seed from the key."""
    table, key = table_and_key
    trained = train_generator(Private(table), schema, plan, settings, Attempt.in_memory(_seed(key)))
    assert isinstance(trained.transform, Discretizer)
    after()
    return Shadow(trained.generator, jax.device_get(trained.params), trained.transform)


def _train_group(
    group: Sequence[_Ready], step: DPStep, plan: Plan, settings: Settings, programs: _Programs
) -> list[Shadow]:
    states: list[TrainState] = []
    for one in group:
        _, state = dp_sgd.begin(one.generator, one.marginals, plan=plan, settings=settings)
        states.append(state)
    trained = fit_together(
        step,
        states,
        jnp.asarray(np.stack([one.codes for one in group])),
        keys=[one.key for one in group],
        spendings=[dp_sgd.make_spending(plan, settings, Ledger()) for _ in group],
        records_are_shared=False,
        keep_clip_norm=step.quantile_clip is not None,
        compile_steps=programs.compile_steps,
    )
    return [
        Shadow(one.generator, _ended(one, state, plan, settings), one.transform)
        for one, state in zip(group, trained, strict=True)
    ]


def _ended(one: _Ready, state: TrainState, plan: Plan, settings: Settings) -> Params:
    def after(params: Params) -> Params:
        bought = {"plan": plan, "seed": settings.seed, "ledger": Ledger(), "noise": one.noise_after}
        return buy_after(one.generator, Private(one.codes), params, **bought)

    return dp_sgd.end(one.generator, state, one.marginals, settings=settings, after=after)


class _Programs:
    """Compiled steps by number of steps and of runs, for groups in several threads: each is compiled once."""

    def __init__(self):
        self._lock, self._compiled = threading.Lock(), dict[tuple[int, int], Any]()

    def compile_steps(self, step: DPStep, count: int, axes: Any) -> Callable[..., Any]:
        def run(states: Any, records: Any, keys: jax.Array) -> Any:
            arguments = (states, records, keys)
            with self._lock:
                if (count, len(keys)) not in self._compiled:
                    lowered = many_steps_together(step, count, axes).lower(*arguments)
                    self._compiled[count, len(keys)] = lowered.compile()
            return self._compiled[count, len(keys)](*arguments)

        return run


def _in_threads(function: Callable[[Any], Any], items: Iterable[Any], num_threads: int, what: str) -> list[Any]:
    """function(item) of each, in order; programs run outside of Python's lock."""
    items = list(items)
    with ThreadPoolExecutor(max_workers=max(1, min(num_threads, len(items)))) as pool:
        return list(tqdm(pool.map(function, items), total=len(items), desc=what, disable=None))


def _one_by_one(function: Callable[[Any], Any], items: Iterable[Any], what: str) -> list[Any]:
    """function(item) of each, where each compiles programs of its own: those of hundreds would fill the memory."""
    items, found = list(items), []
    for number, item in enumerate(tqdm(items, desc=what, disable=None), start=1):
        found.append(function(item))
        if number % _KEPT == 0:
            jax.clear_caches()
    return found
