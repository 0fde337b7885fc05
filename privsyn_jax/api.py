"""The Python interface: DataFrames in, DataFrames out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from privsyn_jax.data.schema import read_schema, schema_from_dict
from privsyn_jax.data.schema_check import check_schema
from privsyn_jax.data.validate import conform
from privsyn_jax.fitted import Run
from privsyn_jax.learn import learn
from privsyn_jax.models import GENERATORS
from privsyn_jax.plan import make_plan
from privsyn_jax.privacy.guard import Private
from privsyn_jax.settings import settings_from_dict
from privsyn_jax.training.attempt import Attempt
from privsyn_jax.types import Schema


def fit(
    records: pd.DataFrame,
    schema: Schema | Mapping[str, Any] | str | Path,
    *,
    model: str = "autoregressive",
    epsilon: float | None = 1.0,
    delta: float | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Run:
    """Trains a generator on private records; all of them, none is held out.

    Args:
      records: the private table.
      schema: its public facts: a Schema, its dict, or the path of a JSON file.
      model: one of `list_models()`.
      epsilon: of the whole fit; None if settings give privacy.noise_multiplier instead.
      delta: of the whole fit; None means 1 / num_records^1.1 with the schema's public figure.
      settings: sections as in a config, for example {"training": {"num_steps": 200}}.

    Returns:
      A Run: `.sample(n)`, `.privacy`, `.save(folder)`.

    Raises:
      UserError: one sentence that names the column or setting and the remedy.
    """
    if isinstance(schema, str | Path):
        schema = read_schema(str(schema))
    elif isinstance(schema, Mapping):
        schema = schema_from_dict(dict(schema))
    check_schema(schema)
    sections: dict[str, Any] = dict(settings or {})
    sections["model"] = {"name": model, **sections.get("model", {})}
    sections["privacy"] = {"epsilon": epsilon, "delta": delta or 0.0, **sections.get("privacy", {})}
    checked = settings_from_dict(sections)
    plan = make_plan(checked, schema)
    frame, _ = conform(records, schema, out_of_bounds=checked.data.out_of_bounds, source="the table")
    run = learn(Private(frame), schema, plan, checked, Attempt.in_memory(checked.privacy.noise_seed))
    return run.with_dtypes({name: str(records[name].dtype) for name in schema.names})


def list_models() -> list[str]:
    """Names for `fit(model=...)`."""
    return sorted(GENERATORS)
