"""Paired comparisons: the same seeds under two conditions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats


class Paired(NamedTuple):
    """One contestant against a baseline over n seeds.

    Attributes:
      mean: of the differences, contestant minus baseline.
      low, high: 95 % interval of the mean, by Student's t.
      p_value: of the paired t-test, two-sided.
      wilcoxon: p-value of the signed-rank test, a check that assumes no normal distribution; its least possible value
        is 2^(1 - n).
      effect: mean difference over the standard deviation of the differences (Cohen's d_z).
    """

    mean: float
    low: float
    high: float
    p_value: float
    wilcoxon: float
    effect: float


def paired(contestant: Sequence[float], baseline: Sequence[float]) -> Paired:
    """Compares two conditions seed by seed.

    Raises:
      ValueError: fewer than two pairs, or lengths that differ.

    Source: Cohen 1988, "Statistical Power Analysis for the Behavioral Sciences", section 2.3, for the effect size.
    """
    if len(contestant) != len(baseline) or len(baseline) < 2:
        raise ValueError(f"{len(contestant)} and {len(baseline)} values: give the same seeds to both, at least two")
    differences = np.asarray(contestant, float) - np.asarray(baseline, float)
    mean, spread, count = differences.mean(), differences.std(ddof=1), len(differences)
    if spread == 0:
        certain = 1.0 if mean == 0 else 0.0
        return Paired(mean, mean, mean, certain, certain, math.copysign(math.inf, mean) if mean else 0.0)
    signed_rank: Any = stats.wilcoxon(differences)
    half = stats.t.ppf(0.975, count - 1) * spread / math.sqrt(count)
    return Paired(
        float(mean),
        float(mean - half),
        float(mean + half),
        float(stats.ttest_rel(contestant, baseline).pvalue),
        float(signed_rank.pvalue),
        float(mean / spread),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values of a family of tests, adjusted so that the chance of any false rejection is bounded.

    Source: Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure".
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
