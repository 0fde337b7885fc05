"""Selection: the number of trials is drawn as charged, and what comes out respects the charge."""

import itertools
import math

import dp_accounting
import numpy as np
import pytest
import scipy.stats

from privsyn_jax.privacy.ledger import Ledger
from privsyn_jax.privacy.noise import HostNoise
from privsyn_jax.privacy.selection import Selection, draw_num_trials, num_trials_pmf, select

SHAPES = [0.0, 0.5, 1.0, 3.0, "poisson"]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mean", [1.5, 10.0])
def test_the_distribution_is_one_and_has_the_mean_that_is_charged(shape, mean):
    numbers, probabilities = zip(*itertools.islice(num_trials_pmf(mean, shape), 3000), strict=True)
    assert math.fsum(probabilities) == pytest.approx(1.0, abs=1e-9)
    assert np.dot(numbers, probabilities) == pytest.approx(mean, rel=1e-6)
    if shape == 1.0:
        np.testing.assert_allclose(probabilities[:50], scipy.stats.geom.pmf(numbers[:50], 1 / mean), rtol=1e-6)
    if shape == 0.0:
        ratio = probabilities[1] / probabilities[0] * 2
        np.testing.assert_allclose(probabilities[:50], scipy.stats.logser.pmf(numbers[:50], ratio), rtol=1e-6)
    if shape == "poisson":
        np.testing.assert_allclose(probabilities[:50], scipy.stats.poisson.pmf(numbers[:50], mean), rtol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_draws_follow_the_distribution(shape):
    noise, trials = HostNoise(0), 4000
    drawn = np.array([draw_num_trials(4.0, shape, noise) for _ in range(trials)])
    expected = np.array([trials * p for _, p in itertools.islice(num_trials_pmf(4.0, shape), 60)])
    first = 0 if shape == "poisson" else 1
    observed = np.bincount(drawn - first, minlength=60)[:60]
    kept = expected > 10
    chi_square = np.sum((observed[kept] - expected[kept]) ** 2 / expected[kept])
    assert scipy.stats.chi2.sf(chi_square, kept.sum() - 1) > 1e-6
    assert drawn.min() >= first


def test_one_trial_is_certain_at_mean_one():
    assert [draw_num_trials(1.0, 1.0, HostNoise(seed)) for seed in range(20)] == [1] * 20


def randomized_response(epsilon: float) -> tuple[np.ndarray, np.ndarray]:
    """P(score 1) and P(score 0) on either of two neighbouring tables."""
    true = math.exp(epsilon) / (1 + math.exp(epsilon))
    return np.array([true, 1 - true]), np.array([1 - true, true])


def best_of(distribution: np.ndarray, pmf) -> np.ndarray:
    """Exact distribution of the best score over a random number of trials: P(all scores are 0) = E[p0^K]."""
    none = math.fsum(probability * distribution[1] ** number for number, probability in pmf)
    return np.array([1 - none, none])


def hockey_stick(first: np.ndarray, second: np.ndarray, epsilon: float) -> float:
    return max(np.maximum(p - math.exp(epsilon) * q, 0).sum() for p, q in ((first, second), (second, first)))


@pytest.mark.parametrize("shape", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("mean", [2.0, 10.0])
def test_what_comes_out_respects_the_charge(shape, mean):
    epsilon, delta = 0.3, 1e-3
    pmf = list(itertools.islice(num_trials_pmf(mean, shape), 5000))
    outputs = [best_of(distribution, pmf) for distribution in randomized_response(epsilon)]
    ledger = Ledger()
    select([0], lambda candidate, receipt: (0.0, None), events=[{"kind": "pure", "epsilon": epsilon, "count": 1}],
           mean=mean, shape=shape, ledger=ledger, noise=HostNoise(0))  # fmt: skip
    claimed = ledger.epsilon(delta)
    assert epsilon < claimed < math.inf and hockey_stick(*outputs, claimed) <= delta


def test_the_best_of_a_fixed_number_of_trials_costs_more_than_one_trial():
    """What grid searches do, uncharged: ten trials at 0.3 reveal up to epsilon 3."""
    first, second = (best_of(distribution, [(10, 1.0)]) for distribution in randomized_response(0.3))
    assert math.log(second[1] / first[1]) == pytest.approx(10 * 0.3, rel=1e-6)


def test_the_charge_is_dp_accountings_and_is_made_before_the_first_trial():
    ledger, seen = Ledger(), []
    events = [{"kind": "poisson_gaussian", "sampling_rate": 0.01, "noise_multiplier": 1.0, "count": 1000}]

    def trial(candidate, receipt):
        seen.append((candidate, receipt.is_booked, len(ledger.entries)))
        return float(candidate), f"model {candidate}"

    chosen = select("ab", lambda c, r: trial(ord(c), r), events=events, mean=10.0, ledger=ledger, noise=HostNoise(1))
    assert isinstance(chosen, Selection) and chosen.score == max(score for score, *_ in seen)
    assert chosen.output == f"model {ord(chosen.candidate)}" and all(booked and n == 1 for _, booked, n in seen)
    step = dp_accounting.PoissonSampledDpEvent(0.01, dp_accounting.GaussianDpEvent(1.0))
    accountant = dp_accounting.rdp.RdpAccountant(list(range(2, 257)))
    run = dp_accounting.SelfComposedDpEvent(step, 1000)
    accountant.compose(dp_accounting.dp_event.RepeatAndSelectDpEvent(run, 10.0, 1.0))
    assert ledger.epsilon(1e-5) == pytest.approx(accountant.get_epsilon(1e-5), rel=1e-2)
    assert "select" in ledger.accountant and "Renyi" in ledger.accountant


def test_candidates_are_drawn_evenly():
    noise, drawn = HostNoise(2), []
    for _ in range(600):
        select(range(3), lambda c, r: (drawn.append(c) or 0.0, None), mean=2.0, ledger=Ledger(), noise=noise,
               events=[{"kind": "pure", "epsilon": 0.1, "count": 1}])  # fmt: skip
    counts = np.bincount(drawn)
    assert scipy.stats.chisquare(counts).pvalue > 1e-6 and len(counts) == 3


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"candidates": []}, "no candidates"),
        ({"mean": 0.5}, "mean 0.5 must be at least 1"),
        ({"mean": math.nan}, "mean nan"),
        ({"shape": -1.0}, "shape -1.0"),
        ({"shape": "binomial"}, "shape 'binomial'"),
        ({"events": []}, "list what one trial is charged as"),
    ],
)
def test_what_cannot_be_charged_is_refused_before_a_trial(changes, complaint):
    def trial(candidate, receipt):
        raise AssertionError("a trial was run")

    arguments = {"candidates": [1], "events": [{"kind": "pure", "epsilon": 0.1, "count": 1}], "mean": 2.0, **changes}
    with pytest.raises(ValueError, match=complaint):
        select(arguments.pop("candidates"), trial, ledger=Ledger(), noise=HostNoise(0), **arguments)
