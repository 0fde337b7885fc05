"""Variational autoencoder over one-hot tables."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from dp_step_workloads.adult import CARDINALITIES
from dp_step_workloads.workload import JaxModel, flax_model, one_hot_table

NUM_FEATURES = sum(CARDINALITIES)
WIDTH, LATENT_DIM = 128, 16


class VAE(nn.Module):
    @nn.compact
    def __call__(self, features, noise):  # [NUM_FEATURES], [LATENT_DIM] -> logits, mean, log-variance
        hidden = features
        for _ in range(2):
            hidden = nn.relu(nn.Dense(WIDTH)(hidden))
        mean, log_var = jnp.split(nn.Dense(2 * LATENT_DIM)(hidden), 2)
        hidden = mean + jnp.exp(0.5 * log_var) * noise
        for _ in range(2):
            hidden = nn.relu(nn.Dense(WIDTH)(hidden))
        return nn.Dense(NUM_FEATURES)(hidden), mean, log_var


def draw(rng: np.random.Generator, number: int) -> np.ndarray:
    return one_hot_table(rng, number, CARDINALITIES)


def jax_model() -> JaxModel:
    def loss(apply, example, key):
        logits, mean, log_var = apply(example, jax.random.normal(key, (LATENT_DIM,)))
        nll = optax.sigmoid_binary_cross_entropy(logits, example).sum()
        return nll + 0.5 * jnp.sum(jnp.square(mean) + jnp.exp(log_var) - log_var - 1.0)

    return flax_model(VAE(), (jnp.zeros(NUM_FEATURES), jnp.zeros(LATENT_DIM)), loss)


def torch_model(for_opacus: bool):
    del for_opacus
    import torch  # pyright: ignore[reportMissingImports]
    from torch import nn  # pyright: ignore[reportMissingImports]

    def mlp(inputs, outputs):
        hidden = [nn.Linear(inputs, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU()]
        return nn.Sequential(*hidden, nn.Linear(WIDTH, outputs))

    class VAE(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = mlp(NUM_FEATURES, 2 * LATENT_DIM)
            self.decoder = mlp(LATENT_DIM, NUM_FEATURES)

        def forward(self, features):
            mean, log_var = self.encoder(features).chunk(2, dim=1)
            latent = mean + torch.exp(0.5 * log_var) * torch.randn_like(mean)
            return self.decoder(latent), mean, log_var

    def losses(module, examples):
        logits, mean, log_var = module(examples)
        nll = nn.functional.binary_cross_entropy_with_logits(logits, examples, reduction="none").sum(dim=1)
        return nll + 0.5 * (mean.square() + log_var.exp() - log_var - 1.0).sum(dim=1)

    return VAE(), losses
