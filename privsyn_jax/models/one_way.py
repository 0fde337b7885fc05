"""How often released counts say that the codes of columns come out, and a bias of logits by which they do."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from privsyn_jax.models.flat_codes import FlatCodes
from privsyn_jax.privacy.release import project_to_counts

SURE = 30.0  # logit of a code that is known
LEAST_SHARE = 1e-5  # of a code
_RAREST = -12.0  # log frequency of a code that the released counts do not show
_ROUNDS = 30


def log_shares(one_way: Sequence[np.ndarray]) -> np.ndarray:
    """float32 [S]: log frequencies of the codes of all columns, by counts of each [k_j]."""
    shares = np.concatenate([np.maximum(counts, 0.0) / max(counts.sum(), 1.0) for counts in one_way])
    return np.log(np.maximum(shares, math.exp(_RAREST))).astype(np.float32)


def likely_shares(codes: FlatCodes, noisy: np.ndarray) -> np.ndarray:
    """[S]: the frequencies of every column's codes that are nearest to noisy ones [S], none of them 0."""
    columns = np.split(noisy, codes.offsets[1:])
    shares = [np.maximum(project_to_counts(own, 1.0), LEAST_SHARE) for own in columns]
    return np.concatenate([own / own.sum() for own in shares])


@functools.partial(jax.jit, static_argnums=0)
def matching_bias(codes: FlatCodes, logits: Any, wanted: Any) -> jax.Array:
    """[S]: what to add to logits so that their softmax, averaged over draws, has the wanted log frequencies.

    Iterative proportional fitting of every column on its own; it starts from no bias, and ends after a fixed number
    of rounds.

    Args:
      logits: float [n, S], of n draws.
      wanted: float [S].
    """

    def one_round(_, bias):
        probabilities = jax.vmap(codes.probabilities)(logits + bias[None])
        return bias + wanted - jnp.log(jnp.maximum(probabilities.mean(axis=0), 1e-30))

    bias = jax.lax.fori_loop(0, _ROUNDS, one_round, jnp.zeros(codes.num_codes))
    return bias - codes.log_normalizers(bias)[codes.column_of_code]
