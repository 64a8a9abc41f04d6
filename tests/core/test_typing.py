"""A user's program under mypy --strict and pyright: right code passes, mistakes are found."""

import enum
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

import dropout_policies as dp

ROOT = Path(__file__).parents[2]
RIGHT, WRONG = ("tests/typing/right.py", "tests/typing/wrong.py")


def mypy(files: list[str]) -> set[tuple[str, int]]:
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    found = set()
    for line in done.stdout.splitlines():
        if ": error:" in line:
            path, number, *_ = line.split(":")
            found.add((path, int(number)))
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return found


def pyright(files: list[str]) -> set[tuple[str, int]]:
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson"]
    done = subprocess.run([*command, *files], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return {
        (
            str(Path(each["file"]).relative_to(ROOT)),
            each["range"]["start"]["line"] + 1,
        )
        for each in json.loads(done.stdout)["generalDiagnostics"]
        if each["severity"] == "error"
    }


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_type_checkers_find_the_mistakes_and_nothing_else(checker):
    pytest.importorskip(checker.__name__)
    lines = (ROOT / WRONG).read_text(encoding="utf-8").splitlines()
    marked = {(WRONG, number) for number, line in enumerate(lines, 1) if line.endswith("# wrong")}
    assert len(marked) > 10
    assert checker([RIGHT, WRONG]) == marked


def test_editors_complete_every_published_name():
    literal, _ = get_args(dp.PolicyName)
    assert get_args(literal) == dp.names()


@pytest.mark.parametrize("name", dp.__all__)
def test_public_functions_name_their_arguments(name):
    """No `*args`, and no `**kwargs` but where names are the user's: a policy's sites."""
    value = getattr(dp, name)
    if not callable(value) or name in ("Policy", "PolicyName", "PolicyError", "PolicyWarning"):
        return
    if isinstance(value, enum.EnumMeta):  # from Python 3.12 on, it takes any number of values
        return
    kinds = {each.kind for each in inspect.signature(value).parameters.values()}
    assert not kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
