"""Associations of pairs and 3-way histograms against SciPy, scikit-learn and brute force."""

import itertools

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy.stats
from sklearn.feature_selection import f_regression

from privsyn_jax.evaluation import associations, fidelity
from privsyn_jax.evaluation.distances import fidelity_rows
from privsyn_jax.evaluation.encode import Tables, encode_table, make_levels
from privsyn_jax.evaluation.pair_distances import standardised
from privsyn_jax.types import Column

NUM_CODES = (2, 5, 4, 22)  # the last code of the third does not occur


def dependent_codes(num_rows, seed):
    rng = np.random.default_rng(seed)
    first, second, third = (rng.integers(0, k, num_rows) for k in (2, 5, 3))
    return np.stack([first, np.where(rng.random(num_rows) < 0.4, first, second), third, third * 5 + first], 1).astype(
        np.int32
    )


@pytest.mark.parametrize("num_rows", [30, 20_000])
def test_cramers_v_equals_scipy(num_rows):
    codes = dependent_codes(num_rows, 0)
    found = np.asarray(associations.cramers_v(fidelity.pair_counts(codes, NUM_CODES), NUM_CODES))
    for i, j in itertools.combinations(range(4), 2):
        table = pd.crosstab(codes[:, i], codes[:, j]).to_numpy()
        oracle = scipy.stats.contingency.association(table, method="cramer")
        assert found[i, j] == pytest.approx(oracle, abs=2e-5) and found[j, i] == pytest.approx(found[i, j], abs=1e-6)
    assert found[2, 3] == pytest.approx(1.0, abs=1e-6)  # the last determines the third


def test_cramers_v_with_a_constant_is_undefined_and_independence_is_zero():
    codes = np.array(list(itertools.product(range(2), range(5), [1])), np.int32)
    found = np.asarray(associations.cramers_v(fidelity.pair_counts(codes, (2, 5, 4)), (2, 5, 4)))
    assert found[0, 1] == pytest.approx(0.0, abs=1e-6)
    assert np.isnan(found[2]).all()


def brute_force_correlation_ratio(codes, values):
    present = ~np.isnan(values)
    codes, values = codes[present], values[present]
    groups = [values[codes == code] for code in np.unique(codes)]
    between = sum(len(group) * (group.mean() - values.mean()) ** 2 for group in groups)
    return np.sqrt(between / np.square(values - values.mean()).sum())


@pytest.mark.parametrize("missing_rate", [0.0, 0.3])
def test_correlation_ratio_equals_brute_force(missing_rate):
    rng = np.random.default_rng(2)
    codes = dependent_codes(6000, 1)
    values = codes[:, [1, 2]] * [1.0, 1e-3] + rng.normal(size=(6000, 2)) * [1.0, 1e-2] + [0.0, 0.5]
    values[rng.random(values.shape) < missing_rate] = np.nan
    found = np.asarray(associations.correlation_ratio(codes, values.astype(np.float32), NUM_CODES))
    for i, j in itertools.product(range(4), range(2)):
        assert found[i, j] == pytest.approx(brute_force_correlation_ratio(codes[:, i], values[:, j]), abs=1e-4)


def test_correlation_ratio_of_two_groups_is_the_correlation():
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 2, (500, 1)).astype(np.int32)
    values = (codes + rng.normal(size=(500, 1))).astype(np.float32)
    f_statistic = f_regression(codes, values[:, 0])[0][0]
    oracle = np.sqrt(f_statistic / (f_statistic + 498))
    assert float(associations.correlation_ratio(codes, values, (3,))[0, 0]) == pytest.approx(oracle, abs=1e-5)


def test_correlation_ratio_of_a_constant_is_undefined():
    codes = np.array([[0], [1]], np.int32)
    found = associations.correlation_ratio(codes, np.array([[0.3, 0.0], [0.3, 1.0]], np.float32), (2,))
    np.testing.assert_array_equal(np.isnan(found), [[True, False]])
    assert float(found[0, 1]) == pytest.approx(1.0)


def test_triple_total_variation_equals_brute_force():
    real, synthetic = dependent_codes(5000, 4), dependent_codes(300, 5)
    triples = associations.sample_triples(4, 10, 0)
    assert len(triples) == 4
    sizes = jnp.array(NUM_CODES, jnp.int32)
    found = associations.triple_total_variation(real.T, synthetic.T, sizes, triples, 512)
    for value, triple in zip(np.asarray(found), triples, strict=True):
        histograms = [
            pd.Series(map(tuple, codes[:, triple])).value_counts(normalize=True) for codes in (real, synthetic)
        ]
        oracle = 0.5 * histograms[0].sub(histograms[1], fill_value=0).abs().sum()
        assert value == pytest.approx(oracle, abs=2e-6)


def test_triples_are_sampled_by_the_seed():
    some = associations.sample_triples(15, 64, 3)
    assert some.shape == (64, 3) and len({tuple(triple) for triple in some}) == 64
    assert (np.diff(some, axis=1) > 0).all() and some.max() <= 14
    np.testing.assert_array_equal(some, associations.sample_triples(15, 64, 3))
    assert (some != associations.sample_triples(15, 64, 4)).any()


def test_rows_of_pairs_equal_pandas_and_scipy():
    rng = np.random.default_rng(6)
    columns = [Column("x", "numeric", 0.0, 1.0), Column("y", "numeric", 0.0, 1.0)]
    columns += [Column(name, "categorical", categories=("a", "b", "c")) for name in ("u", "v")]

    def table(num_rows, weight):
        x, u = rng.random(num_rows), rng.integers(0, 3, num_rows)
        y = (x + weight * rng.random(num_rows)) / (1 + weight)
        v = np.where(rng.random(num_rows) < weight / 3, rng.integers(0, 3, num_rows), u)
        letters = np.array(["a", "b", "c"], object)
        return pd.DataFrame({"x": x, "y": y, "u": letters[u], "v": letters[v]})

    frames = Tables(table(900, 0.5), table(700, 0.5), table(800, 2.0))
    levels = [make_levels(column, [pd.Series(frame[column.name]) for frame in frames]) for column in columns]
    rows, _ = fidelity_rows(levels, Tables(*(encode_table(levels, f) for f in frames)), target=None, seed=0)
    found = {row["metric"]: (row["value"], row["reference"]) for row in rows.metrics if row["column"] is None}

    def differences(measure):
        train, test, synthetic = (measure(frame) for frame in frames)
        return pytest.approx((abs(synthetic - train), abs(test - train)), abs=1e-5)

    assert found["correlation_difference"] == differences(lambda f: f["x"].corr(f["y"]))
    assert found["spearman_difference"] == differences(lambda f: scipy.stats.spearmanr(f["x"], f["y"]).statistic)
    cramer = lambda f: scipy.stats.contingency.association(pd.crosstab(f["u"], f["v"]).to_numpy())  # noqa: E731
    assert found["cramers_v_difference"] == differences(cramer)
    assert found["spearman_difference"][0] > 5 * found["spearman_difference"][1]
    assert found["cramers_v_difference"][0] > 5 * found["cramers_v_difference"][1]


def test_standardised_keeps_the_digits_of_a_narrow_column():
    values = 1e9 + np.arange(5.0)[:, None]
    np.testing.assert_allclose(standardised(values)[:, 0], (np.arange(5) - 2) / np.sqrt(2), rtol=1e-6)
    assert float(jnp.abs(standardised(np.full((4, 1), 0.1))).max()) == 0.0
