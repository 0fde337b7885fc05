"""Steps over several devices and processes: the result of one device, whatever their number and the wrapper."""

import math
import os
import pickle
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from steps_over_devices import (
    CASES,
    CLIP_NORM,
    DISPATCHES,
    EXPECTED_BATCH_SIZE,
    NOISE_MULTIPLIER,
    NOISE_SIZE,
    STEPS_PER_DISPATCH,
    over_devices,
)

import privsyn_jax

TIMEOUT = 300.0  # seconds, of processes that take half a minute where nothing else runs
STANDARD_ERRORS = 5.0
WRAPPERS = ("pmap", "shard_map")
FIRST_CASE = next(iter(CASES))
SEVERAL = [(name, count, wrapper) for name, (_, _, counts) in CASES.items() for count in counts for wrapper in WRAPPERS]


def run_together(folder: Path, processes: list[tuple[int, tuple[str, ...]]]) -> list[dict]:
    """Results of processes that run at the same time, warnings as errors: (number of devices, arguments) of each."""
    script, started = Path(__file__).with_name("steps_over_devices.py"), []
    try:
        for number, (num_devices, arguments) in enumerate(processes):
            environment = {
                **os.environ,
                "JAX_PLATFORMS": "cpu",
                # Compiles in two thirds of the time.
                "XLA_FLAGS": f"--xla_force_host_platform_device_count={num_devices} --xla_backend_optimization_level=0",
                "PYTHONPATH": str(Path(privsyn_jax.__file__).parents[1]),
            }
            command = [sys.executable, "-W", "error", str(script), str(folder / str(number)), *arguments]
            printed = (folder / f"{number}.txt").open("w")
            started.append((printed, subprocess.Popen(command, env=environment, stdout=printed, stderr=printed)))
        deadline = time.monotonic() + TIMEOUT
        for _, process in started:
            process.wait(max(0.0, deadline - time.monotonic()))
    finally:
        for printed, process in started:
            process.kill()
            process.wait()
            printed.close()
    for number, (_, process) in enumerate(started):
        assert process.returncode == 0, (folder / f"{number}.txt").read_text()
    return [pickle.loads((folder / str(number)).read_bytes()) for number in range(len(started))]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What 8 devices of one process computed, and what two processes of 2 devices each computed together."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    return run_together(tmp_path_factory.mktemp("results"), [(8, ()), (2, ("0", port)), (2, ("1", port))])


@pytest.fixture
def eight(results):
    return results[0]


@pytest.fixture
def processes(results):
    return results[1:]


def assert_same_run(run, reference):
    """The same parameters, optimiser state and averages, and the same logs, up to the order of float32 additions."""
    for one, other in zip(jax.tree.leaves(run["state"]), jax.tree.leaves(reference["state"]), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert int(run["state"].step) == DISPATCHES * STEPS_PER_DISPATCH
    for name, values in reference["logs"].items():
        np.testing.assert_allclose(run["logs"][name], values, rtol=1e-5)
    assert run["same on every device"]


def assert_one_compilation_and_donation(run):
    assert (run["later traces"], run["later compilations"]) == (0, 0)
    assert run["donated"]


@pytest.mark.parametrize(("name", "num_devices", "wrapper"), SEVERAL)
def test_any_number_of_devices_gives_the_result_of_one(eight, name, num_devices, wrapper):
    assert_same_run(eight["cases"][name, num_devices, wrapper], eight["cases"][name, 1, "resident"])


@pytest.mark.parametrize(("name", "num_devices"), sorted({case[:2] for case in SEVERAL}))
def test_pmap_equals_shard_map_bit_for_bit(eight, name, num_devices):
    one, other = (eight["cases"][name, num_devices, wrapper] for wrapper in WRAPPERS)
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert np.asarray(left).tobytes() == np.asarray(right).tobytes()


def test_draws_of_any_size_take_one_compilation_and_the_state_is_donated(eight):
    sizes = eight["cases"][FIRST_CASE, 8, "pmap"]["logs"]["batch_size"]
    assert len(set(sizes.tolist())) >= 3
    for run in eight["cases"].values():
        assert_one_compilation_and_donation(run)


def test_the_cases_are_what_they_are_called(eight):
    sizes = {name: eight["cases"][name, 8, "pmap"]["logs"]["batch_size"] for name in CASES}
    assert not sizes["empty batches"].any()
    assert (sizes["everyone"] == 21).all() and (sizes["one row"] == 1).all()


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_every_drawn_record_is_on_exactly_one_device(eight, wrapper):
    counts = eight["times taken"][wrapper]
    np.testing.assert_allclose(counts["taken"], counts["drawn"], atol=1e-5)
    assert 0.3 < counts["drawn"].mean() < 0.7


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_noise_is_added_once(eight, wrapper):
    results, stddev = eight["noise"][wrapper], NOISE_MULTIPLIER * CLIP_NORM / EXPECTED_BATCH_SIZE
    error = lambda sample: abs(sample.std() / stddev - 1) * math.sqrt(2 * NOISE_SIZE)  # noqa: E731
    assert error(results["noise"]) < STANDARD_ERRORS
    for wrong in (8, math.sqrt(8), 1 / math.sqrt(8)):  # added or divided on every device
        assert error(wrong * results["noise"]) > STANDARD_ERRORS
    np.testing.assert_allclose(results["noise"], eight["noise"][None]["noise"], rtol=1e-5, atol=1e-6)
    assert results["same on every device"]


def test_gradients_that_shard_map_would_sum_before_clipping_are_refused(eight):
    assert eight["check_vma"].startswith("ValueError") and "check_vma=False" in eight["check_vma"]


def test_training_end_to_end_does_not_depend_on_the_devices(eight):
    one, *others = eight["trained"].values()
    assert len(others) == 2
    for other in others:
        np.testing.assert_allclose(other["w"], one["w"], rtol=1e-5)


def test_what_the_devices_cannot_do_is_refused_in_a_sentence(eight):
    assert eight["too many devices"] == "UserError: training.num_devices is 9: this machine has 8"
    assert eight["host and several devices"].startswith("UserError: training.records_on is 'host'")
    assert "set training.num_devices to 1" in eight["host and several devices"]


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_two_processes_give_the_result_of_one_device(eight, processes, wrapper):
    for results in processes:
        assert_same_run(results[wrapper], eight["cases"][FIRST_CASE, 1, "resident"])
        assert_one_compilation_and_donation(results[wrapper])


def test_a_process_reads_its_own_rows_only(processes):
    for wrapper in WRAPPERS:
        first, second = (results[wrapper]["read"] for results in processes)
        assert first == [set(range(12))] * 2 and second == [set(range(12, 21))] * 2  # 6 rows on a device


def test_processes_with_different_keys_are_refused(processes):
    for results in processes:
        for wrapper in WRAPPERS:
            assert results[wrapper]["different keys"].startswith("ValueError: the processes were given different keys")


def test_a_process_without_a_device_is_refused(processes):
    assert processes[1]["left out"].startswith("ValueError: process 1 has none of the 2 devices")


def test_an_unknown_wrapper_is_refused():
    with pytest.raises(ValueError, match="wrapper 'xmap' must be one of pmap, shard_map"):
        over_devices(1, 5, "xmap")
