"""What can be told about members without the synthetic records, and attacks judged against that.

Where held-out records are not drawn as training records are (a split by time, or by film as IMDB's), anybody tells them
apart who has never seen a synthetic record. An attack has found a leak only as far as it does better.

Source: Das et al. 2024, "Blind Baselines Beat Membership Inference Attacks for Foundation Models".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from privsyn_jax.evaluation.attacks.scores import AttackResult, Interval, membership_result

_NAME = "without_synthetic_records"


def blind_result(members: np.ndarray, controls: np.ndarray, *, seed: int) -> AttackResult:
    """The result of an attack by distances to reference records alone, in whichever direction it does better.

    Args:
      members: distances [m] of training records to other held-out records.
      controls: the same [c] of held-out records.
      seed: as in `membership_result`.
    """
    both = [membership_result(_NAME, sign * members, sign * controls, seed=seed) for sign in (1, -1)]
    return max(both, key=lambda result: result.metrics["auc"].value)


def against_blind(results: Sequence[AttackResult], blind: AttackResult) -> tuple[list[AttackResult], list[str]]:
    """Results as they are if `blind` found nothing; else each judged by what it finds beyond.

    The baseline of a metric that `blind` has becomes the upper end of its interval there. Metrics that it has not,
    rates of other attacks for instance, then count for nothing, since controls say nothing about members.

    Returns:
      (results, sentences for the reader).
    """
    if not blind.is_detected:
        return list(results), []
    auc = blind.metrics["auc"]
    reason = (
        f"an attack that ignores the synthetic records tells members from controls (AUC {auc.value:.3f}, 95 % interval "
        f"{auc.low:.3f} to {auc.high:.3f}): held-out records are of another kind, and only what exceeds that counts"
    )
    return [_beyond(result, blind.metrics, reason) for result in results], [f"all attacks: {reason}."]


def _beyond(result: AttackResult, blind: dict[str, Interval], reason: str) -> AttackResult:
    raised = {metric: max(base, blind[metric].high) for metric, base in result.baseline.items() if metric in blind}
    found = [metric for metric, base in raised.items() if result.metrics[metric].low > base]
    if found:
        shown = ", ".join(
            f"{metric} {result.metrics[metric].value:.3g} against {raised[metric]:.3g}" for metric in found
        )
        verdict = f"members are told from controls better than without the synthetic records: {shown}"
    else:
        verdict = "no detectable advantage over an attack that ignores the synthetic records"
    return result._replace(
        baseline={**result.baseline, **raised},
        verdict=f"{verdict}; {result.num_members:,} members, {result.num_controls:,} controls",
        is_detected=bool(found),
        notes=(*result.notes, reason),
    )
