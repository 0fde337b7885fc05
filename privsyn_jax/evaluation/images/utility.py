"""Downstream nets trained on synthetic images, beside the same nets trained on real ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from privsyn_jax.evaluation.images.classifiers import predict, train_classifier
from privsyn_jax.evaluation.images.nets import NETS
from privsyn_jax.evaluation.rows import Rows
from privsyn_jax.evaluation.scores import classification_scores
from privsyn_jax.settings import EvaluationSettings
from privsyn_jax.types import Images, ImageSchema

METRICS = ("accuracy", "balanced_accuracy", "f1")
_SHIFT_SHARE = 14  # images are shifted by up to one part in so many of their size


def utility_rows(
    schema: ImageSchema,
    train: Images,
    test: Images,
    synthetic: Images,
    *,
    settings: EvaluationSettings,
    seed: int,
    announce: Callable[[str], None],
) -> tuple[Rows, dict[str, tuple[nn.Module, Any]]]:
    """Scores on real held-out images of every net, trained on synthetic and (reference) on real images.

    Both trainings of a net start from the same weights and take the same number of steps, on all images there are:
    the real set may be larger. No net, step or setting is chosen by a score. `mean_accuracy` is the mean of the nets:
    a single architecture may do well or badly by chance.

    Args:
      schema: public facts.
      train: real images that were trained on.
      test: real held-out images.
      synthetic: synthetic images; classes may be absent.
      settings: number of steps and whether images are shifted.
      seed: of weights, order and shifts.
      announce: told what is being trained.

    Returns:
      (rows, {name of a net: (the net, its parameters after training on real images)}).
    """
    rows = Rows("utility", seed)
    max_shift = max(schema.shape[:2]) // _SHIFT_SHARE if settings.classifier_shifts else 0
    real_nets, accuracies = {}, []
    for number, (name, make) in enumerate(NETS.items()):
        net, scored = make(num_classes=len(schema.classes)), []
        for described, images in (("synthetic", synthetic), ("real", train)):
            announce(f"training {name} on {len(images.labels)} {described} images")
            key = jax.random.fold_in(jax.random.key(seed), number)
            steps = settings.classifier_steps
            params = train_classifier(net, images, num_steps=steps, max_shift=max_shift, key=key)
            _, probabilities = predict(net, params, test.pixels)
            scored.append(classification_scores(np.asarray(test.labels), probabilities, len(schema.classes)))
        real_nets[name] = net, params
        accuracies.append([score["accuracy"] for score in scored])
        for metric in METRICS:
            rows.add(f"{name}_{metric}", *(score[metric] for score in scored), higher_is_better=True)
    rows.add("mean_accuracy", *np.mean(accuracies, axis=0), higher_is_better=True)
    return rows, real_nets
