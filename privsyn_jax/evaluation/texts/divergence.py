"""The divergence frontier of two sets of texts, after MAUVE, on features of latent semantic analysis."""

from __future__ import annotations

import warnings

import numpy as np
from scipy.special import rel_entr
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.extmath import randomized_svd
from threadpoolctl import threadpool_limits

from privsyn_jax.evaluation.rows import Rows
from privsyn_jax.evaluation.texts.vectors import Vectors

NUM_DIMENSIONS = 64
MAX_TEXTS = 5_000
_TEXTS_PER_CLUSTER = 10
_SCALE = 5.0
_NUM_MIXTURES = 1_001


def frontier_area(p: np.ndarray, q: np.ndarray, *, scale: float = _SCALE) -> float:
    """Area under the curve of (exp(-c KL(q || r)), exp(-c KL(p || r))) over all mixtures r of p and q.

    Args:
      p: [k], at least 0, sums to 1.
      q: as p.
      scale: c.

    Returns:
      In (0, 1]: 1 for p = q; for p and q without a shared cell c B(c + 1, c) of the beta function B, 0.004 for c = 5.
      Higher is better.

    Source: Pillutla et al. 2021, "MAUVE: Measuring the Gap Between Neural Text and Human Text using Divergence
    Frontiers".
    """
    weight = np.linspace(1, 0, _NUM_MIXTURES)[:, None]
    mixture = weight * p[None, :] + (1 - weight) * q[None, :]
    x, y = (np.exp(-scale * rel_entr(share[None, :], mixture).sum(axis=1)) for share in (q, p))
    # From (0, 1) level to the first mixture, p itself; from the last, q itself, straight down to (1, 0).
    return float(np.trapezoid(np.concatenate([[1.0], y]), np.concatenate([[0.0], x])))


@threadpool_limits.wrap(limits=1)
def divergence_rows(vectors: Vectors, *, seed: int) -> Rows:
    """How far synthetic texts lie from training texts in what they are about; the reference is of held-out texts.

    Metric mauve_lsa, in (0, 1], higher is better: texts are TF-IDF vectors brought to NUM_DIMENSIONS dimensions by the
    singular vectors of the training texts and to length 1; as many of each kind, at most MAX_TEXTS, are clustered
    together by k-means into a tenth as many clusters; `frontier_area` of the two shares of clusters. It sees the words
    of a text, not their order.

    Args:
      vectors: the three sets.
      seed: draws subsets, the singular vectors' start and the clusters'.

    Returns:
      Rows.
    """
    rows, rng = Rows("fidelity", seed), np.random.default_rng(seed)
    num_texts = min(MAX_TEXTS, *(found.shape[0] for found in vectors))
    if num_texts < 2 * _TEXTS_PER_CLUSTER:
        rows.skip("mauve_lsa", f"it needs {2 * _TEXTS_PER_CLUSTER} texts of each kind")
        return rows
    rank = min(NUM_DIMENSIONS, *vectors.train.shape)
    components = randomized_svd(vectors.train, rank, random_state=seed)[2]
    train, test, synthetic = (
        _unit(found[rng.permutation(found.shape[0])[:num_texts]] @ components.T) for found in vectors
    )
    areas = (frontier_area(*_cluster_shares(train, found, seed)) for found in (synthetic, test))
    rows.add("mauve_lsa", *areas, higher_is_better=True)
    rows.skip(
        "MAUVE of a language model",
        f"mauve_lsa compares {num_texts:,} texts of each kind by latent semantic analysis, so it must not be set "
        "beside published values, which use features of a large language model",
    )
    return rows


def _cluster_shares(first: np.ndarray, second: np.ndarray, seed: int) -> list[np.ndarray]:
    """Shares of the two sets in each cluster of both together, [k] each."""
    both = np.concatenate([first, second])
    num_clusters = len(first) // _TEXTS_PER_CLUSTER
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different texts than clusters leave some empty
        labels = KMeans(num_clusters, n_init=1, random_state=seed).fit_predict(both)  # type: ignore[arg-type]
    sides = labels[: len(first)], labels[len(first) :]
    return [np.bincount(side, minlength=num_clusters) / len(side) for side in sides]


def _unit(features: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(norms > 0, norms, 1)
