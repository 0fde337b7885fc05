"""Variational autoencoder whose reconstructions are compared in the features of a GAN's critic.

Encoder, decoder and critic are all trained on records, by one loss of one image whose parts reach only the parameters
that they are meant for:

  encoder   divergence + feature error of the reconstruction
  decoder   feature error + adversarial_weight * (the critic should call its images real)
  critic    tells the real image from a reconstruction and from a draw of the prior

The feature error is a mean over features and the divergence is divided by their number, so that the parts' gradients,
which are clipped together, are of one order.

Source: Larsen et al. 2016, "Autoencoding beyond Pixels Using a Learned Similarity Metric".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from privsyn_jax.models.beta_vae import Encoder, divergence
from privsyn_jax.models.gan_layers import (
    Features,
    GeneratorNet,
    check_images,
    check_weight,
    check_widths,
    image_sampler,
    softplus,
    with_planes,
)
from privsyn_jax.models.image_layers import label_is_exact, to_signed
from privsyn_jax.types import Generator


class FeatureCritic(nn.Module):
    """Image and label -> score, a scalar, and the features [m] that it is a linear function of."""

    channels: Sequence[int]
    num_classes: int

    @nn.compact
    def __call__(self, image, label):
        features = Features(self.channels)(with_planes(image, label, self.num_classes)).reshape(-1)
        return nn.Dense(1)(features)[0], features


def make(
    *,
    image_shape: tuple[int, int, int],
    num_classes: int,
    latent_dim: int = 32,
    channels: tuple[int, ...] = (32, 64, 128),
    kl_weight: float = 1.0,
    adversarial_weight: float = 0.1,
) -> Generator:
    """Generator of labelled images.

    Args:
      image_shape: (height, width, channels), sides of 4 or more.
      num_classes: number of labels.
      latent_dim: length of the latent.
      channels: widths of each network's layers, counted from the image; the last is repeated for larger images.
      kl_weight: of the divergence from N(0, I) against the feature error.
      adversarial_weight: of the decoder's adversarial loss against the feature error.
    """
    image_shape = check_images(image_shape, num_classes)
    channels = check_widths(channels, latent_dim)
    check_weight("kl_weight", kl_weight)
    check_weight("adversarial_weight", adversarial_weight)
    encoder = Encoder(latent_dim, channels, num_classes)
    decoder = GeneratorNet(image_shape, channels, num_classes)
    critic = FeatureCritic(channels, num_classes)

    def decode(private, latent, label) -> jax.Array:
        image: Any = decoder.apply({"params": private["decoder"]}, latent, label)
        return jnp.tanh(image)

    init_encoder, init_decoder, init_critic = jax.jit(encoder.init), jax.jit(decoder.init), jax.jit(critic.init)

    def init(key):
        encoder_key, decoder_key, critic_key = jax.random.split(key, 3)
        image, label = jnp.zeros(image_shape), jnp.int32(0)
        private = {
            "encoder": init_encoder(encoder_key, image, label)["params"],
            "decoder": init_decoder(decoder_key, jnp.zeros(latent_dim), label)["params"],
            "critic": init_critic(critic_key, image, label)["params"],
        }
        return {"private": private, "public": {}}

    def private_loss(params, example, key):
        private, label = params["private"], example.labels
        noise_key, prior_key = jax.random.split(key)
        real = to_signed(example.pixels, private)

        def judge(parameters, images) -> Any:
            """Scores [k] and features [k, m] of images [k, ...]."""
            return jax.vmap(lambda image: critic.apply({"params": parameters}, image, label))(images)

        posterior: Any = encoder.apply({"params": private["encoder"]}, real, label)
        mean, log_variance = posterior
        latent = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(noise_key, mean.shape, mean.dtype)
        prior = jax.random.normal(prior_key, mean.shape, mean.dtype)
        # The encoder learns from the first reconstruction alone, the decoder's adversarial loss is of the other two.
        latents = jnp.stack([latent, jax.lax.stop_gradient(latent), prior])
        compared, *fakes = jax.vmap(lambda latent: decode(private, latent, label))(latents)

        fixed = jax.tree.map(jax.lax.stop_gradient, private["critic"])
        scores, features = judge(fixed, jnp.stack([real, compared, *fakes]))
        error = 0.5 * jnp.mean(jnp.square((features[0] - features[1]).astype(jnp.float32)))
        divergence_share = kl_weight * divergence(mean, log_variance) / features.shape[1]
        adversarial = jnp.mean(softplus(-scores[2:]))

        real_score, *fake_scores = judge(private["critic"], jax.lax.stop_gradient(jnp.stack([real, *fakes])))[0]
        critic_loss = softplus(-real_score) + jnp.mean(softplus(jnp.stack(fake_scores)))
        return error + divergence_share + adversarial_weight * adversarial + critic_loss

    @jax.jit
    def draw_block(params, key, labels):
        latents = jax.random.normal(key, (len(labels), latent_dim))
        return jax.vmap(decode, in_axes=(None, 0, 0))(params["private"], latents, labels)

    return Generator(
        init=init,
        private_loss=private_loss,
        public_loss=None,
        calibrate=None,
        sample=image_sampler(draw_block, num_classes),
        exact_conditions=label_is_exact,
    )
