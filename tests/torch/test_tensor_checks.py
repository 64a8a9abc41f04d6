"""Tensors that the stock layer refuses, or that are unusual, in a layer under a policy."""

import numpy as np
import pytest
import torch
from dropout_policies_kernels import kernel_memory
from dropout_policies_torch import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell, Unrolled
from torch import nn

import dropout_policies as dp

INSIDE = ("variational", "naive", "semeniuta", "rnndrop", "zoneout")
OUTSIDE = ("zaremba", "locked", "weight_drop")
KINDS = {"LSTM": LSTM, "GRU": GRU, "RNN": RNN}
CELLS = {"LSTM": LSTMCell, "GRU": GRUCell, "RNN": RNNCell}
T, B, D, H = 5, 2, 4, 8


def policy_of(name, kind):
    """A policy without the sites that a kind of layer does not have."""
    if name == "zoneout" and kind != "LSTM":
        return dp.zoneout(cell=0, hidden=0.3)
    if (name == "rnndrop" and kind != "LSTM") or (name == "semeniuta" and kind == "RNN"):
        return "variational"
    return name


def layer_of(kind, policy, **more):
    return KINDS[kind](D, H, policy=policy_of(policy, kind), seed=1, **more)


def state_of(kind, change=lambda h: h, which=0, layers=1):
    states = [torch.zeros(layers, B, H) for _ in range(2 if kind == "LSTM" else 1)]
    states[which] = change(states[which])
    return tuple(states) if kind == "LSTM" else states[0]


@pytest.mark.parametrize("policy", [*INSIDE, *OUTSIDE])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", ["meta", "wide", "one_row", "other_type"])
def test_a_parameter_that_does_not_fit_is_an_error_that_names_it(kind, policy, change):
    changes = {
        "meta": lambda p: p.to("meta"),
        "wide": lambda p: torch.randn(*p.shape[:-1], p.shape[-1] + 1),
        "one_row": lambda p: torch.randn(1, *p.shape[1:]) if p.dim() > 1 else torch.randn(1),
        "other_type": lambda p: p.double(),
    }
    for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
        layer = layer_of(kind, policy)
        changed = changes[change](getattr(layer, name).detach())
        setattr(layer, name, nn.Parameter(changed))
        # The stock layer takes the first weight's type for the layer's.
        error = ValueError if change == "other_type" and name == "weight_ih_l0" else RuntimeError
        with pytest.raises(error) as raised:
            layer(torch.randn(T, B, D))
        if error is RuntimeError:
            assert name in str(raised.value)


@pytest.mark.parametrize("kind", KINDS)
def test_every_layer_and_direction_is_checked(kind):
    for name in ("weight_hh_l1_reverse", "bias_ih_l0_reverse", "weight_ih_l1"):
        layer = layer_of(kind, "variational", num_layers=2, bidirectional=True)
        shape = getattr(layer, name).shape
        setattr(layer, name, nn.Parameter(torch.randn(shape[0] + 1, *shape[1:])))
        with pytest.raises(RuntimeError, match=name):
            layer(torch.randn(T, B, D))


def test_a_projection_is_checked():
    layer = LSTM(D, H, proj_size=3, policy="variational")
    layer.weight_hr_l0 = nn.Parameter(torch.randn(H, 3))
    with pytest.raises(RuntimeError, match="weight_hr_l0"):
        layer(torch.randn(T, B, D))


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_bias_is_an_error(kind):
    for name in ("bias_ih_l0", "bias_hh_l0"):
        layer = layer_of(kind, "naive")
        setattr(layer, name, None)
        with pytest.raises(TypeError, match=name):
            layer(torch.randn(T, B, D))


@pytest.mark.parametrize("policy", [*INSIDE, *OUTSIDE])
@pytest.mark.parametrize("kind", KINDS)
def test_a_state_that_does_not_fit_is_an_error(kind, policy):
    x = torch.randn(T, B, D)
    for which in range(2 if kind == "LSTM" else 1):
        for change in (
            lambda h: h.to("meta"),
            lambda h: h.double(),
            lambda h: h.long(),
            lambda h: h.bool(),
            lambda h: h.to(torch.complex64),
            lambda h: h[:, :, :-1],
            lambda h: h[:, :1],
            lambda h: h[0],
        ):
            with pytest.raises(RuntimeError):
                layer_of(kind, policy)(x, state_of(kind, change, which))
    with pytest.raises(TypeError):
        layer_of(kind, policy)(x, ([1.0], [1.0]) if kind == "LSTM" else [[1.0]])


@pytest.mark.parametrize("policy", ["variational", "zaremba"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_input_that_is_no_dense_tensor_is_an_error(kind, policy):
    x = torch.randn(T, B, D)
    for changed in (
        x.to_sparse(),
        x.to_mkldnn(),
        torch.quantize_per_tensor(x, 0.1, 0, torch.quint8),
        x.to("meta"),
        x.double(),
        x.long(),
    ):
        with pytest.raises((RuntimeError, ValueError)):
            layer_of(kind, policy)(changed)
    for dtype in (torch.bfloat16, torch.float16):
        with pytest.raises(RuntimeError, match="dense"):
            layer_of(kind, policy).to(dtype)(x.to(dtype).to_mkldnn())


@pytest.mark.parametrize("kind", CELLS)
def test_a_cell_checks_its_parameters_and_states(kind):
    x = torch.randn(B, D)
    policy = dp.Policy(input=dp.drop(0.5), hidden=dp.drop(0.5))
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        for change in (lambda p: p.to("meta"), lambda p: p[:1], lambda p: p.double()):
            cell = CELLS[kind](D, H, policy=policy)
            setattr(cell, name, nn.Parameter(change(getattr(cell, name).detach())))
            with pytest.raises(RuntimeError, match=name):
                cell(x)
    for change in (lambda h: h.to("meta"), lambda h: h.double()):
        h = change(torch.zeros(B, H))
        with pytest.raises(RuntimeError):
            CELLS[kind](D, H, policy=policy)(x, (h, h) if kind == "LSTM" else h)


def odd_layouts(values):
    """The same values in other layouts, differentiable."""
    wide = torch.zeros(*values.shape[:-1], 2 * values.shape[-1])
    wide[..., ::2] = values.detach()
    yield "transposed", values.detach().transpose(0, -1).contiguous().transpose(0, -1)
    yield "strided", wide[..., ::2]
    yield "negative", torch._neg_view(-values.detach())
    yield "shifted", torch.cat([torch.zeros(1), values.detach().flatten()])[1:].view(values.shape)


@pytest.mark.parametrize("policy", [*INSIDE, *OUTSIDE])
@pytest.mark.parametrize("kind", KINDS)
def test_the_layout_of_a_tensor_changes_no_number(kind, policy):
    torch.manual_seed(0)
    layer = layer_of(kind, policy, num_layers=2)
    x, h, c = torch.randn(T, B, D), torch.randn(2, B, H), torch.randn(2, B, H)

    def results(**changed):
        given = {"x": x, "h": h, "c": c, **changed}
        leaves = [each.detach().requires_grad_() for each in (x, h, c)]
        layer.calls = 0
        layer.zero_grad()
        # Each tensor is the leaf's values, in its own layout, and passes its gradient on.
        ours = [
            Relayout.apply(leaf, given[name])
            for leaf, name in zip(leaves, ("x", "h", "c"), strict=True)
        ]
        y, end = layer(ours[0], tuple(ours[1:]) if kind == "LSTM" else ours[1])
        ends = end if kind == "LSTM" else (end,)
        (y.square().sum() + sum(e.sum() for e in ends)).backward()
        found = [y, *ends, *(p.grad for p in layer.parameters()), *(leaf.grad for leaf in leaves)]
        return [each.detach().clone() for each in found if each is not None]

    expected = results()
    for name, values in (("x", x), ("h", h), ("c", c)):
        for layout, changed in odd_layouts(values):
            for ours, wanted in zip(results(**{name: changed}), expected, strict=True):
                torch.testing.assert_close(ours, wanted, msg=lambda m: f"{name} {layout}: {m}")  # noqa: B023


class Relayout(torch.autograd.Function):
    """The values of a leaf as another tensor lays them out."""

    @staticmethod
    def forward(ctx, leaf, laid_out):  # noqa: ARG004
        return laid_out.view_as(laid_out) if not laid_out.is_neg() else laid_out[:]

    @staticmethod
    def backward(ctx, gradient):  # noqa: ARG004
        return gradient, None


@pytest.mark.parametrize("policy", [*INSIDE, "zaremba"])
@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_the_layout_of_a_parameter_changes_no_number(kind, policy):
    torch.manual_seed(0)
    layer, x = layer_of(kind, policy), torch.randn(T, B, D)

    def results(name=None, changed=None):
        values = dict(layer.named_parameters())
        if name is not None:
            values[name] = changed
        values = {key: value.detach() for key, value in values.items()}
        layer.calls = 0
        with torch.no_grad():
            return torch.func.functional_call(layer, values, (x,))[0]

    expected = results()
    for name, parameter in layer.named_parameters():
        for layout, changed in odd_layouts(parameter):
            if policy == "zaremba" and kind == "LSTM" and layout != "shifted":
                continue  # oneDNN, which runs the stock layer too, reads its own memory
            torch.testing.assert_close(results(name, changed), expected, msg=f"{name} {layout}")


@pytest.mark.parametrize("policy", INSIDE)
@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_the_layout_of_an_incoming_gradient_changes_no_number(kind, policy):
    torch.manual_seed(0)
    layer, x = layer_of(kind, policy), torch.randn(T, B, D)
    plain = torch.randn(T, B, H)

    def gradients(incoming):
        layer.calls = 0
        y, _ = layer(x)
        return torch.autograd.grad(y, list(layer.parameters()), incoming)

    expected = gradients(plain)
    for layout, changed in odd_layouts(plain):
        for ours, wanted in zip(gradients(changed), expected, strict=True):
            torch.testing.assert_close(ours, wanted, msg=layout)
    kind_of_tensor = type("Mine", (torch.Tensor,), {})
    for ours, wanted in zip(gradients(plain.as_subclass(kind_of_tensor)), expected, strict=True):
        torch.testing.assert_close(ours.as_subclass(torch.Tensor), wanted)
    ones = gradients(torch.ones(()).expand(T, B, H))
    for ours, wanted in zip(ones, gradients(torch.ones(T, B, H)), strict=True):
        torch.testing.assert_close(ours, wanted)


def saved_as(layer, x, pack, unpack=lambda t: t):
    layer.calls = 0
    layer.zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        y, _ = layer(x)
    y.square().sum().backward()
    return [p.grad.clone() for p in layer.parameters()]


def read_only(tensor):
    """The values in memory that must not be written to: a bytes object's."""
    if tensor.numel() == 0:
        return tensor
    values = tensor.detach().contiguous().numpy()
    array = np.frombuffer(values.tobytes(), dtype=values.dtype)
    assert not array.flags.writeable
    return torch.from_numpy(array).view(tensor.shape)


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
@pytest.mark.parametrize("policy", INSIDE)
@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_saved_tensors_may_come_back_elsewhere(kind, policy):
    torch.manual_seed(0)
    layer, x = layer_of(kind, policy), torch.randn(T, B, D)
    expected = saved_as(layer, x, lambda t: t)
    kept = []

    def keep(tensor):
        copy = read_only(tensor)
        kept.append((copy, copy.clone()))
        return copy

    def transposed(t):
        return t.transpose(0, -1).contiguous().transpose(0, -1) if t.dim() > 1 else t

    def negative(t):
        return torch._neg_view(-t) if t.is_floating_point() else t

    for pack in (transposed, torch.clone, keep, negative):
        for ours, wanted in zip(saved_as(layer, x, pack), expected, strict=True):
            torch.testing.assert_close(ours, wanted)
    assert all(torch.equal(copy, values) for copy, values in kept), "a hook's memory was changed"


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_saved_tensors_that_are_others_are_an_error(kind):
    layer, x = layer_of(kind, "variational"), torch.randn(T, B, D)
    for unpack in (
        lambda t: t.double() if t.shape == (T, B, H) else t,
        lambda t: t[:-1] if t.shape == (T, B, H) else t,
        lambda t: t.to("meta") if t.shape == (T, B, H) else t,
    ):
        with pytest.raises(RuntimeError, match="saved"):
            saved_as(layer, x, lambda t: t, unpack)


@pytest.mark.parametrize(
    "policy",
    [
        dp.Policy(hidden=dp.drop(0.3, per="sequence")),
        dp.Policy(candidate=dp.drop(0.3)),
        dp.Policy(state=dp.drop(0.3), hidden_update=dp.Rule(0.2, kind="zoneout")),
    ],
)
@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_a_backward_pass_that_failed_may_be_tried_again(kind, policy):
    """An exception after the operator's own pass leaves autograd with the gates that were saved."""
    torch.manual_seed(0)
    layer, x = KINDS[kind](D, H, policy=policy, seed=1), torch.randn(T, B, D)
    y, _ = layer(x)
    incoming = torch.randn(T, B, H)
    expected = torch.autograd.grad(y, list(layer.parameters()), incoming, retain_graph=True)
    fails = [True]

    def hook(*_):
        if fails:
            fails.pop()
            raise ValueError("a hook fails")

    y.grad_fn.register_hook(hook)
    with pytest.raises(ValueError, match="a hook fails"):
        y.backward(incoming)
    layer.zero_grad()
    y.backward(incoming)
    for parameter, wanted in zip(layer.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, wanted)


@pytest.mark.parametrize("name", ["weight_ih", "weight_hh", "h0", "gates", "h"])
@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_each_saved_tensor_is_checked(kind, name):
    gates = 4 if kind == "LSTM" else 3
    shapes = {
        "weight_ih": (gates * H, D),
        "weight_hh": (gates * H, H),
        "h0": (B, H),
        "gates": (T, B, gates * H),
        "h": (T, B, H),
    }
    layer = KINDS[kind](D, H, policy=dp.Policy(hidden=dp.drop(0.3)), seed=1)
    for change in (lambda t: t.double(), lambda t: torch.cat([t, t], -1), lambda t: t[:1]):

        def unpack(t, change=change):
            return change(t) if t.shape == shapes[name] else t

        with torch.autograd.graph.saved_tensors_hooks(lambda t: t, unpack):
            y, _ = layer(torch.randn(T, B, D))
        with pytest.raises(RuntimeError, match=f"saved tensor {name}"):
            y.sum().backward()


@pytest.mark.parametrize("policy", ["semeniuta", "zoneout", "variational"])
@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_a_differentiable_gradient_is_the_gradient(kind, policy):
    """Also where one input was computed from another: a carried state comes from the weights."""
    torch.manual_seed(0)
    layer, x = layer_of(kind, policy).double(), torch.randn(T, B, D, dtype=torch.float64)

    def gradients(**more):
        layer.calls = 0
        y, state = layer(x)
        y, state = layer(y[..., :D], state)
        return torch.autograd.grad(y.sin().sum(), list(layer.parameters()), **more)

    for ours, wanted in zip(gradients(create_graph=True), gradients(), strict=True):
        torch.testing.assert_close(ours, wanted)


def test_packed_rows_are_counted():
    sizes = torch.tensor([2, 2, 1])
    for layer in (layer_of("LSTM", "variational"), Unrolled(nn.GRUCell(D, H), policy="zaremba")):
        for rows in (torch.randn(1, D), torch.randn(6, D), torch.randn(D), torch.tensor(1.0)):
            with pytest.raises(RuntimeError, match=r"rows?|row for|dimensions"):
                layer(nn.utils.rnn.PackedSequence(rows, sizes))
        layer(nn.utils.rnn.PackedSequence(torch.randn(5, D), sizes))


def test_what_is_no_tensor_gets_the_stock_layers_error():
    for policy in ("variational", "zaremba"):
        for given in ([[1.0]], np.zeros((T, B, D)), None):
            errors = []
            for layer in (layer_of("LSTM", policy), nn.LSTM(D, H)):
                with pytest.raises(Exception) as raised:  # noqa: PT011
                    layer(given)
                errors.append(raised.type)
            assert errors[0] is errors[1], given


def test_the_gate_says_what_it_received():
    like = torch.zeros(3)
    good = torch.zeros(2, 3)
    assert kernel_memory.check_memory("h0", good, (2, 3), like) is good
    for bad in (
        torch.zeros(3, 2),
        torch.zeros(3, 2).t(),
        good.double(),
        good.to("meta"),
        good.to_sparse(),
        torch._neg_view(good),
        good.as_subclass(type("Mine", (torch.Tensor,), {})),
    ):
        with pytest.raises(RuntimeError, match=r"h0: expected a dense tensor .* Received: "):
            kernel_memory.check_memory("h0", bad, (2, 3), like)
    kernel_memory.check_memory("weight", torch.zeros(3, 2).t(), (2, 3), like, contiguous=False)


def test_a_tensor_of_a_subclass_takes_pytorchs_functions():
    class Mine(torch.Tensor):
        pass

    layer, x = layer_of("LSTM", "variational"), torch.randn(T, B, D)
    expected = layer(x)[0]
    layer.calls = 0
    found = layer(x.as_subclass(Mine))[0]
    torch.testing.assert_close(found.as_subclass(torch.Tensor), expected)


def test_dropout_of_its_own_is_refused_under_a_policy():
    """A loop that sets `m.dropout` would mask a second time, or be lost on remove()."""
    for policy, rate in (("zaremba", None), ("none", None), ("zaremba", 0.0)):
        model = nn.Sequential(nn.LSTM(D, H, num_layers=2, dropout=0.2))
        applied = dp.apply(model, policy, rate)
        with pytest.raises(dp.PolicyError, match="rate="):
            model[0].dropout = 0.4
        model[0].dropout = 0.0
        x = torch.randn(T, B, D)
        if policy == "none" or rate == 0.0:
            assert torch.equal(model(x)[0], model(x)[0])
        applied.remove()
        assert model[0].dropout == 0.2
        model[0].dropout = 0.4
        assert model[0].dropout == 0.4
    layer = LSTM(D, H, policy="zaremba")
    with pytest.raises(dp.PolicyError, match="rate="):
        layer.dropout = 0.4
    layer = LSTM(D, H, num_layers=2)
    layer.dropout = 0.4
    assert not torch.equal(layer(x)[0], layer(x)[0])


@pytest.mark.parametrize("policy", ["zaremba", "variational"])
def test_a_deleted_training_attribute_is_said(policy):
    model = nn.Sequential(nn.LSTM(D, H))
    dp.apply(model, policy)
    del model[0].training
    with pytest.raises(dp.PolicyError, match="training"):
        model[0](torch.randn(T, B, D))
    model[0].train()
    model(torch.randn(T, B, D))
