"""Public models: the measure counts masks, models are found or skipped, and the page shows them."""

import json
import sys

import pytest
import torch
from torch import nn

import dropout_policies as dp
from benchmarks.public_models import page, torch_trial, worker
from benchmarks.public_models.entries import Entry, NotInstalledError, load, source

X = torch.randn(9, 16, 8, generator=torch.Generator().manual_seed(0))


class Stack(nn.Module):
    """Dropout around and between two layers, the first in both directions."""

    def __init__(self, rate=0.5):
        super().__init__()
        self.low, self.high = nn.LSTM(8, 16, bidirectional=True), nn.GRU(32, 16)
        self.drop, self.head = nn.Dropout(rate), nn.Linear(16, 3)

    def forward(self, x):
        y, _ = self.low(self.drop(x))
        return self.head(self.drop(self.high(self.drop(y))[0]))


@pytest.mark.parametrize(("existing", "expected"), [("take over", 1.0), ("keep", 2.0)])
def test_masks_are_counted_on_each_connection(existing, expected):
    model = Stack()
    applied = dp.apply(model, "zaremba", 0.5, example=X, existing=existing)
    for masks in torch_trial.measure(model, X, applied, 0.5):
        assert masks.on_input == pytest.approx(expected, abs=0.1), masks
        assert masks.on_output == pytest.approx(expected, abs=0.1), masks


def test_a_connection_without_masks_has_none():
    model = Stack(rate=0.0)
    applied = dp.apply(model, "zoneout", example=X)
    for masks in torch_trial.measure(model, X, applied, 0.5):
        assert masks.on_input == pytest.approx(0.0, abs=0.05)
    assert model.training


def trial(**options):
    entry = Entry("Stack", "torch", lambda: (Stack(), X), **options)
    return json.loads(json.dumps(worker.trial(torch_trial, "torch", entry)))


def test_a_trial_is_one_line_of_the_page():
    result = trial()
    assert result["plain"]["outcome"] == "asks how layers are joined"
    assert result["example"]["masked"] == [3]
    assert result["doubled"] == []
    text = page.page([result])
    assert "| Stack (torch 2" in text
    assert "`low` → `high`: 3 of 3 | `drop (p=0.5)` | 1.0 |" in text


def test_what_to_write_is_tried_and_shown():
    result = trial(write={"skip": "high"}, first="model.drop.p = 0.0", note="A note.")
    assert result["written"]["stacks"] == [["low"]]
    text = page.page([result])
    assert "**Stack** (torch). A note." in text
    assert 'model.drop.p = 0.0\ndp.apply(model, "zaremba", 0.5, skip="high", example=batch)' in text


def test_a_model_that_is_not_installed_is_skipped():
    def build():
        return load("no_such_package.models.one"), None

    entry = Entry("None", "no-such-package", build)
    result = worker.trial(torch_trial, "torch", entry)
    assert result["skipped"] == "no_such_package is not installed"
    assert "- None (no-such-package): no_such_package is not installed" in page.page([result])


def test_a_module_is_imported_without_the_packages_around_it(tmp_path, monkeypatch):
    folder = tmp_path / "heavy" / "parts"
    folder.mkdir(parents=True)
    for place in (folder, folder.parent):
        (place / "__init__.py").write_text("raise ImportError('it needs everything')")
    (folder / "one.py").write_text("from .two import NUMBER")
    (folder / "two.py").write_text("NUMBER = 2")
    monkeypatch.syspath_prepend(tmp_path)
    before = dict(sys.modules)
    try:
        assert load("heavy.parts.one").NUMBER == 2
    finally:
        for name in sys.modules.keys() - before.keys():
            del sys.modules[name]


def test_a_file_of_a_repository_is_read_from_the_folder_that_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv("PUBLIC_MODELS_DIR", raising=False)
    with pytest.raises(NotInstalledError, match="PUBLIC_MODELS_DIR"):
        source("owner/name/model.py")
    (tmp_path / "owner" / "name").mkdir(parents=True)
    (tmp_path / "owner" / "name" / "model.py").write_text("A = 1")
    monkeypatch.setenv("PUBLIC_MODELS_DIR", str(tmp_path))
    assert source("owner/name/model.py")["A"] == 1
