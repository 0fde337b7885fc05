"""Settings of the evidence that a run ends with: metrics and attacks."""

from __future__ import annotations

import dataclasses

from privsyn_jax.refuse import require


@dataclasses.dataclass(frozen=True)
class EvaluationSettings:
    """Whether the synthetic records are compared with real ones (results stay under private/), and how images are.

    Attributes:
      enabled: whether there is an evaluation.
      features: what FID and KID of images are computed on: "trained" (a small net trained on the real images),
        "random" (random convolutions, public), or "module:function", your own, see evaluation.images.features.
      feature_images: images of each kind, at most, for FID and KID.
      classifier_steps: of every downstream classifier of images, on synthetic and on real ones alike.
      classifier_shifts: whether these classifiers see their images shifted at random by up to a 14th of their size.
      lstm_steps: of the downstream LSTM of texts, on synthetic and on real ones alike.
      lstm_length: words of a text that the LSTM reads, at most.
      num_records: real training and real held-out texts that synthetic ones are compared with, at most; 0 means all.
      references: a folder, in which `private/` keeps scores of models trained on real texts for other runs on the same
        texts; "" for none. Remove it when the code of an evaluation changes.
      num_seeds: resamples of the records that the downstream models of tables are trained on besides, for intervals and
        tests, and for models of real and synthetic records together; 0 for none of these, which is quicker.
      boosting_seeds: whether boosting is trained on them too, which takes most of the time; else only once.
      net_seeds: the same number for the downstream nets of images and texts; 0 for none, which saves minutes to hours
        on a CPU.
    """

    enabled: bool = True
    features: str = "trained"
    feature_images: int = 10_000
    classifier_steps: int = 1000
    classifier_shifts: bool = True
    lstm_steps: int = 800
    lstm_length: int = 128
    num_records: int = 0
    references: str = ""
    num_seeds: int = 5
    boosting_seeds: bool = False
    net_seeds: int = 0

    def __post_init__(self):
        require(
            self.features in ("trained", "random") or self.features.count(":") == 1,
            f"evaluation.features is {self.features!r}: give trained, random, or a function as module:function",
        )
        for name, least in (
            ("feature_images", 2),
            *((name, 1) for name in ("classifier_steps", "lstm_steps", "lstm_length")),
            ("num_records", 0),
        ):
            value = getattr(self, name)
            require(value >= least, f"evaluation.{name} is {value}: give at least {least}")
        for name in ("num_seeds", "net_seeds"):
            value = getattr(self, name)
            require(
                value == 0 or value >= 2,
                f"evaluation.{name} is {value}: give at least 2 for an interval, or 0 for none",
            )


@dataclasses.dataclass(frozen=True)
class AttackSettings:
    """Attacks on the synthetic records that a run ends with; the results stay under private/.

    Shadow generators and audits have programs of their own, launch.attack and launch.audit.

    Attributes:
      enabled: whether they are made, where there is an evaluation.
      names: of attacks, joined by commas, see evaluation.attacks; "all" for all that there are for such records.
    """

    enabled: bool = True
    names: str = "all"

    @property
    def chosen(self) -> tuple[str, ...] | None:
        """The names; None for all."""
        return None if self.names == "all" else tuple(name.strip() for name in self.names.split(","))
