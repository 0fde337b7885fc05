"""Ids that every tokenizer has, and how common bytes are taken to be."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

PAD = 0  # after the end of a text
END = 1  # a text ends here
FIRST = 2  # first id of content

END_RANK = 50  # of END where tokens have ranks: texts are taken to be of some tens of tokens

_ZIPF_OFFSET = 10  # added to ranks, from 0

_COMMON_BYTES = b" etaoinsrhldcumfgpywb.,vkI'xTASjqzMBCHWDPRLEFGNO-0123456789KUJYV!?\"()\n:;/XQZ"


def byte_ranks() -> tuple[int, ...]:
    """A guess of how common every byte is in English spelled in bytes, 0 for the most common."""
    others = bytes(sorted(set(range(256)) - set(_COMMON_BYTES)))
    order = _COMMON_BYTES + others
    return tuple(order.index(byte) for byte in range(256))


def zipf(ranks: Iterable[int]) -> list[float]:
    """A guess of how common what has these ranks is, up to a factor, by Zipf's law.

    Source: Zipf 1949, "Human Behavior and the Principle of Least Effort"; Mandelbrot 1953, "An informational theory of
    the statistical structure of language", for what is added to the rank.
    """
    return [1 / (_ZIPF_OFFSET + rank) for rank in ranks]


def scaled(weights: Sequence[float], total: float = 1.0) -> list[float]:
    """Weights multiplied so that their sum is a total; of no weights, none."""
    found = math.fsum(weights)
    return [total * weight / found for weight in weights]


def until_end(ids: Sequence[int]) -> Iterator[int]:
    """The ids of content before the first END."""
    for token in ids:
        if token == END:
            return
        if token != PAD:
            yield token
