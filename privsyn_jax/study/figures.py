"""The figures of a study: utility against epsilon, differences to the baseline, utility against leakage."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from privsyn_jax.files import write_bytes
from privsyn_jax.study.analyse import Analysis
from privsyn_jax.study.cells import Cell, Cells, Row, with_interval
from privsyn_jax.study.comparison import SIGNIFICANT
from privsyn_jax.study.plan import Study
from privsyn_jax.workdir import PRIVATE_NOTICE

_VERDICTS = {"better": "#0b6bb8", "worse": "#d55e00", "open": "#5b6770"}
_MARKERS = "osD^vP*X"
_STYLE: Any = {"svg.fonttype": "none", "svg.hashsalt": "study", "font.size": 9}


def draw(study: Study, cells: Cells, analysis: Analysis, folder: Path) -> list[Path]:
    """Every figure that there is something to show in, for every modality; PNG and SVG."""
    paths = []
    with matplotlib.rc_context(_STYLE):
        for modality in dict.fromkeys(kind.modality for kind in study.kinds()):
            models = {kind.data: names for kind, names in study.kinds().items() if kind.modality == modality}
            every = [model for names in models.values() for model in names]
            known = [metric for metric in study.metrics if any(cells.has(model, metric) for model in every)]
            if known:
                paths += _save(by_epsilon(study, cells, models, known[0]), folder / f"by_epsilon_{modality}")
                rows = [row for row in analysis.comparison if row["model"] in every and row["metric"] == known[0]]
                if rows:
                    paths += _save(differences(study, rows, every), folder / f"differences_{modality}")
            rows = [row for row in analysis.frontier if row["modality"] == modality]
            if rows:
                paths += _save(frontier(study, rows), folder / f"frontier_{modality}")
    return paths


def by_epsilon(study: Study, cells: Cells, models: dict[str, list[str]], metric: str) -> Figure:
    """The baseline contestant against epsilon: a panel for every data set, a line for every model.

    Args:
      models: of one modality, by data set.
    """
    places, most = range(len(study.epsilons)), max(map(len, models.values()))
    drawing = Figure(figsize=(2.4 + 4.0 * len(models), 3.2 + 0.12 * most), layout="constrained")
    for axes, (data, names) in zip(drawing.subplots(1, len(models), squeeze=False)[0], models.items(), strict=True):
        for number, model in enumerate(names):
            found = [cells.values(Cell(model, study.baseline, epsilon), metric) for epsilon in study.epsilons]
            ends = [with_interval("value", values) for values in found]
            shift = 0.3 * (number / max(1, len(names) - 1) - 0.5)  # so that intervals do not cover each other
            colour = _colour(number)
            means = [end["value"] for end in ends]
            axes.plot([place + shift for place in places], means, "o-", color=colour, label=model, markersize=4)
            for place, end in zip(places, ends, strict=True):
                axes.plot([place + shift] * 2, [end["value_low"], end["value_high"]], color=colour, linewidth=1.2)
        axes.set_xticks(places, [f"{epsilon:g}" for epsilon in study.epsilons])
        axes.set_title(data if len(models) > 1 else "", fontsize=9)
        axes.set_ylabel(metric.replace("_", " "))
        _plain_frame(axes, "y")
        axes.legend(frameon=False, fontsize=8)
    drawing.supxlabel(f"epsilon; intervals: 95 %, over {len(study.seeds)} seeds\n{PRIVATE_NOTICE}", fontsize=9)
    return drawing


def differences(study: Study, comparison: Sequence[Row], models: Sequence[str]) -> Figure:
    """Differences with their intervals, a panel for every model and epsilon.

    Args:
      comparison: rows of one metric.
      models: of one modality.
    """
    found = {(row["model"], row["epsilon"], row["contestant"]): row for row in comparison}
    models = [model for model in models if any(row["model"] == model for row in comparison)]
    names = [name for name in study.contestants if name != study.baseline]
    rows, columns = len(models), len(study.epsilons)
    drawing = Figure(figsize=(2.2 + 2.7 * columns, 0.9 + (0.5 + 0.24 * len(names)) * rows), layout="constrained")
    panels = drawing.subplots(rows, columns, sharey=True, sharex="row", squeeze=False)
    for (row, model), (column, epsilon) in itertools.product(enumerate(models), enumerate(study.epsilons)):
        panel = panels[row][column]
        panel.axvline(0, color="#24292f", linewidth=0.8)
        for place, name in enumerate(names):
            entry = found.get((model, epsilon, name))
            if entry is None:
                continue
            verdict = "open"
            if entry["p_holm"] < SIGNIFICANT:
                verdict = "better" if entry["difference"] > 0 else "worse"
            colour = _VERDICTS[verdict]
            panel.plot([entry["low"], entry["high"]], [place, place], color=colour, linewidth=1.6)
            panel.plot(entry["difference"], place, "o" if verdict != "open" else "|", color=colour, markersize=6)
        panel.set_yticks(range(len(names)), names)
        panel.set_title(f"{model}, epsilon {epsilon:g}", fontsize=9)
        _plain_frame(panel, "x")
    panels[0][0].invert_yaxis()  # of all panels, which share it
    words = comparison[0]["metric"].replace("_", " ")
    tuned = "tuned " if study.tuning is not None else ""
    drawing.supxlabel(
        f"{words}: difference to the {tuned}{study.baseline} baseline, 95 % interval; dots are significant (Holm)\n"
        f"{PRIVATE_NOTICE}",
        fontsize=9,
    )
    return drawing


def frontier(study: Study, rows: Sequence[Row]) -> Figure:
    """Utility against leakage, a panel for every data set: a colour for every model, a marker for every epsilon.

    Args:
      rows: of the frontier, of one modality.
    """
    sets = list(dict.fromkeys(row["data"] for row in rows))
    drawing = Figure(figsize=(2.4 + 4.0 * len(sets), 4.2), layout="constrained")
    for axes, data in zip(drawing.subplots(1, len(sets), squeeze=False)[0], sets, strict=True):
        here = [row for row in rows if row["data"] == data]
        models = list(dict.fromkeys(row["model"] for row in here))
        for row in here:
            colour = _colour(models.index(row["model"]))
            strength = 1.0 if row["contestant"] == study.baseline else 0.45
            x, y = row["leakage"], row["utility"]
            axes.plot([row["leakage_low"], row["leakage_high"]], [y, y], color=colour, linewidth=0.8, alpha=0.4)
            axes.plot([x, x], [row["utility_low"], row["utility_high"]], color=colour, linewidth=0.8, alpha=0.4)
            marker = _MARKERS[study.epsilons.index(row["epsilon"]) % len(_MARKERS)]
            axes.plot(x, y, marker, color=colour, markersize=5, alpha=strength)
        best = sorted((row["leakage"], row["utility"]) for row in here if row["is_optimal"])
        leakages, utilities = [leakage for leakage, _ in best], [utility for _, utility in best]
        axes.plot(leakages, utilities, color="#24292f", linewidth=1.0, drawstyle="steps-post", zorder=0)
        axes.plot(leakages, utilities, "o", color="#24292f", markersize=9, fillstyle="none")
        for number, model in enumerate(models):
            axes.plot([], [], "o", color=_colour(number), label=model, markersize=5)
        for number, epsilon in enumerate(study.epsilons):
            axes.plot([], [], _MARKERS[number % len(_MARKERS)], color="#5b6770", label=f"epsilon {epsilon:g}")
        axes.plot([], [], "o", color="#24292f", markersize=9, fillstyle="none", label="optimal")
        axes.legend(frameon=False, fontsize=8)
        axes.set_title(data, fontsize=9)
        axes.set_ylabel(f"{here[0]['utility_metric'].replace('_', ' ')} (more is better)")
        axes.set_xlabel(f"{here[0]['leakage_metric'].replace('_', ' ')} (less is better)")
        _plain_frame(axes, "both")
    faint = f"; faint: other contestants than {study.baseline}" if len(study.contestants) > 1 else ""
    drawing.supxlabel(f"bars: 95 % intervals over {len(study.seeds)} seeds{faint}\n{PRIVATE_NOTICE}", fontsize=9)
    return drawing


def _colour(number: int) -> str:
    colours = matplotlib.colormaps["tab20"].colors  # type: ignore[attr-defined]
    return colours[number % len(colours)]


def _plain_frame(axes: Axes, grid: str) -> None:
    axes.grid(True, axis=grid, color="#dfe3e8", linewidth=0.6)  # type: ignore[arg-type]
    axes.spines[["top", "right"]].set_visible(False)


def _save(drawing: Figure, stem: Path) -> list[Path]:
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "svg")]
    for path in paths:
        content, kind = io.BytesIO(), path.suffix[1:]
        drawing.savefig(content, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else None)
        write_bytes(path, content.getvalue())
    return paths
