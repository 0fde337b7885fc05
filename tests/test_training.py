"""The step and the loop: noise once and in every step, the expected divisor, resumption, and what is charged."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from unpaid import Unpaid

from privsyn_jax.plan import AdaptivePlan, Plan, Release
from privsyn_jax.privacy.guard import Private
from privsyn_jax.privacy.ledger import Ledger
from privsyn_jax.privacy.noise import HostNoise
from privsyn_jax.privacy.schedules import Level
from privsyn_jax.privacy.secret import Secret
from privsyn_jax.privacy_settings import AdaptiveClipSettings, PrivacySettings
from privsyn_jax.settings import Settings, TrainingSettings
from privsyn_jax.training import dp_sgd, loop
from privsyn_jax.training.attempt import Attempt
from privsyn_jax.training.marginals import Measuring, buy_one_way, buy_pairs, choose
from privsyn_jax.training.state import TrainState, initial_state
from privsyn_jax.training.step import DPStep, many_steps
from privsyn_jax.transforms.discretize import OneWay
from privsyn_jax.types import Generator

NUM_ROWS, SIZE = 20, 20_000
CLIP_NORM, NOISE_MULTIPLIER, EXPECTED_BATCH_SIZE = 3.0, 2.0, 8.0
NOISE_STDDEV = NOISE_MULTIPLIER * CLIP_NORM / EXPECTED_BATCH_SIZE  # of one step's gradient
STANDARD_ERRORS = 5.0
EMA_DECAY = 0.7
SGD = optax.sgd(1.0)


def flat_loss(params, example, key):
    """Its gradient is zero: what moves the parameters is noise alone."""
    del key
    return 0.0 * jnp.sum(params["private"]["w"]) * example[0]


def counting_loss(params, example, key):
    """Its gradient is one in the first parameter: the sum counts the records drawn."""
    del key
    return params["private"]["w"][0] + 0.0 * example[0]


def noisy_quadratic_loss(params, example, key):
    """Depends on the record and on its key."""
    return jnp.sum(jnp.square(params["private"]["w"][:3] - example - 0.1 * jax.random.normal(key, (3,))))


def records(num_rows: int = NUM_ROWS):
    return jnp.asarray(np.random.default_rng(0).normal(size=(num_rows, 3)), jnp.float32)


compiled_once = functools.cache(many_steps)


@pytest.fixture(autouse=True)
def share_compilations(monkeypatch):
    monkeypatch.setattr(loop, "many_steps", compiled_once)


LEVEL = Level(1, 0.5, EXPECTED_BATCH_SIZE, NOISE_MULTIPLIER, CLIP_NORM)


@functools.cache
def make_step(private_loss, optimizer=SGD, **changes):
    return DPStep(private_loss, optimizer, **{"microbatch_size": 4, "ema_decay": EMA_DECAY, **changes})


def start(size: int = SIZE, optimizer=SGD) -> TrainState:
    params = {"private": {"w": jnp.zeros(size)}, "public": {"table": jnp.arange(3.0)}}
    return initial_state(params, optimizer, LEVEL)


def train(step, num_steps, *, state=None, table=None, steps_per_dispatch=1, hooks=(), seed=0, size=SIZE, **level):
    return loop.fit(
        step,
        start(size) if state is None else state,
        records() if table is None else table,
        key=jax.random.key(seed),
        spending=Unpaid(LEVEL._replace(**level), num_steps, steps_per_dispatch),
        hooks=hooks,
    )


def moved(state: TrainState) -> np.ndarray:
    return np.array(state.params["private"]["w"], np.float64)  # a copy: the state's buffers are donated


def has_stddev(sample: np.ndarray, stddev: float) -> bool:
    return abs(sample.std() / stddev - 1) * math.sqrt(2 * sample.size) < STANDARD_ERRORS


def test_the_direction_is_noise_of_the_stated_stddev_drawn_anew_in_every_step():
    step, states = make_step(flat_loss), []
    train(step, 4, hooks=[lambda state, logs: states.append(moved(state))])
    steps = np.diff(states, axis=0)
    for noise in steps:
        assert has_stddev(noise, NOISE_STDDEV)
        assert abs(noise.mean()) * math.sqrt(SIZE) < STANDARD_ERRORS * NOISE_STDDEV
    # Shared noise would add up in amplitude, independent noise adds up in variance.
    assert has_stddev(states[-1] - states[0], 2 * NOISE_STDDEV)
    assert np.abs(np.corrcoef(steps)[np.triu_indices(4, 1)]).max() * math.sqrt(SIZE) < STANDARD_ERRORS


def test_noise_of_another_scale_is_seen():
    noise = moved(train(make_step(flat_loss), 1))
    for wrong in (0.0, 0.9, 1.1, 1 / CLIP_NORM, 1 / EXPECTED_BATCH_SIZE):
        assert has_stddev(noise, NOISE_STDDEV) and not has_stddev(wrong * noise, NOISE_STDDEV)


@pytest.mark.parametrize(
    ("num_rows", "changes"),
    [(100, {"sampling_rate": 1.0}), (100, {"sampling_rate": 2.0**-32}), (1, {}), (NUM_ROWS, {"microbatch_size": 64})],
)
def test_noise_is_added_once_whatever_the_batch(num_rows, changes):
    # 25 microbatches, an empty batch, one record, fewer records than a microbatch.
    level = {name: value for name, value in changes.items() if name in Level._fields}
    step = make_step(flat_loss, **{name: value for name, value in changes.items() if name not in level})
    noise = moved(train(step, 1, table=records(num_rows), **level))
    assert has_stddev(noise, NOISE_STDDEV)


def test_the_noise_does_not_depend_on_the_records():
    step = make_step(flat_loss)
    first, second = (moved(train(step, 1, table=records() * scale)) for scale in (1.0, 1e6))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, moved(train(step, 1, seed=1)))


def test_the_divisor_is_the_expected_batch_size_not_the_drawn_one():
    states, sizes = [], []

    def hook(state, logs):
        states.append(moved(state)[0])
        sizes.extend(logs.get("batch_size", ()))

    train(make_step(counting_loss), 12, hooks=[hook], size=5, noise_multiplier=0.0)
    assert len(set(map(int, sizes))) > 3
    np.testing.assert_allclose(-np.diff(states), np.array(sizes) / EXPECTED_BATCH_SIZE, rtol=1e-5)


def test_without_noise_the_step_is_the_clipped_mean_over_the_expected_batch():
    table = records(7) * 3
    final = moved(
        train(
            make_step(lambda p, x, key: p["private"]["w"][:3] @ x, adds_noise=False),
            1,
            sampling_rate=1.0,
            table=table,
            size=3,
        )
    )
    rows = np.asarray(table, np.float64)
    factors = np.minimum(1, CLIP_NORM / np.linalg.norm(rows, axis=1))
    assert (factors < 1).any() and (factors == 1).any()
    np.testing.assert_allclose(final, -(factors @ rows) / EXPECTED_BATCH_SIZE, rtol=1e-5)


def test_a_run_from_a_saved_state_repeats_the_unbroken_one_bit_for_bit():
    optimizer = optax.adam(optax.cosine_decay_schedule(0.1, 6))
    run = functools.partial(train, make_step(noisy_quadratic_loss, optimizer), steps_per_dispatch=2)
    unbroken = run(6, state=start(3, optimizer))
    half = run(2, state=start(3, optimizer))
    saved = [np.array(leaf) for leaf in jax.tree.leaves(half)]
    resumed = run(6, state=jax.tree.unflatten(jax.tree.structure(half), map(jnp.asarray, saved)))
    assert int(resumed.step) == 6
    for one, other in zip(jax.tree.leaves(unbroken), jax.tree.leaves(resumed), strict=True):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()
    assert not np.array_equal(moved(unbroken), moved(run(6, state=start(3, optimizer), seed=1)))


def test_the_number_of_steps_per_dispatch_changes_nothing():
    results = []
    for steps_per_dispatch in (1, 3):
        final = train(make_step(noisy_quadratic_loss), 4, steps_per_dispatch=steps_per_dispatch, size=3)
        results.append([np.array(leaf).tobytes() for leaf in jax.tree.leaves(final)])
    assert results[0] == results[1]


def test_hooks_see_the_start_and_every_dispatch_with_a_log_entry_per_step():
    calls, order = [], []

    def hook(state, logs):
        calls.append((int(state.step), {name: len(values) for name, values in logs.items()}))
        order.append("first")

    final = train(
        make_step(flat_loss), 5, steps_per_dispatch=2, hooks=[hook, lambda state, logs: order.append("second")]
    )
    assert int(final.step) == 5 and order == ["first", "second"] * 4
    assert [step for step, _ in calls] == [0, 2, 4, 5]
    nonprivate = {"loss", "grad_norm", "clip_fraction", "nonfinite", "batch_size"}
    assert calls[0][1] == {} and set(calls[1][1]) == {*nonprivate, "released_signal"}
    assert [set(lengths.values()) for _, lengths in calls[1:]] == [{2}, {2}, {1}]
    assert train(make_step(flat_loss), 5, state=final) is final  # nothing left to do


def test_the_average_is_exponential_and_public_parameters_stay():
    params, averages = [], []

    def hook(state, logs):
        params.append(moved(state))
        averages.append(np.array(state.ema["w"], np.float64))

    final = train(make_step(flat_loss), 4, hooks=[hook])
    expected = params[0]
    for step in range(1, 5):
        expected = EMA_DECAY * expected + (1 - EMA_DECAY) * params[step]
        np.testing.assert_allclose(averages[step], expected, rtol=1e-5, atol=1e-6)
    assert np.array_equal(final.params["public"]["table"], np.arange(3.0))


def test_a_record_without_a_finite_gradient_neither_counts_nor_spoils_the_step():
    def loss(params, example, key):
        return counting_loss(params, example, key) / jnp.where(example[0] > 100, 0.0, 1.0)

    table, logs = records().at[3, 0].set(1e3), []
    hooks = [lambda state, log: logs.append(log)]
    final = moved(train(make_step(loss), 1, table=table, hooks=hooks, size=3, noise_multiplier=0.0, sampling_rate=1.0))
    assert final[0] == pytest.approx(-(NUM_ROWS - 1) / EXPECTED_BATCH_SIZE, rel=1e-5)
    assert logs[1]["nonfinite"].tolist() == [1]


def small_plan(**changes) -> Plan:
    releases = tuple(Release(name, 0.1, 5.0) for name in ("histograms", "pair scores", "pair marginals"))
    arguments = {
        "epsilon": 1.0,
        "delta": 1e-5,
        "category_delta": 0.0,
        "releases": releases,
        "levels": (Level(3, sampling_rate=0.25, expected_batch_size=5.0, noise_multiplier=2.0, l2_clip_norm=1.0),),
        "num_groups": 1,
        "adaptive": None,
        "warnings": (),
    }
    return Plan(**{**arguments, **changes})


def trained(monkeypatch, plan, hooks=(), **privacy):
    monkeypatch.setattr(dp_sgd, "cosine_adam", lambda *_, **__: SGD)
    generator = Generator(
        init=lambda key: {"private": {"w": jnp.zeros(SIZE)}, "public": {}},
        private_loss=flat_loss,
        public_loss=None,
        calibrate=None,
        sample=lambda *_: None,
        exact_conditions=lambda *_: (),
    )
    ledger = Ledger()
    params, path = dp_sgd.train(
        generator,
        Private(np.zeros((NUM_ROWS, 2), np.float32)),
        None,
        plan=plan,
        settings=Settings(
            privacy=PrivacySettings(**privacy),
            training=TrainingSettings(num_steps=plan.num_steps, ema_decay=0.5, microbatch_size=4, steps_per_dispatch=1),
        ),
        attempt=Attempt(Secret(b"", seed=0), ledger),
        hooks=[functools.partial(hook, ledger) for hook in hooks],
    )
    return params, path, ledger


def test_every_step_is_charged_before_it_runs_with_the_numbers_that_it_uses(monkeypatch):
    plan = small_plan(
        levels=(
            Level(2, sampling_rate=0.25, expected_batch_size=5.0, noise_multiplier=2.0, l2_clip_norm=1.0),
            Level(2, sampling_rate=0.5, expected_batch_size=10.0, noise_multiplier=4.0, l2_clip_norm=0.5),
        )
    )
    states, averages, charged = [], [], []

    def hook(ledger, state, logs):
        states.append(moved(state))
        averages.append(np.array(state.ema["w"]))
        charged.append(sum(entry.event["count"] for entry in ledger.entries))

    params, path, ledger = trained(monkeypatch, plan, [hook])
    assert charged == [1, 1, 2, 3, 4]  # the records are opened, and each step is run, after the charge that pays for it
    assert [entry.event for entry in ledger.entries] == plan.training_events and len(plan.training_events) == 2
    steps = [level for level in plan.levels for _ in range(level.num_steps)]
    for noise, level in zip(np.diff(states, axis=0), steps, strict=True):
        assert has_stddev(noise, level.noise_multiplier * level.l2_clip_norm / level.expected_batch_size)
    assert np.array_equal(params["private"]["w"], averages[-1])
    assert [(row["first_step"], row["num_steps"]) for row in path] == [(0, 2), (2, 2)]


def test_adaptive_noise_is_what_its_path_says(monkeypatch):
    adaptive = AdaptivePlan("signal", "renyi", 4, 2.0, 0.0, 0.0, 8.0, 0.5)
    plan, states = small_plan(levels=(small_plan().levels[0]._replace(num_steps=8),), adaptive=adaptive), []
    _, path, ledger = trained(monkeypatch, plan, [lambda ledger, state, logs: states.append(moved(state))])
    assert [entry.event for entry in ledger.entries] == plan.training_events
    level, used = plan.levels[0], [row["noise_multiplier"] for row in path for _ in range(row["num_steps"])]
    assert len(used) == 8 and len(set(used)) > 1
    for noise, multiplier in zip(np.diff(states, axis=0), used, strict=True):
        assert has_stddev(noise, multiplier * level.l2_clip_norm / level.expected_batch_size)
    assert sum(len(row["released_signal"]) for row in path) == 4


def test_an_adaptive_clipping_norm_survives_from_block_to_block(monkeypatch):
    norms = []

    def hook(ledger, state, logs):
        norms.extend(np.asarray(logs.get("released_clip_norm", ())))

    trained(monkeypatch, small_plan(), [hook], adaptive_clip=AdaptiveClipSettings(target_quantile=0.5, share=0.4))
    assert norms[0] == 1.0 and len(set(map(float, norms))) == 3


@pytest.mark.parametrize("bought_before", [True, False])
def test_every_look_at_the_marginals_is_charged_as_planned(bought_before):
    rng, ledger, plan = np.random.default_rng(0), Ledger(), small_plan()
    codes = rng.integers(0, 3, (500, 3)).astype(np.int32)
    counts = [np.bincount(column, minlength=3).astype(float) for column in codes.T]
    records, common = Private(codes), {"plan": plan, "ledger": ledger, "noise": HostNoise(0)}
    one_way = OneWay(counts, [np.full(3, 1.0)] * 3) if bought_before else buy_one_way(records, (3, 3, 3), **common)
    marginals = buy_pairs(Measuring(records, (3, 3, 3), one_way, 0, None, {}, **common))
    names = ["pair scores", "pair marginals"] if bought_before else ["histograms", "pair scores", "pair marginals"]
    assert [entry.name for entry in ledger.entries] == [look.charged_as for look in records.openings] == names
    for entry in ledger.entries:
        release = plan.release(entry.name)
        assert release is not None and entry.event["noise_multiplier"] == release.noise_multiplier
    for counts in marginals.one_way:
        assert (counts >= 0).all() and counts.sum() == pytest.approx(marginals.one_way[0].sum())
    stddevs = [table.stddev for table in marginals.tables.values()]
    num_tables = int(ledger.entries[-1].reads.split()[0])
    assert stddevs == pytest.approx([5.0 * math.sqrt(num_tables)] * len(stddevs))


def test_without_a_budget_no_marginals_are_bought():
    ledger = Ledger()
    codes = Private(np.zeros((5, 2), np.int32))
    plan = small_plan(releases=())
    common = {"plan": plan, "ledger": ledger, "noise": HostNoise(0)}
    assert buy_one_way(codes, (2, 2), **common) is None
    one_way = OneWay([np.ones(2)] * 2, [np.ones(2)] * 2)
    assert buy_pairs(Measuring(codes, (2, 2), one_way, 0, None, {}, **common)).tables == {}
    assert ledger.entries == ()


def scores_of(**dependent):
    """Scores of four columns of two codes, of which a few pairs depend on each other: "ij" -> rows."""
    scores = {(i, j): 20.0 for i in range(4) for j in range(i + 1, 4)}
    return scores | {(int(pair[1]), int(pair[2])): value for pair, value in dependent.items()}


def test_what_is_measured_is_what_tells_most_in_the_noise_that_it_costs():
    one_way = OneWay([np.full(2, 500.0)] * 4, [np.full(2, 1.0)] * 4)
    scores = scores_of(p01=900.0, p23=400.0)

    def chosen(noise_multiplier, target=None):
        return choose(scores, one_way, noise_multiplier=noise_multiplier, target=target)

    assert chosen(1.0)[:2] == [(0, 1), (2, 3)]
    assert chosen(5000.0) == [(0, 1)]  # the second would drown the first
    assert chosen(1e6) == [(0, 1)]  # at least one is always bought
    assert {(0, 2), (1, 2), (2, 3)} <= set(chosen(1e6, target=2))  # those with the target always
    assert set(chosen(0.0)) >= {(0, 1), (2, 3), (0,), (1,), (2,), (3,)}  # noiseless: all that is not independent


def test_a_column_is_measured_again_if_its_counts_are_noisier_than_the_new_ones():
    stddev = [np.full(2, 1.0), np.full(2, 60.0), np.full(2, 1.0), np.full(2, 1.0)]
    one_way = OneWay([np.full(2, 500.0)] * 4, stddev)
    chosen = choose(scores_of(p01=900.0), one_way, noise_multiplier=5.0, target=None)
    assert (1,) in chosen and not {(0,), (2,), (3,)} & set(chosen)


def test_tables_of_the_target_have_half_the_noise_and_a_column_measured_again_is_known_better():
    rng, ledger, plan = np.random.default_rng(0), Ledger(), small_plan()
    codes = rng.integers(0, 3, (5000, 4)).astype(np.int32)
    codes[:, 1] = codes[:, 3] = codes[:, 2] = codes[:, 0]
    counts = [np.full(3, 5000 / 3)] * 4
    stddevs = [np.full(3, 1.0), np.full(3, 200.0), np.full(3, 1.0), np.full(3, 1.0)]
    task = Measuring(Private(codes), (3,) * 4, OneWay(counts, stddevs), 0, 2, {}, plan, ledger, HostNoise(0))
    found = buy_pairs(task)
    of_target = {table.stddev for pair, table in found.tables.items() if 2 in pair}
    others = {table.stddev for pair, table in found.tables.items() if 2 not in pair}
    assert len(of_target) == len(others) == 1 and others.pop() == pytest.approx(2 * of_target.pop())
    assert all(len(pair) == 2 for pair in found.tables)
    assert (found.one_way_stddev[1] < 50).all() and found.one_way_stddev[0].tolist() == [1.0] * 3
    exact = np.bincount(codes[:, 1], minlength=3)
    assert np.abs(found.one_way[1] - exact).max() < 5 * found.one_way_stddev[1].max()
    assert found.one_way[1].sum() == pytest.approx(5000)
