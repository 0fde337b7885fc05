"""The scale of a whole noise schedule, kept between runs.

The cache on disk holds public figures only: sampling rates, noise multipliers, counts, epsilon and delta, which a run
states before it opens a record. It lies in $PRIVSYN_CACHE_DIR (empty: no cache), else in privsyn_jax/calibration
under $XDG_CACHE_HOME or ~/.cache. What it says decides how much noise is added and never what is claimed: epsilon is
computed from the ledger, whose events hold the noise that was added.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from privsyn_jax.privacy.accounting import Event, epsilon_of
from privsyn_jax.privacy.search import gaussian_noise_multiplier, schedule_guess, smallest_noise

Level = tuple[float, float, int]  # (sampling rate, relative noise multiplier, count)

_VERSION = 1  # of what the numbers mean: raise it when the accounting changes


def calibrate_scale(before: Sequence[Event], levels: Sequence[Level], target_epsilon: float, delta: float) -> float:
    """Number s such that `before` and Poisson-sampled Gaussian steps with s times the relative noise spend the target.

    Never more than the target at accounting.FINE, and at most a few 1e-4 of it less.

    Args:
      before: what is spent beside the steps.
      levels: (sampling rate, relative noise multiplier, number of steps) each.

    Raises:
      ValueError: no scale reaches the target.
    """
    inputs = {
        "version": _VERSION,
        "dp_accounting": importlib.metadata.version("dp-accounting"),
        "before": list(before),
        "levels": [list(level) for level in levels],
        "epsilon": target_epsilon,
        "delta": delta,
    }
    return _calibrate(json.dumps(inputs, sort_keys=True, allow_nan=False), _folder())


def level_events(levels: Sequence[Level], scale: float) -> list[Event]:
    """What the steps are charged as."""
    return [
        {
            "kind": "poisson_gaussian",
            "sampling_rate": sampling_rate,
            "noise_multiplier": scale * noise,
            "count": count,
        }
        for sampling_rate, noise, count in levels
    ]


@functools.lru_cache(maxsize=256)
def _calibrate(inputs: str, folder: Path | None) -> float:
    path = folder and folder / f"{hashlib.sha256(inputs.encode()).hexdigest()}.json"
    known = _read(path, inputs)
    if known is not None:
        return known
    plain = json.loads(inputs)
    before, levels, epsilon, delta = (plain[name] for name in ("before", "levels", "epsilon", "delta"))

    def epsilon_at(scale, grid):
        return epsilon_of([*before, *level_events(levels, scale)], delta, discretization=grid)

    scale = smallest_noise(epsilon_at, epsilon, schedule_guess(levels, gaussian_noise_multiplier(epsilon, delta)))
    _write(path, inputs, scale)
    return scale


def _folder() -> Path | None:
    """Where results are kept, or None."""
    chosen = os.environ.get("PRIVSYN_CACHE_DIR")
    if chosen is not None:
        return Path(chosen) if chosen else None
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "privsyn_jax" / "calibration"
    except RuntimeError:  # no home
        return None


def _read(path: Path | None, inputs: str) -> float | None:
    """The scale in the file if it was written for exactly these inputs."""
    if path is None:
        return None
    try:
        found = json.loads(path.read_text())
        scale = found["scale"]
        good = found["inputs"] == inputs and isinstance(scale, float) and math.isfinite(scale) and scale > 0
        return scale if good else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _write(path: Path | None, inputs: str, scale: float) -> None:
    """Keeps a result; a cache that cannot be written is no error."""
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False) as file:
            json.dump({"inputs": inputs, "scale": scale}, file)
        os.replace(file.name, path)
    except OSError:
        pass
