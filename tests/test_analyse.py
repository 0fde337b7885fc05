"""What a study is said to show: also before all of its runs are done, and of several kinds of data."""

import math

import pandas as pd
import pytest

from privsyn_jax.evaluation.statistics import holm, paired
from privsyn_jax.study import figures
from privsyn_jax.study.analyse import analyse
from privsyn_jax.study.cells import Cells
from privsyn_jax.study.execute import _now_and_then
from privsyn_jax.study.plan import Study
from privsyn_jax.study.report import markdown
from privsyn_jax.types import UserError

LEAK = "shadow_posteriors_auc"
STUDY = Study(
    models={
        "table_vae": {"data": {"name": "rand_hie"}, "model": {"name": "tvae"}},
        "table_mst": {"data": {"name": "rand_hie"}, "model": {"name": "mst"}},
        "digits_dcgan": {"data": {"name": "digits"}, "model": {"name": "dcgan"}},
    },
    contestants={"ours": {}, "slow": {"training.learning_rate": 1e-4}},
    baseline="ours",
    epsilons=(1.0, math.inf),
    seeds=(0, 1, 2),
    metrics=("logistic_regression_auc", "mean_accuracy", LEAK),
    tuning=None,
)
UTILITY = {"tables": "logistic_regression_auc", "images": "mean_accuracy"}


def value(model: str, contestant: str, epsilon: float, seed: int) -> float:
    """Larger without noise, smaller for "slow"; the seeds move all of a kind together, and each a little."""
    own = {"table_vae": 0.8, "table_mst": 0.85, "digits_dcgan": 0.3}[model]
    return own + 0.05 * (epsilon > 1) - 0.1 * (contestant == "slow") + 0.01 * seed + 0.001 * seed * (epsilon > 1)


def leak(model: str, contestant: str, epsilon: float, seed: int) -> float:
    return 0.5 + 0.1 * (epsilon > 1) + 0.05 * (model == "table_vae") + 0.002 * seed * (contestant == "slow")


def runs_of(study: Study) -> list[dict]:
    return [
        {
            "model": model, **study.kind(model)._asdict(), "epsilon": epsilon, "contestant": contestant, "seed": seed,
            UTILITY[study.kind(model).modality]: value(model, contestant, epsilon, seed),
            LEAK: leak(model, contestant, epsilon, seed),
            f"real {UTILITY[study.kind(model).modality]}": 0.95, f"real {LEAK}": 0.5,
            "logistic_regression_equalized_odds_difference_sex": 0.2,
            "epsilon_spent": epsilon, "seconds": 1.0, "run": "a", "tuned_on_private_data": False,
        }
        for model in study.models for contestant in study.contestants_of(model)
        for epsilon in study.epsilons for seed in study.seeds
    ]  # fmt: skip


def only(rows: list[dict], **wanted) -> dict:
    (row,) = [row for row in rows if all(row[name] == value for name, value in wanted.items())]
    return row


def test_a_model_of_one_noisy_sum_is_not_run_again_for_settings_of_steps():
    assert STUDY.contestants_of("table_mst") == ["ours"] and STUDY.contestants_of("table_vae") == ["ours", "slow"]
    assert {kind: len(models) for kind, models in STUDY.kinds().items()} == {
        ("tables", "rand_hie"): 2, ("images", "digits"): 1,
    }  # fmt: skip


def test_epochs_become_steps_by_the_public_number_of_records():
    changes = {"training.num_epochs": 3, "training.expected_batch_size": 64}
    model = {"data": {"name": "adult", "split": "paper"}, "model": {"name": "tvae"}}
    arguments = {**vars(STUDY), "models": {"a": model}, "contestants": {"ours": {}, "epochs": changes}}
    training = Study(**arguments).settings("a", "epochs", 1.0, 0, {})["training"]
    assert training["num_steps"] == math.ceil(3 * round(0.7 * 48842) / 64) and "num_epochs" not in training
    with pytest.raises(UserError, match=r"num_epochs is 3, but training.expected_batch_size is 0"):
        Study(**{**arguments, "contestants": {"ours": {}, "epochs": {"training.num_epochs": 3}}})


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"utility": {"tables": "auc"}}, "utility of tables is 'auc', which metrics lacks"),
        ({"leakage": {"sounds": LEAK}}, "leakage names the modality 'sounds': use tables, images, texts"),
    ],
)
def test_an_axis_that_cannot_be_is_refused(changes, complaint):
    with pytest.raises(UserError, match=complaint):
        Study(**{**vars(STUDY), **changes})


def test_the_frontier_is_of_one_data_set_at_a_time():
    found = analyse(STUDY, runs_of(STUDY))
    assert len(found.frontier) == (2 + 1) * 2 + 2 * 2
    best = {
        (row["data"], row["model"], row["contestant"], row["epsilon"]) for row in found.frontier if row["is_optimal"]
    }
    assert best == {
        ("rand_hie", "table_mst", "ours", 1.0), ("rand_hie", "table_mst", "ours", math.inf),
        ("digits", "digits_dcgan", "ours", 1.0), ("digits", "digits_dcgan", "ours", math.inf),
    }  # fmt: skip
    row = only(found.frontier, model="table_vae", contestant="ours", epsilon=1.0)
    half = 4.302652729911275 * 0.01 / math.sqrt(3)  # Student's t with 2 degrees of freedom
    assert row["utility"] == pytest.approx(0.81) and row["utility_low"] == pytest.approx(0.81 - half)
    assert (row["utility_metric"], row["leakage_metric"]) == ("logistic_regression_auc", LEAK)
    # Of the tables: (0.86, 0.5) and (0.911, 0.6), against (0.5, 1); of the images (0.31, 0.5) and (0.361, 0.6), (0, 1).
    tables, images = found.hypervolumes
    assert tables["hypervolume"] == pytest.approx(0.36 * 0.1 + 0.411 * 0.4) and tables["reference_utility"] == 0.5
    assert images["hypervolume"] == pytest.approx(0.31 * 0.1 + 0.361 * 0.4) and images["reference_utility"] == 0.0


def test_leakage_below_that_of_a_guess_is_that_of_a_guess():
    runs = runs_of(STUDY)
    for row in runs:
        if (row["model"], row["contestant"], row["epsilon"]) == ("table_vae", "slow", 1.0):
            row[LEAK] = 0.4  # beats the best utility at 0.5 by luck alone
    found = analyse(STUDY, runs)
    row = only(found.frontier, model="table_vae", contestant="slow", epsilon=1.0)
    assert row["leakage"] == pytest.approx(0.4) and not row["is_optimal"]
    assert found.hypervolumes == analyse(STUDY, runs_of(STUDY)).hypervolumes


def test_the_tests_are_paired_and_adjusted_within_their_family():
    runs = runs_of(STUDY)
    found = analyse(STUDY, runs)

    def values(model, contestant, metric="logistic_regression_auc"):
        picked = [row for row in runs if (row["model"], row["contestant"], row["epsilon"]) == (model, contestant, 1.0)]
        return [row[metric] for row in picked]

    family = [("table_vae", "ours"), ("table_vae", "slow"), ("table_mst", "ours")]
    expected = [paired(values(*one), values(*one, "real logistic_regression_auc")) for one in family]
    adjusted = holm([test.p_value for test in expected])
    for (model, contestant), test, p_holm in zip(family, expected, adjusted, strict=True):
        wanted = {"model": model, "contestant": contestant, "epsilon": 1.0, "metric": "logistic_regression_auc"}
        row = only(found.versus_real, **wanted)
        assert row["real"] == pytest.approx(0.95) and row["difference"] == pytest.approx(row["synthetic"] - row["real"])
        assert (row["p_value"], row["p_holm"]) == (test.p_value, p_holm)
        assert (row["wilcoxon"], row["effect"], row["num_seeds"]) == (test.wilcoxon, test.effect, 3)
    row = only(found.versus_models, epsilon=1.0, metric="logistic_regression_auc")
    assert (row["model"], row["other"]) == ("table_vae", "table_mst") and row["difference"] == pytest.approx(-0.05)
    assert {row["model"] for row in found.comparison} == {"table_vae", "digits_dcgan"}
    row = only(found.comparison, model="digits_dcgan", epsilon=1.0, metric="mean_accuracy")
    assert row["difference"] == pytest.approx(-0.1) and row["contestant"] == "slow"


def test_what_is_traded_for_what_has_fairness_of_every_sensitive_column():
    row = only(analyse(STUDY, runs_of(STUDY)).tradeoff, model="table_mst", epsilon=1.0)
    assert row.pop("logistic_regression_equalized_odds_difference_sex") == pytest.approx(0.2)
    assert row == {
        "model": "table_mst", "contestant": "ours", "epsilon": 1.0, "epsilon_spent": 1.0,
        "logistic_regression_auc": pytest.approx(0.86), LEAK: pytest.approx(0.5),
    }  # fmt: skip


@pytest.mark.parametrize("done", [0, 1, 2, 10])
def test_a_study_that_is_half_done_has_what_is_there(done, tmp_path):
    runs = runs_of(STUDY)[:done]
    for row in runs[:1]:
        row["logistic_regression_auc"] = math.nan  # the first run could not be measured
    found = analyse(STUDY, runs)
    cells = {(row["model"], row["contestant"], row["epsilon"]) for row in runs}
    assert {(row["model"], row["contestant"], row["epsilon"]) for row in found.tradeoff} == cells
    assert len(found.frontier) == (len(cells) if done > 1 else 0)
    for row in found.versus_real:
        assert row["num_seeds"] >= 1 and math.isnan(row["p_value"]) == (row["num_seeds"] == 1)
    assert "nan" not in markdown(STUDY, Cells(runs, STUDY), found, {})
    drawn = {path.stem for path in figures.draw(STUDY, Cells(runs, STUDY), found, tmp_path)}
    assert drawn >= ({"frontier_tables", "by_epsilon_tables"} if done > 1 else set())


def test_the_report_and_the_figures_show_every_kind_of_data(tmp_path):
    runs = runs_of(STUDY)
    found = analyse(STUDY, runs)
    text = markdown(STUDY, Cells(runs, STUDY), found, {})
    for heading in ("### tables: rand_hie", "### images: digits", "## Utility against leakage", "## Models against"):
        assert heading in text
    stems = {path.name for path in figures.draw(STUDY, Cells(runs, STUDY), found, tmp_path)}
    shown = ("by_epsilon", "differences", "frontier")
    assert stems == {f"{name}_{m}.{kind}" for name in shown for m in ("tables", "images") for kind in ("png", "svg")}
    assert "optimal" in (tmp_path / "frontier_tables.svg").read_text()
    assert pd.DataFrame(found.frontier).columns.tolist() == [
        "modality", "data", "model", "contestant", "epsilon", "utility_metric", "utility", "utility_low",
        "utility_high", "leakage_metric", "leakage", "leakage_low", "leakage_high", "is_optimal",
    ]  # fmt: skip


def test_a_page_is_written_now_and_then():
    now, written = [0.0], []

    def write():
        written.append(now[0])
        now[0] += took

    act, took = _now_and_then(write, clock=lambda: now[0]), 1.0
    for now[0] in (0.0, 10.0, 30.0, 31.0):
        act()
    assert written == [0.0, 31.0]
    took = 20.0  # slow: at most a tenth of the time
    for now[0] in (100.0, 200.0, 299.0, 300.0):
        act()
    assert written == [0.0, 31.0, 100.0, 300.0]
