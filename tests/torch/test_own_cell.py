"""A cell of one's own, with noise around it."""

import pytest
import torch
from dropout_policies_torch import Unrolled
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import dropout_policies as dp
from dropout_policies.masks import keyed
from dropout_policies.placement.plans import Geometry, Placement, plan_masks
from dropout_policies.policies import cell_types

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


# Cells whose values have spatial axes.


class ConvLSTMCell(nn.Module):
    """A convolutional LSTM cell with peepholes left out, as users write it."""

    def __init__(self, input_dim, hidden_dim, kernel=3, stride=1):
        super().__init__()
        self.input_dim, self.hidden_dim = input_dim, hidden_dim
        self.into = nn.Conv2d(input_dim, 4 * hidden_dim, kernel, stride, padding=kernel // 2)
        self.back = nn.Conv2d(hidden_dim, 4 * hidden_dim, kernel, padding=kernel // 2)

    def forward(self, x, state=None):
        gates = self.into(x)
        if state is None:
            state = 2 * (gates.new_zeros(len(x), self.hidden_dim, *gates.shape[2:]),)
        h, c = state
        i, f, g, o = (gates + self.back(h)).chunk(4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


IMAGES = torch.randn(T, B, D, 4, 3, generator=torch.Generator().manual_seed(2))
EVERYWHERE = dp.Policy(
    input=dp.drop(0.5),
    output=dp.drop(0.5, per="sequence"),
    hidden=dp.drop(0.3, per="sequence"),
    state=dp.drop(0.2),
    hidden_update=dp.Rule(0.2, kind="zoneout"),
)


def masked_by_hand(cell, x, policy, seed, call):
    """What the policy means, with the core's own masks: positions of one channel, then the next."""
    inside, outside = x.shape[3:], cell(x[0])[0].shape[2:]
    geometry = Geometry(
        *(D, H),
        batch=x.shape[1],
        steps=len(x),
        cell=cell_types.CUSTOM,
        input_positions=inside.numel(),
        positions=outside.numel(),
    )
    drawn = keyed.masks(plan_masks(Placement(policy), geometry), seed, call)

    def at(site, t):
        mask = next(torch.tensor(m, dtype=x.dtype) for s, m in drawn.items() if s.site == site)
        channels, spatial = (D, inside) if site == "input" else (H, outside)
        by_channel = mask[min(t, len(mask) - 1)].reshape(x.shape[1], channels, -1)
        positions = spatial if by_channel.shape[-1] > 1 else [1] * len(spatial)
        return by_channel.reshape(x.shape[1], channels, *positions)

    state, outputs = None, []
    for t, step in enumerate(x):
        given = None if state is None else (state[0] * at("hidden", t), state[1])
        new, c = cell(step * at("input", t), given)
        new = new * at("state", t)
        before = torch.zeros_like(new) if state is None else state[0]
        kept = at("hidden_update", t)
        state = kept * before + (1 - kept) * new, c
        outputs.append(state[0] * at("output", t))
    return torch.stack(outputs), state


@pytest.mark.parametrize("shape", ["element", "channel"])
@pytest.mark.parametrize("stride", [1, 2])
def test_values_with_spatial_axes_are_masked_as_the_core_says(shape, stride):
    torch.manual_seed(0)
    cell, policy = ConvLSTMCell(D, H, stride=stride), EVERYWHERE.with_shape(shape)
    size = None if stride == 1 else (2, 2)
    layer = Unrolled(cell, spatial_size=size, policy=policy, seed=4)
    for call in range(2):
        y, state = layer(IMAGES)
        expected_y, expected_state = masked_by_hand(cell, IMAGES, policy, 4, call)
        pairs = zip((y, *state), (expected_y, *expected_state), strict=True)
        for found, expected in pairs:
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert torch.equal(layer.eval()(IMAGES)[0], layer(IMAGES)[0])


def test_images_in_batches_of_other_forms():
    torch.manual_seed(0)
    cell = ConvLSTMCell(D, H)
    layer = Unrolled(cell, policy="variational", seed=4)
    y, (h, _) = layer(IMAGES)
    first = Unrolled(cell, policy="variational", seed=4, batch_first=True)
    assert torch.equal(first(IMAGES.transpose(0, 1))[0].transpose(0, 1), y)
    lengths = [2, 6, 1, 4]
    layer.calls = 0
    packed, (packed_h, _) = layer(pack_padded_sequence(IMAGES, lengths, enforce_sorted=False))
    padded = pad_packed_sequence(packed)[0]
    for sample, length in enumerate(lengths):
        torch.testing.assert_close(padded[:length, sample], y[:length, sample])
    torch.testing.assert_close(packed_h[1], h[1])
    layer.calls = 0
    with dp.sequence(layer):
        state, steps = None, []
        for step in IMAGES.split(1):
            out, state = layer(step, state)
            steps.append(out)
    torch.testing.assert_close(torch.cat(steps), y)


def test_spatial_axes_that_are_not_the_inputs_have_to_be_said():
    layer = Unrolled(ConvLSTMCell(D, H, stride=2), policy="zaremba")
    with pytest.raises(
        dp.PolicyError,
        match=r"planned for an h whose spatial axes are \[4, 3\].*spatial_size=\(2, 2\)",
    ):
        layer(IMAGES)
    plain = Unrolled(ConvLSTMCell(D, H, stride=2))
    assert plain(IMAGES)[0].shape == (T, B, H, 2, 2)


def test_apply_goes_on_unrolled_convolutions():
    model = nn.Sequential(Unrolled(ConvLSTMCell(D, H)))
    applied = dp.apply(model, dp.zaremba(0.5).with_shape("channel"), seed=1)
    assert "input, output 0.5 per step and channel" in str(applied)
    y, _ = model(IMAGES)
    zero = y == 0
    assert torch.equal(zero.all(dim=-1).all(dim=-1), zero.any(dim=-1).any(dim=-1))
    assert 0.3 < zero.float().mean() < 0.7


# Cells that take all steps at once.


class Sum(nn.Module):
    """What has come in so far, which a scan finds for all steps at once."""

    def __init__(self, size):
        super().__init__()
        self.input_size = self.hidden_size = size

    def forward(self, x, h=None):
        y = x.cumsum(0) if h is None else x.cumsum(0) + h
        return y, y[-1]


def test_a_cell_that_takes_all_steps_at_once_is_masked_at_both_ends():
    policy = dp.Policy(input=dp.drop(0.5), output=dp.drop(0.5, per="sequence"))
    layer = Unrolled(Sum(D), at_once=True, policy=policy, seed=3)
    with dp.record(layer) as record:
        y, h = layer(X)
    (masks,) = next(iter(record.values()))
    into, leaving = (
        next(torch.tensor(m, dtype=X.dtype) for s, m in masks.items() if s.site == site)
        for site in ("input", "output")
    )
    torch.testing.assert_close(y, (X * into).cumsum(0) * leaving)
    torch.testing.assert_close(h, (X * into).sum(0))
    first = Unrolled(Sum(D), at_once=True, policy=policy, seed=3, batch_first=True)
    assert torch.equal(first(X.transpose(0, 1))[0].transpose(0, 1), y)
    assert torch.equal(layer.eval()(X)[0], X.cumsum(0))


def test_windows_that_a_cell_takes_at_once_are_one_sequence():
    layer = Unrolled(Sum(D), at_once=True, policy="zaremba", seed=3)
    whole, h = layer(X)
    layer.calls, state, windows = 0, None, []
    with dp.sequence(layer):
        for window in X.split(2):
            y, state = layer(window, state)
            windows.append(y)
    torch.testing.assert_close(torch.cat(windows), whole)
    torch.testing.assert_close(state, h)


def test_what_a_cell_of_all_steps_cannot_have_is_refused():
    with pytest.raises(
        dp.PolicyError, match=r"has no site 'hidden'.*It has: input, between, output"
    ):
        Unrolled(Sum(D), at_once=True, policy="naive")
    with pytest.raises(dp.PolicyError, match=r"has no site 'hidden'"):
        dp.apply(nn.Sequential(Unrolled(Sum(D), at_once=True)), "naive")
    layer = Unrolled(Sum(D), at_once=True, policy="zaremba")
    packed = pack_padded_sequence(X, [2, 6, 1, 4], enforce_sorted=False)
    with pytest.raises(dp.PolicyError, match=r"cannot take packed input.*pad_packed_sequence"):
        layer(packed)
