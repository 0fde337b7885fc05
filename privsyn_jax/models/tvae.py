"""Variational autoencoder over table codes (TVAE): a Gaussian latent, and independent columns given it.

Source: Kingma and Welling 2014, "Auto-Encoding Variational Bayes"; Xu et al. 2019, "Modeling Tabular Data using
Conditional GAN", section 4.5.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from privsyn_jax.models.flat_codes import FlatCodes, check_hidden_dims
from privsyn_jax.types import Generator

_BLOCK = 1024  # records decoded at once


class Encoder(nn.Module):
    """One-hot codes [S] -> mean and log variance [latent_dim] each."""

    latent_dim: int
    hidden_dims: Sequence[int]

    @nn.compact
    def __call__(self, one_hot):
        hidden = one_hot
        for width in self.hidden_dims:
            hidden = nn.gelu(nn.Dense(width)(hidden))
        small = nn.initializers.variance_scaling(0.1, "fan_in", "normal")
        return tuple(jnp.split(nn.Dense(2 * self.latent_dim, kernel_init=small)(hidden), 2))


class Decoder(nn.Module):
    """Latent [latent_dim] -> logits [S]; of every column even at first."""

    num_codes: int
    hidden_dims: Sequence[int]

    @nn.compact
    def __call__(self, latent):
        hidden = latent
        for width in reversed(self.hidden_dims):
            hidden = nn.gelu(nn.Dense(width)(hidden))
        return nn.Dense(self.num_codes, kernel_init=nn.initializers.zeros)(hidden)


def make(
    *,
    cardinalities: tuple[int, ...],
    column_order: tuple[int, ...] = (),
    latent_dim: int = 16,
    hidden_dims: tuple[int, ...] = (128,),
    kl_weight: float = 1.0,
) -> Generator:
    """Generator of int32 codes [d].

    Args:
      cardinalities: number of codes of each column.
      column_order: not used: the columns are drawn together.
      latent_dim: length of the latent.
      hidden_dims: widths of the encoder's hidden layers; the decoder has them in reverse.
      kl_weight: of the divergence from N(0, I) against the reconstruction (beta).
    """
    del column_order
    if not isinstance(latent_dim, int) or latent_dim < 1:
        raise ValueError(f"latent_dim {latent_dim!r} must be a whole number, at least 1")
    widths = check_hidden_dims("hidden_dims", hidden_dims)
    if not 0 <= kl_weight < math.inf:
        raise ValueError(f"kl_weight {kl_weight} must be a finite number, 0 or more")
    codes = FlatCodes(tuple(cardinalities))
    encoder, decoder = Encoder(latent_dim, widths), Decoder(codes.num_codes, widths)

    def encode(params, one_hot) -> tuple[jax.Array, jax.Array]:
        posterior: Any = encoder.apply({"params": params["private"]["encoder"]}, one_hot)
        return posterior

    def decode(params, latent) -> jax.Array:
        logits: Any = decoder.apply({"params": params["private"]["decoder"]}, latent)
        return logits

    init_encoder, init_decoder = jax.jit(encoder.init), jax.jit(decoder.init)

    def init(key):
        encoder_key, decoder_key = jax.random.split(key)
        private = {
            "encoder": init_encoder(encoder_key, jnp.zeros(codes.num_codes))["params"],
            "decoder": init_decoder(decoder_key, jnp.zeros(latent_dim))["params"],
        }
        return {"private": private, "public": {}}

    def private_loss(params, example, key):
        one_hot = codes.one_hot(example)
        mean, log_variance = encode(params, one_hot)
        logits = decode(params, mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, (latent_dim,)))
        nll = codes.log_normalizers(logits).sum() - jnp.sum(logits * one_hot)
        divergence = 0.5 * jnp.sum(jnp.square(mean) + jnp.exp(log_variance) - log_variance - 1.0)
        return nll + kl_weight * divergence

    @jax.jit
    def sample_block(params, key):
        latent_key, code_key = jax.random.split(key)
        latents = jax.random.normal(latent_key, (_BLOCK, latent_dim))
        return codes.draw(jax.vmap(decode, in_axes=(None, 0))(params, latents), code_key)

    return Generator(
        init=init,
        private_loss=private_loss,
        public_loss=None,
        calibrate=None,
        sample=functools.partial(_sample, sample_block),
        exact_conditions=lambda columns: (),
    )


def _sample(sample_block, params, key, num_samples, conditions=None):
    """int32 [num_samples, d], drawn from the softmax; no column can be fixed."""
    if conditions:
        raise ValueError(f"columns {sorted(conditions)} cannot be fixed: meet conditions by rejection")
    params = jax.device_put(params)
    blocks = [sample_block(params, block_key) for block_key in jax.random.split(key, -(-num_samples // _BLOCK))]
    return np.concatenate(jax.device_get(blocks))[:num_samples].astype(np.int32)
