"""Loss distributions: exact where a closed form or integration tells, never understated, equal to dp_accounting."""

import math

import numpy as np
import pytest
from dp_accounting.pld import common
from dp_accounting.pld import privacy_loss_distribution as pld
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from privsyn_jax.privacy import loss_distribution as losses
from privsyn_jax.privacy.loss_distribution import Pmf, compose, delta, epsilon

GRID = 1e-3
TARGETS = (1e-9, 1e-5, 1e-3)


def between(least, most):
    """Floats spread evenly in the logarithm."""
    return st.floats(math.log(least), math.log(most)).map(math.exp)


def epsilons(pair, count, grid=GRID):
    totals = [compose([pmf], [[count]], grid)[0] for pmf in pair]
    return [max(epsilon(total, target, grid) for total in totals) for target in TARGETS]


def their_epsilons(distribution, count):
    return [distribution.self_compose(count).get_epsilon_for_delta(target) for target in TARGETS]


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))  # slow on a busy machine
@given(between(1e-6, 1.0), between(0.3, 1e3), st.sampled_from([1, 30, 1000]))
def test_sampled_gaussian_equals_dp_accounting(sampling_rate, sigma, count):
    assume(count * (sampling_rate / sigma) ** 2 < 10)  # an epsilon below about 20, so that theirs is quick
    theirs = pld.from_gaussian_mechanism(sigma, sampling_prob=sampling_rate, value_discretization_interval=GRID)
    ours = epsilons(losses.sampled_gaussian(sigma, sampling_rate, GRID), count)
    assert ours == pytest.approx(their_epsilons(theirs, count), rel=1e-3, abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(between(0.3, 1e3), st.integers(1, 20), st.sampled_from([1, 30]))
def test_noise_on_integers_equals_dp_accounting(noise_multiplier, sensitivity, count):
    scale, common_settings = noise_multiplier * sensitivity, {"sensitivity": sensitivity, "use_connect_dots": True}
    common_settings["value_discretization_interval"] = GRID
    gaussian = pld.from_discrete_gaussian_mechanism(scale, **common_settings)
    ours = epsilons(losses.discrete_gaussian(noise_multiplier, sensitivity, GRID), count)
    assert ours == pytest.approx(their_epsilons(gaussian, count), rel=1e-3, abs=1e-6)
    laplace = pld.from_discrete_laplace_mechanism(1 / scale, **common_settings)
    ours = epsilons(losses.discrete_laplace(noise_multiplier, sensitivity, GRID), count)
    assert ours == pytest.approx(their_epsilons(laplace, count), rel=1e-3, abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(between(0.1, 100.0), st.sampled_from([0.0, 1e-6]), st.sampled_from([1, 30]))
def test_laplace_and_pure_equal_dp_accounting(noise_multiplier, leak, count):
    laplace = pld.from_laplace_mechanism(noise_multiplier, value_discretization_interval=GRID)
    ours = epsilons(losses.laplace(noise_multiplier, GRID), count)
    assert ours == pytest.approx(their_epsilons(laplace, count), rel=1e-3, abs=1e-6)
    parameters = common.DifferentialPrivacyParameters(1 / noise_multiplier, leak)
    pure = pld.from_privacy_parameters(parameters, value_discretization_interval=GRID)
    ours = epsilons(losses.pure(1 / noise_multiplier, leak, GRID), count)
    assert ours == pytest.approx(their_epsilons(pure, count), rel=1e-3, abs=1e-6)


def hockey_stick(sampling_rate, sigma, thresholds):
    """Both directions by integrating max(0, p - e^t q) on a fine mesh: (remove, add)."""
    x = np.linspace(-13 * sigma, 13 * sigma + 1, 400_001)
    without = norm.pdf(x, 0, sigma)
    sampled = (1 - sampling_rate) * without + sampling_rate * norm.pdf(x, 1, sigma)
    pairs = ((sampled, without), (without, sampled))
    return [[np.trapezoid(np.maximum(0, p - math.exp(t) * q), x) for t in thresholds] for p, q in pairs]


def never_understates(pmf, exact, thresholds):
    return all(delta(pmf, t, GRID) >= value * (1 - 1e-5) - 1e-12 for t, value in zip(thresholds, exact, strict=True))


POINTS = [(1e-3, 0.5), (0.05, 1.0), (0.3, 0.4), (0.5, 20.0), (0.999, 2.0)]


@pytest.mark.parametrize(("sampling_rate", "sigma"), POINTS)
def test_one_step_against_integration(sampling_rate, sigma):
    on_grid = GRID * np.array([-400, -50, -1, 0, 1, 20, 300, 1500])
    between_points = on_grid + GRID / 3
    pair = losses.sampled_gaussian(sigma, sampling_rate, GRID)
    for pmf, exact in zip(pair, hockey_stick(sampling_rate, sigma, on_grid), strict=True):
        assert [delta(pmf, t, GRID) for t in on_grid] == pytest.approx(exact, rel=1e-5, abs=1e-9)
        assert pmf.probabilities.sum() + pmf.infinity == pytest.approx(1.0, abs=1e-12)
        assert np.all(pmf.probabilities >= 0)
    for pmf, exact in zip(pair, hockey_stick(sampling_rate, sigma, between_points), strict=True):
        assert never_understates(pmf, exact, between_points)
        rounded_down = pmf._replace(lower=pmf.lower - 1)
        assert not never_understates(rounded_down, exact, between_points)
    remove, _ = hockey_stick(sampling_rate, sigma, on_grid)
    if sigma < 20:  # there the two differ by less than the tolerance
        assert not never_understates(pair[1], remove, on_grid), "the add direction alone would understate"


def test_mass_beyond_the_grid_is_an_infinite_loss():
    noise = losses.gaussian_delta
    cut = losses.connect(lambda t: noise(t, 1.0), lambda t: np.exp(-t) * noise(t, 1.0), -2.0, 2.0, GRID)
    assert cut.infinity == pytest.approx(noise(np.array(2.0), 1.0), rel=1e-9)
    assert epsilon(cut, 1e-9, GRID) == math.inf
    forgotten = cut._replace(infinity=0.0)
    assert delta(forgotten, 1.9, GRID) < noise(np.array(1.9), 1.0) < delta(cut, 1.9, GRID) * (1 + 1e-9)


@pytest.mark.parametrize("sigma", [1e-3, 0.1, 1.0, 30.0, 1e6, 1e9, 1e15])
def test_gaussian_delta_keeps_its_digits(sigma):
    at_zero = math.erf(1 / (2 * math.sqrt(2) * sigma))
    assert losses.gaussian_delta(np.array([0.0]), sigma) == pytest.approx(at_zero, rel=1e-8)
    assert losses.gaussian_delta(np.array([0.0]), sigma) >= at_zero * (1 - 1e-9)
    tail = losses.gaussian_delta(np.linspace(0, 30 / sigma, 50), sigma)
    assert np.all(np.diff(tail) <= 0) and np.all(tail >= 0)


def test_rows_are_sums_of_independent_losses():
    a, b = Pmf(-1, np.array([0.2, 0.3, 0.4]), 0.1), Pmf(2, np.array([0.5, 0.5]), 0.0)
    rows = compose([a, b], [[1, 0], [2, 1], [0, 0], [3, 4]], GRID)
    for row, (count_a, count_b) in zip(rows, [[1, 0], [2, 1], [0, 0], [3, 4]], strict=True):
        expected = np.ones(1)
        for part, count in ((a, count_a), (b, count_b)):
            for _ in range(count):
                expected = np.convolve(expected, part.probabilities)
        assert row.lower == -count_a + 2 * count_b and len(row.probabilities) == len(expected)
        assert row.probabilities == pytest.approx(expected, abs=1e-13)
        assert row.infinity == pytest.approx(1 - 0.9**count_a, abs=1e-12)


def test_many_gaussian_releases_are_one_with_less_noise():
    for count in (100, 10_000, 1_000_000):
        pair = losses.sampled_gaussian(2.0 * math.sqrt(count), 1.0, 1e-5)
        (total,) = compose([pair[0]], [[count]], 1e-5)
        thresholds = np.array([0.0, 0.5, 1.5, 2.5])
        exact = losses.gaussian_delta(thresholds, 2.0)
        found = [delta(total, t, 1e-5) for t in thresholds]
        assert np.all(found >= exact * (1 - 1e-6)) and found == pytest.approx(exact, rel=0.02)


def test_discrete_gaussian_noise_with_many_steps_is_nearly_continuous():
    fine, smooth = (losses.discrete_gaussian(2.0, sensitivity, GRID)[0] for sensitivity in (400_000, 600_000))
    continuous = losses.sampled_gaussian(2.0, 1.0, GRID)[0]
    for t in (0.0, 0.5, 2.0):
        exact = delta(continuous, t, GRID)
        assert delta(fine, t, GRID) == pytest.approx(exact, rel=1e-5)
        assert exact * (1 - 1e-10) <= delta(smooth, t, GRID) == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize("value", [1e-300, 1e-12, 1e12, 1e300])
def test_extreme_values_are_bounded_or_refused(value):
    makers = (
        lambda: losses.sampled_gaussian(value, 0.5, GRID),
        lambda: losses.sampled_gaussian(1.0, min(value, 1.0), GRID),
        lambda: losses.sampled_gaussian(value, 1e-300, GRID),
        lambda: losses.laplace(value, GRID),
        lambda: losses.discrete_laplace(value, 2**53, GRID),
        lambda: losses.discrete_gaussian(value, 3, GRID),
        lambda: losses.pure(value, 0.0, GRID),
    )
    for make in makers:
        try:
            pair = make()
        except losses.TooWide:
            continue
        for pmf in pair:
            (total,) = compose([pmf], [[1000]], GRID)
            assert np.all(np.isfinite(total.probabilities)) and 0 <= epsilon(total, 1e-5, GRID) < math.inf
