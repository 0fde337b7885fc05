"""Filters: what a block costs covers what it reveals, and no rule can make the whole exceed its budget."""

import functools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privsyn_jax.plan import make_plan
from privsyn_jax.privacy.accounting import COARSE, delta_of, epsilon_of
from privsyn_jax.privacy.filters import ReferenceFilter, RenyiFilter
from privsyn_jax.privacy.ledger import Ledger
from privsyn_jax.privacy.rules import RULES, Released
from privsyn_jax.privacy.spending import Account, AdaptiveSpending
from privsyn_jax.privacy_settings import FILTERS
from privsyn_jax.settings import settings_from_dict
from privsyn_jax.types import Column, Schema, UserError

SCHEMA = Schema(
    (Column("age", "integer", lower=0, upper=99), Column("sex", "categorical", categories=("f", "m"))), 20_000
)
EPSILON, DELTA, NUM_STEPS, NUM_BLOCKS = 1.0, 1e-5, 200, 8


@functools.cache
def plan_with(kind: str, rule: str = "signal", epsilon: float = EPSILON):
    sections = {
        "privacy": {
            "epsilon": epsilon,
            "delta": DELTA,
            "adaptive": {"rule": rule, "filter": kind, "num_blocks": NUM_BLOCKS},
        },
        "training": {"num_steps": NUM_STEPS, "expected_batch_size": 1024, "steps_per_dispatch": 5},
    }
    return make_plan(settings_from_dict(sections), SCHEMA)


def spending(kind: str, rule, privacy_filter=None) -> AdaptiveSpending:
    plan = plan_with(kind)
    return AdaptiveSpending(
        plan.levels[0],
        Account(Ledger(), "training", "gradients", "DP-SGD"),
        rule=rule,
        privacy_filter=privacy_filter or plan.privacy_filter,
        num_blocks=NUM_BLOCKS,
        largest_ratio=2.0,
        multiple=5,
    )


STEADY = (1.0,) * 50


def run(spender: AdaptiveSpending, signals=STEADY, losses=STEADY) -> list:
    """All blocks of a run whose steps release the given signals and losses."""
    blocks, done = [], 0
    while (part := spender.next_block(done)) is not None:
        if done == sum(block.num_steps for block in blocks):
            blocks.append(spender._block)
            noise = np.linspace(-1, 1, blocks[-1].num_steps)
            released = {
                "released_signal": signals[len(blocks) - 1] + noise,
                "released_loss": losses[len(blocks) - 1] + 0.1 * noise,
            }
        start = done - sum(block.num_steps for block in blocks[:-1])
        assert part == blocks[-1]._replace(num_steps=part.num_steps) and part.num_steps <= 5
        done += part.num_steps
        spender.observe({name: values[start : start + part.num_steps] for name, values in released.items()})
    return blocks


def events_of(blocks) -> list:
    return [
        {
            "kind": "poisson_gaussian",
            "sampling_rate": block.sampling_rate,
            "noise_multiplier": block.noise_multiplier,
            "count": block.num_steps,
        }
        for block in blocks
    ]


@pytest.mark.parametrize("ratio", [0.5, 0.8, 1.0, 1.3, 2.0])
def test_without_sampling_the_cost_is_the_closed_form(ratio):
    """Gaussian steps compose by their inverse variances."""
    privacy_filter = ReferenceFilter(sampling_rate=1.0, noise_multiplier=20.0, num_steps=400, max_blocks=10, leak=1e-7)
    cost = privacy_filter.cost(20.0 * ratio, 30)
    assert math.ceil(30 / ratio**2 - 0.05) <= cost <= math.ceil(30 / ratio**2) + 1


@pytest.mark.parametrize("ratio", [0.8, 0.9, 1.2, 1.9])
@pytest.mark.parametrize("epsilon", [0.5, 1.5])
def test_a_block_reveals_no_more_than_the_reference_steps_that_it_costs(ratio, epsilon):
    plan = plan_with("reference", epsilon=epsilon)
    level, leak = plan.levels[0], plan.adaptive.leak / NUM_BLOCKS
    cost = int(plan.privacy_filter.cost(ratio * level.noise_multiplier, 25))
    block = events_of([level._replace(num_steps=25, noise_multiplier=ratio * level.noise_multiplier)])
    for threshold in np.linspace(0.0, 3.0, 13):
        paid = delta_of(events_of([level._replace(num_steps=cost)]), threshold)
        assert delta_of(block, threshold) <= paid + leak + 1e-12
    fewer = events_of([level._replace(num_steps=max(1, cost - 1))])
    gaps = [delta_of(block, t) - delta_of(fewer, t) - leak for t in np.linspace(0.0, 4.0, 81)]
    assert ratio > 1 or max(gaps) > 0  # where less is paid than before, one step fewer would be too few


@pytest.mark.parametrize("kind", FILTERS)
def test_what_is_charged_lands_on_the_target(kind):
    plan = plan_with(kind)
    charged = epsilon_of([*plan.release_events, *plan.training_events], DELTA)
    assert 0.995 * EPSILON <= charged <= EPSILON


@pytest.mark.parametrize("kind", FILTERS)
@given(st.lists(st.floats(1e-6, 1e6), min_size=NUM_BLOCKS + 2, max_size=NUM_BLOCKS + 2))
@settings(deadline=None, max_examples=40)
def test_no_rule_exceeds_the_budget_and_hardly_any_of_it_is_lost(kind, wishes):
    wish = iter(wishes)
    spender = spending(kind, lambda history, even: next(wish))
    blocks = run(spender)
    plan = plan_with(kind)
    assert spender.spent <= plan.privacy_filter.budget
    assert sum(block.num_steps for block in blocks) == NUM_STEPS
    cost = sum(plan.privacy_filter.cost(block.noise_multiplier, block.num_steps) for block in blocks)
    assert cost == pytest.approx(spender.spent)
    # A path that was fixed beforehand must stay below the target too; an adaptive one is at least as revealing.
    path = epsilon_of([*plan.release_events, *events_of(blocks)], DELTA, discretization=COARSE)
    assert path <= EPSILON * (1 + 5e-3)


def test_a_filter_that_charges_too_little_is_seen():
    plan = plan_with("reference")

    class Lenient(ReferenceFilter):
        def cost(self, noise_multiplier, num_steps):
            return 0.5 * super().cost(noise_multiplier, num_steps)

    level = plan.levels[0]
    lenient = Lenient(
        sampling_rate=level.sampling_rate,
        noise_multiplier=level.noise_multiplier,
        num_steps=NUM_STEPS,
        max_blocks=NUM_BLOCKS,
        leak=1e-7,
    )
    blocks = run(spending("reference", lambda history, even: 1e-6, lenient))
    assert epsilon_of([*plan.release_events, *events_of(blocks)], DELTA, discretization=COARSE) > 1.05 * EPSILON


def test_a_block_that_cannot_be_paid_is_not_started():
    level = plan_with("renyi").levels[0]
    cost = RenyiFilter(sampling_rate=level.sampling_rate, order=8.0, budget=1.0).cost(2 * level.noise_multiplier, 25)
    small = RenyiFilter(sampling_rate=level.sampling_rate, order=8.0, budget=0.9 * cost)
    assert run(spending("renyi", RULES["even"], small)) == []


@pytest.mark.parametrize("kind", FILTERS)
@pytest.mark.parametrize("rule", RULES)
def test_rules_over_a_thousand_simulated_runs_never_exceed_the_budget(kind, rule):
    rng = np.random.default_rng(0)
    plan, spent, ratios = plan_with(kind), [], []
    for _ in range(1000):
        decay = rng.uniform(0.3, 1.1)
        signals = 1e5 * decay ** np.arange(NUM_BLOCKS + 2) + rng.normal(0, 2e3, NUM_BLOCKS + 2)
        losses = 20 * decay ** np.arange(NUM_BLOCKS + 2) + rng.normal(0, 0.2, NUM_BLOCKS + 2)
        spender = spending(kind, RULES[rule])
        blocks = run(spender, signals.tolist(), losses.tolist())
        assert sum(block.num_steps for block in blocks) == NUM_STEPS
        spent.append(spender.spent / plan.privacy_filter.budget)
        ratios.append([row["relative_noise"] for row in spender.path])
    assert max(spent) <= 1.0
    assert min(spent) >= 0.94  # in units of the filter, which are squares: 0.97 in epsilon
    odometer = plan.privacy_filter.epsilon(min(spent) * plan.privacy_filter.budget, plan.release_events, DELTA)
    assert odometer >= 0.97 * EPSILON
    if rule != "even":
        assert max(max(row) for row in ratios) > 1.2 and min(min(row) for row in ratios) < 0.9


@pytest.mark.parametrize("kind", FILTERS)
def test_without_preference_the_run_is_the_constant_schedule(kind):
    blocks = run(spending(kind, RULES["even"]))
    assert all(block.noise_multiplier == pytest.approx(plan_with(kind).levels[0].noise_multiplier) for block in blocks)


def test_the_whole_budget_is_on_the_ledger_before_the_first_block():
    spender = spending("reference", RULES["even"])
    ledger = spender._account.ledger
    assert spender.receipt.is_booked and spender.receipt.name == "training"
    charged = [entry.event for entry in ledger.entries]
    assert sorted(map(str, charged)) == sorted(map(str, plan_with("reference").training_events))
    run(spender)
    assert [entry.event for entry in ledger.entries] == charged


def history(signals, losses=None, stderr=0.1):
    losses = losses or [None] * len(signals)
    return [
        Released(1.0, (number + 1) / 10, signal, loss, None if loss is None else stderr)
        for number, (signal, loss) in enumerate(zip(signals, losses, strict=True))
    ]


def test_the_signal_rule_lowers_the_noise_with_the_signal():
    falling, steady = history([1e4, 1e3]), history([1e4, 1e4])
    assert RULES["signal"]([], 1.0) > 1 > RULES["signal"](falling, 1.0) and RULES["signal"](steady, 1.0) > 1
    drowned = RULES["signal"](history([-50.0, -1e4]), 1.0)  # net of the noise energy it may come out negative
    assert math.isfinite(drowned) and drowned > 0


def test_the_loss_rule_lowers_the_noise_when_the_loss_stops_falling():
    rule = RULES["loss"]
    falling, stuck = history([1.0] * 4, [9.0, 8.0, 7.0, 6.0]), history([1.0] * 4, [9.0, 9.0, 9.1, 9.0])
    assert rule(stuck, 1.0) < rule(falling, 1.0)
    assert rule(history([1.0] * 4, [9.0, 8.0, 7.0, 6.0], stderr=5.0), 1.0) == rule(stuck, 1.0)  # lost in its noise
    with pytest.raises(ValueError, match="needs the noisy loss"):
        rule(history([1.0, 1.0]), 1.0)


@pytest.mark.parametrize("wish", [0.0, -1.0, math.nan, math.inf])
def test_a_wish_that_is_no_ratio_is_refused(wish):
    with pytest.raises(ValueError, match="must be a positive number"):
        run(spending("renyi", lambda history, even: wish))


def test_the_loss_rule_is_refused_blocks_of_one_step_and_may_end_in_one():
    def plan(num_steps):
        sections = {
            "privacy": {"delta": DELTA, "adaptive": {"rule": "loss", "filter": "renyi", "num_blocks": 4}},
            "training": {"num_steps": num_steps, "expected_batch_size": 1024},
        }
        return make_plan(settings_from_dict(sections), SCHEMA)

    with pytest.raises(UserError, match=r"training\.num_steps is 4, no more than privacy\.adaptive\.num_blocks = 4"):
        plan(4)
    found = plan(7)
    account = Account(Ledger(), "training", "gradients", "DP-SGD")
    spender = AdaptiveSpending(
        found.levels[0], account, rule=RULES["loss"], privacy_filter=found.privacy_filter, num_blocks=4,
        largest_ratio=2.0, multiple=1,
    )  # fmt: skip
    assert [block.num_steps for block in run(spender)] == [2, 2, 2, 1]
