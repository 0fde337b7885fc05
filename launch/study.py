"""Many runs, compared: python -m launch.study --config=configs/studies/noise_schedules.py --workdir=runs/schedules"""

from __future__ import annotations

from absl import flags

from launch.config import to_study
from launch.program import start

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the study; made if absent, gone on with if present.")
_WORKERS = flags.DEFINE_integer("workers", 2, "Processes that runs are spread over.", lower_bound=1)


def main(study) -> None:
    from privsyn_jax.study.execute import execute

    print("\n".join(execute(study, str(_WORKDIR.value), workers=_WORKERS.value)))


if __name__ == "__main__":
    flags.mark_flag_as_required("workdir")
    start(main, load=to_study)
