"""Synthetic texts against real ones: metrics with a known answer or a slower oracle, and the whole evaluation."""

import collections
import dataclasses
import itertools
import json
import math
import operator

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import beta, softmax
from sklearn.linear_model import LogisticRegression

from privsyn_jax.evaluation import headline
from privsyn_jax.evaluation.downstream import orders, resamples
from privsyn_jax.evaluation.references import References
from privsyn_jax.evaluation.texts import classifiers, evaluate_texts, fluency, kneser_ney, lstm
from privsyn_jax.evaluation.texts.bleu import self_bleu
from privsyn_jax.evaluation.texts.classifiers import linear_over_seeds, linear_probabilities
from privsyn_jax.evaluation.texts.copies import copied_share, copy_rows
from privsyn_jax.evaluation.texts.divergence import divergence_rows, frontier_area
from privsyn_jax.evaluation.texts.diversity import distinct_share, diversity_rows
from privsyn_jax.evaluation.texts.function_words import TAGS, tags
from privsyn_jax.evaluation.texts.membership import membership_rows
from privsyn_jax.evaluation.texts.syntax import (
    is_balanced,
    is_sentence,
    jensen_shannon,
    repeated_rate,
    sentences,
    syntax_rows,
)
from privsyn_jax.evaluation.texts.vectors import nearest, tfidf_vectors
from privsyn_jax.evaluation.texts.vocabulary import smoothed_kl, vocabulary_rows
from privsyn_jax.evaluation.texts.words import (
    Words,
    equal_totals,
    excerpt,
    first_words,
    frequent,
    locate,
    make_corpora,
    runs,
    split,
    take,
    word_counts,
)
from privsyn_jax.evaluation_settings import EvaluationSettings
from privsyn_jax.types import Texts, TextSchema, UserError

SCHEMA = TextSchema(("bad", "good"), num_records=300)
SETTINGS = EvaluationSettings(lstm_steps=30, lstm_length=12)
SEEDS = dataclasses.replace(SETTINGS, net_seeds=2)
ROW_KEYS = {"family", "metric", "value", "reference", "higher_is_better", "column", "seed"}
TONES = ("bad", "awful", "poor", "sad"), ("good", "great", "lovely", "fine")


def texts_of(strings, labels=None):
    array = np.empty(len(strings), object)
    array[:] = strings
    return Texts(array, np.zeros(len(strings), np.int32) if labels is None else np.asarray(labels, np.int32))


def toy(num_texts, seed):
    """One to four sentences about films, whose adjective tells the class; every text has a number of its own."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(num_texts) % 2)

    def sentence(label):
        noun, tone = rng.choice(["film", "plot", "cast", "song"]), rng.choice(TONES[label])
        return f"The {noun} was {tone} {rng.choice(['and', 'but'])} {rng.choice(['long', 'short'])}."

    strings = [
        " ".join(sentence(label) for _ in range(rng.integers(1, 5))) + f" Number {rng.integers(10**9)}!"
        for label in labels
    ]
    return texts_of(strings, labels)


TRAIN, TEST, SYNTHETIC = toy(300, 0), toy(200, 1), toy(200, 2)


def words_of(*lists):
    return Words(
        np.array([*itertools.chain(*lists)], np.int32), np.array([0, *itertools.accumulate(map(len, lists))], np.int64)
    )


def lists_of(words):
    return [words.ids[a:b].tolist() for a, b in itertools.pairwise(words.starts)]


def random_lists(seed, *, num_texts=30, vocabulary_size=5, longest=12):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, vocabulary_size, rng.integers(0, longest + 1)).tolist() for _ in range(num_texts)]


def by_name(found):
    return {row["metric"]: row for row in found.metrics if row["column"] is None}


LISTS = st.lists(st.lists(st.integers(0, 4), max_size=9), min_size=1, max_size=6)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don’t SHOUT, it's 'fine'!", ["don't", "shout", ",", "it's", "'", "fine", "'", "!"]),
        ("In 1999 (été)...<br />", ["in", "1999", "(", "été", ")", ".", ".", ".", "<", "br", "/", ">"]),
        ("rock'n'roll dogs' a_b x2", ["rock'n'roll", "dogs", "'", "a", "_", "b", "x", "2"]),
        ("🎬 🎉", []),
    ],
)
def test_texts_are_split_into_words(text, expected):
    assert split(text) == expected


def test_corpora_spell_their_texts():
    corpora = make_corpora(TRAIN, TEST, SYNTHETIC)
    assert len(set(corpora.vocabulary)) == len(corpora.vocabulary)
    for part, texts in zip(corpora[1:], (TRAIN, TEST, SYNTHETIC), strict=True):
        found = [[corpora.vocabulary[i] for i in ids] for ids in lists_of(part.words)]
        assert found == [split(text) for text in texts.texts]


@given(LISTS, st.integers(1, 4), st.sampled_from([5, 2**40]))
@settings(max_examples=60, deadline=None)
def test_runs_are_equal_where_their_keys_are(lists, length, radix):
    exact = radix**length < 2**64
    keys, text = runs(words_of(*lists), length, radix if exact else 5)
    expected = [(tuple(ids[i : i + length]), t) for t, ids in enumerate(lists) for i in range(len(ids) - length + 1)]
    assert text.tolist() == [t for _, t in expected]
    assert len({run: key for (run, _), key in zip(expected, keys.tolist(), strict=True)}) == len(set(keys.tolist()))
    assert len(set(zip((run for run, _ in expected), keys.tolist(), strict=True))) == len(set(keys.tolist()))


def test_long_runs_are_hashed_without_collisions_in_small_sets():
    lists = random_lists(0, num_texts=200, vocabulary_size=70_000, longest=40)
    lists += [ids[::-1] for ids in lists]
    expected = [tuple(ids[i : i + 8]) for ids in lists for i in range(len(ids) - 7)]
    keys, _ = runs(words_of(*lists), 8, 70_000)
    assert 70_000**8 > 2**64 and len(keys) == len(expected)
    assert len(set(keys.tolist())) == len(set(expected)) == len(set(zip(expected, keys.tolist(), strict=True)))


@given(LISTS, st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_ragged_arrays_agree_with_lists(lists, random):
    words, chosen = words_of(*lists), [random.randrange(len(lists)) for _ in range(4)]
    assert lists_of(take(words, np.array(chosen))) == [lists[i] for i in chosen]
    before = words.ids.copy()
    counts = word_counts(words, 5).toarray()
    assert counts.tolist() == [[ids.count(word) for word in range(5)] for ids in lists]
    np.testing.assert_array_equal(words.ids, before)
    if len(words.ids):
        table = np.array([7, 8, 9, 10, 11])
        assert first_words(words, table, 3).tolist() == [([i + 7 for i in ids] + [0] * 3)[:3] for ids in lists]


def test_equal_totals_cut_both_sets_to_the_smaller_one():
    long, short = words_of([0, 1, 2], [3, 4, 5], [6, 7]), words_of([8, 9], [10], [])
    cut_long, cut_short = equal_totals(long, short, np.random.default_rng(0))
    assert len(cut_long.ids) == len(cut_short.ids) == 3 and cut_long.starts[-1] == 3
    assert sorted(cut_short.ids) == [8, 9, 10]
    assert all(any(found == ids[: len(found)] for ids in lists_of(long)) for found in lists_of(cut_long))


def test_frequent_keys_are_found():
    keys = np.array([5, 3, 3, 9, 9, 9, 1, 5], np.uint64)
    assert frequent(keys, 2).tolist() == [3, 9] and frequent(keys, 10).tolist() == [1, 3, 5, 9]
    table = np.array([3, 9], np.uint64)
    assert locate(keys, table).tolist() == [2, 0, 0, 1, 1, 1, 2, 2] and locate(keys, table[:0]).tolist() == [0] * 8


def test_excerpts_are_cut():
    assert excerpt("short", 5) == "short" and excerpt("a long text", 6) == "a long …"


def test_smoothed_divergence_in_closed_form():
    found = smoothed_kl(np.array([3, 0]), np.array([1, 1]), pseudo_count=1.0)
    assert found == pytest.approx(0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5))
    assert smoothed_kl(np.array([4, 2, 0]), np.array([4, 2, 0])) == 0


def test_divergences_of_words_against_a_loop(monkeypatch):
    monkeypatch.setattr("privsyn_jax.evaluation.texts.vocabulary.NUM_WORDS", 4)
    monkeypatch.setattr("privsyn_jax.evaluation.texts.vocabulary.NUM_PAIRS", 3)
    train = texts_of(["a a a a b b b c c d", "d c e a b a b"], [0, 1])
    other = texts_of(["a c c e f a a a"], [0])  # as many words on both sides: nothing is cut
    corpora = make_corpora(train, texts_of(["d d d d c b b g"], [1]), other)

    def oracle(length, kept, first, second):
        counts = [
            collections.Counter(run for text in texts for run in zip(*(text.split()[i:] for i in range(length))))  # noqa: B905
            for texts in (train.texts, first, second)
        ]
        cells = sorted(counts[0], key=lambda run: (-counts[0][run], first_seen(run)))[:kept]
        filled = [[c[run] for run in cells] + [sum(c.values()) - sum(c[run] for run in cells)] for c in counts[1:]]
        p, q = ([(count + 0.5) / (sum(row) + 0.5 * len(row)) for count in row] for row in filled)
        return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))

    def first_seen(run):
        return [corpora.vocabulary.tolist().index(word) for word in run]

    rows = vocabulary_rows(SCHEMA, corpora, seed=0)
    found = by_name(rows)
    assert found["vocabulary_kl"]["value"] == pytest.approx(oracle(1, 4, train.texts, other.texts))
    assert found["vocabulary_reverse_kl"]["value"] == pytest.approx(oracle(1, 4, other.texts, train.texts))
    assert found["bigram_kl"]["value"] == pytest.approx(oracle(2, 3, train.texts, other.texts))
    assert {row["column"] for row in rows.metrics} == {None} and len(rows.skipped) == 2  # both classes lack texts


def test_divergence_of_a_class_sees_that_class_only():
    swapped = SYNTHETIC._replace(labels=1 - SYNTHETIC.labels)
    rows = vocabulary_rows(SCHEMA, make_corpora(TRAIN, TEST, swapped), seed=0).metrics
    found = {row["column"]: row for row in rows if row["metric"] == "vocabulary_kl"}
    assert set(found) == {None, "bad", "good"}
    assert found[None]["value"] < 2 * found[None]["reference"]
    assert all(found[name]["value"] > 5 * found[name]["reference"] for name in SCHEMA.classes)


def brute_force_bleu(lists, num_hypotheses):
    def counter(ids, n):
        return collections.Counter(tuple(ids[i : i + n]) for i in range(len(ids) - n + 1))

    scores = []
    for i, ids in enumerate(lists[:num_hypotheses]):
        others = lists[:i] + lists[i + 1 :]
        precisions = []
        for n in range(1, 5):
            matches = sum(min(c, max(counter(o, n)[run] for o in others)) for run, c in counter(ids, n).items())
            precisions.append((matches or 0.1) / max(1, len(ids) - n + 1))
            if n == 1 and matches == 0:
                precisions = [0.0] * 4
                break
        reference = min((abs(len(o) - len(ids)), len(o)) for o in others)[1]
        penalty = 1.0 if len(ids) > reference else math.exp(1 - reference / max(1, len(ids)))
        scores.append(penalty * math.prod(precisions) ** 0.25)
    return np.mean(scores)


@given(st.lists(st.lists(st.integers(0, 4), max_size=9), min_size=2, max_size=7), st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_self_bleu_equals_a_brute_force(lists, num_hypotheses):
    found = self_bleu(words_of(*lists), 5, num_hypotheses=num_hypotheses)
    assert found == pytest.approx(brute_force_bleu(lists, num_hypotheses), abs=1e-12)


def test_self_bleu_of_repeated_and_of_unrelated_texts():
    assert self_bleu(words_of(*[[0, 1, 2, 3, 4]] * 2, *[[5, 6, 7, 8]] * 2), 9, num_hypotheses=4) == pytest.approx(1)
    assert self_bleu(words_of([0, 1, 2, 3], [4, 5, 6, 7]), 9, num_hypotheses=2) == 0


def test_distinct_runs_and_lengths():
    words = words_of([0, 1, 0, 1], [0, 1], [2])
    assert [distinct_share(words, n, 3) for n in (1, 2, 3)] == [3 / 7, 2 / 4, 1.0]
    assert math.isnan(distinct_share(words, 5, 3))
    corpora = make_corpora(texts_of(["a b", "a b c d"]), texts_of(["a b c", "a"]), texts_of(["a b c d e", "a"]))
    rows = by_name(diversity_rows(corpora, seed=0))
    assert (rows["length_mean"]["value"], rows["length_mean"]["reference"]) == (3, 2)
    assert (rows["length_wasserstein"]["value"], rows["length_wasserstein"]["reference"]) == (1, 1)


def kneser_ney_oracle(lists, num_words):
    """P(w | u v) by dictionaries, as the definition reads; all ids are summed over."""
    begin, end = num_words + 1, num_words
    counts = collections.Counter()
    for ids in lists:
        padded = [begin, begin, *ids, end]
        counts.update(tuple(padded[i : i + 3]) for i in range(len(padded) - 2))
    orders = [counts]
    for _ in range(2):
        orders.insert(0, collections.Counter(run[1:] for run in orders[0]))

    def probability(order, context, word):
        if order < 0:
            return 1 / (num_words + 1)
        of_order = orders[order]
        values = list(of_order.values())
        ones, twos = values.count(1), values.count(2)
        discount = ones / (ones + 2 * twos) if ones and twos else 0.5
        followers = {run[-1]: count for run, count in of_order.items() if run[:-1] == context}
        lower = probability(order - 1, context[1:], word)
        if not followers:
            return lower
        rest = discount * len(followers) * lower
        return (max(followers.get(word, 0) - discount, 0) + rest) / sum(followers.values())

    return lambda before, last, word: probability(2, (before, last), word)


@pytest.mark.parametrize("seed", range(4))
def test_kneser_ney_equals_its_definition_and_sums_to_one(seed):
    num_words = 4
    lists = random_lists(seed, num_texts=[1, 3, 8, 30][seed], vocabulary_size=num_words)
    model, oracle = kneser_ney.fit(words_of(*lists), num_words), kneser_ney_oracle(lists, num_words)
    ids = range(num_words + 2)
    for before, last in itertools.product(ids, ids):
        predicted = np.arange(num_words + 1)
        found = model.probabilities(np.full_like(predicted, before), np.full_like(predicted, last), predicted)
        assert found.sum() == pytest.approx(1, abs=1e-12) and (found > 0).all()
        np.testing.assert_allclose(found, [oracle(before, last, word) for word in predicted], rtol=1e-12)


def test_events_are_the_words_and_ends_of_texts():
    found = kneser_ney.events(words_of([0, 1], [], [2]), 3)
    expected = [(4, 4, 0), (4, 0, 1), (0, 1, 3), (4, 4, 3), (4, 4, 2), (4, 2, 3)]
    assert [*zip(*(part.tolist() for part in found), strict=True)] == expected


def test_perplexity_counts_rare_words_as_one_of_many():
    lists = [[0, 1, 0, 1, 2], [0, 1, 3], [1, 0, 4, 5]]  # 0 and 1 occur twice; 2, 3, 4, 5 once; 6 never
    outside = fluency.fit_outside(words_of(*lists), 7)
    assert outside.num_rare == 4 and outside.ids.tolist() == [0, 1, 2, 2, 2, 2, 2]
    oracle = kneser_ney_oracle([[0, 1, 0, 1, 2], [0, 1, 2], [1, 0, 2, 2]], 3)
    judged, (begin, end) = [0, 6, 1], (4, 3)
    product = oracle(begin, begin, 0) * oracle(begin, 0, 2) / 4 * oracle(0, 2, 1) * oracle(2, 1, end)
    found = fluency.fluency(outside, words_of(judged))
    assert found.perplexity == pytest.approx(product ** (-1 / 4)) and found.unknown_rate == pytest.approx(1 / 3)


def test_perplexity_tells_word_order_and_garbage():
    rng = np.random.default_rng(0)
    shuffled = texts_of([" ".join(rng.permutation(text.split())) for text in SYNTHETIC.texts])
    garbage = texts_of([" ".join(f"zz{'abcdefghij'[i]}{'klmnopqrst'[j]}" for j in range(9)) for i in range(9)])
    good, mixed, unknown = (
        by_name(fluency.fluency_rows(make_corpora(TRAIN, TEST, texts), seed=0))["outside_perplexity"]
        for texts in (SYNTHETIC, shuffled, garbage)
    )
    assert good["reference"] == mixed["reference"] and abs(good["value"] / good["reference"] - 1) < 0.2
    assert mixed["value"] > 2 * good["value"] and unknown["value"] > 5 * good["value"]


def slow_frontier_area(p, q):
    points = [(0.0, 1.0)]
    for i in range(4_001):
        weight = 1 - i / 4_000
        mixture = [weight * a + (1 - weight) * b for a, b in zip(p, q, strict=True)]
        x, y = (
            math.exp(-5 * sum(a * math.log(a / m) if m else math.inf for a, m in zip(share, mixture, strict=True) if a))
            for share in (q, p)
        )
        points.append((x, y))
    return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(points))


def test_frontier_area():
    even, p, q = np.full(4, 0.25), np.array([0.5, 0.3, 0.2, 0.0]), np.array([0.1, 0.3, 0.0, 0.6])
    assert frontier_area(even, even) == pytest.approx(1)
    disjoint = frontier_area(np.array([0.5, 0.5, 0]), np.array([0, 0, 1.0]))
    assert disjoint == pytest.approx(5 * beta(6, 5), rel=1e-3) and disjoint < 0.005
    assert frontier_area(p, q) == pytest.approx(slow_frontier_area(p, q), rel=1e-3)
    assert frontier_area(p, q) == pytest.approx(frontier_area(q, p), rel=1e-3)


def test_what_texts_are_about_is_compared():
    def about(words, seed, num_texts=300):
        rng = np.random.default_rng(seed)
        return texts_of([" ".join(rng.choice(words, 12)) for _ in range(num_texts)])

    sea, hills = ["sea", "ship", "wave", "sail", "coast", "tide"], ["hill", "rock", "peak", "snow", "path", "hut"]
    for synthetic, (lower, upper) in ((about(sea, 2), (0.7, 1)), (about(hills, 2), (0, 0.01))):
        rows = divergence_rows(tfidf_vectors(make_corpora(about(sea, 0), about(sea, 1), synthetic)), seed=0)
        row = by_name(rows)["mauve_lsa"]
        assert lower <= row["value"] <= upper and row["reference"] > 0.7
        assert "must not be set beside published values" in rows.skipped[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('A (small [nested]) "quoted" “one” {x}', True),
        ('He said "yes (no)".', True),
        ("a ) b (", False),
        ("(a]", False),
        ('one " only', False),
        ('("crossed)"', False),
        ("“open", False),
        ("none", True),
    ],
)
def test_balanced_marks(text, expected):
    assert is_balanced(text) == expected


def test_sentences():
    text = 'It ran. "Why?" he asked! no capital. Ends without<br /><br />(Et cetera.) … 3 films…\nÉté?'
    found = sentences(text)
    assert found == ["It ran.", '"Why?', "he asked!", "no capital.", "Ends without", "(Et cetera.", "3 films…", "Été?"]
    assert [is_sentence(piece) for piece in found] == [True, True, False, False, False, True, True, True]
    assert is_sentence('He said "no."') and not is_sentence("...")


def test_repeated_words_are_counted_within_texts_and_without_marks():
    words = words_of([0, 0, 1, 1, 2], [2, 0], [])  # 1 is a mark
    assert repeated_rate(words, np.array([True, False, True])) == 1 / 5


def test_tags_and_their_divergence():
    found = [
        TAGS[tag] for tag in tags(np.array(["the", "it", "with", "and", "was", "don't", "…", "12", "two", "film"]))
    ]
    assert found == [*TAGS[:6], "punctuation", "number", "number", "other"]
    assert jensen_shannon(np.array([3, 0]), np.array([0, 5])) == pytest.approx(1)
    assert jensen_shannon(np.array([3, 1]), np.array([6, 2])) == pytest.approx(0, abs=1e-12)
    p, q = np.array([0.75, 0.25]), np.array([0.25, 0.75])
    entropy = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    assert jensen_shannon(p, q) == pytest.approx(1 - entropy)
    rng = np.random.default_rng(0)
    shuffled = texts_of([" ".join(rng.permutation(text.split())) for text in SYNTHETIC.texts])
    good, mixed = (
        by_name(syntax_rows(make_corpora(TRAIN, TEST, texts), seed=0))["tag_trigram_js"]
        for texts in (SYNTHETIC, shuffled)
    )
    assert good["value"] < 0.01 and mixed["value"] > 0.1 and mixed["reference"] == good["reference"]


def test_vectors_and_the_nearest_equal_brute_force():
    corpora = make_corpora(TRAIN, TEST, SYNTHETIC)
    vectors = tfidf_vectors(corpora)
    real = [collections.Counter(split(text)) for text in (*TRAIN.texts, *TEST.texts)]
    frequency = collections.Counter(word for counts in real for word in counts)

    def weighted(text):
        counts = collections.Counter(split(text))
        row = [
            (1 + math.log(counts[w])) * (math.log((1 + len(real)) / (1 + frequency[w])) + 1) if counts[w] else 0
            for w in corpora.vocabulary
        ]
        return np.array(row) / np.linalg.norm(row)

    rows, candidates = (np.array([weighted(t) for t in texts]) for texts in (SYNTHETIC.texts[:150], TEST.texts))
    np.testing.assert_allclose(vectors.synthetic[:150].toarray(), rows, atol=1e-6)
    found = nearest(vectors.synthetic[:150], vectors.test)
    np.testing.assert_allclose(found.similarity, (rows @ candidates.T).max(axis=1), atol=1e-5)
    np.testing.assert_allclose((rows * candidates[found.index]).sum(axis=1), found.similarity, atol=1e-5)


def test_copied_runs_are_counted():
    source = words_of(list(range(20)), list(range(50, 58)))
    judged = words_of([*range(5, 14), 40], list(range(50, 57)), [*range(12, 20), *range(50, 58)])
    assert copied_share(judged, source, 100) == (2 + 0 + 2) / (3 + 0 + 9)
    assert math.isnan(copied_share(words_of([1, 2]), source, 100))


def test_copies_are_counted_and_shown():
    strings = SYNTHETIC.texts.copy()
    strings[:30], strings[30:36] = TRAIN.texts[:30], strings[36]
    rows, shown = copy_rows(*with_vectors(texts_of(strings)), seed=0)
    found = by_name(rows)
    assert found["exact_copy_rate"]["value"] == 30 / 200 and found["exact_copy_rate"]["reference"] == 0
    assert found["duplicate_rate"]["value"] == pytest.approx(6 / 200) and found["duplicate_rate"]["reference"] == 0
    for row in shown["rows"]:
        assert row["synthetic"] == row["nearest training text"] and row["synthetic"] in TRAIN.texts[:30]
        assert row["nearest held-out text"] in TEST.texts


def with_vectors(synthetic):
    corpora = make_corpora(TRAIN, TEST, synthetic)
    return corpora, tfidf_vectors(corpora)


def test_memorised_texts_are_nearer_to_training_texts_and_found_by_the_attack():
    memorised = texts_of([text.replace("film", "movie") for text in TRAIN.texts])
    honest, leaking = (
        (by_name(copy_rows(*found, seed=0)[0]), by_name(membership_rows(found[1], seed=0)))
        for found in (with_vectors(SYNTHETIC), with_vectors(memorised))
    )
    rows = honest[0]["nearer_to_training_rate"], leaking[0]["nearer_to_training_rate"]
    assert all(abs(row["reference"] - 0.5) < 4 * 0.5 / math.sqrt(150) for row in rows)
    assert abs(rows[0]["value"] - 0.5) < 4 * 0.5 / math.sqrt(200) and rows[1]["value"] > 0.7
    assert honest[1]["membership_auc_lower"]["value"] < 0.5 < honest[1]["membership_auc_upper"]["value"]
    assert abs(honest[1]["membership_advantage"]["value"]) < 0.2
    assert honest[1]["membership_tpr_at_1_percent_fpr"]["value"] < 0.06
    for name, row in leaking[1].items():
        assert row["value"] > 0.85, name


def test_held_out_texts_of_another_kind_are_noticed():
    others = texts_of([text.replace("film", "opera").replace("cast", "choir") for text in TEST.texts])
    corpora = make_corpora(TRAIN, others, SYNTHETIC)
    rows, _ = copy_rows(corpora, tfidf_vectors(corpora), seed=0)
    assert by_name(rows)["nearer_to_training_rate"]["reference"] > 0.7
    assert len(rows.skipped) == 1 and "held-out texts differ from training texts in kind" in rows.skipped[0]
    assert not copy_rows(*with_vectors(SYNTHETIC), seed=0)[0].skipped


@pytest.fixture(scope="module")
def trained():
    rng = np.random.default_rng(0)
    ids = rng.integers(3, 30, (300, 12)).astype(np.int32)
    labels = (np.arange(300) % 2).astype(np.int32)
    ids[np.arange(300), rng.integers(0, 6, 300)] = 1 + labels  # the class is told by one word
    for row, length in zip(ids, rng.integers(6, 13, 300), strict=True):
        row[length:] = 0
    net = lstm.LSTMClassifier(2)
    params = lstm.train_lstm(net, ids[:200], labels[:200], num_steps=30, key=jax.random.key(0))
    return net, params, ids, labels


def test_lstm_learns_what_can_be_learned(trained):
    net, params, ids, labels = trained
    assert np.mean(lstm.predict(net, params, ids[200:]).argmax(axis=1) == labels[200:]) > 0.9
    again = lstm.train_lstm(net, ids[:200], labels[:200], num_steps=30, key=jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, params, again)


def test_lstm_judges_a_text_alone_and_without_its_padding(trained):
    net, params, ids, _ = trained
    found = lstm.predict(net, params, ids)
    np.testing.assert_allclose(lstm.predict(net, params, ids[7:8])[0], found[7], rtol=1e-5)
    short = np.flatnonzero((ids > 0).sum(axis=1) == 6)
    np.testing.assert_allclose(lstm.predict(net, params, ids[short, :6]), found[short], rtol=1e-4)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)


def test_lstm_equals_its_recurrence(trained):
    net, params, ids, _ = trained
    weights = jax.tree.map(np.asarray, params)["params"]
    kernel, dense = weights["_LSTM_0"]["recurrent"], weights["_LSTM_0"]["Dense_0"]

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    text = [word for word in ids[0] if word]
    cell = output = np.zeros(64)
    outputs = []
    for word in text:
        x = weights["Embed_0"]["embedding"][word] @ dense["kernel"] + dense["bias"] + output @ kernel
        i, f, g, o = np.split(x, 4)
        cell = sigmoid(f + 1) * cell + sigmoid(i) * np.tanh(g)
        output = sigmoid(o) * np.tanh(cell)
        outputs.append(output)
    pooled = np.concatenate([np.mean(outputs, axis=0), output])
    logits = pooled @ weights["Dense_0"]["kernel"] + weights["Dense_0"]["bias"]
    np.testing.assert_allclose(lstm.predict(net, params, ids[:1])[0], softmax(logits), rtol=1e-3)


def test_linear_classifier_sees_pairs_of_words():
    """The class is told by the order of two words, so only pairs tell it; a class is absent."""
    strings = ["x not good z", "x good not z"] * 40
    part = make_corpora(*[texts_of(strings, [0, 2] * 40)] * 3).train
    found = linear_probabilities(part, part.words, vocabulary_size=4, num_classes=3)
    assert (found.argmax(axis=1) == part.labels).all() and (found[:, 1] == 0).all()


def test_nets_trained_at_once_are_those_trained_alone(trained):
    """A net feels nothing of the others; its step is that of a single net."""
    net, _, ids, labels = trained
    batches = orders(resamples(300, 2, seed=0), num_steps=30, batch_size=lstm.BATCH_SIZE, seed=0)
    together = lstm.train_lstms(net, ids, labels, batches, key=jax.random.key(0))
    found = [lstm.predict(net, jax.tree.map(operator.itemgetter(number), together), ids) for number in range(3)]
    for number in (0, 2):
        params = lstm._initial(jax.random.fold_in(jax.random.key(0), number), net=net)
        state = params, lstm._optimizer(30).init(params)
        for batch in batches[number]:
            state = lstm._train_step(state, ids[batch], labels[batch], net=net, num_steps=30)
        np.testing.assert_allclose(found[number], lstm.predict(net, state[0], ids), atol=1e-3)
    assert min(np.abs(a - b).max() for a, b in itertools.combinations(found, 2)) > 0.01


def test_linear_classifiers_over_seeds_are_scikit_learns_on_resamples():
    part = make_corpora(*[TRAIN] * 3).train
    shared = {"vocabulary_size": 10_000, "num_classes": 2, "settings": SEEDS, "seed": 3}
    found = [*linear_over_seeds(part, part.words, **shared)]
    inputs, judged = classifiers._weighted(part, part.words, 10_000)
    for predicted, rows in zip(found, resamples(300, 2, seed=3)[1:], strict=True):
        weights = np.bincount(rows, minlength=300)
        oracle = LogisticRegression(max_iter=1000).fit(inputs, part.labels, sample_weight=weights)
        np.testing.assert_allclose(predicted, oracle.predict_proba(judged), atol=2e-3)
    assert np.abs(found[0] - found[1]).max() > 0.01


def test_a_resample_may_lack_a_class():
    part = make_corpora(*[texts_of(["a good film", "a bad film"], [1, 0])] * 3).train
    settings = dataclasses.replace(SEEDS, net_seeds=20)
    found = [*linear_over_seeds(part, part.words, vocabulary_size=9, num_classes=2, settings=settings, seed=0)]
    certain = [
        (probabilities == [[0, 1]] * 2).all() or (probabilities == [[1, 0]] * 2).all() for probabilities in found
    ]
    assert 0 < sum(certain) < 20 and all(np.allclose(probabilities.sum(axis=1), 1) for probabilities in found)


def evaluated(synthetic, *, schema=SCHEMA, train=TRAIN, test=TEST, seed=0, settings=SETTINGS):
    evaluation = evaluate_texts(schema, train, test, synthetic, settings=settings, seed=seed)
    json.dumps(evaluation, allow_nan=False)
    for row in evaluation.metrics:
        assert set(row) == ROW_KEYS and row["family"] in ("utility", "fidelity", "sanity", "privacy")
        assert type(row["value"]) is float and type(row["reference"]) is float
    names = [(row["metric"], row["column"]) for row in evaluation.metrics]
    assert len(set(names)) == len(names)
    assert all(sentence.endswith(".") and "\n" not in sentence for sentence in evaluation.skipped)
    for example in evaluation.examples:
        assert set(example) == {"caption", "rows"}
        assert all(type(text) is str and len(text) <= 1002 for row in example["rows"] for text in row.values())
    return evaluation


@pytest.fixture(scope="module")
def good():
    return evaluated(SYNTHETIC)


def test_real_scores_are_computed_once_for_the_same_records(good, tmp_path):
    settings = dataclasses.replace(SETTINGS, references=str(tmp_path))

    def announced(settings=settings, train=TRAIN, seed=0):
        lines = []
        found = evaluate_texts(SCHEMA, train, TEST, SYNTHETIC, settings=settings, seed=seed, announce=lines.append)
        return found.metrics, sum("real texts" in line for line in lines)

    assert announced() == (good.metrics, 2)
    assert announced() == (good.metrics, 0)
    assert announced(train=TRAIN._replace(labels=TRAIN.labels[::-1].copy()))[1] == 2
    assert announced(seed=1)[1] == 2
    assert announced(dataclasses.replace(settings, lstm_steps=31))[1] == 2
    private = tmp_path / "private"
    assert private.stat().st_mode & 0o077 == 0 and len(list(private.iterdir())) == 8


def test_scores_over_seeds_are_tested_against_real_ones(good, tmp_path):
    settings = dataclasses.replace(SEEDS, references=str(tmp_path))
    halves = Texts(SYNTHETIC.texts, np.where(np.arange(200) < 100, SYNTHETIC.labels, 1 - SYNTHETIC.labels))
    poor = evaluated(halves, settings=settings)
    assert good.tests == {} and [*by_name(poor)] == [*by_name(good)]
    fields = ("model", "trained_on", "metric")
    sources = ("synthetic", "real", "real_plus_synthetic")
    expected = [*itertools.product(("linear", "lstm"), sources, ("accuracy", "f1", "auc"))]
    assert [tuple(row[field] for field in fields) for row in poor.tests["scores"]] == expected
    assert all(len(row["values"]) == 2 and row["low"] <= row["mean"] <= row["high"] for row in poor.tests["scores"])
    assert len(poor.tests["against_real"]) == 12 and poor.tests["num_seeds"] == 2 and poor.tests["seed"] == 0
    for row in poor.tests["scores"]:
        if row["trained_on"] == "synthetic":
            assert row["value"] == by_name(poor)[f"{row['model']}_{row['metric']}"]["value"]
    lost = [row for row in poor.tests["against_real"] if row["trained_on"] == "synthetic"]
    assert all(row["difference"] < -0.1 for row in lost)
    lines = []
    again = evaluate_texts(SCHEMA, TRAIN, TEST, halves, settings=settings, seed=0, announce=lines.append)
    assert again.tests == poor.tests and not any(" real texts" in line for line in lines)


def test_undefined_real_scores_are_kept_as_such(tmp_path):
    def never():
        raise AssertionError

    references = References(str(tmp_path), TEST.texts, 3)
    first = references.scores("linear", lambda: {"auc": np.nan, "f1": 0.5})
    again = references.scores("linear", never)
    assert (
        list(first) == list(again)
        and again["f1"] == first["f1"] == 0.5
        and np.isnan([first["auc"], again["auc"]]).all()
    )


def test_fewer_real_texts_can_be_compared():
    settings = dataclasses.replace(SETTINGS, num_records=50)
    lines = []
    evaluate_texts(SCHEMA, TRAIN, TEST, SYNTHETIC, settings=settings, seed=0, announce=lines.append)
    assert "training the linear classifier on 50 real texts" in lines


def test_good_texts_score_like_real_ones(good):
    rows = by_name(good)
    for name in ("linear_accuracy", "linear_f1", "linear_auc", "lstm_accuracy", "lstm_f1", "lstm_auc"):
        assert rows[name]["value"] > 0.9 and rows[name]["reference"] > 0.9
    for name in ("vocabulary_kl", "bigram_kl", "outside_perplexity", "length_wasserstein"):
        assert rows[name]["value"] < 3 * rows[name]["reference"]
    assert rows["balanced_rate"]["value"] == rows["sentence_rate"]["value"] == 1
    assert rows["repeated_word_rate"]["value"] == rows["exact_copy_rate"]["value"] == 0
    assert len(good.skipped) == 1 and len(good.examples) == 2
    assert [next(iter(row)) for row in good.examples[0]["rows"]] == ["bad"] * 3 + ["good"] * 3
    for row in good.examples[0]["rows"]:
        ((name, text),) = row.items()
        assert SCHEMA.classes[SYNTHETIC.labels[[*SYNTHETIC.texts].index(text)]] == name
    chosen = [row["metric"] for row in headline(good.metrics)]
    assert chosen == ["linear_accuracy", "lstm_accuracy", "outside_perplexity", "mauve_lsa", "membership_auc"]


def test_mislabelled_texts_score_badly_beside_the_same_reference(good):
    rows = by_name(evaluated(SYNTHETIC._replace(labels=1 - SYNTHETIC.labels)))
    for name in ("linear_accuracy", "lstm_accuracy"):
        assert rows[name]["value"] < 0.1 and rows[name]["reference"] == by_name(good)[name]["reference"]


def test_evaluation_is_fixed_by_its_seed(good):
    assert evaluated(SYNTHETIC) == good
    other = evaluated(SYNTHETIC, seed=1)
    assert by_name(other)["mauve_lsa"]["value"] != by_name(good)["mauve_lsa"]["value"]


EMOJI = "🎬 🎉"


@pytest.mark.parametrize(
    ("strings", "labels", "missing", "words"),
    [
        (["A good film.", "A bad film."], [1, 0], "mauve_lsa", "mauve_lsa: it needs 20 texts"),
        (["A good film."], [1], "self_bleu", "utility: all synthetic texts are of the class good"),
        (["good", EMOJI], [1, 0], "bigram_kl", "words of synthetic texts: only 1 of 2 hold"),
        ([EMOJI] * 9, [1, 0] * 4 + [0], "linear_f1", "words of synthetic texts: none hold"),
        (["good " * 20_000, "(bad. " * 20_000], [1, 0], "mauve_lsa", "it needs 20 texts"),
        (["good"] * 40, [1] * 40, "copied_8gram_rate", "copied_8gram_rate: no text of one of the sets has 8 words"),
        (["", "x"], [0, 1], "tag_trigram_js", "tag_trigram_js: one of the sets holds no text of three words"),
    ],
)
def test_what_a_generator_lacks_is_said(strings, labels, missing, words):
    evaluation = evaluated(texts_of(strings, labels))
    assert missing not in by_name(evaluation) and any(words in sentence for sentence in evaluation.skipped)
    assert bool(evaluation.metrics) == any(split(text) for text in strings)


def test_texts_without_labels():
    schema = dataclasses.replace(SCHEMA, classes=())
    train, test, synthetic = (texts._replace(labels=np.zeros_like(texts.labels)) for texts in (TRAIN, TEST, SYNTHETIC))
    evaluation = evaluated(synthetic, schema=schema, train=train, test=test)
    assert not any(row["family"] == "utility" or row["column"] for row in evaluation.metrics)
    assert any("utility: the texts have no labels" in sentence for sentence in evaluation.skipped)
    chosen = [row["metric"] for row in headline(evaluation.metrics)]
    assert chosen == ["outside_perplexity", "mauve_lsa", "membership_auc", "copied_8gram_rate", "distinct_2"]


@pytest.mark.parametrize("num_texts", [1, 2])
def test_few_real_texts_are_no_error(num_texts):
    few = Texts(TRAIN.texts[:num_texts], TRAIN.labels[:num_texts])
    evaluation = evaluated(SYNTHETIC, train=few, test=few)
    assert ("nearer_to_training_rate" in by_name(evaluation)) == (num_texts > 1)
    assert by_name(evaluation)["exact_copy_rate"]["reference"] == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"texts": SYNTHETIC.texts[:0], "labels": SYNTHETIC.labels[:0]}, "no synthetic texts"),
        ({"texts": SYNTHETIC.texts[1:]}, "give one str for each label"),
        ({"texts": np.arange(200)}, "give one str for each label"),
        ({"labels": SYNTHETIC.labels + 1}, "labels run from 1 to 2"),
    ],
)
def test_texts_that_do_not_conform_are_refused(change, words):
    with pytest.raises(UserError, match=words):
        evaluate_texts(SCHEMA, TRAIN, TEST, SYNTHETIC._replace(**change), settings=SETTINGS, seed=0)
