"""Texts as their UTF-8 bytes: nothing to learn, nothing to buy, and long sequences."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

from privsyn_jax.transforms.tokens.ids import END_RANK, FIRST, byte_ranks, scaled, until_end, zipf


@dataclasses.dataclass(frozen=True)
class ByteTokenizer:
    """Byte b has the id FIRST + b."""

    kind: ClassVar[str] = "bytes"

    @property
    def size(self) -> int:
        return FIRST + 256

    @property
    def pieces(self) -> tuple[str, ...]:
        return ("<pad>", "<end>", *byte_pieces())

    @property
    def frequencies(self) -> tuple[float, ...]:
        return (0.0, *scaled(zipf((END_RANK, *byte_ranks()))))

    @property
    def kinds(self) -> tuple[int, ...]:
        return (0,) * self.size

    def encode(self, text: str) -> list[int]:
        """Ids of the UTF-8 bytes of a text; UnicodeEncodeError if it holds a lone surrogate."""
        return [FIRST + byte for byte in text.encode()]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids up to the first END; bytes that are not UTF-8 become U+FFFD."""
        return bytes(token - FIRST for token in until_end(ids)).decode(errors="replace")

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> ByteTokenizer:
        del content
        return cls()


def byte_pieces() -> tuple[str, ...]:
    """Bytes as two hexadecimal digits, <0x00> to <0xFF>."""
    return tuple(f"<0x{byte:02X}>" for byte in range(256))
