"""Pieces of words, which spell what no vocabulary knows: learned from a public list of words, and shipped with it."""

from __future__ import annotations

import collections
import functools
import itertools
import re
import string
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

_MAX_LENGTH = 5  # letters of a piece
_MIN_COUNT = 2  # words that a merge must occur in
_BREAK = "-"  # stands where a piece goes on: "str-", "-ing"
_LEARNABLE = re.compile(r"[a-z][a-z']*")


class Pieces(NamedTuple):
    """Parts of words in ASCII lower case, the most common first.

    Attributes:
      beginnings: a word may begin with one; every letter and digit is among them.
      continuations: a word may go on with one; every letter and digit and the apostrophe are among them.
    """

    beginnings: tuple[str, ...]
    continuations: tuple[str, ...]

    def names(self) -> tuple[str, ...]:
        """Readable forms, "str-" of a beginning and "-ing" of a continuation."""
        return (*(piece + _BREAK for piece in self.beginnings), *(_BREAK + piece for piece in self.continuations))


@functools.cache
def public_pieces() -> Pieces:
    """500 beginnings and 700 continuations, learned from 20,000 English words; public, see pieces.txt."""
    lines = Path(__file__).with_name("pieces.txt").read_text(encoding="utf-8").splitlines()
    names = [line for line in lines if not line.startswith("#")]
    beginnings = tuple(name.removesuffix(_BREAK) for name in names if name.endswith(_BREAK))
    return Pieces(beginnings, tuple(name.removeprefix(_BREAK) for name in names if name.startswith(_BREAK)))


class _Part(NamedTuple):
    """Neighbouring letters of a word."""

    letters: str
    goes_on: bool  # does not begin the word


_Pair = tuple[_Part, _Part]


def learn_pieces(words: Iterable[str], *, num_beginnings: int, num_continuations: int) -> Pieces:
    """Pieces by byte-pair merges: the two neighbours that stand together most often become one, again and again.

    A word counts once, whatever its place in the list: what will be spelled are rare words. A merge at the start of a
    word makes a beginning, any other a continuation; a beginning that is itself a word is merged but not kept, as a
    vocabulary of these words can begin a word with it. Letters stand before digits, and both before merges.

    Args:
      words: public, in lower case; those of other signs than a to z and the apostrophe are left out.
      num_beginnings, num_continuations: pieces of each sort, single letters and digits included, at most.

    Source: Sennrich, Haddow and Birch 2016, "Neural Machine Translation of Rare Words with Subword Units".
    """
    known = dict.fromkeys(word for word in words if _LEARNABLE.fullmatch(word))
    parts = [[_Part(letter, place > 0) for place, letter in enumerate(word)] for word in known]
    letters = collections.Counter(part for word in parts for part in word)
    found = {
        False: [*_by_count(string.ascii_lowercase, False, letters), *string.digits],
        True: [*_by_count(string.ascii_lowercase + "'", True, letters), *string.digits],
    }
    wanted = {False: num_beginnings, True: num_continuations}
    counts: collections.Counter[_Pair] = collections.Counter()
    holders: dict[_Pair, set[int]] = collections.defaultdict(set)  # words that hold a pair, or once did

    def count(number: int, step: int) -> None:
        for pair in itertools.pairwise(parts[number]):
            counts[pair] += step
            holders[pair].add(number)

    for number in range(len(parts)):
        count(number, 1)
    while pair := _commonest(counts, {goes_on for goes_on in wanted if len(found[goes_on]) < wanted[goes_on]}):
        merged = _Part(pair[0].letters + pair[1].letters, pair[0].goes_on)
        if (merged.goes_on or merged.letters not in known) and merged.letters not in found[merged.goes_on]:
            found[merged.goes_on].append(merged.letters)
        for number in holders.pop(pair):
            count(number, -1)
            parts[number] = _merge(parts[number], pair, merged)
            count(number, 1)
    return Pieces(tuple(found[False]), tuple(found[True]))


def fewest(word: str, initials: Mapping[str, int], continuations: Mapping[str, int], longest: int) -> list[int] | None:
    """Ids of an initial and continuations that make up a word, as few as can be, or None where nothing fits.

    Of equally many, those with the longest initial, then with longer continuations first.

    Args:
      word: not empty.
      initials, continuations: the id of each.
      longest: letters of the longest of them.
    """
    length = len(word)
    num_after, end_after = [0] * (length + 1), [0] * (length + 1)  # of every place: tokens after it, end of the next
    for start in range(length - 1, 0, -1):
        num_after[start] = length  # more than any spelling has
        for end in range(min(length, start + longest), start, -1):
            if num_after[end] + 1 < num_after[start] and word[start:end] in continuations:
                num_after[start], end_after[start] = num_after[end] + 1, end
    ends = [end for end in range(min(length, longest), 0, -1) if word[:end] in initials and num_after[end] < length]
    if not ends:
        return None
    end = min(ends, key=num_after.__getitem__)
    ids = [initials[word[:end]]]
    while end < length:
        ids.append(continuations[word[end : end_after[end]]])
        end = end_after[end]
    return ids


def _by_count(letters: str, goes_on: bool, counts: Mapping[_Part, int]) -> list[str]:
    """Letters, the most common first."""
    return sorted(letters, key=lambda letter: (-counts[_Part(letter, goes_on)], letter))


def _commonest(counts: Mapping[_Pair, int], sorts: Collection[bool]) -> _Pair | None:
    """The pair to merge next, of the sorts still wanted; of equally common ones the last in the alphabet."""
    allowed = (
        (times, pair)
        for pair, times in counts.items()
        if times >= _MIN_COUNT
        and pair[0].goes_on in sorts
        and len(pair[0].letters) + len(pair[1].letters) <= _MAX_LENGTH
    )
    return max(allowed, default=(0, None))[1]


def _merge(parts: list[_Part], pair: _Pair, merged: _Part) -> list[_Part]:
    """A word's parts with every occurrence of a pair made one, from the left."""
    rest: list[_Part] = []
    for part in parts:
        if rest and (rest[-1], part) == pair:
            rest[-1] = merged
        else:
            rest.append(part)
    return rest
