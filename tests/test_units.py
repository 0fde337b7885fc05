"""Privacy units that own several rows: what one of them can change, whatever it owns, and what it cannot."""

import dataclasses
import json
import math

import ghost_oracle
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

import privsyn_jax
from launch.schema import main
from privsyn_jax.audit_training import observe
from privsyn_jax.data.schema import schema_from_dict, schema_to_dict
from privsyn_jax.data.split import split_units
from privsyn_jax.data.table import load, read_schema
from privsyn_jax.data.units import keep_rows, unit_names, units_held_out
from privsyn_jax.data.validate import conform
from privsyn_jax.modalities.tables import TABLES, build, buy, random_records
from privsyn_jax.models import ONE_SHOT, TABLE_GENERATORS
from privsyn_jax.models.units import of_units
from privsyn_jax.plan import make_plan
from privsyn_jax.privacy import release
from privsyn_jax.privacy.clipping import clipped_grad_sum
from privsyn_jax.privacy.guard import Private
from privsyn_jax.privacy.ledger import Ledger
from privsyn_jax.privacy.noise import HostNoise
from privsyn_jax.report.guarantee import relation_words
from privsyn_jax.run import execute, prepare
from privsyn_jax.settings import DataSettings, settings_from_dict
from privsyn_jax.shadows import train_shadows
from privsyn_jax.study import together
from privsyn_jax.training import dp_sgd
from privsyn_jax.training.parallel import DataParallel
from privsyn_jax.training.step import many_steps
from privsyn_jax.training_log import TrainingLog
from privsyn_jax.transforms import discretize
from privsyn_jax.transforms.units import group_rows
from privsyn_jax.types import Column, Schema, UnitRows, UserError
from privsyn_jax.workdir import plain

MOST, NUM_UNITS = 3, 120
SCHEMA = Schema(
    columns=(
        Column("patient", "id"),
        Column("age", "integer", lower=0, upper=90),
        Column("ward", "categorical", categories=("a", "b", "c")),
        Column("dead", "boolean", categories=(False, True)),
    ),
    num_records=200,
    target="dead",
    privacy_unit="patient",
    unit_column="patient",
    max_records_per_unit=MOST,
    num_units=NUM_UNITS,
)
PLAIN = dataclasses.replace(SCHEMA, unit_column=None, max_records_per_unit=None, num_units=None)
TINY = {
    "model": {"variant": "masked_mlp", "width": 4, "num_layers": 1, "num_calibration_rows": 256},
    "training": {"num_steps": 4, "expected_batch_size": 32, "steps_per_dispatch": 2},
    "transform": {"num_bins": 4, "num_cells": 16},
    "privacy": {"epsilon": 1.0, "delta": 1e-4, "seed": 0},
    "evaluation": {"enabled": False},
}


def checked(**sections):
    return settings_from_dict({**TINY, **{name: {**TINY.get(name, {}), **part} for name, part in sections.items()}})


def table(sizes, seed=0, first=0):
    """Rows in random order of units with these numbers of them."""
    rng = np.random.default_rng([seed, first])
    owners = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    count = len(owners)
    return pd.DataFrame(
        {
            "patient": [f"p{first + owner}" for owner in owners],
            "age": rng.integers(0, 91, count),
            "ward": rng.choice(["a", "b", "c"], count).astype(object),
            "dead": rng.random(count) < 0.3,
        }
    )


def conformed(frame, schema=SCHEMA):
    return conform(frame, schema, out_of_bounds="error", source="t.csv")[0]


def contents(frame):
    """The rows of every unit, whatever their order."""
    return {name: sorted(map(str, rows.to_numpy().tolist())) for name, rows in frame.groupby("patient")}


OTHERS = table(np.random.default_rng(1).integers(1, 6, NUM_UNITS))
CROWD = pd.DataFrame({"patient": "crowd", "age": np.arange(1000) % 91, "ward": "a", "dead": True})


# --- which rows are read


def test_a_unit_with_a_thousand_rows_gives_as_many_as_any_and_changes_no_other():
    kept = conformed(pd.concat([OTHERS.iloc[:50], CROWD, OTHERS.iloc[50:]]))
    found, without = contents(kept), contents(conformed(OTHERS))
    assert len(found.pop("crowd")) == MOST and found == without
    assert max(map(len, without.values())) == MOST and min(map(len, without.values())) == 1
    sizes = OTHERS.groupby("patient").size()
    assert {name: len(rows) for name, rows in without.items()} == sizes.clip(upper=MOST).to_dict()


def test_which_rows_are_kept_does_not_depend_on_their_order_and_keeping_twice_changes_nothing():
    kept = conformed(OTHERS)
    shuffled = OTHERS.sample(frac=1.0, random_state=0)
    assert contents(conformed(shuffled)) == contents(kept)
    pd.testing.assert_frame_equal(conformed(kept), kept)
    positions = [OTHERS.index[(row == OTHERS).all(axis=1)][0] for _, row in kept.iterrows()]
    assert np.mean(np.diff(positions) > 0) > 0.95  # in the order given, but for rows that repeat


def test_kept_rows_are_neither_the_first_nor_the_last():
    owners = pd.DataFrame({"patient": np.repeat([f"p{i}" for i in range(300)], 10), "age": np.tile(np.arange(10), 300)})
    kept = keep_rows(owners.assign(ward="a", dead=False), SCHEMA)
    mean, stddev = 4.5, math.sqrt((100 - 1) / 12 / len(kept))
    assert len(kept) == 900 and abs(kept["age"].mean() - mean) < 5 * stddev
    assert not abs(np.mean([0, 1, 2]) - mean) < 5 * stddev


def test_the_same_unit_however_it_is_written():
    for values in ([7, 7.0], ["7", " 7 "], pd.Categorical(["x", "x"])):
        assert len(set(unit_names(pd.DataFrame({"patient": values}), SCHEMA))) == 1
    assert len(set(unit_names(pd.DataFrame({"patient": ["007", "7"]}), SCHEMA))) == 2


@pytest.mark.parametrize("nobody", [None, "", "  ", np.nan, "NA"])
def test_a_row_that_does_not_say_whose_it_is_is_refused(nobody):
    frame = OTHERS.astype({"patient": object})
    frame.loc[6, "patient"] = nobody
    with pytest.raises(UserError, match=r"'patient' of t.csv, row 7, does not say whose it is: fill it in"):
        conformed(frame)


def test_few_units_are_refused_however_many_rows_they_have():
    with pytest.raises(UserError, match="rows of 99 different 'patient', too few"):
        conformed(table([5] * 99))


# --- who is held out


def test_a_unit_is_on_one_side_and_no_other_moves():
    frame = conformed(OTHERS)
    train, test = split_units(frame, SCHEMA, 0.3)
    sides = set(train["patient"]), set(test["patient"])
    assert not sides[0] & sides[1] and sides[0] | sides[1] == set(frame["patient"])
    for added in range(3):
        more = pd.concat([table([2], first=1000 + added), frame]).iloc[::-1]
        other_train, _ = split_units(more, SCHEMA, 0.3)
        assert set(other_train["patient"]) - {f"p{1000 + added}"} == sides[0]


def test_the_share_of_units_held_out_is_the_fraction():
    names, fraction = np.array([f"p{number}" for number in range(20_000)], object), 0.3
    error = math.sqrt(fraction * (1 - fraction) / len(names))
    assert abs(units_held_out(names, fraction).mean() - fraction) < 5 * error


def test_the_users_files(tmp_path):
    pd.concat([OTHERS, CROWD]).to_csv(tmp_path / "train.csv", index=False)
    (tmp_path / "schema.json").write_text(json.dumps(schema_to_dict(SCHEMA)))
    paths = {"path": str(tmp_path / "train.csv"), "schema": str(tmp_path / "schema.json")}
    data = DataSettings(**paths, max_records_per_unit=2, target="ward")
    schema = read_schema(data)
    assert (schema.num_records, schema.num_units) == (140, 84)
    assert (schema.rows_per_unit, schema.target) == (2, "ward")
    folder = tmp_path / "private"
    folder.mkdir(mode=0o700)
    records = load(data, schema)
    train, test = (opened(part) for part in (records.train, records.test))
    assert max(pd.concat([train, test]).groupby("patient").size()) == 2
    assert not set(train["patient"]) & set(test["patient"])
    table([1] * NUM_UNITS, first=100).to_csv(tmp_path / "test.csv", index=False)
    with pytest.raises(UserError, match=r"test.csv holds rows of 20 'patient' that are trained on"):
        load(DataSettings(**paths, test_path=str(tmp_path / "test.csv")), schema)
    with pytest.raises(UserError, match="has max_records_per_unit but no unit_column"):
        (tmp_path / "schema.json").write_text(json.dumps(schema_to_dict(PLAIN)))
        read_schema(data)


def opened(private):
    return private.open(Ledger().charge("test", "all", "test", {"kind": "pure", "epsilon": 1.0, "count": 1}))


# --- what one unit moves, against what is paid for

row_sets = st.lists(st.tuples(st.integers(0, 90), st.sampled_from("abc"), st.booleans()), min_size=1, max_size=9)


class NoNoise(HostNoise):
    """Zeros, and the stddevs that were asked for."""

    def __init__(self):
        super().__init__(0)
        self.asked = []

    def normal(self, shape, *, stddev):
        self.asked.append(stddev)
        return np.zeros(shape)


def neighbours(rows):
    """Encoded tables without and with one unit, of the rows that are read of it."""
    unit = pd.DataFrame(rows, columns=["age", "ward", "dead"]).assign(patient="one more")[list(SCHEMA.names)]
    transform = discretize.fit_public(SCHEMA, num_bins=4)
    tables = [keep_rows(frame, SCHEMA) for frame in (OTHERS, pd.concat([OTHERS, unit], ignore_index=True))]
    return transform, tables


@settings(deadline=None, max_examples=60)
@given(row_sets)
def test_a_unit_moves_no_count_or_score_by_more_than_its_noise_is_scaled_to(rows):
    transform, tables = neighbours(rows)
    sizes = transform.cardinalities
    one_way = [np.full(size, 50.0 / size) for size in sizes]
    pairs = [(0, 1), (0, 2), (1, 2)]
    mechanisms = (
        lambda codes, **common: release.histograms(codes, sizes, **common),
        lambda codes, **common: release.contingency_tables(codes, sizes, pairs, **common),
        lambda codes, **common: release.dependence_scores(codes, one_way, **common),
    )
    for mechanism in mechanisms:
        noise, found = NoNoise(), []
        for frame in tables:
            result = mechanism(
                transform.encode(frame), noise_multiplier=2.0, noise=noise, rows_per_unit=SCHEMA.rows_per_unit
            )
            values = result[0].values() if isinstance(result[0], dict) else result[0]
            found.append(np.concatenate([np.ravel(value) for value in values]))
            assert result[2] == {"kind": "gaussian", "noise_multiplier": 2.0, "count": 1}
        moved = np.linalg.norm(found[1] - found[0])
        assert moved <= noise.asked[0] / 2.0 * (1 + 1e-9)


def test_noise_for_one_row_would_not_cover_a_unit():
    """The mutant, and the bound is reached: rows of a unit that are all alike."""
    transform, tables = neighbours([(40, "a", True)] * 9)
    sizes, found = transform.cardinalities, []
    for frame in tables:
        noise = NoNoise()
        counts, stddev, _ = release.histograms(transform.encode(frame), sizes, noise_multiplier=1.0, noise=noise)
        found.append(np.concatenate(counts))
    moved = np.linalg.norm(found[1] - found[0])
    assert moved > stddev and moved == pytest.approx(MOST * stddev)


@settings(deadline=None, max_examples=60)
@given(row_sets)
def test_a_unit_adds_one_to_at_most_as_many_values_as_its_rows(rows):
    """What thresholds of unknown categories rest on."""
    _, tables = neighbours(rows)
    before, after = (
        pd.Series(discretize._values_once_per_unit(frame, "ward", SCHEMA)).value_counts() for frame in tables
    )
    moved = after.sub(before, fill_value=0)
    assert set(moved) <= {0, 1} and moved.sum() <= MOST


def test_a_value_that_only_one_unit_holds_comes_out_with_probability_delta_for_all_of_its_values():
    delta, count, most = 0.06, 100_000, 3
    released, *events = release.categories(
        [list(range(count))] * 2, noise_multiplier=1.5, delta=delta, noise=HostNoise(4), values_per_unit=most
    )
    passed, expected = sum(map(len, released)) / (2 * count), delta / (2 * most)
    error = math.sqrt(expected / (2 * count))
    assert abs(passed - expected) < 5 * error < 0.15 * expected
    assert events[1] == {"kind": "approximate", "epsilon": 0.0, "delta": delta, "count": 1}
    noise = NoNoise()
    stddev = 2.0 * math.sqrt(2 * most)
    above = math.ceil(1 + stddev * norm.isf(1e-6 / (2 * most)))
    columns = [["x"] * above + ["y"] * (above - 1)] * 2
    kept = release.categories(columns, noise_multiplier=2.0, delta=1e-6, noise=noise, values_per_unit=most)[0]
    assert kept == [["x"], ["x"]]
    assert noise.asked == [pytest.approx(stddev)] * 2


def test_unknown_categories_of_units_are_bought():
    schema = dataclasses.replace(
        SCHEMA,
        columns=tuple(dataclasses.replace(c, categories=None) if c.name == "ward" else c for c in SCHEMA.columns),
    )
    crowd = CROWD.assign(ward="seen of one only")
    frame = conformed(
        pd.concat([OTHERS] + [OTHERS.assign(patient=OTHERS["patient"] + str(k)) for k in range(9)] + [crowd]), schema
    )
    chosen = checked(privacy={"epsilon": 20.0})
    ledger = Ledger()
    bought = buy(Private(frame), schema, make_plan(chosen, schema), chosen, ledger, HostNoise(0))
    assert bought.transform.schema["ward"].categories == ("a", "b", "c")
    assert [entry.event["kind"] for entry in ledger.entries][:2] == ["approximate", "gaussian"]


# --- the loss of a unit, and its gradient


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=12))
def test_grouped_rows_are_all_there_by_unit(owners):
    units = pd.factorize(np.array(owners))[0]
    codes = np.arange(2 * len(owners), dtype=np.int32).reshape(-1, 2)
    sizes = np.bincount(units)
    grouped = group_rows(codes, units, int(sizes.max()))
    assert grouped.is_row.sum(axis=1).tolist() == sizes.tolist()
    for number in range(len(sizes)):
        assert np.array_equal(grouped.codes[number][grouped.is_row[number]], codes[units == number])
    assert not grouped.codes[~grouped.is_row].any()
    if sizes.max() > 1:
        with pytest.raises(ValueError, match="are paid for"):
            group_rows(codes, units, int(sizes.max()) - 1)


SIZES = (4, 3, 2)
UNITS = UnitRows(
    np.random.default_rng(0).integers(0, SIZES, (ghost_oracle.BATCH, MOST, len(SIZES))).astype(np.int32),
    np.arange(MOST) < np.array([1, 2, 3])[:, None],
)
SMALL = {
    "autoregressive": {"width": 8, "num_layers": 1, "num_heads": 2},
    "tvae": {"latent_dim": 2, "hidden_dims": (8,)},
}


def small(name):
    return TABLE_GENERATORS[name](cardinalities=SIZES, **SMALL.get(name, {}))


@pytest.mark.parametrize("name", [name for name in TABLE_GENERATORS if name not in ONE_SHOT])
def test_ghost_clipping_of_units_is_that_of_vmap(name):
    generator = of_units(small(name), MOST)
    params = generator.init(jax.random.key(0))
    private = ghost_oracle.filled(
        jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params["private"])
    )
    ghost_oracle.check(ghost_oracle.Case(generator.private_loss, private, UNITS, params["public"], tolerance=1e-4))


def test_the_loss_of_a_unit_is_the_sum_over_its_rows_and_filling_counts_for_nothing():
    generator = small("autoregressive")
    params = generator.init(jax.random.key(0))
    unit_loss = of_units(generator, MOST).private_loss
    for number in range(ghost_oracle.BATCH):
        unit = jax.tree.map(lambda leaf, number=number: leaf[number], UNITS)
        rows = [generator.private_loss(params, row, jax.random.key(1)) for row in unit.codes[unit.is_row]]
        assert unit_loss(params, unit, jax.random.key(1)) == pytest.approx(float(sum(rows)), rel=1e-6)
    assert of_units(generator, 1) is generator


@pytest.mark.parametrize("method", ["ghost", "vmap"])
def test_a_unit_moves_the_clipped_sum_by_at_most_the_clip_norm_whatever_it_owns(method):
    generator, clip_norm = of_units(small("autoregressive"), MOST), 0.5
    params = generator.init(jax.random.key(0))
    codes = np.zeros((5, MOST, len(SIZES)), np.int32)
    codes[1:] = np.random.default_rng(1).integers(0, SIZES, (4, MOST, len(SIZES)))

    @jax.jit
    def total(codes, is_row, is_padding):
        units = UnitRows(codes, is_row)
        key = jax.random.key(2)
        return clipped_grad_sum(
            generator.private_loss, params, units, is_padding, key, l2_clip_norm=clip_norm, method=method
        ).grad_sum

    everybody, first = np.zeros(5, bool), np.arange(5) == 0
    without = total(codes, np.ones((5, MOST), bool), first)
    for number_of_rows in range(MOST + 1):
        is_row = np.ones((5, MOST), bool)
        is_row[0] = np.arange(MOST) < number_of_rows
        moved = jax.tree.map(jnp.subtract, total(codes, is_row, everybody), without)
        size = float(jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(moved))))
        assert size <= clip_norm * (1 + 1e-5)
        assert (size > 0.99 * clip_norm) == (number_of_rows > 0)
        # What fills a unit up changes nothing, bit for bit.
        other = codes.copy()
        other[0, number_of_rows:] = 1
        again = total(other, is_row, everybody)
        jax.tree.map(np.testing.assert_array_equal, again, total(codes, is_row, everybody))


# --- whole runs


def fit(frame, schema, **sections):
    return privsyn_jax.fit(
        frame, schema, epsilon=1.0, delta=1e-4, settings={**TINY, "privacy": {"seed": 0}, **sections}
    )


@pytest.fixture(scope="module")
def run():
    return fit(pd.concat([OTHERS, CROWD]), SCHEMA)


def test_a_run_says_the_unit_and_the_bound_and_draws_rows(run):
    privacy = run.privacy
    assert (privacy["privacy_unit"], privacy["unit_column"], privacy["max_records_per_unit"]) == (
        "patient",
        "patient",
        3,
    )
    assert "one patient: up to 3 rows of one 'patient'" in privacy["declared_public"][0]
    words = "adding or removing one patient with all its rows (those of one patient; at most 3 are read)"
    assert relation_words(privacy) == words
    assert any("work on rows" in line for line in privacy["not_covered"])
    (training,) = [entry for entry in privacy["ledger"] if entry["name"] == "training"]
    assert training["reads"] == "the gradient of every sampled unit, summed over its rows (at most 3)"
    assert training["event"]["sampling_rate"] == pytest.approx(32 / NUM_UNITS, rel=1e-6)
    drawn = run.sample(50)
    assert list(drawn.columns) == list(SCHEMA.names) and len(drawn) == 50


def test_a_run_without_a_unit_column_says_none_of_it():
    settled, plan = checked(), make_plan(checked(), PLAIN)
    assert plan.rows_per_unit == 1
    spending = dp_sgd.make_spending(plan, settled, ledger := Ledger())
    spending.next_block(0)
    assert ledger.entries[0].reads == "the gradient of every sampled record"


def test_one_row_per_unit_is_the_run_without_units_bit_for_bit():
    single = dataclasses.replace(SCHEMA, max_records_per_unit=1, num_records=NUM_UNITS)
    kept = conformed(OTHERS, single)
    runs = [fit(kept, schema) for schema in (single, dataclasses.replace(PLAIN, num_records=NUM_UNITS))]
    params = [one._params for one in runs]
    jax.tree.map(np.testing.assert_array_equal, *params)
    assert runs[0].privacy["ledger"] == runs[1].privacy["ledger"]


def test_a_mechanism_refuses_rows_that_are_not_paid_for():
    chosen = checked()
    unbounded = pd.concat([conformed(OTHERS), CROWD], ignore_index=True)
    arguments = (chosen, Ledger(), HostNoise(0))
    with pytest.raises(ValueError, match="has 1000 rows where 3 are paid for"):
        buy(Private(unbounded), SCHEMA, make_plan(chosen, SCHEMA), *arguments)
    with pytest.raises(ValueError, match="the plan pays for 1 rows per unit, the schema has 3"):
        buy(Private(conformed(OTHERS)), SCHEMA, make_plan(chosen, PLAIN), *arguments)


def test_units_train_on_shards_as_on_one_device():
    chosen = checked(privacy={"epsilon": float("inf")}, training={"microbatch_size": 64})
    plan, transform = make_plan(chosen, SCHEMA), discretize.fit_public(SCHEMA, num_bins=4)
    units = transform.encode_units(conformed(OTHERS))
    results = []
    for is_sharded in (False, True):
        generator = build(chosen, SCHEMA, transform.cardinalities)
        step, state = dp_sgd.begin(generator, None, plan=plan, settings=chosen)
        if is_sharded:
            parallel = DataParallel(tuple(jax.devices()[:1]), NUM_UNITS, "shard_map")
            run, placed = parallel.many_steps(step, 2), parallel.place(units)
        else:
            run, placed = many_steps(step, 2), jax.tree.map(jnp.asarray, units)
        results.append(run(state, placed, jax.random.key(3))[0].params["private"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *results)


def test_an_interrupted_run_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    pd.concat([OTHERS, CROWD]).to_csv(tmp_path / "data.csv", index=False)
    (tmp_path / "schema.json").write_text(json.dumps(schema_to_dict(SCHEMA)))
    paths = {"path": str(tmp_path / "data.csv"), "schema": str(tmp_path / "schema.json")}
    bare = {"transform": {"edges": "public", "num_bins": 4}, "privacy": {"budget": {"marginals": 0.0}}}
    chosen = checked(data=paths, training={"steps_per_dispatch": 1, "checkpoint_seconds": 0}, **bare)
    heard = []
    execute(chosen, tmp_path / "whole", announce=heard.append)
    assert "a step draws each patient with probability" in heard[0]

    def stop(self, state, logs):
        if int(state.step) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(TrainingLog, "_record", stop)
        execute(chosen, tmp_path / "broken", announce=heard.append)
    execute(chosen, tmp_path / "broken", announce=heard.append)
    assert "going on from step 2, where the last attempt was saved" in heard
    for name in ("release/synthetic.csv", "release/model/params.npz", "release/privacy_report.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "broken" / name).read_bytes()
    other = dataclasses.replace(SCHEMA, max_records_per_unit=4)
    (tmp_path / "schema.json").write_text(json.dumps(schema_to_dict(other)))
    with pytest.raises(UserError, match="max_records_per_unit"):
        execute(chosen, tmp_path / "broken", announce=heard.append)


def test_runs_of_units_that_share_a_program_are_what_they_are_alone(tmp_path):
    pd.concat([OTHERS, CROWD]).to_csv(tmp_path / "data.csv", index=False)
    (tmp_path / "schema.json").write_text(json.dumps(schema_to_dict(SCHEMA)))
    paths = {"path": str(tmp_path / "data.csv"), "schema": str(tmp_path / "schema.json")}
    public, bare = {"edges": "public", "num_bins": 4}, {"budget": {"marginals": 0.0}}
    both = [
        plain(checked(data=paths, transform=public, privacy={"epsilon": epsilon, **bare}).to_dict())
        for epsilon in (1.0, 2.0)
    ]
    folders = [tmp_path / name / "private" for name in ("a", "b", "c")]
    for folder in folders:
        folder.mkdir(mode=0o700, parents=True)
    schema, _ = prepare(settings_from_dict(both[0]))
    records = load(settings_from_dict(both[0]).data, schema)
    shared = together.learn_together(both, schema, records, folders[:2])
    (alone,) = together.learn_together(both[:1], schema, records, folders[2:])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), shared[0]._params, alone._params)
    assert shared[0].privacy["epsilon"] == alone.privacy["epsilon"] < shared[1].privacy["epsilon"]


def test_audits_plant_canaries_among_units():
    chosen = checked(transform={"edges": "public"}, privacy={"budget": {"marginals": 0.0}})
    plan = make_plan(chosen, SCHEMA)
    generator, units = random_records(chosen, SCHEMA, np.random.default_rng(0))
    assert units.codes.shape == (NUM_UNITS, MOST, 3) and units.is_row.all()
    (seen,) = observe(chosen, plan, generator, units, keys=[jax.random.key(0)], num_canaries=20)
    assert len(seen.scores) == 20 and np.isfinite(seen.scores).all()


def test_shadows_of_units_are_refused():
    with pytest.raises(UserError, match=r"a patient has up to 3: audit such a run with launch\.audit"):
        train_shadows(checked(), SCHEMA, [conformed(OTHERS)] * 4, key=jax.random.key(0))


def test_the_loss_that_is_released_is_bounded_for_a_unit():
    transform = discretize.fit_public(SCHEMA, num_bins=4)
    row = sum(math.log(size) for size in transform.cardinalities)
    assert TABLES.loss_bound(transform) == pytest.approx(MOST * row)


def test_sampling_rate_delta_and_refusals_speak_of_units():
    chosen = checked(privacy={"delta": 0.0})
    plan = make_plan(chosen, SCHEMA)
    assert plan.delta == NUM_UNITS**-1.1 and plan.rows_per_unit == MOST
    with pytest.raises(UserError, match="more than num_units = 120 in the schema"):
        make_plan(checked(training={"expected_batch_size": 150}), SCHEMA)
    assert "1 / num_units" in make_plan(checked(privacy={"delta": 0.1}), SCHEMA).warnings[-1]


# --- schemas


def test_a_schema_with_units_survives_json_and_one_without_is_as_before():
    assert schema_from_dict(json.loads(json.dumps(schema_to_dict(SCHEMA)))) == SCHEMA
    assert not {"unit_column", "max_records_per_unit", "num_units"} & set(schema_to_dict(PLAIN))


@pytest.mark.parametrize(
    "changes, problem",
    [
        ({"unit_column": "patent"}, "unit_column 'patent' is no column of the schema: did you mean 'patient'?"),
        ({"unit_column": "ward"}, "of kind 'categorical', and who a row belongs to is not learned: make it an id"),
        ({"unit_column": None}, "has max_records_per_unit but no unit_column"),
        ({"max_records_per_unit": None}, 'no max_records_per_unit: add "max_records_per_unit"'),
        ({"max_records_per_unit": 0}, "max_records_per_unit of the schema is 0: give a positive whole number"),
        ({"max_records_per_unit": 2.5}, "max_records_per_unit of the schema is 2.5"),
        ({"num_units": None}, "and no num_units"),
        ({"num_units": 500}, "has num_units 500 and num_records 200: every unit has a row"),
    ],
)
def test_a_schema_with_half_a_unit_is_refused(changes, problem):
    content = {**schema_to_dict(SCHEMA), **changes}
    with pytest.raises(UserError) as caught:
        schema_from_dict(content)
    assert problem in str(caught.value)


def test_a_schema_is_proposed_with_the_unit_that_the_user_names(tmp_path, capsys):
    path = tmp_path / "data.csv"
    pd.concat([OTHERS, CROWD]).to_csv(path, index=False)
    assert main([str(path), "--target", "dead", "--unit", "patient"]) == 0
    printed = capsys.readouterr()
    proposal = json.loads(printed.out)
    found = {key: proposal[key] for key in ("unit_column", "max_records_per_unit", "num_units")}
    assert found == {"unit_column": "patient", "max_records_per_unit": 3, "num_units": 120}
    assert "num_units" in proposal["declared_public"] and "protected with all of its rows" in printed.err
    conformed(pd.concat([OTHERS, CROWD]), schema_from_dict(proposal))
    assert main([str(path), "--unit", "patent"]) == 2
    assert "unit 'patent' is no column" in capsys.readouterr().err
    OTHERS.rename(columns={"patient": "patient_id"}).to_csv(path, index=False)
    assert main([str(path)]) == 0
    assert "propose again with --unit patient_id" in capsys.readouterr().err
