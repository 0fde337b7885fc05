"""Common English words, and how common each is: public, nothing of the private texts."""

from __future__ import annotations

import functools
import heapq
import itertools
from collections.abc import Mapping
from types import MappingProxyType

from privsyn_jax.transforms.tokens.units import POSSESSIVE, is_word

_NUMBERS = (*range(101), *range(1900, 2031))  # the library counts digits without telling them apart, as 0s
_LETTERS = ("a", "i")  # other single letters begin words of many tokens already
# Before 's, for "is" or "us"; other words before it own something.
_SHORT_FORMS = frozenset(["it", "he", "she", "that", "there", "what", "let", "here", "who", "where", "how"])


@functools.cache
def english_words(num_words: int) -> Mapping[str, float]:
    """English words, whole numbers to 100 and years, the most common first, and the share of each in English texts.

    They are public: made from published books, subtitles, web pages, encyclopedias and the like, never from the private
    texts. Words are in lower case and of ASCII letters, with apostrophes between them.

    Args:
      num_words: words and numbers, at most; fewer are the first of more.

    Source: Speer 2022, wordfreq 3, doi:10.5281/zenodo.7199437; shares of numbers are estimates of that library.
    """
    import wordfreq  # slow to import: only where its words are wanted

    words = ((word, share) for word, share in wordfreq.get_frequency_dict("en").items() if _is_kept(word))
    numbers = [(str(number), wordfreq.word_frequency(str(number), "en")) for number in _NUMBERS]
    merged = heapq.merge(words, sorted(numbers, key=_falling), key=_falling)  # the library's words fall already
    return MappingProxyType(dict(itertools.islice(merged, num_words)))


def _is_kept(word: str) -> bool:
    """Whether an entry of the library is a word to keep; the cheapest tests come first."""
    if not word.isascii() or word.isdigit() or (len(word) == 1 and word not in _LETTERS):
        return False
    return is_word(word) and (not word.endswith(POSSESSIVE) or word.removesuffix(POSSESSIVE) in _SHORT_FORMS)


def _falling(item: tuple[str, float]) -> float:
    """Sorts the most common first."""
    return -item[1]
