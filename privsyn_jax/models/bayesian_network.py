"""Bayesian network whose structure is chosen privately, learned from noisy tables of a column with its parents.

Source: Zhang et al. 2017, "PrivBayes: Private Data Release via Bayesian Networks". Here under Gaussian noise and
add-or-remove neighbours; how the structure is chosen is told in training.bayesian_network.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from privsyn_jax.models.code_network import network_generator, network_params
from privsyn_jax.privacy.release import project_to_counts
from privsyn_jax.types import Generator, Params


def make(
    *,
    cardinalities: tuple[int, ...],
    column_order: tuple[int, ...] = (),
    max_parents: int = 3,
) -> Generator:
    """Generator of int32 codes [d].

    Args:
      cardinalities: number of codes of each column.
      column_order: the first of it has no parents; the others follow as their structure is chosen.
      max_parents: of a column.
    """
    del column_order
    if not isinstance(max_parents, int) or max_parents < 1:
        raise ValueError(f"max_parents {max_parents!r} must be a whole number, at least 1")
    return network_generator(cardinalities, _calibrate)


def _calibrate(params: Params, marginals: Any, key: jax.Array) -> Params:
    """The network of purchased tables, in the order in which they were chosen: (*parents, child) each.

    Noisy counts are projected to possible ones. A row then is mixed with the column's own marginal as if that were one
    further count of the size of the noise.
    """
    del params, key
    given: dict[int, tuple[tuple[int, ...], np.ndarray]] = {}
    for columns, (counts, stddev) in marginals.tables.items():
        own = marginals.one_way[columns[-1]]
        likely = project_to_counts(counts, marginals.total)
        given[columns[-1]] = columns[:-1], likely + stddev * own / own.sum()
    for column in set(range(len(marginals.one_way))) - set(given):
        given = {column: ((), np.maximum(marginals.one_way[column], 0.0)), **given}
    return network_params(list(given), given)
