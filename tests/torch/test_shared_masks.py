"""What calls inside a scope keep of their masks, so that none is drawn twice."""

import dropout_policies_torch as dpt
import numpy as np
import pytest
import torch
from dropout_policies_torch import shared_masks
from hypothesis import given, settings
from hypothesis import strategies as st

import dropout_policies as dp

B, H = 3, 4


@pytest.fixture
def draws(monkeypatch):
    """How many steps of bits were drawn in each go."""
    counted, original = [], shared_masks.keyed_bits

    def counting(slot, mask, seed, call, shape, *more):
        counted.append((slot.site.value, shape[0]))
        return original(slot, mask, seed, call, shape, *more)

    monkeypatch.setattr(shared_masks, "keyed_bits", counting)
    return counted


def steps(layer, x):
    state = None
    for step in x.split(1):
        _, state = layer(step, state)


def test_a_mask_that_is_held_is_drawn_once(draws):
    layer = dpt.LSTM(H, H, policy="variational", seed=1)
    with dp.sequence(layer):
        steps(layer, torch.randn(40, B, H))
    assert sorted(draws) == [("hidden", 1), ("input", 1), ("output", 1)]


def test_masks_of_steps_are_drawn_in_advance(draws):
    layer = dpt.LSTM(H, H, policy=dp.Policy(input=dp.drop(0.5)), seed=1)
    with dp.sequence(layer):
        steps(layer, torch.randn(100, B, H))
    assert draws == [("input", count) for count in (1, 2, 4, 8, 16, 32, 64)]


def test_long_chunks_draw_their_own_steps_alone(draws):
    layer = dpt.LSTM(H, H, policy=dp.Policy(input=dp.drop(0.5)), seed=1)
    with dp.sequence(layer):
        for _ in range(3):
            layer(torch.randn(20, B, H))
    assert draws == [("input", 20)] * 3


def test_twins_draw_their_masks_once(draws):
    layer = dpt.LSTM(H, H, policy=dp.Policy(input=dp.drop(0.5)), seed=1)
    with dp.hold(layer):
        for count in (5, 5, 3, 7):
            layer(torch.randn(count, B, H))
    assert draws == [("input", 5), ("input", 7)]


def masks(layer, lengths, batches, resets=None):
    """The masks of calls over some steps each, on batches of some rows each."""
    with dp.record(layer) as record, dp.sequence(layer) as scope:
        for number, (count, batch) in enumerate(zip(lengths, batches, strict=True)):
            if resets is not None:
                scope.reset(resets[number])
            layer(torch.randn(count, batch, H))
    (calls,) = record.values()
    return [{slot: np.array(mask) for slot, mask in call.items()} for call in calls]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_what_is_kept_is_what_would_be_drawn(data):
    count = data.draw(st.integers(1, 12))
    lengths = data.draw(st.lists(st.integers(1, 10), min_size=count, max_size=count))
    are_reset = data.draw(st.booleans())
    sizes = st.just(B) if are_reset else st.integers(1, B)
    batches = data.draw(st.lists(sizes, min_size=count, max_size=count))
    rows = st.lists(st.booleans(), min_size=B, max_size=B)
    resets = data.draw(st.lists(rows, min_size=count, max_size=count)) if are_reset else None
    policy = dp.Policy(
        input=dp.drop(0.5),
        hidden=dp.drop(0.5, per="sequence"),
        recurrent_weight=dp.drop(0.5, per="call"),
    )
    layer = dpt.LSTM(H, H, policy=policy, seed=data.draw(st.integers(0, 5)))
    kept = masks(layer, lengths, batches, resets)
    layer.calls = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared_masks, "is_observed", lambda: True)  # nothing is kept then
        drawn = masks(layer, lengths, batches, resets)
    for a, b in zip(kept, drawn, strict=True):
        assert a.keys() == b.keys()
        for slot in a:
            np.testing.assert_array_equal(a[slot], b[slot])


def test_what_inference_mode_has_drawn_is_not_used_outside_of_it():
    layer = dpt.LSTM(H, H, policy="variational", seed=1)
    x = torch.randn(1, B, H, requires_grad=True)
    with dp.sequence(layer):
        with torch.inference_mode():
            layer(x)
        y, _ = layer(x)
        y.sum().backward()
    assert x.grad is not None


def test_what_was_kept_is_of_one_type_and_device():
    layer = dpt.LSTM(H, H, policy="variational", seed=1)
    with dp.sequence(layer):
        assert layer(torch.randn(1, B, H))[0].dtype == torch.float32
        layer.double()
        assert layer(torch.randn(1, B, H, dtype=torch.float64))[0].dtype == torch.float64


def test_blocks_of_rows_that_are_gone_are_not_kept():
    layer = dpt.LSTM(H, H, policy=dp.Policy(input=dp.drop(0.5)), seed=1)
    with dp.sequence(layer) as scope:
        for _ in range(20):
            scope.reset([True, False, False])
            layer(torch.randn(1, B, H))
        (blocks,) = layer.shared.drawn.values()
    assert len(blocks) == 2
