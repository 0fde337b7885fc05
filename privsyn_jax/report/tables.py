"""Lists of metrics as the rows of tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from privsyn_jax.report.numbers import finite_or_none, format_number

_SPELLING = {
    "auc": "AUC", "cnn": "CNN", "emd": "EMD", "f1": "F1", "fid": "FID", "kid": "KID", "kl": "KL", "lstm": "LSTM",
    "mlp": "MLP", "mmd": "MMD", "pmse": "pMSE", "r2": "R²", "rmse": "RMSE", "roc": "ROC",
}  # fmt: skip
_ARROWS = {None: "", True: " ↑", False: " ↓"}


class MetricRow(NamedTuple):
    """One metric, averaged over seeds, with the widths of its two bars in percent."""

    name: str
    value: str
    reference: str
    direction: str
    value_width: float
    reference_width: float


class ColumnTable(NamedTuple):
    """Per-column metrics: one row per column; each cell is (value, reference)."""

    metrics: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]


def metric_label(metric: Mapping[str, Any]) -> str:
    """A metric's name for readers: its `label` if given, else its name in words."""
    return in_words(str(metric.get("label") or metric["metric"]))


def in_words(name: str) -> str:
    """An identifier as readers write it: mlp_auc is MLP AUC."""
    return " ".join(_SPELLING.get(word, word) for word in name.replace("_", " ").split())


def direction_words(metric: Mapping[str, Any]) -> str:
    """Which direction is better; empty where the metric does not say."""
    better = metric.get("higher_is_better")
    return "" if better is None else ("higher is better" if better else "lower is better")


def average_over_seeds(metrics: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One entry per (family, metric, column), in order of first appearance.

    Returns:
      The entries with the mean of `value` and `reference` and the standard deviation of `value` over
      seeds as `spread` (None for a single seed). Values that are not finite are left out.
    """
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for metric in metrics:
        groups.setdefault((metric.get("family"), metric["metric"], metric.get("column")), []).append(metric)
    averaged = []
    for group in groups.values():
        values = [v for m in group if (v := finite_or_none(m.get("value"))) is not None]
        references = [v for m in group if (v := finite_or_none(m.get("reference"))) is not None]
        averaged.append(
            {
                **group[0],
                "value": float(np.mean(values)) if values else None,
                "reference": float(np.mean(references)) if references else None,
                "spread": float(np.std(values, ddof=1)) if len(values) > 1 else None,
            }
        )
    return averaged


def metric_rows(metrics: Sequence[Mapping[str, Any]]) -> list[MetricRow]:
    """Metrics as rows, one per metric and column."""
    rows = []
    for metric in average_over_seeds(metrics):
        value, reference = metric["value"], metric["reference"]
        longest = max((abs(v) for v in (value, reference) if v is not None), default=0.0)
        scale = 1.0 if longest <= 1 and metric.get("higher_is_better") else longest
        rows.append(
            MetricRow(
                metric_label(metric),
                format_number(value) + _spread_words(metric["spread"]),
                format_number(reference),
                direction_words(metric),
                _width(value, scale),
                _width(reference, scale),
            )
        )
    return rows


def column_table(metrics: Sequence[Mapping[str, Any]]) -> ColumnTable:
    """Per-column metrics as a table of columns by metrics."""
    averaged = average_over_seeds(m for m in metrics if m.get("column") is not None)
    names = tuple(dict.fromkeys(metric_label(m) for m in averaged))
    columns = dict.fromkeys(str(m["column"]) for m in averaged)
    cells = {(str(m["column"]), metric_label(m)): m for m in averaged}
    rows = tuple((column, tuple(_cell(cells.get((column, name))) for name in names)) for column in columns)
    arrows = {metric_label(m): _ARROWS[m.get("higher_is_better")] for m in averaged}
    return ColumnTable(tuple(name + arrows[name] for name in names), rows)


def worst_pairs(pair_errors: Mapping[str, Any], limit: int = 10) -> list[tuple[str, str, str, str]]:
    """The column pairs with the largest error: (column, column, synthetic, reference)."""
    columns = [str(name) for name in pair_errors.get("columns") or ()]
    if len(columns) < 2:
        return []
    synthetic = np.asarray(pair_errors["synthetic"], dtype=float)
    reference = pair_errors.get("reference")
    reference = np.full_like(synthetic, math.nan) if reference is None else np.asarray(reference, dtype=float)
    pairs = [(i, j) for i in range(len(columns)) for j in range(i) if math.isfinite(synthetic[i, j])]
    pairs.sort(key=lambda pair: -synthetic[pair])
    return [
        (columns[j], columns[i], format_number(synthetic[i, j]), format_number(reference[i, j]))
        for i, j in pairs[:limit]
    ]


def flatten(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """A nested mapping as (dotted name, value) pairs."""
    rows: list[tuple[str, Any]] = []
    for name, value in settings.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            rows += flatten(value, key + ".")
        elif isinstance(value, (list, tuple)) and any(isinstance(item, Mapping) for item in value):
            rows += flatten({str(i + 1): item for i, item in enumerate(value)}, key + ".")
        else:
            rows.append((key, value))
    return rows


def _cell(metric: Mapping[str, Any] | None) -> tuple[str, str]:
    if metric is None:
        return ("", "")
    return (format_number(metric["value"]), format_number(metric["reference"]))


def _spread_words(spread: float | None) -> str:
    return "" if spread is None else f" ± {format_number(spread)}"


def _width(value: float | None, scale: float) -> float:
    """Length of a bar in percent."""
    return 0.0 if value is None or scale == 0 else round(100 * min(max(value, 0.0) / scale, 1.0), 1)
