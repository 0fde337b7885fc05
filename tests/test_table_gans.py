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


@pytest.mark.parametrize("name", ["ctgan", "gmm_gan", "wgan"])
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


def test_conditions_follow_released_counts_and_are_met():
    """A generator that ignores what it is told draws evenly; one column in three is set to what it was told."""
    generator, counts = GENERATORS["ctgan"], [np.array([70.0, 30.0, 0.0]), np.array([20.0, 80.0]), np.full(4, 25.0)]
    params = generator.init(jax.random.key(0))
    params = {**params, "public": jax.tree.map(jnp.zeros_like, params["public"])}
    params = generator.calibrate(params, Marginals(counts, [np.ones(len(own)) for own in counts], {}), None)
    rows = generator.sample(params, jax.random.key(5), 20_000)
    for column, own in enumerate(counts):
        even = np.full(len(own), 1 / len(own))
        assert_frequencies(rows[:, column], own / own.sum() / 3 + even * 2 / 3)


def test_even_conditions_until_counts_are_known():
    generator = GENERATORS["ctgan"]
    params = generator.init(jax.random.key(0))
    params = {**params, "public": jax.tree.map(jnp.zeros_like, params["public"])}
    rows = generator.sample(params, jax.random.key(6), 20_000)
    for column, size in enumerate(CARDINALITIES):
        assert_frequencies(rows[:, column], np.full(size, 1 / size))


@pytest.mark.parametrize("model", ["ctgan", "wgan"])
def test_a_dependence_is_learned(model):
    """Two columns that agree nine times in ten: a generator of the marginals alone would have one half."""
    rng = np.random.default_rng(0)
    first = rng.random(4000) < 0.5
    frame = pd.DataFrame({"a": first, "b": np.where(rng.random(4000) < 0.9, first, ~first)})
    schema = Schema((Column("a", "boolean"), Column("b", "boolean")), num_records=4000)
    training = {"num_steps": 400, "expected_batch_size": 256, "critic_steps": 2, "learning_rate": 1e-2}
    model_settings = {"generator_dims": (16,), "weight_bound": 0.3}
    sections = {"training": training, "model": model_settings, "privacy": {"l2_clip_norm": 100.0, "seed": 0}}
    run = fit(frame, schema, model=model, epsilon=float("inf"), delta=1e-5, settings=sections)
    drawn = run.sample(4000, seed=0)
    assert 0.75 < (drawn["a"] == drawn["b"]).mean() < 0.98
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
        ({"penalty_weight": 1.0}, "penalty_weight and weight_bound"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        ctgan.make(**{**SMALL, **arguments})
