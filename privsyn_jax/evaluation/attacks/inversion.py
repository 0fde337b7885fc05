"""Model inversion: records that a released model holds likely, and whether they are training records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from privsyn_jax.evaluation.attacks.mixed import Mixed, nearest_rows
from privsyn_jax.evaluation.attacks.reconstruction import nearness_result
from privsyn_jax.evaluation.attacks.scores import AttackResult
from privsyn_jax.evaluation.attacks.vectors import nearest_vectors

LogLikelihood = Callable[[Any], Any]  # one record -> scalar
_MAX_JUDGED = 6_000  # training and held-out records that candidates are compared with


def model_inversion(
    train: np.ndarray,
    heldout: np.ndarray,
    *,
    key: Any,
    seed: int,
    log_likelihood: LogLikelihood | None = None,
    sample: Callable[[Any, int], Any] | None = None,
    num_codes: Sequence[int] = (),
    num_candidates: int = 256,
    num_steps: int = 200,
    learning_rate: float = 0.05,
) -> AttackResult:
    """Climbs to records that the model holds likely and asks whether they lie nearer to training records.

    With `log_likelihood` the candidates are its local maxima: by gradients within [0, 1]^d for float records, one
    column after the other for integer codes. They start from draws of `sample`, or without it from uniformly random
    records. With `sample` alone the draws are the candidates.

    Args:
      train: records trained on, float [n, d] with values from 0 to 1, or int codes [n, d]; the members.
      heldout: others, of the same kind; both are cut to one size.
      key: draws the starts.
      seed: draws the records that are compared.
      log_likelihood: of one record [d] under the released parameters, differentiable for float records.
      sample: (key, number) -> records [number, d] of the released model.
      num_codes: of each column; for integer codes only.
      num_candidates: starts.
      num_steps: of gradient ascent, or sweeps over all columns, which end early where nothing changes.
      learning_rate: of gradient ascent, by Adam.

    Returns:
      As `reconstruction.nearness_result`; the distance is Euclidean for floats, the share of different codes else.

    Raises:
      ValueError: neither function is given, a kind has fewer than two records, or codes come without num_codes.

    Source: the setting of Fredrikson et al. 2015, "Model Inversion Attacks that Exploit Confidence Information",
    applied to a likelihood.
    """
    train, heldout = np.asarray(train), np.asarray(heldout)
    is_discrete = np.issubdtype(train.dtype, np.integer)
    if log_likelihood is None and sample is None:
        raise ValueError("there is nothing to invert: give log_likelihood, sample or both")
    if min(len(train), len(heldout)) < 2:
        raise ValueError(f"{len(train)} training and {len(heldout)} held-out records: give at least two of each")
    if is_discrete and len(num_codes) != train.shape[1]:
        raise ValueError(
            f"the records have {train.shape[1]} columns of codes, num_codes {len(num_codes)}: give one each"
        )
    shape = (num_candidates, train.shape[1])
    if sample is not None:
        starts = jnp.asarray(sample(key, num_candidates))
    elif is_discrete:
        starts = jax.random.randint(key, shape, 0, jnp.asarray(num_codes, jnp.int32)[None, :])
    else:
        starts = jax.random.uniform(key, shape)
    candidates = starts
    if log_likelihood is not None:
        candidates = (
            climb_codes(log_likelihood, starts, num_codes, num_sweeps=num_steps)
            if is_discrete
            else climb(log_likelihood, starts, num_steps=num_steps, learning_rate=learning_rate)
        )
    found = np.asarray(candidates)
    found = found[np.isfinite(found).all(axis=1)]
    if not len(found):
        raise ValueError("no candidate is finite: give a log_likelihood that is differentiable in [0, 1]")
    rng, size = np.random.default_rng(seed), min(_MAX_JUDGED, len(train), len(heldout))
    distances = [_to_nearest(rng.permutation(real)[:size], found, is_discrete) for real in (train, heldout)]
    note = f"{len(found)} candidates, {len(np.unique(found.round(6), axis=0))} of them different"
    return nearness_result("model_inversion", *distances, seed=seed, notes=(note,))


def climb(log_likelihood: LogLikelihood, starts: Any, *, num_steps: int, learning_rate: float) -> Any:
    """Gradient ascent (Adam) from each of the starts [c, d], kept within [0, 1]; returns the ends [c, d]."""
    optimizer = optax.adam(learning_rate)
    ascent = jax.vmap(jax.grad(lambda record: -log_likelihood(record)))

    def step(carry, _):
        records, state = carry
        updates, state = optimizer.update(ascent(records), state)
        moved: Any = optax.apply_updates(records, updates)
        return (jnp.clip(moved, 0.0, 1.0), state), None

    @jax.jit
    def run(records):
        return jax.lax.scan(step, (records, optimizer.init(records)), None, length=num_steps)[0][0]

    return run(jnp.asarray(starts, jnp.float32))


def climb_codes(log_likelihood: LogLikelihood, starts: Any, num_codes: Sequence[int], *, num_sweeps: int) -> Any:
    """Coordinate ascent from codes [c, d]: each column in turn takes its likeliest value; returns the ends [c, d]."""
    most = max(num_codes)
    limits = jnp.asarray(num_codes, jnp.int32)

    def improve(column, record):
        options = jnp.tile(record[None, :], (most, 1)).at[:, column].set(jnp.arange(most, dtype=record.dtype))
        options = options.at[:, column].min(limits[column].astype(record.dtype) - 1)
        return options[jnp.argmax(jax.vmap(log_likelihood)(options))]

    def sweep(carry):
        count, records, _ = carry
        better = jax.vmap(lambda record: jax.lax.fori_loop(0, len(num_codes), improve, record))(records)
        return count + 1, better, jnp.any(better != records)

    @jax.jit
    def run(records):
        return jax.lax.while_loop(lambda c: (c[0] < num_sweeps) & c[2], sweep, (0, records, jnp.array(True)))[1]

    return run(jnp.asarray(starts, jnp.int32))


def _to_nearest(records: np.ndarray, candidates: np.ndarray, is_discrete: bool) -> np.ndarray:
    """Distance of each record to the nearest candidate, float64 [n]."""
    if not is_discrete:
        return nearest_vectors(records, candidates)[:, 0]
    rows = [Mixed(np.zeros((len(part), 0), np.float32), part.astype(np.int32)) for part in (records, candidates)]
    return nearest_rows(rows[0], rows[1]).distance[:, 0].astype(np.float64)
