"""Where the stages meet: plan, train, synthesize, evaluate, report."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd

from privsyn_jax import evaluation, report
from privsyn_jax.data import DATASETS
from privsyn_jax.data.schema import schema_to_dict
from privsyn_jax.explain import plan_lines
from privsyn_jax.files import write_json
from privsyn_jax.fitted import Run, build_generator, load, write_table
from privsyn_jax.learn import learn, learn_along
from privsyn_jax.plan import Plan, make_plan
from privsyn_jax.privacy import accounting
from privsyn_jax.settings import Settings
from privsyn_jax.synthesis.sampler import Synthesis, check_conditions
from privsyn_jax.training.attempt import open_attempt
from privsyn_jax.training.processes import Leader, agree
from privsyn_jax.training_log import TrainingLog, check_tensorboard, read_training_log
from privsyn_jax.transforms.discretize import fit_public, unknown_columns
from privsyn_jax.types import Records, Schema, UserError
from privsyn_jax.workdir import PRIVATE_NOTICE, Workdir, open_workdir, plain

_CURVE_POINTS = 12
_CONDITIONED = "The synthetic rows met synthesis.conditions and are compared with all real rows: expect a difference."


def prepare(settings: Settings) -> tuple[Schema, Plan]:
    """Checks the settings against public facts and plans the spending; opens no private row.

    Raises:
      UserError: anything that would stop the run later, as far as it can be seen now.
    """
    if settings.data.name not in DATASETS:
        raise UserError(f"data.name is {settings.data.name!r}: use one of {', '.join(DATASETS)}")
    if settings.training.tensorboard:
        check_tensorboard()
    schema = DATASETS[settings.data.name].read_schema(settings.data)
    check_conditions(schema, parse_conditions(settings.synthesis.conditions))
    known = fit_public(schema, num_bins=2) if not unknown_columns(schema) else None
    build_generator(settings, schema, known.cardinalities if known else (2,) * len(schema.modelled))
    return schema, make_plan(settings, schema)


def execute(settings: Settings, path: str | Path, *, announce: Callable[[str], None]) -> list[str]:
    """The whole run in one folder; returns the lines to end with.

    A folder that already holds this run, finished, is only reported on: running again would spend again. One that
    holds an unfinished attempt is gone on with.

    Raises:
      UserError: bad input, and nothing is left behind; or storage that fails, and what was whole is still there.
      SystemExit: on SIGTERM or Ctrl-C while training, after saving.
    """
    schema, plan = prepare(settings)
    if jax.process_index() == 0:
        announce("\n".join(plan_lines(plan, schema)))
    records = DATASETS[settings.data.name].load(settings.data, schema)
    agree("records and settings", records.content_hash[:32] + _settings_digest(settings)[:32])
    if jax.process_index() > 0:
        learn_along(records.train, plan, settings)
        return []
    leader = Leader()
    source = {"content_hash": records.content_hash, "schema": schema_to_dict(schema)}
    with leader.telling_failures(), open_workdir(path, settings.to_dict(), source) as workdir:
        if workdir.is_finished:
            announce("this folder already holds the finished run; running again would spend the budget again")
            return summary(workdir)
        write_json(workdir.root / "environment.json", _environment())
        write_json(workdir.root / "plan.json", plan.to_dict())
        clamped = records.clamped.open_under(workdir.private_folder)
        write_json(workdir.private / "clamped.json", {"notice": PRIVATE_NOTICE, **clamped})
        curve = _epsilon_curve(plan)
        lap, seconds = _stopwatch()
        if not (workdir.release.is_dir() or workdir.trained.is_dir()):
            run = _train(records, schema, plan, curve, settings, workdir, leader, announce)
            with workdir.becoming(workdir.trained) as folder:
                run.write(folder)
            lap("training")
        leader.let_go()
        run = load(workdir.release if workdir.release.is_dir() else workdir.trained)
        announce("sampling")
        synthesis = run.synthesize(
            settings.synthesis.num_samples or schema.num_records,
            conditions=parse_conditions(settings.synthesis.conditions),
            key=jax.random.key(settings.seed),
        )
        synthetic = synthesis.frame
        if not workdir.release.is_dir():
            _release(run, synthesis, workdir)
        workdir.forget()
        lap("sampling")
        if settings.evaluation.enabled:
            announce("evaluating against real rows (stays private)")
            _evaluate(records, synthetic, schema, settings, workdir)
            lap("evaluation")
        write_json(workdir.private / "timing.json", seconds)
        _write_page(records, synthetic, schema, plan, curve, settings, workdir)
        return summary(workdir)


def summary(workdir: Workdir) -> list[str]:
    """What the run ends with, read back from its folder."""
    privacy = json.loads((workdir.release / "privacy_report.json").read_text())
    metrics_file = workdir.evaluation / "metrics.json"
    metrics = json.loads(metrics_file.read_text()) if metrics_file.is_file() else []
    files = {
        "synthetic table": str(workdir.release / "synthetic.csv"),
        "privacy report": str(workdir.release / "privacy_report.md"),
        "page (private)": str(workdir.page),
    }
    return report.summary_lines(files, privacy, evaluation.headline(metrics))


def parse_conditions(text: str) -> dict[str, Any]:
    """synthesis.conditions: a JSON object, or nothing."""
    if not text:
        return {}
    try:
        conditions = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f'synthesis.conditions is not JSON ({error}): write it like \'{{"sex": "Female"}}\'') from None
    if not isinstance(conditions, dict):
        raise UserError(f"synthesis.conditions is {text}: give a JSON object, column to value")
    return conditions


def _train(
    records: Records,
    schema: Schema,
    plan: Plan,
    curve: list[tuple[int, float]],
    settings: Settings,
    workdir: Workdir,
    leader: Leader,
    announce: Callable[[str], None],
) -> Run:
    with (
        open_attempt(workdir.private, settings, leader=leader, announce=announce) as attempt,
        TrainingLog(
            workdir.private,
            num_steps=plan.num_steps,
            curve=curve,
            first_step=attempt.step,
            tensorboard=settings.training.tensorboard,
        ) as log,
    ):
        return learn(records.train, schema, plan, settings, attempt, hooks=[log], announce=announce)


def _settings_digest(settings: Settings) -> str:
    return hashlib.sha256(json.dumps(plain(settings.to_dict()), sort_keys=True).encode()).hexdigest()


def _release(run: Run, synthesis: Synthesis, workdir: Workdir) -> None:
    with workdir.becoming(workdir.release) as folder:
        write_table(synthesis.frame, run.schema, folder / "synthetic.csv")
        run.write(folder)
        if synthesis.exact or synthesis.rejected_on:
            write_json(folder / "acceptance.json", {k: v for k, v in synthesis._asdict().items() if k != "frame"})


def _evaluate(records: Records, synthetic: pd.DataFrame, schema: Schema, settings: Settings, workdir: Workdir) -> None:
    train, test = (part.open_under(workdir.private_folder) for part in (records.train, records.test))
    result = evaluation.evaluate(schema, train, test, synthetic, seed=settings.seed)
    write_json(workdir.evaluation / "metrics.json", result.metrics)
    conditions = [_CONDITIONED] if settings.synthesis.conditions else []
    details = {
        "notice": PRIVATE_NOTICE,
        "curves": result.curves,
        "pair_errors": result.pair_errors,
        "skipped": [*conditions, *result.skipped],
    }
    write_json(workdir.evaluation / "details.json", details)


def _write_page(records, synthetic, schema, plan, curve, settings, workdir: Workdir) -> None:
    metrics, details = [], {"curves": {}, "pair_errors": {}, "skipped": ["the evaluation was switched off"]}
    if settings.evaluation.enabled:
        metrics = json.loads((workdir.evaluation / "metrics.json").read_text())
        details = json.loads((workdir.evaluation / "details.json").read_text())
    page = report.render_page(
        report.PageData(
            title=f"Synthetic {settings.data.name} by {settings.model['name']}",
            private_notice=PRIVATE_NOTICE,
            privacy=json.loads((workdir.release / "privacy_report.json").read_text()),
            plan=plan.to_dict(),
            headline=evaluation.headline(metrics),
            metrics=metrics,
            curves=details["curves"],
            pair_errors=details["pair_errors"],
            epsilon_over_steps=curve,
            training=read_training_log(workdir.private),
            train=records.train.open_under(workdir.private_folder),
            test=records.test.open_under(workdir.private_folder),
            synthetic=synthetic,
            schema=schema,
            skipped=details["skipped"],
            settings=plain(settings.to_dict()),
            files={"synthetic table": "../release/synthetic.csv", "privacy report": "../release/privacy_report.md"},
            environment=json.loads((workdir.root / "environment.json").read_text()),
        )
    )
    temporary = workdir.page.with_suffix(".tmp")
    temporary.write_text(page)
    os.replace(temporary, workdir.page)


def _epsilon_curve(plan: Plan) -> list[tuple[int, float]]:
    """Epsilon after some numbers of steps, for the progress bar and the page; empty without noise."""
    if not plan.has_noise:
        return []
    steps = np.unique(np.linspace(0, plan.num_steps, _CURVE_POINTS).round().astype(int))
    return accounting.epsilon_over_steps(plan.release_events, plan.training_events, steps.tolist(), plan.delta)


def _stopwatch() -> tuple[Callable[[str], None], dict[str, float]]:
    """(lap, seconds): lap(name) writes the seconds since the last lap into `seconds`."""
    marks, seconds = [time.perf_counter()], {}

    def lap(name: str) -> None:
        marks.append(time.perf_counter())
        seconds[name] = round(marks[-1] - marks[-2], 3)

    return lap, seconds


def _environment() -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu_count": os.cpu_count(),
        "devices": [device.device_kind for device in jax.devices()],
        "program": Path(sys.argv[0]).name,
    }
