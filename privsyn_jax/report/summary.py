"""The last lines that a run prints in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from privsyn_jax.report.guarantee import banners
from privsyn_jax.report.numbers import format_epsilon, format_number, format_share
from privsyn_jax.report.tables import average_over_seeds, direction_words, metric_label


def summary_lines(
    files: Mapping[str, str], privacy: Mapping[str, Any], headline: Sequence[Mapping[str, Any]]
) -> list[str]:
    """What came out of a run, what it cost and how good it is, in about ten aligned lines.

    Args:
      files: what each file is (as it should be called) -> its path as it should be printed.
      privacy: the content of privacy_report.json.
      headline: entries of metrics.json, optionally with a `label`.
    """
    width = max((len(name) for name in files), default=0)
    lines = [f"{name}: {text.partition('. ')[0]}." for name, text in banners(privacy)]
    lines += [f"{name:<{width}}  {path}" for name, path in files.items()]
    lines.append(
        f"epsilon {format_epsilon(privacy.get('epsilon'))}, delta {format_number(privacy.get('delta'))} "
        f"per {privacy.get('privacy_unit') or 'record'}, spent on"
    )
    lines += _aligned(
        [
            (
                f"  {entry.get('name')}",
                format_share(entry.get("share")),
                f"epsilon {format_epsilon(entry.get('epsilon_alone'))} alone",
            )
            for entry in privacy.get("ledger") or ()
        ]
    )
    lines += metric_lines(headline)
    return lines


def metric_lines(headline: Sequence[Mapping[str, Any]]) -> list[str]:
    """Metrics beside those of real records, aligned; none without metrics."""
    if not headline:
        return []
    table = [("", "synthetic", "real", "")]
    table += [
        (
            metric_label(metric),
            format_number(metric["value"]),
            format_number(metric["reference"]),
            direction_words(metric),
        )
        for metric in average_over_seeds(headline)
    ]
    return _aligned(table)


def attack_lines(attacks: Sequence[Mapping[str, Any]]) -> list[str]:
    """What attacks found, those that found nothing counted in one line.

    Args:
      attacks: results as `attacks.scores.result_to_dict` gives them.
    """
    if not attacks:
        return []
    found = [
        f"  {result['name'].replace('_', ' ')}: {result['verdict']}" for result in attacks if result["is_detected"]
    ]
    return [f"{len(attacks)} attacks, {len(found) or 'none'} with a detectable advantage", *found]


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows as lines: first column to the left, numbers to the right, the last as it is."""
    if not rows:
        return []
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(cell.rjust(w) for cell, w in zip(row[1:-1], widths[1:-1], strict=True)),
                row[-1],
            ]
        ).rstrip()
        for row in rows
    ]
