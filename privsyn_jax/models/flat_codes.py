"""Codes of all columns of a table on one flat axis: one-hot records, and what logits there say of each column."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class FlatCodes:
    """Where the codes of d columns lie on an axis of all S codes.

    Attributes:
      cardinalities: number of codes of each column.
    """

    cardinalities: tuple[int, ...]

    @property
    def num_columns(self) -> int:
        return len(self.cardinalities)

    @property
    def num_codes(self) -> int:
        return int(sum(self.cardinalities))

    @functools.cached_property
    def offsets(self) -> np.ndarray:
        """int32 [d]: the first code of each column."""
        sizes = np.asarray(self.cardinalities)
        return (np.cumsum(sizes) - sizes).astype(np.int32)

    @functools.cached_property
    def column_of_code(self) -> np.ndarray:
        """int [S]"""
        return np.repeat(np.arange(self.num_columns), self.cardinalities)

    @functools.cached_property
    def own(self) -> np.ndarray:
        """float32 [d, S]: 1 where a code belongs to the column."""
        return (np.arange(self.num_columns)[:, None] == self.column_of_code[None]).astype(np.float32)

    @functools.cached_property
    def is_slot(self) -> np.ndarray:
        """Bool [d, largest]: whether a place in the table `places` is a code of the column."""
        return np.arange(max(self.cardinalities))[None] < np.asarray(self.cardinalities)[:, None]

    @functools.cached_property
    def places(self) -> np.ndarray:
        """int [d, largest]: flat codes of each column, its last code filling the row."""
        slots = np.arange(max(self.cardinalities))[None]
        return self.offsets[:, None] + np.minimum(slots, np.asarray(self.cardinalities)[:, None] - 1)

    def one_hot(self, codes: jax.Array) -> jax.Array:
        """float32 [S] of one record, int32 [d]."""
        return jnp.zeros(self.num_codes).at[codes + self.offsets].set(1.0)

    def log_normalizers(self, logits: jax.Array) -> jax.Array:
        """[d]: log-sum-exp of every column's logits [S]. A product where a masked [d, S] table would be far slower."""
        largest = jax.lax.stop_gradient(logits[self.places].max(axis=1))
        scaled = jnp.exp(logits - largest[self.column_of_code])
        return largest + jnp.log(jnp.matmul(self.own, scaled, precision=jax.lax.Precision.HIGHEST))

    def probabilities(self, logits: jax.Array) -> jax.Array:
        """[S]: the softmax of every column's logits [S]."""
        return jnp.exp(logits - self.log_normalizers(logits)[self.column_of_code])

    def draw(self, logits: jax.Array, key: jax.Array) -> jax.Array:
        """int32 [n, d]: every column drawn from the softmax of its logits [n, S], never the most likely code."""
        table = jnp.where(self.is_slot[None], logits[:, self.places], -jnp.inf)
        return jax.random.categorical(key, table, axis=-1).astype(jnp.int32)


def check_hidden_dims(name: str, value) -> tuple[int, ...]:
    """`value` as a tuple; raises ValueError unless it is a list of widths."""
    widths = tuple(value) if isinstance(value, (list, tuple)) else ()
    if not widths or any(not isinstance(width, int) or width < 1 for width in widths):
        raise ValueError(f"{name} {value!r} must be a list of whole numbers, each at least 1, as in (128,)")
    return widths
