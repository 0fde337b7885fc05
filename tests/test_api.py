"""The Python interface, on a small mixed table: frames in, frames out; what is saved; what is refused."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import privsyn_jax
from privsyn_jax import Run, Schema, UserError, api
from privsyn_jax.data.dtypes import restore_dtypes
from privsyn_jax.data.schema import schema_from_dict
from privsyn_jax.privacy.ledger import Ledger
from privsyn_jax.types import Column

NUM_ROWS = 300
SCHEMA = {
    "columns": {
        "person": {"kind": "id"},
        "weight": {"kind": "numeric", "lower": 30, "upper": 200, "nullable": True},
        "children": {"kind": "integer", "lower": 0, "upper": 9, "nullable": True},
        "visits": {"kind": "integer", "lower": 0, "upper": 20, "nullable": True},
        "sex": {"kind": "categorical", "categories": ["f", "m"]},
        "town": {"kind": "categorical"},
        "grade": {"kind": "ordinal", "categories": ["low", "mid", "high"]},
        "smoker": {"kind": "boolean", "categories": ["no", "yes"]},
        "member": {"kind": "boolean"},
        "born": {"kind": "datetime", "lower": "1950-01-01", "upper": "2010-12-31"},
        "seen": {"kind": "datetime", "lower": "2020-01-01", "upper": "2020-12-31T23:59:59.999999"},
    },
    "num_records": NUM_ROWS,
    "target": "member",
}
TINY = {
    "model": {"variant": "masked_mlp", "width": 8, "num_layers": 1, "num_calibration_rows": 256},
    "training": {"num_steps": 3, "expected_batch_size": 64},
    "transform": {"num_bins": 8, "num_cells": 32},
}


def table():
    rng = np.random.default_rng(0)
    day, second = (lambda most, unit=unit: pd.to_timedelta(rng.integers(0, most, NUM_ROWS), unit=unit) for unit in "Ds")
    return pd.DataFrame(
        {
            "person": [f"p{row:05d}" for row in range(NUM_ROWS)],
            "weight": np.where(rng.random(NUM_ROWS) < 0.1, np.nan, rng.normal(75, 10, NUM_ROWS).round(1)),
            "children": pd.array(np.where(rng.random(NUM_ROWS) < 0.2, None, rng.integers(0, 5, NUM_ROWS)), "Int64"),
            "visits": rng.integers(0, 9, NUM_ROWS),  # may be missing by its schema, and never is
            "sex": rng.choice(["f", "m"], NUM_ROWS),
            "town": rng.choice(["Bath", "Cork"], NUM_ROWS).astype(object),
            "grade": pd.Categorical(rng.choice(["low", "mid", "high"], NUM_ROWS), ["low", "mid", "high"], ordered=True),
            "smoker": rng.choice(["no", "yes"], NUM_ROWS, p=[0.8, 0.2]),
            "member": rng.random(NUM_ROWS) < 0.5,
            "born": pd.Timestamp("1950-01-01") + day(22_000),
            "seen": (pd.Timestamp("2020-01-01") + second(366 * 86_400)).tz_localize("UTC").tz_convert("Asia/Tokyo"),
        },
        index=range(7, 7 + NUM_ROWS),
    )


@pytest.fixture(scope="module")
def frame():
    return table()


@pytest.fixture(scope="module")
def run(frame):
    """A private run; seeded, so that tests are the same each time."""
    return privsyn_jax.fit(frame, SCHEMA, epsilon=1.0, settings={**TINY, "privacy": {"seed": 0}})


@pytest.fixture(scope="module")
def unprotected(frame):
    """Without noise, without marginals, on public bins."""
    settings = {**TINY, "transform": {"edges": "public", "num_bins": 8}, "privacy": {"budget": {"marginals": 0}}}
    return privsyn_jax.fit(frame, SCHEMA, epsilon=float("inf"), settings=settings)


# ---- samples


@pytest.mark.parametrize("which", ["run", "unprotected"])
def test_a_sample_looks_like_the_table(which, frame, request):
    sample = request.getfixturevalue(which).sample(400, seed=1)
    assert list(sample.columns) == list(frame.columns) and sample.index.tolist() == list(range(400))
    assert sample["person"].tolist() == [str(number) for number in range(1, 401)]
    wanted = frame.dtypes.to_dict()
    if sample["visits"].isna().any():
        wanted["visits"] = pd.Int64Dtype()  # int64 cannot hold what the schema allows
    assert sample.dtypes.to_dict() == wanted
    assert sample["weight"].dropna().between(30, 200).all()
    for name in ("sex", "town", "smoker"):
        assert set(sample[name].dropna()) == set(frame[name])
    assert sample["sex"].notna().all()
    assert sample["seen"].dt.tz_convert("UTC").dt.year.eq(2020).all()


def test_a_seed_repeats_a_sample_and_no_seed_does_not(run):
    pd.testing.assert_frame_equal(run.sample(300, seed=3), run.sample(300, seed=3))
    assert not run.sample(300, seed=3).equals(run.sample(300, seed=4))
    assert not run.sample(300).equals(run.sample(300))


def test_conditions_hold(run):
    conditions = {"member": True, "sex": "f", "weight": {"min": 60}, "smoker": "no", "seen": {"min": "2020-07-01"}}
    sample = run.sample(50, conditions=conditions)
    assert sample["member"].all() and (sample["sex"] == "f").all() and (sample["weight"] >= 60).all()
    assert (sample["smoker"] == "no").all() and (sample["seen"] >= pd.Timestamp("2020-07-01", tz="UTC")).all()
    with pytest.raises(UserError, match="column 'sex' asks for 'x'"):
        run.sample(5, conditions={"sex": "x"})
    with pytest.raises(UserError, match="num_samples is 0: ask for at least 1"):
        run.sample(0)


# ---- the guarantee


def test_privacy_report_has_the_agreed_keys_and_keeps_the_target(run):
    privacy = run.privacy
    assert set(privacy) >= {
        "private", "epsilon", "delta", "accountant", "epsilon_rdp", "neighboring_relation", "privacy_unit", "ledger",
        "path", "declared_public", "warnings", "seeded_noise", "versions",
    }  # fmt: skip
    assert privacy["private"] is True and privacy["seeded_noise"] is True
    assert 0.995 <= privacy["epsilon"] <= 1.0 < privacy["epsilon_rdp"]
    assert privacy["delta"] == pytest.approx(NUM_ROWS**-1.1)
    names = [entry["name"] for entry in privacy["ledger"]]
    assert names == [
        "categories held by one record", "categories", "histograms", "pair scores", "pair marginals", "training",
    ]  # fmt: skip
    assert all({"reads", "event", "epsilon_alone"} <= set(entry) for entry in privacy["ledger"])
    assert any("dtypes" in fact for fact in privacy["declared_public"])
    json.dumps(privacy, allow_nan=False)


def test_without_noise_everything_is_stamped(unprotected, tmp_path):
    assert unprotected.privacy["private"] is False and unprotected.privacy["epsilon"] is None
    assert any("NOT PRIVATE" in warning for warning in unprotected.privacy["warnings"])
    unprotected.save(tmp_path / "saved")
    assert (tmp_path / "saved" / "NOT_PRIVATE.txt").read_text().startswith("NOT PRIVATE")
    assert "NOT PRIVATE" in (tmp_path / "saved" / "privacy_report.md").read_text()
    assert json.loads((tmp_path / "saved" / "model" / "model.json").read_text())["private"] is False
    assert "NOT PRIVATE" in unprotected._repr_html_()


# ---- saving and loading


def test_a_saved_run_comes_back_whole(run, tmp_path):
    run.save(tmp_path / "deep" / "saved")
    again = privsyn_jax.load(tmp_path / "deep" / "saved")
    assert isinstance(again, Run) and again.privacy == run.privacy
    pd.testing.assert_frame_equal(again.sample(300, seed=9), run.sample(300, seed=9))
    conditions = {"children": {"max": 2}}
    pd.testing.assert_frame_equal(
        again.sample(20, seed=9, conditions=conditions), run.sample(20, seed=9, conditions=conditions)
    )
    (tmp_path / "workdir").mkdir()
    (tmp_path / "deep" / "saved").rename(tmp_path / "workdir" / "release")
    assert privsyn_jax.load(str(tmp_path / "workdir")).privacy == run.privacy  # the folder of a finished run


def test_a_saved_run_holds_arrays_and_strict_json_only(run, tmp_path):
    run.save(tmp_path)
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert files == ["model/model.json", "model/params.npz", "privacy_report.json", "privacy_report.md"]
    with np.load(tmp_path / "model" / "params.npz", allow_pickle=False) as arrays:
        assert all(np.isfinite(arrays[name]).all() for name in arrays.files)
    saved = json.loads((tmp_path / "model" / "model.json").read_text(), parse_constant=pytest.fail)
    assert "data" not in saved["settings"]  # where the records lie is nobody's business
    assert "seed" not in saved["settings"]["privacy"]  # whoever has it can take the noise away


def test_saving_never_overwrites_and_cleans_up(run, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "file"):
        with pytest.raises(UserError, match="is not empty: name a new folder"):
            run.save(path)
    monkeypatch.setattr(Run, "write", lambda self, folder: (folder / "half").write_text("x") and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run.save(tmp_path / "saved")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_loading_what_is_no_run_is_one_sentence(run, tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "absent", tmp_path / "file"):
        with pytest.raises(UserError, match="holds no saved model: name a folder"):
            privsyn_jax.load(path)
    run.save(tmp_path / "saved")
    model = tmp_path / "saved" / "model"
    saved = json.loads((model / "model.json").read_text())
    for content, message in (
        ({**saved, "format": 99}, "was saved in format 99, this version reads 1"),
        ({key: value for key, value in saved.items() if key != "transform"}, "is damaged"),
        ([], "is damaged"),
    ):
        (model / "model.json").write_text(json.dumps(content))
        with pytest.raises(UserError, match=message):
            privsyn_jax.load(tmp_path / "saved")
    (model / "model.json").write_text(json.dumps(saved))
    (model / "params.npz").write_bytes((model / "params.npz").read_bytes()[:-100])
    with pytest.raises(UserError, match="is damaged"):
        privsyn_jax.load(tmp_path / "saved")


# ---- arguments of fit


class Reached(Exception):
    """Raised in place of learning: args are (frame, schema, plan, settings)."""


@pytest.fixture
def no_learning(monkeypatch):
    def learn(frame, schema, plan, settings, ledger):
        raise Reached(frame, schema, plan, settings)

    monkeypatch.setattr(api, "learn", learn)


def test_a_schema_may_be_a_dict_a_path_or_a_schema(frame, no_learning, tmp_path):
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(SCHEMA))
    seen = []
    for schema in (SCHEMA, path, str(path), schema_from_dict(SCHEMA)):
        with pytest.raises(Reached) as reached:
            privsyn_jax.fit(frame, schema, epsilon=float("inf"))
        seen.append(reached.value.args[1])
    assert all(schema == seen[0] and isinstance(schema, Schema) for schema in seen)


def test_settings_are_those_of_a_config_and_the_table_is_left_alone(frame, no_learning):
    before = frame.copy(deep=True)
    settings = {"training": {"num_steps": 7}, "privacy": {"l2_clip_norm": 0.5}, "seed": 3}
    with pytest.raises(Reached) as reached:
        privsyn_jax.fit(frame[frame.columns[::-1]], SCHEMA, epsilon=float("inf"), delta=1e-4, settings=settings)
    found, _, plan, checked = reached.value.args
    assert (checked.training.num_steps, checked.privacy.l2_clip_norm, checked.seed) == (7, 0.5, 3)
    assert plan.delta == 1e-4
    receipt = Ledger().charge("test", "all", "test", {"kind": "pure", "epsilon": 1.0, "count": 1})
    assert list(found.open(receipt).columns) == list(SCHEMA["columns"])
    assert settings == {"training": {"num_steps": 7}, "privacy": {"l2_clip_norm": 0.5}, "seed": 3}
    pd.testing.assert_frame_equal(frame, before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "gan"}, r"model.name is 'gan': use 'aim'"),
        ({"epsilon": 0}, r"privacy.epsilon is 0.0: give a number above 0"),
        ({"epsilon": float("nan")}, r"privacy.epsilon is NaN"),
        ({"delta": 2.0}, r"privacy.delta is 2.0"),
        ({"epsilon": None}, r"privacy.epsilon and privacy.noise_multiplier exclude each other"),
        ({"settings": {"privacy": {"noise_multiplier": 1.0}}}, r"exclude each other"),
        ({"settings": {"training": {"num_step": 3}}}, r"'training.num_step': did you mean 'training.num_steps'"),
        ({"settings": {"privcy": {}}}, r"'privcy': did you mean 'privacy'"),
        ({"settings": {"training": 3}}, r"training is 3: give a group of settings"),
        ({"settings": {"training": {"expected_batch_size": 301}}}, r"expected_batch_size is 301, more than"),
        ({"schema": {**SCHEMA, "target": "mmber"}}, r"target 'mmber' is no column"),
        ({"schema": "absent.json"}, r"schema absent.json does not exist"),
        ({"records": table().drop(columns="sex")}, r"the table has no column 'sex'"),
        ({"records": table().assign(extra=1)}, r"the table has a column 'extra'"),
        ({"records": table().iloc[:99]}, r"the table has 99 rows, too few"),
        ({"records": table().assign(sex="x")}, r"column 'sex' of the table, row 1, holds 'x'"),
    ],
)
def test_bad_arguments_are_one_sentence(frame, no_learning, change, message):
    arguments = {"records": frame, "schema": SCHEMA, "epsilon": float("inf"), **change}
    with pytest.raises(UserError, match=message) as caught:
        privsyn_jax.fit(**arguments)
    assert "\n" not in str(caught.value)


def test_the_package_names_its_models_and_starts_no_jax_by_itself():
    assert {"autoregressive", "tvae", "dcgan", "diffusion"} <= set(privsyn_jax.list_models())
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        privsyn_jax.nothing  # noqa: B018
    check = "import sys, privsyn_jax; assert not {'jax', 'flax', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)


# ---- dtypes of samples


@pytest.mark.parametrize(
    ("column", "values", "dtype", "wanted"),
    [
        (Column("x", "integer", 0, 300), [5, 300], "uint16", [5, 300]),
        (Column("x", "integer", 0, 300, nullable=True), pd.array([5, 7], "Int64"), "int64", [5, 7]),
        (Column("x", "integer", 0, 300, nullable=True), pd.array([5, None], "Int64"), "float64", [5.0, np.nan]),
        (Column("x", "integer", 0, 300, nullable=True), pd.array([5, None], "Int64"), "str", ["5", np.nan]),
        (Column("x", "numeric", 0.5, 9.5), [0.5, 3.2, 9.5], "int64", [1, 3, 9]),
        (Column("x", "numeric", 0, 9, nullable=True), [0.5, np.nan], "float32", [0.5, np.nan]),
        (Column("x", "boolean"), [True, False], "str", ["True", "False"]),
        (Column("x", "boolean", categories=("no", "yes")), [True, False], "object", ["yes", "no"]),
        (Column("x", "boolean", categories=("no", "yes")), [True, False], "category", ["yes", "no"]),
        (Column("x", "categorical", categories=(1, 2)), pd.Series([2, 1], dtype=object), "int8", [2, 1]),
        (Column("x", "datetime", "2020-01-01", "2020-12-31"), pd.to_datetime(["2020-02-03"]), "datetime64[ns]",
         [pd.Timestamp("2020-02-03")]),
        (Column("x", "datetime", "2020-01-01", "2020-12-31", datetime_format="%d.%m.%Y"),
         pd.to_datetime(["2020-02-03"]), "str", ["03.02.2020"]),
        (Column("x", "id"), [1, 2], "str", ["1", "2"]),
    ],
)  # fmt: skip
def test_dtypes_are_restored_without_changing_values(column, values, dtype, wanted):
    frame = pd.DataFrame({"x": values})
    restored = restore_dtypes(frame, Schema((column,), 100), {"x": dtype})["x"]
    assert str(restored.dtype) == dtype
    assert pd.Series(wanted).equals(restored.astype(pd.Series(wanted).dtype))


@pytest.mark.parametrize(
    ("column", "values", "dtype"),
    [
        (Column("x", "integer", 0, 300), [5, 300], "uint8"),
        (Column("x", "integer", 0, 300, nullable=True), pd.array([5, None], "Int64"), "int64"),
        (Column("x", "boolean", nullable=True), pd.array([True, None], "boolean"), "bool"),
        (Column("x", "numeric", 0, 9, nullable=True), [1.0, np.nan], "int64"),
        (Column("x", "integer", 0, 9), [1, 2], "category"),
        (Column("x", "datetime", "2020-01-01", "9999-12-31"), pd.array(["9999-12-31"], "datetime64[us]"),
         "datetime64[ns]"),
    ],
)  # fmt: skip
def test_a_dtype_that_cannot_hold_the_values_is_left(column, values, dtype):
    frame = pd.DataFrame({"x": values})
    pd.testing.assert_frame_equal(restore_dtypes(frame, Schema((column,), 100), {"x": dtype}), frame)


def test_declaring_dtypes_public_leaves_the_given_run_alone(run):
    again = run.with_dtypes({})
    assert again.privacy != run.privacy and dataclasses.is_dataclass(again.schema)
    assert again.sample(5, seed=0)["smoker"].dtype == bool  # canonical
