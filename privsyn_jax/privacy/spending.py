"""Blocks of training steps, each paid for and on disk before it runs."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from privsyn_jax.privacy.accounting import Event
from privsyn_jax.privacy.filters import Filter
from privsyn_jax.privacy.ledger import Ledger, Receipt
from privsyn_jax.privacy.rules import Released, Rule
from privsyn_jax.privacy.sampling import Sampler
from privsyn_jax.privacy.schedules import Level

_NOTCHES_PER_OCTAVE = 4  # of the noise multipliers that adaptive spending chooses among

Logs = Mapping[str, np.ndarray]  # released_signal, released_loss, ...: see training.step.DPStep


class Account(NamedTuple):
    """Where training is charged."""

    ledger: Ledger
    name: str
    reads: str
    mechanism: str

    def charge(self, event: Event | None, upto: int) -> Receipt:
        return self.ledger.charge(self.name, self.reads, self.mechanism, event, upto=upto)

    @property
    def paid(self) -> int:
        """Steps that are paid for, from the first on."""
        return self.ledger.paid(self.name)


class Spending(Protocol):
    """Chooses and pays the steps of a run, as many at a time as are dispatched together.

    Attributes:
      receipt: of the first charge, which is made when it is first asked for.
      path: the blocks so far, as plain JSON; public and released values only.
    """

    path: list[dict[str, Any]]

    @property
    def receipt(self) -> Receipt: ...

    def next_block(self, done: int) -> Level | None:
        """The steps to run after the first `done`, charged; None at the end."""
        ...

    def observe(self, released: Logs) -> None:
        """Takes note of what these steps have released, by name, float32 [steps] each."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """All that the next blocks depend on, as plain JSON; to be saved between two blocks."""
        ...

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Takes up what `to_dict` gave."""
        ...


class FixedSpending:
    """Levels known beforehand, charged in blocks of at most max_steps steps.

    Args:
      first_step: where this ledger's origin began to train; steps before it were another's.
    """

    def __init__(
        self, levels: Sequence[Level], sampler: Sampler, account: Account, *, max_steps: int, first_step: int = 0
    ):
        self._levels, self._sampler, self._account, self._max_steps = list(levels), sampler, account, max_steps
        self._first_step, self._receipt = first_step, None
        self.path: list[dict[str, Any]] = []

    @property
    def receipt(self) -> Receipt:
        if self._receipt is None:
            self._block(self._first_step)
        assert self._receipt is not None
        return self._receipt

    def next_block(self, done: int) -> Level | None:
        block = self._block(done)
        if block is not None:
            note_block(self.path, done, block)
        return block

    def observe(self, released: Logs) -> None:
        note_released(self.path, released)

    def to_dict(self) -> dict[str, Any]:
        return {"path": self.path}

    def restore(self, saved: Mapping[str, Any]) -> None:
        self.path = copy.deepcopy(saved["path"])

    def _block(self, done: int) -> Level | None:
        start = 0
        for level in self._levels:
            if done < start + level.num_steps:
                block = level._replace(num_steps=min(self._max_steps, start + level.num_steps - done))
                receipt = self._charge(done, block)
                self._receipt = self._receipt or receipt
                return block
            start += level.num_steps
        return None

    def _charge(self, done: int, block: Level) -> Receipt:
        """Steps that are paid for are not charged again."""
        first, stop = max(done, self._account.paid), done + block.num_steps
        event = None
        if first < stop:
            event = self._sampler.event(
                sampling_rate=block.sampling_rate,
                noise_multiplier=block.noise_multiplier,
                first_step=first - self._first_step,
                num_steps=stop - first,
            )
        return self._account.charge(event, stop)


class AdaptiveSpending:
    """Blocks whose noise a rule chooses from released values, inside a filter whose whole budget is charged first.

    Noise multipliers are `reference` times a power of 2^(1/4) within [1 / largest_ratio, largest_ratio]. What a rule
    wishes for is raised until the rest of the run can still be paid at the largest noise; the last block takes the
    smallest noise that what is left can pay, so nothing of the budget is lost. Never starts a block that would exceed
    the budget.

    Args:
      reference: the level of the constant schedule, for all steps.
      num_blocks: parts of the run.
    """

    def __init__(
        self,
        reference: Level,
        account: Account,
        *,
        rule: Rule,
        privacy_filter: Filter,
        num_blocks: int,
        largest_ratio: float,
        multiple: int,
    ):
        self._reference, self._account, self._rule, self._filter = reference, account, rule, privacy_filter
        notches = math.floor(_NOTCHES_PER_OCTAVE * math.log2(largest_ratio) + 1e-9)
        self._ratios = [2.0 ** (k / _NOTCHES_PER_OCTAVE) for k in range(-notches, notches + 1)]
        self._block_length, self._max_steps = block_length(reference.num_steps, num_blocks, multiple), multiple
        self._block, self._block_end = reference, 0  # the block that is running
        self._heard: dict[str, list[float]] = {}  # what its steps have released so far
        self._history: list[Released] = []
        self._spent, self._receipt = 0.0, None
        self.path: list[dict[str, Any]] = []

    @property
    def spent(self) -> float:
        """The odometer, in units of the filter."""
        return self._spent

    @property
    def receipt(self) -> Receipt:
        if self._receipt is None:
            steps, *slack = self._filter.events()
            for event in slack:
                self._account._replace(name=f"{self._account.name}: slack of the filter").charge(event, 1)
            self._receipt = self._account.charge(steps, 1)
        assert self._receipt is not None
        return self._receipt

    def next_block(self, done: int) -> Level | None:
        if not self.receipt.is_booked:  # asking for it charges
            raise RuntimeError("training was to start before its budget was booked")
        if done >= self._block_end and not self._choose(done):
            return None
        block = self._block._replace(num_steps=min(self._max_steps, self._block_end - done))
        self._account.charge(None, done + block.num_steps)
        return block

    def observe(self, released: Logs) -> None:
        for name, values in released.items():
            self._heard.setdefault(name, []).extend(map(float, values))

    def to_dict(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "spent": self._spent,
            "block": self._block._asdict(),
            "block_end": self._block_end,
            "heard": self._heard,
            "history": [row._asdict() for row in self._history],
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        saved = copy.deepcopy(dict(saved))
        self.path, self._spent, self._heard = saved["path"], saved["spent"], saved["heard"]
        self._block, self._block_end = Level(**saved["block"]), saved["block_end"]
        self._history = [Released(**row) for row in saved["history"]]
        self._receipt = self._account.charge(None, 0)

    def _choose(self, done: int) -> bool:
        """Closes a block and chooses the next one; False at the end."""
        heard = {name: np.asarray(values, np.float32) for name, values in self._heard.items()}
        self._heard = {}
        note_released(self.path, heard)
        if done >= self._reference.num_steps:
            return False
        if heard:
            self._remember(done, heard)
        length = min(self._block_length, self._reference.num_steps - done)
        blocks_left = -(-(self._reference.num_steps - done) // self._block_length)
        left = self._filter.budget - self._spent
        wish = self._rule(self._history, self._even(blocks_left, left))
        if not math.isfinite(wish) or wish <= 0:
            raise ValueError(f"the rule wished for the relative noise {wish}: it must be a positive number")
        ratio = self._last(length, left) if blocks_left == 1 else self._affordable(wish, blocks_left, left)
        if ratio is None:
            return False
        cost = self._cost(ratio, length)
        if not cost <= left:
            raise RuntimeError(f"a block of cost {cost} was about to start with {left} left: the filter is broken")
        self._spent += cost
        noise_multiplier = ratio * self._reference.noise_multiplier
        self._block = self._reference._replace(num_steps=length, noise_multiplier=noise_multiplier)
        self._block_end = done + length
        note_block(self.path, done, self._block)
        self.path[-1] |= {"relative_noise": ratio, "wish": wish, "spent": self._spent / self._filter.budget}
        return True

    def _cost(self, ratio: float, num_steps: int) -> float:
        return self._filter.cost(ratio * self._reference.noise_multiplier, num_steps)

    def _even(self, blocks_left: int, left: float) -> float:
        """The smallest relative noise that could be kept up to the end."""
        for ratio in self._ratios:
            if blocks_left * self._cost(ratio, self._block_length) <= left:
                return ratio
        return self._ratios[-1]

    def _affordable(self, wish: float, blocks_left: int, left: float) -> float | None:
        """The ratio nearest to the wish, or the next larger that leaves enough for the rest; None if there is none."""
        later = (blocks_left - 1) * self._cost(self._ratios[-1], self._block_length)
        nearest = min(range(len(self._ratios)), key=lambda k: abs(math.log(self._ratios[k] / wish)))
        for ratio in self._ratios[nearest:]:
            if self._cost(ratio, self._block_length) + later <= left:
                return ratio
        return None

    def _last(self, num_steps: int, left: float) -> float | None:
        """The smallest ratio that the last block can pay, found between two notches by bisection."""
        ratios = [ratio for ratio in self._ratios if self._cost(ratio, num_steps) <= left]
        if not ratios:
            return None
        best = ratios[0]
        lower = max((ratio for ratio in self._ratios if ratio < best), default=best)
        while best / lower > 1.002:
            middle = math.sqrt(lower * best)
            lower, best = (lower, middle) if self._cost(middle, num_steps) <= left else (middle, best)
        return best

    def _remember(self, done: int, released: Logs) -> None:
        loss = released.get("released_loss")
        self._history.append(
            Released(
                relative_noise=self.path[-1]["relative_noise"],
                progress=done / self._reference.num_steps,
                signal=float(np.mean(released["released_signal"])),
                loss=None if loss is None else float(np.mean(loss)),
                loss_stderr=None if loss is None else float(np.std(loss, ddof=1) / math.sqrt(len(loss))),
            )
        )


def block_length(num_steps: int, num_blocks: int, multiple: int) -> int:
    """Steps of a block (the last may be shorter): a multiple of `multiple` where that leaves num_blocks blocks."""
    unit = multiple if num_steps >= multiple * num_blocks else 1
    return unit * math.ceil(num_steps / num_blocks / unit)


def note_block(path: list[dict[str, Any]], done: int, block: Level) -> None:
    """Appends a block to a path, or lengthens the last one if nothing changes."""
    row = {"first_step": done, **block._asdict()}
    if path and all(path[-1][name] == row[name] for name in row if name not in ("first_step", "num_steps")):
        path[-1]["num_steps"] += block.num_steps
        return
    path.append(row)


def note_released(path: list[dict[str, Any]], released: Logs) -> None:
    """Notes the means over steps of the last block of what they released."""
    for name, values in released.items():
        path[-1].setdefault(name, []).append(float(np.mean(values)))
