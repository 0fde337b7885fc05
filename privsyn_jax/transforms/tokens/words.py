"""Texts as words of a list: nothing is lost, what is not in the list is spelled in pieces of words, or in bytes."""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
from collections.abc import Sequence
from typing import Any, ClassVar

from privsyn_jax.transforms.tokens.bytes import byte_pieces
from privsyn_jax.transforms.tokens.ids import FIRST, byte_ranks, scaled, until_end, zipf
from privsyn_jax.transforms.tokens.pieces import Pieces, fewest, public_pieces
from privsyn_jax.transforms.tokens.spacing import EXPECTS, FOLLOW, GLUED, MARKS, PIECE, START, WORD
from privsyn_jax.transforms.tokens.units import (
    CAPITAL,
    CAPITALS,
    PLAIN,
    POSSESSIVE,
    RUN,
    UNIT,
    WHOLE_WORD,
    WORD_FORM,
    cases_of,
    forms_of,
    is_word,
)
from privsyn_jax.types import UserError

CAP, UPPER, FLIP = FIRST, FIRST + 1, FIRST + 2  # of the next word: first letter upper; all upper; its space flipped
FIRST_BYTE = FLIP + 1
FIRST_MARK = FIRST_BYTE + 256

_SPACE = FIRST_BYTE + ord(" ")
_BYTES = -1  # style of a unit that begins with bytes
_MARKERS = ((), (CAP,), (UPPER,))  # before the cases of a word

# Shares among the tokens of English texts, from general knowledge and rough.
_END_SHARE, _CAP_SHARE, _UPPER_SHARE, _FLIP_SHARE, _BYTES_SHARE = 0.005, 0.08, 0.01, 0.01, 0.002
_MARKS_SHARE, _BEGINNINGS_SHARE, _CONTINUATIONS_SHARE, _WORDS_SHARE = 0.12, 0.02, 0.05, 0.7
_BYTE_STEP, _MARK_STEP = 20, 12  # from one byte or mark to the next rarer one, in ranks of words


@dataclasses.dataclass(frozen=True)
class WordTokenizer:
    """A token for every known word and mark, with the usual space before it; other words are spelled in pieces.

    Ids: PAD, END, CAP, UPPER, FLIP, 256 bytes, the marks, the beginnings, the continuations, the words. A text is cut
    into words (letters, with apostrophes between them), runs of digits and single other characters. A word is looked up
    in lower case, then without a final 's; CAP and UPPER before it give its case, and "i" is written "I". Another word
    is a known word or a beginning, then continuations, as few as can be; where its case is odd or letters are not
    ASCII, each run of it is written by itself, with FLIP between. Where the rule of `spacing` is wrong about the
    space before a word or a mark, FLIP stands first. All else is spelled in the bytes of its UTF-8, as are the spaces
    before it and all but the last of several spaces.

    Attributes:
      words: in lower case, the most common first; letters with apostrophes between them, or digits.
      word_pieces: parts of words that are not known.
      marks: other units and their style in `spacing`, the most common first.
      word_frequencies: a public guess of how common every word is, up to a factor; empty: Zipf's law on their order.

    Raises:
      UserError: a word is of another form, or stands twice; the frequencies are not one positive number for every word.
    """

    kind: ClassVar[str] = "words"
    words: tuple[str, ...]
    word_pieces: Pieces = dataclasses.field(default_factory=public_pieces, repr=False)
    marks: tuple[tuple[str, int], ...] = dataclasses.field(default=tuple(MARKS.items()), repr=False)
    word_frequencies: tuple[float, ...] = dataclasses.field(default=(), repr=False)

    def __post_init__(self):
        for word in self.words:
            if not is_word(word):
                raise UserError(f"{word!r} is no word of a vocabulary: give {WORD_FORM}")
        if len(self._word_ids) < len(self.words):
            twice = next(word for number, word in enumerate(self.words) if word in self.words[:number])
            raise UserError(f"the word {twice!r} stands twice in the vocabulary: remove one of them")
        given, wanted = len(self.word_frequencies), len(self.words)
        if given not in (0, wanted):
            raise UserError(f"{given} frequencies are given for {wanted} words: give one for every word, or none")
        for word, frequency in zip(self.words, self.word_frequencies, strict=False):
            if not 0 < frequency < math.inf:
                raise UserError(f"the frequency of the word {word!r} is {frequency}: give a finite number above 0")

    @property
    def size(self) -> int:
        return self.first_word + len(self.words)

    @property
    def first_piece(self) -> int:
        """Id of the first beginning."""
        return FIRST_MARK + len(self.marks)

    @property
    def first_word(self) -> int:
        """Id of the first word."""
        return self.first_piece + sum(map(len, self.word_pieces))

    @property
    def pieces(self) -> tuple[str, ...]:
        marks = (mark.encode("unicode_escape").decode() if mark.isspace() else mark for mark, _ in self.marks)
        names = ("<pad>", "<end>", "<cap>", "<upper>", "<flip>", *byte_pieces(), *marks, *self.word_pieces.names())
        return (*names, *self.words)

    @property
    def frequencies(self) -> tuple[float, ...]:
        beginnings, continuations = self.word_pieces
        shares = (
            *(_END_SHARE, _CAP_SHARE, _UPPER_SHARE, _FLIP_SHARE),
            *scaled(zipf(_BYTE_STEP * rank for rank in byte_ranks()), _BYTES_SHARE),
            *scaled(zipf(_MARK_STEP * rank for rank in range(len(self.marks))), _MARKS_SHARE),
            *scaled(zipf(range(len(beginnings))), _BEGINNINGS_SHARE),
            *scaled(zipf(range(len(continuations))), _CONTINUATIONS_SHARE),
            *scaled(self.word_frequencies or zipf(range(len(self.words))), _WORDS_SHARE),
        )
        return (0.0, *scaled(shares))

    @property
    def kinds(self) -> tuple[int, ...]:
        """Of markers and bytes, of marks, of beginnings, of continuations and of words, as far as there are any."""
        sizes = filter(None, (FIRST_MARK, len(self.marks), *map(len, self.word_pieces), len(self.words)))
        return tuple(kind for kind, size in enumerate(sizes) for _ in range(size))

    def with_words(self, words: Sequence[str]) -> WordTokenizer:
        """The same with further words at the end; where words have frequencies, each gets the median of those known."""
        known = self.word_frequencies
        further = [statistics.median(known)] * len(words) if known else []
        return dataclasses.replace(self, words=(*self.words, *words), word_frequencies=(*known, *further))

    def encode(self, text: str) -> list[int]:
        """Ids from which `decode` gives exactly this text; UnicodeEncodeError if it holds a lone surrogate."""
        ids: list[int] = []
        state, spelled = START, self._spelled
        body = text.rstrip(" ")
        for gap, unit in UNIT.findall(body):
            style, unit_ids = spelled.get(unit) or self._spell(unit)
            if style == _BYTES:
                ids += [_SPACE] * len(gap)
                state &= ~GLUED
            else:
                space = len(gap) == 1
                if len(gap) > 1:
                    state &= ~GLUED  # as after any byte
                    space = EXPECTS[state][style]
                    ids += [_SPACE] * (len(gap) - space)
                elif space != EXPECTS[state][style]:
                    ids.append(FLIP)
                state = FOLLOW[state][style][space]
            ids += unit_ids
        return ids + [_SPACE] * (len(text) - len(body))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids up to the first END; bytes that are not UTF-8 become U+FFFD."""
        text = bytearray()
        state, case, flip = START, PLAIN, False
        case_before = PLAIN  # of the word that a continuation goes on with
        for token in until_end(ids):
            if token in (CAP, UPPER):
                case = CAPITAL if token == CAP else CAPITALS
                continue
            if token == FLIP:
                flip = True
                continue
            if token < FIRST_MARK:
                text.append(token - FIRST_BYTE)
                state &= ~GLUED
            else:
                style, forms = self._written[token - FIRST_MARK]
                if style == PIECE and case_before == CAPITALS:
                    case = CAPITALS
                space = EXPECTS[state][style] != flip
                text += b" " * space + forms[case]
                state, case_before = FOLLOW[state][style][space], case
            case, flip = PLAIN, False
        return text.decode(errors="replace")

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "words": list(self.words),
            "word_pieces": {sort: list(pieces) for sort, pieces in self.word_pieces._asdict().items()},
            "marks": [list(mark) for mark in self.marks],
            "word_frequencies": list(self.word_frequencies),
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> WordTokenizer:
        pieces = Pieces(**{sort: tuple(found) for sort, found in content["word_pieces"].items()})
        marks = tuple((mark, style) for mark, style in content["marks"])
        return cls(tuple(content["words"]), pieces, marks, tuple(content["word_frequencies"]))

    @functools.cached_property
    def _mark_ids(self) -> dict[str, int]:
        return {mark: FIRST_MARK + number for number, (mark, _) in enumerate(self.marks)}

    @functools.cached_property
    def _word_ids(self) -> dict[str, int]:
        return {word: self.first_word + number for number, word in enumerate(self.words)}

    @functools.cached_property
    def _parts(self) -> tuple[dict[str, int], dict[str, int], int]:
        """Ids of what an unknown word may begin with and of what it may go on with, and their greatest length."""
        beginnings, continuations = self.word_pieces
        words = {word: token for word, token in self._word_ids.items() if forms_of(word)[PLAIN] == word}
        begin_ids = {piece: token for token, piece in enumerate(beginnings, start=self.first_piece)}
        next_ids = {piece: token for token, piece in enumerate(continuations, start=self.first_piece + len(beginnings))}
        return words | begin_ids, next_ids, max(map(len, (*words, *begin_ids, *next_ids)), default=0)

    @functools.cached_property
    def _written(self) -> list[tuple[int, tuple[bytes, ...]]]:
        """For every mark, piece and word its style, and how it is written plainly, after CAP and after UPPER."""
        beginnings, continuations = self.word_pieces
        units = [
            *((style, (mark,) * 3) for mark, style in self.marks),
            *((WORD, cases_of(piece)) for piece in beginnings),
            *((PIECE, cases_of(piece)) for piece in continuations),
            *((WORD, forms_of(word)) for word in self.words),
        ]
        return [(style, tuple(form.encode() for form in forms)) for style, forms in units]

    @functools.cached_property
    def _spelled(self) -> dict[str, tuple[int, list[int]]]:
        """Units met so far: their style and ids."""
        return {mark: (style, [self._mark_ids[mark]]) for mark, style in self.marks}

    def _spell(self, unit: str) -> tuple[int, list[int]]:
        """Style and ids of a unit that is no mark."""
        stem, ending = unit, []
        ids = self._known(unit)
        if ids is None and unit.endswith(POSSESSIVE) and POSSESSIVE in self._mark_ids:
            stem, ending = unit.removesuffix(POSSESSIVE), [self._mark_ids[POSSESSIVE]]
            ids = self._known(stem)
        style, ids = self._spell_unknown(stem) if ids is None else (WORD, ids)
        self._spelled[unit] = style, [*ids, *ending]
        return self._spelled[unit]

    def _spell_unknown(self, unit: str) -> tuple[int, list[int]]:
        """Style and ids of a unit in pieces, of each run by itself if need be, or in bytes where that is shorter."""
        of_bytes = _BYTES, [FIRST_BYTE + byte for byte in unit.encode()]
        if WHOLE_WORD.fullmatch(unit) is None:
            return of_bytes
        composed = self._composed(unit)
        if composed is not None:
            return WORD, composed
        style, ids = _BYTES, []
        for run in RUN.findall(unit):
            of_run = self._known(run) or self._composed(run)
            if of_run is None:
                ids += [FIRST_BYTE + byte for byte in run.encode()]
            elif ids:
                ids += [FLIP, *of_run]
            else:
                style, ids = WORD, of_run
        return (style, ids) if len(ids) <= len(of_bytes[1]) + 1 else of_bytes  # bytes often take a space too

    def _known(self, unit: str) -> list[int] | None:
        """Ids of a word of the list, or None."""
        token = self._word_ids.get(unit.lower())
        return None if token is None else self._in_case(unit, [token])

    def _composed(self, unit: str) -> list[int] | None:
        """Ids of a word in pieces, or None if they cannot write it."""
        ids = fewest(unit.lower(), *self._parts)
        return None if ids is None else self._in_case(unit, ids)

    def _in_case(self, unit: str, ids: list[int]) -> list[int] | None:
        """Ids after the marker with which they write a word in its case, or None if none does."""
        first, *others = (self._written[token - FIRST_MARK][1] for token in ids)
        for case, marker in enumerate(_MARKERS):
            case_after = CAPITALS if case == CAPITALS else PLAIN
            if first[case] + b"".join(forms[case_after] for forms in others) == unit.encode():
                return [*marker, *ids]
        return None
