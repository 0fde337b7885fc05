"""The variational autoencoder against a plain NumPy one, and against integrals over its latent."""

import functools
import itertools
import json
import logging

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import chi2

from privsyn_jax.data.schema import schema_to_dict
from privsyn_jax.learn import learn
from privsyn_jax.models import tvae
from privsyn_jax.models.units import of_units
from privsyn_jax.plan import make_plan
from privsyn_jax.privacy.accounting import epsilon_of
from privsyn_jax.privacy.clipping import choose, clipped_grad_sum
from privsyn_jax.privacy.guard import Private, UnchargedAccess
from privsyn_jax.privacy.ledger import Ledger, Receipt
from privsyn_jax.privacy.noise import HostNoise
from privsyn_jax.privacy.release import embedding_sum
from privsyn_jax.privacy.secret import Secret
from privsyn_jax.run import execute
from privsyn_jax.settings import settings_from_dict
from privsyn_jax.synthesis.sampler import synthesize
from privsyn_jax.training import stages
from privsyn_jax.training.attempt import Attempt
from privsyn_jax.training.marginals import Marginals
from privsyn_jax.transforms.discretize import fit_public
from privsyn_jax.types import Column, Schema, UnitRows

CARDINALITIES = (3, 2, 4)
SPLITS = (3, 5)
RECORDS = np.array(list(itertools.product(*map(range, CARDINALITIES))), np.int32)  # all 24
NOBODY = np.zeros(len(RECORDS), bool)
CLIP = 0.5
GENERATOR = tvae.make(cardinalities=CARDINALITIES, latent_dim=1, hidden_dims=(6, 4), kl_weight=0.7)
FRESH = GENERATOR.init(jax.random.key(0))


def randomized(seed, scale=1.0):
    """Every trained leaf drawn anew, also those that start at zero."""
    rng = np.random.default_rng(seed)
    private = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, scale, leaf.shape), jnp.float32), FRESH["private"])
    return {**FRESH, "private": private}


def mlp(layers, inputs):
    """float64 [n, outputs], of the layers of one half of the network in order."""
    hidden = np.asarray(inputs, np.float64)
    for number, layer in enumerate(layers[f"Dense_{i}"] for i in range(len(layers))):
        if number:
            hidden = 0.5 * hidden * (1 + np.tanh(np.sqrt(2 / np.pi) * (hidden + 0.044715 * hidden**3)))
        hidden = hidden @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"], np.float64)
    return hidden


def log_probs(params, latents):
    """[n, 24]: log probability of each record at each latent [n, 1]."""
    parts = np.split(mlp(params["private"]["decoder"], latents), SPLITS, axis=1)
    own = [part - logsumexp(part, axis=1, keepdims=True) for part in parts]
    return sum(table[:, RECORDS[:, column]] for column, table in enumerate(own))


def probabilities(params, stddev=1.0, mean=0.0):
    """[24]: of each record when the latent is N(mean, stddev^2), by quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(120)
    return weights @ np.exp(log_probs(params, mean + stddev * nodes[:, None])) / weights.sum()


def posteriors(params):
    """Mean and log variance [24, 1] of each record."""
    one_hot = np.concatenate([np.eye(size)[RECORDS[:, column]] for column, size in enumerate(CARDINALITIES)], axis=1)
    return np.split(mlp(params["private"]["encoder"], one_hot), 2, axis=1)


def divergences(params):
    """[24]: of each record's posterior from N(0, 1)."""
    mean, log_variance = posteriors(params)
    return 0.5 * (mean**2 + np.exp(log_variance) - log_variance - 1).sum(axis=1)


@jax.jit
def losses(params, keys):
    """[keys, 24]."""
    over_keys = jax.vmap(GENERATOR.private_loss, in_axes=(None, None, 0))
    return jax.vmap(over_keys, in_axes=(None, 0, None), out_axes=1)(params, RECORDS, keys)


def assert_counts_match(counts, probs):
    """Pearson's test; a right sampler fails once in a million."""
    expected = counts.sum() * probs / probs.sum()
    assert ((counts - expected) ** 2 / expected).sum() < chi2.isf(1e-6, len(counts) - 1)


# ---- the loss


def test_loss_is_that_of_a_plain_autoencoder():
    params, keys = randomized(seed=1), jax.random.split(jax.random.key(2), 5)
    mean, log_variance = posteriors(params)
    noise = np.asarray([jax.random.normal(key, (1,)) for key in jax.random.split(jax.random.key(2), 5)], np.float64)
    found = np.asarray(losses(params, keys))
    for row in range(len(RECORDS)):
        latents = mean[row] + np.exp(log_variance[row] / 2) * noise
        wanted = -log_probs(params, latents)[:, row] + 0.7 * divergences(params)[row]
        np.testing.assert_allclose(found[:, row], wanted, rtol=2e-4)


def test_the_target_weighs_in_the_loss_as_often_as_it_is_told_to():
    params = randomized(seed=1)

    def loss(weight, row):
        generator = tvae.make(
            cardinalities=CARDINALITIES, column_order=(2, 0, 1), latent_dim=1, hidden_dims=(6, 4), target_weight=weight
        )
        return generator.private_loss(params, RECORDS[row], jax.random.key(2))

    mean, log_variance = posteriors(params)
    for row in (0, 7, 23):
        latent = mean[row] + np.exp(log_variance[row] / 2) * np.asarray(
            jax.random.normal(jax.random.key(2), (1,)), np.float64
        )
        logits = np.split(mlp(params["private"]["decoder"], latent[None]), SPLITS, axis=1)[2][0]
        of_target = logsumexp(logits) - logits[RECORDS[row, 2]]
        np.testing.assert_allclose(loss(4.0, row) - loss(1.0, row), 3 * of_target, rtol=1e-4)


def test_mean_loss_bounds_the_negative_log_probability_from_above():
    """With kl_weight 1. Without the divergence it would be below, by hundreds of standard errors."""
    params = randomized(seed=4)
    draws = np.asarray(losses(params, jax.random.split(jax.random.key(0), 4000)), np.float64)
    standard_errors = draws.std(axis=0) / np.sqrt(len(draws))
    nll = -np.log(probabilities(params))
    assert (draws.mean(axis=0) + 0.3 * divergences(params) > nll - 5 * standard_errors).all()
    assert (draws.mean(axis=0) - 0.7 * divergences(params) < nll - 5 * standard_errors).any()


def test_a_new_network_is_uniform_over_records():
    nll = losses(FRESH, jax.random.split(jax.random.key(0), 3)) - 0.7 * divergences(FRESH)[None]
    np.testing.assert_allclose(nll, np.log(24), rtol=1e-5)


@pytest.mark.parametrize("offset", [-1e4, 1e4])
def test_logits_of_one_column_far_from_those_of_another_lose_nothing(offset):
    """The log-normaliser of a column is taken relative to its own largest logit."""
    params = randomized(seed=5)
    bias = params["private"]["decoder"]["Dense_2"]["bias"]
    before = losses(params, jax.random.split(jax.random.key(0), 2))
    params["private"]["decoder"]["Dense_2"]["bias"] = bias.at[:3].add(offset)
    after = losses(params, jax.random.split(jax.random.key(0), 2))
    np.testing.assert_allclose(after, before, atol=0.01)


# ---- its clipped gradients


@functools.partial(jax.jit, static_argnames="method")
def clipped(params, is_padding, bound, method="ghost"):
    key = jax.random.key(3)
    return clipped_grad_sum(
        GENERATOR.private_loss, params, RECORDS, is_padding, key, l2_clip_norm=bound, method=method
    ).grad_sum


def distance(left, right):
    """L2, over all parameters."""
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return np.sqrt(sum(np.sum(np.square(np.float64(a) - b)) for a, b in pairs))


def test_ghost_clipping_takes_every_matrix_without_copies():
    params = tvae.make(cardinalities=(30, 40, 50)).init(jax.random.key(0))
    generator = tvae.make(cardinalities=(30, 40, 50))
    examples, keys = jnp.zeros((64, 3), jnp.int32), jax.random.split(jax.random.key(0), 64)
    choice = choose(generator.private_loss, params, examples, keys)
    matrices, biases = 4, 4
    assert choice.headline == f"ghost (gradient {biases}, single {matrices}) for 64 examples"


def test_ghost_gradients_equal_formed_ones():
    params = randomized(seed=6)
    found, wanted = clipped(params, NOBODY, CLIP), clipped(params, NOBODY, CLIP, method="vmap")
    assert distance(found, wanted) < 1e-4 * distance(wanted, jax.tree.map(jnp.zeros_like, wanted))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    scale=st.sampled_from([1e-3, 1.0, 3.0, 1e3, 1e20]),
    row=st.integers(0, 23),
    bound=st.sampled_from([1e-2, 1.0]),
)
def test_one_record_moves_the_sum_by_at_most_the_clip_norm(seed, scale, row, bound):
    params = randomized(seed, scale)
    moved = distance(clipped(params, NOBODY, bound), clipped(params, NOBODY | (np.arange(24) == row), bound))
    assert moved <= bound * (1 + 1e-5) + 1e-6 * 24 * bound  # float32 rounding of a sum of 24 vectors


def test_without_clipping_one_record_moves_the_sum_further():
    params = randomized(seed=7)
    moved = distance(clipped(params, NOBODY, 1e6), clipped(params, NOBODY | (np.arange(24) == 3), 1e6))
    assert moved > 10 * CLIP


# ---- sampling


def test_sampling_frequencies_match_the_integral_over_the_latent():
    params = randomized(seed=4)
    rows = GENERATOR.sample(params, jax.random.key(5), 20_000, {})
    counts = np.bincount(np.ravel_multi_index(rows.T, CARDINALITIES), minlength=24)
    assert_counts_match(counts, probabilities(params))
    for stddev in (0.0, 0.5, 2.0):  # a latent of another width would be seen
        with pytest.raises(AssertionError):
            assert_counts_match(counts, probabilities(params, stddev))


def test_sampling_compiles_once_whatever_the_number_of_rows(caplog):
    generator = tvae.make(cardinalities=CARDINALITIES, latent_dim=2, hidden_dims=(3,))
    params = generator.init(jax.random.key(0))

    def compilations(num_samples):
        caplog.clear()
        with jax.log_compiles(), caplog.at_level(logging.WARNING):
            rows = generator.sample(params, jax.random.key(1), num_samples, {})
        assert rows.shape == (num_samples, 3) and rows.dtype == np.int32
        return sum("sample_block" in message and "Compiling" in message for message in caplog.messages)

    assert [compilations(number) for number in (1, 1024, 1025)] == [1, 0, 0]


def test_conditions_are_met_by_rejection():
    schema = Schema((Column("sex", "boolean"), Column("age", "integer", lower=0, upper=9)), num_records=100)
    transform = fit_public(schema, num_bins=5)
    generator = tvae.make(cardinalities=transform.cardinalities, latent_dim=1, hidden_dims=(3,))
    params = generator.init(jax.random.key(0))
    result = synthesize(
        generator, params, transform, num_samples=40, conditions={"sex": True, "age": {"max": 4}}, key=jax.random.key(1)
    )
    assert result.exact == () and set(result.rejected_on) == {"sex", "age"} and result.drawn > result.accepted
    assert len(result.records) == 40 and result.records["sex"].all() and (result.records["age"] <= 4).all()
    with pytest.raises(ValueError, match=r"columns \[1\] cannot be fixed"):
        generator.sample(params, jax.random.key(0), 5, {1: 0})


# ---- the bought prior, and calibration


def bought(params, records=RECORDS, noise_multiplier=0.0, generator=GENERATOR, seed=0):
    """(params with the prior, noisy sum, stddev, event)."""
    (stage,) = generator.after
    total, stddev, event = embedding_sum(
        functools.partial(stage.embed, params),
        records,
        num_groups=stage.num_groups,
        noise_multiplier=noise_multiplier,
        noise=HostNoise(seed),
    )
    return stage.absorb(params, total, stddev, jax.random.key(0)), total, stddev, event


def of_kind(**arguments):
    return tvae.make(cardinalities=CARDINALITIES, latent_dim=1, hidden_dims=(6, 4), **arguments)


def test_the_prior_has_the_moments_of_all_posteriors_together():
    params = randomized(seed=8, scale=0.3)
    mean, log_variance = posteriors(params)
    assert np.abs(mean).max() < 1.7  # none is scaled down
    prior = bought(params, generator=of_kind())[0]["public"]["prior"]
    np.testing.assert_allclose(prior["means"], [mean.mean(axis=0)], atol=1e-4)
    wanted = mean.var() + np.exp(log_variance).mean()
    np.testing.assert_allclose(np.square(prior["factors"]), [[[wanted]]], rtol=1e-3)


def test_halves_of_the_latent_space_have_moments_of_their_own():
    params, generator = randomized(seed=9, scale=0.5), of_kind(prior_splits=1)
    last = params["private"]["encoder"]["Dense_2"]
    last["bias"] = last["bias"].at[0].add(-float(np.median(posteriors(params)[0])))
    prior = bought(params, generator=generator)[0]["public"]["prior"]
    mean = posteriors(params)[0][:, 0]
    np.testing.assert_allclose(prior["shares"], [(mean <= 0).mean(), (mean > 0).mean()], atol=1e-5)
    clipped = np.clip(mean, -1.7, 1.7)
    np.testing.assert_allclose(prior["means"][:, 0], [clipped[mean <= 0].mean(), clipped[mean > 0].mean()], atol=1e-3)


def test_sampling_frequencies_match_the_integral_over_the_bought_prior():
    generator = of_kind()
    params, *_ = bought(randomized(seed=4), generator=generator)
    prior = params["public"]["prior"]
    mean, stddev = float(prior["means"][0, 0]), float(prior["factors"][0, 0, 0])
    counts = np.bincount(
        np.ravel_multi_index(generator.sample(params, jax.random.key(5), 20_000, {}).T, CARDINALITIES), minlength=24
    )
    assert_counts_match(counts, probabilities(params, abs(stddev), mean))
    with pytest.raises(AssertionError):
        assert_counts_match(counts, probabilities(params))


@settings(max_examples=6, deadline=None)
@given(
    seed=st.integers(0, 1000),
    scale=st.sampled_from([1e-3, 1.0, 30.0]),
    row=st.integers(0, 23),
    splits=st.sampled_from([0, 1]),
)
def test_one_record_moves_the_sum_of_latents_by_at_most_one(seed, scale, row, splits):
    params, generator = randomized(seed, scale), of_kind(prior_splits=splits)
    others = np.delete(RECORDS, row, axis=0)
    moved = bought(params, generator=generator)[1] - bought(params, others, generator=generator)[1]
    assert np.linalg.norm(moved) < 1 + 1e-4


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 1000), rows=st.lists(st.integers(0, 23), min_size=0, max_size=3))
def test_one_unit_moves_the_sum_of_latents_by_at_most_one(seed, rows):
    params, generator = randomized(seed), of_units(of_kind(), 3)
    codes = np.zeros((1, 3, 3), np.int32)
    codes[0, : len(rows)] = RECORDS[rows]
    _, total, _, _ = bought(params, UnitRows(codes, np.arange(3)[None] < len(rows)), generator=generator)
    assert np.linalg.norm(total) < 1 + 1e-5
    if len(rows) == 3:
        alone = bought(params, RECORDS[rows], generator=of_kind())[1]
        np.testing.assert_allclose(3 * total.reshape(alone.shape), alone, atol=1e-5)


def test_the_noise_on_latents_is_normal_and_of_the_stated_scale():
    params = randomized(seed=8, scale=0.3)
    generator = tvae.make(cardinalities=CARDINALITIES, latent_dim=24, hidden_dims=(6,))
    params = generator.init(jax.random.key(0))
    _, noisy, stddev, event = bought(params, RECORDS, 5.0, generator)
    noise = (noisy - bought(params, RECORDS, 0.0, generator)[1]).ravel()
    assert stddev == 5.0 and event == {"kind": "gaussian", "noise_multiplier": 5.0, "count": 1}
    assert abs(noise.std() - 5.0) < 5 * 5.0 / np.sqrt(2 * len(noise))


@pytest.mark.parametrize("noise_multiplier", [30.0, 1e6])
def test_whatever_the_noise_the_prior_has_a_covariance(noise_multiplier):
    generator = tvae.make(cardinalities=CARDINALITIES, latent_dim=3, hidden_dims=(4,), prior_splits=2)
    params, *_ = bought(generator.init(jax.random.key(0)), RECORDS, noise_multiplier, generator)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
    rows = generator.sample(params, jax.random.key(1), 200, {})
    assert (rows >= 0).all() and (rows < np.array(CARDINALITIES)).all()


@pytest.mark.parametrize("has_prior", [False, True])
def test_calibrated_columns_come_out_as_often_as_was_counted(has_prior):
    generator, params = of_kind(), randomized(seed=4)
    params = {**params, "public": generator.init(jax.random.key(0))["public"]}
    if has_prior:
        params, *_ = bought(params, generator=generator)
    counts = [np.array([70.0, 20.0, 10.0]), np.array([5.0, 95.0]), np.array([40.0, 30.0, 20.0, 10.0])]
    marginals = Marginals(counts, [np.ones(len(own)) for own in counts], {})
    before = generator.sample(params, jax.random.key(5), 20_000, {})
    after = generator.sample(generator.calibrate(params, marginals, jax.random.key(6)), jax.random.key(5), 20_000, {})
    for column, own in enumerate(counts):
        shares = [np.bincount(rows[:, column], minlength=len(own)) / len(rows) for rows in (before, after)]
        assert np.abs(shares[1] - own / own.sum()).max() < 0.02 < np.abs(shares[0] - own / own.sum()).max()


# ---- plan, ledger, resuming

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
    "model": {"name": "tvae", "latent_dim": 2, "hidden_dims": (4,)},
    "transform": {"num_bins": 4, "num_cells": 16},
    "training": {"num_steps": 4, "steps_per_dispatch": 2, "expected_batch_size": 32, "checkpoint_seconds": 3600},
    "privacy": {"epsilon": 1.0, "delta": 1e-4},
    "evaluation": {"enabled": False},
}


def small_frame():
    rng = np.random.default_rng(0)
    ward = rng.choice(np.array(["a", "b", "c"], object), 400)
    return pd.DataFrame({"age": rng.integers(0, 91, 400), "ward": ward, "dead": rng.random(400) < 0.3})


def learned(attempt=None, **privacy):
    checked = settings_from_dict({**TINY, "privacy": {**TINY["privacy"], **privacy}})
    records, plan = Private(small_frame()), make_plan(checked, SCHEMA)
    attempt = attempt or Attempt(Secret.fresh(), Ledger())
    return learn(records, SCHEMA, plan, checked, attempt), plan, attempt.ledger, records


def test_the_prior_is_charged_last_and_the_run_lands_on_epsilon():
    run, plan, ledger, records = learned()
    names = ["histograms", "training", "latent prior"]
    assert [entry.name for entry in ledger.entries] == names
    assert [opening.charged_as for opening in records.openings] == names
    assert ledger.entries[-1].event == plan.release("latent prior").event
    assert plan.release("latent prior").share == 0.05 and plan.training_share == pytest.approx(0.9)
    assert 0.99 < run.privacy["epsilon"] <= 1.0
    assert run.privacy["epsilon"] == pytest.approx(epsilon_of(ledger.events, 1e-4), rel=1e-6)
    assert not np.array_equal(run._params["public"]["prior"]["factors"][0], np.eye(2))


def after_of(ledger, **privacy):
    """(params, those that `buy_after` makes of them)."""
    plan = make_plan(settings_from_dict({**TINY, "privacy": {**TINY["privacy"], **privacy}}), SCHEMA)
    params = FRESH | {"private": randomized(seed=8, scale=0.3)["private"]}
    return params, stages.buy_after(
        GENERATOR, Private(RECORDS), params, plan=plan, seed=0, ledger=ledger, noise=HostNoise(0)
    )


def test_without_a_share_no_prior_is_bought():
    params, after = after_of(ledger := Ledger(), budget={"prior": 0.0})
    assert after is params and not ledger.entries
    params, after = after_of(ledger)
    assert [entry.name for entry in ledger.entries] == ["latent prior"]
    assert np.abs(after["public"]["prior"]["means"] - params["public"]["prior"]["means"]).max() > 0


def test_a_prior_that_is_not_charged_reads_nothing(monkeypatch):
    monkeypatch.setattr(Ledger, "charge", lambda self, name, *_, **__: Receipt(self, name))
    with pytest.raises(UnchargedAccess, match="private records were to be opened with"):
        after_of(Ledger())


def test_a_run_killed_after_its_prior_was_bought_buys_the_same_at_no_charge(tmp_path, monkeypatch):
    small_frame().to_csv(tmp_path / "data.csv", index=False)
    (tmp_path / "schema.json").write_text(json.dumps(schema_to_dict(SCHEMA)))
    paths = {"path": str(tmp_path / "data.csv"), "schema": str(tmp_path / "schema.json")}
    checked, sums, buy = settings_from_dict({**TINY, "data": paths}), [], stages.release.embedding_sum

    def watched(*args, **kwargs):
        sums.append(buy(*args, **kwargs))
        if len(sums) == 1:
            raise KeyboardInterrupt
        return sums[-1]

    monkeypatch.setattr(stages.release, "embedding_sum", watched)
    with pytest.raises(KeyboardInterrupt):
        execute(checked, tmp_path / "run", announce=lambda message: None)
    before = json.loads((tmp_path / "run" / "private" / "ledger.json").read_text())["entries"]
    execute(checked, tmp_path / "run", announce=lambda message: None)
    after = json.loads((tmp_path / "run" / "private" / "ledger.json").read_text())["entries"]
    assert before == after and [entry["name"] for entry in after][-1] == "latent prior"
    assert [entry["event"]["count"] for entry in after] == [1, 4, 1]
    assert len(sums) == 2
    np.testing.assert_array_equal(sums[0][0], sums[1][0])


def test_noise_after_training_is_no_other_noise_of_the_run():
    secret, draws = Secret.fresh(), []
    for noise in (
        secret.host_noise("a"), secret.host_noise_after("a"), secret.host_noise_after("b"),
        Secret(b"", 3).host_noise("a"), Secret(b"", 3).host_noise_after("a"), Secret(b"", 4).host_noise_after("a"),
    ):  # fmt: skip
        draws.append(noise.normal((5,), stddev=1.0))
    assert all(np.abs(one - other).min() > 0 for one, other in itertools.combinations(draws, 2))
    again = secret.host_noise_after("a").normal((5,), stddev=1.0)
    np.testing.assert_array_equal(again, draws[1])


# ---- learning and arguments


def test_it_learns_a_table_whose_columns_depend_on_one_another():
    """Column 2 tells column 0, column 1 is independent; no noise, so that the model alone is tested."""
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 3, 2000)
    table = np.stack([kind, rng.integers(0, 2, 2000), kind], axis=1).astype(np.int32)
    generator = tvae.make(cardinalities=CARDINALITIES, latent_dim=2, hidden_dims=(32,))
    params, optimizer = generator.init(jax.random.key(0)), optax.adam(1e-2)

    def mean_loss(private, key):
        keys = jax.random.split(key, len(table))
        losses = jax.vmap(generator.private_loss, in_axes=(None, 0, 0))({**params, "private": private}, table, keys)
        return losses.mean()

    def step(carry, key):
        private, state = carry
        updates, state = optimizer.update(jax.grad(mean_loss)(private, key), state)
        return (optax.apply_updates(private, updates), state), None

    train = jax.jit(lambda private, keys: jax.lax.scan(step, (private, optimizer.init(private)), keys)[0][0])
    trained = train(params["private"], jax.random.split(jax.random.key(1), 300))
    rows = generator.sample({**params, "private": trained}, jax.random.key(2), 4000, {})
    wanted = np.zeros((3, 4))
    np.add.at(wanted, (kind, kind), 1 / len(kind))

    def variation(codes):
        found = np.zeros((3, 4))
        np.add.at(found, (codes[:, 0], codes[:, 2]), 1 / len(codes))
        return 0.5 * np.abs(found - wanted).sum()

    shuffled = np.stack([rows[:, 0], rows[:, 1], rng.permutation(rows[:, 2])], axis=1)
    assert variation(rows) < 0.2 < 0.5 < variation(shuffled)  # codes independent given the latent blur its edges


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"latent_dim": 0}, "latent_dim 0 must be a whole number, at least 1"),
        ({"latent_dim": 2.5}, "latent_dim 2.5 must be a whole number"),
        ({"hidden_dims": ()}, r"hidden_dims \(\) must be a list of whole numbers"),
        ({"hidden_dims": (8, 0)}, r"hidden_dims \(8, 0\) must be"),
        ({"hidden_dims": 128}, "hidden_dims 128 must be a list"),
        ({"kl_weight": -1.0}, "kl_weight -1.0 must be a finite number, 0 or more"),
        ({"kl_weight": float("nan")}, "kl_weight nan must be"),
        ({"kl_weight": float("inf")}, "kl_weight inf must be"),
        ({"target_weight": -2.0}, "target_weight -2.0 must be a finite number, 0 or more"),
        ({"prior_splits": 5}, "prior_splits 5 must be a whole number from 0 to 4"),
        ({"prior_splits": 17, "latent_dim": 32}, "prior_splits 17 must be"),
        ({"prior_radius": 0.0}, "prior_radius 0.0 must be a finite number above 0"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        tvae.make(cardinalities=CARDINALITIES, **arguments)


def test_hidden_dims_may_be_a_list_as_saved_settings_hold_them():
    as_list = tvae.make(cardinalities=CARDINALITIES, latent_dim=1, hidden_dims=[6, 4]).init(jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, as_list, FRESH)
