"""docs/results.md and docs/performance.md say what the committed runs say."""

import copy

import pytest

from benchmarks import results
from benchmarks.speed import page as speed


def test_the_page_is_the_one_that_the_committed_runs_give():
    """If this fails: `make results`."""
    assert results.PAGE.read_text(encoding="utf-8") == results.page(results.read())


def test_the_page_of_speed_is_the_one_that_the_committed_results_give():
    """If this fails: `make results`."""
    assert results.PERFORMANCE.read_text(encoding="utf-8") == speed.page(results.read_speed())


def test_every_committed_run_says_what_it_ran_on():
    for runs in results.read().values():
        for run in runs:
            assert {"python", "dropout-policies", "commit"} <= set(run["versions"])
            assert not run["versions"]["commit"].endswith("+"), "files were changed"
            assert {"cpu", "cores"} <= set(run["machine"])
            for config in run.get("members") or [run.get("config", run)]:
                assert config["seed"] is not None


@pytest.mark.parametrize(
    ("task", "figure"),
    [
        ("ptb", "valid_perplexity"),
        ("translation", "valid_perplexity"),
        ("speech", "held_out_accuracy"),
        ("captions", "valid_perplexity"),
    ],
)
def test_a_changed_figure_changes_the_page(task, figure):
    files = results.read()
    changed = copy.deepcopy(files)
    for epoch in results.trained(changed, task)[0]["epochs"]:
        epoch[figure] += 1.0
    assert results.page(changed) != results.page(files)


def test_a_recipe_of_the_papers_that_was_not_run_in_a_framework_is_said_not_to_be():
    files = copy.deepcopy(results.read())
    backends = {run["config"]["backend"] for run in files["ptb-small"]}
    assert backends == {"torch", "jax"}
    files["ptb-small"] = [r for r in files["ptb-small"] if r["config"]["backend"] == "torch"]
    row = "| none | jax | | not run | | | | | |"
    assert row not in results.page(results.read())
    assert row in results.page(files)


def test_runs_of_fewer_epochs_are_not_counted_among_those_of_more():
    files = copy.deepcopy(results.read())
    whole = files["ptb-small"][0]
    short = copy.deepcopy(whole)
    short["config"]["epochs"] = 3
    short["epochs"] = short["epochs"][:3]
    short["test_perplexity"] = 222.2
    files["new"] = [short]
    before, after = (results.page(each).splitlines() for each in (results.read(), files))
    (row,) = set(after) - set(before)
    assert not set(before) - set(after)
    assert row.startswith("| none | torch | 1 | 3 of 3 |")
    assert "| 222.2 |" in row


def test_averages_are_on_the_page():
    files = copy.deepcopy(results.read())
    member = {**files["ptb-small"][0]["config"], "trained_epochs": 13}
    row = {"models": 2, "valid_perplexity": 111.14, "test_perplexity": 107.26}
    files["new"] = [{"members": [member, member], "corpus": "ptb", "averages": [row]}]
    assert "| Penn Treebank | small, none, 13 epochs | 2 | 111.1 | 107.3 |" in results.page(files)


def test_runs_on_data_of_ones_own_are_not_on_the_page():
    files = results.read()
    more = []
    for name, key in (("ptb-demo", "corpus"), ("speech-demo", "speech")):
        run = copy.deepcopy(files[name][0])
        run[key]["name"] = {"corpus": "own text", "speech": "own speech"}[key]
        run["config"]["seed"] = 77
        more += [run, {**run, "config": run["config"] | {"same_start": True}}]
    run = copy.deepcopy(files["translation-demo"][0])
    run["translation"]["name"] = "own text"
    row = {"models": 2, "valid_perplexity": 111.14, "test_perplexity": 107.26, "bleu": 3.0}
    line = {"members": [run["config"]], "averages": [row], "translation": run["translation"]}
    ptb = {**line, "members": [files["ptb-demo"][0]["config"]], "corpus": "own text"}
    del ptb["translation"]
    changed = {**files, "new": [*more, run, line, ptb]}
    assert results.page(changed) == results.page(files)
    known = copy.deepcopy(files)
    known["new"] = [copy.deepcopy(files["speech-demo"][0])]
    known["new"][0]["speech"]["name"] = "an4"
    known["new"][0]["config"]["seed"] = 77
    assert results.page(known) != results.page(files), "what is known is still there"


def test_backends_that_part_are_said_to():
    files = copy.deepcopy(results.read())
    each = [run for runs in files.values() for run in runs if "config" in run]
    started = [run for run in each if run["config"]["same_start"]]
    assert "All differences are within the bound" in results.page(files)
    started[1]["first_losses"][3] *= 1.01
    assert "Some differences are above the bound" in results.page(files)


def test_runs_with_a_common_start_are_compared_and_not_counted_among_the_others():
    files = copy.deepcopy(results.read())
    run = copy.deepcopy(files["speech-demo"][0])
    run["config"]["same_start"] = True
    other = copy.deepcopy(run)
    other["config"]["backend"] = "jax"
    other["first_losses"][1] *= 1.0 + 5e-4
    files["new"] = [run, other]
    before, after = results.page(results.read()), results.page(files)
    row = "| speech | demo | none | torch and jax | 200 | 5.0e-04 | 0.001 |"
    assert [line for line in after.splitlines() if line not in before.splitlines()] == [row]
    other["first_losses"][1] = float("nan")
    assert "Some differences are above the bound" in results.page(files)


def test_every_committed_time_says_what_it_was_taken_on():
    for result in results.read_speed():
        assert {"python", "dropout-policies", "torch", "commit"} <= set(result["versions"])
        assert not result["versions"]["commit"].endswith("+"), "files were changed"
        assert {"cpu", "cores"} <= set(result["machine"])


@pytest.mark.parametrize("slower", [1.0, 3.0])
def test_an_aim_that_is_missed_is_said_to_be(slower):
    found = copy.deepcopy(results.read_speed())
    for result in found:
        if result["job"]["section"] == "torch" and "stock with dropout" in result["found"]:
            (policy,) = result["job"]["policies"]
            base = result["found"]["stock with dropout"]
            result["found"][policy] = [slower * each for each in base]
    (line,) = [
        line
        for line in speed.page(found).splitlines()
        if line.startswith(
            "| vertical and weight policies ÷ stock layer with the same dropout, any size"
        )
    ]
    assert ("**not met**" in line) == (slower > 1.1)
