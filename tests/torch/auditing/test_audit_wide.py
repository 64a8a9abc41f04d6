"""A wide layer is audited with few runs, and as much is decided about it as about a narrow one."""

import dropout_policies_torch as dpt
import pytest
import torch
from dropout_policies_torch.auditing.probe import Probe

import dropout_policies as dp
from dropout_policies.auditing.probing import draw_series

WIDTH = 512
"""Units from which on gates are looked at in one draw."""


@pytest.fixture
def runs(monkeypatch):
    """One entry for every run."""
    found = []
    run = Probe.run

    def count(self, *arguments, **more):
        found.append(self)
        return run(self, *arguments, **more)

    monkeypatch.setattr(Probe, "run", count)
    return found


@pytest.mark.parametrize(
    ("policy", "most"),
    [("zaremba", 165), ("zoneout", 240)],  # 179 and 354 if it took no fewer draws
)
def test_a_wide_layer_with_masks_takes_few_runs(policy, most, runs):
    torch.manual_seed(0)
    audit = dp.audit(dpt.LSTM(WIDTH, WIDTH, policy=policy))
    assert (audit.policy, audit.undecided) == (policy, ())
    assert len(runs) <= most


@pytest.mark.parametrize("gates", ["tied", "untied"])
def test_one_draw_of_a_wide_layer_shows_whether_gates_share_a_mask(gates):
    torch.manual_seed(0)
    audit = dp.audit(dpt.LSTM(WIDTH, WIDTH, policy=dp.variational(gates=gates)))
    assert [audit.at(site).gates for site in ("input", "hidden")] == [gates, gates]


def test_a_draw_with_zoneout_is_observed_once_with_several_signals_in_a_call(monkeypatch):
    """What it shows is enough to send signals one by one from then on."""
    single_steps = []
    observe = draw_series.observe_cells

    def note(draw):
        single_steps.append(draw.single_steps)
        return observe(draw)

    monkeypatch.setattr(draw_series, "observe_cells", note)
    torch.manual_seed(0)
    dp.audit(dpt.LSTM(24, 24, policy="zoneout"))
    assert single_steps.count(False) == 1
    assert single_steps.count(True) >= draw_series.MIN_DRAWS
