"""The drop-in layers: torch.nn's own in every way but the masks."""

import copy
import inspect
import pickle

import numpy as np
import pytest
import torch
from dropout_policies_torch import LSTM
from torch import nn
from torch.nn.utils.rnn import pack_sequence

import dropout_policies as dp

FORMS = {
    "plain": {},
    "batch first": {"batch_first": True},
    "bidirectional": {"bidirectional": True},
    "projection": {"proj_size": 3},
    "no bias": {"bias": False},
    "one layer": {"num_layers": 1},
    "all": {"batch_first": True, "bidirectional": True, "proj_size": 2, "bias": False},
}
T, B, D, H = 6, 3, 4, 5


def pair(form, **policy):
    """A stock layer and a policy layer with its weights."""
    arguments = {"num_layers": 2, **FORMS[form]}
    stock, ours = nn.LSTM(D, H, **arguments), LSTM(D, H, **arguments, **policy)
    ours.load_state_dict(stock.state_dict())
    return stock, ours


def flat(result):
    y, (h, c) = result
    return [getattr(y, "data", y), h, c]


def assert_same(a, b):
    for left, right in zip(flat(a), flat(b), strict=True):
        assert torch.equal(left, right)


def inputs(layer):
    """Every form in which an LSTM takes its input and state."""
    K, P = 1 + layer.bidirectional, layer.proj_size or H
    x = torch.randn(B, T, D) if layer.batch_first else torch.randn(T, B, D)
    n = layer.num_layers * K
    yield x, None
    yield x, (torch.randn(n, B, P), torch.randn(n, B, H))
    yield torch.randn(T, D), None
    yield torch.randn(T, D), (torch.randn(n, P), torch.randn(n, H))
    packed = pack_sequence([torch.randn(k, D) for k in (2, 6, 3)], enforce_sorted=False)
    yield packed, None
    yield packed, (torch.randn(n, B, P), torch.randn(n, B, H))
    yield pack_sequence([torch.randn(k, D) for k in (5, 5, 1)]), None


@pytest.mark.parametrize("form", FORMS)
def test_evaluation_and_rate_zero_are_the_stock_layer_bit_for_bit(form):
    for policy in ({}, {"policy": "zaremba", "rate": 0.0}, {"policy": "none"}):
        stock, ours = pair(form, **policy)
        for x, hx in inputs(stock):
            assert_same(stock(x, hx), ours(x, hx))
    for name in ("zaremba", "naive"):
        stock, ours = pair(form, policy=name)
        ours.eval()
        for x, hx in inputs(stock):
            assert_same(stock(x, hx), ours(x, hx))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("policy", ["zaremba", "naive"])
def test_training_keeps_every_shape_and_form_of_the_stock_layer(form, policy):
    stock, ours = pair(form, policy=policy)
    for x, hx in inputs(stock):
        expected, got = stock(x, hx), ours(x, hx)
        assert type(got[0]) is type(expected[0])
        for left, right in zip(flat(expected), flat(got), strict=True):
            assert left.shape == right.shape
            assert left.dtype == right.dtype
        if hasattr(expected[0], "data") and not torch.is_tensor(expected[0]):
            for a, b in zip(expected[0][1:], got[0][1:], strict=True):
                assert (a is None and b is None) or torch.equal(a, b)
        assert not torch.equal(flat(expected)[0], flat(got)[0])


def test_the_constructor_takes_what_the_stock_one_takes():
    """Positionally and by name; our own arguments are keywords."""
    parameters = list(inspect.signature(LSTM).parameters.values())
    own = {p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
    assert own == {"policy", "rate", "seed", "stack"}
    layer = LSTM(D, H, 2, False, True, 0.0, True, 3, policy="zaremba")
    stock = nn.LSTM(D, H, 2, False, True, 0.0, True, 3)
    for name in ("num_layers", "bias", "batch_first", "bidirectional", "proj_size"):
        assert getattr(layer, name) == getattr(stock, name)


@pytest.mark.parametrize("form", FORMS)
def test_checkpoints_load_both_ways(form):
    stock, ours = pair(form, policy="zaremba", seed=3)
    ours(next(inputs(stock))[0])
    assert list(ours.state_dict()) == list(stock.state_dict())
    assert not stock.load_state_dict(ours.state_dict()).missing_keys
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in stock.named_parameters()]


def test_seeded_masks_are_a_function_of_seed_and_call():
    _, ours = pair("plain", policy="zaremba", seed=3)
    x = torch.randn(T, B, D)
    first, second = ours(x), ours(x)
    assert not torch.equal(first[0], second[0])
    assert ours.calls == 2
    ours.calls = 0
    assert_same(ours(x), first)
    assert_same(ours(x), second)


def test_seeded_masks_leave_the_frameworks_generator_alone():
    _, ours = pair("plain", policy="naive", seed=3)
    before = torch.get_rng_state()
    ours(torch.randn(T, B, D, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(torch.get_rng_state(), before)


def test_unseeded_masks_follow_manual_seed():
    _, ours = pair("bidirectional", policy="naive")
    x = torch.randn(T, B, D)
    torch.manual_seed(5)
    first, second = ours(x), ours(x)
    torch.manual_seed(5)
    assert_same(ours(x), first)
    assert not torch.equal(first[0], second[0])


def test_unseeded_masks_are_zero_or_the_scale_at_the_right_share():
    layer = LSTM(50, 1, policy=dp.Policy(input=dp.drop(0.2)))
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
    from dropout_policies_torch import masks

    seen = {}
    original = masks.draw
    try:
        masks.draw = lambda *a: seen.update(original(*a)) or seen
        layer(torch.randn(40, 30, 50))
    finally:
        masks.draw = original
    (mask,) = (torch.as_tensor(np.asarray(mask)) for mask in seen.values())
    assert set(mask.unique().tolist()) == {0.0, 1.25}
    assert abs((mask > 0).float().mean().item() - 0.8) < 5 * np.sqrt(0.16 / mask.numel())


def test_evaluation_advances_no_random_state():
    for seed in (None, 4):
        _, ours = pair("plain", policy="naive", seed=seed)
        ours.eval()
        before = torch.get_rng_state()
        ours(torch.randn(T, B, D, generator=torch.Generator().manual_seed(0)))
        assert torch.equal(torch.get_rng_state(), before)
        assert ours.calls == 0


def test_a_process_with_the_later_rows_draws_their_masks():
    _, whole = pair("plain", policy="naive", seed=8)
    part = copy.deepcopy(whole)
    part.row_offset = 1
    x = torch.randn(T, B, D)
    y, (h, c) = whole(x)
    got = flat(part(x[:, 1:]))
    for expected, here in zip((y[:, 1:], h[:, 1:], c[:, 1:]), got, strict=True):
        torch.testing.assert_close(here, expected)


def test_a_masks_sample_is_its_own_whatever_the_order_of_packing():
    _, ours = pair("bidirectional", policy="naive", seed=8)
    sequences = [torch.randn(k, D) for k in (6, 5, 3)]
    y_sorted, state_sorted = ours(pack_sequence(sequences))
    ours.calls = 0
    y, state = ours(pack_sequence(sequences, enforce_sorted=False))
    assert torch.equal(y.data, y_sorted.data)
    assert torch.equal(state[0], state_sorted[0])


def test_copies_and_pickles_go_on_with_the_same_masks():
    _, ours = pair("plain", policy="zaremba", seed=3)
    x = torch.randn(T, B, D)
    ours(x)
    copies = [copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))]
    expected = ours(x)
    for other in copies:
        assert_same(other(x), expected)


@pytest.mark.parametrize("policy", ["zaremba", "naive"])
@pytest.mark.parametrize("form", ["plain", "bidirectional"])
def test_autocast_gives_the_stock_layers_types_in_training(policy, form):
    stock, ours = pair(form, policy=policy, seed=1)
    x = torch.randn(T, B, D)
    with torch.autocast("cpu", torch.bfloat16):
        try:
            types = [part.dtype for part in flat(stock(x))]
        except RuntimeError:  # oneDNN has an LSTM in bfloat16 on CPUs with AVX-512 alone
            types = [torch.bfloat16] * 3
            if policy == "zaremba":  # which runs the stock layer's kernel
                with pytest.raises(RuntimeError, match="primitive descriptor for the LSTM"):
                    ours(x)
                return
        got = ours(x)
    assert [part.dtype for part in flat(got)] == types
    ours.calls = 0
    for part, exact in zip(flat(got), flat(ours(x)), strict=True):
        torch.testing.assert_close(part.float(), exact, atol=0.1, rtol=0.1)
    got[0].float().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in ours.parameters())


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointing_draws_the_same_masks_or_is_refused(use_reentrant):
    from torch.utils.checkpoint import checkpoint

    _, ours = pair("plain", policy="naive")
    x = torch.randn(T, B, D, requires_grad=True)
    gradients = []
    for call in (ours, lambda x: checkpoint(ours, x, use_reentrant=use_reentrant)):
        torch.manual_seed(2)
        x.grad = None
        call(x)[0].sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients)
    _, keyed = pair("plain", policy="naive", seed=3)
    y, _ = checkpoint(keyed, x, use_reentrant=use_reentrant)
    with pytest.raises(dp.PolicyError, match="activation checkpointing"):
        y.sum().backward()


def test_dataparallels_copies_do_not_draw_the_same_keyed_masks_unsaid():
    _, ours = pair("plain", policy="zaremba", seed=3)
    replica = ours._replicate_for_data_parallel()
    with pytest.raises(dp.PolicyError, match="DataParallel"):
        replica(torch.randn(T, B, D))


def test_keyed_masks_in_a_cuda_graph_are_refused(monkeypatch):
    for name in ("is_initialized", "is_current_stream_capturing"):
        monkeypatch.setattr(torch.cuda, name, lambda: True)
    x = torch.randn(T, B, D)
    _, keyed = pair("plain", policy="zaremba", seed=3)
    with pytest.raises(dp.PolicyError, match=r"every replay would be call 0 again.*leave seed out"):
        keyed(x)
    _, unkeyed = pair("plain", policy="zaremba")
    unkeyed(x)


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("policy", ["zaremba", "naive"])
def test_a_compiled_layer_is_the_eager_one(policy, seed):
    _, ours = pair("plain", policy=policy, seed=seed)
    compiled = torch.compile(copy.deepcopy(ours), backend="aot_eager")
    x = torch.randn(T, B, D)  # plain data, without a gradient
    for _ in range(3):
        torch.manual_seed(1)
        expected = ours(x)
        torch.manual_seed(1)
        assert_same(compiled(x), expected)


def test_a_call_that_fails_does_not_count():
    _, ours = pair("plain", policy="naive", seed=3)
    with pytest.raises(RuntimeError):
        ours(torch.randn(0, B, D))
    assert ours.calls == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"policy": "zaremba", "rate": 1.0}, r"\[0, 1\)"),
        ({"policy": "zaremba", "rate": float("nan")}, r"\[0, 1\)"),
        ({"policy": "zarema"}, "Did you mean 'zaremba'"),
        ({"policy": "zaremba", "seed": -1}, "seed must be"),
        ({"policy": "zaremba", "seed": 2**32}, "seed must be"),
        ({"policy": "zaremba", "dropout": 0.3}, "would come on top"),
        (
            {"policy": "zaremba", "rate": [0.1, 0.2, 0.3, 0.4]},
            "LSTM: policy 'zaremba' has rates for 4",
        ),
        ({"rate": 0.3}, "rate goes with a policy"),
        ({"seed": 3}, "seed goes with a policy"),
        ({"stack": (0, 2)}, "stack goes with a policy"),
        ({"policy": "zaremba", "stack": (1, 2)}, "do not fit into a stack of 2"),
        ({"policy": "zaremba", "stack": 2}, r"stack=\(0, 2\)"),
        ({"policy": "zaremba", "stack": (True, 2)}, r"stack=\(0, 2\)"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(dp.PolicyError, match=message):
        LSTM(D, H, 2, **arguments)


def test_without_a_policy_native_dropout_stays():
    torch.manual_seed(0)
    expected = nn.LSTM(D, H, 2, dropout=0.5)
    torch.manual_seed(0)
    ours = LSTM(D, H, 2, dropout=0.5)
    x = torch.randn(T, B, D)
    torch.manual_seed(1)
    left = expected(x)
    torch.manual_seed(1)
    assert_same(ours(x), left)


def test_wrong_input_is_refused_as_by_the_stock_layer():
    stock, ours = pair("plain", policy="zaremba")
    state = torch.randn(2, B, H)
    for x, hx in [
        (torch.randn(T, B, D + 1), None),
        (torch.randn(1, T, B, D), None),
        (torch.randn(T, B, D), (state, torch.randn(2, B + 1, H))),
        (torch.randn(T, B, D), (torch.randn(1, B, H), state)),
        (torch.randn(T, D), (state, state)),
        (torch.randn(T, B, D), (state[:, 0], state[:, 0])),
        (torch.randn(T, B, D, dtype=torch.float64), None),
    ]:
        with pytest.raises((RuntimeError, ValueError)) as theirs:
            stock(x, hx)
        with pytest.raises(theirs.type) as mine:
            ours(x, hx)
        assert str(mine.value) == str(theirs.value)
    assert ours.calls == 0


@pytest.mark.parametrize("form", FORMS)
def test_vertical_policies_stay_on_the_fused_kernel(form, monkeypatch):
    """One call of torch.lstm for each layer and direction; a mask inside the loop leaves it."""
    seen = []
    fused = torch.lstm
    monkeypatch.setattr(torch, "lstm", lambda *a: seen.append(1) or fused(*a))
    for policy in ("zaremba", "naive"):
        _, ours = pair(form, policy=policy)
        for x, hx in inputs(ours):
            seen.clear()
            ours(x, hx)
            calls = ours.num_layers * (1 + ours.bidirectional)
            assert len(seen) == (calls if policy == "zaremba" else 0)


def test_an_object_in_a_stack_masks_its_own_connections_only():
    def slots(stack, layers):
        layer = LSTM(D, D, layers, policy="zaremba", stack=stack, seed=1)
        return [(site.value, number) for site, number in layer.placement.vertical(layers)]

    assert slots(None, 1) == [("input", 0), ("output", 0)]
    assert slots((0, 3), 1) == [("input", 0)]
    assert slots((1, 3), 1) == [("between", 0)]
    assert slots((1, 3), 2) == [("between", 0), ("between", 1), ("output", 1)]


def test_two_objects_as_one_stack_are_one_layer_of_two():
    whole = LSTM(D, D, 2, policy="naive", seed=6)
    first, second = (LSTM(D, D, policy="naive", seed=6, stack=(k, 2)) for k in (0, 1))
    for k, part in enumerate((first, second)):
        part.load_state_dict(
            {n: getattr(whole, n.replace("l0", f"l{k}")) for n in part.state_dict()}
        )
    x = torch.randn(T, B, D)
    y, (h, _) = whole(x)
    middle, (h1, _) = first(x)
    top, (h2, _) = second(middle)
    torch.testing.assert_close(top, y)
    torch.testing.assert_close(torch.cat([h1, h2]), h)
