"""Membership inference against a generator: shadow generators, features of their synthetic sets, a meta-classifier.

What the adversary is assumed to know: the schema, the algorithm with its settings, how many records it is trained on
and how many it gives, records of the same population (auxiliary), and the target. It sees one synthetic set and says
whether the target was among the training records. All training sets have equal sizes: a target takes the place of a
record of the population.

Every shadow holds each target or not by a coin of its own, so one set of shadows serves all targets; half of the
shadows train the meta-classifier, the other half are attacked with it.

Source: Stadler et al. 2022, "Synthetic Data -- Anonymisation Groundhog Day"; targets held at random and together as in
Carlini et al. 2022, "Membership Inference Attacks From First Principles".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from tqdm import tqdm

from privsyn_jax.evaluation.attacks.scores import AttackResult, membership_result
from privsyn_jax.evaluation.attacks.set_features import (
    GENERAL,
    SetFeatures,
    draw_queries,
    require_columns,
    set_features,
    set_levels,
)
from privsyn_jax.evaluation.encode import encode_table, level_counts
from privsyn_jax.types import NUMERIC_KINDS, Column, Schema, UserError

Synthesize = Callable[[pd.DataFrame, jax.Array], pd.DataFrame]

NUM_QUERIES = 64
FEWEST_SHADOWS = 8
_REGULARISATION = 1.0  # inverse, of logistic regression on features of unit length
_NOTE = (
    "a shadow's synthetic set is used for all targets: where a leak is found, its interval is narrower than that of as "
    "many independent generators"
)


class Targets(NamedTuple):
    """Records to attack.

    Attributes:
      records: DataFrame [T] with the schema's columns.
      kinds: of each, by which results are reported: "random", "outlier", "canary" or any other word.
      rows: int [T], positions among the auxiliary records, which no shadow then draws by chance; -1 for none.
    """

    records: pd.DataFrame
    kinds: tuple[str, ...]
    rows: np.ndarray


class Design(NamedTuple):
    """Who is in which training set.

    Attributes:
      tables: S DataFrames of equal length.
      is_member: bool [S, T].
      is_test: bool [S]; these shadows are attacked, the others train the meta-classifier.
    """

    tables: list[pd.DataFrame]
    is_member: np.ndarray
    is_test: np.ndarray


def choose_targets(
    schema: Schema,
    auxiliary: pd.DataFrame,
    *,
    num_random: int = 10,
    num_outliers: int = 10,
    num_canaries: int = 10,
    key: jax.Array,
) -> Targets:
    """Random records, outliers and canaries.

    Outliers are the auxiliary records that would be the least likely if columns were independent: with the smallest sum
    over columns of the log frequency of their quantile bin or category. A canary is a record that nobody holds: each of
    its values is drawn uniformly from the categories, or between the public bounds.

    Args:
      auxiliary: records of the population, in canonical dtypes.

    Raises:
      UserError: there are too few auxiliary records, or they lack a column.
    """
    levels = set_levels(schema, auxiliary)
    if num_random + num_outliers > len(auxiliary):
        raise UserError(
            f"{num_random + num_outliers} targets were asked for from {len(auxiliary)} records: ask for fewer"
        )
    rng = generator_of(key)
    codes = encode_table(levels, auxiliary).codes
    counts = level_counts(codes, max(one.num_codes for one in levels))
    rarity = np.log(np.maximum(counts, 1))[np.arange(len(levels))[None], codes].sum(axis=1)
    outliers = np.argsort(rarity, kind="stable")[:num_outliers]
    others = np.setdiff1d(np.arange(len(auxiliary)), outliers)
    rows = np.concatenate([rng.choice(others, size=num_random, replace=False), outliers]).astype(np.int64)
    found = auxiliary.iloc[rows]
    if num_canaries:
        canaries = {name: auxiliary[name].iloc[np.zeros(num_canaries, int)].to_numpy() for name in auxiliary.columns}
        canaries |= {c.name: _anything(c, pd.Series(auxiliary[c.name]), num_canaries, rng) for c in schema.modelled}
        made = pd.DataFrame(canaries).astype(dict(auxiliary.dtypes))
        found = pd.concat([found, made]) if len(found) else made
    kinds = ("random",) * num_random + ("outlier",) * num_outliers + ("canary",) * num_canaries
    return Targets(found.reset_index(drop=True), kinds, np.append(rows, np.full(num_canaries, -1)))


def make_design(
    schema: Schema,
    auxiliary: pd.DataFrame,
    targets: Targets,
    *,
    num_shadows: int,
    num_records: int,
    key: jax.Array,
) -> Design:
    """Training sets of the shadows: the targets that they hold, filled up with auxiliary records without replacement.

    Each target is in half of the shadows that train and in half of those that test, drawn anew for every target. So a
    score that knows nothing is independent of all labels, however much the scores depend on each other.

    Raises:
      UserError: too few shadows, targets or auxiliary records.
    """
    require_columns(schema, auxiliary, "the auxiliary records")
    require_columns(schema, targets.records, "the targets")
    num_targets = len(targets.records)
    background = np.setdiff1d(np.arange(len(auxiliary)), targets.rows)
    if num_shadows < FEWEST_SHADOWS or num_targets < 1:
        raise UserError(
            f"{num_shadows} shadow generators for {num_targets} targets: give at least {FEWEST_SHADOWS} and 1"
        )
    if len(background) < num_records or num_records <= num_targets:
        raise UserError(
            f"shadow generators cannot be trained on {num_records} records each, out of {len(background)} auxiliary "
            f"records and {num_targets} targets: give more than the targets and at most the auxiliary records"
        )
    rng = generator_of(key)
    is_test = np.arange(num_shadows) % 2 == 1
    is_member = np.zeros((num_shadows, num_targets), bool)
    for part in (np.flatnonzero(is_test), np.flatnonzero(~is_test)):
        for target in range(num_targets):
            is_member[rng.permutation(part)[: len(part) // 2], target] = True
    population = pd.DataFrame(auxiliary[list(schema.names)])
    held_records, tables = pd.DataFrame(targets.records[list(schema.names)]), []
    dtypes: dict[str, Any] = {name: population[name].dtype for name in schema.names}
    for held in is_member:
        drawn = rng.choice(background, size=num_records - int(held.sum()), replace=False)
        table = pd.concat([population.iloc[drawn], held_records[held]]).iloc[rng.permutation(num_records)]
        tables.append(table.reset_index(drop=True).astype(dtypes))
    return Design(tables, is_member, is_test)


def attack_synthetic_sets(
    schema: Schema,
    auxiliary: pd.DataFrame,
    targets: Targets,
    design: Design,
    sets: Sequence[pd.DataFrame],
    *,
    key: jax.Array,
) -> list[AttackResult]:
    """One result for each kind of target, in the order in which kinds first occur.

    Args:
      sets: the synthetic set of every shadow, in the design's order.

    Raises:
      UserError: a set has no rows or lacks a column.
    """
    rng = generator_of(key)
    queries = draw_queries(len(schema.modelled), NUM_QUERIES, rng)
    features = set_features(schema, set_levels(schema, auxiliary), sets, targets.records, queries)
    scores = membership_scores(features, design.is_member, design.is_test)
    labels, seed = design.is_member[design.is_test], int(rng.integers(2**31))
    results = []
    for kind in dict.fromkeys(targets.kinds):
        of_kind = np.array([other == kind for other in targets.kinds])
        members, controls = (scores[:, of_kind][labels[:, of_kind] == wanted] for wanted in (True, False))
        name = f"shadow generators, {kind} targets"
        results.append(membership_result(name, members, controls, seed=seed, notes=(_NOTE,)))
    return results


def attack_function(
    synthesize: Synthesize,
    schema: Schema,
    auxiliary: pd.DataFrame,
    targets: Targets,
    *,
    num_shadows: int,
    num_records: int,
    key: jax.Array,
) -> list[AttackResult]:
    """The attack on any generator, whose shadows are made one after the other.

    Args:
      synthesize: (training records, key) -> synthetic records, both DataFrames with the schema's columns.
      auxiliary: records of the population, in canonical dtypes.
      num_shadows: half of them are attacked.
      num_records: of each training set.
    """
    design_key, synthesis_key, attack_key = jax.random.split(key, 3)
    design = make_design(schema, auxiliary, targets, num_shadows=num_shadows, num_records=num_records, key=design_key)
    keys = jax.random.split(synthesis_key, num_shadows)
    pairs = tqdm(zip(design.tables, keys, strict=True), total=num_shadows, desc="shadow generators", disable=None)
    sets = [synthesize(table, one) for table, one in pairs]
    return attack_synthetic_sets(schema, auxiliary, targets, design, sets, key=attack_key)


def membership_scores(features: SetFeatures, is_member: np.ndarray, is_test: np.ndarray) -> np.ndarray:
    """Log odds that each target is in each test shadow, float64 [number of test shadows, T]; from the others alone.

    The sum of logistic regressions, all chosen beforehand: for each general kind of features one per target, and one on
    the queries that is shared by all targets, since a count of rows that resemble the target means the same for each.
    A feature is standardised by the training shadows (a query for each target apart), and divided by the square root of
    the number of features, so that a regression without a signal has little to say.
    """
    scores = np.zeros((int(is_test.sum()), is_member.shape[1]))
    for name in GENERAL:
        train, test = _standardised(features.general[name], is_test)
        for target in range(is_member.shape[1]):
            scores[:, target] += _log_odds(train, is_member[~is_test, target], test)
    train, test = _standardised(features.queries, is_test)
    num_queries = train.shape[-1]
    shared = _log_odds(train.reshape(-1, num_queries), is_member[~is_test].ravel(), test.reshape(-1, num_queries))
    return scores + shared.reshape(scores.shape)


def _standardised(features: np.ndarray, is_test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(training, test) features of about unit length; one that is constant in training is 0 for all."""
    train, test = features[~is_test].astype(np.float64), features[is_test].astype(np.float64)
    mean, stddev = train.mean(axis=0), train.std(axis=0)
    varies = stddev > 1e-9
    scale = np.where(varies, 1 / np.maximum(stddev, 1e-9), 0.0) / np.sqrt(features.shape[-1])
    return (train - mean) * scale, (test - mean) * scale


def _log_odds(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    if labels.all() or not labels.any():
        return np.zeros(len(test))
    return LogisticRegression(C=_REGULARISATION, max_iter=1000).fit(train, labels).decision_function(test)


def _anything(column: Column, values: pd.Series, count: int, rng: np.random.Generator) -> np.ndarray:
    """Values drawn uniformly from the domain of a column; where the schema leaves it unknown, from the values seen."""
    present = values.dropna()
    if column.kind in NUMERIC_KINDS and column.kind != "datetime" and len(present):
        lower = float(present.min() if column.lower is None else column.lower)
        upper = float(present.max() if column.upper is None else column.upper)
        drawn = rng.uniform(lower, upper, count)
        return np.round(drawn).astype(np.int64) if column.kind == "integer" else drawn
    domain = pd.Series(list(column.values), dtype=object) if column.values else present.drop_duplicates()
    if not len(domain):
        domain = values
    return domain.iloc[rng.integers(len(domain), size=count)].to_numpy()


def generator_of(key: jax.Array) -> np.random.Generator:
    """NumPy's generator for draws on the host, seeded by a key."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())
