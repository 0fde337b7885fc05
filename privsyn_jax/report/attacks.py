"""Attacks and audits as tables of the page, and the banner of an audit that contradicts the claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from privsyn_jax.report.numbers import format_epsilon, format_number
from privsyn_jax.report.tables import in_words

ATTACK_HEADER = ("attack", "found", "metric", "value", "95 % interval", "knowing nothing")
AUDIT_HEADER = ("audit", "at least epsilon", "claimed", "delta", "confidence", "canaries")


def attack_parts(data: Any) -> dict[str, Any]:
    """What the page says about attacks.

    Args:
      data: has `attacks` (results as `attacks.scores.result_to_dict` gives them), `attacks_skipped` and `audits`
        (fields of `audit.result.AuditResult`).
    """
    violated = [audit["sentence"] for audit in data.audits if audit["is_violated"]]
    return {
        "attack_header": ATTACK_HEADER,
        "attack_rows": attack_rows(data.attacks),
        "attack_notes": [
            (result["name"].replace("_", " "), result["notes"]) for result in data.attacks if result["notes"]
        ],
        "audit_header": AUDIT_HEADER,
        "audit_rows": [_audit_row(audit) for audit in data.audits],
        "audit_banners": [("AUDIT FAILED", sentence) for sentence in violated],
    }


def attack_rows(attacks: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """A row for each metric of each attack; whether it found something stands in the first of an attack."""
    rows = []
    for result in attacks:
        name = result["name"].replace("_", " ")
        found = "yes" if result["is_detected"] else "no detectable advantage"
        if not result["metrics"]:
            rows.append((name, found, "", "", "", ""))
        for metric, interval in result["metrics"].items():
            low, high = (format_number(interval[end]) for end in ("low", "high"))
            cells = (
                format_number(interval["value"]),
                f"{low} to {high}",
                format_number(result["baseline"].get(metric)),
            )
            rows.append((name, found, _worded(metric), *cells))
            found = ""
    return rows


def _worded(metric: str) -> str:
    """`tpr_at_fpr_0.01` as people write it."""
    name, separator, rate = metric.partition("tpr_at_fpr_")
    if separator:
        return f"{name.replace('_', ' ')}TPR at {100 * float(rate):g} % FPR"
    return in_words(metric)


def _audit_row(audit: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        audit["name"],
        format_number(audit["lower_bound"]),
        format_epsilon(audit["claimed_epsilon"]),
        format_number(audit["delta"]),
        f"{100 * audit['confidence']:.4g} %",
        format_number(audit["num_canaries"]),
    )
