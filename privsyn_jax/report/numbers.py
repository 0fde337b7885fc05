"""Numbers as a reader sees them: never NaN, the same everywhere in a report."""

from __future__ import annotations

import math
from typing import Any

MISSING = "—"


def finite_or_none(value: Any) -> float | None:
    """The value as a float, or None where it is absent, not a number or not finite."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def format_number(value: Any) -> str:
    """A number with about four significant digits, counts with thousands separators, a dash for none.

    Between 0.001 and 1 always four decimals, so that columns of scores align.
    """
    number = finite_or_none(value)
    if number is None:
        return MISSING
    size = abs(number)
    if number == int(number) and size < 1e15:
        return f"{int(number):,}"
    if size < 1e-4 or size >= 1e15:
        return f"{number:.3g}"
    if size < 1:
        return f"{number:.4f}" if size >= 1e-3 else f"{number:.5f}".rstrip("0")
    decimals = max(0, 3 - math.floor(math.log10(size)))
    text = f"{number:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if decimals else text


def format_epsilon(value: Any) -> str:
    """Epsilon, where None means that there is no finite bound."""
    return "∞" if finite_or_none(value) is None else format_number(value)


def format_share(value: Any) -> str:
    """A share in [0, 1] as a percentage."""
    number = finite_or_none(value)
    if number is None:
        return MISSING
    percent = 100 * number
    if 0 < percent < 0.1:
        return "< 0.1 %"
    return f"{percent:.0f} %" if percent == round(percent) or percent >= 99.95 else f"{percent:.1f} %"


def short_number(value: float) -> str:
    """A number short enough for an axis: 1234567 -> 1.23M."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if suffix == 'k' else size):.3g}{suffix}"
    return f"{value:.4g}"


def format_setting(value: Any) -> str:
    """A configuration value as a reader would type it."""
    if value is None:
        return "none"
    if isinstance(value, float):
        if math.isnan(value):
            return MISSING
        return f"{value:g}" if math.isfinite(value) else ("infinite" if value > 0 else "-infinite")
    if isinstance(value, (list, tuple)):
        return ", ".join(format_setting(item) for item in value) or "none"
    return str(value)
