"""A variational autoencoder of texts, conditional on the label, that starts from released counts of words and pairs.

A recurrent encoder reads a text into a Gaussian of a latent vector; a recurrent decoder says, word by word, what the
released distribution misses. The decoder sees the words before with some of them dropped, so that it needs the latent
vector, and the divergence from the prior counts little at first.

Source: Bowman et al. 2016, "Generating Sentences from a Continuous Space"; free bits: Kingma et al. 2016, "Improved
Variational Inference with Inverse Autoregressive Flow", appendix C.8.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from privsyn_jax.models.image_layers import label_is_exact
from privsyn_jax.models.text_sampling import Sampling, sampler
from privsyn_jax.models.word_statistics import word_statistics
from privsyn_jax.transforms.tokens import PAD
from privsyn_jax.types import Generator

_LARGEST_LOG_VARIANCE = 5.0


class Autoencoder(nn.Module):
    """Vectors of heads and a label -> the posterior of the latent vector; and that -> corrections of the logits."""

    num_heads: int
    num_classes: int
    num_features: int
    learned_dim: int
    width: int
    latent_dim: int

    def setup(self):
        normal, zeros = nn.initializers.normal, nn.initializers.zeros
        self.label = self.param("label", normal(0.5), (self.num_classes, self.width))
        self.learned = self.param("learned", normal(1.0), (self.num_heads + 1, self.learned_dim))
        self.reads = nn.Dense(self.width)
        self.encoder = nn.RNN(nn.GRUCell(self.width))
        self.posterior = nn.Dense(2 * self.latent_dim, kernel_init=nn.initializers.normal(0.01))
        self.first = nn.Dense(self.width)
        self.enter = nn.Dense(self.width)
        self.decoder = nn.GRUCell(self.width)
        self.decoder_of_texts = nn.RNN(self.decoder)
        self.leave = nn.Dense(self.num_features + self.learned_dim, kernel_init=zeros)
        self.bias = self.param("bias", zeros, (self.num_heads,))

    def encode(self, vectors, heads, num_words, label):
        """(mean, log variance) [latent_dim] of the first `num_words` of the heads [length]."""
        states = self.encoder(self.reads(self._words(vectors, heads)) + self.label[label][None])
        last = states[jnp.maximum(num_words - 1, 0)]
        mean, log_variance = jnp.split(self.posterior(last), 2)
        return mean, jnp.clip(log_variance, -_LARGEST_LOG_VARIANCE, _LARGEST_LOG_VARIANCE)

    def decode(self, vectors, before, keeps, label, latent):
        """Corrections [length, num_heads]; a word before that `keeps` [length] drops is read as nothing."""
        carry, said = self.start(label, latent)
        words = self._words(vectors, before) * keeps[:, None]
        states = self.decoder_of_texts(self.enter(words) + said[None], initial_carry=carry)
        return self._logits(vectors, states)

    def start(self, label, latent):
        """(state of the decoder before the first word, what is added to every word that it reads)."""
        said = self.first(latent) + self.label[label]
        return nn.tanh(said), said

    def step(self, vectors, before, carry, said):
        """(state, corrections [num_heads]) after the word before."""
        carry, state = self.decoder(carry, self.enter(self._words(vectors, before[None]))[0] + said)
        return carry, self._logits(vectors, state[None])[0]

    def __call__(self, vectors, heads, keeps, label):
        mean, _ = self.encode(vectors, heads, jnp.int32(len(heads)), label)
        return self.decode(vectors, heads, keeps, label, mean)

    def _words(self, vectors, heads):
        return jnp.concatenate([vectors[heads], self.learned[heads]], axis=-1)

    def _logits(self, vectors, states):
        known, learned = jnp.split(self.leave(states), [self.num_features], axis=-1)
        scale = (self.num_features + self.learned_dim) ** -0.5
        return scale * (known @ vectors[:-1].T + learned @ self.learned[:-1].T) + self.bias[None]


def make(
    *,
    num_classes: int,
    length: int,
    frequencies: Sequence[float],
    kinds: Sequence[int],
    latent_dim: int = 16,
    released_dim: int = 32,
    learned_dim: int = 0,
    width: int = 64,
    word_dropout: float = 0.3,
    free_bits: float = 0.1,
    annealed_share: float = 0.3,
    num_paired: int = 1000,
    temperature: float = 1.0,
    top_p: float = 1.0,
    min_length: int = 0,
    label_strength: float = 1.0,
) -> Generator:
    """Generator of Tokens.

    Args:
      num_classes, length, frequencies, kinds: see `ngram.make`.
      latent_dim: of the latent vector.
      released_dim, learned_dim: of a word's vector, see `language_model.make`.
      width: of the recurrent states.
      word_dropout: chance that the decoder does not see a word before, in training.
      free_bits: nats of each latent dimension that cost nothing in training.
      annealed_share: of training, over which the weight of the divergence rises from 0 to 1.
      num_paired: most frequent tokens that the network tells apart, and whose pairs are bought.
      temperature, top_p, min_length, label_strength: see `text_sampling.Sampling`.
    """
    for name, value in (("word_dropout", word_dropout), ("annealed_share", annealed_share)):
        if not 0 <= value < 1:
            raise ValueError(f"{name} {value} must be from 0 to below 1")
    if free_bits < 0:
        raise ValueError(f"free_bits {free_bits} must not be below 0")
    words = word_statistics(frequencies, kinds, num_classes, length, num_paired, vectors_dim=released_dim)
    sampling = Sampling(length, temperature, top_p, min_length, label_strength)
    network = Autoencoder(words.num_heads, num_classes, words.num_features, learned_dim, width, latent_dim)
    init_network = jax.jit(network.init)

    def init(key):
        public = {**words.initial(), "divergence_weight": jnp.ones(())}
        heads = jnp.zeros(length, jnp.int32)
        private = init_network(key, public["vectors"], heads, jnp.ones(length), jnp.int32(0))["params"]
        return {"private": private, "public": public}

    def apply(params, *inputs, method) -> Any:
        return network.apply({"params": params["private"]}, params["public"]["vectors"], *inputs, method=method)

    def terms(params, example, keeps, key):
        """(nats of the words given one latent vector, divergence from the prior [latent_dim])."""
        public, label, ids = params["public"], example.labels, example.ids
        num_words = (ids != PAD).sum()
        mean, log_variance = apply(params, public["heads"][ids], num_words, label, method="encode")
        latent = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, mean.shape)
        before = words.heads_before(public, ids)
        logits = words.log_weights(public, label, before, jnp.arange(length))
        logits += apply(params, before, keeps, label, latent, method="decode")
        divergence = 0.5 * (jnp.square(mean) + jnp.exp(log_variance) - 1.0 - log_variance)
        return words.losses(public, label, logits, ids).sum(), divergence

    def private_loss(params, example, key):
        latent_key, drop_key = jax.random.split(key)
        keeps = jax.random.bernoulli(drop_key, 1.0 - word_dropout, (length,)).astype(jnp.float32)
        nats, divergence = terms(params, example, keeps, latent_key)
        weight = params["public"]["divergence_weight"]
        return (nats + weight * jnp.maximum(divergence, free_bits).sum()) / length

    def negative_log_likelihood(params, example, key):
        nats, divergence = terms(params, example, jnp.ones(length), key)
        return nats + divergence.sum()

    def advance(params, progress):
        weight = jnp.minimum(1.0, progress / annealed_share) if annealed_share else jnp.ones(())
        return {**params, "public": {**params["public"], "divergence_weight": jnp.asarray(weight, jnp.float32)}}

    def start(params, label, key):
        latent = jax.random.normal(key, (latent_dim,))
        return network.apply({"params": params["private"]}, label, latent, method="start")

    def step(params, label, carry, before, position):
        del position
        state, said = carry
        state, corrections = apply(params, before, state, said, method="step")
        return (state, said), corrections

    return Generator(
        init=init,
        private_loss=private_loss,
        public_loss=None,
        calibrate=None,
        sample=sampler(words, start, step, sampling),
        exact_conditions=label_is_exact,
        stages=words.stages(),
        advance=advance,
        negative_log_likelihood=jax.jit(negative_log_likelihood),
    )
