"""Templates of the pages. A page loads nothing: its style, its scripts and Plotly are inside."""

from __future__ import annotations

import base64
import functools
import gzip
import hashlib
import importlib.resources
import json
import re
from typing import Any

import jinja2
from markupsafe import Markup, escape
from plotly import offline

from privsyn_jax.report.numbers import format_epsilon, format_number, format_setting
from privsyn_jax.report.tables import in_words


def fill(template: str, **variables: Any) -> str:
    """A page from a template that extends base.html.jinja.

    Its policy lets a browser run two scripts, page.js and Plotly, known by their hashes, and fetch nothing.
    """
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_read),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(
        number=format_number,
        epsilon=format_epsilon,
        setting=format_setting,
        words=in_words,
        unbroken=_unbroken,
        as_json=_as_json,
    )
    script, (plotly, plotly_hash) = _read("page.js"), _packed_plotly()
    return (
        environment.get_template(template)
        .render(
            script=Markup(script),
            plotly=plotly,
            plotly_version=offline.get_plotlyjs_version(),
            script_hashes=(_hash(script), plotly_hash),
            **variables,
        )
        .lstrip()
    )


def _read(name: str) -> str:
    return importlib.resources.files("privsyn_jax.report").joinpath(name).read_text(encoding="utf-8")


@functools.cache
def _packed_plotly() -> tuple[str, str]:
    """Plotly's script, compressed to two fifths of its size, in Base64; and its hash."""
    script = offline.get_plotlyjs()
    return base64.b64encode(gzip.compress(script.encode(), 6, mtime=0)).decode(), _hash(script)


def _hash(script: str) -> str:
    """As a content security policy names it."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def _unbroken(text: str) -> Markup:
    """The text, escaped, with numbers like 1e-05 kept on one line."""
    return Markup(re.sub(r"[^\s;]*\de-\d+", r'<span class="nowrap">\g<0></span>', str(escape(text))))


def _as_json(value: Any) -> Markup:
    """Strict JSON that cannot end the element that it stands in."""
    return Markup(json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"))
