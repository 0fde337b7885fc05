"""Poisson sampling: the distribution that the accountant assumes, and nothing truncated."""

import functools
import math

import jax
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from privsyn_jax.privacy.sampling import POISSON, Sampler, exact_sampling_rate, first_rows, sampling_threshold

ROWS, CAPACITY, TRIALS = 40, 48, 20_000
RATE = exact_sampling_rate(8, ROWS)
STANDARD_ERRORS = 5.0


@functools.partial(jax.jit, static_argnames=("rows", "rate", "capacity", "trials"))
def draw(key, *, rows=ROWS, rate=RATE, capacity=CAPACITY, trials=TRIALS):
    def batch(step):
        batch_key, threshold = jax.random.fold_in(key, step), sampling_threshold(rate)
        drawn = POISSON.draw(key, step, batch_key, num_rows=rows, threshold=threshold)
        return first_rows(drawn, capacity=capacity)

    return jax.vmap(batch)(jax.numpy.arange(trials))


def membership(indices, sizes, rows=ROWS) -> np.ndarray:
    """Bool [trials, rows]: whether a row was drawn."""
    indices, sizes = np.asarray(indices), np.asarray(sizes)
    member = np.zeros((len(sizes), rows), bool)
    trial, place = np.nonzero(np.arange(indices.shape[1]) < sizes[:, None])
    member[trial, indices[trial, place]] = True
    return member


def surprises(member: np.ndarray, rate: float) -> dict[str, float]:
    """How far a membership matrix lies from independent coins of this rate, in standard errors."""
    trials, rows = member.shape
    sizes = member.sum(axis=1)
    variance = rows * rate * (1 - rate)
    fourth = variance * (1 + 3 * (rows - 2) * rate * (1 - rate))  # fourth central moment of the binomial
    centred = (member - rate) / math.sqrt(rate * (1 - rate))
    pairs = (centred.T @ centred / trials)[np.triu_indices(rows, 1)]
    following = (centred[1:] * centred[:-1]).mean(axis=0)
    expected = trials * scipy.stats.binom.pmf(np.arange(rows + 1), rows, rate)
    kept = expected > 10
    chi_square = np.sum((np.bincount(sizes, minlength=rows + 1)[kept] - expected[kept]) ** 2 / expected[kept])
    return {
        "inclusion": np.abs(centred.mean(axis=0)).max() * math.sqrt(trials),
        "mean size": abs(sizes.mean() - rows * rate) / math.sqrt(variance / trials),
        "size variance": abs(sizes.var() - variance) / math.sqrt((fourth - variance**2) / trials),
        "size distribution": scipy.stats.norm.isf(scipy.stats.chi2.sf(chi_square, kept.sum() - 1)),
        "two records": np.abs(pairs).max() * math.sqrt(trials),
        "two steps": np.abs(following).max() * math.sqrt(trials),
    }


def surprising(member: np.ndarray, rate: float) -> set[str]:
    return {name for name, size in surprises(member, rate).items() if not size < STANDARD_ERRORS}


def test_records_are_independent_coins_in_every_step():
    assert surprising(membership(*draw(jax.random.key(0))), RATE) == set()


def test_a_wrong_sampler_is_seen():
    rng = np.random.default_rng(0)
    expected = round(ROWS * RATE)
    without_replacement = rng.permuted(np.tile(np.arange(ROWS) < expected, (TRIALS, 1)), axis=1)
    assert {"size variance", "size distribution"} <= surprising(without_replacement, RATE)
    off = rng.random((TRIALS, ROWS)) < 1.1 * RATE
    assert {"inclusion", "mean size", "size distribution"} <= surprising(off, RATE)
    households = np.repeat(rng.random((TRIALS, ROWS // 2)) < RATE, 2, axis=1)
    assert {"two records", "size variance"} <= surprising(households, RATE)
    same_key = np.repeat(rng.random((TRIALS // 2, ROWS)) < RATE, 2, axis=0)
    assert {"two steps"} <= surprising(same_key, RATE)


def test_indices_are_the_drawn_rows_once_each_then_zeros():
    indices, sizes = map(np.asarray, draw(jax.random.key(1), trials=500))
    assert indices.dtype == np.int32 and indices.shape == (500, CAPACITY)
    for row, size in zip(indices, sizes, strict=True):
        drawn = row[:size]
        assert np.all(np.diff(drawn) > 0) and np.all((drawn >= 0) & (drawn < ROWS))
        assert not row[size:].any()


@pytest.mark.parametrize("capacity", [ROWS, CAPACITY])
def test_rate_one_takes_everyone(capacity):
    indices, sizes = draw(jax.random.key(2), rate=1.0, capacity=capacity, trials=3)
    assert np.all(np.asarray(sizes) == ROWS)
    assert np.array_equal(np.asarray(indices)[:, :ROWS], np.tile(np.arange(ROWS), (3, 1)))


def test_nothing_is_truncated_just_below_rate_one():
    member = membership(*draw(jax.random.key(3), rate=1 - 2.0**-32, capacity=ROWS, trials=100))
    assert member.all()  # a row is left out with probability 1e-6 in all


def test_a_small_rate_gives_empty_batches_with_their_probability():
    rate = exact_sampling_rate(1, ROWS)
    _, sizes = draw(jax.random.key(4), rate=rate)
    expected = (1 - rate) ** ROWS
    error = math.sqrt(expected * (1 - expected) / TRIALS)
    assert abs(np.mean(np.asarray(sizes) == 0) - expected) < STANDARD_ERRORS * error


def test_a_capacity_that_could_truncate_is_refused():
    with pytest.raises(ValueError, match="capacity 39 is smaller than the 40 rows"):
        first_rows(np.zeros(ROWS, bool), capacity=ROWS - 1)


@settings(deadline=None)
@given(st.integers(1, 10**9), st.floats(1e-9, 1.0))
def test_the_exact_rate_is_a_multiple_of_two_to_minus_32_and_never_above_the_request(num_records, share):
    expected_batch_size = share * num_records
    rate = exact_sampling_rate(expected_batch_size, num_records)
    assert float(rate * 2**32).is_integer() and 0 < rate <= 1
    assert rate <= max(share * (1 + 1e-12), 2.0**-32)
    assert rate > share - 2.0**-32 - 1e-12


@pytest.mark.parametrize("expected_batch_size", [0, -1, 101, math.nan, math.inf])
def test_an_impossible_batch_is_refused(expected_batch_size):
    with pytest.raises(ValueError, match="expected_batch_size"):
        exact_sampling_rate(expected_batch_size, 100)


@pytest.mark.parametrize("rate", [0.0, 1.1, 0.3, math.nan])
def test_a_rate_that_cannot_be_drawn_exactly_is_refused(rate):
    with pytest.raises(ValueError, match=r"must be a positive multiple of 2\^-32"):
        sampling_threshold(rate)


def groups_drawn(num_groups, rate, num_steps, rows=2_000, seed=0):
    """Bool [num_steps, rows]: the batches of one run."""
    sampler, key = Sampler(num_groups), jax.random.key(seed)
    draw = jax.jit(
        lambda step: sampler.draw(
            key, step, jax.random.fold_in(key, step), num_rows=rows, threshold=sampling_threshold(rate)
        )
    )
    return np.stack([np.asarray(draw(jax.numpy.int32(step))) for step in range(num_steps)])


@pytest.mark.parametrize(("num_groups", "rate"), [(3, 0.5), (4, 1.0), (7, 2.0**-3)])
def test_a_record_takes_part_in_steps_that_are_whole_cycles_apart_and_as_often_as_is_charged(num_groups, rate):
    num_steps = 2 * num_groups + 1
    drawn = groups_drawn(num_groups, rate, num_steps)
    steps, records = np.nonzero(drawn)
    group = np.full(drawn.shape[1], -1)
    group[records] = steps % num_groups
    assert np.all(group[records] == steps % num_groups)
    charged = Sampler(num_groups).event(sampling_rate=rate, noise_multiplier=1.0, first_step=0, num_steps=num_steps)
    assert drawn.sum(axis=0).max() <= charged["count"] == 3
    if rate == 1.0:  # a partition: everyone once in every cycle
        assert np.all(drawn[:num_groups].sum(axis=0) == 1) and charged["kind"] == "gaussian"
        sizes = np.bincount(group, minlength=num_groups)
        spread = math.sqrt(len(group) * (1 / num_groups) * (1 - 1 / num_groups))
        assert np.all(np.abs(sizes - len(group) / num_groups) < STANDARD_ERRORS * spread)
    else:
        mean, count = drawn.mean() * num_groups, drawn.size / num_groups
        assert abs(mean - rate) < STANDARD_ERRORS * math.sqrt(rate * (1 - rate) / count) + 3 / math.sqrt(drawn.shape[1])


def test_adding_a_record_moves_no_other():
    assert np.array_equal(groups_drawn(5, 0.5, 5, rows=64), groups_drawn(5, 0.5, 5, rows=64))
    assert not np.array_equal(groups_drawn(5, 0.5, 5, rows=64), groups_drawn(5, 0.5, 5, rows=64, seed=1))


@given(st.integers(1, 9), st.lists(st.integers(1, 20), min_size=1, max_size=6))
def test_charges_of_blocks_add_up_to_the_charge_of_the_run(num_groups, blocks):
    sampler, done, total = Sampler(num_groups), 0, 0
    for block in blocks:
        event = sampler.event(sampling_rate=0.5, noise_multiplier=1.0, first_step=done, num_steps=block)
        total, done = total + (event["count"] if event else 0), done + block
    whole = sampler.event(sampling_rate=0.5, noise_multiplier=1.0, first_step=0, num_steps=done)
    assert total == whole["count"] == -(-done // num_groups)
