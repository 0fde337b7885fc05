"""A study from its plan to its table and figure, in one folder."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from privsyn_jax.study import analysis
from privsyn_jax.study.plan import Study
from privsyn_jax.study.runs import Results, compete, tune
from privsyn_jax.types import UserError
from privsyn_jax.workdir import PRIVATE_NOTICE


def execute(study: Study, path: str, *, workers: int) -> list[str]:
    """Runs what is missing, then writes results.csv, comparison.csv, report.md and the figure; returns lines to show.

    All of it is below private/: utility was measured on real records without noise.

    Raises:
      UserError: the folder holds something else.
    """
    root = Path(path)
    if root.exists() and (not root.is_dir() or (any(root.iterdir()) and not (root / "private").is_dir())):
        raise UserError(f"--workdir {root} holds files that are not a study's: name a new or empty folder")
    folder = root / "private"
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    (folder / "README.txt").write_text(PRIVATE_NOTICE + "\n")
    results = Results(folder)
    tuned = tune(study, results, workers)
    runs = compete(study, tuned, results, workers)
    comparison = analysis.compare(runs, study)
    pd.DataFrame(runs).to_csv(folder / "results.csv", index=False)
    pd.DataFrame(comparison).to_csv(folder / "comparison.csv", index=False)
    (folder / "report.md").write_text(f"{PRIVATE_NOTICE}\n\n{analysis.markdown(comparison, study, tuned)}")
    figures = analysis.figure(comparison, study, folder)
    files = [folder / name for name in ("results.csv", "comparison.csv", "report.md")]
    return [*analysis.summary(comparison, study.metrics), *(str(file) for file in (*files, *figures))]
