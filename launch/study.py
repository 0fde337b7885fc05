"""Many runs, compared: python -m launch.study --config=configs/studies/noise_schedules.py --workdir=runs/schedules"""

from __future__ import annotations

import signal
import sys
from typing import Any, NoReturn

from absl import flags

from launch.config import to_study
from launch.program import start

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the study; made if absent, gone on with if present.")
_EXECUTOR = flags.DEFINE_enum(
    "executor", "local", ["local", "submitit", "slurm"], "Where runs are done: workers here, jobs here, SLURM jobs."
)
_WORKERS = flags.DEFINE_integer("workers", 2, "How many runs at the same time.", lower_bound=1)
_RETRIES = flags.DEFINE_integer("retries", 3, "How often a run is begun again after its process died.", lower_bound=0)
_JOB = flags.DEFINE_multi_string("job", [], "NAME=VALUE of a job: slurm_partition=gpu, timeout_min=60, mem_gb=16.")
_VECTORIZE = flags.DEFINE_bool("vectorize", False, "Train runs of equal shape together, in one program.")


def main(study) -> None:
    signal.signal(signal.SIGTERM, _leave)
    from privsyn_jax.study.execute import execute
    from privsyn_jax.study.executors import Engine, parse_parameters

    engine = Engine(
        executor=_EXECUTOR.value,
        workers=_WORKERS.value,
        retries=_RETRIES.value,
        parameters=parse_parameters(_JOB.value, _EXECUTOR.value),
        vectorize=_VECTORIZE.value,
    )
    print("\n".join(execute(study, str(_WORKDIR.value), engine)))


def _leave(number: int, frame: Any) -> NoReturn:
    """SIGTERM ends a study as Ctrl-C does: workers save, jobs are cancelled."""
    print("terminated: what is finished is kept; the same command goes on", file=sys.stderr)
    raise SystemExit(128 + number)


if __name__ == "__main__":
    flags.mark_flag_as_required("workdir")
    start(main, load=to_study)
