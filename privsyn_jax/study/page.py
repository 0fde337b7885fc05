"""The page of a study, while it runs and afterwards: one HTML file with charts, filters and tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from privsyn_jax.report.template import fill
from privsyn_jax.study import page_charts, page_tables
from privsyn_jax.study.cells import Cells, Row
from privsyn_jax.study.plan import Study
from privsyn_jax.workdir import PRIVATE_NOTICE

if TYPE_CHECKING:
    from privsyn_jax.study.analyse import Analysis


def render_study(study: Study, runs: Sequence[Row], analysis: Analysis, *, done: int, total: int, title: str) -> str:
    """Renders the page: HTML that needs no network and no other file. It is private.

    Args:
      runs: the finished ones, as `runs.rows_of` returns them.
      analysis: of these runs.
      done, total: number of runs; while some are missing, the page says so and refreshes itself.
      title: heading.
    """
    cells = Cells(runs, study)
    tested = [*analysis.versus_real, *analysis.versus_models, *analysis.comparison]
    metrics = list(dict.fromkeys([*study.metrics, *(row["metric"] for row in tested)]))
    is_compared = bool(analysis.comparison)
    return fill(
        "study.html.jinja",
        title=title,
        private_notice=PRIVATE_NOTICE,
        done=done,
        total=total,
        lead=_lead(study),
        tuned=_tuned_words(runs, study),
        metrics=metrics,
        choices=_choices(study),
        signs=page_charts.signs_of(study),
        by_epsilon=page_charts.by_epsilon(cells, study, metrics, analysis.versus_real),
        means=page_tables.means_table(cells, study),
        frontiers=_frontiers(analysis, study),
        frontier_table=page_tables.frontier_table(analysis.frontier, study),
        differences=page_charts.differences(analysis.comparison, study) if is_compared else None,
        comparison=page_tables.comparison_table(analysis.comparison, study),
        tests=[
            *([page_tables.real_table(analysis.versus_real, study)] if analysis.versus_real else []),
            *([page_tables.models_table(analysis.versus_models)] if analysis.versus_models else []),
        ],
        tradeoff=page_tables.tradeoff_table(analysis.tradeoff, study) if analysis.tradeoff else None,
        runs=page_tables.runs_table(runs, study),
    )


def _lead(study: Study) -> str:
    parts = [
        _counted(len(study.models), "model"),
        _counted(len(study.contestants), "contestant") if len(study.contestants) > 1 else "",
        f"epsilon {', '.join(map(page_tables.epsilon_text, study.epsilons))}",
        f"{_counted(len(study.seeds), 'seed')} each",
    ]
    return "; ".join(part for part in parts if part) + "."


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _tuned_words(runs: Sequence[Row], study: Study) -> str:
    """What must be said of values that were tuned on private records."""
    if not any(row["tuned_on_private_data"] for row in runs):
        return ""
    return (
        f"The baseline ({study.baseline}) was tuned on the real records without a charge, and all contestants use what "
        "was found (tuned_on_private_data): epsilon does not cover that."
    )


def _choices(study: Study) -> list[dict[str, Any]]:
    """What the page can be filtered by."""
    choices = [
        {"name": "model", "words": "models", "options": list(study.models)},
        {
            "name": "epsilon",
            "words": "epsilon",
            "options": [page_tables.epsilon_text(epsilon) for epsilon in study.epsilons],
        },
        {"name": "contestant", "words": "contestants", "options": list(study.contestants)},
    ]
    return [choice for choice in choices if choice["name"] != "contestant" or len(choice["options"]) > 1]


def _frontiers(analysis: Analysis, study: Study) -> list[dict[str, Any]]:
    """One chart for every kind of data."""
    volumes = {(row["modality"], row["data"]): row for row in analysis.hypervolumes}
    by_kind: dict[tuple[str, str], list[Row]] = {}
    for row in analysis.frontier:
        by_kind.setdefault((row["modality"], row["data"]), []).append(row)
    return [
        {"heading": f"{kind[1]} ({kind[0]})", "figure": page_charts.frontier(rows, study, volumes.get(kind))}
        for kind, rows in by_kind.items()
    ]
