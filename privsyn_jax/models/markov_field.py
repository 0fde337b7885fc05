"""Markov random field of maximum entropy that agrees with noisy marginals: what AIM and MST sample from.

Estimation is private-pgm's (the package `mbi`); what comes out is turned into a Bayesian network over the same
cliques, which samples by NumPy alone and is saved as plain arrays.

Source: McKenna, Sheldon and Miklau 2019, "Graphical-model based estimation and inference for differential privacy".
"""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp

from privsyn_jax.models.code_network import network_generator, network_params, num_cells
from privsyn_jax.types import Generator, Params, UserError

_MOST_CELLS = 2**22  # of a table of two columns: 32 MB
_LONGEST = 3  # iterations of the last estimate, for each of one in between


def make_aim(
    *,
    cardinalities: tuple[int, ...],
    column_order: tuple[int, ...] = (),
    max_model_megabytes: float = 4.0,
    rounds_per_column: int = 16,
    num_iterations: int = 300,
) -> Generator:
    """AIM: a field over pairs of columns that are chosen in rounds, see training.aim.

    Args:
      cardinalities: number of codes of each column.
      column_order: without effect: the cliques give the order.
      max_model_megabytes: of the junction tree, at 8 bytes a cell; reached as the budget is spent.
      rounds_per_column: rounds that the first noise level would allow.
      num_iterations: of mirror descent, in a round; three times as many for the last estimate.
    """
    del column_order
    if not max_model_megabytes > 0:
        raise ValueError(f"max_model_megabytes {max_model_megabytes} must be above 0")
    for name, value in {"rounds_per_column": rounds_per_column, "num_iterations": num_iterations}.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} {value!r} must be a whole number, at least 1")
    _check_cells(cardinalities)
    _mbi()
    return network_generator(cardinalities, functools.partial(_calibrate, _LONGEST * num_iterations))


def make_mst(
    *, cardinalities: tuple[int, ...], column_order: tuple[int, ...] = (), num_iterations: int = 1000
) -> Generator:
    """MST: a field over a tree of pairs, see training.mst.

    Args:
      cardinalities: number of codes of each column.
      column_order: without effect: the tree gives the order.
      num_iterations: of mirror descent.
    """
    del column_order
    if not isinstance(num_iterations, int) or num_iterations < 1:
        raise ValueError(f"num_iterations {num_iterations!r} must be a whole number, at least 1")
    _check_cells(cardinalities)
    _mbi()
    return network_generator(cardinalities, functools.partial(_calibrate, num_iterations))


def _check_cells(cardinalities: Sequence[int]) -> None:
    """Raises ValueError for columns too large to count together."""
    largest = sorted(range(len(cardinalities)), key=lambda column: -cardinalities[column])[:2]
    cells = num_cells(cardinalities, largest)
    if cells > _MOST_CELLS:
        raise ValueError(
            f"columns {' and '.join(map(str, sorted(largest)))} have {cells:,} cells together, more than "
            f"{_MOST_CELLS:,}: merge categories, lower transform.num_bins, or leave a column out"
        )


def _calibrate(num_iterations: int, params: Params, marginals: Any, key: jax.Array) -> Params:
    """The network of the field with these noisy marginals."""
    del params, key
    return as_network(estimate(marginals, num_iterations=num_iterations))


def estimate(marginals: Any, *, num_iterations: int, warm_start: Any = None) -> Any:
    """An `mbi.MarkovRandomField` over columns "0", "1", ..., by mirror descent.

    Args:
      marginals: counts of columns alone, and tables of several.
      warm_start: an earlier field, to start from.
    """
    mbi = _mbi()
    domain = mbi.Domain([str(j) for j in range(len(marginals.one_way))], [len(own) for own in marginals.one_way])
    measurements = [
        mbi.LinearMeasurement(own / stddev, (str(j),), query=_Weighted(tuple((1 / stddev).tolist())))
        for j, (own, stddev) in enumerate(_with_noise(marginals))
    ]
    measurements += [
        mbi.LinearMeasurement(counts.ravel(), tuple(map(str, columns)), stddev=max(stddev, 1.0))
        for columns, (counts, stddev) in marginals.tables.items()
    ]
    return mbi.estimation.MirrorDescent().estimate(
        domain,
        measurements,
        known_total=marginals.total,
        iters=num_iterations,
        warm_start=None if warm_start is None else _Start(warm_start),
    )


@dataclasses.dataclass(frozen=True)
class _Weighted:
    """A query of counts times weights. Equal weights are one query, for which nothing is compiled anew."""

    weights: tuple[float, ...]

    def __call__(self, factor: Any) -> jax.Array:
        return factor.datavector() * jnp.asarray(self.weights)

    def op_norm_sq(self) -> float:
        return max(self.weights) ** 2


def _with_noise(marginals: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """Counts of columns and the noise that they are trusted by: at least one record."""
    pairs = zip(marginals.one_way, marginals.one_way_stddev, strict=True)
    return [(np.asarray(own, np.float64), np.maximum(stddev, 1.0)) for own, stddev in pairs]


def as_network(field: Any) -> Params:
    """The same distribution as a Bayesian network, by eliminating one column after another.

    What a column is multiplied with when its turn comes says how it is distributed given those that are left, its
    parents. In NumPy: every field has shapes of its own, for each of which jax would compile.
    """
    factors = [(tuple(map(int, clique)), _logits(table, clique)) for clique, table in field.potentials.tables.items()]
    order = list(map(int, _mbi().junction_tree.make_junction_tree(field.domain, list(field.cliques))[1]))
    given = {}
    for column in order:
        own = [factor for factor in factors if column in factor[0]]
        parents = tuple(sorted({other for scope, _ in own for other in scope} - {column}))
        joint = functools.reduce(np.add, [_aligned(scope, logits, (*parents, column)) for scope, logits in own])
        rest = np.asarray(logsumexp(joint, axis=-1))
        given[column] = parents, np.exp(joint - rest[..., None])
        factors = [factor for factor in factors if column not in factor[0]] + [(parents, rest)]
    return network_params(order[::-1], given)


def _logits(table: Any, scope: Sequence[str]) -> np.ndarray:
    return np.asarray(table.transpose(scope).values, np.float64)


def _aligned(scope: Sequence[Any], logits: np.ndarray, wanted: Sequence[Any]) -> np.ndarray:
    """With an axis for each of the wanted columns, of length 1 where the factor does not look at it."""
    axes = sorted(range(len(scope)), key=lambda axis: wanted.index(scope[axis]))
    return np.expand_dims(
        logits.transpose(axes), tuple(place for place, column in enumerate(wanted) if column not in scope)
    )


class _Start:
    """Where an estimate begins: at the potentials of an earlier one.

    `mbi` expands them to cliques of more columns and would compile for each; here NumPy does.
    """

    def __init__(self, field: Any):
        self._domain, self._tables = field.domain, field.potentials.tables

    @property
    def potentials(self) -> _Start:
        return self

    def expand(self, cliques: Sequence[tuple[str, ...]]) -> Any:
        """An `mbi.CliqueVector`: each earlier factor is part of one of the cliques that hold its columns."""
        mbi = _mbi()
        sums = {clique: np.zeros(self._domain.project(clique).shape) for clique in cliques}
        for scope, table in self._tables.items():
            clique = next(clique for clique in cliques if set(scope) <= set(clique))
            sums[clique] += _aligned(scope, _logits(table, scope), clique)
        tables = {clique: mbi.Factor(self._domain.project(clique), jnp.asarray(sums[clique])) for clique in cliques}
        return mbi.CliqueVector(self._domain, tuple(cliques), tables)


def model_megabytes(cardinalities: Sequence[int], groups: Sequence[tuple[int, ...]]) -> float:
    """Size of the junction tree of these tables, at 8 bytes a cell."""
    mbi = _mbi()
    domain = mbi.Domain([str(j) for j in range(len(cardinalities))], list(cardinalities))
    return mbi.junction_tree.hypothetical_model_size(domain, [tuple(map(str, columns)) for columns in groups])


@functools.cache
def _mbi() -> Any:
    """The package. It warns of single precision, which counts far below 2^24 do not feel."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import mbi
    except ImportError:
        raise UserError(
            "model.name='aim' and 'mst' need the package mbi: install privsyn_jax with the extra marginals"
        ) from None
    return mbi
