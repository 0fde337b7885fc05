"""The charts of a study's page, as Plotly draws them; every point has the keys by which the page filters it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from privsyn_jax.report.charts import Chart, chart, plain, rounded
from privsyn_jax.report.numbers import finite_or_none, format_number
from privsyn_jax.report.svg import clean_label
from privsyn_jax.report.tables import in_words
from privsyn_jax.study.cells import Cell, Cells, Row, with_interval
from privsyn_jax.study.page_tables import epsilon_text, verdict, with_ends
from privsyn_jax.study.plan import Study

KEYS = ("model", "contestant", "epsilon")
# Seven colours that eyes of all kinds tell apart, by day and by night, and eight signs: 56 configurations differ.
COLOURS = ("#0072b2", "#d55e00", "#008f68", "#b5528f", "#a67600", "#7a5cc7", "#5b7f95")
_SYMBOLS = {
    "circle": "●", "square": "■", "diamond": "◆", "triangle-up": "▲", "cross": "✚", "x": "✖", "triangle-down": "▼",
    "star": "★",
}  # fmt: skip
_QUIET = "#7d8791"  # readable on light and on dark paper
_VERDICTS = {"higher": ("triangle-up", COLOURS[0]), "lower": ("triangle-down", COLOURS[1])}


class Sign(NamedTuple):
    """How a configuration is drawn."""

    model: str
    contestant: str
    label: str
    colour: str
    symbol: str
    glyph: str


class Figure(NamedTuple):
    """A chart with its text alternative and its caption."""

    chart: Chart
    label: str
    caption: str


class Line(NamedTuple):
    """A difference with its name, or a heading."""

    label: str
    row: Mapping[str, Any] | None
    keys: tuple[str, str | None, str]


def signs_of(study: Study) -> list[Sign]:
    """One for every model and contestant."""
    pairs = [(model, contestant) for model in study.models for contestant in study.contestants_of(model)]
    symbols = itertools.cycle(_SYMBOLS.items())
    return [
        Sign(model, contestant, name_of(model, contestant, study), colour, *symbol)
        for (model, contestant), colour, symbol in zip(pairs, itertools.cycle(COLOURS), symbols, strict=False)
    ]


def name_of(model: str, contestant: str, study: Study) -> str:
    return f"{model}, {contestant}" if len(study.contestants) > 1 else model


def by_epsilon(cells: Cells, study: Study, metrics: Sequence[str], real: Sequence[Row]) -> Figure:
    """Means against epsilon with intervals, a view for every metric.

    Args:
      real: tests against real records; where all say the same of them, a line says it too.
    """
    signs = signs_of(study)
    ticks = {"tickvals": list(range(len(study.epsilons))), "ticktext": [epsilon_text(e) for e in study.epsilons]}
    views = {}
    for metric in metrics:
        traces = _real_line(real, metric, len(study.epsilons))
        for number, sign in enumerate(signs):
            shift = 0.36 * (number / max(1, len(signs) - 1) - 0.5)  # so that intervals do not cover each other
            traces.append(_line_of(cells, study, metric, sign, shift))
        views[metric] = {
            "data": traces,
            "layout": {
                "height": 440,
                "hovermode": "closest",
                "xaxis": {**ticks, "title": {"text": "epsilon"}, "showgrid": False},
                "yaxis": {"title": {"text": plain(in_words(metric))}},
            },
        }
    caption = "Means over seeds and their 95 % intervals. The table below holds the same numbers."
    return Figure({"keys": KEYS, "views": views}, "The chosen metric against epsilon, by model", caption)


def frontier(rows: Sequence[Row], study: Study, hypervolume: Mapping[str, Any] | None) -> Figure:
    """Utility against leakage of the configurations of one kind of data."""
    traces: list[dict[str, Any]] = [_pareto_line(rows)]
    for sign in signs_of(study):
        own = [row for row in rows if (row["model"], row["contestant"]) == (sign.model, sign.contestant)]
        if own:
            traces.append(_points_of(own, study, sign))
    utility, leakage = (in_words(rows[0][f"{name}_metric"]) for name in ("utility", "leakage"))
    layout = {
        "height": 420,
        "hovermode": "closest",
        "xaxis": {"title": {"text": f"{plain(leakage)}<br>(leakage: less is better)"}},
        "yaxis": {"title": {"text": f"{plain(utility)}<br>(utility: more is better)"}},
    }
    optimal = [
        f"{name_of(row['model'], row['contestant'], study)}, epsilon {epsilon_text(row['epsilon'])}"
        for row in rows
        if row["is_optimal"]
    ]
    caption = f"Pareto-optimal: {'; '.join(optimal) or 'none'}."
    if hypervolume is not None:
        caption += (
            f" Hypervolume {format_number(hypervolume['hypervolume'])}, from utility "
            f"{format_number(hypervolume['reference_utility'])} and leakage "
            f"{format_number(hypervolume['reference_leakage'])}."
        )
    return Figure({**chart(traces, layout), "keys": KEYS}, f"{utility} against {leakage}. {caption}", caption)


def differences(comparison: Sequence[Row], study: Study) -> Figure:
    """Differences to the baseline, a row for every contestant under its model and epsilon; a view for every metric."""
    views = {}
    for metric in dict.fromkeys(row["metric"] for row in comparison):
        rows = [row for row in comparison if row["metric"] == metric]
        lines: list[Line] = []
        for (model, epsilon), group in itertools.groupby(rows, key=lambda row: (row["model"], row["epsilon"])):
            level = epsilon_text(epsilon)
            lines.append(Line(f"<b>{_short(model)}, epsilon {level}</b>", None, (model, None, level)))
            lines += [Line(_short(row["contestant"]), row, _keys(row)) for row in group]
        views[metric] = {"data": [_forest(lines, metric)], "layout": _forest_layout(metric, study)}
    caption = (
        "Mean differences and their 95 % intervals. ▲ significantly higher than the baseline, ▼ significantly lower "
        "(at 5 %, after Holm's correction), ○ neither. The table below holds the same numbers."
    )
    label = f"Differences of the chosen metric to {study.baseline}, by model, epsilon and contestant"
    return Figure({"keys": KEYS, "views": views}, label, caption)


def _line_of(cells: Cells, study: Study, metric: str, sign: Sign, shift: float) -> dict[str, Any]:
    """One configuration over epsilons."""
    found, words = [], []
    for epsilon in study.epsilons:
        values = cells.values(Cell(sign.model, sign.contestant, epsilon), metric)
        row = with_interval("mean", values)
        num_seeds = sum(finite_or_none(value) is not None for value in values)
        found.append(row)
        words.append(
            f"<b>{plain(sign.label)}</b><br>epsilon {epsilon_text(epsilon)}, {num_seeds} "
            f"{'seed' if num_seeds == 1 else 'seeds'}<br>{plain(in_words(metric))} "
            f"{with_ends(row, 'mean', 'mean_low', 'mean_high')}"
        )
    return {
        "type": "scatter", "mode": "lines+markers",
        "x": rounded(place + shift for place in range(len(found))), "y": rounded(row["mean"] for row in found),
        "error_y": _ends(found, "mean", sign.colour), "hovertext": words, "hoverinfo": "text",
        "line": {"color": sign.colour, "width": 1.5}, "marker": {"symbol": sign.symbol, "size": 9},
        "customdata": [(sign.model, sign.contestant, epsilon_text(epsilon)) for epsilon in study.epsilons],
    }  # fmt: skip


def _real_line(real: Sequence[Row], metric: str, count: int) -> list[dict[str, Any]]:
    """The metric of real records, where it is one number."""
    values = {format_number(row["real"]) for row in real if row["metric"] == metric and finite_or_none(row["real"])}
    if len(values) != 1:
        return []
    height = next(row["real"] for row in real if row["metric"] == metric and finite_or_none(row["real"]))
    return [
        {
            "type": "scatter", "mode": "lines+text", "x": [-0.4, count - 0.6], "y": rounded([height] * 2),
            "text": ["real records", ""], "textposition": "top right", "hoverinfo": "skip",
            "line": {"color": _QUIET, "width": 1, "dash": "dash"},
        }
    ]  # fmt: skip


def _points_of(rows: Sequence[Row], study: Study, sign: Sign) -> dict[str, Any]:
    """One configuration in the plane of utility and leakage."""
    words = [
        f"<b>{plain(sign.label)}</b><br>epsilon {epsilon_text(row['epsilon'])}, "
        f"{'' if row['is_optimal'] else 'not '}Pareto-optimal"
        + "".join(
            f"<br>{plain(in_words(row[f'{name}_metric']))} {with_ends(row, name, f'{name}_low', f'{name}_high')}"
            for name in ("utility", "leakage")
        )
        for row in rows
    ]
    return {
        "type": "scatter", "mode": "markers+text",
        "x": rounded(row["leakage"] for row in rows), "y": rounded(row["utility"] for row in rows),
        "error_x": _ends(rows, "leakage", sign.colour), "error_y": _ends(rows, "utility", sign.colour),
        "text": [f" {epsilon_text(row['epsilon'])}" if row["is_optimal"] else "" for row in rows],
        "textposition": "top right", "cliponaxis": False, "hovertext": words, "hoverinfo": "text",
        "marker": {
            "color": sign.colour, "size": 11,
            "symbol": [sign.symbol + ("" if row["is_optimal"] else "-open") for row in rows],
        },
        "customdata": [_keys(row) for row in rows],
    }  # fmt: skip


def _pareto_line(rows: Sequence[Row]) -> dict[str, Any]:
    """Stairs through the optimal points: what is reached at a leakage is reached at any larger one."""
    optimal = sorted((row for row in rows if row["is_optimal"]), key=lambda row: row["leakage"])
    return {
        "type": "scatter", "mode": "lines", "hoverinfo": "skip",
        "x": rounded(row["leakage"] for row in optimal), "y": rounded(row["utility"] for row in optimal),
        "line": {"color": _QUIET, "width": 1.5, "dash": "dash", "shape": "hv"},
    }  # fmt: skip


def _forest(lines: Sequence[Line], metric: str) -> dict[str, Any]:
    """Lines of a forest plot."""
    rows = [line.row or {} for line in lines]
    drawn = [_VERDICTS.get(verdict(row), ("circle-open", _QUIET)) if row else ("circle", _QUIET) for row in rows]
    words = [
        f"<b>{plain(row['contestant'])}</b><br>{plain(row['model'])}, epsilon {epsilon_text(row['epsilon'])}, "
        f"{row['num_seeds']} seeds<br>{plain(in_words(metric))}: {with_ends(row, 'difference', 'low', 'high')}"
        f"<br>p (Holm) {format_number(row['p_holm'])}"
        if row
        else ""
        for row in rows
    ]
    return {
        "type": "scatter", "mode": "markers", "x": rounded(row.get("difference") for row in rows),
        "error_x": {**_ends(rows, "difference", _QUIET, "low", "high"), "thickness": 2},
        "text": [line.label for line in lines], "hovertext": words, "hoverinfo": "text",
        "marker": {"symbol": [symbol for symbol, _ in drawn], "color": [colour for _, colour in drawn], "size": 10},
        "customdata": [line.keys for line in lines],
    }  # fmt: skip


def _forest_layout(metric: str, study: Study) -> dict[str, Any]:
    axis = {"title": {"text": f"{plain(in_words(metric))}: difference to {plain(study.baseline)}"}}
    zero = {"zeroline": True, "zerolinecolor": _QUIET, "zerolinewidth": 1.5}
    return {"rows": True, "hovermode": "closest", "xaxis": {**axis, **zero}, "yaxis": {"showgrid": False}}


def _ends(rows: Sequence[Mapping[str, Any]], name: str, colour: str, low: str = "", high: str = "") -> dict[str, Any]:
    """Error bars from NAME_low and NAME_high, or from the columns named."""
    below = [_distance(row, low or f"{name}_low", name) for row in rows]
    above = [_distance(row, name, high or f"{name}_high") for row in rows]
    return {
        "type": "data", "symmetric": False, "array": rounded(above), "arrayminus": rounded(below),
        "color": colour, "thickness": 1, "width": 0,
    }  # fmt: skip


def _distance(row: Mapping[str, Any], lower: str, upper: str) -> float | None:
    ends = [finite_or_none(row.get(name)) for name in (lower, upper)]
    return None if None in ends else ends[1] - ends[0]  # type: ignore[operator]


def _short(name: str) -> str:
    """A name beside an axis, which a phone must leave room for."""
    return plain(clean_label(name, 22))


def _keys(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return row["model"], row["contestant"], epsilon_text(row["epsilon"])
