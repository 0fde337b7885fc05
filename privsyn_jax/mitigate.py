"""Equal outcomes over groups for a run's released table, or for one made by anyone: what launch.mitigate does."""

from __future__ import annotations

import bz2
import dataclasses
import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd

from privsyn_jax.data.foreign import conform_foreign
from privsyn_jax.data.schema import read_schema
from privsyn_jax.data.table import read_frame
from privsyn_jax.data.validate import to_file_frame
from privsyn_jax.evaluation.fairness import mitigation_cost
from privsyn_jax.evidence import Announce, open_finished
from privsyn_jax.files import write_json, write_new
from privsyn_jax.fitted import Run, load
from privsyn_jax.synthesis.mitigation import equalize, reweight
from privsyn_jax.types import Schema, UserError
from privsyn_jax.workdir import PRIVATE_NOTICE

METHODS = ("resample", "weights")
WEIGHT = "mitigation_weight"  # the column that --method=weights adds
_ROW = "row among the given and the drawn"
_COMPRESSED = {".csv": bytes, ".csv.gz": gzip.compress, ".csv.bz2": bz2.compress}
_CLAIM = ("private", "epsilon", "delta", "privacy_unit")


class SyntheticTable(NamedTuple):
    """A synthetic table and what is public about it.

    Attributes:
      schema: of its columns.
      given: as in its file.
      conformed: the same rows, as `foreign.conform_foreign` reads them.
      notes: what is odd about it, a sentence each.
      run: the generator that it was drawn from, or None.
    """

    schema: Schema
    given: pd.DataFrame
    conformed: pd.DataFrame
    notes: list[str]
    run: Run | None


class MitigatedTable(NamedTuple):
    """A table to be written, the same for an evaluation, and the report of `synthesis.mitigation`."""

    written: pd.DataFrame
    conformed: pd.DataFrame
    report: dict[str, Any]


def table_of_run(workdir: str | Path) -> SyntheticTable:
    """The released table of a finished run; opens no private record.

    Raises:
      UserError: there is no finished run, or it is not about a table.
    """
    run, file = load(workdir), Path(workdir) / "release" / "synthetic.csv"
    if not isinstance(run.schema, Schema):
        raise UserError(f"--workdir {workdir} is no run about a table: outcomes of groups are those of tables")
    return _read(str(file), run.schema, run)


def table_of_file(synthetic: str, schema: str) -> SyntheticTable:
    """A table made by anyone.

    Raises:
      UserError: a file is bad.
    """
    return _read(synthetic, read_schema(schema), None)


def mitigated(
    table: SyntheticTable, *, sensitive: Sequence[str], outcome: str | None, method: str, seed: int
) -> MitigatedTable:
    """The table with equal outcomes over groups; given rows keep their texts, ids are given anew.

    Args:
      table: its run, if any, draws the records that are missing; else records are repeated.
      sensitive: columns, whose combinations are the groups; none for the schema's sensitive columns.
      outcome: a column; None for the schema's target.
      method: one of METHODS: other rows, or the same with a column WEIGHT.
      seed: of what is dropped, repeated and drawn.

    Raises:
      UserError: see `synthesis.mitigation.reweight`; or no column is named, or the table has a column WEIGHT.
    """
    columns = tuple(sensitive) or table.schema.sensitive
    if not columns:
        raise UserError("the schema names no sensitive column: give --sensitive=COLUMN")
    claim = {name: table.run.privacy[name] for name in _CLAIM} if table.run is not None else None
    common = {"method": method, "seed": seed, "privacy": claim}
    if method == "weights":
        if WEIGHT in table.given:
            raise UserError(f"the table has a column {WEIGHT!r} already: rename it")
        weights, report = reweight(table.schema, table.conformed, sensitive=columns, outcome=outcome)
        return MitigatedTable(table.given.assign(**{WEIGHT: weights}), table.conformed, {**report, **common})
    pool = [table.given]

    def sample(num_samples: int, *, conditions: Mapping[str, Any]) -> pd.DataFrame:
        """New records of the run, kept in `pool` as a file shows them."""
        assert table.run is not None
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), len(pool)), num_samples)
        drawn = table.run.synthesize(num_samples, conditions=conditions, key=key).records
        first = sum(map(len, pool))
        pool.append(to_file_frame(drawn, table.schema))
        return drawn.assign(**{_ROW: np.arange(first, first + num_samples)})

    found = equalize(
        table.schema,
        table.conformed.assign(**{_ROW: np.arange(len(table.given))}),
        sensitive=columns,
        outcome=outcome,
        seed=seed,
        sample=None if table.run is None else sample,
    )
    everything = pd.concat([part.astype(object) for part in pool], ignore_index=True)[list(table.given.columns)]
    written = everything.iloc[found.table[_ROW].to_numpy()].reset_index(drop=True)
    for column in table.schema.columns:
        if column.kind == "id" and column.name in written.columns:
            written[column.name] = np.arange(1, len(written) + 1)
    return MitigatedTable(written, found.table.drop(columns=_ROW), {**found.report, **common})


def check_out(out: str | Path) -> tuple[Path, Path]:
    """(the table to write, the report beside it).

    Raises:
      UserError: one is there already, the folder is not, or the name says no format.
    """
    table, suffix = Path(out), _suffix(out)
    report = table.with_name(table.name[: -len(suffix)] + ".json")
    for path in (table, report):
        if path.exists():
            raise UserError(f"{path} exists already: name another file by --out, or remove it")
    if not table.parent.is_dir():
        raise UserError(f"the folder of --out {out} does not exist: make it first")
    return table, report


def write_mitigated(found: MitigatedTable, out: str | Path) -> tuple[Path, Path]:
    """Writes the table and its report; each is whole or absent, and the report is not there without the table.

    Raises:
      UserError: see `check_out`; or a file cannot be written.
    """
    table, report = check_out(out)
    content = _COMPRESSED[_suffix(out)](found.written.to_csv(index=False).encode())
    write_new(report, (json.dumps(found.report, indent=1, allow_nan=False) + "\n").encode())
    try:
        write_new(table, content)
    except BaseException:
        report.unlink()
        raise
    return table, report


def cost_for_run(
    workdir: str | Path, data: Mapping[str, str], found: MitigatedTable, announce: Announce
) -> list[dict[str, Any]]:
    """What the mitigation changed in evaluations against the run's real records; also written under private/.

    Returns:
      See `evaluation.fairness.mitigation_cost`.

    Raises:
      UserError: the real records are not where the run found them, or not the same.
    """
    with open_finished(workdir, data) as finished:
        assert isinstance(finished.schema, Schema)
        groups = dict.fromkeys([*found.report["sensitive"], *finished.schema.sensitive])
        schema, evaluated = dataclasses.replace(finished.schema, sensitive=tuple(groups)), []
        for described, synthetic in (("released", finished.synthetic), ("mitigated", found.conformed)):
            announce(f"evaluating the {described} table against real records (stays private)")
            records = (finished.train, finished.test, synthetic)
            evaluated.append(finished.modality.metrics(finished.run, schema, *records, finished.settings))
        cost = mitigation_cost(*evaluated)
        content = {"notice": PRIVATE_NOTICE, "mitigation": found.report, "cost": cost}
        write_json(finished.workdir.evaluation / "mitigation.json", content)
        return cost


def _read(path: str, schema: Schema, run: Run | None) -> SyntheticTable:
    given = read_frame(path)
    conformed, notes = conform_foreign(given, schema, source=path)
    return SyntheticTable(schema, given, conformed, notes, run)


def _suffix(out: str | Path) -> str:
    for suffix in _COMPRESSED:
        if str(out).endswith(suffix) and Path(out).name != suffix:
            return suffix
    raise UserError(f"--out {out} has an unknown format: end it in {', '.join(_COMPRESSED)}")
