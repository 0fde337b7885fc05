"""Data sets: conforming to the schema, the public split, the user's files, RAND HIE and Adult."""

import bz2
import gzip
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privsyn_jax.data import DATASETS, adult, rand_hie, table
from privsyn_jax.data.schema import schema_to_dict
from privsyn_jax.data.schema_check import check_schema
from privsyn_jax.data.source import Published, check_published, hash_rows
from privsyn_jax.data.split import held_out, split_rows
from privsyn_jax.data.validate import conform, to_file_frame
from privsyn_jax.privacy.ledger import Ledger
from privsyn_jax.settings import DataSettings
from privsyn_jax.types import Column, Schema, UserError

NUM_ROWS = 120
SCHEMA = Schema(
    columns=(
        Column("age", "integer", lower=0, upper=120),
        Column("children", "integer", lower=0, upper=20, nullable=True),
        Column("height", "numeric", lower=0.5, upper=2.5, nullable=True),
        Column("born", "datetime", lower="1900-01-01", upper="2030-12-31", datetime_format="%d/%m/%Y"),
        Column("sex", "categorical", categories=("f", "m")),
        Column("grade", "ordinal", categories=(1, 2, 3), nullable=True),
        Column("smoker", "boolean", categories=("no", "yes"), nullable=True),
        Column("member", "boolean", categories=(False, True)),
        Column("person_id", "id"),
    ),
    num_records=NUM_ROWS,
    target="smoker",
)


def opened(private):
    """What a wrapper holds, paid for."""
    return private.open(Ledger().charge("test", "all", "test", {"kind": "pure", "epsilon": 1.0, "count": 1}))


def texts(**changes):
    """A conforming table as CSV gives it: NUM_ROWS rows of text; `changes` puts one value in row 7."""
    rows = range(NUM_ROWS)
    frame = pd.DataFrame(
        {
            "age": [str(20 + row % 60) for row in rows],
            "children": ["" if row % 9 == 0 else str(row % 4) for row in rows],
            "height": ["" if row % 11 == 0 else f"1.{row % 90:02d}" for row in rows],
            "born": [f"{1 + row % 28:02d}/05/1980" for row in rows],
            "sex": ["fm"[row % 2] for row in rows],
            "grade": ["NA" if row % 7 == 0 else str(1 + row % 3) for row in rows],
            "smoker": ["" if row % 5 == 0 else ["no", "yes"][row % 2] for row in rows],
            "member": [str(row % 3 == 0) for row in rows],
            "person_id": [f"{row:05d}" for row in rows],
        },
        dtype="str",
    )
    for name, value in changes.items():
        frame.loc[6, name] = value
    return frame


def conformed(frame, schema=SCHEMA, out_of_bounds="clip"):
    return conform(frame, schema, out_of_bounds=out_of_bounds, source="t.csv")


def one_column(column, values):
    """The conforming column that `values`, repeated to NUM_ROWS rows, become."""
    frame = pd.DataFrame({column.name: pd.Series(values * NUM_ROWS)[:NUM_ROWS], "other": "x"})
    schema = Schema((column, Column("other", "categorical", categories=("x",))), num_records=NUM_ROWS)
    return conformed(frame, schema)[0][column.name].tolist()[: len(values)]


# --- conform: what comes out


def test_columns_come_out_in_schema_order_and_canonical_dtypes():
    frame, clamped = conformed(texts()[list(reversed(SCHEMA.names))])
    assert list(frame.columns) == list(SCHEMA.names)
    assert frame.dtypes.astype(str).to_dict() == {
        "age": "int64",
        "children": "Int64",
        "height": "float64",
        "born": "datetime64[us]",
        "sex": "object",
        "grade": "object",
        "smoker": "boolean",
        "member": "bool",
        "person_id": "str",
    }
    assert clamped == {}
    assert frame["grade"].tolist()[:4] == [None, 2, 3, 1]
    assert frame["born"][0] == pd.Timestamp("1980-05-01")
    assert frame["children"].isna().sum() == len(range(0, NUM_ROWS, 9))
    assert frame["smoker"][1] and pd.isna(frame["smoker"][0])
    assert frame["person_id"][3] == "00003"


def test_a_typed_frame_conforms_to_the_same_table_as_its_texts():
    expected, _ = conformed(texts())
    typed = expected.assign(
        children=expected["children"].astype("float64"),
        sex=expected["sex"].astype("category"),
        grade=expected["grade"].astype("float64"),
        born=expected["born"].dt.tz_localize("UTC"),
        member=expected["member"].astype(int),
    )
    typed.index = range(500, 500 + NUM_ROWS)
    pd.testing.assert_frame_equal(conformed(typed)[0], expected)


RAW_VALUES = {
    "age": st.one_of(st.integers(-5, 130).map(str), st.sampled_from(["3.0", " 7 ", "1e1"])),
    "children": st.sampled_from(["", "NA", "-1", "2", "2.0", "999"]),
    "height": st.one_of(st.floats(0, 3).map(repr), st.just("None")),
    "born": st.integers(1890, 2040).map(lambda year: f"29/03/{year}"),
    "sex": st.sampled_from("fm"),
    "grade": st.sampled_from(["1", "2.0", "03", "null"]),
    "smoker": st.sampled_from(["Yes", "no", "T", "0", "nan"]),
    "member": st.sampled_from(["True", "FALSE", "y", "1.0"]),
    "person_id": st.text("ab0", max_size=3),
}


@settings(max_examples=30, deadline=None)
@given(st.fixed_dictionaries({name: st.lists(v, min_size=1, max_size=4) for name, v in RAW_VALUES.items()}))
def test_conforming_twice_changes_nothing(columns):
    frame = pd.DataFrame({name: pd.Series(values * NUM_ROWS)[:NUM_ROWS] for name, values in columns.items()})
    once, _ = conformed(frame)
    twice, clamped_again = conformed(once, out_of_bounds="error")
    pd.testing.assert_frame_equal(twice, once)
    assert clamped_again == {}
    written = to_file_frame(once, SCHEMA).astype(str)
    pd.testing.assert_frame_equal(conformed(written, out_of_bounds="error")[0].astype(str), once.astype(str))


def test_a_written_file_looks_like_the_one_that_was_read(tmp_path):
    frame, _ = conformed(texts())
    path = tmp_path / "out.csv"
    to_file_frame(frame, SCHEMA).to_csv(path, index=False)
    written = table.read_frame(str(path))
    kept = ["age", "children", "born", "sex", "smoker", "member", "person_id"]
    pd.testing.assert_frame_equal(written[kept], texts()[kept])
    pd.testing.assert_frame_equal(conformed(written)[0], frame)


@pytest.mark.parametrize(
    "categories, values, expected",
    [
        ((1, 2), ["1", "2.0", 2, 2.0], [1, 2, 2, 2]),
        (("1", "2"), [1, 2.0, "2"], ["1", "2", "2"]),
        (("007", "008"), ["007", 8], ["007", "008"]),
        ((0.5, 1.0), ["0.50", 1, "1"], [0.5, 1.0, 1.0]),
        ((True, False), ["True", "false", np.bool_(True)], [True, False, True]),
        (("NA", "None", "x"), ["NA", "None", "x"], ["NA", "None", "x"]),
        (None, ["b", "a", 3.0], ["b", "a", "3"]),
    ],
)
def test_values_become_the_categories_of_the_schema(categories, values, expected):
    found = one_column(Column("c", "categorical", categories=categories), values)
    assert found == expected
    assert [type(value) for value in found] == [type(value) for value in expected]


@pytest.mark.parametrize("categories, value", [(("007",), "7"), (("7", "07"), 7.5), (("a",), "A"), (("a",), "a ")])
def test_a_value_that_only_resembles_a_category_is_refused(categories, value):
    with pytest.raises(UserError, match="no category of the schema"):
        one_column(Column("c", "categorical", categories=categories), [value])


def test_booleans_are_recognised_in_any_case_and_by_their_labels():
    words = ["true", "F", "YES", "n", "1", "0", 1, 0, True, 0.0, "1.0"]
    meaning = [True, False, True, False, True, False, True, False, True, False, True]
    assert one_column(Column("b", "boolean"), words) == meaning
    labelled = Column("b", "boolean", categories=("poor", "Good"))
    assert one_column(labelled, ["Poor", "good", "t"]) == [False, True, True]
    assert one_column(Column("b", "boolean", categories=("yes", "no")), ["yes", "no"]) == [False, True]


def test_integers_are_exact_beyond_float_precision_of_a_gappy_column():
    column = Column("n", "integer", lower=0, upper=2**53, nullable=True)
    assert one_column(column, ["9007199254740991", "", "12"]) == [2**53 - 1, pd.NA, 12]


def test_moments_with_a_zone_become_utc():
    column = Column("t", "datetime", lower="2000-01-01", upper="2030-01-01")
    assert one_column(column, ["2020-01-01T01:00:00+02:00", "2020-01-01 05:00"]) == [
        pd.Timestamp("2019-12-31 23:00"),
        pd.Timestamp("2020-01-01 05:00"),
    ]


# --- conform: bounds


def test_values_outside_the_bounds_are_clamped_and_counted():
    frame, clamped = conformed(texts(age="121", children="-1", height="9e300", born="01/01/1899"))
    assert clamped == {"age": 1, "children": 1, "height": 1, "born": 1}
    assert (frame["age"][6], frame["children"][6], frame["height"][6]) == (120, 0, 2.5)
    assert frame["born"][6] == pd.Timestamp("1900-01-01")


@pytest.mark.parametrize("change", [{"age": "121"}, {"height": "0.4"}, {"born": "01/01/1899"}])
def test_values_outside_the_bounds_can_be_refused(change):
    with pytest.raises(UserError, match=r"row 7, .*outside the public bounds"):
        conformed(texts(**change), out_of_bounds="error")


# --- conform: what is refused


@pytest.mark.parametrize(
    "change, problem",
    [
        ({"age": ""}, "is empty"),
        ({"sex": "NA"}, "is empty"),
        ({"age": "abc"}, "'abc', which is no number"),
        ({"height": "1,75"}, "no number"),
        ({"age": "20.5"}, "no whole number"),
        ({"height": "inf"}, "not finite"),
        ({"children": "1e999"}, "not finite"),
        ({"born": "31/02/1980"}, "no date in format '%d/%m/%Y'"),
        ({"born": "1980-05-01"}, "no date"),
        ({"sex": "x" * 500}, "no category"),
        ({"grade": "4"}, "'4', which is no category"),
        ({"smoker": "maybe"}, "neither true nor false"),
        ({"member": ""}, "is empty"),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_its_row(change, problem):
    with pytest.raises(UserError) as error:
        conformed(texts(**change))
    message = str(error.value)
    assert f"column {next(iter(change))!r} of t.csv, row 7, " in message and problem in message
    assert len(message) < 250 and "\n" not in message


def test_mixed_types_in_a_number_column_are_named_with_their_row():
    frame = texts().astype({"age": object})
    frame["age"] = [50] * 40 + ["fifty"] + [50] * (NUM_ROWS - 41)
    with pytest.raises(UserError, match=r"'age' of t.csv, row 41, holds 'fifty'"):
        conformed(frame)


def test_columns_must_be_those_of_the_schema():
    with pytest.raises(UserError, match=r"no column 'age'.*did you mean 'Age'"):
        conformed(texts().rename(columns={"age": "Age"}))
    with pytest.raises(UserError, match=r"column 'extra' that the schema does not list"):
        conformed(texts().assign(extra=1))
    with pytest.raises(UserError, match="2 columns named 'age'"):
        conformed(texts().rename(columns={"children": "age"}))


@pytest.mark.parametrize("num_rows, problem", [(0, "no rows"), (99, "99 rows")])
def test_too_few_rows_are_refused(num_rows, problem):
    with pytest.raises(UserError, match=problem):
        conformed(texts().head(num_rows))


# --- split


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 5000), st.integers(0, 100), st.floats(0.01, 0.99))
def test_appending_rows_moves_no_other_row(num_rows, num_more, test_fraction):
    longer = held_out(num_rows + num_more, test_fraction)
    assert (longer[:num_rows] == held_out(num_rows, test_fraction)).all()


def test_the_split_never_changes_and_has_its_share():
    assert np.flatnonzero(held_out(20, 0.3)).tolist() == [1, 2, 7, 8]
    num_rows, share = 100_000, 0.3
    standard_error = np.sqrt(share * (1 - share) / num_rows)
    assert abs(held_out(num_rows, share).mean() - share) < 4 * standard_error


def test_the_split_keeps_every_row_once():
    frame = pd.DataFrame({"row": range(1000)})
    train, test = split_rows(frame, 0.3)
    assert sorted([*train["row"], *test["row"]]) == list(range(1000))
    with pytest.raises(UserError, match="test_fraction"):
        split_rows(frame, 1e-9)


# --- the user's files


def write_schema(folder):
    path = folder / "schema.json"
    path.write_text(json.dumps(schema_to_dict(SCHEMA)))
    return str(path)


def write_table(path, frame):
    if path.name.endswith(".parquet"):
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False)  # compresses by the suffix
    return str(path)


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.csv.bz2", "t.parquet"])
def test_every_format_gives_the_same_records(tmp_path, name):
    path = write_table(tmp_path / name, texts())
    data = DataSettings(path=path, schema=write_schema(tmp_path))
    schema = DATASETS["csv"].read_schema(data)
    records = DATASETS["csv"].load(data, schema)
    assert schema.num_records == round(NUM_ROWS * 0.7)
    expected_train, expected_test = split_rows(conformed(texts())[0], 0.3)
    pd.testing.assert_frame_equal(opened(records.train), expected_train)
    pd.testing.assert_frame_equal(opened(records.test), expected_test)


def test_a_table_of_its_own_can_be_held_out(tmp_path):
    paths = [write_table(tmp_path / name, texts(age=age)) for name, age in (("a.csv", "121"), ("b.csv", "130"))]
    data = DataSettings(path=paths[0], test_path=paths[1], schema=write_schema(tmp_path))
    schema = DATASETS["csv"].read_schema(data)
    records = DATASETS["csv"].load(data, schema)
    assert (schema.num_records, len(opened(records.train)), len(opened(records.test))) == (NUM_ROWS,) * 3
    assert opened(records.clamped) == {"age": 2}
    write_table(tmp_path / "b.csv", texts(age="20"))
    assert DATASETS["csv"].load(data, schema).content_hash != records.content_hash


def test_reading_the_schema_opens_no_table(tmp_path):
    data = DataSettings(path=str(tmp_path / "absent.csv"), schema=write_schema(tmp_path))
    assert DATASETS["csv"].read_schema(data).names == SCHEMA.names


@pytest.mark.parametrize(
    "name, content, problem",
    [
        ("t.csv", b"", "is empty"),
        ("t.csv", b"\n\n", "is empty"),
        ("t.csv.gz", gzip.compress(b"", mtime=0), "is empty"),
        ("t.csv.bz2", bz2.compress(b"a,b\n1,2\n")[:-5], "no valid .csv.bz2"),
        ("t.csv.gz", b"a,b\n1,2\n", "no valid .csv.gz"),
        ("t.csv", b"a,b", "no rows"),
        ("t.csv", b"a,b,a\n1,2,3\n", "2 columns named 'a'"),
        ("t.csv", b"a,b\n1,caf\xe9\n", "not UTF-8 at byte 9"),
        ("t.csv", b"a,b\n1,2\n3\n", "row 2, has 1 fields instead of 2"),
        ("t.csv", b"a,b\n1,2,3\n", "row 1, has 3 fields instead of 2"),
        ("t.csv", b"a;b\n1;2\n", "separated by ';'"),
        ("t.xlsx", b"PK", "unknown format"),
        ("t.parquet", b"not parquet", "no readable Parquet"),
    ],
)
def test_a_bad_file_is_refused_in_one_sentence(tmp_path, name, content, problem):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        table.read_frame(str(path))
    assert str(path) in str(error.value) and problem in str(error.value) and "\n" not in str(error.value)


def test_an_absent_file_a_folder_and_a_forgotten_path_are_refused(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        table.read_frame(str(tmp_path / "t.csv"))
    with pytest.raises(UserError, match="is a folder"):
        table.read_frame(str(tmp_path))
    with pytest.raises(UserError, match=r"data\.path is not given"):
        table.load(DataSettings(), SCHEMA)
    with pytest.raises(UserError, match=r"data\.schema is not given"):
        table.read_schema(DataSettings())


def test_csv_keeps_texts_as_they_are(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes('\ufeffcode,note\n007,"a, ""b""\nc"\nNA,\n'.encode())
    assert table.read_frame(str(path)).to_dict("list") == {"code": ["007", "NA"], "note": ['a, "b"\nc', ""]}


# --- published data sets


@pytest.mark.parametrize("name", ["adult", "rand_hie"])
def test_public_schemas_keep_the_rules(name):
    schema = DATASETS[name].read_schema(DataSettings(name=name))
    check_schema(schema)
    assert schema.target in schema.names


def test_rand_hie_is_the_recoded_published_table():
    data = DataSettings(name="rand_hie")
    schema = DATASETS["rand_hie"].read_schema(data)
    records = DATASETS["rand_hie"].load(data, schema)
    assert len(opened(records.train)) + len(opened(records.test)) == 20190
    assert abs(len(opened(records.train)) / schema.num_records - 1) < 0.02
    assert opened(records.clamped) == {} and schema.privacy_unit == "person-year"
    whole = pd.concat([opened(records.train), opened(records.test)])
    assert round(whole["any_visit"].mean(), 4) == 0.6876
    shares = whole["health"].value_counts(normalize=True).round(4)
    assert shares.to_dict() == {"excellent": 0.5458, "good": 0.362, "fair": 0.0773, "poor": 0.015}
    assert whole["lncoins"].isin(schema["lncoins"].point_masses).all()


def test_an_altered_published_table_is_refused():
    rows = [["1", "a"], ["2", "b"]]
    published = Published(2, hash_rows(rows))
    check_published(rows, published, source="t", remedy="get it again")
    for altered, problem in ((rows[:1], "has 1 rows"), ([["1", "a"], ["2", "c"]], "other content")):
        with pytest.raises(UserError, match=f"{problem}.*get it again"):
            check_published(altered, published, source="t", remedy="get it again")


def test_row_hashes_tell_fields_and_rows_apart():
    tables = [[["ab", "c"]], [["a", "bc"]], [["ab"], ["c"]], [["abc"]], []]
    assert len({hash_rows(rows) for rows in tables}) == len(tables)


ADULT_LINE = (
    "39, State-gov, 77516, Bachelors, 13, Never-married, Adm-clerical, Not-in-family, White, Male, "
    "2174, 0, 40, ?, <=50K"
)


def test_absent_adult_files_are_named_with_their_source(tmp_path):
    data = DataSettings(name="adult", dir=str(tmp_path))
    schema = DATASETS["adult"].read_schema(data)
    with pytest.raises(UserError, match=r"adult\.data.*10\.24432/C5XW20"):
        DATASETS["adult"].load(data, schema)
    (tmp_path / "adult.data").write_text(ADULT_LINE)
    with pytest.raises(UserError, match=r"adult\.test was not found"):
        DATASETS["adult"].load(data, schema)


def test_adult_rows_are_read_without_comments_blanks_and_full_stops(tmp_path):
    (tmp_path / "adult.test").write_bytes(f"|1x3 Cross validator\r\n{ADULT_LINE}.\r\n\r\n".encode())
    (row,) = adult.read_rows(str(tmp_path), "adult.test")
    assert row == ADULT_LINE.split(", ")


def test_other_adult_rows_than_the_published_are_refused(tmp_path, monkeypatch):
    (tmp_path / "adult.data").write_text(f"{ADULT_LINE}\n" * 120)
    (tmp_path / "adult.test").write_text(f"{ADULT_LINE}.\n" * 110)
    data = DataSettings(name="adult", dir=str(tmp_path))
    schema = adult.read_schema(data)
    with pytest.raises(UserError, match="120 rows instead of the published 32561"):
        adult.load(data, schema)
    rows = {name: adult.read_rows(str(tmp_path), name) for name in ("adult.data", "adult.test")}
    monkeypatch.setattr(adult, "PUBLISHED", {n: Published(len(r), hash_rows(r)) for n, r in rows.items()})
    records = adult.load(data, schema)
    assert (len(opened(records.train)), len(opened(records.test))) == (120, 110)
    assert opened(records.train).loc[0, ["age", "native-country", "income"]].tolist() == [39, "?", "<=50K"]
    (tmp_path / "adult.test").write_text(f"{ADULT_LINE}.\n" * 109 + ADULT_LINE.replace("39", "40"))
    with pytest.raises(UserError, match="other content"):
        adult.load(data, schema)
    (tmp_path / "adult.test").write_text(f"{ADULT_LINE}.\n1, 2\n")
    with pytest.raises(UserError, match="row 2, has 2 fields"):
        adult.load(data, schema)


@pytest.mark.parametrize("split, num_records", [("uci", 32561), ("paper", 34189)])
def test_adult_loads_from_its_original_files(split, num_records, adult_dir):
    data = DataSettings(name="adult", dir=str(adult_dir), split=split)
    schema = DATASETS["adult"].read_schema(data)
    records = DATASETS["adult"].load(data, schema)
    assert schema.num_records == num_records
    assert len(opened(records.train)) + len(opened(records.test)) == 48842
    assert abs(len(opened(records.train)) / num_records - 1) < 0.02
    whole = pd.concat([opened(records.train), opened(records.test)])
    assert (whole["income"] == ">50K").sum() == 7841 + 3846
    assert (whole["workclass"] == "?").sum() == 1836 + 963
    assert opened(records.clamped) == {} and not whole.isna().any().any()


def test_recoding_rand_hie_reads_the_three_indicators():
    frame = pd.DataFrame(
        {
            **dict.fromkeys(("lncoins", "idp", "lpi", "fmde", "physlm", "disea"), 0.0),
            "mdvis": [0.0, 1.0, 5.0, 0.0],
            "hlthg": [1.0, 0.0, 0.0, 0.0],
            "hlthf": [0.0, 1.0, 0.0, 0.0],
            "hlthp": [0.0, 0.0, 1.0, 0.0],
        }
    )
    recoded = rand_hie.recode(frame)
    assert recoded["health"].tolist() == ["good", "fair", "poor", "excellent"]
    assert recoded["any_visit"].tolist() == [False, True, True, False]
    assert "mdvis" not in recoded
