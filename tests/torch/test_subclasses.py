"""Policies on layers of a class that a user derived from PyTorch's or from ours."""

import copy
import io
import pickle

import dropout_policies_torch as dpt
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import dropout_policies as dp

H = 16


class Plain(nn.LSTM):
    pass


class Doubling(nn.GRU):
    """It does something before and after."""

    def forward(self, x, hx=None):
        y, h = super().forward(2 * x, hx)
        return y + 1, h


class Twice(Doubling):
    """Of two generations."""

    def forward(self, x, hx=None):
        return super().forward(x, hx)


class OtherArguments(nn.LSTM):
    def __init__(self, size, *, scale=2.0):
        super().__init__(size, size, batch_first=True)
        self.scale = scale

    def forward(self, x):
        return super().forward(x * self.scale)[0]


class Ours(dpt.LSTM):
    def forward(self, input, hx=None):
        return super().forward(input, hx)


class Mixin:
    def forward(self, *args):
        return super().forward(*args)


class Mixed(Mixin, nn.RNN):
    pass


class Cell(nn.LSTMCell):
    def forward(self, x, hx=None):
        return super().forward(x, hx)


class Reimplemented(nn.LSTM):
    def forward(self, x, hx=None):
        return x, hx


class Around(nn.LSTM):
    """It names the stock layer, and so leaves any class between them out."""

    def forward(self, x, hx=None):
        return nn.LSTM.forward(self, x, hx)


MADE = {
    "plain": lambda: Plain(H, H),
    "doubling": lambda: Doubling(H, H),
    "two generations": lambda: Twice(H, H),
    "other arguments": lambda: OtherArguments(H),
    "ours": lambda: Ours(H, H),
    "mixin": lambda: Mixed(H, H),
}


def output(layer, x):
    y = layer(x)
    return y[0] if isinstance(y, tuple) else y


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_a_subclass_gets_the_policy_and_its_class_back(make):
    layer = make()
    kind, x = type(layer), torch.randn(20, 20, H)
    expected = output(layer.eval(), x)
    applied = dp.apply(nn.Sequential(layer.train()), "zaremba", 0.5)
    assert isinstance(layer, kind)
    assert kind.__name__ in str(applied)
    one, other = output(layer, x), output(layer, x)
    same = (one == other).float().mean()
    assert 0.15 < same < 0.35  # both dropped: ½ · ½ of the output masks
    assert torch.equal(output(layer.eval(), x), expected)
    applied.remove()
    assert type(layer) is kind
    assert torch.equal(output(layer.train(), x), output(layer, x))
    assert "before_policy" not in vars(layer)


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_a_subclass_under_a_policy_is_copied_pickled_and_saved(make):
    layer, x = make().train(), torch.randn(5, 3, H)
    kind = type(layer)
    dp.apply(layer, "variational", 0.5, seed=1)
    expected = output(layer, x)
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    copies = [
        copy.deepcopy(layer),
        pickle.loads(pickle.dumps(layer)),
        torch.load(file, weights_only=False),
    ]
    for other in copies:
        assert isinstance(other, kind)
        other.calls = 0
        assert torch.equal(output(other, x), expected)
        dp.remove(other)
        assert type(other) is kind
    assert layer.state_dict().keys() == make().state_dict().keys()


def test_a_cell_of_ones_own_class_gets_the_policy():
    cell = Cell(H, H)
    with dp.apply(cell, dp.Policy(input=dp.drop(0.9)), seed=1):
        x = torch.ones(3, H)
        assert not torch.equal(cell(x)[0], cell(x)[0])
    assert type(cell) is Cell


@pytest.mark.parametrize("kind", [Reimplemented, Around])
def test_a_forward_that_leaves_the_stock_one_out_is_told(kind):
    model = nn.ModuleDict({"own": kind(H, H), "stock": nn.LSTM(H, H)})
    assert f"skipped own ({kind.__module__}.{kind.__qualname__}): its forward does not call" in str(
        dp.apply(model, "zaremba")
    )
    with pytest.raises(dp.PolicyError, match=r"dropout_policies_torch.Unrolled"):
        dp.apply(kind(H, H), "zaremba")


class Scaled(nn.Embedding):
    def forward(self, words):
        return super().forward(words) * 4.0


def test_a_subclass_of_an_embedding_drops_words():
    model = nn.Sequential(Scaled(50, H), nn.LSTM(H, H))
    words = torch.arange(50).reshape(10, 5)
    with dp.apply(model, dp.Policy(embedding=dp.drop(0.5, per="call"))) as applied:
        assert "Scaled" in str(applied)
        rows = model.train()[0](words)
        dropped = (rows == 0).all(-1).float().mean()
        assert 0.2 < dropped < 0.8
        kept = (rows != 0).all(-1)
        assert torch.allclose(rows[kept], model[0].weight[words[kept]] * 8)
    assert type(model[0]) is Scaled


def test_a_parametrized_cell_runs_its_parametrization_under_a_policy():
    cell = parametrizations.spectral_norm(nn.LSTMCell(H, H), "weight_hh")
    kind = type(cell)
    x, state = torch.randn(4, H), (torch.randn(4, H), torch.randn(4, H))
    expected = cell.eval()(x, state)
    with dp.apply(cell, "zoneout", 0.5):
        assert not torch.equal(cell.train()(x, state)[0], expected[0])
        with torch.no_grad():
            cell.parametrizations.weight_hh.original.mul_(3)
    assert type(cell) is kind
    assert torch.allclose(cell.eval()(x, state)[0], expected[0], atol=0.02)


def test_a_compiled_and_exported_subclass_is_the_users():
    layer = Doubling(H, H).eval()
    dp.apply(layer, "zaremba", 0.5)
    x = torch.randn(5, 3, H)
    expected = layer(x)[0]
    assert torch.allclose(torch.compile(layer, backend="eager")(x)[0], expected)
    assert torch.allclose(torch.export.export(layer, (x,)).module()(x)[0], expected)
    assert torch.allclose(torch.jit.trace(layer, x)(x)[0], expected)
