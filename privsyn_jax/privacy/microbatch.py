"""A Poisson batch of any size, as clipped sums of slices of one static size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from privsyn_jax.privacy.clipping import ClippedSum, clipped_grad_sum, empty_sum


def microbatched_grad_sum(
    private_loss: Callable[..., jax.Array],
    params: Any,
    records: Any,
    indices: jax.Array,
    batch_size: jax.Array,
    key: jax.Array,
    *,
    l2_clip_norm: jax.Array | float,
    microbatch_size: int,
    first_id: jax.Array | int = 0,
    method: str = "auto",
    num_draws: int = 1,
    loss_bound: float | None = None,
) -> ClippedSum:
    """`clipped_grad_sum` over the drawn records, in as many microbatches as the draw needs.

    The number of microbatches follows the draw, so a batch of any size, empty included, is processed
    whole under one compilation; nothing is truncated.

    Args:
      records: pytree of arrays [num_records, ...], the whole encoded table.
      indices: int32 [capacity], capacity a multiple of microbatch_size; the first `batch_size` are the draw.
      batch_size: scalar int32, the realised (private) batch size.
      key: folded with each record's number, so that its noise does not depend on the rest of the draw.
      microbatch_size: examples per vectorised gradient (static); memory grows with it.
      first_id: number of the first record, where `records` is a part of the table.
      method, num_draws, loss_bound: see `clipped_grad_sum`.

    Raises:
      ValueError: the capacity is no multiple of microbatch_size: the last slice would count records twice.
    """
    capacity = indices.shape[0]
    if capacity % microbatch_size:
        raise ValueError(f"capacity {capacity} must be a multiple of microbatch_size {microbatch_size}")

    def microbatch(number):
        start = number * microbatch_size
        rows = jax.lax.dynamic_slice(indices, (start,), (microbatch_size,))
        return clipped_grad_sum(
            private_loss,
            params,
            jax.tree.map(lambda array: array[rows], records),
            start + jnp.arange(microbatch_size) >= batch_size,
            key,
            l2_clip_norm=l2_clip_norm,
            method=method,
            num_draws=num_draws,
            example_ids=first_id + rows,
            loss_bound=loss_bound,
        )

    def add_microbatch(number, total):
        return jax.tree.map(jnp.add, total, microbatch(number))

    num_microbatches = -(-batch_size // microbatch_size)
    return jax.lax.fori_loop(0, num_microbatches, add_microbatch, empty_sum(params["private"]))
