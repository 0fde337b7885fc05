"""The generator's steps of a GAN: when they happen, what they see, and that every way of running gives the same."""

import dataclasses
import functools
import itertools
import os
import pickle
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from unpaid import Unpaid

import privsyn_jax
from privsyn_jax.privacy.schedules import Level
from privsyn_jax.training import feed, loop
from privsyn_jax.training.parallel import WRAPPERS, DataParallel
from privsyn_jax.training.state import initial_state
from privsyn_jax.training.step import DPStep, PublicUpdate, many_steps

NUM_ROWS, DIM, EMA_DECAY = 21, 3, 0.9
LEVEL = Level(1, sampling_rate=0.5, expected_batch_size=10.0, noise_multiplier=0.5, l2_clip_norm=0.7)
PRIVATE_OPTIMIZER, PUBLIC_OPTIMIZER = optax.sgd(0.1, momentum=0.9), optax.adam(0.05)
ROWS = np.random.default_rng(0).normal(size=(NUM_ROWS, DIM)).astype(np.float32)
PLACES = {"device": many_steps, "host": feed.many_steps}


def private_loss(params, example, key):
    """Quadratic; sees the public parameters, as a critic does through a fake image."""
    fake = params["public"]["mean"] + 0.1 * jax.random.normal(key, (DIM,))
    return jnp.sum(jnp.square(params["private"]["center"] - example)) + params["private"]["center"] @ fake


def public_loss(params, key):
    """Quadratic; draws around the private center."""
    goal = params["private"]["center"] + jax.random.normal(key, (DIM,))
    return jnp.sum(jnp.square(params["public"]["mean"] - goal)) + jnp.square(params["public"]["bias"] - goal[0])


UPDATE = PublicUpdate(public_loss, PUBLIC_OPTIMIZER, batch_size=4, every=2)


@functools.cache
def make_step(update: PublicUpdate | None = UPDATE, optimizer=PRIVATE_OPTIMIZER) -> DPStep:
    return DPStep(private_loss, optimizer, microbatch_size=8, ema_decay=EMA_DECAY, method="vmap", public_update=update)


@functools.cache
def compiled(place: str, step: DPStep, count: int):
    return PLACES[place](step, count)


def start(step: DPStep):
    params = {
        "private": {"center": jnp.full(DIM, 0.3)},
        "public": {"mean": jnp.arange(DIM, dtype=jnp.float32), "bias": jnp.float32(1)},
    }
    public_optimizer = step.public_update.optimizer if step.public_update is not None else None
    return initial_state(params, step.optimizer, LEVEL, public_optimizer=public_optimizer)


def run(step: DPStep, num_steps: int, *, place="device", rows=ROWS, per_dispatch=1, state=None):
    """States after every dispatch, on the host, the first one before it."""
    states = []
    loop.fit(
        step,
        start(step) if state is None else state,
        jnp.asarray(rows) if place == "device" else rows,
        key=jax.random.key(3),
        spending=Unpaid(LEVEL, num_steps, per_dispatch),
        hooks=[lambda state, log: states.append(jax.tree.map(np.array, state))],
        compile_steps=lambda step, count: compiled(place, step, count),
    )
    return states


def public_part(state):
    return state.params["public"], state.public


def assert_equal(found, wanted):
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


def assert_close(found, wanted):
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6), found, wanted)


def moved(before, after):
    return any((one != other).any() for one, other in zip(*map(jax.tree.leaves, (before, after)), strict=True))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("every", [1, 3])
def test_a_public_step_follows_every_so_many_steps_on_records(every, place):
    states = run(make_step(UPDATE._replace(every=every)), 7, place=place)
    assert len(states) == 8
    for done, (before, after) in enumerate(itertools.pairwise(states), start=1):
        assert int(after.step) == done and moved(before.params["private"], after.params["private"])
        if done % every == 0:
            assert moved(before.params["public"], after.params["public"])
            assert moved(before.public.ema, after.public.ema)
        else:
            assert_equal(public_part(after), public_part(before))
    assert int(states[-1].public.opt_state[0].count) == 7 // every


def test_records_on_the_host_give_the_result_of_records_on_the_device():
    fed, resident = (run(make_step(), 6, place=place, per_dispatch=3)[-1] for place in ("host", "device"))
    assert_close(fed, resident)


@pytest.mark.parametrize("place", PLACES)
def test_dispatches_of_two_and_two_steps_are_one_of_four(place):
    """The public step is the first of the second dispatch, which may be another process's."""
    step = make_step(UPDATE._replace(every=3))
    whole = run(step, 4, place=place, per_dispatch=4)[-1]
    begun = run(step, 2, place=place, per_dispatch=2)[-1]
    resumed = run(step, 4, place=place, per_dispatch=2, state=jax.tree.map(jnp.asarray, begun))
    assert int(resumed[0].step) == 2 and len(resumed) == 2
    assert_close(resumed[-1], whole)
    assert moved(begun.params["public"], whole.params["public"])


@pytest.mark.parametrize("place", PLACES)
def test_records_reach_the_public_parameters_through_the_private_ones_only(place):
    """Private parameters that stay where they are: whatever the records, the same public results, bit for bit."""
    frozen = make_step(optimizer=optax.sgd(0.0))
    ends = [run(frozen, 6, place=place, rows=rows)[-1] for rows in (ROWS, 100 * ROWS[::-1], np.zeros_like(ROWS))]
    for end in ends[1:]:
        assert_equal(public_part(end), public_part(ends[0]))
    assert moved(start(frozen).params["public"], ends[0].params["public"])
    free = [run(make_step(), 6, place=place, rows=rows)[-1] for rows in (ROWS, 100 * ROWS[::-1])]
    assert moved(public_part(free[0]), public_part(free[1]))  # that the test above could have failed


def test_a_public_step_is_one_of_its_optimizer_and_moves_the_average():
    loss = lambda params, key: jnp.sum(jnp.square(params["public"]["mean"] - params["private"]["center"]))  # noqa: E731
    update = UPDATE._replace(loss=loss, optimizer=optax.sgd(0.25), every=1)
    before, after = run(make_step(update), 1)
    mean, center = before.params["public"]["mean"], after.params["private"]["center"]  # the step on records came first
    wanted = mean - 0.25 * 2 * (mean - center)
    np.testing.assert_allclose(after.params["public"]["mean"], wanted, rtol=1e-6)
    np.testing.assert_allclose(after.public.ema["mean"], EMA_DECAY * mean + (1 - EMA_DECAY) * wanted, rtol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 9])
def test_a_public_step_takes_the_mean_over_independent_draws(batch_size):
    """The gradient of this loss is a normal vector for every draw, so what moves the parameters shows the draws."""
    size = 20_000
    step = DPStep(
        lambda params, example, key: 0.0 * jnp.sum(params["private"]["w"]) * example[0],
        optax.sgd(1.0),
        microbatch_size=16,
        ema_decay=0.0,
        public_update=PublicUpdate(
            lambda params, key: params["public"]["w"] @ jax.random.normal(key, (size,)), optax.sgd(1.0), batch_size, 1
        ),
    )
    zeros = {"private": {"w": jnp.zeros(size)}, "public": {"w": jnp.zeros(size)}}
    states = run(step, 2, state=initial_state(zeros, step.optimizer, LEVEL, public_optimizer=optax.sgd(1.0)))
    paths = {kind: [state.params[kind]["w"] for state in states] for kind in zeros}
    moves = {kind: np.diff(path, axis=0) for kind, path in paths.items()}
    stddev = batch_size**-0.5
    np.testing.assert_allclose(moves["public"].std(axis=1), stddev, rtol=5 / np.sqrt(2 * size))
    correlations = np.corrcoef([*moves["public"], *moves["private"]]) - np.eye(4)  # private: noise alone
    assert np.abs(correlations).max() < 5 / np.sqrt(size)


def test_without_a_public_loss_there_is_no_public_state():
    step = make_step(update=None)
    for place in PLACES:
        before, after = run(step, 1, place=place)
        assert before.public is None and after.public is None
        assert_equal(after.params["public"], before.params["public"])


def test_a_public_loss_costs_the_private_step_nothing():
    """Where the private loss does not look at them, private parameters move as if there were no public step."""
    blind = lambda params, example, key: jnp.sum(jnp.square(params["private"]["center"] - example))  # noqa: E731
    with_update, without = (
        run(dataclasses.replace(make_step(update), private_loss=blind), 4)[-1] for update in (UPDATE, None)
    )
    assert_equal(with_update.params["private"], without.params["private"])


def over_devices(num_devices: int, wrapper: str):
    """The state after 2 dispatches of 3 steps."""
    parallel, step = DataParallel(tuple(jax.devices()[:num_devices]), NUM_ROWS, wrapper), make_step()
    steps, rows, state = parallel.many_steps(step, 3), parallel.place(ROWS), start(step)
    for _ in range(2):
        state, _ = steps(state, rows, jax.random.key(3))
    return jax.tree.map(np.array, state)


@pytest.fixture(scope="module")
def eight_devices(tmp_path_factory):
    """What a process with 8 virtual devices computes, by wrapper."""
    out = tmp_path_factory.mktemp("devices") / "out"
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "PYTHONPATH": str(Path(privsyn_jax.__file__).parents[1]),
    }
    command = [sys.executable, "-W", "error", __file__, str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    return pickle.loads(out.read_bytes())


@pytest.mark.slow
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_eight_devices_take_the_public_steps_of_one(eight_devices, wrapper):
    assert_close(eight_devices[wrapper], run(make_step(), 6, per_dispatch=3)[-1])


if __name__ == "__main__":
    assert jax.device_count() == 8
    Path(sys.argv[1]).write_bytes(pickle.dumps({wrapper: over_devices(8, wrapper) for wrapper in WRAPPERS}))
