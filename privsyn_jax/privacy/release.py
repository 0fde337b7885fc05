"""Private statistics: each function returns a noisy value and the event that pays for it.

Neighbouring relation throughout: add or remove one record; of the counts of a table, also one unit with all of its
rows, at most `rows_per_unit` of them: whoever passes the codes has seen to that. `noise_multiplier` is noise standard
deviation divided by L2 sensitivity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import norm

from privsyn_jax.privacy.noise import HostNoise

Event = dict[str, Any]

_NORM = 1.0 - 1e-6  # norms and products are rounded to float32: the true norm stays below 1
_EMBEDDED_AT_ONCE = 512  # records


def histograms(
    codes: np.ndarray,
    cardinalities: Sequence[int],
    *,
    noise_multiplier: float,
    noise: HostNoise,
    rows_per_unit: int = 1,
) -> tuple[list[np.ndarray], float, Event]:
    """Noisy counts of every column at once.

    L2 sensitivity: rows_per_unit * sqrt(number of columns); one row adds one to one cell of each histogram, and the
    rows of one unit may all be alike.

    Args:
      codes: int [n, d], column j in [0, cardinalities[j]).
      cardinalities: public sizes of the d domains.
      rows_per_unit: the most rows that are added or removed together.

    Returns:
      d float64 arrays [cardinalities[j]], the noise stddev of each cell, the event.
    """
    counts = [np.bincount(codes[:, j], minlength=size) for j, size in enumerate(cardinalities)]
    stddev = noise_multiplier * rows_per_unit * math.sqrt(len(counts))
    noisy = [count + noise.normal(count.shape, stddev=stddev) for count in counts]
    return noisy, stddev, _gaussian(noise_multiplier)


def contingency_tables(
    codes: np.ndarray,
    cardinalities: Sequence[int],
    groups: Sequence[tuple[int, ...]],
    *,
    noise_multiplier: float,
    noise: HostNoise,
    rows_per_unit: int = 1,
    weights: Sequence[float] | None = None,
) -> tuple[dict[tuple[int, ...], np.ndarray], float, Event]:
    """Noisy contingency tables of the given groups of columns.

    One row adds one to one cell of each table. Multiplied by their weights w, the tables together have L2 sensitivity
    rows_per_unit * sqrt(sum w^2) and all get the same noise; each is then divided by its own weight.

    Args:
      codes: int [n, d].
      weights: how precisely each group is measured, relative to the others; all positive. Default: all alike.

    Returns:
      {columns: float64, one axis for each column}, the noise stddev of a cell of weight 1 (of another, that divided by
      the weight), the event.
    """
    scales = [1.0] * len(groups) if weights is None else list(weights)
    if len(scales) != len(groups) or not all(0 < scale < math.inf for scale in scales):
        raise ValueError(f"weights {scales} must be positive, one for each of {len(groups)} groups of columns")
    stddev = noise_multiplier * rows_per_unit * math.hypot(*scales)
    noisy = {}
    for columns, weight in zip(groups, scales, strict=True):
        counts = contingency(codes, cardinalities, columns)
        noisy[columns] = counts + noise.normal(counts.shape, stddev=stddev / weight)
    return noisy, stddev, _gaussian(noise_multiplier)


def exponential_choice(scores: Sequence[float], *, sensitivity: float, epsilon: float, noise: HostNoise) -> int:
    """Index of one score, drawn with probability proportional to exp(epsilon score / (2 sensitivity)): epsilon-DP.

    Args:
      scores: private; each moves by at most `sensitivity` between neighbours.
      epsilon: infinite for the largest score.

    Source: McSherry and Talwar 2007, "Mechanism Design via Differential Privacy".
    """
    weights = np.asarray(scores, np.float64)
    if math.isinf(epsilon):
        return int(np.argmax(weights))
    return int(np.argmax(epsilon / (2 * sensitivity) * weights + noise.gumbel(weights.shape)))


def dependence_scores(
    codes: np.ndarray,
    one_way: Sequence[np.ndarray],
    *,
    noise_multiplier: float,
    noise: HostNoise,
    rows_per_unit: int = 1,
) -> tuple[dict[tuple[int, int], float], float, Event]:
    """Noisy L1 distance, in rows, of every pair's contingency table from independence.

    Independence is the outer product of *released* one-way counts, which are fixed when a row is
    added; the row changes one cell of a table by one, so each score by at most one.
    L2 sensitivity: rows_per_unit * sqrt(number of pairs).

    Args:
      codes: int [n, d].
      one_way: d released, non-negative arrays of counts, all with one total.

    Returns:
      {(i, j): score} for all i < j, the noise stddev of each score, the event.
    """
    sizes = [len(counts) for counts in one_way]
    pairs = [(i, j) for i in range(len(sizes)) for j in range(i + 1, len(sizes))]
    stddev = noise_multiplier * rows_per_unit * math.sqrt(len(pairs))
    distances = np.zeros(len(pairs))
    for number, (i, j) in enumerate(pairs):
        independent = np.outer(one_way[i], one_way[j]) / one_way[i].sum()
        distances[number] = np.abs(contingency(codes, sizes, (i, j)) - independent).sum()
    noisy = distances + noise.normal(distances.shape, stddev=stddev)
    scores = dict(zip(pairs, noisy.tolist(), strict=True))
    return scores, stddev, _gaussian(noise_multiplier)


def embedding_sum(
    embed: Callable[[Any], tuple[jax.Array, jax.Array]],
    records: Any,
    *,
    num_groups: int,
    noise_multiplier: float,
    noise: HostNoise,
) -> tuple[np.ndarray, float, Event]:
    """Noisy sums, over the records of every group, of a vector made of each: the part of it of L2 norm at most 1.

    L2 sensitivity: 1; one record adds to the sum of one group. A record whose vector is not finite, or whose group
    does not exist, counts as zero. Sums over blocks of records are in float32, and added in float64.

    Args:
      embed: record -> (group, float32 [m]), jittable.
      records: pytree of arrays [n, ...].

    Returns:
      float64 [num_groups, m], the noise stddev of each entry, the event.
    """

    @jax.jit
    def block_sum(block, is_padding):
        groups, vectors = jax.vmap(embed)(block)
        norms = jnp.linalg.norm(vectors, axis=1)
        scale = jnp.where(is_padding | ~jnp.isfinite(norms), 0.0, _NORM / jnp.maximum(norms, _NORM))
        clean = jnp.where((scale > 0)[:, None], vectors, 0.0)
        belongs = jax.nn.one_hot(groups, num_groups) * scale[:, None]
        return jnp.dot(belongs.T, clean, precision=jax.lax.Precision.HIGHEST)

    one = jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape[1:], array.dtype), records)
    total = np.zeros((num_groups, *jax.eval_shape(embed, one)[1].shape))
    num_records = len(jax.tree.leaves(records)[0])
    for start in range(0, num_records, _EMBEDDED_AT_ONCE):
        rows = np.arange(start, start + _EMBEDDED_AT_ONCE)
        block = jax.tree.map(lambda array, rows=rows: array[np.minimum(rows, num_records - 1)], records)
        total += np.asarray(block_sum(block, rows >= num_records), np.float64)
    noisy = total + noise.normal(total.shape, stddev=noise_multiplier)
    return noisy, noise_multiplier, _gaussian(noise_multiplier)


class Counts(NamedTuple):
    """Sparse vectors, one for each record: entry i adds value[i] to coordinate index[i] of the vector of record[i].

    Attributes:
      record: int [m], from 0 to below the number of records.
      index: int64 [m].
      value: float64 [m].
    """

    record: np.ndarray
    index: np.ndarray
    value: np.ndarray


def sparse_sum(
    counts: Counts, *, size: int, noise_multiplier: float, noise: HostNoise
) -> tuple[np.ndarray, float, Event]:
    """Noisy sum of a sparse vector made of each record: the part of it of L2 norm at most 1.

    L2 sensitivity: 1. Entries of one record at one coordinate are added before its norm is taken. A record with a value
    that is not finite counts as zero.

    Args:
      counts: what records add.
      size: of the vectors; every index is below it.

    Returns:
      float64 [size], the noise stddev of each entry, the event.
    """
    total = clipped_sparse_sum(counts, size)
    total += noise.normal((size,), stddev=noise_multiplier)
    return total, noise_multiplier, _gaussian(noise_multiplier)


def clipped_sparse_sum(counts: Counts, size: int) -> np.ndarray:
    """The sum before noise, float64 [size]: private until noise is added."""
    if not len(counts.record):
        return np.zeros(size)
    order = np.lexsort((counts.index, counts.record))
    record, index, value = (np.asarray(array)[order] for array in counts)
    starts = np.flatnonzero(np.concatenate([[True], (np.diff(record) != 0) | (np.diff(index) != 0)]))
    record, index, value = record[starts], index[starts], np.add.reduceat(value.astype(np.float64), starts)
    norms = np.sqrt(np.bincount(record, np.square(value)))
    with np.errstate(invalid="ignore"):
        scale = np.where(np.isfinite(norms), _NORM / np.maximum(norms, _NORM), 0.0)
    clean = np.where(np.isfinite(norms)[record], value, 0.0)
    return np.bincount(index, clean * scale[record], minlength=size)


def categories(
    columns: Sequence[Sequence[Hashable]],
    *,
    noise_multiplier: float,
    delta: float,
    noise: HostNoise,
    values_per_unit: int = 1,
) -> tuple[list[list[Hashable]], Event, Event]:
    """The values that columns hold, for columns whose categories are not public.

    Noisy counts of the values present, in units that hold them; those above a threshold are released. A value that
    only the added unit holds has count one; there are at most values_per_unit of them in a column, each released with
    probability at most delta / (number of columns * values_per_unit); all else is one Gaussian release with L2
    sensitivity sqrt(number of columns * values_per_unit).

    Args:
      columns: for each column, its values (missing ones left out), each once for every unit that holds it.
      delta: probability, over all columns, that a value held by one unit comes out.
      values_per_unit: distinct values that a unit adds to a column, at most.

    Returns:
      for each column the released values, sorted by their text; a Gaussian event; an approximate event.

    Source: Wilkins et al. 2024, "Exact Privacy Analysis of the Gaussian Sparse Histogram Mechanism"
    (here with the simpler bound that adds the two deltas).
    """
    most = len(columns) * values_per_unit  # counts that a unit moves, by one each
    stddev = noise_multiplier * math.sqrt(most)
    threshold = 1.0 + stddev * norm.isf(delta / most)
    released = []
    for values in columns:
        present: dict[Hashable, int] = {}
        for value in values:
            present[value] = present.get(value, 0) + 1
        draws = noise.normal((len(present),), stddev=stddev)
        kept = [value for (value, count), draw in zip(present.items(), draws, strict=True) if count + draw > threshold]
        released.append(sorted(kept, key=lambda value: (str(value), type(value).__name__)))  # not by row order
    return released, _gaussian(noise_multiplier), {"kind": "approximate", "epsilon": 0.0, "delta": delta, "count": 1}


def project_to_counts(noisy: np.ndarray, total: float) -> np.ndarray:
    """Nearest (L2) non-negative array with the given sum: post-processing of a noisy histogram.

    Source: Duchi et al. 2008, "Efficient Projections onto the l1-Ball", Figure 1.
    """
    flat = np.sort(noisy.ravel())[::-1]
    excess = (np.cumsum(flat) - total) / np.arange(1, flat.size + 1)
    threshold = excess[np.nonzero(flat > excess)[0][-1]]
    return np.maximum(noisy - threshold, 0.0)


def contingency(codes: np.ndarray, cardinalities: Sequence[int], columns: Sequence[int]) -> np.ndarray:
    """Exact counts of some columns of int [n, d] together, an axis for each: private until noise is added."""
    sizes = [cardinalities[j] for j in columns]
    cells = np.ravel_multi_index(tuple(codes[:, j] for j in columns), sizes)
    return np.bincount(cells, minlength=math.prod(sizes)).reshape(sizes)


def _gaussian(noise_multiplier: float) -> Event:
    return {"kind": "gaussian", "noise_multiplier": float(noise_multiplier), "count": 1}
