"""Joining the other processes of a run: under SLURM by itself, elsewhere by flags."""

from __future__ import annotations

import os

from absl import flags

from privsyn_jax.types import UserError

_COORDINATOR = flags.DEFINE_string("coordinator_address", None, "HOST:PORT of process 0, where there are several.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Processes of the run.", lower_bound=1)
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Number of this process, from 0.", lower_bound=0)


def join() -> None:
    """Makes the devices of all processes of this run one set; call it before anything uses JAX.

    Raises:
      UserError: only some of the flags are given, or the others do not answer.
    """
    given = {flag.name: flag.value for flag in (_COORDINATOR, _NUM_PROCESSES, _PROCESS_ID)}
    missing = [name for name, value in given.items() if value is None]
    is_slurm_step = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1
    if len(missing) == len(given) and not is_slurm_step:
        return
    if missing and len(missing) < len(given):
        raise UserError(f"--{missing[0]} is not given: a run of several processes needs --{', --'.join(given)}")
    import jax

    try:
        if missing:
            jax.distributed.initialize()
        else:
            jax.distributed.initialize(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"the processes of this run did not find each other ({reason}): start all of them at once"
        ) from None
