"""Refusals of settings: one sentence that names the setting and the remedy."""

from __future__ import annotations

from privsyn_jax.types import UserError


def one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raises UserError unless the setting has one of the allowed values."""
    choices = " or ".join(repr(choice) for choice in allowed)
    require(value in allowed, f"{name} is {value!r}: use {choices}")


def require(condition: bool, message: str) -> None:
    """Raises UserError unless the condition holds."""
    if not condition:
        raise UserError(message)
