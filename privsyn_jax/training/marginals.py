"""Which pair marginals are worth their noise."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from privsyn_jax.transforms.discretize import OneWay


class Marginals(NamedTuple):
    """Released counts of codes, by column index."""

    one_way: list[np.ndarray]  # non-negative, one common total
    one_way_stddev: list[np.ndarray]
    pairs: dict[tuple[int, int], np.ndarray]  # as released, may be negative
    pair_stddev: float


def choose_pairs(
    scores: dict[tuple[int, int], float], one_way: OneWay, *, noise_multiplier: float
) -> list[tuple[int, int]]:
    """The set of pairs whose scores most exceed the noise that buying the set puts on their tables.

    A score is an L1 distance between a contingency table and its independent stand-in. Part of it is no
    dependence: the noise of the one-way counts behind the stand-in, and the sampling scatter of an
    independent table; both are subtracted by their expectation. Buying m tables at once gives every
    cell noise of stddev noise_multiplier * sqrt(m), so a table of c cells gets expected L1 noise
    c * stddev * sqrt(2 / pi), against the dependence that it shows. Post-processing of released values.

    Args:
      noise_multiplier: noise stddev of a table that is bought alone.
    """
    mean_absolute = np.sqrt(2 / np.pi)
    total = one_way.counts[0].sum()
    own_noise = [mean_absolute * stddev.sum() for stddev in one_way.stddev]
    sizes = [len(counts) for counts in one_way.counts]
    scatter = {
        (i, j): mean_absolute * np.sqrt(np.outer(one_way.counts[i], one_way.counts[j]) / total).sum() for i, j in scores
    }
    dependence = {(i, j): score - scatter[i, j] - max(own_noise[i], own_noise[j]) for (i, j), score in scores.items()}
    best, best_gain = [max(dependence, key=lambda pair: dependence[pair])], 0.0
    for count in range(1, len(scores) + 1):
        cell_noise = noise_multiplier * np.sqrt(count) * mean_absolute
        gains = {(i, j): value - sizes[i] * sizes[j] * cell_noise for (i, j), value in dependence.items()}
        ranked = sorted(gains, key=lambda pair: -gains[pair])[:count]
        gain = sum(gains[pair] for pair in ranked)
        if gain > best_gain:
            best, best_gain = ranked, gain
    return best
