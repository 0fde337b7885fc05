"""Whether synthetic images lie nearer to training images than held-out ones do: copies and nearest neighbours."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from privsyn_jax.evaluation.images.grid import tiles_png
from privsyn_jax.evaluation.rows import Rows
from privsyn_jax.types import Images

MAX_QUERIES = 5000  # images whose neighbours are looked for
NUM_SHOWN = 12
_CHUNK = 2048


class Neighbours(NamedTuple):
    """The nearest candidate of every query by pixel L2.

    Attributes:
      index: int [n], of the candidate.
      distance: int64 [n], squared L2 in grey levels (0 to 255), exact.
    """

    index: np.ndarray
    distance: np.ndarray


def nearest(queries: np.ndarray, candidates: np.ndarray) -> Neighbours:
    """The nearest of the candidates uint8 [m, ...] to each of the queries uint8 [n, ...], m at least 1.

    Candidates whose squared distances differ by less than about 1e-6 of a squared norm may be taken for each other.
    """
    flat_queries, flat_candidates = (array.reshape(len(array), -1) for array in (queries, candidates))
    centred = jnp.asarray(_centred(flat_queries))
    best, index = np.full(len(queries), np.inf, np.float32), np.zeros(len(queries), np.int64)
    for start in range(0, len(candidates), _CHUNK):
        chunk = flat_candidates[start : start + _CHUNK]
        padded = np.resize(chunk, (min(_CHUNK, len(candidates)), chunk.shape[1]))  # repeats the chunk's own
        scores, places = (np.asarray(array) for array in _nearest_in(centred, padded))
        is_nearer = scores < best
        best = np.where(is_nearer, scores, best)
        index = np.where(is_nearer, start + places % len(chunk), index)
    return Neighbours(index, _squared_distances(flat_queries, flat_candidates, index))


def neighbour_rows(train: Images, test: Images, synthetic: Images, *, seed: int) -> tuple[Rows, bytes | None]:
    """Copies, and which side the nearest neighbour is on; and a picture of the most suspicious images.

    Metrics, each a share in [0, 1]; labels play no part:
      copy_of_training_rate: synthetic images that equal a training image pixel for pixel; reference: held-out
        ones that do.
      repeated_image_rate: synthetic images that equal an earlier one; reference: of training images. Both are cut
        to the size of the smaller set.
      nearer_to_training_rate: synthetic images nearer to one of m training images than to one of m held-out images, a
        tie counting half; m is the smaller of the held-out set and half the training set. About 0.5 without
        memorisation. Reference: real training images that are not among the m.

    Args:
      train: real images that were trained on.
      test: real held-out images.
      synthetic: synthetic images.
      seed: draws the subsets.

    Returns:
      (rows, PNG or None). The PNG has a column for each of up to NUM_SHOWN synthetic images: itself, the nearest of
      all training images, the nearest held-out one; smallest ratio of the two distances first.
    """
    rows = Rows("sanity", seed)
    rng = np.random.default_rng(seed)
    size = min(len(synthetic.pixels), len(train.pixels))
    synthetic_ids, train_ids, test_ids = _identities(synthetic.pixels, train.pixels, test.pixels)
    rows.add("copy_of_training_rate", *(np.isin(ids, train_ids).mean() for ids in (synthetic_ids, test_ids)))
    rows.add(
        "repeated_image_rate", *(_repeated_rate(rng.permutation(ids)[:size]) for ids in (synthetic_ids, train_ids))
    )
    if len(train.pixels) < 2:
        rows.skip("nearer_to_training_rate", "there is one training image only")
        return rows, None
    pixels, heldout, real = (rng.permutation(np.asarray(part.pixels)) for part in (synthetic, test, train))
    size = min(len(heldout), len(real) // 2)
    compared, rest = real[:size], real[size:]
    pixels = pixels[:MAX_QUERIES]
    in_compared, in_heldout = nearest(pixels, compared), nearest(pixels, heldout[:size])
    others = rest[:MAX_QUERIES]
    reference = _nearer_rate(nearest(others, compared), nearest(others, heldout[:size]))
    rows.add("nearer_to_training_rate", _nearer_rate(in_compared, in_heldout), reference)
    in_rest = nearest(pixels, rest)
    is_rest = in_rest.distance < in_compared.distance
    index = np.where(is_rest, size + in_rest.index, in_compared.index)
    distance = np.minimum(in_rest.distance, in_compared.distance)
    order = np.argsort((distance + 1) / (in_heldout.distance + 1), kind="stable")[:NUM_SHOWN]
    shown = [list(part) for part in (pixels[order], real[index[order]], heldout[in_heldout.index[order]])]
    return rows, tiles_png(shown, real.shape[1:])


def _nearer_rate(in_train: Neighbours, in_heldout: Neighbours) -> float:
    difference = in_heldout.distance - in_train.distance
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))


def _identities(*sets: Any) -> list[np.ndarray]:
    """Integers [n] per set of images, equal for equal pixels."""
    flat = np.concatenate([np.ascontiguousarray(images).reshape(len(images), -1) for images in sets])
    _, ids = np.unique(flat.view(np.dtype((np.void, flat.shape[1]))).ravel(), return_inverse=True)
    return np.split(ids, np.cumsum([len(images) for images in sets])[:-1])


def _repeated_rate(ids: np.ndarray) -> float:
    return 1.0 - len(np.unique(ids)) / len(ids)


def _centred(flat: Any) -> Any:
    """Floats near 0, which keeps rounding in the scalar products small."""
    return flat.astype(np.float32) - 127.5


@jax.jit
def _nearest_in(queries, candidates):
    """(squared distance less the query's norm [n], index [n]) of the nearest candidate."""
    candidates = _centred(candidates)
    products = jnp.matmul(queries, candidates.T, precision="highest")
    scores = jnp.square(candidates).sum(axis=1)[None, :] - 2 * products
    return scores.min(axis=1), scores.argmin(axis=1)


def _squared_distances(queries: np.ndarray, candidates: np.ndarray, index: np.ndarray) -> np.ndarray:
    difference = queries.astype(np.int32) - candidates[index]
    return np.square(difference).sum(axis=1, dtype=np.int64)
