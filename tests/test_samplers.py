"""Solvers of the probability flow against closed forms: data whose best denoiser is known."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from privsyn_jax.models.samplers import churned_heun, ddim, heun, noise_levels

MEAN, STDDEV, SIGMA_MAX = 0.7, 0.5, 20.0


def of_gaussian(x, sigma):
    """E[data | x] of data N(MEAN, STDDEV^2), in every entry."""
    return (STDDEV**2 * x + sigma**2 * MEAN) / (STDDEV**2 + sigma**2)


def flowed(x, sigma=0.0):
    """Where the probability flow takes x from level SIGMA_MAX to level sigma, exactly."""
    return MEAN + (x - MEAN) * math.sqrt((STDDEV**2 + sigma**2) / (STDDEV**2 + SIGMA_MAX**2))


def marginal(key, sigma, num):
    """[num] draws of data with noise of level sigma."""
    return MEAN + math.sqrt(STDDEV**2 + sigma**2) * jax.random.normal(key, (num,))


def test_levels_are_those_of_the_paper():
    levels = noise_levels(18)
    assert len(levels) == 19 and levels[-1] == 0
    assert levels[0] == pytest.approx(80) and levels[-2] == pytest.approx(0.002)
    assert levels[5] == pytest.approx((80 ** (1 / 7) + 5 / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7)
    assert np.all(np.diff(levels) < 0)
    evenly = noise_levels(3, sigma_min=1.0, sigma_max=3.0, rho=1.0)
    assert evenly == pytest.approx((3, 2, 1, 0))
    assert noise_levels(1, sigma_max=5.0) == pytest.approx((5, 0))


@pytest.mark.parametrize(
    "arguments", [{"num_steps": 0}, {"sigma_min": 0}, {"sigma_min": 9, "sigma_max": 8}, {"rho": 0}]
)
def test_impossible_levels_are_refused(arguments):
    with pytest.raises(ValueError, match="must be at least 1"):
        noise_levels(**{"num_steps": 5, **arguments})


@pytest.mark.parametrize(("solver", "order"), [(ddim, 1), (heun, 2)])
def test_error_falls_with_the_order_of_the_solver(solver, order):
    start = np.linspace(-30, 30, 7)  # float64: rounding must not hide the error
    errors = []
    for num_steps in (32, 64, 128, 256):
        sigmas = noise_levels(num_steps, sigma_min=0.1, sigma_max=SIGMA_MAX)[:-1]
        errors.append(np.abs(solver(of_gaussian, start, sigmas) - flowed(start, 0.1)).max())
    orders = np.log2(np.divide(errors[:-1], errors[1:]))
    np.testing.assert_allclose(orders[-2:], order, atol=0.15)
    assert errors[-1] < 0.03


@pytest.mark.parametrize(("solver", "tolerance"), [(ddim, 0.03), (heun, 2e-4)])
def test_the_last_step_ends_at_the_data(solver, tolerance):
    start = np.linspace(-30, 30, 7)
    ended = solver(of_gaussian, start, noise_levels(256, sigma_max=SIGMA_MAX))
    np.testing.assert_allclose(ended, flowed(start), atol=tolerance)


def test_evaluations_a_step():
    calls = []

    def denoise(x, sigma):
        calls.append(sigma)
        return of_gaussian(x, sigma)

    sigmas = noise_levels(6)
    ddim(denoise, np.zeros(2), sigmas)
    assert calls == list(sigmas[:-1])
    calls.clear()
    heun(denoise, np.zeros(2), sigmas)
    assert calls == [sigmas[0], *(level for level in sigmas[1:-1] for _ in range(2))]


@pytest.mark.parametrize("solver", [ddim, heun])
def test_mean_and_covariance_of_samples(solver):
    num, mean = 4000, np.array([0.5, -1.0])
    covariance = np.array([[0.5, 0.3], [0.3, 0.4]])

    def denoise(x, sigma):
        gain = covariance @ np.linalg.inv(covariance + sigma**2 * np.eye(2))
        return mean[None] + (x - mean[None]) @ gain.T

    sigmas = noise_levels(200, sigma_max=80.0)
    samples = solver(denoise, 80.0 * np.random.default_rng(0).standard_normal((num, 2)), sigmas)
    # Starting from N(0, sigma_max^2) instead of the true marginal moves the mean by about mean * s / sigma_max: 1 %.
    error = np.sqrt(np.diag(covariance) / num)
    np.testing.assert_array_less(np.abs(samples.mean(axis=0) - mean), 4 * error + 0.012)
    np.testing.assert_allclose(np.cov(samples.T), covariance, atol=4 * 0.5 * math.sqrt(2 / num) + 0.01)


@pytest.mark.parametrize("solver", [ddim, heun])
def test_modes_get_their_weights(solver):
    num, weight, places, width = 4000, 0.3, np.array([-1.0, 1.0]), 0.1

    def denoise(x, sigma):
        variance = width**2 + sigma**2
        logits = np.log([weight, 1 - weight]) - (x[:, None] - places) ** 2 / (2 * variance)
        posterior = np.exp(logits - logits.max(axis=1, keepdims=True))
        posterior /= posterior.sum(axis=1, keepdims=True)
        return np.sum(posterior * (width**2 * x[:, None] + sigma**2 * places) / variance, axis=1)

    sigmas = noise_levels(100, sigma_max=80.0)
    samples = solver(denoise, 80.0 * np.random.default_rng(1).standard_normal(num), sigmas)
    assert abs(np.mean(samples < 0) - weight) < 4 * math.sqrt(weight * (1 - weight) / num) + 0.01
    assert np.mean(np.abs(np.abs(samples) - 1) < 4 * width) > 0.99


def test_churn_keeps_the_marginal_and_forgets_the_start():
    num, sigmas = 20_000, noise_levels(100, sigma_max=SIGMA_MAX)
    start_key, churn_key = jax.random.split(jax.random.key(0))
    start = marginal(start_key, SIGMA_MAX, num)
    churned = churned_heun(
        of_gaussian, start, sigmas, key=churn_key, churn=40.0, churned_levels=(0.0, math.inf), noise_scale=1.0
    )
    assert abs(float(churned.mean()) - MEAN) < 4 * STDDEV / math.sqrt(num)
    assert abs(float(churned.std()) - STDDEV) < 4 * STDDEV / math.sqrt(2 * num)
    kept = float(jnp.corrcoef(start, churned)[0, 1])
    assert kept < 0.2 < 0.99 < float(jnp.corrcoef(start, heun(of_gaussian, start, sigmas))[0, 1])


def test_churn_is_confined_to_its_levels_and_scaled():
    sigmas, start, key = noise_levels(10, sigma_max=SIGMA_MAX), jnp.linspace(-9.0, 9.0, 5), jax.random.key(3)
    plain = heun(of_gaussian, start, sigmas)
    for arguments in ({"churn": 0.0}, {"churn": 9.0, "churned_levels": (30.0, 40.0)}):
        np.testing.assert_array_equal(churned_heun(of_gaussian, start, sigmas, key=key, **arguments), plain)
    doubled = churned_heun(
        lambda x, sigma: x, start, sigmas[:2], key=key, churn=0.2, churned_levels=(1.0, 99.0), noise_scale=2.0
    )
    rise = 1 + 0.2 / 1  # one step; a denoiser that returns its input changes nothing else
    wanted = 2.0 * SIGMA_MAX * math.sqrt(rise**2 - 1) * jax.random.normal(jax.random.fold_in(key, 0), (5,))
    np.testing.assert_allclose(doubled - start, wanted, rtol=1e-5)
