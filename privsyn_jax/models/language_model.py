"""A causal transformer over tokens, the label as its prefix, that starts from released counts of words and pairs.

Its logits are those of the released distribution plus a correction that DP-SGD learns. Words enter and leave the
network as vectors that the released counts imply (and, on request, some learned columns): a table of thousands of words
that is trained would receive far more noise than the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from privsyn_jax.models.blocks import CausalBlock, empty_cache
from privsyn_jax.models.image_layers import label_is_exact
from privsyn_jax.models.text_sampling import Sampling, sampler
from privsyn_jax.models.word_statistics import word_statistics
from privsyn_jax.types import Generator


class Trunk(nn.Module):
    """Vectors of the heads before [length, features] and a label -> corrections of the logits of heads."""

    num_heads_of_words: int
    num_classes: int
    num_features: int
    learned_dim: int
    width: int
    num_layers: int
    num_heads: int
    mlp_ratio: int

    def setup(self):
        normal = nn.initializers.normal
        self.label = self.param("label", normal(0.5), (self.num_classes, self.width))
        self.learned = self.param("learned", normal(1.0), (self.num_heads_of_words + 1, self.learned_dim))
        self.enter = nn.Dense(self.width)
        self.layers = [CausalBlock(self.num_heads, self.mlp_ratio * self.width) for _ in range(self.num_layers)]
        self.norm = nn.RMSNorm()
        self.leave = nn.Dense(self.num_features + self.learned_dim, kernel_init=nn.initializers.zeros)
        self.bias = self.param("bias", nn.initializers.zeros, (self.num_heads_of_words,))

    def __call__(self, vectors, before, label):
        return self._logits(vectors, self.hidden(vectors, before, label))

    def hidden(self, vectors, before, label):
        """[length, width]; position i depends on the words before it only."""
        hidden = self._enter(vectors, before, label, jnp.arange(len(before)))
        for layer in self.layers:
            hidden = layer(hidden)
        return hidden

    def step(self, vectors, before, label, caches, position):
        """One position: (corrections [num_heads_of_words], caches)."""
        hidden, kept = self._enter(vectors, before[None], label, position[None]), []
        for layer, cache in zip(self.layers, caches, strict=True):
            hidden, cache = layer(hidden, cache, position)
            kept.append(cache)
        return self._logits(vectors, hidden)[0], kept

    def _enter(self, vectors, before, label, positions):
        words = jnp.concatenate([vectors[before], self.learned[before]], axis=-1)
        return self.enter(words) + self.label[label][None] + _places(positions, self.width)

    def _logits(self, vectors, hidden):
        leaving = self.leave(self.norm(hidden))
        known, learned = jnp.split(leaving, [self.num_features], axis=-1)
        scale = (self.num_features + self.learned_dim) ** -0.5
        return scale * (known @ vectors[:-1].T + learned @ self.learned[:-1].T) + self.bias[None]


def make(
    *,
    num_classes: int,
    length: int,
    frequencies: Sequence[float],
    kinds: Sequence[int],
    released_dim: int = 32,
    learned_dim: int = 0,
    width: int = 64,
    num_layers: int = 2,
    num_heads: int = 4,
    mlp_ratio: int = 2,
    num_paired: int = 1000,
    temperature: float = 1.0,
    top_p: float = 1.0,
    min_length: int = 0,
    label_strength: float = 1.0,
) -> Generator:
    """Generator of Tokens.

    Args:
      num_classes, length, frequencies, kinds: see `ngram.make`.
      released_dim: singular vectors of the released table of pairs, on either side, that words are described by.
      learned_dim: further entries of a word's vector, learned by DP-SGD.
      width, num_layers, num_heads, mlp_ratio: size of the network.
      num_paired: most frequent tokens that the network tells apart, and whose pairs are bought.
      temperature, top_p, min_length, label_strength: see `text_sampling.Sampling`.
    """
    if width % num_heads:
        raise ValueError(f"width {width} must be a multiple of num_heads {num_heads}")
    words = word_statistics(frequencies, kinds, num_classes, length, num_paired, vectors_dim=released_dim)
    sampling = Sampling(length, temperature, top_p, min_length, label_strength)
    trunk = Trunk(
        words.num_heads, num_classes, words.num_features, learned_dim, width, num_layers, num_heads, mlp_ratio
    )
    init_trunk = jax.jit(trunk.init)

    def init(key):
        public = words.initial()
        private = init_trunk(key, public["vectors"], jnp.zeros(length, jnp.int32), jnp.int32(0))["params"]
        return {"private": private, "public": public}

    def apply(params, *inputs, method=None) -> Any:
        return trunk.apply({"params": params["private"]}, params["public"]["vectors"], *inputs, method=method)

    def loss(params, example, key):
        del key
        public, label = params["public"], example.labels
        before = words.heads_before(public, example.ids)
        logits = words.log_weights(public, label, before, jnp.arange(length)) + apply(params, before, label)
        return words.losses(public, label, logits, example.ids).sum()

    def start(params, label, key):
        del params, label, key
        return [empty_cache(length, num_heads, width)] * num_layers

    def step(params, label, caches, before, position):
        corrections, caches = apply(params, before, label, caches, position, method="step")
        return caches, corrections

    return Generator(
        init=init,
        private_loss=lambda params, example, key: loss(params, example, key) / length,
        public_loss=None,
        calibrate=None,
        sample=sampler(words, start, step, sampling),
        exact_conditions=label_is_exact,
        stages=words.stages(),
        negative_log_likelihood=jax.jit(loss),
    )


def _places(positions: jax.Array, width: int) -> jax.Array:
    """Sinusoids [length, width] of the positions: fixed, so nothing is learned about them.

    Source: Vaswani et al. 2017, "Attention Is All You Need", section 3.5.
    """
    rates = 10_000.0 ** (-jnp.arange(width // 2) / (width / 2))
    angles = positions[:, None] * rates[None]
    return 0.5 * jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
