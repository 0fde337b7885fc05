"""The honest baseline for texts: words by class, and pairs of words, from one or two noisy sums. No network."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from privsyn_jax.models import text_sampling, word_statistics
from privsyn_jax.models.image_layers import label_is_exact
from privsyn_jax.types import Generator


def make(
    *,
    num_tokens: int,
    num_classes: int,
    length: int,
    ranks: tuple[int, ...],
    order: int = 2,
    num_paired: int = 2000,
    temperature: float = 1.0,
    top_p: float = 1.0,
    min_length: int = 0,
) -> Generator:
    """Generator of Tokens; a text is a chain of words (order 2), or independent words (order 1: a bag of words).

    Args:
      num_tokens: ids, PAD and END among them.
      num_classes: number of labels.
      length: tokens of a text.
      ranks: public guess of how common every id is, 0 for the most common.
      order: 1 or 2.
      num_paired: most frequent words whose pairs are counted (order 2).
      temperature, top_p, min_length: of sampling, see `text_sampling.draw_token`.

    Source: of the mechanism, the Gaussian mechanism on vectors of bounded norm; of the estimate, see `word_statistics`.
    """
    if order not in (1, 2):
        raise ValueError(f"order {order} must be 1 or 2")
    if num_paired < 1:
        raise ValueError(f"num_paired {num_paired} must be at least 1")
    text_sampling.check_sampling(temperature=temperature, top_p=top_p, min_length=min_length, length=length)
    guess = word_statistics.public_log_frequencies(num_tokens, ranks)

    def init(key):
        del key
        return {"private": {}, "public": word_statistics.initial(num_tokens, num_classes, guess)}

    def step(params, label, carry, before, position):
        del position
        return carry, word_statistics.log_ratios(params["public"], label, before)

    def negative_log_likelihood(params, example, key):
        del key
        before = text_sampling.ids_before(example.ids, num_tokens)
        logits = word_statistics.log_ratios(params["public"], example.labels, before)
        return text_sampling.token_losses(logits, example.ids).sum()

    return Generator(
        init=init,
        private_loss=None,
        public_loss=None,
        calibrate=None,
        sample=text_sampling.sampler(
            lambda params, label, key: jnp.zeros(()),
            step,
            num_tokens=num_tokens,
            num_classes=num_classes,
            length=length,
            temperature=temperature,
            top_p=top_p,
            min_length=min_length,
        ),
        exact_conditions=label_is_exact,
        stages=word_statistics.stages(
            num_tokens, num_classes, guess, length=length, num_paired=num_paired if order == 2 else 0
        ),
        negative_log_likelihood=jax.jit(negative_log_likelihood),
    )
