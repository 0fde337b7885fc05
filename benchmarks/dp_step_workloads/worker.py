"""One process per framework: prepares contestants and times them when told to, over pipes.

python -m dp_step_workloads.worker FRAMEWORK WORKLOAD BATCH_SIZE

Requests and replies are JSON, one a line: {"do": "prepare" | "time", "contestant": name}.
"""

from __future__ import annotations

import json
import logging
import math
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

from dp_step_workloads import WORKLOADS

MIN_SECONDS = 0.15  # CPU time of one timing, so that clocks and dispatch do not show


def timed(call: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Seconds per call: CPU time of all threads of this process, the system's share of it, and wall time.

    The system's share is nearly all page faults: both frameworks return large buffers after each step.
    """
    cpu, wall, system = time.process_time(), time.perf_counter(), system_seconds()
    for _ in range(repeats):
        call()
    return {
        "cpu_seconds": (time.process_time() - cpu) / repeats,
        "system_seconds": (system_seconds() - system) / repeats,
        "wall_seconds": (time.perf_counter() - wall) / repeats,
    }


def system_seconds() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_stime


class Server:
    """Answers requests about one workload."""

    def __init__(self, contestants: Any):
        self.contestants = contestants
        self.prepared: dict[str, tuple[Callable[[], Any], int]] = {}

    def answer(self, request: dict[str, str]) -> dict[str, Any]:
        name = request["contestant"]
        if request["do"] == "time":
            call, repeats = self.prepared[name]
            for _ in range(repeats // 4):  # settles memory after another contestant's turn
                call()
            return timed(call, repeats)
        try:
            call, facts = self.contestants.prepare(name)
            call()  # whatever the first call does once
            once = timed(call, 1)["cpu_seconds"]
        except Exception as error:
            if name not in self.contestants.peers:
                raise
            reason = (str(error).strip() or "no message").splitlines()[0][:160]
            return {"unsupported": f"unsupported: {type(error).__name__}: {reason}"}
        self.prepared[name] = (call, max(1, math.ceil(MIN_SECONDS / once)))
        return {**facts, "num_parameters": self.contestants.num_parameters}


def main() -> None:
    framework, name, batch_size = sys.argv[1:]
    # Replies go to the real standard output; whatever libraries print there goes to standard error.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    logging.basicConfig()
    logging.getLogger("privsyn_jax").setLevel(logging.INFO)  # what method auto picks, and why
    if framework == "jax":
        from dp_step_workloads.jax_contestants import JaxContestants as Contestants
    else:
        from dp_step_workloads.torch_contestants import TorchContestants as Contestants
    server = Server(Contestants(WORKLOADS[name], int(batch_size)))
    for line in sys.stdin:
        print(json.dumps(server.answer(json.loads(line))), file=replies, flush=True)


if __name__ == "__main__":
    main()
