"""Selection: the number of trials is drawn as charged, and what comes out respects the charge."""

import itertools
import math

import dp_accounting
import numpy as np
import pytest
import scipy.stats
from dp_accounting.rdp import rdp_privacy_accountant

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


@pytest.mark.parametrize("mean", [1.0, 1 + 1e-12])
@pytest.mark.parametrize("shape", [0.0, 1.0, 3.0])
def test_one_trial_is_certain_at_mean_one(mean, shape):
    assert [draw_num_trials(mean, shape, HostNoise(seed)) for seed in range(20)] == [1] * 20


@pytest.mark.parametrize(("mean", "shape"), [(900.0, "poisson"), (900.0, 1000.0), (1 + 1e-6, 0.0), (1.5, 1e6)])
def test_distributions_whose_first_probability_is_tiny_or_all_there_is_are_drawn_right(mean, shape):
    """exp(-900) is no float64: multiplied up from there, every draw would be the same number."""
    numbers, probabilities = zip(*itertools.islice(num_trials_pmf(mean, shape), 5000), strict=True)
    assert math.fsum(probabilities) == pytest.approx(1.0, abs=1e-9)
    assert np.dot(numbers, probabilities) == pytest.approx(mean, rel=1e-8)
    if mean > 2:
        noise = HostNoise(3)
        drawn = [draw_num_trials(mean, shape, noise) for _ in range(100)]
        spread = math.sqrt(np.dot(np.square(numbers), probabilities) - mean**2)
        assert abs(np.mean(drawn) - mean) < 5 * spread / math.sqrt(100) and np.std(drawn) > spread / 2


@pytest.mark.parametrize("shape", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("mean", [1.1, 10.0, 200.0])
def test_the_distribution_is_the_one_that_dp_accounting_charges(mean, shape):
    gamma = rdp_privacy_accountant._gamma_truncated_negative_binomial(shape, mean)
    probabilities = [probability for _, probability in itertools.islice(num_trials_pmf(mean, shape), 50)]
    for number, probability in enumerate(probabilities, start=1):
        if shape == 0:
            expected = (1 - gamma) ** number / (number * math.log(1 / gamma))
        else:
            log_choose = math.lgamma(number + shape) - math.lgamma(shape) - math.lgamma(number + 1)
            expected = (1 - gamma) ** number * math.exp(log_choose) / (gamma**-shape - 1)
        assert probability == pytest.approx(expected, rel=1e-6)


def randomized_response(epsilon: float) -> tuple[np.ndarray, np.ndarray]:
    """P(score 1) and P(score 0) on either of two neighbouring tables."""
    true = math.exp(epsilon) / (1 + math.exp(epsilon))
    return np.array([true, 1 - true]), np.array([1 - true, true])


def best_of(distribution: np.ndarray, pmf) -> np.ndarray:
    """Exact distribution of the outcome of a random number of trials K: best score 1, best score 0, none run."""
    all_zero = math.fsum(probability * distribution[1] ** number for number, probability in pmf)
    not_run = math.fsum(probability for number, probability in pmf if number == 0)
    return np.array([1 - all_zero, all_zero - not_run, not_run])


def hockey_stick(first: np.ndarray, second: np.ndarray, epsilon: float) -> float:
    return max(np.maximum(p - math.exp(epsilon) * q, 0).sum() for p, q in ((first, second), (second, first)))


def claimed_epsilon(trial: float, mean: float, shape: float | str, delta: float) -> float:
    """Of what `select` charges for trials that are epsilon-DP with the given epsilon."""
    ledger, events = Ledger(), [{"kind": "pure", "epsilon": trial, "count": 1}]
    select([0], lambda *_: (0.0, None), events=events, mean=mean, shape=shape, ledger=ledger, noise=HostNoise(0))
    return ledger.epsilon(delta)


@pytest.mark.parametrize("shape", [0.0, 1.0, 3.0, "poisson"])
@pytest.mark.parametrize("mean", [2.0, 10.0])
@pytest.mark.parametrize("trial", [0.05, 0.3, 1.0])
def test_what_comes_out_respects_the_charge(shape, mean, trial):
    pmf = list(itertools.islice(num_trials_pmf(mean, shape), 5000))
    one, other = (best_of(distribution, pmf) for distribution in randomized_response(trial))
    for delta in (1e-2, 1e-3, 1e-6):
        claimed = claimed_epsilon(trial, mean, shape, delta)
        assert 0 < claimed < math.inf and hockey_stick(one, other, claimed) <= delta


@pytest.mark.parametrize("trial", [0.05, 0.3])
def test_the_best_of_a_fixed_number_of_trials_breaks_the_charge(trial):
    """What grid searches do: ten trials cost more than one, and than ten on average."""
    delta = 1e-6
    one, other = (best_of(distribution, [(10, 1.0)]) for distribution in randomized_response(trial))
    assert math.log(other[1] / one[1]) == pytest.approx(10 * trial, rel=1e-6)
    for paid in (trial, claimed_epsilon(trial, 10.0, 1.0, delta)):
        assert hockey_stick(one, other, paid) > 50 * delta


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


def test_a_score_that_is_nan_loses_even_if_it_comes_first():
    """Else whether a NaN wins would hang on the order of the trials, and the bound needs one order of outputs."""
    scores = iter([math.nan, 1.0, math.nan, 0.5, *[math.nan] * 1000])
    arguments = {"mean": 50.0, "shape": "poisson", "events": [{"kind": "pure", "epsilon": 0.1, "count": 1}]}
    chosen = select([0], lambda *_: (next(scores), None), ledger=Ledger(), noise=HostNoise(0), **arguments)
    assert chosen is not None and chosen.score == 1.0


def test_without_a_trial_nothing_comes_out_but_the_charge_stands():
    ledger, arguments = Ledger(), {"mean": 1.0, "shape": "poisson"}
    seed = next(seed for seed in itertools.count() if draw_num_trials(1.0, "poisson", HostNoise(seed)) == 0)
    events = [{"kind": "pure", "epsilon": 0.1, "count": 1}]
    assert select([0], lambda *_: (1.0, 1), events=events, ledger=ledger, noise=HostNoise(seed), **arguments) is None
    assert [entry.event["kind"] for entry in ledger.entries] == ["select"]


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
        ({"mean": math.inf}, "mean inf"),
        ({"shape": math.inf}, "shape inf must be 'poisson'"),
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
