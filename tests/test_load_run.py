"""Looking into the folders of runs and studies: what is there, what is not yet, and what is marked as private."""

import json

import numpy as np
import pandas as pd
import pytest

import privsyn_jax
from privsyn_jax import Images, ImageSchema, UserError
from privsyn_jax.data.procedural import procedural_images
from privsyn_jax.evaluation.attacks import membership_result, result_to_dict
from privsyn_jax.files import write_json
from privsyn_jax.modalities import IMAGES, TEXTS
from privsyn_jax.plan import make_plan
from privsyn_jax.privacy.ledger import Ledger
from privsyn_jax.run import execute
from privsyn_jax.settings import settings_from_dict
from privsyn_jax.types import Column, Schema, Texts, TextSchema
from privsyn_jax.views import html_parts, plots
from privsyn_jax.views.private_frame import PrivateFrame
from privsyn_jax.workdir import PRIVATE_NOTICE

NUM_ROWS = 400
SCHEMA = {
    "columns": {
        "age": {"kind": "numeric", "lower": 0, "upper": 100},
        "sex": {"kind": "categorical", "categories": ["f", "m"]},
        "ill": {"kind": "boolean", "categories": ["no", "yes"]},
    },
    "num_records": 300,
    "target": "ill",
}
SETTINGS = {
    "model": {"name": "tvae", "latent_dim": 2, "hidden_dims": (8,)},
    "training": {"num_steps": 4, "steps_per_dispatch": 2, "expected_batch_size": 32, "microbatch_size": 32},
    "privacy": {"seed": 0, "schedule": {"noise": "linear"}},
    "synthesis": {"num_samples": 200},
    "evaluation": {"enabled": False},  # what it would leave is written by `measured`
}
METRICS = [
    {"family": "fidelity", "metric": "emd", "value": 0.2, "reference": 0.1, "column": "age", "seed": 0},
    {"family": "utility", "metric": "auc", "value": 0.6, "reference": 0.7, "column": None, "seed": 0},
]


class Stopped(Exception):
    """In place of a kill."""


def written(folder):
    """Settings of the data: a table and its schema, as files."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "age": rng.normal(50, 10, NUM_ROWS).round(1),
            "sex": rng.choice(["f", "m"], NUM_ROWS),
            "ill": rng.choice(["no", "yes"], NUM_ROWS),
        }
    )
    frame.to_csv(folder / "data.csv", index=False)
    (folder / "schema.json").write_text(json.dumps(SCHEMA))
    return {"path": str(folder / "data.csv"), "schema": str(folder / "schema.json")}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A run that was stopped after training, and the same run, finished."""
    base = tmp_path_factory.mktemp("runs")
    folder, settings = base / "run", settings_from_dict({**SETTINGS, "data": written(base)})

    def stop(message):
        if message == "sampling":
            raise Stopped

    with pytest.raises(Stopped):
        execute(settings, folder, announce=stop)
    unfinished = folder.with_name("unfinished")
    unfinished.mkdir()
    for source in (folder, folder / "private"):
        target = unfinished / source.relative_to(folder)
        target.mkdir(exist_ok=True)
        for file in source.iterdir():
            if file.is_file():
                (target / file.name).write_bytes(file.read_bytes())
    execute(settings, folder, announce=lambda message: None)
    measured(folder / "private")
    return unfinished, folder


def measured(private):
    """Writes metrics, an attack on the records and one by shadow generators."""
    write_json(private / "evaluation/metrics.json", METRICS)
    for file, name, shift in (("attacks", "distance", 0.0), ("shadows", "shadow", 1.0)):
        members, controls = (np.random.default_rng(0).normal(mean, 1.0, 200) for mean in (shift, 0.0))
        result = result_to_dict(membership_result(name, members, controls, seed=0))
        write_json(private / f"attacks/{file}.json", {"notice": PRIVATE_NOTICE, "results": [result], "skipped": []})


@pytest.fixture(scope="module")
def finished(folders):
    return privsyn_jax.load_run(folders[1])


def test_a_finished_run_as_frames(finished):
    report = json.loads((finished.workdir.release / "privacy_report.json").read_text())
    assert dict(finished.privacy) == report
    assert list(finished.ledger["name"]) == [entry["name"] for entry in report["ledger"]]
    assert finished.settings["training.num_steps"] == 4 and finished.settings["model.name"] == "tvae"
    plan = finished.plan
    assert list(plan["name"]) == ["histograms", "latent prior", "training, level 1", "training, level 2"]
    assert plan["num_steps"].sum() == 4
    assert list(finished.metrics["value"]) == [0.2, 0.6] and list(finished.metrics["reference"]) == [0.1, 0.7]
    assert list(finished.timing["stage"]) == ["sampling"]  # of the second attempt
    released = pd.read_csv(finished.workdir.release / "synthetic.csv")
    assert list(finished.synthetic["age"]) == list(released["age"])
    assert len(finished.model().sample(3)) == 3


def test_attacks_have_a_row_for_every_metric(finished):
    found = finished.attacks.set_index(["attack", "metric"])
    assert list(found.index) == [
        (attack, metric) for attack in ("distance", "shadow") for metric in ("auc", "advantage", "tpr_at_fpr_0.01")
    ]
    assert (found["low"] <= found["value"]).all() and (found["value"] <= found["high"]).all()
    assert found.loc[("distance", "auc"), "baseline"] == 0.5 and not found.loc[("distance", "auc"), "is_detected"]
    assert found.loc[("shadow", "auc"), "value"] > 0.7 and found.loc[("shadow", "auc"), "is_detected"]


def test_the_training_log_stands_beside_what_each_step_ran_with(finished):
    log = finished.training
    assert list(log["step"]) == [1, 2, 3, 4]
    levels = [block["noise_multiplier"] for block in finished.privacy["path"]]
    assert levels[0] > levels[1]
    np.testing.assert_array_equal(log["noise_multiplier"], np.repeat(levels, 2))
    assert np.isfinite(log[["loss", "grad_norm", "clip_fraction"]]).all(axis=None)


def test_epsilon_over_steps_ends_at_what_was_spent(finished):
    curve = finished.epsilon_over_steps
    assert list(curve["step"]) == [0, 1, 2, 3, 4] and (np.diff(curve["epsilon"]) > 0).all()
    assert curve["epsilon"].iloc[-1] == pytest.approx(finished.privacy["epsilon"], rel=1e-3)
    assert finished.training["epsilon"].iloc[-1] == curve["epsilon"].iloc[-1]


def test_real_records_are_those_of_the_run(finished):
    train, test = finished.real()
    assert len(train) + len(test) == NUM_ROWS and set(train.columns) == set(finished.synthetic.columns)


def test_what_came_from_the_private_folder_says_so_and_so_do_its_parts(finished):
    for name in ("training", "metrics", "attacks", "timing"):
        frame = getattr(finished, name)
        part = frame.head(2)[list(frame.columns[:2])]
        for shown in (frame, part):
            assert PRIVATE_NOTICE in repr(shown) and PRIVATE_NOTICE in shown._repr_html_()
    assert not isinstance(finished.plan, PrivateFrame) and not isinstance(finished.ledger, PrivateFrame)
    assert PRIVATE_NOTICE in repr(finished) and PRIVATE_NOTICE in finished._repr_html_()
    assert "SEEDED NOISE" in finished._repr_html_() and "SEEDED NOISE" in finished.privacy._repr_html_()


def test_plots_show_the_notice_where_real_records_went_in(finished):
    private = [finished.plot_training(), finished.plot_attacks(), finished.plot_marginals(finished.real().test)]
    public = [finished.plot_epsilon(), finished.plot_marginals()]
    for drawing in (*private, *public):
        assert drawing._repr_png_().startswith(b"\x89PNG")
    assert all(drawing.get_supxlabel() == PRIVATE_NOTICE for drawing in private)
    assert all(drawing.get_supxlabel() == "" for drawing in public)
    assert len(public[1].axes) >= len(finished.schema.modelled)


def test_an_unfinished_run_shows_what_is_there(folders):
    run = privsyn_jax.load_run(folders[0])
    assert len(run.training) == 4 and len(run.plan) == 4
    assert run.metrics.empty and run.attacks.empty and run.timing.empty
    assert isinstance(run.ledger, PrivateFrame) and "training" in set(run.ledger["name"])
    assert run.epsilon_over_steps["epsilon"].iloc[-1] > 0
    assert "nothing is released yet" in repr(run)
    for ask in (lambda: run.privacy, lambda: run.synthetic):
        with pytest.raises(UserError, match="has not released anything yet"):
            ask()
    with pytest.raises(UserError, match="nothing to plot: no attack was made"):
        run.plot_attacks()
    with pytest.raises(UserError, match="holds no finished run"):
        run.real()


def test_other_folders_and_damaged_files_are_refused(folders, tmp_path):
    for load in (privsyn_jax.load_run, privsyn_jax.load_study):
        with pytest.raises(UserError, match=r"holds no .*name the --workdir"):
            load(tmp_path)
    (tmp_path / "private").mkdir()
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        privsyn_jax.load_run(tmp_path).settings  # noqa: B018
    with pytest.raises(UserError, match="which are no images"):
        privsyn_jax.load_run(folders[1]).plot_samples()


def made_up(folder, modality, records, schema):
    """A folder with the released records of a run, and no more than is read of them."""
    for part in (folder / "private", folder / "release"):
        part.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "private/source.json").write_text(json.dumps({"schema": modality.schema_to_dict(schema)}))
    modality.write(records, schema, folder / "release")
    return privsyn_jax.load_run(folder)


def test_images_and_texts(tmp_path):
    schema = ImageSchema((8, 8, 1), ("a", "b"), num_records=10)
    images = procedural_images(schema.shape, 6, num_classes=2, seed=0)
    run = made_up(tmp_path / "images", IMAGES, images, schema)
    np.testing.assert_array_equal(run.synthetic.pixels, images.pixels)
    assert isinstance(run.synthetic, Images) and run.plot_samples()._repr_png_().startswith(b"\x89PNG")
    schema = TextSchema(("bad", "good"), num_records=10)
    texts = Texts(np.array(["one", "two"], object), np.array([1, 0], np.int32))
    run = made_up(tmp_path / "texts", TEXTS, texts, schema)
    assert run.synthetic.to_dict("list") == {"text": ["one", "two"], "label": ["good", "bad"]}
    with pytest.raises(UserError, match="made texts, which have no columns"):
        run.plot_marginals()


def test_a_study(tmp_path):
    private = tmp_path / "private"
    private.mkdir()
    cells = [(model, epsilon, who, seed) for model in "ab" for epsilon in (1, 2) for who in "xy" for seed in (0, 1)]
    results = pd.DataFrame(cells, columns=["model", "epsilon", "contestant", "seed"]).assign(auc=0.5)
    (private / "results.csv").write_text(f"# {PRIVATE_NOTICE}\n{results.to_csv(index=False)}")
    (private / "comparison.csv").write_text(f"# {PRIVATE_NOTICE}\n\n")
    study = privsyn_jax.load_study(tmp_path)
    pd.testing.assert_frame_equal(pd.DataFrame(study.results), results)
    assert study.comparison.empty and study.frontier.empty and study.tests.empty
    assert study.plot("auc").get_supxlabel() == PRIVATE_NOTICE
    assert PRIVATE_NOTICE in repr(study.results) and "results.csv" in study._repr_html_()
    with pytest.raises(UserError, match="metric 'f1' is in no run"):
        study.plot("f1")


def test_what_objects_show_is_escaped_and_says_what_holds():
    evil = "<script>alert(1)</script>"
    schema = Schema((Column(evil, "categorical", categories=(evil, "b")), Column("n", "integer", 0, 9)), 500)
    ledger = Ledger()
    ledger.charge(evil, "all", "sum", {"kind": "gaussian", "noise_multiplier": 2.0, "count": 1})
    plan = make_plan(settings_from_dict({"privacy": {"epsilon": float("inf")}}), schema)
    result = membership_result(evil, np.arange(60.0), np.arange(60.0), seed=0)
    shown = {name: thing._repr_html_() for name, thing in vars_of(schema, ledger, plan, result).items()}
    assert all("<script>" not in html for html in shown.values())
    assert "&lt;script&gt;" in shown["schema"] and "0 to 9" in shown["schema"]
    assert "NOT PRIVATE" in shown["plan"] and "PRIVATE" in shown["result"] and "noise_multiplier" in shown["ledger"]


def vars_of(schema, ledger, plan, result):
    return {"schema": schema, "ledger": ledger, "plan": plan, "result": result}


def test_a_table_cell_is_a_number_a_text_or_a_dash():
    cells = html_parts.table(("a", "b"), [(None, 0.123456), (float("nan"), "<b>")])
    assert cells.count("—") == 2 and "0.1235" in cells and "&lt;b&gt;" in cells


def test_categories_keep_their_order_and_dates_are_years():
    schema = Schema(
        (Column("grade", "ordinal", categories=("low", "high")), Column("day", "datetime", "2020-01-01", "2020-12-31")),
        num_records=10,
    )
    frame = pd.DataFrame({"grade": ["high", "high", "low"], "day": pd.to_datetime(["2020-07-01"] * 3)})
    grade, day = plots.marginals(schema, frame).axes[:2]
    odd = plots.marginals(schema, frame.assign(grade=["none", "high", "high"])).axes[0]
    assert [label.get_text() for label in odd.get_yticklabels()] == ["high", "none"]
    assert [label.get_text() for label in grade.get_yticklabels()] == ["low", "high"]
    np.testing.assert_allclose(day.dataLim.intervalx.mean(), 2020.5, atol=0.01)
