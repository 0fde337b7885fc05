"""Events to epsilon: closed forms, dp_accounting run on its own, and calibration that never overshoots."""

import functools
import math

import dp_accounting
import jax_privacy
import numpy as np
import pytest
from dp_accounting import pld
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import comb
from scipy.stats import norm

from privsyn_jax.privacy import accounting
from privsyn_jax.privacy.accounting import COARSE, FINE, delta_of, epsilon_of, epsilon_rdp

DELTA = 1e-5


def gaussian(noise_multiplier, count=1):
    return {"kind": "gaussian", "noise_multiplier": noise_multiplier, "count": count}


def poisson(sampling_rate, noise_multiplier, count):
    return {
        "kind": "poisson_gaussian",
        "sampling_rate": sampling_rate,
        "noise_multiplier": noise_multiplier,
        "count": count,
    }


def laplace(noise_multiplier, count=1):
    return {"kind": "laplace", "noise_multiplier": noise_multiplier, "count": count}


def pure(epsilon, count=1):
    return {"kind": "pure", "epsilon": epsilon, "count": count}


def approximate(epsilon, delta, count=1):
    return {"kind": "approximate", "epsilon": epsilon, "delta": delta, "count": count}


def gaussian_delta(epsilon, sigma):
    """Balle and Wang 2018, Theorem 8."""
    return norm.cdf(0.5 / sigma - epsilon * sigma) - math.exp(epsilon) * norm.cdf(-0.5 / sigma - epsilon * sigma)


def pure_delta(epsilon, epsilon_each, count):
    """Kairouz, Oh and Viswanath 2015, Theorem 3.3: the worst epsilon_each-DP mechanism, composed `count` times."""
    losses = epsilon_each * (count - 2 * np.arange(count + 1))
    worst = comb(count, np.arange(count + 1)) * np.exp((count - np.arange(count + 1)) * epsilon_each)
    return np.sum(worst / (1 + math.exp(epsilon_each)) ** count * np.maximum(0, -np.expm1(epsilon - losses)))


@pytest.mark.parametrize(("sigma", "count"), [(0.8, 1), (5.0, 1), (3.0, 9)])
def test_gaussian_epsilon_is_an_upper_bound_and_close_to_the_closed_form(sigma, count):
    epsilon = epsilon_of([gaussian(sigma, count)], DELTA)
    whole = sigma / math.sqrt(count)
    assert gaussian_delta(epsilon, whole) <= DELTA * (1 + 1e-8)  # rounding in float64
    assert gaussian_delta(epsilon - 1.5 * FINE, whole) > DELTA
    assert delta_of([gaussian(sigma, count)], epsilon) == pytest.approx(DELTA, rel=1e-6)


@pytest.mark.parametrize("epsilon", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("delta", [1e-9, 1e-5, 1e-2])
def test_gaussian_noise_multiplier_inverts_the_closed_form(epsilon, delta):
    sigma = accounting.gaussian_noise_multiplier(epsilon, delta)
    assert gaussian_delta(epsilon, sigma) == pytest.approx(delta, rel=1e-5)


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.4, 0.5, 0.6])
def test_laplace_delta_equals_the_closed_form(epsilon):
    assert delta_of([laplace(2.0)], epsilon) == pytest.approx(max(0.0, -math.expm1((epsilon - 0.5) / 2)), abs=1e-6)


@pytest.mark.parametrize("count", [1, 2, 10])
def test_pure_events_compose_optimally_and_below_basic_composition(count):
    events = [pure(0.1, count)]
    for epsilon in (0.0, 0.05, 0.3, 0.7):
        assert delta_of(events, epsilon) == pytest.approx(pure_delta(epsilon, 0.1, count), abs=1e-6)
    assert epsilon_of(events, DELTA) <= count * 0.1 + FINE
    assert pure_delta(epsilon_of(events, DELTA), 0.1, count) <= DELTA * (1 + 1e-6)
    # The Laplace mechanism is one such mechanism and not the worst of them.
    assert delta_of([laplace(10.0, count)], 0.05) <= delta_of(events, 0.05) + 1e-9


def test_approximate_deltas_add_up():
    first, second = approximate(0.0, 1e-3), approximate(0.0, 2e-3, count=2)
    assert delta_of([first, second], 0.0) == pytest.approx(1 - (1 - 1e-3) * (1 - 2e-3) ** 2, rel=1e-6)
    mixed = [gaussian(2.0), approximate(0.0, 0.4 * DELTA)]
    assert epsilon_of(mixed, DELTA) == pytest.approx(epsilon_of([gaussian(2.0)], 0.6 * DELTA), rel=1e-4)
    assert epsilon_of([gaussian(2.0), approximate(0.0, 2 * DELTA)], DELTA) == math.inf
    assert epsilon_rdp([gaussian(2.0), approximate(0.0, 2 * DELTA)], DELTA) == math.inf
    assert epsilon_of([approximate(0.3, 1e-6)], DELTA) == pytest.approx(0.3, abs=2 * FINE)


def test_sampling_everyone_is_the_gaussian_mechanism():
    assert epsilon_of([poisson(1.0, 3.0, 4)], DELTA) == pytest.approx(epsilon_of([gaussian(3.0, 4)], DELTA), rel=1e-3)
    assert epsilon_of([poisson(0.1, 3.0, 4)], DELTA) < 0.3 * epsilon_of([gaussian(3.0, 4)], DELTA)


counts = st.integers(1, 5)
events = st.one_of(
    st.builds(gaussian, st.floats(1.0, 5.0), counts),
    st.builds(poisson, st.floats(0.01, 0.5), st.floats(0.9, 4.0), st.integers(1, 300)),
    st.builds(laplace, st.floats(2.0, 10.0), counts),
)


def dp_accounting_event(event):
    if event["kind"] == "poisson_gaussian":
        step = dp_accounting.GaussianDpEvent(event["noise_multiplier"])
        return dp_accounting.PoissonSampledDpEvent(event["sampling_rate"], step)
    mechanism = {"gaussian": dp_accounting.GaussianDpEvent, "laplace": dp_accounting.LaplaceDpEvent}[event["kind"]]
    return mechanism(event["noise_multiplier"])


@settings(max_examples=15, deadline=None)
@given(st.lists(events, min_size=1, max_size=3), st.sampled_from([1e-7, 1e-5, 1e-3]))
def test_epsilon_equals_dp_accounting_and_lies_below_renyi(ledger, delta):
    accountant = pld.PLDAccountant(value_discretization_interval=COARSE)
    for event in ledger:
        accountant.compose(dp_accounting_event(event), event["count"])
    ours = epsilon_of(ledger, delta, discretization=COARSE)
    assert ours == pytest.approx(accountant.get_epsilon(delta), rel=1e-3, abs=1e-4)
    assert epsilon_rdp(ledger, delta) >= ours - COARSE


@pytest.mark.parametrize("event", [gaussian(2.0, 3), poisson(0.1, 1.0, 3), laplace(5.0, 3), pure(0.1, 3)])
def test_a_count_is_as_many_entries(event):
    one_by_one = [{**event, "count": 1}] * event["count"]
    together, apart = (epsilon_of(ledger, DELTA, discretization=COARSE) for ledger in ([event], one_by_one))
    assert together == pytest.approx(apart, rel=1e-3)
    assert epsilon_rdp([event], DELTA) == pytest.approx(epsilon_rdp(one_by_one, DELTA), rel=1e-9)


def test_nothing_costs_nothing_and_no_noise_costs_everything():
    assert epsilon_of([], DELTA) == delta_of([], 1.0) == 0.0
    for silent in (gaussian(0.0), poisson(0.1, 0.0, 3), laplace(0.0)):
        assert epsilon_of([gaussian(1.0), silent], DELTA) == epsilon_rdp([silent], DELTA) == math.inf
        assert delta_of([silent], 1.0) == 1.0


@pytest.mark.parametrize(
    ("event", "complaint"),
    [
        ({"kind": "shuffled_gaussian", "noise_multiplier": 1.0, "count": 1}, "kind that is not accounted for"),
        ({"noise_multiplier": 1.0, "count": 1}, "kind that is not accounted for"),
        ({"kind": "gaussian", "noise_multiplier": 1.0}, "exactly the fields"),
        ({"kind": "gaussian", "noise_multiplier": 1.0, "count": 1, "sampling_rate": 0.1}, "exactly the fields"),
        ({"kind": "gaussian", "stddev": 1.0, "count": 1}, "exactly the fields"),
        (gaussian(-1.0), "noise_multiplier = -1.0"),
        (gaussian(math.nan), "noise_multiplier = nan"),
        (gaussian(math.inf), "noise_multiplier = inf"),
        (gaussian(1.0, 0), "count = 0"),
        (gaussian(1.0, 2.5), "count = 2.5"),
        (gaussian(1.0, math.inf), "count = inf"),
        (poisson(1.1, 1.0, 3), "sampling_rate = 1.1"),
        (poisson(-0.1, 1.0, 3), "sampling_rate = -0.1"),
        (poisson(0.0, 1.0, 3), "sampling_rate = 0.0"),
        (gaussian("1.0"), "noise_multiplier = '1.0'"),
        (gaussian(1.0, None), "count = None"),
        (pure(-0.1), "epsilon = -0.1"),
        (pure(math.inf), "epsilon = inf"),
        (approximate(0.0, 1.5), "delta = 1.5"),
    ],
)
def test_an_event_that_cannot_be_accounted_for_is_refused(event, complaint):
    for account in (
        lambda e: accounting.check_event(e),
        lambda e: epsilon_of([e], DELTA),
        lambda e: epsilon_rdp([e], 0.1),
    ):
        with pytest.raises(ValueError, match=complaint) as caught:
            account(event)
        assert str(event) in str(caught.value)


def spends(sampling_rate, num_steps, delta, noise, grid):
    return epsilon_of([poisson(sampling_rate, noise, num_steps)], delta, discretization=grid)


@pytest.mark.parametrize(
    ("epsilon", "sampling_rate", "num_steps", "delta"),
    [(0.05, 0.1, 400, 1e-5), (0.3, 0.02, 300, 1e-6), (1.0, 256 / 60_000, 10_000, 1e-5), (2.0, 1.0, 5, 1e-9)],
)
def test_smallest_noise_meets_the_target_and_hardly_less(epsilon, sampling_rate, num_steps, delta):
    whole = accounting.gaussian_noise_multiplier(epsilon, delta)
    guess = accounting.subsampled_guess(sampling_rate, num_steps, whole)
    noise = accounting.smallest_noise(functools.partial(spends, sampling_rate, num_steps, delta), epsilon, guess)
    spent = spends(sampling_rate, num_steps, delta, noise, FINE)
    assert 0.998 * epsilon <= spent <= epsilon
    assert spends(sampling_rate, num_steps, delta, 0.99 * noise, FINE) > epsilon


@pytest.mark.parametrize("guess", [0.5, 50.0])
def test_smallest_noise_does_not_depend_on_the_guess(guess):
    sigma = accounting.smallest_noise(lambda noise, grid: epsilon_of([gaussian(noise)], DELTA), 0.5, guess)
    closed = accounting.gaussian_noise_multiplier(0.5, DELTA)
    assert closed <= sigma <= closed * (1 + 5e-4)


def test_smallest_noise_says_when_the_target_is_out_of_reach():
    with pytest.raises(ValueError, match="spent before training starts"):
        accounting.smallest_noise(lambda noise, grid: 2.0 + 1 / noise, 1.0, 1.0)
    with pytest.raises(ValueError, match="out of reach"):
        accounting.smallest_noise(lambda noise, grid: 0.5, 1.0, 1.0)


def test_calibrated_noise_equals_jax_privacy():
    epsilon, batch_size, num_records, num_steps = 0.8, 200, 10_000, 500
    sampling_rate = batch_size / num_records
    ours = accounting.smallest_noise(functools.partial(spends, sampling_rate, num_steps, DELTA), epsilon, 1.0)
    theirs = jax_privacy.accounting.calibrate_noise_multiplier(
        target_epsilon=epsilon,
        accountant=jax_privacy.accounting.DpsgdTrainingAccountant(
            jax_privacy.accounting.PldAccountantConfig(value_discretization_interval=COARSE)
        ),
        batch_sizes=batch_size,
        num_updates=num_steps,
        num_samples=num_records,
        target_delta=DELTA,
        tol=1e-3,
    )
    assert ours == pytest.approx(theirs, rel=0.01)


@pytest.mark.parametrize("before", [[], [gaussian(8.0), approximate(0.0, 1e-6)]])
def test_epsilon_over_steps_rises_to_the_total(before):
    step = poisson(0.05, 2.0, 200)
    curve = accounting.epsilon_over_steps(before, step, [0, 1, 10, 100, 200], DELTA)
    steps, epsilons = zip(*curve, strict=True)
    assert steps == (0, 1, 10, 100, 200) and np.all(np.diff(epsilons) > 0)
    assert epsilons[0] == (epsilon_of(before, DELTA, discretization=COARSE) if before else 0.0)
    assert epsilons[-1] == pytest.approx(epsilon_of([*before, step], DELTA, discretization=COARSE), rel=1e-6)
    assert epsilons[-1] == pytest.approx(epsilon_of([*before, step], DELTA), rel=0.01)


def test_epsilon_over_steps_is_infinite_without_noise():
    assert accounting.epsilon_over_steps([], poisson(0.1, 0.0, 5), [0, 5], DELTA) == [(0, math.inf), (5, math.inf)]
