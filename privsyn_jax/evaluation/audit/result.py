"""What an audit found, beside what is claimed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple


class AuditResult(NamedTuple):
    """One audit.

    Attributes:
      name: of the audit, in words.
      claimed_epsilon: of the ledger of what was audited, at delta.
      delta: of the claim and of the bound.
      lower_bound: the true epsilon at delta is at least this, with the confidence given; 0 says nothing.
      confidence: probability that the bound holds, whatever the mechanism.
      num_canaries: canaries, or repeated runs, that the bound rests on.
      is_violated: the bound lies above the claim.
      sentence: the same in words.
    """

    name: str
    claimed_epsilon: float
    delta: float
    lower_bound: float
    confidence: float
    num_canaries: int
    is_violated: bool
    sentence: str


def audit_result(
    name: str, *, claimed_epsilon: float, delta: float, lower_bound: float, confidence: float, num_canaries: int
) -> AuditResult:
    """The result with its verdict.

    Raises:
      ValueError: a bound or claim that is NaN or below 0.
    """
    for what, value in (("claimed_epsilon", claimed_epsilon), ("lower_bound", lower_bound)):
        if math.isnan(value) or value < 0:
            raise ValueError(f"{what} {value} must be a number of at least 0")
    is_violated = lower_bound > claimed_epsilon
    found = f"{name}: at least epsilon {lower_bound:.2f} where {claimed_epsilon:.2f} is claimed"
    if is_violated:
        sentence = f"{found} (confidence {confidence:.1%}): the guarantee does not hold."
    else:
        sentence = f"{found}: consistent with the claim; an audit cannot prove it."
    return AuditResult(
        name, float(claimed_epsilon), delta, float(lower_bound), confidence, num_canaries, is_violated, sentence
    )


def audit_to_dict(results: Iterable[AuditResult]) -> dict[str, Any]:
    """Plain JSON: {"is_violated": bool, "audits": [the fields of each result]}; an infinite claim is None."""
    audits = [
        {name: None if value == math.inf else value for name, value in result._asdict().items()} for result in results
    ]
    return {"is_violated": any(audit["is_violated"] for audit in audits), "audits": audits}
