"""Paired tests over the seeds of a study: contestant against baseline, synthetic against real, model against model.

P-values are adjusted by Holm's method over a family: all tests of one metric at one epsilon, of one model where its
contestants are compared, else of one data set.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from privsyn_jax.evaluation.statistics import holm, paired
from privsyn_jax.study.cells import Cell, Cells, Row, mean
from privsyn_jax.study.plan import Study

SIGNIFICANT = 0.05


def compare(cells: Cells, study: Study) -> list[Row]:
    """Every contestant against the baseline; a family is a model's, at one epsilon and by one metric."""
    rows = []
    for model, epsilon, metric in itertools.product(study.models, study.epsilons, study.metrics):
        baseline = cells.values(Cell(model, study.baseline, epsilon), metric)
        family = []
        for name in study.contestants_of(model):
            values = cells.values(Cell(model, name, epsilon), metric)
            if name != study.baseline and _has_pair(values, baseline):
                named = {"model": model, "epsilon": epsilon, "metric": metric, "contestant": name}
                means = {"baseline": mean(baseline), "value": mean(values)}
                family.append({**named, **means, **_tested(values, baseline)})
        rows += _adjusted(family)
    return rows


def versus_real(cells: Cells, study: Study) -> list[Row]:
    """Every metric against what real records give, of an attack against a guess; a family is a data set's."""
    rows = []
    for models in study.kinds().values():
        for epsilon, metric in itertools.product(study.epsilons, study.metrics):
            family = []
            for model in models:
                for contestant in study.contestants_of(model):
                    cell = Cell(model, contestant, epsilon)
                    synthetic, real = cells.values(cell, metric), cells.values(cell, f"real {metric}")
                    if _has_pair(synthetic, real):
                        named = {**cell._asdict(), "metric": metric}
                        means = {"real": mean(real), "synthetic": mean(synthetic)}
                        family.append({**named, **means, **_tested(synthetic, real)})
            rows += _adjusted(family)
    return rows


def versus_models(cells: Cells, study: Study) -> list[Row]:
    """Every pair of models of one data set, as the baseline contestant; a family is a data set's."""
    rows = []
    for models in study.kinds().values():
        for epsilon, metric in itertools.product(study.epsilons, study.metrics):
            values = {model: cells.values(Cell(model, study.baseline, epsilon), metric) for model in models}
            rows += _adjusted(
                [
                    {"model": one, "other": other, "epsilon": epsilon, "metric": metric}
                    | _tested(values[one], values[other])
                    for one, other in itertools.combinations(models, 2)
                    if _has_pair(values[one], values[other])
                ]
            )
    return rows


def summary(comparison: Sequence[Row], metrics: Sequence[str]) -> list[str]:
    """One line per metric: how many comparisons came out significant, and which."""
    lines = []
    for metric in metrics:
        part = [row for row in comparison if row["metric"] == metric]
        clear = [row for row in part if row["p_holm"] < SIGNIFICANT]
        names = ", ".join(
            f"{row['contestant']} ({row['model']}, epsilon {row['epsilon']:g}: {row['difference']:+.4f})"
            for row in clear
        )
        if part:
            lines.append(
                f"{metric}: {len(clear)} of {len(part)} comparisons significant{': ' + names if names else ''}"
            )
    return lines


def _has_pair(one: Sequence[float], other: Sequence[float]) -> bool:
    return bool(np.isfinite(np.subtract(one, other)).any())


def _tested(one: Sequence[float], other: Sequence[float]) -> Row:
    """One minus other by seed; NaN with a single pair. The adjusted p-value is yet to come."""
    test = paired(one, other)
    differences = [value for value in np.subtract(one, other).tolist() if math.isfinite(value)]
    return {
        "difference": mean(differences), "low": test.low, "high": test.high, "p_value": test.p_value,
        "p_holm": math.nan, "wilcoxon": test.wilcoxon, "effect": test.effect, "num_seeds": len(differences),
    }  # fmt: skip


def _adjusted(family: Sequence[Row]) -> list[Row]:
    adjusted = holm([row["p_value"] for row in family])
    return [{**row, "p_holm": p_holm} for row, p_holm in zip(family, adjusted, strict=True)]
