"""The report: what it must show, what it must never show, and that a browser can read it."""

from __future__ import annotations

import html.parser
import itertools
import json
import math
import re
import xml.etree.ElementTree as ElementTree

import dp_accounting
import numpy as np
import pandas as pd
import plotly.graph_objects
import pytest

from privsyn_jax.report import (
    PageData,
    figures,
    guarantee,
    membership_advantage_bound,
    numbers,
    privacy,
    privacy_markdown,
    render_page,
    stand_alone,
    summary_lines,
    tables,
)
from privsyn_jax.report.marginals import category_shares, draw_marginal, histogram_edges
from privsyn_jax.types import Column, Schema

HOSTILE = "<script>alert('$x_1$')</script> \"&\x00|`"
NUM_ROWS = 200
VOID_TAGS = {"meta", "br", "hr", "img", "link", "input"}

SCHEMA = Schema(
    columns=(
        Column("age", "integer", lower=17, upper=90),
        Column(HOSTILE, "categorical", categories=("a", HOSTILE), nullable=True),
        Column("amount", "numeric", lower=0.0, upper=100.0, nullable=True),
        Column("when", "datetime", lower="2020-01-01", upper="2021-12-31"),
        Column("is_new", "boolean", categories=(False, True)),
        Column("city", "categorical"),
        Column("record_id", "id"),
    ),
    num_records=NUM_ROWS,
    target="is_new",
    privacy_unit="person",
)
PRIVACY = {
    "private": True,
    "epsilon": 1.0,
    "delta": 1e-5,
    "accountant": "PLD",
    "epsilon_rdp": 1.2,
    "neighboring_relation": "add_or_remove_one",
    "privacy_unit": "person",
    "ledger": [
        {
            "name": "bins",
            "reads": f"histograms of age, {HOSTILE}",
            "mechanism": "noisy_histogram",
            "event": {"kind": "gaussian", "noise_multiplier": 17.25, "count": 1},
            "epsilon_alone": 0.2113,
            "share": 0.1,
        },
        {
            "name": "training",
            "reads": "records",
            "mechanism": "dp_sgd",
            "event": {
                "kind": "poisson_gaussian",
                "sampling_rate": 0.0314,
                "noise_multiplier": 2.375,
                "count": 800,
            },
            "epsilon_alone": 0.9417,
            "share": 0.9,
        },
    ],
    "declared_public": ["bounds of age", f"categories of {HOSTILE}"],
    "not_covered": ["Relatives of a person."],
    "warnings": ["delta is large"],
    "seeded_noise": False,
    "versions": {"jax": "0.10.2"},
}
METRICS = [
    {
        "family": family,
        "metric": metric,
        "value": value,
        "reference": reference,
        "higher_is_better": higher,
        "column": column,
        "seed": 0,
    }
    for family, metric, value, reference, higher, column in [
        ("utility", "boosting_auc", 0.8921, 0.9274, True, None),
        ("fidelity", "pairwise_total_variation", 0.0912, 0.0151, False, None),
        ("fidelity", "total_variation", 0.0345, 0.0067, False, "age"),
        ("fidelity", "total_variation", 0.0456, 0.0078, False, HOSTILE),
        ("sanity", "duplicate_rate", 0.0011, 0.0022, False, None),
    ]
]


def table(seed):
    rng = np.random.default_rng(seed)
    days = pd.to_timedelta(rng.integers(0, 700, NUM_ROWS), unit="D")
    return pd.DataFrame(
        {
            "age": rng.integers(17, 91, NUM_ROWS),
            HOSTILE: pd.Series(rng.choice(["a", HOSTILE, None], NUM_ROWS), dtype=object),
            "amount": np.where(rng.random(NUM_ROWS) < 0.8, 0.0, rng.uniform(0, 100, NUM_ROWS)),
            "when": pd.Series(pd.Timestamp("2020-01-01") + days).astype("datetime64[us]"),
            "is_new": rng.random(NUM_ROWS) < 0.3,
            "city": pd.Series([f"city {i}" for i in rng.integers(0, 40, NUM_ROWS)], dtype=object),
            "record_id": np.arange(NUM_ROWS),
        }
    )


ATTACKS = [
    {
        "name": "density_ratio",
        "metrics": {
            "auc": {"value": 0.512, "low": 0.487, "high": 0.537},
            "tpr_at_fpr_0.01": {"value": 0.0123, "low": 0.0042, "high": 0.0231},
        },
        "baseline": {"auc": 0.5, "tpr_at_fpr_0.01": 0.01},
        "verdict": "no detectable advantage",
        "is_detected": False,
        "notes": [f"a note on {HOSTILE}"],
    },
    {
        "name": f"attribute_inference_{HOSTILE}",
        "metrics": {"advantage": {"value": 0.321, "low": 0.3, "high": 0.34}},
        "baseline": {"advantage": 0.0},
        "verdict": "members are told from controls",
        "is_detected": True,
        "notes": [],
    },
]
AUDIT = {
    "name": "one run", "lower_bound": 0.432, "claimed_epsilon": 1.0, "delta": 1e-5, "confidence": 0.95,
    "num_canaries": 1234, "is_violated": False, "sentence": "one run: at least epsilon 0.43",
}  # fmt: skip
SCORE = {"model": "mlp", "trained_on": "real_plus_synthetic", "metric": "auc"}
TESTS = {
    "protocol": "Every seed trains on a resample.",
    "scores": [
        {**SCORE, "value": 0.811, "mean": 0.822, "low": 0.803, "high": 0.834, "values": [0.8, 0.83]},
        {**SCORE, "trained_on": "real", "value": 0.855, "mean": None, "low": None, "high": None, "values": []},
    ],
    "against_real": [{**SCORE, "difference": -0.0456, "p_holm": 0.0321}],
}
FAIRNESS = {
    HOSTILE: {
        "groups": ["a", HOSTILE], "made_from": "the categories of the schema", "num_held_out": [60, 55],
        "outcome_rates": {"synthetic": [[0.7, 0.2987], [0.6, 0.4]], "reference": [[0.8, 0.2], [0.5, 0.5]]},
        "classes": ["False", "True"],
        "models": {"mlp": {"auc": {"synthetic": [0.7123, None], "reference": [0.8, 0.9]}}},
        "total_variation": {"synthetic": [0.011, 0.022], "reference": [0.001, 0.002]},
        "amplification": {"outcome_rate_gap": -0.1987},
    }
}  # fmt: skip
GAP = {
    "family": "fairness", "metric": "outcome_rate_gap", "value": 0.1013, "reference": 0.3, "higher_is_better": False,
    "column": HOSTILE, "seed": 0,
}  # fmt: skip


def page_data(**changes):
    names = list(SCHEMA.names[:-1])
    errors = np.linspace(0, 0.1, len(names) ** 2).reshape(len(names), -1)
    curve = {"fpr": [0.0, 0.2, 1.0], "tpr": [0.0, 0.7, 1.0]}
    data = PageData(
        title=f"Run of {HOSTILE}",
        private_notice="PRIVATE: do not publish this page.",
        privacy=PRIVACY,
        plan={"num_steps": 800, "budget": [{"name": "training", "share": 0.9}]},
        headline=[{**METRICS[0], "label": "boosting, AUC"}, METRICS[1]],
        metrics=[*METRICS, GAP],
        curves={"boosting": {"synthetic": curve, "reference": curve}},
        pair_errors={"columns": names, "synthetic": errors.tolist(), "reference": (errors / 9).tolist()},
        epsilon_over_steps=[[0, 0.2], [400, 0.7], [800, 1.0]],
        training={"step": [0, 1, 2], "loss": [3.0, float("nan"), 1.0], "clip_fraction": [1.0, 0.9, 0.8]},
        train=table(0),
        test=table(1),
        synthetic=table(2),
        schema=SCHEMA,
        skipped=[f"ridge: no numeric target in {HOSTILE}."],
        settings={"privacy": {"epsilon": 1.0, "delta": 1e-5}, "data": {"path": HOSTILE}},
        files={"synthetic table": "../release/synthetic.csv"},
        environment={"python": "3.11"},
        attacks=ATTACKS,
        attacks_skipped=[f"linkability: too few records of {HOSTILE}."],
        audits=[AUDIT],
        tests=TESTS,
        fairness=FAIRNESS,
    )
    return data._replace(**changes)


class Page(html.parser.HTMLParser):
    """Tags, text and whether every element is closed where it should be."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.open_tags, self.errors = [], [], [], []
        self.feed(text)
        self.close()
        self.errors += [f"<{tag}> never closed" for tag in self.open_tags]

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID_TAGS:
            self.open_tags.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open_tags or self.open_tags.pop() != tag:
            self.errors.append(f"</{tag}> out of place at {self.getpos()}")

    def handle_data(self, data):
        if self.open_tags[-1:] not in (["style"], ["script"]):
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def attributes(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def page_text():
    return render_page(page_data())


@pytest.fixture(scope="module")
def page(page_text):
    return Page(page_text)


def test_page_is_well_formed(page):
    assert page.errors == []
    assert page.attributes("html") == [{"lang": "en"}]
    assert page.attributes("title") and page.attributes("main")
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for _, attrs in page.tags:
        assert attrs.get("aria-labelledby", ids[0]) in ids
        assert not attrs.get("href", "").startswith("#") or attrs["href"][1:] in ids


def test_headings_are_in_order(page):
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(below - above <= 1 for above, below in itertools.pairwise(levels))


def test_every_figure_has_a_label_and_every_table_header_a_scope(page):
    drawings = page.attributes("svg")
    # budget, epsilon, 6 columns, 2 error maps, ROC, loss, clip fraction
    assert len(drawings) == 13 == len(page.attributes("figure"))
    assert all(attrs["role"] == "img" and attrs["aria-label"].strip() for attrs in drawings)
    assert len({attrs["aria-label"] for attrs in drawings}) == len(drawings)
    assert all(attrs.get("scope") in ("row", "col") for attrs in page.attributes("th"))


def test_nothing_is_loaded(page_text, page):
    assert re.findall(r"https?://[^\"]*", page_text.replace("http://www.w3.org/2000/svg", "")) == []
    assert not {tag for tag, _ in page.tags} & {"link", "iframe", "object"}
    assert all("src" not in attrs for attrs in page.attributes("script"))
    assert "@import" not in page_text and not re.search(r"url\((?!#)", page_text)
    assert all(attrs["href"].startswith("data:image/png;base64,") for attrs in page.attributes("image"))


def test_hostile_names_are_text(page_text, page):
    assert "<script>alert" not in page_text.lower()
    assert "<script>alert('$x_1$')</script>" in page.text
    assert all(not name.startswith("on") for _, attrs in page.tags for name in attrs)


def test_charts_are_valid_for_plotly_and_show_names_as_text(page_text):
    charts = [
        json.loads(found)
        for found in re.findall(r'<script type="application/json">(.*?)</script>', page_text, re.DOTALL)
    ]
    assert len(charts) == 12  # of all figures but the budget
    for chart in charts:
        plotly.graph_objects.Figure(**chart["views"][""])  # raises on an unknown property
        assert "<script" not in json.dumps(chart) and "$x" not in json.dumps(chart)  # Plotly reads both as formatting
    assert any("&lt;script&gt;" in json.dumps(chart) for chart in charts)


def test_figures_stand_by_themselves(page_text):
    figures = stand_alone(page_text)
    assert {"budget", "epsilon", "column_age", "roc_boosting", "pairs_synthetic", "training_loss"} < set(figures)
    assert len(figures) == 13
    for content in figures.values():
        ElementTree.fromstring(content)
        assert "var(" not in content


def test_figures_of_equal_names_are_all_kept():
    page = "".join(f'<svg class="plot" data-name="column_a">{number}</svg>' for number in (1, 2))
    assert [ElementTree.fromstring(content).text for content in stand_alone(page).values()] == ["1", "2"]


def test_booleans_are_told_by_one_name():
    column, values = Column("is_new", "boolean", categories=(0, 1)), pd.Series([True, False, True, True])
    assert category_shares(column, values, values) == [("False", 0.25, 0.25), ("True", 0.75, 0.75)]


def test_hostile_names_stay_in_their_markdown_cell():
    lines = privacy_markdown(PRIVACY).splitlines()
    assert "<script" not in "\n".join(lines).partition("## How to check")[0]
    rows = [line for line in lines if line.startswith("| histograms of age")]
    assert len(rows) == 1
    assert len(re.findall(r"(?<!\\)\|", rows[0])) == len(privacy.LEDGER_HEADER) + 1


def test_page_shows_the_metrics(page):
    for metric in METRICS:
        for value in (metric["value"], metric["reference"]):
            assert str(value) in page.text
    assert "higher is better" in page.text and "lower is better" in page.text


def test_page_shows_attacks_audits_tests_and_fairness(page):
    for expected in (
        "density ratio no detectable advantage AUC 0.5120 0.4870 to 0.5370 0.5000",
        "density ratio TPR at 1 % FPR 0.0123 0.0042 to 0.0231 0.0100",
        "yes advantage 0.3210 0.3000 to 0.3400 0",
        "density ratio: a note on",
        "linkability: too few records of",
        "one run 0.4320 1 1e-05 95 % 1,234",
        "MLP real plus synthetic AUC 0.8110 0.8220 0.8030 to 0.8340 -0.0456 0.0321",
        "MLP real AUC 0.8550 — Every seed trains on a resample.",
        "outcome rate gap 0.1013 0.3000 -0.1987",
        "a 60 share of True 0.2987 0.2000 a 60 1-way total variation 0.0110 0.0010 a 60 MLP AUC 0.7123 0.8000",
        "MLP AUC — 0.9000",
    ):
        assert expected in page.text, expected
    assert "AUDIT FAILED" not in page.text


def test_page_of_records_of_unknown_origin_claims_nothing():
    empty = {"privacy": {}, "plan": {}, "settings": {}, "files": {}, "environment": {}, "training": {}}
    page = Page(render_page(page_data(**empty, epsilon_over_steps=[], attacks=[], attacks_skipped=[], audits=[])))
    assert page.errors == [] and "is not known here" in page.text
    for word in ("epsilon", "NOT PRIVATE", "Attacks", "ledger"):
        assert word not in page.text


def test_page_starts_with_the_notice_and_has_no_banner(page):
    title = f"Run of {HOSTILE}"
    assert page.text.partition("PRIVATE: do not publish")[0].strip().startswith(title[:10])
    assert "NOT PRIVATE" not in page.text and "SEEDED" not in page.text


def test_page_is_reproducible(page_text):
    assert render_page(page_data()) == page_text


def test_page_without_guarantee_target_training_or_metrics():
    report = {
        **PRIVACY,
        "private": False,
        "epsilon": None,
        "epsilon_rdp": None,
        "seeded_noise": True,
        "ledger": [{"name": "training", "event": {"kind": "poisson_gaussian"}, "epsilon_alone": None}],
        "declared_public": [],
    }
    metric = {**METRICS[0], "value": float("nan"), "reference": None}
    changes = {"curves": {}, "training": {}, "epsilon_over_steps": [], "pair_errors": {}, "plan": {}}
    page = Page(render_page(page_data(privacy=report, metrics=[metric], headline=[metric], **changes)))
    assert page.errors == []
    assert "NOT PRIVATE" in page.text and "SEEDED NOISE" in page.text and "∞" in page.text
    assert not re.search(r"\b(nan|inf|None)\b", page.text)


def test_page_draws_at_most_sixty_columns_and_says_so(monkeypatch):
    monkeypatch.setattr("privsyn_jax.report.page.MAX_MARGINALS", 2)
    page = Page(render_page(page_data()))
    assert "The first 2 of 6 columns are drawn." in page.text
    assert len(page.attributes("figure")) == 9


def test_markdown_lists_every_read_and_every_declared_fact():
    text = privacy_markdown(PRIVACY)
    for number in ("17.25", "2.375", "0.0314", "0.2113", "0.9417", "10 %", "90 %", "0.462"):
        assert number in text
    assert "bounds of age" in text and "categories of" in text and "Relatives of a person." in text
    assert "delta is large" in text and "NOT PRIVATE" not in text


def test_markdown_says_loudly_what_is_not_private():
    text = privacy_markdown({**PRIVACY, "private": False, "epsilon": None, "ledger": [], "versions": {}})
    assert text.index("NOT PRIVATE") < text.index("## The claim")
    assert not re.search(r"\b(nan|inf|None)\b", text)
    assert "SEEDED NOISE" in privacy_markdown({**PRIVACY, "seeded_noise": True})


def test_the_printed_code_recomputes_epsilon(tmp_path, monkeypatch, capsys):
    (tmp_path / "privacy_report.json").write_text(json.dumps(PRIVACY))
    monkeypatch.chdir(tmp_path)
    code = privacy_markdown(PRIVACY).partition("```python\n")[2].partition("```")[0]
    exec(compile(code, "privacy_report.md", "exec"), {})
    accountant = dp_accounting.pld.PLDAccountant()
    for entry in PRIVACY["ledger"]:
        event = entry["event"]
        gaussian = dp_accounting.GaussianDpEvent(event["noise_multiplier"])
        sampled = dp_accounting.PoissonSampledDpEvent(event.get("sampling_rate", 1.0), gaussian)
        accountant.compose(dp_accounting.SelfComposedDpEvent(sampled, event["count"]))
    expected = accountant.get_epsilon(PRIVACY["delta"])
    assert float(capsys.readouterr().out) == pytest.approx(expected, rel=1e-6)


def test_membership_bound():
    assert membership_advantage_bound(1.0, 1e-5) == pytest.approx(0.462, abs=5e-4)
    epsilon, delta = 0.7, 1e-3
    plain = (math.exp(epsilon) - 1 + 2 * delta) / (math.exp(epsilon) + 1)
    assert membership_advantage_bound(epsilon, delta) == pytest.approx(plain, rel=1e-12)
    assert membership_advantage_bound(0.0, 0.0) == 0.0
    assert membership_advantage_bound(math.inf, 0.0) == 1.0


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 8.0])
def test_true_positive_bound_agrees_with_the_advantage(epsilon):
    rates = np.linspace(0, 1, 2001)
    advantages = [guarantee.true_positive_bound(epsilon, 1e-5, rate) - rate for rate in rates]
    assert max(advantages) <= membership_advantage_bound(epsilon, 1e-5) + 1e-12
    assert max(advantages) == pytest.approx(membership_advantage_bound(epsilon, 1e-5), abs=2e-3)


def test_summary_lines():
    lines = summary_lines({"synthetic table": "out/synthetic.csv"}, PRIVACY, METRICS[:2])
    assert lines[0] == "synthetic table  out/synthetic.csv"
    assert lines[1] == "epsilon 1, delta 1e-05 per person, spent on"
    assert "10 %  epsilon 0.2113 alone" in lines[2] and "90 %" in lines[3]
    header, *rows = lines[4:]
    for row, metric in zip(rows, METRICS[:2], strict=True):
        assert row.index(str(metric["value"])) + 6 == header.index("synthetic") + len("synthetic")
        assert row.index(str(metric["reference"])) + 6 == header.index("real") + len("real")
    assert summary_lines({}, {**PRIVACY, "private": False}, [])[0].startswith("NOT PRIVATE")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.8853, "0.8853"),
        (0.5, "0.5000"),
        (0.00034, "0.00034"),
        (1e-5, "1e-05"),
        (2.375, "2.375"),
        (18.4249, "18.42"),
        (32561, "32,561"),
        (float("nan"), "—"),
        (float("inf"), "—"),
        (None, "—"),
        (0, "0"),
    ],
)
def test_format_number(value, text):
    assert numbers.format_number(value) == text


def test_metrics_are_averaged_over_seeds():
    metrics = [{**METRICS[0], "seed": seed, "value": value} for seed, value in enumerate((0.8, 0.9))]
    (row,) = tables.metric_rows(metrics)
    assert row.value == "0.8500 ± 0.0707"


def test_rare_categories_are_summed_up():
    column, real, synthetic = Column("city", "categorical"), table(0)["city"], table(2)["city"]
    shares = category_shares(column, real, synthetic)
    assert len(shares) == 21 and shares[-1][0].startswith("other (")
    assert np.sum([row[1:] for row in shares], axis=0) == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize(("lower", "upper", "count"), [(0, 1, 2), (17, 90, 37), (0, 99_999, 60)])
def test_integer_bins_cover_the_bounds(lower, upper, count):
    values = pd.Series([lower, upper])
    edges = histogram_edges(Column("x", "integer", lower, upper), values, values)
    assert edges[0] <= lower and edges[-1] >= upper
    assert len(edges) - 1 == count and np.all(np.diff(edges) % 1 == 0)


def test_skewed_columns_use_a_logarithmic_scale():
    columns = {column.name: column for column in SCHEMA.columns}
    captions = {
        name: draw_marginal(columns[name], table(0)[name], table(2)[name]).caption for name in ("amount", "when")
    }
    assert "Logarithmic" in captions["amount"] and "Logarithmic" not in captions["when"]


@pytest.mark.parametrize("kind", ["numeric", "categorical"])
def test_a_column_without_values_is_drawn(kind):
    empty = pd.Series([None, None], dtype=float if kind == "numeric" else object)
    drawn = draw_marginal(Column("empty", kind, nullable=True), empty, empty)
    ElementTree.fromstring(drawn.svg)
    assert drawn.caption == "Missing: real 100 %, synthetic 100 %."


def test_budget_without_shares_draws_nothing():
    assert figures.budget_bar([{"name": "training", "share": None}]) == ""
