"""The first table of docs/results.md takes the right runs, and says why a figure is missing."""

import copy
import re
from statistics import fmean

import pytest

from benchmarks import results
from benchmarks.config import TASKS
from benchmarks.experiments import ROWS, chosen
from benchmarks.overview import BACKENDS, overview

FILES = results.read()


def trained(files=FILES):
    return {task: copy.deepcopy(results.trained(files, task)) for task in TASKS}


def cells(text, row):
    """The cells of a row of the table, without the marks of its notes."""
    begins = f"| [{row.title}](#{row.heading}-preset-{row.preset}): {row.measure} |"
    (line,) = [line for line in text.splitlines() if line.startswith(begins)]
    return [re.sub(" [¹²³⁴⁵⁶⁷⁸⁹]$", "", cell.strip()) for cell in line.split("|")[1:-1]]


def by_hand(file, backend, policy, figure, **config):
    """The mean of a figure over the lines of one file."""
    wanted = {"backend": backend, "policy": policy, **config}
    found = [
        figure(run)
        for run in FILES[file]
        if "config" in run and wanted.items() <= run["config"].items()
    ]
    return fmean(found) if found else None


SMALL, MEDIUM, LARGE, SPEECH, TRANSLATED, BLEU, CAPTIONED, BLEU_4 = ROWS

EXPECTED = [
    (SMALL, "ptb-small", "none", lambda run: run["test_perplexity"]),
    (MEDIUM, "ptb-gpu", "zaremba", lambda run: run["test_perplexity"]),
    (LARGE, "ptb-gpu", "zaremba", lambda run: run["test_perplexity"]),
    (SPEECH, "speech-paper", "zaremba", lambda run: run["epochs"][-1]["held_out_accuracy"]),
    (TRANSLATED, "translation-paper", "none", lambda run: run["test_perplexity"]),
    (BLEU, "translation-paper", "zaremba", lambda run: run["bleu"]),
    (CAPTIONED, "captions-paper", "zaremba", lambda run: run["test_perplexity"]),
    (BLEU_4, "captions-paper", "none", lambda run: run["bleu_4"]),
]


@pytest.mark.parametrize(("row", "file", "policy", "figure"), EXPECTED)
def test_a_figure_is_the_mean_of_the_committed_runs_of_one_file(row, file, policy, figure):
    config = {"rate": 0.2} if file == "translation-paper" and policy == "zaremba" else {}
    shown = cells(overview(trained()), row)[3:7]
    for place, backend in zip((0, 2), BACKENDS.values(), strict=True):
        mean = by_hand(file, backend, policy, figure, preset=row.preset, **config)
        cell = shown[place + (policy == "zaremba")]
        assert cell.split(" ±")[0] == ("–" if mean is None else f"{mean:.{row.digits}f}")


def test_the_papers_figures_are_in_their_columns():
    text = overview(trained())
    assert cells(text, SMALL)[1:3] == ["114.5", "–"]
    assert cells(text, MEDIUM)[1:3] == ["–", "82.7"]
    assert cells(text, LARGE)[1:3] == ["–", "78.4"]
    assert cells(text, SPEECH)[1:3] == ["68.9", "70.5"]
    assert cells(text, BLEU)[1:3] == ["25.9", "29.03"]
    assert cells(text, CAPTIONED)[1:3] == ["8.47", "7.99"]


OTHERS = {
    "epochs": 3,
    "rate": 0.123,
    "policy": "locked",
    "backend": "tensorflow",
    "preset": "demo",
}


@pytest.mark.parametrize("changed", OTHERS)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.title}, {row.measure}")
def test_runs_of_another_recipe_or_backend_are_not_in_the_table(row, changed):
    runs = trained()
    before = cells(overview(runs), row)
    other = copy.deepcopy(chosen(runs[row.task], row, row.paper[1] is not None, "torch")[0])
    other["config"][changed] = OTHERS[changed]
    make_figures_worse(other)
    runs[row.task].append(other)
    assert cells(overview(runs), row) == before


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.title}, {row.measure}")
def test_one_more_run_of_the_recipe_is_in_the_table(row):
    runs = trained()
    before = cells(overview(runs), row)
    other = copy.deepcopy(chosen(runs[row.task], row, row.paper[1] is not None, "torch")[0])
    make_figures_worse(other)
    runs[row.task].append(other)
    after = cells(overview(runs), row)
    (place,) = [n for n, pair in enumerate(zip(before, after, strict=True)) if len(set(pair)) > 1]
    assert place == (3 if row.paper[1] is None else 4)
    other["finished"] = False
    assert cells(overview(runs), row) == before


def make_figures_worse(run):
    for key in ("test_perplexity", "bleu", "bleu_4"):
        if key in run:
            run[key] += 50.0
    for epoch in run["epochs"]:
        if "held_out_accuracy" in epoch:
            epoch["held_out_accuracy"] -= 50.0


def test_another_corpus_is_not_in_the_table():
    runs = trained()
    for run in runs["ptb"]:
        if run["config"]["preset"] == "small":
            run["corpus"]["name"] = "wikitext-2"
    assert "Language model, small" not in overview(runs)


def test_a_figure_that_is_missing_has_its_reason():
    runs = trained()
    text = overview(runs)
    runs["speech"] = [run for run in runs["speech"] if run["config"]["backend"] == "torch"]
    without = overview(runs)
    assert cells(without, SPEECH)[5:7] == ["–", "–"]
    added = set(without.splitlines()) - set(text.splitlines())
    assert any(line.endswith("Not run in Keras.") for line in added)
    assert "The smaller preset [`demo`](#translation" in text


def test_every_dash_has_a_note_and_every_note_is_used():
    text = overview(trained())
    marks = set(re.findall("[¹²³⁴⁵⁶⁷⁸⁹]", "".join(x for x in text.splitlines() if x[:1] == "|")))
    notes = set(re.findall("^- ([¹²³⁴⁵⁶⁷⁸⁹]) ", text, re.MULTILINE))
    assert marks == notes
    assert "– |" not in text


def test_the_sentences_below_the_table_follow_the_figures():
    runs = trained()
    text = overview(runs)
    assert "- Speech: dropout does not change our figures in the same direction" in text
    assert "- Captions: dropout changes our figures in the same direction" in text
    for run in runs["speech"]:
        if run["config"]["policy"] == "zaremba":
            run["epochs"][-1]["held_out_accuracy"] += 20.0
    for run in runs["captions"]:
        if run["config"]["policy"] == "zaremba":
            run["bleu_4"] -= 20.0
    for run in runs["ptb"]:
        run["test_perplexity"] *= 2.0
    changed = overview(runs)
    assert "- Speech: dropout changes our figures in the same direction" in changed
    assert "- Captions: dropout does not change our figures in the same direction" in changed
    (percent,) = re.findall(r"by at most ([\d.]+) %", changed)
    assert float(percent) > 90.0


def test_links_lead_to_headings_of_the_page():
    page = results.page(FILES)
    headings = re.findall("^#+ (.*)$", page, re.MULTILINE)
    anchors = {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", each).lower()) for each in headings}
    links = set(re.findall(r"\]\(#([^)]+)\)", page))
    assert links
    assert links <= anchors
