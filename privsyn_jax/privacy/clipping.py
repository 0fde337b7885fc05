"""Per-example gradients to one clipped sum: the only thing that a private record ever becomes."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from privsyn_jax.privacy import ghost

# A float32 norm and a float32 rescaling are each off by a few 1e-7 relative; clipping to slightly
# less keeps the true L2 norm of every contribution at or below l2_clip_norm.
_CLIP_MARGIN = 1e-6
METHODS = ("auto", "ghost", "microbatch", "vmap")
DEFAULT_MEMORY_BUDGET = 2 * 2**30  # bytes of per-example gradients held at once
_CACHE_BYTES = 16 * 2**20  # of activations, on CPU
_MIN_CACHE_SLICE = 64  # examples: smaller matrix products are slow

_log = logging.getLogger(__name__)


class ClippedSum(NamedTuple):
    """The sum, and what it hides. Everything but `grad_sum` is non-private and stays under private/."""

    grad_sum: Any  # pytree like params["private"], float32
    nonprivate_loss_sum: jax.Array  # scalar, over finite examples
    nonprivate_clipped_count: jax.Array  # scalar int32, examples whose norm exceeded l2_clip_norm
    nonprivate_norm_sum: jax.Array  # scalar, over finite examples
    nonprivate_nonfinite_count: jax.Array  # scalar int32, examples dropped for a NaN or infinite gradient
    nonprivate_bounded_loss_sum: jax.Array  # scalar, see loss_bound


def empty_sum(private: Any) -> ClippedSum:
    """The sum over no example."""
    zeros = jax.tree.map(lambda leaf: jnp.zeros(jnp.shape(leaf), jnp.float32), private)
    return ClippedSum(zeros, jnp.float32(0), jnp.int32(0), jnp.float32(0), jnp.int32(0), jnp.float32(0))


def clipped_grad_sum(
    private_loss: Callable[..., jax.Array],
    params: Any,
    examples: Any,
    is_padding: jax.Array,
    key: jax.Array,
    *,
    l2_clip_norm: jax.Array | float,
    method: str = "auto",
    num_draws: int = 1,
    example_ids: jax.Array | None = None,
    loss_bound: float | None = None,
    memory_budget: int = DEFAULT_MEMORY_BUDGET,
) -> ClippedSum:
    """Sum over examples of per-example gradients, each scaled down to global L2 norm <= l2_clip_norm.

    Sensitivity: adding or removing one example moves `grad_sum` by at most l2_clip_norm in L2 norm.
    A gradient that is not finite, or whose squared norm overflows float32, counts as zero, and with ghost norms
    also one made of activations or cotangents of length 1e12 or more; a padding row contributes exactly zero
    whatever it holds.

    Args:
      private_loss: (params, example, key) -> scalar, for one example.
      params: {"private": pytree, "public": pytree}; differentiated with respect to "private" only.
      examples: pytree of arrays [batch, ...].
      is_padding: bool [batch].
      key: folded with the id of each example, for losses that draw noise of their own. Keys are secret and
        independent of the records, so the bound holds for each draw of them.
      l2_clip_norm: the bound C (may be traced).
      method: all give the same sum, up to float32 rounding:
        "vmap": per-example gradients, formed and weighted; the reference.
        "microbatch": the same in slices whose gradients fit memory_budget.
        "ghost": one backward pass whose per-example norms come from activations and cotangents, see `ghost`.
        "auto": "ghost", in slices where memory or (on CPU) the cache asks for them; "vmap" where ghost would only form
          gradients anyway. The choice and its reasons are logged at level INFO, once per compilation.
      num_draws: the loss of an example is the mean over this many keys (noise, time steps, augmentations),
        averaged before clipping, so that the sensitivity does not change.
      example_ids: int32 [batch], default 0, 1, ...; what an example draws depends on its id, not on its place.
      loss_bound: L; `nonprivate_bounded_loss_sum` is then the sum of clip(loss, 0, L) - L / 2, which one example moves
        by at most L / 2 (else 0). An example without a finite gradient or loss adds nothing.
      memory_budget: bytes that per-example gradients may take ("microbatch" and "auto").

    Raises:
      ValueError: an unknown method, or inside a shard_map that sums gradients over devices before they are clipped.

    Source: Abadi et al. 2016, "Deep Learning with Differential Privacy", Algorithm 1.
    """
    _refuse_replicated_params(params["private"], examples)
    batch_size, private = is_padding.shape[0], params["private"]
    loss = _mean_over_draws(private_loss, params, num_draws)
    ids = jnp.arange(batch_size) if example_ids is None else example_ids
    keys = jax.vmap(lambda number: jax.random.fold_in(key, number))(ids)
    choice = choose(
        private_loss,
        params,
        examples,
        keys,
        method=method,
        num_draws=num_draws,
        memory_budget=memory_budget,
    )
    for line in choice.lines:
        _log.info("%s", line)

    def clip(examples, keys, is_padding):
        if choice.plan is None:
            return _clip(_all_gradients(loss, private, examples, keys), is_padding, l2_clip_norm, loss_bound)
        return _clip(ghost.per_example(choice.plan, private, (examples, keys)), is_padding, l2_clip_norm, loss_bound)

    if choice.slice_size >= batch_size:
        return clip(examples, keys, is_padding)
    has_conv = choice.plan.has_conv if choice.plan else ghost.contains_conv(loss, private, (examples, keys))
    unroll = has_conv and jax.default_backend() == "cpu"
    return _in_slices(clip, (examples, keys, is_padding), choice.slice_size, unroll=unroll)


class Choice(NamedTuple):
    """How clipped gradients are taken."""

    plan: ghost.Plan | None  # None: vmap
    slice_size: int  # examples at a time
    headline: str
    lines: list[str]  # the headline and the reasons


def choose(
    private_loss: Callable[..., jax.Array],
    params: Any,
    examples: Any,
    keys: Any,
    *,
    method: str = "auto",
    num_draws: int = 1,
    memory_budget: int = DEFAULT_MEMORY_BUDGET,
) -> Choice:
    """What `clipped_grad_sum` does with such arguments; examples and keys [batch, ...] may be shapes."""
    if method not in METHODS:
        raise ValueError(f"method {method!r} must be one of {', '.join(METHODS)}")
    private, plan, reason, batch_size = params["private"], None, "", keys.shape[0]
    if method in ("ghost", "auto"):
        plan = ghost.make_plan(_mean_over_draws(private_loss, params, num_draws), private, (examples, keys))
        if method == "auto" and not plan.saves_gradients:
            plan, reason = None, ": no parameter is used in a matrix operation that ghost norms know"
    example_bytes = 4 * num_parameters(private) if plan is None else plan.kept_bytes_per_example
    slice_size = batch_size
    if method in ("microbatch", "auto"):
        slice_size = min(batch_size, max(1, memory_budget // max(1, example_bytes)))
    if method == "auto" and plan is not None and jax.default_backend() == "cpu" and not plan.has_conv:
        slice_size = min(slice_size, _cache_slice(plan.activation_bytes_per_example, batch_size))
    slices = f", {slice_size} examples at a time" if slice_size < batch_size else ""
    headline = f"{'vmap' if plan is None else plan.headline} for {batch_size} examples{slices}{reason}"
    return Choice(plan, slice_size, headline, [headline, *(plan.lines() if plan is not None else ())])


def _cache_slice(example_bytes: int, batch_size: int) -> int:
    """Examples at a time on CPU: batches whose activations outgrow the cache are quicker in parts."""
    if example_bytes * batch_size <= _CACHE_BYTES:
        return batch_size
    return max(_MIN_CACHE_SLICE, _CACHE_BYTES // 4 // example_bytes)


def _mean_over_draws(private_loss: Callable[..., jax.Array], params: Any, num_draws: int) -> Callable[..., jax.Array]:
    """(private parameters, example, key) -> scalar."""

    def loss(private, example, key):
        whole = {**params, "private": private}
        if num_draws == 1:
            return private_loss(whole, example, key)
        draws = jax.vmap(lambda draw_key: private_loss(whole, example, draw_key))
        return jnp.mean(draws(jax.random.split(key, num_draws)))

    return loss


def _refuse_replicated_params(private: Any, examples: Any) -> None:
    """In shard_map(check_vma=True), gradients for replicated parameters are sums over devices: no clipping holds."""
    common = frozenset.intersection(*(ghost.varying_axes(leaf) for leaf in jax.tree.leaves(private)))
    summed = frozenset().union(*(ghost.varying_axes(leaf) for leaf in jax.tree.leaves(examples))) - common
    if summed:
        raise ValueError(
            f"per-example gradients would be summed over the device axes {sorted(summed)} before they are clipped: "
            "pass check_vma=False to shard_map"
        )


def _all_gradients(loss: Callable[..., jax.Array], private: Any, examples: Any, keys: jax.Array) -> ghost.Gradients:
    """Every example's whole gradient, formed."""
    losses, grads = jax.vmap(jax.value_and_grad(loss), in_axes=(None, 0, 0))(private, examples, keys)
    leaves, treedef = jax.tree.flatten(grads)
    flat = [leaf.reshape(leaf.shape[0], math.prod(leaf.shape[1:])).astype(jnp.float32) for leaf in leaves]
    norms = jnp.sqrt(sum(jnp.sum(jnp.square(leaf), axis=1) for leaf in flat))

    def weighted_sum(weights, counted):
        # The default precision of accelerators would round weights and rows to 7 or 10 bits, up past the bound.
        sums = [jnp.matmul(weights, jnp.where(counted[:, None], leaf, 0.0), precision="highest") for leaf in flat]
        shaped = [total.reshape(leaf.shape[1:]) for total, leaf in zip(sums, leaves, strict=True)]
        return jax.tree.unflatten(treedef, shaped)

    return ghost.Gradients(losses, norms, weighted_sum)


def _clip(
    gradients: ghost.Gradients, is_padding: jax.Array, l2_clip_norm: jax.Array | float, loss_bound: float | None
) -> ClippedSum:
    losses, norms, weighted_sum = gradients
    losses = losses.astype(jnp.float32)
    finite = jnp.isfinite(norms)
    counted = finite & ~is_padding
    factors = jnp.where(counted, jnp.minimum(1.0, l2_clip_norm * (1 - _CLIP_MARGIN) / jnp.maximum(norms, 1e-30)), 0.0)
    return ClippedSum(
        grad_sum=weighted_sum(factors, counted),
        nonprivate_loss_sum=jnp.sum(jnp.where(counted, losses, 0.0)),
        nonprivate_clipped_count=jnp.sum(counted & (norms > l2_clip_norm), dtype=jnp.int32),
        nonprivate_norm_sum=jnp.sum(jnp.where(counted, norms, 0.0)),
        nonprivate_nonfinite_count=jnp.sum(~finite & ~is_padding, dtype=jnp.int32),
        nonprivate_bounded_loss_sum=jnp.float32(0) if loss_bound is None else _bounded_sum(losses, counted, loss_bound),
    )


def _bounded_sum(losses: jax.Array, counted: jax.Array, bound: float) -> jax.Array:
    counted = counted & jnp.isfinite(losses)
    return jnp.sum(jnp.where(counted, jnp.clip(losses, 0.0, bound) - bound / 2, 0.0))


def _in_slices(clip: Callable[..., ClippedSum], batch: tuple[Any, Any, jax.Array], size: int, *, unroll: bool):
    """clip() over slices of `size` examples, added up. The last slice is filled with padding.

    A loop of XLA runs a convolution's gradient many times slower on CPU (`unroll` avoids it).
    """
    examples, keys, is_padding = batch
    count = -(-len(is_padding) // size)
    rows = jnp.minimum(jnp.arange(count * size), len(is_padding) - 1).reshape(count, size)
    is_fill = (jnp.arange(count * size) >= len(is_padding)).reshape(count, size)

    def one(rows, is_fill):
        part = jax.tree.map(lambda array: jnp.asarray(array)[rows], examples)
        return clip(part, keys[rows], jnp.asarray(is_padding)[rows] | is_fill)

    total = one(rows[0], is_fill[0])
    if unroll:
        for number in range(1, count):
            total = jax.tree.map(jnp.add, total, one(rows[number], is_fill[number]))
        return total
    add = lambda total, piece: (jax.tree.map(jnp.add, total, one(*piece)), None)  # noqa: E731
    return jax.lax.scan(add, total, (rows[1:], is_fill[1:]))[0]


def num_parameters(private_params: Any) -> int:
    """Number of scalars that receive noise."""
    return int(sum(np.prod(jnp.shape(leaf), dtype=np.int64) for leaf in jax.tree.leaves(private_params)))
