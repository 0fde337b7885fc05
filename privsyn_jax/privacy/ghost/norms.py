"""Squared norms of sums of outer products, without forming them.

Everything here is for one example; callers vmap. All products are float32 at the highest precision: an
accelerator's default would round the norms, and with them the clip factors, past the bound.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from privsyn_jax.privacy.ghost.uses import HIGHEST

# Above this, |rows|^2 times an underflowing |cols|^2 could report a norm far too small; such an example counts as
# not finite. Activations of a network in working order are nowhere near.
_MAX_SQUARE = 1e24
# Unit roundoff of float32. The terms of a Gram norm may cancel, and what is left is no larger than their rounding.
# What rounding can take away is added back, so that cancellation never makes a norm too small: 16 roundoffs of every
# term (sums of 1,000 equal terms were seen to be off by 10), and one of the lengths that inner products are made of.
_ROUNDOFF = 2.0**-24
_TERM_ROUNDOFF = 16 * _ROUNDOFF


def single(rows: jax.Array, cols: jax.Array) -> jax.Array:
    """|rows (outer) cols|^2 for T = 1: rows [S, 1, K], cols [S, 1, P]. Source: Goodfellow 2015, arXiv:1510.01799."""
    left, right = _squares(rows), _squares(cols)
    return jnp.sum(jnp.where(jnp.maximum(left, right) < _MAX_SQUARE, left * right, jnp.inf))


def masked_single(rows: jax.Array, cols: jax.Array, mask: jax.Array, row_class, col_class) -> jax.Array:
    """|mask * (rows (outer) cols)|^2 for S = T = 1, with the mask given by its distinct rows and columns.

    Args:
      mask: [distinct rows, distinct columns]; row_class: int [K]; col_class: int [P].
    """
    num_rows, num_cols = mask.shape
    left = jnp.matmul(jnp.square(rows.reshape(-1)), jax.nn.one_hot(row_class, num_rows), precision=HIGHEST)
    right = jnp.matmul(jnp.square(cols.reshape(-1)), jax.nn.one_hot(col_class, num_cols), precision=HIGHEST)
    total = jnp.sum(left * jnp.matmul(jnp.square(mask), right, precision=HIGHEST))
    return jnp.where(jnp.maximum(left.sum(), right.sum()) < _MAX_SQUARE, total, jnp.inf)


def gram(pairs: list[tuple[jax.Array, jax.Array]]) -> jax.Array:
    """|sum over uses and t of rows_t (outer) cols_t|^2 = sum over t, u of <rows_t, rows_u> <cols_t, cols_u>.

    Args:
      pairs: (rows [S, T, K] or indices int [S, T], cols [S, T, P]) of every use of the parameter; the terms
        between different uses are part of the norm.

    Source: Li et al. 2022, "Large Language Models Can Be Strong Differentially Private Learners", section 4.
    """
    dense = [(rows, cols) for rows, cols in pairs if rows.ndim == 3]
    looked_up = [(index, cols) for index, cols in pairs if index.ndim == 2]
    terms, allowance = [], jnp.float32(0)
    if dense:
        rows, cols = _side_by_side(dense)
        row_gram, col_gram = _inner(rows, rows), _inner(cols, cols)
        terms.append(row_gram * col_gram)
        row_squares, col_squares = (jnp.diagonal(products, axis1=1, axis2=2) for products in (row_gram, col_gram))
        allowance += _ROUNDOFF * jnp.sum(jnp.square(jnp.sum(jnp.sqrt(row_squares * col_squares), axis=1)))
        underflows = jnp.maximum(row_squares.max(), col_squares.max()) >= _MAX_SQUARE
        allowance = jnp.where(underflows, jnp.inf, allowance)
    if looked_up:
        index, values = _side_by_side(looked_up)
        terms.append(jnp.where(index[:, :, None] == index[:, None, :], _inner(values, values), 0.0))
    if dense and looked_up:
        entries = jnp.take_along_axis(rows, index[:, None, :], axis=2)
        terms.append(2 * entries * _inner(cols, values))
    total = sum((jnp.sum(term) for term in terms), jnp.float32(0))
    allowance += _TERM_ROUNDOFF * sum((jnp.sum(jnp.abs(term)) for term in terms), jnp.float32(0))
    return jnp.maximum(total, 0.0) + allowance  # NaN stays NaN


def _side_by_side(pairs: list[tuple[jax.Array, jax.Array]]) -> tuple[jax.Array, jax.Array]:
    rows, cols = zip(*pairs, strict=True)
    return jnp.concatenate(rows, axis=1), jnp.concatenate(cols, axis=1).astype(jnp.float32)


def _inner(left: jax.Array, right: jax.Array) -> jax.Array:
    return jnp.einsum("stk,suk->stu", left.astype(jnp.float32), right.astype(jnp.float32), precision=HIGHEST)


def _squares(array: jax.Array) -> jax.Array:
    """Sums of squares of [S, 1, F], [S] or, if S = 1, a scalar: axes of length 1 would keep XLA from fusing."""
    array = array.astype(jnp.float32)
    return jnp.sum(jnp.square(array.reshape(-1) if len(array) == 1 else array[:, 0]), axis=-1)


def compressed_mask(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(distinct rows and columns only, class of every row, class of every column) of a matrix [K, P]."""
    _, first_row, row_class = np.unique(mask, axis=0, return_index=True, return_inverse=True)
    _, first_col, col_class = np.unique(mask, axis=1, return_index=True, return_inverse=True)
    return mask[np.ix_(first_row, first_col)], row_class.reshape(-1), col_class.reshape(-1)
