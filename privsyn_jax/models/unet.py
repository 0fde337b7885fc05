"""U-Net of one image: what a diffusion model predicts from a noisy image, its noise level and its label.

Source: Ronneberger et al. 2015, "U-Net: Convolutional Networks for Biomedical Image Segmentation"; Ho et al. 2020,
"Denoising Diffusion Probabilistic Models", appendix B.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from privsyn_jax.models.image_layers import conv, group_norm, upsample

_LOWEST_FREQUENCY, _HIGHEST_FREQUENCY = 0.5, 16.0  # radians per unit of noise level; levels lie within about +-2


def level_features(level: jax.Array, num_features: int) -> jax.Array:
    """Sines and cosines [num_features] of a scalar noise level."""
    frequencies = np.geomspace(_LOWEST_FREQUENCY, _HIGHEST_FREQUENCY, num_features // 2).astype(np.float32)
    angles = level.astype(jnp.float32) * frequencies
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)])


def to_patches(image: jax.Array, size: int) -> jax.Array:
    """[height, width, c] as [height / size, width / size, size * size * c]."""
    height, width, channels = image.shape
    tiles = image.reshape(height // size, size, width // size, size, channels)
    return tiles.transpose(0, 2, 1, 3, 4).reshape(height // size, width // size, size * size * channels)


def from_patches(patches: jax.Array, size: int) -> jax.Array:
    """Undoes `to_patches`."""
    rows, columns, depth = patches.shape
    tiles = patches.reshape(rows, columns, size, size, depth // size**2).transpose(0, 2, 1, 3, 4)
    return tiles.reshape(rows * size, columns * size, depth // size**2)


class ResidualBlock(nn.Module):
    """[height, width, any] -> [height, width, channels]; the condition scales and shifts the normalised channels.

    Source: Dhariwal and Nichol 2021, "Diffusion Models Beat GANs on Image Synthesis", section 3.1.
    """

    channels: int

    @nn.compact
    def __call__(self, inputs, condition):
        hidden = conv(self.channels)(nn.silu(group_norm(inputs.shape[-1])(inputs)))
        scale, shift = jnp.split(nn.Dense(2 * self.channels, name="condition")(condition)[None, None], 2, axis=-1)
        hidden = nn.silu(group_norm(self.channels)(hidden) * (1 + scale) + shift)
        hidden = conv(self.channels)(hidden)
        return hidden + (inputs if inputs.shape[-1] == self.channels else conv(self.channels, 1)(inputs))


class Attention(nn.Module):
    """Self-attention of all pixels to all, one head, added to the input [height, width, c]."""

    @nn.compact
    def __call__(self, image):
        channels = image.shape[-1]
        normed = group_norm(channels)(image).reshape(-1, channels)
        query, key, value = jnp.split(nn.Dense(3 * channels, name="query_key_value")(normed), 3, axis=-1)
        weights = jax.nn.softmax(query @ key.T * channels**-0.5, axis=-1)
        small = nn.initializers.variance_scaling(0.1, "fan_in", "normal")
        return image + nn.Dense(channels, kernel_init=small, name="mix")(weights @ value).reshape(image.shape)


class UNet(nn.Module):
    """(image [height, width, c], scalar noise level, int32 label) -> [height, width, c], zero at first.

    Height and width must be multiples of patch_size * 2^(number of resolutions - 1).

    Attributes:
      num_labels: labels are 0 to num_labels - 1.
      channels: of each resolution, from fine to coarse; each has half the height and width of the one before.
      num_blocks: residual blocks at each resolution on the way down, and again on the way up.
      embedding_dim: width of what noise level and label become.
      attention: whether pixels of the coarsest resolution attend to each other.
      patch_size: squares of this side are one pixel with as many more channels to the network.
    """

    num_labels: int
    channels: Sequence[int]
    num_blocks: int
    embedding_dim: int
    attention: bool
    patch_size: int

    @nn.compact
    def __call__(self, image, level, label):
        width = self.embedding_dim
        features = level_features(level, width).astype(image.dtype)
        labels = nn.Embed(self.num_labels, width, embedding_init=nn.initializers.normal(1.0), name="label")
        embedded = nn.Dense(width, name="level")(features) + labels(label)  # of one size, so that both are heard
        condition = nn.silu(nn.Dense(width, name="condition")(nn.silu(embedded)))

        patches = to_patches(image, self.patch_size)
        hidden, skips = conv(self.channels[0], name="into")(patches), []
        for channels in self.channels[:-1]:
            for _ in range(self.num_blocks):
                hidden = ResidualBlock(channels)(hidden, condition)
            skips.append(hidden)
            hidden = conv(channels, strides=2)(hidden)
        for number in range(2 * self.num_blocks):
            hidden = ResidualBlock(self.channels[-1])(hidden, condition)
            if self.attention and number == 0:
                hidden = Attention()(hidden)
        for channels in reversed(self.channels[:-1]):
            hidden = jnp.concatenate([upsample(hidden), skips.pop()], axis=-1)
            for _ in range(self.num_blocks):
                hidden = ResidualBlock(channels)(hidden, condition)
        hidden = nn.silu(group_norm(hidden.shape[-1])(hidden))
        last = conv(patches.shape[-1], kernel_init=nn.initializers.zeros, name="out")
        return from_patches(last(hidden), self.patch_size)
