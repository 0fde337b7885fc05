"""The training log: whole lines, the same after a kill, nothing private off the terminal, events on request."""

import json
import math
import os
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privsyn_jax.training_log import TrainingLog, check_tensorboard, read_training_log
from privsyn_jax.types import UserError
from privsyn_jax.workdir import PRIVATE_NOTICE

NUM_STEPS, COUNT = 12, 3
CURVE = [(0, 0.0), (6, 0.5), (12, 1.0)]


class State:
    def __init__(self, step):
        self.step = step


def values(first, count=COUNT):
    steps = np.arange(first, first + count, dtype=np.float32)
    return {"loss": 10 - steps / 7, "released_signal": steps * 0.1}


def write(folder, first_step=0, stop=NUM_STEPS, clock=None, **options):
    log = TrainingLog(
        folder, num_steps=NUM_STEPS, curve=CURVE, first_step=first_step,
        **({} if clock is None else {"clock": clock}), **options,
    )  # fmt: skip
    with log as hook:
        hook(State(first_step), {})
        for first in range(first_step, stop, COUNT):
            hook(State(first + COUNT), values(first + 1))
    return (folder / "training.jsonl").read_bytes()


def test_a_line_per_step_after_a_notice(tmp_path):
    lines = write(tmp_path).decode().splitlines()
    assert json.loads(lines[0]) == {"notice": PRIVATE_NOTICE}
    assert [json.loads(line)["step"] for line in lines[1:]] == list(range(1, NUM_STEPS + 1))
    found = read_training_log(tmp_path)
    assert set(found) == {"step", "loss", "released_signal"}
    np.testing.assert_allclose(found["loss"], 10 - np.arange(1, NUM_STEPS + 1) / 7, rtol=1e-6)


@given(st.integers(0, 10_000), st.sampled_from([0, 3, 6, 9, 12]))
@settings(deadline=None, max_examples=60)
def test_cut_at_any_byte_and_resumed_it_is_that_of_an_unbroken_run(tmp_path_factory, length, saved):
    folder = tmp_path_factory.mktemp("log")
    whole = write(folder)
    lines = whole.split(b"\n")
    shortest = len(b"\n".join(lines[: saved + 1])) + 1  # what was flushed before the state was saved
    (folder / "training.jsonl").write_bytes(whole[: max(shortest, length % (len(whole) + 1))])
    assert write(folder, first_step=saved) == whole


def test_lines_that_are_damaged_are_dropped_and_the_rest_is_kept(tmp_path):
    lines = write(tmp_path).split(b"\n")
    lines[2] = b'{"step": 2, "lo'
    (tmp_path / "training.jsonl").write_bytes(b"\n".join(lines))
    write(tmp_path, first_step=6)
    assert read_training_log(tmp_path)["step"] == [1, *range(3, NUM_STEPS + 1)]


@given(st.integers(0, 400), st.binary(max_size=12), st.sampled_from([0, 3, 6, 9, 12]))
@settings(deadline=None, max_examples=60)
def test_no_damage_stops_a_run_or_its_page(tmp_path_factory, position, damage, saved):
    folder = tmp_path_factory.mktemp("log")
    whole = write(folder)
    damaged = whole[:position] + damage + whole[position + len(damage) :]
    (folder / "training.jsonl").write_bytes(damaged)
    read_training_log(folder)
    repaired = write(folder, first_step=saved).split(b"\n")
    assert all(json.loads(line, parse_constant=pytest.fail) for line in repaired[:-1])
    untouched = set(whole.split(b"\n")[1:]) & set(damaged.split(b"\n"))
    new = set(whole.split(b"\n")[saved + 1 :])
    assert untouched | new <= set(repaired) or b'"step"' in damage


def test_what_no_row_can_be_is_passed_over(tmp_path):
    lines = [
        b"[1]",
        b"7",
        b'"step"',
        b"[" * 100_000,
        b'{"step": "1"}',
        b'{"step": 1, "loss": {}}',
        b"\xff",
        b'{"step": 0}',
    ]
    (tmp_path / "training.jsonl").write_bytes(b"\n".join([*lines, b'{"step": 2, "loss": NaN}', b'{"step": 3, "lo']))
    found = read_training_log(tmp_path)
    assert found["step"] == [2.0] and math.isnan(found["loss"][0])
    write(tmp_path, first_step=3, stop=3)
    assert (tmp_path / "training.jsonl").read_bytes().endswith(b'\n{"step": 2, "loss": null}\n')


def test_what_is_not_finite_is_null_in_the_file_and_nan_when_read(tmp_path):
    with TrainingLog(tmp_path, num_steps=2, curve=[]) as hook:
        hook(State(2), {"loss": np.array([1.0, np.nan])})
    assert json.loads((tmp_path / "training.jsonl").read_text().splitlines()[2])["loss"] is None
    first, second = read_training_log(tmp_path)["loss"]
    assert first == 1.0 and math.isnan(second)
    assert read_training_log(tmp_path / "absent") == {}


def test_off_a_terminal_a_line_comes_now_and_then_with_nothing_private_in_it(tmp_path, capsys):
    now = iter(range(0, 1000, 4))
    write(tmp_path, clock=lambda: next(now))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "training: 3/12 steps, epsilon 0.250, 4 s with compilation"
    assert lines[1:] == ["training: 12/12 steps, epsilon 1.000, 1.3 s a step"]
    assert "loss" not in "".join(lines)
    slow = iter(range(0, 1000, 12))
    write(tmp_path, clock=lambda: next(slow))
    assert "training: 9/12 steps, epsilon 0.750, 4 s a step, about 12 s left" in capsys.readouterr().err


def test_the_speed_is_that_of_the_last_minute_and_a_run_that_ends_early_tells_where(tmp_path, capsys):
    now = iter([0, 100, 102, 104, 200, 201.5])
    with TrainingLog(tmp_path, num_steps=36_000, curve=[], clock=lambda: next(now)) as hook:
        for step in range(0, 18, 3):
            hook(State(step), values(step - 2) if step else {})
    assert capsys.readouterr().err.splitlines() == [
        "training: 3/36000 steps, 2 min with compilation",
        "training: 12/36000 steps, 32 s a step, about 319.9 h left",
        "training: 15/36000 steps, 16 s a step, about 162.4 h left",
    ]


def test_on_a_terminal_there_is_a_bar_that_begins_where_the_run_does(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    write(tmp_path)
    write(tmp_path, first_step=6, stop=9)
    assert "9/12" in capsys.readouterr().err


def fill_the_disk(file):
    """What is written to the open file from now on fails."""
    with open("/dev/full", "wb") as full:
        os.dup2(full.fileno(), file.fileno())


@pytest.mark.parametrize("sink", ["training.jsonl", "tensorboard"])
def test_a_full_disk_is_told_in_one_sentence_and_once(sink, tmp_path):
    log = TrainingLog(tmp_path, num_steps=NUM_STEPS, curve=CURVE, tensorboard=True)
    with (
        pytest.raises(UserError, match=sink + r"\S* cannot be written \(No space left on device\): free space"),
        log as hook,
    ):
        hook(State(0), {})
        fill_the_disk(log._file if sink == "training.jsonl" else log._events._writer._writer)
        for _ in range(10):
            hook(State(3), values(1))


def test_a_folder_that_cannot_be_written_is_told_before_training(tmp_path):
    (tmp_path / "tensorboard").write_text("a file where the folder is to be")
    with pytest.raises(UserError, match=r"tensorboard cannot be written"):
        write(tmp_path, tensorboard=True)
    (tmp_path / "tensorboard").unlink()
    (tmp_path / "training.jsonl").unlink()
    (tmp_path / "training.jsonl").mkdir()
    with pytest.raises(UserError, match=r"training\.jsonl cannot be written"):
        write(tmp_path)


def test_what_stopped_the_run_is_not_hidden_by_a_failing_end(tmp_path):
    log = TrainingLog(tmp_path, num_steps=NUM_STEPS, curve=CURVE)
    with pytest.raises(KeyboardInterrupt), log:
        fill_the_disk(log._file)
        log._file.write("unwritten")
        raise KeyboardInterrupt


def checksum(content):
    """CRC-32C (Castagnoli), bit by bit, rotated and shifted as event files have it."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def records(path):
    """Payloads of an event file: length, its checksum, payload, its checksum."""
    content, found = path.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        found.append(content[12 : 12 + length])
        assert content[8:12] == checksum(content[:8])
        assert content[12 + length : 16 + length] == checksum(found[-1])
        content = content[16 + length :]
    return found


def test_event_files_hold_every_value_and_drop_what_is_repeated(tmp_path):
    proto = pytest.importorskip("tensorboardX.proto.event_pb2")
    check_tensorboard()
    write(tmp_path, stop=9, tensorboard=True)
    write(tmp_path, first_step=6, tensorboard=True)
    first, second = sorted((tmp_path / "tensorboard").iterdir())
    write(tmp_path, tensorboard=True)  # begun anew: a further file, read last
    assert sorted((tmp_path / "tensorboard").iterdir())[:2] == [first, second]
    assert len(list((tmp_path / "tensorboard").iterdir())) == 3
    events = [[proto.Event.FromString(payload) for payload in records(path)] for path in (first, second)]
    scalars = [
        [(value.tag, event.step, value.simple_value) for event in part for value in event.summary.value]
        for part in events
    ]
    assert [step for tag, step, _ in scalars[0] if tag == "private/loss"] == list(range(1, 10))
    assert [step for tag, step, _ in scalars[1] if tag == "released/signal"] == list(range(7, 13))
    assert ("epsilon", 12, 1.0) in scalars[1]
    for part, first_new in zip(events, (1, 7), strict=True):
        assert part[0].file_version == "brain.Event:2"
        assert part[1].session_log.status == proto.SessionLog.START and part[1].step == first_new


def test_without_tensorboardx_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorboardX", None)
    with pytest.raises(UserError, match=r"pip install 'privsyn_jax\[tensorboard\]', or set it to False"):
        write(tmp_path, tensorboard=True)
