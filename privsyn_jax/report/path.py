"""How training spent its share: the path of a run, as a table and a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from privsyn_jax.report import svg
from privsyn_jax.report.numbers import format_epsilon, format_number, format_share

PATH_HEADER = ("steps", "expected batch", "noise multiplier", "clipping norm", "released while it ran")
_RELEASED = {
    "released_signal": "signal {}",
    "released_loss": "loss {}",
    "released_unclipped": "unclipped {}",
    "released_clip_norm": "clipping norm {}",
    "released_vote_share": "votes for real {}",
}


def path_rows(path: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """The path as rows under PATH_HEADER; every number in it is public or was released."""
    rows = []
    for block in path:
        first, last = block["first_step"] + 1, block["first_step"] + block["num_steps"]
        released = [
            words.format(_from_to(block[name]))
            for name, words in _RELEASED.items()
            if name in block and ("relative_noise" in block or name != "released_signal")
        ]
        if "spent" in block:
            so_far = f", epsilon {format_epsilon(block['epsilon_so_far'])}" if "epsilon_so_far" in block else ""
            released.append(f"{format_share(block['spent'])} of the filter's budget spent by its end{so_far}")
        norm = "its own" if "released_clip_norm" in block else format_number(block["l2_clip_norm"])
        rows.append(
            (
                f"{first} to {last}",
                format_number(block["expected_batch_size"]),
                format_number(block["noise_multiplier"]),
                norm,
                "; ".join(released) or "gradients",
            )
        )
    return rows


def path_changes(path: Sequence[Mapping[str, Any]]) -> bool:
    """Whether training did not do the same in every step."""
    return len(path) > 1 or any("released_clip_norm" in block or "relative_noise" in block for block in path)


def path_figure(path: Sequence[Mapping[str, Any]]) -> str:
    """Noise multiplier, clipping norm and batch size over steps; empty text for a constant schedule."""
    series = {
        "noise multiplier": [[block["noise_multiplier"]] for block in path],
        "clipping norm": [block.get("released_clip_norm", [block["l2_clip_norm"]]) for block in path],
        "expected batch": [[block["expected_batch_size"]] for block in path],
    }
    moving = {name: values for name, values in series.items() if len({v for block in values for v in block}) > 1}
    if not moving:
        return ""
    with svg.canvas(4.7, 0.5 + 1.25 * len(moving)) as (figure, axes):
        axes.remove()
        panels = figure.subplots(len(moving), 1, sharex=True, squeeze=False)[:, 0]
        for panel, (name, values) in zip(panels, moving.items(), strict=True):
            steps, heights = _stairs(path, values)
            panel.step(steps, heights, where="post", color=svg.SYNTHETIC, linewidth=1.6)
            panel.set(ylabel=name, ylim=(0, 1.1 * max(heights)))
            panel.grid(True, axis="y")
        panels[-1].set_xlabel("training step")
        ends = ", ".join(
            f"{name} from {format_number(values[0][0])} to {format_number(values[-1][-1])}"
            for name, values in moving.items()
        )
        return svg.to_svg(figure, f"What training ran with, over its steps: {ends}", "path")


def _stairs(path: Sequence[Mapping[str, Any]], values: Sequence[Sequence[float]]) -> tuple[list[float], list[float]]:
    """Left ends of the stairs and their heights, with the last one repeated at the end."""
    steps, heights = [], []
    for block, inner in zip(path, values, strict=True):
        ends = np.linspace(block["first_step"], block["first_step"] + block["num_steps"], len(inner) + 1)
        steps += ends[:-1].tolist()
        heights += list(inner)
    return [*steps, path[-1]["first_step"] + path[-1]["num_steps"]], [*heights, heights[-1]]


def _from_to(values: Sequence[float]) -> str:
    first, last = format_number(values[0]), format_number(values[-1])
    return first if len(values) == 1 else f"{first} to {last}"
