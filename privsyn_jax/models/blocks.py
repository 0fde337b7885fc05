"""Layers shared by generators. Each takes one example: no layer sees two records."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp


class CausalBlock(nn.Module):
    """Pre-norm transformer block over positions [length, width]; position i attends to positions <= i.

    With a cache, (keys, values) [longest, num_heads, width / num_heads] each, `hidden` is the one position given,
    [1, width], and the result is (hidden, cache with this position in it).
    """

    num_heads: int
    mlp_dim: int

    @nn.compact
    def __call__(self, hidden, cache=None, position=0):
        length, width = hidden.shape
        normed = nn.RMSNorm()(hidden)
        qkv = nn.Dense(3 * width, use_bias=False, name="query_key_value")(normed)
        query, key, value = jnp.split(qkv.reshape(length, self.num_heads, -1), 3, axis=-1)
        visible = jnp.tril(jnp.ones((length, length), bool))
        if cache is not None:
            key, value = (old.at[position].set(new[0]) for old, new in zip(cache, (key, value), strict=True))
            visible = (jnp.arange(len(key)) <= position)[None]
        scores = jnp.einsum("ihd,jhd->hij", query, key) * (width / self.num_heads) ** -0.5
        weights = jax.nn.softmax(jnp.where(visible[None], scores, -jnp.inf), axis=-1)
        mixed = jnp.einsum("hij,jhd->ihd", weights, value).reshape(length, width)
        small = nn.initializers.variance_scaling(0.1, "fan_in", "normal")
        hidden = hidden + nn.Dense(width, use_bias=False, kernel_init=small, name="mix")(mixed)
        expanded = nn.gelu(nn.Dense(self.mlp_dim, name="expand")(nn.RMSNorm()(hidden)))
        hidden = hidden + nn.Dense(width, kernel_init=small, name="contract")(expanded)
        return hidden if cache is None else (hidden, (key, value))


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
