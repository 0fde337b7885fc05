"""What a study shows: paired differences to the baseline, a table, a figure."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from privsyn_jax.evaluation.statistics import holm, paired
from privsyn_jax.files import write_bytes
from privsyn_jax.study.plan import Study
from privsyn_jax.workdir import PRIVATE_NOTICE

_COLOURS = {"better": "#0b6bb8", "worse": "#d55e00", "open": "#5b6770"}
_SIGNIFICANT = 0.05


Row = dict[str, Any]


def compare(runs: Sequence[Row], study: Study) -> list[Row]:
    """Every contestant against the baseline, paired by seed; p-values adjusted within (model, epsilon, metric).

    Args:
      runs: as `runs.compete` returns them.
    """
    found = {(row["model"], row["epsilon"], row["contestant"], row["seed"]): row for row in runs}
    others = [name for name in study.contestants if name != study.baseline]
    rows = []
    for model, epsilon, metric in itertools.product(study.models, study.epsilons, study.metrics):
        values = {
            name: [float(found[model, epsilon, name, seed][metric]) for seed in study.seeds]
            for name in study.contestants
        }
        results = [paired(values[name], values[study.baseline]) for name in others]
        adjusted = holm([result.p_value for result in results])
        for name, result, p_holm in zip(others, results, adjusted, strict=True):
            rows.append(
                {
                    "model": model, "epsilon": epsilon, "metric": metric, "contestant": name,
                    "baseline": _mean(values[study.baseline]), "value": _mean(values[name]),
                    "difference": result.mean, "low": result.low, "high": result.high, "p_value": result.p_value,
                    "p_holm": p_holm, "wilcoxon": result.wilcoxon, "effect": result.effect,
                    "num_seeds": sum(map(math.isfinite, np.subtract(values[name], values[study.baseline]))),
                }
            )  # fmt: skip
    return rows


def markdown(comparison: Sequence[Row], study: Study, tuned: Mapping[tuple[str, float], Mapping[str, Any]]) -> str:
    """One table per metric: contestants down, models and epsilons across; differences in units of the metric."""
    count = len(study.seeds)
    blocks = [
        f"Differences to the baseline `{study.baseline}` at equal (epsilon, delta), mean over {count} seeds, ± half of "
        "the 95 % interval (paired t). **Bold**: significant at 5 % after Holm's correction over a column.",
    ]
    if any(tuned.values()):
        blocks.append(
            "The baseline was tuned on the real records without a charge, and all contestants use what was found "
            "(`tuned_on_private_data`): "
            + "; ".join(
                f"{model}, epsilon {epsilon:g}: " + ", ".join(f"{path} {value:g}" for path, value in values.items())
                for (model, epsilon), values in tuned.items()
            )
            + "."
        )
    for metric in study.metrics:
        cells = list(itertools.product(study.models, study.epsilons))
        lines = [
            f"### {metric.replace('_', ' ')}",
            "",
            "| | " + " | ".join(f"{model}, epsilon {epsilon:g}" for model, epsilon in cells) + " |",
            "|---" * (len(cells) + 1) + "|",
            "| "
            + " | ".join([f"`{study.baseline}` itself", *(_itself(comparison, metric, cell) for cell in cells)])
            + " |",
        ]
        for name in study.contestants:
            if name != study.baseline:
                lines.append(
                    "| " + " | ".join([name, *(_cell(comparison, metric, cell, name) for cell in cells)]) + " |"
                )
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def figure(comparison: Sequence[Row], study: Study, folder: Path) -> list[Path]:
    """The first metric's differences with their intervals, a panel for every model and epsilon; PNG and SVG."""
    names = [name for name in study.contestants if name != study.baseline]
    rows, columns = len(study.models), len(study.epsilons)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "study", "font.size": 9}):
        drawing = Figure(figsize=(2.2 + 2.7 * columns, 0.9 + (0.5 + 0.24 * len(names)) * rows), layout="constrained")
        axes = drawing.subplots(rows, columns, sharey=True, sharex="row", squeeze=False)
        for (row, model), (column, epsilon) in itertools.product(enumerate(study.models), enumerate(study.epsilons)):
            panel = axes[row][column]
            panel.axvline(0, color="#24292f", linewidth=0.8)
            for place, name in enumerate(names):
                entry = _find(comparison, study.metrics[0], (model, epsilon), name)
                verdict = "open"
                if entry["p_holm"] < _SIGNIFICANT:
                    verdict = "better" if entry["difference"] > 0 else "worse"
                colour = _COLOURS[verdict]
                panel.plot([entry["low"], entry["high"]], [place, place], color=colour, linewidth=1.6)
                panel.plot(entry["difference"], place, "o" if verdict != "open" else "|", color=colour, markersize=6)
            panel.set_yticks(range(len(names)), names)
            panel.set_title(f"{model}, epsilon {epsilon:g}", fontsize=9)
            panel.grid(True, axis="x", color="#dfe3e8", linewidth=0.6)
            panel.spines[["top", "right"]].set_visible(False)
        axes[0][0].invert_yaxis()  # of all panels, which share it
        words = study.metrics[0].replace("_", " ")
        tuned = "tuned " if study.tuning is not None else ""
        drawing.supxlabel(
            f"{words}: difference to the {tuned}{study.baseline} baseline, 95 % interval; dots are significant (Holm)\n"
            f"{PRIVATE_NOTICE}",
            fontsize=9,
        )
        paths = [folder / f"schedules.{kind}" for kind in ("png", "svg")]
        for path in paths:
            content, kind = io.BytesIO(), path.suffix[1:]
            drawing.savefig(content, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else None)
            write_bytes(path, content.getvalue())
    return paths


def summary(comparison: Sequence[Row], metrics: Sequence[str]) -> list[str]:
    """One line per metric: how many comparisons came out significant, and which."""
    lines = []
    for metric in metrics:
        part = [row for row in comparison if row["metric"] == metric]
        clear = [row for row in part if row["p_holm"] < _SIGNIFICANT]
        names = ", ".join(
            f"{row['contestant']} ({row['model']}, epsilon {row['epsilon']:g}: {row['difference']:+.4f})"
            for row in clear
        )
        lines.append(f"{metric}: {len(clear)} of {len(part)} comparisons significant{': ' + names if names else ''}")
    return lines


def _mean(values: Sequence[float]) -> float:
    """Of the seeds that have a value; NaN if none has."""
    present = [value for value in values if math.isfinite(value)]
    return math.fsum(present) / len(present) if present else math.nan


def _find(comparison: Sequence[Row], metric: str, cell: tuple[str, float], name: str | None = None) -> Row:
    """The row of a contestant, or any of the cell."""
    return next(
        row
        for row in comparison
        if (row["metric"], row["model"], row["epsilon"]) == (metric, *cell) and name in (None, row["contestant"])
    )


def _itself(comparison: Sequence[Row], metric: str, cell: tuple[str, float]) -> str:
    return f"{_find(comparison, metric, cell)['baseline']:.4f}"


def _cell(comparison: Sequence[Row], metric: str, cell: tuple[str, float], name: str) -> str:
    found = _find(comparison, metric, cell, name)
    text = f"{found['difference']:+.4f} ± {(found['high'] - found['low']) / 2:.4f}"
    return f"**{text}**" if found["p_holm"] < _SIGNIFICANT else text
