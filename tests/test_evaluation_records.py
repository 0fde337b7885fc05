"""Metrics of whole records against scikit-learn and brute force, and their behaviour on samples of one law."""

import itertools

import jax
import numpy as np
import pandas as pd
import pytest
import scipy.stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import pairwise_distances
from sklearn.metrics.pairwise import rbf_kernel

from privsyn_jax.evaluation import record_distances
from privsyn_jax.evaluation.encode import Tables, encode_table, encode_tables, make_levels
from privsyn_jax.evaluation.propensity import propensity_mse
from privsyn_jax.evaluation.record_distances import add_record_distances
from privsyn_jax.evaluation.record_vectors import RecordVectors, as_matrix, record_vectors, squared_distances
from privsyn_jax.evaluation.rows import Rows
from privsyn_jax.evaluation.support import support_metrics
from privsyn_jax.evaluation.whole_table import maximum_mean_discrepancy, median_distance, sliced_wasserstein
from privsyn_jax.types import Column

NUM_ROWS = 200  # one size: fewer programs are compiled


def records(seed, *, shift=0.0, num_rows=NUM_ROWS):
    """Two numbers and a category of three."""
    rng = np.random.default_rng(seed)
    numbers = (rng.random((num_rows, 2)) * 0.5 + shift).astype(np.float32)
    return RecordVectors(numbers, np.eye(3, dtype=np.float32)[rng.integers(0, 3, num_rows)])


def shuffled(vectors, seed):
    order = np.random.default_rng(seed).permutation(len(vectors.numbers))
    return RecordVectors(*(block[order] for block in vectors))


REAL, OTHER, SHIFTED = records(0), records(1), records(2, shift=0.3)


def test_distances_are_those_of_the_stated_encoding():
    columns = [Column("x", "numeric", 0.0, 10.0, nullable=True), Column("u", "categorical", categories=("a", "b"))]
    frame = pd.DataFrame({"x": [0.0, 5.0, np.nan, 99.0], "u": ["a", "b", "a", None]})
    levels = [make_levels(column, [pd.Series(frame[column.name])] * 3) for column in columns]
    vectors = record_vectors(levels, encode_table(levels, frame), np.arange(4))
    found = np.asarray(squared_distances(vectors, vectors))
    # 0 and 5 of 10 are 0.5 apart; a missing number is the middle, and 1 away; 99 is cut off at 10; None is a category.
    oracle = [[0, 1.25, 1.25, 2], [1.25, 0, 2, 1.25], [1.25, 2, 0, 2.25], [2, 1.25, 2.25, 0]]
    np.testing.assert_allclose(found, oracle, atol=1e-6)
    matrix = np.asarray(as_matrix(vectors))
    np.testing.assert_allclose(found, pairwise_distances(matrix, metric="sqeuclidean"), atol=1e-6)


def test_sliced_wasserstein_in_one_dimension_is_the_distance():
    one, other = REAL.numbers[:, :1], SHIFTED.numbers[:, :1]
    found = float(sliced_wasserstein(one, other, key=jax.random.key(0)))
    assert found == pytest.approx(scipy.stats.wasserstein_distance(one[:, 0], other[:, 0]), abs=1e-6)


def test_sliced_wasserstein_of_a_shift_is_its_mean_projection():
    shift = np.array([[0.3, 0.4]], np.float32)
    found = float(sliced_wasserstein(REAL.numbers, REAL.numbers + shift, key=jax.random.key(1), num_projections=2000))
    mean, stddev = 0.5 * 2 / np.pi, 0.5 * np.sqrt(0.5 - 4 / np.pi**2)  # of 0.5 |cos| over uniform angles
    assert abs(found - mean) < 4 * stddev / np.sqrt(2000)
    with pytest.raises(ValueError, match="must share one shape"):
        sliced_wasserstein(REAL.numbers, REAL.numbers[:5], key=jax.random.key(2))


def test_maximum_mean_discrepancy_equals_scikit_learn():
    real, synthetic = (np.asarray(as_matrix(vectors), np.float64) for vectors in (REAL, SHIFTED))
    distances = pairwise_distances(real)[np.triu_indices(NUM_ROWS, k=1)]
    bandwidth = median_distance(REAL)
    assert bandwidth == pytest.approx(np.median(distances), abs=1e-5)
    gamma = 1 / (2 * bandwidth**2)
    within = [(rbf_kernel(a, gamma=gamma).sum() - NUM_ROWS) / NUM_ROWS / (NUM_ROWS - 1) for a in (real, synthetic)]
    oracle = np.sqrt(sum(within) - 2 * rbf_kernel(real, synthetic, gamma=gamma).mean())
    assert float(maximum_mean_discrepancy(REAL, SHIFTED, bandwidth)) == pytest.approx(oracle, abs=1e-5)


def test_bandwidth_of_equal_records_is_positive():
    few = RecordVectors(np.array([[0.0], [0.0], [0.0], [1.0]], np.float32), np.zeros((4, 0), np.float32))
    assert median_distance(few) == pytest.approx(0.5)
    assert median_distance(RecordVectors(*(block[:2] for block in few))) == 1.0


def brute_force_support(real, synthetic, k):
    """The four metrics by loops over records and radii."""
    real, synthetic = (np.asarray(as_matrix(vectors), np.float64) for vectors in (real, synthetic))
    radii = np.sort(pairwise_distances(real), axis=1)[:, k]
    across = pairwise_distances(real, synthetic)
    density = (across <= radii[:, None]).sum() / (k * len(synthetic))
    coverage = (across <= radii[:, None]).any(axis=1).mean()
    centre, own_centre = real.mean(axis=0), synthetic.mean(axis=0)
    of_real, of_synthetic = (np.linalg.norm(sample - centre, axis=1) for sample in (real, synthetic))
    own = np.linalg.norm(synthetic - own_centre, axis=1)
    nearest = across.argmin(axis=1)
    covered = across.min(axis=1) <= radii
    alphas, betas = [], []
    for share in np.linspace(0, 1, 101):
        radius = np.quantile(of_real, share, method="higher")
        alphas.append(abs((of_synthetic <= radius).mean() - (of_real <= radius).mean()))
        radius = np.quantile(own, share, method="higher")
        betas.append(abs((covered & (own[nearest] <= radius)).mean() - (own <= radius).mean()))
    alpha, beta = (np.trapezoid(gaps, dx=0.01) for gaps in (alphas, betas))
    return 1 - 2 * alpha, 1 - 2 * beta, density, coverage


@pytest.mark.parametrize("synthetic", [OTHER, SHIFTED], ids=["same law", "shifted"])
def test_support_metrics_equal_brute_force(synthetic):
    oracle = brute_force_support(REAL, synthetic, 5)
    # A rounding may move one record over a radius.
    np.testing.assert_allclose(support_metrics(REAL, synthetic), oracle, atol=2.5 / NUM_ROWS)


def test_support_metrics_tell_copies_strangers_and_lost_modes_apart():
    same = support_metrics(REAL, shuffled(REAL, 3))
    np.testing.assert_allclose(same._replace(density=1.0), 1.0, atol=1e-5)
    assert float(same.density) == pytest.approx(1.2, abs=0.01)
    far = support_metrics(REAL, RecordVectors(SHIFTED.numbers + 9, SHIFTED.flags))
    np.testing.assert_allclose(far, 0.0, atol=0.02)
    lost = RecordVectors(np.tile(REAL.numbers[:10], (20, 1)), np.tile(REAL.flags[:10], (20, 1)))
    narrow = support_metrics(REAL, lost)
    assert float(narrow.coverage) < 0.5 < float(narrow.density)
    with pytest.raises(ValueError, match="more than num_neighbours = 5"):
        support_metrics(RecordVectors(*(block[:5] for block in REAL)), OTHER)


def test_pmse_equals_scikit_learn():
    found = propensity_mse(REAL, SHIFTED)
    features = [np.concatenate([v.numbers, v.numbers**2, v.flags[:, 1:]], axis=1) for v in (REAL, SHIFTED)]
    labels = np.repeat([0, 1], NUM_ROWS)
    features = np.concatenate(features)
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    model = LogisticRegression(C=np.inf, tol=1e-8, max_iter=10_000).fit(features, labels)
    oracle = np.square(model.predict_proba(features)[:, 1] - 0.5).mean()
    assert found.num_features == 6
    assert found.pmse == pytest.approx(oracle, abs=2e-3)
    assert found.ratio > 5


def test_pmse_ratio_is_one_on_average_for_samples_of_one_law():
    ratios = [propensity_mse(records(10 + 2 * i), records(11 + 2 * i)).ratio for i in range(150)]
    standard_error = np.sqrt(2 / 6 / len(ratios))
    assert abs(np.mean(ratios) - 1) < 4 * standard_error  # 0.19: half or twice the expectation fails
    assert np.std(ratios) == pytest.approx(np.sqrt(2 / 6), rel=0.3)


def test_pmse_of_degenerate_samples():
    equal = RecordVectors(np.zeros((20, 1), np.float32), np.ones((20, 1), np.float32))
    assert propensity_mse(equal, equal)[:1] == (0.0,) and propensity_mse(equal, equal).num_features == 0
    apart = propensity_mse(equal, equal._replace(numbers=equal.numbers + 1))
    assert apart.pmse == pytest.approx(0.25, abs=0.01) and np.isfinite(apart.ratio)
    tiny = [RecordVectors(*(block[:4] for block in vectors)) for vectors in (REAL, OTHER)]
    assert np.isfinite(propensity_mse(*tiny).pmse) and np.isnan(propensity_mse(*tiny).ratio)
    with pytest.raises(ValueError, match="equally many"):
        propensity_mse(REAL, tiny[0])


METRICS = {
    "mmd": lambda one, other: maximum_mean_discrepancy(one, other, 0.7),
    "pmse": lambda one, other: propensity_mse(one, other).pmse,
    "sliced_wasserstein": lambda one, other: sliced_wasserstein(
        as_matrix(one), as_matrix(other), key=jax.random.key(3)
    ),
}


@pytest.mark.parametrize("name", METRICS)
def test_distances_are_symmetric_blind_to_order_and_zero_for_equal_samples(name):
    metric = METRICS[name]
    value = float(metric(REAL, SHIFTED))
    assert value == pytest.approx(float(metric(SHIFTED, REAL)), abs=1e-5)
    assert value == pytest.approx(float(metric(shuffled(REAL, 4), shuffled(SHIFTED, 5))), abs=1e-5)
    assert float(metric(REAL, shuffled(REAL, 6))) == pytest.approx(0.0, abs=2e-3 if name == "mmd" else 1e-6)
    assert value > 5 * float(metric(REAL, OTHER))


@pytest.mark.parametrize(
    ("num_rows", "absent"),
    [(1, {"mmd", "pmse_ratio", "alpha_precision"}), (5, {"pmse_ratio", "alpha_precision"}), (NUM_ROWS, set())],
)
def test_rows_of_few_records_have_values_or_reasons(num_rows, absent):
    columns = [Column("x", "numeric", 0.0, 1.0), Column("u", "categorical", categories=("a", "b"))]
    rng = np.random.default_rng(0)
    frames = [
        pd.DataFrame({"x": rng.random(n), "u": rng.choice(np.array(["a", "b"], object), n)})
        for n in (NUM_ROWS, NUM_ROWS, num_rows)
    ]
    levels = [make_levels(column, [pd.Series(frame[column.name]) for frame in frames]) for column in columns]
    rows = Rows("fidelity", 0)
    add_record_distances(rows, levels, Tables(*(encode_table(levels, frame) for frame in frames)), seed=0)
    present = {row["metric"] for row in rows.metrics}
    assert absent.isdisjoint(present)
    reasons = {sentence.split(":")[0] for sentence in rows.skipped}
    assert present | reasons == {
        "sliced_wasserstein", "pmse", "pmse_ratio", "mmd", "alpha_precision", "beta_recall", "density", "coverage",
    }  # fmt: skip
    assert all(np.isfinite([row["value"], row["reference"]]).all() for row in rows.metrics)
    assert all(a != b for a, b in itertools.combinations(rows.skipped, 2))


def test_a_sample_of_a_large_table_says_what_all_of_it_says(monkeypatch):
    """Beyond 10,000 records a part is drawn: it differs by no more than sampling does, and all of it not at all."""
    columns = [Column("x", "numeric", 0.0, 1.0), Column("u", "categorical", categories=("a", "b"))]
    rng = np.random.default_rng(0)
    letters = np.array(["a", "b"], object)
    frames = [
        pd.DataFrame({"x": rng.beta(2, b, 10_500), "u": letters[(rng.random(10_500) < share).astype(int)]})
        for b, share in ((2, 0.5), (2, 0.5), (3, 0.6))
    ]
    levels, tables = encode_tables(columns, frames)

    def found():
        rows = Rows("fidelity", 0)
        add_record_distances(rows, levels, Tables(*tables), seed=0)
        return {row["metric"]: row["value"] for row in rows.metrics}

    part = found()
    monkeypatch.setattr(record_distances, "MAX_RECORDS", 20_000)
    monkeypatch.setattr(record_distances, "MAX_COMPARED", 1_500)
    whole = found()
    assert part.keys() == whole.keys() and part != whole
    # Means over records of terms whose standard deviation is below a half; pmse's are squares below 1/4.
    assert part["pmse"] == pytest.approx(whole["pmse"], abs=4 * 0.125 / np.sqrt(20_000))
    assert part["sliced_wasserstein"] == pytest.approx(whole["sliced_wasserstein"], abs=4 * 0.5 / np.sqrt(10_000))
    for metric in ("alpha_precision", "beta_recall", "coverage", "mmd"):
        assert part[metric] == pytest.approx(whole[metric], abs=4 * 0.5 * np.sqrt(1 / 1_500 + 1 / 3_000))
    assert part["mmd"] > 0.1  # above that tolerance: the tables do differ
