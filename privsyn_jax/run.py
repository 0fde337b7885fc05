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

from privsyn_jax import evaluation, report
from privsyn_jax.comparison import evaluate_records
from privsyn_jax.data import dataset_of
from privsyn_jax.evidence import attack_records, check_attacks
from privsyn_jax.explain import plan_lines
from privsyn_jax.files import write_json
from privsyn_jax.fitted import Run, load
from privsyn_jax.learn import learn, learn_along
from privsyn_jax.modalities import Modality, modality_of
from privsyn_jax.models import kind_of
from privsyn_jax.pages import epsilon_curve, page_of_run
from privsyn_jax.plan import Plan, make_plan
from privsyn_jax.settings import Settings
from privsyn_jax.synthesis.conditions import parse_conditions
from privsyn_jax.training.attempt import open_attempt
from privsyn_jax.training.processes import Leader, agree
from privsyn_jax.training_log import TrainingLog, check_tensorboard
from privsyn_jax.types import AnySchema, Records, UserError
from privsyn_jax.workdir import PRIVATE_NOTICE, Workdir, open_workdir, plain


def prepare(settings: Settings) -> tuple[AnySchema, Plan]:
    """Checks the settings against public facts and plans the spending; opens no private row.

    Raises:
      UserError: anything that would stop the run later, as far as it can be seen now.
    """
    if settings.training.tensorboard:
        check_tensorboard()
    schema = dataset_of(settings.data).read_schema(settings.data)
    modality, name = modality_of(schema), settings.model["name"]
    if kind_of(name) != modality.name:
        raise UserError(
            f"model.name is {name!r}, which does not make {modality.name} as the data are: use one of "
            f"{', '.join(modality.generators)}"
        )
    modality.check(schema, settings)
    check_attacks(modality, settings.attacks.chosen)
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
    modality = modality_of(schema)
    if jax.process_index() == 0:
        announce("\n".join(plan_lines(plan, schema)))
    records = dataset_of(settings.data).load(settings.data, schema)
    agree("records and settings", records.content_hash[:32] + _settings_digest(settings)[:32])
    if jax.process_index() > 0:
        learn_along(records.train, schema, plan, settings)
        return []
    leader = Leader()
    source = {"content_hash": records.content_hash, "schema": modality.schema_to_dict(schema)}
    with leader.telling_failures(), open_workdir(path, settings.to_dict(), source) as workdir:
        if workdir.is_finished:
            announce("this folder already holds the finished run; running again would spend the budget again")
            return summary(workdir, modality)
        write_json(workdir.root / "environment.json", _environment())
        write_json(workdir.root / "plan.json", plan.to_dict())
        clamped = records.clamped.open_under(workdir.private_folder)
        write_json(workdir.private / "clamped.json", {"notice": PRIVATE_NOTICE, **clamped})
        curve = epsilon_curve(plan)
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
        synthetic = synthesis.records
        if not workdir.release.is_dir():
            _release(run, synthesis, workdir)
        workdir.forget()
        lap("sampling")
        train, test = (part.open_under(workdir.private_folder) for part in (records.train, records.test))
        if settings.evaluation.enabled:
            announce("evaluating against real records (stays private)")
            evaluate_records(modality, run, train, test, synthetic, schema, settings, workdir.evaluation, announce)
            lap("evaluation")
        if settings.evaluation.enabled and settings.attacks.enabled:
            attack_records(
                modality, schema, train, test, synthetic,
                folder=workdir.attacks, seed=settings.seed, names=settings.attacks.chosen, announce=announce,
            )  # fmt: skip
            lap("attacks")
        write_json(workdir.private / "timing.json", seconds)
        page_of_run(workdir, schema, settings, plan, curve, train, test, synthetic)
        return summary(workdir, modality)


def summary(workdir: Workdir, modality: Modality) -> list[str]:
    """What the run ends with, read back from its folder."""
    privacy = json.loads((workdir.release / "privacy_report.json").read_text())
    metrics_file = workdir.evaluation / "metrics.json"
    metrics = json.loads(metrics_file.read_text()) if metrics_file.is_file() else []
    attacks_file = workdir.attacks / "attacks.json"
    attacks = json.loads(attacks_file.read_text())["results"] if attacks_file.is_file() else []
    released = {"privacy report": workdir.release / "privacy_report.md", "page (private)": workdir.page}
    files = {name: str(workdir.release / file) for name, file in modality.released_files.items()}
    files |= {name: str(path) for name, path in released.items()}
    return [*report.summary_lines(files, privacy, evaluation.headline(metrics)), *report.attack_lines(attacks)]


def _train(
    records: Records,
    schema: AnySchema,
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


def _release(run: Run, synthesis: Any, workdir: Workdir) -> None:
    with workdir.becoming(workdir.release) as folder:
        run.write_records(synthesis.records, folder)
        run.write(folder)
        met = {name: value for name, value in synthesis._asdict().items() if name != "records"}
        if met["exact"] or met["rejected_on"] or met.get("broken"):
            write_json(folder / "acceptance.json", met)


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
