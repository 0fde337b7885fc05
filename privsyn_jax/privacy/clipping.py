"""Per-example gradients to one clipped sum: the only thing that a private record ever becomes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# A float32 norm and a float32 rescaling are each off by a few 1e-7 relative; clipping to slightly
# less keeps the true L2 norm of every contribution at or below l2_clip_norm.
_CLIP_MARGIN = 1e-6


class ClippedSum(NamedTuple):
    """The sum, and what it hides. Everything but `grad_sum` is non-private and stays under private/."""

    grad_sum: Any  # pytree like params["private"], float32
    nonprivate_loss_sum: jax.Array  # scalar, over finite examples
    nonprivate_clipped_count: jax.Array  # scalar int32, examples whose norm exceeded l2_clip_norm
    nonprivate_norm_sum: jax.Array  # scalar, over finite examples
    nonprivate_nonfinite_count: jax.Array  # scalar int32, examples dropped for a NaN or infinite gradient


def clipped_grad_sum(
    private_loss: Callable[..., jax.Array],
    params: Any,
    examples: Any,
    is_padding: jax.Array,
    key: jax.Array,
    *,
    l2_clip_norm: jax.Array | float,
) -> ClippedSum:
    """Sum over examples of per-example gradients, each scaled down to global L2 norm <= l2_clip_norm.

    Sensitivity: adding or removing one example moves `grad_sum` by at most l2_clip_norm in L2 norm.
    A gradient that is not finite, or whose squared norm overflows float32, counts as zero; a padding row
    contributes exactly zero whatever it holds.

    Args:
      private_loss: (params, example, key) -> scalar, for one example.
      params: {"private": pytree, "public": pytree}; differentiated with respect to "private" only.
      examples: pytree of arrays [batch, ...].
      is_padding: bool [batch].
      key: split into one key per example, for losses that draw noise of their own. Keys follow the position in
        the batch; they are secret and independent of the records, so the bound holds for each draw of them.
      l2_clip_norm: the bound C (may be traced).

    Source: Abadi et al. 2016, "Deep Learning with Differential Privacy", Algorithm 1.
    """

    def loss(private, example, example_key):
        return private_loss({**params, "private": private}, example, example_key)

    keys = jax.random.split(key, is_padding.shape[0])
    losses, grads = jax.vmap(jax.value_and_grad(loss), in_axes=(None, 0, 0))(params["private"], examples, keys)
    leaves, treedef = jax.tree.flatten(grads)
    flat = [leaf.reshape(leaf.shape[0], -1).astype(jnp.float32) for leaf in leaves]
    norms = jnp.sqrt(sum(jnp.sum(jnp.square(leaf), axis=1) for leaf in flat))
    finite = jnp.isfinite(norms)
    counted = finite & ~is_padding
    factors = jnp.where(counted, jnp.minimum(1.0, l2_clip_norm * (1 - _CLIP_MARGIN) / jnp.maximum(norms, 1e-30)), 0.0)
    # A zero factor does not remove a NaN (0 * NaN = NaN), so rows that do not count are replaced.
    # The default precision of accelerators would round factors and rows to 7 or 10 bits, up past the bound.
    sums = [jnp.matmul(factors, jnp.where(counted[:, None], leaf, 0.0), precision="highest") for leaf in flat]
    sums = [total.reshape(leaf.shape[1:]) for total, leaf in zip(sums, leaves, strict=True)]
    return ClippedSum(
        grad_sum=jax.tree.unflatten(treedef, sums),
        nonprivate_loss_sum=jnp.sum(jnp.where(counted, losses, 0.0)),
        nonprivate_clipped_count=jnp.sum(counted & (norms > l2_clip_norm), dtype=jnp.int32),
        nonprivate_norm_sum=jnp.sum(jnp.where(counted, norms, 0.0)),
        nonprivate_nonfinite_count=jnp.sum(~finite & ~is_padding, dtype=jnp.int32),
    )


def microbatched_grad_sum(
    private_loss: Callable[..., jax.Array],
    params: Any,
    records: jax.Array,
    indices: jax.Array,
    batch_size: jax.Array,
    key: jax.Array,
    *,
    l2_clip_norm: jax.Array | float,
    microbatch_size: int,
) -> ClippedSum:
    """`clipped_grad_sum` over the drawn records, in as many microbatches as the draw needs.

    The number of microbatches follows the draw, so a batch of any size, empty included, is processed
    whole under one compilation; nothing is truncated.

    Args:
      records: pytree of arrays [num_records, ...], the whole encoded table.
      indices: int32 [capacity], capacity a multiple of microbatch_size; the first `batch_size` are the draw.
      batch_size: scalar int32, the realised (private) batch size.
      key: folded with the microbatch number.
      microbatch_size: examples per vectorised gradient (static); memory grows with it.

    Raises:
      ValueError: the capacity is no multiple of microbatch_size: the last slice would count records twice.
    """
    if indices.shape[0] % microbatch_size:
        raise ValueError(f"capacity {indices.shape[0]} must be a multiple of microbatch_size {microbatch_size}")

    def add_microbatch(number, total):
        start = number * microbatch_size
        rows = jax.lax.dynamic_slice(indices, (start,), (microbatch_size,))
        is_padding = start + jnp.arange(microbatch_size) >= batch_size
        examples = jax.tree.map(lambda array: array[rows], records)
        part = clipped_grad_sum(
            private_loss, params, examples, is_padding, jax.random.fold_in(key, number), l2_clip_norm=l2_clip_norm
        )
        return jax.tree.map(jnp.add, total, part)

    zeros = jax.tree.map(lambda leaf: jnp.zeros(jnp.shape(leaf), jnp.float32), params["private"])
    empty = ClippedSum(zeros, jnp.float32(0), jnp.int32(0), jnp.float32(0), jnp.int32(0))
    num_microbatches = -(-batch_size // microbatch_size)
    return jax.lax.fori_loop(0, num_microbatches, add_microbatch, empty)


def num_parameters(private_params: Any) -> int:
    """Number of scalars that receive noise."""
    return int(sum(np.prod(jnp.shape(leaf), dtype=np.int64) for leaf in jax.tree.leaves(private_params)))
