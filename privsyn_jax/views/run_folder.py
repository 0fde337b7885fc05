"""The folder of a run as DataFrames and plots: what is there so far, and what of it is private."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from privsyn_jax.data.schemas import any_schema_from_dict
from privsyn_jax.evidence import open_finished
from privsyn_jax.fitted import Run, load
from privsyn_jax.modalities import Modality, modality_of
from privsyn_jax.privacy import accounting
from privsyn_jax.training.attempt import TRAINING
from privsyn_jax.training_log import read_training_log
from privsyn_jax.types import AnySchema, Images, ImageSchema, Schema, Texts, UserError
from privsyn_jax.views import html_parts as html
from privsyn_jax.views import plots
from privsyn_jax.views.plan_table import spending_rows
from privsyn_jax.views.privacy_report import PrivacyReport
from privsyn_jax.views.private_frame import PrivateFrame
from privsyn_jax.workdir import PRIVATE_NOTICE, Workdir

_CURVE_POINTS = 40
_PRIVATE_PARTS = ("training", "metrics", "attacks", "timing")


class Real(NamedTuple):
    """Real records as loaded: DataFrames in canonical dtypes, Images or Texts. PRIVATE."""

    train: Any
    test: Any


def load_run(workdir: str | Path) -> RunFolder:
    """Looks into the folder of a run, finished or not.

    Raises:
      UserError: it is no run's folder.
    """
    root = Path(workdir)
    if not (root / "config.json").is_file() or not (root / "private").is_dir():
        raise UserError(f"{workdir} holds no run: name the --workdir of python -m launch.run")
    return RunFolder(root)


class RunFolder:
    """Every property is read anew, and empty as long as the run has not come to it. Frames from private/ say so.

    Attributes:
      workdir: paths.
    """

    def __init__(self, root: Path):
        self.workdir = Workdir(root)

    @functools.cached_property
    def schema(self) -> AnySchema:
        source = self.workdir.private / "source.json"
        return any_schema_from_dict(_read(source)["schema"], source=str(source))

    @property
    def modality(self) -> Modality:
        return modality_of(self.schema)

    @property
    def settings(self) -> pd.Series:
        """By dotted path."""
        return pd.Series(_flat(_read(self.workdir.root / "config.json")), dtype=object, name="setting")

    @property
    def plan(self) -> pd.DataFrame:
        """What was to be bought: releases, then levels of training."""
        plan = _read(self.workdir.root / "plan.json", None)
        return pd.DataFrame(spending_rows(plan) if plan is not None else [])

    @property
    def privacy(self) -> PrivacyReport:
        """The privacy report.

        Raises:
          UserError: nothing is released yet.
        """
        return PrivacyReport(_read(self._released("privacy_report.json")))

    @property
    def ledger(self) -> pd.DataFrame:
        """Every charge; of a finished run with what it costs alone and its share."""
        report = self.workdir.release / "privacy_report.json"
        if report.is_file():
            return pd.DataFrame(_read(report)["ledger"])
        return PrivateFrame(_read(self.workdir.ledger, {"entries": []})["entries"])

    @property
    def epsilon_over_steps(self) -> pd.DataFrame:
        """Columns step and epsilon, by what the ledger has booked: all releases first, then training."""
        entries = self.ledger.to_dict("records")
        steps = [entry["event"] for entry in entries if entry["name"] == TRAINING]
        if not steps:
            return pd.DataFrame({"step": [], "epsilon": []})
        before = [entry["event"] for entry in entries if entry["name"] != TRAINING]
        done = sum(event["count"] for event in steps)
        at = np.unique(np.linspace(0, done, _CURVE_POINTS).round().astype(int)).tolist()
        delta = _read(self.workdir.root / "plan.json")["delta"]
        return pd.DataFrame(accounting.epsilon_over_steps(before, steps, at, delta), columns=["step", "epsilon"])

    @property
    def training(self) -> PrivateFrame:
        """What was logged of every step, with what it ran with (noise multiplier, clipping norm) and epsilon so far."""
        frame = PrivateFrame(read_training_log(self.workdir.private))
        if frame.empty:
            return frame
        for name, values in self._levels(frame["step"].to_numpy()).items():
            frame[name] = values
        curve = self.epsilon_over_steps
        if len(curve):
            frame["epsilon"] = np.interp(frame["step"], curve["step"], curve["epsilon"])
        return frame

    @property
    def metrics(self) -> PrivateFrame:
        """A row for every metric, with its value for real records as `reference`."""
        return PrivateFrame(_read(self.workdir.evaluation / "metrics.json", []))

    @property
    def attacks(self) -> PrivateFrame:
        """A row for every attack and metric of it: value with its 95 % interval, and what knowing nothing gives."""
        rows = []
        for name in ("attacks.json", "shadows.json"):
            for result in _read(self.workdir.attacks / name, {"results": []})["results"]:
                common = {key: result[key] for key in ("is_detected", "num_members", "num_controls", "verdict")}
                rows += [
                    {"attack": result["name"], "metric": key, **found, "baseline": result["baseline"][key], **common}
                    for key, found in result["metrics"].items()
                ]
        return PrivateFrame(rows)

    @property
    def timing(self) -> PrivateFrame:
        """Seconds of every stage; they depend on the number of records."""
        seconds = _read(self.workdir.private / "timing.json", {})
        return PrivateFrame({"stage": list(seconds), "seconds": list(seconds.values())})

    @property
    def synthetic(self) -> Any:
        """The released records: a DataFrame of rows or of texts and labels, or Images.

        Raises:
          UserError: nothing is released yet.
        """
        file = self._released(next(iter(self.modality.released_files.values())))
        records, _ = self.modality.read_synthetic(str(file), self.schema)
        return self.modality.finish(records, self.schema, {}) if isinstance(records, Texts) else records

    def model(self) -> Run:
        """The released generator, to draw more from."""
        return load(self.workdir.root)

    def real(self, **data: str) -> Real:
        """The real records. PRIVATE: whatever shows something of them is as private as the folder private/.

        Args:
          data: settings of the section `data` that differ from the run's, where the same files lie elsewhere now.

        Raises:
          UserError: the run is not finished, or the data are not those that it was trained on.
        """
        with open_finished(self.workdir.root, data) as finished:
            return Real(finished.train, finished.test)

    def plot_epsilon(self) -> plots.Drawing:
        return plots.epsilon(self.epsilon_over_steps)

    def plot_training(self) -> plots.Drawing:
        return plots.training(self.training)

    def plot_attacks(self) -> plots.Drawing:
        return plots.attacks(self.attacks)

    def plot_marginals(self, real: pd.DataFrame | None = None) -> plots.Drawing:
        """Distributions of the columns of a synthetic table; beside real ones where these are given, see `real`."""
        if not isinstance(self.schema, Schema):
            raise UserError(f"the run made {self.modality.name}, which have no columns: look at synthetic")
        return plots.marginals(self.schema, self.synthetic, real)

    def plot_samples(self) -> plots.Drawing:
        """Some images of every class."""
        images = self.synthetic
        if not isinstance(images, Images) or not isinstance(self.schema, ImageSchema):
            raise UserError(f"the run made {self.modality.name}, which are no images: look at synthetic")
        return plots.samples(images, self.schema)

    def _released(self, name: str) -> Path:
        file = self.workdir.release / name
        if not file.is_file():
            raise UserError(f"{file} is not there: the run in {self.workdir.root} has not released anything yet")
        return file

    def _levels(self, steps: np.ndarray) -> dict[str, np.ndarray]:
        """Noise multiplier and clipping norm of steps (from 1), as run, or as planned while the run is not finished."""
        report = _read(self.workdir.release / "privacy_report.json", {})
        blocks = report.get("path") or _read(self.workdir.root / "plan.json", {"levels": []})["levels"]
        last = np.cumsum([block["num_steps"] for block in blocks])
        block_of_step = np.minimum(np.searchsorted(last, steps), len(blocks) - 1)
        return {
            name: np.array([block[name] for block in blocks], float)[block_of_step]
            for name in ("noise_multiplier", "l2_clip_norm")
            if blocks
        }

    def _repr_html_(self) -> str:
        parts = [(name, len(getattr(self, name)), "") for name in ("settings", "plan", "ledger")]
        parts += [(name, len(getattr(self, name)), PRIVATE_NOTICE) for name in _PRIVATE_PARTS]
        return html.block(
            f"Run in {self.workdir.root}",
            *(self.privacy.stamps if self.workdir.release.is_dir() else ()),
            html.note(self._state),
            html.table(("part", "rows", ""), parts),
        )

    def __repr__(self) -> str:
        return f"<run in {self.workdir.root}: {self._state}; {', '.join(_PRIVATE_PARTS)}: {PRIVATE_NOTICE}>"

    @property
    def _state(self) -> str:
        return self.privacy.claim if self.workdir.release.is_dir() else "nothing is released yet"


def _read(file: Path, *default: Any) -> Any:
    """A JSON file; the default where there is none."""
    if default and not file.is_file():
        return default[0]
    try:
        return json.loads(file.read_text())
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}): restore it, or start anew elsewhere") from None
    except ValueError:
        raise UserError(f"{file} is damaged: restore it, or start anew in another folder") from None


def _flat(settings: dict[str, Any], path: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{path}{name}.") if isinstance(value, dict) else {f"{path}{name}": value}
    return flat
