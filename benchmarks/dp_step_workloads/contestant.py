"""What a contestant hands to the process that times it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Prepared(NamedTuple):
    call: Callable[[], Any]  # one step, finished when it returns
    facts: dict[str, float]  # what is measured once
