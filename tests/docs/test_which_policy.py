"""The page that helps to choose a policy has the catalogue's rates and the figures of runs."""

import json
import re

import pytest

import dropout_policies as dp
from dropout_policies.policies.catalog import resolve
from dropout_policies.policies.rates import rates_text
from tests.support.documents import ROOT

PAGE = (ROOT / "docs" / "which-policy.md").read_text(encoding="utf-8")


def row_of(name, page=PAGE):
    """The cells of the table's row that recommends a policy."""
    (row,) = [line for line in page.splitlines() if re.match(rf"\|[^|]*\| \[`{name}`\]", line)]
    return [cell.strip() for cell in row.strip("|").split("|")]


@pytest.mark.parametrize("name", dp.names())
def test_a_policy_has_its_default_rates(name):
    said = set(re.findall(r"\.\d+", row_of(name)[2]))
    assert said == {rates_text(rule.rate).lstrip("0") for rule in resolve(name).values()}


@pytest.mark.parametrize("name", dp.names())
def test_a_policy_that_changes_evaluation_says_so(name):
    changes = resolve(name).evaluation != "identity"
    assert ("changes evaluation" in row_of(name)[3]) == changes


def test_the_figures_are_those_of_the_runs():
    lines = (ROOT / "benchmarks" / "results" / "ptb-wide.jsonl").read_text().splitlines()
    runs = {run["config"]["policy"]: run for run in map(json.loads, lines)}
    text = " ".join(PAGE.split())
    found = re.search(
        r"`naive` ends at a test perplexity of ([\d.]+) and `zaremba` at ([\d.]+); "
        r"`variational`,.*? ends at ([\d.]+) ",
        text,
    )
    names = ("naive", "zaremba", "variational")
    assert found.groups() == tuple(f"{runs[name]['test_perplexity']:.1f}" for name in names)
    assert {len(runs[name]["epochs"]) for name in names} == {14}
