"""Noisy sums over all records: what generators learn from before training, or what trained ones make of records."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np

from privsyn_jax.one_shot import NoisySums, absorb
from privsyn_jax.plan import Plan
from privsyn_jax.privacy import release
from privsyn_jax.privacy.guard import Private
from privsyn_jax.privacy.ledger import Ledger, check_charged
from privsyn_jax.privacy.noise import HostNoise
from privsyn_jax.releases import Release
from privsyn_jax.types import Generator, Params, Stage


def buy_stages(
    generator: Generator,
    records: Private[Any],
    *,
    plan: Plan,
    seed: int,
    ledger: Ledger,
    noise: HostNoise,
    what: str,
) -> NoisySums:
    """What a generator learns or starts from before training; a stage may look at what those before it released.

    Args:
      records: pytree of arrays [n, ...], encoded.
      seed: of what is public.
      what: is read, in words.
    """
    bought = NoisySums((), ())
    for number, stage in enumerate(generator.stages):
        planned = plan.release(stage.name)
        assert planned is not None and isinstance(stage, Stage)
        params = absorb(generator, bought, seed=seed, num_stages=number)
        noisy_sum, stddev = _buy(stage, params, records, planned, ledger, noise, what)
        bought = NoisySums((*bought.sums, noisy_sum), (*bought.stddevs, stddev))
    return bought


def buy_after(
    generator: Generator,
    records: Private[Any],
    params: Params,
    *,
    plan: Plan,
    seed: int,
    ledger: Ledger,
    noise: HostNoise,
) -> Params:
    """The trained parameters with what `Generator.after` makes of the noisy sums that the plan has a budget for.

    After a run was killed, a repetition by the same origin has the same parameters and the same noise, and is not
    charged.

    Args:
      records: pytree of arrays [n, ...], encoded.
      params: released values, since DP-SGD trained them.
      seed: of what is public.
    """
    key = jax.random.key(seed)
    for number, stage in enumerate(generator.after):
        planned = plan.release(stage.name)
        if planned is None:
            continue
        params = jax.device_get(params)
        noisy_sum, stddev = _buy(stage, params, records, planned, ledger, noise, "all encoded records")
        params = stage.absorb(params, noisy_sum, stddev, jax.random.fold_in(key, number))
    return params


def _buy(
    stage: Stage,
    params: Params,
    records: Private[Any],
    planned: Release,
    ledger: Ledger,
    noise: HostNoise,
    reads: str,
) -> tuple[np.ndarray, float]:
    """(noisy sum, stddev of its noise). L2 sensitivity: 1, of a record, or of a unit with all its rows."""
    what = "noisy sums of a vector of norm at most 1 for each of them"
    receipt = ledger.charge(planned.name, reads, what, planned.event, upto=1)
    noisy_sum, stddev, event = release.embedding_sum(
        functools.partial(stage.embed, params),
        records.open(receipt),
        num_groups=stage.num_groups,
        noise_multiplier=planned.noise_multiplier,
        noise=noise,
    )
    check_charged([planned.event], [event])
    return noisy_sum, stddev
