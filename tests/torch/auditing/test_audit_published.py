"""Masks on weights as in published code: for each call, a masked copy takes a parameter's place."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import dropout_policies as dp
from tests.support.stacks import kept

D, H = 6, 10


class Wrapped(nn.Module):
    """A layer whose weights are dropped before each call. If nothing is dropped, the raw parameter
    itself takes their place, and is registered there too."""

    def __init__(self, layer, names, rate):
        super().__init__()
        self.layer, self.names, self.rate = layer, names, rate
        for name in names:
            weight = getattr(layer, name)
            delattr(layer, name)
            layer.register_parameter(f"{name}_raw", nn.Parameter(weight.detach()))

    def forward(self, *inputs):
        for name in self.names:
            raw = getattr(self.layer, f"{name}_raw")
            setattr(self.layer, name, functional.dropout(raw, self.rate, self.training))
        return self.layer(*inputs)


class Locked(nn.Module):
    """Wrapped layers, with held masks before, between and after them."""

    def __init__(self, layers, names, weights, locked):
        super().__init__()
        self.locked = locked
        self.layers = nn.ModuleList(
            Wrapped(nn.LSTM(H if number else D, H), names, weights) for number in range(layers)
        )

    def forward(self, x):
        for layer in self.layers:
            x, _ = layer(self._held(x))
        return self._held(x)

    def _held(self, x):
        return x * kept(self.locked, 1, *x.shape[1:]) if self.training else x


def test_masked_weights_may_become_parameters_in_evaluation():
    torch.manual_seed(0)
    module = Wrapped(nn.LSTM(D, H), ["weight_hh_l0"], 0.4)
    names = list(module.state_dict())
    audit = dp.audit(module)
    assert audit.policy == "weight_drop", str(audit)
    low, high = audit.at("recurrent_weight").interval
    assert low <= 0.4 <= high
    assert list(module.state_dict()) == names


def test_such_a_layer_trains_on_after_an_audit():
    torch.manual_seed(0)
    module = Wrapped(nn.LSTM(D, H), ["weight_hh_l0"], 0.4)
    dp.audit(module)
    output, _ = module.train()(torch.randn(3, 2, D))
    output.sum().backward()
    assert module.layer.weight_hh_l0_raw.grad.abs().sum() > 0


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("layers", [1, 2])
def test_a_unit_without_input_has_no_mask_on_its_hidden_state(layers, seed):
    torch.manual_seed(seed)
    audit = dp.audit(Locked(layers, ["weight_hh_l0", "weight_ih_l0"], 0.2, 0.35))
    masked = {f.site.value for f in audit.findings if f.verdict == "masked"}
    assert masked <= {"input", "between", "output", "recurrent_weight", "input_weight"}, str(audit)
    assert "recurrent_weight" in masked


class OneMask(nn.Module):
    """A GRU with dropped weights; one mask falls on h both into the gates and out."""

    def __init__(self):
        super().__init__()
        self.W, self.U = nn.Linear(D, 3 * H), nn.Linear(H, 3 * H)

    def forward(self, x):
        h = x.new_zeros(x.shape[1], H)
        held, W = torch.ones_like(h), self.W.weight
        if self.training:
            held, W = kept(0.3, *h.shape), W * kept(0.2, *W.shape)
        outputs = []
        for step in x:
            into, back = step @ W.T + self.W.bias, self.U(h * held)
            (r, z, n), (back_r, back_z, back_n) = into.chunk(3, -1), back.chunk(3, -1)
            z = torch.sigmoid(z + back_z)
            h = (1 - z) * torch.tanh(n + torch.sigmoid(r + back_r) * back_n) + z * h
            outputs.append(h * held)
        return torch.stack(outputs)


@pytest.mark.parametrize("seed", range(4))
def test_a_hidden_state_masked_where_the_output_is_too_is_not_whole(seed):
    torch.manual_seed(seed)
    audit = dp.audit(OneMask())
    for site in ("hidden", "output"):
        assert audit.at(site).verdict != "whole", str(audit)
    assert audit.at("input_weight").verdict == "masked"
