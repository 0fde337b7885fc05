"""Whether synthetic texts repeat training texts, whole, in runs of words, or in what they are about."""

from __future__ import annotations

from typing import Any

import numpy as np

from privsyn_jax.evaluation.rows import Rows
from privsyn_jax.evaluation.texts.vectors import Nearest, Vectors, nearest
from privsyn_jax.evaluation.texts.words import Corpora, Words, excerpt, locate, runs

RUN_LENGTH = 8
MAX_QUERIES = 1_000  # texts whose neighbours are looked for
NUM_SHOWN = 6
_SHOWN_CHARACTERS = 600
_NUM_ERRORS = 4  # standard errors from one half that are not chance
_CAPTION = (
    "Synthetic texts that are more similar, by the words they hold, to a training text than to any held-out one: the "
    "most suspicious first, each with the nearest training text and the nearest held-out text."
)


def copied_share(words: Words, source: Words, vocabulary_size: int) -> float:
    """Share of the runs of RUN_LENGTH words that occur in a text of `source` too; NaN without a run."""
    table = np.unique(runs(source, RUN_LENGTH, vocabulary_size)[0])
    keys, _ = runs(words, RUN_LENGTH, vocabulary_size)
    return float(np.mean(locate(keys, table) < len(table))) if len(keys) else np.nan


def copy_rows(corpora: Corpora, vectors: Vectors, *, seed: int) -> tuple[Rows, dict[str, Any] | None]:
    """Copies, and which side the most similar text is on; and the most suspicious texts.

    Metrics, each a share in [0, 1]; labels play no part:
      exact_copy_rate: synthetic texts that equal a training text in every character; reference: held-out ones that do.
      duplicate_rate: synthetic texts that equal an earlier one; reference: of training texts. Both are cut to the size
        of the smaller set.
      copied_8gram_rate: runs of eight words in synthetic texts that a training text holds too; reference: of those in
        held-out texts. Phrases that everybody uses are counted on both sides.
      nearer_to_training_rate: synthetic texts more similar (cosine of TF-IDF) to one of m training texts than to one of
        m held-out texts, a tie counting half; m is the smaller of the held-out set and half the training set.
        Reference: real training texts that are not among the m. Both are about 0.5 without memorisation if held-out
        texts were drawn at random; if not, `skipped` says so.

    Args:
      corpora: the three sets, each with at least one word.
      vectors: of the same texts.
      seed: draws the subsets.

    Returns:
      (rows, {"caption", "rows"} or None): up to NUM_SHOWN synthetic texts, each beside the most similar of all training
      texts and the most similar held-out one; largest difference of the two similarities first.
    """
    rows, rng = Rows("sanity", seed), np.random.default_rng(seed)
    train, test, synthetic = corpora.train, corpora.test, corpora.synthetic
    originals = set(train.texts)
    copied = (np.mean([text in originals for text in part.texts]) for part in (synthetic, test))
    rows.add("exact_copy_rate", *copied)
    size = min(len(synthetic.texts), len(train.texts))
    shuffled = (rng.permutation(part.texts)[:size] for part in (synthetic, train))
    rows.add("duplicate_rate", *(1 - len(set(texts)) / size for texts in shuffled))
    shares = (copied_share(part.words, train.words, len(corpora.vocabulary)) for part in (synthetic, test))
    rows.add("copied_8gram_rate", *shares, undefined=f"no text of one of the sets has {RUN_LENGTH} words")
    if len(train.texts) < 2:
        rows.skip("nearer_to_training_rate", "there is one training text only")
        return rows, None
    queries = rng.permutation(len(synthetic.texts))[:MAX_QUERIES]
    heldout, real = (rng.permutation(len(part.texts)) for part in (test, train))
    size = min(len(heldout), len(real) // 2)
    compared, rest = real[:size], real[size:]
    near_heldout, others = vectors.test[heldout[:size]], vectors.train[rest[:MAX_QUERIES]]
    of_queries = vectors.synthetic[queries]
    in_compared, in_heldout = nearest(of_queries, vectors.train[compared]), nearest(of_queries, near_heldout)
    reference = _nearer_rate(nearest(others, vectors.train[compared]), nearest(others, near_heldout))
    rows.add("nearer_to_training_rate", _nearer_rate(in_compared, in_heldout), reference)
    if abs(reference - 0.5) > _NUM_ERRORS * 0.5 / np.sqrt(others.shape[0]):
        rows.skip(
            "nearer_to_training_rate and membership",
            f"training texts that were not compared with are nearer to training texts at a rate of {reference:.2f}, so "
            "held-out texts differ from training texts in kind: synthetic texts may do so and an attack may succeed "
            "without a text having been memorised",
        )
    in_rest = nearest(of_queries, vectors.train[rest])
    is_rest = in_rest.similarity > in_compared.similarity
    index = np.where(is_rest, rest[in_rest.index], compared[in_compared.index])
    excess = np.maximum(in_rest.similarity, in_compared.similarity) - in_heldout.similarity
    shown = [
        {
            "synthetic": synthetic.texts[queries[i]],
            "nearest training text": train.texts[index[i]],
            "nearest held-out text": test.texts[heldout[in_heldout.index[i]]],
        }
        for i in np.argsort(-excess, kind="stable")[:NUM_SHOWN]
    ]
    cut = [{heading: excerpt(str(text), _SHOWN_CHARACTERS) for heading, text in row.items()} for row in shown]
    return rows, {"caption": _CAPTION, "rows": cut}


def _nearer_rate(in_train: Nearest, in_heldout: Nearest) -> float:
    difference = in_train.similarity - in_heldout.similarity
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))
