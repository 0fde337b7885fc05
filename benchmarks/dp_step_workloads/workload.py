"""What a workload is: data of one shape and one architecture, in Flax for an example and in PyTorch for a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


class JaxModel(NamedTuple):
    """Attributes as in `privsyn_jax.types.Generator`."""

    init: Callable[[jax.Array], Any]  # key -> {"private": pytree, "public": pytree}
    private_loss: Callable[..., jax.Array]  # (params, example, key) -> scalar


class Workload(NamedTuple):
    """One architecture at one batch size.

    Attributes:
      batch_size: examples per step.
      draw: (NumPy generator, number) -> random examples, one array [number, ...].
      jax_model: () -> JaxModel, of one example.
      torch_model: (for_opacus) -> (torch module, (module, examples [batch, ...]) -> losses [batch]). Modules differ
        only where Opacus needs a layer of its own. Imports torch when called, so JAX's process stays free of it.
    """

    batch_size: int
    draw: Callable[[np.random.Generator, int], np.ndarray]
    jax_model: Callable[[], JaxModel]
    torch_model: Callable[[bool], tuple[Any, Callable[..., Any]]]


def flax_model(module: nn.Module, like: Any, loss: Callable[..., jax.Array]) -> JaxModel:
    """JaxModel of a Flax module all of whose parameters are private.

    Args:
      like: arguments of the module for one example, to initialise it.
      loss: (apply, example, key) -> scalar, where `apply` is the module with its parameters.
    """

    def init(key):
        return {"private": module.init(key, *like)["params"], "public": {}}

    def private_loss(params, example, key):
        return loss(lambda *inputs: module.apply({"params": params["private"]}, *inputs), example, key)

    return JaxModel(init, private_loss)


def one_hot_table(rng: np.random.Generator, number: int, cardinalities: tuple[int, ...]) -> np.ndarray:
    """Float32 [number, sum of cardinalities]: one-hot blocks of uniform codes, side by side."""
    blocks = [np.eye(size, dtype=np.float32)[rng.integers(0, size, number)] for size in cardinalities]
    return np.concatenate(blocks, axis=1)


def token_nll(logits: jax.Array, tokens: jax.Array) -> jax.Array:
    """Summed negative log-likelihood of int tokens [length] under logits [length, vocabulary]."""
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[:, None], axis=-1).sum()
