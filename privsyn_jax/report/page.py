"""One self-contained HTML page about a run: what it cost, how good it is, how it was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from privsyn_jax.report import figures, guarantee, privacy, tables
from privsyn_jax.report.attacks import attack_parts
from privsyn_jax.report.charts import Drawing
from privsyn_jax.report.groups import GAP_HEADER, GROUP_HEADER, fairness_parts, seed_parts
from privsyn_jax.report.marginals import Marginal, draw_marginal
from privsyn_jax.report.numbers import finite_or_none
from privsyn_jax.report.path import PATH_HEADER, path_figure, path_rows
from privsyn_jax.report.template import fill
from privsyn_jax.types import Schema

MAX_MARGINALS = 60


class PageData(NamedTuple):
    """Everything on the page of a table. It holds statistics of real rows, so the page is private.

    Attributes:
      title: heading of the page.
      private_notice: first line of the page; says that it must not be published.
      privacy: the content of privacy_report.json; empty for records of unknown origin.
      plan: the content of plan.json.
      headline: the entries of metrics.json that come first, optionally with a `label`.
      metrics: the content of metrics.json.
      curves: model -> {"synthetic" | "reference": {"fpr": [...], "tpr": [...]}}; empty without a target
        of two classes.
      pair_errors: {"columns", "synthetic", "reference"}: error of every pair of columns; may be empty.
      epsilon_over_steps: [step, epsilon] pairs.
      training: the training log as lists by name, among them "step"; may be empty.
      train: real records that were trained on, in the canonical dtypes of types.Records.
      test: real records held out.
      synthetic: synthetic records.
      schema: the public facts.
      skipped: one sentence for each measurement that was left out.
      settings: the configuration, nested.
      files: what each file is -> its path relative to the folder of the page.
      environment: versions, host, command.
      attacks: results, see `attacks.attack_parts`.
      attacks_skipped: one sentence for each attack that could not be made.
      audits: results, see `attacks.attack_parts`.
      tests: see `evaluation.Evaluation`; may be empty.
      fairness: likewise.
    """

    title: str
    private_notice: str
    privacy: Mapping[str, Any]
    plan: Mapping[str, Any]
    headline: Sequence[Mapping[str, Any]]
    metrics: Sequence[Mapping[str, Any]]
    curves: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]
    pair_errors: Mapping[str, Any]
    epsilon_over_steps: Sequence[Sequence[float]]
    training: Mapping[str, Sequence[float]]
    train: pd.DataFrame
    test: pd.DataFrame
    synthetic: pd.DataFrame
    schema: Schema
    skipped: Sequence[str]
    settings: Mapping[str, Any]
    files: Mapping[str, str]
    environment: Mapping[str, Any]
    attacks: Sequence[Mapping[str, Any]] = ()
    attacks_skipped: Sequence[str] = ()
    audits: Sequence[Mapping[str, Any]] = ()
    tests: Mapping[str, Any] = MappingProxyType({})
    fairness: Mapping[str, Any] = MappingProxyType({})


def render_page(data: PageData) -> str:
    """Renders the page: HTML that needs no network and no other file; without scripts its figures stand still."""
    return render("table.html.jinja", data, _table_parts(data))


def render(template: str, data: Any, parts: Mapping[str, Any]) -> str:
    """A page about any kind of records.

    Args:
      template: extends page.html.jinja and fills its blocks `lead` and `evidence`.
      data: PageData, or another that has what is not about the kind of records: title, private_notice, privacy, plan,
        headline, metrics, epsilon_over_steps, training, skipped, settings, files and environment.
      parts: further variables of the template.
    """
    shared = {**_privacy_parts(data), **_metric_parts(data), **attack_parts(data), **_making_parts(data)}
    return fill(template, title=data.title, private_notice=data.private_notice, data=data, **shared, **parts)


def _privacy_parts(data: Any) -> dict[str, Any]:
    """What the page says about privacy."""
    report = data.privacy
    if not report:
        return {"banners": []}
    target = data.settings.get("privacy", {}).get("epsilon")
    return {
        "banners": guarantee.banners(report),
        "is_private": guarantee.is_private(report),
        "claim_rows": privacy.claim_rows(report),
        "guarantee": guarantee.guarantee_sentences(report),
        "limits": [*(report.get("not_covered") or ()), *guarantee.general_limits(report)],
        "ledger_header": privacy.LEDGER_HEADER,
        "ledger_rows": privacy.ledger_rows(report),
        "budget_figure": figures.budget_bar(report.get("ledger") or ()),
        "path_header": PATH_HEADER,
        "path_rows": path_rows(report.get("path") or ()),
        "path_figure": path_figure(report.get("path") or ()),
        "epsilon_figure": figures.epsilon_curve(data.epsilon_over_steps, finite_or_none(target)),
    }


def _metric_parts(data: Any) -> dict[str, Any]:
    """The metrics as tables, by family."""
    families = {metric.get("family"): None for metric in data.metrics}
    by_family = {name: [m for m in data.metrics if m.get("family") == name] for name in families}
    return {
        "headline_rows": tables.metric_rows(data.headline),
        "family_rows": {name: tables.metric_rows(_table_wide(by_family[name])) for name in families},
        "column_tables": {name: tables.column_table(by_family[name]) for name in families},
    }


def _making_parts(data: Any) -> dict[str, Any]:
    """What the page says about how the records were made."""
    return {
        "training_figures": _training_figures(data.training),
        "setting_rows": tables.flatten(data.settings),
        "plan_rows": tables.flatten(data.plan),
        "environment_rows": tables.flatten(data.environment),
    }


def _table_parts(data: PageData) -> dict[str, Any]:
    """What the page says about a synthetic table alone."""
    return {
        "marginals": _marginals(data),
        "num_columns": len(data.schema.modelled),
        "max_marginals": MAX_MARGINALS,
        "pair_figures": _pair_figures(data.pair_errors),
        "worst_pairs": tables.worst_pairs(data.pair_errors),
        **seed_parts(data.tests),
        "gap_header": GAP_HEADER,
        "group_header": GROUP_HEADER,
        "fairness_parts": fairness_parts(data.fairness, data.metrics),
        "roc_figures": {name: figures.roc_curve(name, curves) for name, curves in data.curves.items()},
    }


def _table_wide(metrics: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The metrics that are not about one column or class."""
    return [metric for metric in metrics if metric.get("column") is None]


def _marginals(data: PageData) -> list[Marginal]:
    """The first MAX_MARGINALS modelled columns, drawn."""
    return [
        draw_marginal(column, pd.Series(data.train[column.name]), pd.Series(data.synthetic[column.name]))
        for column in data.schema.modelled[:MAX_MARGINALS]
        if column.name in data.synthetic.columns
    ]


def _pair_figures(pair_errors: Mapping[str, Any]) -> list[tuple[str, Drawing]]:
    """(caption, drawing) of the synthetic and the reference error map, on one colour scale."""
    columns = list(pair_errors.get("columns") or ())
    if len(columns) < 2:
        return []
    captions = {
        "synthetic": "Synthetic against real training records",
        "reference": "Held-out real records against real training records: what sampling alone does",
    }
    matrices = {
        name: np.array(pair_errors[name], dtype=float) for name in captions if pair_errors.get(name) is not None
    }
    for matrix in matrices.values():
        np.fill_diagonal(matrix, np.nan)
    matrices = {name: matrix for name, matrix in matrices.items() if np.isfinite(matrix).any()}
    largest = max((float(np.nanmax(matrix)) for matrix in matrices.values()), default=0.0)
    return [
        (
            captions[name],
            figures.pair_error_map(columns, matrix, largest=largest, title=captions[name], name=f"pairs {name}"),
        )
        for name, matrix in matrices.items()
    ]


def _training_figures(training: Mapping[str, Sequence[float]]) -> list[Drawing]:
    """One curve for every logged quantity."""
    steps = training.get("step") or ()
    drawn = [
        figures.training_curve(name, steps, values)
        for name, values in training.items()
        if name != "step" and len(values) == len(steps)
    ]
    return [drawing for drawing in drawn if drawing]
