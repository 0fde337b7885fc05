"""A Bayesian network's structure, chosen privately column by column, and its noisy tables.

Source: Zhang et al. 2017, "PrivBayes: Private Data Release via Bayesian Networks", with another score: the L1 distance
of a column's table with its parents from what a released marginal of the column alone would make of it, less what
chance makes of that distance where nothing depends on anything, less the noise that the table will have. So it needs
no number of records, and weighs a larger table against its noise and its sampling.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from privsyn_jax.models.code_network import num_cells
from privsyn_jax.privacy.release import contingency, exponential_choice
from privsyn_jax.training.marginals import Marginals, Measuring
from privsyn_jax.transforms.discretize import OneWay

_MEAN_ABSOLUTE = math.sqrt(2 / math.pi)  # of a standard normal
_MOST_CELLS = 2**20  # of a table


def buy(task: Measuring) -> Marginals:
    """Tables (*parents, child) of every column but the first, in the order in which they were chosen."""
    cardinalities, one_way, rows_per_unit = task.cardinalities, task.one_way, task.plan.rows_per_unit
    choices, tables = task.release("network"), task.release("marginals")
    what = f"{choices.count} columns and their parents, by exponential mechanisms of epsilon {choices.epsilon_each:.4g}"
    receipt = task.ledger.charge(choices.name, "tables of columns together", what, choices.event, upto=1)
    rows = task.codes.open(receipt)
    cell_noise = _MEAN_ABSOLUTE * tables.noise_multiplier * rows_per_unit * math.sqrt(len(cardinalities) - 1)
    largest = one_way.counts[task.first].sum() / max(cell_noise, 1e-9)  # cells beyond which noise outweighs all records
    done, chosen = [task.first], []
    scores: dict[tuple[int, ...], float] = {}
    for _ in range(choices.count):
        candidates = list(_candidates(done, cardinalities, task.model["max_parents"], min(largest, _MOST_CELLS)))
        for columns in candidates:
            if columns not in scores:
                scores[columns] = dependence(rows, cardinalities, one_way, columns) - chance(one_way, columns)
        penalised = [scores[columns] - cell_noise * num_cells(cardinalities, columns) for columns in candidates]
        number = exponential_choice(
            penalised, sensitivity=2 * rows_per_unit, epsilon=choices.epsilon_each, noise=task.noise
        )
        chosen.append(candidates[number])
        done.append(candidates[number][-1])
    return task.tables(chosen, "marginals")


def dependence(rows: np.ndarray, cardinalities: Sequence[int], one_way: OneWay, columns: Sequence[int]) -> float:
    """L1 distance, in rows, of a table (*parents, child) from its parents' table times the child's released shares.

    Sensitivity: a row adds one to a cell (parents, child) and the shares to the parents' row of the other table, so it
    moves the sum by (1 - share of the child's code) + the other codes' shares, at most 2.
    """
    counts = contingency(rows, cardinalities, columns)
    shares = one_way.counts[columns[-1]] / one_way.counts[columns[-1]].sum()
    return float(np.abs(counts - counts.sum(axis=-1, keepdims=True) * shares).sum())


def chance(one_way: OneWay, columns: Sequence[int]) -> float:
    """About the `dependence` to expect of columns that are independent, by their released shares; in rows.

    A cell's count of a binomial is off by the smaller of what a normal of its variance is, and of what one record is.
    """
    expected = one_way.counts[columns[0]]
    for column in columns[1:]:
        expected = np.multiply.outer(expected, one_way.counts[column] / one_way.counts[column].sum())
    shares = one_way.counts[columns[-1]] / one_way.counts[columns[-1]].sum()
    variance = expected * (1 - shares)
    return float(np.minimum(_MEAN_ABSOLUTE * np.sqrt(variance), 2 * variance).sum())


def _candidates(
    done: Sequence[int], cardinalities: Sequence[int], max_parents: int, most_cells: float
) -> Iterator[tuple[int, ...]]:
    """(*parents, child) for every column that is left: parent sets among the columns done that are small enough.

    A column for which no single parent is small enough has none.
    """
    for child in range(len(cardinalities)):
        if child in done:
            continue
        yield (child,)
        for count in range(1, min(max_parents, len(done)) + 1):
            for parents in itertools.combinations(sorted(done), count):
                if num_cells(cardinalities, (*parents, child)) <= most_cells:
                    yield (*parents, child)
