"""Factors of a convolution: patches of the input beside the cotangent of the output."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from privsyn_jax.privacy.ghost.trace import Use


def factors(use: Use, operand: jax.Array, cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(patches [groups, T, K], cotangent [groups, T, P]) of one example; K runs over (*kernel, in per group)."""
    groups = use.eqn.params["feature_group_count"]
    windows = jnp.stack(_windows(use, operand), axis=-2)  # [N, *out, kernel, groups * in]
    windows = windows.reshape(-1, windows.shape[-2], groups, windows.shape[-1] // groups)  # [T, kernel, groups, in]
    rows = jnp.transpose(windows, (2, 0, 1, 3)).reshape(groups, windows.shape[0], -1)
    outputs = output_last(use, cotangent)
    cols = jnp.transpose(outputs.reshape(-1, groups, outputs.shape[-1] // groups), (1, 0, 2))
    return rows, cols


def output_last(use: Use, array: jax.Array) -> jax.Array:
    """Output of the convolution as [N, *out, channels]."""
    spec = use.eqn.params["dimension_numbers"].out_spec
    return jnp.transpose(array, (spec[0], *spec[2:], spec[1]))


def padded_input(use: Use, operand: jax.Array) -> jax.Array:
    """Input as [N, *spatial, channels], dilated and padded as the convolution sees it."""
    params = use.eqn.params
    spec = params["dimension_numbers"].lhs_spec
    array = jnp.transpose(operand, (spec[0], *spec[2:], spec[1]))
    borders = [
        (low, high, dilation - 1)
        for (low, high), dilation in zip(params["padding"], params["lhs_dilation"], strict=True)
    ]
    return lax.pad(array, jnp.zeros((), array.dtype), [(0, 0, 0), *borders, (0, 0, 0)])


def _offsets(use: Use) -> list[tuple[int, ...]]:
    """Where each kernel entry reads, relative to its window, in the kernel's own order."""
    params = use.eqn.params
    sizes = [use.shape[axis] for axis in params["dimension_numbers"].rhs_spec[2:]]
    return list(itertools.product(*(range(0, n * d, d) for n, d in zip(sizes, params["rhs_dilation"], strict=True))))


def _out_sizes(use: Use) -> list[int]:
    out = use.eps.shape[len(use.loops) :]
    return [out[axis] for axis in use.eqn.params["dimension_numbers"].out_spec[2:]]


def _stops(use: Use, offset: tuple[int, ...]) -> tuple[int, ...]:
    """Where a strided slice that starts at `offset` ends, to have one entry per output position."""
    steps = use.eqn.params["window_strides"]
    return tuple(o + (n - 1) * s + 1 for o, n, s in zip(offset, _out_sizes(use), steps, strict=True))


def _windows(use: Use, operand: jax.Array) -> list[jax.Array]:
    """What each kernel entry meets: arrays [N, *out, channels], one per kernel entry."""
    array = padded_input(use, operand)
    batch, channels, steps = array.shape[0], array.shape[-1], use.eqn.params["window_strides"]
    return [
        lax.slice(array, (0, *offset, 0), (batch, *_stops(use, offset), channels), (1, *steps, 1))
        for offset in _offsets(use)
    ]


def kernel_shaped(use: Use, grad: jax.Array, num_lead: int) -> jax.Array:
    """Gradient [*lead, groups, K, P] in the kernel's shape [*lead, ...]."""
    spec = use.eqn.params["dimension_numbers"].rhs_spec  # (out, in, *spatial)
    lead = grad.shape[:num_lead]
    groups, out = grad.shape[num_lead], use.shape[spec[0]]
    kernel = [use.shape[axis] for axis in spec[2:]]
    grad = jnp.moveaxis(grad, num_lead, -2).reshape(*lead, *kernel, use.shape[spec[1]], groups, out // groups)
    grad = grad.reshape(*lead, *kernel, use.shape[spec[1]], out)
    axes = [*spec[2:], spec[1], spec[0]]
    order = [num_lead + axes.index(axis) for axis in range(len(axes))]
    return jnp.transpose(grad, [*range(num_lead), *order])


def weighted_sum(
    use: Use, operand: jax.Array, cotangent: jax.Array, stack_loops: tuple[int, ...], time_loops: tuple[int, ...]
) -> jax.Array:
    """Sum over examples and time of the kernel's gradients, by the convolution's own transpose.

    Args:
      operand, cotangent: float32 [*loops, batch, ...].
    """
    params = dict(use.eqn.params)
    dims = params["dimension_numbers"]
    num_loops = len(use.loops)

    def merged(array: jax.Array, batch_axis: int) -> jax.Array:
        """[*time, batch, ...] -> the convolution's layout, every example and step a row of its batch axis."""
        lead = len(time_loops) + 1
        array = jnp.moveaxis(array, lead + batch_axis, lead)
        array = array.reshape(-1, *array.shape[lead + 1 :])
        return jnp.moveaxis(array, 0, batch_axis)

    def one(x: jax.Array, g: jax.Array) -> jax.Array:
        x, g = merged(x, dims.lhs_spec[0]), merged(g, dims.out_spec[0])

        def apply(kernel: Any) -> jax.Array:
            return lax.conv_general_dilated(
                x,
                kernel,
                window_strides=params["window_strides"],
                padding=params["padding"],
                lhs_dilation=params["lhs_dilation"],
                rhs_dilation=params["rhs_dilation"],
                dimension_numbers=dims,
                feature_group_count=params["feature_group_count"],
                precision=lax.Precision.HIGHEST,
            )

        return jax.vjp(apply, jnp.zeros(use.shape, jnp.float32))[1](g)[0]

    order = [*stack_loops, *time_loops, num_loops]
    to_front = lambda array: jnp.transpose(array, [*order, *range(num_loops + 1, array.ndim)])  # noqa: E731
    for _ in stack_loops:
        one = jax.vmap(one)
    return one(to_front(operand), to_front(cotangent))
