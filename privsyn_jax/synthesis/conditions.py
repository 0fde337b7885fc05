"""Conditions on synthetic records, as settings hold them."""

from __future__ import annotations

import json
from typing import Any

from privsyn_jax.types import UserError


def parse_conditions(text: str) -> dict[str, Any]:
    """synthesis.conditions: a JSON object, or nothing."""
    if not text:
        return {}
    try:
        conditions = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f'synthesis.conditions is not JSON ({error}): write it like \'{{"sex": "Female"}}\'') from None
    if not isinstance(conditions, dict):
        raise UserError(f"synthesis.conditions is {text}: give a JSON object, column to value")
    return conditions
