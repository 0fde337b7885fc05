"""What the runs of a study show, as tables; the study may still be running."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from privsyn_jax.study import comparison
from privsyn_jax.study.cells import Cell, Cells, Row, mean, with_interval
from privsyn_jax.study.frontier import Point, are_optimal, hypervolume
from privsyn_jax.study.plan import Kind, Study

FAIRNESS = (  # of every sensitive column, in the table of what is traded for what
    "outcome_rate_gap",
    "logistic_regression_demographic_parity_difference",
    "logistic_regression_equalized_odds_difference",
)


class Analysis(NamedTuple):
    """Tables, a dict a row; what no run has measured yet has no row or is NaN.

    Attributes:
      frontier: of every modality and data set, mean utility and leakage of each model, contestant and epsilon with
        their 95 % intervals over seeds, and whether no other of them is better ("is_optimal"). Leakage below that of a
        guess is chance, and counts as that of a guess.
      hypervolumes: of every frontier, the area between it and a reference point that is no data's: leakage 1, and the
        utility of a guess where that is an AUC (0.5), else 0.
      versus_real: synthetic minus real, see `comparison`.
      versus_models: model minus other model.
      comparison: contestant minus baseline.
      tradeoff: mean utility, leakage and fairness of each model, contestant and epsilon, by the names of the metrics.
    """

    frontier: list[Row]
    hypervolumes: list[Row]
    versus_real: list[Row]
    versus_models: list[Row]
    comparison: list[Row]
    tradeoff: list[Row]


def analyse(study: Study, runs: Sequence[Row]) -> Analysis:
    """The study so far.

    Args:
      runs: one row per finished run, as `runs.rows_of` returns them.
    """
    cells = Cells(runs, study)
    measured: Mapping[Kind, list[Cell]] = {
        kind: [
            cell
            for model in models
            for contestant in study.contestants_of(model)
            for epsilon in study.epsilons
            if cells.is_begun(cell := Cell(model, contestant, epsilon))
        ]
        for kind, models in study.kinds().items()
    }
    frontiers = [_frontier(study, cells, kind, found) for kind, found in measured.items()]
    return Analysis(
        frontier=[row for rows, _ in frontiers for row in rows],
        hypervolumes=[row for _, rows in frontiers for row in rows],
        versus_real=comparison.versus_real(cells, study),
        versus_models=comparison.versus_models(cells, study),
        comparison=comparison.compare(cells, study),
        tradeoff=[_tradeoff(study, cells, kind, cell) for kind, found in measured.items() for cell in found],
    )


def _frontier(study: Study, cells: Cells, kind: Kind, measured: Sequence[Cell]) -> tuple[list[Row], list[Row]]:
    """(rows of the frontier, the one of its hypervolume); nothing where one of the two was not measured."""
    utility, leakage = study.axes(kind.modality)
    shown = [cell for cell in measured if cells.has(cell.model, utility) and cells.has(cell.model, leakage)]
    if not shown:
        return [], []
    rows = [
        {
            **kind._asdict(),
            **cell._asdict(),
            "utility_metric": utility,
            **with_interval("utility", cells.values(cell, utility)),
            "leakage_metric": leakage,
            **with_interval("leakage", cells.values(cell, leakage)),
        }
        for cell in shown
    ]
    guesses = [mean(cells.values(cell, f"real {leakage}")) for cell in shown]
    points = [Point(row["utility"], max(row["leakage"], guess)) for row, guess in zip(rows, guesses, strict=True)]
    reference = Point(0.5 if utility.endswith("_auc") else 0.0, 1.0)
    area = {
        **kind._asdict(),
        "reference_utility": reference.utility,
        "reference_leakage": reference.leakage,
        "hypervolume": hypervolume(points, reference),
    }
    return [{**row, "is_optimal": best} for row, best in zip(rows, are_optimal(points), strict=True)], [area]


def _tradeoff(study: Study, cells: Cells, kind: Kind, cell: Cell) -> Row:
    fairness = [name for name in cells.columns if name.startswith(tuple(f"{metric}_" for metric in FAIRNESS))]
    metrics = [name for name in (*study.axes(kind.modality), *fairness) if cells.has(cell.model, name)]
    return {
        **cell._asdict(),
        "epsilon_spent": mean(cells.values(cell, "epsilon_spent")),
        **{metric: mean(cells.values(cell, metric)) for metric in metrics},
    }
