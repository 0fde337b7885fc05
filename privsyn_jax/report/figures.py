"""The figures of the page, one function each: plain data in, a drawing out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import FuncFormatter, MaxNLocator

from privsyn_jax.report import svg
from privsyn_jax.report.charts import Curve, Drawing, curves, pair_map
from privsyn_jax.report.numbers import (
    finite_or_none,
    format_epsilon,
    format_number,
    format_share,
    short_number,
)

_WIDTH = 4.7  # inches; two stand side by side on a desk, one fills a phone
_ERROR_COLOURS = ("#f3f6f9", "#9cc3e6", svg.SYNTHETIC, "#062f52")
_ROC_STYLES = (("reference", "real", svg.REAL, 2.6), ("synthetic", "synthetic", svg.SYNTHETIC, 1.6))
_BUDGET_COLOURS = (svg.SYNTHETIC, "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8a6d1f", "#5b6770")


def budget_bar(ledger: Sequence[Mapping[str, Any]]) -> str:
    """Shares of the budget by ledger entry, stacked; empty text where no share is known."""
    entries = [(entry, share) for entry in ledger if (share := finite_or_none(entry.get("share"))) is not None]
    entries = [(entry, share) for entry, share in entries if share > 0]
    if not entries:
        return ""
    with svg.canvas(_WIDTH, 0.72 + 0.2 * len(entries)) as (figure, axes):
        left = 0.0
        for i, (entry, share) in enumerate(entries):
            label = (
                f"{svg.clean_label(entry.get('name'), 34)}: {format_share(share)} "
                f"(epsilon {format_epsilon(entry.get('epsilon_alone'))} alone)"
            )
            axes.barh(
                0,
                share,
                left=left,
                height=0.8,
                color=_BUDGET_COLOURS[i % len(_BUDGET_COLOURS)],
                edgecolor=svg.PAPER,
                linewidth=1.2,
                label=label,
            )
            left += share
        axes.set(xlim=(0, left), ylim=(-0.42, 0.42), yticks=[], xticks=[])
        _no_frame(axes)
        figure.legend(loc="outside lower left", handlelength=1, handleheight=1, labelspacing=0.4, borderpad=0.3)
        names = ", ".join(f"{entry.get('name')} {format_share(share)}" for entry, share in entries)
        return svg.to_svg(figure, f"Shares of the privacy budget: {names}", "budget")


def epsilon_curve(points: Sequence[Sequence[float]], target: float | None) -> Drawing | None:
    """Epsilon spent after each training step, with the target; nothing without points."""
    finite = _finite_rows(points)
    if not len(finite):
        return None
    drawn = [Curve("spent", finite, svg.SYNTHETIC, 2)]
    with svg.canvas(_WIDTH, 2.5) as (figure, axes):
        steps, epsilons = finite.T
        axes.plot(steps, epsilons, color=svg.SYNTHETIC, linewidth=1.8, label="spent")
        target = finite_or_none(target)
        if target is not None:
            drawn.append(
                Curve("target", np.column_stack([finite[:, 0], np.full(len(finite), target)]), svg.REAL, 1, "dash")
            )
            axes.axhline(target, color=svg.INK, linewidth=1, linestyle=(0, (4, 3)))
            axes.annotate(
                f"target {format_number(target)}",
                (0.01, target),
                xycoords=("axes fraction", "data"),
                xytext=(0, 3),
                textcoords="offset points",
                va="bottom",
            )
        axes.set(xlabel="training step", ylabel="epsilon so far", xlim=(min(0, steps[0]), steps[-1] or 1))
        axes.set_ylim(0, 1.15 * max(epsilons.max(), target or 0.0) or 1)
        _quiet_axes(axes)
        label = (
            f"Epsilon over training steps, ending at {format_number(epsilons[-1])} "
            f"after {format_number(steps[-1])} steps; target {format_number(target)}"
        )
        chart = curves(drawn, x="training step", y="epsilon so far", rangemode="tozero")
        return Drawing(svg.to_svg(figure, label, "epsilon"), chart)


def roc_curve(classifier: str, rates: Mapping[str, Mapping[str, Sequence[float]]]) -> Drawing:
    """ROC curve of one classifier trained on synthetic records against one trained on real records."""
    drawn = [Curve("a guess", np.array([[0.0, 0.0], [1.0, 1.0]]), svg.REAL, 1, "dot")]
    with svg.canvas(3.4, 3.3) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=svg.GRID, linewidth=1)
        for name, words, colour, width in _ROC_STYLES:
            if name in rates:
                points = _thin(_finite_rows(list(zip(rates[name]["fpr"], rates[name]["tpr"], strict=True))), 250)
                if len(points):
                    axes.plot(*points.T, color=colour, linewidth=width, label=f"trained on {words}")
                    drawn.append(Curve(f"trained on {words}", points, colour, width))
        axes.set(xlabel="false-positive rate", ylabel="true-positive rate", xlim=(0, 1), ylim=(0, 1.01))
        axes.set_box_aspect(1)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        if len(axes.lines) > 1:
            axes.legend(loc="lower right")
        _quiet_axes(axes)
        label = f"ROC curve on held-out real records, {classifier}: trained on synthetic against trained on real"
        chart = curves(drawn, x="false-positive rate", y="true-positive rate", scaleanchor="x")
        return Drawing(svg.to_svg(figure, label, f"roc {classifier}"), chart)


def pair_error_map(columns: Sequence[str], matrix: np.ndarray, *, largest: float, title: str, name: str) -> Drawing:
    """Heat map of the error of every pair of columns (NaN on the diagonal), colours from 0 to `largest`."""
    count = len(columns)
    size = 8.0 if count <= 16 else max(3.0, 130 / count)
    shown = range(0, count, max(1, math.ceil(count / 60)))
    labels = [svg.clean_label(columns[i], 18) for i in shown]
    with svg.canvas(_WIDTH, _WIDTH + 0.35) as (figure, axes):
        image = axes.imshow(
            np.ma.masked_invalid(matrix),
            cmap=LinearSegmentedColormap.from_list("error", _ERROR_COLOURS),
            vmin=0,
            vmax=largest or 1,
            interpolation="none",
        )
        axes.set_xticks(list(shown), labels, rotation=90, fontsize=size)
        axes.set_yticks(list(shown), labels, fontsize=size)
        _no_frame(axes)
        bar = figure.colorbar(image, ax=axes, orientation="horizontal", fraction=0.045, pad=0.02, aspect=40)
        bar.outline.set_visible(False)  # type: ignore[operator]
        bar.ax.xaxis.set_major_locator(MaxNLocator(5))
        bar.ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: short_number(x)))
        label = (
            f"Error of every pair of {count} columns, {title}: mean {format_number(np.nanmean(matrix))}, "
            f"colour scale from 0 to {format_number(largest)}"
        )
        chart = pair_map(columns, matrix, largest=largest, colours=_ERROR_COLOURS)
        return Drawing(svg.to_svg(figure, label, name), chart)


def training_curve(name: str, steps: Sequence[float], values: Sequence[float]) -> Drawing | None:
    """One logged quantity over training steps; nothing where nothing finite was logged."""
    points = _finite_rows(list(zip(steps, values, strict=True)))
    if not len(points):
        return None
    thinned = _thin(points, 400)
    words = name.replace("_", " ")
    with svg.canvas(3.4, 1.9) as (figure, axes):
        axes.plot(*thinned.T, color=svg.SYNTHETIC, linewidth=1.1)
        axes.set(xlabel="training step", ylabel=svg.clean_label(words, 30))
        _quiet_axes(axes)
        label = f"{words} over training steps, from {format_number(points[0, 1])} to {format_number(points[-1, 1])}"
        chart = curves([Curve(words, thinned, svg.SYNTHETIC, 1.5)], x="training step", y=svg.clean_label(words, 30))
        return Drawing(svg.to_svg(figure, label, f"training {name}"), chart)


def _finite_rows(points: Any) -> np.ndarray:
    """The points [n, 2] whose coordinates are all finite."""
    rows = [(finite_or_none(x), finite_or_none(y)) for x, y in points]
    return np.array([row for row in rows if None not in row], dtype=float).reshape(-1, 2)


def _thin(points: np.ndarray, limit: int) -> np.ndarray:
    """At most `limit` of the points, evenly spread, first and last included."""
    if len(points) <= limit:
        return points
    return points[np.unique(np.linspace(0, len(points) - 1, limit).astype(int))]


def _quiet_axes(axes: Axes) -> None:
    """A light grid, short numbers, few ticks."""
    axes.grid(True, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda x, _: short_number(x)))


def _no_frame(axes: Axes) -> None:
    for spine in axes.spines.values():
        spine.set_visible(False)
