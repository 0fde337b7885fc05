"""Downstream nets trained on synthetic images, beside the same nets trained on real ones."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from privsyn_jax.evaluation.downstream import orders, resamples
from privsyn_jax.evaluation.images.classifiers import BATCH_SIZE, predict, train_classifier, train_classifiers
from privsyn_jax.evaluation.images.nets import NETS
from privsyn_jax.evaluation.rows import Rows
from privsyn_jax.evaluation.scores import classification_scores
from privsyn_jax.evaluation.significance import seed_tests
from privsyn_jax.evaluation_settings import EvaluationSettings
from privsyn_jax.types import Images, ImageSchema

METRICS = ("accuracy", "balanced_accuracy", "f1")
_SHIFT_SHARE = 14  # images are shifted by up to one part in so many of their size


class Utility(NamedTuple):
    """Scores of downstream nets.

    Attributes:
      rows: metric rows, of nets trained on all images once.
      real_nets: {name of a net: (the net, its parameters after training on real images)}.
      tests: means, intervals and tests over seeds, see `significance.seed_tests`; empty without seeds. The model
        "mean_of_nets" is the mean of the nets seed by seed.
    """

    rows: Rows
    real_nets: dict[str, tuple[nn.Module, Any]]
    tests: dict[str, Any]


def utility_of(
    schema: ImageSchema,
    train: Images,
    test: Images,
    synthetic: Images,
    *,
    settings: EvaluationSettings,
    seed: int,
    announce: Callable[[str], None],
) -> Utility:
    """Scores on real held-out images of every net, trained on synthetic and (reference) on real images.

    Both trainings of a net start from the same weights and take the same number of steps, on all images there are:
    the real set may be larger. No net, step or setting is chosen by a score. `mean_accuracy` is the mean of the nets:
    a single architecture may do well or badly by chance. If there are seeds, `tests` also holds nets trained on real
    and synthetic images together.

    Args:
      schema: public facts.
      train: real images that were trained on.
      test: real held-out images.
      synthetic: synthetic images; classes may be absent.
      settings: number of steps, whether images are shifted, and how many seeds there are besides.
      seed: of weights, order, shifts and resamples.
      announce: told what is being trained.
    """
    rows, steps = Rows("utility", seed), settings.classifier_steps
    max_shift = max(schema.shape[:2]) // _SHIFT_SHARE if settings.classifier_shifts else 0
    sources = {"synthetic": synthetic, "real": train}
    if settings.net_seeds:
        sources["real_plus_synthetic"] = Images(*map(np.concatenate, zip(train, synthetic, strict=True)))
    real_nets, scored = {}, {}
    for number, (name, make) in enumerate(NETS.items()):
        net = make(num_classes=len(schema.classes))
        for source, images in sources.items():
            described = f"{len(images.labels)} {source.replace('_', ' ')} images"
            announce(f"training {name} on {described}")
            key = jax.random.fold_in(jax.random.key(seed), number)
            params = train_classifier(net, images, num_steps=steps, max_shift=max_shift, key=key)
            if source == "real":
                real_nets[name] = net, params
            scored[name, source] = [_scores(net, params, test, len(schema.classes))]
            if settings.net_seeds:
                announce(f"training {name} for {settings.net_seeds} seeds on {described}")
                key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), len(NETS)), number)
                nets = _trained_over_seeds(net, images, settings, max_shift=max_shift, seed=seed, key=key)
                scored[name, source] += [_scores(net, params, test, len(schema.classes)) for params in nets]
        for metric in METRICS:
            values = (scored[name, source][0][metric] for source in ("synthetic", "real"))
            rows.add(f"{name}_{metric}", *values, higher_is_better=True)
    means = {source: _mean_accuracies([scored[name, source] for name in NETS]) for source in sources}
    rows.add("mean_accuracy", *(means[source][0] for source in ("synthetic", "real")), higher_is_better=True)
    if not settings.net_seeds:
        return Utility(rows, real_nets, {})
    scored |= {("mean_of_nets", source): [{"accuracy": x} for x in found] for source, found in means.items()}
    return Utility(rows, real_nets, seed_tests(scored, num_seeds=settings.net_seeds, seed=seed))


def _trained_over_seeds(
    net: nn.Module, images: Images, settings: EvaluationSettings, *, max_shift: int, seed: int, key: jax.Array
) -> Iterator[Any]:
    """Parameters after training on each resample of the images."""
    resampled = resamples(len(images.labels), settings.net_seeds, seed=seed)
    batches = orders(resampled, num_steps=settings.classifier_steps, batch_size=BATCH_SIZE, seed=seed)[1:]
    stacked = train_classifiers(net, images, batches, max_shift=max_shift, key=key)
    for number in range(settings.net_seeds):
        yield jax.tree.map(operator.itemgetter(number), stacked)


def _scores(net: nn.Module, params: Any, test: Images, num_classes: int) -> dict[str, float]:
    _, probabilities = predict(net, params, test.pixels)
    found = classification_scores(np.asarray(test.labels), probabilities, num_classes)
    return {metric: found[metric] for metric in METRICS}


def _mean_accuracies(scored: Sequence[Sequence[dict[str, float]]]) -> np.ndarray:
    """Means over nets, one for each training."""
    return np.mean([[scores["accuracy"] for scores in of_net] for of_net in scored], axis=0)
