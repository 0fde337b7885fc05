"""How far histograms and correlations of a synthetic table are from real ones; jitted, lower is better for all."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from privsyn_jax.evaluation.sums import CHUNK_ROWS, row_product

KL_SMOOTHING = 0.5  # added to the count of every level that occurs in either table (Jeffreys' prior)
MIN_VARIANCE = 1e-6  # of a column standardised over all its rows: below it a pair's subset is constant


@jax.jit
def total_variation(real_counts, synthetic_counts):
    """Half the L1 distance between two histograms: the largest difference in probability of any event.

    Args:
      real_counts: [..., L] number of records per level.
      synthetic_counts: [..., L], the same levels.

    Returns:
      [...] in [0, 1]; 0 for proportional histograms.
    """
    real = real_counts / jnp.sum(real_counts, axis=-1, keepdims=True)
    synthetic = synthetic_counts / jnp.sum(synthetic_counts, axis=-1, keepdims=True)
    return 0.5 * jnp.sum(jnp.abs(real - synthetic), axis=-1)


@jax.jit
def kl_divergence(real_counts, synthetic_counts):
    """Kullback-Leibler divergence KL(real || synthetic) of two smoothed histograms; swap the arguments for the reverse.

    KL_SMOOTHING is added to every level that occurs in either table, so the result is finite.

    Args:
      real_counts: [..., L] number of records per level.
      synthetic_counts: [..., L], the same levels.

    Returns:
      [...] >= 0 in nats.
    """
    occurs = (real_counts + synthetic_counts) > 0

    def smoothed(counts):
        raised = jnp.where(occurs, counts + KL_SMOOTHING, 0.0)
        return raised / jnp.sum(raised, axis=-1, keepdims=True)

    real, synthetic = smoothed(real_counts), smoothed(synthetic_counts)
    log_ratio = jnp.log(jnp.where(occurs, real, 1.0)) - jnp.log(jnp.where(occurs, synthetic, 1.0))
    return jnp.maximum(jnp.sum(real * log_ratio, axis=-1), 0.0)


@functools.partial(jax.jit, static_argnames="num_codes")
def pair_counts(codes, num_codes):
    """How often each pair of (column, code) cells occurs together: all 2-way histograms at once.

    One matrix product of one-hots, S = sum(num_codes) cells, in chunks of rows.

    Args:
      codes: int32 [n, D], column d in 0..num_codes[d]-1.
      num_codes: tuple of D sizes (static: new sizes recompile).

    Returns:
      int32 [S, S], exact; the diagonal holds the 1-way histograms.
    """
    cell_column, cell_code = pair_cells(num_codes)
    num_rows = codes.shape[0]
    padding = -num_rows % CHUNK_ROWS
    padded = jnp.pad(codes, ((0, padding), (0, 0)), constant_values=-1)  # -1 is in no cell

    def add_chunk(total, chunk):
        one_hot = (chunk[:, cell_column] == cell_code[None, :]).astype(jnp.float32)
        return total + (one_hot.T @ one_hot).astype(jnp.int32), None

    zeros = jnp.zeros((len(cell_code), len(cell_code)), jnp.int32)
    return jax.lax.scan(add_chunk, zeros, padded.reshape(-1, CHUNK_ROWS, codes.shape[1]))[0]


@functools.partial(jax.jit, static_argnames="num_codes")
def pairwise_total_variation(real_pairs, synthetic_pairs, num_codes):
    """Total variation between all 2-way histograms of two tables.

    Args:
      real_pairs: int [S, S] from `pair_counts`.
      synthetic_pairs: int [S, S], with the same num_codes.
      num_codes: tuple of D sizes (static).

    Returns:
      float [D, D] in [0, 1], symmetric; the diagonal is the 1-way total variation.
    """
    cell_column, _ = pair_cells(num_codes)
    cells_of = jax.nn.one_hot(cell_column, len(num_codes))  # [S, D]

    def probabilities(pairs):
        num_rows = jnp.sum(jnp.diagonal(pairs)[: num_codes[0]])
        return pairs / num_rows

    difference = jnp.abs(probabilities(real_pairs) - probabilities(synthetic_pairs))
    exact = jax.lax.Precision.HIGHEST  # no half-precision products on accelerators
    return 0.5 * jnp.matmul(jnp.matmul(cells_of.T, difference, precision=exact), cells_of, precision=exact)


@jax.jit
def correlation(values):
    """Pearson correlation of all pairs of columns, each over the rows where both are present.

    Args:
      values: float [n, d]; NaN is missing. Centre columns of large mean and small spread first, in double precision.

    Returns:
      float [d, d] in [-1, 1]; NaN for a pair in which a column is constant (or has fewer than two rows).
    """
    is_present = ~jnp.isnan(values)
    spread = jnp.nanmax(values, axis=0, keepdims=True) - jnp.nanmin(values, axis=0, keepdims=True)
    centred = jnp.where(is_present & (spread > 0), values - jnp.nanmean(values, axis=0, keepdims=True), 0.0)
    scale = jnp.sqrt(jnp.mean(jnp.square(centred), axis=0, keepdims=True))
    standard = centred / jnp.where(scale > 0, scale, 1.0)
    present = is_present.astype(standard.dtype)
    num_rows = row_product(present, present)
    mean = row_product(standard, present) / num_rows  # [i, j]: of column i over the rows where j is present too
    variance = row_product(jnp.square(standard), present) / num_rows - jnp.square(mean)
    covariance = row_product(standard, standard) / num_rows - mean * mean.T
    defined = (variance > MIN_VARIANCE) & (variance.T > MIN_VARIANCE)
    product = jnp.where(defined, variance * variance.T, 1.0)
    return jnp.where(defined, jnp.clip(covariance / jnp.sqrt(product), -1.0, 1.0), jnp.nan)


@jax.jit
def correlation_difference(real_correlation, synthetic_correlation):
    """Mean absolute difference of two correlation matrices over their pairs of different columns.

    Args:
      real_correlation: [d, d] from `correlation`.
      synthetic_correlation: [d, d] of the same columns.

    Returns:
      Scalar in [0, 2] over the pairs defined in both; NaN if there is none.
    """
    difference = jnp.abs(real_correlation - synthetic_correlation)
    counted = ~jnp.isnan(difference) & ~jnp.eye(len(difference), dtype=bool)
    return jnp.sum(jnp.where(counted, difference, 0.0)) / jnp.sum(counted)


def pair_cells(num_codes):
    """Column and code of each of the S = sum(num_codes) cells, both int32 [S]."""
    sizes = np.asarray(num_codes)
    column = np.repeat(np.arange(len(sizes)), sizes)
    code = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return column.astype(np.int32), code.astype(np.int32)
