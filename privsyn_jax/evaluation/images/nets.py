"""Three small image classifiers of different families, for utility that does not hang on one architecture.

All see floats [n, height, width, channels] in [-1, 1], bring them to at most 16 x 16 with their first layer, so that
cost hardly depends on the size, and return (features [n, FEATURE_DIM], logits [n, num_classes]). None mixes images.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

FEATURE_DIM = 128


class SmallCNN(nn.Module):
    """Two convolutions and a hidden layer, without normalisation, after LeNet (LeCun et al. 1998)."""

    num_classes: int

    @nn.compact
    def __call__(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = nn.relu(_stem(images, 32))
        x = nn.relu(nn.Conv(64, (3, 3), strides=2)(x))
        features = nn.relu(nn.Dense(FEATURE_DIM)(x.reshape(len(x), -1)))
        return features, nn.Dense(self.num_classes)(features)


class ResNet(nn.Module):
    """Residual blocks with group normalisation before each convolution (He et al. 2016; Wu and He 2018)."""

    num_classes: int

    @nn.compact
    def __call__(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = _stem(images, 16)
        for channels, stride in ((16, 1), (32, 2)):
            y = nn.Conv(channels, (3, 3), strides=stride)(nn.relu(nn.GroupNorm(8)(x)))
            y = nn.Conv(channels, (3, 3))(nn.relu(nn.GroupNorm(8)(y)))
            x = y + (x if stride == 1 else nn.Conv(channels, (1, 1), strides=stride)(x))
        features = nn.relu(nn.Dense(FEATURE_DIM)(nn.relu(nn.GroupNorm(8)(x)).reshape(len(x), -1)))
        return features, nn.Dense(self.num_classes)(features)


class WideCNN(nn.Module):
    """One wide layer of large filters, pooled, and a hidden layer: local patterns only, no depth."""

    num_classes: int

    @nn.compact
    def __call__(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = nn.relu(_stem(images, 192, grid=8, size=5))
        features = nn.relu(nn.Dense(FEATURE_DIM)(x.reshape(len(x), -1)))
        return features, nn.Dense(self.num_classes)(features)


NETS: dict[str, type[nn.Module]] = {"small_cnn": SmallCNN, "resnet": ResNet, "wide_cnn": WideCNN}


@functools.partial(jax.jit, static_argnames=("net", "shape"))
def initial_params(key: jax.Array, *, net: nn.Module, shape: tuple[int, ...]) -> Any:
    """Random parameters of a net for images [height, width, channels] of this shape."""
    return net.init(key, jnp.zeros((1, *shape)))


def _stem(images: jax.Array, channels: int, *, grid: int = 16, size: int = 3) -> jax.Array:
    """A convolution whose stride leaves at most grid x grid positions; must be called inside a compact method."""
    stride = math.ceil(max(images.shape[1:3]) / grid)
    return nn.Conv(channels, (size + stride - 1, size + stride - 1), strides=stride)(images)
