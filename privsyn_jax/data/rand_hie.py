"""RAND Health Insurance Experiment (1974-1982), the table that ships inside statsmodels: 20,190 person-years.

One person contributes several rows (one per year in the experiment), so the privacy unit is a person-year:
the guarantee for a whole person is weaker, by the number of years.

Source: statsmodels.datasets.randhie (public domain), after Cameron and Trivedi 2005, "Microeconometrics".
"""

from __future__ import annotations

import csv
import os

import numpy as np
import pandas as pd

from privsyn_jax.data.source import Published, check_published, hash_rows
from privsyn_jax.data.split import num_train_records, split_rows
from privsyn_jax.data.validate import conform
from privsyn_jax.privacy.guard import Private
from privsyn_jax.settings import DataSettings
from privsyn_jax.types import Column, Records, Schema, UserError

PUBLISHED = Published(20190, "eb374ccb59eb3fd2ee98689f477ee02b0e5beb8d051eb271b62520160d5c4831")
_FILE = "randhie.csv"
_HEADER = ["mdvis", "lncoins", "idp", "lpi", "fmde", "physlm", "disea", "hlthg", "hlthf", "hlthp"]


# Logarithms below carry the six decimals of the file, which can differ from exact rounding in the last one.
_COLUMNS = (
    # ln(coinsurance + 1) for the plans' rates 0, 25, 50, 95 and 100 %.
    Column("lncoins", "numeric", lower=0.0, upper=4.7, point_masses=(0.0, 3.258096, 3.931826, 4.564348, 4.61512)),
    # 1 for a plan with an individual deductible, else 0.
    Column("idp", "boolean", categories=(0, 1)),
    # ln(max(1, yearly participation incentive)). The incentive made up for the most that a family could lose
    # by joining, so it heaps at nothing and at the plans' caps of 150, 300, 450, 750 and 1000 dollars. The
    # design gives no largest incentive: the upper bound is a round number above the published maximum.
    Column(
        "lpi",
        "numeric",
        lower=0.0,
        upper=7.5,
        point_masses=(0.0, 5.010635, 5.703783, 6.109248, 6.620073, 6.907755),
        declared_public=("upper",),
    ),
    # ln(max(1, maximum dollar expenditure / coinsurance rate)), 0 with an individual deductible. The maximum
    # was at most 1000 dollars and the smallest rate 25 %, so ln 4000 bounds it; it heaps at the caps: 150,
    # 300, 450 and 1000 at 95 %, 1000 at 50 %, 750 and 1000 at 25 %.
    Column(
        "fmde",
        "numeric",
        lower=0.0,
        upper=8.3,
        point_masses=(0.0, 5.061929, 5.755076, 6.160541, 6.959049, 7.600903, 8.006368, 8.294049),
    ),
    # 1 for a physical limitation, else 0; a share in between where it was imputed.
    Column("physlm", "numeric", lower=0.0, upper=1.0, point_masses=(0.0, 1.0)),
    # Chronic diseases, as the percentage of a list of 29 (adults) or 23 (children), to one decimal: 0 to 100.
    # Imputed values are group means; those four constants are known only from the published rows.
    Column(
        "disea",
        "numeric",
        lower=0.0,
        upper=100.0,
        point_masses=tuple(
            sorted(
                {round(100 * count / 29, 1) for count in range(8)}
                | {round(100 * count / 23, 1) for count in range(1, 6)}
                | {9.967326, 10.57626, 11.84267, 13.73189}
            )
        ),
        declared_public=("point_masses",),
    ),
    # Self-rated, recoded from the three indicators of the file; none of them set means excellent.
    Column("health", "ordinal", categories=("poor", "fair", "good", "excellent")),
    # Any outpatient visit to a physician in the year: mdvis > 0.
    Column("any_visit", "boolean", categories=(False, True)),
)


def read_schema(settings: DataSettings) -> Schema:
    """The public facts of the recoded table; num_records is that of the training part."""
    return Schema(
        columns=_COLUMNS,
        num_records=num_train_records(PUBLISHED.num_rows, settings.test_fraction),
        target="any_visit",
        privacy_unit="person-year",
    )


def load(settings: DataSettings, schema: Schema) -> Records:
    """The recoded records of the installed statsmodels.

    Raises:
      UserError: the packaged table is not the published one.
    """
    rows = _read_rows()
    check_published(
        rows,
        PUBLISHED,
        source=f"{_FILE} of the installed statsmodels",
        remedy="install the version in constraints.txt",
    )
    recoded = recode(pd.DataFrame(rows, columns=_HEADER).astype(float))
    frame, clamped = conform(recoded, schema, out_of_bounds=settings.out_of_bounds, source=_FILE)
    train, test = split_rows(frame, settings.test_fraction)
    return Records(schema, Private(train), Private(test), hash_rows(rows), Private(clamped))


def recode(frame: pd.DataFrame) -> pd.DataFrame:
    """The file's ten columns (float) → the schema's eight, with ordinal `health` and boolean `any_visit`."""
    levels = [(frame["hlthp"] == 1, "poor"), (frame["hlthf"] == 1, "fair"), (frame["hlthg"] == 1, "good")]
    health = np.select([flag for flag, _ in levels], [level for _, level in levels], default="excellent")
    kept = frame.drop(columns=["mdvis", "hlthg", "hlthf", "hlthp"])
    return kept.assign(health=health, any_visit=frame["mdvis"] > 0)


def _read_rows() -> list[list[str]]:
    import statsmodels.datasets.randhie as randhie  # slow to import: only where its table is wanted

    path = os.path.join(os.path.dirname(randhie.__file__), _FILE)
    with open(path, encoding="utf-8", newline="") as file:
        header, *rows = [row for row in csv.reader(file) if row]
    if header != _HEADER:
        raise UserError(
            f"{_FILE} of the installed statsmodels has other columns: install the version in constraints.txt"
        )
    return rows
