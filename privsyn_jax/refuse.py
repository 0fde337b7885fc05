"""Refusals of settings: one sentence that names the setting and the remedy."""

from __future__ import annotations

import importlib
from typing import Any

from privsyn_jax.types import UserError


def one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raises UserError unless the setting has one of the allowed values."""
    choices = " or ".join(repr(choice) for choice in allowed)
    require(value in allowed, f"{name} is {value!r}: use {choices}")


def require(condition: bool, message: str) -> None:
    """Raises UserError unless the condition holds."""
    if not condition:
        raise UserError(message)


def imported(name: str, path: str) -> Any:
    """The function of the user's that a setting names as "module:function"."""
    module, _, function = path.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"{name} is {path!r}, which cannot be imported ({error}): give module:function, on PYTHONPATH"
        ) from None
