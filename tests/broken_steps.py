"""Faults that an audit must find: functions take the planned step and return the broken one."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from privsyn_jax.privacy.noise import HostNoise
from privsyn_jax.privacy.sampling import Sampler
from privsyn_jax.training.step import DPStep
from privsyn_jax.training.vote_step import PateStep

_NO_CLIP = 1e6


def without_noise(step: DPStep) -> DPStep:
    return dataclasses.replace(step, adds_noise=False)


def without_clipping(step: DPStep) -> DPStep:
    return _as(_Unclipped, step)


def with_half_the_noise(step: DPStep) -> DPStep:
    """The accountant counts noise that was added once as if it were there twice over."""
    return _as(_HalfNoise, step)


def with_one_noise_key(step: DPStep) -> DPStep:
    return _as(_OneKey, step)


def with_batches_of_fixed_size(step: DPStep, size: int) -> DPStep:
    return dataclasses.replace(step, sampler=_FixedSize(size=size))


class HalfHostNoise(HostNoise):
    """Of what is bought."""

    def normal(self, shape, *, stddev):
        return super().normal(shape, stddev=stddev / 2)


def with_half_the_noise_of_votes(step: PateStep) -> PateStep:
    return _as(_HalfVoteNoise, step)


def with_two_votes_of_each_teacher(step: PateStep) -> PateStep:
    return _as(_TwoVotes, step)


class _HalfVoteNoise(PateStep):
    def release(self, counts, controls, key):
        return super().release(counts, controls._replace(noise_multiplier=controls.noise_multiplier / 2), key)


class _TwoVotes(PateStep):
    def count(self, teachers, rows):
        return 2 * super().count(teachers, rows)


def _as(kind: Any, step: Any) -> Any:
    return kind(**{field.name: getattr(step, field.name) for field in dataclasses.fields(step)})


class _Unclipped(DPStep):
    def __call__(self, state, records, key):
        return super().__call__(_with_clip(state, _NO_CLIP), records, key)

    def update(self, state, clipped, batch_size, noise_key):
        return super().update(_with_clip(state, 1 / _NO_CLIP), clipped, batch_size, noise_key)


class _HalfNoise(DPStep):
    def gradient_noise(self, controls):
        return super().gradient_noise(controls) / 2


class _OneKey(DPStep):
    def keys(self, step, key):
        return jnp.concatenate([super().keys(step, key)[:2], jax.random.fold_in(key, 2**31 - 1)[None]])


@dataclasses.dataclass(frozen=True)
class _FixedSize(Sampler):
    size: int = 1

    def draw(self, root_key, step, batch_key, *, num_rows, threshold):
        del root_key, step, threshold
        return jax.random.permutation(batch_key, num_rows) < self.size


def _with_clip(state, factor):
    norm = state.controls.l2_clip_norm * factor
    return state._replace(controls=state.controls._replace(l2_clip_norm=norm))
