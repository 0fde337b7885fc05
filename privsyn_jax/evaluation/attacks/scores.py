"""What an attack found, with intervals: rates of a membership attack against held-out controls, and a verdict.

An attack is judged by intervals, never by a bare rate: see `concluded` for when it counts as a detection.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize, stats

from privsyn_jax.views import html_parts as html

LEVEL = 0.95  # of every interval that is reported
FALSE_ALARMS = 0.05  # largest chance that an attack that knows nothing counts as a detection
FALSE_POSITIVE_RATES = (0.001, 0.01)
_FEW = 50  # scores of one kind below which DeLong's interval is too narrow


class Interval(NamedTuple):
    """An estimate with the ends of its 95 % confidence interval."""

    value: float
    low: float
    high: float


Estimate = Callable[[float], Interval]  # confidence level -> the estimate with its interval at that level


class AttackResult(NamedTuple):
    """What one attack achieved.

    Attributes:
      name: of the attack.
      metrics: with 95 % intervals; higher means that more is given away. Membership attacks: "auc", "advantage",
        "tpr_at_fpr_0.001", "tpr_at_fpr_0.01".
      baseline: of each metric, what is reached without knowing the synthetic records.
      verdict: one sentence.
      is_detected: whether the attack found something, see `concluded`.
      num_members: training records attacked.
      num_controls: held-out records attacked in the same way.
      notes: known weaknesses of the attack, or why a metric is absent; a sentence each.
    """

    name: str
    metrics: dict[str, Interval]
    baseline: dict[str, float]
    verdict: str
    is_detected: bool
    num_members: int
    num_controls: int
    notes: tuple[str, ...]

    def _repr_html_(self) -> str:
        rows = [
            (metric, interval.value, f"{interval.low:.4g} to {interval.high:.4g}", self.baseline[metric])
            for metric, interval in self.metrics.items()
        ]
        return html.block(
            self.name.replace("_", " "),
            html.stamp("PRIVATE: computed from real records without noise."),
            html.note(f"{self.verdict}."),
            html.table(("metric", "value", "95 % interval", "knowing nothing"), rows),
            *map(html.note, self.notes),
        )


def membership_result(
    name: str, members: np.ndarray, controls: np.ndarray, *, seed: int, notes: Sequence[str] = ()
) -> AttackResult:
    """Judges a membership attack by its scores of members and of controls.

    Metrics: "auc" (`guarded_auc_interval`), "advantage"
    (`advantage_interval`) and, where 1/FPR controls exist, "tpr_at_fpr_0.001" and "tpr_at_fpr_0.01"
    (`true_positive_rate_interval`, ties broken at random).

    Args:
      name: of the attack.
      members: scores [m] of records trained on, m at least 2; higher means rather a member.
      controls: scores [c] of records from the same population that were not trained on, c at least 2, none of which
        the attack was fitted on.
      seed: orders the candidates, which decides the halves on which a threshold is chosen, and breaks ties.
      notes: sentences for the reader.

    Returns:
      The result.

    Raises:
      ValueError: a score is not finite, or there are fewer than two of a kind.
    """
    members, controls = np.asarray(members, np.float64).ravel(), np.asarray(controls, np.float64).ravel()
    if min(len(members), len(controls)) < 2:
        raise ValueError(f"{len(members)} members and {len(controls)} controls: give at least two of each")
    if not (np.isfinite(members).all() and np.isfinite(controls).all()):
        raise ValueError("a score is not finite: give a finite score for every candidate")
    rng = np.random.default_rng(seed)
    scores = (rng.permutation(members), rng.permutation(controls))
    estimates: dict[str, Estimate] = {
        "auc": functools.partial(guarded_auc_interval, *scores),
        "advantage": functools.partial(advantage_interval, *scores),
    }
    baseline, notes = {"auc": 0.5, "advantage": 0.0}, list(notes)
    ranks = untied(*scores, seed=seed)
    for rate in FALSE_POSITIVE_RATES:
        metric, least = f"tpr_at_fpr_{rate}", round(1 / rate)
        if len(controls) < least:
            notes.append(f"{metric} is absent: it needs {least:,} controls, and there are {len(controls):,}")
            continue
        estimates[metric] = functools.partial(true_positive_rate_interval, *ranks, rate)
        baseline[metric] = rate
    return concluded(
        name, estimates, baseline, num_members=len(members), num_controls=len(controls), notes=tuple(notes)
    )


def concluded(
    name: str,
    estimates: Mapping[str, Estimate],
    baseline: Mapping[str, float],
    *,
    num_members: int,
    num_controls: int,
    notes: Sequence[str] = (),
) -> AttackResult:
    """The result of any attack whose metrics have intervals.

    An attack counts as a detection if the lower end of one of its k metrics lies above the baseline at the one-sided
    level 1 - 0.05 / k: by Bonferroni's inequality an attack that knows nothing does so in at most 5 % of cases. For
    two metrics these are the ends of the 95 % intervals, for four of 97.5 % ones.

    Args:
      name: of the attack.
      estimates: for each metric a function of the confidence level; higher means that more is given away.
      baseline: of each metric.
      num_members, num_controls: candidates of both kinds.
      notes: sentences for the reader.

    Returns:
      The result, with 95 % intervals and a verdict in words.
    """
    metrics = {metric: _at(estimate, LEVEL) for metric, estimate in estimates.items()}
    strict = max(LEVEL, 1 - 2 * FALSE_ALARMS / max(1, len(estimates)))
    found = [metric for metric, estimate in estimates.items() if _at(estimate, strict).low > baseline[metric]]
    notes = list(notes)
    if not found:
        notes += [
            f"the 95 % interval of {metric} lies above its baseline, but among {len(metrics)} metrics one does so too "
            "often by chance to count"
            for metric, interval in metrics.items()
            if interval.low > baseline[metric]
        ]
        below = [metric for metric, estimate in estimates.items() if _at(estimate, strict).high < baseline[metric]]
        notes += [
            f"{metric} lies below its baseline: controls look more like members than members do, so they may come from "
            "another population"
            for metric in below
        ]
    shown = found or list(metrics)[:1]
    values = ", ".join(f"{metric} {_worded(metrics[metric])} against {baseline[metric]:g}" for metric in shown)
    start = "members are told from controls" if found else "no detectable advantage"
    verdict = f"{start}: {values}; {num_members:,} members, {num_controls:,} controls"
    return AttackResult(
        name, metrics, dict(baseline), verdict, bool(found), int(num_members), int(num_controls), tuple(notes)
    )


def result_to_dict(result: AttackResult) -> dict[str, Any]:
    """The result as plain JSON: intervals are {"value", "low", "high"}, notes a list."""
    metrics = {metric: interval._asdict() for metric, interval in result.metrics.items()}
    return {**result._asdict(), "metrics": metrics, "notes": list(result.notes)}


def auc_interval(members: np.ndarray, controls: np.ndarray, level: float = LEVEL) -> Interval:
    """Chance that a member scores above a control, a tie counting half, with DeLong's interval.

    Args:
      members: scores [m], m at least 2.
      controls: scores [c], c at least 2.
      level: of confidence.

    Returns:
      In [0, 1], ends included; 0.5 for an attack that knows nothing. Too narrow for few scores.

    Source: DeLong et al. 1988, "Comparing the Areas under Two or More Correlated Receiver Operating Characteristic
    Curves"; by ranks after Sun and Xu 2014.
    """
    m, c = len(members), len(controls)
    ranks = stats.rankdata(np.concatenate([members, controls]))
    beaten = (ranks[:m] - stats.rankdata(members)) / c  # share of the controls below each member
    losses = 1 - (ranks[m:] - stats.rankdata(controls)) / m  # share of the members above each control
    stddev = np.sqrt(beaten.var(ddof=1) / m + losses.var(ddof=1) / c)
    value, half_width = float(beaten.mean()), float(stats.norm.ppf((1 + level) / 2) * stddev)
    return Interval(value, max(0.0, value - half_width), min(1.0, value + half_width))


def newcombe_interval(auc: float, num_members: int, num_controls: int, level: float = LEVEL) -> Interval:
    """Score interval of an AUC from the numbers of scores alone; never of width 0, wider than DeLong's under ties.

    Its ends are the values whose distance to the estimate is their own standard error times the normal quantile.

    Source: Newcombe 2006, "Confidence Intervals for an Effect Size Measure Based on the Mann-Whitney Statistic. Part
    2", method 5.
    """
    z, more = stats.norm.ppf((1 + level) / 2), (num_members + num_controls) / 2 - 1

    def excess(area: float) -> float:
        spread = area * (1 - area) * (1 + more * (1 - area) / (2 - area) + more * area / (1 + area))
        return float((auc - area) ** 2 - z**2 * spread / (num_members * num_controls))

    inside = 1 - 1e-9  # an estimate of 0 or 1 solves its own equation, which is not the end looked for
    low = float(optimize.root_scalar(excess, bracket=(0.0, min(auc, inside))).root) if auc > 0 else 0.0
    high = float(optimize.root_scalar(excess, bracket=(max(auc, 1 - inside), 1.0)).root) if auc < 1 else 1.0
    return Interval(auc, low, high)


def guarded_auc_interval(members: np.ndarray, controls: np.ndarray, level: float = LEVEL) -> Interval:
    """`auc_interval`, joined with `newcombe_interval` where there are few scores or all are told apart.

    Args as `auc_interval`.
    """
    delong = auc_interval(members, controls, level)
    if min(len(members), len(controls)) >= _FEW and delong.high > delong.low:
        return delong
    if np.ptp(np.concatenate([members, controls])) == 0:
        return delong  # one score for all
    newcombe = newcombe_interval(delong.value, len(members), len(controls), level)
    return Interval(delong.value, min(delong.low, newcombe.low), max(delong.high, newcombe.high))


def advantage_interval(members: np.ndarray, controls: np.ndarray, level: float = LEVEL) -> Interval:
    """True less false positive rate at the threshold that was best on other candidates, in [-1, 1]; 0 is chance.

    The threshold is chosen on the first half of both and applied to the second, then the other way round; the mean.
    Given the thresholds, both rates are shares of independent candidates, so the interval is the one for a difference
    of proportions: it is about the advantage of these thresholds, not about that of the best one.

    Args:
      members: scores [m] in random order, m at least 2.
      controls: scores [c] in random order, c at least 2.
      level: of confidence.

    Source: Newcombe 1998, "Interval Estimation for the Difference between Independent Proportions", method 10.
    """
    halves = [(members[: len(members) // 2], controls[: len(controls) // 2])]
    halves.append((members[len(members) // 2 :], controls[len(controls) // 2 :]))
    found = []
    for chosen_on, applied_to in (halves, halves[::-1]):
        thresholds = np.unique(np.concatenate(chosen_on))
        positive = [_rates_above(scores, thresholds) for scores in chosen_on]
        best = thresholds[np.argmax(positive[0] - positive[1])]
        found.append([np.mean(scores >= best) for scores in applied_to])
    true, false = (float(rate) for rate in np.mean(found, axis=0))
    return difference_interval(true, len(members), false, len(controls), level)


def difference_interval(first: float, num_first: int, second: float, num_second: int, level: float = LEVEL) -> Interval:
    """A share of `num_first` minus an independent share of `num_second`, by Wilson's intervals of both.

    Source: Newcombe 1998, "Interval Estimation for the Difference between Independent Proportions", method 10.
    """
    one, other = _wilson(first, num_first, level), _wilson(second, num_second, level)
    value = float(first - second)
    low = value - float(np.hypot(first - one.low, other.high - second))
    high = value + float(np.hypot(one.high - first, second - other.low))
    return Interval(value, max(-1.0, low), min(1.0, high))


def share_interval(hits: int, total: int, level: float = LEVEL) -> Interval:
    """A share of independent trials with the exact interval of Clopper and Pearson 1934."""
    tail = (1 - level) / 2
    low = float(stats.beta.ppf(tail, hits, total - hits + 1)) if hits > 0 else 0.0
    high = float(stats.beta.ppf(1 - tail, hits + 1, total - hits)) if hits < total else 1.0
    return Interval(hits / total, low, high)


def untied(members: np.ndarray, controls: np.ndarray, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Ranks in place of scores [m], [c], equal scores in random order.

    A threshold among equal scores then takes some of them, as a point between two corners of the ROC curve. Without
    that an attack with a few coarse scores may find nobody at a low false positive rate, though its best score is good.
    """
    scores = np.concatenate([members, controls])
    order = np.random.default_rng(seed).permutation(len(scores))
    ranks = np.empty(len(scores))
    ranks[order] = stats.rankdata(scores[order], method="ordinal")
    return ranks[: len(members)], ranks[len(members) :]


def true_positive_rate(members: np.ndarray, controls: np.ndarray, *, false_positive_rate: float) -> float:
    """Share of members above the lowest score that at most this share of the controls is above."""
    threshold = np.sort(controls)[::-1][int(false_positive_rate * len(controls))]
    return float(np.mean(members > threshold))


def true_positive_rate_interval(
    members: np.ndarray, controls: np.ndarray, false_positive_rate: float, level: float = LEVEL
) -> Interval:
    """True positive rate at a false positive rate, with an interval that knows that the threshold is estimated.

    The threshold is a quantile of the controls' population. Its own interval lies between two controls: the number of
    controls above the true threshold is binomial. Above the upper end of it the members are counted for the lower end
    of the rate, above the lower end for the upper one, each with the bound of Clopper and Pearson. Either end can be
    wrong for two reasons; the threshold is given two thirds of the allowed error and the members the rest, so the
    coverage is at least `level` for any distribution of scores, ties included. The lower end is 0 where controls are
    too few to bound the threshold: below about 4,800 for a rate of 0.001.

    Args:
      members: scores [m].
      controls: scores [c], c at least 1 / false_positive_rate.
      false_positive_rate: share of controls that may be taken for members.
      level: of confidence.

    Returns:
      In [0, 1]; `false_positive_rate` for an attack that knows nothing.
    """
    tail = (1 - level) / 2
    above = stats.binom(len(controls), false_positive_rate)  # controls above the true threshold
    descending = np.append(np.sort(controls)[::-1], -np.inf)
    fewest = int(above.ppf(tail * 2 / 3)) - 1  # so few controls, or fewer, lie above it with at most this chance
    most = int(above.isf(tail * 2 / 3))  # more than these with at most this chance
    num = len(members)
    surest = int(np.sum(members > descending[fewest])) if fewest >= 0 else 0
    possible = int(np.sum(members > descending[min(most, len(controls))]))
    share = 1 - 2 * tail / 3
    value = true_positive_rate(members, controls, false_positive_rate=false_positive_rate)
    return Interval(value, share_interval(surest, num, share).low, share_interval(possible, num, share).high)


def _at(estimate: Estimate, level: float) -> Interval:
    """The estimate at a level, as plain floats that hold the value between the ends."""
    value, low, high = (float(part) for part in estimate(level))
    return Interval(value, min(low, value), max(high, value))


def _wilson(share: float, total: int, level: float) -> Interval:
    """Score interval of a share; the number of hits need not be whole."""
    z = float(stats.norm.ppf((1 + level) / 2))
    centre, scale = share + z**2 / (2 * total), 1 + z**2 / total
    half = z * np.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    return Interval(float(share), float((centre - half) / scale), float((centre + half) / scale))


def _worded(interval: Interval) -> str:
    return f"{interval.value:.3g} (95 % interval {interval.low:.3g} to {interval.high:.3g})"


def _rates_above(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Share of scores at least as large as each threshold."""
    return 1 - np.searchsorted(np.sort(scores), thresholds, side="left") / len(scores)
