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


def poisson_batch(key: jax.Array, *, num_rows: int, sampling_rate: float, capacity: int) -> tuple[jax.Array, jax.Array]:
    """Draws one Poisson batch of row indices.

    A row is drawn when its own 32 random bits, read as an integer, lie below sampling_rate * 2^32: the
    probability is exact, where comparing a float32 uniform would round it.

    Args:
      key: secret; a new one for every step.
      num_rows: rows in the table (static, private).
      sampling_rate: probability, a multiple of 2^-32 (see `exact_sampling_rate`).
      capacity: length of the index array (static), >= num_rows, so nothing is ever truncated.

    Returns:
      indices int32 [capacity], the drawn rows first, then zeros; batch_size, scalar int32.
    """
    if capacity < num_rows:
        raise ValueError(f"capacity {capacity} is smaller than num_rows {num_rows}: a batch could be truncated")
    threshold = round(sampling_rate * _WORD)
    bits = jax.random.bits(key, (num_rows,), jnp.uint32)
    drawn = jnp.ones(num_rows, bool) if threshold >= _WORD else bits < jnp.uint32(threshold)
    (indices,) = jnp.nonzero(drawn, size=capacity, fill_value=0)
    return indices.astype(jnp.int32), jnp.sum(drawn, dtype=jnp.int32)
