"""Gaussian noise on device and host. Every statistic has the tolerance of its standard error, and is shown to fail."""

import functools
import math
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from privsyn_jax.privacy.noise import HostNoise, add_gaussian_noise
from privsyn_jax.privacy.secret import Secret

COUNT = 200_000
STANDARD_ERRORS = 5.0
SOURCES = {"host": lambda seed: None, "host seeded": lambda seed: seed, "host secret": lambda seed: bytes([seed] * 32)}


@functools.partial(jax.jit, static_argnames="shape")
def device_noise(key, stddev, shape=(COUNT,)):
    return add_gaussian_noise({"w": jnp.zeros(shape)}, stddev=stddev, key=key)["w"]


def draw(kind: str, stddev: float, seed: int = 7) -> np.ndarray:
    if kind == "device":
        return np.asarray(device_noise(jax.random.key(seed), stddev), np.float64)
    return HostNoise(SOURCES[kind](seed)).normal((COUNT,), stddev=stddev)


def surprises(sample: np.ndarray, stddev: float) -> dict[str, float]:
    """How far statistics of a sample lie from those of N(0, stddev^2), in their own standard errors."""
    z = np.asarray(sample, np.float64).ravel() / stddev
    n = z.size
    ks = scipy.stats.kstest(z, "norm").statistic * math.sqrt(n)  # Kolmogorov distributed; above 2.5 once in 1e5
    return {
        "mean": abs(z.mean()) * math.sqrt(n),
        "stddev": abs(z.std() - 1.0) * math.sqrt(2 * n),
        "kurtosis": abs(np.mean(z**4) - 3.0) * math.sqrt(n / 96),
        "ks": ks * STANDARD_ERRORS / 2.5,
        "lag": abs(np.mean(z[1:] * z[:-1])) * math.sqrt(n),
    }


def surprising(sample: np.ndarray, stddev: float) -> set[str]:
    return {name for name, size in surprises(sample, stddev).items() if not size < STANDARD_ERRORS}


@pytest.mark.parametrize("kind", ["device", *SOURCES])
@pytest.mark.parametrize("noise_multiplier", [0.5, 1.0, 4.0])
def test_noise_is_normal_with_the_stated_stddev(kind, noise_multiplier):
    stddev = 2.0 * noise_multiplier
    assert surprising(draw(kind, stddev), stddev) == set()


@pytest.mark.parametrize("kind", ["device", "host"])
@pytest.mark.parametrize("scale", [0.0, 0.9, 1.1])
def test_noise_ten_percent_off_is_seen(kind, scale):
    assert "stddev" in surprising(draw(kind, 2.0 * scale), 2.0)


@pytest.mark.parametrize(
    ("shape", "seen_by"),
    [("laplace", {"kurtosis", "ks"}), ("uniform", {"kurtosis", "ks"}), ("repeated", {"lag"})],
)
def test_noise_of_another_shape_is_seen(shape, seen_by):
    rng = np.random.default_rng(0)
    sample = {
        "laplace": rng.laplace(scale=math.sqrt(0.5), size=COUNT),
        "uniform": rng.uniform(-math.sqrt(3), math.sqrt(3), COUNT),
        "repeated": np.repeat(rng.normal(size=COUNT // 2), 2),
    }[shape]
    assert seen_by <= surprising(sample, 1.0)


def test_noise_is_added_to_the_values_in_float32():
    tree = {"w": jnp.full((3, 4), 100.0), "b": jnp.ones(2, jnp.bfloat16), "s": jnp.float32(-5.0)}
    add = jax.jit(lambda stddev: add_gaussian_noise(tree, stddev=stddev, key=jax.random.key(0)))
    noisy = add(1e-3)
    assert jax.tree.structure(noisy) == jax.tree.structure(tree)
    for before, after in zip(jax.tree.leaves(tree), jax.tree.leaves(noisy), strict=True):
        assert after.dtype == jnp.float32 and after.shape == before.shape
        assert np.all(np.asarray(after) != np.float32(before))
        np.testing.assert_allclose(after, np.float32(before), atol=7e-3)
    jax.tree.map(lambda after, before: np.testing.assert_array_equal(after, np.float32(before)), add(0.0), tree)


def independent(first, second) -> bool:
    return abs(np.corrcoef(np.ravel(first), np.ravel(second))[0, 1]) * math.sqrt(np.size(first)) < STANDARD_ERRORS


def test_noise_is_independent_between_leaves_keys_and_steps():
    zeros = jnp.zeros(COUNT)
    noisy = jax.jit(lambda key: add_gaussian_noise({"a": zeros, "b": zeros}, stddev=1.0, key=key))(jax.random.key(0))
    assert independent(noisy["a"], noisy["b"])
    steps = [jax.random.fold_in(jax.random.key(0), step) for step in range(3)]
    draws = [device_noise(key, 1.0) for key in [*steps, jax.random.key(1)]]
    for i, first in enumerate(draws):
        assert all(independent(first, second) for second in draws[:i])
    assert not independent(draws[0], device_noise(jax.random.fold_in(jax.random.key(0), 0), 1.0))


def test_device_noise_is_finite_and_repeats_with_its_key():
    first, again = draw("device", 3.0), draw("device", 3.0)
    assert np.isfinite(first).all() and np.array_equal(first, again)
    assert not np.array_equal(first, draw("device", 3.0, seed=8))


@pytest.mark.parametrize("shape", [(), (0,), (3, 4)])
def test_host_noise_has_the_shape_asked_for_in_float64(shape):
    noise = HostNoise(None).normal(shape, stddev=2.0)
    assert noise.shape == shape and np.asarray(noise).dtype == np.float64


def test_host_noise_has_distinct_values_and_gaussian_tails():
    z = np.abs(HostNoise(None).normal((COUNT,), stddev=1.0))
    assert len(np.unique(z)) == COUNT
    for level in (2.0, 3.0, 3.5):
        expected = COUNT * 2 * scipy.stats.norm.sf(level)
        assert abs(np.sum(z > level) - expected) < STANDARD_ERRORS * math.sqrt(expected)


@pytest.mark.parametrize("seed", [None, 3])
def test_uniform_and_gumbel_noise_follow_their_distributions(seed):
    noise = HostNoise(seed)
    uniform, gumbel = noise.uniform((COUNT,)), noise.gumbel((COUNT,))
    assert uniform.min() > 0 and uniform.max() < 1
    assert scipy.stats.kstest(uniform, "uniform").pvalue > 1e-6
    assert scipy.stats.kstest(gumbel, "gumbel_r").pvalue > 1e-6
    assert scipy.stats.kstest(1.05 * gumbel, "gumbel_r").pvalue < 1e-6


def discrete_gaussian_pmf(stddev: float, support: np.ndarray) -> np.ndarray:
    weights = np.exp(-0.5 * (support / stddev) ** 2)
    return weights / weights.sum()


def discrete_laplace_pmf(scale: float, support: np.ndarray) -> np.ndarray:
    return math.tanh(0.5 / scale) * np.exp(-np.abs(support) / scale)


def follows(drawn: np.ndarray, support: np.ndarray, pmf: np.ndarray) -> bool:
    """Chi-square test over the values expected ten times or more, and all others together."""
    kept = pmf * len(drawn) >= 10
    observed = np.array([np.sum(drawn == value) for value in support[kept]])
    observed = np.append(observed, len(drawn) - observed.sum())
    expected = len(drawn) * np.append(pmf[kept], 1 - pmf[kept].sum())
    chi_square = np.sum((observed - expected) ** 2 / np.maximum(expected, 1.0))
    return bool(chi_square < scipy.stats.chi2.isf(1e-6, kept.sum()))


@pytest.mark.parametrize("scale", [0.3, 1.0, 1.7, 5.0])
@pytest.mark.parametrize("seed", [None, 4])
def test_whole_number_noise_follows_its_distribution_and_no_other(scale, seed):
    noise, trials, support = HostNoise(seed), 4000, np.arange(-80, 81)
    gaussian = np.array([noise.discrete_gaussian(scale) for _ in range(trials)])
    laplace = np.array([noise.discrete_laplace(scale) for _ in range(trials)])
    assert follows(gaussian, support, discrete_gaussian_pmf(scale, support))
    assert follows(laplace, support, discrete_laplace_pmf(scale, support))
    assert not follows(laplace, support, discrete_gaussian_pmf(scale, support))
    assert not follows(gaussian, support, discrete_gaussian_pmf(1.2 * scale, support))
    assert not follows(laplace, support, discrete_laplace_pmf(1.2 * scale, support))


def test_whole_numbers_below_a_bound_are_even():
    noise = HostNoise(3)
    assert scipy.stats.chisquare(np.bincount([noise.below(7) for _ in range(7000)], minlength=7)).pvalue > 1e-6
    assert {noise.below(1) for _ in range(5)} == {0} and max(noise.below(256) for _ in range(3000)) <= 255
    assert 0 <= noise.below(10**40) < 10**40


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
def test_whole_number_noise_needs_a_positive_scale(scale):
    with pytest.raises(ValueError, match=f"stddev {scale} must be a positive number"):
        HostNoise(0).discrete_gaussian(scale)
    with pytest.raises(ValueError, match=f"scale {scale} must be a positive number"):
        HostNoise(0).discrete_laplace(scale)


@pytest.mark.parametrize("byte", [0x00, 0xFF])
def test_host_noise_is_finite_for_every_word(monkeypatch, byte):
    monkeypatch.setattr(os, "urandom", lambda count: bytes([byte]) * count)
    noise = HostNoise(None).normal((2,), stddev=1.0)
    assert np.all(np.abs(noise) > 8.0) and np.all(np.isfinite(noise))
    assert np.all(noise < 0) == (byte == 0)


def test_seeded_streams_repeat_and_unseeded_ones_do_not():
    def stream(seed):
        noise = HostNoise(seed)
        return np.stack([noise.normal((8,), stddev=1.0) for _ in range(2)])

    seeded = stream(3)
    assert np.array_equal(seeded, stream(3)) and not np.array_equal(seeded[0], seeded[1])
    assert not np.array_equal(seeded, stream(4))
    assert not np.array_equal(stream(None), stream(None))


def test_secret_keys_differ_in_both_words_unless_seeded():
    words = np.stack([jax.random.key_data(Secret.fresh().key()) for _ in range(20)])
    assert words.shape == (20, 2)
    assert len(np.unique(words[:, 0])) == len(np.unique(words[:, 1])) == 20  # 64 bits, where a seed sets only 32
    assert np.array_equal(*(jax.random.key_data(Secret.fresh(5).key()) for _ in range(2)))
    assert not np.array_equal(jax.random.key_data(Secret.fresh(5).key()), jax.random.key_data(Secret.fresh(6).key()))


def test_a_secret_repeats_its_draws_and_gives_every_origin_draws_of_its_own():
    secret = Secret.fresh()
    again = Secret(secret.entropy)

    def draws(secret, origin):
        noise = secret.host_noise(origin)
        words = jax.random.key_data(secret.key(origin))
        return np.concatenate([noise.normal((4,), stddev=1.0), noise.uniform((4,)), words])

    assert np.array_equal(draws(secret, "a"), draws(again, "a"))
    drawn = np.stack([draws(secret, "a"), draws(secret, "b"), draws(Secret.fresh(), "a")])
    assert all(len(np.unique(column)) == 3 for column in drawn.T)
    assert len(set(drawn[0])) == 10
    assert secret.fingerprint == again.fingerprint != Secret.fresh().fingerprint
    assert secret.entropy.hex() not in repr(secret) and repr(secret.entropy) not in repr(secret)
