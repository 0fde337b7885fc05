"""Vocabularies from files: lists of words, and tokenizers of other libraries with their content embedded."""

from __future__ import annotations

import base64
import dataclasses
import functools
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from privsyn_jax.transforms.tokens.ids import END_RANK, FIRST, scaled, until_end, zipf
from privsyn_jax.transforms.tokens.units import WORD_FORM, is_word
from privsyn_jax.types import UserError


def read_words(path: Path) -> tuple[str, ...]:
    """The words of a text file, one a line; empty lines and lines that start with # are left out.

    Raises:
      UserError: the file is absent, not UTF-8 or without words; a line is no word or stands twice.
    """
    lines: dict[str, int] = {}
    for number, line in enumerate(_text(path).splitlines(), start=1):
        word = line.strip()
        if not word or word.startswith("#"):
            continue
        if not is_word(word):
            raise UserError(f"{path}, line {number} is {word!r}: give {WORD_FORM}, one word a line")
        if word in lines:
            raise UserError(f"{path} holds {word!r} in lines {lines[word]} and {number}: remove one of them")
        lines[word] = number
    if not lines:
        raise UserError(f"{path} holds no words: give one word a line")
    return tuple(lines)


@dataclasses.dataclass(frozen=True)
class JsonTokenizer:
    """A tokenizer of the library tokenizers, its id k as FIRST + k; special tokens are neither added nor written.

    Attributes:
      content: of the .json file.

    Raises:
      UserError: the library is not installed, or does not read the content.
    """

    kind: ClassVar[str] = "tokenizers"
    content: str = dataclasses.field(repr=False)

    def __post_init__(self):
        _ = self._tokenizer

    @classmethod
    def read(cls, path: Path) -> JsonTokenizer:
        content = _text(path)
        try:
            return cls(content)
        except _DamagedError as error:
            raise UserError(f"{path} is no file of the library tokenizers ({error}): save it again") from None

    @property
    def size(self) -> int:
        return FIRST + max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    @property
    def pieces(self) -> tuple[str, ...]:
        found = (self._tokenizer.id_to_token(number) for number in range(self.size - FIRST))
        return ("<pad>", "<end>", *(f"<{number}>" if piece is None else piece for number, piece in enumerate(found)))

    @property
    def frequencies(self) -> tuple[float, ...]:
        return _frequencies(self.size)

    @property
    def kinds(self) -> tuple[int, ...]:
        return (0,) * self.size

    def encode(self, text: str) -> list[int]:
        return [FIRST + number for number in self._tokenizer.encode(text, add_special_tokens=False).ids]

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode([int(token) - FIRST for token in until_end(ids)], skip_special_tokens=True)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "content": self.content}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> JsonTokenizer:
        return cls(content["content"])

    @functools.cached_property
    def _tokenizer(self) -> Any:
        library = _library("tokenizers")
        try:
            tokenizer = library.Tokenizer.from_str(self.content)
        except Exception as error:  # the library raises no narrower class
            raise _DamagedError(_one_line(error)) from None
        tokenizer.no_truncation()
        tokenizer.no_padding()
        if not tokenizer.get_vocab(with_added_tokens=True):
            raise _DamagedError("its vocabulary is empty")
        return tokenizer


@dataclasses.dataclass(frozen=True)
class SentencePieceTokenizer:
    """A model of sentencepiece, its id k as FIRST + k; no ids for the start and end of a text are added.

    Attributes:
      content: of the .model file.

    Raises:
      UserError: the library is not installed, or does not read the content.
    """

    kind: ClassVar[str] = "sentencepiece"
    content: bytes = dataclasses.field(repr=False)

    def __post_init__(self):
        _ = self._processor

    @classmethod
    def read(cls, path: Path) -> SentencePieceTokenizer:
        content = _bytes(path)
        try:
            return cls(content)
        except _DamagedError as error:
            raise UserError(f"{path} is no model of sentencepiece ({error}): save it again") from None

    @property
    def size(self) -> int:
        return FIRST + self._processor.get_piece_size()

    @property
    def pieces(self) -> tuple[str, ...]:
        return ("<pad>", "<end>", *(self._processor.id_to_piece(number) for number in range(self.size - FIRST)))

    @property
    def frequencies(self) -> tuple[float, ...]:
        return _frequencies(self.size)

    @property
    def kinds(self) -> tuple[int, ...]:
        return (0,) * self.size

    def encode(self, text: str) -> list[int]:
        return [FIRST + number for number in self._processor.encode(text, out_type=int)]

    def decode(self, ids: Sequence[int]) -> str:
        numbers = [int(token) - FIRST for token in until_end(ids)]
        return self._processor.decode(numbers) if numbers else ""

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "content": base64.b64encode(self.content).decode()}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> SentencePieceTokenizer:
        return cls(base64.b64decode(content["content"]))

    @functools.cached_property
    def _processor(self) -> Any:
        library = _library("sentencepiece")
        if not self.content:  # the library takes it for no model at all
            raise _DamagedError("it is empty")
        try:
            return library.SentencePieceProcessor(model_proto=self.content)
        except Exception as error:  # which class differs between its versions
            raise _DamagedError(_one_line(error)) from None


class _DamagedError(UserError):
    """A library does not read a tokenizer's content."""


def _library(name: str) -> Any:
    """The module of an optional library."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError(
            f"this tokenizer needs {name}, which is not installed: pip install 'privsyn_jax[tokenizers]'"
        ) from None


def _frequencies(size: int) -> tuple[float, ...]:
    """Ids of such files mostly fall from common to rare."""
    return (0.0, *scaled(zipf((END_RANK, *range(size - FIRST)))))


def _bytes(path: Path) -> bytes:
    """The content of a file."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"the tokenizer file {path} cannot be read ({error.strerror}): check tokens.vocabulary"
        ) from None


def _text(path: Path) -> str:
    """The content of a UTF-8 file, without a byte order mark."""
    try:
        return _bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"the tokenizer file {path} is not UTF-8 at byte {error.start}: save it as UTF-8") from None


def _one_line(error: Exception) -> str:
    """A library's message without line ends or a final full stop."""
    return " ".join(str(error).split()).rstrip(".")
