"""Events to epsilon: closed forms, dp_accounting run on its own, and calibration that never overshoots."""

import functools
import json
import math

import dp_accounting
import jax_privacy
import numpy as np
import pytest
from dp_accounting import pld
from dp_accounting.pld import common, privacy_loss_distribution
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import comb
from scipy.stats import norm

from privsyn_jax.privacy import accounting, calibration, loss_distribution, renyi, search, second_opinion
from privsyn_jax.privacy.accounting import COARSE, FINE, delta_of, epsilon_of, epsilon_rdp
from privsyn_jax.privacy.calibration import calibrate_scale, level_events
from privsyn_jax.privacy.second_opinion import confirm

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


def exponential(epsilon, count=1):
    return {"kind": "exponential", "epsilon": epsilon, "count": count}


def discrete(kind, noise_multiplier, sensitivity, count=1):
    noise = {"noise_multiplier": noise_multiplier, "sensitivity": sensitivity}
    return {"kind": f"discrete_{kind}", **noise, "count": count}


def select(events, mean=5.0, shape=1.0):
    return {"kind": "select", "events": events, "mean": mean, "shape": shape, "count": 1}


def renyi_budget(order, epsilon, count=1):
    return {"kind": "renyi", "order": order, "epsilon": epsilon, "count": count}


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
    sigma = search.gaussian_noise_multiplier(epsilon, delta)
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
    st.builds(discrete, st.sampled_from(["gaussian", "laplace"]), st.floats(2.0, 9.0), st.integers(1, 4), counts),
    st.builds(exponential, st.floats(0.01, 0.3), counts),
    st.builds(pure, st.floats(0.01, 0.3), counts),
    st.builds(approximate, st.floats(0.0, 0.2), st.floats(0.0, 1e-8)),
)
ledgers = (st.lists(events, min_size=1, max_size=4), st.sampled_from([1e-7, 1e-5, 1e-3]))


def by_dp_accounting(ledger, delta):
    """Events composed by dp_accounting's accountant, or by its distributions where it has no event."""
    accountant = pld.PLDAccountant(value_discretization_interval=COARSE)
    total = privacy_loss_distribution.identity(value_discretization_interval=COARSE)
    for event in ledger:
        kind, noise, count = event["kind"], event.get("noise_multiplier"), event["count"]
        if kind == "poisson_gaussian":
            step = dp_accounting.GaussianDpEvent(noise)
            accountant.compose(dp_accounting.PoissonSampledDpEvent(event["sampling_rate"], step), count)
        elif kind in ("gaussian", "laplace"):
            known = {"gaussian": dp_accounting.GaussianDpEvent, "laplace": dp_accounting.LaplaceDpEvent}
            accountant.compose(known[kind](noise), count)
        else:
            total = total.compose(their_distribution(event).self_compose(count))
    return accountant._pld.compose(total).get_epsilon_for_delta(delta)


def their_distribution(event):
    grid = {"value_discretization_interval": COARSE}
    if event["kind"].startswith("discrete"):
        scale = event["noise_multiplier"] * event["sensitivity"]
        more = {"sensitivity": event["sensitivity"], "use_connect_dots": True, **grid}
        if event["kind"] == "discrete_gaussian":
            return privacy_loss_distribution.from_discrete_gaussian_mechanism(scale, **more)
        return privacy_loss_distribution.from_discrete_laplace_mechanism(1 / scale, **more)
    parameters = common.DifferentialPrivacyParameters(event["epsilon"], event.get("delta", 0.0))
    return privacy_loss_distribution.from_privacy_parameters(parameters, **grid)


def check_ledger(ledger, delta):
    ours = epsilon_of(ledger, delta, discretization=COARSE)
    assert ours == pytest.approx(by_dp_accounting(ledger, delta), rel=1e-3, abs=1e-4)
    without_exponential = [{**event, "kind": "pure"} if event["kind"] == "exponential" else event for event in ledger]
    rounded = COARSE * (1 + sum(event["count"] for event in ledger))  # losses go up to the grid
    assert epsilon_rdp(without_exponential, delta) >= ours - rounded
    confirm(ledger, delta)


@settings(max_examples=30, deadline=None)
@given(*ledgers)
def test_epsilon_equals_dp_accounting_and_lies_below_renyi(ledger, delta):
    check_ledger(ledger, delta)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(*ledgers)
def test_epsilon_equals_dp_accounting_on_200_ledgers(ledger, delta):
    check_ledger(ledger, delta)


def test_a_claim_that_dp_accounting_does_not_share_is_stopped(monkeypatch):
    ledger = [poisson(0.05, 2.0, 100), gaussian(5.0)]
    confirm(ledger, DELTA)
    honest = loss_distribution.sampled_gaussian
    monkeypatch.setattr(
        loss_distribution, "sampled_gaussian", lambda sigma, rate, grid: honest(1.01 * sigma, rate, grid)
    )
    accounting._distributions.cache_clear()
    accounting._total_of.cache_clear()
    with pytest.raises(RuntimeError, match="nothing was released"):
        confirm(ledger, DELTA)
    accounting._distributions.cache_clear()
    accounting._total_of.cache_clear()


def test_a_claim_is_not_stopped_by_the_coarse_grid_of_dp_accounting():
    """Hundreds of Gaussians with so much noise that losses are a few points of that grid, as votes at epsilon 0.5."""
    ledger = [gaussian(31.45), gaussian(161.3, 500)]
    sigma = (1 / 31.45**2 + 500 / 161.3**2) ** -0.5
    claimed = epsilon_of(ledger, DELTA, discretization=COARSE)
    assert gaussian_delta(claimed, sigma) == pytest.approx(DELTA, rel=1e-3)
    assert second_opinion._epsilon(json.dumps(ledger), DELTA, COARSE) > 1.002 * claimed
    confirm(ledger, DELTA)


def test_laplace_in_place_of_the_exponential_mechanism_would_claim_too_little():
    honest, hopeful = [exponential(0.2, 20)], [laplace(5.0, 20)]
    assert epsilon_of(hopeful, DELTA) < 0.99 * epsilon_of(honest, DELTA)
    assert epsilon_of(honest, DELTA) == epsilon_of([pure(0.2, 20)], DELTA)


def test_noise_on_whole_numbers_costs_about_what_continuous_noise_costs():
    wide = epsilon_of([discrete("gaussian", 4.0, 50)], DELTA)
    assert wide == pytest.approx(epsilon_of([gaussian(4.0)], DELTA), rel=1e-3)
    assert epsilon_rdp([discrete("gaussian", 4.0, 1)], DELTA) == epsilon_rdp([gaussian(4.0)], DELTA)
    assert epsilon_of([discrete("laplace", 4.0, 3)], DELTA) == pytest.approx(0.25, abs=2 * FINE)


@pytest.mark.parametrize("order", [2.0, 7.5, 32.0])
def test_a_renyi_budget_is_what_it_says_at_its_order(order):
    before = [gaussian(10.0), approximate(0.0, 0.1 * DELTA)]
    budget = renyi.budget(before, order, 1.0, DELTA)
    if budget <= 0:
        assert order < 10
        return
    assert epsilon_of([*before, renyi_budget(order, budget)], DELTA) == pytest.approx(1.0, rel=1e-9)
    assert epsilon_of([*before, renyi_budget(order, budget)], DELTA) <= 1.0
    assert epsilon_of([*before, renyi_budget(order, 1.01 * budget)], DELTA) > 1.0
    # What stays inside the budget at the order costs no more than the budget.
    noise = math.sqrt(order / (2 * budget))
    inside = [*before, gaussian(noise)]
    assert epsilon_rdp(inside, DELTA) <= 1.0 + 1e-9 and epsilon_of(inside, DELTA) <= 1.0


def test_one_entry_without_a_loss_distribution_makes_the_whole_ledger_renyi():
    part = [gaussian(5.0), poisson(0.02, 1.5, 100)]
    chosen = [*part, select([gaussian(20.0)])]
    assert epsilon_of(chosen, DELTA) == epsilon_rdp(chosen, DELTA) > epsilon_rdp(part, DELTA) > epsilon_of(part, DELTA)
    assert delta_of(chosen, epsilon_of(chosen, DELTA)) == pytest.approx(DELTA, rel=1e-2)
    more = epsilon_of([*part, select([gaussian(20.0)], mean=50.0)], DELTA)
    assert more > epsilon_of(chosen, DELTA) > epsilon_of([*part, gaussian(20.0)], DELTA)


def test_selection_equals_dp_accounting():
    event = select([poisson(0.01, 1.0, 1000)], mean=10.0)
    step = dp_accounting.PoissonSampledDpEvent(0.01, dp_accounting.GaussianDpEvent(1.0))
    accountant = dp_accounting.rdp.RdpAccountant(renyi.ORDERS)
    run = dp_accounting.SelfComposedDpEvent(step, 1000)
    accountant.compose(dp_accounting.dp_event.RepeatAndSelectDpEvent(run, 10.0, 1.0))
    assert epsilon_of([event], DELTA) == pytest.approx(accountant.get_epsilon(DELTA), rel=1e-9)


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
        (discrete("gaussian", 1.0, 0), "sensitivity = 0"),
        (discrete("gaussian", 1.0, 1.5), "sensitivity = 1.5"),
        (exponential(math.nan), "epsilon = nan"),
        (renyi_budget(1.0, 0.1), "order = 1.0"),
        (select([]), "list what one trial is charged as"),
        (select([select([gaussian(1.0)])]), "no bound is known"),
        (select([gaussian(1.0)], mean=0.5), "mean = 0.5"),
        (select([gaussian(1.0)], shape="binomial"), "shape = 'binomial'"),
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
    whole = search.gaussian_noise_multiplier(epsilon, delta)
    guess = search.schedule_guess([(sampling_rate, 1.0, num_steps)], whole)
    noise = search.smallest_noise(functools.partial(spends, sampling_rate, num_steps, delta), epsilon, guess)
    spent = spends(sampling_rate, num_steps, delta, noise, FINE)
    assert 0.998 * epsilon <= spent <= epsilon
    assert spends(sampling_rate, num_steps, delta, 0.99 * noise, FINE) > epsilon


@pytest.mark.parametrize("guess", [0.5, 50.0])
def test_smallest_noise_does_not_depend_on_the_guess(guess):
    sigma = search.smallest_noise(lambda noise, grid: epsilon_of([gaussian(noise)], DELTA), 0.5, guess)
    closed = search.gaussian_noise_multiplier(0.5, DELTA)
    assert closed <= sigma <= closed * (1 + 5e-4)


def test_smallest_noise_says_when_the_target_is_out_of_reach():
    with pytest.raises(ValueError, match="spent before training starts"):
        search.smallest_noise(lambda noise, grid: 2.0 + 1 / noise, 1.0, 1.0)
    with pytest.raises(ValueError, match="out of reach"):
        search.smallest_noise(lambda noise, grid: 0.5, 1.0, 1.0)


def test_calibrated_noise_equals_jax_privacy():
    epsilon, batch_size, num_records, num_steps = 0.8, 200, 10_000, 500
    sampling_rate = batch_size / num_records
    ours = search.smallest_noise(functools.partial(spends, sampling_rate, num_steps, DELTA), epsilon, 1.0)
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
    assert epsilons[0] == pytest.approx(epsilon_of(before, DELTA, discretization=COARSE))
    assert epsilons[-1] == pytest.approx(epsilon_of([*before, step], DELTA, discretization=COARSE), rel=1e-6)
    assert epsilons[-1] == pytest.approx(epsilon_of([*before, step], DELTA), rel=0.01)


def test_epsilon_over_steps_is_infinite_without_noise():
    assert accounting.epsilon_over_steps([], poisson(0.1, 0.0, 5), [0, 5], DELTA) == [(0, math.inf), (5, math.inf)]


@pytest.mark.parametrize("steps", [poisson(0.05, 2.0, 30), [poisson(0.05, 3.0, 10), poisson(0.02, 2.0, 20)]])
@pytest.mark.parametrize("before", [[], [gaussian(8.0)], [renyi_budget(8.0, 0.01)]])
def test_epsilon_over_steps_of_a_schedule_is_that_of_its_beginning(before, steps):
    curve = accounting.epsilon_over_steps(before, steps, [0, 5, 15, 30], DELTA)
    levels = [steps] if isinstance(steps, dict) else steps
    for step, found in curve:
        left, begun = step, []
        for level in levels:
            if min(left, level["count"]):
                begun.append({**level, "count": min(left, level["count"])})
            left -= min(left, level["count"])
        assert found == pytest.approx(epsilon_of([*before, *begun], DELTA, discretization=COARSE), rel=1e-6)


@pytest.mark.parametrize(
    ("levels", "target", "before"),
    [
        ([(0.0043, 1.0 - 0.05 * k, 625) for k in range(16)], 1.0, []),
        ([(0.06, 1.0, 100), (0.03, 2.0, 300)], 0.5, [gaussian(20.0)]),
        ([(0.01, 0.9**k, 6250) for k in range(16)], 4.0, []),
        ([(1.0, 1.0, 3)], 2.0, [approximate(0.0, 1e-6)]),
    ],
)
def test_a_calibrated_schedule_spends_the_target_and_never_more(levels, target, before):
    scale = calibrate_scale(before, levels, target, DELTA)
    assert 0.995 * target <= epsilon_of([*before, *level_events(levels, scale)], DELTA) <= target


def test_calibration_is_kept_by_content_and_a_broken_cache_does_not_matter(tmp_path, monkeypatch):
    monkeypatch.setenv("PRIVSYN_CACHE_DIR", str(tmp_path / "cache"))
    levels = [(0.05, 1.0, 50), (0.05, 0.5, 50)]
    scale = calibrate_scale([], levels, 1.0, DELTA)
    (file,) = (tmp_path / "cache").iterdir()
    calibration._calibrate.cache_clear()
    monkeypatch.setattr(calibration, "smallest_noise", lambda *_: pytest.fail("calibrated again"))
    assert calibrate_scale([], levels, 1.0, DELTA) == scale
    monkeypatch.undo()
    monkeypatch.setenv("PRIVSYN_CACHE_DIR", str(tmp_path / "cache"))
    content = json.loads(file.read_text())
    for broken in (
        "",
        "{",
        json.dumps({**content, "inputs": "others", "scale": 0.1}),
        json.dumps({**content, "scale": -1}),
    ):
        file.write_text(broken)
        calibration._calibrate.cache_clear()
        assert calibrate_scale([], levels, 1.0, DELTA) == scale
    calibrate_scale([], levels, 1.1, DELTA)
    assert len(list((tmp_path / "cache").iterdir())) == 2
    monkeypatch.setenv("PRIVSYN_CACHE_DIR", str(file / "below a file"))
    calibration._calibrate.cache_clear()
    assert calibrate_scale([], levels, 1.0, DELTA) == scale
