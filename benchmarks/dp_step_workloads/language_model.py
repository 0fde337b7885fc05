"""Causal transformer language model, input and output embeddings untied."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from dp_step_workloads.workload import JaxModel, flax_model, token_nll
from privsyn_jax.models.blocks import CausalBlock

VOCABULARY, LENGTH, WIDTH, NUM_LAYERS, NUM_HEADS, MLP_DIM = 4096, 128, 256, 4, 4, 1024


class LanguageModel(nn.Module):
    @nn.compact
    def __call__(self, tokens):  # int [LENGTH] -> logits [LENGTH, VOCABULARY] of each token given those before it
        embedded = nn.Embed(VOCABULARY, WIDTH)(tokens)
        position = self.param("position", nn.initializers.normal(0.02), (LENGTH, WIDTH))
        hidden = jnp.concatenate([jnp.zeros((1, WIDTH)), embedded[:-1]]) + position
        for _ in range(NUM_LAYERS):
            hidden = CausalBlock(NUM_HEADS, MLP_DIM)(hidden)
        return nn.Dense(VOCABULARY)(nn.RMSNorm()(hidden))


def draw(rng: np.random.Generator, number: int) -> np.ndarray:
    return rng.integers(0, VOCABULARY, (number, LENGTH)).astype(np.int32)


def jax_model() -> JaxModel:
    return flax_model(
        LanguageModel(), (jnp.zeros(LENGTH, jnp.int32),), lambda apply, tokens, key: token_nll(apply(tokens), tokens)
    )


def torch_model(for_opacus: bool):
    del for_opacus
    from torch import nn  # pyright: ignore[reportMissingImports]

    from dp_step_workloads import torch_layers

    class LanguageModel(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(VOCABULARY, WIDTH)
            self.position = torch_layers.Position(LENGTH, WIDTH)
            self.blocks = nn.Sequential(
                *(torch_layers.CausalBlock(WIDTH, NUM_HEADS, MLP_DIM) for _ in range(NUM_LAYERS))
            )
            self.norm, self.logits = nn.RMSNorm(WIDTH, eps=1e-6), nn.Linear(WIDTH, VOCABULARY)

        def forward(self, tokens):  # int64 [batch, LENGTH] -> logits [batch, LENGTH, VOCABULARY]
            embedded = nn.functional.pad(self.embedding(tokens)[:, :-1], (0, 0, 1, 0))
            return self.logits(self.norm(self.blocks(self.position(embedded))))

    def losses(module, tokens):
        return torch_layers.token_nll(module(tokens), tokens)

    return LanguageModel(), losses
