"""A recurrent kernel's gradient, made of all steps at once: whatever is asked, it is autograd's."""

import functools
import itertools

import dropout_policies_keras
import keras
import numpy as np
import pytest
from dropout_policies_keras.kernels import products
from keras import ops

import dropout_policies as dp

if keras.backend.backend() != "torch":
    pytest.skip("autograd is torch's alone", allow_module_level=True)

import torch
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

B, T, H = 3, 5, 4


def drawn(*shape, seed=0, dtype=torch.float32):
    found = np.random.default_rng(seed).standard_normal(shape)
    return torch.tensor(found, dtype=dtype, requires_grad=True)


def ran(x, kernel, by, h=None):
    """h at each step of a small recurrence."""
    product, h = by(kernel), x[0] if h is None else h
    states = []
    for step in x:
        h = torch.tanh(step + product(h))
        states.append(h)
    return states


WAYS = {"all steps": products.select_product(B, T), "plain": products.plain_product}


@pytest.fixture
def both():
    """What a function finds of x and a kernel, by each way."""

    def found(of):
        return [of(drawn(T, B, H), drawn(H, H, seed=1), by) for by in WAYS.values()]

    return found


def assert_same(pair, near=1e-5):
    for left, right in zip(*pair, strict=True):
        torch.testing.assert_close(left, right, rtol=near, atol=near)


def loss_of(states):
    return sum(0.1 * (number + 1) * (h**2).sum() for number, h in enumerate(states))


def test_gradients_are_those_of_a_product_each_step(both):
    assert_same(both(lambda x, k, by: torch.autograd.grad(loss_of(ran(x, k, by)), (x, k))))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_are_multiplied_as_keras_does(dtype):
    def of(by):
        x, kernel = drawn(T, B, H, dtype=dtype), drawn(H, H, seed=1, dtype=dtype)
        states = ran(x, kernel, by)
        return [*states, *torch.autograd.grad(loss_of(states), (x, kernel))]

    assert_same([of(by) for by in WAYS.values()], near=2e-6 if dtype is torch.float64 else 0.03)


@pytest.mark.parametrize("asked", list(itertools.permutations(["x", "middle", "kernel"])))
def test_passes_after_another_do_not_mix(both, asked):
    """One for the input alone, one from a step in the middle, one for the kernel: in any order."""

    def of(x, kernel, by):
        states = ran(x, kernel, by)
        passes = {
            "x": (loss_of(states), [x]),
            "middle": (states[2].sum(), [states[1]]),
            "kernel": (states[3].sum(), [kernel]),
        }
        return [torch.autograd.grad(*passes[each], retain_graph=True)[0] for each in asked]

    assert_same(both(of))


def test_a_pass_may_be_differentiated_again(both):
    def of(x, kernel, by):
        states = ran(x, kernel, by)
        once = torch.autograd.grad(loss_of(states), (x, kernel), create_graph=True)
        twice = torch.autograd.grad(sum((each**2).sum() for each in once), (x, kernel))
        return [*once, *twice]

    assert_same(both(of))


@pytest.mark.parametrize("moved", ["x", "kernel", "start"])
def test_forward_mode_goes_on(both, moved):
    """And over a backward pass, which has to see what moves in every step."""

    def of(x, kernel, by):
        values = {"x": x, "kernel": kernel, "start": drawn(B, H, seed=3)}
        with forward_ad.dual_level():
            values[moved] = forward_ad.make_dual(values[moved], drawn(*values[moved].shape, seed=2))
            loss = loss_of(ran(values["x"], values["kernel"], by, values["start"]))
            (slope,) = torch.autograd.grad(loss, [values["kernel"]])
            return [forward_ad.unpack_dual(each).tangent for each in (loss, slope)]

    assert_same(both(of))


def test_func_goes_on(both):
    def of(x, kernel, by):
        return torch.func.grad(lambda x, k: loss_of(ran(x, k, by)), (0, 1))(x, kernel)

    assert_same(both(of))
    assert_same(both(lambda x, k, by: [torch.func.grad(lambda x: loss_of(ran(x, k, by)))(x)]))


def test_checkpointing_and_hooks_on_what_is_saved_go_on(both):
    def of(x, kernel, by):
        with torch.autograd.graph.save_on_cpu():
            run = functools.partial(ran, by=by)
            states = checkpoint(run, x, kernel, use_reentrant=False)
        return torch.autograd.grad(loss_of(states), (x, kernel))

    assert_same(both(of))


def test_what_is_compiled_goes_on():
    x, kernel = drawn(T, B, H), drawn(H, H, seed=1)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def loss(x, kernel):
        return loss_of(ran(x, kernel, products.select_product(B, T)))

    expected = torch.autograd.grad(loss_of(ran(x, kernel, products.plain_product)), (x, kernel))
    assert_same([torch.autograd.grad(loss(x, kernel), (x, kernel)), expected])


def test_autocast_goes_on(both):
    def of(x, kernel, by):
        with torch.autocast("cpu", torch.bfloat16):
            states = ran(x.float(), kernel.float(), by)
        return torch.autograd.grad(loss_of(states), (x, kernel))

    assert_same(both(of))


def test_a_start_of_another_type_or_of_one_row_goes_on(both):
    for start in (drawn(B, H, seed=3, dtype=torch.float64), drawn(1, H, seed=3)):

        def of(x, kernel, by, start=start):
            loss = loss_of(ran(x, kernel, by, start))
            return torch.autograd.grad(loss, (x, kernel, start))

        assert_same(both(of))


def test_frozen_kernels_and_no_gradients_go_on(both):
    def frozen(x, kernel, by):
        return torch.autograd.grad(loss_of(ran(x, kernel.detach(), by)), [x])

    assert_same(both(frozen))
    with torch.no_grad():
        assert_same(both(ran))


class Counted(TorchDispatchMode):
    """How many products come out in a shape."""

    def __init__(self, shape):
        super().__init__()
        self.shape, self.number = shape, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        if function.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.bmm):
            self.number += tuple(found.shape[-2:]) in (self.shape, self.shape[::-1])
        return found


@pytest.mark.parametrize("policy", ["zaremba", "weight_drop", "variational"])
@pytest.mark.parametrize(
    ("kind", "gates", "more"),
    [
        ("LSTM", 4, {}),
        ("GRU", 3, {}),
        ("GRU", 1, {"reset_after": False}),
        ("SimpleRNN", 1, {}),
    ],
)
def test_a_kernels_gradient_is_one_product(kind, gates, more, policy):
    kernels = 3 if more else 1
    layer = getattr(dropout_policies_keras, kind)(H, policy=policy, **more)
    x = ops.ones((2, 7, 9))
    layer.build(x.shape)
    with Counted((H, gates * H)) as counted:
        ops.sum(layer(x, training=True)).backward()
    assert counted.number == kernels


def test_untied_masks_take_a_product_for_each_gate():
    layer = dropout_policies_keras.LSTM(H, policy=dp.variational(gates="untied"))
    x = ops.ones((2, 7, 9))
    layer.build(x.shape)
    with Counted((H, H)) as counted:
        ops.sum(layer(x, training=True)).backward()
    assert counted.number == 4
