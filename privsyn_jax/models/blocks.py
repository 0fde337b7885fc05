"""Layers shared by generators. Each takes one example: no layer sees two records."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp


class CausalBlock(nn.Module):
    """Pre-norm transformer block over positions [length, width]; position i attends to positions <= i.

    With a cache (see `empty_cache`), `hidden` is the one position given, [1, width], and the result is (hidden, cache
    with this position in it).
    """

    num_heads: int
    mlp_dim: int

    @nn.compact
    def __call__(self, hidden, cache=None, position=0):
        length, width = hidden.shape
        normed = nn.RMSNorm()(hidden)
        qkv = nn.Dense(3 * width, use_bias=False, name="query_key_value")(normed)
        query, key, value = jnp.split(qkv.reshape(length, self.num_heads, -1), 3, axis=-1)
        scale = (width / self.num_heads) ** -0.5
        if cache is None:
            visible = jnp.tril(jnp.ones((length, length), bool))
            scores = jnp.einsum("ihd,jhd->hij", query, key) * scale
            weights = jax.nn.softmax(jnp.where(visible[None], scores, -jnp.inf), axis=-1)
            mixed = jnp.einsum("hij,jhd->ihd", weights, value)
        else:  # sums over leading axes, where products of many small matrices are slow on CPU
            keys, values = cache[0].at[:, :, position].set(key[0]), cache[1].at[position].set(value[0])
            cache, visible = (keys, values), jnp.arange(len(values)) <= position
            scores = (query[0][:, :, None] * keys).sum(axis=1) * scale
            weights = jax.nn.softmax(jnp.where(visible[None], scores, -jnp.inf), axis=-1)
            mixed = (weights.T[:, :, None] * values).sum(axis=0)
        mixed = mixed.reshape(length, width)
        small = nn.initializers.variance_scaling(0.1, "fan_in", "normal")
        hidden = hidden + nn.Dense(width, use_bias=False, kernel_init=small, name="mix")(mixed)
        expanded = nn.gelu(nn.Dense(self.mlp_dim, name="expand")(nn.RMSNorm()(hidden)))
        hidden = hidden + nn.Dense(width, kernel_init=small, name="contract")(expanded)
        return hidden if cache is None else (hidden, cache)


def empty_cache(longest: int, num_heads: int, width: int) -> tuple[jax.Array, jax.Array]:
    """Keys [num_heads, width / num_heads, longest] and values [longest, num_heads, width / num_heads] of none yet."""
    head_dim = width // num_heads
    return jnp.zeros((num_heads, head_dim, longest)), jnp.zeros((longest, num_heads, head_dim))


class MaskedDense(nn.Module):
    """Dense layer whose kernel is multiplied by a fixed 0/1 mask [inputs, outputs].

    Source: Germain et al. 2015, "MADE: Masked Autoencoder for Distribution Estimation".
    """

    mask: jax.Array
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, inputs):
        kernel = self.param("kernel", self.kernel_init, self.mask.shape)
        bias = self.param("bias", nn.initializers.zeros, (self.mask.shape[1],))
        return inputs @ (kernel * self.mask) + bias
