"""Private statistics: measured sensitivity on neighbouring tables, noise scale, thresholds, projection."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import norm

from privsyn_jax.privacy import release
from privsyn_jax.privacy.noise import HostNoise

SIZES = (2, 3, 4)
PAIRS = list(itertools.combinations(range(len(SIZES)), 2))
GROUPS = [*PAIRS, (2, 0), (1,), (0, 2, 1)]
STANDARD_ERRORS = 5.0


class NoNoise(HostNoise):
    """Zeros, and a record of the stddev asked for."""

    def __init__(self):
        self.asked: list[tuple[tuple[int, ...], float]] = []

    def normal(self, shape, *, stddev):
        self.asked.append((shape, stddev))
        return np.zeros(shape)


def released_vector(result) -> np.ndarray:
    values = result[0].values() if isinstance(result[0], dict) else result[0]
    return np.concatenate([np.ravel(value) for value in values])


def move(mechanism, table: np.ndarray, record: np.ndarray) -> np.ndarray:
    """How the noise-free release changes when the record is added."""
    before, after = (released_vector(mechanism(t, NoNoise())) for t in (table, np.vstack([table, record])))
    return after - before


codes = st.tuples(*(st.integers(0, size - 1) for size in SIZES))
tables = st.lists(codes, max_size=15).map(lambda rows: np.array(rows, np.int32).reshape(-1, len(SIZES)))
records = codes.map(lambda row: np.array([row], np.int32))
weights = st.tuples(
    *(
        hnp.arrays(np.float64, size, elements=st.floats(0, 50)).filter(lambda counts: counts.sum() > 1e-3)
        for size in SIZES
    )
)


@settings(deadline=None)
@given(tables, records)
def test_a_record_moves_histograms_by_the_square_root_of_the_number_of_columns(table, record):
    change = move(lambda t, n: release.histograms(t, SIZES, noise_multiplier=2.0, noise=n), table, record)
    assert np.linalg.norm(change) == pytest.approx(math.sqrt(len(SIZES)), rel=1e-12)


@settings(deadline=None)
@given(tables, records, st.lists(st.sampled_from(GROUPS), min_size=1, unique=True))
def test_a_record_moves_contingency_tables_by_the_square_root_of_their_number(table, record, groups):
    change = move(
        lambda t, n: release.contingency_tables(t, SIZES, groups, noise_multiplier=2.0, noise=n), table, record
    )
    assert np.linalg.norm(change) == pytest.approx(math.sqrt(len(groups)), rel=1e-12)


@settings(deadline=None)
@given(tables, records, st.dictionaries(st.sampled_from(GROUPS), st.floats(0.1, 10.0), min_size=1))
def test_weighted_tables_in_units_of_their_own_noise_move_as_one_gaussian_release(table, record, weighted):
    groups, noise = list(weighted), NoNoise()
    common = {"noise_multiplier": 2.0, "weights": list(weighted.values())}
    before = release.contingency_tables(table, SIZES, groups, noise=noise, **common)[0]
    after = release.contingency_tables(np.vstack([table, record]), SIZES, groups, noise=NoNoise(), **common)[0]
    moved = [
        np.linalg.norm(after[group] - before[group]) / stddev
        for group, (_, stddev) in zip(groups, noise.asked, strict=True)
    ]
    assert math.hypot(*moved) == pytest.approx(1 / 2.0, rel=1e-12)


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, -2.0], [1.0, math.nan]])
def test_weights_that_leave_a_table_without_its_noise_are_refused(weights):
    with pytest.raises(ValueError, match="must be positive, one for each of 2 groups"):
        release.contingency_tables(
            np.zeros((1, 3), np.int32), SIZES, PAIRS[:2], noise_multiplier=1.0, noise=NoNoise(), weights=weights
        )


@settings(deadline=None)
@given(tables, records, weights, st.floats(1.0, 1e4))
def test_a_record_moves_every_dependence_score_by_at_most_one(table, record, counts, total):
    one_way = [values / values.sum() * total for values in counts]
    change = move(lambda t, n: release.dependence_scores(t, one_way, noise_multiplier=2.0, noise=n), table, record)
    assert np.abs(change).max() <= 1 + 1e-9
    assert np.linalg.norm(change) <= math.sqrt(len(PAIRS)) + 1e-9


def test_scores_against_the_tables_own_marginals_would_exceed_the_stated_sensitivity():
    # Why one_way must be released counts: were it computed from the records, it would move with the record too.
    def own_marginals(table, noise):
        one_way = [np.bincount(table[:, j], minlength=size) for j, size in enumerate(SIZES)]
        return release.dependence_scores(table, one_way, noise_multiplier=2.0, noise=noise)

    change = move(own_marginals, np.zeros((20, 3), np.int32), np.ones((1, 3), np.int32))
    assert np.abs(change).max() > 1.5


@settings(deadline=None)
@given(tables)
def test_counts_and_scores_are_right_without_noise(table):
    histograms, _, _ = release.histograms(table, SIZES, noise_multiplier=1.0, noise=NoNoise())
    pairs, _, _ = release.contingency_tables(table, SIZES, PAIRS, noise_multiplier=1.0, noise=NoNoise())
    flat = [np.full(size, 6.0 / size) for size in SIZES]
    scores, _, _ = release.dependence_scores(table, flat, noise_multiplier=1.0, noise=NoNoise())
    for j, size in enumerate(SIZES):
        assert histograms[j].tolist() == [int(np.sum(table[:, j] == code)) for code in range(size)]
    for i, j in PAIRS:
        brute = np.zeros((SIZES[i], SIZES[j]))
        for row in table:
            brute[row[i], row[j]] += 1
        assert np.array_equal(pairs[i, j], brute)
        assert scores[i, j] == pytest.approx(np.abs(brute - 6.0 / brute.size).sum())


def noisy_histograms(noise_multiplier):
    empty = np.zeros((0, 2), np.int32)
    return release.histograms(empty, (40_000, 40_000), noise_multiplier=noise_multiplier, noise=HostNoise(1)), 2


def noisy_pairs(noise_multiplier):
    empty, sizes, pairs = np.zeros((0, 3), np.int32), (200, 200, 200), [(0, 1), (0, 2), (1, 2)]
    return (
        release.contingency_tables(empty, sizes, pairs, noise_multiplier=noise_multiplier, noise=HostNoise(2)),
        len(pairs),
    )


def noisy_pair_of_weight_two(noise_multiplier):
    """One of weight 2 beside one of 1: of its noise, doubled, the multiplier is sqrt(5)."""
    empty, sizes, pairs = np.zeros((0, 3), np.int32), (200, 200, 200), [(0, 1), (0, 2)]
    tables, stddev, event = release.contingency_tables(
        empty, sizes, pairs, noise_multiplier=noise_multiplier, noise=HostNoise(5), weights=[2.0, 1.0]
    )
    return ({"doubled": 2 * tables[0, 1], "other": tables[0, 2]}, stddev, event), 5


def noisy_scores(noise_multiplier):
    zeros, one_way = np.zeros((5, 100), np.int32), [np.array([5.0])] * 100  # every exact score is 0
    return (
        release.dependence_scores(zeros, one_way, noise_multiplier=noise_multiplier, noise=HostNoise(3)),
        100 * 99 // 2,
    )


@pytest.mark.parametrize("noisy", [noisy_histograms, noisy_pairs, noisy_pair_of_weight_two, noisy_scores])
@pytest.mark.parametrize("noise_multiplier", [0.5, 3.0])
def test_noise_is_the_multiplier_times_the_sensitivity(noisy, noise_multiplier):
    result, squared_sensitivity = noisy(noise_multiplier)
    noise, stated, event = released_vector(result), result[1], result[2]

    def as_stated(sample):
        z = sample / (noise_multiplier * math.sqrt(squared_sensitivity))
        return abs(z.std() - 1) * math.sqrt(2 * z.size) < STANDARD_ERRORS

    assert stated == pytest.approx(noise_multiplier * math.sqrt(squared_sensitivity), rel=1e-12)
    assert event == {"kind": "gaussian", "noise_multiplier": noise_multiplier, "count": 1}
    assert as_stated(noise) and not as_stated(1.1 * noise) and not as_stated(0.9 * noise)
    assert abs(noise.mean()) * math.sqrt(noise.size) < STANDARD_ERRORS * stated
    halves = noise[: noise.size // 2], noise[noise.size // 2 : noise.size // 2 * 2]
    assert abs(np.corrcoef(*halves)[0, 1]) * math.sqrt(noise.size / 2) < STANDARD_ERRORS


def test_a_value_of_one_record_comes_out_with_probability_delta_shared_by_the_columns():
    delta, count = 0.05, 200_000
    singles = [list(range(count))] * 2
    released, gaussian, approximate = release.categories(singles, noise_multiplier=1.5, delta=delta, noise=HostNoise(4))
    passed = sum(map(len, released)) / (2 * count)
    error = math.sqrt(delta / 2 * (1 - delta / 2) / (2 * count))
    assert abs(passed - delta / 2) < STANDARD_ERRORS * error < 0.1 * delta / 2  # a tenth more would be seen
    assert gaussian == {"kind": "gaussian", "noise_multiplier": 1.5, "count": 1}
    assert approximate == {"kind": "approximate", "epsilon": 0.0, "delta": delta, "count": 1}


@pytest.mark.parametrize("num_columns", [1, 3])
def test_only_counts_above_the_threshold_come_out_sorted(num_columns):
    noise, delta = NoNoise(), 1e-6
    stddev = 2.0 * math.sqrt(num_columns)
    threshold = 1 + stddev * norm.isf(delta / num_columns)
    values = ["z"] * math.ceil(threshold) + ["rare"] * math.floor(threshold) + ["a"] * 500 + ["once"]
    released, _, _ = release.categories([values] * num_columns, noise_multiplier=2.0, delta=delta, noise=noise)
    assert released == [["a", "z"]] * num_columns
    assert noise.asked == [((4,), pytest.approx(stddev))] * num_columns


def test_adding_a_record_changes_one_count_of_each_column_of_categories():
    # The released set depends on the records through these counts alone: order does not matter.
    values = ["b"] * 300 + ["a"] * 200
    shuffled = np.random.default_rng(0).permutation(values).tolist()
    results = [
        release.categories([column], noise_multiplier=1.0, delta=1e-6, noise=NoNoise())[0]
        for column in (values, shuffled, values[::-1])
    ]
    assert results == [[["a", "b"]]] * 3


noisy_counts = hnp.arrays(
    np.float64, hnp.array_shapes(min_dims=1, max_dims=2, min_side=1, max_side=12), elements=st.floats(-1e4, 1e4)
)


@settings(max_examples=200, deadline=None)
@given(noisy_counts, st.floats(1e-2, 1e5))
def test_projection_meets_the_optimality_conditions(noisy, total):
    projected = release.project_to_counts(noisy, total)
    scale = np.abs(noisy).max() + total
    assert projected.shape == noisy.shape and (projected >= 0).all()
    assert projected.sum() == pytest.approx(total, abs=1e-9 * scale)
    # Karush, Kuhn and Tucker: one multiplier, exact where a count is kept, an upper bound where it is cut to zero.
    kept = projected > 0
    multiplier = (noisy - projected)[kept]
    assert np.ptp(multiplier) <= 1e-9 * scale
    assert (noisy[~kept] <= multiplier.max() + 1e-9 * scale).all()


def test_projection_leaves_what_is_already_there():
    counts = np.array([[3.0, 0.0], [1.0, 6.0]])
    np.testing.assert_allclose(release.project_to_counts(counts, 10.0), counts, atol=1e-12)
