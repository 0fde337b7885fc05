"""Synthetic tables that were made elsewhere."""

import gzip
import json

import numpy as np
import pandas as pd
import pytest

from privsyn_jax.data.foreign import conform_foreign, read_foreign
from privsyn_jax.data.validate import conform
from privsyn_jax.evaluation import evaluate
from privsyn_jax.evaluation_settings import EvaluationSettings
from privsyn_jax.types import Column, Schema, UserError

SCHEMA = Schema(
    (
        Column("age", "integer", 0, 99),
        Column("height", "numeric", 1.0, 2.5, nullable=True),
        Column("born", "datetime", "1920-01-01", "2025-01-01"),
        Column("town", "categorical", categories=("ulm", "bonn", 7)),
        Column("smoker", "boolean", categories=("no", "yes")),
        Column("who", "id"),
    ),
    num_records=200,
    target="smoker",
    sensitive=("town",),
)


def real(seed, n=200):
    rng = np.random.default_rng(seed)
    smoker = rng.random(n) < 0.4
    frame = pd.DataFrame(
        {
            "age": rng.integers(20, 60, n) + 20 * smoker,
            "height": rng.normal(1.7, 0.1, n),
            "born": [f"19{y}-03-01" for y in rng.integers(20, 99, n)],
            "town": rng.choice(["ulm", "bonn", "7"], n),
            "smoker": np.where(smoker, "yes", "no"),
            "who": np.arange(n),
        }
    )
    return conform(frame, SCHEMA, out_of_bounds="error", source="real.csv")[0]


def files(frame, folder):
    path = folder / "synthetic.csv.gz"
    path.write_bytes(gzip.compress(frame.to_csv(index=False).encode()))
    return str(path)


def test_a_clean_table_is_read_as_conform_would(tmp_path):
    frame = real(0).drop(columns="who")
    found, notes = read_foreign(files(frame, tmp_path), SCHEMA)
    assert notes == [] and list(found) == ["age", "height", "born", "town", "smoker"]
    for name in found:
        assert (found[name].to_numpy(object) == frame[name].to_numpy(object)).all(), name


def test_what_is_wrong_stays_and_is_named():
    frame = pd.DataFrame(
        {
            "age": ["30", "31.5", "abc", "1e400", "", "-4"],
            "born": ["2000-01-01", "never", "2000-01-02T03:04:05+02:00", "", "1800-01-01", "2000-01-01"],
            "town": ["ulm", "paris", "7.0", "", "bonn", "ulm"],
            "smoker": ["yes", "perhaps", "", "NO", "1", "f"],
            "colour": ["red"] * 6,
        }
    )
    found, notes = conform_foreign(frame, SCHEMA, source="s.csv")
    np.testing.assert_array_equal(found["age"], [30, 31.5, np.nan, np.nan, np.nan, -4])
    assert found["born"].isna().tolist() == [False, True, False, True, False, False]
    assert found["born"][2] == pd.Timestamp("2000-01-02T01:04:05")
    assert found["town"].tolist() == ["ulm", "paris", 7, None, "bonn", "ulm"]
    assert found["smoker"].tolist() == [True, "perhaps", None, False, True, False]
    assert notes == [
        "column 'colour' of s.csv is not in the schema: ignored.",
        "column 'age' of s.csv has 2 values that are no finite numbers: taken as missing.",
        "column 'born' of s.csv has 1 values that are no dates: taken as missing.",
        "column 'town' of s.csv has 1 values that are no category of the schema.",
        "column 'smoker' of s.csv has 1 values that are no category of the schema.",
    ]


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f.drop(columns=["smoker", "age"]),
        lambda f: f.assign(extra=1),
        lambda f: f.assign(town="atlantis"),
        lambda f: f.assign(age=np.nan, height=np.nan),
        lambda f: f.assign(smoker="yes"),
        lambda f: f.head(10),
        lambda f: f.assign(age=33, height=1.7, town="ulm", born="2000-01-01"),
        lambda f: f.assign(age="x"),
        lambda f: f.head(1),
        lambda f: f[["smoker"]],
        lambda f: f[["town"]],
        lambda f: f.assign(age="1e300", height=np.where(np.arange(200) % 2, "-1e300", "1.7")),
    ],
)
def test_every_metric_of_an_odd_table_has_a_value_or_a_reason(change, whole):
    frame = real(2).astype({"town": str})
    synthetic, _ = conform_foreign(change(frame), SCHEMA, source="s.csv")
    result = evaluate(SCHEMA, real(0), real(1), synthetic, seed=0, settings=EvaluationSettings(num_seeds=2))
    json.dumps(result._asdict(), allow_nan=False)
    for row in result.metrics:
        assert np.isfinite([row["value"], row["reference"]]).all()
    assert all(sentence.endswith(".") for sentence in result.skipped)
    assert any(row["family"] == "sanity" for row in result.metrics)
    assert all(found["total_variation"] for found in result.fairness.values())
    for row in names(whole) - names(result):
        assert any(is_reason(sentence, *row) for sentence in result.skipped), row


@pytest.fixture(scope="module")
def whole():
    """The evaluation of a table in which nothing is odd."""
    return evaluate(SCHEMA, real(0), real(1), real(2), seed=0, settings=EvaluationSettings(num_seeds=0))


def names(evaluation):
    return {(row["family"], row["metric"], row["column"]) for row in evaluation.metrics}


def is_reason(sentence, family, metric, column):
    """Whether it says why a metric has no value: it names the metric or its family, and the column if it has one."""
    if column is not None and sentence == f"{column}: not in the synthetic table.":
        return True
    begins = tuple(f"{name}{'' if column is None else f' of {column}'}: " for name in (metric, family))
    return sentence.startswith(begins)


def test_a_table_that_cannot_be_evaluated_is_refused():
    with pytest.raises(UserError, match="has no rows"):
        conform_foreign(pd.DataFrame({"age": []}), SCHEMA, source="s.csv")
    with pytest.raises(UserError, match=r"none of the schema's columns: correct its header"):
        conform_foreign(pd.DataFrame({"agee": [1]}), SCHEMA, source="s.csv")
    with pytest.raises(UserError, match="2 columns named 'age'"):
        conform_foreign(pd.DataFrame([[1, 2]], columns=["age", "age"]), SCHEMA, source="s.csv")
