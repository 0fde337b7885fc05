"""Categories in groups: the schema, coding by group, conditions on a group, rules."""

import dataclasses
import json

import jax
import numpy as np
import pandas as pd
import pytest

import privsyn_jax
from privsyn_jax.data.schema import schema_from_dict, schema_to_dict
from privsyn_jax.privacy.noise import HostNoise
from privsyn_jax.synthesis.constraints import forbidden, parse_constraints
from privsyn_jax.synthesis.sampler import check_conditions, synthesize
from privsyn_jax.transforms.discretize import fit_public, fit_purchased
from privsyn_jax.types import Column, Generator, Schema, UserError

CODES = tuple(f"{number:03d}" for number in range(300))
GROUPS = (("low", CODES[:100]), ("middle", CODES[100:250]), ("high", CODES[250:299]))  # "299" is in none
SCHEMA = Schema(
    (
        Column("diagnosis", "categorical", categories=CODES, nullable=True, groups=GROUPS),
        Column("sex", "categorical", categories=("f", "m")),
    ),
    num_records=1000,
)
BY_GROUP = fit_public(SCHEMA, num_bins=4, most_categories=200)
KEY = jax.random.key(0)


def rows(size=4000):
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "diagnosis": pd.Series(rng.choice(CODES[:120], size), dtype=object).where(rng.random(size) > 0.1, None),
            "sex": pd.Series(rng.choice(["f", "m"], size), dtype=object),
        }
    )


def test_a_schema_with_groups_survives_json():
    assert schema_from_dict(json.loads(json.dumps(schema_to_dict(SCHEMA)))) == SCHEMA


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"low": "000"}, 'write {"name": [categories], ...}'),
        ({"low": ["000", "nothing"]}, "holds 'nothing', which is not among its categories"),
        ({"low": ["000"], "high": ["001", "000"]}, "is in the groups 'low' and 'high'"),
        ({"low": []}, "group 'low' of column 'diagnosis' of the schema is empty"),
    ],
)
def test_groups_that_make_no_sense_are_refused(groups, message):
    plain = schema_to_dict(SCHEMA)
    plain["columns"]["diagnosis"]["groups"] = groups
    with pytest.raises(UserError) as error:
        schema_from_dict(plain)
    assert message in str(error.value)


def test_groups_are_for_categories():
    with pytest.raises(UserError, match="groups, which does not apply to kind 'boolean'"):
        columns = {"a": {"kind": "boolean", "groups": {"x": [True]}}, "b": {"kind": "boolean"}}
        schema_from_dict({"columns": columns, "num_records": 5})


def test_many_categories_are_coded_by_their_groups_and_few_by_themselves():
    assert BY_GROUP.cardinalities == (5, 2)  # three groups, a category in none, missing
    assert fit_public(SCHEMA, num_bins=4, most_categories=300).cardinalities == (301, 2)
    frame = pd.DataFrame({"diagnosis": ["000", "099", "100", "298", "299", None], "sex": ["f"] * 6}, dtype=object)
    assert BY_GROUP.encode(frame)[:, 0].tolist() == [0, 0, 1, 2, 3, 4]


def test_a_category_is_drawn_within_its_group_as_often_as_was_bought():
    transform, _ = fit_purchased(
        SCHEMA, rows(), num_bins=4, num_cells=8, noise_multiplier=0.0, noise=HostNoise(0), most_categories=200
    )
    assert transform.cardinalities == (5, 2)
    assert transform.one_way.counts[0].sum() == pytest.approx(4000)
    drawn = transform.decode(np.tile([[1, 0]], (2000, 1)), np.random.default_rng(0))["diagnosis"]
    assert set(drawn) <= set(CODES[100:120]) and drawn.nunique() > 15
    again = type(transform).from_dict(json.loads(json.dumps(transform.to_dict())))
    assert again.cardinalities == transform.cardinalities and again.schema == SCHEMA


def drawn_with(conditions, transform=BY_GROUP, constraints=""):
    def sample(params, key, num_samples, fixed):
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())
        codes = np.floor(rng.random((num_samples, 2)) * transform.cardinalities).astype(np.int32)
        for column, code in fixed.items():
            codes[:, column] = code
        return codes

    generator = Generator(lambda key: {}, None, None, None, sample, lambda columns: (0,) if 0 in columns else ())
    return synthesize(generator, {}, transform, num_samples=50, conditions=conditions, constraints=constraints, key=KEY)


def test_a_condition_on_a_group_is_exact_where_the_group_is_one_code():
    found = drawn_with({"diagnosis": {"group": "middle"}})
    assert set(found.records["diagnosis"]) <= set(CODES[100:250]) and found.exact == ("diagnosis",)
    fine = drawn_with({"diagnosis": {"group": "middle"}}, fit_public(SCHEMA, num_bins=4))
    assert set(fine.records["diagnosis"]) <= set(CODES[100:250]) and fine.exact == ()


def test_a_condition_on_one_category_of_a_coded_group_is_met_by_drawing_again():
    found = drawn_with({"diagnosis": "260"})
    assert set(found.records["diagnosis"]) == {"260"} and found.exact == ()
    for wanted in ("299", ["299"]):  # a code of its own
        assert drawn_with({"diagnosis": wanted}).exact == ("diagnosis",)


@pytest.mark.parametrize(
    ("column", "wanted", "message"),
    [
        ("diagnosis", {"group": "top"}, "group 'top': use one of low, middle, high"),
        ("sex", {"group": "x"}, "add groups there"),
    ],
)
def test_a_group_that_does_not_exist_is_named(column, wanted, message):
    with pytest.raises(UserError, match=message):
        check_conditions(SCHEMA, {column: wanted})


def test_rules_on_categories_hold_where_they_are_coded_by_group():
    rule = json.dumps(
        [{"kind": "fixed_combinations", "columns": ["diagnosis", "sex"], "rows": [["000", "f"], ["299", "m"]]}]
    )
    out = forbidden(parse_constraints(rule, SCHEMA), BY_GROUP).pairs[0, 1]
    assert out[:4].tolist() == [[False, True], [True, True], [True, True], [True, False]]
    known = drawn_with({}, constraints=rule).records.dropna()
    assert set(zip(known["diagnosis"], known["sex"], strict=True)) <= {("000", "f"), ("299", "m")}


def test_a_table_with_many_categories_is_learned_by_groups():
    schema = dataclasses.replace(SCHEMA, num_records=4000)
    run = privsyn_jax.fit(rows(), schema, model="bayesian_network", epsilon=5.0, delta=1e-5)
    assert run.transform.cardinalities[0] == 5
    found = run.sample(500, conditions={"diagnosis": {"group": "middle"}}, seed=0)["diagnosis"]
    assert set(found) <= set(CODES[100:250])
    assert found.isin(CODES[100:120]).mean() > 0.5
