"""Convolutional variational autoencoder of images, told the label or not, with a weight on the divergence (beta).

The evidence lower bound of one image, its divergence from the prior multiplied by beta: above 1, latents carry less and
are pressed to be independent. Its samples are decoder means, smooth but free of pixel noise, unless pixels are drawn.

Source: Kingma and Welling 2014, "Auto-Encoding Variational Bayes"; Higgins et al. 2017, "beta-VAE"; the learned scale:
Rybkin et al. 2021, "Simple and Effective VAE Training with Calibrated Decoders".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from privsyn_jax.models.gan_layers import (
    Features,
    GeneratorNet,
    check_images,
    check_weight,
    check_widths,
    image_sampler,
)
from privsyn_jax.models.image_layers import label_is_exact, to_signed
from privsyn_jax.types import Generator, Images, Params

LIKELIHOODS = ("bernoulli", "gaussian")
_LEAST_STDDEV = 2 / 255  # of a learned scale: one level of grey


class Encoder(nn.Module):
    """Image and label -> mean and log variance [latent_dim] each, small at first."""

    latent_dim: int
    channels: Sequence[int]
    num_classes: int  # 0: the label is not seen

    @nn.compact
    def __call__(self, image, label):
        hidden = Features(self.channels, normalize=False)(image).reshape(-1)
        if self.num_classes:
            hidden = jnp.concatenate([hidden, jax.nn.one_hot(label, self.num_classes, dtype=hidden.dtype)])
        small = nn.initializers.variance_scaling(0.1, "fan_in", "normal")
        return tuple(jnp.split(nn.Dense(2 * self.latent_dim, kernel_init=small)(hidden), 2))


def make(
    *,
    image_shape: tuple[int, int, int],
    num_classes: int,
    latent_dim: int = 32,
    channels: tuple[int, ...] = (32, 64, 128),
    kl_weight: float = 1.0,
    likelihood: str = "bernoulli",
    pixel_stddev: float | None = None,
    conditional: bool = True,
    draws_pixels: bool = False,
) -> Generator:
    """Generator of labelled images.

    Args:
      image_shape: (height, width, channels), sides of 4 or more.
      num_classes: number of labels.
      latent_dim: length of the latent.
      channels: widths of the encoder's layers, counted from the image; the last is repeated for larger images. The
        decoder has them in reverse.
      kl_weight: of the divergence from N(0, I) against the reconstruction (beta).
      likelihood: of pixels given the decoder's output: "bernoulli", where a level of grey is a share of ones, or
        "gaussian".
      pixel_stddev: of "gaussian", for pixels in [-1, 1]; None learns one number for all pixels.
      conditional: whether encoder and decoder are told the label. If not, sampled labels mean nothing.
      draws_pixels: whether samples are drawn from the likelihood; else they are its mean.
    """
    check_weight("kl_weight", kl_weight)
    if likelihood not in LIKELIHOODS:
        raise ValueError(f"likelihood {likelihood!r} must be one of {', '.join(LIKELIHOODS)}")
    if pixel_stddev is not None and (likelihood != "gaussian" or not 0 < pixel_stddev < math.inf):
        raise ValueError(f"pixel_stddev {pixel_stddev} must be above 0, and belongs to the gaussian likelihood only")
    image_shape = check_images(image_shape, num_classes)
    encoder, encode = _encoder(image_shape, num_classes, latent_dim, channels, conditional)
    decoder = GeneratorNet(image_shape, encoder.channels, encoder.num_classes, normalize=False)
    learns_stddev = likelihood == "gaussian" and pixel_stddev is None

    def decode(private, latent, label) -> jax.Array:
        """Logits ("bernoulli") or atanh of the mean ("gaussian") of every pixel."""
        output: Any = decoder.apply({"params": private["decoder"]}, latent, label)
        return output.astype(jnp.float32)

    def stddev_of(private) -> Any:
        if not learns_stddev:
            return pixel_stddev
        return _LEAST_STDDEV + jnp.exp(private["log_stddev"].astype(jnp.float32))

    init_encoder, init_decoder = jax.jit(encoder.init), jax.jit(decoder.init)

    def init(key):
        encoder_key, decoder_key = jax.random.split(key)
        label = jnp.int32(0)
        private = {
            "encoder": init_encoder(encoder_key, jnp.zeros(image_shape), label)["params"],
            "decoder": init_decoder(decoder_key, jnp.zeros(latent_dim), label)["params"],
            **({"log_stddev": jnp.log(0.5)} if learns_stddev else {}),
        }
        return {"private": private, "public": {}}

    def private_loss(params, example, key):
        private = params["private"]
        mean, log_variance = encode(params, example)
        noise = jax.random.normal(key, (latent_dim,), mean.dtype)
        output = decode(private, mean + jnp.exp(0.5 * log_variance) * noise, example.labels)
        image = to_signed(example.pixels, jnp.zeros((), jnp.float32))
        if likelihood == "bernoulli":
            nll = jnp.sum(jax.nn.softplus(output) - 0.5 * (image + 1) * output)
        else:
            nll = gaussian_nll(image, jnp.tanh(output), stddev_of(private))
        return nll + kl_weight * divergence(mean, log_variance)

    @jax.jit
    def draw_block(params, key, labels):
        private = params["private"]
        latent_key, pixel_key = jax.random.split(key)
        latents = jax.random.normal(latent_key, (len(labels), latent_dim))
        outputs = jax.vmap(decode, in_axes=(None, 0, 0))(private, latents, labels)
        if likelihood == "gaussian":
            noise = stddev_of(private) * jax.random.normal(pixel_key, outputs.shape) if draws_pixels else 0.0
            return jnp.tanh(outputs) + noise
        ones = jax.nn.sigmoid(outputs)
        if draws_pixels:
            ones = jax.random.bernoulli(pixel_key, ones).astype(jnp.float32)
        return 2 * ones - 1

    return Generator(
        init=init,
        private_loss=private_loss,
        public_loss=None,
        calibrate=None,
        sample=image_sampler(draw_block, num_classes),
        exact_conditions=label_is_exact if conditional else lambda columns: (),
    )


def make_encoder(
    *,
    image_shape: tuple[int, int, int],
    num_classes: int,
    latent_dim: int = 32,
    channels: tuple[int, ...] = (32, 64, 128),
    conditional: bool = True,
) -> Callable[[Params, Images], tuple[jax.Array, jax.Array]]:
    """(params, one image) -> mean and log variance [latent_dim] of its latent; arguments are those of `make`.

    It reads an image: of private images it is evaluation, never a release.
    """
    return _encoder(image_shape, num_classes, latent_dim, channels, conditional)[1]


def _encoder(image_shape, num_classes, latent_dim, channels, conditional) -> tuple[Encoder, Callable[..., Any]]:
    """The network, and what it makes of (params, one image)."""
    check_images(image_shape, num_classes)
    encoder = Encoder(latent_dim, check_widths(channels, latent_dim), num_classes if conditional else 0)

    def encode(params, example):
        private = params["private"]["encoder"]
        return encoder.apply({"params": private}, to_signed(example.pixels, private), example.labels)

    return encoder, encode


def divergence(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """Of N(mean, exp(log_variance)) from N(0, I), in nats."""
    mean, log_variance = mean.astype(jnp.float32), log_variance.astype(jnp.float32)
    return 0.5 * jnp.sum(jnp.square(mean) + jnp.exp(log_variance) - log_variance - 1.0)


def gaussian_nll(image: jax.Array, mean: jax.Array, stddev: Any) -> jax.Array:
    """Negative log density of all pixels, in nats."""
    log_normalizer = jnp.log(jnp.asarray(stddev)) + 0.5 * math.log(2 * math.pi)
    return jnp.sum(0.5 * jnp.square((image - mean) / stddev) + log_normalizer)
