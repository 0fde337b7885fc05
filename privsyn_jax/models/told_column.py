"""What a conditional generator of table codes is told: the code of one column, which a noisy sum says how to draw.

Either the same column every time, usually the target, or every column in turn. The sum holds the counts of all codes,
of each code of that column apart where it is always the same. So it says how often to tell which code, and is what the
generator starts from: each column by itself, given what is told.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from privsyn_jax.models.flat_codes import FlatCodes
from privsyn_jax.models.one_way import SURE, likely_shares, matching_bias
from privsyn_jax.types import Params, Stage

NAME = "class counts"  # of the release
_CALIBRATION_ROWS = 4096  # of every group

Condition = tuple[Any, Any]  # a column and its code


class ToldColumn(NamedTuple):
    """The condition, in params["public"]["told"].

    Attributes:
      codes: the columns.
      column: the one that is told, or None for every one in turn.
    """

    codes: FlatCodes
    column: int | None

    @property
    def num_groups(self) -> int:
        return 1 if self.column is None else self.codes.cardinalities[self.column]

    def empty(self) -> dict[str, jax.Array]:
        """All codes of a column equally likely."""
        shape = (self.num_groups, self.codes.num_codes)
        return {"sizes": jnp.zeros(self.num_groups), "shares": jnp.zeros(shape), "bias": jnp.zeros(shape)}

    def stage(self) -> Stage:
        """What buys it: of every record its class and its one-hot vector."""
        scale = 1 / math.sqrt(self.codes.num_columns)

        def embed(params, example):
            del params
            group = 0 if self.column is None else example[self.column]
            return group, scale * self.codes.one_hot(example)

        def absorb(params: Params, noisy_sum, stddev, key):
            del key
            counts = noisy_sum / scale
            sizes = np.maximum(counts.sum(axis=1) / self.codes.num_columns, max(1.0, stddev))  # or lost in the noise
            shares = [likely_shares(self.codes, own) for own in counts / sizes[:, None]]
            told = {"sizes": np.log(sizes / sizes.sum()), "shares": np.log(shares)}
            told = {name: jnp.asarray(value, jnp.float32) for name, value in told.items()}
            return {**params, "public": {**params["public"], "told": {**params["public"]["told"], **told}}}

        return Stage(NAME, 1.0, self.num_groups, embed, absorb)

    def of_record(self, example: Any, key: jax.Array) -> Condition:
        """A column of a record."""
        column = self._any_column(key) if self.column is None else self.column
        return column, example[column]

    def draw(self, told: Any, key: jax.Array) -> Condition:
        """As often as in the records."""
        if self.column is not None:
            return self.column, jax.random.categorical(key, told["sizes"])
        column_key, code_key = jax.random.split(key)
        column = self._any_column(column_key)
        logits = jnp.where(jnp.asarray(self.codes.own)[column] > 0, told["shares"][0], -jnp.inf)
        return column, jax.random.categorical(code_key, logits) - jnp.asarray(self.codes.offsets)[column]

    def one_hot(self, condition: Condition) -> jax.Array:
        """[S], as the networks are told."""
        column, code = condition
        return jax.nn.one_hot(jnp.asarray(self.codes.offsets)[column] + code, self.codes.num_codes)

    def complete(self, told: Any, condition: Condition, corrections: jax.Array) -> jax.Array:
        """Logits [S] of a record: the shares it starts from, corrected, and the told column as told."""
        column, code = condition
        group = 0 if self.column is None else code
        is_own = jnp.asarray(self.codes.own)[column] > 0
        free = told["shares"][group] + told["bias"][group] + corrections
        return jnp.where(is_own, SURE * (2 * self.one_hot(condition) - 1), free)

    def calibrated(self, told: Any, corrections: Callable[..., Any], key: jax.Array) -> dict[str, jax.Array]:
        """The same with a bias by which every group's columns come out with its shares, whatever was learned.

        Args:
          corrections: (condition, key) -> [S], of one record.
        """
        unbiased = {**told, "bias": jnp.zeros_like(told["bias"])}

        def bias_of(group):
            def logits_of(key):
                told_key, own_key = jax.random.split(key)
                condition = self.draw(told, told_key) if self.column is None else (self.column, group)
                return self.complete(unbiased, condition, corrections(condition, own_key))

            logits = jax.vmap(logits_of)(jax.random.split(jax.random.fold_in(key, group), _CALIBRATION_ROWS))
            return matching_bias(self.codes, logits, told["shares"][group])

        return {**told, "bias": jax.lax.map(bias_of, jnp.arange(self.num_groups))}

    def _any_column(self, key: jax.Array) -> jax.Array:
        return jax.random.randint(key, (), 0, self.codes.num_columns)
