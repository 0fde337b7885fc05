"""The folder of a run: whole or absent, locked, one run each, nothing left behind by bad input."""

import errno
import json
import stat
import subprocess
import sys

import pytest

from privsyn_jax.files import write_json
from privsyn_jax.types import UserError
from privsyn_jax.workdir import PRIVATE_NOTICE, open_workdir, plain

SETTINGS = {"privacy": {"epsilon": 1.0, "delta": 1e-5}, "model": {"column_order": ("a", "b")}, "seed": 0}
SOURCE = {"content_hash": "hash", "schema": {"columns": {"age": {"upper": 90}}}}


def contents(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def test_a_new_folder_gets_its_two_halves(tmp_path):
    root = tmp_path / "deep" / "run"
    with open_workdir(root, SETTINGS, SOURCE) as workdir:
        assert json.loads((root / "config.json").read_text()) == plain(SETTINGS)
        assert stat.S_IMODE(workdir.private.stat().st_mode) == 0o700
        assert (workdir.private / "README.txt").read_text().startswith(PRIVATE_NOTICE)
        assert workdir.evaluation.parent == workdir.page.parent == workdir.private
        assert not workdir.release.exists() and not workdir.is_finished


def test_private_is_closed_again_when_a_run_is_taken_up(tmp_path):
    with open_workdir(tmp_path, SETTINGS, SOURCE) as workdir:
        workdir.private.chmod(0o755)
    with open_workdir(tmp_path, SETTINGS, SOURCE) as workdir:
        assert stat.S_IMODE(workdir.private.stat().st_mode) == 0o700


def test_a_release_is_whole_or_absent(tmp_path):
    with open_workdir(tmp_path, SETTINGS, SOURCE) as workdir:
        with pytest.raises(RuntimeError), workdir.becoming(workdir.release) as folder:
            (folder / "half").write_text("half")
            assert not workdir.release.exists()
            raise RuntimeError
        assert not workdir.release.exists() and not folder.exists()
        (tmp_path / ".release.partial").mkdir()  # as a killed run leaves it
        (tmp_path / ".release.partial" / "old").write_text("old")
        with workdir.becoming(workdir.release) as folder:
            (folder / "synthetic.csv").write_text("whole")
        assert contents(workdir.release) == ["synthetic.csv"] and not folder.exists()
        assert not workdir.is_finished
        workdir.page.write_text("page")
        assert workdir.is_finished


def test_a_folder_in_use_by_another_process_is_refused(tmp_path):
    hold = (
        "import sys; from privsyn_jax.workdir import open_workdir\n"
        f"with open_workdir(sys.argv[1], {{'a': 1}}, {SOURCE}):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", hold, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        before = contents(tmp_path)
        with pytest.raises(UserError, match="is in use by another process"), open_workdir(tmp_path / "run", {}, SOURCE):
            pass
        assert contents(tmp_path) == before
        other.stdin.close()
    with open_workdir(tmp_path / "run", {"a": 1}, SOURCE):  # the lock goes with its holder
        pass


def test_other_settings_or_data_are_refused_naming_the_difference(tmp_path):
    with open_workdir(tmp_path, SETTINGS, SOURCE):
        pass
    before = contents(tmp_path)
    other = {**SETTINGS, "privacy": {"epsilon": 2.0, "delta": 1e-5}}
    with pytest.raises(UserError, match=r"other settings \(privacy.epsilon 1.0 there, 2.0 here\)"):
        open_workdir(tmp_path, other, SOURCE).__enter__()
    with pytest.raises(UserError, match=r"\(model.column_order \['a', 'b'\] there, \[\] here; seed 0 there, 1 here\)"):
        open_workdir(tmp_path, {**SETTINGS, "model": {"column_order": ()}, "seed": 1}, SOURCE).__enter__()
    schema = {"columns": {"age": {"upper": 95}}}
    with pytest.raises(UserError, match=r"another schema \(schema.columns.age.upper 90 there, 95 here\)"):
        open_workdir(tmp_path, SETTINGS, {**SOURCE, "schema": schema}).__enter__()
    with pytest.raises(UserError, match=r"other data \(content hash hash there, another here\)"):
        open_workdir(tmp_path, SETTINGS, {**SOURCE, "content_hash": "another"}).__enter__()
    assert contents(tmp_path) == before
    with open_workdir(tmp_path, SETTINGS, SOURCE):  # the same run is taken up
        pass


@pytest.mark.parametrize("empty_before", [False, True])
def test_bad_input_leaves_nothing_behind(tmp_path, empty_before):
    root = tmp_path / "run"
    if empty_before:
        root.mkdir()
    with pytest.raises(UserError, match="bad"), open_workdir(root, SETTINGS, SOURCE) as workdir:
        (workdir.evaluation / "file").write_text("x")
        raise UserError("bad")
    assert root.exists() == empty_before
    assert contents(tmp_path) == (["run"] if empty_before else [])


def test_bad_input_does_not_touch_an_earlier_run(tmp_path):
    with open_workdir(tmp_path, SETTINGS, SOURCE) as workdir, workdir.becoming(workdir.release) as folder:
        (folder / "synthetic.csv").write_text("precious")
    before = contents(tmp_path)
    with pytest.raises(UserError), open_workdir(tmp_path, SETTINGS, SOURCE):
        raise UserError("bad")
    assert contents(tmp_path) == before


def test_how_a_run_is_executed_may_change_and_what_is_drawn_until_it_is_released(tmp_path):
    execution = {"training": {"num_devices": 1}, "synthesis": {"num_samples": 10}, "data": {"path": "a.csv"}}
    other = {"training": {"num_devices": 2}, "synthesis": {"num_samples": 20}, "data": {"path": "b.csv"}}
    with open_workdir(tmp_path, execution, SOURCE):
        pass
    with open_workdir(tmp_path, other, SOURCE) as workdir, workdir.becoming(workdir.release):
        assert json.loads((tmp_path / "config.json").read_text()) == other
    with open_workdir(tmp_path, {**other, "training": {"num_devices": 1}}, SOURCE):
        pass
    with pytest.raises(UserError, match=r"other settings \(synthesis.num_samples 20 there, 10 here\)"):
        open_workdir(tmp_path, execution, SOURCE).__enter__()


def test_once_something_was_charged_bad_input_removes_nothing(tmp_path):
    root = tmp_path / "run"
    with pytest.raises(UserError, match="late"), open_workdir(root, SETTINGS, SOURCE) as workdir:
        workdir.ledger.write_text("{}")
        raise UserError("late")
    assert (root / "private" / "ledger.json").is_file() and (root / "config.json").is_file()


def test_storage_that_fails_is_told_in_one_sentence(tmp_path):
    error = OSError(errno.ENOSPC, "No space left on device", "synthetic.csv")
    with (
        pytest.raises(UserError, match=r"synthetic.csv cannot be written \(No space left on device\): free space"),
        open_workdir(tmp_path, SETTINGS, SOURCE),
    ):
        raise error


def test_a_crash_keeps_what_explains_it_and_the_run_can_be_taken_up(tmp_path):
    with pytest.raises(ZeroDivisionError), open_workdir(tmp_path / "run", SETTINGS, SOURCE) as workdir:
        (workdir.private / "ledger.json").write_text("[]")
        raise ZeroDivisionError
    assert (tmp_path / "run" / "private" / "ledger.json").exists()
    with open_workdir(tmp_path / "run", SETTINGS, SOURCE):
        pass


def test_folders_that_are_no_run_are_refused_untouched(tmp_path):
    (tmp_path / "holiday.jpg").write_text("x")
    with pytest.raises(UserError, match="holds files that are not a run's"):
        open_workdir(tmp_path, SETTINGS, SOURCE).__enter__()
    with pytest.raises(UserError, match="is a file: name a folder"):
        open_workdir(tmp_path / "holiday.jpg", SETTINGS, SOURCE).__enter__()
    with pytest.raises(UserError, match="cannot be written"):
        open_workdir(tmp_path / "holiday.jpg" / "run", SETTINGS, SOURCE).__enter__()
    assert contents(tmp_path) == ["holiday.jpg"]


def test_a_folder_that_only_holds_a_stale_lock_is_new(tmp_path):
    (tmp_path / ".lock").touch()
    with open_workdir(tmp_path, SETTINGS, SOURCE):
        pass


def test_json_is_strict_and_written_whole(tmp_path):
    path = tmp_path / "file.json"
    write_json(path, {"a": [1, None]})
    with pytest.raises(ValueError):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": [1, None]}
    assert plain({"a": (1, float("inf")), 2: {"b": -float("inf")}}) == {"a": [1, "inf"], "2": {"b": "-inf"}}
