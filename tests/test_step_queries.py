"""What a step asks besides the gradient: sensitivity, noise, and shares that add up to one Gaussian mechanism."""

import dataclasses
import functools
import math

import dp_accounting
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from dp_accounting import rdp

from privsyn_jax.privacy.bands import band_coefficients
from privsyn_jax.privacy.clipping import ClippedSum, clipped_grad_sum
from privsyn_jax.privacy.noise import add_correlated_noise, add_gaussian_noise, noise_memory
from privsyn_jax.privacy.schedules import Level
from privsyn_jax.settings import settings_from_dict
from privsyn_jax.training.state import initial_state
from privsyn_jax.training.step import DPStep, LossQuery, QuantileClip, many_steps
from privsyn_jax.types import UserError

EXPECTED, NOISE, CLIP_NORM = 50.0, 3.0, 2.0
CLIP, LOSS = QuantileClip(target_quantile=0.3, learning_rate=0.2, share=0.04), LossQuery(bound=10.0, share=0.09)
LEVEL = Level(1, 1.0, EXPECTED, NOISE, CLIP_NORM)
STANDARD_ERRORS = 5.0


def linear_loss(params, example, key):
    """Its gradient is the example."""
    del key
    return params["private"]["w"] @ example


@functools.cache
def make_step(**changes) -> DPStep:
    arguments = {"microbatch_size": 16, "ema_decay": 0.5, "quantile_clip": CLIP, "loss_query": LOSS, **changes}
    return DPStep(linear_loss, optax.sgd(0.0), **arguments)


def start(size=2, level=LEVEL, **changes):
    step = make_step(**changes)
    return initial_state(
        {"private": {"w": jnp.zeros(size)}, "public": {}}, step.optimizer, level, coefficients=step.coefficients
    )


@functools.partial(jax.jit, static_argnums=0)
def noised(step, state, clipped, batch_size, keys):
    """Logs of one update from given sums, for many noise keys."""
    return jax.vmap(lambda key: step.update(state, clipped, batch_size, key))(keys)


def sums(*, clipped=0, nonfinite=0, loss=0.0, size=2):
    return ClippedSum(
        {"w": jnp.zeros(size)},
        jnp.float32(0),
        jnp.int32(clipped),
        jnp.float32(0),
        jnp.int32(nonfinite),
        jnp.float32(loss),
    )


def draws(clipped, batch_size, trials=20_000, **changes):
    keys, state = jax.random.split(jax.random.key(0), trials), start(clipped.grad_sum["w"].size, **changes)
    return noised(make_step(**changes), state, clipped, jnp.int32(batch_size), keys)


def is_normal(sample, mean, stddev) -> bool:
    z = (np.asarray(sample, np.float64) - mean) / stddev
    error = math.sqrt(z.size)
    return abs(z.mean()) * error < STANDARD_ERRORS and abs(z.std() - 1) * math.sqrt(2) * error < STANDARD_ERRORS


def test_every_query_has_the_noise_that_its_share_pays_for():
    _, log = draws(sums(clipped=12, nonfinite=3, loss=-20.0), 40)
    count = 40 / 2 - 15
    assert is_normal(log["released_unclipped"], 0.5 + count / EXPECTED, 0.5 * NOISE / math.sqrt(CLIP.share) / EXPECTED)
    loss_noise = LOSS.bound / 2 * NOISE / math.sqrt(LOSS.share) / EXPECTED
    assert is_normal(log["released_loss"], LOSS.bound / 2 - 20.0 / EXPECTED, loss_noise)
    assert not is_normal(log["released_loss"], LOSS.bound / 2 - 20.0 / EXPECTED, 1.1 * loss_noise)
    gradient_noise = NOISE / math.sqrt(1 - CLIP.share - LOSS.share) * CLIP_NORM
    alone = draws(sums(size=1000), 0, trials=50)
    assert float(jnp.mean(alone[1]["released_signal"])) == pytest.approx(
        0, abs=5 * (gradient_noise / CLIP_NORM) ** 2 * 7
    )
    correlations = np.corrcoef([log["released_unclipped"], log["released_loss"]])[0, 1]
    assert abs(correlations) * math.sqrt(20_000) < STANDARD_ERRORS


def test_the_gradient_gets_what_the_queries_leave():
    step = dataclasses.replace(make_step(), optimizer=optax.sgd(1.0))
    state = initial_state({"private": {"w": jnp.zeros(50_000)}, "public": {}}, step.optimizer, LEVEL)
    after, _ = jax.jit(step.update)(state, sums(size=50_000), jnp.int32(0), jax.random.key(3))
    expected = NOISE / math.sqrt(1 - CLIP.share - LOSS.share) * CLIP_NORM / EXPECTED
    assert is_normal(after.params["private"]["w"], 0.0, expected)
    assert not is_normal(after.params["private"]["w"], 0.0, NOISE * CLIP_NORM / EXPECTED)


@pytest.mark.parametrize("order", [2, 8, 64])
def test_folding_equals_direct_composition_in_renyi_divergence(order):
    """The three queries of a step, composed one by one, are the one mechanism that the ledger is charged with."""
    multipliers = [NOISE / math.sqrt(share) for share in (CLIP.share, LOSS.share, 1 - CLIP.share - LOSS.share)]
    one_by_one = rdp.RdpAccountant([order])
    for multiplier in multipliers:
        one_by_one.compose(dp_accounting.GaussianDpEvent(multiplier))
    folded = rdp.RdpAccountant([order])
    folded.compose(dp_accounting.GaussianDpEvent(NOISE))
    assert one_by_one._rdp[0] == pytest.approx(folded._rdp[0], rel=1e-12)


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1.0, 1e6, math.nan])
def test_one_record_moves_every_query_by_at_most_its_sensitivity(scale):
    rows = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    rows[3] = scale
    params = {"private": {"w": jnp.array([3.0, -2.0])}, "public": {}}
    args = (linear_loss, params, jnp.asarray(rows))
    found = []
    for is_padding in (np.zeros(6, bool), np.arange(6) == 3):
        total = clipped_grad_sum(
            *args, jnp.asarray(is_padding), jax.random.key(0), l2_clip_norm=1.0, loss_bound=LOSS.bound
        )
        drawn = 6 - is_padding.sum()
        count = drawn / 2 - int(total.nonprivate_clipped_count) - int(total.nonprivate_nonfinite_count)
        found.append((float(total.nonprivate_bounded_loss_sum), count))
    (loss_with, count_with), (loss_without, count_without) = found
    assert abs(loss_with - loss_without) <= LOSS.bound / 2 * (1 + 1e-6) and abs(count_with - count_without) <= 0.5
    assert math.isfinite(loss_with)


def test_the_divisor_is_the_expected_batch_size_not_the_drawn_one():
    """AdaClip as implemented elsewhere divides by the drawn size, whose sensitivity nobody pays for."""
    for drawn in (0, 7, 400):
        _, log = draws(sums(), drawn, trials=1, adds_noise=False)
        assert float(log["released_unclipped"][0]) == pytest.approx(0.5 + drawn / 2 / EXPECTED)


@pytest.mark.parametrize("quantile", [0.2, 0.5, 0.8])
def test_the_clipping_norm_finds_the_quantile(quantile):
    rows = np.zeros((400, 2), np.float32)
    rows[:, 0] = np.linspace(0.01, 4.0, 400)
    clip = QuantileClip(quantile, 0.2, 0.1)
    level = Level(1, 1.0, 400.0, 1.0, 0.1)
    state = start(level=level, quantile_clip=clip, loss_query=None)
    state, log = many_steps(make_step(quantile_clip=clip, loss_query=None), 150)(
        state, jnp.asarray(rows), jax.random.key(1)
    )
    norms = np.asarray(log["released_clip_norm"])
    assert norms[0] == pytest.approx(0.1) and norms[100:].mean() == pytest.approx(4 * quantile, rel=0.1)
    assert float(state.controls.l2_clip_norm) != norms[-1]


def test_the_norm_of_a_step_clips_and_noises_that_step():
    """The new norm, made from the step's own count, is for the next step only."""
    rows = jnp.asarray(np.full((4, 2), 100.0, np.float32))
    step = dataclasses.replace(make_step(adds_noise=False), optimizer=optax.sgd(1.0))
    level = LEVEL._replace(expected_batch_size=4.0)
    state = initial_state({"private": {"w": jnp.zeros(2)}, "public": {}}, step.optimizer, level)
    state, _ = many_steps(step, 1)(state, rows, jax.random.key(0))
    assert float(jnp.linalg.norm(state.params["private"]["w"])) == pytest.approx(CLIP_NORM, rel=1e-5)
    assert float(state.controls.l2_clip_norm) > CLIP_NORM  # everyone was clipped


def test_the_signal_is_the_squared_norm_of_the_clipped_sum_on_average():
    clipped = sums(size=500)._replace(grad_sum={"w": jnp.full(500, 4.0)})
    _, log = draws(clipped, 10, trials=2_000)
    stddev = NOISE / math.sqrt(1 - CLIP.share - LOSS.share)
    signal = 500 * 16 / CLIP_NORM**2
    spread = math.sqrt(2 * 500 * stddev**4 + 4 * stddev**2 * signal)
    assert is_normal(log["released_signal"], signal, spread)


@pytest.mark.parametrize("num_bands", [2, 5])
def test_banded_noise_is_the_inverse_of_the_banded_matrix(num_bands):
    coefficients, steps, size = band_coefficients(12, num_bands), 12, 4
    assert len(coefficients) == num_bands and np.linalg.norm(coefficients) == pytest.approx(1.0)
    tree = {"w": jnp.zeros(size)}
    memory, rows, fresh = noise_memory(tree, coefficients), [], []
    for step in range(steps):
        noisy, memory = add_correlated_noise(tree, memory, coefficients, stddev=1.0, key=jax.random.key(step))
        rows.append(np.asarray(noisy["w"], np.float64))
        fresh.append(np.asarray(add_gaussian_noise(tree, stddev=1.0, key=jax.random.key(step))["w"], np.float64))
    matrix = sum(value * np.eye(steps, k=-band) for band, value in enumerate(coefficients))
    np.testing.assert_allclose(rows, np.linalg.solve(matrix, np.array(fresh)), rtol=1e-4, atol=1e-5)
    # What a record changes in C X: its steps are num_bands apart, so its columns do not overlap.
    touched = matrix[:, ::num_bands]
    assert np.linalg.norm(touched, axis=0).max() <= 1 + 1e-6
    np.testing.assert_allclose(touched.T @ touched, np.diag(np.sum(touched**2, axis=0)), atol=1e-7)


def test_banded_noise_hurts_prefix_sums_less_than_independent_noise():
    coefficients, steps = band_coefficients(64, 8), 64
    matrix = sum(value * np.eye(steps, k=-band) for band, value in enumerate(coefficients))
    prefix = np.tril(np.ones((steps, steps)))
    banded = np.linalg.norm(prefix @ np.linalg.inv(matrix)) ** 2
    assert banded < 0.5 * np.linalg.norm(prefix) ** 2


def test_bands_are_refused_where_they_make_no_sense(monkeypatch):
    with pytest.raises(UserError, match=r"^privacy\.num_bands is 9, more than training\.num_steps = 8"):
        band_coefficients(8, 9)
    monkeypatch.setitem(__import__("sys").modules, "jax_privacy.matrix_factorization", None)
    with pytest.raises(UserError, match=r"needs jax_privacy: install privsyn_jax\[correlated\]"):
        band_coefficients(21, 3)
    assert settings_from_dict({"privacy": {"num_bands": 3}}).privacy.num_bands == 3
