"""Features of whole synthetic sets, for an attack that asks whether a record was in the training set of a generator.

What they are made with is the adversary's own: the schema and auxiliary records.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from privsyn_jax.evaluation.encode import Levels, encode_table, make_levels
from privsyn_jax.types import Schema, UserError

GENERAL = ("naive", "histogram", "correlation")  # of the set alone; "query" also depends on a target
_ROWS_AT_ONCE = 256  # of a synthetic set, compared with all targets


class SetFeatures(NamedTuple):
    """Of S synthetic sets and T targets.

    Attributes:
      general: name in GENERAL -> float32 [S, F].
      queries: float32 [S, T, Q], the share of rows that agree with the target in the columns of each query.
    """

    general: dict[str, np.ndarray]
    queries: np.ndarray


def set_levels(schema: Schema, auxiliary: pd.DataFrame) -> list[Levels]:
    """Codes of the columns, by quantiles and categories of the auxiliary records.

    Raises:
      UserError: the auxiliary records lack a column.
    """
    require_columns(schema, auxiliary, "the auxiliary records")
    return [make_levels(column, [pd.Series(auxiliary[column.name])]) for column in schema.modelled]


def require_columns(schema: Schema, frame: pd.DataFrame, what: str) -> None:
    """Raises UserError, naming the first modelled column that the table lacks."""
    for column in schema.modelled:
        if column.name not in frame.columns:
            raise UserError(f"{what} lack the column {column.name!r} of the schema: add it")


def draw_queries(num_columns: int, num_queries: int, rng: np.random.Generator) -> np.ndarray:
    """Sets of columns, bool [Q, D]: the first all columns, the rest random, of random size.

    Agreement in all columns is the target's own cell.
    """
    queries = np.zeros((num_queries, num_columns), bool)
    queries[0] = True
    for query in queries[1:]:
        query[rng.choice(num_columns, size=rng.integers(1, num_columns + 1), replace=False)] = True
    return queries


def set_features(
    schema: Schema, levels: Sequence[Levels], sets: Sequence[pd.DataFrame], targets: pd.DataFrame, queries: np.ndarray
) -> SetFeatures:
    """Features of synthetic sets, all with as many rows as the smallest one.

    "naive": mean and standard deviation of every column, numbers scaled by their public bounds, categories by their
    codes; "histogram": the shares of all codes; "correlation": Pearson's, of all pairs of columns; queries: see
    `SetFeatures`. A missing or unknown number counts as the middle of its range, and has a code of its own.

    Args:
      levels: see `set_levels`.
      sets: S synthetic tables, each with at least one row.
      targets: T records.
      queries: bool [Q, D], see `draw_queries`.

    Raises:
      UserError: a set has no rows, or lacks a column.

    Source: Stadler et al. 2022, "Synthetic Data -- Anonymisation Groundhog Day", section 4 (naive, histogram,
    correlation); Houssiau et al. 2022, "TAPAS: a Toolbox for Adversarial Privacy Auditing of Synthetic Data" (queries).
    """
    for frame in sets:
        require_columns(schema, frame, "the synthetic records")
        if not len(frame):
            raise UserError("a synthetic set has no rows: let the generator give at least one")
    num_rows = min(len(frame) for frame in sets)
    num_codes = max(one.num_codes for one in levels)
    encoded = [encode_table(levels, frame.iloc[:num_rows]) for frame in sets]
    codes = np.stack([one.codes for one in encoded])
    scaled = np.stack([np.where(np.isnan(one.scaled), 0.5, np.clip(one.scaled, 0.0, 1.0)) for one in encoded])
    is_numeric = np.array([one.is_numeric for one in levels])
    values = np.where(is_numeric, scaled, codes / num_codes).astype(np.float32)
    target_codes = encode_table(levels, targets).codes
    naive, histogram, correlation = jax.device_get(_general(codes, values, num_codes))
    occurs = np.concatenate([np.pad(one.occurs, (0, num_codes - one.num_codes)) for one in levels])
    general = {"naive": naive, "histogram": histogram[:, occurs], "correlation": correlation}
    near = jax.device_get(_queries(codes, target_codes, queries))
    return SetFeatures(general, near)


@functools.partial(jax.jit, static_argnames="num_codes")
def _general(codes: jax.Array, values: jax.Array, num_codes: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Naive [S, 2 D], histogram [S, D num_codes] and correlation [S, D (D - 1) / 2] of codes and values [S, m, D]."""
    num_rows, num_columns = codes.shape[1:]
    rows, columns = np.triu_indices(num_columns, 1)

    def one(arguments):
        codes, values = arguments
        mean, stddev = values.mean(axis=0), values.std(axis=0)
        cells = (codes + num_codes * jnp.arange(num_columns)[None]).ravel()
        histogram = jnp.zeros(num_columns * num_codes).at[cells].add(1.0) / num_rows
        centred = (values - mean[None]) / jnp.maximum(stddev, 1e-6)[None]
        correlation = jnp.matmul(centred.T, centred, precision="highest") / num_rows
        return jnp.concatenate([mean, stddev]), histogram, correlation[rows, columns]

    return jax.lax.map(one, (codes, values))


@jax.jit
def _queries(codes: jax.Array, target_codes: jax.Array, queries: jax.Array) -> jax.Array:
    """[S, T, Q] of codes [S, m, D] and [T, D] and queries [Q, D]."""
    num_sets, num_rows, num_columns = codes.shape
    wanted = queries.sum(axis=1).astype(jnp.float32)
    fill = jnp.full((num_sets, -num_rows % _ROWS_AT_ONCE, num_columns), -1, codes.dtype)  # agrees with no target
    blocks = jnp.concatenate([codes, fill], axis=1).reshape(num_sets, -1, _ROWS_AT_ONCE, num_columns)

    def count(block):
        agrees = (block[:, None] == target_codes[None]).astype(jnp.float32)
        return (agrees @ queries.T.astype(jnp.float32) == wanted[None, None]).sum(axis=0)

    return jax.lax.map(lambda one: jax.lax.map(count, one).sum(axis=0) / num_rows, blocks)
