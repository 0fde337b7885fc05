"""UCI Adult ("Census Income"), from its original files adult.data and adult.test.

Source: UCI Machine Learning Repository, https://doi.org/10.24432/C5XW20 (CC BY 4.0).
"""

from __future__ import annotations

import os

import pandas as pd

from privsyn_jax.data.source import Published, check_published, hash_rows
from privsyn_jax.data.split import num_train_records, split_rows
from privsyn_jax.data.validate import conform
from privsyn_jax.privacy.guard import Private
from privsyn_jax.settings import DataSettings
from privsyn_jax.types import Column, Records, Schema, UserError

TRAIN_FILE, TEST_FILE = "adult.data", "adult.test"
PUBLISHED = {
    TRAIN_FILE: Published(32561, "9e9e776cf615b69d88d89ad787ef6b6ed6fd990f83c8e071695c23dca353130c"),
    TEST_FILE: Published(16281, "0590ec0ad80028d126bca26b6a057c2e37dc12466dedac31e870d232b5191682"),
}
_WHERE = 'get them from the UCI Machine Learning Repository, dataset "Adult", doi 10.24432/C5XW20'

# From adult.names, written out by hand. "?" stands for unknown and is kept as a category of its own. Of the
# numbers adult.names says only "continuous" (and age > 16, hours > 0): age ends at the survey's top code 90,
# hours has two digits, the capital columns are dollars top-coded at 99999 (gain), survey weights and losses
# are given round limits.
_COLUMNS = (
    Column("age", "integer", lower=17, upper=90),
    Column(
        "workclass",
        "categorical",
        categories=(
            *("Private", "Self-emp-not-inc", "Self-emp-inc", "Federal-gov", "Local-gov", "State-gov"),
            *("Without-pay", "Never-worked", "?"),
        ),
    ),
    Column("fnlwgt", "integer", lower=1, upper=1_500_000),
    Column(
        "education",
        "categorical",
        categories=(
            *(
                "Bachelors",
                "Some-college",
                "11th",
                "HS-grad",
                "Prof-school",
                "Assoc-acdm",
                "Assoc-voc",
                "9th",
            ),
            *("7th-8th", "12th", "Masters", "1st-4th", "10th", "Doctorate", "5th-6th", "Preschool"),
        ),
    ),
    Column("education-num", "integer", lower=1, upper=16),
    Column(
        "marital-status",
        "categorical",
        categories=(
            *("Married-civ-spouse", "Divorced", "Never-married", "Separated", "Widowed"),
            *("Married-spouse-absent", "Married-AF-spouse"),
        ),
    ),
    Column(
        "occupation",
        "categorical",
        categories=(
            *("Tech-support", "Craft-repair", "Other-service", "Sales", "Exec-managerial", "Prof-specialty"),
            *(
                "Handlers-cleaners",
                "Machine-op-inspct",
                "Adm-clerical",
                "Farming-fishing",
                "Transport-moving",
            ),
            *("Priv-house-serv", "Protective-serv", "Armed-Forces", "?"),
        ),
    ),
    Column(
        "relationship",
        "categorical",
        categories=("Wife", "Own-child", "Husband", "Not-in-family", "Other-relative", "Unmarried"),
    ),
    Column(
        "race",
        "categorical",
        categories=("White", "Asian-Pac-Islander", "Amer-Indian-Eskimo", "Other", "Black"),
    ),
    Column("sex", "categorical", categories=("Female", "Male")),
    Column("capital-gain", "integer", lower=0, upper=99_999, point_masses=(0, 99_999)),
    Column("capital-loss", "integer", lower=0, upper=4_500, point_masses=(0,)),
    Column("hours-per-week", "integer", lower=1, upper=99, point_masses=(40,)),
    Column(
        "native-country",
        "categorical",
        categories=(
            *("United-States", "Cambodia", "England", "Puerto-Rico", "Canada", "Germany"),
            *("Outlying-US(Guam-USVI-etc)", "India", "Japan", "Greece", "South", "China", "Cuba", "Iran"),
            *("Honduras", "Philippines", "Italy", "Poland", "Jamaica", "Vietnam", "Mexico", "Portugal"),
            *("Ireland", "France", "Dominican-Republic", "Laos", "Ecuador", "Taiwan", "Haiti", "Columbia"),
            *("Hungary", "Guatemala", "Nicaragua", "Scotland", "Thailand", "Yugoslavia", "El-Salvador"),
            *("Trinadad&Tobago", "Peru", "Hong", "Holand-Netherlands", "?"),
        ),
    ),
    Column("income", "categorical", categories=("<=50K", ">50K")),
)


def read_schema(settings: DataSettings) -> Schema:
    """The public codebook. split "uci" trains on adult.data; "paper" on about 70 % of both files together."""
    num_records = PUBLISHED[TRAIN_FILE].num_rows
    if settings.split == "paper":
        num_records = num_train_records(num_records + PUBLISHED[TEST_FILE].num_rows, settings.test_fraction)
    return Schema(
        columns=_COLUMNS,
        num_records=num_records,
        target="income",
        sensitive=("sex", "race"),
        privacy_unit="person",
    )


def load(settings: DataSettings, schema: Schema) -> Records:
    """The records of `settings.dir`.

    Raises:
      UserError: a file is absent, or its rows are not the published ones.
    """
    rows = {name: read_rows(settings.dir, name) for name in (TRAIN_FILE, TEST_FILE)}
    for name, published in PUBLISHED.items():
        check_published(
            rows[name],
            published,
            source=os.path.join(settings.dir, name),
            remedy=f"the file is altered, {_WHERE}",
        )
    frames, clamped = {}, {}
    for name, file_rows in rows.items():
        frame = pd.DataFrame(file_rows, columns=list(schema.names))
        frames[name], outside = conform(frame, schema, out_of_bounds=settings.out_of_bounds, source=name)
        clamped |= {column: clamped.get(column, 0) + count for column, count in outside.items()}
    train, test = frames[TRAIN_FILE], frames[TEST_FILE]
    if settings.split == "paper":
        train, test = split_rows(pd.concat([train, test], ignore_index=True), settings.test_fraction)
    content_hash = hash_rows([row for file_rows in rows.values() for row in file_rows])
    return Records(schema, Private(train), Private(test), content_hash, Private(clamped))


def read_rows(folder: str, name: str) -> list[list[str]]:
    """The rows of one file as stripped texts, without blank lines, comments and the label's full stop.

    Raises:
      UserError: the file is absent, is no text, or has a row with another number of fields.
    """
    path = os.path.join(folder, name)
    if not folder or not os.path.isfile(path):
        looked_in = f"in {folder!r}" if folder else "as data.dir is not given"
        raise UserError(f"{TRAIN_FILE} and {TEST_FILE} are needed and {name} was not found {looked_in}: {_WHERE}")
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line.strip() for line in file]
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text at byte {error.start}: the file is altered, {_WHERE}") from None
    rows = [[field.strip() for field in line.split(",")] for line in lines if line and not line.startswith("|")]
    for i, row in enumerate(rows):
        if len(row) != len(_COLUMNS):
            raise UserError(f"{path}, row {i + 1}, has {len(row)} fields instead of {len(_COLUMNS)}: {_WHERE}")
        row[-1] = row[-1].rstrip(".")
    return rows
