"""NumPy twins of jitted metrics, for machines without an accelerator.

On a CPU, XLA needs several times as long for these passes over large tables, and again as long to compile them. Values
are those of the twins in `columns.py` and `fidelity.py`, in double precision.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import numpy as np

from privsyn_jax.evaluation.columns import Moments
from privsyn_jax.evaluation.fidelity import MIN_VARIANCE
from privsyn_jax.evaluation.threads import in_threads

_BLOCK_ROWS = 1 << 15  # a few columns of a block, and
_MAX_CELLS = 1 << 15  # the cells of a histogram of more than two columns, stay in the second-level cache


def host_distances(real_counts: np.ndarray, synthetic_counts: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """`columns.wasserstein` and `columns.kolmogorov_smirnov` of one column.

    Args:
      real_counts: int [K] how often each value occurs.
      synthetic_counts: int [K], the same values.
      values: float64 [K], increasing.

    Returns:
      (1-Wasserstein distance in units of the values, Kolmogorov-Smirnov statistic); NaN if either sample is empty.
    """
    real, synthetic = (np.cumsum(counts, dtype=np.int64) for counts in (real_counts, synthetic_counts))
    if not (len(values) and real[-1] and synthetic[-1]):
        return float("nan"), float("nan")
    num_real, num_synthetic = int(real[-1]), int(synthetic[-1])
    # Whole numbers as far as they go: equal samples are exactly 0 apart.
    gaps = np.abs((real - synthetic) / num_synthetic + real * ((num_synthetic - num_real) / num_synthetic / num_real))
    return float(gaps[:-1] @ np.diff(values)), float(gaps.max())


def host_moments(values: Sequence[np.ndarray]) -> Moments:
    """`columns.moments` of d columns, each float64 [n] with NaN where missing."""
    return Moments(*np.array(in_threads(_moments, values)).reshape(-1, len(Moments._fields)).T)


def _moments(column):
    is_missing = np.isnan(column)
    present = column[~is_missing] if is_missing.any() else column
    if not len(present):
        return (np.nan,) * 4
    lowest, highest = present.min(), present.max()
    if lowest == highest:
        return lowest, 0.0, np.nan, np.nan
    mean = present.mean()
    relative = (present - mean) / (highest - lowest)  # high powers of small numbers do not vanish
    square = np.square(relative)
    variance, third, fourth = (
        a @ b / len(present) for a, b in ((relative, relative), (square, relative), (square, square))
    )
    return mean, np.sqrt(variance) * (highest - lowest), third / variance**1.5, fourth / variance**2 - 3.0


def host_pair_counts(codes: np.ndarray, num_codes: tuple[int, ...]) -> np.ndarray:
    """`fidelity.pair_counts`, from joint histograms of a few columns at once.

    One histogram of three columns holds those of three pairs, so a third of the passes over the rows does.

    Args:
      codes: int32 [n, D], column d in 0..num_codes[d]-1; best if a column lies together in memory.
      num_codes: D sizes.

    Returns:
      int32 [S, S], exact, S = sum(num_codes).
    """
    starts = np.cumsum(num_codes) - num_codes
    slices = [slice(start, start + size) for start, size in zip(starts, num_codes, strict=True)]
    groups = covering_groups(num_codes)
    columns = [np.ascontiguousarray(column) for column in codes.T]
    histograms = in_threads(
        lambda group: _histogram([columns[i] for i in group], [num_codes[i] for i in group]), groups
    )
    counts = np.zeros((sum(num_codes), sum(num_codes)), np.int32)
    for group, histogram in zip(groups, histograms, strict=True):
        for one, other in itertools.combinations(range(len(group)), 2):
            pair = _kept(histogram, (one, other))
            counts[slices[group[one]], slices[group[other]]] = pair
            counts[slices[group[other]], slices[group[one]]] = pair.T
        for one, column in enumerate(group):
            counts[slices[column], slices[column]] = np.diag(_kept(histogram, (one,)))
    return counts


def host_correlation(values: np.ndarray) -> np.ndarray:
    """`fidelity.correlation`, for columns of any mean and spread.

    Args:
      values: float64 [n, d]; NaN is missing. Best if a column lies together in memory.

    Returns:
      float64 [d, d] in [-1, 1]; NaN for a pair in which a column is constant (or has fewer than two rows).
    """
    centre, scale = np.array([_centre_and_scale(column) for column in values.T]).reshape(-1, 2, 1).swapaxes(0, 1)
    sums = np.zeros((4, len(centre), len(centre)))
    for start in range(0, len(values), _BLOCK_ROWS):
        block = values[start : start + _BLOCK_ROWS].T
        is_missing = np.isnan(block)
        standard = np.where(is_missing, 0.0, (block - centre) / scale)
        present = 1.0 - is_missing
        sums += present @ present.T, standard @ present.T, np.square(standard) @ present.T, standard @ standard.T
    num_rows = np.maximum(sums[0], 1.0)
    mean, square, product = sums[1:] / num_rows  # [i, j]: of column i over the rows where j is present too
    variance = square - np.square(mean)
    defined = (variance > MIN_VARIANCE) & (variance.T > MIN_VARIANCE)
    stddevs = np.sqrt(np.where(defined, variance * variance.T, 1.0))
    return np.where(defined, np.clip((product - mean * mean.T) / stddevs, -1.0, 1.0), np.nan)


def _centre_and_scale(column):
    """Mean and standard deviation of the values present; the value and 1 of a constant; (0, 1) without any."""
    is_missing = np.isnan(column)
    present = column[~is_missing] if is_missing.any() else column
    if not len(present):
        return 0.0, 1.0
    lowest = present.min()
    return (lowest, 1.0) if lowest == present.max() else (present.mean(), present.std() or 1.0)


def covering_groups(num_codes: Sequence[int], max_cells: int = _MAX_CELLS) -> list[tuple[int, ...]]:
    """Groups of columns such that every pair is in one, greedily few; more than two only within `max_cells` cells."""
    uncovered = set(itertools.combinations(range(len(num_codes)), 2))
    groups = [] if len(num_codes) > 1 else [tuple(range(len(num_codes)))]
    for pair in itertools.combinations(range(len(num_codes)), 2):
        if pair not in uncovered:
            continue
        group = pair
        while True:
            cells = np.prod([num_codes[i] for i in group], dtype=np.int64)
            gains = {
                other: sum(tuple(sorted((i, other))) in uncovered for i in group)
                for other in range(len(num_codes))
                if other not in group and cells * num_codes[other] <= max_cells
            }
            best = max(gains, key=gains.__getitem__, default=None)
            if best is None or gains[best] < 2:  # one pair more is worth no pass over larger histograms
                break
            group = tuple(sorted((*group, best)))
        groups.append(group)
        uncovered -= set(itertools.combinations(group, 2))
    return groups


def _histogram(columns, sizes):
    """Joint histogram, int64 of shape `sizes`, in blocks of rows that stay in the cache."""
    num_cells = int(np.prod(sizes))
    total = np.zeros(num_cells, np.int64)
    for start in range(0, len(columns[0]), _BLOCK_ROWS):
        blocks = [column[start : start + _BLOCK_ROWS] for column in columns]
        cells = functools.reduce(
            lambda cell, place: cell * sizes[place] + blocks[place], range(1, len(sizes)), blocks[0]
        )
        total += np.bincount(cells, minlength=num_cells)
    return total.reshape(sizes)


def _kept(histogram, axes):
    """The marginal histogram over the named axes, in their order."""
    return histogram.sum(axis=tuple(axis for axis in range(histogram.ndim) if axis not in axes))
