"""The command line, run as a user runs it."""

import json
import subprocess
import sys

import pytest

import dropout_policies as dp

RUN = """
import sys
from dropout_policies.cli import main
sys.argv = ["dropout-policies", *{}]
main()
"""


def run(*arguments):
    done = subprocess.run(
        [sys.executable, "-c", RUN.format(list(arguments))], capture_output=True, text=True
    )
    return done.returncode, done.stdout, done.stderr


def test_list_names_every_policy():
    code, text, _ = run("list")
    assert code == 0
    assert all(name in text for name in dp.names())
    assert [p["name"] for p in json.loads(run("list", "--json")[1])] == list(dp.names())


def test_show_draws_and_counts(tmp_path):
    code, text, _ = run("show", "zaremba", "--layers", "3", "--svg", str(tmp_path / "a.svg"))
    assert code == 0
    assert "heavy: from x1 to y4, through 4 masks" in text
    assert (tmp_path / "a.svg").read_text().startswith("<svg")
    assert json.loads(run("show", "naive", "--json")[1])["corruptions"] == 6
    code, _, error = run("show", "zaremba", "--png", str(tmp_path / "a.svg"))
    assert code == 2
    assert "ends with .png" in error


def test_compare_tells_by_its_exit_code():
    code, text, _ = run("compare", "zaremba", "variational")
    assert code == 1
    assert "hidden" in text
    assert run("compare", "zaremba", "zaremba")[0] == 0


def test_audit_measures_and_tells_by_its_exit_code(tmp_path):
    stock = ["audit", "torch.nn:LSTM", "--args", "[8, 8, 2]", "--kwargs", '{"dropout": 0.5}']
    pictures = ["--svg", str(tmp_path / "a.svg"), "--png", str(tmp_path / "a.png")]
    code, text, _ = run(*stock, *pictures)
    assert code == 0
    assert "✗ input" in (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert "1 of 3 vertical connections masked" in text
    code, _, error = run(*stock, "--expect", "zaremba")
    assert code == 1
    assert "input is whole" in error
    ours = ["audit", "dropout_policies_torch:LSTM", "--args", "[8, 8]"]
    ours += ["--kwargs", '{"policy": "zaremba"}', "--expect", "zaremba", "--json"]
    code, text, _ = run(*ours)
    assert code == 0
    assert json.loads(text)["policy"] == "zaremba"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "zarembo"], "Did you mean 'zaremba'"),
        (["audit", "torch.nn:LSTN"], "cannot be made"),
        (["audit", "torch.nn:Linear", "--args", "[3, 3]"], "seen later nowhere"),
        (["audit", "torch.nn:LSTM", "--args", "{}"], "JSON list"),
        (["audit", "torch.nn:LSTM", "--args", "["], "no JSON"),
    ],
)
def test_what_is_wrong_exits_with_2(arguments, words):
    code, _, error = run(*arguments)
    assert code == 2
    assert words in error
