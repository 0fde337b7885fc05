"""Variational autoencoder over text: LSTM encoder, Gaussian latent, LSTM decoder with teacher forcing."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dp_step_workloads.workload import JaxModel, flax_model, token_nll

VOCABULARY, LENGTH, EMBEDDING_DIM, HIDDEN_DIM, LATENT_DIM = 2048, 64, 64, 256, 32


class TextVAE(nn.Module):
    @nn.compact
    def __call__(self, tokens, noise):  # int [LENGTH], [LATENT_DIM] -> logits [LENGTH, VOCABULARY], mean, log-variance
        embedded = nn.Embed(VOCABULARY, EMBEDDING_DIM)(tokens)
        (_, last), _ = nn.RNN(nn.OptimizedLSTMCell(HIDDEN_DIM), return_carry=True)(embedded)
        mean, log_var = jnp.split(nn.Dense(2 * LATENT_DIM)(last), 2)
        latent = mean + jnp.exp(0.5 * log_var) * noise
        start = tuple(jnp.split(jnp.tanh(nn.Dense(2 * HIDDEN_DIM)(latent)), 2))
        before = jnp.concatenate([jnp.zeros((1, EMBEDDING_DIM)), embedded[:-1]])
        hidden = nn.RNN(nn.OptimizedLSTMCell(HIDDEN_DIM))(before, initial_carry=start)
        return nn.Dense(VOCABULARY)(hidden), mean, log_var


def draw(rng: np.random.Generator, number: int) -> np.ndarray:
    return rng.integers(0, VOCABULARY, (number, LENGTH)).astype(np.int32)


def jax_model() -> JaxModel:
    def loss(apply, tokens, key):
        logits, mean, log_var = apply(tokens, jax.random.normal(key, (LATENT_DIM,)))
        return token_nll(logits, tokens) + 0.5 * jnp.sum(jnp.square(mean) + jnp.exp(log_var) - log_var - 1.0)

    return flax_model(TextVAE(), (jnp.zeros(LENGTH, jnp.int32), jnp.zeros(LATENT_DIM)), loss)


def torch_model(for_opacus: bool):
    import torch  # pyright: ignore[reportMissingImports]
    from torch import nn  # pyright: ignore[reportMissingImports]

    from dp_step_workloads import torch_layers

    LSTM = nn.LSTM
    if for_opacus:
        from opacus.layers import DPLSTM as LSTM  # pyright: ignore[reportMissingImports]

    class TextVAE(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(VOCABULARY, EMBEDDING_DIM)
            self.encoder = LSTM(EMBEDDING_DIM, HIDDEN_DIM, batch_first=True)
            self.to_latent = nn.Linear(HIDDEN_DIM, 2 * LATENT_DIM)
            self.to_start = nn.Linear(LATENT_DIM, 2 * HIDDEN_DIM)
            self.decoder = LSTM(EMBEDDING_DIM, HIDDEN_DIM, batch_first=True)
            self.logits = nn.Linear(HIDDEN_DIM, VOCABULARY)

        def forward(self, tokens):  # int64 [batch, LENGTH]
            embedded = self.embedding(tokens)
            _, (last, _) = self.encoder(embedded)
            mean, log_var = self.to_latent(last[0]).chunk(2, dim=1)
            latent = mean + torch.exp(0.5 * log_var) * torch.randn_like(mean)
            cell, hidden = torch.tanh(self.to_start(latent)).chunk(2, dim=1)
            before = nn.functional.pad(embedded[:, :-1], (0, 0, 1, 0))
            outputs, _ = self.decoder(before, (hidden[None].contiguous(), cell[None].contiguous()))
            return self.logits(outputs), mean, log_var

    def losses(module, tokens):
        logits, mean, log_var = module(tokens)
        return torch_layers.token_nll(logits, tokens) + 0.5 * (mean.square() + log_var.exp() - log_var - 1.0).sum(dim=1)

    return TextVAE(), losses
