"""Downstream classifiers trained on synthetic texts, beside the same classifiers trained on real ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from privsyn_jax.evaluation.references import References
from privsyn_jax.evaluation.rows import Rows
from privsyn_jax.evaluation.scores import classification_scores
from privsyn_jax.evaluation.significance import seed_tests
from privsyn_jax.evaluation.texts.classifiers import (
    linear_over_seeds,
    linear_probabilities,
    lstm_over_seeds,
    lstm_probabilities,
)
from privsyn_jax.evaluation.texts.words import Corpora, Part, Words
from privsyn_jax.evaluation_settings import EvaluationSettings
from privsyn_jax.types import TextSchema

METRICS = ("accuracy", "f1", "auc")


class Utility(NamedTuple):
    """Scores of downstream classifiers.

    Attributes:
      rows: metric rows, of classifiers trained on all texts once.
      tests: means, intervals and tests over seeds, see `significance.seed_tests`; empty without seeds or scores.
    """

    rows: Rows
    tests: dict[str, Any]


class _Classifier(NamedTuple):
    """Class probabilities of the held-out texts: of one model of all texts of a part, and of one per seed."""

    once: Callable[[Part], np.ndarray]
    over_seeds: Callable[[Part], Iterable[np.ndarray]]


# One thread: on a shared machine BLAS's spinning threads cost more than they save.
@threadpool_limits.wrap(limits=1)
def utility_of(
    schema: TextSchema,
    corpora: Corpora,
    *,
    settings: EvaluationSettings,
    seed: int,
    announce: Callable[[str], None],
) -> Utility:
    """Scores on real held-out texts of two classifiers, trained on synthetic and (reference) on real texts.

    Both trainings of the LSTM start from the same weights and take the same number of steps, on all texts there are:
    the real set may be larger. Every vocabulary is made from the texts trained on. Nothing is chosen by a score. If
    there are seeds, `tests` also holds classifiers trained on real and synthetic texts together.

    Metrics, in [0, 1], higher is better, see `scores.classification_scores`: linear_accuracy, linear_f1, linear_auc,
    lstm_accuracy, lstm_f1, lstm_auc.

    Args:
      schema: public facts.
      corpora: the three sets, each with at least one word.
      settings: of the LSTM, how many seeds there are besides, and where scores of models trained on real texts are
        kept.
      seed: of its weights, of order and of resamples.
      announce: told what is being trained.

    Returns:
      No scores without two classes in the schema, the training texts and the synthetic ones.
    """
    rows = Rows("utility", seed)
    if len(schema.classes) < 2:
        rows.skip("utility", "the texts have no labels of two classes that could be predicted")
        return Utility(rows, {})
    for described, part in (("synthetic", corpora.synthetic), ("training", corpora.train)):
        if len(np.unique(part.labels)) < 2:
            rows.skip("utility", f"all {described} texts are of the class {schema.classes[part.labels[0]]}")
            return Utility(rows, {})
    classifiers = _classifiers(corpora, len(schema.classes), settings, seed)
    references = References(settings.references, *_facts(corpora, settings, seed))
    both, num_seeds = _together(corpora.train, corpora.synthetic), settings.net_seeds

    def scores(name: str, described: str, part: Part) -> dict[str, float]:
        announce(f"training the {name} classifier on {len(part.labels):,} {described} texts")
        return classification_scores(corpora.test.labels, classifiers[name].once(part), len(schema.classes))

    def over_seeds(name: str, described: str, part: Part) -> dict[str, float]:
        announce(f"training the {name} classifier for {num_seeds} seeds on {len(part.labels):,} {described} texts")
        found = {}
        for number, probabilities in enumerate(classifiers[name].over_seeds(part)):
            of_seed = classification_scores(corpora.test.labels, probabilities, len(schema.classes))
            found |= {_at(metric, number): of_seed[metric] for metric in METRICS}
        return found

    scored = {}
    for name in classifiers:
        found = scores(name, "synthetic", corpora.synthetic)
        of_real = references.scores(name, lambda name=name: scores(name, "real", corpora.train))
        for metric in METRICS:
            undefined = "the held-out texts are of one class"
            rows.add(f"{name}_{metric}", found[metric], of_real[metric], higher_is_better=True, undefined=undefined)
        if num_seeds:
            real = references.scores(
                f"{name}_{num_seeds}_seeds", lambda name=name: over_seeds(name, "real", corpora.train)
            )
            scored[name, "synthetic"] = found, over_seeds(name, "synthetic", corpora.synthetic)
            scored[name, "real"] = of_real, real
            described = "real plus synthetic"
            scored[name, "real_plus_synthetic"] = scores(name, described, both), over_seeds(name, described, both)
    return Utility(rows, _tests(scored, num_seeds, seed) if num_seeds else {})


def _classifiers(corpora: Corpora, num_classes: int, settings: EvaluationSettings, seed: int) -> dict[str, _Classifier]:
    judged = corpora.test.words
    shared: dict[str, Any] = {"vocabulary_size": len(corpora.vocabulary), "num_classes": num_classes}
    seeded = {**shared, "settings": settings, "seed": seed}
    return {
        "linear": _Classifier(
            lambda part: linear_probabilities(part, judged, **shared),
            lambda part: linear_over_seeds(part, judged, **seeded),
        ),
        "lstm": _Classifier(
            lambda part: lstm_probabilities(part, judged, **seeded),
            lambda part: lstm_over_seeds(part, judged, **seeded),
        ),
    }


def _at(metric: str, number: int) -> str:
    """The name of the score of one seed among those of all."""
    return f"{metric}_{number}"


def _tests(scored: Mapping, num_seeds: int, seed: int) -> dict[str, Any]:
    """The tests over seeds of {(model, trained on): (scores of all records, scores of all seeds by `_at`)}."""
    of_models = {
        key: [
            {metric: of_all[metric] for metric in METRICS},
            *({metric: of_seeds[_at(metric, number)] for metric in METRICS} for number in range(num_seeds)),
        ]
        for key, (of_all, of_seeds) in scored.items()
    }
    return seed_tests(of_models, num_seeds=num_seeds, seed=seed)


def _together(first: Part, second: Part) -> Part:
    """The texts of both."""
    starts = np.concatenate([first.words.starts, first.words.starts[-1] + second.words.starts[1:]])
    words = Words(np.concatenate([first.words.ids, second.words.ids]), starts)
    texts, labels = (np.concatenate([getattr(part, name) for part in (first, second)]) for name in ("texts", "labels"))
    return Part(texts, labels, words)


def _facts(corpora: Corpora, settings: EvaluationSettings, seed: int) -> tuple[Any, ...]:
    """What the scores of models trained on real texts depend on."""
    texts = [array for part in (corpora.train, corpora.test) for array in (part.texts, part.labels)]
    return (*texts, settings.lstm_steps, settings.lstm_length, seed)
