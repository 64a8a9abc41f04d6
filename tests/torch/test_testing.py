"""The assertions that users write into tests of their own."""

import pytest
import torch
from dropout_policies_torch import LSTM
from torch import nn

import dropout_policies as dp
from dropout_policies.testing import (
    PlacementError,
    assert_placement,
    assert_recurrent_state_unmasked,
)
from tests.support.torch_audited import Loop


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("policy", ["none", "zaremba", "locked", "semeniuta", "weight_drop"])
def test_a_state_that_is_whole_passes(policy):
    assert_recurrent_state_unmasked(LSTM(9, 8, num_layers=2, policy=policy))


@pytest.mark.parametrize(
    ("policy", "site"),
    [("naive", "hidden"), ("variational", "hidden"), ("rnndrop", "cell"), ("state", "state")],
)
def test_a_masked_state_fails_and_says_where(policy, site):
    with pytest.raises(AssertionError, match=f"{site} of layer 1: drop"):
        assert_recurrent_state_unmasked(Loop(policy))


def test_what_cannot_be_told_fails():
    with pytest.raises(AssertionError, match="undecided"):
        assert_recurrent_state_unmasked(nn.LSTM(9, 8, 2, dropout=0.4, bias=False))


def test_a_placement_passes_at_any_rate_and_a_policy_at_its_own():
    layer = LSTM(9, 8, num_layers=2, policy="zaremba", rate=0.3)
    assert assert_placement(layer, "zaremba").policy == "zaremba"
    assert_placement(layer, dp.zaremba(0.3))
    with pytest.raises(AssertionError, match=r"input has rate 0\.\d+, not 0\.6"):
        assert_placement(layer, dp.zaremba(0.6))


def test_another_placement_fails_with_the_grid():
    with pytest.raises(PlacementError) as failure:
        assert_placement(LSTM(9, 8, num_layers=2, policy="naive"), "zaremba")
    text = str(failure.value)
    assert "is not under zaremba:\n  hidden of layer 1 is masked" in text
    assert "\n✗ layer 2  ■┅┅┅b┅┅┅■" in text
    assert "\n  between  ┇a" in text
    assert "heavy: from x1 to y4, through 6 masks" in text
    assert failure.value.audit.policy == "naive"


def test_layers_that_do_not_agree_are_drawn_each_as_it_is():
    """Two of three vertical connections whole, and only these marked."""
    with pytest.raises(PlacementError) as failure:
        assert_placement(nn.LSTM(9, 8, 2, dropout=0.5), dp.zaremba(0.5))
    rows = failure.value.diagram.rows
    assert [row.name for row in rows if row.wrong] == ["input", "output"]
    assert [row.name for row in rows if row.masked] == ["between"]
    assert failure.value.diagram.corruptions == 1


def test_a_rate_that_is_asked_for_and_is_another_is_marked():
    layer = LSTM(9, 8, policy="zaremba", rate={"input": 0.2, "output": 0.5})
    with pytest.raises(PlacementError) as failure:
        assert_placement(layer, dp.zaremba(0.5))
    assert [row.name for row in failure.value.diagram.rows if row.wrong] == ["input"]


def test_an_unknown_policy_is_an_error_of_its_own():
    with pytest.raises(dp.PolicyError, match="Did you mean 'zaremba'"):
        assert_placement(nn.LSTM(9, 8), "zarembo")
