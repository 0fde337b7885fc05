"""The settings of the guarantee: what is spent, on what, and how it moves over the steps."""

from __future__ import annotations

import dataclasses
import math

from privsyn_jax.privacy.rules import RULES
from privsyn_jax.privacy.schedules import MAX_LEVELS, SHAPES
from privsyn_jax.refuse import one_of, require

FILTERS = ("reference", "renyi")  # see privacy.filters


@dataclasses.dataclass(frozen=True)
class BudgetSettings:
    """Shares of the privacy budget spent before and after training, which gets the rest.

    A share f buys a Gaussian release with noise_multiplier sigma / sqrt(f), where sigma is that of the one
    Gaussian release that would spend all of (epsilon, delta).

    Attributes:
      transform: the histogram for quantile edges, first logits and one-way marginals.
      marginals: pair scores and the pair marginals chosen by them (generators that can use them).
      categories: the thresholded histogram of columns whose categories are not public.
      warm_start: noisy class means, or class Gaussians, of images; see WarmStartSettings.
      vocabulary: the thresholded histogram of words, where tokens.vocabulary is "bought".
      ngrams: noisy counts of words and word pairs that a network for texts starts from; 0 for none.
      prior: where the latents of records lie, bought when an autoencoder of tables is trained; 0 for N(0, I).
    """

    transform: float = 0.05
    marginals: float = 0.25
    categories: float = 0.05
    warm_start: float = 0.1
    vocabulary: float = 0.1
    ngrams: float = 0.3
    prior: float = 0.05

    def __post_init__(self):
        for name, share in dataclasses.asdict(self).items():
            require(
                math.isfinite(share) and 0 <= share < 1,
                f"privacy.budget.{name} is {share}: give a share from 0 to below 1",
            )
        of_table = self.transform + self.marginals + self.categories  # images spend warm_start alone
        for total in (of_table, self.vocabulary + self.ngrams):
            require(total < 1, f"privacy.budget adds up to {total:g}: leave a share for training by keeping it below 1")


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
            one_of(f"privacy.schedule.{name}", getattr(self, name), tuple(SHAPES))
            final = getattr(self, f"{name}_final")
            require(
                0.01 <= final <= 100,
                f"privacy.schedule.{name}_final is {final}: give a ratio between 0.01 and 100",
            )
        require(
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
        require(
            0 <= self.target_quantile < 1,
            f"privacy.adaptive_clip.target_quantile is {self.target_quantile}: give a number from 0 (off) to below 1",
        )
        require(
            0 < self.learning_rate <= 2,
            f"privacy.adaptive_clip.learning_rate is {self.learning_rate}: give a number above 0, at most 2",
        )
        require(0 < self.share < 0.5, f"privacy.adaptive_clip.share is {self.share}: give a share between 0 and 0.5")


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
        one_of("privacy.adaptive.rule", self.rule, ("", *RULES))
        one_of("privacy.adaptive.filter", self.filter, FILTERS)
        require(
            2 <= self.num_blocks <= 100,
            f"privacy.adaptive.num_blocks is {self.num_blocks}: give a number from 2 to 100",
        )
        require(
            1 <= self.largest_ratio <= 4,
            f"privacy.adaptive.largest_ratio is {self.largest_ratio}: give a ratio from 1 to 4",
        )
        require(
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
            require(
                (self.epsilon is None) != (self.noise_multiplier is None),
                "privacy.epsilon and privacy.noise_multiplier exclude each other: give one and set the other to None",
            )
        for name in ("epsilon", "noise_multiplier"):
            value = getattr(self, name)
            require(value is None or value > 0, f"privacy.{name} is {value}: give a number above 0")
        require(
            self.epsilon is None or self.epsilon <= 100 or self.epsilon == math.inf,
            f"privacy.epsilon is {self.epsilon}, which protects nobody: give at most 100, or inf to add no noise",
        )
        require(
            self.noise_multiplier is None or math.isfinite(self.noise_multiplier),
            f"privacy.noise_multiplier is {self.noise_multiplier}: give a finite number",
        )
        require(
            0 <= self.delta < 1, f"privacy.delta is {self.delta}: give a number below 1, or 0 for 1 / num_records^1.1"
        )
        require(
            1e-10 <= self.l2_clip_norm <= 1e10,  # squared norms must neither vanish nor overflow in float32
            f"privacy.l2_clip_norm is {self.l2_clip_norm}: give a number between 1e-10 and 1e10",
        )
        one_of("privacy.sampling", self.sampling, ("poisson", "partition"))
        require(1 <= self.num_bands <= 1000, f"privacy.num_bands is {self.num_bands}: give a number from 1 to 1000")
        self._refuse_combinations()

    def _refuse_combinations(self) -> None:
        """What has no accounting together, or none that is implemented."""
        moving = not self.schedule.is_constant or bool(self.adaptive.rule)
        require(
            not (self.adaptive.rule and (self.schedule.noise, self.schedule.batch) != ("constant", "constant")),
            "privacy.adaptive.rule and privacy.schedule.noise or batch exclude each other: set one of them back",
        )
        require(
            not (self.adaptive.rule and not self.is_private),
            "privacy.adaptive.rule needs noise to choose: give a finite privacy.epsilon, or set the rule to ''",
        )
        require(
            not (self.adaptive_clip.target_quantile and self.schedule.clip != "constant"),
            "privacy.adaptive_clip and privacy.schedule.clip exclude each other: set one of them back",
        )
        require(
            not (self.num_bands > 1 and (moving or self.adaptive_clip.target_quantile)),
            "privacy.num_bands above 1 needs constant noise, batches and clipping norm: set the schedules back",
        )
        require(
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
