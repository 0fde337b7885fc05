"""The Gaussian mixture of codes: what one record adds to it, what it draws, and the GAN that starts from it."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from configs.adult_gmm_gan import get_config
from launch.config import to_settings
from privsyn_jax.learn import learn
from privsyn_jax.models import gmm_gan
from privsyn_jax.models.units import of_units
from privsyn_jax.plan import make_plan
from privsyn_jax.privacy.accounting import epsilon_of
from privsyn_jax.privacy.guard import Private
from privsyn_jax.privacy.ledger import Ledger
from privsyn_jax.privacy.noise import HostNoise
from privsyn_jax.privacy.release import embedding_sum
from privsyn_jax.privacy.secret import Secret
from privsyn_jax.settings import settings_from_dict
from privsyn_jax.training.attempt import Attempt
from privsyn_jax.types import Column, Schema, UnitRows, UserError

CARDINALITIES = (3, 2, 4)
RECORDS = np.array(list(itertools.product(*map(range, CARDINALITIES))), np.int32)  # all 24
SMALL = {"cardinalities": CARDINALITIES, "latent_dim": 4, "critic_dims": (6,), "generator_dims": (8,)}
GENERATOR = gmm_gan.make(**SMALL, column_order=(1, 0, 2))
(STAGE,) = GENERATOR.stages
FRESH = GENERATOR.init(jax.random.key(0))


def table(num_rows, seed=0):
    """Columns 0 and 2 agree in class 0 and not in class 1, which has other shares too."""
    rng = np.random.default_rng(seed)
    label = (rng.random(num_rows) < 0.3).astype(np.int32)
    first = np.where(label, rng.choice(3, num_rows, p=[0.1, 0.2, 0.7]), rng.choice(3, num_rows, p=[0.5, 0.3, 0.2]))
    follows = (rng.random(num_rows) < 0.8) & (label == 0)
    last = np.where(follows, first, rng.choice(4, num_rows, p=[0.1, 0.2, 0.3, 0.4]))
    return np.stack([first, label, last], axis=1).astype(np.int32)


def noisy_sum(records, noise_multiplier=0.0, stage=STAGE, seed=0):
    return embedding_sum(
        lambda record: stage.embed(FRESH, record),
        records,
        num_groups=stage.num_groups,
        noise_multiplier=noise_multiplier,
        noise=HostNoise(seed),
    )


def absorbed(records, noise_multiplier=0.0):
    total, stddev, _ = noisy_sum(records, noise_multiplier)
    return STAGE.absorb(FRESH, total, stddev, jax.random.key(0))


@functools.cache
def of_table():
    return absorbed(table(5000))


def shares_of(rows, *columns):
    """[24] or a marginal of it."""
    sizes = [CARDINALITIES[column] for column in columns]
    places = np.ravel_multi_index(tuple(rows[:, column] for column in columns), sizes)
    return np.bincount(places, minlength=math.prod(sizes)) / len(rows)


def variation(rows, others, *columns):
    return 0.5 * np.abs(shares_of(rows, *columns) - shares_of(others, *columns)).sum()


# ---- what one record changes, and the noise


@given(seed=st.integers(0, 1000), added=st.integers(0, 23), count=st.sampled_from([0, 600]))
@settings(max_examples=6, deadline=None)
def test_one_record_moves_the_sum_by_at_most_one_and_nearly_so(seed, added, count):
    others = np.random.default_rng(seed).integers(CARDINALITIES, size=(count + 1, 3)).astype(np.int32)
    moved = noisy_sum(np.concatenate([others, RECORDS[added : added + 1]]))[0] - noisy_sum(others)[0]
    assert 0.999 < np.linalg.norm(moved) < 1 + 1e-4
    assert (np.abs(moved).sum(axis=1) > 1e-3).sum() == 1  # the sum of its own class


@given(
    rows=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1), st.integers(0, 3)), min_size=0, max_size=3),
    filling=st.integers(0, 2),
)
@settings(max_examples=6, deadline=None)
def test_one_unit_moves_the_sum_by_at_most_one_whatever_it_owns(rows, filling):
    (stage,) = of_units(GENERATOR, 3).stages
    codes = np.full((1, 3, 3), filling, np.int32) * [1, 0, 1]
    codes[0, : len(rows)] = np.array(rows, np.int32).reshape(-1, 3)
    unit = UnitRows(codes.astype(np.int32), np.arange(3)[None] < len(rows))
    moved = noisy_sum(unit, stage=stage)[0]
    assert np.linalg.norm(moved) < 1 + 1e-5
    alone = noisy_sum(codes[0, : len(rows)].astype(np.int32))[0] if rows else np.zeros((2, moved.shape[1] // 2))
    np.testing.assert_allclose(3 * moved.reshape(2, -1), alone, atol=1e-5)


def test_units_are_absorbed_as_rows_with_more_noise(monkeypatch):
    seen = []
    stage = STAGE._replace(absorb=lambda params, total, stddev, key: seen.append((total, stddev)) or params)
    (wrapped,) = of_units(GENERATOR._replace(stages=(stage,)), 3).stages
    size = noisy_sum(RECORDS)[0].shape[1]
    wrapped.absorb(FRESH, np.ones((1, 2 * size)), 0.5, jax.random.key(0))
    assert seen[0][1] == 1.5 and (seen[0][0] == 3).all() and seen[0][0].shape == (2, size)


def test_the_noise_is_normal_with_the_multiplier_as_its_stddev():
    noisy, stddev, event = noisy_sum(RECORDS, 4.0, seed=3)
    noise = (noisy - noisy_sum(RECORDS)[0]).ravel()
    assert stddev == 4.0 and event == {"kind": "gaussian", "noise_multiplier": 4.0, "count": 1}
    assert kstest(noise / 4.0, "norm").pvalue > 1e-4
    assert kstest(noise / 3.0, "norm").pvalue < 1e-2


# ---- the mixture alone


def test_the_mixture_alone_draws_classes_columns_and_pairs_as_they_are():
    real = table(20_000)
    rows = GENERATOR.sample(absorbed(real), jax.random.key(1), 20_000)
    for columns in [(0,), (1,), (2,), (0, 1), (1, 2)]:
        assert variation(rows, real, *columns) < 0.03, columns
    assert variation(rows, real, 0, 2) < 0.06 and variation(rows, real, 0, 1, 2) < 0.06  # no Gaussian has exactly these
    rng = np.random.default_rng(0)
    shuffled = np.stack([rng.permutation(column) for column in real.T], axis=1)
    assert variation(shuffled, real, 0, 2) > 0.15


def test_without_classes_pairs_are_learned_too():
    generator = gmm_gan.make(**SMALL, by_target=False)
    (stage,) = generator.stages
    real = table(20_000)
    params = stage.absorb(FRESH, noisy_sum(real, stage=stage)[0], 0.0, jax.random.key(0))
    rows = generator.sample(params, jax.random.key(1), 20_000)
    assert max(variation(rows, real, *pair) for pair in [(0, 1), (0, 2), (1, 2)]) < 0.07
    assert generator.exact_conditions((0, 1)) == ()


def test_noise_is_not_taken_for_dependence():
    """An independent table with noise of the size of all its counts: what is drawn stays independent."""
    rng = np.random.default_rng(0)
    real = np.stack([rng.choice(k, 3000) for k in CARDINALITIES], axis=1).astype(np.int32)
    rows = GENERATOR.sample(absorbed(real, 40.0), jax.random.key(1), 20_000)
    independent = np.outer(shares_of(rows, 0), shares_of(rows, 2)).ravel()
    assert 0.5 * np.abs(shares_of(rows, 0, 2) - independent).sum() < 0.1


@pytest.mark.parametrize("noise_multiplier", [1e3, 1e6])
def test_pure_noise_still_gives_records(noise_multiplier):
    params = absorbed(RECORDS, noise_multiplier)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
    rows = GENERATOR.sample(params, jax.random.key(1), 100)
    assert (rows >= 0).all() and (rows < np.array(CARDINALITIES)).all()


def test_the_target_is_fixed_exactly_and_nothing_else():
    params = of_table()
    assert GENERATOR.exact_conditions((0, 1, 2)) == (1,) and GENERATOR.exact_conditions((0,)) == ()
    rows = GENERATOR.sample(params, jax.random.key(1), 3000, {1: 1})
    real = table(50_000, seed=5)
    assert (rows[:, 1] == 1).all() and variation(rows, real[real[:, 1] == 1], 0, 2) < 0.06
    with pytest.raises(ValueError, match=r"columns \[0\] cannot be fixed"):
        GENERATOR.sample(params, jax.random.key(1), 3, {0: 1})


# ---- the GAN


def test_the_generator_starts_at_the_mixture_and_can_leave_it():
    params = of_table()
    start = GENERATOR.sample(params, jax.random.key(1), 4000)
    net = params["public"]["net"]
    last = sorted(name for name in net if name.startswith("Dense"))[-1]
    assert (np.asarray(net[last]["kernel"]) == 0).all()
    pushed = {**net, last: {**net[last], "bias": jnp.where(jnp.arange(9) == 0, 5.0, 0.0)}}
    moved = GENERATOR.sample({**params, "public": {**params["public"], "net": pushed}}, jax.random.key(1), 4000)
    assert (moved[:, 0] == 0).mean() > (start[:, 0] == 0).mean() + 0.1
    np.testing.assert_array_equal(moved[:, 1], start[:, 1])


def test_the_mixture_gets_no_gradient():
    params = of_table()
    private = jax.tree.map(lambda leaf: leaf + 0.1, params["private"])
    loss = lambda public: GENERATOR.public_loss({"private": private, "public": public}, jax.random.key(0))  # noqa: E731
    grads = jax.jit(jax.grad(loss))(params["public"])
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(grads["base"]))
    assert any((np.asarray(leaf) != 0).any() for leaf in jax.tree.leaves(grads["net"]))


# ---- plan, ledger, a whole run

SCHEMA = Schema(
    columns=(
        Column("age", "integer", lower=0, upper=90),
        Column("ward", "categorical", categories=("a", "b", "c")),
        Column("dead", "boolean"),
    ),
    num_records=400,
    target="dead",
)
TINY = {
    "model": {"name": "gmm_gan", "latent_dim": 2, "critic_dims": (4,), "generator_dims": (4,)},
    "transform": {"num_bins": 4, "num_cells": 16},
    "training": {"num_steps": 4, "steps_per_dispatch": 2, "expected_batch_size": 32, "generator_batch_size": 8},
    "privacy": {"epsilon": 1.0, "delta": 1e-4},
}


def frame(num_rows=400, seed=0):
    rng = np.random.default_rng(seed)
    dead = rng.random(num_rows) < 0.3
    ward = rng.choice(np.array(["a", "b", "c"], object), num_rows)
    return pd.DataFrame({"age": np.where(dead, 80, rng.integers(0, 60, num_rows)), "ward": ward, "dead": dead})


def test_a_run_buys_the_mixture_first_and_lands_on_epsilon():
    checked = settings_from_dict(TINY)
    plan = make_plan(checked, SCHEMA)
    records, ledger = Private(frame()), Ledger()
    run = learn(records, SCHEMA, plan, checked, Attempt(Secret.fresh(), ledger))
    names = ["histograms", "class moments", "training"]
    assert [entry.name for entry in ledger.entries] == names
    assert [opening.charged_as for opening in records.openings] == names
    assert ledger.entries[-2].event == plan.release("class moments").event
    assert 0.99 < run.privacy["epsilon"] <= 1.0
    assert run.privacy["epsilon"] == pytest.approx(epsilon_of(ledger.events, 1e-4), rel=1e-6)
    drawn = run.sample(300, seed=0)
    assert len(drawn) == 300 and drawn["dead"].any() and not drawn["dead"].all()
    assert run.sample(50, seed=0, conditions={"dead": True})["dead"].all()


def test_with_public_edges_nothing_but_the_mixture_is_bought():
    transform = {**TINY["transform"], "edges": "public"}
    plan = make_plan(settings_from_dict({**TINY, "transform": transform}), SCHEMA)
    assert [release.name for release in plan.releases] == ["class moments"]
    assert plan.training_share == pytest.approx(0.75)


def test_a_mixture_without_a_share_is_refused():
    privacy = {**TINY["privacy"], "budget": {"marginals": 0.0}}
    with pytest.raises(UserError, match=r"privacy.budget.marginals is 0: give a share for what model.name='gmm"):
        make_plan(settings_from_dict({**TINY, "privacy": privacy}), SCHEMA)


def test_too_many_codes_are_refused():
    with pytest.raises(ValueError, match="1002 codes, more than 1000: lower transform"):
        gmm_gan.make(cardinalities=(1000, 2))


def test_the_config_fits():
    checked = to_settings(get_config("smoke"))
    assert checked.model["name"] == "gmm_gan" and checked.training.num_steps == 20
