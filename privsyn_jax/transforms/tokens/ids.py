"""Ids that every tokenizer has, and how common bytes are taken to be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

PAD = 0  # after the end of a text
END = 1  # a text ends here
FIRST = 2  # first id of content

END_RANK = 50  # of END among words: texts are taken to be of some tens of words

_COMMON_BYTES = b" etaoinsrhldcumfgpywb.,vkI'xTASjqzMBCHWDPRLEFGNO-0123456789KUJYV!?\"()\n:;/XQZ"


def byte_ranks() -> tuple[int, ...]:
    """A guess of how common every byte is in English spelled in bytes, 0 for the most common."""
    others = bytes(sorted(set(range(256)) - set(_COMMON_BYTES)))
    order = _COMMON_BYTES + others
    return tuple(order.index(byte) for byte in range(256))


def until_end(ids: Sequence[int]) -> Iterator[int]:
    """The ids of content before the first END."""
    for token in ids:
        if token == END:
            return
        if token != PAD:
            yield token
