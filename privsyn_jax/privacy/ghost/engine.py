"""Exact clipped gradient sums from one backward pass, without per-example gradients where their norms are cheaper."""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from privsyn_jax.privacy.ghost import norms
from privsyn_jax.privacy.ghost.plan import MACHINES, Group, Machine, Piece, make_groups
from privsyn_jax.privacy.ghost.trace import Trace, evaluate, has_conv, trace
from privsyn_jax.privacy.ghost.uses import factors, gradient, weighted_sum


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a loss is differentiated: see `lines`."""

    traced: Trace
    groups: list[Group]
    names: list[str]

    @property
    def saves_gradients(self) -> bool:
        """Whether any parameter's use is a matrix operation: otherwise this is vmap by other means."""
        return any(v.use.kind != "tile" for group in self.groups for piece in group.pieces for v in piece.views)

    @property
    def kept_bytes_per_example(self) -> int:
        """Per-example gradients that are formed and kept until the norms are known."""
        kept = [piece.shape for group in self.groups for piece in group.pieces if piece.method == "gradient"]
        return 4 * sum(math.prod(shape) for shape in kept)

    @property
    def activation_bytes_per_example(self) -> int:
        """About what the matrix uses read and write."""
        return 8 * sum(math.prod(use.eps.shape) for use in self.traced.uses if use.kind != "tile")

    @property
    def has_conv(self) -> bool:
        """Whether the loss convolves anything."""
        return has_conv(self.traced.closed_jaxpr.jaxpr)

    @property
    def headline(self) -> str:
        """How many parameter expressions are done which way."""
        counts = collections.Counter(piece.method for group in self.groups for piece in group.pieces)
        return "ghost (" + ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) + ")"

    def lines(self) -> list[str]:
        """One line per parameter expression: what it is, how it is done, why."""
        return [
            f"{' + '.join(self.names[i] for i in sorted(piece.node.params))} {list(piece.shape)}: {piece.method} "
            f"({piece.reason}{f'; {piece.chunk} examples at a time' if piece.chunk else ''})"
            for group in self.groups
            for piece in group.pieces
        ]


class Gradients(NamedTuple):
    """Per-example norms, and a function that sums the examples' gradients with weights."""

    losses: jax.Array  # [batch]
    norms: jax.Array  # [batch]
    weighted_sum: Callable[[jax.Array, jax.Array], Any]  # (weights, counted) -> pytree like the parameters


def make_plan(loss: Callable[..., jax.Array], params: Any, inputs: Any, *, machine: Machine | None = None) -> Plan:
    """Traces loss(params, *inputs) on batched inputs and decides.

    Args:
      inputs: tuple of pytrees [batch, ...] (arrays or shapes).
    """
    if machine is None:
        machine = MACHINES.get(jax.default_backend(), MACHINES["gpu"])
    paths, tree = jax.tree.flatten_with_path(params)
    leaves = [jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)) for _, leaf in paths]
    flat_inputs, input_tree = jax.tree.flatten(inputs)
    batch_size = flat_inputs[0].shape[0]

    def flat_loss(*args):
        return loss(jax.tree.unflatten(tree, args[: len(leaves)]), *jax.tree.unflatten(input_tree, args[len(leaves) :]))

    example = [jax.ShapeDtypeStruct(value.shape[1:], value.dtype) for value in flat_inputs]
    traced = trace(flat_loss, leaves, example)
    eps = [use.eps for use in traced.uses]
    _, captured = jax.eval_shape(traced.capture, leaves, eps, example)
    groups = make_groups(traced, captured, leaves, batch_size, machine)
    return Plan(traced, groups, [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths])


def contains_conv(loss: Callable[..., jax.Array], params: Any, inputs: Any) -> bool:
    """Whether the loss of one example convolves anything."""
    example = jax.tree.map(lambda value: jax.ShapeDtypeStruct(value.shape[1:], value.dtype), inputs)
    return has_conv(jax.make_jaxpr(loss)(params, *example).jaxpr)


def per_example(plan: Plan, params: Any, inputs: Any) -> Gradients:
    """Losses and gradient norms of every example of a batch, from one forward and one backward pass."""
    leaves, tree = jax.tree.flatten(jax.tree.map(jnp.asarray, params))
    flat_inputs = jax.tree.leaves(inputs)
    batch_size = flat_inputs[0].shape[0]
    uses = plan.traced.uses
    example_axes = [len(use.loops) for use in uses]  # after the loop axes: a scan stacks its steps there unmoved
    eps = [
        jnp.zeros((*use.eps.shape[:axis], batch_size, *use.eps.shape[axis:]), use.eps.dtype)
        for use, axis in zip(uses, example_axes, strict=True)
    ]

    def total(eps):
        one = lambda eps, inputs: plan.traced.capture(leaves, eps, inputs)  # noqa: E731
        losses, captured = jax.vmap(one, in_axes=(example_axes, 0), out_axes=(0, example_axes))(eps, flat_inputs)
        return losses.astype(jnp.float32).sum(), (losses, captured)

    cotangents, (losses, captured) = jax.grad(total, has_aux=True)(eps)
    squares, kept = jnp.zeros(batch_size), {}
    for group in plan.groups:
        group_squares, group_kept = _group_norms(group, leaves, captured, cotangents)
        squares = squares + group_squares
        kept.update(group_kept)

    def summed(weights, counted):
        return jax.tree.unflatten(tree, _sums(plan, leaves, captured, cotangents, kept, weights, counted))

    return Gradients(losses, jnp.sqrt(squares), summed)


def _group_norms(group: Group, leaves, captured, cotangents) -> tuple[jax.Array, dict[Any, jax.Array]]:
    """Squared norms [batch]; kept gradients by piece (its first position) or, pulled back, by ("leaf", index)."""
    results = [_piece_norms(piece, captured, cotangents, pulled_back=not group.is_isometric) for piece in group.pieces]
    if group.is_isometric:
        kept = {piece.positions[0]: grads for piece, (_, grads) in zip(group.pieces, results, strict=True)}
        return jnp.sum(jnp.stack([squares for squares, _ in results]), axis=0), {
            key: grads for key, grads in kept.items() if grads is not None
        }
    nodes = [piece.node for piece in group.pieces]
    own = {index: leaves[index] for index in group.params}

    def pulled(grads):
        values, pull_back = jax.vjp(lambda own: [evaluate(node, own) for node in nodes], own)
        (of_leaves,) = pull_back([grad.astype(value.dtype) for grad, value in zip(grads, values, strict=True)])
        return jax.tree.map(lambda grad: grad.astype(jnp.float32), of_leaves)

    of_leaves = jax.vmap(pulled)([grads for _, grads in results])
    squares = [jnp.sum(jnp.square(grad), axis=tuple(range(1, grad.ndim))) for grad in of_leaves.values()]
    return jnp.sum(jnp.stack(squares), axis=0), {("leaf", index): grad for index, grad in of_leaves.items()}


def _piece_norms(piece: Piece, captured, cotangents, *, pulled_back: bool) -> tuple[jax.Array, jax.Array | None]:
    """(squared norms [batch], gradients [batch, ...] or None) of a piece."""
    arguments = [(captured[i], cotangents[i]) for i in piece.positions]
    axes = [len(v.use.loops) for v in piece.views]

    def one(arguments):
        pairs = list(zip(piece.views, arguments, strict=True))
        if piece.method == "gradient":
            grad = sum(gradient(v, *argument) for v, argument in pairs)
            return jnp.float32(0) if pulled_back else jnp.sum(jnp.square(grad)), grad
        split = [_oriented(piece.row_axes, v, *factors(v, *argument)) for v, argument in pairs]
        if piece.method == "single":
            return norms.single(*split[0]), None
        if piece.mask is not None:
            return norms.masked_single(*split[0], *map(jnp.asarray, piece.mask)), None
        return norms.gram(split), None

    return _mapped(one, arguments, axes, piece.chunk)


def _oriented(row_axes, v, rows, cols):
    """Factors whose rows run over the given axes: a matrix and its transpose swap them."""
    return (rows, cols) if v.rows == row_axes else (cols, rows)


def _mapped(one: Callable[[Any], Any], arguments: Any, axes: Sequence[int], chunk: int | None) -> Any:
    """one() over the example axis, in chunks that stay in the cache."""
    if chunk is None:
        return jax.vmap(one, in_axes=([(axis, axis) for axis in axes],))(arguments)
    in_front = [
        tuple(jax.tree.map(lambda array, axis=axis: jnp.moveaxis(array, axis, 0), pair))
        for pair, axis in zip(arguments, axes, strict=True)
    ]
    return jax.lax.map(one, in_front, batch_size=chunk)


def _sums(plan: Plan, leaves, captured, cotangents, kept, weights, counted) -> list[jax.Array]:
    """Sum over examples of weights * gradients, per parameter, float32. What is not counted may hold NaN."""
    totals: list[Any] = [jnp.zeros(jnp.shape(leaf), jnp.float32) for leaf in leaves]
    for group in plan.groups:
        if not group.is_isometric:
            for index in group.params:
                totals[index] = _contracted(weights, counted, kept["leaf", index])
            continue
        sums = [_piece_sum(piece, captured, cotangents, kept, weights, counted) for piece in group.pieces]
        nodes = [piece.node for piece in group.pieces]
        own = {index: jnp.zeros(jnp.shape(leaves[index]), jnp.float32) for index in group.params}
        _, pull_back = jax.vjp(functools.partial(_values, nodes), own)
        for index, total in pull_back(sums)[0].items():
            totals[index] = total
    return totals


def _values(nodes, leaves):
    return [evaluate(node, leaves, skip_casts=True) for node in nodes]


def _piece_sum(piece: Piece, captured, cotangents, kept, weights, counted) -> jax.Array:
    grads = kept.get(piece.positions[0])
    if grads is not None and any(v.use.kind != "tile" for v in piece.views):
        return _contracted(weights, counted, grads)
    total: Any = 0.0
    for v, position in zip(piece.views, piece.positions, strict=True):
        operand, cotangent = captured[position], cotangents[position]
        cotangent = _only(counted, cotangent.astype(jnp.float32), v.num_loops)
        cotangent = cotangent * _along(weights, cotangent, v.num_loops)
        if v.use.kind == "tile":
            total = total + jnp.sum(cotangent, axis=v.num_loops)
            continue
        if jnp.issubdtype(operand.dtype, jnp.floating):
            operand = _only(counted, operand.astype(jnp.float32), v.num_loops)
        total = total + weighted_sum(v, operand, cotangent)
    return total


def _contracted(weights: jax.Array, counted: jax.Array, grads: jax.Array) -> jax.Array:
    """Sum of weights[i] * grads[i] over the counted examples."""
    flat = jnp.where(counted[:, None], grads.reshape(len(weights), math.prod(grads.shape[1:])), 0.0)
    return jnp.matmul(weights, flat, precision=norms.HIGHEST).reshape(grads.shape[1:])


def _along(values: jax.Array, array: jax.Array, axis: int) -> jax.Array:
    return values.reshape([-1 if i == axis else 1 for i in range(array.ndim)])


def _only(counted: jax.Array, array: jax.Array, axis: int) -> jax.Array:
    """A zero weight does not remove a NaN (0 * NaN = NaN), so rows that do not count are replaced."""
    return jnp.where(_along(counted, array, axis), array, 0)
