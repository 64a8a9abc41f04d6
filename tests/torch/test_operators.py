"""The operators of whole sequences: what PyTorch asks of one, and every way of differentiating."""

import pytest
import torch
from dropout_policies_torch import cells, operators, recurrence
from dropout_policies_torch.gru_operator import gru
from dropout_policies_torch.lstm_operator import lstm
from hypothesis import given, settings
from hypothesis import strategies as st

import dropout_policies as dp
from tests.support import torch_subject
from tests.support.cases import Case, numbers

T, B, D, H = 4, 3, 2, 3
SINGLE = {torch.float32: 3e-5, torch.float64: 1e-12}
OPERATORS = {"LSTM": lstm, "GRU": gru}


def arguments(mode, seed, masked=True, requires_grad=True):
    """An operator's inputs: x, the states, the weights, its masks, and the direction."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape):
        made = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return made.requires_grad_(requires_grad)

    gates, states, biases = (4, 2, 1) if mode == "LSTM" else (3, 1, 2)
    values = [drawn(T, B, D), *(drawn(B, H) for _ in range(states))]
    values += [drawn(gates * H, D), drawn(gates * H, H), *(drawn(gates * H) for _ in range(biases))]
    masks = [
        torch.rand(1 if number % 2 else T, B, H, generator=generator, dtype=torch.float64)
        if masked
        else None
        for number in range(6 if mode == "LSTM" else 4)
    ]
    return [*values, *masks, bool(seed % 2), True]


@pytest.mark.parametrize("mode", OPERATORS)
@pytest.mark.parametrize("masked", [True, False])
def test_an_operator_is_what_pytorch_asks_of_one(mode, masked):
    torch.library.opcheck(OPERATORS[mode].in_graphs, arguments(mode, 1, masked))


@pytest.mark.parametrize("mode", OPERATORS)
@pytest.mark.parametrize("door", ["eager", "in_graphs"])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("masked", [True, False])
def test_gradients_and_their_gradients_are_right(mode, door, seed, masked):
    *values, direction, keep = arguments(mode, seed, masked)
    operator = OPERATORS[mode]
    operator = operator.eager.apply if door == "eager" else operator.in_graphs
    count = 6  # x, states, weights and biases
    masks = values[count:]

    def function(*inputs):
        return operator(*inputs, *masks, direction, keep)[:2]

    assert torch.autograd.gradcheck(function, values[:count])
    assert torch.autograd.gradgradcheck(function, values[:count])


POLICIES = {
    "naive": dp.naive(),
    "zoneout": dp.zoneout(0.5, 0.3),
    "rnndrop": dp.rnndrop(),
    "everything": dp.variational() | dp.semeniuta() | dp.weight_drop(),
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("lengths", [None, (2, 4, 1)])
def test_a_layer_is_differentiated_forwards_and_twice(policy, lengths):
    case = Case(POLICIES[policy], steps=T, layers=1, lengths=lengths, initial_state=False)
    layer = torch_subject.build(case, numbers(case))

    def function(x):
        layer.calls = 0
        return torch_subject.call(layer, case, x, None)[0]

    x = torch.from_numpy(numbers(case).x).requires_grad_()
    forwards = lengths is None  # PyTorch's packing has no forward mode
    assert torch.autograd.gradcheck(function, (x,), check_forward_ad=forwards, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, (x,), fast_mode=True)


@pytest.mark.parametrize("dtype", SINGLE)
@settings(max_examples=30)
@given(mode=st.sampled_from(sorted(OPERATORS)), seed=st.integers(0, 10**6), kept=st.booleans())
def test_an_operator_is_the_plain_loop(dtype, mode, seed, kept):
    *values, direction, _ = arguments(mode, seed, requires_grad=False)
    states = 2 if mode == "LSTM" else 1

    def both_ways(dtype, run):
        given = [each.detach().to(dtype).requires_grad_(kept) for each in values[:6]]
        x, start, (w_ih, w_hh, *biases) = given[0], given[1 : 1 + states], given[1 + states :]
        weights = cells.Weights(
            w_ih, w_hh, biases[0], biases[-1] if mode == "GRU" else 0 * biases[0]
        )
        drawn = (each.to(dtype) for each in values[6:])
        masks = dict(zip(operators.SITES[mode], drawn, strict=True))
        hs, end = run(mode, weights, x, tuple(start), masks, direction)
        if not kept:
            return [hs, *end]
        return [hs, *end, *torch.autograd.grad(sum(each.sin().sum() for each in (hs, *end)), given)]

    def plainly(*args):
        *first, direction = args
        return recurrence._by_steps(*first, dp.Site.INPUT, None, direction)

    found, plain = both_ways(dtype, operators.run), both_ways(torch.float64, plainly)
    for ours, theirs in zip(found, plain, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=SINGLE[dtype], atol=SINGLE[dtype])
