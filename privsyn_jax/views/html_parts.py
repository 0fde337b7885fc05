"""What objects show of themselves in a notebook: small pieces of escaped HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from markupsafe import Markup


def block(title: str, *parts: Markup) -> str:
    """A heading and what belongs to it."""
    return str(Markup("<div><b>{}</b>{}</div>").format(title, Markup("").join(parts)))


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Markup:
    """Rows under a header; numbers with four digits, a dash for None and NaN."""
    head, body = _row("th", header), Markup("").join(_row("td", map(_text, row)) for row in rows)
    return Markup("<table><thead>{}</thead><tbody>{}</tbody></table>").format(head, body)


def note(text: str) -> Markup:
    return Markup("<p>{}</p>").format(text)


def stamp(text: str) -> Markup:
    """A note that must not be overlooked."""
    return Markup('<p style="color:#b42318;font-weight:bold">{}</p>').format(text)


def _row(tag: str, cells: Iterable[str]) -> Markup:
    cell = Markup(f'<{tag} style="text-align:left">{{}}</{tag}>')
    return Markup("<tr>{}</tr>").format(Markup("").join(cell.format(text) for text in cells))


def _text(value: Any) -> str:
    if value is None or value != value:
        return "—"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
