"""The pages in a browser: they open from a file, alone; what they offer works; a phone and paper hold them.

Screenshots are left in $PRIVSYN_SCREENSHOTS, if that is set.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from study_pages import HOSTILE, UTILITY, make_page, make_runs, make_study
from test_report import SCHEMA, page_data

from privsyn_jax.report import render_page

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python")

STUDY = make_study()
RUNS = make_runs(STUDY)
NAMES = ("study", "run")
PHONE = {"viewport": {"width": 375, "height": 812}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    contents = {
        "study": make_page(STUDY, RUNS),
        "running": make_page(STUDY, RUNS[:20], total=len(RUNS)),
        "run": render_page(page_data()),
    }
    for name, content in contents.items():
        (folder / f"{name}.html").write_text(content)
    return {name: folder / f"{name}.html" for name in contents}


@pytest.fixture(scope="module")
def browser() -> Iterator:
    found = [path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))]
    if not found:
        pytest.skip("no browser: install chromium, chromium-browser or google-chrome")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found[0], args=["--no-sandbox"])
        yield browser
        browser.close()


class Opened:
    """A page, with what went wrong in it."""

    def __init__(self, context, file: Path, fragment: str = ""):
        self.page, self.complaints = context.new_page(), []
        self.page.set_default_timeout(60_000)
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self._note_request(request.url, file))
        self.page.goto(file.as_uri() + fragment)

    def _note_request(self, url: str, file: Path) -> None:
        if url != file.as_uri():
            self.complaints.append(f"asks for {url[:200]}")

    def show_all(self) -> Opened:
        """Scrolls through, as charts are drawn when they come into view; waits until all are."""
        if self.page.locator("html.has-scripts").count():
            for figure in self.page.locator("figure:has(> script):visible").all():
                figure.scroll_into_view_if_needed()
                figure.locator(".live .main-svg").first.wait_for()
        self.page.evaluate("scrollTo(0, 0)")
        return self

    def picture(self, name: str, folder: Path) -> None:
        folder = Path(os.environ.get("PRIVSYN_SCREENSHOTS") or folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=folder / f"{name}.png", full_page=True)
        assert (folder / f"{name}.png").stat().st_size > 50_000

    def count(self, selector: str) -> int:
        return self.page.locator(f"{selector}:visible").count()


@pytest.fixture
def opened(browser, files) -> Iterator:
    contexts = []

    def open_page(name: str, fragment: str = "", **options) -> Opened:
        contexts.append(browser.new_context(offline=True, **options))
        return Opened(contexts[-1], files[name], fragment)

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", NAMES)
def test_page_opens_from_a_file_and_is_accessible(name, scheme, opened, tmp_path):
    page = opened(name, color_scheme=scheme).show_all()
    charts = {"study": 4, "run": 12}[name]  # of a run all but the budget
    assert page.count(".live") == charts and page.count("figure.is-live svg.plot") == 0
    page.picture(f"{name}_{scheme}", tmp_path)
    found = axe.Axe().run(page.page)
    assert found.violations_count == 0, found.generate_report()
    assert page.complaints == []


@pytest.mark.parametrize("name", [*NAMES, pytest.param("running", marks=pytest.mark.slow)])
def test_page_fits_a_phone(name, opened, tmp_path):
    page = opened(name, **PHONE).show_all()
    page.picture(f"{name}_phone", tmp_path)
    assert page.page.evaluate("document.documentElement.scrollWidth") <= 375
    assert page.count(".live .point path" if name == "run" else ".live path.point") > 10  # our styles hide none
    for box in page.page.locator(".live").evaluate_all(
        "areas => areas.map(area => area.getBoundingClientRect().right)"
    ):
        assert box <= 375
    assert page.complaints == []


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_page_prints(name, opened, tmp_path):
    page = opened(name).show_all()
    page.page.set_viewport_size({"width": 680, "height": 1000})  # of A4 between its margins
    page.page.emulate_media(media="print")
    page.picture(f"{name}_print", tmp_path)
    assert page.page.evaluate("document.documentElement.scrollWidth") <= 680
    drawn = page.page.locator("figure svg:is(.plot, .main-svg):visible")
    assert all(box["x"] + box["width"] <= 681 for box in (svg.bounding_box() for svg in drawn.all()))
    assert page.count("figure svg.plot") == (0 if name == "study" else 13)  # still figures where there are any
    assert page.count("fieldset") == page.count("input[type=checkbox]") == 0
    assert page.page.pdf(format="A4")[:4] == b"%PDF"


def test_filters_hide_points_and_rows(opened):
    page = opened("study").show_all()
    marks, rows = "figure >> nth=0 >> .scatterlayer .point", 'tbody tr[data-model="model 0"]'
    before = page.count(marks), page.count(rows), page.count("tbody tr")
    page.page.locator("summary").first.click()
    page.page.get_by_role("checkbox", name="model 0", exact=True).uncheck()
    assert page.count(rows) == 0 < before[1]
    assert page.count("tbody tr") < before[2]
    assert page.count(marks) == before[0] - 6  # two contestants at three epsilons
    assert page.count('tr[data-other="model 0"]') == page.count('.legend li[data-model="model 0"]') == 0
    page.page.get_by_role("checkbox", name="∞", exact=True).uncheck()
    assert page.count(marks) == 2 * (before[0] // 3 - 2) and page.count('tbody tr[data-epsilon="∞"]') == 0
    assert "epsilon 0.5, 1" in page.page.locator("summary output").first.inner_text()
    page.page.locator("fieldset").first.get_by_role("button", name="all").click()
    assert page.count(marks) == 2 * (before[0] // 3)
    assert page.complaints == []


@pytest.mark.slow
def test_what_is_chosen_outlives_a_refresh(opened):
    page = opened("running", "#model=model+0&metric=mean_emd")
    assert page.page.locator("select[name=metric]").input_value() == "mean_emd"
    assert page.count('tbody tr[data-model="model 0"]') == 0 < page.count("tbody tr")
    page.page.select_option("select[name=metric]", UTILITY)
    page.page.get_by_role("checkbox", name="refresh").uncheck()
    page.page.reload()
    assert page.page.locator("select[name=metric]").input_value() == UTILITY
    assert page.count('tbody tr[data-model="model 0"]') == 0
    assert not page.page.get_by_role("checkbox", name="refresh").is_checked()


@pytest.mark.slow
def test_the_metric_changes_charts_and_tests(opened):
    page = opened("study").show_all()
    title = page.page.locator("figure >> nth=0 >> .ytitle")
    assert title.text_content() == "logistic regression AUC"
    page.page.select_option("select[name=metric]", "shadow_posteriors_auc")
    sync_api.expect(title).to_have_text("shadow posteriors AUC")
    shown = page.page.locator("tr[data-metric]:visible").evaluate_all("rows => rows.map(row => row.dataset.metric)")
    assert set(shown) == {"shadow_posteriors_auc"}


def test_hovering_names_the_configuration(opened):
    page = opened("study").show_all()
    box = page.page.locator("figure >> nth=0 >> .scatterlayer .point").last.bounding_box()
    page.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    label = page.page.locator("figure >> nth=0 >> .hoverlayer")
    sync_api.expect(label).to_contain_text("3 seeds")
    assert HOSTILE in label.text_content() and " to " in label.text_content()


def test_heads_sort_their_tables(opened):
    page = opened("study")
    table = page.page.locator("#runs ~ .scroll table")
    head = table.get_by_role("columnheader", name="logistic regression AUC")
    place = head.evaluate("head => [...head.parentElement.children].indexOf(head)")
    for order, descends in (("ascending", False), ("descending", True)):
        head.get_by_role("button").click()
        assert head.get_attribute("aria-sort") == order
        cells = table.locator(f"tbody tr > :nth-child({place + 1})").all_inner_texts()
        numbers = [float(cell) for cell in cells if cell != "—"]
        assert numbers == sorted(numbers, reverse=descends) and "—" not in cells[: len(numbers)]


def test_a_column_of_a_run_can_be_chosen(opened):
    page = opened("run")
    assert page.count("[data-column]") == len(SCHEMA.modelled)
    page.page.select_option("select[name=column]", "amount")
    assert page.count("[data-column]") == 1 and page.count("[data-column=amount]") == 1


@pytest.mark.parametrize("name", NAMES)
def test_page_without_scripts_keeps_tables_and_still_figures(name, opened):
    page = opened(name, java_script_enabled=False)
    assert page.count("tbody tr") > 20 and page.count(".controls") == 0
    assert page.count("figure svg.plot") == (0 if name == "study" else 13)
    assert page.count("noscript p") == (1 if name == "study" else 0)
