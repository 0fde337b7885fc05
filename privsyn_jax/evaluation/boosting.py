"""Gradient boosting of trees on histograms, scikit-learn's, as a downstream model of tables."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from privsyn_jax.evaluation.downstream import Problem


# One thread: on a shared machine OpenMP's spinning threads cost up to ten times what they save.
@threadpool_limits.wrap(limits=1)
def classifier(problem: Problem) -> np.ndarray:
    """Boosting with scikit-learn's defaults, one model for each resample.

    Returns:
      Class probabilities float64 [c, m, k]; 0 for a class that is absent from what a model was trained on.
    """
    found = np.zeros((len(problem.resamples), len(problem.judged), problem.num_classes))
    for number, rows in enumerate(problem.resamples):
        labels = problem.labels[rows]
        classes, counts = np.unique(labels, return_counts=True)
        if len(classes) < 2:  # of a small table: the resample knows one class only
            found[number, :, classes] = 1.0
            continue
        # Early stopping holds out a stratified tenth, which a class with a single record does not allow.
        options: dict[str, Any] = {} if counts.min() >= 2 else {"early_stopping": False}
        model = HistGradientBoostingClassifier(random_state=problem.seed + number, **options)
        model.fit(problem.features[rows], labels)
        found[number][:, model.classes_] = model.predict_proba(problem.judged)
    return found


@threadpool_limits.wrap(limits=1)
def regressor(problem: Problem) -> np.ndarray:
    """The same for numbers: predictions float64 [c, m] in the unit of the labels."""
    models = [
        HistGradientBoostingRegressor(random_state=problem.seed + number).fit(
            problem.features[rows], problem.labels[rows]
        )
        for number, rows in enumerate(problem.resamples)
    ]
    return np.stack([model.predict(problem.judged) for model in models])
