"""Attacks that would find a leak, each against held-out controls. To add one: its file, and its line below.

An attack on records is a function `(schema, train, test, synthetic, *, seed) -> AttackResult or a list of them` that
raises UserError where it cannot be made. The training records are the members.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from privsyn_jax.evaluation.attacks import density, images, texts
from privsyn_jax.evaluation.attacks.attributes import attribute_inference
from privsyn_jax.evaluation.attacks.blind import against_blind, blind_result
from privsyn_jax.evaluation.attacks.density import density_ratio, likelihood_ratio
from privsyn_jax.evaluation.attacks.images import IMAGE_ATTACKS
from privsyn_jax.evaluation.attacks.inversion import model_inversion
from privsyn_jax.evaluation.attacks.linkage import linkability, singling_out
from privsyn_jax.evaluation.attacks.reconstruction import distance_to_closest_record, reconstruction
from privsyn_jax.evaluation.attacks.scores import AttackResult, Interval, membership_result, result_to_dict
from privsyn_jax.evaluation.attacks.shadow_posteriors import shadow_posteriors
from privsyn_jax.evaluation.attacks.texts import TEXT_ATTACKS
from privsyn_jax.types import Images, ImageSchema, Schema, Texts, TextSchema, UserError

__all__ = [
    "IMAGE_ATTACKS",
    "TABLE_ATTACKS",
    "TEXT_ATTACKS",
    "AttackReport",
    "AttackResult",
    "Interval",
    "attack_images",
    "attack_table",
    "attack_texts",
    "membership_result",
    "model_inversion",
    "report_to_dict",
    "result_to_dict",
]

Attack = Callable[..., AttackResult | list[AttackResult]]

TABLE_ATTACKS: dict[str, Attack] = {
    "shadow_posteriors": shadow_posteriors,
    "likelihood_ratio": likelihood_ratio,
    "density_ratio": density_ratio,
    "distance_to_closest_record": distance_to_closest_record,
    "attribute_inference": attribute_inference,
    "singling_out": singling_out,
    "linkability": linkability,
    "reconstruction": reconstruction,
}


class AttackReport(NamedTuple):
    """What several attacks found. Computed from real records without noise: keep it under `private/`.

    Attributes:
      results: in the order of the registry. Each attack alone raises a false alarm in at most 5 % of cases, all of them
        together more often: one detection that barely is one calls for a second seed.
      skipped: one sentence for each attack that could not be made, and one where controls are unlike members.
    """

    results: list[AttackResult]
    skipped: list[str]


def attack_table(
    schema: Schema,
    train: pd.DataFrame,
    test: pd.DataFrame,
    synthetic: pd.DataFrame,
    *,
    seed: int,
    names: Sequence[str] | None = None,
    announce: Callable[[str], None] = lambda line: None,
) -> AttackReport:
    """Makes the attacks on a synthetic table that need records only.

    Args:
      schema: public facts.
      train: rows that the generator was trained on, in canonical dtypes: the members.
      test: rows that it never saw, from the same population: controls, and reference rows of the adversary.
      synthetic: rows released.
      seed: of all random choices.
      names: keys of TABLE_ATTACKS; all by default.
      announce: told what comes next, a line each time.

    Raises:
      UserError: a name is no attack. What an attack cannot handle is a sentence in `skipped`.
    """
    return _attacked(TABLE_ATTACKS, density.blind_distances, names, announce, (schema, train, test, synthetic), seed)


def attack_images(
    schema: ImageSchema,
    train: Images,
    test: Images,
    synthetic: Images,
    *,
    seed: int,
    names: Sequence[str] | None = None,
    announce: Callable[[str], None] = lambda line: None,
) -> AttackReport:
    """As `attack_table`, on images, with IMAGE_ATTACKS."""
    return _attacked(IMAGE_ATTACKS, images.blind_distances, names, announce, (schema, train, test, synthetic), seed)


def attack_texts(
    schema: TextSchema,
    train: Texts,
    test: Texts,
    synthetic: Texts,
    *,
    seed: int,
    names: Sequence[str] | None = None,
    announce: Callable[[str], None] = lambda line: None,
) -> AttackReport:
    """As `attack_table`, on texts, with TEXT_ATTACKS."""
    return _attacked(TEXT_ATTACKS, texts.blind_distances, names, announce, (schema, train, test, synthetic), seed)


def report_to_dict(report: AttackReport) -> dict[str, Any]:
    """The report as plain JSON: {"results": see `result_to_dict`, "skipped"}."""
    return {"results": [result_to_dict(result) for result in report.results], "skipped": list(report.skipped)}


def _attacked(
    attacks: Mapping[str, Attack],
    blind: Callable[..., list[np.ndarray]],
    names: Sequence[str] | None,
    announce: Callable[[str], None],
    records: tuple[Any, Any, Any, Any],
    seed: int,
) -> AttackReport:
    unknown = [name for name in names or () if name not in attacks]
    if unknown:
        raise UserError(f"there is no attack {unknown[0]}: use {', '.join(attacks)}")
    results, skipped, chosen = [], [], list(attacks if names is None else names)
    for name in chosen:
        announce(f"attacking: {name.replace('_', ' ')}")
        try:
            found = attacks[name](*records, seed=seed)
        except UserError as error:
            skipped.append(f"{name}: {error}.")
            continue
        results += found if isinstance(found, list) else [found]
    if results:
        announce("attacking without the synthetic records, for comparison")
        results, sentences = against_blind(results, blind_result(*blind(*records, seed=seed), seed=seed))
        skipped += sentences
    return AttackReport(results, skipped)
