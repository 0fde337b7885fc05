"""Texts to tokens and back, by a public or a bought vocabulary."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from privsyn_jax.data.texts.schema import text_schema_from_dict, text_schema_to_dict
from privsyn_jax.settings import TokenSettings
from privsyn_jax.transforms.tokens import END, PAD, Tokenizer, tokenizer_from_dict, tokenizer_of
from privsyn_jax.transforms.tokens.words import WordTokenizer
from privsyn_jax.types import Texts, TextSchema, Tokens


@dataclasses.dataclass(frozen=True)
class TextTransform:
    """Nothing is fitted here: the tokenizer is public, or was bought.

    Attributes:
      schema: public facts.
      tokenizer: texts to ids and back.
      max_length: tokens of a text; what lies beyond is cut off.
    """

    schema: TextSchema
    tokenizer: Tokenizer
    max_length: int

    @property
    def num_classes(self) -> int:
        """Texts without labels are of one class."""
        return max(1, len(self.schema.classes))

    def with_words(self, words: Sequence[str]) -> TextTransform:
        """The same with further words, the most frequent first, after the public ones."""
        assert isinstance(self.tokenizer, WordTokenizer)
        return dataclasses.replace(self, tokenizer=self.tokenizer.with_words(words))

    def encode(self, texts: Texts) -> Tokens:
        """int32 ids [n, max_length]: tokens, END where the text ends within the length, PAD."""
        ids = np.full((len(texts.texts), self.max_length), PAD, np.int32)
        for row, text in zip(ids, texts.texts, strict=True):
            found = [*self.tokenizer.encode(text), END][: self.max_length]
            row[: len(found)] = found
        return Tokens(ids, np.asarray(texts.labels, np.int32))

    def encode_units(self, texts: Texts) -> Tokens:
        """One example per unit: of each unit one text was kept."""
        return self.encode(texts)

    def decode(self, tokens: Tokens) -> Texts:
        """Texts up to their END."""
        texts = np.empty(len(tokens.ids), object)
        texts[:] = [self.tokenizer.decode(row) for row in np.asarray(tokens.ids).tolist()]
        return Texts(texts, np.asarray(tokens.labels, np.int32))

    def to_dict(self) -> dict[str, Any]:
        return {
            "text_schema": text_schema_to_dict(self.schema),
            "tokenizer": self.tokenizer.to_dict(),
            "max_length": self.max_length,
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> TextTransform:
        schema = text_schema_from_dict(content["text_schema"])
        return cls(schema, tokenizer_from_dict(content["tokenizer"]), content["max_length"])


def public_transform(schema: TextSchema, settings: TokenSettings) -> TextTransform:
    """The transform as far as it is known before a text is read: a vocabulary yet to be bought is the English one.

    Raises:
      UserError: tokens.vocabulary names a file that is absent or damaged.
    """
    vocabulary = "english" if settings.is_bought else settings.vocabulary
    return TextTransform(schema, tokenizer_of(vocabulary, settings.num_words), settings.max_length)
