"""DCGAN critic over images, with group in place of batch normalisation: the real half of its loss.

A shape is that of one image, [side, side, channels]. Each layer halves the side, rounding up: rounding down, from 7
to 3, makes XLA's gradient on CPU three times slower, and would flatter whatever is compared to it.
"""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dp_step_workloads.workload import JaxModel, flax_model

CHANNELS, NUM_GROUPS = (64, 128, 256), 8


class Critic(nn.Module):
    @nn.compact
    def __call__(self, image):  # [side, side, channels] -> scalar
        hidden = image
        for layer, channels in enumerate(CHANNELS):
            hidden = nn.Conv(channels, (4, 4), strides=2, padding="SAME")(hidden)
            if layer > 0:
                hidden = nn.GroupNorm(NUM_GROUPS, reduction_axes=(-3, -2, -1))(hidden)
            hidden = nn.leaky_relu(hidden, 0.2)
        return nn.Dense(1)(hidden.reshape(-1))[0]


def draw(rng: np.random.Generator, number: int, *, shape: tuple[int, ...]) -> np.ndarray:
    return rng.uniform(-1.0, 1.0, (number, *shape)).astype(np.float32)


def jax_model(*, shape: tuple[int, ...]) -> JaxModel:
    return flax_model(Critic(), (jnp.zeros(shape),), lambda apply, example, key: jax.nn.softplus(-apply(example)))


def torch_model(for_opacus: bool, *, shape: tuple[int, ...]):
    del for_opacus
    from torch import nn  # pyright: ignore[reportMissingImports]

    from dp_step_workloads.torch_layers import channels_first

    side, _, channels = shape
    layers = []
    for layer, outputs in enumerate(CHANNELS):
        layers += [nn.ZeroPad2d((1, 1 + side % 2, 1, 1 + side % 2)), nn.Conv2d(channels, outputs, 4, stride=2)]
        if layer > 0:
            layers.append(nn.GroupNorm(NUM_GROUPS, outputs, eps=1e-6))
        layers.append(nn.LeakyReLU(0.2))
        side, channels = -(-side // 2), outputs
    module = nn.Sequential(*layers, nn.Flatten(), nn.Linear(side * side * channels, 1))

    def losses(module, images):  # [batch, side, side, channels]
        return nn.functional.softplus(-module(channels_first(images)))[:, 0]

    return module, losses


def of_shape(*shape: int) -> dict:
    """The fields of a Workload on images [side, side, channels]."""
    return {
        "draw": functools.partial(draw, shape=shape),
        "jax_model": functools.partial(jax_model, shape=shape),
        "torch_model": functools.partial(torch_model, shape=shape),
    }
