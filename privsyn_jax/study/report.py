"""The tables of a study as Markdown."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from privsyn_jax.study.analyse import Analysis
from privsyn_jax.study.cells import Cell, Cells, Row
from privsyn_jax.study.comparison import SIGNIFICANT
from privsyn_jax.study.plan import Kind, Study
from privsyn_jax.workdir import PRIVATE_NOTICE

_FRONTIER = (
    "Means over seeds with their 95 % intervals. Optimal (Pareto): no other row of the data set has at least its "
    "utility and at most its leakage, and one of them better; leakage below that of a guess counts as that of a guess. "
    "The hypervolume is the area between the frontier and the reference point; the intervals do not enter it."
)


def markdown(
    study: Study, cells: Cells, analysis: Analysis, tuned: Mapping[tuple[str, float], Mapping[str, Any]]
) -> str:
    """The whole report.

    Args:
      tuned: (model, epsilon) -> what the baseline was tuned to.
    """
    blocks = [PRIVATE_NOTICE, "## Means", f"Mean ± standard deviation over seeds {_listed(study.seeds)}."]
    for kind, models in study.kinds().items():
        blocks += [_heading(study, kind), _means(study, cells, models)]
    if analysis.comparison:
        blocks += ["## Differences to the baseline", *_differences(study, analysis.comparison, tuned)]
    if analysis.frontier:
        blocks += ["## Utility against leakage", _FRONTIER]
        blocks += [_table(analysis.frontier), _table(analysis.hypervolumes)]
    if analysis.tradeoff:
        blocks.append("## Privacy, utility and fairness\n\nMeans over seeds.")
        for kind, models in study.kinds().items():
            if rows := [row for row in analysis.tradeoff if row["model"] in models]:
                blocks += [_heading(study, kind), _table(rows)]
    if analysis.versus_real:
        blocks.append(
            "## Synthetic against real records\n\nSynthetic minus real, of an attack minus a guess, paired by seed. "
            "Holm's correction: over all tests of a metric, an epsilon and a data set."
        )
        blocks.append(_table(analysis.versus_real))
    axes = {metric for kind in study.kinds() for metric in study.axes(kind.modality)}
    if shown := [row for row in analysis.versus_models if row["metric"] in axes]:
        blocks.append(
            f"## Models against each other\n\n`{study.baseline}` only; model minus other, paired by seed. Holm's "
            "correction: over all pairs of a metric, an epsilon and a data set. Utility and leakage; the rest is in "
            "tests.csv."
        )
        blocks.append(_table(shown))
    return "\n\n".join(block for block in blocks if block) + "\n"


def _heading(study: Study, kind: Kind) -> str:
    """None is needed where there is one data set."""
    return f"### {kind.modality}: {kind.data}" if len(study.kinds()) > 1 else ""


def _means(study: Study, cells: Cells, models: Sequence[str]) -> str:
    """Models, contestants and epsilons down, metrics across."""
    metrics = [metric for metric in study.metrics if any(cells.has(model, metric) for model in models)]
    columns = [*metrics, "epsilon_spent", "seconds"]
    lines = [_header("model", "epsilon", *columns)]
    for model in models:
        names = study.contestants_of(model)
        for contestant, epsilon in itertools.product(names, study.epsilons):
            values = [cells.values(Cell(model, contestant, epsilon), column) for column in columns]
            name = model if len(study.contestants) == 1 else f"{model}, {contestant}"
            lines.append(_line(name, f"{epsilon:g}", *map(_mean_and_spread, values)))
    return "\n".join(lines)


def _differences(
    study: Study, comparison: Sequence[Row], tuned: Mapping[tuple[str, float], Mapping[str, Any]]
) -> list[str]:
    """One table per metric: models and contestants down, epsilons across; differences in units of the metric."""
    blocks = [
        f"Differences to the baseline `{study.baseline}` at equal (epsilon, delta), mean over {len(study.seeds)} "
        "seeds, ± half of the 95 % interval (paired t). **Bold**: significant at 5 % after Holm's correction over the "
        "contestants of a model and an epsilon."
    ]
    if any(tuned.values()):
        found = (
            f"{model}, epsilon {epsilon:g}: " + ", ".join(f"{path} {value:g}" for path, value in values.items())
            for (model, epsilon), values in tuned.items()
        )
        blocks.append(
            "The baseline was tuned on the real records without a charge, and all contestants use what was found "
            f"(`tuned_on_private_data`): {'; '.join(found)}."
        )
    rows = {(row["metric"], row["model"], row["contestant"], row["epsilon"]): row for row in comparison}
    for metric in dict.fromkeys(row["metric"] for row in comparison):
        lines = [_header("model", "contestant", *(f"epsilon {epsilon:g}" for epsilon in study.epsilons))]
        for model in study.models:
            for name in study.contestants_of(model):
                of_epsilons = [rows.get((metric, model, name, epsilon)) for epsilon in study.epsilons]
                if any(of_epsilons):
                    lines.append(_line(model, name, *(_difference(row) if row else "" for row in of_epsilons)))
        blocks.append(f"### {_words(metric)}\n\n" + "\n".join(lines))
    return blocks


def _table(rows: Sequence[Row]) -> str:
    """All columns that any row has."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return "\n".join([_header(*columns), *(_line(*(_plain(row.get(column)) for column in columns)) for row in rows)])


def _header(*names: str) -> str:
    return _line(*map(_words, names)) + "\n" + "|---" * len(names) + "|"


def _line(*texts: str) -> str:
    return f"| {' | '.join(texts)} |"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values))


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4g}"
    return "" if value is None else str(value)


def _difference(row: Row) -> str:
    text = f"{row['difference']:+.4f}"
    if row["num_seeds"] > 1:
        text += f" ± {(row['high'] - row['low']) / 2:.4f}"
    return f"**{text}**" if row["p_holm"] < SIGNIFICANT else text


def _mean_and_spread(values: Sequence[float]) -> str:
    """Of the seeds that have one."""
    present = [value for value in values if math.isfinite(value)]
    if not present:
        return ""
    spread = f" ± {np.std(present, ddof=1):.2g}" if len(present) > 1 else ""
    return f"{np.mean(present):.4g}{spread}"
