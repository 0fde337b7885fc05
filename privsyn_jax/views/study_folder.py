"""The folder of a study as DataFrames and a plot."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from privsyn_jax.types import UserError
from privsyn_jax.views import html_parts as html
from privsyn_jax.views import plots
from privsyn_jax.views.private_frame import PrivateFrame
from privsyn_jax.workdir import PRIVATE_NOTICE


def load_study(workdir: str | Path) -> StudyFolder:
    """Looks into the folder of a study.

    Raises:
      UserError: no study has written its results there.
    """
    root = Path(workdir)
    if not (root / "private" / "results.csv").is_file():
        raise UserError(f"{workdir} holds no study's results: name the --workdir of a finished python -m launch.study")
    return StudyFolder(root)


class StudyFolder:
    """All of it is private: utility was measured on real records without noise.

    Attributes:
      private: the folder that holds it.
    """

    def __init__(self, root: Path):
        self.private = root / "private"

    @property
    def results(self) -> PrivateFrame:
        """A row for every run."""
        return self._table("results")

    @property
    def comparison(self) -> PrivateFrame:
        """Paired differences to the baseline; empty where there was nothing to compare."""
        return self._table("comparison")

    @property
    def frontier(self) -> PrivateFrame:
        return self._table("frontier")

    @property
    def tests(self) -> PrivateFrame:
        return self._table("tests")

    def plot(self, metric: str) -> plots.Drawing:
        """A metric over epsilon, a panel for every model, a line for every contestant: means over seeds, and each seed.

        Raises:
          UserError: no run has the metric.
        """
        results = self.results
        if metric not in results.columns:
            raise UserError(f"metric {metric!r} is in no run of the study: use one of {', '.join(results.columns)}")
        return plots.study(results, metric)

    def _table(self, name: str) -> PrivateFrame:
        file = self.private / f"{name}.csv"
        try:
            return PrivateFrame(pd.read_csv(file, comment="#") if file.is_file() else None)
        except pd.errors.EmptyDataError:
            return PrivateFrame()

    def _repr_html_(self) -> str:
        rows = [(file.name, len(self._table(file.stem))) for file in sorted(self.private.glob("*.csv"))]
        return html.block(
            f"Study in {self.private.parent}", html.stamp(PRIVATE_NOTICE), html.table(("table", "rows"), rows)
        )

    def __repr__(self) -> str:
        return f"<study in {self.private.parent}: {PRIVATE_NOTICE}>"
