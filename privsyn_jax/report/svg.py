"""Matplotlib figures as small, deterministic, self-contained SVG that follows the page's colours."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Colours drawn with these values become CSS variables of the page (with the value as fallback).
INK = "#24292f"
MUTED = "#626b75"
GRID = "#dfe3e8"
REAL = "#868d95"
REAL_FILL = "#c6cbd1"
SYNTHETIC = "#0b6bb8"
PAPER = "#fdfefe"
_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    REAL: "--real",
    REAL_FILL: "--real-fill",
    SYNTHETIC: "--synthetic",
    PAPER: "--paper",
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "axes.formatter.use_mathtext": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.5,
    "axes.labelsize": 8.5,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "axes.edgecolor": GRID,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "xtick.minor.size": 0.0,
    "ytick.minor.size": 0.0,
    "axes.grid": False,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
}
_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))


@contextlib.contextmanager
def canvas(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """A figure of the page's style, `width` by `height` inches; `to_svg` must be called inside."""
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02)  # type: ignore[union-attr]
        yield figure, figure.subplots()


def clean_label(text: object, max_length: int = 20) -> str:
    """Text of one line, printable, cut with an ellipsis."""
    printable = "".join(c if c.isprintable() else " " for c in str(text)).strip() or "(empty)"
    return printable if len(printable) <= max_length else printable[: max_length - 1].rstrip() + "…"


def to_svg(figure: Figure, label: str, name: str) -> str:
    """The figure as an <svg> element with an accessible label and ids that no other figure uses.

    Args:
      name: of its file, see `stand_alone`.
    """
    buffer = io.StringIO()
    digest = hashlib.sha256(label.encode()).hexdigest()[:10]
    with matplotlib.rc_context({"svg.hashsalt": digest}):
        figure.savefig(buffer, format="svg", metadata=_NO_METADATA)
    root = ElementTree.fromstring(buffer.getvalue())
    _drop_style_elements(root)
    for element in root.iter():
        element.tag = _local_name(element.tag)
        element.text, element.tail = (element.text or "").strip(), None
        _rename_attributes(element)
    _prefix_ids(root, f"f{digest}-")
    root.attrib.update(
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "role": "img",
            "aria-label": clean_label(label, 500),
            "class": "plot",
            "data-name": re.sub(r"\W+", "_", name.lower(), flags=re.ASCII).strip("_"),
        }
    )
    return ElementTree.tostring(root, encoding="unicode")


def stand_alone(page: str) -> dict[str, str]:
    """The figures of a page as files by themselves, in the colours that it has by day: name -> content."""
    figures: dict[str, str] = {}
    for drawn in re.findall(r'<svg [^>]*class="plot".*?</svg>', page, flags=re.DOTALL):
        (name,) = re.findall(r'data-name="(\w*)"', drawn)[:1]
        while name in figures:
            name += "_"
        coloured = re.sub(r"var\(--[\w-]+, (#[0-9a-f]{6})\)", r"\1", drawn)
        figures[name] = coloured.replace("<svg ", '<svg font-family="sans-serif" ', 1)
    return figures


def _drop_style_elements(root: ElementTree.Element) -> None:
    """Remove matplotlib's <style>, which would apply to the whole page."""
    for parent in root.iter():
        for child in list(parent):
            if _local_name(child.tag) in ("style", "metadata"):
                parent.remove(child)


def _local_name(name: str) -> str:
    """A tag or attribute without its XML namespace."""
    return name.rpartition("}")[2]


def _rename_attributes(element: ElementTree.Element) -> None:
    """Drop namespaces, let colours and fonts follow the page."""
    attributes = {_local_name(name): value for name, value in element.attrib.items()}
    if "style" in attributes:
        style = re.sub(r"font(-family)?:[^;]*", _page_font, attributes["style"])
        attributes["style"] = re.sub(r"#[0-9a-f]{6}", _as_variable, style)
    if attributes.get("href", "").startswith("data:"):
        attributes["href"] = "".join(attributes["href"].split())
    element.attrib.clear()
    element.attrib.update(attributes)


def _page_font(match: re.Match[str]) -> str:
    """The font declaration with its size and weight kept and the family inherited from the page."""
    if match.group(1):
        return "font-family: inherit"
    size = re.search(r"[\d.]+px", match.group(0))
    weight = "; font-weight: 600" if re.search(r"\b(bold|[67]00)\b", match.group(0)) else ""
    return f"font-size: {size.group(0) if size else '8.5px'}{weight}"


def _as_variable(match: re.Match[str]) -> str:
    colour = match.group(0)
    return f"var({_VARIABLES[colour]}, {colour})" if colour in _VARIABLES else colour


def _prefix_ids(root: ElementTree.Element, prefix: str) -> None:
    """Keep only ids that are referred to, under a name of this figure alone."""
    pattern = re.compile(r"(?:url\(#|^#)([\w.-]+)\)?$")
    used = set()
    for element in root.iter():
        for name in ("clip-path", "href", "fill", "mask"):
            match = pattern.search(element.attrib.get(name, ""))
            if match:
                used.add(match.group(1))
                element.attrib[name] = element.attrib[name].replace("#" + match.group(1), f"#{prefix}{match.group(1)}")
    for element in root.iter():
        identity = element.attrib.pop("id", "")
        if identity in used:
            element.attrib["id"] = prefix + identity
