"""Every setting of a run, with its default and its check. The only place where a default is written."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import math
from collections.abc import Mapping
from typing import Any

from privsyn_jax.evaluation_settings import AttackSettings, EvaluationSettings
from privsyn_jax.privacy_settings import PrivacySettings
from privsyn_jax.refuse import one_of, require
from privsyn_jax.types import UserError


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """Where the records come from.

    Attributes:
      name: a key of data.DATASETS; `source` overrides it.
      source: "tfds:NAME[/CONFIG][:VERSION]" reads images or texts that tensorflow-datasets prepared; "" means `name`.
      dir: folder with the original files (adult, mimic3, mnist, cifar10, imdb), or of tensorflow-datasets (tfds; ""
        for its own).
      path: the table, .csv[.gz|.bz2] or .parquet (csv); a folder of class/image files or an .npz (images); a
        .csv or .jsonl, either with .gz or .bz2, or a folder or .tar[.gz] of class/text files (texts).
      test_path: a separate held-out table or set of images or texts; empty means a split of `path` (csv, images,
        texts).
      schema: path of the schema JSON (csv, images, texts).
      split: "uci" (the published train/test files) or "paper" (70/30 of both together) (adult).
      test_fraction: share of records held out where a split is made; each record is held out
        independently, by a public rule, so that adding a record moves no other.
      out_of_bounds: "clip" counts (under private/) and clamps numbers outside the public bounds, "error" refuses.
      target: column that the evaluation predicts; "" means the schema's (csv), or hospital_death (mimic3, which also
        has readmitted_30_days and hospital_days); other data sets have their own.
      max_records_per_unit: rows of one unit that are read, at most; noise grows with it. 0 means the schema's (csv), or
        3 admissions of a patient (mimic3).
      resize: whether images of another size or other channels than the schema's are resized (the shorter side, then
        the centre is cut out) and converted; by default they are refused (images).
    """

    name: str = "csv"
    source: str = ""
    dir: str = ""
    path: str = ""
    test_path: str = ""
    schema: str = ""
    split: str = "uci"
    test_fraction: float = 0.3
    out_of_bounds: str = "clip"
    target: str = ""
    max_records_per_unit: int = 0
    resize: bool = False

    def __post_init__(self):
        one_of("data.split", self.split, ("uci", "paper"))
        one_of("data.out_of_bounds", self.out_of_bounds, ("clip", "error"))
        require(
            self.max_records_per_unit >= 0,
            f"data.max_records_per_unit is {self.max_records_per_unit}: give 0 (the data set's own) or more",
        )
        require(0 < self.test_fraction < 1, f"data.test_fraction is {self.test_fraction}: give a share between 0 and 1")


@dataclasses.dataclass(frozen=True)
class TransformSettings:
    """How columns become codes.

    Attributes:
      edges: "quantile" (bins from one purchased noisy histogram of all columns) or "public" (from the schema
        alone: given edges, else even ones; nothing is bought).
      num_bins: bins aimed at per numeric column.
      num_cells: cells of the fine public grid that a purchased histogram is taken on.
      most_categories: a column with more categories, whose schema has groups of them, is modelled by its groups; a
        category is then drawn within its group by the purchased histogram (evenly, where none is bought).
    """

    edges: str = "quantile"
    num_bins: int = 32
    num_cells: int = 256
    most_categories: int = 200

    def __post_init__(self):
        require(self.most_categories >= 1, f"transform.most_categories is {self.most_categories}: give at least 1")
        one_of("transform.edges", self.edges, ("quantile", "public"))
        require(self.num_bins >= 2, f"transform.num_bins is {self.num_bins}: give at least 2")
        require(
            self.num_cells >= self.num_bins,
            f"transform.num_cells is {self.num_cells}: give at least transform.num_bins = {self.num_bins}",
        )


@dataclasses.dataclass(frozen=True)
class TokenSettings:
    """How texts become tokens. Nothing of it is made from private texts for free.

    Attributes:
      vocabulary: "english" (a public list of common words; what is not in it is spelled in pieces of words), "bytes",
        "bought" (the english list, and words above a threshold of a noisy histogram, for privacy.budget.vocabulary), or
        the path of a tokenizer file: .json of the library tokenizers, .model of sentencepiece, .txt with a word a line.
      max_length: tokens of a text that are learned from and drawn; the rest of a longer text is cut off.
      words_per_record: distinct words that one text adds to the histogram of a bought vocabulary, at most.
      num_words: words kept, at most.
    """

    vocabulary: str = "english"
    max_length: int = 128
    words_per_record: int = 100
    num_words: int = 20_000

    def __post_init__(self):
        require(self.vocabulary != "", "tokens.vocabulary is empty: give english, bytes, bought or a tokenizer file")
        for name, least in (("max_length", 2), ("words_per_record", 1), ("num_words", 1)):
            value = getattr(self, name)
            require(value >= least, f"tokens.{name} is {value}: give at least {least}")

    @property
    def is_bought(self) -> bool:
        """Whether private texts are read for the vocabulary."""
        return self.vocabulary == "bought"

    @property
    def is_a_file(self) -> bool:
        return self.vocabulary not in ("english", "bytes", "bought")


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
    """DP-SGD.

    Attributes:
      num_steps: gradient steps.
      expected_batch_size: records (units, where the schema has a unit_column) per Poisson batch, in expectation; 0
        means an eighth of their public number, at most 2048. Of pate_gan: that all teachers together draw from their
        own in one of their steps.
      learning_rate: peak of Adam's cosine decay.
      adam_b1: decay of Adam's mean gradient.
      ema_decay: of the parameter average that is sampled from.
      critic_steps: of a GAN: steps on records (of the critic; votes) for every step of the generator.
      generator_batch_size: of a GAN: draws per step of the generator, and rows that teachers vote on in a step.
      generator_learning_rate: of a GAN; 0 means learning_rate.
      microbatch_size: examples per gradient sum; 0 means automatic. A draw takes as many sums as it needs.
      steps_per_dispatch: steps per call of the device, and between two marks of the progress bar.
      gradient_method: how per-example gradients are clipped and summed: "auto", "ghost", "microbatch" or "vmap".
        All give the same sum.
      num_draws: draws of the loss's own noise per record, averaged before clipping.
      compute_dtype: "float32" or "bfloat16", of the loss; clipping, sums and noise stay float32.
      num_devices: devices that share a step; 0 means all.
      device_wrapper: "pmap" or "shard_map", for several devices.
      records_on: where the encoded records stay: "device", "host", or "auto" (host if they do not fit).
      checkpoint_seconds: time between two saved states of a run.
      tensorboard: whether the training log is also written as TensorBoard event files, under private/.
    """

    num_steps: int = 400
    expected_batch_size: int = 0
    learning_rate: float = 3e-3
    adam_b1: float = 0.9
    ema_decay: float = 0.99
    critic_steps: int = 1
    generator_batch_size: int = 128
    generator_learning_rate: float = 0.0
    microbatch_size: int = 0
    steps_per_dispatch: int = 20
    gradient_method: str = "auto"
    num_draws: int = 1
    compute_dtype: str = "float32"
    num_devices: int = 0
    device_wrapper: str = "pmap"
    records_on: str = "auto"
    checkpoint_seconds: float = 60.0
    tensorboard: bool = False

    def __post_init__(self):
        require(
            self.expected_batch_size >= 0,
            f"training.expected_batch_size is {self.expected_batch_size}: give 0 (automatic) or more",
        )
        for name in ("num_steps", "steps_per_dispatch", "num_draws", "critic_steps", "generator_batch_size"):
            value = getattr(self, name)
            require(value >= 1, f"training.{name} is {value}: give at least 1")
        for name in ("microbatch_size", "num_devices"):
            value = getattr(self, name)
            require(value >= 0, f"training.{name} is {value}: give 0 (automatic) or more")
        for name, allowed in (
            ("gradient_method", ("auto", "ghost", "microbatch", "vmap")),
            ("compute_dtype", ("float32", "bfloat16")),
            ("device_wrapper", ("pmap", "shard_map")),
            ("records_on", ("auto", "device", "host")),
        ):
            one_of(f"training.{name}", getattr(self, name), allowed)
        require(
            0 < self.learning_rate < math.inf,
            f"training.learning_rate is {self.learning_rate}: give a finite number above 0",
        )
        require(
            0 <= self.generator_learning_rate < math.inf,
            f"training.generator_learning_rate is {self.generator_learning_rate}: give a finite number, or 0 for "
            "training.learning_rate",
        )
        require(0 <= self.adam_b1 < 1, f"training.adam_b1 is {self.adam_b1}: give a number from 0 to below 1")
        require(
            self.checkpoint_seconds >= 0,
            f"training.checkpoint_seconds is {self.checkpoint_seconds}: give 0 (after every dispatch) or more",
        )
        require(0 <= self.ema_decay < 1, f"training.ema_decay is {self.ema_decay}: give a number from 0 to below 1")


@dataclasses.dataclass(frozen=True)
class WarmStartSettings:
    """What a network for images learns from before it sees a private one. Public or bought images; never photographs.

    Attributes:
      images: "" (nothing: random weights), "procedural" (made by formula, see data.procedural), "central" (noisy class
        means) or "gaussian" (draws from noisy class means and covariances), the latter two bought for
        privacy.budget.warm_start; or "procedural+central", "procedural+gaussian": one after the other.
      num_images: made or drawn of each kind.
      num_steps: of Adam, on each kind.
      batch_size: images per step.
      learning_rate: peak of the cosine decay, on each kind.
      num_frequencies, radius, radius_within, center: how bought images are described, see models.class_gaussian.
    """

    images: str = ""
    num_images: int = 20_000
    num_steps: int = 1000
    batch_size: int = 128
    learning_rate: float = 1e-3
    num_frequencies: int = 150
    radius: float = 0.36
    radius_within: float = 0.25
    center: float = 0.0

    def __post_init__(self):
        one_of(
            "warm_start.images",
            self.images,
            ("", "procedural", "central", "gaussian", "procedural+central", "procedural+gaussian"),
        )
        for name in ("num_images", "num_steps", "batch_size", "num_frequencies"):
            value = getattr(self, name)
            require(value >= 1, f"warm_start.{name} is {value}: give at least 1")
        for name in ("learning_rate", "radius", "radius_within"):
            value = getattr(self, name)
            require(0 < value < math.inf, f"warm_start.{name} is {value}: give a finite number above 0")

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(self.images.split("+")) if self.images else ()

    @property
    def buys(self) -> bool:
        """Whether private images are read for it."""
        return bool({"central", "gaussian"} & set(self.kinds))


@dataclasses.dataclass(frozen=True)
class SynthesisSettings:
    """What is drawn from the trained generator.

    Attributes:
      num_samples: rows; 0 means the schema's public num_records.
      conditions: JSON object, column -> value, list of values, or {"min": ..., "max": ...}; "" for none.
      constraints: JSON list of rules that every row keeps, see synthesis.constraints; "" for none (tables).
    """

    num_samples: int = 0
    conditions: str = ""
    constraints: str = ""

    def __post_init__(self):
        require(self.num_samples >= 0, f"synthesis.num_samples is {self.num_samples}: give 0 or more")


@dataclasses.dataclass(frozen=True)
class Settings:
    """One run.

    `model` holds the generator's name, its keyword arguments, and for a table `column_order` (names; () means the
    target first, then the schema's order). `seed` fixes everything that is not private: initial weights, evaluation.
    """

    data: DataSettings = dataclasses.field(default_factory=DataSettings)
    transform: TransformSettings = dataclasses.field(default_factory=TransformSettings)
    tokens: TokenSettings = dataclasses.field(default_factory=TokenSettings)
    model: Mapping[str, Any] = dataclasses.field(default_factory=lambda: model_defaults("autoregressive"))
    privacy: PrivacySettings = dataclasses.field(default_factory=PrivacySettings)
    warm_start: WarmStartSettings = dataclasses.field(default_factory=WarmStartSettings)
    training: TrainingSettings = dataclasses.field(default_factory=TrainingSettings)
    synthesis: SynthesisSettings = dataclasses.field(default_factory=SynthesisSettings)
    evaluation: EvaluationSettings = dataclasses.field(default_factory=EvaluationSettings)
    attacks: AttackSettings = dataclasses.field(default_factory=AttackSettings)
    seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def model_defaults(name: str) -> dict[str, Any]:
    """The generator's own keyword arguments and defaults, with its name and, of a table, a column order."""
    from privsyn_jax.models import (  # here, so that reading data settings does not load the models
        GENERATORS,
        is_own,
        kind_of,
        make_of,
        own,
    )

    if not is_own(str(name)):
        one_of("model.name", name, tuple(GENERATORS))
    parameters = inspect.signature(make_of(name)).parameters.values()
    arguments = {p.name: p.default for p in parameters if p.name not in own.SET_BY_THE_RUN}
    order = {"column_order": ()} if kind_of(name) == "tables" else {}
    return {"name": name, **order, **arguments}


def settings_from_dict(plain: Mapping[str, Any]) -> Settings:
    """Settings from nested plain values; a missing key takes its default, an unknown one is refused.

    Raises:
      UserError: an unknown key (naming the nearest), a value of the wrong type or out of range.
    """
    model = plain.get("model", {})
    require(isinstance(model, Mapping), f"model is {model!r}: give a group of settings")
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
            require(not math.isnan(value), f"{path} is NaN: give a number")
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


@functools.cache
def _defaults(cls):
    return cls()
