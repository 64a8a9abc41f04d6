"""Scopes of `dp.sequence` and `dp.hold` inside each other: which call has which number.

PyTorch's layer is the oracle: it runs the same scopes and calls, and says for each call its number
and its first step.
"""

from contextlib import suppress
from typing import NamedTuple

import dropout_policies_keras as dpk
import dropout_policies_torch as dpt
import keras
import numpy as np
import pytest
import torch
from dropout_policies_keras.shared_calls import SharedCalls
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

import dropout_policies as dp
from dropout_policies.masks import keyed

B, T, H = 3, 2, 6
SEED = 7
BACKEND = keras.backend.backend()
X = np.random.default_rng(0).normal(size=(B, T, H)).astype("float32")

CALL, EVALUATE, FAIL = "call", "evaluate", "fail"


class Scope(NamedTuple):
    """A scope, and what is done in it, in order."""

    kind: str
    steps: list


def sequence(*steps):
    return Scope("sequence", list(steps))


def hold(*steps):
    return Scope("hold", list(steps))


PROGRAMS = {
    "no call in the outer one": [sequence(sequence(CALL))],
    "inner one first": [sequence(sequence(CALL), CALL), CALL],
    "outer, inner, outer": [sequence(CALL, sequence(CALL), CALL), CALL],
    "two inner ones first": [sequence(sequence(CALL, CALL), hold(CALL), CALL, CALL), CALL],
    "two inner ones, then none": [sequence(sequence(CALL), sequence(CALL)), CALL],
    "three deep": [hold(sequence(sequence(CALL), CALL), CALL), sequence(CALL)],
    "the inner one is empty": [sequence(sequence(), CALL, hold(), CALL), CALL],
    "evaluation takes no number": [sequence(EVALUATE, sequence(EVALUATE, CALL), EVALUATE), CALL],
    "the inner one fails": [sequence(sequence(CALL, FAIL), CALL), CALL],
    "the inner one fails at once": [sequence(sequence(FAIL), CALL), CALL],
    "the outer one fails": [sequence(sequence(CALL), FAIL), CALL],
    "held": [hold(hold(CALL, CALL), CALL), hold(CALL, sequence(CALL))],
}


def run(program, layer, do):
    """Do what a program says.

    Args:
        program: the steps.
        layer: whose calls share masks.
        do: does a step that is no scope.
    """
    for step in program:
        if step == FAIL:
            raise KeyError
        if not isinstance(step, Scope):
            do(step)
            continue
        with suppress(KeyError), getattr(dp, step.kind)(layer):
            run(step.steps, layer, do)


class Numbered(NamedTuple):
    """A call: its number, its first step, and how many calls there were after it."""

    number: int
    first_step: int
    calls: int


def torch_layer(calls=0):
    layer = dpt.LSTM(H, H, batch_first=True, policy="naive", rate=0.5, seed=SEED)
    layer.calls = calls
    return layer


def torch_calls(program, calls=0):
    """The calls of a program, and how many there were in the end, as PyTorch numbers them."""
    layer, found = torch_layer(calls), []

    def do(step):
        layer.train(step == CALL)
        first = layer.shared.step if layer.shared else 0
        layer(torch.from_numpy(X))
        if step == CALL:
            number = layer.shared.call if layer.shared else layer.calls - 1
            found.append(Numbered(number, first, layer.calls))

    run(program, layer, do)
    return found, layer.calls


def keras_layer(**more):
    layer = dpk.LSTM(H, policy="naive", rate=0.5, seed=SEED, return_sequences=True, **more)
    layer.build(X.shape)
    return layer


def recorded_masks(program, layer, call, evaluate):
    with dp.record(layer) as masks:
        run(program, layer, lambda step: (call if step == CALL else evaluate)())
    return masks.get("model", next(iter(masks.values()), []))


def check_eagerly(program):
    """Numbers, counts and masks are those of PyTorch's layer, and the core's for these numbers."""
    expected, calls = torch_calls(program)
    layer, found = keras_layer(), []

    def call():
        layer(X, training=True)
        found.append(layer.calls)

    masks = recorded_masks(program, layer, call, lambda: layer(X))
    assert found == [each.calls for each in expected]
    assert layer.calls == calls
    other = torch_layer()

    def call_torch(training=True):
        other.train(training)(torch.from_numpy(X))

    theirs = recorded_masks(program, other, call_torch, lambda: call_torch(False))
    for mask, their, each in zip(masks, theirs, expected, strict=True):
        assert mask.keys() == their.keys()
        for slot in mask:
            np.testing.assert_array_equal(mask[slot], their[slot])
            key = keyed.mask_key(SEED, each.number, slot)
            bits = keyed.keep_bits(key, 0.5, mask[slot].shape, 0, each.first_step)
            np.testing.assert_array_equal(mask[slot], bits * 2.0)


@pytest.mark.parametrize("name", PROGRAMS)
def test_numbers_and_masks_are_those_of_pytorch(name):
    check_eagerly(PROGRAMS[name])


def scopes(inner):
    return st.builds(Scope, st.sampled_from(["sequence", "hold"]), st.lists(inner, max_size=4))


STEPS = st.recursive(st.sampled_from([CALL, CALL, EVALUATE]), scopes, max_leaves=8)


@settings(max_examples={"torch": 30, "tensorflow": 12, "jax": 3}[BACKEND])
@given(program=st.lists(STEPS, min_size=1, max_size=3))
def test_any_nesting_is_that_of_pytorch(program):
    check_eagerly(program)


@pytest.mark.parametrize("hold_masks", [False, True])
@pytest.mark.parametrize("name", PROGRAMS)
def test_samples_in_nested_scopes_are_those_of_pytorch(name, hold_masks):
    layer, other = keras_layer(), torch_layer().eval()
    found = []
    for each, call in ((layer, lambda: layer(X)), (other, lambda: other(torch.from_numpy(X)))):
        with dp.monte_carlo(each, seed=3, hold=hold_masks):
            found.append(recorded_masks(PROGRAMS[name], each, call, call))
        assert each.calls == 0
    for mask, their in zip(*found, strict=True):
        for slot in mask:
            np.testing.assert_array_equal(mask[slot], their[slot])


def test_an_exception_ends_all_scopes():
    layer = keras_layer()

    def fails():
        with dp.sequence(layer), dp.sequence(layer):
            layer(X, training=True)
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    layer(X, training=True)
    assert layer.calls == 2


def test_a_number_that_is_taken_when_the_scope_begins_is_caught(monkeypatch):
    program = PROGRAMS["no call in the outer one"]
    begin = SharedCalls.__post_init__

    def takes_at_once(self):
        begin(self)
        self.generator.next()

    check_eagerly(program)
    monkeypatch.setattr(SharedCalls, "__post_init__", takes_at_once)
    with pytest.raises((AssertionError, dp.PolicyError)):
        check_eagerly(program)


# --- compiled ------------------------------------------------------------------------------------


class Runs(keras.Model):
    """Runs a program in its call, and gives the outputs of the calls."""

    def __init__(self, program):
        super().__init__()
        self.program = program
        self.rnn = keras_layer()

    def call(self, x, training=False):
        outputs = []

        def do(step):
            y = self.rnn(x, training=training and step == CALL)
            if step == CALL:
                outputs.append(y)

        run(self.program, self.rnn, do)
        return ops.stack(outputs, axis=1)


def expected_output(layer, call):
    """What a call of some number and first step gives."""
    twin = keras_layer()
    twin.set_weights(layer.get_weights())
    twin.calls = call.number
    with dp.sequence(twin):
        for _ in range(call.first_step // T):
            twin(X, training=True)
        return ops.convert_to_numpy(twin(X, training=True))


def expected_loss(layer, calls):
    return np.mean([np.square(expected_output(layer, call)) for call in calls])


def compiled_model(program, **more):
    model = Runs(program)
    model(X)
    model.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=False, **more)
    model.target = np.zeros((B, sum(True for _ in calls_of(program)), T, H), "float32")
    return model


def calls_of(program):
    """The calls of a program that are made."""
    return torch_calls(program)[0]


def train(model):
    model.reset_metrics()
    return float(model.train_on_batch(X, model.target))


COMPILED = ["inner one first", "two inner ones first", "the inner one is empty", "three deep"]


@pytest.mark.parametrize("name", COMPILED if BACKEND != "jax" else COMPILED[:1])
def test_scopes_in_a_compiled_call_are_those_of_pytorch(name):
    program = PROGRAMS[name]
    model, calls = compiled_model(program), 0
    for _ in range(2):
        expected, calls = torch_calls(program, calls)
        np.testing.assert_allclose(train(model), expected_loss(model.rnn, expected), rtol=1e-4)
        assert model.rnn.calls == calls


AROUND = ["inner one first", "outer, inner, outer", "two inner ones first", "the inner one fails"]


@pytest.mark.parametrize("name", AROUND)
@pytest.mark.parametrize("eager", [(), (0,), (1,)])
def test_scopes_around_compiled_calls_are_those_of_pytorch(name, eager):
    """Each call is one of `train_on_batch`, or, as listed in `eager`, of the layer."""
    program = PROGRAMS[name]
    model = compiled_model([CALL])
    expected, calls = torch_calls(program)
    losses = []

    def do(_):
        if len(losses) in eager:
            losses.append(np.mean(np.square(ops.convert_to_numpy(model.rnn(X, training=True)))))
        else:
            losses.append(train(model))
        assert model.rnn.calls == expected[len(losses) - 1].calls

    run(program, model, do)
    wanted = [expected_loss(model.rnn, [call]) for call in expected]
    np.testing.assert_allclose(losses, wanted, rtol=1e-4)
    assert model.rnn.calls == calls


@pytest.mark.parametrize("way", ["train_on_batch", "fit"])
def test_scopes_in_a_compiled_call_are_inside_those_around_it(way):
    """The call makes one in a scope of its own and then one that is in the scope around."""
    inside = [sequence(CALL), CALL]
    model = compiled_model(inside)
    expected, calls = torch_calls([sequence(*inside, *inside), *inside] * 2)
    losses = []
    for _ in range(2):  # the functions are compiled already when the second one begins
        with dp.sequence(model):
            if way == "fit":
                more = {"batch_size": B, "shuffle": False, "verbose": 0}
                target = np.concatenate([model.target] * 2)
                losses += model.fit(np.concatenate([X] * 2), target, **more).history["loss"]
            else:
                losses.append(np.mean([train(model), train(model)]))
        losses.append(train(model))
    assert model.rnn.calls == calls
    each = [expected_loss(model.rnn, expected[n : n + 2]) for n in range(0, 12, 2)]
    wanted = [np.mean(each[:2]), each[2], np.mean(each[3:5]), each[5]]
    np.testing.assert_allclose(losses, wanted, rtol=1e-4)


# --- loops that run in the graph -----------------------------------------------------------------


HELD = dp.Policy(input=dp.drop(0.5, per="sequence"), hidden=dp.drop(0.5, per="sequence"))


class Looped(keras.Model):
    """In one scope: another one; a loop, in each turn of which a program is run; another one."""

    def __init__(self, program):
        super().__init__()
        self.program = program
        self.rnn = dpk.GRU(H, policy=HELD, seed=SEED)

    def call(self, x, training=False):
        def turn(_, h):
            found = [h]

            def do(_):
                found.append(self.rnn(x, initial_state=found[-1], training=training))

            run(self.program, self.rnn, do)
            return found[-1]

        with dp.sequence(self):
            with dp.sequence(self):
                first = self.rnn(x, training=training)
            looped = ops.fori_loop(0, 3, turn, ops.zeros((B, H)))
            with dp.sequence(self):
                last = self.rnn(x, training=training)
        return ops.stack([first, looped, last], axis=1)

    def train(self):
        self(X)
        self.compile(keras.optimizers.SGD(0.0), "mse")
        return float(self.train_on_batch(X, np.zeros((B, 3, H), "float32")))


def test_a_scope_that_is_called_in_a_loop_first_has_the_number_of_then():
    model = Looped([CALL])
    loss = model.train()
    assert model.rnn.calls == 3
    twin = dpk.GRU(H, policy=HELD, seed=SEED)
    twin.build(X.shape)
    twin.set_weights(model.get_weights())
    whole = np.concatenate([X] * 3, axis=1)
    parts = [ops.convert_to_numpy(twin(x, training=True)) for x in (X, whole, X)]
    np.testing.assert_allclose(loss, np.mean(np.square(parts)), rtol=1e-4)


if BACKEND != "torch":  # where the loop is Python's

    @pytest.mark.parametrize("program", [[sequence(CALL), CALL], [CALL, sequence(CALL)]])
    def test_scopes_in_a_loop_do_not_go_with_calls_of_the_scope_around_it(program):
        with pytest.raises(dp.PolicyError, match=r"opened inside a loop.*unroll=True"):
            Looped(program).train()
