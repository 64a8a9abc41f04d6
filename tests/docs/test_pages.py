"""Every code block of the documentation runs, and prints what the page says."""

import re

import pytest
import torch

from tests.support import documents
from tests.support.documents import PAGES, ROOT

PLAIN = [p for p in PAGES if documents.has_code(p) and not documents.needs_keras(p)]


@pytest.mark.parametrize("page", PLAIN, ids=documents.name)
def test_the_code_of_a_page_runs(page):
    # A reader's process is a new one. This one may hold graphs of the same layers, or the decision
    # to make none.
    torch._dynamo.reset()
    documents.run(page)


def test_that_check_can_fail(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\nprint(1)\n```\n\n```text\n1\n```\n")
    assert documents.run(page) == 1
    page.write_text("```python\nprint(1)\n```\n\n```text\n2\n```\n")
    with pytest.raises(AssertionError, match="line 6"):
        documents.run(page)
    page.write_text("```python\npass\n```\n\n```text\n2\n```\n")
    with pytest.raises(AssertionError, match="line 6"):
        documents.run(page)
    page.write_text("```python\nraise LookupError\n```\n")
    with pytest.raises(LookupError):
        documents.run(page)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=documents.name)
def test_links_inside_the_project_lead_somewhere(page):
    text = documents.FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_every_make_target_that_is_named_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        named = set(re.findall(r"`make ([a-z-]+)`", page.read_text(encoding="utf-8")))
        assert named <= targets, page


def test_the_table_of_presets_is_the_presets():
    from benchmarks.ptb.presets import PRESETS

    page = (ROOT / "docs" / "penn-treebank.md").read_text(encoding="utf-8")
    for name, p in PRESETS.items():
        rate = "–" if p.policy == "none" else f"{p.rate:g}"
        recipe = (p.units, rate, p.window, p.init, p.full_epochs, p.decay, p.epochs, p.clip)
        paper = "–" if p.paper is None else f"{p.paper[0]} / {p.paper[1]}"
        figures = [f"{value:g}" if isinstance(value, float) else str(value) for value in recipe]
        assert "| " + " | ".join([f"`{name}`", *figures, paper]) + " |" in page


def test_the_table_of_speech_presets_is_the_presets():
    from benchmarks.speech.presets import PRESETS

    page = (ROOT / "docs" / "speech.md").read_text(encoding="utf-8")
    for name, p in PRESETS.items():
        assert (p.layers, p.batch, p.clip, p.init) == (2, 20, 5.0, 0.08), "the text says so"
        recipe = [p.units, f"{p.rate:g}", p.window, f"{p.before} + {p.after}"]
        recipe += [f"{p.learning_rate:g}", p.full_epochs, f"{p.decay:g}", p.epochs, p.part or "all"]
        assert "| " + " | ".join([f"`{name}`", *map(str, recipe)]) + " |" in page
