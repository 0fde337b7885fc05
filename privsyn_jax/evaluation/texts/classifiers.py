"""Downstream classifiers of texts, a linear one and an LSTM: trained once on all texts, or on many resamples."""

from __future__ import annotations

import operator
from collections.abc import Iterator

import jax
import numpy as np
import scipy.sparse
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.linear_model import LogisticRegression

from privsyn_jax.evaluation.downstream import orders, resamples
from privsyn_jax.evaluation.texts.lstm import (
    BATCH_SIZE,
    NUM_WORDS,
    LSTMClassifier,
    predict,
    train_lstm,
    train_lstms,
)
from privsyn_jax.evaluation.texts.words import Part, Sparse, Words, first_words, frequent, locate, runs
from privsyn_jax.evaluation_settings import EvaluationSettings

MAX_FEATURES = 200_000
_MAX_ITER = 1_000
_SEEDS = 2  # folded into the key of the nets trained on resamples: `train_lstm` splits 0 and 1 off the same key


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
    train: Part, judged: Words, *, vocabulary_size: int, num_classes: int, settings: EvaluationSettings, seed: int
) -> Iterator[np.ndarray]:
    """`linear_probabilities` by models of settings.net_seeds resamples of `train`, one at a time.

    Features and their weights are of all texts of `train`; a resample that lacks all classes but one gives it always.
    """
    inputs, found = _weighted(train, judged, vocabulary_size)
    for rows in resamples(len(train.labels), settings.net_seeds, seed=seed)[1:]:
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
    train: Part, judged: Words, *, vocabulary_size: int, num_classes: int, settings: EvaluationSettings, seed: int
) -> Iterator[np.ndarray]:
    """`lstm_probabilities` by nets of settings.net_seeds resamples of `train`, trained at once.

    The vocabulary is of all texts of `train`; weights, order and resample differ by net.
    """
    ids, judged_ids = _known_words(train, judged, vocabulary_size, settings.lstm_length)
    net, key = LSTMClassifier(num_classes), jax.random.fold_in(jax.random.key(seed), _SEEDS)
    resampled = resamples(len(train.labels), settings.net_seeds, seed=seed)
    batches = orders(resampled, num_steps=settings.lstm_steps, batch_size=BATCH_SIZE, seed=seed)[1:]
    stacked = train_lstms(net, ids, train.labels, batches, key=key)
    for number in range(settings.net_seeds):
        yield predict(net, jax.tree.map(operator.itemgetter(number), stacked), judged_ids)


def _known_words(train: Part, judged: Words, vocabulary_size: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """The first words of the texts of both, int32 [n, length] as the LSTM reads them, by the vocabulary of `train`."""
    table = np.ones(vocabulary_size, np.int32)  # outside the vocabulary
    table[frequent(train.words.ids, NUM_WORDS)] = 2 + np.arange(min(NUM_WORDS, len(np.unique(train.words.ids))))
    ids, judged_ids = (first_words(words, table, length) for words in (train.words, judged))
    return ids, judged_ids


def _weighted(train: Part, judged: Words, vocabulary_size: int) -> tuple[Sparse, Sparse]:
    """TF-IDF of the texts of both, by the features and weights of `train`."""
    of_train = _features(train.words, vocabulary_size)
    table = frequent(of_train[0], MAX_FEATURES)
    weighting = TfidfTransformer(sublinear_tf=True)
    inputs = weighting.fit_transform(_counts(*of_train, table, len(train.labels)))
    found = weighting.transform(_counts(*_features(judged, vocabulary_size), table, len(judged.lengths)))
    return inputs, found


def _logistic(inputs: Sparse, judged: Sparse, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Class probabilities float64 [n, k] of n judged texts; 0 for classes that are absent from the labels."""
    probabilities = np.zeros((judged.shape[0], num_classes))
    present = np.unique(labels)
    if len(present) == 1:  # a resample may lack a class
        probabilities[:, present] = 1.0
    else:
        model = LogisticRegression(max_iter=_MAX_ITER).fit(inputs, labels)
        probabilities[:, model.classes_] = model.predict_proba(judged)
    return probabilities


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
