"""The pytest plugin, in a pytest of its own."""

import subprocess
import sys

# Before any test: what a pytest within this one is the first to import is taken out again at its
# end, and PyTorch does not outlive a second import.
import dropout_policies_torch  # noqa: F401

HEAD = """
import torch
from dropout_policies_torch import LSTM
from dropout_policies.testing import assert_placement, assert_recurrent_state_unmasked

torch.manual_seed(0)
"""


def test_what_a_failed_test_measured_is_in_its_report(pytester):
    pytester.makepyfile(
        HEAD
        + """
def test_l_plus_1(dropout_audit):
    audit = dropout_audit(torch.nn.LSTM(8, 8, num_layers=2, dropout=0.5))
    assert audit.corruptions(10) == 3
"""
    )
    result = pytester.runpytest("-p", "no:randomly")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "E*assert 1 == 3",
            "*dropout of nn.LSTM(8, 8, num_layers=2, dropout=0.5)*",
            "  1 of 3 vertical connections masked; evaluation: identity",
            "✗ output   │*whole",
            "  between  ┊a*drop 0.*per step",
            "✗ input    │*whole",
            "✗: unlike zaremba",
        ]
    )


def test_a_failed_assertion_shows_the_grid_once_and_the_users_line(pytester):
    pytester.makepyfile(
        HEAD
        + """
def test_state():
    assert_recurrent_state_unmasked(LSTM(8, 8, policy="naive"))

def test_placement():
    assert_placement(LSTM(8, 8, policy="naive"), "zaremba")
"""
    )
    result = pytester.runpytest()
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        [
            '>*assert_recurrent_state_unmasked(LSTM(8, 8, policy="naive"))',
            "E*LSTM(8, 8, policy='naive') carries a state that is masked:",
            "E*hidden of layer 1: drop *",
            "E*✗ layer 1  ■┅┅┅b┅┅┅■┅┅┅c┅┅┅■*",
            "E*✗: unlike a state that is whole",
            "*dropout of LSTM(8, 8, policy='naive')*",
            "LSTM(8, 8, policy='naive'): naive",
        ]
    )
    # The short summary repeats whole messages where pytest sees that it runs in CI.
    text = result.stdout.str().partition("short test summary")[0]
    assert "assertions.py" not in text
    assert text.count("heavy: from x1 to y4") == 2


def test_a_test_that_passes_shows_nothing(pytester):
    pytester.makepyfile(
        HEAD
        + """
def test_l_plus_1(dropout_audit):
    assert dropout_audit(LSTM(8, 8, policy="zaremba")).corruptions(10) == 2
"""
    )
    result = pytester.runpytest()
    result.assert_outcomes(passed=1)
    assert "dropout of" not in result.stdout.str()


def test_the_plugin_loads_nothing_before_it_is_asked():
    code = (
        "import sys, dropout_policies_pytest.plugin; "
        "print([m for m in ('dropout_policies', 'numpy', 'torch', 'keras') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_pytest_finds_it_by_itself(pytester):
    result = pytester.runpytest_subprocess("--fixtures")
    result.stdout.fnmatch_lines(["dropout_audit*", "*`dropout_policies.audit`*"])


def test_it_works_where_tests_run_in_workers(pytester):
    pytester.makepyfile(
        HEAD
        + """
def test_placement():
    assert_placement(LSTM(8, 8, policy="naive"), "zaremba")
"""
    )
    result = pytester.runpytest_subprocess("-n1")
    result.stdout.fnmatch_lines(["*dropout of LSTM(8, 8, policy='naive')*", "LSTM*: naive"])
