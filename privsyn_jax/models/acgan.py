"""Auxiliary classifier GAN: the critic is not told the label but names it, beside telling real from fake.

The class loss of real images trains the critic to classify, that of fake ones moves both networks: the generator is
paid for images whose label the critic recognises.

Source: Odena et al. 2017, "Conditional Image Synthesis with Auxiliary Classifier GANs".
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from privsyn_jax.models.gan_layers import (
    Critic,
    GeneratorNet,
    check_images,
    check_weight,
    check_widths,
    make_gan,
    softplus,
)
from privsyn_jax.types import Generator


def make(
    *,
    image_shape: tuple[int, int, int],
    num_classes: int,
    latent_dim: int = 64,
    channels: tuple[int, ...] = (64, 128, 256),
    generator_channels: tuple[int, ...] | None = None,
    class_weight: float = 1.0,
) -> Generator:
    """Generator of labelled images; params["private"] is the critic.

    Args:
      image_shape: (height, width, channels), sides of 4 or more.
      num_classes: number of labels.
      latent_dim: length of the latent.
      channels: widths of the critic's layers, counted from the image; the last is repeated for larger images.
      generator_channels: the same of the generator, default `channels`; it receives no noise, so it may be large.
      class_weight: of the class losses against those of real and fake.
    """
    image_shape = check_images(image_shape, num_classes)
    channels = check_widths(channels, latent_dim)
    generator_channels = check_widths(generator_channels or channels, latent_dim)
    check_weight("class_weight", class_weight)

    def class_loss(scores, label):
        return -class_weight * jax.nn.log_softmax(scores[1:].astype(jnp.float32))[label]

    def critic_loss(real, fake, label):
        return softplus(-real[0]) + softplus(fake[0]) + class_loss(real, label) + class_loss(fake, label)

    return make_gan(
        GeneratorNet(image_shape, generator_channels, num_classes),
        Critic(channels, num_classes=0, num_outputs=1 + num_classes),
        image_shape=image_shape,
        num_classes=num_classes,
        latent_dim=latent_dim,
        critic_loss=critic_loss,
        generator_loss=lambda fake, label: softplus(-fake[0]) + class_loss(fake, label),
    )
