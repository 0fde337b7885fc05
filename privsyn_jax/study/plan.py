"""What a study consists of, and which runs that makes."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from privsyn_jax.settings import settings_from_dict
from privsyn_jax.types import UserError
from privsyn_jax.workdir import plain

_NOISE_SEED = 1_000_000  # noise is seeded apart from initial weights, so that a study can be made again

Overrides = Mapping[str, Any]  # path of a setting, as in "privacy.schedule.noise" -> its value


@dataclasses.dataclass(frozen=True)
class Tuning:
    """A grid that the baseline of every (model, epsilon) is tuned on, for all contestants to use.

    It looks at real records without being charged, so everything after it is marked as tuned on private data.

    Attributes:
      grid: path of a setting -> values.
      seeds: others than those of the study.
      metric: the larger the better; its mean over the seeds decides.
    """

    grid: Mapping[str, tuple[Any, ...]]
    seeds: tuple[int, ...]
    metric: str

    def choices(self) -> Iterator[dict[str, Any]]:
        for values in itertools.product(*self.grid.values()):
            yield dict(zip(self.grid, values, strict=True))


@dataclasses.dataclass(frozen=True)
class Study:
    """Contestants against a baseline, over models, epsilons and seeds.

    Attributes:
      models: name -> settings of a run, nested.
      contestants: name -> what differs; the baseline is one of them.
      metrics: whole-table metrics that are compared, the first one in the figure; those of an attack are
        "ATTACK_auc" and so on.
      tuning: of the baseline, or None.
      attacks: that every run ends with, see evaluation.attacks.
    """

    models: Mapping[str, Mapping[str, Any]]
    contestants: Mapping[str, Overrides]
    baseline: str
    epsilons: tuple[float, ...]
    seeds: tuple[int, ...]
    metrics: tuple[str, ...]
    tuning: Tuning | None
    attacks: tuple[str, ...] = ()

    def __post_init__(self):
        if self.baseline not in self.contestants:
            raise UserError(f"baseline is {self.baseline!r}: use one of {', '.join(self.contestants)}")
        if len(self.seeds) < 2:
            raise UserError(f"seeds is {self.seeds}: a paired comparison needs at least 2")
        if self.tuning is not None and set(self.tuning.seeds) & set(self.seeds):
            raise UserError("tuning.seeds and seeds share a seed: tune on others, or the comparison is biased")
        for name in self.contestants:
            self.settings(next(iter(self.models)), name, self.epsilons[0], self.seeds[0], {})

    def settings(self, model: str, contestant: str, epsilon: float, seed: int, tuned: Overrides) -> dict[str, Any]:
        """The full settings of one run, as plain JSON; refuses what no run would accept."""
        changed = {
            **tuned, **self.contestants[contestant],
            "privacy.epsilon": epsilon, "privacy.seed": _NOISE_SEED + seed, "seed": seed, "evaluation.enabled": True,
            "attacks.enabled": bool(self.attacks), "attacks.names": ",".join(self.attacks) or "all",
        }  # fmt: skip
        return plain(settings_from_dict(override(self.models[model], changed)).to_dict())


def override(settings: Mapping[str, Any], changes: Overrides) -> dict[str, Any]:
    """Nested settings with values at dotted paths replaced or added."""
    result = {key: dict(value) if isinstance(value, Mapping) else value for key, value in settings.items()}
    for path, value in changes.items():
        *groups, name = path.split(".")
        node = result
        for group in groups:
            node[group] = dict(node.get(group) or {})
            node = node[group]
        node[name] = value
    return result


def run_hash(settings: Mapping[str, Any]) -> str:
    """Name of a run: equal settings and version, equal name. Where a published data set lies does not matter."""
    what = {key: value for key, value in settings.items() if key != "data"}
    data = {key: value for key, value in settings["data"].items() if key != "dir" and value != ""}
    content = {"settings": {**what, "data": data}, "version": importlib.metadata.version("privsyn_jax")}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]


def best_choice(tuning: Tuning, values: Mapping[str, list[float]]) -> dict[str, Any]:
    """The choice with the largest mean.

    Args:
      values: JSON of a choice -> the metric of its seeds.
    """
    means = {choice: math.fsum(found) / len(found) for choice, found in values.items()}
    return json.loads(max(means, key=lambda choice: means[choice]))
