"""What one use of a parameter contributes: an example's gradient is a sum of outer products of factors.

An operand and the cotangent of the output are brought to a common form, per example:
  rows [S, T, K] and cols [S, T, P], so that the gradient is G[s] = sum_t rows[s, t] (outer) cols[s, t],
where T runs over positions (sequence, pixels, steps of a scan), and S over what does not mix: batched matrices,
groups of a convolution, layers that a scan steps through. A lookup has int32 indices [S, T] for rows.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from privsyn_jax.privacy.ghost import conv
from privsyn_jax.privacy.ghost.trace import Node, Use

HIGHEST = lax.Precision.HIGHEST


@dataclasses.dataclass(frozen=True)
class View:
    """A use seen from the expression that its weight is a transpose or a cast of.

    Attributes:
      node: that expression; a gradient of it has shape [*loops of the node, *shape].
      shape: of its value, without loop axes.
      axes: axis of `shape` for every axis of the weight that the use sees.
      stack, rows, cols: axes of `shape` that index S, K and P; each in increasing order. All empty for a tile.
      label: uses of one node whose factors can be set side by side share it.
    """

    use: Use
    node: Node
    shape: tuple[int, ...]
    axes: tuple[int, ...]
    stack: tuple[int, ...]
    rows: tuple[int, ...]
    cols: tuple[int, ...]
    label: tuple

    @property
    def num_loops(self) -> int:
        return len(self.use.loops)

    @property
    def stack_loops(self) -> tuple[int, ...]:
        """Positions among the use's loops of those that step through the parameter."""
        return tuple(i for i, loop in enumerate(self.use.loops) if loop in self.node.loops)

    @property
    def time_loops(self) -> tuple[int, ...]:
        return tuple(i for i in range(self.num_loops) if i not in self.stack_loops)


def view(use: Use) -> View:
    """Looks through transposes and casts, so that W and W.T are uses of one matrix."""
    node, axes, shape = use.node, list(range(len(use.shape))), list(use.shape)
    while node.is_cast or (node.op == "transpose" and use.kind == "dot"):
        if node.op == "transpose":
            permutation = node.eqn.params["permutation"]
            axes = [permutation[axis] for axis in axes]
            shape = [shape[permutation.index(axis)] for axis in range(len(shape))]
        node = node.inputs[0]
    stack: Sequence[int] = ()
    rows: Sequence[int] = ()
    cols: Sequence[int] = ()
    label: tuple = (use.kind,)
    if use.kind == "dot":
        _, weight = _dot_axes(use)
        stack, rows, cols = (sorted(axes[axis] for axis in part) for part in weight)
        label = ("outer", tuple(stack), *sorted([tuple(rows), tuple(cols)]))
    elif use.kind == "gather":
        num_leading = len(use.eqn.params["dimension_numbers"].start_index_map)
        rows, cols = range(num_leading), range(num_leading, len(shape))
        label = ("outer", (), *sorted([tuple(rows), tuple(cols)]))
    elif use.kind == "conv":
        label = ("conv", str(use.eqn.params), use.eps.shape[len(use.loops) :])
    return View(use, node, tuple(shape), tuple(axes), tuple(stack), tuple(rows), tuple(cols), label)


def _dot_axes(use: Use) -> tuple[tuple[Any, Any, Any], tuple[Any, Any, Any]]:
    """(batch, contracted, free) axes of the operand and of the weight, in corresponding order."""
    contracted, batch = use.eqn.params["dimension_numbers"]
    weight_at = use.position
    operand_ndim = len(use.eqn.invars[1 - weight_at].aval.shape)
    sides = []
    for side, ndim in ((1 - weight_at, operand_ndim), (weight_at, len(use.shape))):
        taken = {*contracted[side], *batch[side]}
        sides.append((tuple(batch[side]), tuple(contracted[side]), tuple(a for a in range(ndim) if a not in taken)))
    return sides[0], sides[1]


def _dot_orders(v: View) -> tuple[list[list[int]], list[list[int]], list[list[int]]]:
    """Axes of operand, cotangent and node, each as [S, T, K or P] lists in corresponding order, loops not counted."""
    (x_batch, x_contracted, x_free), (w_batch, w_contracted, w_free) = _dot_axes(v.use)
    axis_of = v.axes
    by_axis = lambda part: sorted(range(len(part)), key=lambda i: axis_of[part[i]])  # noqa: E731
    batch_order, contracted_order, free_order = by_axis(w_batch), by_axis(w_contracted), by_axis(w_free)
    num_batch = len(x_batch)
    x_at = num_batch + (0 if v.use.position == 1 else len(w_free))
    w_at = num_batch + (len(x_free) if v.use.position == 1 else 0)
    operand = [[x_batch[i] for i in batch_order], list(x_free), [x_contracted[i] for i in contracted_order]]
    cotangent = [list(batch_order), list(range(x_at, x_at + len(x_free))), [w_at + i for i in free_order]]
    parts = ((w_batch, batch_order), (w_contracted, contracted_order), (w_free, free_order))
    return operand, cotangent, [[axis_of[part[i]] for i in order] for part, order in parts]


def _grouped(v: View, array: jax.Array, groups: Sequence[Sequence[int]]) -> jax.Array:
    """Array [*loops, ...] -> [S, T, F], each a product of axes."""
    n = v.num_loops
    stack, time, features = ([axis + n for axis in group] for group in groups)
    order = [*v.stack_loops, *stack, *v.time_loops, *time, *features]
    size = lambda axes: math.prod(array.shape[axis] for axis in axes)  # noqa: E731
    shape = (size([*v.stack_loops, *stack]), size([*v.time_loops, *time]), size(features))
    return jnp.transpose(array, order).reshape(shape)


def factors(v: View, operand: jax.Array, cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(rows, cols) of one example; rows are float [S, T, K], or int32 [S, T] of a lookup.

    Args:
      operand, cotangent: as captured, without the example axis: loop axes first.
    """
    if v.use.kind == "dot":
        operand_axes, cotangent_axes, _ = _dot_orders(v)
        return _grouped(v, operand, operand_axes), _grouped(v, cotangent, cotangent_axes)
    if v.use.kind == "gather":
        n = v.num_loops
        index, values = _lookup(v, operand, cotangent, n)
        index = _grouped(v, index[..., None], [[], range(index.ndim - n), [index.ndim - n]])[..., 0]
        return index, _grouped(v, values, [[], range(values.ndim - n - 1), [values.ndim - n - 1]])
    split = lambda x, g: conv.factors(v.use, x, g)  # noqa: E731
    for _ in range(v.num_loops):
        split = jax.vmap(split)
    rows, cols = split(operand, cotangent)  # [*loops, groups, T, K or P]
    return _grouped(v, rows, [[0], [1], [2]]), _grouped(v, cols, [[0], [1], [2]])


def _lookup(v: View, indices: jax.Array, cotangent: jax.Array, num_lead: int) -> tuple[jax.Array, jax.Array]:
    """Flat row numbers [*lead, *positions] and cotangents [*lead, *positions, P], zero where none was looked up."""
    params = v.use.eqn.params
    offset_dims = [num_lead + axis for axis in params["dimension_numbers"].offset_dims]
    values = jnp.moveaxis(cotangent, offset_dims, range(cotangent.ndim - len(offset_dims), cotangent.ndim))
    values = values.reshape(*indices.shape[:-1], -1)
    index, stride, inside = jnp.int32(0), 1, jnp.bool_(True)
    for axis in reversed(range(indices.shape[-1])):
        number, size = indices[..., axis], v.shape[axis]
        inside = inside & (number >= 0) & (number < size)
        index, stride = index + stride * jnp.clip(number, 0, size - 1).astype(jnp.int32), stride * size
    if params["mode"] != lax.GatherScatterMode.CLIP:
        values = jnp.where(inside[..., None], values, 0)
    return index, values


def gradient(v: View, operand: Any, cotangent: jax.Array) -> jax.Array:
    """One example's gradient with respect to the node, float32 [*loops of the node, *shape]."""
    if v.use.kind == "tile":
        return cotangent if jnp.iscomplexobj(cotangent) else cotangent.astype(jnp.float32)
    rows, cols = factors(v, operand, cotangent)
    cols = cols.astype(jnp.float32)
    if v.use.kind == "gather":
        num_rows = math.prod(v.shape[axis] for axis in v.rows)
        scatter = jax.vmap(lambda index, values: jnp.zeros((num_rows, values.shape[-1])).at[index].add(values))
        return shaped(v, scatter(rows, cols))
    return shaped(v, jnp.einsum("stk,stp->skp", rows.astype(jnp.float32), cols, precision=HIGHEST))


def shaped(v: View, grad: jax.Array) -> jax.Array:
    """Gradient [S, K, P] in the node's shape."""
    lengths = [v.use.eps.shape[i] for i in v.stack_loops]
    if v.use.kind == "conv":
        return conv.kernel_shaped(v.use, grad.reshape(*lengths, -1, *grad.shape[1:]), len(lengths))
    if v.use.kind == "gather":
        return grad.reshape(*lengths, *v.shape)
    axes = [axis for part in _dot_orders(v)[2] for axis in part]
    grad = grad.reshape(*lengths, *(v.shape[axis] for axis in axes))
    n = len(lengths)
    return jnp.transpose(grad, [*range(n), *(n + int(i) for i in np.argsort(axes))])


def weighted_sum(v: View, operand: jax.Array, cotangent: jax.Array) -> jax.Array:
    """Sum over examples of the gradients, float32 [*loops of the node, *shape]; weights are already in `cotangent`.

    Args:
      operand, cotangent: float32 (indices: int32) [*loops, batch, ...].
    """
    n = v.num_loops
    if v.use.kind == "conv":
        return conv.weighted_sum(v.use, operand, cotangent, v.stack_loops, v.time_loops)
    if v.use.kind == "gather":
        index, values = _lookup(v, operand, cotangent, n + 1)
        order = [*v.stack_loops, *v.time_loops, *range(n, index.ndim)]
        lengths = [index.shape[i] for i in v.stack_loops]
        index = jnp.transpose(index, order).reshape(math.prod(lengths), -1)
        values = jnp.transpose(values, [*order, values.ndim - 1]).reshape(*index.shape, -1)
        num_rows = math.prod(v.shape[axis] for axis in v.rows)
        scatter = jax.vmap(lambda index, values: jnp.zeros((num_rows, values.shape[-1])).at[index].add(values))
        return shaped(v, scatter(index, values))
    operand_axes, cotangent_axes, node_axes = _dot_orders(v)
    x_stack, x_time, x_rows = ([axis + n + 1 for axis in part] for part in operand_axes)
    g_stack, g_time, g_cols = ([axis + n + 1 for axis in part] for part in cotangent_axes)
    summed = lax.dot_general(
        operand,
        cotangent,
        (
            ([*v.time_loops, n, *x_time], [*v.time_loops, n, *g_time]),
            ([*v.stack_loops, *x_stack], [*v.stack_loops, *g_stack]),
        ),
        precision=HIGHEST,
        preferred_element_type=jnp.float32,
    )
    # What is left of operand and cotangent stands in its own order.
    left = [node_axes[1][i] for i in np.argsort(x_rows)] + [node_axes[2][i] for i in np.argsort(g_cols)]
    num_stack = len(v.stack_loops)
    order = np.argsort([*node_axes[0], *left])
    return jnp.transpose(summed, [*range(num_stack), *(num_stack + int(i) for i in order)])
