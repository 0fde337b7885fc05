"""What a step of PATE costs, and the settings that have no meaning there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import attrgetter
from typing import NamedTuple

import jax

from privsyn_jax.models import PATE
from privsyn_jax.privacy.schedules import Level
from privsyn_jax.settings import Settings
from privsyn_jax.types import UserError

# Settings of DP-SGD: the only value that fits, and why.
_FIXED = {
    "privacy.adaptive.rule": ("", "has its noise fixed beforehand"),
    "privacy.adaptive_clip.target_quantile": (0.0, "clips no gradients"),
    "privacy.l2_clip_norm": (1.0, "clips no gradients"),
    "privacy.schedule.clip": ("constant", "clips no gradients"),
    "privacy.schedule.batch": ("constant", "has teachers that draw as many records in every step"),
    "privacy.sampling": ("poisson", "has all teachers vote in every step"),
    "privacy.num_bands": (1, "draws the noise of every step independently"),
    "training.gradient_method": ("auto", "forms no gradients of single records"),
    "training.microbatch_size": (0, "forms no gradients of single records"),
    "training.num_draws": (1, "forms no gradients of single records"),
    "training.compute_dtype": ("float32", "has teachers and student in single precision"),
}


class Votes(NamedTuple):
    """What a step releases: of each generated row, how many teachers take it for real.

    Attributes:
      num_teachers: a unit is one teacher's.
      num_rows: in a step.
    """

    num_teachers: int
    num_rows: int

    @property
    def sensitivity(self) -> float:
        """L2, of the counts of a step: a unit moves each by at most one."""
        return math.sqrt(self.num_rows)


def votes_of(settings: Settings, num_units: int) -> Votes | None:
    """Of a generator that learns from votes; None for the others.

    Args:
      num_units: the public figure.

    Raises:
      UserError: a setting that votes know nothing of, naming it.
    """
    if settings.model["name"] not in PATE:
        return None
    model = f"model.name={settings.model['name']!r}"
    for path, (wanted, reason) in _FIXED.items():
        value = attrgetter(path)(settings)
        if value != wanted:
            raise UserError(f"{path} is {value!r}, but {model} {reason}: set it to {wanted!r}")
    if settings.training.records_on == "host":
        raise UserError(
            f"training.records_on is 'host', but {model} keeps its records on the device: set it to 'auto' or 'device'"
        )
    num_devices = settings.training.num_devices or jax.device_count()
    if num_devices > 1 or jax.process_count() > 1:
        raise UserError(
            f"training.num_devices is {settings.training.num_devices}, which is {num_devices} here, but {model} trains "
            "on one device of one process: set it to 1, and start one process"
        )
    votes = Votes(settings.model["num_teachers"], settings.training.generator_batch_size)
    if votes.num_teachers > num_units:
        raise UserError(
            f"model.num_teachers is {votes.num_teachers}, more than the schema's figure of {num_units} for what is "
            "divided among them: give fewer"
        )
    return votes


def vote_levels(levels: Sequence[Level], votes: Votes) -> tuple[Level, ...]:
    """Levels of DP-SGD as levels of votes, which take in all records; noise is relative to the votes' sensitivity."""
    return tuple(level._replace(sampling_rate=1.0, l2_clip_norm=votes.sensitivity) for level in levels)
