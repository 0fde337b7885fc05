"""Marginals that are bought: of columns alone, and of the groups of columns that are worth their noise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from privsyn_jax.plan import Plan
from privsyn_jax.privacy import release
from privsyn_jax.privacy.guard import Private
from privsyn_jax.privacy.ledger import Ledger, check_charged
from privsyn_jax.privacy.noise import HostNoise
from privsyn_jax.releases import Release
from privsyn_jax.transforms.discretize import OneWay

_MEAN_ABSOLUTE = math.sqrt(2 / math.pi)  # of a standard normal
_TARGET_WEIGHT = 2.0  # a table with the target has half the noise of others: models are trained to predict it
_NOISE_LEFT = 0.3  # of a table's L1 noise, once cells that show little are shrunk to what other tables say of them
_TINY = 1e-9


class Table(NamedTuple):
    """Released counts of several columns together, one axis for each."""

    counts: np.ndarray  # float64, may be negative
    stddev: float  # of the noise of each cell


class Marginals(NamedTuple):
    """Released counts of codes, by column index.

    Attributes:
      one_way: of each column; non-negative, one common total.
      one_way_stddev: of the noise of each cell.
      tables: of several columns; their order is that of the axes, and of a conditional distribution the last column is
        the one that depends on the others.
    """

    one_way: list[np.ndarray]
    one_way_stddev: list[np.ndarray]
    tables: dict[tuple[int, ...], Table]

    @property
    def total(self) -> float:
        return float(np.mean([counts.sum() for counts in self.one_way]))


class Measuring(NamedTuple):
    """What tables are measured of, and by which plan; handed to everything that chooses some.

    Attributes:
      codes: int32 [n, d], of each unit at most plan.rows_per_unit rows.
      cardinalities: number of codes of each column.
      one_way: counts released before.
      first: the column that the generator draws first.
      target: the column that others are to predict, if any.
      model: arguments of the generator.
    """

    codes: Private[np.ndarray]
    cardinalities: Sequence[int]
    one_way: OneWay
    first: int
    target: int | None
    model: Mapping[str, Any]
    plan: Plan
    ledger: Ledger
    noise: HostNoise

    def release(self, name: str) -> Release:
        found = self.plan.release(name)
        assert found is not None
        return found

    def tables(self, chosen: Sequence[tuple[int, ...]], name: str, weights: Sequence[float] | None = None) -> Marginals:
        """Contingency tables of the chosen columns, in the one Gaussian release of this name."""
        weights = [1.0] * len(chosen) if weights is None else weights
        bought, what, largest = self.release(name), "noisy contingency tables", max(weights, default=1.0)
        if largest > min(weights, default=1.0):
            what += f", {weights.count(largest)} of them with 1/{largest / min(weights):g} of the noise of the others"
        receipt = self.ledger.charge(name, f"{len(chosen)} groups of columns", what, bought.event, upto=1)
        counts, stddev, event = release.contingency_tables(
            self.codes.open(receipt),
            self.cardinalities,
            chosen,
            noise_multiplier=bought.noise_multiplier,
            noise=self.noise,
            rows_per_unit=self.plan.rows_per_unit,
            weights=weights,
        )
        check_charged([bought.event], [event])
        tables = {
            columns: Table(table, stddev / weight)
            for (columns, table), weight in zip(counts.items(), weights, strict=True)
        }
        return Marginals(self.one_way.counts, self.one_way.stddev, tables)


def buy_one_way(
    codes: Private[np.ndarray], cardinalities: Sequence[int], *, plan: Plan, ledger: Ledger, noise: HostNoise
) -> OneWay | None:
    """Noisy counts of every column, where the transform has bought none; None without a budget."""
    histograms = plan.release("histograms")
    if histograms is None:
        return None
    receipt = ledger.charge(
        histograms.name, "the codes of all columns", "noisy counts of every column", histograms.event, upto=1
    )
    noisy, stddev, event = release.histograms(
        codes.open(receipt),
        cardinalities,
        noise_multiplier=histograms.noise_multiplier,
        noise=noise,
        rows_per_unit=plan.rows_per_unit,
    )
    check_charged([histograms.event], [event])
    total = max(1.0, float(np.mean([counts.sum() for counts in noisy])))
    counts = [release.project_to_counts(values, total) for values in noisy]
    return OneWay(counts, [np.full(len(values), stddev) for values in counts])


def buy_pairs(task: Measuring) -> Marginals:
    """The pairs, and the columns once more, that are worth their noise, if the plan has a budget for them."""
    plan, one_way = task.plan, task.one_way
    scores_plan, pairs_plan = plan.release("pair scores"), plan.release("pair marginals")
    if scores_plan is None or pairs_plan is None:
        return Marginals(one_way.counts, one_way.stddev, {})
    what = "noisy distance of every pair from independence"
    receipt = task.ledger.charge(scores_plan.name, "all pairs of columns", what, scores_plan.event, upto=1)
    scores, _, event = release.dependence_scores(
        task.codes.open(receipt),
        one_way.counts,
        noise_multiplier=scores_plan.noise_multiplier,
        noise=task.noise,
        rows_per_unit=plan.rows_per_unit,
    )
    check_charged([scores_plan.event], [event])
    noise_multiplier = pairs_plan.noise_multiplier * plan.rows_per_unit
    chosen = choose(scores, one_way, noise_multiplier=noise_multiplier, target=task.target)
    return _with_columns(task.tables(chosen, "pair marginals", [_weight(group, task.target) for group in chosen]))


def choose(
    scores: Mapping[tuple[int, int], float], one_way: OneWay, *, noise_multiplier: float, target: int | None
) -> list[tuple[int, ...]]:
    """The pairs, and single columns, that together tell the most when all of them are measured at once.

    Those with the target are always among them, and count with the rest in what their noise costs.

    A score is an L1 distance between a contingency table and its independent stand-in. Part of it is no
    dependence: the noise of the one-way counts behind the stand-in, and the sampling scatter of an
    independent table; both are subtracted by their expectation. Of the dependence d that is left, a table with
    L1 noise e tells d - d e / sqrt(d^2 + e^2): the error after the best linear shrinkage (Wiener) of a signal of
    size d in noise of size e. Measuring a column again tells by how much it lowers the noise of its counts, once for
    every other column, since the tables of all pairs inherit it. Post-processing of released values.

    Dependence sits in few of a table's cells, so noise does less than if it were spread evenly: e is _NOISE_LEFT times
    the L1 norm of the noise, a share that was set by trials on a part of Adult's training records.

    Args:
      noise_multiplier: noise stddev of a table of weight 1 that is bought alone; bought with others, that times the
        root of the sum of all squared weights.
    """
    total, sizes = one_way.counts[0].sum(), [len(counts) for counts in one_way.counts]
    own_noise = [_MEAN_ABSOLUTE * stddev.sum() for stddev in one_way.stddev]
    dependence = {}
    for (i, j), score in scores.items():
        scatter = _MEAN_ABSOLUTE * np.sqrt(np.outer(one_way.counts[i], one_way.counts[j]) / total).sum()
        dependence[i, j] = max(0.0, score - scatter - max(own_noise[i], own_noise[j]))

    groups: list[tuple[int, ...]] = [*scores, *((column,) for column in range(len(sizes)))]
    weights = np.array([_weight(group, target) for group in groups])
    is_always = np.array([len(group) > 1 and target in group for group in groups])
    before, first = np.concatenate(one_way.stddev), np.cumsum([0, *sizes[:-1]])
    signal = np.array([dependence[pair] for pair in scores])
    pair_error = np.array([_NOISE_LEFT * _MEAN_ABSOLUTE * sizes[i] * sizes[j] for i, j in scores])

    def gains(stddevs: np.ndarray) -> np.ndarray:
        """Of each group, by the stddev of its noise."""
        error = pair_error * stddevs[: len(signal)]
        of_pairs = signal * (1 - error / np.maximum(np.hypot(signal, error), _TINY))
        again = np.repeat(np.maximum(stddevs[len(signal) :], _TINY), sizes)
        after = 1 / np.hypot(1 / np.maximum(before, _TINY), 1 / again)
        return np.concatenate([of_pairs, (len(sizes) - 1) * _MEAN_ABSOLUTE * np.add.reduceat(before - after, first)])

    least = int(is_always.sum()) or 1
    best, best_gain = np.flatnonzero(is_always) if is_always.any() else np.array([int(np.argmax(signal))]), 0.0
    for count in range(least, len(groups) + 1):
        # The noise depends on who else is chosen: a guess of it ranks them, and what comes out is judged by its own.
        guess = noise_multiplier * math.sqrt(count + np.sum(weights[is_always] ** 2 - 1))
        ranked = np.lexsort((-gains(guess / weights), ~is_always))[:count]
        stddev = noise_multiplier * math.sqrt(np.sum(weights[ranked] ** 2))
        if (found := float(gains(stddev / weights)[ranked].sum())) > best_gain:
            best, best_gain = ranked, found
    return [groups[number] for number in best]


def _weight(group: tuple[int, ...], target: int | None) -> float:
    return _TARGET_WEIGHT if target in group else 1.0


def _with_columns(marginals: Marginals) -> Marginals:
    """Tables of one column joined with what was known of it, by their precisions."""
    one_way, stddevs, total = list(marginals.one_way), list(marginals.one_way_stddev), marginals.total
    for columns, (counts, stddev) in marginals.tables.items():
        if len(columns) == 1:
            column = columns[0]
            old, new = 1 / np.square(np.maximum(stddevs[column], _TINY)), 1 / max(stddev, _TINY) ** 2
            one_way[column] = release.project_to_counts((old * one_way[column] + new * counts) / (old + new), total)
            stddevs[column] = 1 / np.sqrt(old + new)
    tables = {columns: table for columns, table in marginals.tables.items() if len(columns) > 1}
    return Marginals(one_way, stddevs, tables)
