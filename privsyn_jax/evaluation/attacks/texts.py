"""The attacks on synthetic texts: cosine of TF-IDF for nearness, linear classifiers of TF-IDF for posteriors."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from sklearn.linear_model import LogisticRegression

from privsyn_jax.evaluation.attacks.candidates import draw
from privsyn_jax.evaluation.attacks.density import log_distance_ratio
from privsyn_jax.evaluation.attacks.reconstruction import WEAK, nearness_result
from privsyn_jax.evaluation.attacks.scores import AttackResult, membership_result
from privsyn_jax.evaluation.attacks.shadow_posteriors import Labelled, posterior_result
from privsyn_jax.evaluation.texts.vectors import nearest, tfidf_vectors
from privsyn_jax.evaluation.texts.words import Sparse, make_corpora
from privsyn_jax.types import Texts, TextSchema, UserError

_MAX_CANDIDATES = 2_000  # of each kind
_PARTS = 5  # of the reference, the nearest text of each: one neighbour alone is too noisy an estimate
_SMOOTHING = 1e-3  # cosine distance below which two texts count as equal
_WEAK_PENALTY = 100.0  # C of the classifier: little regularisation remembers most


class _Sets(NamedTuple):
    """Texts of each kind as `candidates.Tables`, as sparse TF-IDF rows of norm 1 and labels."""

    members: Labelled
    controls: Labelled
    reference: Labelled
    synthetic: Labelled


def distance_to_closest_record(
    schema: TextSchema, train: Texts, test: Texts, synthetic: Texts, *, seed: int
) -> AttackResult:
    """Membership by the cosine similarity (of TF-IDF) to the most similar synthetic text.

    Args:
      schema: public facts.
      train: texts trained on: the members.
      test: held-out texts; half of them are controls.
      synthetic: texts released.
      seed: draws the candidates.

    Raises:
      UserError: a set holds too few texts or no words.
    """
    sets = _prepare(train, test, synthetic, seed)
    scores = [-_distances(part, sets.synthetic) for part in (sets.members, sets.controls)]
    return membership_result("distance_to_closest_record", *scores, seed=seed, notes=(WEAK,))


def reconstruction(schema: TextSchema, train: Texts, test: Texts, synthetic: Texts, *, seed: int) -> AttackResult:
    """`reconstruction.nearness_result` of 1 less the cosine similarity; args as `distance_to_closest_record`."""
    sets = _prepare(train, test, synthetic, seed)
    distances = [_distances(part, sets.synthetic) for part in (sets.members, sets.controls)]
    return nearness_result("reconstruction", *distances, seed=seed)


def density_ratio(schema: TextSchema, train: Texts, test: Texts, synthetic: Texts, *, seed: int) -> AttackResult:
    """The attack of `density.density_ratio` on cosine distances; args as `distance_to_closest_record`.

    The distance to the reference is the mean over five parts of it of the distance to the nearest text.
    """
    sets = _prepare(train, test, synthetic, seed)
    scores = [
        log_distance_ratio(_distances(texts, sets.synthetic), _to_reference(texts, sets), smoothing=_SMOOTHING)
        for texts in (sets.members, sets.controls)
    ]
    return membership_result("density_ratio", *scores, seed=seed)


def blind_distances(schema: TextSchema, train: Texts, test: Texts, synthetic: Texts, *, seed: int) -> list[np.ndarray]:
    """Of members and of controls to the reference texts, see `blind`; args as `distance_to_closest_record`."""
    sets = _prepare(train, test, synthetic, seed)
    return [_to_reference(texts, sets) for texts in (sets.members, sets.controls)]


def shadow_posteriors(schema: TextSchema, train: Texts, test: Texts, synthetic: Texts, *, seed: int) -> AttackResult:
    """`shadow_posteriors.posterior_result` of a logistic regression that predicts the class from TF-IDF.

    Args as `distance_to_closest_record`.

    Raises:
      UserError: a set holds too few texts or no words; or there are no classes, or texts of one class only.
    """
    if len(schema.classes) < 2:
        raise UserError("the texts have no classes: without labels there is no classifier to attack")
    return posterior_result(*_prepare(train, test, synthetic, seed), fit=_fit_linear, seed=seed)


TEXT_ATTACKS: dict[str, Callable[..., AttackResult | list[AttackResult]]] = {
    "shadow_posteriors": shadow_posteriors,
    "density_ratio": density_ratio,
    "distance_to_closest_record": distance_to_closest_record,
    "reconstruction": reconstruction,
}


def _prepare(train: Texts, test: Texts, synthetic: Texts, seed: int) -> _Sets:
    sizes = [len(part.labels) for part in (train, test, synthetic)]
    drawn = draw(*sizes, seed=seed, most=_MAX_CANDIDATES)
    chosen = [
        Texts(np.asarray(part.texts, object)[places], np.asarray(part.labels)[places])
        for part, places in zip((train, test, test, synthetic), drawn, strict=True)
    ]
    # Controls and reference go in as one held-out set, so that both get the same weights of words.
    held_out = Texts(*(np.concatenate(pair) for pair in zip(chosen[1], chosen[2], strict=True)))
    corpora = make_corpora(chosen[0], held_out, chosen[3])
    for described, part in (("training", corpora.train), ("held-out", corpora.test), ("synthetic", corpora.synthetic)):
        if not len(part.words.ids):
            raise UserError(f"the {described} texts hold no words: there is nothing to compare")
    found, size = tfidf_vectors(corpora), len(drawn.controls)
    rows: list[Sparse] = [found.train, found.test[:size], found.test[size:], found.synthetic]
    return _Sets(*(Labelled(part, texts.labels) for part, texts in zip(rows, chosen, strict=True)))


def _distances(queries: Labelled, candidates: Labelled) -> np.ndarray:
    """1 less the cosine similarity to the most similar candidate, float64 [n]."""
    similarity = nearest(queries.features, candidates.features).similarity.astype(np.float64)
    return np.maximum(0.0, 1.0 - similarity)


def _to_reference(texts: Labelled, sets: _Sets) -> np.ndarray:
    """Mean over parts of the reference of the distance to the nearest text."""
    places = [part for part in np.array_split(np.arange(len(sets.reference.labels)), _PARTS) if len(part)]
    return np.mean([_distances(texts, sets.reference[part]) for part in places], axis=0)


def _fit_linear(records: Labelled, seed: int) -> LogisticRegression:
    return LogisticRegression(C=_WEAK_PENALTY, max_iter=500, random_state=seed).fit(records.features, records.labels)
