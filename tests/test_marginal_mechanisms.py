"""AIM, MST and the Bayesian network: what they choose, what one unit can move, what is charged."""

import dataclasses
import itertools
import math
import re
from types import SimpleNamespace

import jax
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import privsyn_jax
from privsyn_jax.models import TABLE_GENERATORS, markov_field
from privsyn_jax.models.code_network import marginal
from privsyn_jax.plan import make_plan
from privsyn_jax.privacy import accounting, renyi
from privsyn_jax.privacy.guard import Private
from privsyn_jax.privacy.ledger import Ledger
from privsyn_jax.privacy.noise import HostNoise
from privsyn_jax.privacy.release import contingency, exponential_choice
from privsyn_jax.releases import Release
from privsyn_jax.settings import settings_from_dict
from privsyn_jax.training import aim, bayesian_network, mst
from privsyn_jax.training.marginals import Marginals, Measuring, Table, buy_pairs
from privsyn_jax.transforms.discretize import OneWay
from privsyn_jax.types import Column, Schema, UserError

SIZES = (2, 3, 4, 3)
NAMES = ("aim", "bayesian_network", "mst", "fitted_marginals")
BUY = {"aim": aim.buy, "bayesian_network": bayesian_network.buy, "mst": mst.buy}
SMALLER = {"aim": {"rounds_per_column": 1, "num_iterations": 50}, "fitted_marginals": {"num_calibration_rows": 512}}
SCHEMA = Schema(
    tuple(Column(f"c{j}", "categorical", categories=tuple("abcd"[:size])) for j, size in enumerate(SIZES)), 2000
)


def dependent_codes(seed=0, size=2000):
    """Column 1 follows column 0, column 2 follows column 1, column 3 nothing."""
    rng = np.random.default_rng(seed)
    first = rng.integers(0, 2, size)
    second = np.where(rng.random(size) < 0.9, first, 2)
    third = np.where(rng.random(size) < 0.9, second, 3)
    return np.stack([first, second, third, rng.integers(0, 3, size)], axis=1).astype(np.int32)


def one_way_of(codes):
    counts = [np.bincount(codes[:, j], minlength=size).astype(float) for j, size in enumerate(SIZES)]
    return OneWay(counts, [np.full(size, 1.0) for size in SIZES])


def planned(name, epsilon=1.0, schema=SCHEMA):
    return make_plan(
        settings_from_dict(
            {
                "model": {"name": name},
                "privacy": {"epsilon": epsilon, "delta": 1e-5},
                "transform": {"edges": "public"},
            }
        ),
        schema,
    )


def bought(name, codes, epsilon=1.0, noise=None, model=None, rows_per_unit=1):
    plan, ledger = dataclasses.replace(planned(name, epsilon), rows_per_unit=rows_per_unit), Ledger()
    arguments = {
        "aim": {"max_model_megabytes": 4.0, "rounds_per_column": 1, "num_iterations": 60},
        "bayesian_network": {"max_parents": 2},
        "mst": {},
    }[name]
    records = Private(codes)
    arguments |= model or {}
    task = Measuring(records, SIZES, one_way_of(codes), 0, None, arguments, plan, ledger, noise or HostNoise(0))
    found = BUY[name](task)
    return found, plan, ledger, records


# ---- choosing


@settings(deadline=None)
@given(st.lists(st.floats(-50, 50), min_size=2, max_size=6), st.integers(0, 2**31))
def test_without_noise_the_highest_score_is_chosen(scores, seed):
    chosen = exponential_choice(scores, sensitivity=1.0, epsilon=math.inf, noise=HostNoise(seed))
    assert scores[chosen] == max(scores)


def test_choices_have_the_probabilities_of_the_exponential_mechanism():
    scores, sensitivity, epsilon, noise = [0.0, 1.0, 3.0], 2.0, 1.5, HostNoise(5)
    draws = [exponential_choice(scores, sensitivity=sensitivity, epsilon=epsilon, noise=noise) for _ in range(20_000)]
    weights = np.exp(epsilon * np.array(scores) / (2 * sensitivity))
    expected = len(draws) * weights / weights.sum()
    assert stats.chisquare(np.bincount(draws, minlength=3), expected).pvalue > 1e-4


def test_tables_of_the_target_have_half_the_noise_and_the_ledger_says_so():
    codes, plan, ledger = dependent_codes(), planned("fitted_marginals", epsilon=20.0), Ledger()
    task = Measuring(Private(codes), SIZES, one_way_of(codes), 0, 2, {}, plan, ledger, HostNoise(0))
    stddevs = {group: table.stddev for group, table in buy_pairs(task).tables.items()}
    of_target, others = ({stddevs[group] for group in stddevs if (2 in group) == has} for has in (True, False))
    assert len(of_target) == len(others) == 1
    assert 2 * of_target.pop() == pytest.approx(others.pop())
    said = re.search(r"(\d+) of them with 1/2 of the noise of the others", ledger.entries[-1].mechanism)
    assert said and int(said[1]) in (3, 4)  # its pairs, and itself where it is measured again


@pytest.mark.parametrize("size", [100, 300, 2000])
@pytest.mark.parametrize("seed", range(3))
def test_without_noise_a_network_does_not_take_chance_for_parents(size, seed):
    tables = bought("bayesian_network", dependent_codes(seed, size), epsilon=math.inf)[0].tables
    parents = {columns[-1]: columns[:-1] for columns in tables}
    assert parents[1] == (0,) and parents[2] == (1,) and len(parents[3]) <= 1


@pytest.mark.parametrize("size", [30, 300, 3000])
@pytest.mark.parametrize("columns", [(2, 0), (2, 1), (0, 2, 1), (3, 1, 0, 2)])
def test_chance_is_what_independent_columns_seem_to_depend(columns, size):
    rng, shares = np.random.default_rng(7), [np.arange(1, size + 1) / sum(range(size + 1)) for size in SIZES]
    found = []
    one_way = OneWay([size * share for share in shares], [np.zeros(len(share)) for share in shares])
    for _ in range(200):
        codes = np.stack([rng.choice(len(share), size, p=share) for share in shares], axis=1)
        found.append(bayesian_network.dependence(codes, SIZES, one_way, columns))
    assert bayesian_network.chance(one_way, columns) == pytest.approx(np.mean(found), rel=0.15)


# ---- sensitivity


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**31), st.integers(0, 30), st.sampled_from([(0, 1), (2, 1), (0, 2, 3), (3,)]))
def test_a_row_moves_the_score_of_a_parent_set_by_at_most_two(seed, size, columns):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, SIZES, (size + 1, len(SIZES)))
    one_way = OneWay([rng.dirichlet(np.ones(size)) * 50 for size in SIZES], [np.ones(size) for size in SIZES])
    with_row, without = (bayesian_network.dependence(rows, SIZES, one_way, columns) for rows in (codes, codes[:-1]))
    assert abs(with_row - without) <= 2 + 1e-9


class Watched(HostNoise):
    """Keeps the stddev of every table's noise, draws none, and lets choices be the best."""

    def __init__(self):
        super().__init__(0)
        self.stddevs = []

    def normal(self, shape, *, stddev):
        self.stddevs.append(stddev)
        return np.zeros(shape)

    def gumbel(self, shape):
        return np.zeros(shape)


@pytest.mark.parametrize("name", ["bayesian_network", "mst"])
def test_tables_have_the_noise_that_the_plan_states_for_all_of_them_together(name):
    noise = Watched()
    found, plan, *_ = bought(name, dependent_codes(), noise=noise)
    release = plan.releases[-1]
    assert noise.stddevs == [pytest.approx(release.noise_multiplier * math.sqrt(len(found.tables)))] * len(found.tables)
    assert {table.stddev for table in found.tables.values()} == set(noise.stddevs)


@pytest.mark.parametrize("name", BUY)
def test_a_unit_of_several_rows_gets_as_many_times_the_noise(name, monkeypatch):
    found = {}
    for rows_per_unit in (1, 3):
        noise, sensitivities = Watched(), []

        def watched_choice(scores, *, sensitivity, epsilon, noise, kept=sensitivities):
            kept.append(sensitivity)
            return exponential_choice(scores, sensitivity=sensitivity, epsilon=epsilon, noise=noise)

        module = {"aim": aim, "bayesian_network": bayesian_network, "mst": mst}[name]
        monkeypatch.setattr(module, "exponential_choice", watched_choice)
        bought(name, dependent_codes(), noise=noise, rows_per_unit=rows_per_unit)
        found[rows_per_unit] = noise.stddevs[0], sensitivities[0]
    assert found[3] == pytest.approx(tuple(3 * value for value in found[1]))


def test_rounds_of_aim_never_cost_more_than_what_is_charged():
    noise, epsilons = Watched(), []
    choose = exponential_choice

    def watched_choice(scores, *, sensitivity, epsilon, noise):
        assert sensitivity == 1
        epsilons.append(epsilon)
        return choose(scores, sensitivity=sensitivity, epsilon=epsilon, noise=noise)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aim, "exponential_choice", watched_choice)
        *_, ledger, _ = bought("aim", dependent_codes(), noise=noise)
    charged = ledger.entries[0].event
    order = charged["order"]
    spent = sum(order / (2 * stddev**2) for stddev in noise.stddevs) + sum(order * e**2 / 8 for e in epsilons)
    assert len(epsilons) == len(noise.stddevs) >= 2
    assert spent == pytest.approx(charged["epsilon"], rel=1e-6) and spent <= charged["epsilon"] * (1 + 1e-9)
    measured = [{"kind": "gaussian", "noise_multiplier": stddev, "count": 1} for stddev in noise.stddevs]
    chosen = [{"kind": "exponential", "epsilon": epsilon, "count": 1} for epsilon in epsilons]
    exact = sum(float(renyi.divergences(event, (order,))[0]) for event in [*measured, *chosen])
    assert exact <= charged["epsilon"] * (1 + 1e-9)


@given(st.floats(0.5, 50.0), st.integers(2, 30), st.integers(1, 16), st.lists(st.booleans(), max_size=600))
def test_the_budget_of_rounds_is_used_up_and_never_passed(noise_multiplier, num_columns, rounds, answers):
    budget, spent, whole = aim.Budget(noise_multiplier, num_columns, rounds), 0.0, 1 / (2 * noise_multiplier**2)
    for is_fine in [*answers, *[False] * 60]:
        if not budget.is_left:
            break
        budget.start_round()
        spent += 1 / (2 * budget.stddev**2) + budget.epsilon**2 / 8
        assert spent <= whole * (1 + 1e-9)
        budget.end_round(is_fine=is_fine)
    assert not budget.is_left and spent == pytest.approx(whole, rel=1e-6)


# ---- the plan and the ledger


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_the_plan_spends_the_target(name, epsilon):
    plan = planned(name, epsilon)
    assert plan.levels == () and plan.num_steps == 0
    assert sum(release.share for release in plan.releases) == pytest.approx(1.0)
    spent = accounting.epsilon_of(plan.release_events, plan.delta)
    assert 0.995 * epsilon <= spent <= epsilon


@pytest.mark.parametrize("name", ["aim", "mst"])
def test_a_given_noise_multiplier_is_accounted_for(name):
    settings = settings_from_dict(
        {
            "model": {"name": name},
            "privacy": {"epsilon": None, "noise_multiplier": 5.0},
            "transform": {"edges": "public"},
        }
    )
    plan = make_plan(settings, SCHEMA)
    assert plan.epsilon == pytest.approx(accounting.epsilon_of(plan.release_events, plan.delta))
    assert [release.noise_multiplier * math.sqrt(release.share) for release in plan.releases] == pytest.approx(
        [5.0] * len(plan.releases)
    )


def test_choices_are_charged_by_the_divergence_of_their_exponential_mechanisms():
    release = Release("tree", 0.3, 7.0, "renyi", 13, 12.0)
    each = {"kind": "exponential", "epsilon": release.epsilon_each, "count": release.count}
    assert float(renyi.divergences(each, (12,))[0]) <= release.event["epsilon"] * (1 + 1e-9)


@pytest.mark.parametrize("name", BUY)
def test_every_look_is_charged_as_planned(name):
    _, plan, ledger, records = bought(name, dependent_codes())
    names = [release.name for release in plan.releases if release.name != "histograms"]
    assert [entry.name for entry in ledger.entries] == names
    assert {look.charged_as for look in records.openings} == set(names)
    assert [entry.event for entry in ledger.entries] == [plan.release(name).event for name in names]


# ---- what comes out


@pytest.mark.parametrize("name", BUY)
def test_dependent_columns_are_found(name):
    found, *_ = bought(name, dependent_codes(), epsilon=4.0)
    pairs = {frozenset(pair) for columns in found.tables for pair in itertools.combinations(columns, 2)}
    assert {frozenset({0, 1}), frozenset({1, 2})} <= pairs


def test_mst_measures_a_spanning_tree():
    found, *_ = bought("mst", dependent_codes(), epsilon=0.1)
    reached = {0}
    for _ in SIZES:
        reached |= {j for pair in found.tables if reached & set(pair) for j in pair}
    assert len(found.tables) == len(SIZES) - 1 and reached == set(range(len(SIZES)))


def test_parents_come_before_their_children():
    found, *_ = bought("bayesian_network", dependent_codes())
    known = {0}
    for columns in found.tables:
        assert set(columns[:-1]) <= known and columns[-1] not in known and len(columns) <= 3
        known.add(columns[-1])
    assert known == set(range(len(SIZES)))


def test_a_model_of_aim_stays_below_its_size_and_columns_alone_are_measured_where_no_pair_fits():
    limit = 8 * 13 / 2**20  # of columns alone 12 cells; with c0 and c1, or c0 and c3, together 13
    found, *_ = bought("aim", dependent_codes(), epsilon=50.0, model={"max_model_megabytes": limit})
    assert markov_field.model_megabytes(SIZES, list(found.tables)) <= limit
    assert {len(columns) for columns in found.tables} >= {1} and (1, 2) not in found.tables


@pytest.mark.parametrize("name", NAMES)
def test_the_generator_has_the_marginals_that_were_measured(name):
    codes = dependent_codes(size=20_000)
    one_way = one_way_of(codes)
    pairs = [(0, 1), (1, 2), (0, 3)]
    tables = {pair: Table(contingency(codes, SIZES, pair).astype(float), 1.0) for pair in pairs}
    generator = TABLE_GENERATORS[name](cardinalities=SIZES)
    marginals = Marginals(one_way.counts, one_way.stddev, tables)
    params = generator.calibrate(generator.init(jax.random.key(0)), marginals, jax.random.key(1))
    drawn = generator.sample(params, jax.random.key(2), len(codes), {})
    for pair in pairs:
        distance = 0.5 * np.abs(contingency(drawn, SIZES, pair) - contingency(codes, SIZES, pair)).sum() / len(codes)
        assert distance < 0.02
    if name in ("aim", "mst"):  # independent given column 1, as nothing else was measured
        table = marginal(params, (0, 1, 2))
        given = table / table.sum(axis=(0, 2), keepdims=True)
        np.testing.assert_allclose(given, given.sum(2, keepdims=True) * given.sum(0, keepdims=True), atol=2e-3)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=3, unique=True).map(tuple), min_size=1, max_size=6),
    st.integers(0, 2**31),
)
def test_a_field_and_its_network_are_one_distribution(scopes, seed):
    import mbi

    domain = mbi.Domain([str(j) for j in range(len(SIZES))], SIZES)
    cliques = [tuple(map(str, scope)) for scope in {tuple(sorted(scope)): scope for scope in scopes}.values()]
    cliques += [(str(j),) for j in range(len(SIZES)) if not any(str(j) in clique for clique in cliques)]
    rng = np.random.default_rng(seed)
    tables = {
        clique: mbi.Factor(domain.project(clique), rng.normal(size=domain.project(clique).shape)) for clique in cliques
    }
    field = SimpleNamespace(domain=domain, cliques=cliques, potentials=mbi.CliqueVector(domain, cliques, tables))
    joint = np.zeros(SIZES)
    for clique in cliques:
        aligned = [size if str(j) in clique else 1 for j, size in enumerate(SIZES)]
        inside = sorted(range(len(clique)), key=lambda axis: clique[axis])
        joint += np.asarray(tables[clique].values).transpose(inside).reshape(aligned)
    joint = np.exp(joint) / np.exp(joint).sum()
    network = markov_field.as_network(field)
    np.testing.assert_allclose(marginal(network, range(len(SIZES))), joint, rtol=1e-4, atol=1e-9)
    wider = [("0", "3", "2", "1")]
    started = markov_field._Start(field).expand(wider)
    again = markov_field.as_network(SimpleNamespace(domain=domain, cliques=wider, potentials=started))
    np.testing.assert_allclose(marginal(again, range(len(SIZES))), joint, rtol=1e-4, atol=1e-9)


def test_two_measurements_of_a_pair_are_averaged_by_precision():
    first, second = Table(np.array([[1.0, 3.0]]), 2.0), Table(np.array([[5.0, 3.0]]), 1.0)
    marginals = aim.with_table(aim.with_table(Marginals([], [], {}), (0, 1), first), (0, 1), second)
    table = marginals.tables[0, 1]
    np.testing.assert_allclose(table.counts, [[(1 + 4 * 5) / 5, 3.0]])
    assert table.stddev == pytest.approx(math.sqrt(0.8))


@pytest.mark.parametrize("name", NAMES)
def test_a_table_goes_in_and_a_table_comes_out(name):
    codes = dependent_codes(size=600)
    frame = pd.DataFrame({f"c{j}": np.array(list("abcd"))[codes[:, j]] for j in range(len(SIZES))})
    settings = {"model": SMALLER.get(name, {}), "transform": {"edges": "public"}}
    run = privsyn_jax.fit(frame, SCHEMA, model=name, epsilon=2.0, delta=1e-5, settings=settings)
    assert 1.9 < run.privacy["epsilon"] <= 2.0
    synthetic = run.sample(400, seed=1)
    assert list(synthetic) == list(frame) and len(synthetic) == 400
    assert (synthetic.c0 == synthetic.c1).mean() > 0.6


@pytest.mark.parametrize("name", NAMES)
def test_odd_columns_are_no_obstacle(name):
    rng, size = np.random.default_rng(0), 300
    frame = pd.DataFrame(
        {
            "constant": np.full(size, 7),
            "missing": np.full(size, None, object),
            "one_class": np.full(size, "a", object),
            "many": rng.choice([f"v{i}" for i in range(500)], size),
        }
    )
    schema = Schema(
        (
            Column("constant", "integer", lower=0, upper=10),
            Column("missing", "categorical", categories=("x", "y"), nullable=True),
            Column("one_class", "categorical", categories=("a", "b")),
            Column("many", "categorical", categories=tuple(f"v{i}" for i in range(500))),
        ),
        size,
        target="one_class",
    )
    settings = {"model": SMALLER.get(name, {}), "transform": {"edges": "public", "num_bins": 4}}
    run = privsyn_jax.fit(frame, schema, model=name, epsilon=5.0, delta=1e-4, settings=settings)
    synthetic = run.sample(100, seed=0)
    assert (synthetic.one_class == "a").mean() > 0.5 and synthetic.missing.isna().mean() > 0.5


@pytest.mark.parametrize("name", ["aim", "mst", "fitted_marginals"])
def test_columns_too_large_to_count_together_are_refused(name):
    with pytest.raises(ValueError, match="merge categories, lower"):
        TABLE_GENERATORS[name](cardinalities=(2, 10_000, 3_000))


def test_one_column_is_refused():
    with pytest.raises(UserError, match="schema has one column: use another generator"):
        planned("aim", schema=Schema(SCHEMA.columns[:1], 100))


def test_the_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "mbi", None)
    markov_field._mbi.cache_clear()
    with pytest.raises(UserError, match="install privsyn_jax with the extra marginals"):
        TABLE_GENERATORS["aim"](cardinalities=SIZES)
    markov_field._mbi.cache_clear()
