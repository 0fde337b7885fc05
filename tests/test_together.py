"""Runs trained together: each as if it were alone, with its own key, noise, records and ledger."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest

from privsyn_jax.privacy.bands import band_coefficients
from privsyn_jax.privacy.ledger import Ledger
from privsyn_jax.privacy.noise import standard_normal
from privsyn_jax.privacy.sampling import POISSON
from privsyn_jax.privacy.schedules import Level, boundaries
from privsyn_jax.privacy.spending import Account, FixedSpending
from privsyn_jax.run import prepare
from privsyn_jax.settings import settings_from_dict
from privsyn_jax.study import together
from privsyn_jax.study.jobs import read_records, run
from privsyn_jax.study.plan import override, run_hash
from privsyn_jax.study.results import Results
from privsyn_jax.training import loop
from privsyn_jax.training.optimizer import cosine_adam
from privsyn_jax.training.state import initial_state
from privsyn_jax.training.step import DPStep, LossQuery, Members, QuantileClip, many_steps
from privsyn_jax.training.together import fit_together
from privsyn_jax.workdir import plain

NUM_ROWS, NUM_STEPS, CLIP_NORM = 40, 6, 1.0
ROWS = np.random.default_rng(0).normal(size=(NUM_ROWS, 5)).astype(np.float32)
compile_once = functools.cache(many_steps)
RATES, NOISES, LEARNING_RATES = (0.25, 0.5, 0.75), (0.5, 1.0, 4.0), (0.1, 0.2, 0.05)
CASES = {
    "plain": {},
    "banded noise": {"coefficients": band_coefficients(NUM_STEPS, 2)},
    "adaptive clipping and noisy loss": {
        "quantile_clip": QuantileClip(0.5, 0.2, 0.1),
        "loss_query": LossQuery(3.0, 0.1),
    },
}


def loss(params, example, key):
    private = params["private"]
    hidden = jnp.tanh(example @ private["w"] + private["b"])
    return jnp.sum(jnp.square(hidden - 1)) + 0.1 * jax.random.normal(key) * hidden[0]


@functools.cache
def make_step(name="plain") -> DPStep:
    return DPStep(loss, cosine_adam(1.0, NUM_STEPS), microbatch_size=8, ema_decay=0.9, **CASES[name])


def levels(number: int) -> list[Level]:
    rate, noise = RATES[number], NOISES[number]
    level = Level(4, rate, rate * NUM_ROWS, noise, CLIP_NORM)
    return [level, level._replace(num_steps=2, noise_multiplier=noise / 2)]


def state(number: int, step: DPStep):
    draw = jax.random.normal(jax.random.key(number), (5, 3))
    params = {"private": {"w": draw, "b": jnp.zeros(3)}, "public": {}}
    optimizer = cosine_adam(LEARNING_RATES[number], NUM_STEPS)
    return initial_state(params, optimizer, levels(number)[0], coefficients=step.coefficients)


def spending(number: int) -> FixedSpending:
    account = Account(Ledger(), "training", "gradients", "DP-SGD")
    return FixedSpending(levels(number), POISSON, account, max_steps=2)


def alone(number, step, records, hook=lambda state, logs: None):
    payer = spending(number)
    trained = loop.fit(
        step, state(number, step), records, key=jax.random.key(10 + number), spending=payer,
        keep_clip_norm=step.quantile_clip is not None, hooks=[hook], compile_steps=compile_once,
    )  # fmt: skip
    return trained, payer


def all_together(step, records, *, shared=True, hooks=(), numbers=(0, 1, 2)):
    payers = [spending(number) for number in numbers]
    trained = fit_together(
        step, [state(number, step) for number in numbers], records,
        keys=[jax.random.key(10 + number) for number in numbers], spendings=payers, records_are_shared=shared,
        keep_clip_norm=step.quantile_clip is not None, hooks=hooks,
    )  # fmt: skip
    return trained, payers


def assert_close(one, other, **tolerance):
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(left, right, **{"rtol": 1e-4, "atol": 1e-5, **tolerance})


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "noisy loss" else ()) for name in CASES]
)
def test_every_run_is_what_it_would_be_alone(name):
    step, logs = make_step(name), []
    trained, payers = all_together(step, jnp.asarray(ROWS), hooks=[lambda _, found: logs.append(found)])
    for number in range(3):
        own = []
        reference, payer = alone(number, step, jnp.asarray(ROWS), hook=lambda _, found, own=own: own.append(found))
        assert_close(trained[number], reference)
        assert len(payers[number].path) == len(payer.path)
        assert [entry.event for entry in payers[number]._account.ledger.entries] == [
            entry.event for entry in payer._account.ledger.entries
        ]
        for both, single in zip(logs[1:], own[1:], strict=True):
            assert np.array_equal(both["batch_size"][number], single["batch_size"])  # the same draws
    assert len(logs) == 4


def test_noise_is_drawn_bit_for_bit_as_alone_and_differs_between_runs():
    words = jnp.arange(6, dtype=jnp.uint32).reshape(3, 2)
    drawn = jax.vmap(lambda pair: standard_normal(jax.random.wrap_key_data(pair), 1000))(words)
    for number in range(3):
        assert np.array_equal(drawn[number], standard_normal(jax.random.wrap_key_data(words[number]), 1000))
    step = make_step()
    same = [state(0, step)] * 2
    payers = [spending(0), spending(0)]
    one, other = fit_together(
        step, same, jnp.asarray(ROWS), keys=[jax.random.key(1), jax.random.key(2)], spendings=payers,
        records_are_shared=True,
    )  # fmt: skip
    assert not np.allclose(one.params["private"]["w"], other.params["private"]["w"], atol=1e-3)


def test_two_runs_with_one_key_are_refused():
    step = make_step()
    with pytest.raises(ValueError, match="same key"):
        fit_together(
            step, [state(0, step)] * 2, jnp.asarray(ROWS), keys=[jax.random.key(1)] * 2,
            spendings=[spending(0)] * 2, records_are_shared=True,
        )  # fmt: skip


def test_tables_of_their_own_reach_only_their_own_runs():
    step, other = make_step(), ROWS[::-1].copy()
    trained, _ = all_together(step, jnp.asarray(np.stack([ROWS, other, ROWS])), shared=False)
    for number, rows in enumerate((ROWS, other, ROWS)):
        assert_close(trained[number], alone(number, step, jnp.asarray(rows))[0])


def test_a_run_never_looks_at_rows_that_are_not_its_members():
    """Rows outside of a run's part may be anything, bit for bit."""
    step = make_step()
    is_member = np.random.default_rng(1).random((3, NUM_ROWS)) < 0.5
    spoiled = np.where(is_member[1][:, None], ROWS, np.nan).astype(np.float32)
    sizes = []
    for rows in (ROWS, spoiled):
        records = Members(jnp.asarray(rows), jnp.asarray(is_member))
        trained, _ = all_together(step, records, hooks=[lambda _, logs: sizes.append(logs.get("batch_size"))])
        leaves = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(trained[1])]
        if rows is ROWS:
            reference = leaves
    assert leaves == reference
    drawn = np.concatenate([size for size in sizes if size is not None], axis=1)
    assert (drawn <= is_member.sum(1, keepdims=True)).all() and drawn.sum() > 0


def test_a_record_moves_only_its_own_run_and_by_at_most_its_clipping_norm():
    """Every row is drawn; without noise, the step of stochastic gradient descent is the clipped sum."""
    clip_norms, optimizer = (0.05, 0.1, 0.2), optax.sgd(1.0)
    step = DPStep(loss, optimizer, microbatch_size=8, ema_decay=0.9, adds_noise=False)

    def sums(is_member):
        levels = [Level(1, 1.0, 1.0, 1.0, clip_norm) for clip_norm in clip_norms]
        states = [initial_state(state(number, step).params, optimizer, level) for number, level in enumerate(levels)]
        payers = [
            FixedSpending([level], POISSON, Account(Ledger(), "training", "g", "m"), max_steps=1) for level in levels
        ]
        trained = fit_together(
            step, states, Members(jnp.asarray(ROWS), jnp.asarray(is_member)),
            keys=[jax.random.key(number) for number in range(3)], spendings=payers, records_are_shared=True,
        )  # fmt: skip
        return [np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(one.params["private"])]) for one in trained]

    everyone = np.ones((3, NUM_ROWS), bool)
    without = everyone.copy()
    without[[0, 2], 7] = False
    reference, changed = sums(everyone), sums(without)
    for number in (0, 2):
        assert np.linalg.norm(changed[number] - reference[number]) == pytest.approx(clip_norms[number], rel=1e-3)
    assert changed[1].tobytes() == reference[1].tobytes()


def test_runs_that_cannot_be_dispatched_together_are_refused():
    step = make_step()
    longer = FixedSpending([levels(0)[0]], POISSON, Account(Ledger(), "training", "g", "m"), max_steps=3)
    with pytest.raises(ValueError, match=r"the runs would take \[2, 3\] steps next: train them apart"):
        fit_together(
            step, [state(0, step), state(1, step)], jnp.asarray(ROWS), keys=[jax.random.key(0), jax.random.key(1)],
            spendings=[spending(0), longer], records_are_shared=True,
        )  # fmt: skip


def test_adam_with_its_learning_rate_in_the_state_is_optax_adam():
    params = {"w": jnp.ones((7, 3))}
    ours, theirs = cosine_adam(3e-3, 50), optax.adam(optax.cosine_decay_schedule(3e-3, 50))
    states = [ours.init(params), theirs.init(params)]
    for number in range(50):
        grads = {"w": jax.random.normal(jax.random.key(number), (7, 3))}
        (one, states[0]), (other, states[1]) = ours.update(grads, states[0]), theirs.update(grads, states[1])
        np.testing.assert_array_max_ulp(np.asarray(one["w"]), np.asarray(other["w"]), maxulp=2)


@pytest.mark.parametrize(("num_steps", "multiple"), [(400, 20), (50, 20), (7, 20), (101, 4), (333, 1)])
def test_schedules_of_every_shape_are_dispatched_alike(num_steps, multiple):
    """Why runs that differ in their schedule may share a program."""

    def lengths(bounds):
        levels = [Level(stop - start, 0.5, 1.0, 1.0, 1.0) for start, stop in itertools.pairwise(bounds)]
        payer, done, found = FixedSpending(levels, POISSON, Account(Ledger(), "t", "g", "m"), max_steps=multiple), 0, []
        while (block := payer.next_block(done)) is not None:
            found.append(block.num_steps)
            done += block.num_steps
        return found

    constant = lengths([0, num_steps])
    assert sum(constant) == num_steps
    for num_levels in range(1, 17):
        assert lengths(boundaries(num_steps, multiple, num_levels)) == constant


BASE = plain(
    settings_from_dict(
        {
            "data": {"name": "rand_hie"}, "model": {"name": "tvae"}, "transform": {"edges": "public"},
            "privacy": {"seed": 1, "budget": {"marginals": 0.0}},
            "training": {"num_steps": 4, "expected_batch_size": 64, "steps_per_dispatch": 2, "microbatch_size": 16},
            "synthesis": {"num_samples": 300},
        }
    ).to_dict()
)  # fmt: skip


def test_runs_are_grouped_by_the_shape_of_their_program():
    alike = [
        override(BASE, changes)
        for changes in (
            {}, {"seed": 1, "privacy.seed": 2}, {"privacy.epsilon": 2.0}, {"privacy.l2_clip_norm": 3.0},
            {"training.learning_rate": 1e-2}, {"privacy.schedule.noise": "cosine"},
            {"privacy.schedule.batch": "growing"}, {"privacy.epsilon": None, "privacy.noise_multiplier": 2.0},
        )
    ]  # fmt: skip
    others = [
        override(BASE, changes)
        for changes in (
            {"training.num_steps": 6}, {"model.latent_dim": 4}, {"privacy.epsilon": "inf"},
            {"privacy.num_bands": 2}, {"privacy.adaptive.rule": "signal"},
            {"privacy.adaptive.rule": "signal", "seed": 1}, {"training.records_on": "host"},
            {"training.records_on": "host", "seed": 1},
        )
    ]  # fmt: skip
    grouped = together.group([alike[0], others[0], *alike[1:], *others[1:]])
    assert grouped[0] == alike and [len(part) for part in grouped] == [8, *[1] * len(others)]
    parts = together.group(alike, largest=3)
    assert [len(part) for part in parts] == [3, 3, 2] and list(itertools.chain(*parts)) == alike


@pytest.mark.slow
def test_a_study_gets_from_a_group_what_it_gets_from_single_runs(tmp_path):
    changes = [{"seed": 0, "privacy.seed": 10}, {"seed": 1, "privacy.seed": 11, "privacy.epsilon": 2.0}]
    runs = [override(BASE, one) for one in changes]
    for name in ("private", "other/private"):
        (tmp_path / name).mkdir(parents=True, mode=0o700)
    found = together.run_together(runs, str(tmp_path / "private"))
    single = run(runs[1], str(tmp_path / "other" / "private"))
    assert found[1].keys() == single.keys() and found[0]["epsilon"] < found[1]["epsilon"]
    for name in ("settings", "epsilon", "reference"):
        assert found[1][name] == single[name]
    for block, alone in zip(found[1]["path"], single["path"], strict=True):
        assert block.pop("released_signal") == pytest.approx(alone.pop("released_signal"), rel=1e-5)
        assert block == alone
    assert found[1]["metrics"].keys() == single["metrics"].keys()
    name = "mean_total_variation"
    assert found[1]["metrics"][name] == pytest.approx(single["metrics"][name], abs=0.02)
    for settings, result in zip(runs, found, strict=True):
        assert result["settings"] == settings
        ledger = (tmp_path / "private" / "unfinished" / run_hash(settings)).rglob("ledger.json")
        assert len(list(ledger)) == 1
    kept = [tmp_path / name / "training" / f"{run_hash(runs[1])}.jsonl" for name in ("private", "other/private")]
    logs = [pd.read_json(file, lines=True).drop(columns="notice").dropna(how="all") for file in kept]
    pd.testing.assert_frame_equal(*logs, rtol=1e-4)
    assert len(logs[0]) == runs[1]["training"]["num_steps"] and {"step", "loss"} <= set(logs[0])


def test_every_run_of_a_group_has_a_log_of_its_own():
    told = [[], []]
    logs = [lambda state, found, one=one: one.append((int(state.step), found)) for one in told]
    one = initial_state({"private": jnp.zeros(2)}, optax.sgd(0.1), Level(4, 0.5, 1.0, 1.0, 1.0))
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), one)._replace(step=jnp.array([4, 4]))
    together._tell_each(logs, stacked, {"loss": np.array([[1.0, 2.0], [3.0, 4.0]])})
    assert [(step, list(found["loss"])) for ((step, found),) in told] == [(4, [1.0, 2.0]), (4, [3.0, 4.0])]


@pytest.mark.parametrize("num_saved", [0, 1, 2])
def test_a_run_that_was_begun_alone_goes_on_alone(tmp_path, monkeypatch, num_saved):
    """A group of one, too, is no group."""
    alone, grouped = [], []

    def pretend_run(settings, folder):
        alone.append(settings["seed"])
        return {"settings": settings, "seconds": 1.0}

    def stop(runs, *_, **__):
        grouped.extend(settings["seed"] for settings in runs)
        raise InterruptedError

    monkeypatch.setattr(together, "run", pretend_run)
    monkeypatch.setattr(together, "learn_together", stop)
    runs = [override(BASE, {"seed": seed, "privacy.seed": 10 + seed}) for seed in range(3)]
    first = settings_from_dict(runs[0])
    content_hash = read_records(first.data, prepare(first)[0]).content_hash
    for settings in runs[:num_saved]:
        (Results(tmp_path).unfinished(settings, content_hash) / "checkpoints" / "states").mkdir(parents=True)
    if num_saved == 2:
        assert [one["settings"] for one in together.run_together(runs, str(tmp_path))] == runs
    else:
        with pytest.raises(InterruptedError):
            together.run_together(runs, str(tmp_path))
    expected = {0: ([], [0, 1, 2]), 1: ([0], [1, 2]), 2: ([0, 1, 2], [])}
    assert (alone, grouped) == expected[num_saved]


def test_runs_with_other_numbers_of_codes_are_programs_of_their_own(tmp_path, monkeypatch):
    """Bins are bought: here the noise is so large that no two runs agree."""
    changes = {"transform.edges": "quantile", "transform.num_bins": 8, "transform.num_cells": 32}
    runs = [override(BASE, {**changes, "seed": seed, "privacy.seed": 10 + seed}) for seed in (0, 1)]
    first = settings_from_dict(runs[0])
    schema, _ = prepare(first)
    records = read_records(first.data, schema)
    folders = [tmp_path / "0", tmp_path / "1"]
    for folder in folders:
        folder.mkdir()
    ready = [together.make_ready(one, records, folder, runs) for one, folder in zip(runs, folders, strict=True)]
    assert ready[0].bought.transform.cardinalities != ready[1].bought.transform.cardinalities
    asked = []
    monkeypatch.setattr(together.dp_sgd, "train", lambda *_, **named: asked.append(named["loss_bound"]) or (None, []))
    monkeypatch.setattr(together, "fit_together", None)
    monkeypatch.setattr(together, "privacy_statement", lambda *_, **__: {})
    together.learn_together(runs, schema, records, folders)
    assert asked == [together.TABLES.loss_bound(one.bought.transform) for one in ready] and asked[0] != asked[1]
