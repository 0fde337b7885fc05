"""Singling out and linking records with quasi-identifiers taken from synthetic records."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from privsyn_jax.evaluation.attacks.candidates import Tables, prepare
from privsyn_jax.evaluation.attacks.mixed import mixed_rows, nearest_rows
from privsyn_jax.evaluation.attacks.scores import (
    LEVEL,
    AttackResult,
    Interval,
    concluded,
    difference_interval,
    share_interval,
)
from privsyn_jax.types import Schema, UserError

_MAX_CATEGORIES = 20  # of a column that may serve as a quasi-identifier without being named
_SUBSETS = 20  # sets of columns that predicates are made of
_PREDICATES = 100  # of each set of columns
_SHUFFLES = 100  # exchanges of training and held-out rows
_NEAREST = 5  # synthetic rows near each half of a record
_MAX_LINKED = 2_000  # records of each kind whose halves are to be linked


def singling_out(
    schema: Schema,
    train: pd.DataFrame,
    test: pd.DataFrame,
    synthetic: pd.DataFrame,
    *,
    seed: int,
    quasi_identifiers: Sequence[str] = (),
) -> AttackResult:
    """Predicates read off synthetic rows: how often does one fit exactly one training row, and one held-out row?

    A predicate states the values (of numbers: the quantile bin) that one synthetic row has in some of the
    quasi-identifiers, from half of them to all. Training and held-out rows are equally many, so a predicate that only
    describes the population singles out as often among both. Each synthetic row makes at most one predicate.

    Metrics, baseline 0: "success_gap", the rate among training rows less the rate among held-out rows. Its interval
    takes each predicate as a trial (`paired_gap_interval`); several predicates may single out one row, so it is widened
    where needed to the spread of the gap over random exchanges of training and held-out rows.

    Args:
      schema: public facts.
      train: records trained on.
      test: held-out records.
      synthetic: records released.
      seed: draws rows and columns.
      quasi_identifiers: names of columns; by default the sensitive ones, those of at most 20 categories, and numbers.

    Raises:
      UserError: see `candidates.prepare`; or a name is no column, or there is no column but ids.

    Source: Article 29 Working Party 2014, opinion 05/2014, for the risk; Giomi et al. 2023, "A Unified Framework for
    Quantifying Privacy Risk in Synthetic Data", for the control.
    """
    tables = prepare(schema, train, test, synthetic, seed=seed)
    chosen = _quasi_identifiers(schema, tables, quasi_identifiers)
    rng = np.random.default_rng(seed)
    trials = []
    for block in np.array_split(rng.permutation(len(tables.synthetic.codes)), _SUBSETS):
        size = rng.integers(-(-len(chosen) // 2), len(chosen) + 1)
        trials.append(_predicates(tables, np.sort(rng.permutation(chosen)[:size]), block[:_PREDICATES]))
    num = len(tables.members.codes)
    in_train, in_controls = _singled_out(trials, np.arange(2 * num) < num)
    shuffled = (_singled_out(trials, rng.permutation(2 * num) < num) for _ in range(_SHUFFLES))
    spread = float(np.std([hits[0].mean() - hits[1].mean() for hits in shuffled], ddof=1))
    note = (
        f"of {len(in_train):,} predicates {in_train.mean():.3f} single out a training row and {in_controls.mean():.3f} "
        "a held-out row"
    )
    return concluded(
        "singling_out",
        {"success_gap": functools.partial(_success_gap, in_train, in_controls, spread)},
        {"success_gap": 0.0},
        num_members=num,
        num_controls=num,
        notes=(note,),
    )


def linkability(
    schema: Schema, train: pd.DataFrame, test: pd.DataFrame, synthetic: pd.DataFrame, *, seed: int
) -> AttackResult:
    """Two halves of a record's columns are linked if a synthetic row is among the five nearest to both.

    The columns are halved at random. Metrics, baseline 0: "success_gap", the share of training records whose halves
    are linked less the share of held-out records.

    Args and raises as `singling_out`, without quasi-identifiers; at least two columns are needed.

    Source: Giomi et al. 2023, see `singling_out`.
    """
    tables = prepare(schema, train, test, synthetic, seed=seed, most=_MAX_LINKED)
    num_columns = len(tables.all_levels)
    if num_columns < 2:
        raise UserError("the table has one column: two are needed to link halves of a record")
    order = np.random.default_rng(seed).permutation(num_columns)
    k = min(_NEAREST, len(tables.synthetic.codes))
    linked = []
    for table in (tables.members, tables.controls):
        found = [
            nearest_rows(
                mixed_rows(tables.all_levels, table, half), mixed_rows(tables.all_levels, tables.synthetic, half), k=k
            ).index
            for half in (order[: num_columns // 2].tolist(), order[num_columns // 2 :].tolist())
        ]
        linked.append((found[0][:, :, None] == found[1][:, None, :]).any(axis=(1, 2)))
    rates, sizes = [float(hit.mean()) for hit in linked], [len(hit) for hit in linked]
    return concluded(
        "linkability",
        {"success_gap": functools.partial(difference_interval, rates[0], sizes[0], rates[1], sizes[1])},
        {"success_gap": 0.0},
        num_members=sizes[0],
        num_controls=sizes[1],
        notes=(f"the halves of {rates[0]:.3f} of training and of {rates[1]:.3f} of held-out records are linked",),
    )


def paired_gap_interval(first: np.ndarray, second: np.ndarray, level: float = LEVEL) -> Interval:
    """Difference of two shares of the same n trials, bool [n] each.

    Trials in which both agree say nothing of the direction: given the number of the others, which of the two has
    succeeded is a fair coin under equal shares, so the exact interval of that share is scaled by their number.

    Source: as McNemar 1947, with the interval of Clopper and Pearson 1934.
    """
    wins, losses = int(np.sum(first & ~second)), int(np.sum(second & ~first))
    if wins + losses == 0:
        return Interval(0.0, 0.0, 0.0)
    scale, share = (wins + losses) / len(first), share_interval(wins, wins + losses, level)
    return Interval(*(float(scale * (2 * part - 1)) for part in share))


def _quasi_identifiers(schema: Schema, tables: Tables, named: Sequence[str]) -> np.ndarray:
    """Positions of the columns to make predicates of; all columns if none qualifies."""
    names = [levels.column.name for levels in tables.all_levels]
    unknown = [name for name in named if name not in names]
    if unknown:
        raise UserError(f"there is no column {unknown[0]}: name quasi-identifiers among {', '.join(names)}")
    chosen = [
        i
        for i, levels in enumerate(tables.all_levels)
        if names[i] in (named or schema.sensitive)
        or (not named and (levels.is_numeric or len(levels.categories) <= _MAX_CATEGORIES))
    ]
    return np.array(chosen or range(len(names)))


def _predicates(tables: Tables, columns: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ids of the values of all members, then controls, in some columns; and those that these synthetic rows have."""
    parts = [table.codes[:, columns] for table in (tables.members, tables.controls, tables.synthetic)]
    parts[2] = parts[2][rows]
    _, ids = np.unique(np.concatenate(parts), axis=0, return_inverse=True)
    num_real = len(parts[0]) + len(parts[1])
    return ids.ravel()[:num_real], np.unique(ids.ravel()[num_real:])


def _singled_out(trials: list[tuple[np.ndarray, np.ndarray]], is_member: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether each predicate fits exactly one member, and exactly one other; is_member bool, of the real rows."""
    hits = []
    for ids, made in trials:
        size = 1 + max(ids.max(), made.max(initial=0))
        hits.append([np.bincount(ids[rows], minlength=size)[made] == 1 for rows in (is_member, ~is_member)])
    in_members, in_others = (np.concatenate(parts) for parts in zip(*hits, strict=True))
    return in_members, in_others


def _success_gap(first: np.ndarray, second: np.ndarray, spread: float, level: float) -> Interval:
    paired = paired_gap_interval(first, second, level)
    half = float(stats.norm.ppf((1 + level) / 2)) * spread
    return Interval(paired.value, min(paired.low, paired.value - half), max(paired.high, paired.value + half))
