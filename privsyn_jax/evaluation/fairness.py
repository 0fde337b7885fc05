"""Fairness of a synthetic table, and of models trained on it, over the groups of sensitive columns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from privsyn_jax.evaluation import group_measures, scores
from privsyn_jax.evaluation.encode import Encoded, Levels, Tables, level_counts
from privsyn_jax.evaluation.rows import Rows
from privsyn_jax.evaluation.utility import Predictions
from privsyn_jax.synthesis.groups import NO_GROUP, Groups, group_codes, make_groups
from privsyn_jax.types import UserError

MIN_RECORDS = 50  # held-out records of a group that is scored
MIN_CLASS_RECORDS = 10  # of one class in a group, for the gap in error rates


class _Scored(NamedTuple):
    """The groups of one column that are scored, and where each record stands among them (NO_GROUP: in none)."""

    column: str
    names: list[str]
    codes: Tables[np.ndarray]
    judged: np.ndarray  # of the predictions' records


def fairness_of(
    all_levels: Sequence[Levels],
    frames: Tables[pd.DataFrame],
    tables: Tables[Encoded],
    predictions: Predictions | None,
    *,
    sensitive: Sequence[str],
    target: str | None,
    seed: int,
) -> tuple[Rows, dict[str, Any]]:
    """Gaps between groups of each sensitive column: in the data, in what models learn from it, and in fidelity.

    Rows, with the sensitive column as their column; in [0, 1], lower is better, gaps are between the two groups that
    differ most:
      outcome_rate_gap: in the share of a class of the target, of the synthetic table; reference: of the real training
        table.
      MODEL_demographic_parity_difference, MODEL_equalized_odds_difference: see group_measures.
      MODEL_worst_calibration_error: expected calibration error of the worst group.
      MODEL_accuracy_gap, MODEL_auc_gap: between the best and the worst group. All of these on real held-out records,
        of a model trained on synthetic records; reference: of one trained on real ones.
      group_total_variation, worst_group_total_variation: mean 1-way total variation over the other columns between
        records of a group, synthetic against real train, mean over groups and worst; reference: real held-out
        against real train. A group without synthetic records counts as 1.

    Models see the sensitive column. Groups are the schema's categories or, of a number, public bins. A group with
    fewer than MIN_RECORDS held-out records is named in `skipped` and not scored.

    Args:
      all_levels: one per column.
      frames: train, test, synthetic.
      tables: the same, encoded.
      predictions: of downstream classifiers, or None.
      sensitive: names of columns.
      target: name of the predicted column.
      seed: written into the rows; nothing is drawn.

    Returns:
      (rows, {column: {"groups", "made_from", "num_held_out", "outcome_rates": {"synthetic" | "reference": [g][k]},
      "classes", "models": {model: {"accuracy" | "auc" | "calibration_error": {"synthetic" | "reference": [g]}}},
      "total_variation": {"synthetic" | "reference": [g]}, "amplification": {metric: synthetic minus real}}}), plain
      JSON with None where a number is undefined.
    """
    rows, details = Rows("fairness", seed), {}
    positions = {levels.column.name: i for i, levels in enumerate(all_levels)}
    for name in sensitive:
        reason = _unfit(name, positions, target)
        if reason:
            rows.skip("fairness", reason, column=name)
            continue
        try:
            groups = make_groups(all_levels[positions[name]].column, [pd.Series(frame[name]) for frame in frames])
        except UserError as error:
            rows.skip("fairness", str(error), column=name)
            continue
        scored, counts = _scored_groups(rows, groups, frames, predictions)
        if len(scored.names) < 2:
            rows.skip("fairness", "fewer than two groups can be scored", column=name)
            continue
        start, found = len(rows.metrics), {"groups": scored.names, "made_from": groups.described}
        found["num_held_out"] = counts
        if predictions is not None and target is not None:
            target_levels, target_position = all_levels[positions[target]], positions[target]
            found |= _add_outcome_rates(rows, scored, tables, target_levels, target_position)
            found["models"] = _add_models(rows, scored, predictions)
        else:
            rows.skip("fairness", "no classifier was scored, so only its fidelity by group is", column=name)
        found["total_variation"] = _add_fidelity(rows, scored, all_levels, tables, positions[name])
        is_gap = lambda metric: "total_variation" not in metric  # noqa: E731
        found["amplification"] = {
            row["metric"]: row["value"] - row["reference"] for row in rows.metrics[start:] if is_gap(row["metric"])
        }
        if len(rows.metrics) > start:  # else the synthetic table has no other column
            details[name] = found
    return rows, details


def mitigation_cost(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What a mitigation changed: scores of two evaluations against the same real tables and seed, side by side.

    Args:
      before: metric rows of the table as it was drawn.
      after: metric rows of the mitigated table.

    Returns:
      One row for each metric of the utility, fairness and whole-table fidelity that both have: {"family", "metric",
      "column", "before", "after", "reference" (on real records), "change" (after minus before), "is_better": whether
      the change goes in the direction that is better; None for no change}.
    """
    key = lambda row: (row["family"], row["metric"], row["column"])  # noqa: E731
    later, changes = {key(row): row for row in after}, []
    for row in before:
        if key(row) not in later or (row["family"] == "fidelity" and row["column"] is not None):
            continue
        if row["family"] not in ("utility", "fairness", "fidelity"):
            continue
        change = later[key(row)]["value"] - row["value"]
        changes.append(
            {
                **{field: row[field] for field in ("family", "metric", "column", "reference")},
                "before": row["value"],
                "after": later[key(row)]["value"],
                "change": change,
                "is_better": (change > 0) == row["higher_is_better"] if change else None,
            }
        )
    return changes


def _unfit(name, positions, target):
    if name == target:
        return "it is the target itself"
    return None if name in positions else "the synthetic table does not have it"


def _scored_groups(rows, groups: Groups, frames, predictions):
    """(groups with enough held-out records, their numbers of them); names the others."""
    name = groups.column.name
    codes = [group_codes(groups, pd.Series(frame[name])) for frame in frames]
    judged = codes[1][predictions.rows] if predictions is not None else codes[1]
    num_outside = int((judged == NO_GROUP).sum())
    if num_outside:
        rows.skip("fairness", f"{num_outside} held-out records belong to no group and are left out", column=name)
    counts = np.bincount(judged[judged >= 0], minlength=len(groups.names))
    kept = np.flatnonzero(counts >= MIN_RECORDS)
    small = [f"{groups.names[i]} ({count})" for i, count in enumerate(counts) if count < MIN_RECORDS]
    if small:
        reason = f"fewer than {MIN_RECORDS} held-out records, not scored: {', '.join(small)}"
        rows.skip("fairness", reason, column=name)
    position = np.full(len(groups.names) + 1, NO_GROUP)  # the last one is NO_GROUP's own
    position[kept] = np.arange(len(kept))
    scored = _Scored(
        name, [groups.names[i] for i in kept], Tables(*(position[code] for code in codes)), position[judged]
    )
    return scored, counts[kept].tolist()


def _add_outcome_rates(rows, scored, tables, levels, position):
    """Share of each class of the target within each group, of the synthetic and of the real training table."""
    num_classes, rates = len(levels.categories), {}
    for role, table, groups in (
        ("synthetic", tables.synthetic, scored.codes.synthetic),
        ("reference", tables.train, scored.codes.train),
    ):
        classes = table.codes[:, position]
        is_valid = classes < num_classes
        rates[role] = group_measures.class_rates(classes[is_valid], groups[is_valid], len(scored.names), num_classes)
        absent = [scored.names[i] for i in np.flatnonzero(np.isnan(rates[role][:, 0]))]
        if absent:
            described = "synthetic" if role == "synthetic" else "real training"
            reason = f"no {described} record of {', '.join(absent)} has a valid target"
            rows.skip("outcome_rate_gap", reason, column=scored.column)
    gaps = (group_measures.widest_gap(rates[role]) for role in ("synthetic", "reference"))
    undefined = "fewer than two groups have records in both tables"
    rows.add("outcome_rate_gap", *gaps, column=scored.column, undefined=undefined)
    plain = {role: [_plain(of_group) for of_group in found] for role, found in rates.items()}
    return {"classes": [str(category) for category in levels.categories], "outcome_rates": plain}


def _add_models(rows, scored, predictions):
    """Fairness of every classifier; what each group gets of it."""
    num_groups, labels, groups, found = len(scored.names), predictions.labels, scored.judged, {}
    for model, by_role in predictions.probabilities.items():
        gaps, per_group = {}, {"accuracy": {}, "auc": {}, "calibration_error": {}}
        for role in ("synthetic", "reference"):
            probabilities = by_role[role]
            num_classes = probabilities.shape[1]
            decisions = probabilities.argmax(axis=1)
            of_groups = [_group_scores(labels[groups == i], probabilities[groups == i]) for i in range(num_groups)]
            for metric, entry in per_group.items():
                entry[role] = [scores_of[metric] for scores_of in of_groups]
            gaps[role] = {
                "demographic_parity_difference": group_measures.demographic_parity_difference(
                    decisions, groups, num_groups, num_classes
                ),
                "equalized_odds_difference": group_measures.equalized_odds_difference(
                    labels, decisions, groups, num_groups, num_classes, least_records=MIN_CLASS_RECORDS
                ),
                "worst_calibration_error": max(per_group["calibration_error"][role]),
                "accuracy_gap": _spread(per_group["accuracy"][role]),
                "auc_gap": _spread(per_group["auc"][role]),
            }
        undefined = f"fewer than two groups have {MIN_CLASS_RECORDS} held-out records of a class, or two classes at all"
        for metric, value in gaps["synthetic"].items():
            reference = gaps["reference"][metric]
            rows.add(f"{model}_{metric}", value, reference, column=scored.column, undefined=undefined)
        found[model] = {
            metric: {role: _plain(values) for role, values in entry.items()} for metric, entry in per_group.items()
        }
    return found


def _group_scores(labels, probabilities):
    """Accuracy, AUC (NaN for one class) and calibration error of one group."""
    found = scores.classification_scores(labels, probabilities, probabilities.shape[1])
    calibration_error = group_measures.calibration_error(labels, probabilities)
    return {"accuracy": found["accuracy"], "auc": found["auc"], "calibration_error": calibration_error}


def _add_fidelity(rows, scored, all_levels, tables, position):
    """Mean 1-way total variation within each group."""
    others = [i for i in range(len(all_levels)) if i != position]
    if not others:
        rows.skip("group_total_variation", "there is no other column", column=scored.column)
        return {}
    num_codes = max(levels.num_codes for levels in all_levels)
    distances = {"synthetic": [], "reference": []}
    for group, name in enumerate(scored.names):
        train, test, synthetic = (
            level_counts(table.codes[codes == group][:, others], num_codes)
            for table, codes in zip(tables, scored.codes, strict=True)
        )
        if not train.any():
            reason = f"no real training record of {name}"
            rows.skip("group_total_variation", reason, column=scored.column)
        elif not synthetic.any():
            reason = f"no synthetic record of {name}, which counts as a total variation of 1"
            rows.skip("group_total_variation", reason, column=scored.column)
        distances["synthetic"].append(_total_variation(train, synthetic))
        distances["reference"].append(_total_variation(train, test))
    defined = [np.array(found)[np.isfinite(found)] for found in distances.values()]
    if len(defined[0]):
        rows.add("group_total_variation", *(found.mean() for found in defined), column=scored.column)
        rows.add("worst_group_total_variation", *(found.max() for found in defined), column=scored.column)
    return {role: _plain(found) for role, found in distances.items()}


def _total_variation(real, other):
    """Mean over columns of counts [D, k]; 1 where nothing is there, NaN where nothing real is."""
    if not real.any():
        return np.nan
    if not other.any():
        return 1.0
    real, other = (counts / counts.sum(axis=1, keepdims=True) for counts in (real, other))
    return float(0.5 * np.abs(real - other).sum(axis=1).mean())


def _spread(values):
    """Best minus worst of the finite values; NaN for fewer than two."""
    defined = [value for value in values if math.isfinite(value)]
    return max(defined) - min(defined) if len(defined) >= 2 else math.nan


def _plain(values):
    return [float(value) if math.isfinite(value) else None for value in values]
