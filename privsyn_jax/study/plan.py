"""What a study consists of, and which runs that makes."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from privsyn_jax.settings import DataSettings, Settings, settings_from_dict
from privsyn_jax.types import UserError
from privsyn_jax.workdir import plain

# By modality, what the frontier shows of a study that names nothing else.
UTILITY = {"tables": "logistic_regression_auc", "images": "mean_accuracy", "texts": "linear_accuracy"}
LEAKAGE = dict.fromkeys(UTILITY, "shadow_posteriors_auc")

EPOCHS = "training.num_epochs"  # of a contestant only
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


class Kind(NamedTuple):
    """What a model makes: "tables", "images" or "texts", and of which data set."""

    modality: str
    data: str


@dataclasses.dataclass(frozen=True)
class Study:
    """Contestants against a baseline, over models, epsilons and seeds.

    Attributes:
      models: name -> settings of a run, nested.
      contestants: name -> what differs; the baseline is one of them. "training.num_epochs" gives the number of steps
        in passes over the public number of records.
      metrics: whole-table metrics that are compared, the first one that a modality has in its figures; those of an
        attack are "ATTACK_auc" and so on, those of a sensitive column "METRIC_COLUMN".
      tuning: of the baseline, or None.
      attacks: that every run ends with, see evaluation.attacks.
      utility, leakage: modality -> the metric on either axis of the frontier, the larger the better and the worse;
        one of `metrics`. By default UTILITY and LEAKAGE.
    """

    models: Mapping[str, Mapping[str, Any]]
    contestants: Mapping[str, Overrides]
    baseline: str
    epsilons: tuple[float, ...]
    seeds: tuple[int, ...]
    metrics: tuple[str, ...]
    tuning: Tuning | None
    attacks: tuple[str, ...] = ()
    utility: Mapping[str, str] = dataclasses.field(default_factory=dict)
    leakage: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if self.baseline not in self.contestants:
            raise UserError(f"baseline is {self.baseline!r}: use one of {', '.join(self.contestants)}")
        if len(self.seeds) < 2:
            raise UserError(f"seeds is {self.seeds}: a paired comparison needs at least 2")
        if self.tuning is not None and set(self.tuning.seeds) & set(self.seeds):
            raise UserError("tuning.seeds and seeds share a seed: tune on others, or the comparison is biased")
        for axis, chosen in (("utility", self.utility), ("leakage", self.leakage)):
            for modality, metric in chosen.items():
                if modality not in UTILITY:
                    raise UserError(f"{axis} names the modality {modality!r}: use {', '.join(UTILITY)}")
                if metric not in self.metrics:
                    raise UserError(f"{axis} of {modality} is {metric!r}, which metrics lacks: add it there")
        for name in self.contestants:
            self.settings(next(iter(self.models)), name, self.epsilons[0], self.seeds[0], {})

    def settings(self, model: str, contestant: str, epsilon: float, seed: int, tuned: Overrides) -> dict[str, Any]:
        """The full settings of one run, as plain JSON; refuses what no run would accept."""
        changed = {
            **tuned, **self.contestants[contestant],
            "privacy.epsilon": epsilon, "privacy.seed": _NOISE_SEED + seed, "seed": seed, "evaluation.enabled": True,
            "attacks.enabled": bool(self.attacks), "attacks.names": ",".join(self.attacks) or "all",
        }  # fmt: skip
        epochs = changed.pop(EPOCHS, None)
        settings = settings_from_dict(override(self.models[model], changed))
        if epochs is not None:
            training = dataclasses.replace(settings.training, num_steps=steps_of(epochs, settings))
            settings = dataclasses.replace(settings, training=training)
        return plain(settings.to_dict())

    def contestants_of(self, model: str) -> list[str]:
        """The baseline, and those that differ from it: none by training alone, where no step is trained."""
        from privsyn_jax.models import ONE_SHOT

        others = [name for name in self.contestants if name != self.baseline]
        if self._model_name(model) in ONE_SHOT:
            others = [n for n in others if not all(path.startswith("training.") for path in self.contestants[n])]
        return [self.baseline, *others]

    def kind(self, model: str) -> Kind:
        from privsyn_jax.models import IMAGE_GENERATORS, TEXT_GENERATORS

        name, data = self._model_name(model), DataSettings(**self.models[model].get("data", {}))
        modality = "images" if name in IMAGE_GENERATORS else "texts" if name in TEXT_GENERATORS else "tables"
        return Kind(modality, " ".join([data.source or data.name, *([Path(data.path).name] if data.path else [])]))

    def kinds(self) -> dict[Kind, list[str]]:
        """What is made -> the models that make it."""
        found: dict[Kind, list[str]] = {}
        for model in self.models:
            found.setdefault(self.kind(model), []).append(model)
        return found

    def axes(self, modality: str) -> tuple[str, str]:
        """(utility, leakage) of the frontier."""
        return self.utility.get(modality, UTILITY[modality]), self.leakage.get(modality, LEAKAGE[modality])

    def _model_name(self, model: str) -> str:
        return self.models[model].get("model", {}).get("name", Settings().model["name"])


def steps_of(epochs: float, settings: Settings) -> int:
    """Gradient steps of so many passes, in expectation, over as many records (or units) as the schema states.

    Raises:
      UserError: the batch size is left to the run.
    """
    batch = settings.training.expected_batch_size
    if batch == 0:
        raise UserError(f"{EPOCHS} is {epochs}, but training.expected_batch_size is 0 (automatic): give a number")
    return max(1, math.ceil(epochs * _num_units(settings.data) / batch))


@functools.lru_cache
def _num_units(data: DataSettings) -> int:
    from privsyn_jax.data import dataset_of
    from privsyn_jax.types import num_units_of

    return num_units_of(dataset_of(data).read_schema(data))


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
