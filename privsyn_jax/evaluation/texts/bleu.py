"""Self-BLEU: how much the texts of one set resemble each other."""

from __future__ import annotations

import numpy as np

from privsyn_jax.evaluation.texts.words import Words, runs

_ORDERS = 4
_EPSILON = 0.1  # matches that an order without any is given


def self_bleu(words: Words, vocabulary_size: int, *, num_hypotheses: int) -> float:
    """Mean BLEU-4 of the first texts, each against all other texts of the set.

    The geometric mean of the shares of a text's runs of 1 to 4 words that another text holds too (as often as the one
    that holds them most often, at most), times exp(1 - r / c) where the text has c words, fewer than r, the nearest
    length of another text. A run length without a match counts as 0.1 matches (the first smoothing of Chen and Cherry
    2014).

    Args:
      words: at least two texts, in random order; the value grows with their number, so compare equal ones.
      vocabulary_size: of the ids.
      num_hypotheses: texts that are scored, at most.

    Returns:
      In [0, 1]: 1 if every text occurs twice, near 0 if texts share no runs; lower means more diverse.

    Source: Zhu et al. 2018, "Texygen: A Benchmarking Platform for Text Generation Models"; Papineni et al. 2002.
    """
    num_texts = len(words.lengths)
    scored = min(num_hypotheses, num_texts)
    lengths = words.lengths[:scored]
    log_precision, has_match = np.zeros(scored), np.zeros(scored, bool)
    for order in range(1, _ORDERS + 1):
        matches = _clipped_matches(*runs(words, order, vocabulary_size), num_texts, scored)
        if order == 1:
            has_match = matches > 0
        possible = np.maximum(1, lengths - order + 1)
        log_precision += np.log(np.where(matches > 0, matches, _EPSILON) / possible) / _ORDERS
    reference = _nearest_lengths(words.lengths, scored)
    penalty = np.where(lengths > reference, 0.0, 1 - reference / np.maximum(1, lengths))
    return float(np.mean(np.where(has_match, np.exp(log_precision + penalty), 0.0)))


def _clipped_matches(keys: np.ndarray, text: np.ndarray, num_texts: int, scored: int) -> np.ndarray:
    """Runs of each of the first `scored` texts that another text holds, none more often than one other text does."""
    _, rank = np.unique(keys, return_inverse=True)
    pairs, counts = np.unique(rank * num_texts + text, return_counts=True)
    rank, text = np.divmod(pairs, num_texts)
    order = np.lexsort((-counts, rank))  # run by run, the text that holds it most often first
    rank, text, counts = rank[order], text[order], counts[order]
    first = np.flatnonzero(np.diff(rank, prepend=-1))
    second = first + 1
    has_second = np.append(rank, -1)[second] == rank[first]
    second_count = np.where(has_second, np.append(counts, 0)[second], 0)
    of_others = np.where(text[first][rank] == text, second_count[rank], counts[first][rank])
    is_scored = text < scored
    return np.bincount(text[is_scored], np.minimum(counts, of_others)[is_scored], minlength=scored)


def _nearest_lengths(lengths: np.ndarray, scored: int) -> np.ndarray:
    """For each of the first texts the length nearest to its own among the other texts, the shorter of two: [scored]."""
    found = np.zeros(scored, np.int64)
    for i in range(scored):
        others = np.delete(lengths, i)
        found[i] = others[np.lexsort((others, np.abs(others - lengths[i])))[0]]
    return found
