"""The page of a run on images: the same frame as of a table, pictures inside, hostile names as text."""

from __future__ import annotations

import base64
import io
import re

import matplotlib.image
import numpy as np
import pytest
from test_report import HOSTILE, METRICS, PRIVACY, TESTS, Page, page_data

from privsyn_jax.evaluation.images import grid_png
from privsyn_jax.report import ImagePageData, render_image_page, render_page
from privsyn_jax.types import Images, ImageSchema

SCHEMA = ImageSchema((8, 8, 1), ("zero", HOSTILE), num_records=1437)
RNG = np.random.default_rng(0)
PNG = grid_png(Images(RNG.integers(0, 256, (9, 8, 8, 1)).astype(np.uint8), np.arange(9) % 2), SCHEMA)
ROWS = [
    ("utility", "mean_accuracy", 0.8112, 0.9834, True, None),
    ("fidelity", "fid_trained_features", 12.75, 1.25, False, None),
    ("fidelity", "class_mean_difference", 0.0345, 0.0067, False, "zero"),
    ("fidelity", "class_mean_difference", 0.0456, 0.0078, False, HOSTILE),
    ("sanity", "nearer_to_training_rate", 0.5123, 0.4987, False, None),
]
IMAGE_METRICS = [dict(zip(METRICS[0], (*row, 0), strict=True)) for row in ROWS]


def image_data(**changes):
    data = ImagePageData(
        title=f"Run of {HOSTILE}",
        private_notice="PRIVATE: do not publish this page.",
        privacy=PRIVACY,
        plan={"num_steps": 800},
        headline=[{**IMAGE_METRICS[0], "label": "mean of the nets, accuracy"}],
        metrics=IMAGE_METRICS,
        epsilon_over_steps=[[0, 0.2], [400, 0.7], [800, 1.0]],
        training={"step": [0, 1, 2], "loss": [3.0, 2.0, 1.0]},
        pictures={"Synthetic images. Made up.": PNG, f"Classes {HOSTILE}": PNG},
        num_synthetic=1500,
        num_train=1437,
        num_test=360,
        schema=SCHEMA,
        skipped=[f"Inception FID: {HOSTILE}."],
        settings={"privacy": {"epsilon": 1.0}, "evaluation": {"classifier_steps": 1234}},
        files={"synthetic images": "../release/synthetic.npz"},
        environment={"python": "3.11"},
    )
    return data._replace(**changes)


@pytest.fixture(scope="module")
def page_text():
    return render_image_page(image_data())


@pytest.fixture(scope="module")
def page(page_text):
    return Page(page_text)


def test_page_is_well_formed(page):
    assert page.errors == []
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids)) and {"summary", "privacy", "images", "training", "settings"} <= set(ids)
    assert all(attrs.get("aria-labelledby", ids[0]) in ids for _, attrs in page.tags)
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(attrs.get("scope") in ("row", "col") for attrs in page.attributes("th"))


def test_pictures_stand_in_the_page(page):
    shown = page.attributes("img")
    assert shown[0]["alt"] == "Synthetic images" and all(attrs["alt"] for attrs in shown)
    assert "Synthetic images. Made up." in page.text
    for attrs in shown:
        kind, _, content = attrs["src"].partition(",")
        assert kind == "data:image/png;base64" and base64.b64decode(content) == PNG
        height, width, _ = matplotlib.image.imread(io.BytesIO(PNG)).shape
        assert (attrs["width"], attrs["height"]) == (str(width), str(height))


def test_nothing_is_loaded(page_text, page):
    assert re.findall(r"https?://[^\"]*", page_text.replace("http://www.w3.org/2000/svg", "")) == []
    assert not {tag for tag, _ in page.tags} & {"link", "iframe", "object"}
    assert all("src" not in attrs for attrs in page.attributes("script"))


def test_hostile_names_are_text(page_text, page):
    assert "<script>alert" not in page_text.lower()
    assert page.text.count("<script>alert('$x_1$')</script>") >= 4  # title, caption, class, skipped
    assert all(not name.startswith("on") for _, attrs in page.tags for name in attrs)


def test_page_shows_metrics_counts_and_how_to_read_them(page):
    for metric in IMAGE_METRICS:
        assert str(metric["value"]) in page.text and str(metric["reference"]) in page.text
    assert "1,500 synthetic images of 8 × 8 pixels, grey, in 2 classes, made from 1,437 private images" in page.text
    assert "1,234 steps" in page.text and "mean of the nets, accuracy" in page.text


def test_scores_over_seeds_are_those_of_a_table():
    page = Page(render_image_page(image_data(tests=TESTS)))
    of_table = Page(render_page(page_data(tests=TESTS)))
    start, end = "minus real", "resample."
    parts = [text.partition(start)[2].partition(end)[0] for text in (page.text, of_table.text)]
    assert parts[0] == parts[1] and "0.8030 to 0.8340" in parts[0] and page.errors == []
    assert "against models trained on real images" in page.text
    assert "over seeds" not in Page(render_image_page(image_data())).text


def test_frame_is_that_of_a_table(page):
    """The sections that do not hang on the kind of records are the same, word for word."""
    of_table = Page(render_page(page_data(skipped=[], settings={"privacy": {"epsilon": 1.0}})))
    for start, end in (("Where the budget went", "Not covered"), ("How it was made", "privacy.epsilon")):
        parts = [text.partition(start)[2].partition(end)[0] for text in (page.text, of_table.text)]
        assert parts[0] == parts[1] and parts[0]


def test_page_without_evaluation_or_guarantee():
    changes = {"metrics": [], "headline": [], "pictures": {}, "training": {}, "epsilon_over_steps": [], "settings": {}}
    report = {**PRIVACY, "private": False, "epsilon": None, "seeded_noise": True, "ledger": []}
    page = Page(render_image_page(image_data(privacy=report, **changes)))
    assert page.errors == [] and not page.attributes("img")
    assert "NOT PRIVATE" in page.text and "SEEDED NOISE" in page.text
    assert not re.search(r"\b(nan|inf|None)\b", page.text)


def test_only_pngs_are_pictures():
    with pytest.raises(ValueError, match="not a PNG"):
        render_image_page(image_data(pictures={"Grid.": b"GIF89a"}))
