"""The audit of many modules and of wrong masks is right, and it changes nothing."""

import copy
import random

import numpy as np
import pytest
import torch
from dropout_policies_torch import GRU, LSTM, masks
from torch import nn

import dropout_policies as dp
from tests.support.audited import find_errors
from tests.support.mutants import DRAW_MUTANTS, MASK_MUTANTS, mutated_masks
from tests.support.torch_audited import cases
from tests.support.torch_mutants import in_values

CASES = cases()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_no_verdict_is_false(case):
    torch.manual_seed(5)
    audit = dp.audit(case.make())
    assert find_errors(case, audit) == [], str(audit)


def test_a_false_verdict_is_noticed():
    """The case of one module does not fit the audit of another."""
    truth = {case.name: case for case in CASES}
    torch.manual_seed(5)
    audit = dp.audit(truth["LSTM, 2 layers: naive"].make())
    for other in ("zaremba", "variational", "none"):
        assert find_errors(truth[f"LSTM, 2 layers: {other}"], audit)


INPUT_WEIGHTS = dp.Policy(input_weight=dp.drop(0.5, per="call"), name="input weights")
STATE = dp.Policy(state=dp.drop(0.5), name="state")
MATTERS = {
    "weights not masked": "weight_drop",
    "input weights not masked": INPUT_WEIGHTS,
    "state not masked": STATE,
    "candidate not masked": "semeniuta",
    "cell not masked": "rnndrop",
    "cell not zoned": "zoneout",
    "hidden state not zoned": "zoneout",
}
"""The policy to test a change of masks on, if it is not `zaremba`."""


SAME_NOISE = {"between and output swapped"}
"""Changes of masks that no audit can notice: without the keys, the noise is the same."""


WRONG = {name: m for name, m in (MASK_MUTANTS | DRAW_MUTANTS).items() if name not in SAME_NOISE}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_masks_do_not_get_the_policys_name(name, monkeypatch):
    """The audit notices any change of a policy's masks."""
    monkeypatch.setattr(masks, "draw", mutated_masks(in_values(masks.draw), WRONG[name]))
    torch.manual_seed(5)
    policy = dp.resolve(MATTERS.get(name, dp.zaremba(0.3)))
    audit = dp.audit(LSTM(8, 8, num_layers=2, policy=policy))
    assert audit.policy != policy.name or audit.undecided, str(audit)


def everything(module):
    """Everything of a module and of the process that an audit might leave changed."""
    return (
        {name: value.clone() for name, value in module.state_dict().items()},
        [(name, type(part), part.training) for name, part in module.named_modules()],
        torch.get_rng_state(),
        np.random.get_state()[1].copy(),
        random.getstate(),
        module(torch.ones(3, 2, 9))[0],
    )


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.LSTM(9, 8, 2, dropout=0.5),
        lambda: LSTM(9, 8, policy="zaremba", seed=3),
        lambda: GRU(9, 8, policy=dp.zaremba(dp.ramp(0.1, 0.5, 100))),
    ],
)
def test_nothing_is_left_changed(make, training):
    torch.manual_seed(1)
    module = make().train(training)
    module(torch.ones(3, 2, 9))[0].sum().backward()
    other = copy.deepcopy(module)
    gradients = [p.grad.clone() for p in module.parameters()]
    torch.manual_seed(2)
    before = everything(other)
    torch.manual_seed(2)
    dp.audit(module)
    after = everything(module)
    for a, b in zip(before[0].items(), after[0].items(), strict=True):
        assert a[0] == b[0]
        assert torch.equal(a[1], b[1])
    assert before[1] == after[1]
    assert all(torch.equal(a, p.grad) for a, p in zip(gradients, module.parameters(), strict=True))
    for a, b in zip(before[2:], after[2:], strict=True):
        assert (
            np.array_equal(a, b)
            if isinstance(a, np.ndarray)
            else (torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b)
        )
    assert getattr(module, "calls", 0) == getattr(other, "calls", 0)


def test_an_audit_as_object_and_as_text():
    torch.manual_seed(0)
    audit = dp.audit(nn.LSTM(9, 8, 2, dropout=0.5))
    assert audit.policy is None
    assert audit.nearest == "zaremba"
    assert audit.differences == ("input is whole", "output of layer 2 is whole")
    assert audit.connections == (1, 3)
    assert [audit.corruptions(n) for n in (0, 5)] == [1, 1]
    first, second, *_ = str(audit).splitlines()
    assert first == (
        "nn.LSTM(9, 8, num_layers=2, dropout=0.5): no policy of the catalogue; nearest: zaremba"
    )
    assert second.strip().startswith("1 of 3 vertical connections masked")
    assert repr(audit) == (
        "<Audit of nn.LSTM(9, 8, num_layers=2, dropout=0.5): nearest zaremba, "
        "1 of 3 vertical connections masked>"
    )
    assert all(len(repr(found)) < 100 for found in audit.findings)
    assert audit.to_dict()["findings"][0]["site"] == "input"


def test_a_diagram_shows_what_was_measured_layer_by_layer():
    torch.manual_seed(0)
    audit = dp.audit(LSTM(9, 8, num_layers=2, policy="awd", rate={"between": [0.0, 0.3]}))
    drawn = audit.diagram(path=(1, 3))
    assert [(row.name, row.masked, row.per, row.inside) for row in drawn.rows] == [
        ("input", True, "sequence", False),
        ("layer 1", False, None, True),
        ("between", True, "sequence", False),
        ("layer 2", False, None, True),
        ("output", True, "sequence", False),
    ]
    assert not any(row.wrong for row in drawn.rows)
    assert drawn.corruptions == audit.corruptions(2) == 3
    other = audit.diagram("zaremba")
    assert [row.name for row in other.rows if row.wrong] == [row.name for row in drawn.rows]
    assert "unlike zaremba" in str(other)
    assert "<svg" in audit._repr_html_()


def test_a_diagram_shows_what_is_undecided():
    torch.manual_seed(0)
    drawn = dp.audit(nn.LSTM(9, 8, 2, dropout=0.4, bias=False)).diagram(path=(1, 2))
    layer = drawn.rows[1]
    assert layer.masked is None
    assert "undecided: state, cell" in layer.notes
    assert drawn.corruptions is None
    assert "?: not decided" in str(drawn)
