"""Private statistics: sensitivity on neighbouring data, noise of the stated distribution, no use of the true n."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from privsyn_jax.privacy import statistics
from privsyn_jax.privacy.accounting import check_event, delta_of
from privsyn_jax.privacy.noise import HostNoise

STANDARD_ERRORS, TRIALS = 5.0, 4000
anything = st.floats(allow_nan=True, allow_infinity=True)
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


def test_noise_for_frequencies_added_to_counts_is_too_small():
    """The mutant: a frequency moves by 1/n, so its noise is that much smaller; a count needs all of it."""
    wrong = [500 + HostNoise(seed).normal((), stddev=4.0 / 500) for seed in range(500)]
    assert is_normal(np.array(wrong), 500, 4.0 / 500) and not is_normal(wrong, 500, 4.0)


@pytest.mark.parametrize("distribution", ["gaussian", "laplace"])
def test_a_whole_count_is_a_whole_number_with_the_noise_that_is_charged(distribution):
    noise = HostNoise(2)
    results = [
        statistics.whole_count(7, noise_multiplier=1.7, noise=noise, distribution=distribution) for _ in range(TRIALS)
    ]
    assert all(isinstance(number, int) for number, _ in results)
    events = [event for _, event in results]
    assert events[0] == {
        "kind": f"discrete_{distribution}", "noise_multiplier": 1.7, "sensitivity": 1, "count": 1,
    }  # fmt: skip
    check_event(events[0])
    support = np.arange(-80, 81)
    power = {"gaussian": 0.5 * (support / 1.7) ** 2, "laplace": np.abs(support) / 1.7}[distribution]
    variance = np.sum(support**2 * np.exp(-power)) / np.exp(-power).sum()
    noisy = np.array([number for number, _ in results], np.float64)
    kurtosis = {"gaussian": 3.0, "laplace": 6.3}[distribution]
    assert abs(noisy.mean() - 7) * math.sqrt(TRIALS / variance) < STANDARD_ERRORS
    assert abs(noisy.var() / variance - 1) * math.sqrt(TRIALS / (kurtosis - 1)) < STANDARD_ERRORS


@given(st.lists(anything, max_size=30), anything)
@settings(deadline=None)
def test_one_record_moves_what_a_mean_is_made_of_by_at_most_its_sensitivity(values, extra):
    """Noise is added to (sum of centred values, count), which is read back from the mean without noise."""
    released = []
    for table in (values, [*values, extra]):
        noise = Recorded()
        mean, event = statistics.mean(np.array(table), lower=-5.0, upper=3.0, noise_multiplier=2.0, noise=noise)
        assert noise.stddevs == [math.sqrt(2) * 2.0] and event["noise_multiplier"] == 2.0
        assert -5.0 <= mean <= 3.0
        num_values = np.count_nonzero(~np.isnan(table))
        released.append(np.array([(mean + 1.0) / 4.0 * num_values, num_values]))
    assert np.linalg.norm(released[1] - released[0]) <= math.sqrt(2) * (1 + 1e-9)


def test_a_mean_over_the_true_number_moves_by_more_than_its_share_of_the_noise():
    """The mutant: sum / n, with the noise of a sum / n. A record moves it by more than what is claimed, half / n."""
    table, half = np.array([3.0, 3.0]), 4.0
    moved = abs(np.mean([*table, -5.0]) - np.mean(table))
    assert moved > half / len(table)


def test_means_are_right_on_average_and_survive_an_empty_table():
    noise = HostNoise(4)
    drawn = [statistics.mean(VALUES, lower=-5, upper=11, noise_multiplier=2.0, noise=noise)[0] for _ in range(500)]
    assert np.mean(drawn) == pytest.approx(np.clip(VALUES, -5, 11).mean(), abs=0.02)
    assert statistics.mean(np.array([]), lower=0, upper=4, noise_multiplier=1e-9, noise=noise)[0] == 2.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_value_that_is_no_number_decides_nothing(bad):
    """NaN in a sum, or sorted last, would come out as NaN whenever the record is there."""
    noise, spoiled = HostNoise(10), np.append(VALUES, bad)
    assert statistics.mean(spoiled, lower=-5, upper=11, noise_multiplier=1.0, noise=noise)[0] == pytest.approx(3, abs=1)
    for resolution in (None, 0.1):
        arguments = {"lower": -5, "upper": 11, "epsilon": 1.0, "noise": noise, "resolution": resolution}
        assert statistics.quantiles(spoiled, [0.5], **arguments)[0] == pytest.approx([3], abs=1)
    assert statistics.bounds(spoiled, noise_multiplier=1.0, noise=noise)[0] == (-2.0, 8.0)


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


@pytest.mark.parametrize("p", [0.25, 0.5])
def test_with_a_resolution_only_grid_points_come_out_as_the_mechanism_says(p):
    values, noise = np.array([0.9, 1.0, 1.0, 2.2, 5.0]), HostNoise(11)
    arguments = {"lower": -0.3, "upper": 5.2, "epsilon": 1.5, "noise": noise, "resolution": 0.5}
    drawn = np.array([statistics.quantiles(values, [p], **arguments)[0][0] for _ in range(TRIALS)])
    grid = -0.3 + 0.5 * np.arange(12)
    weights = quantile_density(values, p, 1.5, 0.0, 1.0, grid)
    expected = TRIALS * weights / weights.sum()
    assert np.isin(drawn, grid).all()
    observed = np.array([np.sum(drawn == point) for point in grid])
    assert expected.min() > 10 and scipy.stats.chisquare(observed, expected).pvalue > 1e-6
    assert scipy.stats.chisquare(observed, np.full(12, TRIALS / 12)).pvalue < 1e-6


def test_without_a_resolution_the_last_bits_may_differ_between_neighbours():
    """Why the grid is there: a gap that is one float wide gives the value next to it away."""
    ends = np.array([0.1, np.nextafter(0.1, 1)])
    for resolution, shows in ((None, True), (0.25, False)):
        arguments = {"lower": ends[0], "upper": 1.0, "epsilon": 0.0, "noise": HostNoise(12), "resolution": resolution}
        points = {statistics.quantiles(np.array(ends), [0.5], **arguments)[0][0] for _ in range(50)}
        assert (len(points) > 4) == shows


@given(st.lists(st.floats(0, 10), max_size=12), st.floats(0, 10), st.floats(0.02, 0.98), st.floats(0.1, 3.0))
@settings(deadline=None)
def test_a_quantile_is_epsilon_private_on_neighbouring_tables(values, extra, p, epsilon):
    points = (np.arange(400) + 0.5) / 40
    one, other = (quantile_density(np.array(table), p, epsilon, 0, 10, points) for table in (values, [*values, extra]))
    assert np.abs(np.log(one) - np.log(other)).max() <= epsilon + 1e-9


def test_a_quantile_with_half_its_sensitivity_is_not_epsilon_private():
    points = (np.arange(4000) + 0.5) / 400
    table = np.full(20, 2.0)
    one, other = (quantile_density(np.array(t), 0.5, 2 * 1.0, 0, 10, points) for t in (table, [*table, 9.0]))
    assert np.abs(np.log(one) - np.log(other)).max() > 1.0


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
        (np.full(300, 8.0), 4.0, 8.0),
        (np.full(300, np.nextafter(8.0, 9.0)), 8.0, 16.0),
        (np.full(300, -1e300), -(2.0**60), -(2.0**59)),
        (np.full(300, 5e-324), 0.0, 2.0**-40),
    ],
)
def test_bounds_are_powers_of_two_around_the_bulk(values, low, high):
    found, event = statistics.bounds(values, noise_multiplier=4.0, noise=HostNoise(9))
    assert found == (low, high) and event == {"kind": "gaussian", "noise_multiplier": 4.0, "count": 1}


@given(st.lists(anything, max_size=20), anything)
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


def test_an_empty_table_has_no_bounds_but_in_one_of_ten_thousand():
    assert scipy.stats.norm.sf(5.0) * (2 * 101 + 1) < 1e-4
    found = {statistics.bounds(np.array([]), noise_multiplier=3.0, noise=HostNoise(seed))[0] for seed in range(200)}
    assert found == {(0.0, 0.0)}


@pytest.mark.parametrize(
    "ends", [(1.0, 1.0), (2.0, 1.0), (0.0, math.inf), (math.nan, 1.0), (-1e308, 1e308), (0.0, 5e-324)]
)
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


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"epsilon": -1.0}, "epsilon -1.0 must be a finite number"),
        ({"epsilon": math.inf}, "epsilon inf"),
        ({"epsilon": math.nan}, "epsilon nan"),
        ({"resolution": 0.0}, "resolution 0.0 must be positive"),
        ({"resolution": 1e-20}, "at most 2.53 steps"),
        ({"resolution": math.nan}, "resolution nan"),
    ],
)
def test_a_quantile_that_cannot_be_drawn_is_refused(changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        statistics.quantiles(
            VALUES, [0.5], **{"lower": 0, "upper": 1, "epsilon": 1.0, "noise": HostNoise(0), **changes}
        )
