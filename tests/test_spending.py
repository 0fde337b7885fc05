"""Fixed spending: every block is on disk before it runs, once, and the blocks add up to the plan."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privsyn_jax.privacy.ledger import Ledger
from privsyn_jax.privacy.sampling import POISSON, Sampler
from privsyn_jax.privacy.schedules import Level
from privsyn_jax.privacy.spending import Account, FixedSpending, block_length

LEVELS = [Level(7, 0.25, 5.0, 3.0, 1.0), Level(5, 0.5, 10.0, 2.0, 0.5)]


def spending(ledger, sampler=POISSON, max_steps=3, levels=LEVELS) -> FixedSpending:
    return FixedSpending(levels, sampler, Account(ledger, "training", "gradients", "DP-SGD"), max_steps=max_steps)


def counts(ledger) -> list[int]:
    return [entry.event["count"] for entry in ledger.entries]


def test_a_block_is_on_disk_before_it_may_run(tmp_path):
    path = tmp_path / "ledger.json"
    spender, done, charged = spending(Ledger(path=path)), 0, []
    assert not path.exists()
    while (block := spender.next_block(done)) is not None:
        charged.append([entry["event"]["count"] for entry in json.loads(path.read_text())["entries"]])
        assert sum(charged[-1]) == done + block.num_steps
        done += block.num_steps
    assert charged == [[3], [6], [7], [7, 3], [7, 5]]
    assert [(row["first_step"], row["num_steps"], row["noise_multiplier"]) for row in spender.path] == [
        (0, 7, 3.0),
        (7, 5, 2.0),
    ]


def test_the_receipt_is_of_the_first_block_and_nothing_is_charged_twice():
    ledger = Ledger()
    spender = spending(ledger)
    assert spender.receipt.is_booked and spender.receipt.ledger is ledger and counts(ledger) == [3]
    assert spender.next_block(0) == LEVELS[0]._replace(num_steps=3)
    assert spender.next_block(0) is not None and counts(ledger) == [3]  # asked again: the same steps
    spender.next_block(3)
    assert counts(ledger) == [6]


def test_a_run_taken_up_in_the_middle_pays_for_what_it_runs():
    ledger = Ledger()
    spender = spending(ledger)
    assert spender.next_block(6) == LEVELS[0]._replace(num_steps=1)
    assert spender.next_block(7) == LEVELS[1]._replace(num_steps=3)
    assert counts(ledger) == [1, 3] and spender.next_block(12) is None


@given(st.lists(st.integers(1, 40), min_size=1, max_size=4), st.integers(1, 50), st.integers(1, 6))
def test_blocks_add_up_to_the_plan(lengths, max_steps, num_groups):
    levels = [Level(length, 0.5, 5.0, 1.0 + number, 1.0) for number, length in enumerate(lengths)]
    ledger, done = Ledger(), 0
    spender = spending(ledger, Sampler(num_groups), max_steps, levels)
    while (block := spender.next_block(done)) is not None:
        assert block.num_steps <= max_steps
        done += block.num_steps
    assert done == sum(lengths) and sum(counts(ledger)) == -(-done // num_groups)


def test_what_was_released_stands_in_the_path():
    spender = spending(Ledger(), max_steps=7)
    spender.next_block(0)
    spender.observe({"released_unclipped": [0.4, 0.6]})
    spender.next_block(7)
    assert spender.path[0]["released_unclipped"] == [0.5] and "released_unclipped" not in spender.path[1]


@pytest.mark.parametrize(
    ("num_steps", "num_blocks", "multiple", "length"), [(400, 10, 20, 40), (200, 20, 20, 10), (7, 4, 1, 2)]
)
def test_blocks_end_where_dispatches_end_if_there_are_enough(num_steps, num_blocks, multiple, length):
    assert block_length(num_steps, num_blocks, multiple) == length
