"""The page of the suite's counts is what the counts say, and none is missing."""

import pytest

from tests.support import conformance_page
from tests.support.conformance import GAPS, pairs
from tests.torch.test_conformance import LAYERS as TORCH_LAYERS

LINES = conformance_page.read()


def test_the_page_is_what_the_counts_say():
    text = conformance_page.PAGE.read_text(encoding="utf-8")
    assert text == conformance_page.page(LINES)


def test_every_pair_of_the_suite_was_counted_and_held():
    counted = {(line["backend"], line["layer"], line["policy"]): line for line in LINES}
    for param in pairs(TORCH_LAYERS):
        layer, policy = param.values
        assert counted["torch", layer.name, policy]["cases"] >= 50
    keras = {key[1:] for key in counted if key[0] == "keras-jax"}
    assert keras
    for backend in ("keras-tensorflow", "keras-torch"):
        assert {key[1:] for key in counted if key[0] == backend} == keras
    assert all(line["cases"] > 0 for line in LINES if not line["gap"])
    assert {key for key, line in counted.items() if line["gap"]} == set(GAPS)


def test_a_page_of_other_counts_is_noticed():
    lines = [line | {"cases": line["cases"] + 1} for line in LINES]
    assert conformance_page.page(lines) != conformance_page.PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("gap", ["", "not yet"])
def test_a_gap_is_shown_as_one(gap):
    (line, *_) = LINES
    text = conformance_page.page([line | {"gap": gap}])
    assert ("not yet" in text) == bool(gap)
    assert text.endswith("None.\n") == (not gap)
