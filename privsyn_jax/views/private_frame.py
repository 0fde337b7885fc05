"""DataFrames that carry the notice of the folder private/."""

from __future__ import annotations

import pandas as pd

from privsyn_jax.views import html_parts as html
from privsyn_jax.workdir import PRIVATE_NOTICE


class PrivateFrame(pd.DataFrame):
    """A DataFrame of what was computed without noise. It says so where it is shown, and so do frames made from it."""

    @property
    def _constructor(self) -> type[PrivateFrame]:
        return PrivateFrame

    def __repr__(self) -> str:
        return f"{PRIVATE_NOTICE}\n{super().__repr__()}"

    def _repr_html_(self) -> str:
        return f"{html.stamp(PRIVATE_NOTICE)}{super()._repr_html_()}"
