"""Metric rows, the form in which every evaluation is reported and stored."""

from __future__ import annotations

import math
from typing import Any


class Rows:
    """Collects metric rows and the reasons for what could not be computed.

    Attributes:
      metrics: dicts with family, metric, value, reference (finite floats), higher_is_better, column, seed.
      skipped: one sentence for each metric that could not be computed.
    """

    def __init__(self, family: str, seed: int):
        self.family, self.seed = family, seed
        self.metrics: list[dict[str, Any]] = []
        self.skipped: list[str] = []

    def add(
        self,
        metric,
        value,
        reference,
        *,
        higher_is_better=False,
        column=None,
        undefined="not a finite number",
    ):
        """Appends a row, or the sentence `undefined` if the value or its reference is not finite."""
        value, reference = float(value), float(reference)
        if not (math.isfinite(value) and math.isfinite(reference)):
            return self.skip(metric, undefined, column=column)
        self.metrics.append(
            {
                "family": self.family,
                "metric": metric,
                "value": value,
                "reference": reference,
                "higher_is_better": higher_is_better,
                "column": column,
                "seed": self.seed,
            }
        )

    def skip(self, metric, reason, *, column=None):
        """Says in one sentence why a metric has no value."""
        of_column = f" of {column}" if column is not None else ""
        self.skipped.append(f"{metric}{of_column}: {reason}.")
