"""The notebooks are committed as they were executed, and execute again."""

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from nbformat import v4

from tests.support import notebooks
from tests.support.notebooks import FOLDER, NOTEBOOKS

COPY_TASK = FOLDER / "copy_task.ipynb"


def test_there_are_notebooks():
    assert [path.stem for path in NOTEBOOKS] == ["copy_task", "two_frameworks"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_was_executed_and_shows_nothing_but_what_it_is_about(path):
    notebook = notebooks.read(path)
    nbformat.validate(notebook)
    assert not notebooks.faults(notebook)


@pytest.mark.slow  # it trains for a minute, and what it calls is tested elsewhere
def test_the_copy_task_executes_and_says_what_was_committed():
    anew = notebooks.execute(COPY_TASK)
    assert not notebooks.faults(anew)
    before = notebooks.read(COPY_TASK)
    words = notebooks.without_numbers(notebooks.printed(anew))
    assert words == notebooks.without_numbers(notebooks.printed(before))


def test_what_is_said_is_compared_without_its_figures():
    said = [notebooks.without_numbers(f"apart by {x}\n") for x in ("[1.   0.42]", "[0.9 -3e-02]")]
    assert said[0] == said[1] != notebooks.without_numbers("near by [1. 1.]")


def write(path, *sources):
    cells = [v4.new_code_cell(source, id=f"cell-{n}") for n, source in enumerate(sources)]
    notebook = notebooks.clean(v4.new_notebook(cells=cells))
    notebooks.write(notebook, path)
    return path


def test_that_execution_can_fail(tmp_path):
    good = write(tmp_path / "good.ipynb", "x = 1", "print(x)\nassert x == 1")
    anew = notebooks.execute(good)
    assert notebooks.printed(anew) == "1\n"
    assert not notebooks.faults(anew)
    with pytest.raises(CellExecutionError, match="AssertionError"):
        notebooks.execute(write(tmp_path / "bad.ipynb", "x = 1", "assert x == 2"))


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("import sys; print(1, file=sys.stderr)", "stderr"),
        ("import warnings; warnings.warn('beware')", "Warning"),
        ("print('in /home/someone/project')", "a place on a machine"),
        ("import numpy; numpy.__file__", "a place on a machine"),
    ],
)
def test_that_outputs_can_be_refused(tmp_path, source, fault):
    anew = notebooks.execute(write(tmp_path / "page.ipynb", source))
    assert any(fault in found for found in notebooks.faults(anew))


def test_that_a_notebook_can_be_refused(tmp_path):
    path = write(tmp_path / "page.ipynb", "1", "2")
    fresh = notebooks.read(path)
    assert any("not executed" in found for found in notebooks.faults(fresh))

    def changed(**counts):
        found = notebooks.read(path)
        for cell, count in zip(found.cells, counts.values(), strict=True):
            cell.execution_count = count
        return found

    assert not notebooks.faults(changed(first=1, second=2))
    assert notebooks.faults(changed(first=2, second=1))
    assert notebooks.faults(changed(first=3, second=4))
    raised = changed(first=1, second=2)
    raised.cells[0].outputs = [v4.new_output("error", ename="E", evalue="", traceback=[])]
    assert notebooks.faults(raised) == ["cell-0 raised E"]
    timed = changed(first=1, second=2)
    timed.cells[0].metadata["execution"] = {"shell.execute_reply": "now"}
    assert notebooks.faults(timed)
    assert not notebooks.faults(notebooks.clean(timed))
    widgets = changed(first=1, second=2)
    widgets.metadata["widgets"] = {}
    assert notebooks.faults(widgets)
    assert not notebooks.faults(notebooks.clean(widgets))
