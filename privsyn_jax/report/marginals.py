"""One column of the real table against the same column of the synthetic one, as a small figure."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib import dates
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from privsyn_jax.report import svg
from privsyn_jax.report.charts import Chart, Drawing, categories, histogram
from privsyn_jax.report.numbers import format_share, short_number
from privsyn_jax.types import NUMERIC_KINDS, Column

MAX_CATEGORIES = 20
_MAX_BINS = 60
_LOG_ABOVE = 0.6  # a column with more than this in one bin is drawn on a logarithmic scale
_WIDTH = 3.4
_MILLISECONDS = 86_400_000  # of a day


class Marginal(NamedTuple):
    """A drawn column."""

    name: str
    caption: str
    svg: str
    chart: Chart
    is_tall: bool


def draw_marginal(column: Column, real: pd.Series, synthetic: pd.Series) -> Marginal:
    """Draws one column: histogram on its public bounds, or its most frequent categories."""
    notes = []
    if column.nullable or real.isna().any() or synthetic.isna().any():
        notes.append(
            f"Missing: real {format_share(_missing_share(real))}, synthetic {format_share(_missing_share(synthetic))}."
        )
    if column.kind in NUMERIC_KINDS:
        drawn, is_log = _draw_histogram(column, real, synthetic)
        is_tall = False
    else:
        shares = category_shares(column, real, synthetic)
        drawn, is_log = _draw_categories(column, shares)
        is_tall = len(shares) > 8
    if is_log:
        notes.append("Logarithmic scale.")
    return Marginal(column.name, " ".join(notes), *drawn, is_tall)


def category_shares(column: Column, real: pd.Series, synthetic: pd.Series) -> list[tuple[str, float, float]]:
    """(category, real share, synthetic share) of the records that are not missing.

    Ordinal and boolean categories keep their order, others go by real frequency; beyond
    MAX_CATEGORIES the rest is summed up as "other".
    """
    counts = [series.dropna().astype(str).value_counts(normalize=True) for series in (real, synthetic)]
    is_boolean = column.kind == "boolean"  # a schema may say 0 and 1
    names = [str(bool(name) if is_boolean else name) for name in column.categories or ()]
    names += sorted((set(counts[0].index) | set(counts[1].index)) - set(names))
    real_shares, synthetic_shares = (dict(zip(c.index, c.to_numpy(float), strict=True)) for c in counts)
    shares = [(name, real_shares.get(name, 0.0), synthetic_shares.get(name, 0.0)) for name in names]
    if column.kind == "categorical" or len(shares) > MAX_CATEGORIES:
        shares.sort(key=lambda row: -row[1])
    if len(shares) > MAX_CATEGORIES:
        rest = shares[MAX_CATEGORIES:]
        other = (f"other ({len(rest)})", sum(row[1] for row in rest), sum(row[2] for row in rest))
        shares = [*shares[:MAX_CATEGORIES], other]
    return shares


def histogram_edges(column: Column, real: pd.Series, synthetic: pd.Series) -> np.ndarray:
    """Edges of at most 60 bins over the public bounds; whole numbers fall in the middle of their bin.

    Where a bound is unknown, the extreme value takes its place.
    """
    values = np.concatenate([_as_floats(column, real), _as_floats(column, synthetic)])
    lower = _bound(column, column.lower, values.min(initial=math.inf))
    upper = _bound(column, column.upper, values.max(initial=-math.inf))
    if not (math.isfinite(lower) and math.isfinite(upper)):
        lower, upper = 0.0, 1.0
    if column.kind == "integer":
        width = max(1, math.ceil((upper - lower + 1) / _MAX_BINS))
        count = math.ceil((upper - lower + 1) / width)
        return lower - 0.5 + width * np.arange(count + 1.0)
    return np.linspace(lower, upper if upper > lower else lower + 1.0, _MAX_BINS + 1)


def _draw_histogram(column: Column, real: pd.Series, synthetic: pd.Series) -> tuple[Drawing, bool]:
    edges = histogram_edges(column, real, synthetic)
    shares = [_histogram(_as_floats(column, series), edges) for series in (real, synthetic)]
    is_log = _is_skewed(shares[0])
    with svg.canvas(_WIDTH, 1.95) as (figure, axes):
        floor = _set_log(axes.set_yscale, axes.set_ylim, shares) if is_log else 0.0
        axes.stairs(np.maximum(shares[0], floor), edges, fill=True, color=svg.REAL_FILL, baseline=floor)
        axes.stairs(np.maximum(shares[1], floor), edges, color=svg.SYNTHETIC, linewidth=1.5, baseline=floor)
        axes.set_xlim(edges[0], edges[-1])
        if not is_log:
            axes.set_ylim(0, 1.05 * max(shares[0].max(), shares[1].max()) or 1)
        if column.kind == "datetime":
            ticks = np.linspace(edges[0], edges[-1], 4)
            axes.set_xticks(ticks, [_date_words(tick, edges[-1] - edges[0]) for tick in ticks])
        else:
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=column.kind == "integer"))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: short_number(x)))
        _share_axis(axes, "y", is_log)
        still = svg.to_svg(figure, f"Distribution of {column.name}, real against synthetic", f"column {column.name}")
        middles, width = (edges[:-1] + edges[1:]) / 2, float(edges[1] - edges[0])
        if column.kind == "datetime":
            moments = [dates.num2date(middle).strftime("%Y-%m-%d %H:%M:%S") for middle in middles]
            return Drawing(still, histogram(moments, width * _MILLISECONDS, *shares, is_log=is_log)), is_log
        return Drawing(still, histogram(middles.tolist(), width, *shares, is_log=is_log)), is_log


def _draw_categories(column: Column, shares: list[tuple[str, float, float]]) -> tuple[Drawing, bool]:
    values = np.array([row[1:] for row in shares], dtype=float).reshape(-1, 2)
    positions = np.arange(len(shares))
    is_log = _is_skewed(values[:, 0]) and len(shares) > 3
    with svg.canvas(_WIDTH, 0.4 + 0.19 * max(len(shares), 1)) as (figure, axes):
        floor = _set_log(axes.set_xscale, axes.set_xlim, values) if is_log else 0.0
        for offset, index, colour in ((-0.2, 0, svg.REAL), (0.2, 1, svg.SYNTHETIC)):
            lengths = np.maximum(values[:, index] - floor, 0.0)
            axes.barh(positions + offset, lengths, left=floor, height=0.38, color=colour)
        axes.set_yticks(positions, [svg.clean_label(row[0], 19) for row in shares])
        axes.set_ylim(max(len(shares), 1) - 0.5, -0.5)
        _share_axis(axes, "x", is_log)
        label = f"Shares of the categories of {column.name}, real against synthetic"
        still = svg.to_svg(figure, label, f"column {column.name}")
        return Drawing(still, categories(shares, is_log=is_log)), is_log


def _is_skewed(shares: np.ndarray) -> bool:
    return bool(np.count_nonzero(shares) > 1 and shares.max() > _LOG_ABOVE)


def _set_log(set_scale: Any, set_limits: Any, shares: Any) -> float:
    """Switch an axis to a logarithmic scale that shows the smallest share; returns its lower end."""
    positive = np.concatenate([np.ravel(values) for values in shares])
    positive = positive[positive > 0]
    floor = 10.0 ** math.floor(math.log10(positive.min() * 0.7))
    set_scale("log")
    set_limits(floor, 1.3)
    return floor


def _share_axis(axes: Axes, which: str, is_log: bool) -> None:
    """Percentages on the axis of shares, with a light grid."""
    axis = axes.yaxis if which == "y" else axes.xaxis
    axis.set_major_locator(LogLocator(numticks=5) if is_log else MaxNLocator(4 if which == "y" else 3))
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:g} %"))
    axes.grid(True, axis=which)  # type: ignore[arg-type]
    axes.spines["left" if which == "y" else "bottom"].set_visible(False)


def _histogram(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Share of the values per bin; values outside the edges count in the outermost bin."""
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return counts / max(1, len(values))


def _as_floats(column: Column, series: pd.Series) -> np.ndarray:
    """The values that are not missing, as floats; dates in days."""
    present = series.dropna()
    if column.kind == "datetime":
        return np.asarray(dates.date2num(present.to_numpy(dtype="datetime64[us]")), dtype=float)
    values = present.to_numpy(dtype=float)
    return values[np.isfinite(values)]


def _bound(column: Column, bound: Any, fallback: float) -> float:
    if bound is None:
        return float(fallback)
    return float(dates.date2num(pd.Timestamp(bound).to_datetime64())) if column.kind == "datetime" else float(bound)


def _date_words(days: float, span: float) -> str:
    """A date (days since 1970) as precisely as an axis over `span` days needs."""
    precision = "%Y" if span > 3000 else "%Y-%m" if span > 150 else "%Y-%m-%d" if span > 5 else "%d. %H:%M"
    return dates.num2date(days).strftime(precision)


def _missing_share(series: pd.Series) -> float:
    return float(series.isna().mean()) if len(series) else 0.0
