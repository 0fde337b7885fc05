"""Metrics of single columns against SciPy, and their properties."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from privsyn_jax.evaluation import columns
from privsyn_jax.evaluation.column_distances import distribution_distances
from privsyn_jax.evaluation.encode import Tables
from privsyn_jax.evaluation.ordering import average_ranks, order_column
from privsyn_jax.evaluation.sums import tree_sum

SIZES = (1, 7, 40)  # few shapes, so that few programs are compiled
TOLERANCE = 2e-6  # float32


def samples(allow_nan=False):
    values = st.floats(0, 1, width=32) | st.sampled_from([0.0, 0.25, 1.0])
    return st.sampled_from(SIZES).flatmap(
        lambda n: hnp.arrays(np.float64, n, elements=values | st.just(np.nan) if allow_nan else values)
    )


def histograms(num_levels=6):
    return hnp.arrays(np.int64, num_levels, elements=st.integers(0, 1000)).filter(lambda counts: counts.sum())


def distances(real, synthetic):
    """{"emd", "kolmogorov_smirnov"} of two samples, as the report computes them."""
    found = distribution_distances([order_column(Tables(real, real, synthetic))])
    return {metric: pair[0, 0] for metric, pair in found.items()}


@settings(max_examples=40, deadline=None)
@given(samples(allow_nan=True), samples(allow_nan=True))
def test_emd_and_kolmogorov_smirnov_equal_scipy_and_are_symmetric(real, synthetic):
    found, swapped = distances(real, synthetic), distances(synthetic, real)
    present = [sample[~np.isnan(sample)] for sample in (real, synthetic)]
    if not all(len(sample) for sample in present):
        assert all(np.isnan(value) for value in found.values())
        return
    assert found["emd"] == pytest.approx(scipy.stats.wasserstein_distance(*present), abs=TOLERANCE)
    with np.errstate(divide="ignore"):  # of its p-value
        statistic = scipy.stats.ks_2samp(*present, method="asymp").statistic
    assert found["kolmogorov_smirnov"] == pytest.approx(statistic, abs=TOLERANCE)
    assert found == pytest.approx(swapped, abs=TOLERANCE)


@settings(max_examples=30, deadline=None)
@given(samples(), st.randoms(use_true_random=False))
def test_equal_samples_have_no_distance_in_any_order(sample, random):
    shuffled = np.array(random.sample(list(sample), len(sample)))
    assert distances(sample, shuffled) == {"emd": 0.0, "kolmogorov_smirnov": 0.0}
    assert distances(np.tile(sample, 2), sample)["emd"] == pytest.approx(0.0, abs=TOLERANCE)


def test_many_rows_keep_six_digits():
    rng = np.random.default_rng(0)
    real, synthetic = 0.5 + 1e-4 * rng.beta(0.3, 3, 300_000), 0.5 + 1e-4 * rng.beta(0.32, 3, 200_000)
    found = distances(real, synthetic)  # float32 could not tell most of these values apart
    assert found["kolmogorov_smirnov"] == pytest.approx(scipy.stats.ks_2samp(real, synthetic).statistic, abs=5e-7)
    assert found["emd"] == pytest.approx(scipy.stats.wasserstein_distance(real, synthetic), rel=1e-5)


@settings(max_examples=40, deadline=None)
@given(histograms(), histograms(), st.integers(1, 9))
def test_jensen_shannon_equals_scipy_and_is_a_bounded_distance(real, synthetic, factor):
    value = float(columns.jensen_shannon(real, synthetic))
    oracle = scipy.spatial.distance.jensenshannon(real, synthetic, base=2)
    assert value == pytest.approx(np.nan_to_num(oracle), abs=1e-5)  # SciPy rounds below 0 and then gives NaN
    assert 0.0 <= value <= 1.0
    assert value == pytest.approx(float(columns.jensen_shannon(synthetic, real)), abs=1e-6)
    assert float(columns.jensen_shannon(real, factor * real)) == pytest.approx(0.0, abs=1e-6)


def test_jensen_shannon_of_close_histograms_does_not_cancel():
    real, synthetic = np.array([500_000, 500_000]), np.array([500_010, 499_990])
    shift = 1e-5
    assert float(columns.jensen_shannon(real, synthetic)) == pytest.approx(shift / np.sqrt(2 * np.log(2)), rel=1e-2)


@pytest.mark.parametrize("missing_rate", [0.0, 0.3])
def test_moments_equal_scipy(missing_rate):
    rng = np.random.default_rng(1)
    values = np.stack([rng.random(3000), rng.exponential(1e-3, 3000), 0.7 + 1e-3 * rng.normal(size=3000)], axis=1)
    values = np.where(rng.random(values.shape) < missing_rate, np.nan, values).astype(np.float32)
    found = columns.moments(values)
    exact = values.astype(np.float64)
    np.testing.assert_allclose(found.mean, np.nanmean(exact, axis=0), atol=1e-7)
    np.testing.assert_allclose(found.stddev, np.nanstd(exact, axis=0), atol=1e-7)
    omit = {"axis": 0, "nan_policy": "omit"}
    np.testing.assert_allclose(found.skewness, scipy.stats.skew(exact, **omit), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.kurtosis, scipy.stats.kurtosis(exact, **omit), rtol=1e-4, atol=1e-4)


def test_moments_that_do_not_exist_are_nan():
    values = np.array([[np.nan, 0.3, 0.0], [np.nan, 0.3, 1.0]], np.float32)
    found = columns.moments(values)
    np.testing.assert_array_equal(np.isnan(np.stack(found)), [[1, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 0]])
    np.testing.assert_allclose(found.stddev[1:], [0.0, 0.5])
    assert float(found.kurtosis[2]) == pytest.approx(-2.0)


def test_moments_of_many_rows_keep_six_digits():
    values = np.random.default_rng(2).random((1_000_000, 1)).astype(np.float32)
    found = columns.moments(values)
    assert float(found.mean[0]) == pytest.approx(values.mean(dtype=np.float64), abs=2e-7)
    assert float(found.stddev[0]) == pytest.approx(values.std(dtype=np.float64), abs=2e-7)


@pytest.mark.parametrize("size", [1, 2, 129, 70_000])
def test_tree_sum_is_the_sum(size):
    values = np.random.default_rng(size).random((size, 2)).astype(np.float32)
    np.testing.assert_allclose(tree_sum(values), values.sum(axis=0, dtype=np.float64), rtol=3e-7)


@settings(max_examples=40, deadline=None)
@given(samples(allow_nan=True))
def test_ranks_equal_scipy(sample):
    ordered = order_column(Tables(sample, sample, sample))
    ranks = average_ranks(ordered.positions.test, ordered.counts.test)
    np.testing.assert_array_equal(ranks, scipy.stats.rankdata(sample, nan_policy="omit"))
