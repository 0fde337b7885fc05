"""Variational autoencoder over table codes (TVAE): a Gaussian latent, and independent columns given it.

Source: Kingma and Welling 2014, "Auto-Encoding Variational Bayes"; Xu et al. 2019, "Modeling Tabular Data using
Conditional GAN", section 4.5.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from privsyn_jax.types import Generator

_NEVER = -1e9  # logit of a code that the column does not have
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
        return jnp.split(nn.Dense(2 * self.latent_dim, kernel_init=small)(hidden), 2)


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
    for name, values in (("latent_dim", (latent_dim,)), ("hidden_dims", hidden_dims)):
        if not values or any(not isinstance(value, int) or value < 1 for value in values):
            raise ValueError(f"{name} {values!r} must hold whole numbers, at least 1")
    if not kl_weight >= 0:
        raise ValueError(f"kl_weight {kl_weight} must be 0 or more")
    offsets = np.concatenate([[0], np.cumsum(cardinalities)[:-1]]).astype(np.int32)
    num_codes = sum(cardinalities)
    own = np.repeat(np.arange(len(cardinalities)), cardinalities)[None, :] == np.arange(len(cardinalities))[:, None]
    encoder, decoder = Encoder(latent_dim, tuple(hidden_dims)), Decoder(num_codes, tuple(hidden_dims))

    def column_logits(params, latent):
        """[d, S], impossible where a code belongs to another column."""
        logits = decoder.apply({"params": params["private"]["decoder"]}, latent)
        return jnp.where(own, logits[None], _NEVER)

    def init(key):
        encoder_key, decoder_key = jax.random.split(key)
        private = {
            "encoder": jax.jit(encoder.init)(encoder_key, jnp.zeros(num_codes))["params"],
            "decoder": jax.jit(decoder.init)(decoder_key, jnp.zeros(latent_dim))["params"],
        }
        return {"private": private, "public": {}}

    def private_loss(params, example, key):
        codes = example + offsets
        one_hot = jnp.zeros(num_codes).at[codes].set(1.0)
        mean, log_variance = encoder.apply({"params": params["private"]["encoder"]}, one_hot)
        latent = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, (latent_dim,))
        log_probs = jax.nn.log_softmax(column_logits(params, latent), axis=-1)
        nll = -jnp.take_along_axis(log_probs, codes[:, None], axis=1).sum()
        divergence = 0.5 * jnp.sum(jnp.square(mean) + jnp.exp(log_variance) - log_variance - 1.0)
        return nll + kl_weight * divergence

    @jax.jit
    def sample_block(params, key):
        latent_key, code_key = jax.random.split(key)
        latents = jax.random.normal(latent_key, (_BLOCK, latent_dim))
        logits = jax.vmap(column_logits, in_axes=(None, 0))(params, latents)
        return jax.random.categorical(code_key, logits, axis=-1)

    return Generator(
        init=init,
        private_loss=private_loss,
        public_loss=None,
        calibrate=None,
        sample=functools.partial(_sample, sample_block, offsets),
        exact_conditions=lambda columns: (),
    )


def _sample(sample_block, offsets, params, key, num_samples, conditions=None):
    """int32 [num_samples, d], drawn from the softmax; no column can be fixed."""
    if conditions:
        raise ValueError(f"columns {sorted(conditions)} cannot be fixed: meet conditions by rejection")
    params = jax.device_put(params)
    blocks = [sample_block(params, block_key) for block_key in jax.random.split(key, -(-num_samples // _BLOCK))]
    return (np.concatenate(jax.device_get(blocks))[:num_samples] - offsets).astype(np.int32)
