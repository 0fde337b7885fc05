"""MIMIC-III (intensive care at one hospital in Boston, 2001 to 2012): a row is a hospital admission, a unit a patient.

Read from the user's own PhysioNet folder: PATIENTS, ADMISSIONS, ICUSTAYS and DIAGNOSES_ICD, as .csv or .csv.gz, named
and headed in capitals (the full set) or small letters (the open demo). Categories are those of its documentation, and
anything else is "other"; bounds are round numbers. Nothing of the schema is read from the rows.

Known at admission: age, sex, admission_type, admission_location, insurance, ethnicity, prior_admissions. Known only
afterwards: first_care_unit and icu_days, the chapters of the diagnoses (coded for the bill), and the outcomes
hospital_death, hospital_days, readmitted_30_days, one of which is the target. Models of the evaluation see all columns
but the target, the other outcomes too: how well they predict is no clinical result.

Source: Johnson, Pollard, Mark 2016, "MIMIC-III Clinical Database" (version 1.4), PhysioNet, doi 10.13026/C2XW26;
demo: doi 10.13026/C2HM2Q. The full set is for credentialed users only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from typing import Any

import numpy as np
import pandas as pd

from privsyn_jax.data.schema_check import nearest
from privsyn_jax.data.split import split_units, training_part
from privsyn_jax.data.table import file_digest, read_frame
from privsyn_jax.data.validate import check_names, conform
from privsyn_jax.privacy.guard import Private
from privsyn_jax.settings import DataSettings
from privsyn_jax.types import Column, Records, Schema, UserError

TARGETS = ("hospital_death", "readmitted_30_days", "hospital_days")
TOP_AGE = 90  # dates of birth of people over 89 are shifted, so that they seem to be 300
TOP_PRIOR_ADMISSIONS = 10
_MAX_ADMISSIONS = 3  # read of a patient
_READMISSION = np.timedelta64(30, "D")
_NUM_PATIENTS, _NUM_ADMISSIONS = 46_520, 58_976  # as published, version 1.4
_NUM_DEMO_PATIENTS, _NUM_DEMO_ADMISSIONS = 100, 129
_REMEDY = "take the tables of MIMIC-III as PhysioNet has them"

_COLUMNS_OF = {
    "PATIENTS": ("SUBJECT_ID", "GENDER", "DOB"),
    "ADMISSIONS": (
        *("SUBJECT_ID", "HADM_ID", "ADMITTIME", "DISCHTIME", "ADMISSION_TYPE", "ADMISSION_LOCATION", "INSURANCE"),
        *("ETHNICITY", "HOSPITAL_EXPIRE_FLAG"),
    ),
    "ICUSTAYS": ("SUBJECT_ID", "HADM_ID", "INTIME", "FIRST_CAREUNIT", "LOS"),
    "DIAGNOSES_ICD": ("SUBJECT_ID", "HADM_ID", "ICD9_CODE"),
}
_KEY = ["SUBJECT_ID", "HADM_ID"]  # of both, so that no row of one patient can come to be another's

_OTHER = "other"
_CATEGORIES = {
    "sex": ("F", "M"),
    "admission_type": ("ELECTIVE", "EMERGENCY", "NEWBORN", "URGENT", _OTHER),
    "admission_location": (
        *("EMERGENCY ROOM ADMIT", "PHYS REFERRAL/NORMAL DELI", "CLINIC REFERRAL/PREMATURE"),
        *("TRANSFER FROM HOSP/EXTRAM", "TRANSFER FROM OTHER HEALT", "TRANSFER FROM SKILLED NUR"),
        *("TRSF WITHIN THIS FACILITY", "HMO REFERRAL/SICK", _OTHER),
    ),
    "insurance": ("Government", "Medicaid", "Medicare", "Private", "Self Pay", _OTHER),
    "ethnicity": ("asian", "black", "hispanic", "white", "unknown", _OTHER),
    "first_care_unit": ("CCU", "CSRU", "MICU", "NICU", "NWARD", "SICU", "TSICU", "none", _OTHER),
}
# How the 41 values of ETHNICITY begin. The rest is "other": native peoples, middle eastern, Caribbean, several.
_ETHNICITIES = {
    **{"ASIAN": "asian", "BLACK": "black", "HISPANIC": "hispanic", "SOUTH AMERICAN": "hispanic"},
    **{"WHITE": "white", "PORTUGUESE": "white"},
    **{"UNKNOWN": "unknown", "UNABLE TO OBTAIN": "unknown", "PATIENT DECLINED": "unknown"},
}
# Chapters of ICD-9-CM by the last of their numbers, three digits of a code, and those that begin with a letter.
_LAST_NUMBERS = {
    **{"infectious": 139, "neoplasms": 239, "endocrine": 279, "blood": 289, "mental": 319, "nervous": 389},
    **{"circulatory": 459, "respiratory": 519, "digestive": 579, "genitourinary": 629, "pregnancy": 679, "skin": 709},
    **{"musculoskeletal": 739, "congenital": 759, "perinatal": 779, "symptoms": 799, "injury": 999},
}
_LETTERS = {"E": "external_causes", "V": "supplementary"}
CHAPTERS = (*_LAST_NUMBERS, *_LETTERS.values())

# Bins of round numbers, finer where most stays are: in many even ones, noise for a whole patient would drown counts.
_DAYS = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0, 14.0, 17.0, 21.0, 28.0, 42.0, 60.0)
_AGES = (0, 1, *range(15, TOP_AGE + 1, 5))

_COLUMNS = (
    Column("subject_id", "id"),
    Column("age", "integer", lower=0, upper=TOP_AGE, point_masses=(0, TOP_AGE), edges=_AGES),
    *(Column(name, "categorical", categories=values) for name, values in _CATEGORIES.items()),
    Column("prior_admissions", "integer", lower=0, upper=TOP_PRIOR_ADMISSIONS, point_masses=(0,)),
    Column("icu_days", "numeric", lower=0.0, upper=60.0, point_masses=(0.0,), edges=_DAYS),
    Column("hospital_days", "numeric", lower=0.0, upper=100.0, edges=(*_DAYS, 100.0)),
    *(Column(f"icd_{chapter}", "boolean", categories=(False, True)) for chapter in CHAPTERS),
    Column("readmitted_30_days", "boolean", categories=(False, True)),
    Column("hospital_death", "boolean", categories=(False, True)),
)


def read_schema(settings: DataSettings) -> Schema:
    """The public facts, with the published figures; num_records and num_units are of the training part.

    Raises:
      UserError: data.target is no outcome.
    """
    target = settings.target or TARGETS[0]
    if target not in TARGETS:
        raise UserError(f"data.target is {target!r}, which is no outcome of MIMIC-III: {nearest(target, TARGETS)}")
    schema = Schema(
        columns=_COLUMNS,
        num_records=_NUM_ADMISSIONS,
        target=target,
        sensitive=("sex", "ethnicity"),
        privacy_unit="patient",
        unit_column="subject_id",
        max_records_per_unit=settings.max_records_per_unit or _MAX_ADMISSIONS,
        num_units=_NUM_PATIENTS,
    )
    return training_part(schema, settings.test_fraction)


def read_demo_schema(settings: DataSettings) -> Schema:
    """`read_schema` with the figures of the demo: for trying things out, too small to learn from privately."""
    figures = {"num_records": _NUM_DEMO_ADMISSIONS, "num_units": _NUM_DEMO_PATIENTS}
    return training_part(dataclasses.replace(read_schema(settings), **figures), settings.test_fraction)


def load(settings: DataSettings, schema: Schema) -> Records:
    """The admissions of `settings.dir`, at most schema.max_records_per_unit of a patient, split by patients.

    Raises:
      UserError: a table or column is absent, empty, or holds what it cannot.
    """
    paths = {name: find_table(settings.dir, name) for name in _COLUMNS_OF}
    tables = {name: read_table(path, name) for name, path in paths.items()}
    frame, clamped = conform(
        admissions_of(tables, paths), schema, out_of_bounds=settings.out_of_bounds, source="MIMIC-III"
    )
    train, test = split_units(frame, schema, settings.test_fraction)
    content_hash = hashlib.sha256(b"".join(file_digest(path) for path in paths.values())).hexdigest()
    return Records(schema, Private(train), Private(test), content_hash, Private(clamped))


def find_table(folder: str, name: str) -> str:
    """Path of NAME.csv or NAME.csv.gz in the folder, in capitals or not."""
    if not folder or not os.path.isdir(folder):
        where = f"{folder!r} is no folder" if folder else "data.dir is not given"
        raise UserError(f"{where}: give the folder that holds {', '.join(_COLUMNS_OF)} of MIMIC-III as .csv or .csv.gz")
    wanted = (f"{name}.CSV", f"{name}.CSV.GZ")
    found = sorted((file for file in os.listdir(folder) if file.upper() in wanted), key=len)
    if not found:
        raise UserError(f"{name}.csv or {name}.csv.gz is not in {folder!r}: {_REMEDY}")
    return os.path.join(folder, found[0])


def read_table(path: str, name: str) -> pd.DataFrame:
    """The columns that are needed of one table, as text, their names in capitals."""
    frame = read_frame(path, only=_COLUMNS_OF[name])
    frame.columns = [str(column).upper() for column in frame.columns]
    check_names(list(frame.columns), path)
    absent = [column for column in _COLUMNS_OF[name] if column not in frame.columns]
    if absent:
        raise UserError(f"{path} has no column {absent[0]!r}: {_REMEDY}")
    if not len(frame):
        raise UserError(f"{path} has a header but no rows: {_REMEDY}")
    return frame


def admissions_of(tables: dict[str, Any], paths: dict[str, str]) -> pd.DataFrame:
    """One row per admission, in the schema's columns. A row depends on the rows of its own patient only."""
    patients, admissions = tables["PATIENTS"], tables["ADMISSIONS"]
    for table, key, path in ((patients, "SUBJECT_ID", paths["PATIENTS"]), (admissions, "HADM_ID", paths["ADMISSIONS"])):
        _refuse_first(table[key].duplicated(), table[key], path, "which is there twice")
    born = pd.Series(_moments(patients, "DOB", paths["PATIENTS"]), index=patients["SUBJECT_ID"])
    sex = pd.Series(patients["GENDER"].to_numpy(), index=patients["SUBJECT_ID"])
    admissions = admissions.assign(
        admitted=_moments(admissions, "ADMITTIME", paths["ADMISSIONS"]),
        discharged=_moments(admissions, "DISCHTIME", paths["ADMISSIONS"]),
    )
    subject = admissions["SUBJECT_ID"]
    _refuse_first(~subject.isin(born.index), subject, paths["ADMISSIONS"], "which PATIENTS does not list")
    admissions = admissions.sort_values(["SUBJECT_ID", "admitted", "HADM_ID"], ignore_index=True)
    subject, died = admissions["SUBJECT_ID"], admissions["HOSPITAL_EXPIRE_FLAG"].str.strip()
    of_patient = admissions.groupby("SUBJECT_ID", sort=False)
    stay = admissions["discharged"] - admissions["admitted"]
    until_next = of_patient["admitted"].shift(-1) - admissions["discharged"]
    units, icu_days = _icu_stays(tables["ICUSTAYS"], admissions, paths["ICUSTAYS"])
    chapters = _chapters(tables["DIAGNOSES_ICD"], admissions)
    frame = {
        "subject_id": subject,
        "age": _ages(born.loc[subject], admissions["admitted"]),
        "sex": sex.loc[subject].to_numpy(),
        "admission_type": admissions["ADMISSION_TYPE"],
        "admission_location": admissions["ADMISSION_LOCATION"],
        "insurance": admissions["INSURANCE"],
        "ethnicity": [_ethnicity(value) for value in admissions["ETHNICITY"]],
        "first_care_unit": units,
        "prior_admissions": np.minimum(of_patient.cumcount(), TOP_PRIOR_ADMISSIONS),
        "icu_days": icu_days,
        "hospital_days": np.maximum(stay / pd.Timedelta(days=1), 0.0),  # an organ donor's can end before it begins
        **{f"icd_{name}": chapters[:, number] for number, name in enumerate(CHAPTERS)},
        "readmitted_30_days": (until_next <= _READMISSION) & (died == "0"),
        "hospital_death": died,
    }
    known = {name: _known(frame[name], values) for name, values in _CATEGORIES.items()}
    return pd.DataFrame({**frame, **known})


def chapter_of(code: str) -> str | None:
    """Chapter of an ICD-9-CM code without its dot; None for what is no code."""
    code = code.strip().upper()
    if code[:1] in _LETTERS:
        return _LETTERS[code[:1]]
    if not (len(code) >= 3 and code[:3].isascii() and code[:3].isdecimal() and code[:3] != "000"):
        return None
    return next(chapter for chapter, last in _LAST_NUMBERS.items() if int(code[:3]) <= last)


def _ages(born: Any, admitted: Any) -> np.ndarray:
    """Completed years, those above 89 as TOP_AGE."""
    before, after = pd.DatetimeIndex(born), pd.DatetimeIndex(admitted)
    is_ahead = 100 * after.month + after.day < 100 * before.month + before.day  # of the birthday
    years = np.asarray(after.year - before.year - is_ahead)
    return np.where(years >= TOP_AGE, TOP_AGE, np.maximum(years, 0))


def _icu_stays(stays: Any, admissions: pd.DataFrame, path: str) -> tuple[np.ndarray, np.ndarray]:
    """(care unit of the first stay or "none", days in all stays) of every admission."""
    texts = stays["LOS"].str.strip()
    days: Any = pd.to_numeric(texts, errors="coerce")
    # Empty where no end of the stay is known.
    _refuse_first(~np.isfinite(days) & (texts != ""), stays["LOS"], path, "which is no number")
    stays = stays.assign(days=days.fillna(0.0), begins=_moments(stays, "INTIME", path))
    place = _places(stays, admissions)
    stays = stays.assign(place=place)[place >= 0].sort_values(["begins", "days"])
    units, total = np.full(len(admissions), "none", dtype=object), np.zeros(len(admissions))
    first = stays.drop_duplicates("place")
    units[first["place"]] = first["FIRST_CAREUNIT"]
    np.add.at(total, stays["place"].to_numpy(), stays["days"].to_numpy())
    return units, total


def _chapters(diagnoses: Any, admissions: pd.DataFrame) -> np.ndarray:
    """Which chapters the diagnoses of every admission are of, bool [n, chapters]; what is no code counts for none."""
    codes, distinct = pd.factorize(diagnoses["ICD9_CODE"])
    numbers = {chapter: number for number, chapter in enumerate(CHAPTERS)}
    chapter = np.array([numbers.get(chapter_of(code) or "", -1) for code in distinct])[codes]
    place = _places(diagnoses, admissions)
    counts = (place >= 0) & (chapter >= 0)
    found = np.zeros((len(admissions), len(CHAPTERS)), bool)
    found[place[counts], chapter[counts]] = True
    return found


def _places(rows: Any, admissions: Any) -> np.ndarray:
    """The admission that every row is of, -1 for none; int [m]."""
    return pd.MultiIndex.from_frame(admissions[_KEY]).get_indexer(pd.MultiIndex.from_frame(rows[_KEY]))


def _moments(frame: Any, column: str, path: str) -> np.ndarray:
    """datetime64[s] [n]: in nanoseconds, 300 years overflow."""
    moments: Any = pd.to_datetime(frame[column], format="ISO8601", errors="coerce", utc=True)
    _refuse_first(moments.isna(), frame[column], path, "which is no time as in 2130-01-31 07:15:00")
    return moments.dt.tz_localize(None).to_numpy("datetime64[s]")


def _ethnicity(value: str) -> str:
    return next((group for start, group in _ETHNICITIES.items() if value.strip().upper().startswith(start)), _OTHER)


def _known(values: Any, categories: tuple[str, ...]) -> np.ndarray:
    """The category that a value is, whatever its case; what the documentation does not list is "other", if there is."""
    by_text = {category.casefold(): category for category in categories}
    other = _OTHER if _OTHER in categories else None
    return np.array([by_text.get(str(value).strip().casefold(), other or value) for value in values], dtype=object)


def _refuse_first(is_wrong: Any, values: Any, path: str, what: str) -> None:
    rows = np.flatnonzero(np.asarray(is_wrong))
    if len(rows):
        held = values.iloc[rows[0]]
        raise UserError(f"column {values.name!r} of {path}, row {rows[0] + 1}, holds {held!r}, {what}: {_REMEDY}")
