"""Variational autoencoder over table codes (TVAE): a Gaussian latent, and independent columns given it.

The decoder's logits are corrections of released log frequencies where these were bought, and calibrated to them after
training. Latents are drawn from what trained records have, if that was bought, see `latent_prior`; else from N(0, I).

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
from privsyn_jax.models.latent_prior import LatentPrior
from privsyn_jax.models.one_way import log_shares, matching_bias
from privsyn_jax.types import Generator

_BLOCK = 1024  # records decoded at once
_CALIBRATION_ROWS = 4096


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
    target_weight: float = 1.0,
    prior_splits: int = 0,
    prior_radius: float = 1.7,
) -> Generator:
    """Generator of int32 codes [d].

    Args:
      cardinalities: number of codes of each column.
      column_order: its first is the target; the columns are drawn together.
      latent_dim: length of the latent.
      hidden_dims: widths of the encoder's hidden layers; the decoder has them in reverse.
      kl_weight: of the divergence from N(0, I) against the reconstruction (beta).
      target_weight: of the target's reconstruction against that of any other column. Above 1, latents tell more of it.
      prior_splits: coordinates along which a bought prior cuts the latent space in halves with Gaussians of their own.
      prior_radius: root mean square of a latent's entries up to which a bought prior tells latents apart.
    """
    if not isinstance(latent_dim, int) or latent_dim < 1:
        raise ValueError(f"latent_dim {latent_dim!r} must be a whole number, at least 1")
    widths = check_hidden_dims("hidden_dims", hidden_dims)
    for name, weight in {"kl_weight": kl_weight, "target_weight": target_weight}.items():
        if not 0 <= weight < math.inf:
            raise ValueError(f"{name} {weight} must be a finite number, 0 or more")
    if not isinstance(prior_splits, int) or not 0 <= prior_splits <= min(4, latent_dim):
        raise ValueError(f"prior_splits {prior_splits!r} must be a whole number from 0 to 4, at most latent_dim")
    if not 0 < prior_radius < math.inf:
        raise ValueError(f"prior_radius {prior_radius} must be a finite number above 0")
    codes, prior = FlatCodes(tuple(cardinalities)), LatentPrior(latent_dim, prior_splits, prior_radius)
    weights = np.where(np.arange(codes.num_columns) == (column_order[0] if column_order else 0), target_weight, 1.0)
    encoder, decoder = Encoder(latent_dim, widths), Decoder(codes.num_codes, widths)

    def encode(params, one_hot) -> tuple[jax.Array, jax.Array]:
        posterior: Any = encoder.apply({"params": params["private"]["encoder"]}, one_hot)
        return posterior

    def decode(params, latent) -> jax.Array:
        corrections: Any = decoder.apply({"params": params["private"]["decoder"]}, latent)
        return corrections + params["public"]["bias"]

    init_encoder, init_decoder = jax.jit(encoder.init), jax.jit(decoder.init)

    def init(key):
        encoder_key, decoder_key = jax.random.split(key)
        private = {
            "encoder": init_encoder(encoder_key, jnp.zeros(codes.num_codes))["params"],
            "decoder": init_decoder(decoder_key, jnp.zeros(latent_dim))["params"],
        }
        return {"private": private, "public": {"bias": jnp.zeros(codes.num_codes), "prior": prior.empty()}}

    def private_loss(params, example, key):
        one_hot = codes.one_hot(example)
        mean, log_variance = encode(params, one_hot)
        logits = decode(params, mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, (latent_dim,)))
        nll = weights @ codes.log_normalizers(logits) - weights[codes.column_of_code] @ (logits * one_hot)
        divergence = 0.5 * jnp.sum(jnp.square(mean) + jnp.exp(log_variance) - log_variance - 1.0)
        return nll + kl_weight * divergence

    @jax.jit
    def sample_block(params, key):
        latent_key, code_key = jax.random.split(key)
        latents = prior.draw(params["public"]["prior"], latent_key, _BLOCK)
        return codes.draw(jax.vmap(decode, in_axes=(None, 0))(params, latents), code_key)

    @jax.jit
    def calibration_logits(params, key):
        latents = prior.draw(params["public"]["prior"], key, _CALIBRATION_ROWS)
        return jax.vmap(decode, in_axes=(None, 0))(params, latents) - params["public"]["bias"][None]

    def calibrate(params, marginals, key):
        """Columns come out with the released frequencies."""
        bias = matching_bias(codes, calibration_logits(params, key), log_shares(marginals.one_way))
        return {**params, "public": {**params["public"], "bias": bias}}

    return Generator(
        init=init,
        private_loss=private_loss,
        public_loss=None,
        calibrate=calibrate,
        sample=functools.partial(_sample, sample_block),
        exact_conditions=lambda columns: (),
        after=(prior.stage(lambda params, example: encode(params, codes.one_hot(example))),),
    )


def _sample(sample_block, params, key, num_samples, conditions=None):
    """int32 [num_samples, d], drawn from the softmax; no column can be fixed."""
    if conditions:
        raise ValueError(f"columns {sorted(conditions)} cannot be fixed: meet conditions by rejection")
    params = jax.device_put(params)
    blocks = [sample_block(params, block_key) for block_key in jax.random.split(key, -(-num_samples // _BLOCK))]
    return np.concatenate(jax.device_get(blocks))[:num_samples].astype(np.int32)
