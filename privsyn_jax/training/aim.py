"""AIM: pairs of columns are measured in rounds, each where the model of all earlier measurements errs the most.

Source: McKenna, Mullins, Sheldon and Miklau 2022, "AIM: An Adaptive and Iterative Mechanism for Differentially Private
Synthetic Data", Algorithms 1 to 3; the workload is all pairs of columns. Here the neighbouring relation is
add-or-remove, columns alone are measured by the transform's histogram, and the budget is a Renyi divergence of one
order that all rounds together never exceed (Feldman and Zrnic 2021, "Individual Privacy Accounting via a Renyi Filter",
Theorem 3.1), which is what the ledger is charged with before the first of them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from privsyn_jax.models.code_network import marginal
from privsyn_jax.models.markov_field import as_network, estimate, model_megabytes
from privsyn_jax.plan import Plan
from privsyn_jax.privacy.guard import Private
from privsyn_jax.privacy.ledger import Ledger
from privsyn_jax.privacy.noise import HostNoise
from privsyn_jax.privacy.release import contingency, exponential_choice
from privsyn_jax.training.marginals import Marginals, Table
from privsyn_jax.transforms.discretize import OneWay
from privsyn_jax.types import Params

_MEASURE_SHARE = 0.9  # of a round; the rest chooses
_MEAN_ABSOLUTE = math.sqrt(2 / math.pi)  # of a standard normal
_NOISELESS_ROUNDS = 2  # for every column, without privacy

Group = tuple[int, ...]


def buy(
    codes: Private[np.ndarray],
    cardinalities: Sequence[int],
    one_way: OneWay,
    *,
    first: int,
    model: Mapping[str, Any],
    plan: Plan,
    ledger: Ledger,
    noise: HostNoise,
) -> Marginals:
    """Tables of the pairs that the rounds have chosen; a pair measured twice is the weighted mean.

    Args:
      codes: int32 [n, d], of each unit at most plan.rows_per_unit rows.
      one_way: counts released before.
      first: without effect: a field has no first column.
      model: arguments of models.markov_field.make_aim.
    """
    del first
    bought = plan.release("rounds")
    assert bought is not None
    what = "AIM: the pair that is modelled worst, by an exponential mechanism, and its noisy table, in rounds"
    receipt = ledger.charge(bought.name, "tables of all pairs of columns", what, bought.event, upto=1)
    rows, rows_per_unit = codes.open(receipt), plan.rows_per_unit
    pairs: list[Group] = list(itertools.combinations(range(len(cardinalities)), 2))
    exact = {pair: contingency(rows, cardinalities, pair) for pair in pairs}
    marginals = Marginals(one_way.counts, one_way.stddev, {})
    budget = Budget(bought.noise_multiplier, len(cardinalities), model["rounds_per_column"])
    field, network = _fit(marginals, model["num_iterations"])
    with tqdm(total=100, desc="AIM", unit="%", disable=None) as progress:
        while budget.is_left:
            budget.start_round()
            allowed = _allowed(cardinalities, marginals, pairs, budget.share_used * model["max_model_megabytes"])
            if not allowed:
                break
            errors = [
                float(np.abs(exact[pair] - marginal(network, pair, total=marginals.total)).sum())
                - _MEAN_ABSOLUTE * budget.stddev * rows_per_unit * exact[pair].size
                for pair in allowed
            ]
            # All pairs have one weight in a workload of all pairs, and one unit moves a table by its rows.
            chosen = allowed[exponential_choice(errors, sensitivity=rows_per_unit, epsilon=budget.epsilon, noise=noise)]
            counts = exact[chosen] + noise.normal(exact[chosen].shape, stddev=budget.stddev * rows_per_unit)
            table = Table(counts, budget.stddev * rows_per_unit)
            marginals = with_table(marginals, chosen, table)
            before = marginal(network, chosen, total=marginals.total)
            field, network = _fit(marginals, model["num_iterations"], field)
            moved = float(np.abs(marginal(network, chosen, total=marginals.total) - before).sum())
            budget.end_round(is_fine=moved > _MEAN_ABSOLUTE * table.stddev * counts.size)
            progress.update(int(100 * budget.share_used) - progress.n)
    return marginals


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
    cardinalities: Sequence[int], marginals: Marginals, pairs: Sequence[Group], megabytes: float
) -> list[Group]:
    """Pairs with which the junction tree is no larger than this share of its limit; those measured always are.

    Public: sizes and earlier choices alone.
    """
    known = list(marginals.tables)
    noiseless = {columns for columns, table in marginals.tables.items() if table.stddev == 0}
    return [
        pair
        for pair in pairs
        if pair not in noiseless
        and (pair in marginals.tables or model_megabytes(cardinalities, [*known, pair]) <= megabytes)
    ]
