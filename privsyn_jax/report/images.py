"""The page of a run on images: the same as of a table, with pictures and metrics by family as evidence."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from privsyn_jax.report.groups import seed_parts
from privsyn_jax.report.numbers import format_number
from privsyn_jax.report.page import render
from privsyn_jax.types import ImageSchema


class ImagePageData(NamedTuple):
    """Everything on the page. It shows real images, so the page is private.

    Attributes:
      title: heading of the page.
      private_notice: first line of the page; says that it must not be published.
      privacy: the content of privacy_report.json.
      plan: the content of plan.json.
      headline: the entries of metrics.json that come first, optionally with a `label`.
      metrics: the content of metrics.json; `column` is the name of a class, or None for all.
      epsilon_over_steps: [step, epsilon] pairs.
      training: the training log as lists by name, among them "step"; may be empty.
      pictures: PNGs by caption, in the order shown; the caption's first sentence says what it is.
      num_synthetic: synthetic images.
      num_train: real images that were trained on.
      num_test: real images held out.
      schema: the public facts.
      skipped: one sentence for each measurement that was left out.
      settings: the configuration, nested.
      files: what each file is -> its path relative to the folder of the page.
      environment: versions, host, command.
      attacks, attacks_skipped, audits, tests: see `report.page.PageData`.
    """

    title: str
    private_notice: str
    privacy: Mapping[str, Any]
    plan: Mapping[str, Any]
    headline: Sequence[Mapping[str, Any]]
    metrics: Sequence[Mapping[str, Any]]
    epsilon_over_steps: Sequence[Sequence[float]]
    training: Mapping[str, Sequence[float]]
    pictures: Mapping[str, bytes]
    num_synthetic: int
    num_train: int
    num_test: int
    schema: ImageSchema
    skipped: Sequence[str]
    settings: Mapping[str, Any]
    files: Mapping[str, str]
    environment: Mapping[str, Any]
    attacks: Sequence[Mapping[str, Any]] = ()
    attacks_skipped: Sequence[str] = ()
    audits: Sequence[Mapping[str, Any]] = ()
    tests: Mapping[str, Any] = MappingProxyType({})


class Picture(NamedTuple):
    """A PNG for the page, with its size in pixels."""

    base64: str
    width: int
    height: int
    alt: str
    caption: str


def render_image_page(data: ImagePageData) -> str:
    """Renders the page: HTML that needs no network and no other file; without scripts its figures stand still.

    Raises:
      ValueError: a picture is not a PNG.
    """
    pictures = [_picture(caption, png) for caption, png in data.pictures.items()]
    parts = {"pictures": pictures, "family_notes": _family_notes(data), **seed_parts(data.tests)}
    return render("images.html.jinja", data, parts)


def _picture(caption: str, png: bytes) -> Picture:
    if png[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError(f"the picture {caption!r} is not a PNG")
    width, height = struct.unpack(">II", png[16:24])
    return Picture(base64.b64encode(png).decode(), width, height, caption.partition(". ")[0].rstrip("."), caption)


def _family_notes(data: ImagePageData) -> dict[str, list[str]]:
    """How to read each family of metrics."""
    steps = data.settings.get("evaluation", {}).get("classifier_steps")
    return {
        "utility": [
            "The same nets trained on synthetic and on real images, both tested on held-out real images.",
            f"Every net takes {format_number(steps)} steps, on all {format_number(data.num_synthetic)} synthetic or "
            f"all {format_number(data.num_train)} real images. None is stopped early or chosen by its score on "
            "held-out images; judge by the mean of the nets.",
        ],
        "fidelity": [
            "Real is the same metric for held-out real images against real training images. Label agreement is how "
            "often a net trained on real images finds the label that an image was made for.",
        ],
        "sanity": [
            "Shares of images. A generator that has memorised nothing is as near to training images as to held-out "
            "ones: nearer to training rate is then about one half.",
        ],
    }
