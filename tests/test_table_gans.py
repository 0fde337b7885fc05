"""Adversarial generators of tables: what the critic sees, what bounds it, and how conditions are drawn."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from privsyn_jax import fit
from privsyn_jax.models import ctgan, gmm_gan, wgan
from privsyn_jax.privacy.clipping import choose, clipped_grad_sum
from privsyn_jax.training.marginals import Marginals
from privsyn_jax.training.optimizer import cosine_adam, projected
from privsyn_jax.types import Column, Schema

CARDINALITIES = (3, 2, 4)
RECORDS = np.array(list(itertools.product(*map(range, CARDINALITIES))), np.int32)  # all 24
NOBODY = np.zeros(len(RECORDS), bool)
SMALL = {"cardinalities": CARDINALITIES, "latent_dim": 4, "critic_dims": (6,), "generator_dims": (8,)}
GENERATORS = {
    "ctgan": ctgan.make(**SMALL),
    "all": ctgan.make(**SMALL, condition="all"),
    "gmm_gan": gmm_gan.make(**SMALL),
    "wgan": wgan.make(**SMALL),
    "penalty": ctgan.make(**SMALL, weight_bound=0.0, penalty_weight=10.0),
}


def randomized(params, seed, scale=1.0):
    """The critic's leaves drawn anew."""
    rng = np.random.default_rng(seed)
    private = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, scale, leaf.shape), jnp.float32), params["private"])
    return {**params, "private": private}


@functools.partial(jax.jit, static_argnames=("name", "method"))
def clipped(name, params, is_padding, bound, method="ghost"):
    return clipped_grad_sum(
        GENERATORS[name].private_loss, params, RECORDS, is_padding, jax.random.key(3), l2_clip_norm=bound, method=method
    ).grad_sum


def distance(left, right):
    """L2, over all parameters."""
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return np.sqrt(sum(np.sum(np.square(np.float64(a) - b)) for a, b in pairs))


def assert_frequencies(codes, probs):
    """Pearson's test; a right sampler fails once in a million."""
    expected = len(codes) * probs
    counts = np.bincount(codes, minlength=len(probs))
    assert ((counts - expected) ** 2 / expected).sum() < chi2.isf(1e-6, len(probs) - 1)


@pytest.mark.parametrize("name", ["ctgan", "all", "gmm_gan", "wgan"])
def test_critics_take_the_fast_path(name):
    generator = GENERATORS[name]
    params, keys = generator.init(jax.random.key(0)), jax.random.split(jax.random.key(0), 8)
    choice = choose(generator.private_loss, params, RECORDS[:8], keys)
    assert choice.headline.startswith("ghost") and "copies" not in choice.headline


@pytest.mark.parametrize("name", GENERATORS)
def test_clipped_gradients_equal_formed_ones(name):
    params = randomized(GENERATORS[name].init(jax.random.key(0)), seed=1)
    found, wanted = (clipped(name, params, NOBODY, 0.05, method) for method in ("auto", "vmap"))
    assert distance(found, wanted) < 1e-3 * distance(wanted, jax.tree.map(jnp.zeros_like, wanted))


@settings(max_examples=15, deadline=None)
@given(
    name=st.sampled_from(sorted(GENERATORS)),
    seed=st.integers(0, 1000),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
    row=st.integers(0, 23),
)
def test_one_record_moves_the_sum_by_at_most_the_clip_norm(name, seed, scale, row):
    params, bound = randomized(GENERATORS[name].init(jax.random.key(0)), seed, scale), 0.1
    method = "vmap" if name == "penalty" else "ghost"
    with_it = clipped(name, params, NOBODY, bound, method)
    without = clipped(name, params, NOBODY | (np.arange(24) == row), bound, method)
    assert distance(with_it, without) <= bound * (1 + 1e-5) + 1e-6 * 24 * bound  # float32 rounding of 24 vectors


def test_training_keeps_the_weights_of_the_critic_bounded():
    """Large steps, without and with a bound: what is released is the generator, so its critic is looked at here."""
    optimizer = projected(cosine_adam(0.3, 10), GENERATORS["wgan"].project)
    private = GENERATORS["wgan"].init(jax.random.key(0))["private"]
    state, rng = optimizer.init(private), np.random.default_rng(0)
    for _ in range(5):
        grads = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), private)
        updates, state = optimizer.update(grads, state, private)
        private = optax.apply_updates(private, updates)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(private))
    assert 0.1 - 1e-6 < largest < 0.1 + 1e-6
    assert GENERATORS["penalty"].project is None


def test_the_penalty_is_of_the_slope_and_drawn_towards_one():
    """A critic that is linear where records lie has a slope that can be written down."""
    plain, penalised = (wgan.make(**SMALL, weight_bound=0.0, penalty_weight=weight) for weight in (0.0, 10.0))
    params = randomized(plain.init(jax.random.key(0)), seed=3)
    first, last = (params["private"][name] for name in ("Dense_0", "Dense_1"))
    first["bias"] = jnp.full(6, 1e3)  # so that no unit is on its other side
    slope = np.asarray(first["kernel"], np.float64) @ np.asarray(last["kernel"], np.float64)[:, 0]
    for record in RECORDS[:3]:
        extra = penalised.private_loss(params, record, jax.random.key(1))
        extra -= plain.private_loss(params, record, jax.random.key(1))
        np.testing.assert_allclose(extra, 10 * (np.linalg.norm(slope) - 1) ** 2, rtol=1e-3)


def test_a_wasserstein_loss_is_the_difference_of_scores():
    """Of a critic that only looks at the first column's code 2: fake records have it, relaxed, with some share."""
    generator = wgan.make(**SMALL, weight_bound=0.0, num_fakes=50)
    params = generator.init(jax.random.key(0))
    private = jax.tree.map(jnp.zeros_like, params["private"])
    private["Dense_0"]["kernel"] = private["Dense_0"]["kernel"].at[2, 0].set(1.0)
    private["Dense_1"]["kernel"] = private["Dense_1"]["kernel"].at[0, 0].set(1.0)
    params, key = {**params, "private": private}, jax.random.key(4)
    loss = jax.vmap(generator.private_loss, in_axes=(None, 0, None))  # the same fake records for both
    with_code, without = loss(params, RECORDS[[23, 0]], key)
    np.testing.assert_allclose(without - with_code, 1.0, rtol=1e-5)
    assert 0 < without < 1  # the share in the same fake records


TARGET_COUNTS = np.array([[100, 0, 0, 80, 20, 25, 25, 25, 25], [0, 300, 0, 60, 240, 0, 100, 100, 100], [0.0] * 9])


def with_counts(generator, counts):
    """First parameters with the generator's stage absorbed, from sums without noise."""
    params, stage = generator.init(jax.random.key(0)), generator.stages[0]
    return stage.absorb(params, counts / np.sqrt(len(CARDINALITIES)), 0.0, None)


@pytest.mark.parametrize("name", ["ctgan", "all"])
def test_a_record_counts_once_in_every_column_at_norm_one(name):
    generator = GENERATORS[name]
    stage, params = generator.stages[0], generator.init(jax.random.key(0))
    for record in RECORDS:
        group, vector = stage.embed(params, record)
        assert np.linalg.norm(vector) <= 1 + 1e-6 and group == (record[0] if name == "ctgan" else 0)
        assert list(np.flatnonzero(vector)) == list(record + np.array([0, 3, 5]))


def test_a_conditional_gan_starts_from_the_counts_of_every_class():
    """The target first; then each column as often as in its class, a class without records hardly ever."""
    rows = GENERATORS["ctgan"].sample(with_counts(GENERATORS["ctgan"], TARGET_COUNTS), jax.random.key(5), 20_000)
    assert_frequencies(rows[rows[:, 0] < 2, 0], np.array([0.25, 0.75]))
    assert (rows[:, 0] == 2).mean() < 0.02
    for label, own in enumerate(TARGET_COUNTS[:2]):
        for column, counts in ((1, own[3:5]), (2, own[5:])):
            codes, probs = rows[rows[:, 0] == label, column], np.maximum(counts / counts.sum(), 1e-5)
            assert_frequencies(codes, probs / probs.sum())


def test_told_columns_follow_counts_whichever_they_are():
    """Every column in turn is told, and the others start from the same counts."""
    counts = TARGET_COUNTS.sum(axis=0, keepdims=True)
    rows = GENERATORS["all"].sample(with_counts(GENERATORS["all"], counts), jax.random.key(5), 20_000)
    for column, own in enumerate(np.split(counts[0], [3, 5])):
        probs = np.maximum(own / own.sum(), 1e-5)
        assert_frequencies(rows[:, column], probs / probs.sum())


@pytest.mark.parametrize("name", ["ctgan", "all"])
def test_calibration_takes_out_what_the_network_does_to_columns(name):
    generator = GENERATORS[name]
    counts = TARGET_COUNTS if name == "ctgan" else TARGET_COUNTS.sum(axis=0, keepdims=True)
    params, rng = with_counts(generator, counts), np.random.default_rng(0)
    net = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 1, leaf.shape), jnp.float32), params["public"]["net"])
    crooked = {**params, "public": {**params["public"], "net": net}}
    straight = generator.calibrate(crooked, None, jax.random.key(1))
    again = generator.calibrate(straight, None, jax.random.key(1))
    wanted = TARGET_COUNTS[1] / TARGET_COUNTS[1].sum() * 3 if name == "ctgan" else counts[0] / counts[0].sum() * 3

    def error(params):
        rows = generator.sample(params, jax.random.key(2), 20_000, {0: 1} if name == "ctgan" else None)
        shares = [np.bincount(rows[:, j], minlength=k) / len(rows) for j, k in enumerate(CARDINALITIES)]
        return np.abs(np.concatenate(shares) - wanted).max()

    assert error(crooked) > 0.06 and error(straight) < 0.03 and error(again) < 0.03


@pytest.mark.parametrize(("name", "column"), [("ctgan", 0), ("all", 0), ("all", 2)])
def test_a_condition_is_met_by_every_row(name, column):
    generator = GENERATORS[name]
    assert generator.exact_conditions((column,)) == (column,)
    rows = generator.sample(generator.init(jax.random.key(0)), jax.random.key(6), 2000, {column: 1})
    assert (rows[:, column] == 1).all() and len(np.unique(rows, axis=0)) > 5


def test_conditions_that_cannot_be_told_are_left_to_rejection():
    assert GENERATORS["ctgan"].exact_conditions((1, 2)) == () == GENERATORS["wgan"].exact_conditions((0,))
    for name, conditions in (("ctgan", {1: 0}), ("wgan", {0: 0}), ("all", {0: 0, 1: 0})):
        generator = GENERATORS[name]
        with pytest.raises(ValueError, match="meet conditions by rejection"):
            generator.sample(generator.init(jax.random.key(0)), jax.random.key(0), 5, conditions)


def test_columns_come_out_of_a_plain_gan_as_often_as_was_released():
    generator = GENERATORS["wgan"]
    counts = [np.array([70.0, 20, 10]), np.array([90.0, 10]), np.array([25.0, 25, 0, 50])]
    marginals = Marginals(counts, [np.ones(len(own)) for own in counts], {})
    params = generator.calibrate(generator.init(jax.random.key(0)), marginals, jax.random.key(1))
    drawn = generator.sample(params, jax.random.key(2), 20_000)
    for column, own in enumerate(counts):
        shares = np.bincount(drawn[:, column], minlength=len(own)) / len(drawn)
        np.testing.assert_allclose(shares, own / own.sum(), atol=0.02)


@pytest.mark.parametrize("model", ["ctgan", "wgan"])
def test_a_dependence_is_learned(model):
    """Two columns that agree nine times in ten: a generator of the marginals alone would have one half."""
    rng = np.random.default_rng(0)
    first = rng.random(4000) < 0.5
    frame = pd.DataFrame({"a": first, "b": np.where(rng.random(4000) < 0.9, first, ~first)})
    schema = Schema((Column("a", "boolean"), Column("b", "boolean")), num_records=4000)
    training = {"num_steps": 400, "expected_batch_size": 256, "critic_steps": 2, "learning_rate": 1e-2, "adam_b1": 0.5}
    model_settings = {"generator_dims": (16,), "weight_bound": 0.3}
    sections = {"training": training, "model": model_settings, "privacy": {"l2_clip_norm": 100.0, "seed": 0}}
    run = fit(frame, schema, model=model, epsilon=float("inf"), delta=1e-5, settings=sections)
    drawn = run.sample(4000, seed=0)
    assert 0.82 < (drawn["a"] == drawn["b"]).mean() < 0.98
    assert 0.35 < drawn["a"].mean() < 0.65


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"latent_dim": 0}, "latent_dim"),
        ({"num_fakes": 1.5}, "num_fakes"),
        ({"critic_dims": ()}, "critic_dims"),
        ({"generator_dims": (0,)}, "generator_dims"),
        ({"loss": "hinge"}, "loss 'hinge'"),
        ({"temperature": 0.0}, "temperature"),
        ({"weight_bound": float("nan")}, "weight_bound"),
        ({"condition": "sex"}, "condition 'sex'"),
        ({"penalty_weight": 1.0}, "penalty_weight and weight_bound"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        ctgan.make(**{**SMALL, **arguments})
