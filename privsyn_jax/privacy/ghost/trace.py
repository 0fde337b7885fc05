"""Every use of a parameter in a per-example loss, found by interpreting its jaxpr.

The only file that walks jaxprs and binds primitives. Others read no more of JAX than the parameters of the dot,
convolution and lookup equations that it hands on.

Values that depend on parameters and constants alone are `Static`: they carry an expression (a `Node`) that says
how they come about, so that a gradient with respect to them can be pulled back to the parameters. Where a static
value meets the example there is a `Use`. A dot product, a convolution and a row lookup are recognised: a zero
`eps` is added to the output, so the cotangent of `eps` is the output's, and the other operand is captured. Every
other operation gets the static value plus a zero `eps` of its own shape: the cotangent is then the example's
gradient itself. Either way nothing about the function changes, and no use goes unseen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

_INLINED = {"jit", "pjit", "closed_call", "core_call"}
_CHECKPOINTS = {"checkpoint", "remat", "remat2"}


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """An expression in parameters and constants.

    Attributes:
      key: equal for expressions that are the same by construction; of the interpreter that made the node.
      params: indices of the parameters in it.
      loops: numbers of the scans whose step it is sliced by, outermost first.
      kind: "param" | "const" | "slice" (of one step of the last loop) | "op".
    """

    kind: str
    key: int
    params: frozenset[int]
    loops: tuple[int, ...] = ()
    value: Any = None  # const: the array; param: its index
    inputs: tuple[Node, ...] = ()
    eqn: Any = None  # op
    output: int = 0  # op: which of the equation's results

    @property
    def op(self) -> str:
        """Name of the primitive, "" for a leaf."""
        return self.eqn.primitive.name if self.kind == "op" else ""

    @property
    def is_cast(self) -> bool:
        """Whether this is another expression in another floating-point precision."""
        return self.op == "convert_element_type" and all(
            jnp.issubdtype(atom.aval.dtype, jnp.floating) for atom in (*self.eqn.invars, *self.eqn.outvars)
        )


@dataclasses.dataclass(frozen=True)
class Static:
    """A value together with its expression."""

    node: Node
    value: Any


@dataclasses.dataclass(frozen=True)
class Use:
    """One place where a parameter expression meets the example.

    Attributes:
      kind: "dot" | "conv" | "gather" | "tile".
      node: the expression.
      shape: of the expression's value, without loop axes.
      eqn: the equation; its operand number `position` is the expression. None for "tile".
      loops: numbers of the scans around, outermost first; those in node.loops step through the parameter as well.
      eps: shape and dtype of the perturbation, loop axes first.
    """

    kind: str
    node: Node
    shape: tuple[int, ...]
    eqn: Any
    position: int
    loops: tuple[int, ...]
    eps: jax.ShapeDtypeStruct


class Body(NamedTuple):
    """How many uses and further bodies the body of a scan or a checkpoint holds."""

    num_uses: int
    num_bodies: int


@dataclasses.dataclass(frozen=True)
class Trace:
    """A loss taken apart: call `capture` to run it."""

    closed_jaxpr: Any
    uses: list[Use]
    bodies: list[Body]  # of scans and checkpoints, in the order of the interpretation

    def capture(self, leaves: Sequence[Any], eps: Sequence[Any], inputs: Sequence[Any]) -> tuple[Any, list[Any]]:
        """The loss of one example, and per use the operand that meets the parameter (loop axes first)."""
        interpreter = _Interpreter(eps, self)
        return interpreter.run_loss(self.closed_jaxpr, leaves, inputs), interpreter.captured


def trace(loss: Callable[..., jax.Array], leaves: Sequence[Any], inputs: Sequence[Any]) -> Trace:
    """Interprets loss(*leaves, *inputs) -> scalar once, on shapes.

    Args:
      leaves: parameters (arrays or shapes).
      inputs: flat inputs of one example, its key included (arrays or shapes).
    """
    shapes = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves]
    closed_jaxpr = jax.make_jaxpr(loss)(*shapes, *inputs)
    interpreter = _Interpreter()
    jax.eval_shape(lambda *args: interpreter.run_loss(closed_jaxpr, *args), shapes, list(inputs))
    return Trace(closed_jaxpr, interpreter.uses, interpreter.bodies)


def evaluate(node: Node, leaves: Sequence[Any] | dict[int, Any], *, skip_casts: bool = False) -> Any:
    """Value of an expression, with one leading axis per loop in node.loops.

    Args:
      leaves: parameters by index.
      skip_casts: leaves out conversions of dtype, for expressions that only move entries or scale them.
    """
    known: dict[int, Any] = {}  # by id: an expression may be read many times

    def value_of(node: Node) -> Any:
        if id(node) not in known:
            known[id(node)] = compute(node)
        return known[id(node)]

    def compute(node: Node) -> Any:
        if node.kind in ("param", "const"):
            return leaves[node.value] if node.kind == "param" else node.value
        if skip_casts and not node.params:
            return evaluate(node, leaves)
        values = [value_of(child) for child in node.inputs]
        if node.kind == "slice" or (skip_casts and node.is_cast):
            return values[0]

        def function(*operands):
            if skip_casts and node.op == "mul":
                return jnp.multiply(*(operand.astype(jnp.float32) for operand in operands))
            return _bind(node.eqn, operands)[node.output]

        for loop in reversed(node.loops):
            function = jax.vmap(function, in_axes=tuple(0 if loop in child.loops else None for child in node.inputs))
        return function(*values)

    return value_of(node)


def varying_axes(value: Any) -> frozenset[str]:
    """Device axes over which a value is known to differ; empty outside of shard_map(check_vma=True)."""
    return frozenset(jax.typeof(value).manual_axis_type.varying)


def has_conv(jaxpr: Any) -> bool:
    """Whether a convolution occurs anywhere in a jaxpr."""
    return any(
        eqn.primitive.name == "conv_general_dilated"
        or any(has_conv(inner) for inner in core.jaxprs_in_params(eqn.params))
        for eqn in jaxpr.eqns
    )


def _bind(eqn: Any, operands: Sequence[Any]) -> list[Any]:
    with eqn.ctx.manager:
        results = eqn.primitive.bind(*operands, **eqn.primitive.get_bind_params(eqn.params))
    return list(results) if eqn.primitive.multiple_results else [results]


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Static) else value


def _has_gradient(eqn: Any, value: Any) -> bool:
    return eqn.primitive.name != "stop_gradient" and jnp.issubdtype(value.dtype, jnp.inexact)


def _holds_params(value: Any) -> bool:
    return isinstance(value, Static) and bool(value.node.params)


class _Interpreter:
    """Runs a jaxpr on static and plain values. Without a Trace it notes the uses, with one it perturbs them."""

    def __init__(self, eps: Sequence[Any] = (), known: Trace | None = None, first_use: int = 0, first_body: int = 0):
        self.eps = iter(eps)
        self.known = known
        self.uses: list[Use] = []
        self.bodies: list[Body] = []
        self.captured: list[Any] = []
        self._first_use = first_use
        self._next_body = first_body
        self._loops: tuple[tuple[int, int], ...] = ()  # (number, length) of the scans around
        self._keys: dict[Any, int] = {}

    def run_loss(self, closed_jaxpr: Any, leaves: Sequence[Any], inputs: Sequence[Any]) -> Any:
        params = [
            Static(self._node("param", index, params=frozenset([index]), value=index), leaf)
            for index, leaf in enumerate(leaves)
        ]
        (loss,) = self.run_closed(closed_jaxpr, [*params, *inputs])
        return self._tiled(loss)

    def _node(self, kind: str, identity: Any, *, params: frozenset[int] = frozenset(), **more: Any) -> Node:
        """A node whose key is that of every node of the same identity."""
        try:
            key = self._keys.setdefault((kind, identity), len(self._keys))
        except TypeError:  # unhashable: a node of its own
            key = self._keys.setdefault(object(), len(self._keys))
        return Node(kind, key, params, **more)

    def _constant(self, value: Any) -> Static:
        is_number = isinstance(value, (bool, int, float, complex, np.generic)) or (
            isinstance(value, np.ndarray) and value.ndim == 0
        )
        identity = (str(jnp.result_type(value)), str(value)) if is_number else id(value)
        return Static(self._node("const", identity, value=value), value)

    def _step_of(self, whole: Static, loop: int, value: Any) -> Static:
        source = whole.node
        loops = (*source.loops, loop)
        node = self._node("slice", (loop, source.key), params=source.params, loops=loops, inputs=(source,))
        return Static(node, value)

    def _applied(self, eqn: Any, operands: Sequence[Static], values: Sequence[Any]) -> list[Any]:
        """Results of an operation on static values; without a gradient, they are as good as the example's."""
        nodes = tuple(operand.node for operand in operands)
        params = frozenset().union(*(node.params for node in nodes))
        loops = tuple(sorted(set().union(*(node.loops for node in nodes))))
        identity = (eqn.primitive, tuple(sorted(eqn.params.items())), *(node.key for node in nodes))
        return [
            Static(self._node("op", (*identity, i), params=params, loops=loops, inputs=nodes, eqn=eqn, output=i), value)
            if not params or _has_gradient(eqn, value)
            else value
            for i, value in enumerate(values)
        ]

    def run_closed(self, closed_jaxpr: Any, args: Sequence[Any]) -> list[Any]:
        if not isinstance(closed_jaxpr, core.ClosedJaxpr):
            return self._run(closed_jaxpr, args)
        return self._run(closed_jaxpr.jaxpr, [*map(self._constant, closed_jaxpr.consts), *args])

    def _run(self, jaxpr: Any, args: Sequence[Any]) -> list[Any]:
        env: dict[Any, Any] = {}

        def read(atom):
            return self._constant(atom.val) if isinstance(atom, core.Literal) else env[atom]

        env.update(zip([*jaxpr.constvars, *jaxpr.invars], args, strict=True))
        for eqn in jaxpr.eqns:
            env.update(zip(eqn.outvars, self._equation(eqn, [read(atom) for atom in eqn.invars]), strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _equation(self, eqn: Any, operands: list[Any]) -> list[Any]:
        name = eqn.primitive.name
        if all(isinstance(operand, Static) for operand in operands) and not eqn.effects:
            return self._applied(eqn, operands, _bind(eqn, [operand.value for operand in operands]))
        if not any(map(_holds_params, operands)):
            return _bind(eqn, [_plain(operand) for operand in operands])
        if name in _CHECKPOINTS:
            return self._checkpoint(eqn, operands)
        if name in _INLINED:
            return self.run_closed(eqn.params["jaxpr"] if "jaxpr" in eqn.params else eqn.params["call_jaxpr"], operands)
        if name == "scan":
            return self._scan(eqn, operands)
        kind = _matrix_use(eqn, operands)
        if kind is None:
            return _bind(eqn, [self._tiled(operand) for operand in operands])
        position = [_holds_params(operand) for operand in operands].index(True)
        (out,) = _bind(eqn, [_plain(operand) for operand in operands])
        return [self._used(kind, operands[position], eqn, position, _plain(operands[1 - position]), out)]

    def _used(self, kind: str, static: Static, eqn: Any, position: int, operand: Any, out: Any) -> Any:
        if self.known is not None:
            self.captured.append(operand)
            return out + next(self.eps)
        lengths = tuple(length for _, length in self._loops)
        eps = jax.ShapeDtypeStruct((*lengths, *out.shape), out.dtype)
        loops = tuple(number for number, _ in self._loops)
        self.uses.append(Use(kind, static.node, static.value.shape, eqn, position, loops, eps))
        return out

    def _tiled(self, value: Any) -> Any:
        """A static value as one of the example's own: its eps has loop axes only where the expression has."""
        if not _holds_params(value):
            return _plain(value)
        if self.known is not None:
            self.captured.append(())
            return value.value + next(self.eps)
        lengths = dict(self._loops)
        shape = (*(lengths[loop] for loop in value.node.loops), *value.value.shape)
        eps = jax.ShapeDtypeStruct(shape, value.value.dtype)
        self.uses.append(Use("tile", value.node, value.value.shape, None, 0, value.node.loops, eps))
        return value.value

    def _noting(self, run: Callable[[], Any]) -> Any:
        """Runs a body, and notes how many uses and bodies it holds."""
        number, uses_before = len(self.bodies), len(self.uses)
        self.bodies.append(Body(0, 0))
        results = run()
        self.bodies[number] = Body(len(self.uses) - uses_before, len(self.bodies) - number - 1)
        return results

    def _entering(self) -> tuple[list[Use], list[Any], Callable[[Sequence[Any]], _Interpreter]]:
        """Uses and eps of the next body, and what makes its interpreter; a body may be traced several times."""
        assert self.known is not None
        number, first_use = self._next_body, self._first_use + len(self.captured)
        body = self.known.bodies[number]
        uses = self.known.uses[first_use : first_use + body.num_uses]
        eps = [next(self.eps) for _ in uses]
        self._next_body += 1 + body.num_bodies
        return uses, eps, lambda eps: _Interpreter(eps, self.known, first_use, number + 1)

    def _checkpoint(self, eqn: Any, operands: list[Any]) -> list[Any]:
        """Keeps the checkpoint: only captured operands outlive the forward pass."""
        if self.known is None:
            return self._noting(lambda: self.run_closed(eqn.params["jaxpr"], operands))
        _, eps, interpreter = self._entering()
        plain = [None if isinstance(operand, Static) else operand for operand in operands]
        nodes: dict[int, Node] = {}

        def body(eps, plain):
            inner = interpreter(eps)
            args = [value if value is not None else operand for value, operand in zip(plain, operands, strict=True)]
            results = inner.run_closed(eqn.params["jaxpr"], args)
            nodes.update({i: result.node for i, result in enumerate(results) if isinstance(result, Static)})
            return [_plain(result) for result in results], inner.captured

        checkpointed = jax.checkpoint(body, policy=eqn.params["policy"], prevent_cse=eqn.params["prevent_cse"])
        results, captured = checkpointed(eps, plain)
        self.captured.extend(captured)
        return [Static(nodes[i], value) if i in nodes else value for i, value in enumerate(results)]

    def _scan(self, eqn: Any, operands: list[Any]) -> list[Any]:
        """Parameters may be constants of a scan (used again in every step) or stepped through; not carried."""
        length = eqn.params["length"]
        first_carry, num_carry = _num_consts_and_carry(eqn)
        first_step = first_carry + num_carry
        consts, steps = operands[:first_carry], operands[first_step:]
        carry = [self._tiled(value) for value in operands[first_carry:first_step]]
        number = self._next_body if self.known is not None else len(self.bodies)

        def body(interpreter, carry, step):
            step = [
                interpreter._step_of(whole, number, value) if isinstance(whole, Static) else value
                for whole, value in zip(steps, step, strict=True)
            ]
            results = interpreter.run_closed(eqn.params["jaxpr"], [*consts, *carry, *step])
            return [interpreter._tiled(result) for result in results]

        plain_steps = [_plain(value) for value in steps]
        if self.known is None:
            outer, self._loops = self._loops, (*self._loops, (number, length))
            one = [jax.ShapeDtypeStruct(value.shape[1:], value.dtype) for value in plain_steps]
            self._noting(lambda: jax.eval_shape(lambda *args: body(self, *args), carry, one))
            self._loops = outer
            return _bind(eqn, [_plain(operand) for operand in operands])

        uses, eps, interpreter = self._entering()
        own_eps = [e if number in use.loops else None for use, e in zip(uses, eps, strict=True)]

        def step_once(carry, step_and_eps):
            step, step_eps = step_and_eps
            inner = interpreter([shared if e is None else e for e, shared in zip(step_eps, eps, strict=True)])
            results = body(inner, carry, step)
            return results[:num_carry], (results[num_carry:], inner.captured)

        final, (stacked, captured) = jax.lax.scan(
            step_once, carry, (plain_steps, own_eps), length, eqn.params["reverse"], eqn.params["unroll"]
        )
        self.captured.extend(captured)
        return [*final, *stacked]


def _num_consts_and_carry(eqn: Any) -> tuple[int, int]:
    """Of a scan's operands; from JAX 0.12 they are a tree of three parts."""
    if "num_carry" in eqn.params:
        return eqn.params["num_consts"], eqn.params["num_carry"]
    consts, carry, _ = eqn.params["ft_in"].unpack()
    return len(consts), len(carry)


def _matrix_use(eqn: Any, operands: Sequence[Any]) -> str | None:
    """Which matrix operation this is with exactly one operand that holds parameters, or None."""
    held = [i for i, operand in enumerate(operands) if _holds_params(operand)]
    name, weight = eqn.primitive.name, operands[held[0]].value
    if len(held) != 1 or not jnp.issubdtype(weight.dtype, jnp.floating):
        return None
    if name == "dot_general":
        return "dot"
    if name == "conv_general_dilated" and held == [1] and eqn.params["batch_group_count"] == 1:
        return "conv"
    if name == "gather" and held == [0] and _looks_up_rows(eqn.params, weight.shape):
        return "gather"
    return None


def _looks_up_rows(params: dict[str, Any], shape: tuple[int, ...]) -> bool:
    """Whether a gather picks whole slices by an index into the leading axes."""
    dims = params["dimension_numbers"]
    leading = tuple(range(len(dims.start_index_map)))
    return (
        tuple(dims.start_index_map) == leading
        and tuple(dims.collapsed_slice_dims) == leading
        and not dims.operand_batching_dims
        and tuple(params["slice_sizes"]) == (*(1 for _ in leading), *shape[len(leading) :])
    )
