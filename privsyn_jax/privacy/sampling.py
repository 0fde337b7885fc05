"""Who is in a batch: every record independently of all others, and the event that pays for it.

The sampler that draws is the object that knows the event, so no loader can be accounted for as what it is not.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

_WORD = 2**32
_GROUP_STREAM = 2**32 - 1  # folded into the root key; steps are below 2^31


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


def sampling_threshold(sampling_rate: float) -> int:
    """The largest 32-bit word that draws a record; a runtime number, so that a new rate compiles nothing.

    Raises:
      ValueError: the rate is no positive multiple of 2^-32 up to 1.
    """
    words = sampling_rate * _WORD
    if not (1 <= words <= _WORD and words == int(words)):
        raise ValueError(f"sampling_rate {sampling_rate} must be a positive multiple of 2^-32, see exact_sampling_rate")
    return int(words) - 1


@dataclasses.dataclass(frozen=True)
class Sampler:
    """Cyclic Poisson sampling: step t draws each record of group t mod num_groups with probability sampling_rate.

    With one group this is Poisson sampling. With more, every record is put in a group once, at random and
    independently of all others, so adding a record moves no other; a record can be drawn in at most one of
    num_groups consecutive steps. num_groups > 1 with rate 1 is a pass over the data in random parts, the honest
    version of a shuffling loader: it has no amplification, and `event` says so.

    Source: Choquette-Choo et al. 2023, "(Amplified) Banded Matrix Factorization", section 4.
    """

    num_groups: int = 1

    def draw(
        self, root_key: jax.Array, step: jax.Array, batch_key: jax.Array, *, num_rows: int, threshold: jax.Array | int
    ) -> jax.Array:
        """Bool [num_rows]: the rows of the step's batch.

        A row is drawn when its own 32 random bits, read as an integer, are at most `threshold`: the probability is
        exact, where comparing a float32 uniform would round it.

        Args:
          root_key: secret, of the run; puts records in groups.
          batch_key: secret; a new one for every step.
          num_rows: rows in the table (static, private).
          threshold: see `sampling_threshold`.
        """
        drawn = jax.random.bits(batch_key, (num_rows,), jnp.uint32) <= jnp.asarray(threshold, jnp.uint32)
        if self.num_groups == 1:
            return drawn
        words = jax.random.bits(jax.random.fold_in(root_key, jnp.uint32(_GROUP_STREAM)), (num_rows,), jnp.uint32)
        return drawn & (words % self.num_groups == jnp.asarray(step, jnp.uint32) % self.num_groups)

    def event(
        self, *, sampling_rate: float, noise_multiplier: float, first_step: int, num_steps: int
    ) -> dict[str, Any] | None:
        """What the steps from `first_step` on cost, given that those before are paid for; None for nothing.

        A record takes part in at most ceil(t / num_groups) of the first t steps.
        """
        count = -(-(first_step + num_steps) // self.num_groups) - -(-first_step // self.num_groups)
        if count == 0:
            return None
        event = {"noise_multiplier": noise_multiplier, "count": count}
        if sampling_rate == 1.0:
            return {"kind": "gaussian", **event}
        return {"kind": "poisson_gaussian", "sampling_rate": sampling_rate, **event}


POISSON = Sampler()


def first_rows(
    drawn: jax.Array, *, capacity: int, first_row: jax.Array | int = 0, num_local: int | None = None
) -> tuple[jax.Array, jax.Array]:
    """Indices of the drawn rows, or of this device's part of them.

    Args:
      drawn: bool [num_rows], of the whole table, whoever holds the rows.
      capacity: length of the index array (static), at least the rows held here, so nothing is ever truncated.
      first_row, num_local: the rows held here, default all; those from num_rows on are never drawn.

    Returns:
      indices int32 [capacity] from 0 to below num_local, the drawn rows first, then zeros; batch_size, scalar int32.

    Raises:
      ValueError: the capacity could truncate a batch.
    """
    num_rows = drawn.shape[0]
    size = num_rows if num_local is None else num_local
    if capacity < size:
        raise ValueError(f"capacity {capacity} is smaller than the {size} rows held here: a batch could be truncated")
    if num_local is not None:  # even if it equals num_rows: of eight devices with one row, seven hold none
        # Filled up to any first_row of a device: a dynamic slice past the end would be moved back.
        drawn = jnp.concatenate([drawn, jnp.zeros(num_local, bool)])
        drawn = jax.lax.dynamic_slice(drawn, (jnp.minimum(first_row, num_rows),), (num_local,))
    (indices,) = jnp.nonzero(drawn, size=capacity, fill_value=0)
    return indices.astype(jnp.int32), jnp.sum(drawn, dtype=jnp.int32)
