"""Means with intervals over seeds, and paired comparisons: the same seeds under two conditions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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


class Mean(NamedTuple):
    """The mean of n seeds with its 95 % interval by Student's t."""

    mean: float
    low: float
    high: float


def mean_interval(values: Sequence[float]) -> Mean:
    """Mean and 95 % interval of finite values, one per seed; NaN with fewer than two of them.

    Source: Student 1908, "The Probable Error of a Mean".
    """
    present = np.asarray(values, float)
    present = present[np.isfinite(present)]
    if len(present) < 2:
        return Mean(*[math.nan] * 3)
    half = stats.t.ppf(0.975, len(present) - 1) * present.std(ddof=1) / math.sqrt(len(present))
    return Mean(float(present.mean()), float(present.mean() - half), float(present.mean() + half))


def paired(contestant: Sequence[float], baseline: Sequence[float]) -> Paired:
    """Compares two conditions seed by seed.

    Args:
      contestant: one value per seed; NaN where there is none, which leaves the seed out.
      baseline: likewise, in the same order.

    Returns:
      The comparison; all of it is NaN if fewer than two pairs are left. Where all differences are equal they count as
      certain: p is 0 and the effect infinite, or 1 and 0 if they are zero.

    Raises:
      ValueError: fewer than two seeds, or lengths that differ.

    Source: Cohen 1988, "Statistical Power Analysis for the Behavioral Sciences", section 2.3, for the effect size.
    """
    if len(contestant) != len(baseline) or len(baseline) < 2:
        raise ValueError(f"{len(contestant)} and {len(baseline)} values: give the same seeds to both, at least two")
    differences = np.asarray(contestant, float) - np.asarray(baseline, float)
    differences = differences[np.isfinite(differences)]
    count = len(differences)
    if count < 2:
        return Paired(*[math.nan] * 6)
    mean, spread = float(differences.mean()), float(differences.std(ddof=1))
    signed_rank: Any = stats.wilcoxon(differences) if differences.any() else None
    wilcoxon = float(signed_rank.pvalue) if signed_rank else 1.0
    if np.ptp(differences) == 0:
        effect = math.copysign(math.inf, mean) if mean else 0.0
        return Paired(mean, mean, mean, float(mean == 0), wilcoxon, effect)
    half = stats.t.ppf(0.975, count - 1) * spread / math.sqrt(count)
    p_value = 2 * float(stats.t.sf(abs(mean) / (spread / math.sqrt(count)), count - 1))
    return Paired(mean, float(mean - half), float(mean + half), p_value, wilcoxon, mean / spread)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values of a family of tests, adjusted so that the chance of any false rejection is bounded.

    NaN stands for a test that could not be made: it stays NaN and does not count as one of the family.

    Source: Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure".
    """
    adjusted, largest = [math.nan] * len(p_values), 0.0
    made = sorted((i for i, p in enumerate(p_values) if not math.isnan(p)), key=lambda i: p_values[i])
    for rank, index in enumerate(made):
        largest = max(largest, min(1.0, (len(made) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def paired_family(
    contestant: Mapping[tuple[str, ...], Sequence[float]], baseline: Mapping[tuple[str, ...], Sequence[float]]
) -> dict[tuple[str, ...], dict[str, float | None]]:
    """Paired t-tests of every score that both have, adjusted over all of them together by Holm's method.

    Args:
      contestant: name of a score -> its values, one per seed.
      baseline: likewise, for the same seeds in the same order.

    Returns:
      Name -> {"difference" (contestant minus baseline), "low", "high", "p_value", "p_holm", "wilcoxon", "effect"}, see
      `Paired`; effect is None where it is infinite. A score without two pairs of finite values is left out.

    Raises:
      ValueError: one of fewer than two seeds, or of numbers of seeds that differ.
    """
    found = {name: paired(values, baseline[name]) for name, values in contestant.items() if name in baseline}
    found = {name: test for name, test in found.items() if math.isfinite(test.mean)}
    adjusted = holm([test.p_value for test in found.values()])
    return {
        name: {
            "difference": test.mean,
            **{field: getattr(test, field) for field in ("low", "high", "p_value")},
            "p_holm": p_holm,
            "wilcoxon": test.wilcoxon,
            "effect": test.effect if math.isfinite(test.effect) else None,
        }
        for (name, test), p_holm in zip(found.items(), adjusted, strict=True)
    }
