"""LSTMCell: one step, masked on its way in; the caller masks h on its way out."""

import numpy as np
import pytest
import torch
from dropout_policies_torch import LSTMCell
from torch import nn

import dropout_policies as dp
from dropout_policies import reference
from dropout_policies.masks import keyed
from dropout_policies.placement.plans import Geometry, plan_masks
from dropout_policies.reference import Weights

B, D, H = 3, 4, 5


def cell(**arguments):
    torch.manual_seed(0)
    return LSTMCell(D, H, dtype=torch.float64, **arguments)


def weights(layer):
    array = {name: p.detach().numpy() for name, p in layer.named_parameters()}
    bias = array["bias_ih"] + array["bias_hh"]
    return Weights(array["weight_ih"], array["weight_hh"], bias)


@pytest.mark.parametrize("policy", ["zaremba", "naive"])
@pytest.mark.parametrize("batched", [True, False])
def test_each_step_equals_the_oracle_in_training(policy, batched):
    layer = cell(policy=policy, rate=0.4, seed=3)
    h = c = torch.zeros(B, H, dtype=torch.float64)
    expected = h.numpy()[None], c.numpy()[None]
    batch = B if batched else 1
    for call in range(3):
        x = torch.randn(batch, D, dtype=torch.float64)
        masks = keyed.masks(plan_masks(layer.placement, Geometry(D, H, batch=batch)), 3, call)
        if batched:
            h, c = layer(x, (h, c))
            y = layer.mask_output(h)
        else:
            h, c = (s[:1] for s in (h, c))
            expected = tuple(s[:, :1] for s in expected)
            h, c = layer(x[0], (h[0], c[0]))
            y = layer.mask_output(h)[None]
            h, c = h[None], c[None]
        out, expected = reference.run(
            reference.lstm, x.numpy()[None], [[weights(layer)]], masks, tuple(expected)
        )
        for got, want in ((y, out[0]), (h, expected[0][0]), (c, expected[1][0])):
            np.testing.assert_allclose(got.detach().numpy(), want, atol=1e-12)


def test_the_first_step_may_have_no_state():
    layer = cell(policy="naive", seed=1)
    x, zero = torch.randn(B, D, dtype=torch.float64), torch.zeros(B, H, dtype=torch.float64)
    first = layer(x)
    layer.calls = 0
    assert torch.equal(first[0], layer(x, (zero, zero))[0])


def test_evaluation_is_the_stock_cell_bit_for_bit():
    stock, layer = nn.LSTMCell(D, H), LSTMCell(D, H, policy="naive", seed=1).eval()
    layer.load_state_dict(stock.state_dict())
    x, state = torch.randn(B, D), (torch.randn(B, H), torch.randn(B, H))
    for a, b in zip(stock(x, state), layer(x, state), strict=True):
        assert torch.equal(a, b)
    assert layer.mask_output(state[0]) is state[0]
    assert layer.calls == 0


def test_a_cell_in_a_stack_masks_its_output_only_at_the_top():
    h = torch.ones(B, H, dtype=torch.float64)
    assert torch.equal(cell(policy="zaremba", stack=(0, 2)).mask_output(h), h)
    top = cell(policy="zaremba", stack=(1, 2), seed=1).mask_output(h)
    assert set(top.unique().tolist()) == {0.0, 2.0}


def test_a_mask_that_outlives_a_step_needs_a_sequence():
    ours = cell(policy=dp.Policy(input=dp.drop(0.5, per="sequence")))
    with pytest.raises(dp.PolicyError, match="one step at a time"):
        ours(torch.ones(B, D))


@pytest.mark.parametrize(
    ("x", "state"),
    [
        ((B, 1), None),
        ((1,), None),
        ((B, D), (B, 1)),
        ((B, D), (1, H)),
        ((B, D), (H,)),
        ((1, B, D), None),
    ],
)
def test_shapes_that_the_stock_cell_refuses_are_refused(x, state):
    """A mask would broadcast them into ones that fit."""
    stock, layer = nn.LSTMCell(D, H), LSTMCell(D, H, policy="naive", seed=1)
    arguments = torch.ones(x), None if state is None else (torch.ones(state), torch.ones(state))
    with pytest.raises((RuntimeError, ValueError)) as theirs:
        stock(*arguments)
    with pytest.raises(theirs.type) as mine:
        layer(*arguments)
    assert str(mine.value) == str(theirs.value)
    assert layer.calls == 0


@pytest.mark.parametrize("shape", [(B, 1), (7, B, H)])
def test_the_output_mask_is_for_one_steps_h(shape):
    with pytest.raises(dp.PolicyError, match="mask_output takes the h of one step"):
        cell(policy="zaremba").mask_output(torch.ones(shape))
