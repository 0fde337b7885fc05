"""The whole path: python -m launch.run --config=configs/quickstart.py --workdir=runs/quickstart"""

from __future__ import annotations

import functools

from absl import flags

from launch.processes import join
from launch.program import start

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; made if absent.")


def main(settings) -> None:
    join()
    from privsyn_jax.run import execute

    for line in execute(settings, str(_WORKDIR.value), announce=functools.partial(print, flush=True)):
        print(line)


if __name__ == "__main__":
    flags.mark_flag_as_required("workdir")
    start(main)
