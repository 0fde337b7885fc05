"""Runs in processes that are made to be killed: a server imports everything once, each run is a fork of it."""

import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["privsyn_jax.run", "orbax.checkpoint", "sklearn.linear_model"])


def start(plain: dict[str, Any], folder: Path, compiled: Path, group: tuple[str, int, int] | None = None) -> Any:
    """A process that runs these settings in the folder; what it says is appended to folder.txt.

    Args:
      group: (address of process 0, number of processes, number of this one), where there are several.
    """
    process = _CONTEXT.Process(target=_run, args=(plain, str(folder), str(compiled), group))
    process.start()
    return process


def start_group(plain: dict[str, Any], folder: Path, compiled: Path, size: int) -> list[Any]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    return [start(plain, folder, compiled, (address, size, number)) for number in range(size)]


def run(plain: dict[str, Any], folder: Path, compiled: Path) -> int:
    process = start(plain, folder, compiled)
    process.join()
    return process.exitcode


def kill(process: Any, moment: float | Callable[[], bool], number: int = signal.SIGKILL, *, wait: bool = True) -> bool:
    """Kills the process after some seconds, or when a condition holds; False if it ended before."""
    started = time.monotonic()
    while process.is_alive():
        if moment() if callable(moment) else time.monotonic() - started >= moment:
            os.kill(process.pid, number)
            if wait:
                process.join()
            return True
        time.sleep(0.0005)
    return False


def _run(plain: dict[str, Any], folder: str, compiled: str, group: tuple[str, int, int] | None) -> None:
    log = os.open(f"{folder}.txt", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if group is not None:  # programs of several processes are not cached, and compile in two thirds of the time so
        os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
    import jax

    from privsyn_jax.run import execute
    from privsyn_jax.settings import settings_from_dict

    jax.config.update("jax_compilation_cache_dir", compiled)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    if group is not None:
        jax.distributed.initialize(*group)
    execute(settings_from_dict(plain), folder, announce=lambda message: print(message, flush=True))
