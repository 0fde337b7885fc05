"""PATE-GAN: whose record is whose, what one unit can change, what the votes cost, and what leaves a run."""

import dataclasses
import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from flax.traverse_util import flatten_dict
from jax.experimental.compilation_cache.compilation_cache import reset_cache

import privsyn_jax
from privsyn_jax import estimate as estimates
from privsyn_jax.explain import plan_lines
from privsyn_jax.learn import learn
from privsyn_jax.models import pate_gan
from privsyn_jax.models.units import of_units
from privsyn_jax.plan import make_plan
from privsyn_jax.privacy import accounting
from privsyn_jax.privacy.guard import Private
from privsyn_jax.privacy.ledger import Ledger
from privsyn_jax.settings import settings_from_dict
from privsyn_jax.study.together import group
from privsyn_jax.training import attempt as attempts
from privsyn_jax.training import pate
from privsyn_jax.training.processes import Leader
from privsyn_jax.training.step import many_steps
from privsyn_jax.training.teachers import assign, divide
from privsyn_jax.training.vote_step import PateStep
from privsyn_jax.types import Column, Schema, UnitRows, UserError

CARDINALITIES, NUM_TEACHERS, NUM_ROWS, NUM_RECORDS = (3, 2, 4), 6, 8, 120
RECORDS = np.random.default_rng(0).integers(0, CARDINALITIES, (NUM_RECORDS, 3)).astype(np.int32)
SMALL = {
    "num_teachers": NUM_TEACHERS, "latent_dim": 4, "teacher_dims": (5,), "student_dims": (6,), "generator_dims": (8,),
}  # fmt: skip
TINY = {
    "model": {"name": "pate_gan", **SMALL},
    "training": {
        "num_steps": 6, "expected_batch_size": 24, "generator_batch_size": NUM_ROWS, "steps_per_dispatch": 2,
        "num_devices": 1,
    },
    "transform": {"num_bins": 4, "num_cells": 16},
    "privacy": {"epsilon": 1.0, "delta": 1e-4, "seed": 0},
    "evaluation": {"enabled": False},
}  # fmt: skip
SCHEMA = Schema((Column("age", "integer", lower=0, upper=90), Column("ill", "boolean")), NUM_RECORDS, target="ill")
UNITS = dataclasses.replace(
    SCHEMA,
    columns=(Column("who", "id"), *SCHEMA.columns),
    unit_column="who",
    max_records_per_unit=3,
    num_units=NUM_RECORDS,
)


@pytest.fixture(scope="module", autouse=True)
def compiled(tmp_path_factory):
    """Equal programs are compiled once."""
    names = {"jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled"))}
    names |= {"jax_persistent_cache_min_compile_time_secs": 0.0, "jax_persistent_cache_min_entry_size_bytes": 0}
    before = {name: jax.config.values[name] for name in names}
    for name, value in names.items():
        jax.config.update(name, value)
    reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    reset_cache()


def checked(**sections):
    return settings_from_dict({**TINY, **{name: {**TINY.get(name, {}), **part} for name, part in sections.items()}})


def frame(num_records=NUM_RECORDS):
    rng = np.random.default_rng(1)
    return pd.DataFrame({"age": rng.integers(0, 91, num_records), "ill": rng.random(num_records) < 0.3})


@functools.cache
def begun(rows_per_unit=1, **training):
    """(generator, step, state) of the tiny settings, on records of CARDINALITIES."""
    settings = checked(training=training)
    generator = of_units(pate_gan.make(cardinalities=CARDINALITIES, **SMALL), rows_per_unit)
    plan = make_plan(settings, SCHEMA)
    step, state = pate.begin(generator, None, key=jax.random.key(5), plan=plan, settings=settings)
    return generator, step, state


def same(left, right):
    return all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((np.asarray(a) == np.asarray(b)).all()), left, right)))


def teacher(params, number):
    return jax.tree.map(lambda leaf: np.asarray(leaf)[number], params)


# --- whose record is whose


def test_every_unit_has_one_teacher_whatever_the_others_are():
    whose = assign(jax.random.key(3), 5000, 7)
    np.testing.assert_array_equal(whose[:40], assign(jax.random.key(3), 40, 7))
    assert (whose != assign(jax.random.key(4), 5000, 7)).mean() > 0.8
    expected = 5000 / 7
    assert (
        (np.bincount(whose, minlength=7) - expected) ** 2 / expected
    ).sum() < 38  # chi2, 6 degrees: one in a million
    parts = divide({"number": np.arange(5000)}, whose, 7)
    own = [np.arange(5000)[np.asarray(whose) == number] for number in range(7)]
    for number in range(7):
        first, count = int(parts.first[number]), int(parts.counts[number])
        np.testing.assert_array_equal(parts.records["number"][first : first + count], own[number])


def test_a_teacher_draws_all_of_its_own_records_and_no_other():
    _, step, _ = begun()
    whose = np.repeat([0, 1, 2, 4, 5], [1, 29, 30, 30, 30])  # teacher 3 has none
    parts = divide(np.arange(NUM_RECORDS), whose, NUM_TEACHERS)
    places = jax.jit(jax.vmap(lambda key: step._draw_own(parts, key)))(jax.random.split(jax.random.key(0), 300))
    drawn = np.asarray(parts.records)[np.asarray(places)]
    for number in (0, 1, 2, 4, 5):
        assert set(drawn[:, number].ravel()) == set(np.flatnonzero(whose == number))
    assert (np.asarray(places)[:, 3] == NUM_RECORDS).all()  # the filling


# --- what one unit can change


def unit_rows(codes, rng):
    rows = rng.integers(0, CARDINALITIES, (len(codes), 3, 3)).astype(np.int32)
    rows[:, 0] = codes
    return UnitRows(rows, np.arange(3) < rng.integers(1, 4, len(codes))[:, None])


@pytest.mark.parametrize("rows_per_unit", [1, 3])
def test_a_unit_changes_one_teacher_and_at_most_one_vote_a_row(rows_per_unit):
    """Over several steps, in which both runs have released the same votes."""
    _, step, state = begun(rows_per_unit)
    records = RECORDS if rows_per_unit == 1 else unit_rows(RECORDS, np.random.default_rng(2))
    whose = assign(jax.random.key(8), NUM_RECORDS, NUM_TEACHERS)
    without = divide(jax.tree.map(lambda leaf: leaf[:-1], records), whose[:-1], NUM_TEACHERS)
    both = [divide(records, whose, NUM_TEACHERS), without]
    others = [number for number in range(NUM_TEACHERS) if number != whose[-1]]

    @jax.jit
    def one_step(states, key):
        row_key, teacher_key, noise_key, generator_key = jax.random.split(key, 4)
        rows, counts, after = step.draw(states[0].public, row_key), [], []
        for state, parts in zip(states, both, strict=True):
            teachers, _ = step.teach(state, parts, jax.random.clone(teacher_key))
            counts.append(step.count(teachers.params, rows))
            after.append(state._replace(teachers=teachers))
        released = step.release(counts[0], states[0].controls, noise_key)
        learned, _ = step.learn(states[0], rows, released / NUM_TEACHERS)
        public = step.update_generator(learned, generator_key).public
        return [state._replace(public=public) for state in after], counts

    states, moved = [state, state], []
    for number in range(4):
        states, counts = one_step(states, jax.random.key(number))
        params = [one.teachers.params for one in states]
        for other in others:
            assert same(teacher(params[0], other), teacher(params[1], other))
        assert not same(teacher(params[0], whose[-1]), teacher(params[1], whose[-1]))
        moved.append(np.abs(np.asarray(counts[0]) - np.asarray(counts[1])).max())
    assert max(moved) <= 1
    assert step.votes.sensitivity == math.sqrt(NUM_ROWS)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_votes_are_comparisons_and_one_broken_teacher_is_one_vote(bad):
    """Teachers that only look at code 2 of the first column, for or against it."""
    _, step, state = begun()
    step = dataclasses.replace(step, teaching=step.teaching._replace(votes_are_relative=False))
    params = jax.tree.map(jnp.zeros_like, state.teachers.params)
    signs = jnp.array([1.0, 1.0, 1.0, 1.0, -1.0, -1.0])
    params["Dense_0"]["kernel"] = params["Dense_0"]["kernel"].at[:, 2, 0].set(1.0)
    params["Dense_1"]["kernel"] = params["Dense_1"]["kernel"].at[:, 0, 0].set(signs)
    params["Dense_1"]["bias"] = params["Dense_1"]["bias"].at[:, 0].set(-0.5 * signs)
    rows = jnp.stack([jnp.zeros(9).at[jnp.array([code, 3, 5])].set(1.0) for code in (2, 0)])
    np.testing.assert_array_equal(step.count(params, rows), [4, 2])
    broken = jax.tree.map(lambda leaf: leaf.at[0].set(bad), params)
    counts = step.count(broken, rows)
    assert counts.dtype == jnp.int32
    assert set(np.asarray(counts) - np.array([3, 2])) <= {0, 1}
    if math.isnan(bad):
        np.testing.assert_array_equal(counts, [3, 2])


def test_relative_votes_are_for_the_better_half():
    """Whatever a teacher thinks of the rows as a whole: its score is the number of code 2 of the first column."""
    _, step, state = begun()
    params = jax.tree.map(jnp.zeros_like, state.teachers.params)
    params["Dense_0"]["kernel"] = params["Dense_0"]["kernel"].at[:, 2, 0].set(1.0)
    params["Dense_1"]["kernel"] = params["Dense_1"]["kernel"].at[:, 0, 0].set(1.0)
    params["Dense_1"]["bias"] = params["Dense_1"]["bias"].at[:, 0].set(jnp.linspace(-100.0, 100.0, NUM_TEACHERS))
    rows = jnp.zeros((NUM_ROWS, 9)).at[:, 2].set(jnp.array([5.0, 1.0, 2.0, 7.0, 8.0, 3.0, 6.0, 4.0]))
    np.testing.assert_array_equal(step.count(params, rows), NUM_TEACHERS * np.array([1, 0, 0, 1, 1, 0, 1, 0]))
    broken = jax.tree.map(lambda leaf: leaf.at[0].set(jnp.nan), params)
    np.testing.assert_array_equal(step.count(params, rows) - step.count(broken, rows), [1, 0, 0, 1, 1, 0, 1, 0])


def test_a_teacher_without_records_keeps_its_first_weights():
    _, step, state = begun()
    whose = np.arange(NUM_RECORDS) % (NUM_TEACHERS - 1)
    teachers, loss = jax.jit(step.teach)(state, divide(RECORDS, whose, NUM_TEACHERS), jax.random.key(0))
    before, after = state.teachers.params, teachers.params
    assert [same(teacher(before, n), teacher(after, n)) for n in range(NUM_TEACHERS)] == [False] * 5 + [True]
    assert np.isfinite(loss)
    nobody = divide(RECORDS[:0], whose[:0], NUM_TEACHERS)
    assert same(jax.jit(step.teach)(state, nobody, jax.random.key(0))[0].params, before)


# --- noise


@pytest.mark.parametrize("noise_multiplier", [0.5, 20.0])
def test_noise_is_that_of_the_sensitivity(noise_multiplier):
    _, step, state = begun()
    step = dataclasses.replace(step, votes=step.votes._replace(num_rows=40_000))
    controls = state.controls._replace(noise_multiplier=jnp.float32(noise_multiplier))
    noisy = np.asarray(step.release(jnp.full(40_000, 3), controls, jax.random.key(1)), np.float64)
    stddev = noise_multiplier * 200  # sqrt of the number of rows
    assert abs(noisy.std() - stddev) < 5 * stddev / math.sqrt(2 * 40_000)
    assert abs(noisy.mean() - 3) < 5 * stddev / 200
    quiet = dataclasses.replace(step, adds_noise=False)
    assert (np.asarray(quiet.release(jnp.full(40_000, 3), controls, jax.random.key(1))) == 3).all()


def test_a_run_adds_the_noise_that_its_ledger_says_anew_in_every_step():
    _, step, state = begun()
    plan = make_plan(checked(), SCHEMA)
    parts, state, logs = pate.parts_of(RECORDS, state, NUM_TEACHERS), jax.tree.map(jnp.copy, state), []
    run = many_steps(step, 2)
    for _ in range(200):
        state, log = run(state, parts, jax.random.key(2))
        logs.append(log)
    log = jax.tree.map(lambda *values: np.concatenate(values).astype(np.float64), *logs)
    noise = NUM_TEACHERS * (log["released_vote_share"] - log["vote_share"])
    (event,) = plan.training_events
    stddev = event["noise_multiplier"]  # of a mean of n votes whose noise has sqrt(n) times as much
    assert abs(noise.std() - stddev) < 5 * stddev / math.sqrt(2 * 400)
    assert abs(np.corrcoef(noise[1:], noise[:-1])[0, 1]) < 5 / math.sqrt(400)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((state.public, state.teachers)))


# --- student and generator


def test_student_and_generator_move_nothing_but_themselves():
    generator, step, state = begun()
    rows = jax.jit(step.draw)(state.public, jax.random.key(0))
    learned, _ = jax.jit(step.learn)(state, rows, jnp.linspace(-1.0, 2.0, NUM_ROWS))
    assert same(learned.public["net"], state.public["net"]) and same(learned.public["bias"], state.public["bias"])
    assert not same(learned.public["student"], state.public["student"])
    moved = jax.jit(step.update_generator)(learned, jax.random.key(1))
    assert same(moved.public["student"], learned.public["student"]) and not same(
        moved.public["net"], state.public["net"]
    )
    assert same(moved.teachers, state.teachers)
    assert generator.public_loss is not None
    assert generator.public_loss({"public": state.public}, jax.random.key(0)).shape == ()


def test_what_is_voted_on_are_codes_drawn_as_samples_are():
    generator, step, state = begun()
    keys = jax.random.split(jax.random.key(1), 4000)
    rows = np.asarray(jax.jit(jax.vmap(step.teaching.draw, in_axes=(None, 0)))(state.public, keys))
    np.testing.assert_allclose(rows, rows.round(), atol=1e-6)
    drawn = generator.sample({"public": state.public}, jax.random.key(2), 4000)
    offsets = np.cumsum([0, *CARDINALITIES])
    for column, size in enumerate(CARDINALITIES):
        shares = rows[:, offsets[column] : offsets[column] + size]
        np.testing.assert_allclose(shares.sum(axis=1), 1.0, atol=1e-6)
        np.testing.assert_allclose(shares.mean(axis=0), np.bincount(drawn[:, column], minlength=size) / 4000, atol=0.06)


def test_a_dependence_is_learned_from_votes():
    """Two columns that agree nine times in ten, and agreement of the generator of released counts alone: one half."""
    rng = np.random.default_rng(0)
    first = rng.random(4000) < 0.5
    table = pd.DataFrame({"a": first, "b": np.where(rng.random(4000) < 0.9, first, ~first)})
    schema = Schema((Column("a", "boolean"), Column("b", "boolean")), num_records=4000)
    training = {"num_steps": 300, "expected_batch_size": 500, "generator_batch_size": 128, "adam_b1": 0.5}
    sections = {
        "training": {**training, "learning_rate": 1e-2, "generator_learning_rate": 4e-3, "num_devices": 1},
        "model": {"num_teachers": 20, "generator_dims": (16,), "student_dims": (8,)},
        "privacy": {"seed": 0},
    }
    run = privsyn_jax.fit(table, schema, model="pate_gan", epsilon=float("inf"), delta=1e-5, settings=sections)
    drawn = run.sample(4000, seed=0)
    assert 0.65 < (drawn["a"] == drawn["b"]).mean() < 0.98
    assert 0.35 < drawn["a"].mean() < 0.65
    assert not run.privacy["private"]


# --- plan, report, release


@pytest.mark.parametrize("schema", [SCHEMA, UNITS])
def test_the_plan_lands_on_epsilon_with_plain_gaussian_events(schema):
    plan = make_plan(checked(), schema)
    (event,) = plan.training_events
    noise_multiplier = plan.levels[0].noise_multiplier
    assert event == {"kind": "gaussian", "noise_multiplier": noise_multiplier, "count": 6}
    epsilon = accounting.epsilon_of([*plan.release_events, *plan.training_events], 1e-4)
    assert 0.998 < epsilon <= 1.0
    assert plan.levels[0].l2_clip_norm == math.sqrt(NUM_ROWS)
    words = "\n".join(plan_lines(plan, schema))
    assert f"{NUM_TEACHERS} teachers vote on {NUM_ROWS} generated rows; a record is one teacher's" in words
    assert "clips its gradient" not in words
    assert json.loads(json.dumps(plan.to_dict()))["votes"] == {"num_teachers": NUM_TEACHERS, "num_rows": NUM_ROWS}


def test_noise_may_follow_a_schedule_or_be_given():
    plan = make_plan(checked(privacy={"schedule": {"noise": "linear"}}), SCHEMA)
    noises = [event["noise_multiplier"] for event in plan.training_events]
    assert len(noises) > 1 and noises == sorted(noises, reverse=True)
    assert accounting.epsilon_of([*plan.release_events, *plan.training_events], 1e-4) <= 1.0
    given = make_plan(checked(privacy={"epsilon": None, "noise_multiplier": 5.0}), SCHEMA)
    assert given.levels[0].noise_multiplier == 5.0 and 0 < given.epsilon < math.inf


@pytest.fixture(scope="module")
def run():
    return privsyn_jax.fit(frame(), SCHEMA, model="pate_gan", epsilon=1.0, delta=1e-4, settings=TINY)


def test_a_run_reports_votes_that_add_up_to_its_epsilon(run):
    privacy = run.privacy
    assert privacy["private"] and 0.998 < privacy["epsilon"] <= 1.0
    events = [entry["event"] for entry in privacy["ledger"]]
    assert accounting.epsilon_of(events, 1e-4) == privacy["epsilon"]
    (training,) = [entry for entry in privacy["ledger"] if entry["name"] == "training"]
    assert training["reads"] == f"every record, by the one of {NUM_TEACHERS} teachers that it is given to"
    assert training["mechanism"] == (
        f"PATE: noisy votes of {NUM_TEACHERS} teachers on {NUM_ROWS} generated rows a step, of L2 sensitivity "
        f"sqrt({NUM_ROWS})"
    )
    assert training["event"]["count"] == 6
    assert len(privacy["path"][0]["released_vote_share"]) == 3  # a mean of each dispatch
    drawn = run.sample(50, seed=0)
    assert list(drawn.columns) == list(SCHEMA.names) and len(drawn) == 50


def test_no_teacher_is_released(run, tmp_path):
    assert run._params["private"] == {}
    run.save(tmp_path / "saved")
    with np.load(tmp_path / "saved" / "model" / "params.npz") as arrays:
        shapes = {name: arrays[name].shape for name in arrays.files}
    public = jax.eval_shape(run._generator.init, jax.random.key(0))["public"]
    expected: dict = flatten_dict({"public": public}, sep="/")  # type: ignore[assignment]
    assert shapes == {name: leaf.shape for name, leaf in expected.items()}
    again = privsyn_jax.load(tmp_path / "saved").sample(30, seed=1)
    pd.testing.assert_frame_equal(again, run.sample(30, seed=1))


def test_the_ledger_says_that_units_are_divided_whole():
    chosen, ledger = checked(), Ledger()
    spending = pate.make_spending(make_plan(chosen, UNITS), chosen, ledger)
    assert spending.receipt.is_booked
    assert ledger.entries[0].reads.startswith("every unit with its rows (at most 3), by the one of 6 teachers")


# --- what goes on, and what is refused


def learned(private, *, stop_at=0):
    """The run that the private folder holds, gone on with; interrupted after a step, where one is named."""
    chosen = checked(privacy={"seed": -1}, training={"checkpoint_seconds": 0})
    private.mkdir(mode=0o700, exist_ok=True)
    told, logs = [], []

    def hook(state, log):
        logs.append(log)
        if stop_at and int(state.step) == stop_at:
            raise KeyboardInterrupt

    with attempts.open_attempt(private, chosen, leader=Leader(), announce=told.append) as attempt:
        found = learn(Private(frame()), SCHEMA, make_plan(chosen, SCHEMA), chosen, attempt, hooks=[hook])
    assert all(len(log["loss"]) == 2 for log in logs[1:])
    return found, told


def count_of(privacy):
    (count,) = [entry["event"]["count"] for entry in privacy["ledger"] if entry["name"] == "training"]
    return count


def test_an_interrupted_run_goes_on_to_the_same_bits(tmp_path):
    for name in ("whole", "broken"):
        (tmp_path / name / "checkpoints").mkdir(mode=0o700, parents=True)
        (tmp_path / name / "checkpoints" / "secret.json").write_text(json.dumps({"entropy": "ab" * 32}))
    broken = tmp_path / "broken"
    unbroken, _ = learned(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        learned(broken, stop_at=4)
    again, told = learned(broken)
    assert "going on from step 2, where the last attempt was saved" in told
    assert same(unbroken._params, again._params)
    assert unbroken.privacy == again.privacy and count_of(again.privacy) == 6


def test_another_program_goes_on_with_the_same_division(tmp_path, monkeypatch):
    """Its noise is new, and paid for; the teacher that remembers a unit stays the one that has it."""
    divided = []

    def noting(key, num_units, num_teachers):
        divided.append(assign(key, num_units, num_teachers))
        return divided[-1]

    monkeypatch.setattr(pate, "assign", noting)
    with pytest.raises(KeyboardInterrupt):
        learned(tmp_path / "run", stop_at=4)
    described = attempts.describe_program
    monkeypatch.setattr(attempts, "describe_program", lambda training: {**described(training), "code": "another"})
    again, _ = learned(tmp_path / "run")
    np.testing.assert_array_equal(*divided)
    assert count_of(again.privacy) == 8 and again.privacy["epsilon"] > 1.0  # steps 3 and 4 twice


REFUSED = [
    ({"privacy": {"adaptive": {"rule": "signal"}}}, "privacy.adaptive.rule is 'signal'"),
    ({"privacy": {"adaptive_clip": {"target_quantile": 0.5}}}, "privacy.adaptive_clip.target_quantile is 0.5"),
    ({"privacy": {"l2_clip_norm": 2.0}}, "privacy.l2_clip_norm is 2.0"),
    ({"privacy": {"schedule": {"clip": "linear"}}}, "privacy.schedule.clip is 'linear'"),
    ({"privacy": {"schedule": {"batch": "growing"}}}, "privacy.schedule.batch is 'growing'"),
    ({"privacy": {"sampling": "partition"}}, "privacy.sampling is 'partition'"),
    ({"privacy": {"num_bands": 2}}, "privacy.num_bands is 2"),
    ({"training": {"gradient_method": "ghost"}}, "training.gradient_method is 'ghost'"),
    ({"training": {"microbatch_size": 8}}, "training.microbatch_size is 8"),
    ({"training": {"num_draws": 2}}, "training.num_draws is 2"),
    ({"training": {"compute_dtype": "bfloat16"}}, "training.compute_dtype is 'bfloat16'"),
    ({"training": {"records_on": "host"}}, "training.records_on is 'host'"),
    ({"training": {"num_devices": 2}}, "training.num_devices is 2"),
    ({"model": {"num_teachers": 121}}, "model.num_teachers is 121"),
]


@pytest.mark.parametrize(("sections", "said"), REFUSED)
def test_what_votes_know_nothing_of_is_refused_in_a_sentence(sections, said):
    with pytest.raises(UserError) as caught:
        make_plan(checked(**sections), SCHEMA)
    assert str(caught.value).startswith(said) and "\n" not in str(caught.value)
    assert ": set it to" in str(caught.value) or ": give fewer" in str(caught.value)


def test_runs_of_votes_are_not_trained_together():
    runs = [checked(privacy={"epsilon": epsilon}).to_dict() for epsilon in (1.0, 2.0)]
    assert len(group(runs)) == 2


def test_an_estimate_is_of_the_step_of_votes(monkeypatch):
    chosen, seen = checked(), []

    def measure(step, state, parts, compile_steps, plan):
        seen.append((type(step), parts.counts.sum(), compile_steps))
        return "memory", "time"

    monkeypatch.setattr(estimates, "_measure", measure)
    lines = estimates.estimate(chosen, SCHEMA, make_plan(chosen, SCHEMA))
    assert seen == [(PateStep, NUM_RECORDS, many_steps)]
    assert lines[0].startswith(f"parameters of each of {NUM_TEACHERS} teachers: ") and lines[1:] == ["memory", "time"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"num_teachers": 0}, "num_teachers"),
        ({"teacher_steps": 0}, "teacher_steps"),
        ({"student_steps": 1.5}, "student_steps"),
        ({"latent_dim": 0}, "latent_dim"),
        ({"teacher_dims": ()}, "teacher_dims"),
        ({"temperature": 0.0}, "temperature"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        pate_gan.make(**{"cardinalities": CARDINALITIES, **SMALL, **arguments})
