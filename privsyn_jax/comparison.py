"""An evaluation that another can be compared with: on which real records it was made, and paired tests against it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from pandas.util import hash_pandas_object

from privsyn_jax.differences import differences
from privsyn_jax.evaluation.references import hash_of
from privsyn_jax.evaluation.significance import against_baseline
from privsyn_jax.files import write_json
from privsyn_jax.modalities import Modality
from privsyn_jax.report.numbers import format_number
from privsyn_jax.report.tables import in_words
from privsyn_jax.settings import Settings
from privsyn_jax.types import AnySchema, Schema, UserError

# Facts of a schema that no score depends on.
_UNSCORED = ("num_records", "num_units", "max_records_per_unit", "unit_column", "privacy_unit", "declared_public")
_SCORED = ("classifier_steps", "classifier_shifts", "lstm_steps", "lstm_length", "num_records")  # of the evaluation
_TELLING = ("auc", "r2", "accuracy")  # the first that there is makes the line to end with


class Baseline(NamedTuple):
    """Another synthetic set's evaluation.

    Attributes:
      name: of the set, for people.
      folder: of the evaluation.
      evaluated_on: real records, schema and settings, see `evaluate_records`.
      tests: see `evaluation.significance.seed_tests`; empty where no model could be scored.
    """

    name: str
    folder: Path
    evaluated_on: Mapping[str, Any]
    tests: Mapping[str, Any]


def read_baseline(folder: str | Path, name: str | None) -> Baseline:
    """The evaluation in a run's workdir, or in a folder that was given to launch.evaluate as --out.

    Args:
      folder: of either.
      name: None for the last part of the folder.

    Raises:
      UserError: there is none, or it does not say on which real records it was made.
    """
    evaluation = Path(folder) / "private" / "evaluation"
    again = "python -m launch.evaluate"
    if not (evaluation / "details.json").is_file():
        raise UserError(f"--baseline {folder} holds no evaluation: name a folder that {again} or a run has written")
    try:
        details = json.loads((evaluation / "details.json").read_text())
    except ValueError:
        raise UserError(f"--baseline {folder} holds a damaged evaluation: make it again by {again}") from None
    if "evaluated_on" not in details:
        raise UserError(f"--baseline {folder} does not say which real records it is about: make it again by {again}")
    name = Path(folder).resolve().name if name is None else name
    return Baseline(name, evaluation, details["evaluated_on"], details["tests"])


def evaluate_records(
    modality: Modality,
    run: Any,
    train: Any,
    test: Any,
    synthetic: Any,
    schema: AnySchema,
    settings: Settings,
    folder: Path,
    announce: Callable[[str], None],
    *,
    baseline: Baseline | None = None,
) -> list[str]:
    """`Modality.evaluate`, and in its details.json what a comparison needs.

    These are "evaluated_on": {"records" (hash of the real ones), "schema", "settings"}, and, against a baseline,
    "tests"."against_baseline": see `evaluation.significance.against_baseline`.

    Returns:
      What the comparison found, in a line.

    Raises:
      UserError: the baseline is about other real records, another schema, other settings or no seeds; nothing has been
        written then.
    """
    num_seeds = settings.evaluation.num_seeds if isinstance(schema, Schema) else settings.evaluation.net_seeds
    facts = {key: value for key, value in modality.schema_to_dict(schema).items() if key not in _UNSCORED}
    evaluated_on = {
        "records": hash_of(*_facts(train, schema), *_facts(test, schema)),
        "schema": json.loads(json.dumps(facts)),  # as it will be read back
        "settings": {
            "seed": settings.seed,
            "num_seeds": num_seeds,
            **{name: getattr(settings.evaluation, name) for name in _SCORED},
        },
    }
    if baseline is not None:
        _check_comparable(baseline, evaluated_on, folder)
    modality.evaluate(run, train, test, synthetic, schema, settings, folder, announce)
    details = json.loads((folder / "details.json").read_text()) | {"evaluated_on": evaluated_on}
    lines = []
    if baseline is not None and details["tests"] and baseline.tests:
        rows = against_baseline(details["tests"], baseline.tests, name=baseline.name)
        details["tests"]["against_baseline"] = rows
        lines = [_line(rows, baseline.name, num_seeds)]
    elif baseline is not None:
        unscored = f"the set of {baseline.name}" if details["tests"] else "this set"
        lines = [f"comparison with {baseline.name}: no model could be trained on {unscored}."]
        details["skipped"] += lines
    write_json(folder / "details.json", details)
    return lines


def _facts(records: Any, schema: AnySchema) -> list[Any]:
    """Everything about records that a score can depend on, for a hash."""
    if isinstance(schema, Schema):
        frame = pd.DataFrame(records[[column.name for column in schema.modelled]])
        return [hash_pandas_object(frame, index=False).to_numpy()]  # type: ignore[operator]
    return [np.asarray(part) for part in records]


def _check_comparable(baseline: Baseline, evaluated_on: Mapping[str, Any], folder: Path) -> None:
    name, found = baseline.name, baseline.evaluated_on
    if baseline.folder.resolve() == folder.resolve():
        raise UserError(f"--baseline {name} is what is evaluated here: name the evaluation of another synthetic set")
    if not evaluated_on["settings"]["num_seeds"]:
        raise UserError(f"a comparison with {name} needs scores over seeds: give --num-seeds=5, and to both")
    if differences(found["schema"], evaluated_on["schema"]):
        change = differences(found["schema"], evaluated_on["schema"], "schema")[0]
        raise UserError(f"--baseline {name} has another schema ({change}): evaluate both with the same one")
    if found["records"] != evaluated_on["records"]:
        raise UserError(
            f"--baseline {name} was evaluated on other real records (hash {found['records'][:12]} there, "
            f"{evaluated_on['records'][:12]} here): evaluate both on the same, in the same order"
        )
    changes = differences(found["settings"], evaluated_on["settings"])
    if changes:
        raise UserError(f"--baseline {name} was evaluated otherwise ({'; '.join(changes)}): use the same for both")


def _line(rows: Sequence[Mapping[str, Any]], name: str, num_seeds: int) -> str:
    """The differences that tell most, of models trained on synthetic records."""
    of_synthetic = [row for row in rows if row["trained_on"] == "synthetic"]
    metric = next((metric for metric in _TELLING if any(row["metric"] == metric for row in of_synthetic)), None)
    parts = [
        f"{in_words(row['model'])} {row['difference']:+.4f} (p {format_number(row['p_holm'])})"
        for row in of_synthetic
        if row["metric"] == metric
    ]
    if not parts:
        return f"against {name}: no score is defined for both"
    return f"{in_words(str(metric))} minus that of {name}, {num_seeds} seeds, paired: {', '.join(parts)}"
