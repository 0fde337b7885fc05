"""In place of the run of a study: for tests of how runs are done. Import it where no test is wanted."""

import os
import signal
from pathlib import Path

from privsyn_jax.study import jobs


def dies_once(settings, folder):
    """Killed at the first attempt of number 1."""
    mark = Path(folder) / f"begun {settings['number']}"
    if settings["number"] == 1 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return {"metrics": {"number": settings["number"]}}


jobs.run = dies_once
