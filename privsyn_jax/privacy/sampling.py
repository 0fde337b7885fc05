"""Poisson sampling: every record enters every batch independently with the same probability."""

from __future__ import annotations

import jax
import jax.numpy as jnp

_WORD = 2**32


def exact_sampling_rate(expected_batch_size: float, num_records: int) -> float:
    """Sampling rate that the device draws exactly: a multiple of 2^-32, rounded down.

    Args:
      expected_batch_size: expected number of records in a batch.
      num_records: the *public* number of records.

    Raises:
      ValueError: the batch is empty or larger than the table.
    """
    if not 0 < expected_batch_size <= num_records:
        raise ValueError(f"expected_batch_size {expected_batch_size} must lie in (0, num_records={num_records}]")
    return max(1, int(expected_batch_size / num_records * _WORD)) / _WORD


def poisson_draw(key: jax.Array, *, num_rows: int, sampling_rate: float) -> jax.Array:
    """Bool [num_rows]: which rows are in a Poisson batch.

    A row is drawn when its own 32 random bits, read as an integer, lie below sampling_rate * 2^32: the
    probability is exact, where comparing a float32 uniform would round it.

    Args:
      key: secret; a new one for every step.
      num_rows: rows in the table (static, private).
      sampling_rate: probability, a multiple of 2^-32 (see `exact_sampling_rate`).
    """
    threshold = round(sampling_rate * _WORD)
    bits = jax.random.bits(key, (num_rows,), jnp.uint32)
    return jnp.ones(num_rows, bool) if threshold >= _WORD else bits < jnp.uint32(threshold)


def poisson_batch(
    key: jax.Array,
    *,
    num_rows: int,
    sampling_rate: float,
    capacity: int,
    first_row: jax.Array | int = 0,
    num_local: int | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Draws one Poisson batch of row indices, or this device's part of it.

    Args:
      key, num_rows, sampling_rate: see `poisson_draw`; the draw is of the whole table, whoever holds the rows.
      capacity: length of the index array (static), at least the rows held here, so nothing is ever truncated.
      first_row, num_local: the rows held here, default all; those from num_rows on are never drawn.

    Returns:
      indices int32 [capacity] from 0 to below num_local, the drawn rows first, then zeros; batch_size, scalar int32.
    """
    size = num_rows if num_local is None else num_local
    if capacity < size:
        raise ValueError(f"capacity {capacity} is smaller than the {size} rows held here: a batch could be truncated")
    drawn = poisson_draw(key, num_rows=num_rows, sampling_rate=sampling_rate)
    if num_local is not None:  # even if it equals num_rows: of eight devices with one row, seven hold none
        # Filled up to any first_row of a device: a dynamic slice past the end would be moved back.
        drawn = jnp.concatenate([drawn, jnp.zeros(num_local, bool)])
        drawn = jax.lax.dynamic_slice(drawn, (jnp.minimum(first_row, num_rows),), (num_local,))
    (indices,) = jnp.nonzero(drawn, size=capacity, fill_value=0)
    return indices.astype(jnp.int32), jnp.sum(drawn, dtype=jnp.int32)
