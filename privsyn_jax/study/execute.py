"""A study from its plan to its table and figure, in one folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd

from privsyn_jax.files import write_bytes
from privsyn_jax.study import analysis
from privsyn_jax.study.executors import Engine
from privsyn_jax.study.plan import Overrides, Study
from privsyn_jax.study.results import Results
from privsyn_jax.study.runs import compete, tune
from privsyn_jax.study.values import values_figure, values_markdown
from privsyn_jax.types import UserError
from privsyn_jax.workdir import PRIVATE_NOTICE


def execute(study: Study, path: str, engine: Engine) -> list[str]:
    """Runs what is missing, then writes results.csv, comparison.csv, report.md and the figures; returns lines to show.

    All of it is below private/: utility was measured on real records without noise.

    The CSV files begin with a comment: read them with pandas.read_csv(path, comment="#").

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
        return _write(study, tuned, compete(study, tuned, results, engine), folder)


def _write(
    study: Study, tuned: Mapping[tuple[str, float], Overrides], runs: list[analysis.Row], folder: Path
) -> list[str]:
    comparison = analysis.compare(runs, study)
    for name, rows in (("results.csv", runs), ("comparison.csv", comparison)):
        write_bytes(folder / name, f"# {PRIVATE_NOTICE}\n{pd.DataFrame(rows).to_csv(index=False)}".encode())
    report = f"{PRIVATE_NOTICE}\n\n{values_markdown(runs, study)}"
    figures = values_figure(runs, study, folder)
    if comparison:
        report += f"\n{analysis.markdown(comparison, study, tuned)}"
        figures += analysis.figure(comparison, study, folder)
    write_bytes(folder / "report.md", report.encode())
    files = [folder / name for name in ("results.csv", "comparison.csv", "report.md")]
    lines = analysis.summary(comparison, study.metrics) if comparison else []
    return [*lines, *(str(file) for file in (*files, *figures))]


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
