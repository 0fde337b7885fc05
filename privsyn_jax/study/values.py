"""What the runs of a study have come to by themselves: a table of means, and a figure of utility against epsilon."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from privsyn_jax.evaluation.statistics import mean_interval
from privsyn_jax.files import write_bytes
from privsyn_jax.study.plan import Study
from privsyn_jax.workdir import PRIVATE_NOTICE

Row = dict[str, Any]


def values_markdown(runs: Sequence[Row], study: Study) -> str:
    """One table: models, contestants and epsilons down, metrics across; mean ± standard deviation over seeds.

    Args:
      runs: as `runs.compete` returns them.
    """
    columns = [*study.metrics, "epsilon_spent", "seconds"]
    names = [column.replace("_", " ") for column in columns]
    lines = [
        f"Mean ± standard deviation over seeds {', '.join(map(str, study.seeds))}.",
        "",
        "| | epsilon | " + " | ".join(names) + " |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for model, contestant, epsilon in itertools.product(study.models, study.contestants, study.epsilons):
        name = model if len(study.contestants) == 1 else f"{model}, {contestant}"
        cells = [_cell(_values(runs, (model, contestant, epsilon), column)) for column in columns]
        lines.append(f"| {name} | {epsilon:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def values_figure(runs: Sequence[Row], study: Study, folder: Path) -> list[Path]:
    """The first metric of the baseline contestant against epsilon, a line for every model; PNG and SVG."""
    places = range(len(study.epsilons))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "study", "font.size": 9}):
        drawing = Figure(figsize=(6.4, 3.2 + 0.12 * len(study.models)), layout="constrained")
        axes, colours = drawing.subplots(), matplotlib.colormaps["tab20"].colors  # type: ignore[attr-defined]
        for number, model in enumerate(study.models):
            found = [_values(runs, (model, study.baseline, epsilon), study.metrics[0]) for epsilon in study.epsilons]
            means = [float(np.mean(values)) if values else math.nan for values in found]
            ends = [mean_interval(values) for values in found]
            shift = 0.3 * (number / max(1, len(study.models) - 1) - 0.5)  # so that intervals do not cover each other
            colour = colours[number % len(colours)]
            axes.plot([place + shift for place in places], means, "o-", color=colour, label=model, markersize=4)
            for place, end in zip(places, ends, strict=True):
                axes.plot([place + shift] * 2, [end.low, end.high], color=colour, linewidth=1.2)
        axes.set_xticks(places, [f"{epsilon:g}" for epsilon in study.epsilons])
        axes.set_xlabel(f"epsilon; intervals: 95 %, over {len(study.seeds)} seeds\n{PRIVATE_NOTICE}")
        axes.set_ylabel(study.metrics[0].replace("_", " "))
        axes.grid(True, axis="y", color="#dfe3e8", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        drawing.legend(loc="outside right upper", frameon=False)
        paths = [folder / f"by_epsilon.{kind}" for kind in ("png", "svg")]
        for path in paths:
            content, kind = io.BytesIO(), path.suffix[1:]
            drawing.savefig(content, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else None)
            write_bytes(path, content.getvalue())
    return paths


def _values(runs: Sequence[Row], cell: tuple[str, str, float], column: str) -> list[float]:
    """Those of the seeds that have one."""
    found = [float(row[column]) for row in runs if (row["model"], row["contestant"], row["epsilon"]) == cell]
    return [value for value in found if math.isfinite(value)]


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    spread = f" ± {np.std(values, ddof=1):.2g}" if len(values) > 1 else ""
    return f"{np.mean(values):.4g}{spread}"
