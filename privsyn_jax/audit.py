"""Audits of the mechanism of a run: of what it buys, and of what it trains by. No private record is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from privsyn_jax.audit_purchases import audit_purchases, has_choices, why_not
from privsyn_jax.audit_training import audit_training
from privsyn_jax.audit_votes import audit_votes
from privsyn_jax.evaluation.audit import AuditResult
from privsyn_jax.plan import make_plan
from privsyn_jax.settings import Settings
from privsyn_jax.types import AnySchema, Schema, UserError

_NUM_TRAINING = 3  # audits
_FEWER_VOTES = 5  # a step of votes takes that many times as long as one of a canary's gradient


def audit(
    settings: Settings,
    schema: AnySchema,
    *,
    key: jax.Array,
    num_canaries: int = 1000,
    num_repeats: int = 20_000,
    num_purchases: int = 1000,
    confidence: float = 0.95,
    announce: Callable[[str], None] = lambda message: None,
) -> list[AuditResult]:
    """The audits that there are of a run's settings. All bounds hold together with the confidence.

    Args:
      num_canaries, num_repeats: see `audit_training`; votes are repeated less often.
      num_purchases: see `audit_purchases`.
      announce: told in words what comes next, and what is not audited.

    Raises:
      UserError: the settings claim nothing, or nothing of them can be audited.
    """
    plan = make_plan(settings, schema)
    if not plan.has_noise:
        raise UserError("these settings are not private: there is no epsilon to audit")
    reason = why_not(schema, plan)
    num_bought = 0 if reason else 1 + has_choices(plan)
    num_audits = num_bought + (plan.votes is not None or _NUM_TRAINING * bool(plan.levels))
    if not num_audits:
        raise UserError(f"model.name={settings.model['name']!r} cannot be audited: it takes no steps, and {reason}")
    purchase_key, step_key = jax.random.split(key)
    share: dict[str, Any] = {"confidence": 1 - (1 - confidence) / num_audits}
    results = []
    if not reason:
        assert isinstance(schema, Schema)
        announce(f"buying {num_purchases} times from public rows")
        results += audit_purchases(settings, schema, plan, key=purchase_key, num_repeats=num_purchases, **share)
    elif plan.releases:
        announce(f"what is bought is not audited: {reason}")
    if plan.votes is not None:
        announce(f"repeating one step of votes {num_repeats // _FEWER_VOTES} times")
        results.append(audit_votes(settings, plan, key=step_key, num_repeats=num_repeats // _FEWER_VOTES, **share))
    elif plan.levels:
        common: dict[str, Any] = {"num_canaries": num_canaries, "num_repeats": num_repeats, "announce": announce}
        results += audit_training(settings, schema, plan, key=step_key, **common, **share)
    return results
