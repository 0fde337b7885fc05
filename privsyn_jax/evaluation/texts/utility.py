"""Downstream classifiers trained on synthetic texts, beside the same classifiers trained on real ones."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import scipy.sparse
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from privsyn_jax.evaluation.references import References
from privsyn_jax.evaluation.rows import Rows
from privsyn_jax.evaluation.scores import classification_scores
from privsyn_jax.evaluation.texts.lstm import NUM_WORDS, LSTMClassifier, predict, train_lstm
from privsyn_jax.evaluation.texts.words import Corpora, Part, Sparse, Words, first_words, frequent, locate, runs
from privsyn_jax.settings import EvaluationSettings
from privsyn_jax.types import TextSchema

METRICS = ("accuracy", "f1", "auc")
MAX_FEATURES = 200_000
_MAX_ITER = 1_000


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
    of_train = _features(train.words, vocabulary_size)
    table = frequent(of_train[0], MAX_FEATURES)
    weighting = TfidfTransformer(sublinear_tf=True)
    inputs = weighting.fit_transform(_counts(*of_train, table, len(train.labels)))
    model = LogisticRegression(max_iter=_MAX_ITER).fit(inputs, train.labels)
    found = weighting.transform(_counts(*_features(judged, vocabulary_size), table, len(judged.lengths)))
    probabilities = np.zeros((len(judged.lengths), num_classes))
    probabilities[:, model.classes_] = model.predict_proba(found)
    return probabilities


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
    table = np.ones(vocabulary_size, np.int32)  # outside the vocabulary
    table[frequent(train.words.ids, NUM_WORDS)] = 2 + np.arange(min(NUM_WORDS, len(np.unique(train.words.ids))))
    ids, judged_ids = (first_words(words, table, settings.lstm_length) for words in (train.words, judged))
    net = LSTMClassifier(num_classes)
    params = train_lstm(net, ids, train.labels, num_steps=settings.lstm_steps, key=jax.random.key(seed))
    return predict(net, params, judged_ids)


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
