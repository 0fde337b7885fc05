"""Diffusion over tables, against distributions that can be written down."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from scipy.stats import chi2

from privsyn_jax.models import table_diffusion
from privsyn_jax.models.table_diffusion import Denoiser
from privsyn_jax.training.marginals import Marginals

CARDINALITIES = (3, 2)
PAIRS = list(itertools.product(range(3), range(2)))
ONE_WAY = [np.array([50.0, 30.0, 20.0]), np.array([90.0, 10.0])]
MARGINALS = Marginals(ONE_WAY, [np.ones(3), np.ones(2)], {})
SHARES = [counts / counts.sum() for counts in ONE_WAY]


@functools.cache
def built(kind):
    return table_diffusion.make(cardinalities=CARDINALITIES, kind=kind, hidden_dims=(5,))


def randomized(kind, seed=0):
    """Parameters whose network has an opinion, on top of the released marginals."""
    rng, params = np.random.default_rng(seed), built(kind).init(jax.random.key(0))
    private = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.7, leaf.shape), jnp.float32), params["private"])
    return built(kind).calibrate({**params, "private": private}, MARGINALS, None)


def conditional(params, column, seen):
    """p(column | the columns in `seen`, {column: code}) by the network itself."""
    left = np.zeros(5, np.float32)
    for other, code in seen.items():
        left[code + 3 * other] = 1.0
    net = Denoiser(5, (5,))
    correction = net.apply({"params": params["private"]}, jnp.asarray(left), jnp.float32(1 - len(seen) / 2))
    logits = np.asarray(params["public"]["bias"] + correction, np.float64)
    return softmax(logits[:3] if column == 0 else logits[3:])


def assert_frequencies(rows, probs):
    """Pearson's test of pairs of codes; a right sampler fails once in a million."""
    counts, expected = np.bincount(rows[:, 0] * 2 + rows[:, 1], minlength=6), len(rows) * np.asarray(probs)
    present = expected > 0
    assert not counts[~present].any()
    statistic = ((counts - expected)[present] ** 2 / expected[present]).sum()
    assert statistic < chi2.isf(1e-6, present.sum() - 1)


@pytest.mark.parametrize("kind", table_diffusion.KINDS)
def test_without_a_network_columns_are_as_released(kind):
    generator = built(kind)
    params = generator.calibrate(generator.init(jax.random.key(0)), MARGINALS, None)
    rows = generator.sample(params, jax.random.key(1), 20_000)
    assert_frequencies(rows, np.outer(*SHARES).ravel())


def test_columns_are_revealed_in_random_order():
    params = randomized("absorbing")
    probs = [
        0.5 * conditional(params, 0, {})[a] * conditional(params, 1, {0: a})[b]
        + 0.5 * conditional(params, 1, {})[b] * conditional(params, 0, {1: b})[a]
        for a, b in PAIRS
    ]
    assert_frequencies(built("absorbing").sample(params, jax.random.key(2), 50_000), probs)


@pytest.mark.parametrize(("column", "code"), [(0, 2), (1, 1)])
def test_a_fixed_column_conditions_the_others(column, code):
    params = randomized("absorbing")
    other = conditional(params, 1 - column, {column: code})
    probs = [other[pair[1 - column]] * (pair[column] == code) for pair in PAIRS]
    assert_frequencies(built("absorbing").sample(params, jax.random.key(3), 20_000, {column: code}), probs)


def test_absorbing_loss_is_on_average_the_mean_over_orders():
    params = randomized("absorbing")
    losses = jax.jit(jax.vmap(built("absorbing").private_loss, in_axes=(None, None, 0)))
    for number, (a, b) in enumerate(PAIRS[:3]):
        keys = jax.random.split(jax.random.key(4 + number), 20_000)
        wanted = -0.5 * (
            np.log(conditional(params, 0, {})[a] * conditional(params, 1, {0: a})[b])
            + np.log(conditional(params, 1, {})[b] * conditional(params, 0, {1: b})[a])
        )
        found = np.asarray(losses(params, jnp.array([a, b], jnp.int32), keys), np.float64)
        assert abs(found.mean() - wanted) < 5 * found.std() / np.sqrt(len(found))
        assert found.std() > 0.01  # an average, of different numbers


def test_gaussian_loss_of_a_new_network_is_the_cross_entropy_of_the_bias():
    generator = built("gaussian")
    params = generator.calibrate(generator.init(jax.random.key(0)), MARGINALS, None)
    found = generator.private_loss(params, jnp.array([1, 1], jnp.int32), jax.random.key(0))
    np.testing.assert_allclose(found, -np.log(0.3 * 0.1), rtol=1e-5)


def test_gaussian_sampling_follows_a_denoiser_that_knows_the_data():
    """The right denoiser of a table with two equally likely records leads to these two and no others.

    For them, the logit of each code is its entry of the noisy record over sigma^2, up to constants: with the codes of
    both columns added, as they always agree.
    """
    cardinalities = (2, 2)
    generator = table_diffusion.make(cardinalities=cardinalities, kind="gaussian", hidden_dims=(5,))

    class Right:
        """Stands in for the network."""

        def __init__(self, *_):
            pass

        def init(self, *_):
            return {"params": {}}

        def apply(self, _, scaled, lost):
            sigma = lost / (1 - lost)
            noisy = scaled * jnp.sqrt(1 + jnp.square(sigma))
            both = (noisy[:2] + noisy[2:]) / jnp.square(sigma)
            return jnp.tile(both, 2)

    original, table_diffusion.Denoiser = table_diffusion.Denoiser, Right
    try:
        generator = table_diffusion.make(cardinalities=cardinalities, kind="gaussian")
        rows = generator.sample(generator.init(jax.random.key(0)), jax.random.key(7), 8_000)
    finally:
        table_diffusion.Denoiser = original
    assert (rows[:, 0] == rows[:, 1]).mean() > 0.995
    assert abs(rows[:, 0].mean() - 0.5) < 0.03


def test_a_code_that_was_never_counted_stays_possible():
    generator = built("absorbing")
    never = Marginals([np.array([5.0, 0.0, 5.0]), np.array([1.0, 1.0])], [np.ones(3), np.ones(2)], {})
    bias = np.asarray(generator.calibrate(generator.init(jax.random.key(0)), never, None)["public"]["bias"])
    assert np.isfinite(bias).all() and 0 < np.exp(log_softmax(bias[:3]))[1] < 1e-4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"kind": "multinomial"}, "kind 'multinomial'"),
        ({"hidden_dims": (0,)}, "hidden_dims"),
        ({"noise_stddev": -1.0}, "noise_stddev"),
        ({"sigma_min": 0.0}, "sigma_min"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        table_diffusion.make(cardinalities=CARDINALITIES, **arguments)
