"""A Bayesian network over columns of codes, as parameters: each column given its parents, p(x) = prod_j p(x_j | pa_j).

params["public"] = {"order": int32 [d], "parents": int32 [d, d], "tables": {"0": float32 [rows_0, k_0], ...}}: columns
in the order of `order`; row j of `parents` holds the parents of column j, all of them earlier in the order, then -1;
row r of a table is the distribution of the column where its parents' codes, read as the digits of a number, are r.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import opt_einsum

from privsyn_jax.types import Generator, Params

_DRAWN_AT_ONCE = 1_000_000  # rows times codes
_SMALLEST = 1e-12  # probability, in the likelihood


def network_params(order: Sequence[int], given: Mapping[int, tuple[tuple[int, ...], np.ndarray]]) -> Params:
    """Parameters of a network.

    Args:
      order: of the columns; parents come before their children.
      given: column -> (parents, counts [*sizes of the parents, k]), non-negative. Where a row holds nothing the column
        is drawn by the sum of all rows.
    """
    parents, tables = np.full((len(order), len(order)), -1, np.int32), {}
    for column, (its_parents, counts) in given.items():
        parents[column, : len(its_parents)] = its_parents
        tables[str(column)] = _conditional(np.asarray(counts, np.float64).reshape(-1, counts.shape[-1]))
    return {"private": {}, "public": {"order": np.asarray(order, np.int32), "parents": parents, "tables": tables}}


def _conditional(counts: np.ndarray) -> np.ndarray:
    """float32 [rows, k]: every row adds up to 1."""
    whole = counts.sum(axis=0)
    whole = whole / whole.sum() if whole.sum() > 0 else np.full(len(whole), 1 / len(whole))
    totals = counts.sum(axis=1, keepdims=True)
    return np.where(totals > 0, counts / np.where(totals > 0, totals, 1.0), whole).astype(np.float32)


def network_generator(cardinalities: Sequence[int], calibrate: Any) -> Generator:
    """A generator whose parameters are a network, learned from purchased marginals by `calibrate` and in no other way.

    It starts with columns that are independent, each of its codes as likely as the other.
    """
    sizes = tuple(cardinalities)

    def init(key: jax.Array) -> Params:
        del key
        return network_params(range(len(sizes)), {j: ((), np.ones(size)) for j, size in enumerate(sizes)})

    return Generator(
        init=init,
        private_loss=None,
        public_loss=None,
        calibrate=calibrate,
        sample=functools.partial(_sample, sizes),
        exact_conditions=lambda columns: (),
        negative_log_likelihood=functools.partial(_negative_log_likelihood, sizes),
    )


def marginal(params: Params, columns: Sequence[int], *, total: float = 1.0) -> np.ndarray:
    """The network's own table of some columns, an axis for each in their order: exact, by elimination of the others."""
    factors, scopes = [], []
    for column, (parents, table) in _given(params).items():
        factors.append(table)
        scopes.append((*parents, column))
    factors, scopes = _relevant(factors, scopes, columns)
    operands = [part for pair in zip(factors, scopes, strict=True) for part in pair]
    return total * np.asarray(opt_einsum.contract(*operands, tuple(columns), optimize="greedy"))


def _relevant(factors: list[np.ndarray], scopes: list[tuple[int, ...]], columns: Sequence[int]):
    """The columns and their ancestors: what no one else depends on sums to one."""
    wanted, scope_of = set(columns), {scope[-1]: scope for scope in scopes}
    while more := {parent for column in wanted for parent in scope_of[column]} - wanted:
        wanted |= more
    kept = [number for number, scope in enumerate(scopes) if scope[-1] in wanted]
    return [factors[number] for number in kept], [scopes[number] for number in kept]


def _given(params: Params) -> dict[int, tuple[tuple[int, ...], np.ndarray]]:
    """Column -> (parents, float64 [*sizes of the parents, k])."""
    public = params["public"]
    tables = {int(column): np.asarray(table, np.float64) for column, table in public["tables"].items()}
    found = {}
    for column, parents in enumerate(np.asarray(public["parents"])):
        own = tuple(int(parent) for parent in parents if parent >= 0)
        found[column] = own, tables[column].reshape(*(tables[parent].shape[1] for parent in own), -1)
    return found


def _rows(sizes: tuple[int, ...], parents: Sequence[int], codes: Any) -> Any:
    """Row of a column's table for every record: codes [..., d] -> int [...]."""
    row = 0 * codes[..., 0]
    for parent in parents:
        row = row * sizes[parent] + codes[..., parent]
    return row


def _sample(
    sizes: tuple[int, ...], params: Params, key: jax.Array, num_samples: int, conditions: Mapping | None = None
):
    """int32 [num_samples, d]; conditions are left to whoever draws again."""
    del conditions
    codes = np.zeros((num_samples, len(sizes)), np.int32)
    rng, given = np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist()), _given(params)
    for column in np.asarray(params["public"]["order"]).tolist():
        parents, table = given[column]
        cumulative = np.cumsum(table.reshape(-1, sizes[column]), axis=1)
        rows, uniform = _rows(sizes, parents, codes), rng.random(num_samples)
        block = max(1, _DRAWN_AT_ONCE // sizes[column])
        for start in range(0, num_samples, block):
            part = slice(start, start + block)
            bounds = cumulative[rows[part]]
            codes[part, column] = (uniform[part, None] * bounds[:, -1:] >= bounds[:, :-1]).sum(axis=1)
    return codes


def _negative_log_likelihood(sizes: tuple[int, ...], params: Params, example: jax.Array, key: jax.Array) -> jax.Array:
    """Nats of one record, int32 [d]. Parents are data here, so the row is found by their strides."""
    del key
    public, nats = params["public"], jnp.float32(0.0)
    all_sizes = jnp.asarray(sizes)
    for column in range(len(sizes)):
        parents = jnp.asarray(public["parents"])[column]
        is_parent = parents >= 0
        own = jnp.where(is_parent, all_sizes[parents], 1)
        strides = jnp.cumprod(jnp.append(own, 1)[::-1])[::-1][1:]
        row = jnp.sum(jnp.where(is_parent, example[parents] * strides, 0))
        nats -= jnp.log(jnp.maximum(jnp.asarray(public["tables"][str(column)])[row, example[column]], _SMALLEST))
    return nats


def num_cells(cardinalities: Sequence[int], columns: Sequence[int]) -> int:
    return math.prod(cardinalities[column] for column in columns)
