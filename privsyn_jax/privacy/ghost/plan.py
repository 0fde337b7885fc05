"""Which way each parameter's norm and sum are taken, and why."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from privsyn_jax.privacy.ghost.norms import compressed_mask
from privsyn_jax.privacy.ghost.trace import Node, Trace, evaluate
from privsyn_jax.privacy.ghost.uses import View, factors, view

# Operations that only move entries: the gradient of the result has the norm of the gradient of the operands, as
# long as no entry is read twice.
_SELECTIONS = {
    "copy", "copy_p", "reshape", "transpose", "squeeze", "expand_dims", "rev", "concatenate",
    "slice", "split",
}  # fmt: skip


class Machine(NamedTuple):
    """What a choice between flops and memory traffic depends on.

    Attributes:
      flops_per_byte: floating-point operations that take as long as moving one byte to or from memory.
      chunk_bytes: intermediate results of this size stay in the cache; None: no need to work in chunks.
    """

    flops_per_byte: float
    chunk_bytes: int | None


MACHINES = {"cpu": Machine(10.0, 2**21), "gpu": Machine(20.0, None), "tpu": Machine(100.0, None)}


@dataclasses.dataclass(frozen=True)
class Piece:
    """A parameter expression with all its uses.

    Attributes:
      node, shape: the expression and its shape, loop axes first.
      views: its uses; positions: their numbers among the trace's uses.
      method: "gradient" (kept per example) | "single" | "masked" | "gram".
      chunk: examples whose norms are taken at once; None for all.
      mask: of method "masked", see norms.compressed_mask.
      reason: for the log.
    """

    node: Node
    shape: tuple[int, ...]
    views: list[View]
    positions: list[int]
    method: str
    reason: str
    chunk: int | None = None
    mask: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    @property
    def row_axes(self) -> tuple[int, ...]:
        """Axes of the rows when uses are set side by side; those of a lookup are given."""
        return next((v.rows for v in self.views if v.use.kind == "gather"), self.views[0].rows)


@dataclasses.dataclass(frozen=True)
class Group:
    """Pieces that share parameters. Unless `is_isometric`, per-example gradients are pulled back to the parameters."""

    params: list[int]
    pieces: list[Piece]
    is_isometric: bool


def make_groups(
    traced: Trace, captured: Sequence[Any], shapes: Sequence[jax.ShapeDtypeStruct], batch_size: int, machine: Machine
) -> list[Group]:
    """Sorts the uses by what they share and picks a method for each parameter expression.

    Args:
      captured: shapes of one example's captured operands, one per use.
      shapes: of the parameters.
    """
    by_key: dict[int, list[tuple[int, View]]] = {}
    for position, use in enumerate(traced.uses):
        seen = view(use)
        by_key.setdefault(seen.node.key, []).append((position, seen))
    bundles = list(by_key.values())
    groups = []
    for members in _connected([bundle[0][1].node.params for bundle in bundles]):
        nodes = [bundles[i][0][1].node for i in members]
        params = sorted(frozenset().union(*(node.params for node in nodes)))
        isometric = all(map(_only_moves, nodes)) and _no_entry_twice(nodes, shapes)
        masked = None if isometric or len(nodes) > 1 else _mask(nodes[0], shapes)
        pieces = []
        for i in members:
            positions, views = map(list, zip(*bundles[i], strict=True))
            pieces.append(_piece(positions, views, captured, isometric, masked, batch_size, machine))
        groups.append(Group(params, pieces, isometric or pieces[0].method == "masked"))
    return groups


def _connected(sets: Sequence[frozenset[int]]) -> list[list[int]]:
    """Numbers of the sets, grouped by shared members."""
    groups: list[tuple[set[int], list[int]]] = []
    for number, members in enumerate(sets):
        touching = [group for group in groups if group[0] & members]
        merged = (set(members).union(*(group[0] for group in touching)), [number])
        for group in touching:
            merged[1].extend(group[1])
        groups = [group for group in groups if all(group is not other for other in touching)] + [merged]
    return [sorted(numbers) for _, numbers in groups]


def _only_moves(node: Node) -> bool:
    if node.kind == "param":
        return True
    moves = node.kind == "slice" or node.is_cast or node.op in _SELECTIONS
    return moves and all(map(_only_moves, node.inputs))


def _no_entry_twice(nodes: Sequence[Node], shapes: Sequence[jax.ShapeDtypeStruct]) -> bool:
    """Whether expressions that only move entries read each parameter entry at most once, all together."""
    if len(nodes) == 1 and nodes[0].kind == "param":
        return True
    params = sorted(frozenset().union(*(node.params for node in nodes)))
    starts = dict(zip(params, np.cumsum([0, *(math.prod(shapes[i].shape) for i in params)]), strict=False))
    numbers = {
        i: starts[i] + np.arange(math.prod(shapes[i].shape), dtype=np.int32).reshape(shapes[i].shape) for i in params
    }
    with jax.ensure_compile_time_eval():
        read = [np.asarray(evaluate(node, numbers, skip_casts=True)).ravel() for node in nodes]
    return bool(np.bincount(np.concatenate(read)).max(initial=0) <= 1)


def _mask(node: Node, shapes: Sequence[jax.ShapeDtypeStruct]) -> np.ndarray | None:
    """The concrete factor, at most 1, of an expression `moved entries of a parameter * constant`, or None."""
    if node.op != "mul":
        return None
    constant = [child for child in node.inputs if not child.params]
    moved = [child for child in node.inputs if child.params]
    if len(constant) != 1 or node.loops or not _only_moves(moved[0]) or not _no_entry_twice(moved, shapes):
        return None
    try:
        with jax.ensure_compile_time_eval():
            value = np.asarray(evaluate(constant[0], []), np.float32)
    except jax.errors.TracerArrayConversionError:
        return None  # the constant is an argument of the caller's jit
    if not np.abs(value).max(initial=0) <= 1:  # a large factor could lift what underflows in `norms.masked_single`
        return None
    shape = jax.eval_shape(lambda leaves: evaluate(moved[0], leaves), list(shapes)).shape
    return np.broadcast_to(value, shape)


def _piece(positions, views: list[View], captured, isometric, mask, batch_size: int, machine: Machine) -> Piece:
    first = views[0]
    shape = (*(first.use.eps.shape[i] for i in first.stack_loops), *first.shape)

    def make(method: str, reason: str, **more: Any) -> Piece:
        return Piece(first.node, shape, views, positions, method, reason, **more)

    if first.use.kind == "tile" and len(views) == 1:
        return make("gradient", "not a matrix operation: the example's own copy")
    if len({v.label for v in views}) > 1 or first.use.kind == "tile":
        return make("gradient", f"used in {len(views)} different ways: gradients per example")
    sizes = _sizes(views, [captured[position] for position in positions])
    if 0 in sizes:
        return make("gradient", "no positions")
    is_product = first.use.kind == "dot" and len(views) == 1 and sizes.length == 1
    if mask is not None and is_product and sizes.stack == 1:
        arranged = np.transpose(mask, [*first.rows, *first.cols]).reshape(sizes.rows, sizes.cols)
        small = compressed_mask(arranged)
        if small[0].size * 4 < arranged.size:
            return make("masked", f"masked by a constant with {small[0].shape} distinct rows and columns", mask=small)
    if not isometric:
        return make("gradient", "a function of parameters: gradients per example, pulled back")
    if is_product:
        return make("single", "one position: the norm is a product")
    costs = _costs(views, sizes, machine)
    method = min(costs, key=lambda name: costs[name])
    modelled = ", ".join(f"{name} {cost / 1e6:.2g}" for name, cost in costs.items())
    reason = f"{sizes.length} positions; modelled Mflop an example: {modelled}"
    # Only patches are worth it: they are many times larger than what they are made of.
    chunk = _chunk(method, sizes, batch_size, machine) if first.use.kind == "conv" else None
    return make(method, reason, chunk=chunk)


class _Sizes(NamedTuple):
    """Of the common form: stack S, all positions T of all uses, rows K, cols P."""

    stack: int
    length: int
    rows: int
    cols: int


def _sizes(views: list[View], captured: Sequence[Any]) -> _Sizes:
    shapes = [
        jax.eval_shape(functools.partial(factors, v), operand, v.use.eps)
        for v, operand in zip(views, captured, strict=True)
    ]
    rows, cols = shapes[0]
    is_lookup = views[0].use.kind == "gather"
    num_rows = math.prod(views[0].shape[axis] for axis in views[0].rows) if is_lookup else rows.shape[2]
    return _Sizes(cols.shape[0], sum(cols.shape[1] for _, cols in shapes), num_rows, cols.shape[2])


def _costs(views: list[View], sizes: _Sizes, machine: Machine) -> dict[str, float]:
    """Flops of an example's norm and share of the sum, by method; memory traffic counts as flops."""
    stack, length, rows, cols = sizes
    is_lookup = views[0].use.kind == "gather"
    moved = 4 * machine.flops_per_byte  # writing or reading one number
    own_sum = stack * length * cols * (moved if is_lookup else 2 * rows)
    return {
        "gradient": own_sum + 3 * stack * rows * cols * moved,
        "gram": own_sum + stack * length**2 * (2 * cols + (0 if is_lookup else 2 * rows) + 3 * moved),
    }


def _chunk(method: str, sizes: _Sizes, batch_size: int, machine: Machine) -> int | None:
    """Examples at a time, so that patches and what is made of them stay in the cache."""
    if machine.chunk_bytes is None:
        return None
    stack, length, rows, cols = sizes
    formed = length * (rows + cols) + (rows * cols if method == "gradient" else 2 * length**2)
    chunk = max(1, machine.chunk_bytes // (4 * stack * formed))
    return None if chunk >= batch_size else chunk
