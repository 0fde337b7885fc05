"""Audits of purchases and votes: near their claims where all is right, above them where noise is missing."""

import dataclasses

import jax
import numpy as np
import pytest
from broken_steps import HalfHostNoise, with_half_the_noise_of_votes, with_two_votes_of_each_teacher
from scipy.special import log_softmax

from privsyn_jax.audit import audit
from privsyn_jax.audit_purchases import audit_purchases, public_tables, why_not
from privsyn_jax.audit_votes import audit_votes
from privsyn_jax.plan import make_plan
from privsyn_jax.privacy.noise import HostNoise
from privsyn_jax.privacy.release import exponential_choice
from privsyn_jax.privacy.replay import IMPOSSIBLE, Recorded, log_likelihood_ratio
from privsyn_jax.settings import settings_from_dict
from privsyn_jax.types import Column, ImageSchema, Schema, UserError

SCHEMA = Schema(
    (
        Column("age", "integer", lower=0, upper=99),
        Column("sex", "categorical", categories=("f", "m")),
        Column("town", "categorical", categories=("a", "b", "c"), nullable=True),
    ),
    1000,
    target="sex",
)
UNITS = dataclasses.replace(
    SCHEMA, columns=(Column("who", "id"), *SCHEMA.columns), unit_column="who", max_records_per_unit=3, num_units=1000
)
PATE = {"num_teachers": 6, "latent_dim": 4, "teacher_dims": (5,), "student_dims": (6,), "generator_dims": (8,)}


def chosen(name, epsilon=4.0, **sections):
    return settings_from_dict(
        {"model": {"name": name}, "privacy": {"epsilon": epsilon, "delta": 1e-5}, "transform": {"num_bins": 4}}
        | sections
    )


def votes(epsilon):
    few = {"num_steps": 2, "expected_batch_size": 24, "generator_batch_size": 8, "num_devices": 1}
    return chosen("pate_gan", epsilon, model={"name": "pate_gan", **PATE}, training=few)


# ---- likelihood of what was released


def test_a_gaussian_sum_has_the_likelihood_ratio_of_two_gaussians():
    records, others, seen = np.array([3.0, 1.0]), np.array([2.0, 1.5]), []

    def mechanism(values, noise):
        seen.append(values + noise.normal(values.shape, stddev=2.0))

    found = log_likelihood_ratio(mechanism, records, others, noise=HostNoise(4))
    np.testing.assert_array_equal(*seen)
    expected = (np.square(seen[0] - others) - np.square(seen[0] - records)).sum() / (2 * 2.0**2)
    assert found == (pytest.approx(expected), 0.0)
    np.testing.assert_array_equal(seen[0], records + HostNoise(4).normal((2,), stddev=2.0))


def test_a_choice_has_the_ratio_of_its_two_probabilities():
    records, others, taken = [0.0, 1.0, 3.0], [2.0, 0.0, 1.0], []

    def mechanism(scores, noise):
        taken.append(exponential_choice(scores, sensitivity=2.0, epsilon=1.5, noise=noise))

    for seed in range(8):
        taken.clear()
        found = log_likelihood_ratio(mechanism, records, others, noise=HostNoise(seed))
        assert taken[0] == taken[1]
        ratios = log_softmax(1.5 / 4 * np.array(records)) - log_softmax(1.5 / 4 * np.array(others))
        assert found == (0.0, pytest.approx(ratios[taken[0]]))


def test_what_depends_on_earlier_releases_goes_the_same_way():
    def mechanism(value, noise):
        first = np.array([value]) + noise.normal((1,), stddev=1.0)
        total = np.full(2 if first[0] > 0.5 else 3, value)
        return total + noise.normal(total.shape, stddev=3.0)

    for seed in range(10):
        heard = Recorded(HostNoise(seed))
        mechanism(1.0, heard)
        expected = sum(
            float((np.square(sum_.noisy) - np.square(sum_.noisy - 1.0)).sum() / (2 * sum_.stddev**2))
            for sum_ in heard.heard
        )
        assert log_likelihood_ratio(mechanism, 1.0, 0.0, noise=HostNoise(seed)).sums == pytest.approx(expected)


@pytest.mark.parametrize(
    "mechanism",
    [
        lambda size, noise: np.zeros(size) + noise.normal((size,), stddev=1.0),
        lambda size, noise: np.zeros(1) + noise.normal((1,), stddev=float(size)),
        lambda size, noise: [np.zeros(1) + noise.normal((1,), stddev=1.0) for _ in range(size)],
        lambda size, noise: np.zeros(1) + (noise.gumbel((1,)) if size == 2 else noise.normal((1,), stddev=1.0)),
    ],
)
@pytest.mark.parametrize("sizes", [(2, 3), (3, 2)])
def test_a_way_that_others_could_not_have_taken_gives_all_away(mechanism, sizes):
    assert log_likelihood_ratio(mechanism, *sizes, noise=HostNoise(0)) == (IMPOSSIBLE, IMPOSSIBLE)


def test_noise_that_hides_nothing_is_an_error():
    with pytest.raises(ValueError, match="drawn 1 times and added to something 0 times"):
        log_likelihood_ratio(lambda records, noise: noise.normal((3,), stddev=1.0), 1, 2, noise=HostNoise(0))
    with pytest.raises(TypeError):
        log_likelihood_ratio(lambda records, noise: 2 * noise.normal((3,), stddev=1.0), 1, 2, noise=HostNoise(0))


def test_noise_of_another_kind_is_an_error():
    for draw in (lambda noise: noise.uniform((2,)), lambda noise: noise.discrete_gaussian(1.0)):
        with pytest.raises(ValueError, match="neither normal nor Gumbel"):
            log_likelihood_ratio(lambda records, noise, draw=draw: draw(noise), 1, 2, noise=HostNoise(0))


# ---- purchases


@pytest.mark.parametrize(
    ("name", "epsilon", "schema"),
    [
        ("fitted_marginals", 4.0, SCHEMA),
        ("fitted_marginals", 4.0, UNITS),
        ("tvae", 20.0, SCHEMA),
        ("ctgan", 20.0, UNITS),
    ],
    ids=["pairs", "pairs of units", "columns", "columns of units"],
)
def test_right_purchases_come_near_their_claim_and_with_half_the_noise_exceed_it(name, epsilon, schema):
    settings = chosen(name, epsilon, training={"num_steps": 2, "expected_batch_size": 100})
    plan = make_plan(settings, schema)
    common = {"key": jax.random.key(1), "num_repeats": 300}
    (right,) = audit_purchases(settings, schema, plan, **common)
    assert not right.is_violated and right.lower_bound > 0.3 * right.claimed_epsilon
    assert audit_purchases(settings, schema, plan, make_noise=HalfHostNoise, **common)[0].is_violated
    assert right.name == ("the histogram that is bought" if name == "ctgan" else "what is bought")
    if name == "fitted_marginals":
        assert right.claimed_epsilon == pytest.approx(4.0, rel=1e-2)


class NoNoise(HostNoise):
    def normal(self, shape, *, stddev):
        return np.zeros(shape)


@pytest.mark.parametrize("name", ["bayesian_network", "mst"])
def test_choices_are_audited_and_counts_by_themselves(name):
    settings = chosen(name, epsilon=4.0)
    plan = make_plan(settings, SCHEMA)
    common = {"key": jax.random.key(1), "num_repeats": 300}
    counts, both = audit_purchases(settings, SCHEMA, plan, **common)
    assert not counts.is_violated and not both.is_violated
    assert 0.2 * counts.claimed_epsilon < counts.lower_bound
    assert counts.claimed_epsilon < both.claimed_epsilon == pytest.approx(4.0, rel=1e-2)
    counts, _ = audit_purchases(settings, SCHEMA, plan, make_noise=HalfHostNoise, **common)
    assert counts.is_violated


def test_both_together_are_found_without_noise():
    settings = chosen("mst", epsilon=1.0)
    common = {"key": jax.random.key(1), "num_repeats": 300, "make_noise": NoNoise}
    _, both = audit_purchases(settings, SCHEMA, make_plan(settings, SCHEMA), **common)
    assert both.is_violated


def test_the_canary_is_one_unit_with_all_its_rows():
    without, table = public_tables(chosen("mst"), UNITS)
    assert len(table) - len(without) == 3
    canary = table.iloc[len(without) :]
    assert len(canary.drop_duplicates()) == 1 and canary["who"].iloc[0] not in set(without["who"])
    assert without["who"].is_unique


# ---- votes


@pytest.mark.parametrize("relative", [True, False])
def test_a_right_vote_comes_near_its_claim_and_a_broken_one_exceeds_it(relative):
    settings = votes(8.0)
    settings = dataclasses.replace(settings, model={**settings.model, "votes_are_relative": relative})
    plan = make_plan(settings, SCHEMA)
    right = audit_votes(settings, plan, key=jax.random.key(2), num_repeats=1500)
    assert not right.is_violated and right.lower_bound > 0.5 * right.claimed_epsilon
    for alter in (with_half_the_noise_of_votes, with_two_votes_of_each_teacher):
        key = jax.random.key(2)
        assert audit_votes(settings, plan, key=key, alter=alter, num_repeats=1500).is_violated


# ---- all of a run


def test_what_takes_no_steps_is_audited_by_its_purchases():
    said: list[str] = []
    (result,) = audit(chosen("fitted_marginals"), SCHEMA, key=jax.random.key(0), num_purchases=60, announce=said.append)
    assert (
        result.name == "what is bought" and result.confidence == 0.95 and said == ["buying 60 times from public rows"]
    )


def test_votes_are_audited_beside_what_is_bought():
    said: list[str] = []
    options = {"num_purchases": 40, "num_repeats": 500, "announce": said.append}
    results = audit(votes(2.0), SCHEMA, key=jax.random.key(0), **options)
    assert [result.name for result in results] == ["what is bought", "one step of votes"]
    assert not any(result.is_violated for result in results) and results[0].confidence == pytest.approx(0.975)
    assert said == ["buying 40 times from public rows", "repeating one step of votes 100 times"]


def test_what_cannot_be_audited_is_said_in_a_sentence():
    with pytest.raises(UserError, match=r"'aim' cannot be audited: it takes no steps, and rounds that choose"):
        audit(chosen("aim"), SCHEMA, key=jax.random.key(0))
    images = ImageSchema((8, 8, 1), ("a", "b"), 1000)
    with pytest.raises(UserError, match=r"'class_gaussian' cannot be audited: .* audits of purchases are of tables"):
        audit(chosen("class_gaussian", transform={}), images, key=jax.random.key(0))
    unknown = dataclasses.replace(SCHEMA, columns=(*SCHEMA.columns, Column("job", "categorical")))
    assert "the categories of column 'job' are bought" in why_not(unknown, make_plan(chosen("tvae"), unknown))
