"""Whether synthetic texts keep the simple rules of written English as often as real ones do."""

from __future__ import annotations

import re

import numpy as np
from scipy.special import rel_entr

from privsyn_jax.evaluation.rows import Rows
from privsyn_jax.evaluation.texts.function_words import TAGS, tags
from privsyn_jax.evaluation.texts.words import Corpora, Words, equal_totals, runs, text_of_each

_PAIRED = re.compile(r"[()\[\]{}“”\"]")
_OPENS = {")": "(", "]": "[", "}": "{", "”": "“"}
_CLOSING = "\"'”’)]}*_ "
_BREAK = re.compile(r"(?<=[.!?…])[\"'”’)\]}*]*\s+|\n+|<br\s*/?>")
_LETTER = re.compile(r"[^\W_]")


def is_balanced(text: str) -> bool:
    """Whether brackets and curly quotes nest, each closed by its own kind, and straight double quotes come in pairs."""
    opened = []
    for mark in _PAIRED.findall(text):
        if mark == '"':
            opened.pop() if opened and opened[-1] == mark else opened.append(mark)
        elif mark not in _OPENS:
            opened.append(mark)
        elif not opened or opened.pop() != _OPENS[mark]:
            return False
    return not opened


def sentences(text: str) -> list[str]:
    """Pieces of a text with a letter or digit, split after . ! ? … before white space, at new lines and at <br>."""
    return [piece for piece in _BREAK.split(text) if _LETTER.search(piece)]


def is_sentence(piece: str) -> bool:
    """Whether its first letter or digit is no small letter and its last mark, but for closing ones, is . ! ? or …"""
    first = _LETTER.search(piece)
    return first is not None and not first.group().islower() and piece.rstrip(_CLOSING).endswith((".", "!", "?", "…"))


def repeated_rate(words: Words, is_letters: np.ndarray) -> float:
    """Share of words (`is_letters` bool [v]) that equal the word before them in their text; 0 without words."""
    text = text_of_each(words)
    is_repeated = (words.ids[1:] == words.ids[:-1]) & (text[1:] == text[:-1]) & is_letters[words.ids[1:]]
    return float(is_repeated.sum() / max(1, is_letters[words.ids].sum()))


def jensen_shannon(counts1: np.ndarray, counts2: np.ndarray) -> float:
    """Jensen-Shannon divergence of two distributions from their counts [k]: in [0, 1] bits; lower is better.

    Source: Lin 1991, "Divergence Measures Based on the Shannon Entropy".
    """
    p, q = counts1 / counts1.sum(), counts2 / counts2.sum()
    return float((rel_entr(p, (p + q) / 2).sum() + rel_entr(q, (p + q) / 2).sum()) / (2 * np.log(2)))


def syntax_rows(corpora: Corpora, *, seed: int) -> Rows:
    """Marks, sentences, repeated words and the order of function words; the reference is of real held-out texts.

    Metrics:
      balanced_rate: share of texts that are `is_balanced`; higher is better.
      sentence_rate: share of sentences that are `is_sentence`; higher is better. Real texts miss it too.
      repeated_word_rate: share of words equal to the word before, as in "the the"; lower is better.
      tag_trigram_js: Jensen-Shannon divergence, in bits, from training texts over runs of three of the
        `function_words.TAGS`, synthetic and held-out texts cut to the same number of words; lower is better. The
        classes are those of English.

    Args:
      corpora: the three sets, each with at least one word.
      seed: draws the cuts.

    Returns:
      Rows.
    """
    rows = Rows("fidelity", seed)
    sets = corpora.synthetic, corpora.test
    rows.add(
        "balanced_rate", *(np.mean([is_balanced(text) for text in part.texts]) for part in sets), higher_is_better=True
    )
    shares = (_sentence_rate(part.texts) for part in sets)
    rows.add("sentence_rate", *shares, higher_is_better=True, undefined="one of the sets holds no sentence")
    is_letters = np.array([word[0].isalpha() for word in corpora.vocabulary])
    rows.add("repeated_word_rate", *(repeated_rate(part.words, is_letters) for part in sets))
    tag_of = tags(corpora.vocabulary)
    cut = equal_totals(corpora.synthetic.words, corpora.test.words, np.random.default_rng(seed))
    counts = [_tag_counts(words, tag_of) for words in (corpora.train.words, *cut)]
    if all(found.sum() for found in counts):
        rows.add("tag_trigram_js", *(jensen_shannon(counts[0], found) for found in counts[1:]))
    else:
        rows.skip("tag_trigram_js", "one of the sets holds no text of three words")
    return rows


def _sentence_rate(texts: np.ndarray) -> float:
    found = [is_sentence(piece) for text in texts for piece in sentences(text)]
    return float(np.mean(found)) if found else np.nan


def _tag_counts(words: Words, tag_of: np.ndarray) -> np.ndarray:
    """Runs of three tags, int64 [len(TAGS) ** 3]."""
    keys, _ = runs(Words(tag_of[words.ids], words.starts), 3, len(TAGS))
    return np.bincount(keys.astype(np.int64), minlength=len(TAGS) ** 3)
