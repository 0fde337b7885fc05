"""Feature matrices for downstream models: one-hot categories, z-scored numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from privsyn_jax.evaluation.encode import Encoded, Levels

_MIN_STDDEV = 1e-9  # of a column scaled by its bounds: below it the column is constant


class Standardisation(NamedTuple):
    """Mean and standard deviation [D] of the scaled numbers of a training table; 0 and 1 where undefined."""

    mean: np.ndarray
    stddev: np.ndarray


def standardisation(table: Encoded) -> Standardisation:
    """Statistics of the table that a model is trained on, over the values present."""
    is_present = ~np.isnan(table.scaled)
    count = np.maximum(is_present.sum(axis=0), 1)
    mean = np.where(is_present, table.scaled, 0.0).sum(axis=0) / count
    deviation = np.where(is_present, table.scaled - mean[None, :], 0.0)
    stddev = np.sqrt(np.square(deviation).sum(axis=0) / count)
    return Standardisation(mean, np.where(stddev > _MIN_STDDEV, stddev, 1.0))


def num_features(all_levels: Sequence[Levels], *, exclude: str) -> int:
    """Columns of `feature_matrix`."""
    kept = [levels for levels in all_levels if levels.column.name != exclude]
    return sum(1 + int(levels.occurs[-1]) if levels.is_numeric else int(levels.occurs.sum()) for levels in kept)


def feature_matrix(
    all_levels: Sequence[Levels], table: Encoded, statistics: Standardisation, *, exclude: str
) -> np.ndarray:
    """One row of features per record.

    A numeric column is one z-score, a missing value replaced by the mean, and an indicator of missingness
    if any table misses a value; a categorical one is a one-hot over the codes that occur in any table
    (missing and unknown included). A level that occurs in no table would be a constant zero.

    Args:
      all_levels: one per column of `table`.
      table: n encoded rows.
      statistics: of the training table, synthetic or real.
      exclude: name of the target column.

    Returns:
      float32 [n, num_features]; num_features depends on all_levels only.
    """
    blocks = [np.zeros((len(table.codes), 0), np.float32)]
    for i, levels in enumerate(all_levels):
        if levels.column.name == exclude:
            continue
        codes = table.codes[:, i : i + 1]
        if levels.is_numeric:
            centred = np.nan_to_num(table.scaled[:, i : i + 1] - statistics.mean[i], nan=0.0)
            blocks.append(centred / statistics.stddev[i])
            if levels.occurs[-1]:
                blocks.append(codes == levels.num_codes - 1)
        else:
            blocks.append(codes == np.flatnonzero(levels.occurs)[None, :])
    return np.concatenate([block.astype(np.float32) for block in blocks], axis=1)
