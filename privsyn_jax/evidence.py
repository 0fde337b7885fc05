"""How useful synthetic records are and how little they give away: of a run's folder, or of files made elsewhere."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from privsyn_jax.audit import audit
from privsyn_jax.comparison import Baseline, evaluate_records
from privsyn_jax.data import dataset_of
from privsyn_jax.data.schema import read_json
from privsyn_jax.data.schemas import any_schema_from_dict
from privsyn_jax.evaluation.attacks import report_to_dict, result_to_dict
from privsyn_jax.evaluation.attacks.generator_level import choose_targets
from privsyn_jax.evaluation.audit import AuditResult, audit_to_dict
from privsyn_jax.files import unwritable, write_json
from privsyn_jax.fitted import Run, load
from privsyn_jax.modalities import Modality, modality_of
from privsyn_jax.pages import epsilon_curve, page_of_run, write_page
from privsyn_jax.plan import make_plan
from privsyn_jax.privacy.guard import PrivateFolder
from privsyn_jax.refuse import one_of
from privsyn_jax.settings import DataSettings, Settings, settings_from_dict
from privsyn_jax.shadows import shadow_attack
from privsyn_jax.synthesis.labelled import refuse_constraints
from privsyn_jax.types import AnySchema, Schema, UserError
from privsyn_jax.workdir import PRIVATE_NOTICE, Workdir, open_workdir

Announce = Callable[[str], None]
_SOURCES = {"tables": "csv", "images": "images", "texts": "texts"}


class Finished(NamedTuple):
    """A run that is over: its folder, and everything that evidence is computed from."""

    workdir: Workdir
    settings: Settings
    schema: AnySchema
    modality: Modality
    run: Run
    train: Any
    test: Any
    synthetic: Any


@contextlib.contextmanager
def open_finished(path: str | Path, data: Mapping[str, str]) -> Iterator[Finished]:
    """A finished run with its real and its released records, under the folder's lock.

    Args:
      path: the workdir.
      data: settings of the section `data` that differ from the run's, where the same files lie elsewhere now.

    Raises:
      UserError: there is no finished run, or the data are not those that it was trained on.
    """
    root = Path(path)
    if not (root / "config.json").is_file() or not (root / "release" / "model").is_dir():
        raise UserError(f"--workdir {root} holds no finished run: start it with python -m launch.run")
    config = json.loads((root / "config.json").read_text())
    config["data"] |= data
    settings = settings_from_dict(config)
    dataset = dataset_of(settings.data)
    schema = dataset.read_schema(settings.data)
    records, modality = dataset.load(settings.data, schema), modality_of(schema)
    source = {"content_hash": records.content_hash, "schema": modality.schema_to_dict(schema)}
    with open_workdir(root, config, source) as workdir:
        file = workdir.release / next(iter(modality.released_files.values()))
        synthetic, _ = modality.read_synthetic(str(file), schema)
        train, test = (part.open_under(workdir.private_folder) for part in (records.train, records.test))
        yield Finished(workdir, settings, schema, modality, load(root), train, test, synthetic)


def check_attacks(modality: Modality, names: Sequence[str] | None) -> None:
    """Raises UserError for a name that is no attack on such records; None stands for all."""
    for name in names or ():
        one_of("the attack", name, tuple(modality.attacks))


def evaluate_run(finished: Finished, announce: Announce, *, baseline: Baseline | None = None) -> list[str]:
    """Computes the metrics anew and writes the page; returns what a comparison with the baseline found.

    Raises:
      UserError: the baseline cannot be compared with, see `comparison.evaluate_records`.
    """
    lines = evaluate_records(
        finished.modality, finished.run, finished.train, finished.test, finished.synthetic, finished.schema,
        finished.settings, finished.workdir.evaluation, announce, baseline=baseline,
    )  # fmt: skip
    report_run(finished)
    return lines


def attack_run(finished: Finished, names: Sequence[str] | None, announce: Announce) -> list[str]:
    """Attacks the released records, writes what was found under private/attacks and the page; returns the verdicts."""
    lines = attack_records(
        finished.modality, finished.schema, finished.train, finished.test, finished.synthetic,
        folder=finished.workdir.attacks, seed=finished.settings.seed, names=names, announce=announce,
    )  # fmt: skip
    report_run(finished)
    return lines


def attack_records(
    modality: Modality,
    schema: AnySchema,
    train: Any,
    test: Any,
    synthetic: Any,
    *,
    folder: Path,
    seed: int,
    names: Sequence[str] | None,
    announce: Announce,
) -> list[str]:
    """Attacks that need records only; writes attacks.json and returns a line for each."""
    report = modality.attack(schema, train, test, synthetic, seed=seed, names=names, announce=announce)
    write_json(folder / "attacks.json", {"notice": PRIVATE_NOTICE, **report_to_dict(report)})
    return [*(f"{result.name}: {result.verdict}" for result in report.results), *report.skipped]


class Files(NamedTuple):
    """Where records made elsewhere lie: real ones trained on, real ones held out, synthetic ones, and their schema."""

    real_train: str
    real_test: str
    synthetic: str
    schema: str


def evaluate_files(
    files: Files,
    out: str | Path,
    settings: Settings,
    *,
    attacks: Sequence[str] | None,
    announce: Announce,
    baseline: Baseline | None = None,
) -> tuple[Path, list[dict[str, Any]], list[str]]:
    """Metrics, attacks and a page for records of any origin.

    Args:
      files: all four.
      out: a folder, made where absent, in which everything goes to `private/`.
      settings: `evaluation` and `seed` of it are used.
      attacks: names; () for none, None for all.
      announce: told what comes next.
      baseline: another evaluation on the same real records, to compare with.

    Returns:
      (the page, rows as in metrics.json, what is odd about the synthetic records, what the comparison found and
      verdicts of the attacks).

    Raises:
      UserError: a file is bad, or the baseline cannot be compared with.
    """
    schema = any_schema_from_dict(read_json(files.schema, propose_from=files.real_train), source=files.schema)
    modality = modality_of(schema)
    check_attacks(modality, attacks)
    if not isinstance(schema, Schema):
        refuse_constraints(settings.synthesis.constraints)
    data = DataSettings(
        name=_SOURCES[modality.name], path=files.real_train, test_path=files.real_test, schema=files.schema
    )
    records = dataset_of(data).load(data, schema)
    synthetic, notes = modality.read_synthetic(files.synthetic, schema)
    private = Path(out) / "private"
    try:
        for closed in (private, private / "evaluation", private / "attacks"):
            closed.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chmod(private, 0o700)
    except OSError as error:
        raise unwritable(private, error) from error
    train, test = (part.open_under(PrivateFolder(private)) for part in (records.train, records.test))
    settings = dataclasses.replace(settings, data=data)
    folder = private / "evaluation"
    found = evaluate_records(
        modality, None, train, test, synthetic, schema, settings, folder, announce, baseline=baseline
    )
    lines = [*notes, *found]
    if attacks is None or attacks:
        lines += attack_records(
            modality, schema, train, test, synthetic,
            folder=private / "attacks", seed=settings.seed, names=attacks, announce=announce,
        )  # fmt: skip
    title = f"Synthetic {modality.name}: {Path(files.synthetic).name}"
    page = write_page(private, modality, schema, train, test, synthetic, title=title, of_run={})
    return page, json.loads((folder / "metrics.json").read_text()), lines


def shadow_attack_run(finished: Finished, num_shadows: int, num_records: int, announce: Announce) -> list[str]:
    """Attacks the mechanism of a run by shadow generators; writes shadows.json and the page, returns the verdicts.

    Members and controls are drawn from the held-out records, which were not trained on: what is attacked is the
    algorithm with these settings, not the release.

    Raises:
      UserError: the run is not about a table, or shadows of its settings cannot be trained.
    """
    if not isinstance(finished.schema, Schema):
        raise UserError(f"shadow generators are made for tables, and this run is about {finished.modality.name}")
    key = jax.random.key(finished.settings.seed)
    targets = choose_targets(finished.schema, finished.test, key=jax.random.fold_in(key, 0))
    results = shadow_attack(
        finished.settings, finished.schema, finished.test, targets,
        num_shadows=num_shadows, num_records=num_records, key=jax.random.fold_in(key, 1), announce=announce,
    )  # fmt: skip
    found = [result_to_dict(result) for result in results]
    write_json(finished.workdir.attacks / "shadows.json", {"notice": PRIVATE_NOTICE, "results": found})
    report_run(finished)
    return [f"{result.name}: {result.verdict}" for result in results]


def audit_run(path: str | Path, num_canaries: int, announce: Announce) -> list[AuditResult]:
    """Audits the mechanism of a run, reading no private record; writes audit.json, which the next page shows.

    Raises:
      UserError: there is no run, it claims nothing, or nothing of it can be audited.
    """
    root = Path(path)
    if not (root / "config.json").is_file():
        raise UserError(f"--workdir {root} holds no run: start it with python -m launch.run")
    settings = settings_from_dict(json.loads((root / "config.json").read_text()))
    schema = dataset_of(settings.data).read_schema(settings.data)
    # The canaries' noise must not be that of the release, whatever the seed of either.
    key = jax.random.key(int(np.random.SeedSequence().generate_state(1)[0]))
    results = audit(settings, schema, key=key, num_canaries=num_canaries, announce=announce)
    folder = root / "private" / "attacks"
    for closed in (folder.parent, folder):
        closed.mkdir(mode=0o700, exist_ok=True)
    write_json(folder / "audit.json", audit_to_dict(results))
    return results


def report_run(finished: Finished) -> Path:
    """Writes the page anew, with all that is in the folder."""
    plan = make_plan(finished.settings, finished.schema)
    records = (finished.train, finished.test, finished.synthetic)
    return page_of_run(finished.workdir, finished.schema, finished.settings, plan, epsilon_curve(plan), *records)
