"""The path in the report: every block once, what was released, and nothing where nothing changed."""

import xml.etree.ElementTree as ElementTree

import pytest

from privsyn_jax.report import privacy_markdown
from privsyn_jax.report.path import PATH_HEADER, path_changes, path_figure, path_rows

LEVEL = {"first_step": 0, "num_steps": 40, "sampling_rate": 0.1, "expected_batch_size": 64.0, "noise_multiplier": 2.0}
CONSTANT = [{**LEVEL, "l2_clip_norm": 1.0, "released_signal": [5.0, 4.0]}]
SCHEDULE = [*CONSTANT, {**CONSTANT[0], "first_step": 40, "noise_multiplier": 1.0, "expected_batch_size": 128.0}]
ADAPTIVE = [
    {**CONSTANT[0], "relative_noise": 1.4, "wish": 1.5, "spent": 0.2, "released_loss": [9.0], "released_signal": [5.0]},
    {**SCHEDULE[1], "relative_noise": 0.7, "wish": 0.5, "spent": 0.99, "epsilon_so_far": 0.995},
]
CLIPPING = [{**CONSTANT[0], "released_clip_norm": [1.0, 0.6], "released_unclipped": [0.2, 0.5]}]


def test_a_constant_run_has_no_path_to_show():
    assert not path_changes(CONSTANT) and path_figure(CONSTANT) == ""
    assert "How training spent" not in privacy_markdown({"path": CONSTANT})


def test_rows_say_what_every_block_ran_with_and_released():
    assert path_rows(SCHEDULE) == [("1 to 40", "64", "2", "1", "gradients"), ("41 to 80", "128", "1", "1", "gradients")]
    first, last = path_rows(ADAPTIVE)
    assert first[-1] == "signal 5; loss 9; 20 % of the filter's budget spent by its end" and last[-1].endswith(
        "99 % of the filter's budget spent by its end, epsilon 0.9950"
    )
    assert path_rows(CLIPPING)[0][3:] == ("its own", "unclipped 0.2000 to 0.5000; clipping norm 1 to 0.6000")
    assert all(len(row) == len(PATH_HEADER) for row in path_rows(ADAPTIVE))


@pytest.mark.parametrize(
    ("path", "panels"),
    [
        (SCHEDULE, {"noise multiplier", "expected batch"}),
        (ADAPTIVE, {"noise multiplier"}),
        (CLIPPING, {"clipping norm"}),
    ],
)
def test_the_figure_draws_what_moves(path, panels):
    drawn = path_figure(path)
    ElementTree.fromstring(drawn)
    for name in ("noise multiplier", "clipping norm", "expected batch"):
        assert (f">{name}</text>" in drawn) == (name in panels or (path is ADAPTIVE and name == "expected batch"))


@pytest.mark.parametrize(("path", "words"), [(SCHEDULE, "fixed before training"), (ADAPTIVE, "chosen while training")])
def test_the_document_says_who_chose(path, words):
    text = privacy_markdown({"path": path})
    assert words in text and text.count("| 1 to 40 |") == 1
