"""Evidence on a finished run and on records made elsewhere, as a user asks for it."""

import json

import numpy as np
import pandas as pd
import pytest

from launch import attack, audit, evaluate, report
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
    assert evaluate.main(arguments) == 0
    # rand_hie reads float64 from its source, and a CSV holds the same numbers
    assert read(tmp_path / "out/private/evaluation/metrics.json") == read(workdir / "private/evaluation/metrics.json")
    assert read(tmp_path / "out/private/attacks/attacks.json") == read(workdir / "private/attacks/attacks.json")
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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--real-train=nowhere.csv"], "nowhere.csv does not exist"),
        (["--synthetic=nowhere.csv"], "nowhere.csv does not exist"),
        (["--schema=nowhere.json"], "schema nowhere.json does not exist"),
        (["--attacks=magic"], "the attack is 'magic': use 'shadow_posteriors' or "),
        (["--workdir=x"], "--real-train is for files of any origin, --workdir for a run"),
    ],
)
def test_bad_files_are_one_sentence(files, workdir, tmp_path, capsys, change, message):
    arguments = options(files, workdir / "release/synthetic.csv", tmp_path / "out", *change)
    assert evaluate.main(arguments) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and message in error


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
