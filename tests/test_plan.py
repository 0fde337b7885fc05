"""The plan: what it will spend, by the ledger's own accounting, is the target and hardly less."""

import json
import math

import pytest

from privsyn_jax.plan import Plan, make_plan
from privsyn_jax.privacy.accounting import epsilon_of
from privsyn_jax.privacy.search import gaussian_noise_multiplier
from privsyn_jax.releases import CATEGORY_DELTA_SHARE
from privsyn_jax.settings import settings_from_dict
from privsyn_jax.types import Column, Schema, UserError

NUM_RECORDS = 20_000
NUMBER = Column("age", "integer", lower=0, upper=99)
KNOWN = Column("sex", "categorical", categories=("f", "m"))
UNKNOWN = Column("town", "categorical")
BARE = {"budget": {"transform": 0.0, "marginals": 0.0, "categories": 0.0}}
PUBLIC_EDGES = {"transform": {"edges": "public"}}


def plan_for(privacy, *columns, num_records=NUM_RECORDS, **sections) -> Plan:
    settings = settings_from_dict({"privacy": privacy, **sections})
    return make_plan(settings, Schema(columns or (NUMBER, KNOWN), num_records))


def spent(plan: Plan) -> float:
    return epsilon_of([*plan.release_events, *plan.training_events], plan.delta)


@pytest.mark.parametrize(
    ("privacy", "columns", "sections"),
    [
        ({"epsilon": 0.5}, (NUMBER, KNOWN), {}),
        ({"epsilon": 1.0, "delta": 1e-5}, (NUMBER, KNOWN, UNKNOWN), {}),
        ({"epsilon": 1.0, **BARE}, (NUMBER, KNOWN), PUBLIC_EDGES),
        ({"epsilon": 2.0, "budget": {"transform": 0.3, "marginals": 0.6}}, (NUMBER, KNOWN), PUBLIC_EDGES),
        (
            {"epsilon": 10.0, **BARE},
            (NUMBER, KNOWN),
            {**PUBLIC_EDGES, "training": {"expected_batch_size": NUM_RECORDS}},
        ),
    ],
)
def test_the_whole_run_spends_the_target_and_hardly_less(privacy, columns, sections):
    plan = plan_for(privacy, *columns, **sections)
    assert plan.epsilon == privacy["epsilon"]
    assert 0.995 * plan.epsilon <= spent(plan) <= plan.epsilon


@pytest.mark.parametrize(("noise_multiplier", "budget"), [(4.0, {}), (10.0, BARE)])
def test_a_given_noise_multiplier_is_used_and_epsilon_computed(noise_multiplier, budget):
    plan = plan_for(
        {"epsilon": None, "noise_multiplier": noise_multiplier, **budget}, **(PUBLIC_EDGES if budget else {})
    )
    assert plan.levels[0].noise_multiplier == noise_multiplier
    assert plan.epsilon == pytest.approx(spent(plan), rel=1e-9)
    for release in plan.releases:  # the shares are of the epsilon that comes out
        whole = release.noise_multiplier * math.sqrt(release.share)
        assert whole == pytest.approx(gaussian_noise_multiplier(plan.epsilon, plan.delta), rel=0.01)


def test_shares_buy_noise_by_their_square_root_and_training_gets_the_rest():
    budget = {"transform": 0.1, "marginals": 0.2, "categories": 0.05}
    plan = plan_for({"epsilon": 1.0, "budget": budget}, NUMBER, KNOWN, UNKNOWN)
    whole = gaussian_noise_multiplier(1.0, plan.delta)
    shares = {release.name: release.share for release in plan.releases}
    assert shares == pytest.approx(
        {"categories": 0.05, "histograms": 0.1, "pair scores": 0.02, "pair marginals": 0.18}, rel=1e-9
    )
    for release in plan.releases:
        assert release.noise_multiplier == pytest.approx(whole / math.sqrt(release.share), rel=1e-9)
    assert plan.training_share == pytest.approx(0.65)
    assert plan.release("histograms") is plan.releases[1] and plan.release("nothing") is None
    assert plan.category_delta == pytest.approx(CATEGORY_DELTA_SHARE * plan.delta)
    assert {"kind": "approximate", "epsilon": 0.0, "delta": plan.category_delta, "count": 1} in plan.release_events


def test_with_public_edges_the_marginals_pay_for_their_histogram():
    plan = plan_for({"epsilon": math.inf}, **PUBLIC_EDGES)
    assert {release.name for release in plan.releases} == {"histograms", "pair scores", "pair marginals"}
    assert sum(release.share for release in plan.releases) == pytest.approx(0.25)
    assert plan.category_delta == 0.0


def test_nothing_is_bought_for_a_generator_that_has_no_use_for_it():
    plan = plan_for({"epsilon": math.inf}, model={"name": "wgan"})
    assert [release.name for release in plan.releases] == ["histograms"]
    assert plan.training_share == pytest.approx(0.95)


def test_shares_leave_something_for_training():
    with pytest.raises(UserError, match="leave a share for training"):
        plan_for({"epsilon": 1.0, "budget": {"transform": 0.3, "prior": 0.75}}, model={"name": "tvae"})


def test_one_column_has_no_pairs_to_pay_for():
    assert [release.name for release in plan_for({"epsilon": math.inf}, NUMBER).releases] == ["histograms"]


def test_delta_defaults_to_a_figure_below_one_over_the_number_of_records():
    plan = plan_for({"epsilon": math.inf})
    assert plan.delta == pytest.approx(NUM_RECORDS**-1.1) and plan.delta < 1 / NUM_RECORDS
    assert not any("DELTA" in warning for warning in plan.warnings)


@pytest.mark.parametrize(("delta", "warns"), [(1 / NUM_RECORDS, True), (0.3, True), (0.9 / NUM_RECORDS, False)])
def test_a_delta_that_lets_a_record_out_is_warned_of(delta, warns):
    warnings = plan_for({"epsilon": math.inf, "delta": delta}).warnings
    assert any(warning.startswith("DELTA TOO LARGE") for warning in warnings) == warns


@pytest.mark.parametrize(("privacy", "l2_clip_norm"), [({"epsilon": math.inf}, 1.0), ({"enabled": False}, math.inf)])
def test_without_privacy_there_is_no_noise_and_a_warning(privacy, l2_clip_norm):
    plan = plan_for(privacy, NUMBER, KNOWN, UNKNOWN)
    assert not plan.has_noise and plan.levels[0].l2_clip_norm == l2_clip_norm
    assert plan.releases and all(release.noise_multiplier == 0.0 for release in plan.releases)
    assert plan.epsilon == math.inf and spent(plan) == math.inf
    assert any(warning.startswith("NOT PRIVATE") for warning in plan.warnings)
    assert json.loads(json.dumps(plan.to_dict(), allow_nan=False))["epsilon"] is None


def test_seeded_noise_is_warned_of():
    assert any(warning.startswith("SEEDED NOISE") for warning in plan_for({"epsilon": math.inf, "seed": 3}).warnings)


def test_the_sampling_rate_is_the_one_that_the_device_draws():
    plan = plan_for({"epsilon": math.inf}, training={"expected_batch_size": 333})
    rate = plan.levels[0].sampling_rate
    assert (rate * 2**32).is_integer() and rate <= 333 / NUM_RECORDS
    assert plan.expected_batch_size == 333.0
    assert plan.training_events == [
        {"kind": "poisson_gaussian", "sampling_rate": rate, "noise_multiplier": 0.0, "count": plan.num_steps}
    ]


@pytest.mark.parametrize(
    ("privacy", "columns", "sections", "complaint"),
    [
        ({"budget": {"categories": 0.0}}, (NUMBER, UNKNOWN), {}, r"privacy\.budget\.categories is 0: .*'town'"),
        ({"budget": {"transform": 0.0}}, (NUMBER,), {}, r"privacy\.budget\.transform is 0: .*quantile edges"),
        (
            {},
            (NUMBER,),
            {"training": {"expected_batch_size": NUM_RECORDS + 1}},
            r"training\.expected_batch_size is 20001",
        ),
        ({"epsilon": None, "noise_multiplier": 1e4}, (NUMBER,), {}, r"privacy\.noise_multiplier is 10000"),
        ({"epsilon": 1e-6}, (NUMBER,), {}, r"privacy\.epsilon is 1e-06 and cannot be met"),
    ],
)
def test_settings_that_cannot_be_met_are_refused_by_name(privacy, columns, sections, complaint):
    with pytest.raises(UserError, match=complaint):
        plan_for(privacy, *columns, **sections)
