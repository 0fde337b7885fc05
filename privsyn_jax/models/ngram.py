"""The honest baseline for texts: words by class, and pairs of words, from one or two noisy sums. No network."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from privsyn_jax.models.image_layers import label_is_exact
from privsyn_jax.models.text_sampling import Sampling, sampler
from privsyn_jax.models.word_statistics import word_statistics
from privsyn_jax.types import Generator


def make(
    *,
    num_classes: int,
    length: int,
    frequencies: Sequence[float],
    kinds: Sequence[int],
    order: int = 2,
    num_paired: int = 1000,
    temperature: float = 1.0,
    top_p: float = 1.0,
    min_length: int = 0,
    label_strength: float = 1.0,
) -> Generator:
    """Generator of Tokens; a text is a chain of words (order 2), or independent words (order 1: a bag of words).

    Args:
      num_classes: number of labels.
      length: tokens of a text.
      frequencies: public guess of the share of every id among tokens, PAD and END among them.
      kinds: of every id; rare ones of a kind are taken to be used alike.
      order: 1 or 2.
      num_paired: most frequent tokens whose pairs are counted one by one (order 2).
      temperature, top_p, min_length, label_strength: see `text_sampling.Sampling`.

    Source: of the mechanism, the Gaussian mechanism on vectors of bounded norm; of the estimate, see `word_statistics`.
    """
    if order not in (1, 2):
        raise ValueError(f"order {order} must be 1 or 2")
    words = word_statistics(frequencies, kinds, num_classes, length, num_paired, has_pairs=order == 2)
    sampling = Sampling(length, temperature, top_p, min_length, label_strength)

    def init(key):
        del key
        return {"private": {}, "public": words.initial()}

    def negative_log_likelihood(params, example, key):
        del key
        public, label = params["public"], example.labels
        logits = words.log_weights(public, label, words.heads_before(public, example.ids), jnp.arange(length))
        return words.losses(public, label, logits, example.ids).sum()

    return Generator(
        init=init,
        private_loss=None,
        public_loss=None,
        calibrate=None,
        sample=sampler(
            words,
            start=lambda params, label, key: (),
            step=lambda params, label, carry, before, position: (carry, jnp.zeros(())),
            sampling=sampling,
        ),
        exact_conditions=label_is_exact,
        stages=words.stages(),
        negative_log_likelihood=jax.jit(negative_log_likelihood),
    )
