"""What `example=` shows of PyTorch models: what feeds which layer, how each is called; no trace."""

# ruff: noqa: ARG001, ARG004, ARG005 - functions of one kind have one signature

import copy
import random
from collections import namedtuple
from dataclasses import dataclass

import dropout_policies_torch as dpt
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import dropout_policies as dp

H = 8
X = torch.randn(5, 3, H, generator=torch.Generator().manual_seed(0))


class Two(nn.Module):
    """Two layers, and what `between` does from the first to the second."""

    def __init__(self, between, low=None, high=None):
        super().__init__()
        # In the wrong order, which must not matter.
        self.high, self.low = high or nn.LSTM(H, H), low or nn.LSTM(H, H)
        self.between, self.linear = between, nn.Linear(H, H)
        self.weight = nn.Parameter(torch.ones(H))

    def forward(self, x):
        return self.high(self.between(self, self.low(x)[0], x))[0]


def seen(model, example=X):
    """Which layer feeds which, by name."""
    wiring = dp.wiring(model, example=example)
    assert wiring.observed
    return {use.item.name: [source.item.name for source in use.fed_by] for use in wiring.uses}


def written(model, y, x):
    out = torch.zeros_like(y)
    for t in range(len(y)):
        out[t] = y[t]
    return out


def copied(model, y, x):
    out = y.new_empty(y.shape)
    for t in range(len(y)):
        out[t].copy_(y[t])
    return out


def learned_start(model, y, x):
    return torch.cat([model.weight.expand(1, y.shape[1], H), y[:-1]])


class OwnFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, grad):
        return grad * 2


class Doubled(nn.Module):
    def forward(self, x):
        return OwnFunction.apply(x)


JOINED = {
    "itself": lambda m, y, x: y,
    "activation": lambda m, y, x: torch.relu(y),
    "in place": lambda m, y, x: y.clone().tanh_().mul_(2).add_(1),
    "residual": lambda m, y, x: x + y,
    "two transposes": lambda m, y, x: y.transpose(0, 1).contiguous().transpose(0, 1),
    "slices": lambda m, y, x: torch.cat([y[:2], y[2:]]),
    "steps": lambda m, y, x: torch.stack(list(y)),
    "written into zeros": written,
    "copied into views": copied,
    "padding": lambda m, y, x: nn.functional.pad(y, (0, 0, 0, 0, 1, 0)),
    "mean of directions": lambda m, y, x: (
        y.view(*y.shape[:2], 2, H // 2).repeat(1, 1, 1, 2).mean(2)
    ),
    "layer norm without weights": lambda m, y, x: nn.functional.layer_norm(y, (H,)),
    "einsum": lambda m, y, x: torch.einsum("tbh->tbh", y),
    "attention without weights": lambda m, y, x: torch.softmax(x @ y.mT, -1) @ y,
    "other dtype and back": lambda m, y, x: y.double().float(),
    "detach": lambda m, y, x: y.detach(),
    "numbers": lambda m, y, x: 0.5 * y + 1,
    "reversed": lambda m, y, x: y.flip(0),
    "chosen by a mask": lambda m, y, x: torch.where(x > 0, y, x),
    "masked in place": lambda m, y, x: y.masked_fill(x > 0, 0.0),
    "a learned first step": learned_start,
    "a function of one's own": lambda m, y, x: Doubled()(y),
    "packing": lambda m, y, x: pad_packed_sequence(pack_padded_sequence(y, [5, 4, 3]))[0],
}

SEPARATE = {
    "linear": lambda m, y, x: m.linear(y),
    "a weight": lambda m, y, x: y * m.weight,
    "a matrix": lambda m, y, x: y @ m.linear.weight.T,
    "a weight made of weights": lambda m, y, x: y * torch.sigmoid(m.weight).unsqueeze(0),
    "a functional linear": lambda m, y, x: nn.functional.linear(y, m.linear.weight),
    "nothing of it": lambda m, y, x: x,
    "only its form": lambda m, y, x: torch.randn_like(y) + torch.zeros_like(y) + y.new_ones(H),
    "only its size": lambda m, y, x: x.expand(*y.shape),
    "only its type": lambda m, y, x: x.to(y).type_as(y).view_as(y),
    "words": lambda m, y, x: nn.functional.embedding(y.argmax(-1), m.linear.weight),
}


@pytest.mark.parametrize("between", JOINED.values(), ids=JOINED)
def test_operations_without_weights_join_two_layers(between):
    model = Two(between)
    assert seen(model) == {"low": [], "high": ["low"]}
    applied = dp.apply(model, "zaremba", 0.5, example=X)
    assert [[t.name for t in stack.members] for stack in applied.stacks] == [["low", "high"]]
    assert applied.stacks[0].masked == 3


@pytest.mark.parametrize("between", SEPARATE.values(), ids=SEPARATE)
def test_operations_with_weights_end_a_stack(between):
    model = Two(between)
    assert seen(model) == {"low": [], "high": []}
    assert len(dp.apply(model, "zaremba", 0.5, example=X).stacks) == 2


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN, dpt.LSTM, dpt.GRU])
@pytest.mark.parametrize("more", [{}, {"num_layers": 2}, {"bidirectional": True}])
def test_every_kind_of_layer_is_followed(kind, more):
    width = H * (1 + more.get("bidirectional", False))
    model = Two(lambda m, y, x: y, kind(H, H, **more), kind(width, H, **more))
    assert seen(model) == {"low": [], "high": ["low"]}


def test_packed_sequences_are_followed():
    class Packed(nn.Module):
        def __init__(self):
            super().__init__()
            self.low, self.high = nn.GRU(H, H), nn.GRU(H, H)

        def forward(self, packed):
            return self.high(self.low(packed)[0])[0]

    packed = pack_padded_sequence(X, [5, 3, 1])
    wiring = dp.wiring(Packed(), example=packed)
    assert [(use.calls, use.steps) for use in wiring.uses] == [(1, 5), (1, 5)]
    assert seen(Packed(), packed) == {"low": [], "high": ["low"]}


def test_cells_and_own_cells_are_followed():
    class Steps(nn.Module):
        def __init__(self):
            super().__init__()
            self.low, self.high = nn.LSTMCell(H, H), nn.GRUCell(H, H)
            self.top = dpt.Unrolled(nn.GRUCell(H, H))

        def forward(self, x):
            low, high, out = None, None, []
            for step in x:
                low = self.low(step, low)
                high = self.high(low[0], high)
                out.append(high)
            return self.top(torch.stack(out))[0]

    wiring = dp.wiring(Steps(), example=X)
    assert seen(Steps()) == {"low": [], "high": ["low"], "top": ["high"]}
    assert [(use.calls, use.steps) for use in wiring.uses] == [(5, 5), (5, 5), (1, 5)]


class Decoder(nn.Module):
    """A decoder that runs step by step, and may take in what it gave."""

    def __init__(self, feeds_back=False, layers=1):
        super().__init__()
        self.encoder, self.embedding = nn.LSTM(H, H), nn.Embedding(20, H)
        self.decoder = nn.LSTM(H, H, layers)
        self.head, self.feeds_back = nn.Linear(H, 20), feeds_back

    def forward(self, source, words):
        _, state = self.encoder(source)
        outputs = []
        x = self.embedding(words[0])[None]
        for word in words:
            y, state = self.decoder(x, state)
            outputs.append(self.head(y))
            x = y if self.feeds_back else self.embedding(word)[None]
        return torch.cat(outputs)


WORDS = torch.zeros(6, 3, dtype=torch.long)


def test_a_layer_that_is_called_step_by_step_runs_over_one_sequence():
    wiring = dp.wiring(Decoder(), example=(X, WORDS))
    encoder, decoder = wiring.uses
    assert (encoder.calls, encoder.steps, decoder.calls, decoder.steps) == (1, 5, 6, 6)
    assert list(decoder.initial_state_from) == [encoder]
    assert not decoder.fed_by
    assert not encoder.output_goes
    assert encoder.state_is_used
    assert "decoder (torch.nn.LSTM): 6 calls over 6 steps, each from the state that" in str(wiring)
    assert "initial state from encoder" in str(wiring)
    assert "its output is not used, its last state is" in str(wiring)


def test_what_comes_back_at_the_next_step_is_told():
    model = Decoder(feeds_back=True)
    applied = dp.apply(model, "zaremba", 0.5, example=(X, WORDS))
    assert "decoder is called 6 times over one sequence, each from" in str(applied)
    assert "decoder starts from the state of encoder, which stays whole" in str(applied)
    assert "the output of encoder is masked and not used: what is used is its last state" in str(
        applied
    )
    assert "drawn anew each time" not in str(applied)
    applied.remove()
    held = str(dp.apply(model, "awd", example=(X, WORDS)))
    assert "(input, output, recurrent_weight) is drawn anew each time" in held
    assert "what leaves decoder comes back into decoder at a later step" in str(applied)
    assert len(applied.stacks) == 2


def test_a_layer_used_twice_is_two_sequences():
    class Siamese(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.LSTM(H, H)

        def forward(self, a, b):
            return self.rnn(a)[0] - self.rnn(b)[0]

    wiring = dp.wiring(Siamese(), example=(X, X))
    assert [(use.calls, use.steps) for use in wiring.uses] == [(1, 5), (1, 5)]
    text = str(dp.apply(Siamese(), "zaremba", example=(X, X)))
    assert "1 stack;" in text
    assert "rnn runs over 2 sequences with the same weights" in text


def test_a_layer_in_two_roles_is_refused_with_the_way_out():
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.LSTM(H, H)

        def forward(self, x):
            return self.rnn(self.rnn(x)[0])[0]

    with pytest.raises(dp.PolicyError, match=r"is in two places.*stacks=\[\['rnn'\]\]"):
        dp.apply(Deep(), "zaremba", example=X)
    assert "1 stack;" in str(dp.apply(Deep(), "zaremba", example=X, stacks=[["rnn"]]))


class States(nn.Module):
    """An encoder whose last state, or last output, starts a decoder."""

    def __init__(self, form):
        super().__init__()
        self.form, self.encoder, self.decoder = form, nn.GRU(H, H), nn.GRU(H, H)

    def forward(self, x):
        y, h = self.encoder(x)
        if self.form != "state":
            h = y[-1:]
        out = self.decoder(x, h)[0]
        return (out, y) if self.form == "both" else out


def test_a_state_that_is_handed_over_is_never_masked():
    for form in ("state", "output"):
        model = States(form).train()
        applied = dp.apply(model, "zaremba", 0.5, example=X)
        assert len(applied.stacks) == 2
        alone = "encoder: its output is used only as an initial state, and no mask falls on it"
        assert (alone in str(applied)) == (form == "output")
        assert "decoder starts from the state of encoder, which stays whole" in str(applied)
        given = []

        def keep(_, args, given=given):
            given.append(args[1])

        model.decoder.register_forward_pre_hook(keep)
        for _ in range(5):
            model(torch.randn(5, 30, H))
        assert all((state != 0).all() for state in given), form
        applied.remove()
    with pytest.raises(
        dp.PolicyError, match=r"output of 'encoder' is used as an initial state and"
    ):
        dp.apply(States("both"), "zaremba", 0.5, example=X)
    dp.apply(States("both"), "variational", rate={"output": 0}, example=X)


@dataclass
class Batch:
    x: torch.Tensor


Pair = namedtuple("Pair", "x y")


class Called(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(H, H)

    def forward(self, x, scale=1.0, *, bias=0.0):
        if isinstance(x, dict | Batch | Pair | list):
            x = x["x"] if isinstance(x, dict) else x[0] if isinstance(x, list) else x.x
        return {"y": self.rnn(x * scale + bias)[0]}


EXAMPLES = {
    "one": lambda model: X,
    "several": lambda model: (X, 2.0),
    "keywords": lambda model: {"x": X, "bias": 1.0},
    "a dictionary as the one input": lambda model: {"x": X, "other": 3},
    "a list as the one input": lambda model: [X],
    "an object": lambda model: Batch(X),
    "a named tuple": lambda model: Pair(X, X),
    "a function": lambda model: lambda: model(X),
    "a function without a result": lambda model: lambda: [model(X), None][1],
    "a generator": lambda model: (batch for batch in [X]),
    "a loader": lambda model: iter(torch.utils.data.DataLoader([X[:, 0]], batch_size=1)),
}


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_examples_come_in_every_form(example):
    model = Called()
    wiring = dp.wiring(model, example=example(model))
    assert [use.calls for use in wiring.uses] == [1]


@pytest.mark.parametrize("example", [torch.randn(5, 3, H + 1), (X, X, X, X), "x", {"z": X}, 3])
def test_an_example_that_does_not_fit_is_an_error_that_shows_how(example):
    model = Called().train()
    with pytest.raises(dp.PolicyError, match=r"Called does not run on the example.*example=lambda"):
        dp.apply(model, "zaremba", example=example)
    assert type(model.rnn) is nn.LSTM
    assert model.training
    assert not torch.overrides._get_current_function_mode_stack()


class Noisy(nn.Module):
    """A module that everything in it changes with every call."""

    def __init__(self):
        super().__init__()
        self.norm, self.rnn, self.drop = nn.BatchNorm1d(H), nn.LSTM(H, H), nn.Dropout(0.3)
        self.register_buffer("count", torch.zeros(()))
        self.calls, self.memory, self.state = 0, [], None
        self.draws = torch.Generator().manual_seed(1)
        self.modes = []

    def forward(self, x):
        self.count += 1
        self.calls += 1
        self.memory.append(self.calls)
        x = self.norm(x.transpose(1, 2)).transpose(1, 2) + torch.rand(()) + random.random()
        x = x + torch.rand((), generator=self.draws) + float(np.random.rand())
        y, self.state = self.rnn(self.drop(x), self.state)
        return y


@pytest.mark.parametrize("training", [True, False])
def test_a_run_leaves_no_trace(training):
    model = Noisy().train(training)
    model.drop.train(not training)
    twin = copy.deepcopy(model)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    expected = torch.rand(3), np.random.rand(), random.random()
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    dp.wiring(model, example=X)
    assert torch.equal(torch.rand(3), expected[0])
    assert (np.random.rand(), random.random()) == expected[1:]
    assert (model.calls, model.memory, model.state) == (0, [], None)
    assert [m.training for m in model.modules()] == [m.training for m in twin.modules()]
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), twin.buffers(), strict=True))
    assert all(
        torch.equal(p, q) for p, q in zip(model.parameters(), twin.parameters(), strict=True)
    )
    assert all((p.grad == 1).all() for p in model.parameters())
    assert torch.equal(model.draws.get_state(), twin.draws.get_state())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert not nn.modules.module._global_forward_hooks
    assert not nn.modules.module._global_forward_pre_hooks
    assert set(vars(model)) == set(vars(twin))
    torch.manual_seed(2)
    a = model(X)
    torch.manual_seed(2)
    assert a.shape == X.shape


def test_gradients_are_not_needed_and_inference_mode_works():
    model = Two(JOINED["residual"])
    with torch.inference_mode():
        assert seen(model)["high"] == ["low"]
    model.requires_grad_(False)
    assert seen(model)["high"] == ["low"]


def test_what_runs_only_in_training_mode_may_fail_and_is_told():
    class Strict(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.LSTM(H, H)

        def forward(self, x, targets=None):
            if self.training and targets is None:
                raise ValueError("targets are needed")
            return self.rnn(x)[0]

    applied = dp.apply(Strict(), "zaremba", example=X)
    assert "seen in evaluation mode only" in str(applied)
    assert "targets are needed" in str(applied)


def test_layers_that_did_not_run_are_told():
    class Half(Two):
        def forward(self, x):
            return self.low(x)[0]

    wiring = dp.wiring(Half(None), example=X)
    assert "high (torch.nn.LSTM)\n    did not run on the example" in str(wiring)
    text = str(dp.apply(Half(None), "zaremba", example=X))
    assert "high did not run on the example; it is treated as a stack of its own" in text


def test_compiled_models_are_seen_as_written():
    model = Two(JOINED["residual"])
    compiled = torch.compile(model, backend="eager")
    assert seen(compiled) == {"_orig_mod.low": [], "_orig_mod.high": ["_orig_mod.low"]}
    assert seen(model, lambda: compiled(X)) == {"low": [], "high": ["low"]}
    compiled(X)  # compiled by now
    assert seen(model, lambda: compiled(X)) == {"low": [], "high": ["low"]}


def test_models_in_data_parallel_wrappers_are_seen(tmp_path):
    model = Two(JOINED["residual"])
    assert seen(nn.DataParallel(model)) == {"module.low": [], "module.high": ["module.low"]}
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/init", rank=0, world_size=1
    )
    try:
        wrapped = nn.parallel.DistributedDataParallel(model)
        assert seen(wrapped) == {"module.low": [], "module.high": ["module.low"]}
    finally:
        torch.distributed.destroy_process_group()


def test_scripted_parts_without_weights_pass_values_on():
    class Gelu(nn.Module):
        def forward(self, x):
            return nn.functional.gelu(x)

    scripted = torch.jit.script(Gelu())
    assert seen(Two(lambda m, y, x: scripted(y))) == {"low": [], "high": ["low"]}


def test_layers_between_two_policies_are_masked_once():
    model = Two(JOINED["itself"]).train()
    dp.apply(model, {"low": dp.zaremba(0.5), "high": dp.locked(0.25)}, example=X)
    shares = []
    model.high.register_forward_pre_hook(
        lambda _, args: shares.append((args[0] == 0).float().mean())
    )
    model(X)
    assert shares == [0]  # `high` masks what comes in, by its own rule
    assert model.high.placement.masks_input(1)
    assert not model.low.placement.masks_output(1)


def test_the_wiring_is_shown_as_text_and_as_a_picture():
    class Shown(Two):
        def __init__(self):
            super().__init__(lambda m, y, x: m.drop(y))
            self.drop = nn.Dropout(0.2)

    wiring = dp.wiring(Shown(), example=X)
    assert str(wiring).splitlines() == [
        "2 recurrent layers, seen in a run on the example",
        "  low (torch.nn.LSTM): one call over 5 steps",
        "  high (torch.nn.LSTM): one call over 5 steps",
        "    input from low",
        "  dropout drop (torch.nn.Dropout, p=0.2): from the output of low to the input of high",
    ]
    html = wiring._repr_html_()
    assert html.count("<rect") == 2
    assert html.count("<path") == 1
    assert "drop p=0.2" in html
    structure = str(dp.wiring(Shown()))
    assert "read from the model's structure" in structure
    assert "low may feed high: only the code knows" in structure
    assert "drop (torch.nn.Dropout, p=0.2): only the code knows what it falls on" in structure


def test_a_model_without_recurrent_layers_has_no_wiring():
    with pytest.raises(dp.PolicyError, match="no recurrent layer that a policy can go on"):
        dp.wiring(nn.Linear(2, 2), example=torch.ones(2))


class LastState(nn.Module):
    """What it takes of its layer is the last state, or the output too."""

    def __init__(self, with_output):
        super().__init__()
        self.rnn, self.head, self.with_output = nn.GRU(H, H), nn.Linear(H, 2), with_output

    def forward(self, x):
        y, h = self.rnn(x)
        return self.head(y[-1] + h[-1] if self.with_output else h[-1])


def test_the_report_says_that_a_masked_output_is_not_used():
    said = "the output of rnn is masked and not used: what is used is its last state"
    assert said in str(dp.apply(LastState(False), "zaremba", example=X))
    assert "not used" not in str(dp.apply(LastState(True), "zaremba", example=X))
    assert "not used" not in str(dp.apply(LastState(False), "zaremba", {"output": 0}, example=X))
    assert "not used" not in str(dp.apply(LastState(False), "zaremba"))


@dataclass(slots=True)
class Answer:
    """What a model returns, as forecasting libraries make it."""

    prediction: torch.Tensor
    state: torch.Tensor


class Answering(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(H, H)

    def forward(self, x):
        return Answer(*self.rnn(x))


def test_values_in_data_classes_with_slots_are_seen():
    (use,) = dp.wiring(Answering(), example=X).uses
    assert use.output_goes == {"elsewhere"}


class OtherNames(nn.LSTM):
    """A subclass whose arguments have names of their own."""

    def forward(self, sequence, lengths=None, state=None):  # noqa: ARG002
        return super().forward(sequence, state)


def test_arguments_of_a_subclass_may_have_other_names():
    low, high = OtherNames(H, H), OtherNames(H, H)
    lengths = torch.tensor([5, 5, 5])

    class Model(nn.ModuleList):
        def forward(self, x):
            y, state = low(sequence=x)
            return high(y, lengths=lengths, state=state)[0]

    first, second = dp.wiring(Model([low, high]), example=X).uses
    assert list(second.fed_by) == [first]
    assert list(second.initial_state_from) == [first]
