"""A vocabulary bought from private texts: words above a threshold of a noisy histogram."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from privsyn_jax.privacy import word_release
from privsyn_jax.privacy.noise import HostNoise
from privsyn_jax.privacy.release import Event
from privsyn_jax.transforms.tokens.units import unknown_words


def buy_words(
    texts: Sequence[str],
    public_words: Iterable[str],
    *,
    words_per_record: int,
    num_words: int,
    noise_multiplier: float,
    delta: float,
    noise: HostNoise,
) -> tuple[tuple[str, ...], tuple[Event, Event]]:
    """Words that many texts hold and the public list lacks, by `privacy.word_release.words`.

    Args:
      texts: private; one text is one record.
      public_words: in lower case; they are not bought.
      words_per_record: different words that one text counts, at most.
      num_words: words kept, those of the highest noisy counts, at most.
      noise_multiplier: noise standard deviation divided by the L2 sensitivity of the histogram.
      delta: probability that a word held by one text alone comes out.

    Returns:
      the words, by falling noisy count, to be put after the public ones; a Gaussian and an approximate event.
    """
    public = frozenset(public_words)
    found, *events = word_release.words(
        [unknown_words(text, public) for text in texts],
        words_per_record=words_per_record,
        noise_multiplier=noise_multiplier,
        delta=delta,
        noise=noise,
    )
    return found[:num_words], (events[0], events[1])
