"""The host's metrics equal the jitted ones, and the order of numbers is that of NumPy."""

import itertools

import jax
import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from privsyn_jax.evaluation import columns, fidelity, on_host
from privsyn_jax.evaluation.column_distances import device_distances, distribution_distances
from privsyn_jax.evaluation.distances import fidelity_rows
from privsyn_jax.evaluation.encode import Tables, encode_tables
from privsyn_jax.evaluation.ordering import ascending_order, order_column
from privsyn_jax.evaluation.threads import in_threads
from privsyn_jax.types import Column


@pytest.mark.parametrize(
    ("num_rows", "num_codes"),
    [(1, (2, 3)), (70_000, (2, 5, 3, 21, 22)), (500, (102, 102, 4, 102)), (50, (4,)), (40_000, (300, 301))],
)
def test_pair_counts_equal_the_matrix_product(num_rows, num_codes):
    rng = np.random.default_rng(num_rows)
    codes = np.stack([rng.binomial(k - 1, 0.4, num_rows) for k in num_codes], axis=1).astype(np.int32)
    found = on_host.host_pair_counts(codes, num_codes)
    np.testing.assert_array_equal(found, fidelity.pair_counts(codes, num_codes))
    assert np.diagonal(found).sum() == num_rows * len(num_codes)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=2, max_size=9), st.sampled_from([1, 500, 1 << 15]))
def test_groups_cover_every_pair_within_the_limit(num_codes, max_cells):
    groups = on_host.covering_groups(num_codes, max_cells)
    covered = [pair for group in groups for pair in itertools.combinations(group, 2)]
    assert set(covered) == set(itertools.combinations(range(len(num_codes)), 2))
    assert all(len(group) == 2 or np.prod([num_codes[i] for i in group]) <= max_cells for group in groups)


def test_fifteen_columns_need_as_few_triples_as_there_can_be():
    assert len(on_host.covering_groups((20,) * 15, 8000)) == 35  # of 3 pairs each: 105


@pytest.mark.parametrize("missing_rate", [0.0, 0.3])
def test_correlation_equals_the_jitted_one_and_pandas(missing_rate):
    rng = np.random.default_rng(2)
    values = rng.normal(size=(40_000, 4)) @ rng.normal(size=(4, 4)) * [1, 1e-4, 1, 1] + [0, 1e3, 0, 0.5]
    values[rng.random(values.shape) < missing_rate] = np.nan
    found = on_host.host_correlation(np.asfortranarray(values))
    np.testing.assert_allclose(found, pd.DataFrame(values).corr(), atol=1e-9)
    standard = ((values - np.nanmean(values, axis=0)) / np.nanstd(values, axis=0)).astype(np.float32)
    np.testing.assert_allclose(found, fidelity.correlation(standard), atol=1e-6)


def test_correlation_with_constant_absent_or_disjoint_columns_is_undefined():
    rng = np.random.default_rng(3)
    values = rng.normal(size=(60, 5))
    values[:, 1], values[:, 2], values[:30, 3], values[30:, 4] = 0.1, np.nan, np.nan, np.nan
    found = on_host.host_correlation(values)
    jitted = np.asarray(fidelity.correlation(np.where(np.isnan(values), np.nan, values).astype(np.float32)))
    np.testing.assert_array_equal(np.isnan(found), np.isnan(jitted))
    assert np.isnan(found[1:3]).all() and np.isnan(found[3, 4]) and np.isfinite(found[0, 3])


SAMPLES = hnp.arrays(np.float64, 40, elements=st.floats(0, 1, width=16) | st.just(np.nan))


@settings(max_examples=25, deadline=None)
@given(SAMPLES, SAMPLES)
def test_distances_and_moments_equal_the_jitted_ones(real, synthetic):
    ordered = [order_column(Tables(real, real[:7], synthetic))]
    found, jitted = distribution_distances(ordered), device_distances(ordered)
    for metric, values in found.items():
        np.testing.assert_allclose(values, jitted[metric], atol=1e-6)
    both = np.stack([real, synthetic], axis=1)
    pairs = zip(on_host.host_moments(list(both.T)), columns.moments(both.astype(np.float32)), strict=True)
    for moment, (value, of_jit) in zip(columns.Moments._fields, pairs, strict=True):
        tolerance = 1e-6 if moment in ("mean", "stddev") else 1e-3
        np.testing.assert_allclose(value, of_jit, rtol=tolerance, atol=tolerance)


def test_moments_equal_scipy():
    values = np.random.default_rng(4).exponential(1e-3, (5000, 2)) + np.array([[0.0, 0.7]])
    found = on_host.host_moments(list(values.T))
    np.testing.assert_allclose(found.skewness, scipy.stats.skew(values), rtol=1e-9)
    np.testing.assert_allclose(found.kurtosis, scipy.stats.kurtosis(values), rtol=1e-9)


ANY_FLOATS = st.floats() | st.sampled_from([0.0, -0.0, np.nan, -np.nan, np.inf, -np.inf, 5e-324, -5e-324])
CLOSE_FLOATS = st.builds(
    lambda steps, sign: sign * (1.0 + steps * 2.0**-52), st.integers(0, 9), st.sampled_from([1, -1])
)


@settings(max_examples=200, deadline=None)
@given(hnp.arrays(np.float64, st.integers(0, 50), elements=ANY_FLOATS | CLOSE_FLOATS))
def test_order_is_that_of_numpy(values):
    order = ascending_order(values)
    np.testing.assert_array_equal(np.sort(order), np.arange(len(values)))
    np.testing.assert_array_equal(values[order], np.sort(values))


def test_order_of_numbers_that_differ_in_their_last_bits():
    values = 1.0 + np.random.default_rng(5).permutation(5000) * 2.0**-52  # fewer bits than a place needs
    np.testing.assert_array_equal(values[ascending_order(values)], np.sort(values))


def test_the_accelerators_path_gives_the_same_rows(monkeypatch):
    rng = np.random.default_rng(6)
    kinds = [Column("x", "numeric", 0.0, 1.0, nullable=True), Column("y", "integer", 0, 50)]
    kinds += [Column(name, "categorical", categories=("a", "b", "c")) for name in ("u", "v")]

    def frame(num_rows, shift):
        x = (rng.random(num_rows) + shift).clip(0, 1)
        y, u = (50 * x * rng.random(num_rows)).astype(int), rng.integers(0, 3, num_rows)
        letters = np.array(["a", "b", "c"], object)
        x = np.where(rng.random(num_rows) < 0.1, np.nan, x)
        return pd.DataFrame({"x": x, "y": y, "u": letters[u], "v": letters[np.minimum(u, y % 3)]})

    levels, tables = encode_tables(kinds, [frame(400, 0.0), frame(300, 0.0), frame(350, 0.2)])

    def rows():
        found, pair_errors = fidelity_rows(levels, Tables(*tables), target=None, seed=0)
        names = [(row["metric"], row["column"]) for row in found.metrics]
        return names, np.array([(row["value"], row["reference"]) for row in found.metrics]), found.skipped, pair_errors

    on_cpu = rows()
    called = []
    jitted = fidelity.pair_counts
    monkeypatch.setattr(fidelity, "pair_counts", lambda *args: called.append(args) or jitted(*args))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    on_accelerator = rows()
    assert len(called) == 3
    assert on_cpu[0] == on_accelerator[0] and on_cpu[2] == on_accelerator[2]
    np.testing.assert_allclose(on_cpu[1], on_accelerator[1], atol=2e-6, rtol=2e-6)
    assert on_cpu[3] == on_accelerator[3]


def test_threads_keep_the_order_and_raise():
    assert in_threads(lambda item: item * item, range(9)) == [i * i for i in range(9)]
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda item: 1 / item, [1, 0])
