"""The generator fitted to a noisy mean of random features: against kernels in closed form, and on images known."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ghost_oracle import quick_jit

from privsyn_jax.models import mean_embedding
from privsyn_jax.types import Images

SHAPE, NUM_CLASSES = (8, 8, 1), 2
SCALES = (0.12, 0.25, 0.6)
TINY = {
    "num_features": 200,
    "length_scales": SCALES,
    "channels": (4, 8),
    "latent_dim": 3,
    "batch_size": 8,
    "num_steps": 150,
}
RNG = np.random.default_rng(0)


def made(**arguments):
    return mean_embedding.make(**{"image_shape": SHAPE, "num_classes": NUM_CLASSES, **TINY, **arguments})


def noiseless_sum(generator, images):
    """Exact sum of embeddings by class, float64 [num_classes, m]."""
    (stage,) = generator.stages
    groups, vectors = quick_jit(jax.vmap(lambda example: stage.embed({}, example)))(images)
    return np.stack([np.asarray(vectors, np.float64)[groups == k].sum(axis=0) for k in range(stage.num_groups)])


def distances(images, others, frequencies):
    """Squared distance, by class, between the mean features of two sets of images."""
    first, second = (
        [mean_embedding.random_features(part.pixels[part.labels == k] / np.float32(255), frequencies) for k in range(2)]
        for part in (images, others)
    )
    return np.array([np.square(a.mean(axis=0) - b.mean(axis=0)).sum() for a, b in zip(first, second, strict=True)])


def striped(num_images):
    """Class 0: upright stripes; class 1: level ones; from dim to bright."""
    labels = (np.arange(num_images) % 2).astype(np.int32)
    bright = np.tile(np.where(np.arange(8) % 4 < 2, 255.0, 0.0), (8, 1))
    images = np.stack([bright, bright.T])[labels] * RNG.uniform(0.5, 1.0, num_images)[:, None, None]
    return Images(images.astype(np.uint8)[..., None], labels)


@pytest.mark.parametrize("shape", [SHAPE, (5, 9, 3)], ids=str)
def test_every_embedding_has_norm_one_and_the_label_as_its_group(shape):
    embed = quick_jit(made(image_shape=shape).stages[0].embed)
    images = [np.zeros(shape), np.full(shape, 255), *RNG.integers(0, 256, (4, *shape))]
    for label, pixels in enumerate(images):
        group, vector = embed({}, Images(pixels.astype(np.uint8), np.int32(label)))
        assert int(group) == label
        assert vector.shape == (1 + 2 * TINY["num_features"],) and vector.dtype == jnp.float32
        assert abs(np.linalg.norm(np.asarray(vector, np.float64)) - 1.0) < 1e-5


def test_products_of_features_approach_the_mean_of_the_kernels():
    scales, n = (0.1, 0.5), 20_000
    frequencies = mean_embedding.frequencies(SHAPE, n, scales, seed=3)
    images = RNG.random((6, *SHAPE), np.float32) * np.linspace(0.1, 1, 6, dtype=np.float32)[:, None, None, None]
    features = np.asarray(mean_embedding.random_features(images, frequencies))
    mean_squares = np.square(images[:, None] - images[None]).mean(axis=(2, 3, 4))
    kernels = np.mean([np.exp(-mean_squares / (2 * scale**2)) for scale in scales], axis=0)
    assert kernels.min() < 0.45 and kernels[~np.eye(6, dtype=bool)].max() > 0.6
    assert np.abs(features @ features.T - kernels).max() < 5 / math.sqrt(2 * n)  # a cosine has variance 1/2 at most


def test_frequencies_are_public_and_drawn_by_their_seed():
    image = Images(np.arange(64, dtype=np.uint8).reshape(SHAPE), np.int32(0))
    vectors = [made(feature_seed=seed).stages[0].embed({}, image)[1] for seed in (0, 0, 1)]
    assert (vectors[0] == vectors[1]).all() and (vectors[0] != vectors[2]).any()


def test_the_distance_is_unbiased_over_all_batches():
    population, target = RNG.normal(size=(3, 5)), RNG.normal(size=5)
    population /= np.linalg.norm(population, axis=1, keepdims=True)
    batches = np.stack([population[list(rows)] for rows in itertools.product(range(3), repeat=4)])
    targets = jnp.broadcast_to(jnp.asarray(target, jnp.float32), (len(batches), 5))
    estimates = mean_embedding.squared_distances(jnp.asarray(batches, jnp.float32), targets)
    np.testing.assert_allclose(estimates.mean(), np.square(population.mean(axis=0) - target).sum(), rtol=1e-5)


def test_mean_features_divide_by_the_measured_size():
    generator, images = made(), striped(31)
    means = mean_embedding.mean_features(noiseless_sum(generator, images), 0.0)
    matrix = mean_embedding.frequencies(SHAPE, TINY["num_features"], SCALES, seed=0)
    features = np.asarray(mean_embedding.random_features(images.pixels / np.float32(255), matrix))
    np.testing.assert_allclose(means, [features[images.labels == k].mean(axis=0) for k in range(2)], atol=1e-6)


def test_means_of_noise_alone_have_norm_one_at_most():
    noise = RNG.normal(size=(6, 401)) * 50.0
    means = mean_embedding.mean_features(noise, 50.0)
    assert np.isfinite(means).all() and np.linalg.norm(means, axis=1).max() <= 1 + 1e-12


def test_drawn_images_come_to_have_the_mean_features():
    generator, images, key = made(num_steps=300, learning_rate=1e-2), striped(200), jax.random.key(0)
    fresh = generator.init(key)
    fitted = generator.stages[0].absorb(fresh, noiseless_sum(generator, images), 0.0, jax.random.key(1))
    unseen = mean_embedding.frequencies(SHAPE, 400, SCALES, seed=77)  # other than those that it was fitted by
    before, after = (
        distances(generator.sample(params, jax.random.key(2), 512, {}), images, unseen) for params in (fresh, fitted)
    )
    assert (after < before / 5).all()


def test_two_flat_classes_are_reproduced_each_and_the_same_from_the_same_key():
    pixels = np.concatenate([np.zeros((50, *SHAPE)), np.full((30, *SHAPE), 255)]).astype(np.uint8)
    images = Images(pixels, np.repeat([0, 1], [50, 30]).astype(np.int32))
    generator = made(learning_rate=1e-2)
    total, fresh = noiseless_sum(generator, images), generator.init(jax.random.key(0))
    fitted, again, other = (
        generator.stages[0].absorb(fresh, total, 0.0, jax.random.key(seed))["public"] for seed in (1, 1, 2)
    )
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), fitted, again)))
    assert any(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a != b).any()), fitted, other)))
    drawn = generator.sample({"private": {}, "public": fitted}, jax.random.key(3), 40, {})
    assert drawn.pixels[drawn.labels == 0].mean() < 20 and drawn.pixels[drawn.labels == 1].mean() > 235


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length_scales": ()}, r"length_scales \(\) must be a list of numbers above 0"),
        ({"length_scales": (0.1, -1.0)}, r"length_scales \(0.1, -1.0\) must be"),
        ({"length_scales": 0.3}, "length_scales 0.3 must be"),
        ({"num_features": 2}, "num_features 2 must be a whole number, at least 3"),
        ({"num_steps": 0}, "num_steps 0 must be a whole number, at least 1"),
        ({"batch_size": 1}, "batch_size 1 must be a whole number, at least 2"),
        ({"learning_rate": 0.0}, "learning_rate 0.0 must be above 0"),
        ({"channels": ()}, r"channels \(\) must be"),
        ({"image_shape": (2, 8, 1)}, r"image_shape \(2, 8, 1\) must be"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        made(**arguments)
