"""Audits from synthetic tables: a copier is found, one that never saw the canary is not, bad tables are no accident."""

from typing import Any

import jax
import numpy as np
import pandas as pd
import pytest

from privsyn_jax.evaluation.audit import audit_synthesizer, audit_synthetic, audit_synthetic_sets, closeness
from privsyn_jax.types import Column, Schema, UserError

SCHEMA = Schema(
    (
        Column("age", "integer", lower=0, upper=100),
        Column("income", "numeric", nullable=True),
        Column("town", "categorical", categories=("a", "b", "c"), nullable=True),
        Column("member", "boolean"),
    ),
    num_records=1000,
)
CLAIM: dict[str, Any] = {"claimed_epsilon": 1.0, "delta": 1e-5}


def table(num_rows: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "age": rng.integers(0, 101, num_rows),
            "income": np.where(rng.random(num_rows) < 0.2, np.nan, rng.normal(size=num_rows)),
            "town": rng.choice(np.array(["a", "b", "c", None], object), num_rows),
            "member": rng.random(num_rows) < 0.5,
        }
    )


CANARY = pd.DataFrame({"age": [100], "income": [9.0], "town": ["c"], "member": [True]})


def copier(records: pd.DataFrame, key: jax.Array) -> pd.DataFrame:
    rows = np.asarray(jax.random.permutation(key, len(records)))
    return records.iloc[rows].reset_index(drop=True)


def stranger(records: pd.DataFrame, key: jax.Array) -> pd.DataFrame:
    del records
    return table(40, int(jax.random.randint(key, (), 0, 2**30)))


def test_a_copier_is_above_its_claim_and_a_stranger_is_not():
    copied = audit_synthesizer(copier, table(40, 0), CANARY, SCHEMA, num_runs=48, key=jax.random.key(0), **CLAIM)
    assert copied.is_violated and copied.num_canaries == 48
    drawn = audit_synthesizer(stranger, table(40, 0), CANARY, SCHEMA, num_runs=48, key=jax.random.key(1), **CLAIM)
    assert not drawn.is_violated and drawn.lower_bound < 1.0


def test_one_table_with_many_canaries_tells_a_copier_from_a_stranger():
    canaries, is_in = table(200, 1), np.random.default_rng(2).random(200) < 0.5
    copied = pd.concat([table(200, 3), canaries.iloc[np.flatnonzero(is_in)]], ignore_index=True)
    assert audit_synthetic(copied, canaries, is_in, SCHEMA, **CLAIM).is_violated
    assert not audit_synthetic(table(300, 4), canaries, is_in, SCHEMA, **CLAIM).is_violated


def test_strangers_are_above_the_truth_no_more_often_than_the_confidence_says():
    """Their true epsilon is 0, so that any bound above it is wrong: 5 % may be, and are found to be by chance."""
    wrong = 0
    for seed in range(12):
        tables = [table(10, 100 * seed + number) for number in range(16)]
        found = audit_synthetic_sets(tables[:8], tables[8:], CANARY, SCHEMA, claimed_epsilon=0.0, delta=1e-5)
        wrong += found.is_violated
    assert wrong <= 3  # 5 % of 12 is 0.6, and 3 standard errors


def test_differences_are_counted_cell_by_cell():
    rows = pd.DataFrame(
        {"age": [100, 50, 100], "income": [9.0, 9.0, np.nan], "town": ["c", "a", "c"], "member": [True, True, False]}
    )
    assert closeness(rows.iloc[:1], CANARY, SCHEMA)[0].tolist() == [0.0, 0.0, 1.0]
    assert closeness(rows.iloc[1:2], CANARY, SCHEMA)[0, 0] == pytest.approx(-1.5)  # half the range of age, and a town
    assert closeness(rows.iloc[2:], CANARY, SCHEMA)[0, 0] == pytest.approx(-2.0)
    missing = CANARY.assign(income=np.nan, town=None)
    assert closeness(missing, missing, SCHEMA)[0].tolist() == [0.0, 0.0, 1.0]


@pytest.mark.parametrize(
    "synthetic",
    [
        table(0, 0),
        table(5, 0).drop(columns="town"),
        table(5, 0).assign(extra=1, town="unheard of"),
        table(5, 0).assign(age=np.nan, income=np.inf),
        table(5, 0).assign(income=3.0),
    ],
)
def test_any_table_gives_finite_numbers(synthetic):
    features = closeness(synthetic, table(4, 1), SCHEMA)
    assert features.shape == (4, 3) and np.isfinite(features).all()


def test_what_is_missing_is_named():
    with pytest.raises(UserError, match="'age'"):
        closeness(table(5, 0), CANARY.drop(columns="age"), SCHEMA)
    with pytest.raises(UserError, match="4 or more"):
        audit_synthetic_sets([table(5, 0)] * 3, [], CANARY, SCHEMA, **CLAIM)
