"""Sums of sparse vectors: sensitivity and noise. What is made of them: the distribution of words and of pairs."""

import functools
import math

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import kstest

from privsyn_jax.models import ngram
from privsyn_jax.models.word_counts import end_log_ratios
from privsyn_jax.models.word_pairs import END_HEAD
from privsyn_jax.models.word_statistics import word_statistics
from privsyn_jax.privacy.noise import HostNoise
from privsyn_jax.privacy.release import Counts, clipped_sparse_sum, sparse_sum
from privsyn_jax.transforms.tokens import END, PAD
from privsyn_jax.types import Tokens

NUM_TOKENS, NUM_CLASSES, LENGTH = 12, 2, 8
FREQUENCIES = (0.0, 0.06, *(1 / (2 + rank) for rank in range(NUM_TOKENS - 2)))
KINDS = (0,) * 7 + (1,) * 5
ALONE = word_statistics(FREQUENCIES, KINDS, NUM_CLASSES, LENGTH, NUM_TOKENS, vectors_dim=3)
SHARED = word_statistics(FREQUENCIES, KINDS, NUM_CLASSES, LENGTH, 5, vectors_dim=3)
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


WORDS = pytest.mark.parametrize("words", [ALONE, SHARED], ids=["alone", "shared"])
TEXTS = st.lists(
    st.tuples(st.lists(st.integers(2, NUM_TOKENS - 1), max_size=LENGTH), st.integers(0, NUM_CLASSES - 1)),
    min_size=1,
    max_size=6,
)


def start_of(words):
    return {"private": {}, "public": words.initial()}


def tokens_of(texts):
    ids = [([*text, END] if len(text) < LENGTH else text) + [PAD] * (LENGTH - 1 - len(text)) for text, _ in texts]
    return Tokens(np.array(ids, np.int32), np.array([label for _, label in texts], np.int32))


def total_of(stage, params, texts):
    return clipped_sparse_sum(stage.count(params, texts), stage.size)


def some_texts(num_texts, *, seed, class_likes=5, goes_on=0.5):
    """Texts of a chain: word w is followed by w + 1 half of the time; class 1 likes word 5."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, num_texts).astype(np.int32)
    words = np.zeros((num_texts, LENGTH), np.int32)
    for position in range(LENGTH):
        drawn = rng.choice(np.arange(END, NUM_TOKENS), num_texts, p=np.r_[0.1, np.full(10, 0.09)])
        if class_likes:
            drawn = np.where((labels == 1) & (rng.random(num_texts) < 0.2), class_likes, drawn)
        if position:
            before = words[:, position - 1]
            is_next = (rng.random(num_texts) < goes_on) & (before > END) & (before < NUM_TOKENS - 1)
            drawn = np.where(is_next, before + 1, drawn)
            drawn = np.where((before == END) | (before == PAD), PAD, drawn)
        words[:, position] = drawn
    return Tokens(words, labels)


def absorbed(words, texts, noise_multiplier, seed=0):
    params = start_of(words)
    for number, stage in enumerate(words.stages()):
        noisy, stddev, _ = sparse_sum(
            stage.count(params, texts),
            size=stage.size,
            noise_multiplier=noise_multiplier,
            noise=HostNoise(10 * seed + number),
        )
        params = stage.absorb(params, noisy, stddev, jax.random.key(0))
    return tables_of(params)


def tables_of(params):
    return {
        name: np.asarray(table, np.int64 if table.dtype == np.int32 else np.float64)
        for name, table in params["public"].items()
    }


def after_heads(public):
    """p(head | head before, class) [num_classes, num_heads + 1, num_heads]."""
    return softmax(public["by_class"][:, None] + public["pairs"][None], axis=-1)


def of_heads(public):
    """p(head | class) [num_classes, num_heads], of released words."""
    probabilities = np.where(np.arange(NUM_TOKENS) == PAD, 0.0, np.exp(public["words"]))
    num_heads = public["by_class"].shape[1]
    return np.stack([np.bincount(public["heads"], row, num_heads) for row in probabilities])


def assert_finite(public):
    assert all(np.isfinite(table).all() for table in public.values())


@WORDS
@pytest.mark.parametrize("number", [0, 1], ids=["words by class", "pairs of words"])
@given(TEXTS, st.booleans())
@settings(deadline=None, max_examples=60)
def test_one_text_moves_a_stage_by_at_most_one_and_no_other_text_matters(words, number, texts, starts):
    stage, params = words.stages()[number], start_of(words) if starts else {"public": after_much_noise(words)}
    tokens = tokens_of(texts)
    fewer = Tokens(tokens.ids[:-1], tokens.labels[:-1])
    moved = total_of(stage, params, tokens) - total_of(stage, params, fewer)
    alone = total_of(stage, params, Tokens(tokens.ids[-1:], tokens.labels[-1:]))
    np.testing.assert_allclose(moved, alone, atol=1e-9)
    assert 0.02 < np.linalg.norm(alone) <= 1.0


@functools.cache
def after_much_noise(words):
    """Tables whose heads are not those of the public guess."""
    params = start_of(words)
    stage = words.stages()[0]
    noisy = np.random.default_rng(0).normal(size=stage.size) * 10.0 + 20.0
    public = stage.absorb(params, noisy, 1.0, jax.random.key(0))["public"]
    if words.num_alone < NUM_TOKENS - 1:
        assert not np.array_equal(public["heads"], params["public"]["heads"])
    return public


@WORDS
@pytest.mark.parametrize("token", [2, NUM_TOKENS - 1])
def test_a_text_of_one_repeated_word_moves_a_stage_by_at_most_one(words, token):
    texts = tokens_of([([token] * LENGTH, 1)])
    for stage in words.stages():
        counts = stage.count(start_of(words), texts)
        assert 0.3 < np.linalg.norm(total_of(stage, start_of(words), texts)) <= 1.0
        assert len(counts.record) == len(counts.index) == len(counts.value) and np.max(counts.index) < stage.size


def test_pairs_of_words_that_share_heads_fall_on_one_cell():
    _, stage = SHARED.stages()
    rare, params = [9, 10, 11, 10, 9, 11, 11, 10], start_of(SHARED)
    varied, repeated = (total_of(stage, params, tokens_of([(text, 0)])) for text in (rare, [9] * LENGTH))
    np.testing.assert_array_equal(varied, repeated)
    assert np.count_nonzero(varied[:-2]) == 2 and 0.99 < np.linalg.norm(varied) <= 1.0  # it is cut


def test_the_stages_cost_what_is_left_to_share():
    assert [stage.name for stage in SHARED.stages()] == ["words by class", "pairs of words"]
    assert sum(stage.share for stage in SHARED.stages()) == pytest.approx(1.0)
    unpaired = word_statistics(FREQUENCIES, KINDS, NUM_CLASSES, LENGTH, 5, has_pairs=False)
    assert [stage.share for stage in unpaired.stages()] == [1.0]


@WORDS
@given(st.integers(0, 10**6), st.sampled_from([0.01, 1.0, 30.0, 1e4]))
@settings(deadline=None, max_examples=25)
def test_every_word_has_one_head_and_heads_of_their_own_are_those_of_frequent_words(words, seed, noise_multiplier):
    public = absorbed(words, some_texts(300, seed=seed), noise_multiplier, seed)
    heads, alone = public["heads"], public["alone"]
    assert heads[END] == END_HEAD and alone[END_HEAD] == END and PAD not in alone
    np.testing.assert_array_equal(heads[alone], np.arange(words.num_alone))
    others = np.setdiff1d(np.arange(END, NUM_TOKENS), alone)
    np.testing.assert_array_equal(heads[others], words.num_alone + np.asarray(KINDS)[others])
    frequencies = np.exp(public["words"]).mean(axis=0)
    if len(others):
        assert frequencies[alone[1:]].min() >= frequencies[others].max()
    assert (np.diff(frequencies[alone[1:]]) <= 0).all()
    members = np.where(np.arange(NUM_TOKENS) == PAD, 0.0, np.exp(public["members"]))
    for row, of_head, released in zip(members, of_heads(public), public["words"], strict=True):
        sums = np.bincount(heads, row, words.num_heads)
        np.testing.assert_allclose(sums[np.unique(heads[END:])], 1.0, atol=1e-4)
        np.testing.assert_allclose(row * of_head[heads], np.exp(released), atol=1e-6)


@WORDS
def test_at_first_words_are_independent_and_as_frequent_as_guessed(words):
    public = tables_of(start_of(words))
    shares = np.array(FREQUENCIES) / sum(FREQUENCIES)
    np.testing.assert_allclose(np.exp(public["words"]), np.tile(shares, (NUM_CLASSES, 1)), atol=1e-7)
    after = after_heads(public)
    np.testing.assert_allclose(after, np.broadcast_to(of_heads(public)[:, None], after.shape), atol=1e-6)
    assert (public["vectors"] == 0).all()


def test_without_noise_words_and_pairs_are_those_of_the_texts():
    texts = some_texts(30_000, seed=1)
    found = absorbed(ALONE, texts, 1e-3)
    heads = found["heads"]
    by_class = [np.bincount(texts.ids[texts.labels == label].ravel(), minlength=NUM_TOKENS) for label in range(2)]
    by_class = [counts[END:] / counts[END:].sum() for counts in by_class]
    np.testing.assert_allclose(np.exp(found["words"]).mean(axis=0)[END:], np.mean(by_class, axis=0), rtol=0.05)
    liked = np.log(by_class[1]) - np.log(by_class[0])
    # Classes are told apart by the presence of words, which saturates in texts of a few words.
    assert 0.4 * liked[5 - END] < found["words"][1, 5] - found["words"][0, 5] < liked[5 - END]
    after = after_heads(found).mean(axis=0)[:, heads]  # columns are tokens
    before, following = texts.ids[:, :-1].ravel(), texts.ids[:, 1:].ravel()
    seen = following != PAD
    table = np.zeros((NUM_TOKENS, NUM_TOKENS))
    np.add.at(table, (before[seen], following[seen]), 1)
    shares = table[2:] / table[2:].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(after[heads[2:], END:], shares[:, END:], atol=0.03)
    first = np.bincount(texts.ids[:, 0], minlength=NUM_TOKENS) / len(texts.ids)
    np.testing.assert_allclose(after[-1, END:], first[END:], atol=0.03)


def test_without_noise_pairs_of_shared_heads_are_those_of_the_texts():
    texts = some_texts(30_000, seed=1, class_likes=0)
    found = absorbed(SHARED, texts, 1e-3)
    after, heads = after_heads(found).mean(axis=0), found["heads"]
    table, ids = np.zeros(after.shape), texts.ids
    np.add.at(table, (np.full(len(ids), SHARED.num_heads), heads[ids[:, 0]]), 1)
    seen = ids[:, 1:] != PAD
    np.add.at(table, (heads[ids[:, :-1][seen]], heads[ids[:, 1:][seen]]), 1)
    rows = np.arange(SHARED.num_heads + 1) != END_HEAD
    np.testing.assert_allclose(after[rows], (table / table.sum(axis=1, keepdims=True).clip(1))[rows], atol=0.03)


@WORDS
def test_with_much_noise_the_public_guess_is_left(words):
    found = absorbed(words, some_texts(200, seed=2), 1e6)
    assert_finite(found)
    ratio = found["words"][:, END:] - words.guess[None, END:]
    assert np.abs(ratio - ratio.mean()).max() < 5
    apart = found["words"][1] - found["words"][0]
    assert (np.abs(apart - np.median(apart[END:]))[END:] > 1e-4).sum() <= 3
    np.testing.assert_allclose(after_heads(found).sum(axis=-1), 1.0, rtol=1e-6)


@WORDS
def test_a_sum_without_noise_leaves_everything_finite(words):
    assert_finite(absorbed(words, some_texts(200, seed=2), 0.0))


def test_pairs_without_dependence_stay_near_independent():
    rng = np.random.default_rng(3)
    ids = rng.integers(2, NUM_TOKENS, (3000, LENGTH)).astype(np.int32)
    found = absorbed(ALONE, Tokens(ids, rng.integers(0, 2, 3000).astype(np.int32)), 20.0)
    rows, columns = [*range(1, ALONE.num_alone), -1], slice(1, ALONE.num_alone)
    ratios = np.log(after_heads(found)[:, rows, columns] / of_heads(found)[:, None, columns])
    assert (np.abs(ratios) < 0.05).mean() > 0.95


def test_noise_costs_accuracy_by_degrees():
    texts = some_texts(5_000, seed=4)
    exact = absorbed(ALONE, texts, 1e-3)
    errors = []
    for noise_multiplier in (1.0, 30.0, 300.0):
        found = absorbed(ALONE, texts, noise_multiplier)
        p, q = np.exp(exact["words"][1]), found["words"][1]
        errors.append(float((p[END:] * (exact["words"][1] - q)[END:]).sum()))
    assert errors[0] < 0.01 and errors[0] < errors[1] < errors[2]


@given(
    st.integers(0, 10**6),
    st.floats(0.01, 1e3),
    st.integers(1, NUM_TOKENS),
    st.floats(0.0, 0.95),
    st.integers(200, 5_000),
)
@settings(deadline=None, max_examples=60)
def test_heads_are_as_frequent_in_the_chain_as_words_are_released_to_be(
    seed, noise_multiplier, num_paired, goes_on, num_texts
):
    words = word_statistics(FREQUENCIES, KINDS, NUM_CLASSES, LENGTH, num_paired)
    texts = some_texts(num_texts, seed=seed, goes_on=goes_on)
    params, draw = start_of(words), np.random.default_rng(seed)
    for stage in words.stages():
        noise = noise_multiplier * draw.normal(size=stage.size)
        if stage.name == "pairs of words":
            noise[-2:] = 0.0  # the numbers of pairs and of texts
        noisy = total_of(stage, params, texts) + noise
        params = stage.absorb(params, noisy, noise_multiplier, jax.random.key(0))
    found, num_tokens = tables_of(params), np.count_nonzero(texts.ids)
    for after, wanted in zip(after_heads(found), of_heads(found), strict=True):
        others = np.where(np.arange(words.num_heads) == END_HEAD, 0.0, wanted)
        before = np.append(others / others.sum() * (num_tokens - num_texts), num_texts)
        flow = before @ after / num_tokens
        np.testing.assert_allclose(flow[wanted > 1e-6], wanted[wanted > 1e-6], rtol=1e-3)


@pytest.mark.parametrize(("num_paired", "noise_multiplier"), [(5, 30.0), (NUM_TOKENS, 0.5)])
def test_words_of_texts_drawn_are_as_frequent_as_released(num_paired, noise_multiplier):
    generator = ngram.make(
        num_classes=NUM_CLASSES, length=LENGTH, frequencies=FREQUENCIES, kinds=KINDS, num_paired=num_paired
    )
    texts, params = some_texts(5_000, seed=6), generator.init(jax.random.key(0))
    for number, stage in enumerate(generator.stages):
        noise = HostNoise(number)
        noisy, stddev, _ = sparse_sum(
            stage.count(params, texts), size=stage.size, noise_multiplier=noise_multiplier, noise=noise
        )
        params = stage.absorb(params, noisy, stddev, jax.random.key(0))
    for label in range(NUM_CLASSES):
        ids = generator.sample(params, jax.random.key(1), 4_096, {0: label}).ids
        shares = np.bincount(ids[ids != PAD], minlength=NUM_TOKENS) / np.count_nonzero(ids)
        wanted = np.exp(np.asarray(params["public"]["words"], np.float64))[label]
        assert 0.5 * np.abs(shares - wanted).sum() < 0.02


@pytest.mark.parametrize("kinds", [KINDS, (2, *KINDS[1:])], ids=["of words", "of PAD alone"])
@pytest.mark.parametrize("noise_multiplier", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("false_alarms", [0.0, 1e3])
def test_a_head_without_members_is_never_drawn(kinds, noise_multiplier, false_alarms):
    num_paired = NUM_TOKENS if kinds is KINDS else 5
    words = word_statistics(FREQUENCIES, kinds, NUM_CLASSES, LENGTH, num_paired, vectors_dim=2)
    texts, params = some_texts(500, seed=7), start_of(words)
    empty = np.arange(words.num_alone if num_paired == NUM_TOKENS else words.num_heads - 1, words.num_heads)
    for stage in words.stages():
        noisy = total_of(stage, params, texts) + noise_multiplier * np.random.default_rng(8).normal(size=stage.size)
        if stage.name == "pairs of words":  # noise may stand out from noise
            noisy[:-2].reshape(words.num_heads + 1, words.num_heads)[[1, 3, -1], empty[-1]] += (
                false_alarms * noise_multiplier
            )
        params = stage.absorb(params, noisy, noise_multiplier, jax.random.key(0))
        found = tables_of(params)
        assert_finite(found)
        assert after_heads(found)[..., empty].max() < 1e-6


def test_classes_that_do_not_differ_are_told_apart_by_almost_no_word():
    num_tokens, num_texts, rng = 500, 4_000, np.random.default_rng(9)
    frequencies = [0.0, 0.05, *(1 / (10 + rank) for rank in range(num_tokens - 2))]
    words = word_statistics(frequencies, [0] * num_tokens, NUM_CLASSES, 20, 50, has_pairs=False)
    shares = np.array(frequencies[2:]) / sum(frequencies[2:])
    labels = np.arange(num_texts, dtype=np.int32) % 2
    ids = rng.choice(np.arange(2, num_tokens), (num_texts, 20), p=shares).astype(np.int32)
    differing = np.where((labels[:, None] == 1) & (ids % 10 == 2), 3, ids)
    (stage,) = words.stages()

    def telling(ids, noise_multiplier):
        """Words whose log probability differs by class other than by the sum of all."""
        noise = HostNoise(1)
        counts = stage.count(start_of(words), Tokens(ids, labels))
        noisy, stddev, _ = sparse_sum(counts, size=stage.size, noise_multiplier=noise_multiplier, noise=noise)
        found = tables_of(stage.absorb(start_of(words), noisy, stddev, jax.random.key(0)))["words"]
        apart = (found[1] - found[0])[END:]
        return np.flatnonzero(np.abs(apart - np.median(apart)) > 1e-5) + END

    assert len(telling(ids, 20.0)) < 0.08 * num_tokens and set(telling(differing, 2.0)) >= {2, 3, 12, 22}


@given(st.lists(st.integers(0, 500), min_size=33, max_size=33), st.integers(1, 100))
@settings(deadline=None)
def test_ratios_of_ends_are_finite_and_one_on_average(texts, length):
    found = end_log_ratios(np.array(texts, np.float64), length)
    assert found.shape == (length,) and np.isfinite(found).all() and found.min() <= 1e-9 and found.max() >= -1e-9


def test_ratios_of_ends_are_those_of_the_texts():
    lengths = np.random.default_rng(0).integers(10, 80, 200_000)  # texts go on after 64 tokens
    texts = np.bincount(np.minimum(lengths, 64) // 2, minlength=33).astype(np.float64)
    found = end_log_ratios(texts, 64)
    ends = np.bincount(lengths, minlength=80)[:64]
    reach = len(lengths) - np.cumsum(ends) + ends
    expected = np.log(ends[10:] / reach[10:] * reach.sum() / ends.sum())
    np.testing.assert_allclose(found[10:], expected, atol=0.1)
    assert (found[:10] < expected.min() - 2).all()


def test_word_vectors_tell_apart_what_follows_and_what_class_likes_a_word():
    found = absorbed(ALONE, some_texts(30_000, seed=5), 1e-3)
    vectors = found["vectors"]
    assert vectors.shape == (ALONE.num_heads + 1, ALONE.num_features) and ALONE.num_features == 7
    np.testing.assert_allclose(vectors.std(axis=0), 1.0, atol=1e-5)
    assert vectors[: ALONE.num_alone, -1].argmax() == found["heads"][5]
    np.testing.assert_array_equal(vectors, absorbed(ALONE, some_texts(30_000, seed=5), 1e-3)["vectors"])


@pytest.mark.parametrize(
    ("arguments", "says"), [({"num_paired": 0}, "num_paired"), ({"vectors_dim": NUM_TOKENS}, "released_dim")]
)
def test_statistics_that_make_no_sense_are_refused(arguments, says):
    with pytest.raises(ValueError, match=says):
        word_statistics(FREQUENCIES, KINDS, NUM_CLASSES, LENGTH, **{"num_paired": 5, **arguments})
