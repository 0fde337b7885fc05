"""Whose record is whose: units divided among teachers, each unit by itself."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Parts(NamedTuple):
    """Encoded units, those of a teacher together.

    Attributes:
      records: pytree of arrays [n + 1, ...]; the last one is filling.
      first: int32 [teachers], where a teacher's begin; without any, the filling.
      counts: int32 [teachers].
    """

    records: Any
    first: jax.Array
    counts: jax.Array


def assign(key: jax.Array, num_units: int, num_teachers: int) -> np.ndarray:
    """Int32 [num_units]: whose a unit is, evenly at random; a function of the key and the unit's place alone."""

    def teacher_of(place):
        return jax.random.bits(jax.random.fold_in(key, place), (), jnp.uint32) % num_teachers

    return np.asarray(jax.vmap(teacher_of)(jnp.arange(num_units, dtype=jnp.uint32))).astype(np.int32)


def divide(records: Any, teacher_of: np.ndarray, num_teachers: int) -> Parts:
    """Units by teacher.

    Args:
      records: pytree of arrays [n, ...], one entry per unit.
      teacher_of: int [n].
    """
    order, counts = np.argsort(teacher_of, kind="stable"), np.bincount(teacher_of, minlength=num_teachers)
    first = np.where(counts > 0, np.cumsum(counts) - counts, len(order))

    def arranged(leaf):
        filling = np.zeros((1, *leaf.shape[1:]), leaf.dtype)
        return jnp.asarray(np.concatenate([np.asarray(leaf)[order], filling]))

    return Parts(jax.tree.map(arranged, records), jnp.asarray(first, jnp.int32), jnp.asarray(counts, jnp.int32))
