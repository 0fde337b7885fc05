"""The variational autoencoder against a plain NumPy one, and against integrals over its latent."""

import functools
import itertools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import chi2

from privsyn_jax.models import tvae
from privsyn_jax.privacy.clipping import choose, clipped_grad_sum
from privsyn_jax.synthesis.sampler import synthesize
from privsyn_jax.transforms.discretize import fit_public
from privsyn_jax.types import Column, Schema

CARDINALITIES = (3, 2, 4)
SPLITS = (3, 5)
RECORDS = np.array(list(itertools.product(*map(range, CARDINALITIES))), np.int32)  # all 24
NOBODY = np.zeros(len(RECORDS), bool)
CLIP = 0.5
GENERATOR = tvae.make(cardinalities=CARDINALITIES, latent_dim=1, hidden_dims=(6, 4), kl_weight=0.7)
FRESH = GENERATOR.init(jax.random.key(0))


def randomized(seed, scale=1.0):
    """Every leaf drawn anew, also those that start at zero."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, scale, leaf.shape), jnp.float32), FRESH)


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


def probabilities(params, stddev=1.0):
    """[24]: of each record when the latent is N(0, stddev^2), by quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(120)
    return weights @ np.exp(log_probs(params, stddev * nodes[:, None])) / weights.sum()


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
        return jax.vmap(generator.private_loss, in_axes=(None, 0, 0))(
            {"private": private, "public": {}}, table, keys
        ).mean()

    def step(carry, key):
        private, state = carry
        updates, state = optimizer.update(jax.grad(mean_loss)(private, key), state)
        return (optax.apply_updates(private, updates), state), None

    train = jax.jit(lambda private, keys: jax.lax.scan(step, (private, optimizer.init(private)), keys)[0][0])
    trained = train(params["private"], jax.random.split(jax.random.key(1), 300))
    rows = generator.sample({"private": trained, "public": {}}, jax.random.key(2), 4000, {})
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
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        tvae.make(cardinalities=CARDINALITIES, **arguments)


def test_hidden_dims_may_be_a_list_as_saved_settings_hold_them():
    as_list = tvae.make(cardinalities=CARDINALITIES, latent_dim=1, hidden_dims=[6, 4]).init(jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, as_list, FRESH)
