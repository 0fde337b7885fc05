"""PATE-GAN of table codes: teachers see records and vote, a student learns noisy votes, a generator the student.

params["private"] is one teacher, of which the mechanism (`training.pate`) makes many; none is released. Student and
generator are params["public"]: they see noisy votes alone.

Unlike the original, generated records reach teachers and student as one-hot codes, so that no teacher can tell them by
their not being exact; the generator's gradient passes through the relaxed codes instead (straight-through). A teacher
votes for the half of the rows that it finds most real: with its few records it soon takes every generated row for what
it is, and would then say nothing more. The student learns the noisy share of votes rather than which side has more of
them: unbiased, where rounding it would lose the little that it says under much noise. The generator starts from, and
returns to, released counts of single columns.

Source: Jordon, Yoon, van der Schaar 2019, "PATE-GAN: Generating Synthetic Data with Differential Privacy Guarantees";
Jang et al. 2017, "Categorical Reparameterization with Gumbel-Softmax" (straight-through).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from privsyn_jax.models.flat_codes import FlatCodes, check_hidden_dims
from privsyn_jax.models.one_way import log_shares, matching_bias
from privsyn_jax.models.table_gan_layers import Critic, GeneratorNet
from privsyn_jax.types import Generator, Params, Teaching

_BLOCK = 1024  # records drawn at once
_CALIBRATION_ROWS = 2048


def make(
    *,
    cardinalities: tuple[int, ...],
    column_order: tuple[int, ...] = (),
    num_teachers: int = 200,
    teacher_steps: int = 2,
    student_steps: int = 4,
    votes_are_relative: bool = True,
    latent_dim: int = 64,
    teacher_dims: tuple[int, ...] = (16,),
    student_dims: tuple[int, ...] = (64,),
    generator_dims: tuple[int, ...] = (128, 128),
    temperature: float = 1.0,
) -> Generator:
    """Generator of int32 codes [d].

    Args:
      cardinalities: number of codes of each column.
      column_order: not used: the columns are drawn together.
      num_teachers: parts that the records are divided into. More of them outvote the noise, and each knows less.
      teacher_steps: of every teacher before each vote.
      student_steps: of the student after each vote, on the rows that were voted on.
      votes_are_relative: whether a teacher votes for the rows that it scores above its own median, or, as in the
        original, for those that it takes for real rather than generated.
      latent_dim: length of the latent.
      teacher_dims, student_dims, generator_dims: widths of hidden layers. Of these, only teachers receive no noise and
        cost memory many times over.
      temperature: of the relaxed one-hot vectors that the generator's gradient passes through.

    Raises:
      ValueError: an argument that makes no sense.
    """
    del column_order
    codes = FlatCodes(tuple(cardinalities))
    counts = {"num_teachers": num_teachers, "teacher_steps": teacher_steps, "student_steps": student_steps}
    _check({**counts, "latent_dim": latent_dim}, temperature)
    net = GeneratorNet(codes.num_codes, check_hidden_dims("generator_dims", generator_dims))
    teacher = Critic(check_hidden_dims("teacher_dims", teacher_dims))
    student = Critic(check_hidden_dims("student_dims", student_dims))
    init_net, init_teacher, init_student = (jax.jit(part.init) for part in (net, teacher, student))

    def init(key):
        net_key, teacher_key, student_key = jax.random.split(key, 3)
        row = jnp.zeros(codes.num_codes)
        public = {
            "net": init_net(net_key, jnp.zeros(latent_dim))["params"],
            "student": init_student(student_key, row)["params"],
            "bias": jnp.zeros(codes.num_codes),
        }
        return {"private": init_teacher(teacher_key, row)["params"], "public": public}

    def corrections(public, key) -> jax.Array:
        """Logits [S] of one draw, without the bias."""
        found: Any = net.apply({"params": public["net"]}, jax.random.normal(key, (latent_dim,)))
        return found

    def draw_row(public, key) -> jax.Array:
        """One-hot record [S], with the gradient of a relaxed one."""
        latent_key, gumbel_key = jax.random.split(key)
        logits = corrections(public, latent_key) + jax.lax.stop_gradient(public["bias"])
        noisy = logits + jax.random.gumbel(gumbel_key, logits.shape)
        exact = codes.one_hot(jnp.where(codes.is_slot, noisy[codes.places], -jnp.inf).argmax(axis=-1))
        relaxed = codes.probabilities(noisy / temperature)
        return jax.lax.stop_gradient(exact - relaxed) + relaxed

    def teacher_score(own, row) -> jax.Array:
        scored: Any = teacher.apply({"params": own}, row)
        return scored

    def student_score(public, row) -> jax.Array:
        scored: Any = student.apply({"params": public["student"]}, row)
        return scored

    def teacher_loss(params, example, key):
        rows = jnp.stack([codes.one_hot(example), draw_row(params["public"], key)])
        of_real, of_drawn = jax.vmap(lambda row: teacher_score(params["private"], row))(rows)  # one use of each weight
        return jax.nn.softplus(-of_real) + jax.nn.softplus(of_drawn)

    def student_loss(public, row, share):
        scored = student_score(public, row)
        return jax.nn.softplus(scored) - share * scored

    def generator_loss(params, key):
        own = jax.lax.stop_gradient(params["public"]["student"])
        return jax.nn.softplus(-student_score({"student": own}, draw_row(params["public"], key)))

    @jax.jit
    def draw_block(params, key):
        net_key, code_key = jax.random.split(key)
        logits = all_corrections(params["public"], jax.random.split(net_key, _BLOCK))
        return codes.draw(logits + params["public"]["bias"][None], code_key)

    @jax.jit
    def calibration_logits(params, key):
        return all_corrections(params["public"], jax.random.split(key, _CALIBRATION_ROWS))

    all_corrections = jax.vmap(corrections, in_axes=(None, 0))

    def calibrate(params, marginals, key):
        """Columns come out with the released frequencies."""
        bias = matching_bias(codes, calibration_logits(params, key), log_shares(marginals.one_way))
        return {**params, "public": {**params["public"], "bias": bias}}

    return Generator(
        init=init,
        private_loss=teacher_loss,
        public_loss=generator_loss,
        calibrate=calibrate,
        sample=functools.partial(_sample, draw_block),
        exact_conditions=lambda columns: (),
        teaching=Teaching(
            **counts,
            votes_are_relative=votes_are_relative,
            draw=draw_row,
            score=teacher_score,
            student_loss=student_loss,
        ),
    )


def _sample(
    draw_block: Callable[..., jax.Array], params: Params, key: jax.Array, num_samples: int, conditions: Any = None
) -> np.ndarray:
    """int32 [num_samples, d], drawn from the softmax; no column can be fixed."""
    if conditions:
        raise ValueError(f"columns {sorted(conditions)} cannot be fixed: meet conditions by rejection")
    params = jax.device_put(params)
    blocks = [draw_block(params, block_key) for block_key in jax.random.split(key, -(-num_samples // _BLOCK))]
    return np.concatenate(jax.device_get(blocks))[:num_samples].astype(np.int32)


def _check(counts: dict[str, int], temperature: float) -> None:
    for name, value in counts.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} {value!r} must be a whole number, at least 1")
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature {temperature} must be a finite number above 0")
