"""Sums of sparse vectors: sensitivity and noise. What is made of them: the distribution of words and of pairs."""

import math

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from privsyn_jax.models import word_statistics
from privsyn_jax.privacy.noise import HostNoise
from privsyn_jax.privacy.release import Counts, clipped_sparse_sum, sparse_sum
from privsyn_jax.transforms.tokens import END, PAD
from privsyn_jax.types import Tokens

NUM_TOKENS, NUM_CLASSES, LENGTH = 12, 2, 8
GUESS = word_statistics.public_log_frequencies(NUM_TOKENS, range(NUM_TOKENS))
STAGES = word_statistics.stages(NUM_TOKENS, NUM_CLASSES, GUESS, length=LENGTH, num_paired=NUM_TOKENS - 1)
START = {"private": {}, "public": word_statistics.initial(NUM_TOKENS, NUM_CLASSES, GUESS)}
ENTRIES = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 9), st.floats(-1e6, 1e6) | st.sampled_from([np.inf, np.nan, 1e-9])),
    max_size=40,
)


def counts_of(entries):
    record, index, value = zip(*entries, strict=True) if entries else ((), (), ())
    return Counts(np.array(record, np.int64), np.array(index, np.int64), np.array(value, np.float64))


def dense_sum(entries):
    vectors = np.zeros((5, 10))
    for record, index, value in entries:
        vectors[record, index] += value
    norms = np.linalg.norm(vectors, axis=1)
    scale = [min(1.0, 1.0 / norm) if norm > 0 else 1.0 for norm in norms]
    return sum(
        (vector * s for vector, s in zip(vectors, scale, strict=True) if np.isfinite(vector).all()), np.zeros(10)
    )


@given(ENTRIES)
@settings(deadline=None)
def test_a_sparse_sum_is_the_sum_of_dense_vectors_of_norm_at_most_one(entries):
    finite = [(r, i, v) for r, i, v in entries]
    with np.errstate(invalid="ignore"):
        expected = dense_sum(finite)
    np.testing.assert_allclose(clipped_sparse_sum(counts_of(entries), 10), expected, atol=1e-5)


@given(ENTRIES, st.lists(st.tuples(st.integers(0, 9), st.floats(-1e6, 1e6)), min_size=1, max_size=10))
@settings(deadline=None)
def test_one_record_moves_a_sparse_sum_by_at_most_one(entries, added):
    more = [*entries, *((5, index, value) for index, value in added)]
    moved = clipped_sparse_sum(counts_of(more), 10) - clipped_sparse_sum(counts_of(entries), 10)
    assert np.linalg.norm(moved) <= 1.0


@pytest.mark.parametrize("noise_multiplier", [0.5, 4.0])
def test_the_noise_of_a_sparse_sum_has_the_stated_scale(noise_multiplier):
    counts, size = counts_of([(0, 3, 1.0)]), 20_000
    noisy, stddev, event = sparse_sum(counts, size=size, noise_multiplier=noise_multiplier, noise=HostNoise(3))
    noise = (noisy - clipped_sparse_sum(counts, size)) / noise_multiplier
    assert stddev == noise_multiplier and event == {
        "kind": "gaussian",
        "noise_multiplier": noise_multiplier,
        "count": 1,
    }
    assert kstest(noise, "norm").pvalue > 1e-4 and abs(noise.std() - 1) < 5 / math.sqrt(2 * size)


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_one_text_moves_a_stage_by_at_most_one_and_no_other_text_matters(stage):
    texts = some_texts(50, seed=0)
    fewer = Tokens(texts.ids[:-1], texts.labels[:-1])
    moved = clipped_sparse_sum(stage.count(START, texts), stage.size) - clipped_sparse_sum(
        stage.count(START, fewer), stage.size
    )
    alone = clipped_sparse_sum(stage.count(START, Tokens(texts.ids[-1:], texts.labels[-1:])), stage.size)
    np.testing.assert_allclose(moved, alone, atol=1e-9)
    assert 0.5 < np.linalg.norm(alone) <= 1.0


def some_texts(num_texts, *, seed):
    """Texts of a chain: word w is followed by w + 1 half of the time; class 1 likes word 5."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, num_texts).astype(np.int32)
    words = np.zeros((num_texts, LENGTH), np.int32)
    for position in range(LENGTH):
        drawn = rng.choice(np.arange(END, NUM_TOKENS), num_texts, p=np.r_[0.1, np.full(10, 0.09)])
        drawn = np.where((labels == 1) & (rng.random(num_texts) < 0.2), 5, drawn)
        if position:
            before = words[:, position - 1]
            goes_on = (rng.random(num_texts) < 0.5) & (before > END) & (before < NUM_TOKENS - 1)
            drawn = np.where(goes_on, before + 1, drawn)
            drawn = np.where((before == END) | (before == PAD), PAD, drawn)
        words[:, position] = drawn
    return Tokens(words, labels)


def absorbed(texts, noise_multiplier, seed=0):
    params = START
    for number, stage in enumerate(STAGES):
        noisy, stddev, _ = sparse_sum(
            stage.count(params, texts),
            size=stage.size,
            noise_multiplier=noise_multiplier,
            noise=HostNoise(10 * seed + number),
        )
        params = stage.absorb(params, noisy, stddev, jax.random.key(0))
    return {name: np.asarray(table, np.float64) for name, table in params["public"].items()}


def test_without_noise_words_and_pairs_are_those_of_the_texts():
    texts = some_texts(30_000, seed=1)
    found = absorbed(texts, 1e-3)
    shares = np.bincount(texts.ids[texts.ids != PAD], minlength=NUM_TOKENS) / (texts.ids != PAD).sum()
    np.testing.assert_allclose(np.exp(found["words"]).mean(axis=0)[END:], shares[END:], rtol=0.05)
    by_class = [np.bincount(texts.ids[texts.labels == label].ravel(), minlength=NUM_TOKENS) for label in range(2)]
    liked = np.log(by_class[1] / by_class[1][END:].sum()) - np.log(by_class[0] / by_class[0][END:].sum())
    # Classes are told apart by the presence of words, which saturates in texts of a few words.
    assert 0.4 * liked[5] < found["words"][1, 5] - found["words"][0, 5] < liked[5]
    logits = found["words"].mean(axis=0)[None] + found["pairs"]
    after = np.exp(logits - logits.max(axis=1, keepdims=True))
    after /= after.sum(axis=1, keepdims=True)
    before, following = texts.ids[:, :-1].ravel(), texts.ids[:, 1:].ravel()
    seen = following != PAD
    table = np.zeros((NUM_TOKENS, NUM_TOKENS))
    np.add.at(table, (before[seen], following[seen]), 1)
    shares = table[2:-1] / table[2:-1].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(after[2 : NUM_TOKENS - 1], shares, atol=0.03)
    first = np.bincount(texts.ids[:, 0], minlength=NUM_TOKENS) / len(texts.ids)
    np.testing.assert_allclose(after[NUM_TOKENS], first, atol=0.03)


def test_with_much_noise_the_public_guess_is_left():
    found = absorbed(some_texts(200, seed=2), 1e6)
    ratio = found["words"][:, END:] - GUESS[None, END:]
    assert np.abs(ratio - ratio.mean()).max() < 5 and np.isfinite(found["words"]).all()
    assert np.abs(found["words"][0] - found["words"][1]).max() < 1.0
    assert np.isfinite(found["pairs"]).all()


def test_pairs_without_dependence_stay_at_zero():
    rng = np.random.default_rng(3)
    ids = rng.integers(2, NUM_TOKENS, (3000, LENGTH)).astype(np.int32)
    found = absorbed(Tokens(ids, rng.integers(0, 2, 3000).astype(np.int32)), 20.0)
    assert (found["pairs"][2:NUM_TOKENS, 2:] == 0).mean() > 0.95


def test_noise_costs_accuracy_by_degrees():
    texts = some_texts(5_000, seed=4)
    exact = absorbed(texts, 1e-3)
    errors = []
    for noise_multiplier in (1.0, 30.0, 300.0):
        found = absorbed(texts, noise_multiplier)
        p, q = np.exp(exact["words"][1]), found["words"][1]
        errors.append(float((p[END:] * (exact["words"][1] - q)[END:]).sum()))
    assert errors[0] < 0.01 and errors[0] < errors[1] < errors[2]


def test_word_vectors_tell_apart_what_follows_and_what_class_likes_a_word():
    found = absorbed(some_texts(30_000, seed=5), 1e-3)
    vectors = word_statistics.factors(found, 3)
    assert vectors.shape == (NUM_TOKENS + 1, 7) and vectors.dtype == np.float32
    np.testing.assert_allclose(vectors.std(axis=0), 1.0, atol=1e-5)
    assert vectors[:NUM_TOKENS, -1].argmax() == 5
    np.testing.assert_array_equal(vectors, word_statistics.factors(found, 3))


def test_a_public_guess_falls_with_the_rank():
    guess = np.exp(word_statistics.public_log_frequencies(4, [9, 0, 2, 1]))
    assert guess[1] > guess[3] > guess[2] and guess.sum() == pytest.approx(1.0, abs=1e-9) and guess[PAD] < 1e-12
