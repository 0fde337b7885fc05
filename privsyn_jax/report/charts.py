"""Interactive charts as plain JSON: figures of Plotly, which page.js draws in place of still ones."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from privsyn_jax.report import svg
from privsyn_jax.report.numbers import finite_or_none, format_number, format_share

Chart = dict[str, Any]


class Drawing(NamedTuple):
    """A figure of the page: what stands there without scripts and in print, and what page.js draws over it."""

    svg: str
    chart: Chart


class Curve(NamedTuple):
    """Points [n, 2] in one colour."""

    name: str
    points: np.ndarray
    colour: str
    width: float
    dash: str = "solid"


def chart(traces: Sequence[Mapping[str, Any]], layout: Mapping[str, Any], metric: str = "") -> Chart:
    """A chart of one view; see page.js for what else it may hold."""
    return {"views": {metric: {"data": list(traces), "layout": dict(layout)}}}


def curves(drawn: Iterable[Curve], *, x: str, y: str, **y_axis: Any) -> Chart:
    """Lines whose values are shown together.

    Args:
      x, y: titles of the axes.
      y_axis: what else Plotly is to know of it.
    """
    traces = [
        {
            "type": "scatter", "mode": "lines", "name": plain(curve.name),
            "x": rounded(curve.points[:, 0]), "y": rounded(curve.points[:, 1]),
            "line": {"color": curve.colour, "width": curve.width, "dash": curve.dash},
        }
        for curve in drawn
    ]  # fmt: skip
    axes = {"xaxis": {"title": {"text": plain(x)}}, "yaxis": {"title": {"text": plain(y)}, **y_axis}}
    return chart(traces, {"hovermode": "x unified", **axes})


def histogram(middles: Sequence[Any], width: float, real: np.ndarray, synthetic: np.ndarray, *, is_log: bool) -> Chart:
    """Shares of bins, real ones filled and synthetic ones as an outline.

    Args:
      middles: of the bins; text for dates.
      width: of a bin, in units of the axis.
    """
    common = {"x": list(middles), "hovertemplate": "%{y:.3~%}"}
    traces = [
        {**common, "type": "bar", "name": "real", "y": rounded(real), "width": width, "marker": {"color": svg.REAL}},
        {
            **common, "type": "scatter", "mode": "lines", "name": "synthetic", "y": rounded(synthetic),
            "line": {"color": svg.SYNTHETIC, "width": 2, "shape": "hvh"},
        },
    ]  # fmt: skip
    return chart(traces, {"hovermode": "x unified", "yaxis": _shares(is_log)})


def categories(shares: Sequence[tuple[str, float, float]], *, is_log: bool) -> Chart:
    """Shares of categories as pairs of bars: (name, real, synthetic), the first on top."""
    places = list(range(len(shares)))
    words = [
        f"{plain(name)}<br>real {format_share(real)}<br>synthetic {format_share(synthetic)}"
        for name, real, synthetic in shares
    ]
    traces = [
        {
            "type": "bar", "orientation": "h", "name": name, "y": places, "x": rounded([row[index] for row in shares]),
            "hovertext": words, "hoverinfo": "text", "marker": {"color": colour},
        }
        for name, index, colour in (("real", 1, svg.REAL), ("synthetic", 2, svg.SYNTHETIC))
    ]  # fmt: skip
    labels = [plain(svg.clean_label(name, 19)) for name, _, _ in shares]
    axis = {"tickvals": places, "ticktext": labels, "autorange": "reversed", "showgrid": False}
    layout = {"height": 48 + 24 * len(shares), "hovermode": "closest", "bargap": 0.2}
    return chart(traces, {**layout, "xaxis": _shares(is_log), "yaxis": axis})


def pair_map(columns: Sequence[str], matrix: np.ndarray, *, largest: float, colours: Sequence[str]) -> Chart:
    """A heat map [n, n] of pairs of columns, from 0 to `largest`; NaN is left blank."""
    names = [plain(svg.clean_label(name, 40)) for name in columns]
    trace = {
        "type": "heatmap", "z": [rounded(row) for row in matrix], "zmin": 0, "zmax": largest or 1,
        "hovertext": [
            [f"{one} and {other}<br>{format_number(value)}" for other, value in zip(names, row, strict=True)]
            for one, row in zip(names, matrix, strict=True)
        ],
        "hoverinfo": "text", "colorscale": [[place / (len(colours) - 1), c] for place, c in enumerate(colours)],
        "colorbar": {"orientation": "h", "thickness": 10, "y": -0.02, "yanchor": "top", "outlinewidth": 0},
    }  # fmt: skip
    labels = {
        "tickvals": list(range(len(columns))), "ticktext": [plain(svg.clean_label(name, 18)) for name in columns],
        "showgrid": False, "constrain": "domain",
    }  # fmt: skip
    layout = {
        "xaxis": {**labels, "side": "top", "tickangle": -90},
        "yaxis": {**labels, "autorange": "reversed", "scaleanchor": "x"},
    }
    return chart([trace], layout)


def rounded(values: Iterable[Any]) -> list[float | None]:
    """Five significant digits, and None for what is absent or not finite, as JSON has it."""
    numbers = map(finite_or_none, values)
    return [None if number is None else float(f"{number:.5g}") for number in numbers]


def plain(text: object) -> str:
    """Text that Plotly shows as it is: by itself it reads some HTML, and formulas between dollars."""
    return html.escape(str(text), quote=False).replace("$", "&#36;")


def _shares(is_log: bool) -> dict[str, Any]:
    """An axis of percentages."""
    return {"tickformat": "~%", **({"type": "log", "dtick": 1} if is_log else {"rangemode": "tozero"})}
