"""Marginals that are bought: of columns alone, and of the pairs that are worth their noise."""

from __future__ import annotations

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
      model: arguments of the generator.
    """

    codes: Private[np.ndarray]
    cardinalities: Sequence[int]
    one_way: OneWay
    first: int
    model: Mapping[str, Any]
    plan: Plan
    ledger: Ledger
    noise: HostNoise

    def release(self, name: str) -> Release:
        found = self.plan.release(name)
        assert found is not None
        return found

    def tables(self, chosen: Sequence[tuple[int, ...]], name: str) -> Marginals:
        """Contingency tables of the chosen columns, in the one Gaussian release of this name."""
        bought, what = self.release(name), "noisy contingency tables"
        receipt = self.ledger.charge(name, f"{len(chosen)} groups of columns", what, bought.event, upto=1)
        counts, stddev, event = release.contingency_tables(
            self.codes.open(receipt),
            self.cardinalities,
            chosen,
            noise_multiplier=bought.noise_multiplier,
            noise=self.noise,
            rows_per_unit=self.plan.rows_per_unit,
        )
        check_charged([bought.event], [event])
        tables = {columns: Table(table, stddev) for columns, table in counts.items()}
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
    """The pairs that are worth their noise, if the plan has a budget for them."""
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
    chosen = choose_pairs(scores, one_way, noise_multiplier=pairs_plan.noise_multiplier * plan.rows_per_unit)
    return task.tables(chosen, "pair marginals")


def choose_pairs(
    scores: dict[tuple[int, int], float], one_way: OneWay, *, noise_multiplier: float
) -> list[tuple[int, int]]:
    """The set of pairs whose scores most exceed the noise that buying the set puts on their tables.

    A score is an L1 distance between a contingency table and its independent stand-in. Part of it is no
    dependence: the noise of the one-way counts behind the stand-in, and the sampling scatter of an
    independent table; both are subtracted by their expectation. Buying m tables at once gives every
    cell noise of stddev noise_multiplier * sqrt(m), so a table of c cells gets expected L1 noise
    c * stddev * sqrt(2 / pi), against the dependence that it shows. Post-processing of released values.

    Args:
      noise_multiplier: noise stddev of a table that is bought alone.
    """
    mean_absolute = np.sqrt(2 / np.pi)
    total = one_way.counts[0].sum()
    own_noise = [mean_absolute * stddev.sum() for stddev in one_way.stddev]
    sizes = [len(counts) for counts in one_way.counts]
    scatter = {
        (i, j): mean_absolute * np.sqrt(np.outer(one_way.counts[i], one_way.counts[j]) / total).sum() for i, j in scores
    }
    dependence = {(i, j): score - scatter[i, j] - max(own_noise[i], own_noise[j]) for (i, j), score in scores.items()}
    best, best_gain = [max(dependence, key=lambda pair: dependence[pair])], 0.0
    for count in range(1, len(scores) + 1):
        cell_noise = noise_multiplier * np.sqrt(count) * mean_absolute
        gains = {(i, j): value - sizes[i] * sizes[j] * cell_noise for (i, j), value in dependence.items()}
        ranked = sorted(gains, key=lambda pair: -gains[pair])[:count]
        gain = sum(gains[pair] for pair in ranked)
        if gain > best_gain:
            best, best_gain = ranked, gain
    return best
