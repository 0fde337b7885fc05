"""Notebooks: each is a percent-format file that the list names; and each runs from beginning to end."""

import ast
import re
from pathlib import Path

import jupytext
import pytest

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.py"))
_SECONDS = 1800  # of a cell


def test_the_list_names_every_notebook_and_no_other():
    named = re.findall(r"^\| \[(\w+\.py)\]\((\w+\.py)\)", (FOLDER / "README.md").read_text(), re.MULTILINE)
    assert all(text == target for text, target in named)
    assert sorted(target for _, target in named) == NOTEBOOKS


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_has_a_title_and_code_that_parses(name):
    notebook = jupytext.read(FOLDER / name)
    assert notebook.metadata["kernelspec"]["name"] == "python3"
    first, *others = notebook.cells
    assert first.cell_type == "markdown" and first.source.startswith("# ")
    assert [cell.cell_type for cell in others].count("code") > 3
    for cell in others:
        assert cell.source.strip(), "an empty cell"
        if cell.cell_type == "code":
            ast.parse(cell.source)


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs(name, monkeypatch, tmp_path):
    from nbclient import NotebookClient

    monkeypatch.setenv("TMPDIR", str(tmp_path))  # where it makes its folders
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    notebook = jupytext.read(FOLDER / name)
    resources = {"metadata": {"path": str(FOLDER)}}
    NotebookClient(notebook, timeout=_SECONDS, kernel_name="python3", resources=resources).execute()
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in shown)
    assert not any(output.output_type == "error" for output in shown)
