"""Schemas: the JSON round trip, the rules, SDV metadata, and proposals made from rows."""

import copy
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launch.schema import main
from privsyn_jax.data.categories import category_text
from privsyn_jax.data.propose import proposal_notes, propose_schema
from privsyn_jax.data.schema import read_schema, schema_from_dict, schema_to_dict
from privsyn_jax.data.table import read_frame
from privsyn_jax.data.validate import conform
from privsyn_jax.types import Column, Schema, UserError

VALID = {
    "columns": {
        "age": {"kind": "integer", "lower": 0, "upper": 120, "point_masses": [0], "edges": [0, 17.5, 120]},
        "height": {"kind": "numeric", "lower": 0.5, "upper": 2.5, "nullable": True},
        "sex": {"kind": "categorical", "categories": ["f", "m"]},
        "grade": {"kind": "ordinal", "categories": [1, 2, 3]},
        "born": {
            "kind": "datetime",
            "lower": "1900-01-01",
            "upper": "2030-12-31",
            "datetime_format": "%d/%m/%Y",
        },
        "smoker": {"kind": "boolean"},
        "town": {"kind": "categorical"},
        "person_id": {"kind": "id"},
    },
    "target": "smoker",
    "sensitive": ["sex"],
    "num_records": 5000,
}


def changed(*path_and_value):
    """VALID with the value at a path of keys replaced, or removed where it is `...`."""
    *path, value = path_and_value
    content = copy.deepcopy(VALID)
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return content


# --- round trip

names = st.text(min_size=1, max_size=8)
facts = st.fixed_dictionaries({"nullable": st.booleans(), "declared_public": st.lists(names, max_size=2).map(tuple)})


@st.composite
def number_columns(draw, name):
    kind = draw(st.sampled_from(["numeric", "integer"]))
    numbers = st.floats(-1e9, 1e9) if kind == "numeric" else st.integers(-(2**53), 2**53)
    lower, *inner, upper = sorted(draw(st.lists(numbers, min_size=3, max_size=6, unique=True)))
    edges = draw(st.sampled_from([None, (lower, *inner, upper)]))
    return Column(name, kind, lower, upper, point_masses=tuple(inner), edges=edges, **draw(facts))


@st.composite
def category_columns(draw, name):
    kind = draw(st.sampled_from(["categorical", "ordinal"]))
    values = st.one_of(st.text('abé ,"', max_size=5), st.integers(), st.floats(-9, 9), st.booleans())
    categories = draw(st.lists(values, min_size=1, max_size=9, unique_by=(category_text, lambda value: value)))
    return Column(name, kind, categories=tuple(categories), **draw(facts))


@st.composite
def schemas(draw):
    column_names = draw(st.lists(names, min_size=3, max_size=6, unique=True))
    columns = [draw(draw(st.sampled_from([number_columns, category_columns]))(name)) for name in column_names[:-1]]
    columns.append(Column(column_names[-1], "id"))
    return Schema(
        columns=tuple(columns),
        num_records=draw(st.integers(1, 10**9)),
        target=draw(st.sampled_from([None, column_names[0]])),
        sensitive=(column_names[1],),
        privacy_unit=draw(names),
    )


@settings(max_examples=60, deadline=None)
@given(schemas())
def test_a_schema_survives_json_exactly(schema):
    again = schema_from_dict(json.loads(json.dumps(schema_to_dict(schema))))
    assert again == schema
    types = [[type(c) for c in column.categories or ()] for column in schema.columns]
    assert [[type(c) for c in column.categories or ()] for column in again.columns] == types  # 1 is not True


def test_absent_keys_take_their_defaults():
    schema = schema_from_dict(VALID)
    assert schema["age"] == Column("age", "integer", 0, 120, point_masses=(0,), edges=(0, 17.5, 120))
    assert schema["smoker"].categories == (False, True)
    assert schema["town"].categories is None
    assert (schema.privacy_unit, schema.declared_public) == ("record", ())
    assert schema_from_dict(schema_to_dict(schema)) == schema


# --- rules

BROKEN = {
    "unknown kind": (changed("columns", "age", "kind", "intger"), ["'age'", "did you mean 'integer'?"]),
    "no kind": (changed("columns", "age", "kind", ...), ["'age'", "kind"]),
    "unknown column key": (changed("columns", "age", "lowr", 3), ["'age'", "did you mean 'lower'?"]),
    "unknown table key": (changed("targt", "age"), ["'targt'", "did you mean 'target'?"]),
    "no bounds": (changed("columns", "height", "upper", ...), ["'height'", "upper", "state public bounds"]),
    "no datetime bounds": (changed("columns", "born", "lower", ...), ["'born'", "state public bounds"]),
    "bounds reversed": (changed("columns", "height", "lower", 3), ["'height'", "lower must be smaller"]),
    "bounds equal": (changed("columns", "height", "lower", 2.5), ["'height'", "lower must be smaller"]),
    "bound is text": (changed("columns", "height", "lower", "0"), ["'height'", "'0'"]),
    "bound is not finite": (changed("columns", "height", "upper", float("nan")), ["'height'", "finite"]),
    "bound is boolean": (changed("columns", "age", "lower", False), ["'age'", "False"]),
    "integer bound is fractional": (changed("columns", "age", "lower", 0.5), ["'age'", "whole numbers"]),
    "datetime bound is no date": (changed("columns", "born", "lower", "1.1.1900"), ["'born'", "ISO 8601"]),
    "format loses the bound": (changed("columns", "born", "datetime_format", "%d/%m"), ["'born'", "%d/%m"]),
    "point mass outside": (changed("columns", "age", "point_masses", [-1]), ["'age'", "-1", "0 to 120"]),
    "edges stop short": (changed("columns", "age", "edges", [0, 100]), ["'age'", "edges"]),
    "edges repeat": (changed("columns", "age", "edges", [0, 5, 5, 120]), ["'age'", "edges"]),
    "no categories": (changed("columns", "sex", "categories", []), ["'sex'", "empty list"]),
    "ordinal without categories": (changed("columns", "grade", "categories", ...), ["'grade'"]),
    "categories repeat": (changed("columns", "sex", "categories", ["f", "f"]), ["'sex'", "keep one"]),
    "categories look alike": (changed("columns", "sex", "categories", [3, "3"]), ["'sex'", "3 and '3'"]),
    "category is null": (changed("columns", "sex", "categories", ["f", None]), ["'sex'", "nullable"]),
    "three boolean labels": (changed("columns", "smoker", "categories", [0, 1, 2]), ["'smoker'", "two"]),
    "boolean labels alike": (changed("columns", "smoker", "categories", ["A", "a"]), ["'smoker'", "two"]),
    "key of another kind": (changed("columns", "sex", "lower", 1), ["'sex'", "lower", "does not apply"]),
    "list expected": (changed("columns", "sex", "categories", "f,m"), ["'sex'", "list"]),
    "nullable is text": (changed("columns", "sex", "nullable", "no"), ["'sex'", "true or false"]),
    "target absent": (changed("target", "smokr"), ["'smokr'", "did you mean 'smoker'?"]),
    "target is an id": (changed("target", "person_id"), ["'person_id'", "id"]),
    "sensitive absent": (changed("sensitive", ["gender"]), ["'gender'"]),
    "num_records absent": (changed("num_records", ...), ["num_records", "rough", "enough"]),
    "num_records zero": (changed("num_records", 0), ["num_records", "positive whole number"]),
    "num_records fractional": (changed("num_records", 10.5), ["num_records", "positive whole number"]),
    "columns absent": (changed("columns", ...), ["columns"]),
    "one column and an id": (
        {"columns": {"a": {"kind": "boolean"}, "b": {"kind": "id"}}, "num_records": 500},
        ["at least 2"],
    ),
    "not an object": ([], ["JSON object"]),
}  # fmt: skip


@pytest.mark.parametrize("content, fragments", BROKEN.values(), ids=BROKEN)
def test_a_broken_rule_is_one_sentence_that_names_the_place(content, fragments):
    with pytest.raises(UserError) as error:
        schema_from_dict(content, source="s.json")
    assert all(fragment in str(error.value) for fragment in [*fragments, "s.json"])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text, fragment",
    [
        ('{"columns": {"a": {"kind": "id"}, "a": {"kind": "id"}}}', "'a' twice"),
        ('{"num_records": 5, "num_records": 6}', "'num_records' twice"),
        ('{"columns": }', "line 1"),
        ("", "line 1"),
    ],
)
def test_a_bad_schema_file_is_refused(tmp_path, text, fragment):
    path = tmp_path / "schema.json"
    path.write_text(text)
    with pytest.raises(UserError, match=fragment):
        read_schema(str(path))


def test_a_missing_schema_file_says_how_to_make_one(tmp_path):
    with pytest.raises(UserError, match=r"launch\.schema"):
        read_schema(str(tmp_path / "schema.json"))
    with pytest.raises(UserError, match="folder"):
        read_schema(str(tmp_path))


# --- SDV metadata

SDV_COLUMNS = {
    "guest": {"sdtype": "id", "regex_format": "G[0-9]+"},
    "email": {"sdtype": "email", "pii": True},
    "room": {"sdtype": "categorical"},
    "nights": {"sdtype": "numerical", "computer_representation": "Int64"},
    "fee": {"sdtype": "numerical"},
    "arrived": {"sdtype": "datetime", "datetime_format": "%d %b %Y"},
    "member": {"sdtype": "boolean"},
}
SDV_FORMS = {
    "SINGLE_TABLE_V1": lambda columns: {"METADATA_SPEC_VERSION": "SINGLE_TABLE_V1", "columns": columns},
    "V1": lambda columns: {
        "METADATA_SPEC_VERSION": "V1",
        "relationships": [],
        "tables": {"guests": {"primary_key": "guest", "columns": columns}},
    },
}


@pytest.mark.parametrize("form", SDV_FORMS.values(), ids=SDV_FORMS)
def test_sdv_metadata_is_read_once_the_public_facts_are_added(form):
    bounds = {
        "nights": {"lower": 0, "upper": 30},
        "fee": {"lower": 0, "upper": 500},
        "arrived": {"lower": "2020-01-01", "upper": "2021-01-01"},
    }
    with pytest.raises(UserError, match="num_records"):
        schema_from_dict(form(SDV_COLUMNS))
    with pytest.raises(UserError, match=r"'nights'.*state public bounds"):
        schema_from_dict(form(SDV_COLUMNS) | {"num_records": 500})
    columns = {name: column | bounds.get(name, {}) for name, column in SDV_COLUMNS.items()}
    schema = schema_from_dict(form(columns) | {"num_records": 500})
    assert [column.kind for column in schema.columns] == [
        *("id", "id", "categorical", "integer", "numeric", "datetime", "boolean")
    ]
    assert schema["arrived"].datetime_format == "%d %b %Y"
    assert schema["room"].categories is None


def test_sdv_metadata_of_several_tables_is_refused():
    with pytest.raises(UserError, match="exactly one table"):
        schema_from_dict({"tables": {"a": {"columns": {}}, "b": {"columns": {}}}})


# --- proposals


def text_frame(num_rows=200):
    """A table as read from CSV, with every kind of column."""
    rows = np.arange(num_rows)
    frame = {
        "patient_id": rows + 1000,
        "ward_id": rows % 4,
        "visitor_id": rows % 40,
        "age": 17 + rows % 72,
        "gain": np.where(rows % 10 == 0, rows * 7, 0),
        "height": 1.5 + (rows % 37) / 100,
        "zip": [f"0{2000 + row % 7}" for row in rows],
        "smoker": np.where(rows % 3 == 0, "Yes", "No"),
        "seen": [f"{1 + row % 28:02d}/03/20{10 + row % 7}" for row in rows],
        "ward": np.where(rows % 5 == 0, "", np.where(rows % 2 == 0, "north", "south")),
        "comment": [f"text {row % 150}" for row in rows],
    }
    return pd.DataFrame({name: pd.Series(values).astype(str) for name, values in frame.items()})


def test_a_proposal_states_kinds_and_round_facts():
    columns = propose_schema(text_frame(), target="smoker")["columns"]
    assert columns["patient_id"] == {"kind": "id"}
    assert (columns["ward_id"]["kind"], columns["visitor_id"]["kind"]) == ("integer", "id")  # codes, persons
    assert (columns["age"]["kind"], columns["age"]["lower"], columns["age"]["upper"]) == ("integer", 10, 90)
    assert columns["gain"]["point_masses"] == [0]
    assert (columns["height"]["lower"], columns["height"]["upper"]) == (1.5, 1.9)
    assert columns["zip"]["categories"][0] == "02000"
    assert columns["smoker"]["categories"] == ["No", "Yes"]
    assert columns["seen"]["datetime_format"] == "%d/%m/%Y"
    assert (columns["seen"]["lower"], columns["seen"]["upper"]) == ("2010-01-01", "2016-12-31")
    assert (columns["ward"]["categories"], columns["ward"]["nullable"]) == (["north", "south"], True)
    assert (columns["comment"]["kind"], columns["comment"]["categories"]) == ("categorical", None)


def test_a_proposal_marks_every_fact_that_came_from_the_rows():
    proposal = propose_schema(text_frame())
    assert set(proposal["declared_public"]) == {"column names", "kinds", "num_records"}
    for name, column in proposal["columns"].items():
        stated = {
            key for key, value in column.items() if value not in (None, []) and key not in ("kind", "declared_public")
        }
        assert set(column.get("declared_public", [])) == stated, name
    assert schema_from_dict(proposal)["age"].declared_public == ("lower", "upper", "nullable")


@pytest.mark.parametrize("num_rows, proposed", [(100, 100), (149, 150), (1234, 1200), (99_999, 100_000)])
def test_the_proposed_number_of_records_has_two_digits(num_rows, proposed):
    frame = pd.DataFrame({"a": np.arange(num_rows) % 5, "b": np.arange(num_rows) % 3})
    assert propose_schema(frame)["num_records"] == proposed


def test_notes_point_at_what_only_the_owner_knows():
    frame = text_frame().assign(
        person_id=[f"p{row % 120}" for row in range(200)],
        day=[f"0{1 + row % 9}/02/2020" for row in range(200)],
    )
    notes = " ".join(proposal_notes(frame, propose_schema(frame)))
    assert "'person_id' looks like an id and repeats" in notes
    assert "'comment' has more than 100 distinct texts" in notes
    assert "'day' could also be day first" in notes


column_values = st.one_of(
    st.lists(st.integers(-(10**14), 10**14), min_size=1, max_size=20),
    st.lists(st.floats(-1e12, 1e12, allow_nan=False), min_size=1, max_size=20),
    st.lists(st.text("aN0.-/ :é", max_size=6), min_size=1, max_size=20),
    st.lists(st.sampled_from(["NA", "None", "", "yes", "no", "T", "f"]), min_size=1, max_size=5),
    st.lists(st.booleans(), min_size=1, max_size=3),
    st.lists(st.datetimes(pd.Timestamp("1700-01-01"), pd.Timestamp("2200-01-01")), min_size=1, max_size=20),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(column_values, min_size=2, max_size=4), st.booleans())
def test_a_table_conforms_to_its_own_proposal(columns, as_text):
    frame = pd.DataFrame({f"c{i}": [values[j % len(values)] for j in range(100)] for i, values in enumerate(columns)})
    frame = frame.astype(str) if as_text else frame
    try:
        proposal = propose_schema(frame)
    except UserError as error:
        assert "has no value in any row" in str(error)
        return
    _, clamped = conform(frame, schema_from_dict(proposal), out_of_bounds="error", source="t.csv")
    assert not clamped


# --- the program


def test_the_program_prints_json_on_stdout_and_explains_on_stderr(tmp_path, capsys):
    path = tmp_path / "data.csv"
    text_frame().to_csv(path, index=False)
    assert main([str(path), "--target", "smoker"]) == 0
    printed = capsys.readouterr()
    schema = schema_from_dict(json.loads(printed.out))
    assert schema.target == "smoker"
    assert "declared_public" in printed.err and "age: lower, upper" in printed.err
    conform(read_frame(str(path)), schema, out_of_bounds="error", source="data.csv")


@pytest.mark.parametrize(
    "content, target, fragment",
    [
        (b"", None, "empty"),
        (b"a,b\n", None, "no rows"),
        (b"a,a\n1,2\n", None, "2 columns named 'a'"),
        (b"a,b\n" + b"1,2\n" * 99, None, "99 rows"),
        (b"a,b\n" + b"1,\n" * 100, None, "'b'"),
        (b"age,b\n" + b"1,2\n" * 100, "aeg", "did you mean 'age'?"),
    ],
)
def test_the_program_refuses_bad_files_in_one_sentence(tmp_path, capsys, content, target, fragment):
    path = tmp_path / "data.csv"
    path.write_bytes(content)
    assert main([str(path), *(["--target", target] if target else [])]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ") and fragment in printed.err and printed.err.count("\n") == 1


def test_a_boolean_and_the_number_equal_to_it_are_refused_as_categories():
    content = {
        "columns": {"a": {"kind": "categorical", "categories": [True, 1]}, "b": {"kind": "boolean"}},
        "num_records": 500,
    }
    with pytest.raises(UserError, match="'a'"):
        schema_from_dict(content)
