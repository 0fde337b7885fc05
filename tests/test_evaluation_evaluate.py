"""The whole evaluation: its contract on ordinary and on degenerate tables."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from privsyn_jax.evaluation import evaluate, headline
from privsyn_jax.types import Column, Schema, UserError

SCHEMA = Schema(
    columns=(
        Column("id", "id"),
        Column("age", "integer", 0, 99, nullable=True),
        Column("income", "numeric", 0.0, 1e6),
        Column("city", "categorical", categories=("Bern", "Oslo", "Rome", "Unvisited"), nullable=True),
        Column("hobby", "categorical"),
        Column("grade", "ordinal", categories=(1, 2, 3)),
        Column("member", "boolean"),
        Column("joined", "datetime", "2000-01-01", "2020-01-01"),
        Column("buys", "categorical", categories=("no", "yes")),
    ),
    num_records=300,
    target="buys",
)
ROW_KEYS = {"family", "metric", "value", "reference", "higher_is_better", "column", "seed"}


def table(num_rows, seed):
    rng = np.random.default_rng(seed)
    age = rng.integers(0, 100, num_rows)
    income = (age * 5_000 + rng.normal(0, 50_000, num_rows)).clip(0, 1e6)
    pick = lambda options: np.array(options, object)[rng.integers(0, len(options), num_rows)]  # noqa: E731
    return pd.DataFrame(
        {
            "id": np.arange(num_rows),
            "age": pd.Series(age, dtype="Int64").mask(rng.random(num_rows) < 0.1),
            "income": income,
            "city": pick(["Bern", "Oslo", "Rome", None]),
            "hobby": pick(["chess", "go"]),
            "grade": pick([1, 2, 3]),
            "member": rng.random(num_rows) < 0.5,
            "joined": pd.Timestamp("2000-01-01") + pd.to_timedelta(rng.integers(0, 7000, num_rows), "D"),
            "buys": np.where(income + rng.normal(0, 50_000, num_rows) > 250_000, "yes", "no").astype(object),
        }
    )


TRAIN, TEST = table(300, 0), table(300, 1)  # one size: fewer programs are compiled


def check_contract(evaluation):
    """Finite plain numbers under known keys, JSON throughout, one sentence per reason."""
    json.dumps(evaluation._asdict(), allow_nan=False)
    for row in evaluation.metrics:
        assert set(row) == ROW_KEYS
        assert row["family"] in ("fidelity", "utility", "sanity")
        assert type(row["value"]) is float and math.isfinite(row["value"])
        assert type(row["reference"]) is float and math.isfinite(row["reference"])
    names = [(row["metric"], row["column"]) for row in evaluation.metrics]
    assert len(set(names)) == len(names)
    for sentence in evaluation.skipped:
        assert sentence.endswith(".") and "\n" not in sentence
    chosen = headline(evaluation.metrics)
    assert 1 <= len(chosen) <= 5 and all(ROW_KEYS | {"label"} == set(row) for row in chosen)
    size = len(evaluation.pair_errors["columns"])
    for matrix in (evaluation.pair_errors["synthetic"], evaluation.pair_errors["reference"]):
        assert np.shape(matrix) == (size, size)


def values(evaluation, role="value"):
    return {(row["metric"], row["column"]): row[role] for row in evaluation.metrics}


def test_real_data_as_its_own_synthetic_data():
    evaluation = evaluate(SCHEMA, TRAIN, TEST, TRAIN, seed=0)
    check_contract(evaluation)
    assert evaluation.skipped == []
    found, reference = values(evaluation), values(evaluation, "reference")
    for row in evaluation.metrics:
        if row["family"] == "fidelity" and row["metric"] != "density":
            best = 1.0 if row["higher_is_better"] else 0.0
            assert row["value"] == pytest.approx(best, abs=2e-6)
        if row["family"] == "utility":
            assert row["value"] == row["reference"]
    assert reference["emd", "age"] > 0 and reference["pairwise_total_variation", None] > 0
    assert found["training_copy_rate", None] == 1.0
    assert found["within_bounds_rate", None] == 1.0
    assert "id" not in {row["column"] for row in evaluation.metrics}
    matrix = np.array(evaluation.pair_errors["reference"])
    above = np.triu_indices(len(matrix), k=1)
    assert reference["pairwise_total_variation", None] == pytest.approx(matrix[above].mean())
    assert [row["metric"] for row in headline(evaluation.metrics)] == [
        "logistic_regression_auc",
        "boosting_auc",
        "logistic_regression_accuracy",
        "pairwise_total_variation",
        "emd",
    ]
    assert set(evaluation.curves) == {"logistic_regression", "boosting"}


def test_the_same_seed_gives_the_same_evaluation_and_inputs_stay_untouched():
    synthetic = table(300, 2)
    before = synthetic.copy()
    assert evaluate(SCHEMA, TRAIN, TEST, synthetic, seed=3) == evaluate(SCHEMA, TRAIN, TEST, synthetic, seed=3)
    pd.testing.assert_frame_equal(synthetic, before)


def test_worst_column_and_known_distances():
    synthetic = TRAIN.assign(income=0.0, city="Unvisited")
    found = values(evaluate(SCHEMA, TRAIN, TEST, synthetic, seed=0))
    assert found["emd", "income"] == pytest.approx(TRAIN["income"].mean() / 1e6, abs=1e-5)
    assert found["total_variation", "city"] == 1.0
    assert found["missing_rate_difference", "city"] == pytest.approx(TRAIN["city"].isna().mean())


DEGENERATE = {
    "ten rows": table(10, 5),
    "one row": table(1, 5),
    "constant columns": TRAIN.assign(
        age=3, income=7.0, city="Bern", hobby="go", grade=1, member=True, joined=pd.Timestamp("2010-01-01")
    ),
    "one class": TRAIN.assign(buys="yes"),
    "missing target": TRAIN.assign(buys=None),
    "all missing": TRAIN.assign(age=pd.array([pd.NA] * 300, "Int64"), income=np.nan, city=None, joined=pd.NaT),
    "unseen values": TRAIN.assign(city="Atlantis", hobby="golf", income=2e9, age=-5),
    "infinite": TRAIN.assign(income=np.inf),
    "strings": TRAIN.astype({"city": "str", "hobby": "category", "buys": "string"}),
    "extra column and other order": TRAIN.assign(extra=1)[["extra", *reversed(TRAIN.columns)]],
    "absent column": TRAIN.drop(columns=["age", "buys"]),
    "odd index": TRAIN.set_index(np.full(300, 7)),
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_synthetic_tables_give_values_or_reasons(name):
    evaluation = evaluate(SCHEMA, TRAIN, TEST, DEGENERATE[name], seed=0)
    check_contract(evaluation)
    found = values(evaluation)
    assert 0.0 <= found["pairwise_total_variation", None] <= 1.0 + 1e-6
    if name in ("strings", "extra column and other order", "odd index"):
        assert found["pairwise_total_variation", None] == pytest.approx(0.0, abs=1e-6)
        assert evaluation.skipped == []
    if name == "constant columns":
        assert any("income" in sentence and "constant" in sentence for sentence in evaluation.skipped)
    if name == "absent column":
        assert "age: not in the synthetic table." in evaluation.skipped
        assert ("boosting_auc", None) not in found
    if name == "unseen values":
        assert found["within_bounds_rate", "city"] == 0.0 and found["emd", "income"] > 1


@pytest.mark.parametrize("name", ["constant columns", "all missing", "one class", "missing target"])
def test_degenerate_real_tables_give_values_or_reasons(name):
    real = DEGENERATE[name]
    evaluation = evaluate(SCHEMA, real, real.iloc[::-1], TRAIN, seed=0)
    check_contract(evaluation)
    assert evaluation.skipped
    absent = {"constant columns": "income", "all missing": "income"}.get(name, "utility")
    assert any(absent in sentence for sentence in evaluation.skipped)


def test_without_a_target_other_headlines_move_up():
    schema = Schema(columns=SCHEMA.columns[1:4], num_records=300)
    evaluation = evaluate(schema, TRAIN, TEST, table(300, 2), seed=0)
    check_contract(evaluation)
    assert len(headline(evaluation.metrics)) == 5
    assert evaluation.curves == {}
    assert evaluation.skipped == [
        "cramers_v_difference: fewer than two columns are categorical.",
        "utility: the schema names no target.",
    ]


@pytest.mark.parametrize("name", ["age", "city", "buys"])
def test_a_table_of_one_column(name):
    schema = Schema(columns=(SCHEMA[name],), num_records=300, target=name)
    evaluation = evaluate(schema, TRAIN, TEST, table(300, 2), seed=0)
    check_contract(evaluation)
    assert any("pairwise_total_variation" in sentence for sentence in evaluation.skipped)
    assert any("utility" in sentence for sentence in evaluation.skipped)


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ((TRAIN, TEST, TRAIN.iloc[:0]), "the synthetic table has no rows"),
        ((TRAIN.iloc[:0], TEST, TRAIN), "the training table has no rows"),
        ((TRAIN, TEST.drop(columns="age"), TRAIN), "the held-out table lacks the schema's column 'age'"),
        ((TRAIN, TEST, TRAIN[["id"]]), "none of the schema's columns"),
    ],
)
def test_bad_tables_are_refused_in_one_sentence(tables, message):
    with pytest.raises(UserError, match=message):
        evaluate(SCHEMA, *tables, seed=0)
