"""Rules on synthetic records: what they mean, what codes alone can tell, what is drawn again, what is refused."""

import json

import jax
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privsyn_jax import fit
from privsyn_jax.models import autoregressive
from privsyn_jax.synthesis.constraints import forbidden, parse_constraints, repaired
from privsyn_jax.synthesis.sampler import synthesize
from privsyn_jax.transforms.discretize import fit_public
from privsyn_jax.types import Column, Generator, Schema, UserError

SCHEMA = Schema(
    columns=(
        Column("sex", "categorical", categories=("f", "m")),
        Column("title", "categorical", categories=("Mr", "Ms", "Dr"), nullable=True),
        Column("start", "integer", lower=0, upper=30),
        Column("end", "integer", lower=0, upper=30, nullable=True),
        Column("height", "numeric", lower=0.5, upper=2.5),
        Column("born", "datetime", lower="1950-01-01", upper="2010-12-31"),
        Column("left", "datetime", lower="1950-01-01", upper="2010-12-31"),
        Column("total", "integer", lower=0, upper=40, nullable=True),
    ),
    num_records=1000,
)
TRANSFORM = fit_public(SCHEMA, num_bins=8)
TITLES = {"kind": "fixed_combinations", "columns": ["sex", "title"], "rows": [["f", "Ms"], ["f", "Dr"], ["m", "Mr"]]}
ORDER = {"kind": "inequality", "low": "start", "high": "end"}
SUM = {"kind": "sum", "columns": ["start", "end"], "total": "total"}


def uniform(forbid=None):
    """A generator of uniform codes."""

    def sample(params, key, num_samples, conditions):
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())
        sizes = np.array(TRANSFORM.cardinalities)
        return np.floor(rng.random((num_samples, len(sizes))) * sizes).astype(np.int32)

    return Generator(lambda key: {}, None, None, None, sample, lambda columns: (), forbid=forbid)


def draw(*rules, num_samples=500, forbid=None):
    return synthesize(
        uniform(forbid), {}, TRANSFORM,
        num_samples=num_samples, conditions=None, constraints=json.dumps(rules), key=jax.random.key(1),
    )  # fmt: skip


def only_records_with(frame, *names):
    return frame[frame[list(names)].notna().all(axis=1)]


@pytest.mark.parametrize("strict", [False, True])
def test_an_inequality_holds_wherever_both_values_are_there(strict):
    found = draw({**ORDER, "strict": strict})
    known = only_records_with(found.records, "end")
    assert (known["start"] < known["end"] if strict else known["start"] <= known["end"]).all()
    assert found.records["end"].isna().any()  # a missing value breaks no rule
    text = "start < end" if strict else "start <= end"
    assert found.broken[text] == found.drawn - found.accepted > 0


@pytest.mark.parametrize(
    ("rule", "keeps"),
    [
        ({"kind": "inequality", "low": "born", "high": "left"}, lambda frame: frame["born"] <= frame["left"]),
        ({"kind": "inequality", "low": 1.0, "high": "height"}, lambda frame: frame["height"] >= 1.0),
        ({"kind": "inequality", "low": "height", "high": 1, "strict": True}, lambda frame: frame["height"] < 1.0),
        ({"kind": "range", "column": "start", "min": 3, "max": 7}, lambda frame: frame["start"].between(3, 7)),
        ({"kind": "range", "column": "left", "min": "2001-05-03"}, lambda frame: frame["left"] >= "2001-05-03"),
        ({"kind": "custom", "function": "test_constraints:is_even"}, lambda frame: frame["start"] % 2 == 0),
    ],
)
def test_a_rule_holds_in_every_record(rule, keeps):
    found = draw(rule)
    assert keeps(found.records).all() and len(found.records) == 500
    assert 0 < found.accepted < found.drawn


def is_even(frame):
    return frame["start"] % 2 == 0


def no_bool(frame):
    return frame["start"] % 2


def test_only_listed_combinations_are_drawn():
    known = only_records_with(draw(TITLES).records, "title")
    assert set(zip(known["sex"], known["title"], strict=True)) == {("f", "Ms"), ("f", "Dr"), ("m", "Mr")}


def test_a_combination_may_hold_numbers():
    rule = {"kind": "fixed_combinations", "columns": ["sex", "start"], "rows": [["f", 3], ["m", 4], ["m", 5.0]]}
    drawn = draw(rule, num_samples=50).records
    assert set(zip(drawn["sex"], drawn["start"], strict=True)) == {("f", 3), ("m", 4), ("m", 5)}


def test_booleans_are_listed_by_their_labels_or_as_such():
    schema = Schema((Column("a", "boolean", categories=("no", "yes")), Column("b", "boolean")), num_records=10)
    rule = {"kind": "fixed_combinations", "columns": ["a", "b"], "rows": [["yes", True], [False, False]]}
    (parsed,) = parse_constraints(json.dumps([rule]), schema)
    frame = pd.DataFrame({"a": [True, True, False, False], "b": [True, False, True, False]})
    assert parsed.kept(frame).tolist() == [True, False, False, True]
    np.testing.assert_array_equal(
        forbidden([parsed], fit_public(schema, num_bins=2)).pairs[0, 1], [[False, True], [True, False]]
    )


def test_a_total_is_the_sum_of_its_parts_and_within_its_bounds():
    found = draw(SUM)
    known = only_records_with(found.records, "end")
    assert (known["total"] == known["start"] + known["end"]).all()
    assert known["total"].max() <= 40 and str(found.records["total"].dtype) == "Int64"
    assert found.records["total"].isna().equals(found.records["end"].isna())
    assert found.broken["start + end = total"] > 0  # sums above 40


def test_rules_are_kept_together_and_counted_apart():
    found = draw(ORDER, TITLES, SUM, num_samples=200)
    known = only_records_with(found.records, "end", "title")
    assert (known["start"] <= known["end"]).all() and (known["total"] == known["start"] + known["end"]).all()
    assert len(found.broken) == 3 and sum(found.broken.values()) >= found.drawn - found.accepted


# ---- what codes alone can tell


RULES = st.one_of(
    st.builds(
        lambda low, high, strict: {"kind": "inequality", "low": low, "high": high, "strict": strict},
        st.sampled_from(["start", "end"]), st.sampled_from(["start", "end", 7]), st.booleans(),
    ).filter(lambda rule: rule["low"] != rule["high"]),
    st.builds(lambda low, size: {"kind": "range", "column": "height", "min": low, "max": low + size},
              st.floats(0.5, 2.0), st.floats(0.05, 1.0)),
    st.builds(lambda rows: {**TITLES, "columns": ["sex", "start"], "rows": rows},
              st.lists(st.tuples(st.sampled_from("fm"), st.integers(0, 30)).map(list), min_size=1, max_size=4)),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(rule=RULES)
def test_no_record_that_keeps_a_rule_has_a_forbidden_code(rule):
    """Else masking would take away records that are allowed."""
    rules = parse_constraints(json.dumps([rule]), SCHEMA)
    codes = np.random.default_rng(0).integers(TRANSFORM.cardinalities, size=(4000, 8)).astype(np.int32)
    kept = rules[0].kept(TRANSFORM.decode(codes, np.random.default_rng(1)))
    found = forbidden(rules, TRANSFORM)
    for j, is_out in found.codes.items():
        assert not is_out[codes[kept, j]].any()
    for (i, j), is_out in found.pairs.items():
        assert i < j and not is_out[codes[kept, i], codes[kept, j]].any()


def test_combinations_of_categories_are_told_by_codes_exactly():
    rules = parse_constraints(json.dumps([TITLES]), SCHEMA)
    expected = np.array([[True, False, False, False], [False, True, True, False]])  # Mr, Ms, Dr, missing
    np.testing.assert_array_equal(forbidden(rules, TRANSFORM).pairs[0, 1], expected)


def test_an_autoregressive_generator_draws_no_forbidden_code():
    """So nothing is rejected, whichever column comes first."""
    for found in drawn_by_network():
        assert found.drawn == found.accepted and not any(found.broken.values())


def test_where_earlier_columns_leave_a_network_nothing_it_draws_again():
    """Start 4 wants m, Ms wants f."""
    for found in drawn_by_network({**TITLES, "columns": ["sex", "start"], "rows": [["f", 3], ["m", 4]]}):
        assert set(zip(found.records["sex"], found.records["start"], strict=True)) == {("f", 3), ("m", 4)}
        assert found.accepted >= 2000


def drawn_by_network(*more):
    """2,000 records with a sex, a title and a start up to 4, of networks with two orders of columns."""
    transform = fit_public(Schema(SCHEMA.columns[:3], num_records=100), num_bins=40)
    text = json.dumps([TITLES, {"kind": "range", "column": "start", "max": 4}, *more])
    for order in ((0, 1, 2), (2, 1, 0)):
        generator = autoregressive.make(
            cardinalities=transform.cardinalities, column_order=order, width=8, num_layers=1, num_calibration_rows=256
        )
        found = synthesize(
            generator, generator.init(jax.random.key(0)), transform,
            num_samples=2000, conditions=None, constraints=text, key=jax.random.key(2),
        )  # fmt: skip
        known = only_records_with(found.records, "title")
        assert set(zip(known["sex"], known["title"], strict=True)) == {("f", "Ms"), ("f", "Dr"), ("m", "Mr")}
        assert found.records["start"].max() == 4 and found.records["title"].isna().any()
        yield found


def test_a_saved_generator_keeps_its_rules(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.integers(0, 5, 400), "b": rng.integers(0, 5, 400)})
    schema = Schema(tuple(Column(name, "integer", lower=0, upper=4) for name in "ab"), num_records=400)
    rule = json.dumps([{"kind": "inequality", "low": "a", "high": "b"}])
    sections = {"training": {"num_steps": 2}, "synthesis": {"constraints": rule}, "transform": {"edges": "public"}}
    run = fit(frame, schema, epsilon=1.0, delta=1e-5, settings=sections)
    drawn = run.sample(300, seed=1)
    assert (drawn["a"] <= drawn["b"]).all() and (frame["a"] > frame["b"]).any()


# ---- what is refused


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[", "is not JSON"),
        ("{}", "give a JSON list"),
        ('["x"]', "give an object"),
        ('[{"kind": "order"}]', '"kind" one of inequality'),
        ('[{"kind": "inequality", "low": "start"}]', "has no 'high'"),
        ('[{"kind": "range", "column": "start", "minimum": 1}]', "unknown key 'minimum'"),
        ('[{"kind": "range", "column": "strat", "min": 1}]', "'strat', which the table does not have"),
        ('[{"kind": "range", "column": "sex", "min": 1}]', "'sex', which is categorical"),
        ('[{"kind": "range", "column": "start"}]', 'neither "min" nor "max"'),
        ('[{"kind": "range", "column": "born", "min": "yesterday-ish"}]', "values of kind datetime"),
        ('[{"kind": "inequality", "low": 1, "high": 2}]', "give two columns"),
        ('[{"kind": "inequality", "low": "born", "high": "start"}]', "a date with a number"),
        ('[{"kind": "fixed_combinations", "columns": ["sex"], "rows": [["f"]]}]', "at least 2"),
        ('[{"kind": "fixed_combinations", "columns": ["sex", "title"], "rows": [["f"]]}]', "combinations of 2 values"),
        ('[{"kind": "fixed_combinations", "columns": ["sex", "start"], "rows": [["x", 1]]}]', "no category of 'sex'"),
        ('[{"kind": "fixed_combinations", "columns": ["sex", "start"], "rows": [["f", "1"]]}]', "list numbers"),
        ('[{"kind": "fixed_combinations", "columns": ["sex", "born"], "rows": [["f", 1]]}]', "list numbers"),
        ('[{"kind": "sum", "columns": ["start", "height"], "total": "total"}]', "declare it numeric"),
        ('[{"kind": "sum", "columns": ["start", "total"], "total": "total"}]', "another column as total"),
        ('[{"kind": "sum", "columns": ["end"], "total": "start"}]', "make start nullable"),
        ('[{"kind": "custom", "function": "is_even"}]', "give module:function"),
        ('[{"kind": "custom", "function": "no_such_module:f"}]', "'no_such_module:f', which cannot be imported"),
    ],
)
def test_rules_that_make_no_sense_are_refused(text, said):
    with pytest.raises(UserError, match=r"synthesis\.constraints") as caught:
        parse_constraints(text, SCHEMA)
    assert said in str(caught.value)


def test_a_rule_that_hardly_any_record_keeps_is_named():
    with pytest.raises(UserError, match=r"only 0 of \d+ drawn rows keep the rules, 10 were asked for; \d+ broke"):
        draw({"kind": "range", "column": "height", "min": 9}, num_samples=10)


def test_a_function_that_returns_no_bools_is_named():
    with pytest.raises(UserError, match=r"test_constraints:no_bool gave int64"):
        draw({"kind": "custom", "function": "test_constraints:no_bool"})


def test_what_codes_cannot_tell_is_left_to_drawing_again():
    """`repaired` sets sums, and leaves everything else."""
    frame = TRANSFORM.decode(np.zeros((3, 8), np.int32), np.random.default_rng(0))
    rules = parse_constraints(json.dumps([ORDER]), SCHEMA)
    pd.testing.assert_frame_equal(repaired(rules, frame), frame)
