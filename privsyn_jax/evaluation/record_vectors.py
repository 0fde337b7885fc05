"""Records of mixed columns as vectors, for metrics that need distances between whole records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from privsyn_jax.evaluation.encode import Encoded, Levels


class RecordVectors(NamedTuple):
    """n records; the only thing that is not public about the encoding is an unknown bound or category.

    Two records are as far apart as: the difference of each number, scaled to [0, 1] by public bounds and cut off there;
    1 for each different category; 1 for each number that one of them misses (it then counts as the middle, 0.5).

    Attributes:
      numbers: float [n, p].
      flags: float [n, q] of 0 and 1: a one-hot code per column of categories (unknown and missing are codes), and
        (present, missing) per number that any table misses.
    """

    numbers: jax.Array | np.ndarray
    flags: jax.Array | np.ndarray


def record_vectors(all_levels: Sequence[Levels], table: Encoded, rows: np.ndarray) -> RecordVectors:
    """The chosen rows of a table as float32 vectors.

    Args:
      all_levels: one per column of `table`; codes that occur in no table have no flag.
      table: encoded with all_levels.
      rows: int [n], which records.
    """
    numbers, flags = [np.zeros((len(rows), 0))], [np.zeros((len(rows), 0))]
    for i, levels in enumerate(all_levels):
        codes = table.codes[rows, i][:, None]
        if levels.is_numeric:
            numbers.append(np.nan_to_num(table.scaled[rows, i][:, None].clip(0.0, 1.0), nan=0.5))
            if levels.occurs[-1]:
                flags.append((codes == levels.num_codes - 1) == np.array([[False, True]]))
        else:
            flags.append(codes == np.flatnonzero(levels.occurs)[None, :])
    return RecordVectors(*(np.concatenate(blocks, axis=1).astype(np.float32) for blocks in (numbers, flags)))


def as_matrix(vectors: RecordVectors) -> jax.Array:
    """Vectors [n, p + q] whose Euclidean distance is that of the records: flags divided by the root of 2."""
    return jnp.concatenate([vectors.numbers, vectors.flags / np.float32(np.sqrt(2.0))], axis=1)


def squared_distances(one: RecordVectors, other: RecordVectors) -> jax.Array:
    """Squared distances [n, m] between two sets of records; exactly 0 between equal records."""
    num_flagged = jnp.sum(one.flags[0])  # one flag per column is set, in every record
    shared = jnp.matmul(one.flags, other.flags.T, precision=jax.lax.Precision.HIGHEST)
    total = num_flagged - shared  # whole numbers: no rounding
    for i in range(one.numbers.shape[1]):
        total = total + jnp.square(one.numbers[:, i][:, None] - other.numbers[:, i][None, :])
    return jax.lax.optimization_barrier(total)  # else every reader of it computes it anew
