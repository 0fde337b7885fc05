"""Evidence on synthetic images: utility, fidelity and sanity, each beside the same metric on real images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from privsyn_jax.evaluation.images.classifiers import predict
from privsyn_jax.evaluation.images.coverage import MAX_IMAGES, NUM_NEIGHBOURS, Coverage, coverage_metrics
from privsyn_jax.evaluation.images.features import Features, custom_features, random_features, trained_features
from privsyn_jax.evaluation.images.frechet import frechet_distance, kernel_distance, moments
from privsyn_jax.evaluation.images.grid import grid_png
from privsyn_jax.evaluation.images.neighbours import neighbour_rows
from privsyn_jax.evaluation.images.pixels import pixel_rows
from privsyn_jax.evaluation.images.utility import utility_of
from privsyn_jax.evaluation.rows import Rows
from privsyn_jax.evaluation_settings import EvaluationSettings
from privsyn_jax.types import Images, ImageSchema, UserError

__all__ = ["ImageEvaluation", "evaluate_images", "grid_png"]

_JUDGE = "small_cnn"  # the net trained on real images that judges labels and gives the trained features
_SYNTHETIC = "Synthetic images."
_REAL = "Real training images."
_MEANS = "Mean image of every class. Above: synthetic. Below: real training images."
_NEIGHBOURS = (
    "Synthetic images that are far nearer to a training image than to any held-out one. Above: synthetic, the most "
    "suspicious first. Middle: the nearest training image. Below: the nearest held-out image."
)


class ImageEvaluation(NamedTuple):
    """What was measured. Computed from real images without noise: keep it under `private/`.

    Attributes:
      metrics: rows {"family": "utility" | "fidelity" | "sanity", "metric", "value", "reference", "higher_is_better",
        "column" (name of a class, None for all), "seed"}; value and reference are finite floats, `reference` is the
        same metric for real held-out images (utility: for a net trained on real images).
      pictures: PNGs by caption, in the order in which to show them; all but the first show or sum up real images.
      skipped: one sentence for everything that could not be computed or must not be read too much into.
      tests: of downstream nets over seeds, see `utility.Utility`; empty without settings.net_seeds.
    """

    metrics: list[dict[str, Any]]
    pictures: dict[str, bytes]
    skipped: list[str]
    tests: dict[str, Any]


def evaluate_images(
    schema: ImageSchema,
    train: Images,
    test: Images,
    synthetic: Images,
    *,
    settings: EvaluationSettings,
    seed: int,
    announce: Callable[[str], None] = lambda line: None,
) -> ImageEvaluation:
    """Compares synthetic images with the real ones that they stand for.

    Args:
      schema: public facts.
      train: real images that the generator was trained on.
      test: real images that it never saw.
      synthetic: any number of images, at least one; classes may be absent.
      settings: features, numbers of images, of steps and of seeds.
      seed: of the downstream nets and of subsets.
      announce: told what comes next, a line each time; this takes minutes on a CPU.

    Raises:
      UserError: a set is empty or does not conform to the schema, or evaluation.features is no usable function.
    """
    train, test, synthetic = (
        _checked(schema, described, images)
        for described, images in (("training", train), ("held-out", test), ("synthetic", synthetic))
    )
    custom = custom_features(settings.features) if ":" in settings.features else None
    utility = utility_of(schema, train, test, synthetic, settings=settings, seed=seed, announce=announce)
    judge, params = utility.real_nets[_JUDGE]
    features = custom or (
        random_features(schema.shape) if settings.features == "random" else trained_features(judge, params)
    )
    fidelity = Rows("fidelity", seed)
    announce("comparing features")
    _add_distances(fidelity, features, train, test, synthetic, settings.feature_images)
    agreement = (predict(judge, params, x.pixels)[1].argmax(axis=1) == x.labels for x in (synthetic, test))
    fidelity.add("label_agreement", *(is_equal.mean() for is_equal in agreement), higher_is_better=True)
    pixels, means_picture = pixel_rows(schema, train, test, synthetic, seed=seed)
    announce("searching for nearest neighbours")
    sanity, neighbours_picture = neighbour_rows(train, test, synthetic, seed=seed)
    pictures = {
        _SYNTHETIC: grid_png(synthetic, schema),
        _REAL: grid_png(train, schema),
        _MEANS: means_picture,
        _NEIGHBOURS: neighbours_picture,
    }
    parts = (utility.rows, fidelity, pixels, sanity)
    return ImageEvaluation(
        metrics=[row for part in parts for row in part.metrics],
        pictures={caption: picture for caption, picture in pictures.items() if picture is not None},
        skipped=[sentence for part in parts for sentence in part.skipped],
        tests=utility.tests,
    )


def _add_distances(
    rows: Rows, features: Features, train: Images, test: Images, synthetic: Images, max_images: int
) -> None:
    """FID, KID, precision and recall, of synthetic and (reference) of held-out images, on equally many of each."""
    name, rng = f"{features.name}_features", np.random.default_rng(rows.seed)
    size = min(max_images, *(len(images.labels) for images in (train, test, synthetic)))
    if size < 2:
        for metric in ("fid", "kid"):
            rows.skip(f"{metric}_{name}", "one of the sets holds a single image")
        return
    of_train, of_test, of_synthetic = (
        features.function(images.pixels[rng.permutation(len(images.labels))[:size]])
        for images in (train, test, synthetic)
    )
    if features.name != "custom":  # the scale of a net of our own is arbitrary: make the mean variance 1
        scale = np.sqrt(of_train.var(axis=0).mean()) or 1.0
        of_train, of_test, of_synthetic = (found / scale for found in (of_train, of_test, of_synthetic))
    frechet = (frechet_distance(*moments(found), *moments(of_train)) for found in (of_synthetic, of_test))
    rows.add(f"fid_{name}", *frechet)
    rows.add(f"kid_{name}", *(kernel_distance(found, of_train).value for found in (of_synthetic, of_test)))
    few = min(size, MAX_IMAGES)
    if few <= NUM_NEIGHBOURS:
        rows.skip(f"precision and recall of {name}", f"one of the sets holds {few} images only")
    else:
        # Features of a common shift: differences alone matter, and float32 keeps them better near 0.
        centre = of_train.mean(axis=0, keepdims=True)
        real, test_few, synthetic_few = (found[:few] - centre for found in (of_train, of_test, of_synthetic))
        pairs = zip(coverage_metrics(real, synthetic_few), coverage_metrics(real, test_few), strict=True)
        for metric, (value, reference) in zip(Coverage._fields, pairs, strict=True):
            rows.add(f"{metric}_{name}", value, reference, higher_is_better=True)
    rows.skip(
        "Inception FID and KID",
        f"fid_{name} and kid_{name} compare {size:,} images of each kind by {features.description}, so they must not "
        "be set beside published values, which use another net",
    )


def _checked(schema: ImageSchema, described: str, images: Images) -> Images:
    """The images as NumPy arrays, conforming to the schema."""
    pixels, labels = np.asarray(images.pixels), np.asarray(images.labels)
    if not len(labels):
        raise UserError(f"there are no {described} images: there is nothing to evaluate")
    if pixels.dtype != np.uint8 or pixels.shape != (len(labels), *schema.shape):
        raise UserError(
            f"the {described} images are {pixels.dtype} {list(pixels.shape)} for {len(labels)} labels: give uint8 "
            f"{[len(labels), *schema.shape]}, as the schema says"
        )
    if labels.min() < 0 or labels.max() >= len(schema.classes):
        raise UserError(
            f"the {described} labels run from {labels.min()} to {labels.max()}: the schema names {len(schema.classes)} "
            "classes, so give labels from 0 to below that"
        )
    return Images(pixels, labels)
