"""launch.mitigate on tables that were made anywhere, as a user calls it."""

import gzip
import json

import numpy as np
import pandas as pd
import pytest

from launch import mitigate
from privsyn_jax import files

SCHEMA = {
    "columns": {
        "key": {"kind": "id"},
        "sex": {"kind": "categorical", "categories": ["f", "m"]},
        "age": {"kind": "integer", "lower": 0, "upper": 99, "nullable": True},
        "hired": {"kind": "boolean", "categories": ["no", "yes"]},
        "day": {"kind": "datetime", "lower": "2020-01-01", "upper": "2021-01-01"},
    },
    "target": "hired",
    "num_records": 500,
}


@pytest.fixture
def folder(tmp_path):
    """A table in which men are hired three times as often, some ages are missing, and a column is unknown."""
    rng = np.random.default_rng(0)
    sex = rng.choice(["f", "m"], 500)
    frame = pd.DataFrame(
        {
            "colour": "red",
            "key": [f"k{i:03d}" for i in range(500)],
            "sex": sex,
            "age": [f"{age:03d}" if age > 9 else "" for age in rng.integers(0, 99, 500)],
            "hired": np.where(rng.random(500) < np.where(sex == "m", 0.6, 0.2), "yes", "no"),
        }
    )
    frame.to_csv(tmp_path / "synthetic.csv", index=False)
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    return tmp_path


def options(folder, *more, out="mitigated.csv"):
    given = {"synthetic": folder / "synthetic.csv", "schema": folder / "schema.json", "out": folder / out}
    return [*(f"--{name}={value}" for name, value in given.items()), *more]


def read(path):
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def test_rows_keep_their_texts_and_groups_get_equal_shares(folder, capsys):
    assert mitigate.main(options(folder, "--sensitive=sex")) == 0
    before, after = read(folder / "synthetic.csv"), read(folder / "mitigated.csv")
    assert list(after) == list(before) and after["key"].tolist() == [str(i) for i in range(1, 501)]
    assert after["sex"].value_counts().equals(before["sex"].value_counts())
    rates, target = (after["hired"] == "yes").groupby(after["sex"]).mean(), (before["hired"] == "yes").mean()
    assert all(abs(rates - target) < 1 / 200)
    rows = {tuple(row) for row in before.drop(columns="key").to_numpy()}
    assert {tuple(row) for row in after.drop(columns="key").to_numpy()} <= rows
    report = json.loads((folder / "mitigated.json").read_text())
    assert report["rows_repeated"] == report["rows_dropped"] > 20 and report["rows_drawn"] == 0
    assert report["outcome"] == "hired" and report["sensitive"] == ["sex"] and report["privacy"] is None
    assert mitigate._lines({**report, "privacy": {"private": False}})[0].startswith("NOT PRIVATE")
    out, err = capsys.readouterr()
    assert f"{report['rows_dropped']} dropped, 0 drawn, {report['rows_dropped']} repeated" in out
    assert (
        "widest gap in the shares of hired over sex: 0.4275 before, 0.00" in out
        and "column 'colour'" in err
        and "NOT PRIVATE" not in out
    )
    assert sorted(path.name for path in folder.iterdir()) == [
        "mitigated.csv", "mitigated.json", "schema.json", "synthetic.csv",
    ]  # fmt: skip


def test_weights_leave_the_table_as_it_is(folder, capsys):
    arguments = options(folder, "--sensitive=sex", "--outcome=age", "--method=weights", out="w.csv.gz")
    assert mitigate.main(arguments) == 0
    after = pd.read_csv(folder / "w.csv.gz", dtype=str, keep_default_na=False)
    weights = after.pop("mitigation_weight").astype(float)
    pd.testing.assert_frame_equal(after, read(folder / "synthetic.csv"))
    assert weights.mean() == pytest.approx(1) and weights.std() > 0
    assert gzip.decompress((folder / "w.csv.gz").read_bytes()).startswith(b"colour,key")
    assert json.loads((folder / "w.json").read_text())["effective_rows"] < 500
    assert "records without weights" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ([], "the schema names no sensitive column: give --sensitive=COLUMN"),
        (["--sensitive=sexx"], "has no column 'sexx'"),
        (["--sensitive=day"], "has no column 'day'"),
        (["--sensitive=hired"], "give different columns"),
        (["--sensitive=key"], "'key'"),
        (["--sensitive=sex", "--outcome=colour"], "has no column 'colour'"),
        (["--sensitive=sex", "--synthetic={folder}/absent.csv"], "absent.csv does not exist"),
        (["--sensitive=sex", "--schema={folder}/absent.json"], "absent.json does not exist"),
        (["--sensitive=sex", "--out={folder}/synthetic.csv"], "synthetic.csv exists already"),
        (["--sensitive=sex", "--out={folder}/schema.csv"], "schema.json exists already"),
        (["--sensitive=sex", "--out={folder}/a/b.csv"], "does not exist: make it first"),
        (["--sensitive=sex", "--out={folder}/b.parquet"], "unknown format: end it in .csv, .csv.gz, .csv.bz2"),
        (["--sensitive=sex", "--cost"], "--cost needs --workdir"),
        (["--sensitive=sex", "--workdir={folder}"], "--workdir for a run: give one or the other"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(folder, capsys, change, message):
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert mitigate.main(options(folder, *(flag.format(folder=folder) for flag in change))) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ") and message in error
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_flags_that_are_missing_or_do_not_go_together_are_named(folder, capsys):
    out = f"--out={folder / 'x.csv'}"
    assert mitigate.main([out]) == 2 and "--synthetic is missing" in capsys.readouterr().err
    assert mitigate.main([out, "--synthetic=a.csv"]) == 2 and "--schema is missing" in capsys.readouterr().err
    assert mitigate.main([out, f"--workdir={folder}"]) == 2 and "holds no saved model" in capsys.readouterr().err
    assert mitigate.main([out, f"--workdir={folder}", "--cost", "--method=weights"]) == 2
    assert "use --method=resample" in capsys.readouterr().err


def test_a_table_that_cannot_be_written_leaves_no_report(folder, monkeypatch, capsys):
    written = []

    def failing(path, content):
        written.append(path.name)
        if path.suffix == ".csv":
            raise files.unwritable(path, OSError(28, "No space left on device"))
        path.write_bytes(content)

    monkeypatch.setattr("privsyn_jax.mitigate.write_new", failing)
    assert mitigate.main(options(folder, "--sensitive=sex")) == 2
    assert "No space left" in capsys.readouterr().err and written == ["mitigated.json", "mitigated.csv"]
    assert sorted(path.name for path in folder.iterdir()) == ["schema.json", "synthetic.csv"]


def test_a_file_that_is_there_is_never_replaced(tmp_path):
    files.write_new(tmp_path / "a", b"first")
    with pytest.raises(files.UserError, match="exists already"):
        files.write_new(tmp_path / "a", b"second")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"first")]
