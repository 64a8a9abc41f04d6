"""The audit of PyTorch modules with unusual noise or cells: it never says more than it can know."""

import pytest
import torch
from dropout_policies_torch import LSTM
from torch import nn

import dropout_policies as dp
from dropout_policies.auditing.probing.findings import widened_interval
from tests.support.audited import find_errors
from tests.support.torch_audited import Loop, case_by_hand
from tests.support.torch_unusual import Around, ByHand, Held, dropped


def test_layers_without_biases_leave_something_undecided():
    torch.manual_seed(0)
    audit = dp.audit(nn.LSTM(9, 8, 2, dropout=0.4, bias=False))
    assert audit.at("between", 1).verdict == "masked"
    assert audit.at("hidden").verdict == "whole"
    assert audit.at("between", 1).scaled is None
    assert {f.site.value for f in audit.undecided} >= {"cell", "candidate"}


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.LSTM(9, 8, 2, bias=False),
        lambda: nn.GRU(9, 8, bias=False),
        lambda: nn.RNN(9, 8, bias=False, bidirectional=True),
        lambda: Loop("none", bias=False),
    ],
)
def test_a_module_without_noise_is_called_none(make):
    """Without biases the audit sees only some sites; but the outputs are the same in all draws."""
    torch.manual_seed(0)
    audit = dp.audit(make())
    assert (audit.policy, audit.evaluation, audit.undecided) == ("none", "identity", ())
    assert audit.verdict == "none"


@pytest.mark.parametrize("seed", [3, 6, 10])
def test_a_missing_input_is_not_a_dropped_hidden_state(seed):
    """Of eight units, the whole input is sometimes dropped where nobody can see it, because the
    whole output is dropped too."""
    torch.manual_seed(seed)
    audit = dp.audit(LSTM(8, 8, 2, policy="zaremba"))
    assert audit.differences == ()
    assert audit.at("hidden", layer=1).verdict == "whole"


NO_MASKS = {
    "Gaussian noise": lambda: Around(lambda x: x * (1 + 0.5 * torch.randn_like(x))),
    "additive noise": lambda: Around(lambda x: x + 0.1 * torch.randn_like(x)),
    "signs": lambda: Around(lambda x: x * (2.0 * (torch.rand_like(x) < 0.5) - 1.0)),
    "features in another order": lambda: Around(lambda x: x[..., torch.randperm(9)]),
    "twice in training": lambda: Around(lambda x: 2 * x),
    "half of what leaves in training": lambda: Around(after=lambda y: y / 2),
    "weights dropped step by step": lambda: ByHand(
        lambda m, x, h: m.W(x) + nn.functional.linear(h, dropped(m, m.U.weight), m.U.bias)
    ),
    "what a gate sees is dropped": lambda: ByHand(lambda m, x, h: m.W(x) + dropped(m, m.U(h))),
}


@pytest.mark.parametrize("name", NO_MASKS)
def test_noise_that_is_no_mask_is_undecided(name):
    torch.manual_seed(0)
    audit = dp.audit(NO_MASKS[name]())
    assert {found.verdict for found in audit.findings} == {"undecided"}
    assert audit.policy is None
    assert audit.verdict == audit.evaluation == "undecided"
    assert "not by a mask that the audit knows" in str(audit)


def test_a_constant_factor_is_no_mask():
    audit = dp.audit(Around(lambda x: 4 * x, always=True))
    assert (audit.policy, audit.evaluation) == ("none", "identity")


def test_a_rate_of_some_steps_alone_is_noted():
    torch.manual_seed(0)
    drop = nn.Dropout(0.4)
    found = dp.audit(Around(lambda x: torch.cat([drop(x[:1]), x[1:]])))
    assert found.policy is None
    text = str(found)
    assert "not that of every step" in text or "not by a mask that the audit knows" in text


@pytest.mark.parametrize("policy", ["none", "naive", "zoneout"])
@pytest.mark.parametrize("added", [(-1.5, 2.0, 0.7), (0.0, -3.0, 0.0)])
def test_numbers_added_to_the_gates_leave_nothing_undecided(policy, added):
    torch.manual_seed(0)
    audit = dp.audit(Loop(policy, added=added))
    assert find_errors(case_by_hand(policy, added), audit) == [], str(audit)


def test_evaluation_of_cells_without_biases_is_undecided():
    torch.manual_seed(0)
    audit = dp.audit(Loop("naive", added=(0.0, 1.0, 0.0), bias=False))
    assert audit.evaluation == "undecided"
    assert audit.differences == ()


def half(x):
    return torch.cat([nn.functional.dropout(x[..., :4], 0.4), x[..., 4:]], -1)


def noisy(x):
    return nn.functional.dropout(x, 0.4) * (1 + 0.3 * torch.randn_like(x))


@pytest.mark.parametrize(
    ("before", "note"),
    [
        (half, "the rate is not that of every unit"),
        (noisy, "what is kept is multiplied by more than one number"),
    ],
    ids=["half of the features", "noise beside masks"],
)
def test_more_than_one_mask_is_noted(before, note):
    torch.manual_seed(0)
    audit = dp.audit(Around(before))
    found = audit.at("input")
    assert (found.verdict, found.scaled, found.note) == ("masked", None, note)
    assert f"input is otherwise: {note}" in audit.differences


def test_noise_without_zeros_is_undecided_beside_masks():
    """Noise that is no mask, and masks elsewhere: the noisy site must not be called whole."""
    torch.manual_seed(0)
    noise = lambda x: x * (1 + 0.3 * torch.randn_like(x))  # noqa: E731
    audit = dp.audit(Around(noise, nn.functional.dropout))
    assert audit.policy is None
    assert audit.at("input").verdict == "undecided"
    assert audit.at("output").verdict == "masked"
    note = "what is kept is multiplied by more than one number"
    assert audit.differences == (f"input is otherwise: {note}",)


@pytest.mark.parametrize("shape", [lambda x: x, lambda x: x[:1]], ids=["per step", "held"])
def test_noise_between_layers_is_found_above_masks(shape):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.low, self.high = nn.LSTM(9, 12), nn.LSTM(12, 12)

        def forward(self, x):
            y, _ = self.low(dropped(self, x))
            noise = 0.1 * torch.randn_like(shape(y)) * self.training
            return self.high(y * (1 + noise))[0]

    torch.manual_seed(0)
    audit = dp.audit(Two())
    assert audit.at("between", layer=1).verdict == "undecided"
    note = "what is kept is multiplied by more than one number"
    assert f"between of layer 2 is otherwise: {note}" in audit.differences


@pytest.mark.parametrize(
    ("rate", "layers"),
    # Deep stacks take half a minute each, and go wrong where the shallow one does.
    [(0.9, 2), *(pytest.param(*deep, marks=pytest.mark.slow) for deep in ((0.8, 4), (0.9, 3)))],
)
def test_few_units_at_high_rates_get_no_false_finding(rate, layers):
    torch.manual_seed(5)
    audit = dp.audit(LSTM(9, 8, layers, policy=dp.zaremba(rate)))
    assert audit.undecided
    assert (audit.policy, audit.nearest) in {("zaremba", "zaremba"), (None, "zaremba")}
    assert audit.differences == ()
    for found in audit.findings:
        if found.verdict == "masked":
            low, high = widened_interval(found)
            assert low <= rate <= high, str(audit)
            assert found.scaled is not False


def test_deep_stacks_are_audited():
    torch.manual_seed(0)
    audit = dp.audit(nn.LSTM(9, 8, 8))
    assert (audit.policy, audit.layers, audit.undecided) == ("none", 8, ())


@pytest.mark.parametrize("site", ["candidate", "state"])
@pytest.mark.parametrize("layers", [1, 2])
def test_a_large_signal_tells_a_held_mask_on_h_from_one_on_the_candidate(site, layers):
    torch.manual_seed(0)
    audit = dp.audit(nn.Sequential(*(Held(site) for _ in range(layers))))
    assert audit.undecided == ()
    masked = [f for f in audit.findings if f.verdict == "masked"]
    assert [(f.site.value, f.layer) for f in masked] == [(site, n) for n in range(layers)]
    assert all(f.per == "sequence" and f.scaled for f in masked)
    assert all(widened_interval(f)[0] < 0.4 < widened_interval(f)[1] for f in masked)


def test_sites_with_the_same_effect_are_undecided_and_the_others_not():
    torch.manual_seed(0)
    audit = dp.audit(Held("state", scaled=False))
    assert (audit.verdict, audit.policy) == ("undecided", None)
    why = "candidate, cell, hidden_update, state would do the same here"
    same = {f.site.value for f in audit.findings if f.note == why}
    assert same == {"candidate", "cell", "hidden_update", "state"}
    whole = {f.site.value for f in audit.findings if f.verdict == "whole"}
    assert whole == {"input", "output", "input_weight", "cell_update"}
