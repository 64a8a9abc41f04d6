"""A cell of one's own, with noise around it."""

import pytest
import torch
from dropout_policies_torch import Unrolled
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import dropout_policies as dp

T, B, D, H = 6, 4, 3, 5
X = torch.randn(T, B, D, generator=torch.Generator().manual_seed(1))


class NormedLSTMCell(nn.Module):
    """An LSTM cell with layer norm, as users write them."""

    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size
        self.gates = nn.Linear(input_size + hidden_size, 4 * hidden_size)
        self.norm = nn.LayerNorm(4 * hidden_size)

    def forward(self, x, state=None):
        if state is None:
            state = 2 * (x.new_zeros(len(x), self.hidden_size),)
        h, c = state
        i, f, g, o = self.norm(self.gates(torch.cat([x, h], dim=-1))).chunk(4, dim=-1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


def by_hand(cell, x):
    """The stock way: a loop."""
    state, outputs = None, []
    for step in x:
        state = cell(step, state)
        outputs.append(state[0])
    return torch.stack(outputs), state


def test_without_noise_it_is_a_loop():
    torch.manual_seed(0)
    cell = NormedLSTMCell(D, H)
    y, (h, c) = by_hand(cell, X)
    for layer in (Unrolled(cell), Unrolled(cell, policy="zaremba").eval()):
        found, (found_h, found_c) = layer(X)
        assert torch.equal(found, y)
        assert torch.equal(found_h, h)
        assert torch.equal(found_c, c)
    first, _ = Unrolled(cell, batch_first=True)(X.transpose(0, 1))
    assert torch.equal(first.transpose(0, 1), y)


def test_packed_input_is_each_sample_alone():
    torch.manual_seed(0)
    layer, lengths = Unrolled(NormedLSTMCell(D, H), policy="naive", seed=3), [2, 6, 1, 4]
    packed, (h, c) = layer(pack_padded_sequence(X, lengths, enforce_sorted=False))
    y = pad_packed_sequence(packed)[0]
    for sample, length in enumerate(lengths):
        layer.calls, layer.row_offset = 0, sample
        alone, (alone_h, alone_c) = layer(X[:length, sample : sample + 1])
        torch.testing.assert_close(y[:length, sample], alone[:, 0])
        torch.testing.assert_close(h[sample], alone_h[0])
        torch.testing.assert_close(c[sample], alone_c[0])


def test_a_cell_that_gives_a_single_tensor_gets_it_back():
    layer = Unrolled(nn.GRUCell(D, H), policy=dp.Policy(state=dp.drop(0.5)), seed=3)
    y, h = layer(X)
    assert torch.equal(y[-1], h)
    again, _ = layer(X, h)
    assert again.shape == y.shape


@pytest.mark.parametrize("site", ["cell", "candidate", "recurrent_weight", "cell_update"])
def test_a_site_inside_is_refused(site):
    rules = {
        "recurrent_weight": dp.drop(0.5, per="call"),
        "cell_update": dp.Rule(0.5, kind="zoneout"),
    }
    policy = dp.Policy(**{site: rules.get(site, dp.drop(0.5))})
    with pytest.raises(dp.PolicyError, match=rf"NormedLSTMCell\) has no site '{site}'.*It has: in"):
        Unrolled(NormedLSTMCell(D, H), policy=policy)
    model = nn.ModuleDict({"rnn": Unrolled(NormedLSTMCell(D, H))})
    with pytest.raises(dp.PolicyError, match=rf"rnn .*Unrolled\) has no site '{site}'"):
        dp.apply(model, policy)


def test_masks_for_each_gate_are_refused():
    with pytest.raises(dp.PolicyError, match="cannot have masks of their own"):
        Unrolled(NormedLSTMCell(D, H), policy=dp.variational(gates="untied"))


def test_sizes_must_be_known():
    class Bare(nn.Module):
        def forward(self, x, _):
            return x

    with pytest.raises(dp.PolicyError, match="input_size is needed"):
        Unrolled(Bare())
    y, _ = Unrolled(Bare(), input_size=D, hidden_size=D)(X)
    assert torch.equal(y, X)
    with pytest.raises(ValueError, match="3D, got 2D"):
        Unrolled(Bare(), input_size=D, hidden_size=D)(X[0])


def test_apply_puts_a_policy_on_it_and_takes_it_off():
    torch.manual_seed(0)
    model = nn.Sequential(Unrolled(NormedLSTMCell(D, H)))
    before = model[0](X)[0]
    with dp.apply(model, "variational", rate=0.5, seed=3) as applied:
        assert [t.name for t in applied.touched] == ["0"]
        assert not torch.equal(model[0](X)[0], before)
    assert torch.equal(model[0](X)[0], before)


def test_the_stock_cell_inside_is_not_found_a_second_time():
    model = nn.ModuleDict({"rnn": Unrolled(nn.LSTMCell(D, H))})
    applied = dp.apply(model, "zaremba")
    assert [t.name for t in applied.touched] == ["rnn"]
    assert not applied.skipped


class Counting(nn.Module):
    """A cell whose state is more than vectors."""

    input_size, hidden_size = D, H

    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(D, H)

    def forward(self, x, state=None):
        h, count, memory = state or (None, x.new_zeros(len(x)), x.new_zeros(len(x), B, 2))
        return self.cell(x, h), count + 1, memory + x[:, :1, None]


def test_parts_of_a_state_of_any_shape_stay_with_their_sample():
    torch.manual_seed(0)
    layer, lengths = Unrolled(Counting(), policy="zaremba", seed=3), [2, 6, 1, 4]
    _, (_, count, memory) = layer(pack_padded_sequence(X, lengths, enforce_sorted=False))
    assert count.tolist() == lengths
    for sample, length in enumerate(lengths):
        layer.calls, layer.row_offset = 0, sample
        _, (_, _, alone) = layer(X[:length, sample : sample + 1])
        torch.testing.assert_close(memory[sample], alone[0])


def test_autocast_zones_what_the_cell_gives():
    layer = Unrolled(
        NormedLSTMCell(D, H), policy=dp.Policy(state=dp.drop(0.2)) | dp.zoneout(0, 0.3)
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, _ = layer(X)
    y.float().sum().backward()
