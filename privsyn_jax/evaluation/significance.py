"""Scores of downstream models over seeds: means, intervals, and tests against real records or a baseline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from privsyn_jax.evaluation.statistics import mean_interval, paired_family
from privsyn_jax.types import UserError

PROTOCOL = (
    "Every seed trains on a bootstrap resample of the records, with its own initial weights and order; the test "
    "records stay the same. Intervals hold for these synthetic records: another run of the generator would add its own "
    "variation."
)


def seed_tests(
    scored: Mapping[tuple[str, str], Sequence[Mapping[str, float]]], *, num_seeds: int, seed: int
) -> dict[str, Any]:
    """Means with intervals, and paired t-tests against models trained on real records.

    Args:
      scored: (model, what it was trained on: "synthetic", "real" or "real_plus_synthetic") -> scores {metric: value} of
        the model trained on every record once, then of one model per seed, if it has any.
      num_seeds: number of the latter.
      seed: that they were made from.

    Returns:
      Plain JSON. {"protocol", "seed", "num_seeds",
      "scores": [{"model", "trained_on", "metric", "value" (of all records), "mean", "low", "high" (95 %, Student's t;
      None without seeds), "values" (one per seed)}],
      "against_real": [{"model", "trained_on", "metric", "difference" (minus real; the sign that is better is the
      metric's), "low", "high", "p_value", "p_holm" (Holm's correction over the rows of the same metric), "wilcoxon",
      "effect"}]}.
      Scores that are not finite are left out.
    """
    listed, values = [], {}
    for (model, trained_on), (of_all, *of_seeds) in scored.items():
        for metric, value in of_all.items():
            over_seeds = [float(scores[metric]) for scores in of_seeds]
            if not all(map(math.isfinite, [value, *over_seeds])):
                continue
            mean, low, high = mean_interval(over_seeds) if over_seeds else (None, None, None)
            entry = {"model": model, "trained_on": trained_on, "metric": metric, "value": float(value)}
            listed.append({**entry, "mean": mean, "low": low, "high": high, "values": over_seeds})
            if over_seeds:
                values[model, trained_on, metric] = over_seeds
    real = {(model, metric): found for (model, trained_on, metric), found in values.items() if trained_on == "real"}
    others = {key: found for key, found in values.items() if key[1] != "real"}
    baseline = {key: real[key[0], key[2]] for key in others if (key[0], key[2]) in real}
    return {
        "protocol": PROTOCOL,
        "seed": seed,
        "num_seeds": num_seeds,
        "scores": listed,
        "against_real": _by_metric(others, baseline),
    }


def against_baseline(tests: Mapping[str, Any], baseline: Mapping[str, Any], *, name: str) -> list[dict[str, Any]]:
    """Paired t-tests of one synthetic set against another, on the same real records and seeds.

    Args:
      tests: of the contestant, from `seed_tests`.
      baseline: of another synthetic set, a published generator's for instance.
      name: of the baseline, in messages and in the result.

    Returns:
      Rows as `seed_tests`' "against_real" has them, each with "baseline": name; the difference is minus the baseline.

    Raises:
      UserError: there are no seeds, or they are not the same.
    """
    if not tests.get("num_seeds") or not baseline.get("num_seeds"):
        raise UserError(
            f"no scores over seeds to compare with {name}: set evaluation.num_seeds to 2 or more for both "
            "(evaluation.net_seeds for images and texts)"
        )
    for field in ("seed", "num_seeds"):
        if tests[field] != baseline[field]:
            raise UserError(
                f"the baseline {name} has {field} {baseline[field]} and this table has {tests[field]}: evaluate both "
                "with the same seeds"
            )
    contestant, other = (
        {
            (row["model"], row["trained_on"], row["metric"]): row["values"]
            for row in part["scores"]
            if row["values"] and row["trained_on"] != "real"
        }
        for part in (tests, baseline)
    )
    return [{"baseline": name, **row} for row in _by_metric(contestant, other)]


def _by_metric(contestant: Mapping, baseline: Mapping) -> list[dict[str, Any]]:
    """Tests of (model, trained on, metric); the scores of one metric are one family."""
    listed = []
    for metric in dict.fromkeys(key[2] for key in contestant):
        family = paired_family({key: values for key, values in contestant.items() if key[2] == metric}, baseline)
        for (model, trained_on, _), test in family.items():
            listed.append({"model": model, "trained_on": trained_on, "metric": metric, **test})
    return listed
