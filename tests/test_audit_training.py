"""Audits of the training itself: consistent with what is claimed where the step is right, above it where it is not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from broken_steps import (
    with_batches_of_fixed_size,
    with_half_the_noise,
    with_one_noise_key,
    without_clipping,
    without_noise,
)

from privsyn_jax.audit import audit
from privsyn_jax.audit_training import (
    NUM_OPPOSING,
    judge_training,
    observe,
    one_run_method,
    repeat_step,
)
from privsyn_jax.canaries import NO_CANARY, Planted, plant, plant_among
from privsyn_jax.plan import make_plan
from privsyn_jax.privacy.clipping import clipped_grad_sum
from privsyn_jax.settings import Settings, settings_from_dict
from privsyn_jax.types import Column, Generator, Schema, UserError

SCHEMA = Schema(
    (Column("age", "integer", lower=0, upper=99), Column("sex", "categorical", categories=("f", "m"))), 1000
)
DELTA, NUM_STEPS, WHOLE = 1e-5, 4, 1000
NETWORK = {"name": "autoregressive", "variant": "masked_mlp", "width": 4, "num_layers": 1}
BARE = {"budget": {"transform": 0.0, "marginals": 0.0, "categories": 0.0}}

POINTS = Generator(
    init=lambda key: {"private": {"w": jnp.zeros(3)}, "public": {}},
    private_loss=lambda params, example, key: jnp.sum(jnp.square(params["private"]["w"] - example)),
    public_loss=None,
    calibrate=None,
    sample=lambda params, key, num_samples, conditions: jnp.zeros((num_samples, 3)),
    exact_conditions=lambda indices: (),
)


def settings(epsilon: float | str, batch_size: int, *, privacy=None, **training) -> Settings:
    return settings_from_dict(
        {
            "privacy": {"epsilon": epsilon, "delta": DELTA, **BARE, **(privacy or {})},
            "transform": {"edges": "public"},
            "training": {
                "expected_batch_size": batch_size,
                "num_steps": NUM_STEPS,
                "steps_per_dispatch": 2,
                **training,
            },
            "model": NETWORK,
        }
    )


@functools.cache
def ready(epsilon: float, batch_size: int):
    chosen = settings(epsilon, batch_size)
    return chosen, make_plan(chosen, SCHEMA), POINTS, np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)


def train(epsilon: float, batch_size: int, *, seeds=(0,), num_canaries=400, **options):
    keys = [jax.random.key(seed) for seed in seeds]
    return observe(*ready(epsilon, batch_size), keys=keys, num_canaries=num_canaries, **options)


def bounds(seen) -> list[float]:
    return [judge_training(one, delta=DELTA).lower_bound for one in seen]


def step_alone(epsilon: float, batch_size: int, **options):
    chosen, plan, _, _ = ready(epsilon, batch_size)
    options = {"num_repeats": 8000, "num_opposing": 0, **options}
    return repeat_step(chosen, plan, key=jax.random.key(1), **options)


def test_a_right_training_is_never_above_its_claim_and_what_it_claims_is_the_ledgers():
    seen = train(1.0, WHOLE, seeds=range(20))
    claimed = seen[0].ledger.epsilon(DELTA)
    assert 0.99 <= claimed <= 1.0 and one_run_method(seen[0].ledger) == "gaussian"
    assert [one.ledger.events for one in seen] == [seen[0].ledger.events] * 20
    assert len({one.is_in.tobytes() for one in seen}) == 20
    assert max(bounds(seen)) <= claimed
    # Each score is a log likelihood ratio of Gaussians at a distance of mu: mean +- mu^2 / 2, variance mu^2.
    scores, is_in = np.concatenate([one.scores for one in seen]), np.concatenate([one.is_in for one in seen])
    (event,) = seen[0].ledger.events
    mu = event["count"] ** 0.5 / event["noise_multiplier"]
    error = 5 * mu / len(scores) ** 0.5
    assert scores[is_in].mean() == pytest.approx(mu**2 / 2, abs=2 * error)
    assert scores[~is_in].mean() == pytest.approx(-(mu**2) / 2, abs=2 * error)
    assert scores[~is_in].std() == pytest.approx(mu, abs=error)


@pytest.mark.parametrize("alter", [without_noise, without_clipping, with_one_noise_key])
def test_a_broken_training_is_found_in_one_run(alter):
    (seen,) = train(1.0, WHOLE, alter=alter)
    result = judge_training(seen, delta=DELTA)
    assert result.is_violated and result.lower_bound > 2 * result.claimed_epsilon
    assert "does not hold" in result.sentence


@pytest.mark.parametrize("alter", [with_one_noise_key])
def test_a_broken_training_is_found_where_batches_are_sampled(alter):
    (seen,) = train(1.0, 600, alter=alter)
    assert one_run_method(seen.ledger) == "approximate"
    assert judge_training(seen, delta=DELTA).is_violated


def test_a_right_step_comes_near_its_claim_and_one_with_half_the_noise_exceeds_it():
    right = step_alone(4.0, WHOLE)
    assert not right.is_violated and right.lower_bound >= 0.8 * right.claimed_epsilon
    assert step_alone(4.0, WHOLE, alter=with_half_the_noise).is_violated


def test_batches_of_fixed_size_are_found_among_opposing_records():
    size = round(0.9 * (NUM_OPPOSING + 1))
    wrong = step_alone(2.0, 900, num_opposing=NUM_OPPOSING, alter=lambda step: with_batches_of_fixed_size(step, size))
    assert wrong.is_violated


@pytest.mark.slow
def test_sampled_batches_are_not_suspected_among_opposing_records():
    assert not step_alone(2.0, 900, num_opposing=NUM_OPPOSING).is_violated


OTHER_KINDS = [
    {"adaptive_clip": {"target_quantile": 0.5}},
    {"adaptive": {"rule": "loss", "num_blocks": 2}},
    {"schedule": {"noise": "linear", "noise_final": 0.5}},
    {"sampling": "partition"},
]


@pytest.mark.slow
@pytest.mark.parametrize("privacy", OTHER_KINDS)
def test_every_kind_of_training_is_audited(privacy):
    chosen = settings(1.0, 500, privacy=privacy)
    plan, keys = make_plan(chosen, SCHEMA), [jax.random.key(0)]
    (seen,) = observe(chosen, plan, POINTS, ready(1.0, 500)[3], keys=keys, num_canaries=400)
    result = judge_training(seen, delta=DELTA)
    assert not result.is_violated and 0.9 < result.claimed_epsilon <= 1.0 + 1e-6
    assert seen.scores[seen.is_in].mean() > seen.scores[~seen.is_in].mean()


@pytest.mark.slow
def test_correlated_noise_is_audited():
    chosen = settings(1.0, 500, privacy={"num_bands": 2})
    plan, keys = make_plan(chosen, SCHEMA), [jax.random.key(0)]
    (seen,) = observe(chosen, plan, POINTS, ready(1.0, 500)[3], keys=keys, num_canaries=400, alter=without_noise)
    assert judge_training(seen, delta=DELTA).is_violated


def test_a_canary_is_clipped_like_a_record_and_a_record_has_the_gradient_that_it_had():
    _, _, generator, records = ready(1.0, WHOLE)
    planted = plant(generator, 3, num_steps=NUM_STEPS, gradient_norm=100.0)
    params = planted.init(jax.random.key(0))
    table = plant_among(records[:5], 3)
    common = {"key": jax.random.key(1), "l2_clip_norm": 5.0}
    private_loss, own_loss = planted.private_loss, generator.private_loss
    assert private_loss is not None and own_loss is not None
    whole = clipped_grad_sum(private_loss, params, table, jnp.zeros(8, bool), **common).grad_sum
    np.testing.assert_allclose(whole["canary"], 5.0, rtol=1e-5)
    own_params = {name: part["model"] for name, part in params.items()}
    own = clipped_grad_sum(own_loss, own_params, records[:5], jnp.zeros(5, bool), **common).grad_sum
    for mine, theirs in zip(jax.tree.leaves(whole["model"]), jax.tree.leaves(own), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-6)


def test_canaries_come_first_and_change_sign_from_step_to_step():
    _, _, generator, records = ready(1.0, WHOLE)
    table = plant_among(records[:2], 3)
    assert isinstance(table, Planted)
    assert table.canary.tolist() == [0, 1, 2, NO_CANARY, NO_CANARY] and len(table.record) == 5
    planted = plant(generator, 3, num_steps=7, gradient_norm=1.0)
    assert planted.advance is not None
    signs = [planted.advance(planted.init(jax.random.key(0)), step / 7)["public"]["sign"] for step in range(7)]
    assert [float(sign) for sign in signs] == [1, -1, 1, -1, 1, -1, 1]


def test_an_audit_of_settings_runs_three_audits_and_says_what_comes_next():
    said: list[str] = []
    options = {"num_canaries": 60, "num_repeats": 1000, "key": jax.random.key(0), "announce": said.append}
    results = audit(settings(2.0, 500, steps_per_dispatch=NUM_STEPS), SCHEMA, **options)
    assert [result.is_violated for result in results] == [False] * 3
    assert results[0].claimed_epsilon == pytest.approx(2.0, rel=1e-2)
    assert all(result.confidence == pytest.approx(1 - 0.05 / 3) for result in results)
    assert said == [f"training once on 60 canaries, for {NUM_STEPS} steps", "repeating one step 1000 times, twice"]
    assert all(f"{result.name}: at least epsilon" in result.sentence for result in results)


def test_what_claims_nothing_is_not_audited():
    with pytest.raises(UserError, match="not private"):
        audit(settings("inf", 500), SCHEMA, key=jax.random.key(0))


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [WHOLE, 500, 60])
@pytest.mark.parametrize("epsilon", [0.5, 1.0, 2.0])
def test_twenty_right_trainings_stay_below_every_claim(epsilon, batch_size):
    seen = train(epsilon, batch_size, seeds=range(20), num_canaries=1000)
    assert max(bounds(seen)) <= seen[0].ledger.epsilon(DELTA)


@pytest.mark.slow
def test_one_run_reaches_half_of_its_claim():
    (seen,) = train(4.0, WHOLE, num_canaries=4000)
    assert judge_training(seen, delta=DELTA).lower_bound >= 0.5 * seen.ledger.epsilon(DELTA)
