"""What a plan buys, as rows of a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from privsyn_jax.views import html_parts as html

_OF_STEPS = ("num_steps", "sampling_rate", "expected_batch_size", "l2_clip_norm")


def spending_rows(plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Releases, then every level of training; None where a number has no meaning.

    Args:
      plan: as `Plan.to_dict` gives it.
    """
    releases = [
        {**{name: release[name] for name in ("name", "share", "noise_multiplier")}, **dict.fromkeys(_OF_STEPS)}
        for release in plan["releases"]
    ]
    levels, is_constant = plan["levels"], len(plan["levels"]) == 1
    training = [
        {
            "name": "training" if is_constant else f"training, level {number}",
            "share": plan["training_share"] if is_constant else None,
            "noise_multiplier": level["noise_multiplier"],
            **{name: level[name] for name in _OF_STEPS},
        }
        for number, level in enumerate(levels, start=1)
    ]
    return [*releases, *training]


def plan_html(plan: Mapping[str, Any], *, has_noise: bool) -> str:
    """The target, warnings and what is bought."""
    target = f"epsilon {plan['epsilon']:.4g}, delta {plan['delta']:.3g}" if has_noise else "NOT PRIVATE"
    rows = spending_rows(plan)
    table = html.table([name.replace("_", " ") for name in rows[0]], [list(row.values()) for row in rows])
    return html.block(f"Plan: {target}", *map(html.stamp, plan["warnings"]), table)
