"""MIMIC-III from a PhysioNet folder: a tiny one made here, in both spellings, and the open demo where it is at hand."""

import collections
import csv
import dataclasses
import datetime
import gzip
import itertools
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from privsyn_jax.data import DATASETS, mimic3
from privsyn_jax.data.schema_check import check_schema
from privsyn_jax.privacy.ledger import Ledger
from privsyn_jax.run import execute
from privsyn_jax.settings import DataSettings, settings_from_dict
from privsyn_jax.types import UserError

HEADERS = {
    "PATIENTS": "ROW_ID,SUBJECT_ID,GENDER,DOB,DOD,EXPIRE_FLAG",
    "ADMISSIONS": "ROW_ID,SUBJECT_ID,HADM_ID,ADMITTIME,DISCHTIME,DEATHTIME,ADMISSION_TYPE,ADMISSION_LOCATION,INSURANCE,"
    "ETHNICITY,DIAGNOSIS,HOSPITAL_EXPIRE_FLAG",
    "ICUSTAYS": "ROW_ID,SUBJECT_ID,HADM_ID,ICUSTAY_ID,FIRST_CAREUNIT,INTIME,OUTTIME,LOS",
    "DIAGNOSES_ICD": "ROW_ID,SUBJECT_ID,HADM_ID,SEQ_NUM,ICD9_CODE",
}
ORDINARY, THE_ONE = 110, "7"  # patients with one admission each, and the one whose rows tests change


def patient(subject=THE_ONE, gender="F", born="2080-06-15 00:00:00"):
    return ["1", subject, gender, born, "", "0"]


def admission(number, admitted, discharged, *, subject=THE_ONE, kind="EMERGENCY", ethnicity="WHITE", died="0", **other):
    location, insurance = other.get("location", "EMERGENCY ROOM ADMIT"), other.get("insurance", "Medicare")
    return ["1", subject, number, admitted, discharged, "", kind, location, insurance, ethnicity, "SEPSIS, NOS", died]


def ordinary():
    """Tables without the one patient."""
    tables = {name: [] for name in HEADERS}
    for number in range(ORDINARY):
        subject, stay = str(1000 + number), str(5000 + number)
        tables["PATIENTS"].append(patient(subject, "FM"[number % 2]))
        tables["ADMISSIONS"].append(
            admission(stay, "2140-01-01 10:00:00", f"2140-01-{2 + number % 9:02d} 10:00:00", subject=subject,
                      died=str(int(number % 5 == 0)))
        )  # fmt: skip
        tables["ICUSTAYS"].append(["1", subject, stay, "1", "MICU", "2140-01-01 11:00:00", "", "1.5"])
        tables["DIAGNOSES_ICD"].append(["1", subject, stay, "1", "4019"])
    return tables


def write(folder, tables, *, lower=False, suffix=".csv"):
    """A folder as PhysioNet has it."""
    folder.mkdir(exist_ok=True)
    for name, rows in tables.items():
        header = HEADERS[name].lower() if lower else HEADERS[name]
        path = folder / f"{name.lower() if lower else name}{suffix}"
        opener = gzip.open if suffix.endswith(".gz") else open
        with opener(path, "wt", newline="") as file:
            csv.writer(file).writerows([header.split(","), *rows])
    return str(folder)


def opened(private):
    return private.open(Ledger().charge("test", "all", "test", {"kind": "pure", "epsilon": 1.0, "count": 1}))


def rows_of(folder, **settings):
    """All admissions as they are loaded, in order of time within a patient."""
    data = DataSettings(name="mimic3", dir=folder, **{"max_records_per_unit": 50, **settings})
    records = DATASETS["mimic3"].load(data, mimic3.read_schema(data))
    return pd.concat([opened(records.train), opened(records.test)])


def the_one(tmp_path, *admissions, born="2080-06-15 00:00:00", icu=(), diagnoses=()):
    tables = ordinary()
    tables["PATIENTS"].append(patient(born=born))
    tables["ADMISSIONS"] += admissions
    tables["ICUSTAYS"] += icu
    tables["DIAGNOSES_ICD"] += diagnoses
    frame = rows_of(write(tmp_path / "mimic", tables))
    return frame[frame["subject_id"] == THE_ONE]


def test_both_spellings_and_compressions_give_the_same_records(tmp_path):
    tables = ordinary()
    full = write(tmp_path / "full", tables, suffix=".csv.gz")
    demo = write(tmp_path / "demo", tables, lower=True)
    pd.testing.assert_frame_equal(rows_of(full), rows_of(demo))
    frame = rows_of(full)
    assert len(frame) == ORDINARY and frame["sex"].value_counts().to_dict() == {"F": 55, "M": 55}
    assert set(frame["hospital_days"]) == {float(days) for days in range(1, 10)}
    assert frame["hospital_death"].sum() == ORDINARY // 5 and (frame["icu_days"] == 1.5).all()
    assert frame["icd_circulatory"].all() and not frame.filter(like="icd_").drop(columns="icd_circulatory").any(
        axis=None
    )


@pytest.mark.parametrize(
    "born, admitted, age",
    [
        ("2080-06-15 00:00:00", "2140-06-14 23:00:00", 59),
        ("2080-06-15 00:00:00", "2140-06-15 01:00:00", 60),
        ("1840-06-15 00:00:00", "2140-06-20 01:00:00", 90),  # a shifted date of birth
        ("2050-06-15 00:00:00", "2140-06-14 01:00:00", 89),
        ("2140-06-15 00:00:00", "2140-06-15 04:00:00", 0),
    ],
)
def test_ages(tmp_path, born, admitted, age):
    found = the_one(tmp_path, admission("1", admitted, "2140-07-01 00:00:00"), born=born)
    assert found["age"].tolist() == [age]


def test_prior_admissions_and_readmissions(tmp_path):
    found = the_one(
        tmp_path,
        admission("3", "2143-01-01 00:00:00", "2143-02-01 00:00:00", died="1"),
        admission("1", "2140-01-01 00:00:00", "2140-01-05 00:00:00"),
        admission("2", "2140-02-04 00:00:00", "2140-02-06 00:00:00"),  # exactly 30 days later
        admission("4", "2143-02-02 00:00:00", "2143-02-02 00:00:00"),  # of an organ donor
    ).sort_values("prior_admissions")
    assert found["prior_admissions"].tolist() == [0, 1, 2, 3]
    assert found["readmitted_30_days"].tolist() == [True, False, False, False]
    assert found["hospital_death"].tolist() == [False, False, True, False]
    assert found["hospital_days"].tolist() == [4.0, 2.0, 31.0, 0.0]


def test_a_patient_with_a_thousand_admissions(tmp_path):
    start = datetime.datetime(2100, 1, 1)
    tables = ordinary()
    tables["PATIENTS"].append(patient())
    for number in range(1000):
        times = (str(start + datetime.timedelta(days=10 * number + part)) for part in (0, 1))
        tables["ADMISSIONS"].append(admission(str(number), *times))
    folder = write(tmp_path / "mimic", tables)
    for most in (0, 1, 5):
        frame = rows_of(folder, max_records_per_unit=most)
        found = frame[frame["subject_id"] == THE_ONE]
        assert len(found) == (most or 3) and len(frame) == ORDINARY + len(found)
        assert found["prior_admissions"].max() <= mimic3.TOP_PRIOR_ADMISSIONS
    others = frame[frame["subject_id"] != THE_ONE]
    alone = rows_of(write(tmp_path / "without", ordinary()))
    assert sorted(others.astype(str).agg("|".join, axis=1)) == sorted(alone.astype(str).agg("|".join, axis=1))


def test_stays_in_intensive_care(tmp_path):
    found = the_one(
        tmp_path,
        admission("1", "2140-01-01 00:00:00", "2140-01-20 00:00:00"),
        admission("2", "2141-01-01 00:00:00", "2141-01-20 00:00:00"),
        icu=[
            ["1", THE_ONE, "1", "1", "SICU", "2140-01-09 00:00:00", "", "2.25"],
            ["1", THE_ONE, "1", "2", "CCU", "2140-01-02 00:00:00", "", "1.5"],
            ["1", THE_ONE, "1", "3", "TSICU", "2140-01-12 00:00:00", "", ""],
            ["1", "1000", "1", "4", "NICU", "2140-01-01 00:00:00", "", "9"],  # of another patient, by mistake
        ],
    ).sort_values("prior_admissions")
    assert found["first_care_unit"].tolist() == ["CCU", "none"] and found["icu_days"].tolist() == [3.75, 0.0]


def test_diagnoses_become_chapters(tmp_path):
    codes = ["0389", "V4581", "E8497", "2500", "99591", " 630 ", "junk", "", "0"]
    found = the_one(
        tmp_path,
        admission("1", "2140-01-01 00:00:00", "2140-01-20 00:00:00"),
        diagnoses=[["1", THE_ONE, "1", str(number), code] for number, code in enumerate(codes)]
        + [["1", THE_ONE, "77", "1", "4019"], ["1", "1000", "1", "1", "4019"]],
    )
    flags = found.filter(like="icd_").iloc[0]
    wanted = {"infectious", "supplementary", "external_causes", "endocrine", "injury", "pregnancy"}
    assert {name.removeprefix("icd_") for name in flags.index[flags.astype(bool)]} == wanted


@pytest.mark.parametrize(
    "code, chapter",
    [("001", "infectious"), ("1398", "infectious"), ("140", "neoplasms"), ("2399", "neoplasms"), ("28", None),
     ("279", "endocrine"), ("280", "blood"), ("319", "mental"), ("389", "nervous"), ("4599", "circulatory"),
     ("460", "respiratory"), ("579", "digestive"), ("629", "genitourinary"), ("679", "pregnancy"), ("709", "skin"),
     ("739", "musculoskeletal"), ("7469", "congenital"), ("76518", "perinatal"), ("78552", "symptoms"),
     ("800", "injury"), ("9999", "injury"), ("v270", "supplementary"), ("e8788", "external_causes"), ("000", None)],
)  # fmt: skip
def test_chapters_end_where_the_classification_says(code, chapter):
    assert mimic3.chapter_of(code) == chapter
    assert len(mimic3.CHAPTERS) == 19


def test_what_the_documentation_does_not_list_is_other(tmp_path):
    found = the_one(
        tmp_path,
        admission("1", "2140-01-01 00:00:00", "2140-01-02 00:00:00", kind="WALK-IN", ethnicity="MARTIAN",
                  location="SPACESHIP", insurance=""),
        admission("2", "2141-01-01 00:00:00", "2141-01-02 00:00:00", kind="newborn", ethnicity="HISPANIC OR LATINO",
                  location="** INFO NOT AVAILABLE **", insurance="Self Pay"),
        admission("3", "2142-01-01 00:00:00", "2142-01-02 00:00:00", ethnicity="UNABLE TO OBTAIN"),
    ).sort_values("prior_admissions")  # fmt: skip
    assert found["ethnicity"].tolist() == ["other", "hispanic", "unknown"]
    assert found["admission_type"].tolist() == ["other", "NEWBORN", "EMERGENCY"]
    assert found["admission_location"].tolist() == ["other", "other", "EMERGENCY ROOM ADMIT"]
    assert found["insurance"].tolist() == ["other", "Self Pay", "Medicare"]


def test_patients_are_not_on_both_sides(tmp_path):
    tables = ordinary()
    for number, row in enumerate(list(tables["ADMISSIONS"])):
        tables["ADMISSIONS"].append([*row[:2], f"9{number}", "2150-01-01 00:00:00", "2150-01-03 00:00:00", *row[5:]])
    data = DataSettings(name="mimic3", dir=write(tmp_path / "mimic", tables))
    records = DATASETS["mimic3"].load(data, mimic3.read_schema(data))
    train, test = opened(records.train), opened(records.test)
    assert not set(train["subject_id"]) & set(test["subject_id"]) and len(train) + len(test) == 2 * ORDINARY


def test_the_schema_is_public_and_has_the_target_that_is_asked_for():
    schema = mimic3.read_schema(DataSettings(name="mimic3"))  # without a folder
    check_schema(schema)
    assert (schema.target, schema.privacy_unit, schema.rows_per_unit) == ("hospital_death", "patient", 3)
    assert (schema.num_records, schema.num_units) == (round(58_976 * 0.7), round(46_520 * 0.7))
    demo = mimic3.read_demo_schema(DataSettings(target="hospital_days", max_records_per_unit=5))
    assert (demo.target, demo.num_units, demo.rows_per_unit) == ("hospital_days", 70, 5)
    assert all(column.declared_public == () for column in schema.columns)
    with pytest.raises(
        UserError, match=r"data\.target is 'age', which is no outcome of MIMIC-III: use one of hospital"
    ):
        mimic3.read_schema(DataSettings(target="age"))


def without(tables, name):
    return {other: rows for other, rows in tables.items() if other != name}


def changed(tables, name, column, value, row=6):
    place = HEADERS[name].split(",").index(column)
    rows = [list(held) for held in tables[name]]
    rows[row][place] = value
    return {**tables, name: rows}


@pytest.mark.parametrize(
    "change, problem",
    [
        (lambda t: without(t, "ICUSTAYS"), "ICUSTAYS.csv or ICUSTAYS.csv.gz is not in"),
        (lambda t: {**t, "DIAGNOSES_ICD": []}, "DIAGNOSES_ICD.csv has a header but no rows: "),
        (lambda t: changed(t, "ADMISSIONS", "ADMITTIME", "soon"), "'ADMITTIME' of {}ADMISSIONS.csv, row 7, holds 'so"),
        (lambda t: changed(t, "PATIENTS", "DOB", ""), "'DOB' of {}PATIENTS.csv, row 7, holds '', which is no time"),
        (lambda t: changed(t, "ICUSTAYS", "LOS", "long"), "'LOS' of {}ICUSTAYS.csv, row 7, holds 'long', which is no"),
        (lambda t: changed(t, "ADMISSIONS", "HADM_ID", "5000"), "'HADM_ID' of {}ADMISSIONS.csv, row 7, holds '5000'"),
        (lambda t: changed(t, "PATIENTS", "SUBJECT_ID", "1000"), "holds '1000', which is there twice"),
        (lambda t: changed(t, "ADMISSIONS", "SUBJECT_ID", "99"), "holds '99', which PATIENTS does not list"),
        (lambda t: changed(t, "ADMISSIONS", "HOSPITAL_EXPIRE_FLAG", "2"), "'hospital_death' of MIMIC-III, row 7"),
        (lambda t: changed(t, "PATIENTS", "GENDER", "X"), "column 'sex' of MIMIC-III, row 7, holds 'X'"),
        (lambda t: {name: rows[:99] for name, rows in t.items()}, "MIMIC-III has 99 rows, too few to learn from"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence_that_names_the_table(tmp_path, change, problem):
    folder = write(tmp_path / "mimic", change(ordinary()))
    with pytest.raises(UserError) as caught:
        rows_of(folder)
    message = str(caught.value)
    assert problem.format(f"{folder}/") in message and "\n" not in message


def test_a_missing_folder_or_column_is_named(tmp_path):
    with pytest.raises(UserError, match=r"data.dir is not given: give the folder that holds PATIENTS, ADMISSIONS"):
        rows_of("")
    folder = write(tmp_path / "mimic", ordinary())
    path = Path(folder) / "ADMISSIONS.csv"
    path.write_text(path.read_text().replace("INSURANCE", "PAYER", 1))
    with pytest.raises(UserError, match=r"ADMISSIONS.csv has no column 'INSURANCE': take the tables"):
        rows_of(folder)


@pytest.fixture(scope="session")
def demo_dir():
    """Folder of the open demo: $PRIVSYN_DATA_DIR/mimic3_demo, or shared/data/mimic3_demo beside the checkout."""
    base = os.environ.get("PRIVSYN_DATA_DIR", Path(__file__).parents[2] / "shared" / "data")
    folder = Path(base) / "mimic3_demo"
    if not folder.is_dir():
        pytest.skip("the MIMIC-III demo is absent: set PRIVSYN_DATA_DIR to the folder that holds mimic3_demo/")
    return str(folder)


def test_the_demo_counted_by_hand(demo_dir):
    frame = rows_of(demo_dir)
    with gzip.open(f"{demo_dir}/ADMISSIONS.csv.gz", "rt") as file:
        admissions = sorted(csv.DictReader(file), key=lambda row: (row["subject_id"], row["admittime"]))
    times = {row["hadm_id"]: datetime.datetime.fromisoformat(row["dischtime"]) for row in admissions}
    seen, readmitted = collections.Counter(), 0
    for before, after in itertools.pairwise(admissions):
        gap = datetime.datetime.fromisoformat(after["admittime"]) - times[before["hadm_id"]]
        same = before["subject_id"] == after["subject_id"]
        readmitted += same and gap <= datetime.timedelta(days=30) and before["hospital_expire_flag"] == "0"
    seen.update(row["subject_id"] for row in admissions)
    assert len(frame) == len(admissions) == 129 and frame["subject_id"].value_counts().to_dict() == dict(seen)
    assert frame["hospital_death"].sum() == 40 and frame["readmitted_30_days"].sum() == readmitted > 0
    assert frame["hospital_days"].max() == 100.0 and frame["age"].max() == 90 and (frame["icu_days"] > 0).all()
    with gzip.open(f"{demo_dir}/DIAGNOSES_ICD.csv.gz", "rt") as file:
        hearts = {row["hadm_id"] for row in csv.DictReader(file) if "390" <= row["icd9_code"][:3] <= "459"}
    assert frame["icd_circulatory"].sum() == len(hearts)


@pytest.mark.slow
def test_the_demo_from_start_to_report(demo_dir, tmp_path):
    settings = settings_from_dict(
        {
            "data": {"name": "mimic3_demo", "dir": demo_dir},
            "model": {"width": 8, "num_layers": 1, "num_calibration_rows": 256},
            "privacy": {"delta": 1e-3},
            "training": {"num_steps": 4, "expected_batch_size": 16},
            "synthesis": {"num_samples": 200},
        }
    )
    execute(settings, tmp_path / "run", announce=lambda message: None)
    page = (tmp_path / "run" / "private" / "report.html").read_text()
    assert (
        "up to 3 rows of one" in (tmp_path / "run" / "release" / "privacy_report.md").read_text() and "patient" in page
    )
    synthetic = pd.read_csv(tmp_path / "run" / "release" / "synthetic.csv")
    assert len(synthetic) == 200 and synthetic["age"].between(0, 90).all() and synthetic["subject_id"].is_unique
    assert dataclasses.is_dataclass(settings) and np.isfinite(synthetic["hospital_days"]).all()
