"""The page of a run on texts: the same as of a table, with examples and metrics by family as evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from privsyn_jax.report.groups import seed_parts
from privsyn_jax.report.numbers import format_number
from privsyn_jax.report.page import render
from privsyn_jax.types import TextSchema


class TextPageData(NamedTuple):
    """Everything on the page. It shows real texts, so the page is private.

    Attributes:
      title, private_notice, privacy, plan, headline, metrics, epsilon_over_steps, training, skipped, settings, files,
        environment, attacks, attacks_skipped, audits, tests: see `report.images.ImagePageData`.
      examples: {"caption", "rows": [{heading: text}]} in the order shown.
      num_synthetic: synthetic texts.
      num_train: real texts that were trained on.
      num_test: real texts held out.
      schema: the public facts.
    """

    title: str
    private_notice: str
    privacy: Mapping[str, Any]
    plan: Mapping[str, Any]
    headline: Sequence[Mapping[str, Any]]
    metrics: Sequence[Mapping[str, Any]]
    epsilon_over_steps: Sequence[Sequence[float]]
    training: Mapping[str, Sequence[float]]
    examples: Sequence[Mapping[str, Any]]
    num_synthetic: int
    num_train: int
    num_test: int
    schema: TextSchema
    skipped: Sequence[str]
    settings: Mapping[str, Any]
    files: Mapping[str, str]
    environment: Mapping[str, Any]
    attacks: Sequence[Mapping[str, Any]] = ()
    attacks_skipped: Sequence[str] = ()
    audits: Sequence[Mapping[str, Any]] = ()
    tests: Mapping[str, Any] = MappingProxyType({})


def render_text_page(data: TextPageData) -> str:
    """Renders the page: HTML that needs no network and no other file; without scripts its figures stand still."""
    return render("texts.html.jinja", data, {"family_notes": _family_notes(data), **seed_parts(data.tests)})


def _family_notes(data: TextPageData) -> dict[str, list[str]]:
    """How to read each family of metrics."""
    steps = data.settings.get("evaluation", {}).get("lstm_steps")
    length = data.settings.get("tokens", {}).get("max_length")
    return {
        "utility": [
            "The same classifiers trained on synthetic and on real texts, both tested on held-out real texts.",
            f"The LSTM takes {format_number(steps)} steps, on all {format_number(data.num_synthetic)} synthetic or all "
            f"{format_number(data.num_train)} real texts; nothing is stopped early or chosen by its score. Sentiment "
            "and the like can be told from single words, so a good score here says little about fluency.",
        ],
        "fidelity": [
            "Real is the same metric for held-out real texts against real training texts. Bits per byte is what the "
            "generator itself needs for a byte of a real text (for an autoencoder a bound from above), under real that "
            f"of training texts; texts are cut off at {format_number(length)} tokens.",
        ],
        "sanity": [
            "Shares of texts or of runs of eight words. A generator that has memorised nothing repeats training texts "
            "as seldom as held-out ones do.",
        ],
        "privacy": [
            "A simple attack that sees synthetic texts only and guesses whether a text was trained on; real is chance.",
        ],
    }
