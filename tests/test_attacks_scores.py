"""Rates of attacks and their intervals: oracles, coverage by simulation, verdicts."""

import json
import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from privsyn_jax.evaluation.attacks.linkage import paired_gap_interval
from privsyn_jax.evaluation.attacks.reconstruction import mean_gap_interval, nearness_result
from privsyn_jax.evaluation.attacks.scores import (
    Interval,
    advantage_interval,
    auc_interval,
    concluded,
    difference_interval,
    guarded_auc_interval,
    membership_result,
    newcombe_interval,
    result_to_dict,
    share_interval,
    true_positive_rate,
    true_positive_rate_interval,
    untied,
)

_TRIALS = 400


def at_least(successes, trials, rate):
    """Whether a rate of at least `rate` is compatible with the count, at four standard errors."""
    return successes / trials > rate - 4 * math.sqrt(rate * (1 - rate) / trials)


def covers(interval, truth):
    return interval.low <= truth <= interval.high


def test_interval_of_the_auc_equals_delong():
    rng = np.random.default_rng(0)
    members, controls = rng.integers(0, 9, 40) + 1.0, rng.integers(0, 9, 30) + 0.0
    wins = (members[:, None] > controls[None, :]) + 0.5 * (members[:, None] == controls[None, :])
    variance = wins.mean(axis=1).var(ddof=1) / 40 + wins.mean(axis=0).var(ddof=1) / 30
    found = auc_interval(members, controls)
    assert found.value == pytest.approx(wins.mean())
    assert found.high - found.low == pytest.approx(2 * 1.959964 * math.sqrt(variance))
    assert auc_interval(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == (1, 1, 1)


def test_interval_holds_the_true_auc_as_often_as_it_says():
    rng = np.random.default_rng(0)
    true_auc = 0.6381632  # P(N(0.5, 1) > N(0, 1)) = Phi(0.5 / sqrt 2)
    found = [auc_interval(rng.normal(0.5, 1, 80), rng.normal(size=80)) for _ in range(_TRIALS)]
    share = np.mean([covers(interval, true_auc) for interval in found])
    assert abs(share - 0.95) < 4 * math.sqrt(0.95 * 0.05 / _TRIALS)


@pytest.mark.parametrize("num, shift", [(5, 0.0), (8, 1.0), (12, 3.0)])
def test_few_scores_get_an_interval_that_is_wide_enough(num, shift):
    rng = np.random.default_rng(1)
    truth = stats.norm.cdf(shift / math.sqrt(2))
    drawn = [(rng.normal(shift, 1, num), rng.normal(size=num)) for _ in range(_TRIALS)]
    assert at_least(sum(covers(guarded_auc_interval(*pair), truth) for pair in drawn), _TRIALS, 0.95)
    if shift == 3:  # DeLong's alone is not
        assert sum(covers(auc_interval(*pair), truth) for pair in drawn) < 0.9 * _TRIALS


def test_newcombe_solves_its_equation():
    found = newcombe_interval(0.7, 20, 30)
    for end in (found.low, found.high):
        spread = end * (1 - end) * (1 + 24 * (1 - end) / (2 - end) + 24 * end / (1 + end)) / 600
        assert abs(0.7 - end) == pytest.approx(1.959964 * math.sqrt(spread), rel=1e-6)
    assert newcombe_interval(1.0, 20, 30).high == 1 and 0.8 < newcombe_interval(1.0, 20, 30).low < 1


def test_advantage_is_not_chosen_on_what_it_is_measured_on():
    rng = np.random.default_rng(0)
    chance = [advantage_interval(*rng.normal(size=(2, 20))) for _ in range(300)]
    values = [found.value for found in chance]
    assert abs(np.mean(values)) < 4 * np.std(values) / math.sqrt(300)
    assert at_least(sum(covers(found, 0.0) for found in chance), 300, 0.95)
    assert advantage_interval(np.array([3.0, 4, 3, 4]), np.array([1.0, 2, 1, 2])).value == 1
    assert advantage_interval(np.ones(6), np.ones(6)).value == 0


def test_interval_of_the_advantage_holds_that_of_its_thresholds():
    rng, held, shift = np.random.default_rng(2), 0, 1.0
    best = 2 * stats.norm.cdf(shift / 2) - 1  # of the best threshold; with 200 scores the chosen ones come close
    for _ in range(_TRIALS):
        held += covers(advantage_interval(rng.normal(shift, 1, 200), rng.normal(size=200)), best - 0.01)
    assert at_least(held, _TRIALS, 0.94)


def test_shares_and_their_differences():
    exact = stats.binomtest(7, 20).proportion_ci(method="exact")
    assert share_interval(7, 20)[1:] == pytest.approx((exact.low, exact.high))
    assert share_interval(0, 20).low == 0 and share_interval(20, 20).high == 1
    # Newcombe 1998, table II, method 10: 56/70 less 48/80
    assert difference_interval(56 / 70, 70, 48 / 80, 80)[1:] == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_true_positive_rate_keeps_to_its_false_positives():
    controls = np.arange(200.0)
    assert true_positive_rate(np.array([197.5, 198, 300, 0]), controls, false_positive_rate=0.01) == 3 / 4
    assert true_positive_rate(np.array([197.0, 198, 300, 0]), controls, false_positive_rate=0.01) == 2 / 4
    assert true_positive_rate(np.ones(5), np.ones(200), false_positive_rate=0.01) == 0


@pytest.mark.parametrize("shift", [0.0, 2.0])
@pytest.mark.parametrize("num_controls", [150, 1000])
def test_rate_at_an_estimated_threshold_is_covered(shift, num_controls):
    rng, held, ignorant = np.random.default_rng(3), 0, 0
    truth = stats.norm.sf(stats.norm.isf(0.01) - shift)
    for _ in range(_TRIALS):
        members, controls = rng.normal(shift, 1, 500), rng.normal(size=num_controls)
        held += covers(true_positive_rate_interval(members, controls, 0.01), truth)
        plain = true_positive_rate(members, controls, false_positive_rate=0.01)
        ignorant += covers(share_interval(round(500 * plain), 500), truth)
    assert at_least(held, _TRIALS, 0.95)
    if shift:  # as if the threshold were known: far too narrow
        assert ignorant < 0.9 * _TRIALS


def test_rate_at_a_threshold_needs_controls_for_a_lower_bound():
    members = np.full(1000, 9.0)
    assert true_positive_rate_interval(members, np.arange(4000.0) / 4000, 0.001).low == 0
    assert true_positive_rate_interval(members, np.arange(4800.0) / 4800, 0.001).low > 0.99


def test_equal_scores_are_taken_in_random_order():
    members, controls = untied(np.zeros(2000), np.zeros(2000), seed=0)
    assert sorted(np.concatenate([members, controls])) == list(range(1, 4001))
    assert abs(roc_auc_score(np.repeat([1, 0], 2000), np.concatenate([members, controls])) - 0.5) < 4 * 0.0092
    first, second = untied(np.array([1.0, 5.0]), np.array([0.0, 1.0, 7.0]), seed=0)
    assert second[0] < first[0] < first[1] < second[2] and second[0] < second[1] < first[1]


def test_paired_gap_and_mean_gap():
    first, second = np.array([True] * 9 + [False] * 31), np.array([False] * 8 + [True] * 2 + [False] * 30)
    found = paired_gap_interval(first, second)
    assert found.value == pytest.approx(7 / 40)
    exact = stats.binomtest(8, 9).proportion_ci(method="exact")
    assert found[1:] == pytest.approx((9 / 40 * (2 * exact.low - 1), 9 / 40 * (2 * exact.high - 1)))
    assert paired_gap_interval(first, first) == (0, 0, 0)
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 2, 30), rng.normal(0, 1, 20)
    welch = stats.ttest_ind(a, b, equal_var=False).confidence_interval()
    assert mean_gap_interval(a, b)[1:] == pytest.approx((welch.low, welch.high))
    assert mean_gap_interval(np.ones(4), np.zeros(4)) == (1, 0, 1)


def test_verdict_of_an_attack_that_knows_nothing_errs_at_its_nominal_rate():
    rng = np.random.default_rng(5)
    found = [membership_result("a", *rng.normal(size=(2, 200)), seed=i) for i in range(_TRIALS)]
    alarms = sum(result.is_detected for result in found)
    assert alarms <= stats.binom(_TRIALS, 0.05).ppf(0.9999)
    assert alarms > 0  # the intervals are not vacuous
    silent = next(result for result in found if not result.is_detected)
    assert silent.verdict.startswith("no detectable advantage: auc 0.") and "success" not in silent.verdict


def test_result_of_a_strong_attack():
    rng = np.random.default_rng(6)
    result = membership_result("strong", rng.normal(2, 1, 600), rng.normal(size=600), seed=0, notes=("a note",))
    assert result.is_detected and result.verdict.startswith("members are told from controls: auc 0.9")
    assert list(result.metrics) == ["auc", "advantage", "tpr_at_fpr_0.01"] == list(result.baseline)
    assert result.notes[0] == "a note" and "tpr_at_fpr_0.001 is absent: it needs 1,000 controls" in result.notes[1]
    assert all(found.low <= found.value <= found.high for found in result.metrics.values())
    plain = json.loads(json.dumps(result_to_dict(result), allow_nan=False))
    assert plain["metrics"]["auc"]["low"] == result.metrics["auc"].low and plain["num_members"] == 600


def test_order_of_the_scores_does_not_matter_for_the_halves():
    scores = np.sort(np.random.default_rng(0).normal(size=400))
    result = membership_result("sorted", scores, scores, seed=0)
    assert abs(result.metrics["advantage"].value) < 0.15 and not result.is_detected


@pytest.mark.parametrize(
    "members, controls", [([0.0], [1.0, 2.0]), ([0.0, math.nan], [1.0, 2.0]), ([0, 1], [math.inf, 1])]
)
def test_scores_that_are_none_are_refused(members, controls):
    with pytest.raises(ValueError, match="give"):
        membership_result("a", np.array(members), np.array(controls), seed=0)


def test_members_below_controls_are_no_success_but_are_mentioned():
    rng = np.random.default_rng(7)
    result = membership_result("reversed", rng.normal(-2, 1, 300), rng.normal(size=300), seed=0)
    assert not result.is_detected and any("auc lies below its baseline" in note for note in result.notes)


def test_many_metrics_make_each_count_for_less():
    interval = {0.95: Interval(0.1, 0.01, 0.2), 0.975: Interval(0.1, -0.01, 0.2)}
    estimates = {name: lambda level: interval[round(level, 3)] for name in "abcd"}
    result = concluded("a", estimates, dict.fromkeys(estimates, 0.0), num_members=5, num_controls=5)
    assert not result.is_detected and "too often by chance" in result.notes[0]
    pair = {name: estimates[name] for name in "ab"}
    assert concluded("a", pair, dict.fromkeys(pair, 0.0), num_members=5, num_controls=5).is_detected


def test_nearness_of_equal_and_of_nearer_records():
    rng = np.random.default_rng(8)
    equal = [nearness_result("n", *rng.exponential(size=(2, 300)), seed=i).is_detected for i in range(100)]
    assert sum(equal) <= stats.binom(100, 0.05).ppf(0.9999)
    near = nearness_result("n", np.r_[np.zeros(120), rng.exponential(size=480)], rng.exponential(size=600), seed=0)
    assert near.is_detected and near.metrics["share_nearer_than_1_percent"].low > 0.1
    assert near.metrics["mean_distance_gap"].value > 0
    few = nearness_result("n", np.zeros(9), np.ones(9), seed=0)
    assert "share_nearer_than_1_percent" not in few.metrics and "needs 100 held-out" in few.notes[0]
