"""Evidence on a finished run and on records made elsewhere, as a user asks for it."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from launch import attack, audit, evaluate, mitigate, report
from privsyn_jax import evidence
from privsyn_jax.data import DATASETS
from privsyn_jax.data.schema import schema_to_dict
from privsyn_jax.data.validate import to_file_frame
from privsyn_jax.evaluation.attacks import membership_result
from privsyn_jax.evaluation.audit import audit_result
from privsyn_jax.privacy.guard import PrivateFolder
from privsyn_jax.run import execute
from privsyn_jax.settings import settings_from_dict

SETTINGS = {
    "data": {"name": "rand_hie"},
    "model": {"width": 8, "num_layers": 1, "num_calibration_rows": 256},
    "training": {"num_steps": 3, "expected_batch_size": 32, "microbatch_size": 32},
    "privacy": {"seed": 0},
    "synthesis": {"num_samples": 300},
    "evaluation": {"num_seeds": 0},
    "attacks": {"names": "distance_to_closest_record"},
}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evidence") / "run"
    lines = execute(settings_from_dict(SETTINGS), folder, announce=lambda line: None)
    assert any(line.startswith("1 attacks, ") for line in lines)
    return folder


@pytest.fixture(scope="module")
def files(workdir, tmp_path_factory):
    """The same records as files, as somebody else would have them."""
    folder = tmp_path_factory.mktemp("files")
    private = tmp_path_factory.mktemp("closed") / "private"
    private.mkdir(mode=0o700)
    settings = settings_from_dict(SETTINGS).data
    schema = DATASETS["rand_hie"].read_schema(settings)
    records = DATASETS["rand_hie"].load(settings, schema)
    for name, part in (("train", records.train), ("test", records.test)):
        to_file_frame(part.open_under(PrivateFolder(private)), schema).to_csv(folder / f"{name}.csv", index=False)
    (folder / "schema.json").write_text(json.dumps(schema_to_dict(schema)))
    return folder


def options(files, synthetic, out, *more):
    given = {"real-train": files / "train.csv", "real-test": files / "test.csv", "schema": files / "schema.json"}
    given |= {"synthetic": synthetic, "out": out}
    return [*(f"--{name}={value}" for name, value in given.items()), *more]


def read(path):
    return json.loads(path.read_text())


def test_a_run_is_evaluated_again_with_the_same_result(workdir, capsys):
    before = read(workdir / "private/evaluation/metrics.json")
    assert evaluate.main([f"--workdir={workdir}", "--attacks=none"]) == 0
    assert read(workdir / "private/evaluation/metrics.json") == before
    assert "logistic regression, AUC" in capsys.readouterr().out


def test_files_of_any_origin_are_measured_as_a_run_is(workdir, files, tmp_path, capsys):
    synthetic = workdir / "release/synthetic.csv"
    arguments = options(files, synthetic, tmp_path / "out", "--attacks=distance_to_closest_record")
    assert evaluate.main([*arguments, "--num-seeds=0"]) == 0  # as the run: models trained together round otherwise
    # rand_hie reads float64 from its source, and a CSV holds the same numbers
    assert read(tmp_path / "out/private/evaluation/metrics.json") == read(workdir / "private/evaluation/metrics.json")
    assert read(tmp_path / "out/private/attacks/attacks.json") == read(workdir / "private/attacks/attacks.json")
    of_files, of_run = (read(root / "private/evaluation/details.json") for root in (tmp_path / "out", workdir))
    assert of_files["evaluated_on"]["records"] == of_run["evaluated_on"]["records"]
    assert (tmp_path / "out/private").stat().st_mode & 0o777 == 0o700
    page = (tmp_path / "out/private/report.html").read_text()
    assert "is not known here" in page and 'id="attacks"' in page
    assert 'id="privacy"' not in page and "NOT PRIVATE" not in page and 'id="settings"' not in page
    assert "distance_to_closest_record: " in capsys.readouterr().out


def test_an_odd_table_gets_numbers_or_reasons(files, workdir, tmp_path, capsys):
    frame = pd.read_csv(workdir / "release/synthetic.csv").head(12).drop(columns="any_visit")
    frame["disea"], frame["colour"] = "many", "red"
    frame.to_csv(tmp_path / "odd.csv", index=False)
    assert evaluate.main(options(files, tmp_path / "odd.csv", tmp_path / "out")) == 0
    out = capsys.readouterr().out
    assert "column 'colour' of" in out and "12 values that are no finite numbers" in out
    for row in read(tmp_path / "out/private/evaluation/metrics.json"):
        assert np.isfinite([row["value"], row["reference"]]).all()
    skipped = read(tmp_path / "out/private/evaluation/details.json")["skipped"]
    assert "any_visit: not in the synthetic table." in skipped
    for result in read(tmp_path / "out/private/attacks/attacks.json")["results"]:
        assert all(np.isfinite(list(interval.values())).all() for interval in result["metrics"].values())


def test_rules_are_asked_of_synthetic_and_of_real_rows(files, workdir, tmp_path):
    synthetic = pd.read_csv(workdir / "release/synthetic.csv")
    limit = float(synthetic["disea"].median())
    rule = f'--constraints=[{{"kind": "range", "column": "disea", "max": {limit}}}]'
    arguments = [rule, "--attacks=none"]
    assert evaluate.main(options(files, workdir / "release/synthetic.csv", tmp_path / "out", *arguments)) == 0
    (row,) = (
        row for row in read(tmp_path / "out/private/evaluation/metrics.json") if row["metric"] == "rules_kept_rate"
    )
    assert row["value"] == (synthetic["disea"] <= limit).mean() < 1
    assert row["reference"] == (pd.read_csv(files / "test.csv")["disea"] <= limit).mean() < 1
    synthetic.drop(columns="disea").to_csv(tmp_path / "without.csv", index=False)
    assert evaluate.main(options(files, tmp_path / "without.csv", tmp_path / "other", *arguments)) == 0
    skipped = read(tmp_path / "other/private/evaluation/details.json")["skipped"]
    assert "rules_kept_rate: column 'disea', which a rule is about, is not in the synthetic table." in skipped


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--real-train=nowhere.csv"], "nowhere.csv does not exist"),
        (["--synthetic=nowhere.csv"], "nowhere.csv does not exist"),
        (["--schema=nowhere.json"], "schema nowhere.json does not exist"),
        (["--attacks=magic"], "the attack is 'magic': use 'shadow_posteriors' or "),
        (["--workdir=x"], "--real-train is for files of any origin, --workdir for a run"),
        (["--constraints=[1]"], "rule 1 of synthesis.constraints is 1: give an object"),
    ],
)
def test_bad_files_are_one_sentence(files, workdir, tmp_path, capsys, change, message):
    arguments = options(files, workdir / "release/synthetic.csv", tmp_path / "out", *change)
    assert evaluate.main(arguments) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and message in error


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Files of a small table, and the evaluation of a synthetic one in which the target is drawn at random."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "schema.json").write_text(json.dumps(SMALL))
    for seed, name in enumerate(("train", "test", "good", "random", "one_class")):
        rng = np.random.default_rng(seed)
        frame = pd.DataFrame({"age": rng.integers(0, 100, 300), "town": rng.choice(["a", "b"], 300)})
        ill = {"random": rng.random(300) < 0.5, "one_class": np.ones(300, bool)}.get(name, frame["age"] > 50)
        frame.assign(ill=ill).to_csv(folder / f"{name}.csv", index=False)
    assert evaluate.main(options(folder, folder / "random.csv", folder / "random", *SEEDS)) == 0
    return folder


SEEDS = ("--attacks=none", "--num-seeds=2")
SMALL = {
    "columns": {
        "age": {"kind": "integer", "lower": 0, "upper": 99},
        "town": {"kind": "categorical", "categories": ["a", "b"]},
        "ill": {"kind": "boolean"},
    },
    "target": "ill",
    "num_records": 300,
}


def test_a_baseline_is_compared_with_by_paired_tests(small, tmp_path, capsys):
    flags = (*SEEDS, f"--baseline={small / 'random'}", "--baseline-name=a <coin>")
    assert evaluate.main(options(small, small / "good.csv", tmp_path / "out", *flags)) == 0
    tests = read(tmp_path / "out/private/evaluation/details.json")["tests"]
    before = read(small / "random/private/evaluation/details.json")["tests"]
    (row,) = [
        row
        for row in tests["against_baseline"]
        if (row["model"], row["trained_on"], row["metric"]) == ("logistic_regression", "synthetic", "auc")
    ]
    means = [
        score["mean"]
        for part in (tests, before)
        for score in part["scores"]
        if (score["model"], score["trained_on"], score["metric"]) == ("logistic_regression", "synthetic", "auc")
    ]
    assert row["baseline"] == "a <coin>" and row["difference"] == pytest.approx(means[0] - means[1]) and means[0] > 0.9
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "a <coin>" in line]
    assert line.startswith("AUC minus that of a <coin>, 2 seeds, paired: logistic regression +0.")
    page = (tmp_path / "out/private/report.html").read_text()
    assert "minus a &lt;coin&gt;" in page and page.count("p (Holm)") == 2
    assert "against_baseline" not in before and "minus a" not in (small / "random/private/report.html").read_text()


def test_a_set_that_no_model_learns_from_is_not_compared(small, tmp_path, capsys):
    flags = (*SEEDS, f"--baseline={small / 'random'}")
    assert evaluate.main(options(small, small / "one_class.csv", tmp_path / "out", *flags)) == 0
    sentence = "comparison with random: no model could be trained on this set."
    assert sentence in capsys.readouterr().out
    assert sentence in read(tmp_path / "out/private/evaluation/details.json")["skipped"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--real-train={small}/test.csv"], "random was evaluated on other real records (hash "),
        (["--real-test={small}/train.csv"], "evaluate both on the same"),
        (["--schema={tmp}/schema.json"], "has another schema (schema.columns.age.upper 99 there, 120 here)"),
        (["--seed=3"], "was evaluated otherwise (seed 0 there, 3 here)"),
        (["--num-seeds=3"], "was evaluated otherwise (num_seeds 2 there, 3 here)"),
        (["--num-seeds=0"], "a comparison with random needs scores over seeds: give --num-seeds=5"),
        (["--num-seeds=1"], "num_seeds is 1: give at least 2"),
        (["--baseline={tmp}"], "holds no evaluation: name a folder"),
        (["--baseline={tmp}/old"], "does not say which real records it is about: make it again"),
        (["--baseline={tmp}/damaged"], "holds a damaged evaluation"),
        (["--out={small}/random"], "random is what is evaluated here"),
        (["--workdir={tmp}"], "--real-train is for files"),
    ],
)
def test_a_baseline_of_something_else_is_refused(small, tmp_path, capsys, change, message):
    columns = {**SMALL["columns"], "age": {"kind": "integer", "lower": 0, "upper": 120}}
    (tmp_path / "schema.json").write_text(json.dumps({**SMALL, "columns": columns, "num_records": 200}))
    for name, content in (("old", '{"tests": {}}'), ("damaged", "{")):
        (tmp_path / name / "private/evaluation").mkdir(parents=True)
        (tmp_path / name / "private/evaluation/details.json").write_text(content)
    before = (small / "random/private/evaluation/details.json").read_bytes()
    flags = [flag.format(small=small, tmp=tmp_path) for flag in change]
    arguments = options(small, small / "good.csv", tmp_path / "out", *SEEDS, f"--baseline={small / 'random'}", *flags)
    assert evaluate.main(arguments) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ") and message in error
    assert not list((tmp_path / "out").rglob("*.json"))
    assert (small / "random/private/evaluation/details.json").read_bytes() == before


def test_a_run_is_compared_with_another_but_not_with_itself(workdir, tmp_path, capsys):
    arguments = [f"--workdir={workdir}", "--attacks=none", "--num-seeds=2"]
    assert evaluate.main(arguments) == 0
    shutil.copytree(workdir / "private/evaluation", tmp_path / "twin/private/evaluation")
    assert evaluate.main([*arguments, f"--baseline={tmp_path / 'twin'}"]) == 0
    assert "minus that of twin, 2 seeds, paired: logistic regression +0.0000 (p 1)" in capsys.readouterr().out
    tests = read(workdir / "private/evaluation/details.json")["tests"]
    assert {row["difference"] for row in tests["against_baseline"]} == {0.0}
    assert evaluate.main([*arguments, f"--baseline={workdir}"]) == 2
    assert "is what is evaluated here" in capsys.readouterr().err
    assert evaluate.main([*arguments, "--baseline-name=x"]) == 2
    assert "--baseline-name is given without --baseline" in capsys.readouterr().err


def test_a_missing_flag_or_run_is_named(tmp_path, capsys):
    assert evaluate.main(["--real-train=a.csv"]) == 2
    assert "--real-test is missing" in capsys.readouterr().err
    for program in (evaluate, attack, audit, report):
        assert program.main([f"--workdir={tmp_path}"]) == 2
        assert "holds no" in capsys.readouterr().err
    assert attack.main([f"--workdir={tmp_path}", "--data=dir"]) == 2
    assert "--data dir has no value" in capsys.readouterr().err


def test_an_audit_above_the_claim_fails_loudly(workdir, monkeypatch, capsys):
    def found(lower_bound):
        def of_run(settings, schema, **_):
            return [
                audit_result(
                    "one run", claimed_epsilon=1.0, delta=1e-5, lower_bound=lower_bound, confidence=0.95, num_canaries=9
                )
            ]

        return of_run

    monkeypatch.setattr(evidence, "audit", found(0.4))
    assert audit.main([f"--workdir={workdir}"]) == 0
    assert report.main([f"--workdir={workdir}"]) == 0
    assert "AUDIT FAILED" not in (workdir / "private/report.html").read_text()
    monkeypatch.setattr(evidence, "audit", found(1.7))
    assert audit.main([f"--workdir={workdir}"]) == 3
    assert "at least epsilon 1.70 where 1.00 is claimed" in capsys.readouterr().out
    assert report.main([f"--workdir={workdir}"]) == 0
    page = (workdir / "private/report.html").read_text()
    assert page.index("AUDIT FAILED") < page.index('id="summary"') and "the guarantee does not hold" in page
    (workdir / "private/attacks/audit.json").unlink()


def test_attacks_of_a_run_can_be_chosen(workdir, capsys):
    assert attack.main([f"--workdir={workdir}", "--attacks=linkability,density_ratio"]) == 0
    names = [result["name"] for result in read(workdir / "private/attacks/attacks.json")["results"]]
    assert names == ["linkability", "density_ratio"]
    assert "linkability: no detectable advantage" in capsys.readouterr().out
    assert "density ratio" in (workdir / "private/report.html").read_text()


def test_shadow_generators_attack_held_out_records_only(workdir, monkeypatch, capsys):
    seen = {}

    def made(settings, schema, auxiliary, targets, *, num_shadows, num_records, **_):
        seen.update(auxiliary=auxiliary, sizes=(num_shadows, num_records), kinds=set(targets.kinds))
        return [membership_result("shadow generators", np.arange(20.0), np.arange(20.0), seed=0)]

    monkeypatch.setattr(evidence, "shadow_attack", made)
    assert attack.main([f"--workdir={workdir}", "--attacks=none", "--shadows=8", "--shadow-records=300"]) == 0
    assert seen["sizes"] == (8, 300) and seen["kinds"] == {"random", "outlier", "canary"}
    with evidence.open_finished(workdir, {}) as finished:
        pd.testing.assert_frame_equal(seen["auxiliary"], finished.test)
    (result,) = read(workdir / "private/attacks/shadows.json")["results"]
    assert result["name"] == "shadow generators" and "shadow generators: no detectable" in capsys.readouterr().out
    assert "shadow generators" in (workdir / "private/report.html").read_text()


def test_a_mitigation_of_a_run_draws_records_and_keeps_its_cost_private(workdir, tmp_path, capsys):
    released = (workdir / "release/synthetic.csv").read_bytes()
    arguments = [f"--workdir={workdir}", "--sensitive=health", f"--out={tmp_path / 'm.csv'}"]
    assert mitigate.main([*arguments, "--cost", "--data=name=adult"]) == 2 and not (tmp_path / "m.csv").exists()
    assert capsys.readouterr().err.startswith("error: ")
    assert mitigate.main([*arguments, "--cost"]) == 0
    out, report = capsys.readouterr().out, read(tmp_path / "m.json")
    assert report["rows_drawn"] > 0 and report["rows_repeated"] == 0 and report["privacy"]["private"] is True
    before, after = (pd.read_csv(path, dtype=str) for path in (workdir / "release/synthetic.csv", tmp_path / "m.csv"))
    assert list(after) == list(before) and len(after) == len(before) == 300
    new = set(map(tuple, after.to_numpy())) - set(map(tuple, before.to_numpy()))
    assert 0 < len(new) <= report["rows_drawn"]  # in the form of the file: reading it as text shows no other rows
    content = read(workdir / "private/evaluation/mitigation.json")
    assert content["notice"].startswith("PRIVATE") and content["mitigation"] == report
    assert any(
        (row["family"], row["metric"], row["column"]) == ("fairness", "outcome_rate_gap", "health")
        for row in content["cost"]
    )
    assert "logistic regression auc: 0." in out and "outcome rate gap of health: 0." in out
    assert (workdir / "release/synthetic.csv").read_bytes() == released
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.csv", "m.json"]
