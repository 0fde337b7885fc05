"""A simple membership attack: can it be told from the synthetic texts whether a text was trained on?"""

from __future__ import annotations

import numpy as np

from privsyn_jax.evaluation.attacks.scores import advantage_interval, auc_interval, true_positive_rate
from privsyn_jax.evaluation.rows import Rows
from privsyn_jax.evaluation.texts.vectors import Vectors, nearest

MAX_CANDIDATES = 1_000  # of each kind
_FALSE_POSITIVE_RATE = 0.01
_LEAST = 2  # candidates of each kind, so that there is a half to choose a threshold on


def membership_rows(vectors: Vectors, *, seed: int) -> Rows:
    """The attack's success on equally many training and held-out texts; the reference is chance.

    The score of a text is its largest cosine similarity (of TF-IDF) to a synthetic text: but for the weights of words,
    who sees the synthetic texts alone can compute it. A stronger attack may succeed where this one fails, so chance
    here is no guarantee; nor is success a leak where held-out texts are of another kind, see `copies.copy_rows`.

    Metrics, lower is better:
      membership_auc, membership_auc_lower, membership_auc_upper: see `scores.auc_interval`.
      membership_advantage: see `scores.advantage_interval`.
      membership_tpr_at_1_percent_fpr: share of training texts found where 1 % of held-out texts are taken for one.

    Args:
      vectors: the three sets.
      seed: draws the candidates, at most MAX_CANDIDATES of each kind.

    Returns:
      Rows.
    """
    rows, rng = Rows("privacy", seed), np.random.default_rng(seed)
    size = min(MAX_CANDIDATES, vectors.train.shape[0], vectors.test.shape[0])
    if size < _LEAST:
        rows.skip("membership_auc", f"it needs {_LEAST} training and {_LEAST} held-out texts")
        return rows
    members, others = (
        nearest(found[rng.permutation(found.shape[0])[:size]], vectors.synthetic).similarity
        for found in (vectors.train, vectors.test)
    )
    auc = auc_interval(members, others)
    for name, value in (("", auc.value), ("_lower", auc.low), ("_upper", auc.high)):
        rows.add(f"membership_auc{name}", value, 0.5)
    rows.add("membership_advantage", advantage_interval(members, others).value, 0.0)
    if size * _FALSE_POSITIVE_RATE < 1:
        rows.skip("membership_tpr_at_1_percent_fpr", "it needs 100 training and 100 held-out texts")
    else:
        found = true_positive_rate(members, others, false_positive_rate=_FALSE_POSITIVE_RATE)
        rows.add("membership_tpr_at_1_percent_fpr", found, _FALSE_POSITIVE_RATE)
    return rows
