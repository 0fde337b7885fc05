"""Attacks on generators given as functions: power on one that copies, none on one that looks at nobody."""

import itertools

import jax
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from privsyn_jax.evaluation.attacks import generator_level
from privsyn_jax.evaluation.attacks.generator_level import (
    attack_function,
    choose_targets,
    make_design,
    membership_scores,
)
from privsyn_jax.evaluation.attacks.set_features import SetFeatures, draw_queries, set_features, set_levels
from privsyn_jax.evaluation.encode import encode_table
from privsyn_jax.types import Column, Schema, UserError

SCHEMA = Schema(
    columns=(
        Column("id", "id"),
        Column("age", "integer", lower=0, upper=99),
        Column("height", "numeric", lower=0.0, upper=1.0),
        Column("color", "categorical", categories=("red", "green", "blue", "grey")),
        Column("size", "ordinal", categories=("S", "M", "L", "XL", "XXL", "3XL")),
        Column("is_new", "boolean"),
    ),
    num_records=100,
)  # fmt: skip


def population(num_rows: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    color = rng.choice(4, num_rows, p=[0.6, 0.3, 0.09, 0.01])
    return pd.DataFrame({
        "id": np.arange(num_rows),
        "age": np.clip(rng.normal(40 + 10 * color, 12), 0, 99).astype(np.int64),
        "height": rng.beta(2, 5, num_rows),
        "color": np.array(SCHEMA["color"].categories, object)[color],
        "size": rng.choice(np.array(SCHEMA["size"].categories, object), num_rows, p=[0.4, 0.3, 0.2, 0.06, 0.03, 0.01]),
        "is_new": rng.random(num_rows) < 0.3,
    })  # fmt: skip


def rng_of(key):
    return np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())


def copies(records, key):
    return records.sample(len(records), replace=True, random_state=rng_of(key)).reset_index(drop=True)


def ignores(records, key):
    return population(len(records), seed=int(rng_of(key).integers(2**31)))


def independent_columns(records, key):
    rng = rng_of(key)
    return pd.DataFrame({name: rng.permutation(records[name]) for name in records})


def attack(synthesize, *, num_shadows=16, num_records=100, seed=0, **numbers):
    keys = jax.random.split(jax.random.key(seed))
    auxiliary = population(2000)
    targets = choose_targets(SCHEMA, auxiliary, key=keys[0], **numbers)
    return attack_function(
        synthesize, SCHEMA, auxiliary, targets, num_shadows=num_shadows, num_records=num_records, key=keys[1]
    )


def whole(records, key):
    """Hands out its training set."""
    del key
    return records


def test_a_generator_that_copies_is_caught_for_every_kind_of_target():
    results = attack(whole, num_shadows=24)
    assert [result.name.split()[2] for result in results] == ["random", "outlier", "canary"]
    for result in results:
        assert result.is_detected and result.metrics["auc"].value >= 0.9
        assert result.num_members == result.num_controls == 12 // 2 * 10
    resampled = attack(copies, num_shadows=24)  # each record is left out with probability 1/e
    assert all(result.is_detected and result.metrics["auc"].value >= 0.7 for result in resampled)


def test_a_generator_that_looks_at_nobody_is_cleared():
    """Fails if a test shadow trained the classifier: that one knows the labels."""
    results = attack(ignores, num_shadows=32, seed=3)
    for result in results:
        assert not result.is_detected and "no detectable advantage" in result.verdict
        assert result.metrics["auc"].low < 0.5 < result.metrics["auc"].high


def test_an_attack_on_shadows_that_trained_it_would_find_what_is_not_there():
    rng = np.random.default_rng(0)
    features = SetFeatures(
        {name: rng.normal(size=(16, 200)).astype(np.float32) for name in ("naive", "histogram", "correlation")},
        rng.normal(size=(16, 8, 64)).astype(np.float32),
    )
    is_member, is_test = rng.random((16, 8)) < 0.5, np.arange(16) % 2 == 1
    honest = membership_scores(features, is_member, is_test)
    area = roc_auc_score(is_member[is_test].ravel(), honest.ravel())
    assert abs(area - 0.5) < 5 * np.sqrt(1 / (12 * 32) * 2)
    twice = SetFeatures(
        {name: np.concatenate([f, f]) for name, f in features.general.items()},
        np.concatenate([features.queries, features.queries]),
    )  # the second half are the first half again
    cheated = membership_scores(twice, np.concatenate([is_member, is_member]), np.arange(32) >= 16)
    assert roc_auc_score(is_member.ravel(), cheated.ravel()) > 0.9


def test_repeats_by_key():
    first, second, other = (attack(copies, num_shadows=8, num_random=2, seed=seed) for seed in (1, 1, 2))
    assert first == second and first != other


def test_every_target_is_in_half_of_the_shadows_of_either_part():
    auxiliary, keys = population(500), jax.random.split(jax.random.key(0))
    targets = choose_targets(SCHEMA, auxiliary, num_random=3, num_outliers=2, num_canaries=2, key=keys[0])
    design = make_design(SCHEMA, auxiliary, targets, num_shadows=16, num_records=50, key=keys[1])
    assert (design.is_member[design.is_test].sum(0) == 4).all() and (
        design.is_member[~design.is_test].sum(0) == 4
    ).all()
    assert len({tuple(column) for column in design.is_member.T}) == 7  # drawn anew for each
    rows = [tuple(row) for row in targets.records.itertuples(index=False)]
    for table, held in zip(design.tables, design.is_member, strict=True):
        assert len(table) == 50 and (table.dtypes == auxiliary.dtypes).all()
        present = {tuple(row) for row in table.itertuples(index=False)}
        assert [row in present for row in rows] == held.tolist()


def test_outliers_are_rarer_than_others_and_canaries_are_within_the_public_domain():
    auxiliary = population(1000)
    targets = choose_targets(SCHEMA, auxiliary, num_random=50, num_outliers=20, num_canaries=30, key=jax.random.key(0))
    assert len(set(targets.rows[:70])) == 70 and (targets.rows[70:] == -1).all()
    shares = [auxiliary.groupby(name)[name].transform("size").to_numpy() for name in ("color", "size", "is_new")]
    rarity = np.sum(np.log(shares), axis=0)
    assert rarity[targets.rows[50:70]].mean() < rarity.mean() - 2 * rarity.std()
    assert abs(rarity[targets.rows[:50]].mean() - rarity.mean()) < rarity.std()
    canaries = targets.records.iloc[70:]
    assert canaries["age"].between(0, 99).all() and canaries["height"].between(0, 1).all()
    assert set(canaries["color"]) == set(SCHEMA["color"].values)
    assert (targets.records.dtypes == auxiliary.dtypes).all()


def test_features_are_what_numpy_and_pandas_count():
    auxiliary, rng = population(400), np.random.default_rng(0)
    levels, targets = set_levels(SCHEMA, auxiliary), auxiliary.iloc[:3]
    queries = draw_queries(5, 20, rng)
    assert queries[0].all() and queries.any(axis=1).all()
    sets = [population(300, seed=1), population(270, seed=2)]
    found = set_features(SCHEMA, levels, sets, targets, queries)
    target_codes = encode_table(levels, targets).codes
    for number, frame in enumerate(sets):
        encoded = encode_table(levels, frame.iloc[:270])
        for (t, target), (q, query) in itertools.product(enumerate(target_codes), enumerate(queries)):
            share = (encoded.codes == target)[:, query].all(axis=1).mean()
            assert found.queries[number, t, q] == pytest.approx(share, abs=1e-6)
        numbers = encoded.scaled[:, :2]
        np.testing.assert_allclose(found.general["naive"][number, :2], numbers.mean(0), atol=1e-5)
        np.testing.assert_allclose(found.general["naive"][number, 5:7], numbers.std(0), atol=1e-5)
        correlation = np.corrcoef(numbers.T)[0, 1]
        assert found.general["correlation"][number, 0] == pytest.approx(correlation, abs=1e-4)
        assert found.general["histogram"][number].sum() == pytest.approx(5, abs=1e-4)


def test_bad_synthetic_sets_give_values_or_one_sentence():
    def strange(records, key):
        made = copies(records, key)
        made["height"] = np.nan
        made["color"] = "mauve"
        made["extra"] = 1
        return made.iloc[:10]

    results = attack(strange, num_shadows=8, num_random=2, num_outliers=2, num_canaries=2)
    assert all(np.isfinite(interval).all() for result in results for interval in result.metrics.values())
    with pytest.raises(UserError, match="the synthetic records lack the column 'color'"):
        attack(lambda records, key: records.drop(columns="color"), num_shadows=8)
    with pytest.raises(UserError, match="a synthetic set has no rows"):
        attack(lambda records, key: records.iloc[:0], num_shadows=8)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"num_shadows": 4}, "4 shadow generators for 30 targets: give at least 8"),
        ({"num_records": 20}, "cannot be trained on 20 records each"),
        ({"num_records": 5000}, "cannot be trained on 5000 records each"),
        ({"num_random": 3000}, "ask for fewer"),
    ],
)
def test_impossible_attacks_are_refused(numbers, message):
    with pytest.raises(UserError, match=message):
        attack(ignores, **numbers)


@pytest.mark.slow
def test_a_generator_without_a_leak_is_rarely_accused():
    """At most 5 % of results, by Bonferroni; the binomial of 60 results of independent attacks."""
    accused = [result.is_detected for seed in range(20) for result in attack(ignores, num_shadows=16, seed=100 + seed)]
    assert sum(accused) <= 60 * 0.05 + 4 * np.sqrt(60 * 0.05 * 0.95)


def test_independent_columns_give_outliers_away_less_than_copies_do():
    numbers = {"num_shadows": 24, "num_random": 0, "num_canaries": 0, "seed": 5}
    (independent,), (copied,) = attack(independent_columns, **numbers), attack(whole, **numbers)
    assert independent.metrics["auc"].value < copied.metrics["auc"].value
    assert generator_level.FEWEST_SHADOWS <= 24
