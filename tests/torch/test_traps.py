"""What others got wrong: each of these was a defect of published code."""

import numpy as np
import pytest
import torch
from dropout_policies_torch import GRU, LSTM, RNN
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import dropout_policies as dp
from dropout_policies.placement.plans import Slot
from dropout_policies.policies.sites import Site

T, B, D, H = 6, 4, 3, 5
KINDS = [LSTM, GRU, RNN]
X = torch.randn(T, B, D, generator=torch.Generator().manual_seed(1))


def model(kind, policy="weight_drop", **arguments):
    torch.manual_seed(0)
    return kind(D, H, num_layers=2, policy=policy, **{"seed": 3} | arguments)


def stock_of(layer):
    stock = getattr(nn, type(layer).__name__)(D, H, num_layers=2)
    stock.load_state_dict(layer.state_dict())
    return stock


@pytest.mark.parametrize("kind", KINDS)
def test_weight_drop_comes_and_goes_with_training(kind):
    layer = model(kind)
    stock = stock_of(layer)
    for _ in range(2):
        assert torch.equal(layer.eval()(X)[0], stock(X)[0])
        first, second = layer.train()(X)[0], layer(X)[0]
        assert not torch.equal(first, stock(X)[0])
        assert not torch.equal(first, second)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("policy", ["weight_drop", "awd"])
def test_a_hundred_calls_leave_the_parameters_as_they_were(kind, policy):
    layer = model(kind, policy)
    before = {name: p.detach().clone() for name, p in layer.named_parameters()}
    objects = [id(p) for p in layer.parameters()]
    for _ in range(100):
        layer(X)
    assert list(layer.state_dict()) == list(before)
    assert [id(p) for p in layer.parameters()] == objects
    for name, p in layer.named_parameters():
        assert torch.equal(p, before[name])
    assert list(layer.eval().state_dict()) == list(stock_of(layer).state_dict())


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_of_a_dropped_weight_reaches_the_raw_one(kind):
    layer = model(kind)
    with dp.record(layer) as masks:
        layer(X)[0].sum().backward()
    (call,) = masks["model"]
    for number in range(2):
        grad = getattr(layer, f"weight_hh_l{number}").grad
        mask = torch.from_numpy(call[Slot(Site.RECURRENT_WEIGHT, number, 0)][0])
        assert (grad[mask == 0] == 0).all()
        assert (grad[mask > 0] != 0).any()
        assert getattr(layer, f"bias_hh_l{number}").grad.abs().sum() > 0
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    raw = layer.weight_hh_l0.detach().clone()
    optimizer.step()
    assert not torch.equal(layer.weight_hh_l0, raw)


@pytest.mark.parametrize("policy", ["weight_drop", "naive", "zoneout", "variational"])
def test_directions_and_layers_have_masks_of_their_own(policy):
    torch.manual_seed(0)
    layer = LSTM(H, H, num_layers=3, bidirectional=True, policy=policy, rate=0.5, seed=3)
    with dp.record(layer) as masks:
        layer(torch.randn(T, B, H))
    arrays = [array for array in masks["model"][0].values() if array.size >= B * H]
    assert len(arrays) >= 6
    for index, a in enumerate(arrays):
        for b in arrays[index + 1 :]:
            assert a.shape != b.shape or not np.array_equal(a, b)


@pytest.mark.parametrize("policy", dp.names())
@pytest.mark.parametrize("seed", [3, None])
def test_evaluation_leaves_random_state_alone(policy, seed):
    layer = model(LSTM, policy, seed=seed).eval()
    random = torch.get_rng_state()
    first = layer(X)[0]
    assert torch.equal(layer(X)[0], first)
    assert layer.calls == 0
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("policy", dp.names())
def test_a_smaller_last_batch_and_a_longer_one_after_it(policy):
    layer = model(LSTM, policy)
    for batch, steps in ((B, T), (1, T), (B, 2), (2 * B, 2 * T)):
        y, (h, c) = layer(torch.randn(steps, batch, D))
        assert y.shape == (steps, batch, H)
        assert h.shape == c.shape == (2, batch, H)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("policy", ["zaremba", "naive", "variational", "weight_drop", "state"])
def test_a_packed_batch_in_any_order_has_each_samples_own_masks(kind, policy):
    chosen = dp.Policy(state=dp.drop(0.3)) if policy == "state" else policy
    layer, lengths = model(kind, chosen), [2, 6, 1, 4]
    outputs = []
    for order in ([1, 3, 0, 2], [0, 1, 2, 3]):
        layer.calls = 0
        x = X[:, order]
        packed = pack_padded_sequence(x, [lengths[i] for i in order], enforce_sorted=False)
        ends = layer(packed)[1]
        outputs.append(ends[0] if isinstance(ends, tuple) else ends)
    alone = []
    for row, sample in enumerate([1, 3, 0, 2]):  # the masks go with the place in the batch
        layer.calls, layer.row_offset = 0, row
        ends = layer(X[: lengths[sample], sample : sample + 1])[1]
        alone.append(ends[0] if isinstance(ends, tuple) else ends)
    torch.testing.assert_close(outputs[0], torch.cat(alone, dim=1))
    if policy != "weight_drop":  # which has one mask for all
        assert not torch.allclose(outputs[1][:, [1, 3, 0, 2]], outputs[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("policy", ["zaremba", "zoneout", "state"])
def test_final_states_of_shorter_samples_keep_their_gradient(kind, policy):
    chosen = {"state": dp.Policy(state=dp.drop(0.1)), "zoneout": dp.zoneout(0.0, 0.1)}
    layer, x = model(kind, chosen.get(policy, policy)), X.clone().requires_grad_()
    packed = pack_padded_sequence(x, [2, 6, 1, 4], enforce_sorted=False)
    ends = layer(packed)[1]
    ends = ends[0] if isinstance(ends, tuple) else ends
    ends[1, 2].sum().backward()
    assert x.grad[0, 2].abs().sum() > 0
    assert x.grad[1:, 2].abs().sum() == 0
    assert x.grad[:, [0, 1, 3]].abs().sum() == 0


def test_a_policy_stays_off_what_is_not_trained_on():
    """Freezing a layer changes nothing about its masks; turning it to evaluation does."""
    layer = model(LSTM, "awd")
    for p in layer.parameters():
        p.requires_grad_(False)
    assert not torch.equal(layer(X)[0], layer(X)[0])
    assert torch.equal(layer.eval()(X)[0], layer(X)[0])


def test_a_schedule_moves_without_anything_rebuilt():
    layer = model(LSTM, "zaremba", rate=dp.schedule({0: 0.0, 2: 0.5, 4: 0.9}))
    stock = stock_of(layer)
    with dp.record(layer) as masks:
        for call in range(6):
            same = torch.allclose(layer(X)[0], stock(X)[0], atol=1e-6)
            assert same == (call < 2)
    kept = [np.mean([np.mean(m > 0) for m in arrays.values()]) for arrays in masks["model"]]
    np.testing.assert_allclose(kept, [1, 1, 0.5, 0.5, 0.1, 0.1], atol=0.12)
