"""The mechanism DP-SGD: encoded records to parameters, every look at a record charged."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import numpy as np
import optax

from privsyn_jax.plan import Plan
from privsyn_jax.privacy import release
from privsyn_jax.privacy.ledger import Ledger
from privsyn_jax.privacy.noise import HostNoise
from privsyn_jax.settings import TrainingSettings
from privsyn_jax.training import loop
from privsyn_jax.training.marginals import Marginals, choose_pairs
from privsyn_jax.training.placement import automatic_microbatch_size, place
from privsyn_jax.training.state import initial_state
from privsyn_jax.training.step import DPStep, in_bfloat16
from privsyn_jax.transforms.discretize import OneWay
from privsyn_jax.types import Generator, Params


def buy_marginals(
    codes: np.ndarray,
    cardinalities: Sequence[int],
    one_way: OneWay | None,
    *,
    plan: Plan,
    ledger: Ledger,
    noise: HostNoise,
) -> Marginals | None:
    """The marginals that the plan has a budget for, or None.

    Args:
      codes: int32 [n, d], private.
      one_way: counts released before, by the transform; None buys them here.
    """
    scores_plan, pairs_plan = plan.release("pair scores"), plan.release("pair marginals")
    if scores_plan is None or pairs_plan is None:
        return None
    if one_way is None:
        histograms = plan.release("histograms")
        assert histograms is not None
        noisy, stddev, event = release.histograms(
            codes, cardinalities, noise_multiplier=histograms.noise_multiplier, noise=noise
        )
        ledger.charge("histograms", "the codes of all columns", "noisy counts of every column", event)
        total = max(1.0, float(np.mean([counts.sum() for counts in noisy])))
        counts = [release.project_to_counts(values, total) for values in noisy]
        one_way = OneWay(counts, [np.full(len(values), stddev) for values in counts])
    scores, _, event = release.dependence_scores(
        codes, one_way.counts, noise_multiplier=scores_plan.noise_multiplier, noise=noise
    )
    ledger.charge("pair scores", "all pairs of columns", "noisy distance of every pair from independence", event)
    chosen = choose_pairs(scores, one_way, noise_multiplier=pairs_plan.noise_multiplier)
    pairs, stddev, event = release.pair_histograms(
        codes, cardinalities, chosen, noise_multiplier=pairs_plan.noise_multiplier, noise=noise
    )
    ledger.charge("pair marginals", f"{len(pairs)} pairs of columns", "noisy contingency tables", event)
    return Marginals(one_way.counts, one_way.stddev, pairs, stddev)


def make_step(
    private_loss: Callable[..., jax.Array],
    optimizer: optax.GradientTransformation,
    plan: Plan,
    settings: TrainingSettings,
) -> DPStep:
    """The step that the plan pays for."""
    automatic = automatic_microbatch_size(plan.expected_batch_size, settings.num_devices or jax.device_count())
    return DPStep(
        in_bfloat16(private_loss) if settings.compute_dtype == "bfloat16" else private_loss,
        optimizer,
        sampling_rate=plan.sampling_rate,
        expected_batch_size=plan.expected_batch_size,
        l2_clip_norm=plan.l2_clip_norm,
        noise_multiplier=plan.noise_multiplier,
        microbatch_size=settings.microbatch_size or automatic,
        ema_decay=settings.ema_decay,
        method=settings.gradient_method,
        num_draws=settings.num_draws,
    )


def train(
    generator: Generator,
    codes: np.ndarray,
    marginals: Marginals | None,
    *,
    plan: Plan,
    settings: TrainingSettings,
    ledger: Ledger,
    seed: int,
    secret: jax.Array,
    hooks: Sequence[loop.Hook] = (),
) -> Params:
    """Trained parameters; params["private"] is the moving average over steps.

    Calibration before training lets the network start from the purchased marginals; calibration after it
    takes out what clipping has biased. Both read released values only.

    Args:
      codes: int32 [n, d], private.
      seed: of the initial weights and of calibration, which are not private.
      secret: key of sampling and noise.
    """
    init_key, *calibration_keys = jax.random.split(jax.random.key(seed), 3)
    params = generator.init(init_key)
    calibrate = generator.calibrate if marginals is not None else None
    if calibrate:
        params = calibrate(params, marginals, calibration_keys[0])
    optimizer = optax.adam(optax.cosine_decay_schedule(settings.learning_rate, plan.num_steps))
    step = make_step(generator.private_loss, optimizer, plan, settings)
    records, compile_steps = place(step, params, codes, settings)
    ledger.charge(
        "training",
        "the gradient of every sampled record",
        f"DP-SGD: {plan.num_steps} Poisson-sampled sums of gradients clipped to L2 norm {plan.l2_clip_norm:g}",
        plan.training_event,
    )
    state = loop.fit(
        step,
        initial_state(params, optimizer),
        records,
        key=secret,
        num_steps=plan.num_steps,
        steps_per_dispatch=settings.steps_per_dispatch,
        hooks=hooks,
        compile_steps=compile_steps,
    )
    params = {**state.params, "private": state.ema}
    if calibrate:
        params = calibrate(params, marginals, calibration_keys[1])
    return params
