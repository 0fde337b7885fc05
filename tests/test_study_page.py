"""The page of a study: all of it at any time, names as text, nothing loaded; see test_pages_in_browser for the rest."""

from __future__ import annotations

import json
import math
import re

import pytest
from plotly.basedatatypes import BaseFigure
from plotly.graph_objects import Figure
from study_pages import ERROR, GAP, UTILITY, make_page, make_runs, make_study
from test_report import Page

from privsyn_jax.evaluation.statistics import mean_interval
from privsyn_jax.report.numbers import format_number
from privsyn_jax.report.template import fill
from privsyn_jax.study.analyse import analyse
from privsyn_jax.study.cells import Cells
from privsyn_jax.study.page_charts import COLOURS, by_epsilon, differences, frontier, signs_of
from privsyn_jax.study.page_tables import real_table, tradeoff_table, with_ends
from privsyn_jax.workdir import PRIVATE_NOTICE

STUDY = make_study()
RUNS = make_runs(STUDY)
ANALYSIS = analyse(STUDY, RUNS)
MODEL, BASELINE = "model 0", "constant"


@pytest.fixture(scope="module")
def page_text():
    return make_page(STUDY, RUNS)


@pytest.fixture(scope="module")
def page(page_text):
    return Page(page_text)


def charts(text: str) -> list[dict]:
    return [json.loads(found) for found in re.findall(r'<script type="application/json">(.*?)</script>', text)]


def texts(value) -> list[str]:
    """Every string that a chart shows."""
    if isinstance(value, str):
        return [value]
    parts = [part for name, part in value.items() if name != "customdata"] if isinstance(value, dict) else value
    return [text for part in parts for text in texts(part)] if isinstance(parts, list) else []


def test_page_is_well_formed_private_and_complete(page):
    assert page.errors == []
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {"by-epsilon", "frontier", "differences", "tests", "tradeoff", "runs"} <= set(ids)
    assert PRIVATE_NOTICE in page.text and "72 of 72 runs done" in page.text
    (progress,) = page.attributes("progress")
    assert (progress["value"], progress["max"]) == ("72", "72") and progress["aria-label"]
    assert not re.search(r"\b(nan|inf|None)\b", page.text)


def test_nothing_is_loaded_and_only_known_scripts_run(page_text, page):
    assert not {tag for tag, _ in page.tags} & {"link", "iframe", "object", "img"}
    assert all("src" not in attrs and "href" not in attrs for _, attrs in page.tags)
    without_plotly = re.sub(r'<script type="text/plain" id="plotly">[^<]*</script>', "", page_text)
    assert len(without_plotly) < len(page_text) - 1_000_000
    assert not re.search(r"https?://|url\(|@import", without_plotly)
    (policy,) = (attrs["content"] for attrs in page.attributes("meta") if "http-equiv" in attrs)
    assert policy.startswith("default-src 'none';") and policy.count("'sha256-") == 2
    assert "'unsafe-inline'" not in policy.partition("script-src")[2] and "connect-src" not in policy


def test_hostile_names_are_text(page_text, page):
    assert "<script>alert" not in page_text.lower() and "<b>x" not in page_text
    assert page.text.count("<b>x</b>") > 20  # title, filters, signs, tables
    assert all(not name.startswith("on") for _, attrs in page.tags for name in attrs)
    drawn = [text for chart in charts(page_text) for text in texts(chart)]
    assert any("&lt;b&gt;x" in text for text in drawn)
    assert not any("<b>x" in text or "$" in text for text in drawn)  # Plotly reads both as formatting


def test_figures_are_valid_for_plotly(page_text):
    for chart in charts(page_text):
        for view in chart["views"].values():
            layout = {name: value for name, value in view["layout"].items() if name != "rows"}
            assert isinstance(Figure(data=view["data"], layout=layout), BaseFigure)  # raises on an unknown property


def test_filters_name_what_there_is(page):
    boxes = {(attrs["name"], attrs["value"]) for attrs in page.attributes("input")}
    assert boxes == {
        *(("model", model) for model in STUDY.models),
        *(("contestant", contestant) for contestant in STUDY.contestants),
        *(("epsilon", epsilon) for epsilon in ("0.5", "1", "∞")),
    }
    keys = {(name[5:], value) for _, attrs in page.tags for name, value in attrs.items() if name.startswith("data-")}
    for name in ("model", "contestant", "epsilon"):
        assert {pair for pair in keys if pair[0] == name} == {pair for pair in boxes if pair[0] == name}


def test_points_are_means_with_intervals():
    cells = Cells(RUNS, STUDY)
    view = by_epsilon(cells, STUDY, STUDY.metrics, ANALYSIS.versus_real).chart["views"][UTILITY]
    values = [row[UTILITY] for row in RUNS if (row["model"], row["contestant"], row["epsilon"]) == (MODEL, BASELINE, 1)]
    mean, low, high = mean_interval(values)
    (trace,) = (one for one in view["data"] if one.get("customdata", [()])[0][:2] == (MODEL, BASELINE))
    assert trace["y"][1] == pytest.approx(mean, rel=1e-4) and trace["customdata"][1] == (MODEL, BASELINE, "1")
    assert trace["error_y"]["array"][1] == pytest.approx(high - mean, rel=1e-3)
    assert trace["error_y"]["arrayminus"][1] == pytest.approx(mean - low, rel=1e-3)
    assert "3 seeds" in trace["hovertext"][1] and format_number(mean) in trace["hovertext"][1]
    assert view["data"][0]["text"][0] == "real records" and view["data"][0]["y"] == [0.91, 0.91]


def test_the_frontier_joins_what_is_optimal():
    rows = [row for row in ANALYSIS.frontier if row["modality"] == "tables"]
    (volume,) = (row for row in ANALYSIS.hypervolumes if row["modality"] == "tables")
    drawn = frontier(rows, STUDY, volume)
    line, *traces = drawn.chart["views"][""]["data"]
    optimal = sorted((row["leakage"], row["utility"]) for row in rows if row["is_optimal"])
    assert line["x"] == pytest.approx([leakage for leakage, _ in optimal], rel=1e-4) and len(optimal) > 1
    assert line["y"] == pytest.approx([utility for _, utility in optimal], rel=1e-4)
    filled = [symbol for trace in traces for symbol in trace["marker"]["symbol"] if not symbol.endswith("-open")]
    assert len(filled) == len(optimal) < sum(len(trace["x"]) for trace in traces) == len(rows)
    assert format_number(volume["hypervolume"]) in drawn.caption


def test_differences_stand_under_their_model_and_epsilon():
    (trace,) = differences(ANALYSIS.comparison, STUDY).chart["views"][UTILITY]["data"]
    rows = [row for row in ANALYSIS.comparison if row["metric"] == UTILITY]
    assert len(trace["x"]) == len(rows) + 9 and trace["x"][0] is None  # a heading for 3 models of tables, 3 epsilons
    assert trace["customdata"][0] == (MODEL, None, "0.5") and trace["customdata"][1][1] != BASELINE
    significant = sum(row["p_holm"] < 0.05 for row in rows)
    assert significant > 0 and trace["marker"]["symbol"].count("triangle-up") == significant


def test_tests_say_in_words_what_is_significant(page):
    table = real_table(ANALYSIS.versus_real, STUDY)
    place = list(table.header).index("significant")
    found = {cells[place] for _, cells in table.lines}
    assert "yes, lower" in found and "no" in found
    rows = [attrs for attrs in page.attributes("tr") if attrs.get("data-verdict") == "lower"]
    assert rows and all(attrs["data-metric"] in STUDY.metrics for attrs in rows)


def test_the_tradeoff_has_every_measure_of_the_rows():
    table = tradeoff_table(ANALYSIS.tradeoff, STUDY)
    assert table.header[4:] == (
        "logistic regression AUC",
        "shadow posteriors AUC",
        "outcome rate gap sex",
        "mean accuracy",
    )
    assert {"∞", "1"} <= {cells[3] for _, cells in table.lines}
    (row,) = (
        row for row in ANALYSIS.tradeoff if (row["model"], row["contestant"], row["epsilon"]) == (MODEL, BASELINE, 1)
    )
    assert any(format_number(row[GAP]) in cells for keys, cells in table.lines if keys["model"] == MODEL)


@pytest.mark.parametrize("done", [0, 1, 20])
def test_a_running_study_shows_what_it_has(done):
    text = make_page(STUDY, RUNS[:done], total=len(RUNS))
    page = Page(text)
    assert page.errors == [] and f"{done} of 72 runs done" in page.text and "is running" in page.text
    assert [attrs for attrs in page.attributes("input") if attrs["name"] == "refresh"]
    assert bool(charts(text)) == bool(done) and ("No run is finished" in page.text) == (not done)
    assert not re.search(r"\b(nan|inf|None)\b", page.text)


def test_a_finished_study_does_not_refresh(page):
    assert "refresh" not in [attrs["name"] for attrs in page.attributes("input")]


def test_values_that_are_none_leave_gaps():
    cells = Cells(RUNS, STUDY)
    view = by_epsilon(cells, STUDY, [ERROR, "never_measured"], []).chart["views"]
    traces = [trace for trace in view[ERROR]["data"] if trace["customdata"][0][0] == "model 1"]
    assert traces and all(trace["y"] == [None] * 3 for trace in traces)
    assert all(trace["y"] == [None] * 3 for trace in view["never_measured"]["data"])


def test_contestants_show_only_where_there_are_several():
    study = make_study(contestants={"as it is": {}}, baseline="as it is")
    page = Page(make_page(study, make_runs(study)))
    assert page.errors == [] and "contestant" not in [attrs["name"] for attrs in page.attributes("input")]
    assert "Contestants against" not in page.text and "as it is" not in page.text


def test_tuning_on_private_records_is_said(page):
    runs = [{**row, "tuned_on_private_data": True} for row in RUNS]
    assert "tuned_on_private_data" in Page(make_page(STUDY, runs)).text
    assert "tuned_on_private_data" not in page.text


def test_configurations_are_told_apart_by_colour_or_sign_on_light_and_dark_paper():
    signs = signs_of(make_study(20))
    assert len({(sign.colour, sign.symbol) for sign in signs}) == len(signs) > 40
    for paper in ("#fdfefe", "#15191e"):
        assert all(contrast(colour, paper) >= 3 for colour in COLOURS)


def contrast(one: str, other: str) -> float:
    """As the Web Content Accessibility Guidelines define it."""
    darker, lighter = sorted(map(luminance, (one, other)))
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_numbers_carry_their_interval():
    assert with_ends({"a": 0.5, "b": 0.4, "c": 0.6}, "a", "b", "c") == "0.5000 (0.4000 to 0.6000)"
    assert with_ends({"a": 0.5, "b": math.nan, "c": math.nan}, "a", "b", "c") == "0.5000"
    assert with_ends({"a": math.nan}, "a", "b", "c") == "—"


def test_json_that_is_no_number_is_refused():
    figure = {"chart": {"x": [math.nan]}, "label": "", "caption": ""}
    with pytest.raises(ValueError, match="not JSON compliant"):
        fill("study.html.jinja", **dict.fromkeys(("title", "lead", "tuned", "private_notice"), ""), done=1, total=1,
             metrics=[], choices=[], signs=[], by_epsilon=figure)  # fmt: skip
