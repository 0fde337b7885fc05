"""Plots of what a run or a study left, for notebooks. What came from real records says so on the plot itself."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import matplotlib.image
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from privsyn_jax.evaluation.images.grid import grid_png
from privsyn_jax.types import NUMERIC_KINDS, Column, Images, ImageSchema, Schema, UserError
from privsyn_jax.workdir import PRIVATE_NOTICE

_SYNTHETIC, _REAL, _INK, _GRID = "#0b6bb8", "#8a939c", "#24292f", "#dfe3e8"
_DETECTED, _PRIVATE = "#d55e00", "#b42318"
_DOTS_PER_INCH = 100
_WIDTH = 3.2  # inches of a panel
_ACROSS = 3  # panels
_MAX_COLUMNS = 60
_MAX_CATEGORIES = 15
_NUM_BINS = 40
_OF_TRAINING = ("loss", "grad_norm", "clip_fraction", "batch_size", "noise_multiplier", "l2_clip_norm", "epsilon")


class Drawing(Figure):
    """A figure that shows itself in a notebook, whatever the backend of pyplot is."""

    def _repr_png_(self) -> bytes:
        content = io.BytesIO()
        self.savefig(content, format="png", dpi=_DOTS_PER_INCH)
        return content.getvalue()


def epsilon(curve: pd.DataFrame) -> Drawing:
    """Epsilon over steps.

    Args:
      curve: columns step and epsilon.
    """
    _need(curve, "no step of training is booked")
    drawing, (axes,) = _panels(1)
    axes.plot(curve["step"], curve["epsilon"], color=_SYNTHETIC)
    axes.set(xlabel="training step", ylabel="epsilon so far", ylim=(0, None))
    return drawing


def training(log: pd.DataFrame) -> Drawing:
    """A panel for every logged quantity over steps.

    Args:
      log: as `RunFolder.training`.
    """
    _need(log, "no step of training is logged")
    names = [name for name in _OF_TRAINING if name in log]
    drawing, panels = _panels(len(names), notice=True)
    for name, axes in zip(names, panels, strict=True):
        axes.plot(log["step"], log[name], color=_SYNTHETIC, linewidth=1)
        axes.set(xlabel="training step", ylabel=name.replace("_", " "))
    return drawing


def attacks(found: pd.DataFrame) -> Drawing:
    """Every attack's first metric with its 95 % interval, beside what knowing nothing gives.

    Args:
      found: as `RunFolder.attacks`.
    """
    _need(found, "no attack was made")
    rows = found.drop_duplicates("attack").to_dict("records")
    drawing, (axes,) = _panels(1, size=(8.0, 1.1 + 0.3 * len(rows)), notice=True)
    for place, row in enumerate(rows):
        colour = _DETECTED if row["is_detected"] else _SYNTHETIC
        axes.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=2)
        axes.plot(row["value"], place, "o", color=colour)
        axes.plot(row["baseline"], place, "|", color=_INK, markersize=14)
    axes.set_yticks(range(len(rows)), [f"{row['attack']}: {row['metric']}".replace("_", " ") for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("value with 95 % interval (orange: detected); bars: what knowing nothing gives", fontsize=8)
    return drawing


def marginals(schema: Schema, synthetic: pd.DataFrame, real: pd.DataFrame | None = None) -> Drawing:
    """The distribution of every modelled column, at most 60 of them; of real rows too where they are given.

    Args:
      schema: public facts.
      synthetic, real: rows in the canonical dtypes of `types.Records`.
    """
    columns = [column for column in schema.modelled if column.name in synthetic][:_MAX_COLUMNS]
    drawing, panels = _panels(len(columns), notice=real is not None)
    tables = [("synthetic", synthetic, _SYNTHETIC)]
    if real is not None:
        tables.insert(0, ("real", real, _REAL))
    for column, axes in zip(columns, panels, strict=True):
        shown = [(name, table[column.name].dropna(), colour) for name, table, colour in tables]
        (_histograms if column.kind in NUMERIC_KINDS else _bars)(axes, column, shown)
        axes.set_title(column.name)
    panels[0].legend(fontsize=7)
    return drawing


def samples(images: Images, schema: ImageSchema) -> Drawing:
    """Some images of every class, a class a row."""
    sheet = matplotlib.image.imread(io.BytesIO(grid_png(images, schema)))
    height, width = sheet.shape[:2]
    drawing, (axes,) = _panels(1, size=(6.0, 6.0 * height / width))
    axes.imshow(sheet)
    axes.set_axis_off()
    return drawing


def study(results: pd.DataFrame, metric: str) -> Drawing:
    """A metric over epsilon: means over seeds as lines, every seed as a dot.

    Args:
      results: as `StudyFolder.results`.
      metric: a column of it.
    """
    models = list(results["model"].unique())
    drawing, panels = _panels(len(models), notice=True)
    for model, axes in zip(models, panels, strict=True):
        of_model: Any = results[results["model"] == model]
        for contestant, rows in of_model.groupby("contestant", sort=False):
            means = rows.groupby("epsilon")[metric].mean()
            (line,) = axes.plot(means.index, means, marker="_", markersize=12, label=contestant)
            axes.plot(rows["epsilon"], rows[metric], "o", color=line.get_color(), markersize=3)
        axes.set(title=model, xlabel="epsilon", ylabel=metric.replace("_", " "))
        axes.set_xticks(sorted(of_model["epsilon"].unique()))
    panels[0].legend(fontsize=7)
    return drawing


Shown = Sequence[tuple[str, Any, str]]  # name, values present, colour


def _histograms(axes: Axes, column: Column, shown: Shown) -> None:
    """Shares of bins that all tables have in common."""
    numbers = [(name, _as_numbers(values, column), colour) for name, values, colour in shown]
    everything = np.concatenate([values for _, values, _ in numbers])
    edges = np.histogram_bin_edges(everything, _NUM_BINS) if len(everything) else np.array([0.0, 1.0])
    for name, values, colour in numbers:
        shares = np.histogram(values, edges)[0] / max(1, len(values))
        axes.stairs(shares, edges, color=colour, fill=name == "real", alpha=0.6 if name == "real" else 1, label=name)


def _as_numbers(values: Any, column: Column) -> np.ndarray:
    """Dates as years."""
    if column.kind == "datetime":
        return values.dt.year.to_numpy(float) + (values.dt.day_of_year.to_numpy(float) - 1) / 366
    return values.to_numpy(float)


def _bars(axes: Axes, column: Column, shown: Shown) -> None:
    """Shares of the most frequent categories."""
    shares = pd.DataFrame({name: values.astype(str).value_counts(normalize=True) for name, values, _ in shown})
    shares = shares.fillna(0.0).sort_values(shares.columns[0], ascending=False).head(_MAX_CATEGORIES)
    if column.kind != "categorical":
        places_of = {str(value): place for place, value in enumerate(column.values)}
        shares = shares.loc[sorted(shares.index, key=lambda value: places_of.get(value, len(places_of)))]
    places = np.arange(len(shares))
    for number, (name, _, colour) in enumerate(shown):
        axes.barh(places + 0.4 * number, shares[name], height=0.38, color=colour, label=name)
    axes.set_yticks(places + 0.2 * (len(shown) - 1), list(shares.index))
    axes.invert_yaxis()


def _panels(
    count: int, *, size: tuple[float, float] | None = None, notice: bool = False
) -> tuple[Drawing, Sequence[Axes]]:
    """A drawing with `count` panels, and the notice where it is private."""
    across = min(count, _ACROSS)
    down = math.ceil(count / max(1, across))
    drawing = Drawing(figsize=size or (max(6.0, _WIDTH * across + 0.8), 2.4 * down + 0.4), layout="constrained")
    panels = drawing.subplots(down, across, squeeze=False).ravel()
    for axes in panels:
        axes.grid(True, color=_GRID, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[count:]:
        axes.set_visible(False)
    if notice:
        drawing.supxlabel(PRIVATE_NOTICE, fontsize=8, color=_PRIVATE)
    return drawing, list(panels[:count])


def _need(frame: pd.DataFrame, reason: str) -> None:
    if frame.empty:
        raise UserError(f"there is nothing to plot: {reason}")
