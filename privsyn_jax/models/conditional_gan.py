"""Projection GAN: the label acts inside both networks, where `dcgan` only appends it to their inputs.

The critic adds the inner product of its last features with an embedding of the label to an unconditional score, so
that its convolutions are shared by all classes and do not see the label; and each class has its own scale and shift of
the generator's normalised features. The features are not pooled before the product, as they are in the source: here the
layers are few, and a pooled feature would be of a small patch. Losses are hinges, as in the source: of an example that
it is sure of, the critic learns nothing.

Source: Miyato and Koyama 2018, "cGANs with Projection Discriminator"; de Vries et al. 2017, "Modulating Early Visual
Processing by Language" (conditional normalisation). Without their spectral normalisation.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from privsyn_jax.models.gan_layers import Features, GeneratorNet, check_images, check_widths, make_gan
from privsyn_jax.types import Generator


class ProjectionCritic(nn.Module):
    """Image and label -> score [1]."""

    channels: Sequence[int]
    num_classes: int

    @nn.compact
    def __call__(self, image, label):
        features = Features(self.channels)(image).reshape(-1)
        own = nn.Embed(self.num_classes, len(features), embedding_init=nn.initializers.zeros)(label)
        return nn.Dense(1)(features) + jnp.sum(own * features)[None]


def make(
    *,
    image_shape: tuple[int, int, int],
    num_classes: int,
    latent_dim: int = 64,
    channels: tuple[int, ...] = (64, 128, 256),
    generator_channels: tuple[int, ...] | None = None,
) -> Generator:
    """Generator of labelled images; params["private"] is the critic.

    Args:
      image_shape: (height, width, channels), sides of 4 or more.
      num_classes: number of labels.
      latent_dim: length of the latent.
      channels: widths of the critic's layers, counted from the image; the last is repeated for larger images.
      generator_channels: the same of the generator, default `channels`; it receives no noise, so it may be large.
    """
    image_shape = check_images(image_shape, num_classes)
    channels = check_widths(channels, latent_dim)
    generator_channels = check_widths(generator_channels or channels, latent_dim)
    hinge = lambda score: jax.nn.relu(1 + score.astype(jnp.float32))  # noqa: E731
    return make_gan(
        GeneratorNet(image_shape, generator_channels, num_classes, conditional_norm=True),
        ProjectionCritic(channels, num_classes),
        image_shape=image_shape,
        num_classes=num_classes,
        latent_dim=latent_dim,
        critic_loss=lambda real, fake, label: hinge(-real[0]) + hinge(fake[0]),
        generator_loss=lambda fake, label: -fake[0],
    )
