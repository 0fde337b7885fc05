"""Ghost norms and sums beside those of vmap(grad), with every way of taking a norm forced in turn."""

import functools
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from privsyn_jax.privacy import ghost
from privsyn_jax.privacy.ghost import plan as plan_module

BATCH = 3
TOLERANCE = 1e-5
ROOT = 11
# What is tested is arithmetic, not speed.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
# Machines: one whose caches hold next to nothing, so that norms are taken one example at a time, and one without.
WAYS = [
    (method, machine)
    for machine in (plan_module.Machine(10.0, None), plan_module.Machine(10.0, 100))
    for method in ("gram", "gradient")
]
_costs = plan_module._costs


class Case(NamedTuple):
    """loss(params, example, key), with params {"private", "public"} and examples [BATCH, ...]."""

    loss: Any
    private: Any
    examples: Any
    public: Any = None
    tolerance: float = TOLERANCE

    @property
    def params(self) -> dict[str, Any]:
        return {"private": self.private, "public": self.public}

    @property
    def batch_size(self) -> int:
        return len(jax.tree.leaves(self.examples)[0])


def forced(method: str):
    """Patches the planner so that `method` is taken wherever it can be."""

    def costs(*args):
        return {method: _costs(*args)[method]}

    return mock.patch.object(plan_module, "_costs", costs)


def draw_keys(batch_size: int) -> jax.Array:
    return jax.vmap(lambda i: jax.random.fold_in(jax.random.key(ROOT), i))(jnp.arange(batch_size))


def plans(case: Case, params: Any, examples: Any) -> list[ghost.Plan]:
    """One plan per way that differs from the others for this loss; call it where `params` are what the loss sees."""
    loss = lambda private, example, key: case.loss({**params, "private": private}, example, key)  # noqa: E731
    distinct = {}
    for method, machine in WAYS:
        with forced(method):
            plan = ghost.make_plan(loss, params["private"], (examples, draw_keys(case.batch_size)), machine=machine)
        pieces = tuple((piece.method, piece.chunk) for group in plan.groups for piece in group.pieces)
        distinct.setdefault(pieces, plan)
    return list(distinct.values())


def methods(case: Case) -> set[str]:
    """Names of all methods that the plans of a case come to."""
    found = plans(case, case.params, case.examples)
    return {piece.method for plan in found for group in plan.groups for piece in group.pieces}


def flat(tree: Any, lead: int = 0) -> np.ndarray:
    """float64 [*lead axes, size]."""
    parts = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]
    return np.concatenate([part.reshape(*part.shape[:lead], -1) for part in parts], axis=-1)


def check(case: Case) -> None:
    """Asserts that norms, sums and losses are those of vmap, example by example and leaf by leaf."""

    @quick_jit
    def everything(params, examples):
        def loss(private, example, key):
            return case.loss({**params, "private": private}, example, key)

        keys = draw_keys(case.batch_size)
        reference = jax.vmap(jax.value_and_grad(loss), in_axes=(None, 0, 0))(params["private"], examples, keys)
        results = []
        for plan in plans(case, params, examples):
            got = ghost.per_example(plan, params["private"], (examples, draw_keys(case.batch_size)))
            results.append((got.losses, got.norms, got.weighted_sum(weights, jnp.ones(case.batch_size, bool))))
        return reference, results

    weights = np.linspace(0.5, 1.0, case.batch_size, dtype=np.float32)
    (losses, grads), results = everything(case.params, case.examples)
    norms = np.linalg.norm(flat(grads, 1), axis=1)
    assert results
    for got_losses, got_norms, got_sum in results:
        np.testing.assert_allclose(got_losses, losses, rtol=case.tolerance, atol=1e-6)
        np.testing.assert_allclose(got_norms, norms, rtol=case.tolerance, atol=1e-6)
        assert jax.tree.structure(got_sum) == jax.tree.structure(case.private)
        for rows, total in zip(jax.tree.leaves(grads), jax.tree.leaves(got_sum), strict=True):
            assert total.dtype == jnp.float32 and total.shape == rows.shape[1:]
            weighted = np.asarray(rows, np.float64).reshape(case.batch_size, -1) * weights[:, None]
            error = np.linalg.norm(flat(total) - weighted.sum(axis=0))
            assert error <= case.tolerance * np.linalg.norm(weighted, axis=1).sum() + 1e-6 * norms.max()


def draw(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    """Standard normal float32."""
    return (scale * np.random.default_rng([seed, *shape]).standard_normal(shape)).astype(np.float32)


def filled(shapes: Any) -> Any:
    """Random values for a pytree of shapes."""
    leaves, tree = jax.tree.flatten(shapes)
    return jax.tree.unflatten(tree, [draw(*leaf.shape, seed=i, scale=0.5) for i, leaf in enumerate(leaves)])


def of_module(module: Any, *example: Any, read=jnp.sin) -> Case:
    """A flax module on one example, given as a shape or as [BATCH, ...] of ints."""
    examples = tuple(draw(BATCH, *shape) if isinstance(shape, tuple) else shape for shape in example)
    one = [jax.ShapeDtypeStruct(array.shape[1:], array.dtype) for array in examples]
    private = filled(jax.eval_shape(module.init, jax.random.key(0), *one)["params"])
    return Case(
        lambda params, inputs, key: jnp.sum(read(module.apply({"params": params["private"]}, *inputs))),
        private,
        examples,
    )
