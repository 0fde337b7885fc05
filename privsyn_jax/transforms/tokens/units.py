"""How a text is cut into units, words and others, and the cases in which a word is written."""

from __future__ import annotations

import re
from collections.abc import Collection

_WORD = r"[^\W\d_]+(?:'[^\W\d_]+)*|\d+"
UNIT = re.compile(rf"( *)(<br />|\.\.\.|--|'s\b|{_WORD}|[^ ])")  # the spaces before a unit, and the unit
WHOLE_WORD = re.compile(_WORD)
RUN = re.compile(r"[A-Z]?[a-z][a-z']*|[A-Z]+'?|[0-9]+|[^A-Za-z0-9]+")  # parts of a word, each in one case

POSSESSIVE = "'s"
WORD_FORM = "letters in lower case with apostrophes between them, or digits"

PLAIN, CAPITAL, CAPITALS = range(3)  # places in what follows


def cases_of(text: str) -> tuple[str, str, str]:
    """A text in lower case as it is, with its first letter upper, and all upper."""
    return text, text[:1].upper() + text[1:], text.upper()


def forms_of(word: str) -> tuple[str, str, str]:
    """A known word as it is written plainly, at the start of a sentence and all upper: "i" is plainly "I"."""
    plain, capital, upper = cases_of(word)
    return (capital if word == "i" or word.startswith("i'") else plain), capital, upper


def is_word(text: str) -> bool:
    """Whether a vocabulary can hold it: one unit of letters or digits, in lower case."""
    return text == text.lower() and WHOLE_WORD.fullmatch(text) is not None


def unknown_words(text: str, known: Collection[str]) -> set[str]:
    """The different words of a text, without a final 's, that a vocabulary of the known ones does not hold."""
    found = set()
    for word in {unit.lower() for _, unit in UNIT.findall(text.rstrip(" "))}:
        stem = word.removesuffix(POSSESSIVE)
        if word not in known and stem not in known and is_word(stem):
            found.add(stem)
    return found
