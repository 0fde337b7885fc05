"""Private statistics: sensitivity on neighbouring data, noise of the stated distribution, no use of the true n."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from privsyn_jax.privacy import statistics
from privsyn_jax.privacy.accounting import delta_of
from privsyn_jax.privacy.noise import HostNoise

STANDARD_ERRORS, TRIALS = 5.0, 4000
VALUES = np.random.default_rng(0).normal(3.0, 2.0, 500)


class Recorded(HostNoise):
    """No noise, and a note of what was asked for."""

    def __init__(self):
        super().__init__(0)
        self.stddevs = []

    def normal(self, shape, *, stddev):
        self.stddevs.append(stddev)
        return np.zeros(shape)


def is_normal(sample, mean, stddev) -> bool:
    z = (np.asarray(sample) - mean) / stddev
    return (
        abs(z.mean()) * math.sqrt(z.size) < STANDARD_ERRORS
        and abs(z.std() - 1) * math.sqrt(2 * z.size) < STANDARD_ERRORS
    )


def test_a_count_has_gaussian_noise_of_its_multiplier_and_says_so():
    noise = HostNoise(1)
    drawn = [statistics.count(500, noise_multiplier=4.0, noise=noise)[0] for _ in range(TRIALS)]
    assert is_normal(drawn, 500, 4.0) and not is_normal(drawn, 500, 4.4)
    assert not is_normal(np.full(TRIALS, 500.0), 500, 4.0)  # what an exact class frequency would look like
    assert statistics.count(0, noise_multiplier=4.0, noise=noise)[1] == {
        "kind": "gaussian", "noise_multiplier": 4.0, "count": 1,
    }  # fmt: skip
    assert min(statistics.count(0, noise_multiplier=9.0, noise=noise)[0] for _ in range(50)) == 0.0


@pytest.mark.parametrize("stddev", [0.4, 1.7, 5.0])
def test_whole_noise_is_the_discrete_gaussian(stddev):
    noise = HostNoise(2)
    drawn = np.array([statistics.whole_count(7, noise_multiplier=stddev, noise=noise)[0] - 7 for _ in range(TRIALS)])
    support = np.arange(-40, 41)
    pmf = np.exp(-0.5 * (support / stddev) ** 2)
    expected = TRIALS * pmf / pmf.sum()
    kept = expected > 5
    observed = np.array([(drawn == value).sum() for value in support])
    chi_square = np.sum((observed[kept] - expected[kept]) ** 2 / expected[kept])
    assert scipy.stats.chi2.sf(chi_square, kept.sum() - 1) > 1e-6
    wrong = TRIALS * np.exp(-np.abs(support) / stddev) / np.exp(-np.abs(support) / stddev).sum()
    assert np.sum((observed[kept] - wrong[kept]) ** 2 / wrong[kept]) > 5 * kept.sum()


def test_whole_numbers_below_a_bound_are_even():
    noise = HostNoise(3)
    assert scipy.stats.chisquare(np.bincount([noise.below(7) for _ in range(7000)], minlength=7)).pvalue > 1e-6
    assert {noise.below(1) for _ in range(5)} == {0} and max(noise.below(256) for _ in range(3000)) <= 255


@given(st.lists(st.floats(-1e9, 1e9), max_size=30), st.floats(-1e12, 1e12))
@settings(deadline=None)
def test_one_record_moves_what_a_mean_is_made_of_by_at_most_its_sensitivity(values, extra):
    """Noise is added to (sum of centred values, count), which is read back from the mean without noise."""
    released = []
    for table in (values, [*values, extra]):
        noise = Recorded()
        mean, event = statistics.mean(np.array(table), lower=-5.0, upper=3.0, noise_multiplier=2.0, noise=noise)
        assert noise.stddevs == [math.sqrt(2) * 2.0] and event["noise_multiplier"] == 2.0
        assert -5.0 <= mean <= 3.0
        released.append(np.array([(mean + 1.0) / 4.0 * len(table), len(table)]))
    assert np.linalg.norm(released[1] - released[0]) <= math.sqrt(2) * (1 + 1e-9)


def test_a_mean_over_the_true_number_would_be_more_sensitive_than_a_sum():
    """Dividing by the realised n: adding a record to a small table moves it by more than its share of the noise."""
    table = np.array([3.0, 3.0])
    assert abs(np.mean([*table, -5.0]) - table.mean()) > 8 / 4


def test_means_are_right_on_average_and_survive_an_empty_table():
    noise = HostNoise(4)
    drawn = [statistics.mean(VALUES, lower=-5, upper=11, noise_multiplier=2.0, noise=noise)[0] for _ in range(500)]
    assert np.mean(drawn) == pytest.approx(np.clip(VALUES, -5, 11).mean(), abs=0.02)
    assert statistics.mean(np.array([]), lower=0, upper=4, noise_multiplier=1e-9, noise=noise)[0] == 2.0


def quantile_density(values, p, epsilon, lower, upper, points) -> np.ndarray:
    """The exponential mechanism written down point by point."""
    values = np.sort(values)
    below = np.searchsorted(values, points)
    scores = -np.abs((1 - p) * below - p * (len(values) - below))
    weights = np.exp(epsilon * scores / (2 * max(p, 1 - p)))
    return weights / (weights.sum() * (upper - lower) / len(points))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_quantiles_follow_the_exponential_mechanism(p):
    values, noise = np.array([1.0, 1.0, 2.0, 5.0, 7.5]), HostNoise(5)
    arguments = {"lower": 0.0, "upper": 10.0, "epsilon": 1.5, "noise": noise}
    drawn = [statistics.quantiles(values, [p], **arguments)[0][0] for _ in range(TRIALS)]
    points = (np.arange(2000) + 0.5) / 200
    cdf = np.cumsum(quantile_density(values, p, 1.5, 0.0, 10.0, points)) / 200
    assert scipy.stats.kstest(drawn, lambda x: np.interp(x, points, cdf)).pvalue > 1e-6
    other = np.cumsum(quantile_density(values, p, 4.0, 0.0, 10.0, points)) / 200
    assert scipy.stats.kstest(drawn, lambda x: np.interp(x, points, other)).pvalue < 1e-6


@given(st.lists(st.floats(0, 10), max_size=12), st.floats(0, 10), st.floats(0.02, 0.98), st.floats(0.1, 3.0))
@settings(deadline=None)
def test_a_quantile_is_epsilon_private_on_neighbouring_tables(values, extra, p, epsilon):
    points = (np.arange(400) + 0.5) / 40
    one, other = (quantile_density(np.array(table), p, epsilon, 0, 10, points) for table in (values, [*values, extra]))
    assert np.abs(np.log(one) - np.log(other)).max() <= epsilon + 1e-9


def test_quantiles_are_close_sorted_and_charged_one_by_one():
    found, event = statistics.quantiles(VALUES, [0.75, 0.25, 0.5], lower=-50, upper=50, epsilon=1.0, noise=HostNoise(6))
    np.testing.assert_allclose(found, np.quantile(VALUES, [0.75, 0.25, 0.5]), atol=0.5)
    assert event == {"kind": "exponential", "epsilon": 1.0, "count": 3}
    laplace = {"kind": "laplace", "noise_multiplier": 1.0, "count": 3}
    assert delta_of([laplace], 1.0) < delta_of([event], 1.0)  # Laplace in its place would claim too little
    constant, _ = statistics.quantiles(np.full(99, 4.0), [0.5], lower=4.0, upper=5.0, epsilon=1.0, noise=HostNoise(7))
    assert 4.0 <= constant[0] <= 5.0
    assert statistics.quantiles(np.array([]), [0.5], lower=0, upper=1, epsilon=1.0, noise=HostNoise(8))[0].shape == (1,)


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        (np.geomspace(0.6, 100.0, 400), 0.5, 128.0),
        (-np.geomspace(0.6, 100.0, 400), -128.0, -0.5),
        (np.linspace(-3.0, 9.0, 400), -4.0, 16.0),
        (np.zeros(300), 0.0, 0.0),
        (np.array([1.0, 2.0]), 0.0, 0.0),  # too few to be seen
    ],
)
def test_bounds_are_powers_of_two_around_the_bulk(values, low, high):
    found, event = statistics.bounds(values, noise_multiplier=4.0, noise=HostNoise(9))
    assert found == (low, high) and event == {"kind": "gaussian", "noise_multiplier": 4.0, "count": 1}


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=20), st.floats(allow_nan=True))
@settings(deadline=None)
def test_one_record_moves_one_bin_of_bounds_by_one(values, extra):
    histograms = []

    class Spy(HostNoise):
        def normal(self, shape, *, stddev):
            assert shape == (2 * 101 + 1,) and stddev == 3.0
            return np.zeros(shape)

    original = np.bincount

    def spied(bins, minlength):
        histograms.append(original(bins, minlength=minlength))
        return histograms[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics.np, "bincount", spied)
        for table in (values, [*values, extra]):
            statistics.bounds(np.array(table), noise_multiplier=3.0, noise=Spy(0))
    assert np.abs(histograms[1] - histograms[0]).sum() <= 1


@pytest.mark.parametrize("ends", [(1.0, 1.0), (2.0, 1.0), (0.0, math.inf), (math.nan, 1.0)])
def test_bounds_that_are_none_are_refused(ends):
    lower, upper = ends
    with pytest.raises(ValueError, match="must be finite, the first below the second"):
        statistics.mean(VALUES, lower=lower, upper=upper, noise_multiplier=1.0, noise=HostNoise(0))
    with pytest.raises(ValueError, match="must be finite, the first below the second"):
        statistics.quantiles(VALUES, [0.5], lower=lower, upper=upper, epsilon=1.0, noise=HostNoise(0))


@pytest.mark.parametrize("probabilities", [[], [0.0], [0.5, 1.0], [math.nan]])
def test_probabilities_that_are_none_are_refused(probabilities):
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        statistics.quantiles(VALUES, probabilities, lower=0, upper=1, epsilon=1.0, noise=HostNoise(0))
