"""Noisy sums of embeddings, and the generator that learns from them."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privsyn_jax.models import class_gaussian
from privsyn_jax.models.cosine_basis import cosine_basis
from privsyn_jax.privacy.noise import HostNoise
from privsyn_jax.privacy.release import embedding_sum
from privsyn_jax.types import Images


def exact_sum(records, embed=lambda record: (jnp.int32(0), record), num_groups=1):
    return embedding_sum(embed, records, num_groups=num_groups, noise_multiplier=0.0, noise=HostNoise(0))[0]


@given(
    scale=st.sampled_from([0.0, 1e-8, 0.3, 1.0, 1e6, 1e30, math.inf, math.nan]),
    num_records=st.sampled_from([1, 3, 512, 513, 700]),
    place=st.floats(0, 1),
)
@settings(max_examples=40, deadline=None)
def test_one_record_moves_the_sum_by_at_most_one(scale, num_records, place):
    rng = np.random.default_rng(1)
    records = rng.normal(size=(num_records + 1, 3)).astype(np.float32)
    number = round(place * num_records)
    with np.errstate(over="ignore"):
        records[number] *= np.float32(scale)
    moved = exact_sum(records) - exact_sum(np.delete(records, number, axis=0))
    assert np.linalg.norm(moved) <= 1 + 1e-4  # float32 sums of 512 records


def test_a_short_vector_counts_as_it_is_and_a_long_one_as_its_direction():
    np.testing.assert_allclose(exact_sum(np.array([[0.3, 0.4]], np.float32)), [[0.3, 0.4]], rtol=1e-5)
    np.testing.assert_allclose(exact_sum(np.array([[30.0, 40.0]], np.float32)), [[0.6, 0.8]], rtol=1e-5)


def test_every_group_has_a_sum_and_a_group_that_does_not_exist_none():
    records = np.array([[0.1], [0.2], [0.4], [0.8]], np.float32)
    group = lambda record: (jnp.round(record[0] * 10).astype(jnp.int32) // 2, record)  # noqa: E731
    np.testing.assert_allclose(exact_sum(records, group, num_groups=3), [[0.1], [0.2], [0.4]], rtol=1e-5)


def test_the_noise_is_gaussian_of_the_stated_stddev_and_the_event_says_so():
    size = 50_000
    records = np.zeros((3, 2), np.float32)
    noisy, stddev, event = embedding_sum(
        lambda record: (jnp.int32(0), jnp.zeros(size) + record[0]),
        records,
        num_groups=1,
        noise_multiplier=2.5,
        noise=HostNoise(3),
    )
    assert stddev == 2.5 and event == {"kind": "gaussian", "noise_multiplier": 2.5, "count": 1}
    assert abs(noisy.std() - 2.5) < 5 * 2.5 / math.sqrt(2 * size)
    assert abs(noisy.mean()) < 5 * 2.5 / math.sqrt(size)
    assert abs(np.mean(np.abs(noisy) < 2.5) - 0.6827) < 5 * math.sqrt(0.22 / size)


@pytest.mark.parametrize("shape", [(8, 8, 1), (5, 7, 1), (6, 6, 3)])
def test_the_basis_is_orthonormal_and_complete(shape):
    size = math.prod(shape)
    basis = cosine_basis(shape, size)
    np.testing.assert_allclose(basis.matrix @ basis.matrix.T, np.eye(size), atol=1e-5)
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    np.testing.assert_allclose(basis.synthesise(basis.analyse(jnp.asarray(image))[None])[0], image, atol=1e-5)
    flat = basis.analyse(jnp.ones(shape))
    assert abs(float(flat[0])) == pytest.approx(math.sqrt(size), rel=1e-5)  # the mean comes first
    np.testing.assert_allclose(flat[1:], 0, atol=1e-5)


def drawn_images(num_images, seed=0):
    """Two classes of 4 x 4 images, Gaussian over the basis with known means and covariances."""
    rng, basis = np.random.default_rng(seed), cosine_basis((4, 4, 1), 4)
    labels = (np.arange(num_images) % 2).astype(np.int32)
    means = np.array([[2.0, 0.2, 0, 0], [2.0, -0.2, 0.1, 0]])
    spreads = np.array([[0.2, 0.1, 0.02, 0.05], [0.1, 0.2, 0.05, 0.02]])
    coefficients = means[labels] + spreads[labels] * rng.normal(size=(num_images, 4))
    pixels = np.asarray(basis.synthesise(jnp.asarray(coefficients, jnp.float32)))
    return Images(np.clip(np.round(pixels * 255), 0, 255).astype(np.uint8), labels), means, spreads


def learned(images, noise_multiplier, **arguments):
    generator = class_gaussian.make(image_shape=(4, 4, 1), num_classes=2, num_frequencies=4, radius=0.7, **arguments)
    params = generator.init(jax.random.key(0))
    for number, stage in enumerate(generator.stages):
        noisy, stddev, _ = embedding_sum(
            functools.partial(stage.embed, params),
            images,
            num_groups=stage.num_groups,
            noise_multiplier=noise_multiplier,
            noise=HostNoise(number),
        )
        params = stage.absorb(params, noisy, stddev, jax.random.key(number))
    return generator, params


def test_without_noise_means_and_covariances_are_those_of_the_classes():
    images, means, spreads = drawn_images(4000)
    _, params = learned(images, 0.0)
    found, factors = (np.asarray(params["public"][name])[:, 0] for name in ("means", "factors"))
    np.testing.assert_allclose(found, means, atol=0.02)
    covariances = factors @ factors.transpose(0, 2, 1)
    np.testing.assert_allclose(np.sqrt(np.diagonal(covariances, axis1=1, axis2=2)), spreads, atol=0.01)


@pytest.mark.parametrize("num_splits", [0, 2])
def test_samples_look_like_the_images(num_splits):
    images, _, _ = drawn_images(4000)
    generator, params = learned(images, 0.0, num_splits=num_splits)
    assert params["public"]["means"].shape == (2, 2**num_splits, 4)
    np.testing.assert_allclose(np.asarray(params["public"]["shares"]).sum(axis=1), 1, atol=1e-6)
    drawn = generator.sample(params, jax.random.key(2), 4000, {})
    for label in (0, 1):
        found, true = (some.pixels[some.labels == label].reshape(-1, 16) / 255.0 for some in (drawn, images))
        np.testing.assert_allclose(found.mean(axis=0), true.mean(axis=0), atol=0.015)
        np.testing.assert_allclose(np.cov(found.T), np.cov(true.T), atol=1e-3)


def test_cells_tell_two_lumps_of_a_class_apart_where_one_gaussian_cannot():
    rng, basis = np.random.default_rng(0), cosine_basis((4, 4, 1), 4)
    lumps = rng.choice([-0.5, 0.5], 4000)
    coefficients = np.array([[2.0, 0, 0, 0]]) + lumps[:, None] * [[0, 1.0, 0, 0]] + 0.05 * rng.normal(size=(4000, 4))
    pixels = np.asarray(basis.synthesise(jnp.asarray(coefficients, jnp.float32)))
    labels = (np.arange(4000) % 2).astype(np.int32)
    images = Images(np.clip(np.round(pixels * 255), 0, 255).astype(np.uint8), labels)

    def middle_share(num_splits):
        generator, params = learned(images, 0.0, num_splits=num_splits)
        drawn = generator.sample(params, jax.random.key(0), 2000, {}).pixels / np.float32(255)
        along = np.asarray(jax.vmap(basis.analyse)(jnp.asarray(drawn)))[:, 1]
        return np.mean(np.abs(along) < 0.25)

    assert middle_share(0) > 0.2 and middle_share(1) < 0.02


def test_the_tone_curve_gives_drawings_their_black_background():
    rng = np.random.default_rng(0)
    pixels = np.where(rng.random((3000, 4, 4, 1)) < 0.8, 0, 255).astype(np.uint8)
    images = Images(pixels, (np.arange(3000) % 2).astype(np.int32))
    generator, params = learned(images, 0.0)
    drawn = generator.sample(params, jax.random.key(0), 3000, {}).pixels
    assert abs(np.mean(drawn < 8) - 0.8) < 0.03 and abs(np.mean(drawn > 247) - 0.2) < 0.03


@given(value=st.integers(0, 255), label=st.integers(0, 1), stage=st.integers(0, 2), center=st.sampled_from([0.0, 0.5]))
@settings(max_examples=25, deadline=None)
def test_a_record_has_an_embedding_of_norm_at_most_one_in_one_group(value, label, stage, center):
    generator, params = noisy_generator(center)
    pixels = jnp.full((4, 4, 1), value, jnp.uint8).at[0, 0, 0].set(255 - value)
    group, vector = generator.stages[stage].embed(params[stage], Images(pixels, jnp.int32(label)))
    assert 0 <= int(group) < generator.stages[stage].num_groups
    assert float(jnp.linalg.norm(vector)) <= 1 + 1e-5


@functools.cache
def noisy_generator(center):
    """A generator of three stages and its parameters before each."""
    generator = class_gaussian.make(
        image_shape=(4, 4, 1), num_classes=2, num_frequencies=4, num_splits=1, center=center
    )
    params, rng = [generator.init(jax.random.key(0))], np.random.default_rng(0)
    for stage in generator.stages:
        _, vector = stage.embed(params[-1], Images(jnp.zeros((4, 4, 1), jnp.uint8), jnp.int32(0)))
        noisy = 1000.0 + rng.normal(size=(stage.num_groups, len(vector)))
        params.append(stage.absorb(params[-1], noisy, 1.0, jax.random.key(1)))
    return generator, params


def test_noise_that_drowns_the_records_leaves_finite_parameters():
    images, _, _ = drawn_images(400)
    for num_splits in (0, 1):
        generator, params = learned(images, 1e6, num_splits=num_splits)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params["public"]))
        assert generator.sample(params, jax.random.key(0), 10, {}).pixels.shape == (10, 4, 4, 1)


def test_the_stages_spend_what_there_is():
    for arguments in ({}, {"num_splits": 2}, {"covariances": False}):
        generator = class_gaussian.make(image_shape=(4, 4, 1), num_classes=2, num_frequencies=4, **arguments)
        assert sum(stage.share for stage in generator.stages) == pytest.approx(1)
