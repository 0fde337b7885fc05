"""Evidence on synthetic texts: utility, fidelity, sanity and an attack, each beside the same metric on real texts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from privsyn_jax.evaluation.rows import Rows
from privsyn_jax.evaluation.texts.copies import copy_rows
from privsyn_jax.evaluation.texts.divergence import divergence_rows
from privsyn_jax.evaluation.texts.diversity import diversity_rows
from privsyn_jax.evaluation.texts.fluency import fluency_rows
from privsyn_jax.evaluation.texts.membership import membership_rows
from privsyn_jax.evaluation.texts.syntax import syntax_rows
from privsyn_jax.evaluation.texts.utility import utility_of
from privsyn_jax.evaluation.texts.vectors import tfidf_vectors
from privsyn_jax.evaluation.texts.vocabulary import vocabulary_rows
from privsyn_jax.evaluation.texts.words import Corpora, Part, excerpt, make_corpora
from privsyn_jax.evaluation_settings import EvaluationSettings
from privsyn_jax.types import Texts, TextSchema, UserError

__all__ = ["TextEvaluation", "evaluate_texts"]

_SHOWN_PER_CLASS = 3
_SHOWN_CLASSES = 10
_SHOWN_CHARACTERS = 1_000


class TextEvaluation(NamedTuple):
    """What was measured. Computed from real texts without noise: keep it under `private/`.

    Attributes:
      metrics: rows {"family": "utility" | "fidelity" | "sanity" | "privacy", "metric", "value", "reference",
        "higher_is_better" (None where neither is), "column" (name of a class, None for all), "seed"}; value and
        reference are finite floats, `reference` is the same metric for real held-out texts (utility: for a model
        trained on real texts; privacy: for an attack that knows nothing).
      examples: {"caption", "rows": [{heading: text}]}, in the order in which to show them; all but the first show real
        texts. Long texts are cut off.
      skipped: one sentence for everything that could not be computed or must not be read too much into.
      tests: of downstream classifiers over seeds, see `utility.Utility`; empty without settings.net_seeds.
    """

    metrics: list[dict[str, Any]]
    examples: list[dict[str, Any]]
    skipped: list[str]
    tests: dict[str, Any]


def evaluate_texts(
    schema: TextSchema,
    train: Texts,
    test: Texts,
    synthetic: Texts,
    *,
    settings: EvaluationSettings,
    seed: int,
    announce: Callable[[str], None] = lambda line: None,
) -> TextEvaluation:
    """Compares synthetic texts with the real ones that they stand for.

    Args:
      schema: public facts.
      train: real texts that the generator was trained on.
      test: real texts that it never saw.
      synthetic: any number of texts, at least one; classes may be absent, and texts without words are allowed.
      settings: number of real texts, length and steps of the LSTM, seeds, where scores of real texts are kept.
      seed: of classifiers and subsets.
      announce: told what comes next, a line each time; this takes minutes on a CPU.

    Raises:
      UserError: a set is empty or does not conform to the schema.
    """
    train, test, synthetic = (
        _checked(schema, described, texts)
        for described, texts in (("training", train), ("held-out", test), ("synthetic", synthetic))
    )
    if settings.num_records:
        rng = np.random.default_rng(seed)
        train, test = (_some(texts, settings.num_records, rng) for texts in (train, test))
    announce("splitting texts into words")
    corpora = make_corpora(train, test, synthetic)
    shown = _drawn(schema, corpora.synthetic, seed)
    skipped = _wordless(corpora).skipped
    if not all(len(part.words.ids) for part in (corpora.train, corpora.test, corpora.synthetic)):
        return TextEvaluation([], [shown], skipped, {})
    utility = utility_of(schema, corpora, settings=settings, seed=seed, announce=announce)
    parts = [utility.rows]
    announce("comparing words")
    parts.append(vocabulary_rows(schema, corpora, seed=seed))
    parts.append(diversity_rows(corpora, seed=seed))
    announce("measuring perplexity under an outside model")
    parts.append(fluency_rows(corpora, seed=seed))
    parts.append(syntax_rows(corpora, seed=seed))
    announce("comparing what texts are about")
    vectors = tfidf_vectors(corpora)
    parts.append(divergence_rows(vectors, seed=seed))
    announce("searching for copies and nearest neighbours")
    copies, suspicious = copy_rows(corpora, vectors, seed=seed)
    announce("attacking membership")
    parts += [copies, membership_rows(vectors, seed=seed)]
    return TextEvaluation(
        metrics=[row for part in parts for row in part.metrics],
        examples=[shown] if suspicious is None else [shown, suspicious],
        skipped=[*skipped, *(sentence for part in parts for sentence in part.skipped)],
        tests=utility.tests,
    )


def _some(texts: Texts, size: int, rng: np.random.Generator) -> Texts:
    chosen = rng.permutation(len(texts.labels))[:size]
    return Texts(texts.texts[chosen], texts.labels[chosen])


def _drawn(schema: TextSchema, synthetic: Part, seed: int) -> dict[str, Any]:
    """Some synthetic texts of every class, drawn at random."""
    rng, rows = np.random.default_rng(seed), []
    for k, name in list(enumerate(schema.classes or ("synthetic",)))[:_SHOWN_CLASSES]:
        of_class = rng.permutation(np.flatnonzero(synthetic.labels == k))[:_SHOWN_PER_CLASS]
        rows += [{name: excerpt(str(synthetic.texts[i]), _SHOWN_CHARACTERS)} for i in of_class]
    return {"caption": "Synthetic texts, drawn at random.", "rows": rows}


def _wordless(corpora: Corpora) -> Rows:
    """Says which sets hold texts without words."""
    rows = Rows("every", 0)
    for described, part in (
        ("training", corpora.train),
        ("held-out", corpora.test),
        ("synthetic", corpora.synthetic),
    ):
        count, total = int((part.words.lengths == 0).sum()), len(part.texts)
        if count:
            of_all = "none" if count == total else f"only {total - count:,} of {total:,}"
            rows.skip(f"words of {described} texts", f"{of_all} hold a letter, a digit or a punctuation mark")
    return rows


def _checked(schema: TextSchema, described: str, texts: Texts) -> Texts:
    """The texts as NumPy arrays, conforming to the schema."""
    found, labels = np.asarray(texts.texts, object), np.asarray(texts.labels)
    if not len(labels):
        raise UserError(f"there are no {described} texts: there is nothing to evaluate")
    if found.shape != (len(labels),) or not all(isinstance(text, str) for text in found):
        raise UserError(
            f"the {described} texts are an array of shape {list(found.shape)} for {len(labels)} labels: give one str "
            "for each label"
        )
    num_classes = max(1, len(schema.classes))
    if labels.min() < 0 or labels.max() >= num_classes:
        raise UserError(
            f"the {described} labels run from {labels.min()} to {labels.max()}: the schema names {len(schema.classes)} "
            f"classes, so give labels from 0 to below {num_classes}"
        )
    return Texts(found, labels.astype(np.int32))
