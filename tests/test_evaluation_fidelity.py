"""Distances of histograms and of correlations against SciPy, pandas and brute force, and their properties."""

import itertools

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from privsyn_jax.evaluation import encode, fidelity


def histograms(num_levels=6):
    return hnp.arrays(np.int64, num_levels, elements=st.integers(0, 1000)).filter(lambda counts: counts.sum())


@settings(max_examples=40, deadline=None)
@given(histograms(), histograms(), st.integers(1, 9))
def test_total_variation_is_a_bounded_distance(real, synthetic, factor):
    value = float(fidelity.total_variation(real, synthetic))
    assert 0.0 <= value <= 1.0 + 1e-6
    assert value == pytest.approx(float(fidelity.total_variation(synthetic, real)), abs=1e-6)
    assert float(fidelity.total_variation(real, factor * real)) == pytest.approx(0.0, abs=1e-6)
    largest_event = np.maximum(real / real.sum() - synthetic / synthetic.sum(), 0).sum()
    assert value == pytest.approx(largest_event, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(histograms(), histograms())
def test_kl_divergence_equals_scipy_on_the_smoothed_histograms(real, synthetic):
    occurs = (real + synthetic) > 0
    smoothed = [(counts[occurs] + fidelity.KL_SMOOTHING) for counts in (real, synthetic)]
    value = float(fidelity.kl_divergence(real, synthetic))
    assert value == pytest.approx(scipy.stats.entropy(*smoothed), abs=1e-5)
    assert value >= 0.0


def test_kl_divergence_is_finite_for_disjoint_tables_and_has_the_stated_direction():
    assert np.isfinite(float(fidelity.kl_divergence(np.array([1000, 0]), np.array([0, 1000]))))
    spread, narrow = np.array([500, 500]), np.array([1000, 0])
    # Missing what is real costs more than adding what is not.
    assert float(fidelity.kl_divergence(spread, narrow)) > float(fidelity.kl_divergence(narrow, spread))


def brute_force_pairs(real, synthetic, num_codes):
    """Total variation of every pair by an explicit 2-way histogram."""
    matrix = np.zeros((len(num_codes), len(num_codes)))
    for i, j in itertools.product(range(len(num_codes)), repeat=2):
        shape = num_codes[i] * num_codes[j]
        histograms = [
            np.bincount(codes[:, i] * num_codes[j] + codes[:, j], minlength=shape) / len(codes)
            for codes in (real, synthetic)
        ]
        matrix[i, j] = 0.5 * np.abs(histograms[0] - histograms[1]).sum()
    return matrix


@pytest.mark.parametrize("sizes", [(1, 4096), (5000, 4097)])
def test_pairwise_total_variation_equals_brute_force(sizes):
    rng = np.random.default_rng(1)
    num_codes = (2, 5, 3, 21)
    real, synthetic = (
        np.stack([rng.binomial(k - 1, shift, n) for k in num_codes], axis=1).astype(np.int32)
        for n, shift in zip(sizes, (0.5, 0.6), strict=True)
    )
    pairs = [fidelity.pair_counts(codes, num_codes) for codes in (real, synthetic)]
    matrix = np.asarray(fidelity.pairwise_total_variation(*pairs, num_codes))
    np.testing.assert_allclose(matrix, brute_force_pairs(real, synthetic, num_codes), atol=2e-6)
    counts = [encode.level_counts(codes, max(num_codes)) for codes in (real, synthetic)]
    np.testing.assert_allclose(np.diagonal(matrix), fidelity.total_variation(*counts), atol=2e-6)


def test_pair_counts_are_exact():
    codes = np.zeros((100_000, 2), np.int32)
    codes[:30, 1] = 1
    counts = np.asarray(fidelity.pair_counts(codes, (1, 2)))
    np.testing.assert_array_equal(counts, [[100_000, 99_970, 30], [99_970, 99_970, 0], [30, 0, 30]])


@pytest.mark.parametrize("missing_rate", [0.0, 0.3])
def test_correlation_equals_pandas_pairwise(missing_rate):
    rng = np.random.default_rng(2)
    values = rng.normal(size=(500, 4)) @ rng.normal(size=(4, 4)) * [1, 1e-4, 1, 1] + [0, 1, 0, 0.5]
    values[:, 3] = values[:, 3] > 0.5
    values[rng.random(values.shape) < missing_rate] = np.nan
    np.testing.assert_allclose(fidelity.correlation(values), pd.DataFrame(values).corr(), atol=1e-3)


def test_correlation_of_many_rows_keeps_six_digits():
    rng = np.random.default_rng(4)
    values = rng.normal(size=(500_000, 2)) @ np.array([[1.0, 0.7], [0.0, 0.3]]) + 0.1
    correlation = np.asarray(fidelity.correlation(values.astype(np.float32)))
    np.testing.assert_allclose(correlation, np.corrcoef(values.T), atol=3e-7)


def test_correlation_with_a_constant_is_undefined_and_left_out():
    rng = np.random.default_rng(3)
    values = rng.normal(size=(50, 3)).astype(np.float32)
    constant = values.copy()
    constant[:, 1] = 0.3
    matrix = np.asarray(fidelity.correlation(constant))
    assert np.isnan(matrix[1]).all() and np.isfinite(matrix[0, 2])
    difference = fidelity.correlation_difference(fidelity.correlation(values), matrix)
    assert float(difference) == pytest.approx(0.0, abs=1e-6)
    assert np.isnan(float(fidelity.correlation_difference(matrix[:2, :2], matrix[:2, :2])))


def test_correlation_difference_is_the_mean_over_pairs():
    one = jnp.array([[1.0, 0.5, 0.0], [0.5, 1.0, -0.2], [0.0, -0.2, 1.0]])
    other = jnp.eye(3)
    assert float(fidelity.correlation_difference(one, other)) == pytest.approx(0.7 / 3)
