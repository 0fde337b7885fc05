"""Renyi divergence of the kinds that have no event in dp_accounting, held against the mechanisms themselves."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, logsumexp

from privsyn_jax.privacy import renyi
from privsyn_jax.privacy.accounting import delta_of, epsilon_of

ORDERS = np.array([1.25, 2.0, 3.5, 8.0, 64.0])
DELTA = 1e-5


def divergence(log_weights, other_log_weights):
    """Renyi divergence of two distributions on the same points, at ORDERS."""
    log_p, log_q = log_softmax(log_weights), log_softmax(other_log_weights)
    return np.array([logsumexp(a * log_p + (1 - a) * log_q) / (a - 1) for a in ORDERS])


def covers(bound, exact):
    return bool(np.all(bound >= exact - 1e-12))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=2, max_size=6), st.floats(0.05, 4.0), st.randoms())
def test_exponential_mechanism_is_bounded_by_an_eighth_of_epsilon_squared(changes, epsilon, random):
    scores = np.array([random.uniform(-2, 2) for _ in changes])
    with_record = epsilon * (scores + changes) / 2  # one record moves each score by 1 at most
    bound = renyi.divergences({"kind": "exponential", "epsilon": epsilon, "count": 1}, ORDERS)
    assert covers(bound, divergence(with_record, epsilon * scores / 2))


def test_nine_tenths_of_that_or_losses_over_twice_the_range_would_exceed_it():
    epsilon = 0.5
    bound = renyi.divergences({"kind": "exponential", "epsilon": epsilon, "count": 1}, ORDERS)
    ranging_over_epsilon = divergence(np.array([epsilon / 2, 0]), np.array([-epsilon / 2, 0]))
    assert covers(bound, ranging_over_epsilon) and not covers(0.9 * bound, ranging_over_epsilon)
    ranging_over_twice = divergence(np.array([epsilon, 0]), np.array([-epsilon, 0]))  # epsilon-DP all the same
    assert not covers(bound, ranging_over_twice)
    bound = renyi.divergences({"kind": "pure", "epsilon": epsilon, "count": 1}, ORDERS)
    assert covers(bound, ranging_over_twice) and not covers(0.9 * bound, ranging_over_twice)


@pytest.mark.parametrize(("noise_multiplier", "sensitivity"), [(0.4, 1), (1.0, 1), (1.5, 4)])
def test_noise_on_whole_numbers_is_bounded(noise_multiplier, sensitivity):
    scale = noise_multiplier * sensitivity
    x = np.arange(-200 * sensitivity, 200 * sensitivity + 1)
    noise = {"noise_multiplier": noise_multiplier, "sensitivity": sensitivity, "count": 1}
    for kind, log_weight in (("gaussian", lambda x: -0.5 * (x / scale) ** 2), ("laplace", lambda x: -abs(x) / scale)):
        exact = divergence(log_weight(x), log_weight(x - sensitivity))
        bound = renyi.divergences({"kind": f"discrete_{kind}", **noise}, ORDERS)
        assert covers(bound, exact)
        assert not covers(0.5 * bound, exact) or kind == "laplace"


@pytest.mark.parametrize("order", [1.1, 1.75, 5.5, 40.0])
def test_a_budget_of_any_order_composes_at_that_order_only(order):
    steps = {"kind": "poisson_gaussian", "sampling_rate": 0.01, "noise_multiplier": 1.2, "count": 100}
    part = float(renyi.divergences(steps, (order,))[0])
    budget = {"kind": "renyi", "order": order, "epsilon": 0.3, "count": 2}
    total = part + 0.6
    expected = total + math.log1p(-1 / order) - math.log(DELTA * order) / (order - 1)
    assert epsilon_of([steps, budget], DELTA) == pytest.approx(expected, rel=1e-9)
    assert delta_of([steps, budget], expected) == pytest.approx(DELTA, rel=1e-6)
    # A second budget of a higher order holds at this order too; one of a lower order moves everything there.
    higher = {**budget, "order": order + 1, "count": 1}
    assert epsilon_of([steps, budget, higher], DELTA) == pytest.approx(expected + 0.3, rel=1e-9)


def test_a_whole_order_and_its_neighbours_agree():
    steps = {"kind": "poisson_gaussian", "sampling_rate": 0.02, "noise_multiplier": 1.0, "count": 10}
    below, at, above = renyi.divergences(steps, (3.999, 4, 4.001))
    assert below < at < above and above / below < 1.01


def test_selection_by_a_poisson_number_of_trials():
    trial = [
        {"kind": "gaussian", "noise_multiplier": 10.0, "count": 1},
        {"kind": "exponential", "epsilon": 0.05, "count": 2},
    ]
    event = {"kind": "select", "events": trial, "mean": 20.0, "shape": "poisson", "count": 1}
    once = epsilon_of([{"kind": "gaussian", "noise_multiplier": 10.0, "count": 1}], DELTA)
    assert once < epsilon_of([event], DELTA) < epsilon_of([{**event, "mean": 200.0}], DELTA) < math.inf
    assert epsilon_of([{**event, "count": 2}], DELTA) > epsilon_of([event], DELTA)
    silent = {**event, "events": [*trial, {"kind": "gaussian", "noise_multiplier": 0.0, "count": 1}]}
    assert epsilon_of([silent], DELTA) == math.inf
