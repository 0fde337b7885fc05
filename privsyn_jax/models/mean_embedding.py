"""A generator network fitted to one noisy sum: the mean of random Fourier features of every class.

Products of features approach Gaussian kernels, so that the squared distance between two means of them is a maximum
mean discrepancy. All after the sum is post-processing: the network is trained, for as long as one likes, until the
images that it draws have the released means.

Source: Harder, Adamczewski and Park 2021, "DP-MERF: Differentially Private Mean Embeddings with Random Features for
Practical Privacy-Preserving Data Generation". Unlike there, several length scales share the features, and the distance
of a batch is an unbiased estimate, which does not reward images that are all alike.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from privsyn_jax.models.gan_layers import GeneratorNet, check_images, check_widths
from privsyn_jax.models.image_layers import draw_images, label_is_exact
from privsyn_jax.types import Generator, Stage

_SIZE_WEIGHT = 0.02  # squared, of the part of an embedding that counts the images of a class; features have the rest


def make(
    *,
    image_shape: tuple[int, int, int],
    num_classes: int,
    num_features: int = 2000,
    length_scales: Sequence[float] = (0.12, 0.25, 0.6),
    feature_seed: int = 0,
    latent_dim: int = 8,
    channels: Sequence[int] = (8, 32),
    num_steps: int = 1500,
    batch_size: int = 20,
    learning_rate: float = 2e-3,
) -> Generator:
    """Generator of Images that learns from one noisy sum.

    Args:
      image_shape: (height, width, channels).
      num_classes: number of labels.
      num_features: random frequencies; each gives a cosine and a sine.
      length_scales: of the Gaussian kernels, as the root mean square difference of two images' pixels (from 0 to 1).
        They are public: do not choose them by looking at private images. The frequencies are
        divided among them; only a large one, as 0.6, brings images nearer that are far off.
      feature_seed: draws the frequencies, which are public.
      latent_dim: length of the random vector that an image is drawn from.
      channels: widths of the network's layers, counted from the image.
      num_steps: of training on the released sum.
      batch_size: images of each class in a step.
      learning_rate: of Adam at first; it falls to 0 along a cosine.
    """
    shape = check_images(image_shape, num_classes)
    _check_numbers(num_features, length_scales, num_steps, batch_size, learning_rate)
    net = GeneratorNet(shape, check_widths(channels, latent_dim), num_classes, conditional_norm=True)
    known_frequencies = functools.cache(lambda: frequencies(shape, num_features, length_scales, seed=feature_seed))
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, num_steps))
    balanced = np.repeat(np.arange(num_classes, dtype=np.int32), batch_size)

    def draw_one(public, latent, label):
        image: Any = net.apply({"params": public}, latent, label)
        return jnp.tanh(image)

    def draw(public, key, labels):
        latents = jax.random.normal(key, (len(labels), latent_dim))
        return jax.vmap(draw_one, in_axes=(None, 0, 0))(public, latents, labels)

    def embed(params, example):
        del params
        features = random_features(example.pixels[None].astype(jnp.float32) / 255.0, known_frequencies())[0]
        size = jnp.full(1, math.sqrt(_SIZE_WEIGHT), jnp.float32)
        return example.labels, jnp.concatenate([size, math.sqrt(1.0 - _SIZE_WEIGHT) * features])

    def loss(public, targets, matrix, key):
        images = (draw(public, key, balanced) + 1.0) / 2.0
        features = random_features(images, matrix).reshape(num_classes, batch_size, -1)
        return squared_distances(features, targets).mean()

    @jax.jit
    def step(public, opt_state, targets, matrix, key):
        updates, opt_state = optimizer.update(jax.grad(loss)(public, targets, matrix, key), opt_state)
        return optax.apply_updates(public, updates), opt_state

    def absorb(params, noisy_sum, stddev, key):
        targets, matrix = jnp.asarray(mean_features(noisy_sum, stddev), jnp.float32), jnp.asarray(known_frequencies())
        public = jax.device_put(params["public"])
        opt_state = optimizer.init(public)
        for number in tqdm(range(num_steps), desc="mean embedding", unit="step", disable=None):
            public, opt_state = step(public, opt_state, targets, matrix, jax.random.fold_in(key, number))
        return {**params, "public": public}

    @jax.jit
    def draw_block(params, key, labels):
        return draw(params["public"], key, labels)

    init_net = jax.jit(net.init)

    return Generator(
        init=lambda key: {"private": {}, "public": init_net(key, jnp.zeros(latent_dim), jnp.int32(0))["params"]},
        private_loss=None,
        public_loss=None,
        calibrate=None,
        sample=functools.partial(draw_images, draw_block, num_classes=num_classes),
        exact_conditions=label_is_exact,
        stages=(Stage("mean embedding", 1.0, num_classes, embed, absorb),),
    )


def frequencies(
    image_shape: tuple[int, int, int], num_features: int, length_scales: Sequence[float], *, seed: int
) -> np.ndarray:
    """float32 [num_features, pixels times channels]: normal, divided by the length scales in turn, see `make`."""
    size = math.prod(image_shape)
    normal = np.random.default_rng(seed).standard_normal((num_features, size), np.float32)
    return normal / (math.sqrt(size) * np.resize(np.asarray(length_scales, np.float32), num_features))[:, None]


def random_features(images: jax.Array | np.ndarray, frequencies: jax.Array | np.ndarray) -> jax.Array:
    """Features [n, 2 num_features], of norm 1, of floats in [0, 1], [n, height, width, channels].

    The product of those of x and y has the expectation, over frequencies, exp(-mean((x - y)^2) / (2 s^2)), averaged
    over length scales s.

    Source: Rahimi and Recht 2007, "Random Features for Large-Scale Kernel Machines".
    """
    phases = jnp.dot(images.reshape(len(images), -1), frequencies.T, precision=jax.lax.Precision.HIGHEST)
    return jnp.concatenate([jnp.cos(phases), jnp.sin(phases)], axis=1) / math.sqrt(len(frequencies))


def squared_distances(features: jax.Array, targets: jax.Array) -> jax.Array:
    """Unbiased estimates [k] of the squared distance from expected features to a target, from a batch of each class.

    Args:
      features: float [k, n, m], of norm 1 each, n at least 2.
      targets: float [k, m].
    """
    n = features.shape[1]
    means = features.mean(axis=1)
    squares = (n * jnp.square(means).sum(axis=1) - 1.0) / (n - 1)  # leaves out the product of a vector with itself
    return squares - 2.0 * (means * targets).sum(axis=1) + jnp.square(targets).sum(axis=1)


def mean_features(noisy_sum: np.ndarray, stddev: float) -> np.ndarray:
    """Mean features [k, m] of every class, of norm at most 1, from a noisy sum of embeddings [k, 1 + m]."""
    weight = math.sqrt(_SIZE_WEIGHT)
    sizes = np.maximum(noisy_sum[:, 0] / weight, max(1.0, stddev / weight))  # at least as large as the noise
    means = noisy_sum[:, 1:] / math.sqrt(1.0 - _SIZE_WEIGHT) / sizes[:, None]
    return means / np.maximum(1.0, np.linalg.norm(means, axis=1, keepdims=True))


def _check_numbers(num_features, length_scales, num_steps, batch_size, learning_rate):
    if not isinstance(length_scales, Sequence) or not length_scales or not all(0 < s < math.inf for s in length_scales):
        raise ValueError(f"length_scales {length_scales!r} must be a list of numbers above 0, as in (0.12, 0.25, 0.6)")
    least = {"num_features": len(length_scales), "num_steps": 1, "batch_size": 2}
    for (name, smallest), value in zip(least.items(), (num_features, num_steps, batch_size), strict=True):
        if not isinstance(value, int) or value < smallest:
            raise ValueError(f"{name} {value!r} must be a whole number, at least {smallest}")
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"learning_rate {learning_rate} must be above 0")
