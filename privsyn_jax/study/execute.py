"""A study from its plan to its tables and figures, in one folder."""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pandas as pd

from privsyn_jax.files import write_bytes
from privsyn_jax.study.analyse import Analysis, analyse
from privsyn_jax.study.cells import Cells, Row
from privsyn_jax.study.comparison import summary
from privsyn_jax.study.executors import Engine
from privsyn_jax.study.figures import draw
from privsyn_jax.study.plan import Study
from privsyn_jax.study.report import markdown
from privsyn_jax.study.results import Results
from privsyn_jax.study.runs import Tuned, compete, jobs_of, rows_of, tune
from privsyn_jax.types import UserError
from privsyn_jax.workdir import PRIVATE_NOTICE

_SECONDS_BETWEEN_PAGES = 30.0


def execute(study: Study, path: str, engine: Engine) -> list[str]:
    """Runs what is missing, then writes tables, report.md and figures; returns lines to show.

    results.csv has a row for every run, comparison.csv the differences to the baseline, frontier.csv utility against
    leakage, tests.csv synthetic against real records and model against model; there is none without rows. Read them
    with pandas.read_csv(path, comment="#"): they begin with a comment. report.html shows the study as far as it is.

    All of it is below private/: utility was measured on real records without noise.

    Args:
      engine: where and how the runs are done.

    Raises:
      UserError: the folder holds something else or is in use, a run failed, or a metric that no run has.
    """
    root = Path(path)
    if root.exists() and (not root.is_dir() or (any(root.iterdir()) and not (root / "private").is_dir())):
        raise UserError(f"--workdir {root} holds files that are not a study's: name a new or empty folder")
    folder = root / "private"
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    (folder / "README.txt").write_text(PRIVATE_NOTICE + "\n")
    with _alone_in(folder):
        results = Results(folder)
        tuned = tune(study, results, engine)
        jobs = jobs_of(study, tuned)

        def show() -> None:
            runs = rows_of(study, tuned, jobs, results)
            write_page(study, runs, analyse(study, runs), folder, total=len(jobs))

        compete(study, jobs, results, engine, watch=_now_and_then(show))
        return _write(study, tuned, rows_of(study, tuned, jobs, results), folder)


def write_page(study: Study, runs: Sequence[Row], analysis: Analysis, folder: Path, *, total: int) -> Path:
    """The page of a study that has done some of its runs."""
    from privsyn_jax.study.page import render_study

    page = folder / "report.html"
    content = render_study(study, runs, analysis, done=len(runs), total=total, title=folder.parent.name)
    write_bytes(page, content.encode())
    return page


def _write(study: Study, tuned: Tuned, runs: list[Row], folder: Path) -> list[str]:
    analysis, cells = analyse(study, runs), Cells(runs, study)
    tables = {
        "results.csv": runs,
        "comparison.csv": analysis.comparison,
        "frontier.csv": analysis.frontier,
        "tests.csv": [
            *({"test": "versus real", **row} for row in analysis.versus_real),
            *({"test": "versus model", **row} for row in analysis.versus_models),
        ],
    }
    tables = {name: rows for name, rows in tables.items() if rows}
    for name, rows in tables.items():
        write_bytes(folder / name, f"# {PRIVATE_NOTICE}\n{pd.DataFrame(rows).to_csv(index=False)}".encode())
    write_bytes(folder / "report.md", markdown(study, cells, analysis, tuned).encode())
    figures = draw(study, cells, analysis, folder)
    page = write_page(study, runs, analysis, folder, total=len(runs))
    files = [page, *(folder / name for name in (*tables, "report.md"))]
    return [*summary(analysis.comparison, study.metrics), *map(str, (*files, *figures))]


def _now_and_then(action: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> Callable[[], None]:
    """The action, at the first call and then seldom enough to take a tenth of the time at most."""
    due = -math.inf

    def act() -> None:
        nonlocal due
        if (begun := clock()) >= due:
            action()
            due = clock() + max(_SECONDS_BETWEEN_PAGES, 9 * (clock() - begun))

    return act


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Holds the folder's lock, so that no second process does the same runs."""
    lock = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"--workdir {folder.parent} is in use by another process: wait for it or name another"
            ) from None
        yield
    finally:
        os.close(lock)
