"""A causal transformer over tokens, the label as its prefix, that starts from released counts of words and pairs.

Its logits are those of the released distribution plus a correction that DP-SGD learns. Words enter and leave the
network as vectors that the released counts imply (and, on request, some learned columns): a table of thousands of words
that is trained would receive far more noise than the network.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from privsyn_jax.models import text_sampling, word_statistics
from privsyn_jax.models.blocks import CausalBlock
from privsyn_jax.models.image_layers import label_is_exact
from privsyn_jax.types import CountStage, Generator


class Trunk(nn.Module):
    """Vectors of the tokens before [length, features] and a label -> corrections in the space of vectors out."""

    num_tokens: int
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
        self.learned = self.param("learned", normal(1.0), (self.num_tokens + 1, self.learned_dim))
        self.enter = nn.Dense(self.width)
        self.layers = [CausalBlock(self.num_heads, self.mlp_ratio * self.width) for _ in range(self.num_layers)]
        self.norm = nn.RMSNorm()
        self.leave = nn.Dense(self.num_features + self.learned_dim, kernel_init=nn.initializers.zeros)
        self.bias = self.param("bias", nn.initializers.zeros, (self.num_tokens,))

    def __call__(self, vectors, before, label):
        return self._logits(vectors, self.hidden(vectors, before, label))

    def hidden(self, vectors, before, label):
        """[length, width]; position i depends on the tokens before it only."""
        hidden = self._enter(vectors, before, label, jnp.arange(len(before)))
        for layer in self.layers:
            hidden = layer(hidden)
        return hidden

    def step(self, vectors, before, label, caches, position):
        """One position: (logits [num_tokens], caches)."""
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
    num_tokens: int,
    num_classes: int,
    length: int,
    ranks: tuple[int, ...],
    released_dim: int = 32,
    learned_dim: int = 0,
    width: int = 64,
    num_layers: int = 2,
    num_heads: int = 4,
    mlp_ratio: int = 2,
    num_paired: int = 2000,
    temperature: float = 1.0,
    top_p: float = 1.0,
    min_length: int = 0,
) -> Generator:
    """Generator of Tokens.

    Args:
      num_tokens, num_classes, length, ranks: see `ngram.make`.
      released_dim: singular vectors of the released table of pairs, on either side, that words are described by.
      learned_dim: further entries of a word's vector, learned by DP-SGD.
      width, num_layers, num_heads, mlp_ratio: size of the network.
      num_paired: most frequent words whose pairs are bought besides words; 0 for none.
      temperature, top_p, min_length: of sampling, see `text_sampling.draw_token`.
    """
    if width % num_heads:
        raise ValueError(f"width {width} must be a multiple of num_heads {num_heads}")
    if not 1 <= released_dim < num_tokens - 1:
        raise ValueError(f"released_dim {released_dim} must be from 1 to below the {num_tokens} tokens less one")
    text_sampling.check_sampling(temperature=temperature, top_p=top_p, min_length=min_length, length=length)
    guess = word_statistics.public_log_frequencies(num_tokens, ranks)
    num_features = 2 * released_dim + 1
    trunk = Trunk(num_tokens, num_classes, num_features, learned_dim, width, num_layers, num_heads, mlp_ratio)
    init_trunk = jax.jit(trunk.init)

    def init(key):
        vectors = jnp.zeros((num_tokens + 1, num_features), jnp.float32)
        private = init_trunk(key, vectors, jnp.zeros(length, jnp.int32), jnp.int32(0))["params"]
        public = {**word_statistics.initial(num_tokens, num_classes, guess), "vectors": vectors}
        return {"private": private, "public": public}

    def apply(params, *inputs, method=None) -> Any:
        return trunk.apply({"params": params["private"]}, params["public"]["vectors"], *inputs, method=method)

    def loss(params, example, key):
        del key
        before = text_sampling.ids_before(example.ids, num_tokens)
        known = word_statistics.log_ratios(params["public"], example.labels, before)
        return text_sampling.token_losses(known + apply(params, before, example.labels), example.ids).sum()

    def start(params, label, key):
        del params, label, key
        empty = jnp.zeros((length, num_heads, width // num_heads))
        return [(empty, empty)] * num_layers

    def step(params, label, caches, before, position):
        logits, caches = apply(params, before, label, caches, position, method="step")
        return caches, logits + word_statistics.log_ratios(params["public"], label, before)

    return Generator(
        init=init,
        private_loss=lambda params, example, key: loss(params, example, key) / length,
        public_loss=None,
        calibrate=None,
        sample=text_sampling.sampler(
            start,
            step,
            num_tokens=num_tokens,
            num_classes=num_classes,
            length=length,
            temperature=temperature,
            top_p=top_p,
            min_length=min_length,
        ),
        exact_conditions=label_is_exact,
        stages=with_vectors(
            word_statistics.stages(num_tokens, num_classes, guess, length=length, num_paired=num_paired), released_dim
        ),
        negative_log_likelihood=jax.jit(loss),
    )


def with_vectors(stages: tuple[CountStage, ...], released_dim: int) -> tuple[CountStage, ...]:
    """The stages, the last of which also makes the words' vectors."""
    last = stages[-1]

    def absorb(params, noisy_sum, stddev, key):
        params = last.absorb(params, noisy_sum, stddev, key)
        vectors = jnp.asarray(word_statistics.factors(params["public"], released_dim))
        return {**params, "public": {**params["public"], "vectors": vectors}}

    return (*stages[:-1], last._replace(absorb=absorb))


def _places(positions: jax.Array, width: int) -> jax.Array:
    """Sinusoids [length, width] of the positions: fixed, so nothing is learned about them.

    Source: Vaswani et al. 2017, "Attention Is All You Need", section 3.5.
    """
    rates = 10_000.0 ** (-jnp.arange(width // 2) / (width / 2))
    angles = positions[:, None] * rates[None]
    return 0.5 * jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
