"""One step of PATE: teachers see their own records, a student sees their votes with noise. What that costs, and why.

It updates every teacher on its own records and on generated rows, has all teachers vote on rows drawn from the
generator, releases of each row the number of votes for "real" with Gaussian noise, updates the student on it, and the
generator against the student.

Why a step costs one Gaussian release of sensitivity sqrt(rows). Neighbouring tables differ by one unit, with all its
rows. Every unit is given to a teacher by a key and its place in the table, whatever the other units are and however
many, so the guarantee may be shown for each way of giving the others, and holds for their mixture. Then:
  - A teacher's parameters are a function of its own records, of keys that are drawn without looking at a record, and of
    generated rows, which follow from keys and from votes released before. Nothing of another teacher reaches it.
  - So, given all that was released before, adding or removing a unit changes the parameters of one teacher, however
    long that one remembers it, and at most one vote on each of the rows. A vote is the outcome of a comparison within
    one teacher, 0 or 1 whatever the parameters; a score that is not a number votes 0.
  - The number of teachers is public. One without records keeps its first weights and votes with the others.
The steps are Gaussian mechanisms that are chosen one after the other from what those before have released, and compose
as such. There is no amplification by sampling, because a teacher remembers the records of all batches: the rate is 1.
The bound does not look at how much the teachers agree, so it is public beforehand and holds on any data.

Student and generator are computed from noisy votes and keys alone: post-processing. Teachers are private. They are in
the state, and so in checkpoints, but not among the parameters that training returns.

Source: Jordon, Yoon, van der Schaar 2019, "PATE-GAN: Generating Synthetic Data with Differential Privacy Guarantees",
Algorithm 1; Papernot et al. 2018, "Scalable Private Learning with PATE" (Gaussian noise).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from privsyn_jax.privacy.noise import add_gaussian_noise
from privsyn_jax.training.state import Controls
from privsyn_jax.training.teachers import Parts
from privsyn_jax.types import Teaching
from privsyn_jax.votes import Votes


class Teachers(NamedTuple):
    """Private: made of records without noise. Leaves have a leading axis of teachers."""

    params: Any
    opt_state: Any


class PateState(NamedTuple):
    """What a run carries from step to step. But for the teachers and the secret seed all of it is released."""

    public: Any  # params["public"]: student and generator
    ema: Any  # its exponential moving average
    student_opt: Any
    generator_opt: Any
    step: jax.Array  # scalar int32, steps done
    controls: Controls
    teachers: Teachers
    assignment: jax.Array  # uint32 [2], secret: gives units to teachers, also where another program goes on


class Vote(NamedTuple):
    """On the rows of a step. Released are the rows and the noisy counts."""

    rows: jax.Array  # [rows, ...]
    counts: jax.Array  # int32 [rows], of teachers; private
    noisy: jax.Array  # float32 [rows]


@dataclasses.dataclass(frozen=True, eq=False)
class PateStep:
    """(state, parts, key) -> (state, log). What the log calls released_* is; the rest of it is not private.

    Attributes:
      private_loss: (params, example, key) -> scalar, of a teacher.
      public_loss: (params, key) -> scalar, of the generator.
      teaching: see `types.Teaching`.
      optimizers: of teachers, student and generator.
      votes: how many teachers vote on how many rows.
      teacher_batch_size: units that a teacher draws from its own, with replacement, in each of its steps.
      generator_every: steps for each of the generator's.
      ema_decay: of the average of params["public"].
      adds_noise: False for a run that is not private.
    """

    private_loss: Callable[..., jax.Array]
    public_loss: Callable[..., jax.Array]
    teaching: Teaching
    optimizers: tuple[optax.GradientTransformation, optax.GradientTransformation, optax.GradientTransformation]
    votes: Votes
    teacher_batch_size: int
    generator_every: int
    ema_decay: float
    adds_noise: bool = True

    def __call__(self, state: PateState, parts: Parts, key: jax.Array) -> tuple[PateState, dict[str, jax.Array]]:
        vote_key, generator_key = jax.random.split(jax.random.fold_in(key, state.step))
        teachers, vote, teacher_loss = self.vote(state, parts, vote_key)
        state = state._replace(teachers=teachers, step=state.step + 1)
        state, student_loss = self.learn(state, vote.rows, vote.noisy / self.votes.num_teachers)
        is_due = state.step % self.generator_every == 0
        state = jax.lax.cond(is_due, self.update_generator, lambda state, key: state, state, generator_key)
        log = {"loss": teacher_loss, "student_loss": student_loss, "vote_share": self._share(vote.counts)}
        return state, log | ({"released_vote_share": self._share(vote.noisy)} if self.adds_noise else {})

    def vote(self, state: PateState, parts: Parts, key: jax.Array) -> tuple[Teachers, Vote, jax.Array]:
        """All of the step that reads a record: teachers after their own steps, their votes, their mean loss."""
        teacher_key, row_key, noise_key = jax.random.split(key, 3)
        teachers, loss = self.teach(state, parts, teacher_key)
        rows = self.draw(state.public, row_key)
        counts = self.count(teachers.params, rows)
        return teachers, Vote(rows, counts, self.release(counts, state.controls, noise_key)), loss

    def teach(self, state: PateState, parts: Parts, key: jax.Array) -> tuple[Teachers, jax.Array]:
        """Every teacher after its steps; mean loss of the last one."""

        def one_step(teachers: Teachers, key: jax.Array) -> tuple[Teachers, jax.Array]:
            draw_key, loss_key = jax.random.split(key)
            chosen = self._draw_own(parts, draw_key)
            keys = jax.random.split(loss_key, self.teacher_batch_size)  # the same generated rows for all

            def mean_loss(own, numbers):
                examples = jax.tree.map(lambda leaf: leaf[numbers], parts.records)
                params = {"private": own, "public": state.public}
                return jax.vmap(self.private_loss, in_axes=(None, 0, 0))(params, examples, keys).mean()

            losses, grads = jax.vmap(jax.value_and_grad(mean_loss))(teachers.params, chosen)
            grads = jax.tree.map(lambda leaf: _where(parts.counts > 0, leaf), grads)
            updates, opt_state = self.optimizers[0].update(grads, teachers.opt_state)
            return Teachers(optax.apply_updates(teachers.params, updates), opt_state), losses.mean()

        keys = jax.random.split(key, self.teaching.teacher_steps)
        teachers, losses = jax.lax.scan(one_step, state.teachers, keys)
        return teachers, losses[-1]

    def draw(self, public: Any, key: jax.Array) -> jax.Array:
        """[rows, ...]: what is voted on."""
        return jax.vmap(self.teaching.draw, in_axes=(None, 0))(public, jax.random.split(key, self.votes.num_rows))

    def count(self, teachers: Any, rows: jax.Array) -> jax.Array:
        """Int32 [rows]: teachers that take the row for real. L2 sensitivity: votes.sensitivity."""
        scores = jax.vmap(jax.vmap(self.teaching.score, in_axes=(None, 0)), in_axes=(0, None))(teachers, rows)
        least = jnp.median(scores, axis=1, keepdims=True) if self.teaching.votes_are_relative else 0.0
        return (scores > least).sum(axis=0, dtype=jnp.int32)

    def release(self, counts: jax.Array, controls: Controls, key: jax.Array) -> jax.Array:
        """Float32 [rows]: the counts with noise of controls.noise_multiplier times their sensitivity."""
        counts = counts.astype(jnp.float32)
        if not self.adds_noise:
            return counts
        return add_gaussian_noise(counts, stddev=controls.noise_multiplier * self.votes.sensitivity, key=key)

    def learn(self, state: PateState, rows: jax.Array, shares: jax.Array) -> tuple[PateState, jax.Array]:
        """The student after its steps on noisy shares of votes; its last loss. Reads no record."""

        def one_step(carry, _):
            public, opt_state = carry
            loss, grads = jax.value_and_grad(mean_loss)(public)
            updates, opt_state = self.optimizers[1].update(grads, opt_state)
            return (optax.apply_updates(public, updates), opt_state), loss

        def mean_loss(public):
            return jax.vmap(self.teaching.student_loss, in_axes=(None, 0, 0))(public, rows, shares).mean()

        before = (state.public, state.student_opt)
        (public, opt_state), losses = jax.lax.scan(one_step, before, length=self.teaching.student_steps)
        return state._replace(public=public, student_opt=opt_state), losses[-1]

    def update_generator(self, state: PateState, key: jax.Array) -> PateState:
        """One step against the student. Reads no record."""
        keys = jax.random.split(key, self.votes.num_rows)

        def mean_loss(public):
            return jax.vmap(self.public_loss, in_axes=(None, 0))({"private": {}, "public": public}, keys).mean()

        updates, opt_state = self.optimizers[2].update(jax.grad(mean_loss)(state.public), state.generator_opt)
        public = optax.apply_updates(state.public, updates)
        ema = optax.incremental_update(public, state.ema, 1 - self.ema_decay)
        return state._replace(public=public, ema=ema, generator_opt=opt_state)

    def _draw_own(self, parts: Parts, key: jax.Array) -> jax.Array:
        """Int32 [teachers, teacher_batch_size]: places in `parts.records`."""
        uniform = jax.random.uniform(key, (self.votes.num_teachers, self.teacher_batch_size))
        counts = parts.counts[:, None]
        own = jnp.minimum((uniform * counts).astype(jnp.int32), jnp.maximum(counts - 1, 0))
        return parts.first[:, None] + own

    def _share(self, counts: jax.Array) -> jax.Array:
        return counts.mean() / self.votes.num_teachers


def _where(is_kept: jax.Array, leaf: jax.Array) -> jax.Array:
    """The leaf [teachers, ...] with zeros for some teachers, whatever stood there."""
    return jnp.where(is_kept.reshape(-1, *[1] * (leaf.ndim - 1)), leaf, 0.0)
