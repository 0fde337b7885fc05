"""Deep convolutional GAN, told the label in the simplest way: as further inputs of both networks.

The one-hot label is appended to the generator's latent, and to the critic's image as one constant plane per class.
`conditional_gan` lets the label act inside the networks instead. Group norm stands in for batch norm, which would mix
examples, and upsampling with a convolution for transposed convolutions.

Source: Radford et al. 2016, "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial
Networks"; Mirza and Osindero 2014, "Conditional Generative Adversarial Nets".
"""

from __future__ import annotations

from privsyn_jax.models.gan_layers import Critic, GeneratorNet, check_images, check_widths, make_gan, softplus
from privsyn_jax.types import Generator


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
    return make_gan(
        GeneratorNet(image_shape, generator_channels, num_classes),
        Critic(channels, num_classes),
        image_shape=image_shape,
        num_classes=num_classes,
        latent_dim=latent_dim,
        critic_loss=lambda real, fake, label: softplus(-real[0]) + softplus(fake[0]),
        generator_loss=lambda fake, label: softplus(-fake[0]),
    )
