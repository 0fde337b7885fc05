"""The attacks on synthetic images: pixels for nearness, principal components of pixels for classifiers."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

from privsyn_jax.evaluation.attacks.candidates import draw
from privsyn_jax.evaluation.attacks.density import log_distance_ratio
from privsyn_jax.evaluation.attacks.reconstruction import WEAK, nearness_result
from privsyn_jax.evaluation.attacks.scores import AttackResult, membership_result
from privsyn_jax.evaluation.attacks.shadow_posteriors import Labelled, fit_forest, posterior_result
from privsyn_jax.evaluation.attacks.vectors import nearest_vectors
from privsyn_jax.types import Images, ImageSchema

_MAX_CANDIDATES = 2_000  # of each kind: distances of pixels are costly
_MAX_COMPONENTS = 50
_MAX_FITTED = 5_000  # images that the components are fitted on
_NEIGHBOURS = 5  # among the reference
_SMOOTHING = 1e-3  # share of a typical distance below which two images count as equal


class _Sets(NamedTuple):
    """Images of each kind as `candidates.Tables`, as float32 pixels [n, d] from 0 to 1 and labels."""

    members: Labelled
    controls: Labelled
    reference: Labelled
    synthetic: Labelled


def distance_to_closest_record(
    schema: ImageSchema, train: Images, test: Images, synthetic: Images, *, seed: int
) -> AttackResult:
    """Membership by the pixel L2 distance to the nearest synthetic image.

    Args:
      schema: public facts.
      train: images trained on: the members.
      test: held-out images; half of them are controls.
      synthetic: images released.
      seed: draws the candidates.

    Raises:
      UserError: a set holds too few images.
    """
    members, controls = _pixel_distances(_prepare(train, test, synthetic, seed))
    return membership_result("distance_to_closest_record", -members, -controls, seed=seed, notes=(WEAK,))


def reconstruction(schema: ImageSchema, train: Images, test: Images, synthetic: Images, *, seed: int) -> AttackResult:
    """`reconstruction.nearness_result` of pixel L2 (pixels from 0 to 1); args as `distance_to_closest_record`."""
    members, controls = _pixel_distances(_prepare(train, test, synthetic, seed))
    return nearness_result("reconstruction", members, controls, seed=seed)


def density_ratio(schema: ImageSchema, train: Images, test: Images, synthetic: Images, *, seed: int) -> AttackResult:
    """The attack of `density.density_ratio` on pixel L2; args as `distance_to_closest_record`."""
    sets = _prepare(train, test, synthetic, seed)
    parts = [
        (nearest_vectors(images.features, sets.synthetic.features)[:, 0], _to_reference(images, sets))
        for images in (sets.members, sets.controls)
    ]
    typical = float(np.median(np.concatenate([to_reference for _, to_reference in parts]))) or 1.0
    scores = [log_distance_ratio(*distances, smoothing=_SMOOTHING * typical) for distances in parts]
    return membership_result("density_ratio", *scores, seed=seed)


def blind_distances(
    schema: ImageSchema, train: Images, test: Images, synthetic: Images, *, seed: int
) -> list[np.ndarray]:
    """Of members and of controls to the reference images, see `blind`; args as `distance_to_closest_record`."""
    sets = _prepare(train, test, synthetic, seed)
    return [_to_reference(images, sets) for images in (sets.members, sets.controls)]


def shadow_posteriors(
    schema: ImageSchema, train: Images, test: Images, synthetic: Images, *, seed: int
) -> AttackResult:
    """`shadow_posteriors.posterior_result` of forests that predict the label from principal components of the pixels.

    The components are fitted on synthetic and reference images. Args as `distance_to_closest_record`.

    Raises:
      UserError: a set holds too few images, or synthetic or reference images are of one class.
    """
    sets = _prepare(train, test, synthetic, seed)
    known = np.concatenate([part.features[:_MAX_FITTED] for part in (sets.synthetic, sets.reference)])
    most = min(_MAX_COMPONENTS, len(known) - 1, known.shape[1])
    with threadpool_limits(limits=1), np.errstate(invalid="ignore", divide="ignore"):  # shares of no variance
        components = PCA(most, svd_solver="randomized", random_state=seed).fit(known)
        projected = [Labelled(components.transform(part.features), part.labels) for part in sets]
    return posterior_result(*projected, fit=fit_forest, seed=seed)


IMAGE_ATTACKS: dict[str, Callable[..., AttackResult | list[AttackResult]]] = {
    "shadow_posteriors": shadow_posteriors,
    "density_ratio": density_ratio,
    "distance_to_closest_record": distance_to_closest_record,
    "reconstruction": reconstruction,
}


def _prepare(train: Images, test: Images, synthetic: Images, seed: int) -> _Sets:
    sizes = [len(images.labels) for images in (train, test, synthetic)]
    drawn = draw(*sizes, seed=seed, most=_MAX_CANDIDATES)
    parts = []
    for images, places in zip((train, test, test, synthetic), drawn, strict=True):
        pixels = np.asarray(images.pixels)[places].reshape(len(places), -1)
        parts.append(Labelled(pixels.astype(np.float32) / 255, np.asarray(images.labels)[places]))
    return _Sets(*parts)


def _to_reference(images: Labelled, sets: _Sets) -> np.ndarray:
    k = min(_NEIGHBOURS, len(sets.reference.labels))
    return nearest_vectors(images.features, sets.reference.features, k=k)[:, -1]


def _pixel_distances(sets: _Sets) -> list[np.ndarray]:
    """Of members and of controls to the nearest synthetic image."""
    return [nearest_vectors(images.features, sets.synthetic.features)[:, 0] for images in (sets.members, sets.controls)]
