"""What a differential privacy guarantee means, in numbers and in plain words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from privsyn_jax.report.numbers import finite_or_none, format_number, format_share

_KIND_WORDS = {
    "poisson_gaussian": "Gaussian noise on a sum over a random (Poisson) sample of the records",
    "gaussian": "Gaussian noise",
    "laplace": "Laplace noise",
    "discrete_gaussian": "Gaussian noise on the whole numbers",
    "discrete_laplace": "Laplace noise on the whole numbers",
    "exponential": "a choice by the exponential mechanism",
    "pure": "a mechanism with a pure epsilon guarantee",
    "approximate": "a mechanism with an (epsilon, delta) guarantee",
    "select": "the best of a random number of trials",
    "renyi": "a budget of Renyi divergence, fixed beforehand and never exceeded",
}


def membership_advantage_bound(epsilon: float, delta: float) -> float:
    """Largest possible true-positive rate minus false-positive rate of any membership attack.

    Args:
      epsilon: >= 0, may be infinite.
      delta: in [0, 1].

    Returns:
      (e^epsilon - 1 + 2 delta) / (e^epsilon + 1), in [0, 1]; lower is better.

    Source: Kairouz, Oh, Viswanath 2015, "The Composition Theorem for Differential Privacy".
    """
    bound = math.tanh(epsilon / 2) + 2 * delta / (math.exp(min(epsilon, 700.0)) + 1)
    return min(1.0, bound)


def true_positive_bound(epsilon: float, delta: float, false_positive_rate: float) -> float:
    """Largest true-positive rate of any membership attack at a given false-positive rate, in [0, 1]."""
    growth = math.exp(min(epsilon, 700.0))
    return max(
        0.0,
        min(growth * false_positive_rate + delta, 1 - (1 - delta - false_positive_rate) / growth, 1.0),
    )


def is_private(report: Mapping[str, Any]) -> bool:
    """Whether the report claims a finite guarantee."""
    return bool(report.get("private")) and finite_or_none(report.get("epsilon")) is not None


def banners(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(headline, explanation) pairs that must be seen before anything else."""
    found = []
    if not is_private(report):
        found.append(
            (
                "NOT PRIVATE",
                "This run gives no differential privacy guarantee. Treat everything it produced like the "
                "private records themselves and do not publish it.",
            )
        )
    if report.get("seeded_noise"):
        found.append(
            (
                "SEEDED NOISE",
                "The noise was drawn from a fixed seed. Whoever knows the seed can subtract the noise, and "
                "the guarantee below is void against them. Use such a run for tests, not for a release.",
            )
        )
    return found


def relation_words(report: Mapping[str, Any]) -> str:
    """The neighbouring relation as a phrase."""
    unit = report.get("privacy_unit") or "record"
    relation = str(report.get("neighboring_relation") or "add_or_remove_one")
    if relation.lower().replace("-", "_").replace(" ", "_").startswith("add_or_remove"):
        column, most = report.get("unit_column"), report.get("max_records_per_unit")
        rows = f" with all its rows (those of one {column}; at most {most} are read)" if column else ""
        return f"adding or removing one {unit}{rows}"
    return relation.replace("_", " ")


def in_short(report: Mapping[str, Any]) -> str:
    """The report in a paragraph, for whoever has to approve a release."""
    unit = report.get("privacy_unit") or "record"
    if not is_private(report):
        return (
            f"Nothing limits what the files beside this report tell about one {unit}. They must not leave the place "
            "where the private records are kept."
        )
    epsilon, delta = float(report["epsilon"]), finite_or_none(report.get("delta")) or 0.0
    shares: dict[str, float] = {}
    for entry in report.get("ledger") or ():
        shares[str(entry.get("name"))] = shares.get(str(entry.get("name")), 0.0) + (entry.get("share") or 0.0)
    spent = ", ".join(f"{name} {format_share(share)}" for name, share in shares.items() if share > 0)
    factor = format_number(math.exp(min(epsilon, 700.0)))
    return (
        f"Whoever reads the files beside this report, with whatever they know already, can change their odds that one "
        f"given {unit} was among the private records by at most a factor of {factor} (but for a chance of "
        f"{format_number(delta)}). That limit was set before the records were opened, and divided: "
        f"{spent or 'nothing was spent'}. Every look at the records is listed below with its price. The limit rests on "
        "the facts under “Declared public”: who approves the release should check that each of them is."
    )


def guarantee_sentences(report: Mapping[str, Any]) -> list[str]:
    """What the guarantee means for one privacy unit, one statement per item."""
    unit = report.get("privacy_unit") or "record"
    epsilon, delta = finite_or_none(report.get("epsilon")), finite_or_none(report.get("delta")) or 0.0
    if epsilon is None or not report.get("private"):
        return [
            f"No guarantee: an observer of the output may learn with certainty whether one {unit} was "
            "among the private records, and what it contained.",
            "The bound on the advantage of a membership attack is 1: nothing is excluded.",
        ]
    advantage = membership_advantage_bound(epsilon, delta)
    odds = math.exp(min(epsilon, 700.0))
    rates = [true_positive_bound(epsilon, delta, rate) for rate in (0.01, 0.001)]
    return [
        f"The output is ({format_number(epsilon)}, {format_number(delta)})-differentially private under "
        f"{relation_words(report)}: for two sets of private records that differ in one {unit}, any outcome is at most "
        f"e^epsilon = {format_number(odds)} times as likely under one as under the other, plus at most "
        f"delta = {format_number(delta)}.",
        f"Odds: up to that delta, no observer, whatever else they know and however much they compute, can "
        f"change their odds that one {unit} was among the records by more than a factor of {format_number(odds)}. "
        f"Who thought it even (50 %) may end at {format_share(odds / (1 + odds))} at most.",
        f"Membership inference: for any attack, true-positive rate minus false-positive rate is at most "
        f"(e^epsilon - 1 + 2 delta) / (e^epsilon + 1) = {advantage:.3f}; a guess between in and out, equally "
        f"likely beforehand, is right at most {format_share((1 + advantage) / 2)} of the time (50 % is a "
        f"coin). At a false-positive rate of 1 % it finds at most {format_share(rates[0])} of the members, "
        f"at 0.1 % at most {format_share(rates[1])}.",
        "These are upper limits over all conceivable attacks; known attacks usually stay far below them.",
        "The guarantee survives any further processing of the published files. It does not renew itself: "
        f"every further release computed from the same {unit}s adds to what is spent.",
    ]


def general_limits(report: Mapping[str, Any]) -> list[str]:
    """What no differential privacy guarantee covers, whatever the run."""
    unit = report.get("privacy_unit") or "record"
    return [
        f"More than one {unit} at a time: whoever stands behind k of them is protected with about k times "
        "epsilon only.",
        "Facts about the population: that a habit goes with an illness may be learned, and applied to "
        "someone who was never among the records.",
        "The declared-public facts above: they were taken as known and cost nothing.",
        "The folder private/ of the run: it holds statistics of real records without noise.",
    ]


def mechanism_words(entry: Mapping[str, Any]) -> str:
    """The mechanism of a ledger entry in words."""
    kind = str((entry.get("event") or {}).get("kind", ""))
    words = _KIND_WORDS.get(kind, kind.replace("_", " "))
    name = str(entry.get("mechanism") or "").replace("_", " ")
    return f"{name}: {words}" if name and words and name not in words else (name or words)


def noise_words(event: Mapping[str, Any]) -> str:
    """The noise of one event in words, with the numbers that the accountant read."""
    words = {
        "noise_multiplier": "noise multiplier {}",
        "sampling_rate": "sampling rate {}",
        "epsilon": "epsilon {}",
        "delta": "delta {}",
        "sensitivity": "sensitivity {}",
        "order": "order {}",
        "mean": "trials on average {}",
    }
    parts = [text.format(format_number(event[name])) for name, text in words.items() if name in event]
    for trial in event.get("events", ()):
        parts.append(f"each trial {format_number(trial.get('count', 1))} × ({noise_words(trial)})")
    known = {*words, "kind", "count", "events"}
    parts += [f"{name.replace('_', ' ')} {event[name]}" for name in event if name not in known]
    return ", ".join(parts)
