"""Downstream classifiers trained on synthetic texts, beside the same classifiers trained on real ones."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.sparse
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from privsyn_jax.evaluation.downstream import orders, resamples
from privsyn_jax.evaluation.references import References
from privsyn_jax.evaluation.rows import Rows
from privsyn_jax.evaluation.scores import classification_scores
from privsyn_jax.evaluation.significance import seed_tests
from privsyn_jax.evaluation.texts.lstm import (
    BATCH_SIZE,
    NUM_WORDS,
    LSTMClassifier,
    predict,
    train_lstm,
    train_lstms,
)
from privsyn_jax.evaluation.texts.words import Corpora, Part, Sparse, Words, first_words, frequent, locate, runs
from privsyn_jax.settings import EvaluationSettings
from privsyn_jax.types import TextSchema

METRICS = ("accuracy", "f1", "auc")
MAX_FEATURES = 200_000
_MAX_ITER = 1_000
_SEEDS = 1  # the stream of keys of the nets trained on resamples

# Of one text set and the words of another: class probabilities of the latter, by a model of all records of the former,
# or by one for every row of int32 [c, n], the records that it is trained on.
_Train = Callable[[Part, Words], np.ndarray]
_TrainOver = Callable[[Part, Words, np.ndarray], Iterator[np.ndarray]]


class Utility(NamedTuple):
    """Scores of downstream classifiers.

    Attributes:
      rows: metric rows, of classifiers trained on all texts once.
      tests: means, intervals and tests over seeds, see `significance.seed_tests`; empty without seeds or scores.
    """

    rows: Rows
    tests: dict[str, Any]


def linear_probabilities(train: Part, judged: Words, *, vocabulary_size: int, num_classes: int) -> np.ndarray:
    """Logistic regression with scikit-learn's penalty (C = 1) on TF-IDF of words and pairs of words.

    Args:
      train: texts of two classes at least; its MAX_FEATURES most frequent words and pairs are the features.
      judged: n texts.
      vocabulary_size: of the ids of both.
      num_classes: k.

    Returns:
      Class probabilities float64 [n, k], 0 for classes that are absent from `train`.
    """
    return _logistic(*_weighted(train, judged, vocabulary_size), train.labels, num_classes)


def linear_over_seeds(
    train: Part, judged: Words, resampled: np.ndarray, *, vocabulary_size: int, num_classes: int
) -> Iterator[np.ndarray]:
    """`linear_probabilities` for every row of `resampled`, int [c, n]; features and their weights are of all texts."""
    inputs, found = _weighted(train, judged, vocabulary_size)
    for rows in resampled:
        yield _logistic(inputs[rows], found, train.labels[rows], num_classes)


def lstm_probabilities(
    train: Part, judged: Words, *, vocabulary_size: int, num_classes: int, settings: EvaluationSettings, seed: int
) -> np.ndarray:
    """The LSTM of `lstm`, on the first words of each text; its vocabulary is the most frequent words of `train`.

    Args:
      train: texts of at least one class.
      judged: n texts.
      vocabulary_size: of the ids of both.
      num_classes: k.
      settings: words of a text and number of steps.
      seed: of weights and order.

    Returns:
      Class probabilities float32 [n, k].
    """
    ids, judged_ids = _known_words(train, judged, vocabulary_size, settings.lstm_length)
    net = LSTMClassifier(num_classes)
    params = train_lstm(net, ids, train.labels, num_steps=settings.lstm_steps, key=jax.random.key(seed))
    return predict(net, params, judged_ids)


def lstm_over_seeds(
    train: Part,
    judged: Words,
    resampled: np.ndarray,
    *,
    vocabulary_size: int,
    num_classes: int,
    settings: EvaluationSettings,
    seed: int,
) -> Iterator[np.ndarray]:
    """`lstm_probabilities` for every row of `resampled`, int [c, n], all trained at once with weights of their own.

    The vocabulary is that of all texts.
    """
    ids, judged_ids = _known_words(train, judged, vocabulary_size, settings.lstm_length)
    net, key = LSTMClassifier(num_classes), jax.random.key(seed)
    batches = orders(resampled, num_steps=settings.lstm_steps, batch_size=BATCH_SIZE, seed=seed)
    stacked = train_lstms(net, ids, train.labels, batches, key=key)
    for place in range(len(resampled)):
        yield predict(net, jax.tree.map(operator.itemgetter(place), stacked), judged_ids)


# One thread: on a shared machine BLAS's spinning threads cost more than they save.
@threadpool_limits.wrap(limits=1)
def utility_rows(
    schema: TextSchema,
    corpora: Corpora,
    *,
    settings: EvaluationSettings,
    seed: int,
    announce: Callable[[str], None],
) -> Rows:
    """Scores on real held-out texts of two classifiers, trained on synthetic and (reference) on real texts.

    Both trainings of the LSTM start from the same weights and take the same number of steps, on all texts there are:
    the real set may be larger. Every vocabulary is made from the texts trained on. Nothing is chosen by a score.

    Metrics, in [0, 1], higher is better, see `scores.classification_scores`: linear_accuracy, linear_f1, linear_auc,
    lstm_accuracy, lstm_f1, lstm_auc.

    Args:
      schema: public facts.
      corpora: the three sets, each with at least one word.
      settings: of the LSTM, and where scores of models trained on real texts are kept.
      seed: of its weights and order.
      announce: told what is being trained.

    Returns:
      Rows; none without two classes in the schema, the training texts and the synthetic ones.
    """
    rows = Rows("utility", seed)
    if len(schema.classes) < 2:
        rows.skip("utility", "the texts have no labels of two classes that could be predicted")
        return rows
    for described, part in (("synthetic", corpora.synthetic), ("training", corpora.train)):
        if len(np.unique(part.labels)) < 2:
            rows.skip("utility", f"all {described} texts are of the class {schema.classes[part.labels[0]]}")
            return rows
    shared = {"vocabulary_size": len(corpora.vocabulary), "num_classes": len(schema.classes)}
    trainings: dict[str, Callable[[Part], np.ndarray]] = {
        "linear": lambda part: linear_probabilities(part, corpora.test.words, **shared),
        "lstm": lambda part: lstm_probabilities(part, corpora.test.words, **shared, settings=settings, seed=seed),
    }
    references = References(settings.references, *_facts(corpora, settings, seed))

    def scores(name: str, described: str, part: Part) -> dict[str, float]:
        announce(f"training the {name} classifier on {len(part.labels):,} {described} texts")
        return classification_scores(corpora.test.labels, trainings[name](part), len(schema.classes))

    for name in trainings:
        found = scores(name, "synthetic", corpora.synthetic)
        of_real = references.scores(name, functools.partial(scores, name, "real", corpora.train))
        for metric in METRICS:
            undefined = "the held-out texts are of one class"
            rows.add(f"{name}_{metric}", found[metric], of_real[metric], higher_is_better=True, undefined=undefined)
    return rows


def _facts(corpora: Corpora, settings: EvaluationSettings, seed: int) -> tuple[Any, ...]:
    """What the scores of models trained on real texts depend on."""
    texts = [array for part in (corpora.train, corpora.test) for array in (part.texts, part.labels)]
    return (*texts, settings.lstm_steps, settings.lstm_length, seed)


def _features(words: Words, vocabulary_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Keys of all words and pairs of words, uint64 [m], and the text of each, int64 [m]."""
    (single, text_of_single), (pairs, text_of_pairs) = (runs(words, length, vocabulary_size) for length in (1, 2))
    keys = np.concatenate([single, pairs + np.uint64(vocabulary_size)])
    return keys, np.concatenate([text_of_single, text_of_pairs])


def _counts(keys: np.ndarray, text: np.ndarray, table: np.ndarray, num_texts: int) -> Sparse:
    """How often each text holds each key of a sorted table, float64 [num_texts, len(table)]."""
    places = locate(keys, table)
    known = places < len(table)
    ones = np.ones(known.sum())
    return scipy.sparse.coo_array((ones, (text[known], places[known])), shape=(num_texts, len(table))).tocsr()
