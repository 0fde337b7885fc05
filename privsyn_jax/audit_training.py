"""Audits of DP-SGD by training it on canaries. No private record is read, so nothing is spent.

Three audits, each against what the ledger charges for what was audited:
  the training as planned, on a small table of random records and many canaries, once;
  one step of the planned noise and clipping that draws every record, thousands of times with and without one canary;
  one step at the planned sampling rate, with and without one canary among records whose gradients oppose its own: a
    batch of fixed size puts the canary in the place of one of them, and moves by twice the clipping norm.
Canaries and scores: `canaries` and `evaluation.audit`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from privsyn_jax.canaries import GRADIENT_NORM, NO_CANARY, Planted, observed, plant, plant_among
from privsyn_jax.evaluation.audit import AuditResult, audit_result, likelihood_scores, one_run_bound, repeated_bound
from privsyn_jax.modalities import modality_of
from privsyn_jax.plan import Plan
from privsyn_jax.privacy import accounting
from privsyn_jax.privacy.accounting import Event
from privsyn_jax.privacy.ledger import Ledger
from privsyn_jax.privacy.schedules import Level
from privsyn_jax.settings import Settings
from privsyn_jax.training import dp_sgd, loop
from privsyn_jax.training.state import TrainState
from privsyn_jax.training.step import DPStep, Members
from privsyn_jax.training.together import fit_together
from privsyn_jax.types import AnySchema, Generator

NUM_BACKGROUND = 64  # random records beside the canaries
NUM_OPPOSING = 32
_HARDLY_AMPLIFIED = 0.5  # sampling rate
_CHUNK = 4096  # repeated runs at once
_LOSS_BOUND = 1.0  # of the loss query, whose value no audit looks at

Alter = Callable[[DPStep], DPStep]


class Observed(NamedTuple):
    """What one run of the training showed.

    Attributes:
      scores: float64 [m] of the canaries, higher = more likely in.
      is_in: bool [m].
      ledger: all that the training was charged with.
    """

    scores: np.ndarray
    is_in: np.ndarray
    ledger: Ledger


def audit_training(
    settings: Settings,
    schema: AnySchema,
    plan: Plan,
    *,
    key: jax.Array,
    num_canaries: int,
    num_repeats: int,
    confidence: float = 0.95,
    announce: Callable[[str], None] = lambda message: None,
) -> list[AuditResult]:
    """The three audits of a run's settings.

    Args:
      plan: with levels and noise.
      key: of the coins, the sampling and the noise.
      num_canaries: of the one run; more make its bound tighter and its steps slower.
      num_repeats: runs of one step, half of them with the canary.
      confidence: of each bound.
    """
    run_key, all_key, opposed_key = jax.random.split(key, 3)
    announce(f"training once on {num_canaries} canaries, for {plan.num_steps} steps")
    generator, records = modality_of(schema).random_records(settings, schema, np.random.default_rng(settings.seed))
    records = jax.tree.map(lambda leaf: leaf[:NUM_BACKGROUND], records)
    (seen,) = observe(settings, plan, generator, records, keys=[run_key], num_canaries=num_canaries)
    results = [judge_training(seen, delta=plan.delta, confidence=confidence)]
    announce(f"repeating one step {num_repeats} times, twice")
    for opposing, one_key in ((0, all_key), (NUM_OPPOSING, opposed_key)):
        common: dict[str, Any] = {"num_repeats": num_repeats, "confidence": confidence}
        results.append(repeat_step(settings, plan, key=one_key, num_opposing=opposing, **common))
    return results


def observe(
    settings: Settings,
    plan: Plan,
    generator: Generator,
    records: Any,
    *,
    keys: Sequence[jax.Array],
    num_canaries: int,
    alter: Alter = lambda step: step,
) -> list[Observed]:
    """The training as planned, once per key (several together by vmap), on the records and half of the canaries.

    Args:
      records: pytree of arrays [n, ...], encoded; they need not be private ones.
    """
    norm = GRADIENT_NORM * max(level.l2_clip_norm for level in plan.levels)
    planted = plant(generator, num_canaries, num_steps=plan.num_steps, gradient_norm=norm)
    step, state = dp_sgd.begin(planted, None, plan=plan, settings=settings, loss_bound=_LOSS_BOUND)
    step = alter(step)
    watched, state = observed(step, state)
    table, logs = plant_among(records, num_canaries), []
    coins, run_keys = [], []
    for key in keys:
        coin_key, run_key = jax.random.split(key)
        coins.append(np.asarray(jax.random.bernoulli(coin_key, shape=(num_canaries,))))
        run_keys.append(run_key)
    is_member = np.stack([np.concatenate([coin, np.ones(len(table.canary) - num_canaries, bool)]) for coin in coins])
    ledgers = [Ledger() for _ in keys]
    spendings = [dp_sgd.make_spending(plan, settings, ledger) for ledger in ledgers]
    common: dict[str, Any] = {
        "keep_clip_norm": step.quantile_clip is not None,
        "hooks": [lambda state, log: logs.append({name: log[name] for name in log if name.startswith("canary_")})],
    }
    if len(keys) == 1:
        members = Members(table, jnp.asarray(is_member[0]))
        loop.fit(watched, state, members, key=run_keys[0], spending=spendings[0], **common)
    else:
        fit_together(
            watched,  # type: ignore[arg-type]  # it is called, no more
            [state] * len(keys),
            Members(table, jnp.asarray(is_member)),
            keys=run_keys,
            spendings=spendings,
            records_are_shared=True,
            **common,
        )
    found = []
    for number, (coin, ledger) in enumerate(zip(coins, ledgers, strict=True)):
        own = {
            name: np.concatenate([log[name] if len(keys) == 1 else log[name][number] for log in logs if log])
            for name in ("canary_sum", "canary_stddev", "canary_rate")
        }
        scores = likelihood_scores(
            own["canary_sum"],
            stddev=own["canary_stddev"],
            sampling_rate=own["canary_rate"],
            coefficients=step.coefficients,
            num_groups=plan.num_groups,
        )
        found.append(Observed(scores, coin, ledger))
    return found


def judge_training(seen: Observed, *, delta: float, confidence: float = 0.95) -> AuditResult:
    """The bound from one run; by trade-offs of a Gaussian where the ledger claims those."""
    bound = one_run_bound(
        seen.scores,
        seen.is_in,
        delta=delta,
        confidence=confidence,
        method=one_run_method(seen.ledger),
    )
    return audit_result(
        "training, one run",
        claimed_epsilon=seen.ledger.epsilon(delta),
        delta=delta,
        lower_bound=bound,
        confidence=confidence,
        num_canaries=len(seen.scores),
    )


def one_run_method(ledger: Ledger) -> str:
    """See `one_run_bound`."""
    return "gaussian" if all(event["kind"] == "gaussian" for event in ledger.events) else "approximate"


def repeat_step(
    settings: Settings,
    plan: Plan,
    *,
    key: jax.Array,
    num_opposing: int,
    num_repeats: int,
    confidence: float = 0.95,
    alter: Alter = lambda step: step,
) -> AuditResult:
    """One step with the noise and the clipping norm of the plan's first, repeated with and without a canary.

    The claim is that of the step; where the sampling rate is at least a half, that of a Gaussian release without
    amplification, which is hardly more, which sampling only makes safer, and for which the bound is tighter.

    Args:
      num_opposing: records whose gradient is minus the canary's. With none, every record is drawn, which is a Gaussian
        release; with some, records are sampled as planned.
      num_repeats: steps, half of them with the canary.
    """
    level = plan.levels[0]._replace(num_steps=1)
    if not num_opposing:
        level = level._replace(sampling_rate=1.0)
    in_scores, out_scores, noise_multiplier = _repeated(
        settings, plan, level, key=key, num_opposing=num_opposing, num_repeats=num_repeats, alter=alter
    )
    event: Event = {"kind": "gaussian", "noise_multiplier": noise_multiplier, "count": 1}
    method = "gaussian"
    if level.sampling_rate < _HARDLY_AMPLIFIED:
        event, method = {**event, "kind": "poisson_gaussian", "sampling_rate": level.sampling_rate}, "approximate"
    # A canary moves the sum of a Gaussian release from 0 to 1, in units of the clipping norm.
    threshold = 0.5 if method == "gaussian" and not num_opposing else None
    bound = repeated_bound(
        in_scores, out_scores, delta=plan.delta, confidence=confidence, method=method, threshold=threshold
    )
    return audit_result(
        "one step, among opposing records" if num_opposing else "one step, every record drawn",
        claimed_epsilon=accounting.epsilon_of([event], plan.delta),
        delta=plan.delta,
        lower_bound=bound,
        confidence=confidence,
        num_canaries=len(in_scores) + len(out_scores),
    )


def _repeated(
    settings: Settings,
    plan: Plan,
    level: Level,
    *,
    key: jax.Array,
    num_opposing: int,
    num_repeats: int,
    alter: Alter,
) -> tuple[np.ndarray, np.ndarray, float]:
    """The canary's noisy sums in the steps with it and in those without it; the noise multiplier of the sum."""
    alone = dataclasses.replace(plan, levels=(level,), adaptive=None)
    independent = dataclasses.replace(settings, privacy=dataclasses.replace(settings.privacy, num_bands=1))
    planted = plant(_empty_generator(), 1, num_steps=1, gradient_norm=GRADIENT_NORM * level.l2_clip_norm)
    step, state = dp_sgd.begin(planted, None, plan=alone, settings=independent, loss_bound=_LOSS_BOUND)
    claimed = float(step.gradient_noise(state.controls))
    step = alter(dataclasses.replace(step, microbatch_size=num_opposing + 2))
    if not num_opposing:
        step = dataclasses.replace(step, sampler=dataclasses.replace(step.sampler, num_groups=1))
    # The last row is an ordinary record without a gradient, so that a table is never empty.
    canary = np.concatenate([np.zeros(num_opposing + 1), [NO_CANARY]]).astype(np.int32)
    sign = np.concatenate([[1.0], -np.ones(num_opposing + 1)]).astype(np.float32)
    planted_rows = Planted(jnp.zeros((len(canary), 1)), jnp.asarray(canary), jnp.asarray(sign))
    others = jax.tree.map(lambda leaf: leaf[1:], planted_rows)
    with_key, without_key = jax.random.split(key)
    watched, state = observed(step, state)
    sums = _sums(watched, state, planted_rows, with_key, num_repeats // 2)
    return sums, _sums(watched, state, others, without_key, num_repeats // 2), claimed


def _sums(step: Callable[..., Any], state: TrainState, records: Planted, key: jax.Array, count: int) -> np.ndarray:
    def one(key):
        return step(state, records, key)[1]["canary_sum"][0]

    run = jax.jit(jax.vmap(one))
    size = min(_CHUNK, count)
    chunk_keys = jax.random.split(key, math.ceil(count / size))
    return np.concatenate([np.asarray(run(jax.random.split(chunk, size))) for chunk in chunk_keys])[:count]


def _empty_generator() -> Generator:
    """One parameter, on which no record has a gradient."""
    return Generator(
        init=lambda key: {"private": {"w": jnp.zeros(1)}, "public": {}},
        private_loss=lambda params, example, key: 0.0 * params["private"]["w"][0] * example[0],
        public_loss=None,
        calibrate=None,
        sample=lambda params, key, num_samples, conditions: jnp.zeros((num_samples, 1)),
        exact_conditions=lambda indices: (),
    )
