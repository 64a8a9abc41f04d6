"""The oracle, against numbers worked out by hand and against its own definition."""

import dataclasses
import math

import numpy as np
import pytest

from dropout_policies import reference
from dropout_policies.placement.plans import Slot
from dropout_policies.policies.sites import Site
from dropout_policies.reference import Weights, run


def lstm(*arguments, **named):
    y, (h, c) = run(reference.lstm, *arguments, **named)
    return y, h, c


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


W = Weights(
    w_ih=np.array([[0.5], [-0.3], [0.8], [0.1]]),
    w_hh=np.array([[0.2], [0.4], [-0.6], [0.7]]),
    bias=np.array([0.1, 0.2, -0.1, 0.3]),
)


def step(x, h, c, hidden=1.0):
    """One step of width 1, gate by gate."""
    i, f, g, o = (W.w_ih[k, 0] * x + W.w_hh[k, 0] * (h * hidden) + W.bias[k] for k in range(4))
    c = sigmoid(f) * c + sigmoid(i) * math.tanh(g)
    return sigmoid(o) * math.tanh(c), c


def test_two_steps_by_hand_with_a_mask_on_every_site():
    masks = {
        Slot(Site.INPUT, 0, 0): np.array([2.0, 0.5]).reshape(2, 1, 1),
        Slot(Site.HIDDEN, 0, 0): np.array([3.0, 0.25]).reshape(2, 1, 1),
        Slot(Site.OUTPUT, 0, 0): np.array([0.0, 4.0]).reshape(2, 1, 1),
    }
    y, h, c = lstm(
        np.array([1.5, -0.7]).reshape(2, 1, 1),
        [[W]],
        masks,
        (np.full((1, 1, 1), 0.6), np.full((1, 1, 1), -0.4)),
    )
    h1, c1 = step(1.5 * 2.0, 0.6, -0.4, hidden=3.0)
    h2, c2 = step(-0.7 * 0.5, h1, c1, hidden=0.25)
    np.testing.assert_allclose(y.ravel(), [0.0, 4.0 * h2], rtol=1e-14)
    np.testing.assert_allclose([h.item(), c.item()], [h2, c2], rtol=1e-14)


def test_the_backward_direction_reads_the_text_from_its_end_with_masks_in_place():
    rng = np.random.default_rng(0)
    x, mask = rng.standard_normal((4, 2, 1)), rng.standard_normal((4, 2, 1))
    y, h, c = lstm(x, [[W]], {Slot(Site.INPUT, 0, 1): mask}, directions=(1,))
    yf, hf, cf = lstm(x[::-1], [[W]], {Slot(Site.INPUT, 0, 0): mask[::-1]})
    np.testing.assert_array_equal(y, yf[::-1])
    np.testing.assert_array_equal(h, hf)
    np.testing.assert_array_equal(c, cf)


def test_a_padded_step_changes_no_state_and_gives_zero():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((5, 2, 1))
    for way in (0, 1):
        y, h, c = lstm(x, [[W]], {}, lengths=(3, 5), directions=(way,))
        alone = lstm(x[:3, :1], [[W]], {}, directions=(way,))
        np.testing.assert_array_equal(y[:3, :1], alone[0])
        np.testing.assert_array_equal(y[3:, 0], 0.0)
        np.testing.assert_array_equal(h[:, :1], alone[1])
        np.testing.assert_array_equal(c[:, :1], alone[2])


def test_a_second_layer_reads_the_masked_output_of_the_first():
    x = np.array([1.5, -0.7]).reshape(2, 1, 1)
    mask = np.array([2.0, 0.0]).reshape(2, 1, 1)
    y, h, _ = lstm(x, [[W], [W]], {Slot(Site.BETWEEN, 1, 0): mask})
    first, h1, _ = lstm(x, [[W]], {})
    second, h2, _ = lstm(first * mask, [[W]], {})
    np.testing.assert_array_equal(y, second)
    np.testing.assert_array_equal(h, np.concatenate([h1, h2]))


def test_a_projection_carries_the_projected_h():
    rng = np.random.default_rng(2)
    w = Weights(rng.standard_normal((8, 3)), rng.standard_normal((8, 1)), w_hr=np.ones((1, 2)))
    y, h, c = lstm(rng.standard_normal((2, 3, 3)), [[w]], {})
    assert (y.shape, h.shape, c.shape) == ((2, 3, 1), (1, 3, 1), (1, 3, 2))


def by_hand(step, x, h, c, masks):
    """One step of a network of width 1 through the oracle, one number for each site."""
    arrays = {Slot(site, 0, 0): np.full((1, 1, 1), value) for site, value in masks.items()}
    given = np.full((1, 1, 1), x)
    state = tuple(np.full((1, 1, 1), part) for part in (h, c) if part is not None)
    y, end = run(step, given, [[W if step is reference.lstm else V]], arrays, state)
    return y.item(), *(part.item() for part in end)


V = Weights(
    w_ih=np.array([[0.5], [-0.3], [0.8]]),
    w_hh=np.array([[0.2], [0.4], [-0.6]]),
    bias=np.array([0.1, 0.2, -0.1]),
    recurrent_bias=np.array([0.05, -0.2, 0.3]),
)


def test_every_site_of_an_lstm_by_hand():
    x, h, c = 1.5, 0.6, -0.4
    i, f, g, o = (W.w_ih[k, 0] * x + W.w_hh[k, 0] * h + W.bias[k] for k in range(4))
    old = sigmoid(f) * c
    whole_c = old + sigmoid(i) * math.tanh(g)
    whole_h = sigmoid(o) * math.tanh(whole_c)

    def found(**masks):
        return by_hand(reference.lstm, x, h, c, {Site.of(s): m for s, m in masks.items()})

    less = old + 3.0 * sigmoid(i) * math.tanh(g)
    expected = {
        "candidate": (sigmoid(o) * math.tanh(less), less),
        "cell": (sigmoid(o) * math.tanh(3.0 * whole_c), 3.0 * whole_c),
        "state": (3.0 * whole_h, whole_c),
    }
    for site, (new_h, new_c) in expected.items():
        np.testing.assert_allclose(found(**{site: 3.0}), (new_h, new_h, new_c), rtol=1e-14)
    # Zoneout mixes what was with what is; h is that of the whole new c, and what leaves is the mix.
    mixed = 0.25 * c + 0.75 * whole_c
    np.testing.assert_allclose(found(cell_update=0.25), (whole_h, whole_h, mixed), rtol=1e-14)
    mixed = 0.25 * h + 0.75 * whole_h
    np.testing.assert_allclose(found(hidden_update=0.25), (mixed, mixed, whole_c), rtol=1e-14)


def test_masked_weights_and_untied_gates_by_hand():
    x, h, c = 1.5, 0.6, -0.4
    four = np.array([2.0, 0.0, 0.5, 3.0])

    def gates(into, back):
        i, f, g, o = (
            W.w_ih[k, 0] * x * into[k] + W.w_hh[k, 0] * h * back[k] + W.bias[k] for k in range(4)
        )
        new_c = sigmoid(f) * c + sigmoid(i) * math.tanh(g)
        return sigmoid(o) * math.tanh(new_c), new_c

    one = np.ones(4)
    # In width 1 a mask of a gate's weight and a mask of what it sees are the same number.
    for site, shape, expected in [
        (Site.INPUT_WEIGHT, (1, 4, 1), gates(four, one)),
        (Site.RECURRENT_WEIGHT, (1, 4, 1), gates(one, four)),
        (Site.INPUT, (1, 1, 4), gates(four, one)),
        (Site.HIDDEN, (1, 1, 4), gates(one, four)),
    ]:
        state = np.full((1, 1, 1), h), np.full((1, 1, 1), c)
        masks = {Slot(site, 0, 0): four.reshape(shape)}
        _, (new_h, new_c) = run(reference.lstm, np.full((1, 1, 1), x), [[W]], masks, state)
        np.testing.assert_allclose([new_h.item(), new_c.item()], expected, rtol=1e-14)


def test_both_grus_by_hand():
    x, h = 1.5, 0.6
    into = [V.w_ih[k, 0] * x + V.bias[k] for k in range(3)]
    back = [V.w_hh[k, 0] * h + V.recurrent_bias[k] for k in range(3)]
    r, z = sigmoid(into[0] + back[0]), sigmoid(into[1] + back[1])
    for mask in (1.0, 3.0):
        n = math.tanh(into[2] + r * back[2])
        new = (1 - z) * mask * n + z * h
        found = by_hand(reference.gru, x, h, None, {Site.CANDIDATE: mask})
        np.testing.assert_allclose(found, (new, new), rtol=1e-14)
    r, z = (sigmoid(into[k] + V.w_hh[k, 0] * h) for k in (0, 1))
    n = math.tanh(into[2] + V.w_hh[2, 0] * (r * h))
    new = (1 - z) * n + z * h
    found = by_hand(reference.gru_reset_before, x, h, None, {})
    np.testing.assert_allclose(found, (new, new), rtol=1e-14)


def test_an_embedding_leaves_out_whole_word_types_of_a_sample():
    matrix = np.arange(6.0).reshape(3, 2)
    tokens = np.array([[0, 1], [2, 2], [0, 0]])  # [T, B]
    mask = np.array([[[2.0, 0.0, 1.0], [0.0, 1.0, 3.0]]])  # [1, B, V]
    rows = reference.embedding(tokens, matrix, mask)
    expected = [
        [2 * matrix[0], matrix[1]],
        [matrix[2], 3 * matrix[2]],
        [2 * matrix[0], 0 * matrix[0]],
    ]
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_array_equal(reference.embedding(tokens, matrix), matrix[tokens])
    shared = reference.embedding(tokens, matrix, mask[:, :1])
    np.testing.assert_array_equal(shared[0, 1], 0 * matrix[1])


def test_both_grus_with_masks_by_hand():
    """Width 1: the state's masks for all gates and for each, on the state itself, and zoneout."""
    x, h, seen = 1.5, 0.6, 2.0
    for step, before in ((reference.gru, False), (reference.gru_reset_before, True)):
        recurrent = V.recurrent_bias if not before else np.zeros(3)

        def new_state(back, into=(1.0, 1.0, 1.0), before=before, recurrent=recurrent):
            a = [V.w_ih[k, 0] * x * into[k] + V.bias[k] for k in range(3)]
            b = [V.w_hh[k, 0] * h * back[k] + recurrent[k] for k in range(3)]
            r, z = sigmoid(a[0] + b[0]), sigmoid(a[1] + b[1])
            n = V.w_hh[2, 0] * (r * h * back[2]) if before else r * b[2]
            return (1 - z) * math.tanh(a[2] + n) + z * h

        one = (1.0, 1.0, 1.0)
        whole = new_state(one)
        for masks, expected in (
            ({}, whole),
            ({Site.HIDDEN: seen}, new_state((seen, seen, seen))),
            ({Site.INPUT: seen}, new_state(one, (seen, seen, seen))),
            ({Site.STATE: seen}, seen * whole),
            ({Site.HIDDEN_UPDATE: 0.25}, 0.25 * h + 0.75 * whole),
        ):
            found = by_hand(step, x, h, None, masks)
            np.testing.assert_allclose(found, (expected, expected), rtol=1e-14)
        three = np.array([2.0, 0.0, 0.5])
        for site, expected in (
            (Site.HIDDEN, new_state(three)),
            (Site.INPUT, new_state(one, three)),
        ):
            state = (np.full((1, 1, 1), h),)
            masks = {Slot(site, 0, 0): three.reshape(1, 1, 3)}
            _, (end,) = run(step, np.full((1, 1, 1), x), [[V]], masks, state)
            np.testing.assert_allclose(end.item(), expected, rtol=1e-14)


def test_both_simple_layers_by_hand():
    w = Weights(np.array([[0.5]]), np.array([[0.2]]), np.array([0.1]), np.array([-0.3]))
    for x, h in ((1.5, 0.6), (-1.5, 0.6)):
        total = 0.5 * x + 0.1 + 0.2 * h - 0.3
        for step, whole in (
            (reference.rnn_tanh, math.tanh(total)),
            (reference.rnn_relu, max(total, 0.0)),
        ):
            for masks, expected in (
                ({}, whole),
                ({Site.STATE: 3.0}, 3.0 * whole),
                ({Site.HIDDEN_UPDATE: 0.25}, 0.25 * h + 0.75 * whole),
            ):
                arrays = {Slot(site, 0, 0): np.full((1, 1, 1), m) for site, m in masks.items()}
                state = (np.full((1, 1, 1), h),)
                y, (end,) = run(step, np.full((1, 1, 1), x), [[w]], arrays, state)
                np.testing.assert_allclose([y.item(), end.item()], [expected] * 2, rtol=1e-14)


def test_two_directions_lie_side_by_side_and_the_next_layer_sees_both():
    rng = np.random.default_rng(3)
    x = rng.standard_normal((4, 2, 3))

    def weights(width):
        return Weights(rng.standard_normal((8, width)), rng.standard_normal((8, 2)))

    low, high = [weights(3), weights(3)], [weights(4), weights(4)]
    masks = {Slot(Site.BETWEEN, 1, way): rng.standard_normal((4, 2, 4)) for way in (0, 1)} | {
        Slot(Site.OUTPUT, 1, way): rng.standard_normal((4, 2, 2)) for way in (0, 1)
    }
    start = rng.standard_normal((4, 2, 2)), rng.standard_normal((4, 2, 2))
    y, h, c = lstm(x, [low, high], masks, start, directions=(0, 1))
    assert (y.shape, h.shape, c.shape) == ((4, 2, 4), (4, 2, 2), (4, 2, 2))

    def alone(value, w, way, number):
        state = tuple(part[number : number + 1] for part in start)
        return lstm(value, [[w]], {}, state, directions=(way,))

    into = np.concatenate([alone(x, low[way], way, way)[0] for way in (0, 1)], axis=-1)
    for way in (0, 1):
        seen = into * masks[Slot(Site.BETWEEN, 1, way)]
        found, end_h, end_c = alone(seen, high[way], way, 2 + way)
        masked = found * masks[Slot(Site.OUTPUT, 1, way)]
        np.testing.assert_allclose(y[..., 2 * way : 2 * way + 2], masked, rtol=1e-14)
        np.testing.assert_allclose(h[2 + way], end_h[0], rtol=1e-14)
        np.testing.assert_allclose(c[2 + way], end_c[0], rtol=1e-14)


def test_a_mask_per_sequence_is_the_same_at_every_step():
    rng = np.random.default_rng(4)
    x = rng.standard_normal((3, 2, 1))
    for site in (Site.INPUT, Site.HIDDEN, Site.OUTPUT, Site.CELL, Site.CELL_UPDATE):
        mask = rng.random((1, 2, 1))
        once = lstm(x, [[W]], {Slot(site, 0, 0): mask})
        again = lstm(x, [[W]], {Slot(site, 0, 0): np.repeat(mask, 3, axis=0)})
        for a, b in zip(once, again, strict=True):
            np.testing.assert_array_equal(a, b)
    other = lstm(x, [[W]], {Slot(Site.INPUT, 1, 0): mask, Slot(Site.INPUT, 0, 1): mask})
    np.testing.assert_array_equal(other[0], lstm(x, [[W]], {})[0])


def test_a_mask_falls_on_its_own_layer_and_direction_alone():
    rng = np.random.default_rng(5)
    x, mask = rng.standard_normal((3, 2, 1)), rng.standard_normal((3, 2, 1))
    first, _, _ = lstm(x, [[W]], {Slot(Site.HIDDEN, 0, 0): mask})
    expected = lstm(first, [[W]], {})[0]
    np.testing.assert_array_equal(lstm(x, [[W], [W]], {Slot(Site.HIDDEN, 0, 0): mask})[0], expected)
    both = lstm(x, [[W, W]], {Slot(Site.HIDDEN, 0, 0): mask}, directions=(0, 1))[0]
    np.testing.assert_array_equal(both[..., :1], first)
    np.testing.assert_array_equal(both[..., 1:], lstm(x, [[W]], {}, directions=(1,))[0])


def test_what_leaves_the_stack_is_masked_at_its_last_layer_alone():
    x = np.array([1.5, -0.7]).reshape(2, 1, 1)
    low = lstm(x, [[W], [W]], {Slot(Site.OUTPUT, 0, 0): np.full((1, 1, 1), 3.0)})
    for found, expected in zip(low, lstm(x, [[W], [W]], {}), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_mask_may_be_one_number_for_all_steps_samples_and_units():
    """As a mean in evaluation is."""
    rng = np.random.default_rng(6)
    x = rng.standard_normal((3, 2, 5))
    for step, gates in ((reference.lstm, 4), (reference.gru, 3), (reference.gru_reset_before, 3)):
        w = Weights(rng.standard_normal((gates * 2, 5)), rng.standard_normal((gates * 2, 2)))
        for site, width in ((Site.INPUT, 5), (Site.HIDDEN, 2), (Site.OUTPUT, 2)):
            one, wide = (
                run(step, x, [[w]], {Slot(site, 0, 0): np.full(shape, 0.25)})[0]
                for shape in ((1, 1, 1), (3, 2, width))
            )
            np.testing.assert_array_equal(one, wide)


def test_a_state_that_is_left_out_is_zero():
    rng = np.random.default_rng(7)
    x = rng.standard_normal((2, 3, 2))
    w = Weights(rng.standard_normal((20, 2)), rng.standard_normal((20, 5)))
    zero = np.zeros((1, 3, 5))
    for found, expected in zip(lstm(x, [[w]], {}), lstm(x, [[w]], {}, (zero, zero)), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_weights_are_of_as_many_directions_as_run_and_never_change():
    for weights, directions in (([W, W], (0,)), ([W], (0, 1))):
        with pytest.raises(ValueError, match="zip"):
            lstm(np.ones((2, 1, 1)), [weights], {}, directions=directions)
    with pytest.raises(dataclasses.FrozenInstanceError):
        W.bias = None
