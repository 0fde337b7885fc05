"""The mechanism DP-SGD: encoded records to parameters, every look at a record charged."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import optax

from privsyn_jax import one_shot
from privsyn_jax.one_shot import NoisySums
from privsyn_jax.plan import Plan
from privsyn_jax.privacy.bands import band_coefficients
from privsyn_jax.privacy.guard import Private
from privsyn_jax.privacy.ledger import Ledger
from privsyn_jax.privacy.rules import RULES
from privsyn_jax.privacy.spending import Account, AdaptiveSpending, FixedSpending, Spending
from privsyn_jax.settings import Settings
from privsyn_jax.training import loop, pate, processes
from privsyn_jax.training.attempt import TRAINING, Attempt
from privsyn_jax.training.marginals import Marginals
from privsyn_jax.training.optimizer import cosine_adam, projected
from privsyn_jax.training.placement import automatic_microbatch_size, place
from privsyn_jax.training.stages import buy_after
from privsyn_jax.training.state import TrainState, initial_state
from privsyn_jax.training.step import DPStep, LossQuery, PublicUpdate, QuantileClip, computed_in
from privsyn_jax.types import Generator, Params

WarmUp = Callable[[Params], Params]


def make_step(
    generator: Generator,
    optimizer: optax.GradientTransformation,
    plan: Plan,
    settings: Settings,
    *,
    loss_bound: float | None,
) -> DPStep:
    """The step that the plan pays for.

    Args:
      loss_bound: public bound of a record's loss, for a plan that buys the loss.
    """
    training, privacy = settings.training, settings.privacy
    public_update = None
    if generator.public_loss is not None:
        public_update = PublicUpdate(
            computed_in(training.compute_dtype, generator.public_loss),
            _public_optimizer(plan, settings),
            training.generator_batch_size,
            training.critic_steps,
        )
    num_devices = training.num_devices or jax.device_count()
    automatic = automatic_microbatch_size(plan.expected_batch_size, num_devices, plan.rows_per_unit)
    clip, loss_share = privacy.adaptive_clip, plan.adaptive.loss_share if plan.adaptive is not None else 0.0
    assert generator.private_loss is not None
    return DPStep(
        computed_in(training.compute_dtype, generator.private_loss),
        optimizer,
        microbatch_size=training.microbatch_size or automatic,
        ema_decay=training.ema_decay,
        method=training.gradient_method,
        num_draws=training.num_draws,
        sampler=plan.sampler,
        adds_noise=plan.has_noise,
        quantile_clip=QuantileClip(*dataclasses.astuple(clip)) if clip.target_quantile else None,
        loss_query=LossQuery(loss_bound, loss_share) if loss_share and loss_bound is not None else None,
        coefficients=band_coefficients(plan.num_steps, privacy.num_bands),
        public_update=public_update,
        advance=_advance(generator, plan.num_steps),
    )


def _advance(generator: Generator, num_steps: int) -> Callable[..., Any] | None:
    """`Generator.advance` by the number of the step."""
    advance = generator.advance
    return None if advance is None else lambda params, step: advance(params, step / num_steps)


def _public_optimizer(plan: Plan, settings: Settings) -> optax.GradientTransformation:
    training = settings.training
    rate = training.generator_learning_rate or training.learning_rate
    return cosine_adam(rate, max(1, plan.num_steps // training.critic_steps), b1=training.adam_b1)


def make_spending(plan: Plan, settings: Settings, ledger: Ledger, *, first_step: int = 0) -> Spending:
    """Charges training as the plan has it; the ledger's origin begins with `first_step`."""
    clip = settings.privacy.adaptive_clip.target_quantile
    bound = f"the norm of their quantile {clip:g}" if clip else f"L2 norm {plan.levels[0].l2_clip_norm:g}"
    whose = "record" if plan.rows_per_unit == 1 else f"unit, summed over its rows (at most {plan.rows_per_unit})"
    account = Account(
        ledger,
        TRAINING,
        f"the gradient of every sampled {whose}",
        f"DP-SGD: noisy sums of gradients clipped to {bound}",
    )
    multiple = settings.training.steps_per_dispatch
    if plan.adaptive is None or plan.privacy_filter is None:
        return FixedSpending(plan.levels, plan.sampler, account, max_steps=multiple, first_step=first_step)
    return AdaptiveSpending(
        plan.levels[0],
        account,
        rule=RULES[plan.adaptive.rule],
        privacy_filter=plan.privacy_filter,
        num_blocks=plan.adaptive.num_blocks,
        largest_ratio=plan.adaptive.largest_ratio,
        multiple=multiple,
    )


def train(
    generator: Generator,
    records: Private[Any],
    bought: Marginals | NoisySums | None,
    *,
    plan: Plan,
    settings: Settings,
    attempt: Attempt,
    loss_bound: float | None = None,
    warm_up: WarmUp | None = None,
    hooks: Sequence[loop.Hook] = (),
) -> tuple[Params, list[dict[str, Any]]]:
    """Trained parameters, and the path: what every block of steps ran with and released.

    params["private"] is the moving average over steps, and so is params["public"] where it is trained. Calibration
    before training lets the network start from the purchased marginals; calibration after it takes out what clipping
    has biased. Both read released values only.

    Args:
      records: pytree of arrays [n, ...], encoded.
      bought: what was bought before.
      attempt: holds the ledger, the key of sampling and noise, and the state to go on from.
      loss_bound: see `make_step`.
      warm_up: params -> params, before the first step; reads no record but through what was bought.
    """
    if generator.private_loss is None:
        return _learned_at_once(generator, bought, settings), []
    if generator.teaching is not None:
        assert not isinstance(bought, NoisySums) and warm_up is None
        return pate.train(generator, records, bought, plan=plan, settings=settings, attempt=attempt, hooks=hooks)
    is_fresh = attempt.step == 0
    step, state = begin(
        generator,
        bought,
        plan=plan,
        settings=settings,
        loss_bound=loss_bound,
        warm_up=warm_up if is_fresh else None,
    )
    spending = make_spending(plan, settings, attempt.ledger, first_step=attempt.first_step)
    state, receipt = attempt.take_up(state, spending), spending.receipt
    if processes.are_several():
        attempt.leader.say(processes.Start.to_bytes(state, attempt.key, attempt.ledger))
    with attempt.keeping(spending) as keep:
        spending = attempt.leader.leading(spending)
        state = _fit(step, state, records.open(receipt), attempt.key, spending, settings, [*hooks, keep])
    after = functools.partial(
        buy_after,
        generator,
        records,
        plan=plan,
        seed=settings.seed,
        ledger=attempt.ledger,
        noise=attempt.noise_after,
    )
    return end(generator, state, bought, settings=settings, after=after), spending.path


def _learned_at_once(generator: Generator, bought: Marginals | NoisySums | None, settings: Settings) -> Params:
    """Parameters of a generator that takes no steps."""
    if isinstance(bought, NoisySums):
        return one_shot.absorb(generator, bought, seed=settings.seed)
    assert isinstance(bought, Marginals) and generator.calibrate is not None
    init_key, calibration_key, _ = _public_keys(settings)
    return generator.calibrate(generator.init(init_key), bought, calibration_key)


def begin(
    generator: Generator,
    bought: Marginals | NoisySums | None,
    *,
    plan: Plan,
    settings: Settings,
    loss_bound: float | None = None,
    warm_up: WarmUp | None = None,
) -> tuple[DPStep, TrainState]:
    """The step and the state before the first one, which start from what was bought."""
    init_key, calibration_key, _ = _public_keys(settings)
    params = generator.init(init_key)
    if generator.calibrate is not None and isinstance(bought, Marginals):
        params = generator.calibrate(params, bought, calibration_key)
    if generator.stages and isinstance(bought, NoisySums):
        params = one_shot.absorb(generator, bought, seed=settings.seed, params=params)
    if warm_up is not None:
        params = warm_up(params)
    optimizer = cosine_adam(settings.training.learning_rate, plan.num_steps, b1=settings.training.adam_b1)
    if generator.project is not None:
        optimizer = projected(optimizer, generator.project)
    step = make_step(generator, optimizer, plan, settings, loss_bound=loss_bound)
    public_optimizer = step.public_update.optimizer if step.public_update is not None else None
    return step, initial_state(
        params, optimizer, plan.levels[0], coefficients=step.coefficients, public_optimizer=public_optimizer
    )


def end(
    generator: Generator,
    state: TrainState,
    bought: Marginals | NoisySums | None,
    *,
    settings: Settings,
    after: Callable[[Params], Params] | None = None,
) -> Params:
    """Parameters to sample from: the average over steps, calibrated to what was purchased.

    Args:
      after: buys what is bought after training, see `stages.buy_after`.
    """
    params = {**state.params, "private": state.ema}
    if state.public is not None:
        params["public"] = state.public.ema
    if after is not None and generator.after:
        params = after(params)
    if generator.calibrate is not None and bought is not None:
        params = generator.calibrate(params, bought, _public_keys(settings)[2])
    return params


def _public_keys(settings: Settings) -> jax.Array:
    """Of the initial weights, and of the two calibrations."""
    return jax.random.split(jax.random.key(settings.seed), 3)


def train_along(
    generator: Generator, records: Private[Any], *, plan: Plan, settings: Settings, loss_bound: float | None = None
) -> None:
    """`train` in the processes that compute along with process 0, on their own part of the records."""
    if generator.private_loss is None:
        return
    step, state = begin(generator, None, plan=plan, settings=settings, loss_bound=loss_bound)
    state, key, ledger = processes.Start.hear(state)
    spending = processes.Following(ledger, TRAINING)
    with processes.obeying():
        _fit(step, state, records.open(spending.receipt), key, spending, settings, [])


def _fit(
    step: DPStep,
    state: TrainState,
    records: Any,
    key: jax.Array,
    spending: Spending,
    settings: Settings,
    hooks: Sequence[loop.Hook],
) -> TrainState:
    records, compile_steps = place(step, state.params, records, settings.training)
    return loop.fit(
        step,
        state,
        records,
        key=key,
        spending=spending,
        keep_clip_norm=step.quantile_clip is not None,
        hooks=hooks,
        compile_steps=compile_steps,
    )
