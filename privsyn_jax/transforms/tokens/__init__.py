"""Texts to ids and back: a public list of words, bytes, or a tokenizer from a file.

Ids of every tokenizer: PAD, END, then its content from FIRST on.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from privsyn_jax.transforms.tokens.bytes import ByteTokenizer
from privsyn_jax.transforms.tokens.english import english_words
from privsyn_jax.transforms.tokens.files import JsonTokenizer, SentencePieceTokenizer, read_words
from privsyn_jax.transforms.tokens.ids import END, FIRST, PAD
from privsyn_jax.transforms.tokens.words import WordTokenizer
from privsyn_jax.types import UserError

__all__ = ["END", "FIRST", "PAD", "Tokenizer", "english_words", "tokenizer_from_dict", "tokenizer_of"]


class Tokenizer(Protocol):
    """Texts to ids and back. Equal tokenizers give equal ids.

    Attributes:
      kind: its name in `to_dict`.
      size: number of ids, PAD and END included.
      pieces: a readable form of every id.
      frequencies: a public guess of the share of every id among the tokens of texts; they sum to 1, PAD has 0 and
        every other id more than 0.
      kinds: a small number for every id, from 0 on without gaps; rare ids of one kind are taken to be used alike.
    """

    kind: ClassVar[str]

    @property
    def size(self) -> int: ...

    @property
    def pieces(self) -> tuple[str, ...]: ...

    @property
    def frequencies(self) -> tuple[float, ...]: ...

    @property
    def kinds(self) -> tuple[int, ...]: ...

    def encode(self, text: str) -> list[int]:
        """Ids of a text, from FIRST on: neither END nor PAD is among them."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids up to the first END; PAD is left out. Any ids below `size` have a text."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON from which `tokenizer_from_dict` makes an equal tokenizer, without any other file."""
        ...


_KINDS = {kind.kind: kind for kind in (ByteTokenizer, WordTokenizer, JsonTokenizer, SentencePieceTokenizer)}


def tokenizer_of(vocabulary: str, num_words: int) -> Tokenizer:
    """The tokenizer that a setting names.

    Args:
      vocabulary: "english", "bytes", or the path of a file: .json of the library tokenizers, .model of sentencepiece,
        .txt with a word a line, the most common first.
      num_words: words of "english" or of a .txt that are kept, from the first on, at most.

    Raises:
      UserError: another name or ending; the file is absent or damaged; its library is not installed.
    """
    if vocabulary == "bytes":
        return ByteTokenizer()
    if vocabulary == "english":
        words = english_words(num_words)
        return WordTokenizer(tuple(words), word_frequencies=tuple(words.values()))
    path = Path(vocabulary)
    match path.suffix.lower():
        case ".txt":
            return WordTokenizer(read_words(path)[:num_words])
        case ".json":
            return JsonTokenizer.read(path)
        case ".model":
            return SentencePieceTokenizer.read(path)
    raise UserError(
        f"tokens.vocabulary is {vocabulary!r}: give english, bytes, or a file that ends in .json, .model or .txt"
    )


def tokenizer_from_dict(content: dict[str, Any]) -> Tokenizer:
    """What `to_dict` was made from.

    Raises:
      UserError: the kind is unknown.
    """
    if content.get("kind") not in _KINDS:
        raise UserError(f"the tokenizer's kind is {content.get('kind')!r}: give one of {', '.join(_KINDS)}")
    return _KINDS[content["kind"]].from_dict(content)
