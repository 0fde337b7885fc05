"""Whether synthetic texts are as varied and as long as real ones."""

from __future__ import annotations

import numpy as np
from scipy.stats import wasserstein_distance

from privsyn_jax.evaluation.rows import Rows
from privsyn_jax.evaluation.texts.bleu import self_bleu
from privsyn_jax.evaluation.texts.words import Corpora, Words, equal_totals, runs, take

NUM_HYPOTHESES = 200
MAX_REFERENCES = 1_000


def distinct_share(words: Words, length: int, vocabulary_size: int) -> float:
    """Different runs of `length` words per run; NaN without a run. It falls with the number of words.

    Source: Li et al. 2016, "A Diversity-Promoting Objective Function for Neural Conversation Models".
    """
    keys, _ = runs(words, length, vocabulary_size)
    return len(np.unique(keys)) / len(keys) if len(keys) else np.nan


def diversity_rows(corpora: Corpora, *, seed: int) -> Rows:
    """Diversity and lengths of synthetic texts; the reference is of real held-out texts.

    Metrics:
      distinct_1, distinct_2, distinct_3: different runs of 1, 2, 3 words per run, both sets cut to the same number of
        words; higher means more varied. Random words are more varied than any text: read it beside perplexity.
      self_bleu: see `bleu.self_bleu`; of equally many texts, MAX_REFERENCES at most, NUM_HYPOTHESES of them scored;
        lower means more varied.
      length_mean: words of a text, on average; neither direction is better.
      length_wasserstein: Wasserstein-1 distance in words between the lengths and those of training texts; lower is
        better.

    Args:
      corpora: the three sets, each with at least one word.
      seed: draws cuts and subsets.

    Returns:
      Rows.
    """
    rows, rng = Rows("fidelity", seed), np.random.default_rng(seed)
    size = len(corpora.vocabulary)
    sets = corpora.synthetic.words, corpora.test.words
    cut = equal_totals(*sets, rng)
    for length in (1, 2, 3):
        shares = (distinct_share(words, length, size) for words in cut)
        undefined = f"no text of one of the sets has {length} words"
        rows.add(f"distinct_{length}", *shares, higher_is_better=True, undefined=undefined)
    num_texts = min(MAX_REFERENCES, *(len(words.lengths) for words in sets))
    if num_texts < 2:
        rows.skip("self_bleu", "one of the sets holds a single text")
    else:
        chosen = (take(words, rng.permutation(len(words.lengths))[:num_texts]) for words in sets)
        rows.add("self_bleu", *(self_bleu(words, size, num_hypotheses=NUM_HYPOTHESES) for words in chosen))
    rows.add("length_mean", *(words.lengths.mean() for words in sets), higher_is_better=None)  # type: ignore[arg-type]
    lengths = corpora.train.words.lengths
    rows.add("length_wasserstein", *(wasserstein_distance(words.lengths, lengths) for words in sets))
    return rows
