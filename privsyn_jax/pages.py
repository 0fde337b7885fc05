"""What a page is made of, read from the private folder that it is written to."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from privsyn_jax.evaluation import headline
from privsyn_jax.modalities import Modality, modality_of
from privsyn_jax.plan import Plan
from privsyn_jax.privacy import accounting
from privsyn_jax.report import stand_alone
from privsyn_jax.settings import Settings
from privsyn_jax.training_log import read_training_log
from privsyn_jax.types import AnySchema
from privsyn_jax.workdir import PRIVATE_NOTICE, Workdir, plain

Curve = list[tuple[int, float]]
_CURVE_POINTS = 12


def page_of_run(
    workdir: Workdir,
    schema: AnySchema,
    settings: Settings,
    plan: Plan,
    curve: Curve,
    train: Any,
    test: Any,
    synthetic: Any,
) -> Path:
    """Writes the page of a run: what it cost, what was measured, which attacks were made."""
    modality = modality_of(schema)
    files = {**modality.released_files, "privacy report": "privacy_report.md"}
    of_run = {
        "privacy": json.loads((workdir.release / "privacy_report.json").read_text()),
        "plan": plan.to_dict(),
        "epsilon_over_steps": curve,
        "training": read_training_log(workdir.private) if plan.levels else {},
        "settings": plain(settings.to_dict()),
        "files": {name: f"../release/{file}" for name, file in files.items()},
        "environment": json.loads((workdir.root / "environment.json").read_text()),
    }
    title = f"Synthetic {settings.data.name} by {settings.model['name']}"
    return write_page(workdir.private, modality, schema, train, test, synthetic, title=title, of_run=of_run)


def write_page(
    private: Path,
    modality: Modality,
    schema: AnySchema,
    train: Any,
    test: Any,
    synthetic: Any,
    *,
    title: str,
    of_run: Mapping[str, Any],
) -> Path:
    """Writes report.html, and its figures into figures/, from what evaluation and attacks left in a private folder.

    Args:
      private: holds evaluation/ and attacks/, either of which may be empty.
      modality: of the schema.
      train, test, synthetic: records.
      title: heading.
      of_run: fields of the page about the run that made the records, see `report.PageData`; absent ones stay empty.

    Returns:
      The page.
    """
    metrics = _read(private / "evaluation" / "metrics.json", [])
    found = _read(private / "attacks" / "attacks.json", {"results": [], "skipped": []})
    shadows = _read(private / "attacks" / "shadows.json", {"results": []})
    audits = _read(private / "attacks" / "audit.json", {"audits": []})
    empty = {key: {} for key in ("privacy", "plan", "training", "settings", "files", "environment")}
    common = {
        "title": title,
        "private_notice": PRIVATE_NOTICE,
        "headline": headline(metrics),
        "metrics": metrics,
        "attacks": [*found["results"], *shadows["results"]],
        "attacks_skipped": found["skipped"],
        "audits": audits["audits"],
        **{**empty, "epsilon_over_steps": [], **of_run},
    }
    page, temporary = private / "report.html", private / "report.tmp"
    content = modality.render(common, train, test, synthetic, schema, private / "evaluation")
    temporary.write_text(content)
    os.replace(temporary, page)
    _write_figures(private / "figures", content)
    return page


def _write_figures(folder: Path, page: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, figure in stand_alone(page).items():
        (folder / f"{name}.svg").write_text(f"<!-- {PRIVATE_NOTICE} -->\n{figure}\n")


def epsilon_curve(plan: Plan) -> Curve:
    """Epsilon after some numbers of steps, for the progress bar and the page; empty without noise."""
    if not (plan.has_noise and plan.levels):
        return []
    steps = np.unique(np.linspace(0, plan.num_steps, _CURVE_POINTS).round().astype(int))
    return accounting.epsilon_over_steps(plan.release_events, plan.training_events, steps.tolist(), plan.delta)


def _read(file: Path, default: Any) -> Any:
    return json.loads(file.read_text()) if file.is_file() else default
