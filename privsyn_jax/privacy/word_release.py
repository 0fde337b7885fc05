"""A private set of words: each record counts a bounded number of its own, and noisy counts pass a threshold."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterable

from scipy.stats import norm

from privsyn_jax.privacy.noise import HostNoise
from privsyn_jax.privacy.release import Event


def words(
    records: Iterable[Collection[str]],
    *,
    words_per_record: int,
    noise_multiplier: float,
    delta: float,
    noise: HostNoise,
) -> tuple[tuple[str, ...], Event, Event]:
    """The words that many records hold, where the possible words are not public.

    Neighbouring relation: add or remove one record. A record adds one to the counts of at most `words_per_record` of
    its words, and no other record decides which, see `bounded_counts`: L2 sensitivity sqrt(words_per_record). Noisy
    counts of the words present are released, where they are above a threshold. A word that only the added record counts
    has count one and passes with probability delta / words_per_record, so that any of them does with probability at
    most delta; all else is one Gaussian release. The order of the words is computed from the released counts.

    Args:
      records: the words of each record; repeats count once.
      words_per_record: different words of one record that count, at most.
      noise_multiplier: noise standard deviation divided by the L2 sensitivity.
      delta: probability that a word held by one record alone comes out.

    Returns:
      the released words by falling noisy count; a Gaussian event; an approximate event.

    Source: Gopi et al. 2020, "Differentially Private Set Union", with the Gaussian noise and the threshold of Wilkins
    et al. 2024, "Exact Privacy Analysis of the Gaussian Sparse Histogram Mechanism" (here the two deltas are added).
    """
    counts = bounded_counts(records, words_per_record)
    present = sorted(counts)  # not by the order of records
    stddev = noise_multiplier * math.sqrt(words_per_record)
    threshold = 1.0 + stddev * norm.isf(delta / words_per_record)
    draws = noise.normal((len(present),), stddev=stddev)
    noisy = {word: counts[word] + draw for word, draw in zip(present, draws, strict=True)}
    released = sorted((word for word in present if noisy[word] > threshold), key=lambda word: (-noisy[word], word))
    gaussian: Event = {"kind": "gaussian", "noise_multiplier": float(noise_multiplier), "count": 1}
    return tuple(released), gaussian, {"kind": "approximate", "epsilon": 0.0, "delta": delta, "count": 1}


def bounded_counts(records: Iterable[Collection[str]], words_per_record: int) -> dict[str, int]:
    """How many records count each word, exactly: private until noise is added.

    A record with more than `words_per_record` different words counts those first in the order of a fixed hash, so which
    ones depends on no other record.
    """
    counts: dict[str, int] = {}
    order: dict[str, bytes] = {}
    for record in records:
        kept = set(record)
        if len(kept) > words_per_record:
            for word in kept - order.keys():
                order[word] = hashlib.blake2b(word.encode(), digest_size=16).digest()
            kept = sorted(kept, key=order.__getitem__)[:words_per_record]
        for word in kept:
            counts[word] = counts.get(word, 0) + 1
    return counts
