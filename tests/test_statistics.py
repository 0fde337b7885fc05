"""Paired tests against SciPy and closed forms, Holm's correction against a worked example and its properties."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from privsyn_jax.evaluation.statistics import holm, mean_interval, paired, paired_family

CONTESTANT, BASELINE = [0.88, 0.91, 0.87, 0.90, 0.93], [0.86, 0.90, 0.88, 0.87, 0.90]


def test_a_paired_comparison_is_the_t_test_of_the_differences():
    found = paired(CONTESTANT, BASELINE)
    differences = np.subtract(CONTESTANT, BASELINE)
    assert found.mean == pytest.approx(0.016) and found.effect == pytest.approx(0.016 / differences.std(ddof=1))
    one_sample = scipy.stats.ttest_1samp(differences, 0)
    assert found.p_value == pytest.approx(one_sample.pvalue)
    interval = one_sample.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert (found.low > 0) == (found.p_value < 0.05)
    assert 2 / 2**5 <= found.wilcoxon <= 1
    swapped = paired(BASELINE, CONTESTANT)
    assert swapped.p_value == pytest.approx(found.p_value) and swapped.mean == pytest.approx(-found.mean)


def test_equal_differences_are_certain_and_none_is_no_difference():
    assert paired([0.5, 0.75], [0.25, 0.5])[:4] == (0.25, 0.25, 0.25, 0.0)
    assert paired([0.5, 0.75], [0.25, 0.5]).effect == math.inf
    assert paired([0.5, 0.5], [0.5, 0.5]) == (0.0, 0.0, 0.0, 1.0, 1.0, 0.0)


def test_a_nearly_constant_difference_gives_no_warning_and_ranks_know_no_certainty():
    assert paired([0.3, 0.4, 0.5], [0.2, 0.3, 0.4]).p_value < 1e-9
    assert paired([2.0, 3.0, 4.0], [1.0, 2.0, 3.0]).wilcoxon == pytest.approx(2.0**-2)


def test_a_missing_value_leaves_out_its_seed():
    found = paired([math.nan, 2.0, 4.0, 6.0], [9.0, 1.0, 2.0, 3.0])
    assert found == paired([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert all(map(math.isnan, paired([math.nan, 2.0], [1.0, 1.0])))


def test_holm_leaves_out_a_test_that_was_not_made():
    assert holm([0.03, math.nan, 0.01]) == pytest.approx([0.03, math.nan, 0.02], nan_ok=True)


@pytest.mark.parametrize(("contestant", "baseline"), [([1.0], [1.0]), ([1.0, 2.0], [1.0]), ([], [])])
def test_seeds_that_do_not_pair_are_refused(contestant, baseline):
    with pytest.raises(ValueError, match="give the same seeds to both"):
        paired(contestant, baseline)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == [] and holm([0.2]) == [0.2] and holm([0.9, 0.8]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_never_lowers_keeps_the_order_and_stays_below_bonferroni(p_values):
    adjusted = holm(p_values)
    for p, q in zip(p_values, adjusted, strict=True):
        assert p <= q <= min(1.0, p * len(p_values)) + 1e-12 or q == max(adjusted)
    order = np.argsort(p_values, kind="stable")
    assert np.all(np.diff(np.array(adjusted)[order]) >= 0)
    assert all(q <= 1 for q in adjusted)


def test_false_alarms_over_a_family_stay_rare():
    """With nothing to find, some rejection among eight comparisons in at most about 5 % of studies."""
    rng, alarms = np.random.default_rng(0), 0
    for _ in range(400):
        baseline = rng.normal(size=6)
        p_values = [paired(baseline + rng.normal(size=6), baseline).p_value for _ in range(8)]
        alarms += min(holm(p_values)) < 0.05
    assert alarms / 400 < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=8))
def test_the_interval_of_a_mean_is_the_t_tests(values):
    found = mean_interval(values)
    assert found.mean == pytest.approx(np.mean(values), abs=1e-12)
    half = scipy.stats.t.ppf(0.975, len(values) - 1) * scipy.stats.sem(values)
    assert (found.low, found.high) == pytest.approx((found.mean - half, found.mean + half), abs=1e-9)


def test_the_interval_covers_the_mean_as_often_as_it_says():
    rng, covered = np.random.default_rng(0), 0
    for _ in range(2000):
        found = mean_interval(rng.normal(size=3))
        covered += found.low < 0 < found.high
    assert abs(covered / 2000 - 0.95) < 4 * math.sqrt(0.05 * 0.95 / 2000)
    assert all(map(math.isnan, mean_interval([1.0]))) and all(map(math.isnan, mean_interval([math.nan, 2.0])))


def test_a_family_is_corrected_over_all_that_both_have():
    rng = np.random.default_rng(0)
    baseline = {("auc",): rng.normal(size=5), ("f1",): rng.normal(size=5), ("absent",): rng.normal(size=5)}
    contestant = {("auc",): baseline["auc",] + 1 + 0.1 * rng.normal(size=5), ("f1",): rng.normal(size=5)}
    contestant["undefined",] = [math.nan] * 5
    found = paired_family(contestant, {**baseline, ("undefined",): [0.0] * 5})
    assert set(found) == {("auc",), ("f1",)}
    p_values = [scipy.stats.ttest_rel(contestant[name], baseline[name]).pvalue for name in found]
    assert [row["p_value"] for row in found.values()] == pytest.approx(p_values)
    assert [row["p_holm"] for row in found.values()] == pytest.approx(holm(p_values))
    assert found["auc",]["difference"] > 0.9
    equal = paired_family({("a",): [1.0, 2.0]}, {("a",): [0.0, 1.0]})["a",]
    assert equal["effect"] is None and equal["p_value"] == 0.0
