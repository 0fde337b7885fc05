"""AIM: columns and pairs are measured in rounds, each where the model of all earlier measurements errs the most.

Source: McKenna, Mullins, Sheldon and Miklau 2022, "AIM: An Adaptive and Iterative Mechanism for Differentially Private
Synthetic Data", Algorithms 1 to 3; the workload is all pairs of columns. Here the neighbouring relation is
add-or-remove, the first measurement is the transform's histogram of all columns, and the budget is a Renyi divergence
of one order that all rounds together never exceed (Feldman and Zrnic 2021, "Individual Privacy Accounting via a Renyi
Filter", Theorem 3.1), which is what the ledger is charged with before the first of them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from privsyn_jax.models.code_network import marginal
from privsyn_jax.models.markov_field import as_network, estimate, model_megabytes
from privsyn_jax.privacy.release import contingency, exponential_choice
from privsyn_jax.training.marginals import Marginals, Measuring, Table
from privsyn_jax.types import Params

_MEASURE_SHARE = 0.9  # of a round; the rest chooses
_MEAN_ABSOLUTE = math.sqrt(2 / math.pi)  # of a standard normal
_NOISELESS_ROUNDS = 2  # for every column, without privacy

Group = tuple[int, ...]


def buy(task: Measuring) -> Marginals:
    """Tables of the columns and pairs that the rounds have chosen; one measured twice is the weighted mean."""
    cardinalities, rows_per_unit, model = task.cardinalities, task.plan.rows_per_unit, task.model
    bought, columns = task.release("rounds"), range(len(cardinalities))
    what = "AIM: the table that is modelled worst, by an exponential mechanism, and its noisy counts, in rounds"
    receipt = task.ledger.charge(bought.name, "tables of all columns and pairs", what, bought.event, upto=1)
    rows = task.codes.open(receipt)
    groups: list[Group] = [*((column,) for column in columns), *itertools.combinations(columns, 2)]
    exact = {group: contingency(rows, cardinalities, group) for group in groups}
    marginals = Marginals(task.one_way.counts, task.one_way.stddev, {})
    budget = Budget(bought.noise_multiplier, len(cardinalities), model["rounds_per_column"])
    field, network = _fit(marginals, model["num_iterations"])
    with tqdm(total=100, desc="AIM", unit="%", disable=None) as progress:
        while budget.is_left:
            budget.start_round()
            allowed = _allowed(cardinalities, marginals, groups, budget.share_used * model["max_model_megabytes"])
            if not allowed:  # without noise, and all is measured
                break
            qualities = [
                _weight(group)
                * (
                    float(np.abs(exact[group] - marginal(network, group, total=marginals.total)).sum())
                    - _MEAN_ABSOLUTE * budget.stddev * rows_per_unit * exact[group].size
                )
                for group in allowed
            ]
            # One unit moves a table by its rows, and no weight is above 1.
            chosen = allowed[
                exponential_choice(qualities, sensitivity=rows_per_unit, epsilon=budget.epsilon, noise=task.noise)
            ]
            counts = exact[chosen] + task.noise.normal(exact[chosen].shape, stddev=budget.stddev * rows_per_unit)
            table = Table(counts, budget.stddev * rows_per_unit)
            marginals = with_table(marginals, chosen, table)
            before = marginal(network, chosen, total=marginals.total)
            field, network = _fit(marginals, model["num_iterations"], field)
            moved = float(np.abs(marginal(network, chosen, total=marginals.total) - before).sum())
            budget.end_round(is_fine=moved > _MEAN_ABSOLUTE * table.stddev * counts.size)
            progress.update(int(100 * budget.share_used) - progress.n)
    return marginals


def _weight(group: Group) -> float:
    """What a table counts in a workload of all pairs, each by the columns that it shares with it; 1 for a pair."""
    return len(group) / 2


class Budget:
    """Noise of the rounds, in units of precision: a Gaussian release with noise multiplier s costs 1 / (2 s^2), an
    exponential mechanism epsilon^2 / 8; a times that is their Renyi divergence of order a.

    Args:
      noise_multiplier: of the one Gaussian release that would cost all of it; 0 for no noise.
      num_columns: d.
      rounds_per_column: the first noise is for d times as many rounds.

    Attributes:
      stddev: of the table of this round, for one row.
      epsilon: of the choice of this round.
    """

    def __init__(self, noise_multiplier: float, num_columns: int, rounds_per_column: int):
        self._is_noiseless = noise_multiplier == 0
        self._whole = float(_NOISELESS_ROUNDS * num_columns) if self._is_noiseless else 1 / (2 * noise_multiplier**2)
        self._used = 0.0
        each = 1.0 if self._is_noiseless else self._whole / (rounds_per_column * num_columns)
        self._set(each)

    def _set(self, each: float) -> None:
        self._each = each
        self.stddev = 0.0 if self._is_noiseless else 1 / math.sqrt(2 * _MEASURE_SHARE * each)
        self.epsilon = math.inf if self._is_noiseless else math.sqrt(8 * (1 - _MEASURE_SHARE) * each)

    @property
    def is_left(self) -> bool:
        return self._whole - self._used > 1e-9 * self._whole

    @property
    def share_used(self) -> float:
        """With this round."""
        return min(1.0, self._used / self._whole)

    def start_round(self) -> None:
        """Spends for a round; the last takes all that is left."""
        left = self._whole - self._used
        if left < 2 * self._each:
            self._set(left * (1 - 1e-12))
        self._used += self._each if left >= 2 * self._each else left

    def end_round(self, *, is_fine: bool) -> None:
        """Halves the noise of the rounds to come where a round has shown no more than noise."""
        if not is_fine and not self._is_noiseless:
            self._set(4 * self._each)


def with_table(marginals: Marginals, columns: Group, table: Table) -> Marginals:
    """With one more measurement, averaged by precision with an earlier one of the same columns."""
    known = marginals.tables.get(columns)
    if known is not None and table.stddev > 0:
        weights = np.array([known.stddev**-2, table.stddev**-2])
        mean = (weights[0] * known.counts + weights[1] * table.counts) / weights.sum()
        table = Table(mean, float(weights.sum() ** -0.5))
    return marginals._replace(tables={**marginals.tables, columns: table})


def _fit(marginals: Marginals, num_iterations: int, field: Any = None) -> tuple[Any, Params]:
    field = estimate(marginals, num_iterations=num_iterations, warm_start=field)
    return field, as_network(field)


def _allowed(
    cardinalities: Sequence[int], marginals: Marginals, groups: Sequence[Group], megabytes: float
) -> list[Group]:
    """Columns, and pairs with which the junction tree is no larger than this share of its limit or that are in it.

    Public: sizes and earlier choices alone. What was measured without noise is not measured again.
    """
    known = list(marginals.tables)
    noiseless = {group for group, table in marginals.tables.items() if table.stddev == 0}
    return [
        group
        for group in groups
        if group not in noiseless
        and (
            len(group) == 1 or group in marginals.tables or model_megabytes(cardinalities, [*known, group]) <= megabytes
        )
    ]
