"""The oracle, against numbers worked out by hand and against its own definition."""

import math

import numpy as np

from dropout_policies.plan import Slot
from dropout_policies.reference import LSTMWeights, lstm
from dropout_policies.sites import Site


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


W = LSTMWeights(
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
    w = LSTMWeights(rng.standard_normal((8, 3)), rng.standard_normal((8, 1)), None, np.ones((1, 2)))
    y, h, c = lstm(rng.standard_normal((2, 3, 3)), [[w]], {})
    assert (y.shape, h.shape, c.shape) == ((2, 3, 1), (1, 3, 1), (1, 3, 2))
