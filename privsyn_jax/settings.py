"""Every setting of a run, with its default and its check. The only place where a default is written."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import math
from collections.abc import Mapping
from typing import Any

from privsyn_jax.privacy.rules import RULES
from privsyn_jax.privacy.schedules import MAX_LEVELS, SHAPES
from privsyn_jax.types import UserError

FILTERS = ("reference", "renyi")  # see privacy.filters
_SET_BY_THE_RUN = ("cardinalities", "column_order")


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """Where the records come from.

    Attributes:
      name: a key of data.DATASETS.
      dir: folder with the original files (adult).
      path: the table, .csv[.gz|.bz2] or .parquet (csv).
      test_path: a separate held-out table; empty means a split of `path` (csv).
      schema: path of the schema JSON (csv).
      split: "uci" (the published train/test files) or "paper" (70/30 of both together) (adult).
      test_fraction: share of records held out where a split is made; each record is held out
        independently, by a public rule, so that adding a record moves no other.
      out_of_bounds: "clip" counts (under private/) and clamps numbers outside the public bounds, "error" refuses.
    """

    name: str = "csv"
    dir: str = ""
    path: str = ""
    test_path: str = ""
    schema: str = ""
    split: str = "uci"
    test_fraction: float = 0.3
    out_of_bounds: str = "clip"

    def __post_init__(self):
        _one_of("data.split", self.split, ("uci", "paper"))
        _one_of("data.out_of_bounds", self.out_of_bounds, ("clip", "error"))
        _require(
            0 < self.test_fraction < 1, f"data.test_fraction is {self.test_fraction}: give a share between 0 and 1"
        )


@dataclasses.dataclass(frozen=True)
class TransformSettings:
    """How columns become codes.

    Attributes:
      edges: "quantile" (bins from one purchased noisy histogram of all columns) or "public" (from the schema
        alone: given edges, else even ones; nothing is bought).
      num_bins: bins aimed at per numeric column.
      num_cells: cells of the fine public grid that a purchased histogram is taken on.
    """

    edges: str = "quantile"
    num_bins: int = 32
    num_cells: int = 256

    def __post_init__(self):
        _one_of("transform.edges", self.edges, ("quantile", "public"))
        _require(self.num_bins >= 2, f"transform.num_bins is {self.num_bins}: give at least 2")
        _require(
            self.num_cells >= self.num_bins,
            f"transform.num_cells is {self.num_cells}: give at least transform.num_bins = {self.num_bins}",
        )


@dataclasses.dataclass(frozen=True)
class BudgetSettings:
    """Shares of the privacy budget spent before training, which gets the rest.

    A share f buys a Gaussian release with noise_multiplier sigma / sqrt(f), where sigma is that of the one
    Gaussian release that would spend all of (epsilon, delta).

    Attributes:
      transform: the histogram for quantile edges, first logits and one-way marginals.
      marginals: pair scores and the pair marginals chosen by them (generators that can use them).
      categories: the thresholded histogram of columns whose categories are not public.
    """

    transform: float = 0.05
    marginals: float = 0.25
    categories: float = 0.05

    def __post_init__(self):
        for name, share in dataclasses.asdict(self).items():
            _require(
                math.isfinite(share) and 0 <= share < 1,
                f"privacy.budget.{name} is {share}: give a share from 0 to below 1",
            )
        total = sum(dataclasses.astuple(self))
        _require(total < 1, f"privacy.budget adds up to {total:g}: leave a share for training by keeping it below 1")


@dataclasses.dataclass(frozen=True)
class ScheduleSettings:
    """What changes over the steps of training, fixed beforehand. Whatever the shapes, the whole run lands on epsilon.

    Attributes:
      noise, clip, batch: shapes of noise multiplier, clipping norm and expected batch size, each a key of
        schedules.SHAPES: "constant", "linear", "exponential", "cosine", "step", "warmup_decay", "growing".
      noise_final, clip_final, batch_final: the shape's last value over its first (growing, warmup_decay: its first
        over its largest).
      num_levels: constant levels that a shape is followed in, at most 16.
    """

    noise: str = "constant"
    noise_final: float = 0.5
    clip: str = "constant"
    clip_final: float = 0.5
    batch: str = "constant"
    batch_final: float = 2.0
    num_levels: int = 16

    def __post_init__(self):
        for name in ("noise", "clip", "batch"):
            _one_of(f"privacy.schedule.{name}", getattr(self, name), tuple(SHAPES))
            final = getattr(self, f"{name}_final")
            _require(
                0.01 <= final <= 100,
                f"privacy.schedule.{name}_final is {final}: give a ratio between 0.01 and 100",
            )
        _require(
            1 <= self.num_levels <= MAX_LEVELS,
            f"privacy.schedule.num_levels is {self.num_levels}: give a number from 1 to {MAX_LEVELS}",
        )

    @property
    def is_constant(self) -> bool:
        return self.noise == self.clip == self.batch == "constant"


@dataclasses.dataclass(frozen=True)
class AdaptiveClipSettings:
    """A clipping norm that follows a quantile of the gradient norms, by a noisy count in every step.

    Attributes:
      target_quantile: of the norms; 0 switches it off. privacy.l2_clip_norm is then where it starts.
      learning_rate: of the geometric update.
      share: of each step's precision that the count takes; the gradients get the rest, so epsilon does not change.
    """

    target_quantile: float = 0.0
    learning_rate: float = 0.2
    share: float = 0.01

    def __post_init__(self):
        _require(
            0 <= self.target_quantile < 1,
            f"privacy.adaptive_clip.target_quantile is {self.target_quantile}: give a number from 0 (off) to below 1",
        )
        _require(
            0 < self.learning_rate <= 2,
            f"privacy.adaptive_clip.learning_rate is {self.learning_rate}: give a number above 0, at most 2",
        )
        _require(0 < self.share < 0.5, f"privacy.adaptive_clip.share is {self.share}: give a share between 0 and 0.5")


@dataclasses.dataclass(frozen=True)
class AdaptiveSettings:
    """Noise that is chosen while training, block by block, from released quantities only, inside a privacy filter.

    Attributes:
      rule: a key of rules.RULES, "signal", "loss" or "even"; "" switches it off.
      filter: "reference" (composes privacy-loss distributions, tighter) or "renyi".
      num_blocks: parts of training; the noise is chosen at the start of each.
      largest_ratio: by how much the noise may at most differ from that of the constant schedule, either way.
      loss_share: of each step's precision that a noisy loss takes (rule "loss" only).
    """

    rule: str = ""
    filter: str = "reference"
    num_blocks: int = 10
    largest_ratio: float = 2.0
    loss_share: float = 0.02

    def __post_init__(self):
        _one_of("privacy.adaptive.rule", self.rule, ("", *RULES))
        _one_of("privacy.adaptive.filter", self.filter, FILTERS)
        _require(
            2 <= self.num_blocks <= 100,
            f"privacy.adaptive.num_blocks is {self.num_blocks}: give a number from 2 to 100",
        )
        _require(
            1 <= self.largest_ratio <= 4,
            f"privacy.adaptive.largest_ratio is {self.largest_ratio}: give a ratio from 1 to 4",
        )
        _require(
            0 < self.loss_share < 0.5,
            f"privacy.adaptive.loss_share is {self.loss_share}: give a share between 0 and 0.5",
        )


@dataclasses.dataclass(frozen=True)
class PrivacySettings:
    """The guarantee.

    Attributes:
      enabled: False trains plainly, without clipping or noise; every output is stamped NOT PRIVATE.
      epsilon: target of the whole run; inf keeps clipping but adds no noise (NOT PRIVATE). Exactly one of
        epsilon and noise_multiplier is given.
      noise_multiplier: of training, in units of l2_clip_norm; epsilon is then computed.
      delta: of the whole run; 0 means 1 / num_records^1.1, from the schema's public figure.
      l2_clip_norm: bound on each record's gradient; its largest value where a schedule lowers it.
      budget: what is spent before training.
      schedule, adaptive_clip, adaptive: what changes over the steps.
      sampling: "poisson", or "partition": passes over the data in random parts, as shuffling loaders make them, and
        accounted for as that, without amplification: a baseline.
      num_bands: of correlated noise (banded matrix factorisation; needs jax_privacy); 1 is independent noise.
      seed: fixes noise and sampling for experiments (then stamped as seeded); -1 draws them from the OS.
    """

    enabled: bool = True
    epsilon: float | None = 1.0
    noise_multiplier: float | None = None
    delta: float = 0.0
    l2_clip_norm: float = 1.0
    budget: BudgetSettings = dataclasses.field(default_factory=BudgetSettings)
    schedule: ScheduleSettings = dataclasses.field(default_factory=ScheduleSettings)
    adaptive_clip: AdaptiveClipSettings = dataclasses.field(default_factory=AdaptiveClipSettings)
    adaptive: AdaptiveSettings = dataclasses.field(default_factory=AdaptiveSettings)
    sampling: str = "poisson"
    num_bands: int = 1
    seed: int = -1

    def __post_init__(self):
        if self.enabled:
            _require(
                (self.epsilon is None) != (self.noise_multiplier is None),
                "privacy.epsilon and privacy.noise_multiplier exclude each other: give one and set the other to None",
            )
        for name in ("epsilon", "noise_multiplier"):
            value = getattr(self, name)
            _require(value is None or value > 0, f"privacy.{name} is {value}: give a number above 0")
        _require(
            self.epsilon is None or self.epsilon <= 100 or self.epsilon == math.inf,
            f"privacy.epsilon is {self.epsilon}, which protects nobody: give at most 100, or inf to add no noise",
        )
        _require(
            self.noise_multiplier is None or math.isfinite(self.noise_multiplier),
            f"privacy.noise_multiplier is {self.noise_multiplier}: give a finite number",
        )
        _require(
            0 <= self.delta < 1, f"privacy.delta is {self.delta}: give a number below 1, or 0 for 1 / num_records^1.1"
        )
        _require(
            1e-10 <= self.l2_clip_norm <= 1e10,  # squared norms must neither vanish nor overflow in float32
            f"privacy.l2_clip_norm is {self.l2_clip_norm}: give a number between 1e-10 and 1e10",
        )
        _one_of("privacy.sampling", self.sampling, ("poisson", "partition"))
        _require(1 <= self.num_bands <= 1000, f"privacy.num_bands is {self.num_bands}: give a number from 1 to 1000")
        self._refuse_combinations()

    def _refuse_combinations(self) -> None:
        """What has no accounting together, or none that is implemented."""
        moving = not self.schedule.is_constant or bool(self.adaptive.rule)
        _require(
            not (self.adaptive.rule and (self.schedule.noise, self.schedule.batch) != ("constant", "constant")),
            "privacy.adaptive.rule and privacy.schedule.noise or batch exclude each other: set one of them back",
        )
        _require(
            not (self.adaptive.rule and not self.is_private),
            "privacy.adaptive.rule needs noise to choose: give a finite privacy.epsilon, or set the rule to ''",
        )
        _require(
            not (self.adaptive_clip.target_quantile and self.schedule.clip != "constant"),
            "privacy.adaptive_clip and privacy.schedule.clip exclude each other: set one of them back",
        )
        _require(
            not (self.num_bands > 1 and (moving or self.adaptive_clip.target_quantile)),
            "privacy.num_bands above 1 needs constant noise, batches and clipping norm: set the schedules back",
        )
        _require(
            not (self.sampling == "partition" and (moving or self.num_bands > 1)),
            "privacy.sampling='partition' needs a constant schedule and num_bands=1: set them back",
        )

    @property
    def is_private(self) -> bool:
        """Whether noise is added at all."""
        return self.enabled and self.epsilon != math.inf

    @property
    def noise_seed(self) -> int | None:
        return None if self.seed < 0 else self.seed


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
    """DP-SGD.

    Attributes:
      num_steps: gradient steps.
      expected_batch_size: records per Poisson batch, in expectation; 0 means an eighth of num_records, at most 2048.
      learning_rate: peak of Adam's cosine decay.
      ema_decay: of the parameter average that is sampled from.
      microbatch_size: examples per gradient sum; 0 means automatic. A draw takes as many sums as it needs.
      steps_per_dispatch: steps per call of the device, and between two marks of the progress bar.
      gradient_method: how per-example gradients are clipped and summed: "auto", "ghost", "microbatch" or "vmap".
        All give the same sum.
      num_draws: draws of the loss's own noise per record, averaged before clipping.
      compute_dtype: "float32" or "bfloat16", of the loss; clipping, sums and noise stay float32.
      num_devices: devices that share a step; 0 means all.
      device_wrapper: "pmap" or "shard_map", for several devices.
      records_on: where the encoded records stay: "device", "host", or "auto" (host if they do not fit).
    """

    num_steps: int = 400
    expected_batch_size: int = 0
    learning_rate: float = 3e-3
    ema_decay: float = 0.99
    microbatch_size: int = 0
    steps_per_dispatch: int = 20
    gradient_method: str = "auto"
    num_draws: int = 1
    compute_dtype: str = "float32"
    num_devices: int = 0
    device_wrapper: str = "pmap"
    records_on: str = "auto"

    def __post_init__(self):
        _require(
            self.expected_batch_size >= 0,
            f"training.expected_batch_size is {self.expected_batch_size}: give 0 (automatic) or more",
        )
        for name in ("num_steps", "steps_per_dispatch", "num_draws"):
            value = getattr(self, name)
            _require(value >= 1, f"training.{name} is {value}: give at least 1")
        for name in ("microbatch_size", "num_devices"):
            value = getattr(self, name)
            _require(value >= 0, f"training.{name} is {value}: give 0 (automatic) or more")
        for name, allowed in (
            ("gradient_method", ("auto", "ghost", "microbatch", "vmap")),
            ("compute_dtype", ("float32", "bfloat16")),
            ("device_wrapper", ("pmap", "shard_map")),
            ("records_on", ("auto", "device", "host")),
        ):
            _one_of(f"training.{name}", getattr(self, name), allowed)
        _require(
            0 < self.learning_rate < math.inf,
            f"training.learning_rate is {self.learning_rate}: give a finite number above 0",
        )
        _require(0 <= self.ema_decay < 1, f"training.ema_decay is {self.ema_decay}: give a number from 0 to below 1")


@dataclasses.dataclass(frozen=True)
class SynthesisSettings:
    """What is drawn from the trained generator.

    Attributes:
      num_samples: rows; 0 means the schema's public num_records.
      conditions: JSON object, column -> value, list of values, or {"min": ..., "max": ...}; "" for none.
    """

    num_samples: int = 0
    conditions: str = ""

    def __post_init__(self):
        _require(self.num_samples >= 0, f"synthesis.num_samples is {self.num_samples}: give 0 or more")


@dataclasses.dataclass(frozen=True)
class EvaluationSettings:
    """Whether the synthetic table is compared with real rows (results stay under private/)."""

    enabled: bool = True


@dataclasses.dataclass(frozen=True)
class Settings:
    """One run.

    `model` holds the generator's name, its keyword arguments, and `column_order` (names; () means the target
    first, then the schema's order). `seed` fixes everything that is not private: initial weights, evaluation.
    """

    data: DataSettings = dataclasses.field(default_factory=DataSettings)
    transform: TransformSettings = dataclasses.field(default_factory=TransformSettings)
    model: Mapping[str, Any] = dataclasses.field(default_factory=lambda: model_defaults("autoregressive"))
    privacy: PrivacySettings = dataclasses.field(default_factory=PrivacySettings)
    training: TrainingSettings = dataclasses.field(default_factory=TrainingSettings)
    synthesis: SynthesisSettings = dataclasses.field(default_factory=SynthesisSettings)
    evaluation: EvaluationSettings = dataclasses.field(default_factory=EvaluationSettings)
    seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def model_defaults(name: str) -> dict[str, Any]:
    """The generator's own keyword arguments and defaults, with its name and a column order."""
    from privsyn_jax.models import GENERATORS  # here, so that reading data settings does not load the models

    _one_of("model.name", name, tuple(GENERATORS))
    parameters = inspect.signature(GENERATORS[name]).parameters.values()
    own = {p.name: p.default for p in parameters if p.name not in _SET_BY_THE_RUN}
    return {"name": name, "column_order": (), **own}


def settings_from_dict(plain: Mapping[str, Any]) -> Settings:
    """Settings from nested plain values; a missing key takes its default, an unknown one is refused.

    Raises:
      UserError: an unknown key (naming the nearest), a value of the wrong type or out of range.
    """
    model = plain.get("model", {})
    _require(isinstance(model, Mapping), f"model is {model!r}: give a group of settings")
    known_model = model_defaults(model.get("name", "autoregressive"))
    refuse_unknown("model", model, known_model)
    refuse_unknown("", plain, [field.name for field in dataclasses.fields(Settings)])
    values = {key: value for key, value in plain.items() if key not in ("model",)}
    return _build(Settings, "", {**values, "model": {**known_model, **model}})


def _build(cls, path: str, plain: Mapping[str, Any]):
    """Dataclass from nested plain values, checking names and types."""
    if not isinstance(plain, Mapping):
        raise UserError(f"{path.rstrip('.')} is {plain!r}: give a group of settings")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    refuse_unknown(path.rstrip("."), plain, fields)
    values = {}
    for name, value in plain.items():
        default = getattr(_defaults(cls), name)
        if dataclasses.is_dataclass(default):
            values[name] = _build(type(default), f"{path}{name}.", value)
        elif name == "model" and cls is Settings:
            values[name] = {key: tuple(item) if isinstance(item, list) else item for key, item in value.items()}
        else:
            values[name] = _typed(f"{path}{name}", value, fields[name].type)
    return cls(**values)


def _typed(path: str, value: Any, annotation: Any) -> Any:
    """The value as the annotated type; a whole float passes for an int."""
    wanted = str(annotation)
    if value is None and "None" in wanted:
        return None
    if wanted.startswith("float"):
        value = math.inf if value == "inf" else value  # as JSON holds it
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            _require(not math.isnan(value), f"{path} is NaN: give a number")
            return float(value)
    elif wanted.startswith("int"):
        if isinstance(value, (int, float)) and not isinstance(value, bool) and float(value).is_integer():
            return int(value)
    elif isinstance(value, {"bool": bool, "str": str}[wanted]):
        return value
    raise UserError(f"{path} is {value!r}: give a value of type {wanted.removesuffix(' | None')}")


def refuse_unknown(path: str, given, known) -> None:
    for key in given:
        if key not in known:
            where = f"{path}.{key}" if path else str(key)
            nearest = difflib.get_close_matches(str(key), list(known), n=1, cutoff=0.0)
            prefix = f"{path}." if path else ""
            raise UserError(f"unknown setting {where!r}: did you mean {prefix + nearest[0]!r}?")


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    choices = " or ".join(repr(choice) for choice in allowed)
    _require(value in allowed, f"{name} is {value!r}: use {choices}")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UserError(message)


@functools.cache
def _defaults(cls):
    return cls()
