"""Which real records an evaluation is about, for every kind of them, and what of it a comparison looks at."""

import dataclasses
import json
import types

import numpy as np
import pandas as pd
import pytest

from privsyn_jax.comparison import evaluate_records, read_baseline
from privsyn_jax.data.images.schema import image_schema_to_dict
from privsyn_jax.data.schema import schema_to_dict
from privsyn_jax.data.texts.schema import text_schema_to_dict
from privsyn_jax.evaluation_settings import EvaluationSettings
from privsyn_jax.settings import Settings
from privsyn_jax.types import Column, Images, ImageSchema, Schema, Texts, TextSchema, UserError

SETTINGS = Settings(evaluation=EvaluationSettings(num_seeds=2, net_seeds=2))


def tables(changed):
    schema = Schema(
        (Column("x", "numeric", 0, 9), Column("c", "categorical", categories=("a", 7)), Column("i", "id")), 3
    )
    frame = pd.DataFrame({"x": [1.0, np.nan, 2.0], "c": np.array(["a", 7, None], object), "i": [1, 2, 3]})
    if changed:
        frame.loc[2, "x"] = 2.5
    return schema, schema_to_dict, frame


def images(changed):
    pixels = np.zeros((3, 2, 2, 1), np.uint8)
    pixels[2, 1, 1, 0] = changed
    return ImageSchema((2, 2, 1), ("a", "b"), 3), image_schema_to_dict, Images(pixels, np.array([0, 1, 0], np.int32))


def texts(changed):
    found = np.array(["one", "two", "thrée!" if changed else "thrée"], object)
    return TextSchema(("a", "b"), 3), text_schema_to_dict, Texts(found, np.array([0, 1, 0], np.int32))


def evaluated(kind, folder, *, changed=False, baseline=None, settings=SETTINGS, num_records=3):
    """What is written, with scores that depend on nothing."""
    schema, to_dict, records = kind(changed)
    folder = folder / "private" / "evaluation"
    folder.mkdir(parents=True, exist_ok=True)
    score = {"model": "m", "trained_on": "synthetic", "metric": "accuracy", "values": [0.5, 0.7]}

    def evaluate(*arguments):
        del arguments
        tests = {"seed": 0, "num_seeds": 2, "scores": [score]}
        (folder / "details.json").write_text(json.dumps({"tests": tests, "skipped": []}))

    modality = types.SimpleNamespace(schema_to_dict=to_dict, evaluate=evaluate)
    schema = dataclasses.replace(schema, num_records=num_records)
    real = (records, kind(False)[2])
    lines = evaluate_records(modality, None, *real, None, schema, settings, folder, print, baseline=baseline)
    return json.loads((folder / "details.json").read_text()), lines


@pytest.mark.parametrize("kind", [tables, images, texts])
def test_any_change_of_a_real_record_is_seen_and_public_figures_are_not(kind, tmp_path):
    first, _ = evaluated(kind, tmp_path / "first")
    again, _ = evaluated(kind, tmp_path / "again", num_records=4)
    assert first["evaluated_on"] == again["evaluated_on"]
    baseline = read_baseline(tmp_path / "first", None)
    found, lines = evaluated(kind, tmp_path / "again", baseline=baseline)
    assert lines == ["accuracy minus that of first, 2 seeds, paired: m +0.0000 (p 1)"]
    assert found["tests"]["against_baseline"][0]["baseline"] == "first"
    with pytest.raises(UserError, match="other real records"):
        evaluated(kind, tmp_path / "other", changed=True, baseline=baseline)
    assert not (tmp_path / "other" / "private" / "evaluation" / "details.json").exists()


@pytest.mark.parametrize(("kind", "field"), [(tables, "num_seeds"), (images, "net_seeds"), (texts, "net_seeds")])
def test_seeds_are_those_of_the_kind_of_records(kind, field, tmp_path):
    evaluated(kind, tmp_path / "first")
    baseline = read_baseline(tmp_path / "first", "x")
    for number, message in ((0, "--num-seeds=5"), (3, "num_seeds 2 there, 3 here")):
        evaluation = dataclasses.replace(SETTINGS.evaluation, **{field: number})
        with pytest.raises(UserError, match=message):
            other = dataclasses.replace(SETTINGS, evaluation=evaluation)
            evaluated(kind, tmp_path / "other", baseline=baseline, settings=other)


def test_ids_do_not_make_records_other_ones(tmp_path):
    first, _ = evaluated(tables, tmp_path / "first")
    schema, to_dict, frame = tables(False)
    again, _ = evaluated(lambda changed: (schema, to_dict, frame.assign(i=[7, 8, 9])), tmp_path / "again")
    assert first["evaluated_on"] == again["evaluated_on"]
