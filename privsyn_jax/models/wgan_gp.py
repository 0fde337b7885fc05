"""Wasserstein GAN with a gradient penalty: the critic's slope between a real and a fake image is drawn towards 1.

The penalty is a function of one real image, so per-example gradients pass through it unchanged. Labels enter as in
`dcgan`. Under DP-SGD clipping does not bound the critic's slope: the penalty still does.

Source: Gulrajani et al. 2017, "Improved Training of Wasserstein GANs".
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from privsyn_jax.models.gan_layers import Critic, GeneratorNet, check_images, check_weight, check_widths, make_gan
from privsyn_jax.types import Generator


def make(
    *,
    image_shape: tuple[int, int, int],
    num_classes: int,
    latent_dim: int = 64,
    channels: tuple[int, ...] = (64, 128, 256),
    generator_channels: tuple[int, ...] | None = None,
    penalty_weight: float = 10.0,
) -> Generator:
    """Generator of labelled images; params["private"] is the critic.

    Args:
      image_shape: (height, width, channels), sides of 4 or more.
      num_classes: number of labels.
      latent_dim: length of the latent.
      channels: widths of the critic's layers, counted from the image; the last is repeated for larger images.
      generator_channels: the same of the generator, default `channels`; it receives no noise, so it may be large.
      penalty_weight: of the gradient penalty against the difference of the critic's scores.
    """
    image_shape = check_images(image_shape, num_classes)
    channels = check_widths(channels, latent_dim)
    generator_channels = check_widths(generator_channels or channels, latent_dim)
    check_weight("penalty_weight", penalty_weight)

    def penalty(score, real, fake, key):
        share = jax.random.uniform(key, dtype=real.dtype)
        slope = jax.grad(lambda image: score(image)[0].astype(jnp.float32))(share * real + (1 - share) * fake)
        norm = jnp.sqrt(jnp.sum(jnp.square(slope.astype(jnp.float32))) + 1e-12)  # the root of 0 has no gradient
        return penalty_weight * jnp.square(norm - 1.0)

    return make_gan(
        GeneratorNet(image_shape, generator_channels, num_classes),
        Critic(channels, num_classes),
        image_shape=image_shape,
        num_classes=num_classes,
        latent_dim=latent_dim,
        critic_loss=lambda real, fake, label: (fake[0] - real[0]).astype(jnp.float32),
        generator_loss=lambda fake, label: -fake[0],
        penalty=penalty,
    )
