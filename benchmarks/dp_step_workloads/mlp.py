"""Discriminator over one-hot tables: the real half of its loss, the only half that sees private records."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dp_step_workloads.workload import JaxModel, flax_model, one_hot_table

# Adult as one-hot floats: six numbers and the categories of its input columns.
NUM_NUMBERS, CARDINALITIES = 6, (9, 16, 7, 15, 6, 5, 2, 42)
NUM_FEATURES = NUM_NUMBERS + sum(CARDINALITIES)
WIDTH = 256


class Discriminator(nn.Module):
    @nn.compact
    def __call__(self, features):  # [NUM_FEATURES] -> scalar
        hidden = features
        for _ in range(2):
            hidden = nn.leaky_relu(nn.Dense(WIDTH)(hidden), 0.2)
        return nn.Dense(1)(hidden)[0]


def draw(rng: np.random.Generator, number: int) -> np.ndarray:
    numbers = rng.random((number, NUM_NUMBERS), dtype=np.float32)
    return np.concatenate([numbers, one_hot_table(rng, number, CARDINALITIES)], axis=1)


def jax_model() -> JaxModel:
    return flax_model(
        Discriminator(), (jnp.zeros(NUM_FEATURES),), lambda apply, example, key: jax.nn.softplus(-apply(example))
    )


def torch_model(for_opacus: bool):
    del for_opacus
    import torch  # pyright: ignore[reportMissingImports]
    from torch import nn  # pyright: ignore[reportMissingImports]

    module = nn.Sequential(
        nn.Linear(NUM_FEATURES, WIDTH),
        nn.LeakyReLU(0.2),
        nn.Linear(WIDTH, WIDTH),
        nn.LeakyReLU(0.2),
        nn.Linear(WIDTH, 1),
    )
    return module, lambda module, examples: torch.nn.functional.softplus(-module(examples))[:, 0]
