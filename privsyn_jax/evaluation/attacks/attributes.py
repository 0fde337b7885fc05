"""Attribute inference: does a model of the synthetic records guess a secret better for members than for others?"""

from __future__ import annotations

import functools

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from privsyn_jax.evaluation.attacks.candidates import Tables, prepare
from privsyn_jax.evaluation.attacks.reconstruction import mean_gap_interval
from privsyn_jax.evaluation.attacks.scores import AttackResult, concluded, difference_interval
from privsyn_jax.evaluation.attacks.shadow_posteriors import Labelled, fit_forest, target_index, tree_features
from privsyn_jax.types import Schema

_MAX_SECRETS = 3


def attribute_inference(
    schema: Schema, train: pd.DataFrame, test: pd.DataFrame, synthetic: pd.DataFrame, *, seed: int
) -> list[AttackResult]:
    """Guesses secret columns from all others with a random forest trained on the synthetic records.

    The secrets are the sensitive columns (at most the first three), else the target, else the last categorical column;
    of a number its quantile bin is guessed. That the guesses are good is no leak: others in the population are guessed
    as well. Only what members lose beyond held-out records counts.

    Metrics, baseline 0, higher means that more is given away:
      advantage: accuracy on members less accuracy on controls.
      advantage_over_imputer: the same, each record's hit less its hit by an imputer: the same forest trained on
        reference records, which are held out too. It removes what makes some records easier than others.

    Args:
      schema: public facts.
      train: records trained on: the members.
      test: held-out records: half of them train the imputer, the others are the controls.
      synthetic: records released.
      seed: draws the candidates and the forests.

    Returns:
      A result for each secret, named attribute_inference_NAME; the accuracies stand in its notes.

    Raises:
      UserError: see `candidates.prepare`; or there is no second column.
    """
    tables = prepare(schema, train, test, synthetic, seed=seed)
    names = [levels.column.name for levels in tables.all_levels]
    secrets = [names.index(name) for name in schema.sensitive if name in names][:_MAX_SECRETS]
    with threadpool_limits(limits=1):
        return [_guessed(tables, i, seed) for i in secrets or [target_index(tables.all_levels, schema.target)]]


def _guessed(tables: Tables, secret: int, seed: int) -> AttackResult:
    members, controls, reference, known = (
        Labelled(tree_features(tables.all_levels, table, exclude=secret), table.codes[:, secret])
        for table in (tables.members, tables.controls, tables.reference, tables.synthetic)
    )
    model, imputer = fit_forest(known, seed), fit_forest(reference, seed)
    hits = [[fitted.predict(x.features) == x.labels for x in (members, controls)] for fitted in (model, imputer)]
    shares = np.array([[hit.mean() for hit in pair] for pair in hits])
    gains = [guessed.astype(np.float64) - imputed for guessed, imputed in zip(*hits, strict=True)]
    sizes = len(members.labels), len(controls.labels)
    name = tables.all_levels[secret].column.name
    note = (
        f"accuracy on {name}: {shares[0, 0]:.3f} on members and {shares[0, 1]:.3f} on controls by a model of "
        f"{len(known.labels):,} synthetic records, {shares[1, 0]:.3f} and {shares[1, 1]:.3f} by a model of "
        f"{len(reference.labels):,} held-out records"
    )
    estimates = {
        "advantage": functools.partial(difference_interval, shares[0, 0], sizes[0], shares[0, 1], sizes[1]),
        "advantage_over_imputer": functools.partial(mean_gap_interval, *gains),
    }
    return concluded(
        f"attribute_inference_{name}",
        estimates,
        dict.fromkeys(estimates, 0.0),
        num_members=sizes[0],
        num_controls=sizes[1],
        notes=(note,),
    )
