"""Scores over seeds with their tests, and what groups of a sensitive column get, as tables of the page."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from privsyn_jax.report.numbers import format_number
from privsyn_jax.report.tables import in_words

SEED_HEADER = ("model", "trained on", "score", "all records", "mean", "95 % interval", "minus real", "p (Holm)")
GAP_HEADER = ("gap between groups", "synthetic", "real", "amplified by")
GROUP_HEADER = ("group", "held-out records", "measure", "synthetic", "real")


def seed_rows(tests: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A row for each model, training set and score, see `evaluation.significance.seed_tests`.

    With tests against a baseline, their difference and p-value end each row.
    """
    key = lambda row: (row["model"], row["trained_on"], row["metric"])  # noqa: E731
    against = [{key(row): row for row in tests[name]} for name in ("against_real", "against_baseline") if name in tests]
    rows = []
    for score in tests.get("scores", ()):
        words = tuple(in_words(part) for part in key(score))
        cells = (format_number(score["value"]), format_number(score["mean"]), _interval(score))
        compared = [_compared(found.get(key(score))) for found in against]
        rows.append((*words, *cells, *itertools.chain(*compared)))
    return rows


def seed_parts(tests: Mapping[str, Any]) -> dict[str, Any]:
    """What templates call seed_header and seed_rows."""
    names = dict.fromkeys(row["baseline"] for row in tests.get("against_baseline", ()))
    header = (*SEED_HEADER, *itertools.chain(*((f"minus {name}", "p (Holm)") for name in names)))
    return {"seed_header": header, "seed_rows": seed_rows(tests)}


def fairness_parts(
    fairness: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]]
) -> list[tuple[str, str, list[tuple[str, ...]], list[tuple[str, ...]]]]:
    """(sensitive column, what its groups are made from, rows of gaps, rows of groups), see `fairness.fairness_of`."""
    parts = []
    for column, found in fairness.items():
        gaps = [
            (
                in_words(row["metric"]),
                format_number(row["value"]),
                format_number(row["reference"]),
                format_number(found["amplification"].get(row["metric"])),
            )
            for row in metrics
            if row["family"] == "fairness" and row["column"] == column
        ]
        parts.append((column, str(found["made_from"]), gaps, _group_rows(found)))
    return parts


def _group_rows(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """For each group: shares of the last class, what each model reaches, and fidelity."""
    measures = {"1-way total variation": found["total_variation"]}
    if "outcome_rates" in found:
        rates = {which: [shares[-1] for shares in groups] for which, groups in found["outcome_rates"].items()}
        measures = {f"share of {found['classes'][-1]}": rates, **measures}
    for model, scores in found.get("models", {}).items():
        measures |= {in_words(f"{model} {metric}"): values for metric, values in scores.items()}
    rows = []
    for place, group in enumerate(found["groups"]):
        first = (str(group), format_number(found["num_held_out"][place]))
        for measure, values in measures.items():
            both = (format_number(values[which][place]) for which in ("synthetic", "reference"))
            rows.append((*first, measure, *both))
    return rows


def _compared(test: Mapping[str, Any] | None) -> tuple[str, str]:
    return (format_number(test["difference"]), format_number(test["p_holm"])) if test else ("", "")


def _interval(score: Mapping[str, Any]) -> str:
    if score["low"] is None:
        return ""
    return f"{format_number(score['low'])} to {format_number(score['high'])}"
