"""Distances between rows of mixed tables and kernel densities of them: jitted, in blocks of queries."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from privsyn_jax.evaluation.encode import Encoded, Levels

_BLOCK = 64  # queries at a time: a block of distances to 32,000 candidates is 8 MB
_MISSING = 2.0  # as a scaled number: at least 1 from every number, 0 from another missing one


class Mixed(NamedTuple):
    """Rows of a table for the mixed distance.

    Attributes:
      numbers: float32 [n, a], each column from 0 to 1; missing is 2.
      codes: int32 [n, b], categories.
    """

    numbers: np.ndarray
    codes: np.ndarray


class Nearest(NamedTuple):
    """The k nearest candidates of every query, nearest first: index int [n, k] and distance float32 [n, k]."""

    index: np.ndarray
    distance: np.ndarray


def mixed_rows(all_levels: Sequence[Levels], table: Encoded, columns: Sequence[int] | None = None) -> Mixed:
    """Some columns (all by default) of an encoded table; numbers outside the bounds are moved to them."""
    chosen = range(len(all_levels)) if columns is None else columns
    numeric = [i for i in chosen if all_levels[i].is_numeric]
    scaled = np.nan_to_num(np.clip(table.scaled[:, numeric], 0, 1), nan=_MISSING)
    return Mixed(scaled.astype(np.float32), table.codes[:, [i for i in chosen if not all_levels[i].is_numeric]])


def ranked_rows(all_levels: Sequence[Levels], tables: Sequence[Encoded], known: Sequence[Encoded]) -> list[Mixed]:
    """The tables with every number replaced by its share of smaller ones (ties: half) among the known rows.

    A skewed column (capital-gain) then tells records apart as well as an even one.
    """
    found = [mixed_rows(all_levels, table) for table in tables]
    numeric = [i for i, levels in enumerate(all_levels) if levels.is_numeric]
    for place, i in enumerate(numeric):
        values = np.concatenate([table.scaled[:, i] for table in known])
        values = np.sort(values[~np.isnan(values)])
        for rows, table in zip(found, tables, strict=True):
            column = table.scaled[:, i]
            ends = [np.searchsorted(values, column, side=side) for side in ("left", "right")]
            ranks = (ends[0] + ends[1]) / (2 * max(1, len(values)))
            rows.numbers[:, place] = np.where(np.isnan(column), _MISSING, ranks)
    return found


def nearest_rows(queries: Mixed, candidates: Mixed, k: int = 1, *, own: np.ndarray | None = None) -> Nearest:
    """The nearest candidates by the mixed distance.

    The distance is the mean over columns of the difference of two scaled numbers, of 0 or 1 for equal or different
    categories, and of 1 for a number and a missing one.

    Args:
      queries: n rows.
      candidates: m rows, m at least k, and k + 1 with `own`.
      k: how many to find.
      own: int [n], for each query the candidate that it is itself and that is passed over; or None.

    Returns:
      Distances in [0, 1]; of equally near candidates the first.

    Source: Gower 1971, "A General Coefficient of Similarity and Some of Its Properties"; missing values differ.
    """
    num_columns = max(1, queries.numbers.shape[1] + queries.codes.shape[1])
    distance, index = _in_blocks(functools.partial(_nearest, k=k), queries, candidates, own)
    return Nearest(index, distance / num_columns)


def log_density(queries: Mixed, candidates: Mixed, bandwidth: float, *, own: np.ndarray | None = None) -> np.ndarray:
    """Logarithm of the mean of exp(-distance / bandwidth) over the candidates: a density up to a constant.

    The distance is the sum over columns, so each term is a product of one Laplace kernel for every number and of one
    kernel of two values for every category.

    Args:
      queries: n rows.
      candidates: m rows, m at least 1, and 2 with `own`.
      bandwidth: of one column, in units of the scaled numbers.
      own: int [n], see `nearest_rows`.

    Returns:
      float64 [n].

    Source: Aitchison and Aitken 1976, "Multivariate Binary Discrimination by the Kernel Method".
    """
    sums = _in_blocks(functools.partial(_log_sum, bandwidth=jnp.float32(bandwidth)), queries, candidates, own)
    return sums.astype(np.float64) - np.log(len(candidates.codes) - (own is not None))


def _in_blocks(function, queries: Mixed, candidates: Mixed, own: np.ndarray | None):
    """A jitted function of (queries, candidates, own), a block of queries at a time; the last block is padded."""
    num = len(queries.codes)
    blocks = np.minimum(np.arange(-(-num // _BLOCK) * _BLOCK), num - 1).reshape(-1, _BLOCK)
    skipped = np.full(num, -1) if own is None else own
    moved = jax.tree.map(jnp.asarray, candidates)
    found = [function(Mixed(*(part[block] for part in queries)), moved, skipped[block]) for block in blocks]
    return jax.tree.map(lambda *parts: np.concatenate([np.asarray(part) for part in parts])[:num], *found)


def _distances(queries: Mixed, candidates: Mixed, own):
    """Sums over columns [n, m], infinite to oneself; unrolled over columns, which fuses into one pass."""
    places = jnp.arange(candidates.codes.shape[0])
    total = jnp.where(own[:, None] == places[None, :], jnp.inf, jnp.float32(0))
    for i in range(queries.numbers.shape[1]):
        difference = jnp.abs(queries.numbers[:, i, None] - candidates.numbers[None, :, i])
        total += jnp.minimum(difference, 1.0)
    for i in range(queries.codes.shape[1]):
        total += (queries.codes[:, i, None] != candidates.codes[None, :, i]).astype(jnp.float32)
    return total


@functools.partial(jax.jit, static_argnames="k")
def _nearest(queries: Mixed, candidates: Mixed, own, *, k: int):
    negative, index = jax.lax.top_k(-_distances(queries, candidates, own), k)
    return -negative, index


@jax.jit
def _log_sum(queries: Mixed, candidates: Mixed, own, *, bandwidth):
    return jax.nn.logsumexp(-_distances(queries, candidates, own) / bandwidth, axis=1)
