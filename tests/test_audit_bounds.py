"""Lower bounds on epsilon: they hold, they come near, and a bound that does not hold is seen."""

import math
import sys

import dp_accounting
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from privsyn_jax.evaluation.audit import (
    audit_result,
    audit_to_dict,
    likelihood_scores,
    one_run_bound,
    repeated_bound,
)
from privsyn_jax.types import UserError

DELTA = 1e-5
COMMON = {"delta": DELTA, "confidence": 0.95, "num_canaries": 100}


def gaussian_epsilon(shift: float, delta: float = DELTA) -> float:
    """Of N(0, 1) against N(shift, 1): the truth, in closed form."""
    return dp_accounting.get_epsilon_gaussian(1 / shift, delta)


def one_run(shift: float, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    is_in = rng.random(size) < 0.5
    return rng.normal(size=size) + shift * is_in, is_in


def repeated(shift: float, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=size) + shift, rng.normal(size=size)


def rate_above(bounds: list[float], truth: float) -> float:
    return float(np.mean(np.array(bounds) > truth))


def allowed(significance: float, trials: int) -> float:
    return significance + 4 * math.sqrt(significance * (1 - significance) / trials)


@pytest.mark.parametrize("method", ["approximate", "gaussian"])
@pytest.mark.parametrize("is_given", [False, True])
def test_a_repeated_bound_exceeds_the_truth_no_more_often_than_it_says(method, is_given):
    confidence, trials, middle = 0.8, 200, {"approximate": 2.0, "gaussian": 0.5}
    options = {"delta": DELTA, "confidence": confidence, "method": method}
    threshold = middle[method] if is_given else None
    bounds = [repeated_bound(*repeated(1.0, 1000, n), threshold=threshold, **options) for n in range(trials)]
    assert rate_above(bounds, gaussian_epsilon(1.0)) <= allowed(1 - confidence, trials)
    assert np.median(bounds) > 0.2 * gaussian_epsilon(1.0)


@pytest.mark.parametrize("method", ["approximate", "gaussian"])
def test_a_bound_from_one_run_exceeds_the_truth_no_more_often_than_it_says(method):
    confidence, trials = 0.6, 25
    options = {"delta": DELTA, "confidence": confidence, "method": method}
    bounds = [one_run_bound(*one_run(1.0, 200, n), **options) for n in range(trials)]
    assert rate_above(bounds, gaussian_epsilon(1.0)) <= allowed(1 - confidence, trials)
    assert np.median(bounds) > 0.2 * gaussian_epsilon(1.0)


def test_an_estimate_without_confidence_exceeds_the_truth_too_often():
    """The test above would see a bound that takes rates as they are, at the best threshold of the same scores."""
    above = []
    for seed in range(50):
        members, others = repeated(0.3, 1000, seed)
        thresholds = np.quantile(others, np.linspace(0.5, 0.998, 100))
        hits, alarms = ((scores[:, None] >= thresholds).mean(axis=0) for scores in (members, others))
        above.append(np.log(np.maximum(hits - 0.01, 1e-9) / alarms).max())
    assert rate_above(above, gaussian_epsilon(0.3, 1e-2)) > allowed(0.2, 50)


def test_two_that_are_the_same_give_nothing_where_jax_privacy_finds_a_distance():
    from jax_privacy import auditing

    members, others = (np.arange(100) < 4) * 1.0, (np.arange(100) < 3) * 1.0  # 4 hits, 3 false alarms
    assert auditing.CanaryScoreAuditor(members, others).epsilon_from_gdp(0.05, DELTA) > 1
    assert repeated_bound(members, others, delta=DELTA, method="gaussian", threshold=0.5) == 0.0


@pytest.mark.parametrize(("shift", "size"), [(1.0, 4_000), (0.27, 40_000)])
def test_the_gaussian_bound_from_repeated_runs_is_tight(shift, size):
    bound = repeated_bound(*repeated(shift, size, 0), delta=DELTA, method="gaussian", threshold=shift / 2)
    assert 0.8 * gaussian_epsilon(shift) < bound <= gaussian_epsilon(shift)


def test_clopper_and_pearson_are_tight_at_a_large_delta():
    bound = repeated_bound(*repeated(1.0, 50_000, 0), delta=0.01)
    assert 0.8 * gaussian_epsilon(1.0, 0.01) < bound <= gaussian_epsilon(1.0, 0.01)


@pytest.mark.parametrize(("shift", "size"), [(1.0, 5000), (0.5, 5000)])
def test_the_gaussian_bound_from_one_run_reaches_half(shift, size):
    scores, is_in = one_run(shift, size, 1)
    assert one_run_bound(scores, is_in, delta=DELTA, method="gaussian") >= 0.5 * gaussian_epsilon(shift)


def test_randomized_response_in_one_run_is_found_almost_in_full():
    rng, size, epsilon = np.random.default_rng(0), 20_000, math.log(3)
    is_in = rng.random(size) < 0.5
    answers = np.where(rng.random(size) < 0.75, is_in, ~is_in)  # three to one for the truth: log(3)-DP exactly
    bound = one_run_bound(answers.astype(float), is_in, delta=1e-9)
    assert 0.9 * epsilon < bound <= epsilon


def test_scores_that_tell_everything_give_large_bounds_and_random_ones_none():
    is_in = np.arange(1000) % 2 == 0
    assert one_run_bound(is_in.astype(float), is_in, delta=DELTA) > 4
    assert one_run_bound(np.zeros(1000), is_in, delta=DELTA) == 0
    assert one_run_bound(-is_in.astype(float), is_in, delta=DELTA) == 0
    assert repeated_bound(np.ones(500), np.zeros(500), delta=DELTA) > 4
    assert repeated_bound(np.zeros(500), np.ones(500), delta=DELTA, method="gaussian") == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: one_run_bound(np.zeros(30), np.zeros(29, bool), delta=DELTA), "one shape"),
        (lambda: one_run_bound(np.zeros(5), np.zeros(5, bool), delta=DELTA), "m >= 20"),
        (lambda: one_run_bound(np.full(30, np.nan), np.zeros(30, bool), delta=DELTA), "finite"),
        (lambda: one_run_bound(np.zeros(30), np.zeros(30, bool), delta=0.0), "delta"),
        (lambda: repeated_bound(np.zeros(3), np.zeros(0), delta=DELTA), "both are needed"),
        (lambda: repeated_bound(np.zeros(3), np.zeros(3), delta=DELTA, confidence=1.0), "confidence"),
        (lambda: repeated_bound(np.zeros(3), np.zeros(3), delta=DELTA, method="exact"), "method"),
        (lambda: audit_result("a", claimed_epsilon=math.nan, lower_bound=0.0, **COMMON), "claimed_epsilon"),
    ],
)
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_without_jax_privacy_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax_privacy", None)
    with pytest.raises(UserError, match="audit"):
        one_run_bound(*one_run(1.0, 100, 0), delta=DELTA)


def test_a_likelihood_ratio_is_that_of_the_densities():
    """Brute force over all ways to take part, with correlated noise and two groups."""
    rng, coefficients, rate = np.random.default_rng(0), (0.8, 0.6), np.array([0.5, 0.25, 0.5, 0.25, 0.75])
    stddev, steps, groups = np.full(5, 0.7), 5, 2
    observed = rng.normal(size=(steps, 3))
    matrix = 0.8 * np.eye(steps) + 0.6 * np.eye(steps, k=-1)
    inverse = np.linalg.inv(matrix)
    noise = multivariate_normal(mean=np.zeros(steps), cov=0.7**2 * inverse @ inverse.T)  # type: ignore[arg-type]
    sign = np.array([1, -1, 1, -1, 1])
    ratio = np.zeros(3)
    for group in range(groups):
        own = np.arange(steps) % groups == group
        for number in range(2**steps):
            part = np.array([number >> step & 1 for step in range(steps)], bool)
            if (part & ~own).any():
                continue
            weight = np.prod(np.where(part, rate, 1 - rate)[own]) / groups
            ratio += weight * noise.pdf((observed - (sign * part)[:, None]).T) / noise.pdf(observed.T)
    scores = likelihood_scores(
        observed, stddev=stddev, sampling_rate=rate, coefficients=coefficients, num_groups=groups
    )
    np.testing.assert_allclose(scores, np.log(ratio), rtol=1e-6)


def test_the_verdict_says_what_was_found_and_what_it_means():
    bad = audit_result("x", claimed_epsilon=1.0, lower_bound=1.7, **COMMON)
    good = audit_result("x", claimed_epsilon=math.inf, lower_bound=0.2, **COMMON)
    assert bad.is_violated and "at least epsilon 1.70 where 1.00 is claimed" in bad.sentence
    assert "does not hold" in bad.sentence
    assert not good.is_violated and "cannot prove" in good.sentence
    plain = audit_to_dict([bad, good])
    assert plain["is_violated"] and plain["audits"][0]["lower_bound"] == 1.7
    assert plain["audits"][1]["claimed_epsilon"] is None and not audit_to_dict([good])["is_violated"]
