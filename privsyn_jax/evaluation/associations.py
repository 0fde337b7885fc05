"""Associations of columns in one table, and 3-way histograms of two; jitted."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from privsyn_jax.evaluation.fidelity import pair_cells, total_variation
from privsyn_jax.evaluation.sums import CHUNK_ROWS, tree_sum

_EXACT = jax.lax.Precision.HIGHEST  # no half-precision products on accelerators


@functools.partial(jax.jit, static_argnames="num_codes")
def cramers_v(pairs, num_codes):
    """Cramér's V of all pairs of columns of codes, without bias correction.

    Args:
      pairs: int [S, S] from `fidelity.pair_counts`.
      num_codes: tuple of D sizes (static).

    Returns:
      float [D, D] in [0, 1], symmetric: 0 independent, 1 one determines the other. NaN where a column has fewer than
      two codes that occur.

    Source: Cramér 1946, "Mathematical Methods of Statistics".
    """
    cell_column, _ = pair_cells(num_codes)
    cells_of = jax.nn.one_hot(cell_column, len(num_codes))  # [S, D]
    single = jnp.diagonal(pairs)
    num_rows = jnp.sum(single[: num_codes[0]])
    joint, single = pairs / num_rows, single / num_rows
    independent = single[:, None] * single[None, :]
    # The squared difference, not its expansion: near independence that would cancel.
    terms = jnp.square(joint - independent) / jnp.where(independent > 0, independent, 1.0)
    phi_squared = jnp.matmul(jnp.matmul(cells_of.T, terms, precision=_EXACT), cells_of, precision=_EXACT)
    num_levels = jnp.matmul((single > 0).astype(joint.dtype), cells_of, precision=_EXACT)
    freedom = jnp.minimum(num_levels[:, None], num_levels[None, :]) - 1
    ratio = phi_squared / jnp.where(freedom > 0, freedom, 1.0)
    return jnp.where(freedom > 0, jnp.sqrt(jnp.clip(ratio, 0.0, 1.0)), jnp.nan)


@functools.partial(jax.jit, static_argnames="num_codes")
def correlation_ratio(codes, values, num_codes):
    """Correlation ratio (eta) of each number given each column of codes.

    The root of the share of a number's variance that lies between the groups, over the rows where it is present.

    Args:
      codes: int32 [n, c], column i in 0..num_codes[i]-1.
      values: float [n, d], better centred; NaN is missing.
      num_codes: tuple of c sizes (static).

    Returns:
      float [c, d] in [0, 1]: 0 for equal means, 1 for numbers constant within groups. NaN for a constant number.

    Source: Pearson 1905, "On the general theory of skew correlation and non-linear regression".
    """
    cell_column, cell_code = pair_cells(num_codes)
    is_present = ~jnp.isnan(values)
    spread = jnp.nanmax(values, axis=0, keepdims=True) - jnp.nanmin(values, axis=0, keepdims=True)
    varies = spread > 0
    centred = jnp.where(is_present & varies, values - jnp.nanmean(values, axis=0, keepdims=True), 0.0)
    centred = centred / jnp.where(varies, spread, 1.0)
    present = is_present.astype(centred.dtype)
    padding = -len(codes) % CHUNK_ROWS
    chunks = [
        jnp.pad(rows, ((0, padding), (0, 0)), constant_values=fill).reshape(-1, CHUNK_ROWS, rows.shape[1])
        for rows, fill in ((codes, -1), (jnp.concatenate([centred, present], axis=1), 0))
    ]

    def group_sums(chunk):
        one_hot = (chunk[0][:, cell_column] == cell_code[None, :]).astype(centred.dtype)
        return jnp.matmul(one_hot.T, chunk[1], precision=_EXACT)

    sums, counts = jnp.split(tree_sum(jax.lax.map(group_sums, tuple(chunks))), 2, axis=1)  # [S, d] each
    num_rows = tree_sum(present)[None, :]
    total_mean = tree_sum(centred)[None, :] / num_rows
    deviation = sums / jnp.where(counts > 0, counts, 1.0) - total_mean
    cells_of = jax.nn.one_hot(cell_column, len(num_codes))
    between = jnp.matmul(cells_of.T, counts * jnp.square(deviation), precision=_EXACT) / num_rows
    within_and_between = tree_sum(jnp.square(centred))[None, :] / num_rows - jnp.square(total_mean)
    ratio = between / jnp.where(varies, within_and_between, 1.0)
    return jnp.where(varies, jnp.sqrt(jnp.clip(ratio, 0.0, 1.0)), jnp.nan)


@functools.partial(jax.jit, static_argnames="num_cells")
def triple_total_variation(real_codes, synthetic_codes, sizes, triples, num_cells):
    """Total variation between the 3-way histograms of two tables, exactly, for each of T triples of columns.

    One triple at a time: memory is O(n + m + num_cells).

    Args:
      real_codes: int32 [D, n], a column per row, column d in 0..sizes[d]-1.
      synthetic_codes: int32 [D, m].
      sizes: int32 [D].
      triples: int32 [T, 3] columns.
      num_cells: at least the product of the sizes of every triple (static).

    Returns:
      float [T] in [0, 1]; 0 for proportional histograms. Two samples of one law differ too, by about the root of the
      number of cells over n: compare with real against real.
    """

    def of_triple(triple):
        def histogram(codes):
            first, second, third = (codes[triple[axis]] for axis in range(3))
            cell = (first * sizes[triple[1]] + second) * sizes[triple[2]] + third
            return jnp.zeros(num_cells, jnp.int32).at[cell].add(1)

        return total_variation(histogram(real_codes), histogram(synthetic_codes))

    return jax.lax.map(of_triple, triples)


def sample_triples(num_columns: int, max_triples: int, seed: int) -> np.ndarray:
    """Triples i < j < k of columns, int32 [T, 3]: all if there are at most max_triples, else that many at random."""
    every = np.array(list(itertools.combinations(range(num_columns), 3)), np.int32).reshape(-1, 3)
    if len(every) > max_triples:
        chosen = np.random.default_rng(seed).choice(len(every), max_triples, replace=False)
        every = every[np.sort(chosen)]
    return every
