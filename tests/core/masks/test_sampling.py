"""Samples, averages, and masks taken out and put in, on a model that is nothing but masks."""

import inspect
import math
from collections import OrderedDict, defaultdict, namedtuple
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dropout_policies as dp
from dropout_policies.masks import keyed, nested, sampling
from dropout_policies.placement.plans import Geometry, Placement, plan_masks

SLOT = dp.Slot(dp.Site.INPUT, 0, 0)
GEOMETRY = Geometry(3, 2, batch=2, steps=4)


class Layer:
    """A layer under a policy that gives its masks back; in evaluation it gives ones."""

    def __init__(self, rate=0.5, seed=5):
        self.placement, self.tape = Placement(dp.Policy(input=dp.drop(rate))), None
        self.keys, self.resumed = (seed, None), []

    def sample(self, seed, hold):
        before, self.keys = self.keys, (seed, hold)
        self.call = 0
        return before

    def resume(self, before):
        self.resumed.append(before)
        self.keys = before

    def __call__(self):
        wanted = plan_masks(self.placement, GEOMETRY)
        seed, hold = self.keys
        if hold is None and not (self.tape is not None and self.tape.plays):
            return np.ones((4, 2, 3))
        call = 0 if hold is None else self.call
        drawn = keyed.masks(wanted, seed, call)
        if hold is False:
            self.call += 1
        if self.tape is not None:
            drawn = self.tape.masks(wanted, lambda: drawn, np.asarray, np.asarray)
        return drawn[SLOT]


class Adapter:
    """What the core asks of one."""

    def __init__(self):
        self.changes = 0

    def under_policy(self, model):
        return model

    def random_seed(self):
        return 11

    def changed(self, model):
        assert model
        self.changes += 1


@pytest.fixture(autouse=True)
def adapter(monkeypatch):
    one = Adapter()
    monkeypatch.setattr(sampling, "find_adapter", lambda _: one)
    return one


@pytest.fixture
def model():
    return {"a": Layer(), "b": Layer()}


def test_each_layer_is_sampled_by_a_seed_of_its_own_and_put_back(model, adapter):
    with dp.monte_carlo(model, seed=7):
        keys = [layer.keys for layer in model.values()]
        assert adapter.changes == 1
    assert keys == [(keyed.derived_seed(7, 0), False), (keyed.derived_seed(7, 1), False)]
    assert [layer.keys for layer in model.values()] == [(5, None), (5, None)]
    assert adapter.changes == 2
    with dp.monte_carlo(model, hold=True):
        assert model["b"].keys == (keyed.derived_seed(11, 1), True)


def test_a_layer_whose_sampling_fails_leaves_none_behind(model, adapter):
    def fails(*_):
        raise dp.PolicyError("a cell")

    model["b"].sample = fails
    with pytest.raises(dp.PolicyError, match="a cell"), dp.monte_carlo(model, seed=7):
        pass
    assert model["a"].keys == (5, None)
    assert model["b"].resumed == []
    assert adapter.changes == 1


def test_a_layer_whose_policy_was_removed_meanwhile_is_left_alone(model):
    with dp.monte_carlo(model, seed=7):
        model["a"].placement = None
    assert model["a"].resumed == []
    assert model["b"].resumed == [(5, None)]


def test_a_model_without_a_layer_under_a_policy_is_refused():
    with pytest.raises(dp.PolicyError, match=r"dict has no layer under a policy. Call dp.apply"):
        dp.average({}, lambda: 0.0)


# Averages.


@given(st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_mean_and_spread_are_those_of_the_samples(count, seed):
    model = {"a": Layer(0.25)}
    mean, spread = dp.average(model, model["a"], count, seed=seed)
    with dp.monte_carlo(model, seed=seed):
        each = np.stack([model["a"]() for _ in range(count)])
    np.testing.assert_allclose(mean, each.mean(0), atol=1e-12)
    np.testing.assert_allclose(spread, each.std(0), atol=1e-12)


def test_twenty_samples_are_drawn_if_nothing_is_said(model):
    calls = []
    dp.average(model, lambda: calls.append(0) or 0.0)
    assert len(calls) == 20


Pair = namedtuple("Pair", "value others")


class Notes(OrderedDict):
    """An output as some libraries have theirs: its items are attributes too."""

    def __setitem__(self, key, value):
        super().__setitem__(key, value)
        setattr(self, key, value)


class Exact(list):
    """A list that is made of nothing else than numbers of its own choice."""

    def __init__(self):
        super().__init__([np.array([1.0, 2.0])])


class Lengths(tuple):
    """A tuple of whole numbers alone."""

    __slots__ = ()

    def __new__(cls, items):
        assert all(isinstance(item, int) for item in items)
        return super().__new__(cls, items)


STRUCTURES = {
    "array": lambda a, _: a,
    "number": lambda a, _: a.sum(),
    "dict": lambda a, b: {"a": a, "b": b},
    "list": lambda a, b: [a, b],
    "tuple": lambda a, b: (a, b),
    "named tuple": lambda a, b: Pair(a, b),
    "nested": lambda a, b: {"x": [a, Pair(b, {"y": (a, [b])})], 3: a},
    "with nothing": lambda a, b: {"a": a, "state": None, "b": [], "c": (), "d": {}, "e": b},
    "default": lambda a, b: defaultdict(list, a=a, b=b),
    "ordered": lambda a, b: OrderedDict(b=b, a=a),
    "attributes": lambda a, b: Notes(b=b, a=a),
    "fixed": lambda a, b: MappingProxyType({"a": a, "b": b}),
}


def flat(value):
    """The arrays of a structure in the order of its keys, and what surrounds them."""
    if isinstance(value, dict | MappingProxyType):
        parts = [flat(value[key]) for key in value]
        shape = [dict if isinstance(value, MappingProxyType) else type(value), list(value)]
    elif isinstance(value, list | tuple):
        parts, shape = [flat(item) for item in value], [type(value), len(value)]
    elif value is None:
        return [], None
    else:
        return [value], np.shape(value)
    return [a for arrays, _ in parts for a in arrays], [*shape, [inner for _, inner in parts]]


@pytest.mark.parametrize("structure", STRUCTURES)
def test_an_average_has_the_structure_of_its_samples(structure, model):
    make = STRUCTURES[structure]

    def run():
        return make(model["a"](), model["b"]()[:, 0])

    found = dp.average(model, run, 5, seed=3)
    with dp.monte_carlo(model, seed=3):
        samples = [run() for _ in range(5)]
    arrays = [np.stack(each) for each in zip(*(flat(s)[0] for s in samples), strict=True)]
    surroundings = flat(samples[0])[1]
    if structure == "fixed":
        assert type(found.mean) is dict
    for part, expected in ((found.mean, np.mean), (found.spread, np.std)):
        values, shape = flat(part)
        assert shape == surroundings
        assert len(values) == len(arrays)
        for value, each in zip(values, arrays, strict=True):
            np.testing.assert_allclose(value, expected(each, 0), atol=1e-12)


def test_an_outputs_attributes_are_averaged_with_its_items(model):
    mean, _ = dp.average(model, lambda: Notes(a=model["a"]()), 3)
    np.testing.assert_array_equal(mean.a, mean["a"])
    assert 0.0 < mean.a.mean() < 2.0


def test_a_default_dicts_default_is_kept_and_the_sample_stays(model):
    given = defaultdict(list, a=np.zeros(2))
    mean, spread = dp.average(model, lambda: given, 2)
    assert mean["new"] == []
    assert mean is not given
    assert set(given) == set(spread) == {"a"}


def test_a_sequence_of_a_class_that_cannot_be_made_anew_becomes_a_plain_one(model):
    mean, _ = dp.average(model, Exact, 2)
    assert type(mean) is list
    np.testing.assert_array_equal(mean[0], [1.0, 2.0])
    mean, _ = dp.average(model, iter([Lengths([1, 2]), Lengths([2, 2])]).__next__, 2)
    assert mean == (1.5, 2.0)
    assert type(mean) is tuple


def test_keys_may_come_in_any_order(model):
    outputs = iter([{"a": 1.0, "b": 10.0}, {"b": 20.0, "a": 2.0}])
    mean, spread = dp.average(model, lambda: next(outputs), 2)
    assert mean == {"a": 1.5, "b": 15.0}
    assert spread == {"a": 0.5, "b": 5.0}


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.bool_, int, bool])
def test_whole_numbers_and_truth_values_are_averaged_as_fractions(model, kind):
    """Unsigned bytes have no negative distances from their mean."""
    outputs = iter([kind(1), kind(0), kind(0), kind(1)])
    mean, spread = dp.average(model, lambda: next(outputs), 4)
    assert (mean, spread) == (0.5, 0.5)
    arrays = iter([np.array([1, 0], kind), np.array([0, 0], kind)])
    mean, spread = dp.average(model, lambda: next(arrays), 2)
    np.testing.assert_array_equal([mean, spread], [[0.5, 0.0], [0.5, 0.0]])


def test_half_precision_stays_half_precision(model):
    mean, spread = dp.average(model, lambda: np.ones(2, np.float16), 3)
    assert mean.dtype == spread.dtype == np.float16


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"a": 1.0}, {"b": 1.0}),
        ({"a": 1.0}, {"a": 1.0, "b": 1.0}),
        ({"a": 1.0, "b": 1.0}, {"a": 1.0}),
        ([1.0], [1.0, 2.0]),
        ([1.0, 2.0], [1.0]),
        ([1.0], (1.0,)),
        ([1.0], 1.0),
        (1.0, [1.0]),
        (1.0, {"a": 1.0}),
        (None, 1.0),
        (1.0, None),
        ([], None),
        (np.ones(3), np.ones(1)),
        (np.ones((1, 3)), np.ones(3)),
        (1.0, np.ones(2)),
    ],
)
@pytest.mark.parametrize("inside", [False, True])
def test_samples_of_two_structures_or_shapes_are_refused(model, first, second, inside):
    outputs = iter([{"x": [first]}, {"x": [second]}] if inside else [first, second])
    place = r"The output at \['x'\]\[0\] " if inside else "The output "
    with pytest.raises(dp.PolicyError, match=f"^{place}(differs|has another).*Received: .*, then"):
        dp.average(model, lambda: next(outputs), 2)
    assert model["a"].keys == (5, None)


@pytest.mark.parametrize(
    ("output", "why"),
    [
        ("a", "cannot be averaged .*Received: str"),
        (b"a", "cannot be averaged .*Received: bytes"),
        ({1.0}, "cannot be averaged .*Received: set"),
        (object(), "cannot be averaged .*Received: object"),
        (iter([1.0]), "cannot be averaged .*Received: list_iterator"),
        (np.array(["a"]), "cannot be averaged .*Received: ndarray"),
        (np.array([None]), "cannot be averaged .*Received: ndarray"),
        (np.array([3], "m8[s]"), "cannot be averaged .*Received: ndarray"),
        (1j, "complex"),
        (np.ones(2, complex), "complex"),
    ],
)
@pytest.mark.parametrize("samples", [1, 2])
def test_what_cannot_be_averaged_is_named(model, output, why, samples):
    with pytest.raises(dp.PolicyError, match=f"^The output .*{why}"):
        dp.average(model, lambda: output, samples)
    with pytest.raises(dp.PolicyError, match=rf"^The output at \[0\]\['b'\] .*{why}"):
        dp.average(model, lambda: [{"a": 1.0, "b": output}], samples)
    assert model["a"].keys == (5, None)


def test_an_output_that_holds_itself_is_refused(model):
    endless = [1.0]
    endless.append(endless)
    with pytest.raises(dp.PolicyError, match="more than 100 levels of containers"):
        dp.average(model, lambda: endless, 2)


def test_a_hundred_containers_are_no_trouble():
    value = 1.0
    for _ in range(nested.MAX_DEPTH):
        value = [value]
    ((_, leaf),) = nested.leaves(value, value)
    assert leaf == 1.0
    assert nested.rebuild(value, iter([1.0])) == value
    with pytest.raises(dp.PolicyError, match="more than 100"):
        list(nested.leaves([value], [value]))


@pytest.mark.parametrize("samples", [0, -1, 1.5, True, "2", None])
def test_there_must_be_samples(model, samples):
    with pytest.raises(dp.PolicyError, match=r"^samples must be an integer of at least 1"):
        dp.average(model, lambda: 1.0, samples)


def test_samples_may_be_counted_by_numpy(model):
    assert dp.average(model, lambda: 2.0, np.int64(3)) == (2.0, 0.0)


def test_an_average_wants_a_function(model):
    with pytest.raises(dp.PolicyError, match=r"lambda: model\(x\)\). Received: probabilities=0.5"):
        dp.average(model, 0.5)


def test_an_error_of_the_model_itself_stays_what_it_is(model):
    with pytest.raises(ZeroDivisionError):
        dp.average(model, lambda: 1 / 0)
    assert model["a"].keys == (5, None)


def test_what_is_not_finite_is_seen_in_the_average(model):
    mean, spread = dp.average(model, lambda: np.array([math.nan, 1.0]), 3)
    np.testing.assert_array_equal([mean, spread], [[math.nan, 1.0], [math.nan, 0.0]])


# Masks taken out and put in.


def test_what_was_recorded_is_played_again(model, adapter):
    with dp.monte_carlo(model, seed=1), dp.record(model) as masks:
        before = adapter.changes
        expected = [model["a"](), model["a"](), model["b"]()]
    assert adapter.changes > before
    assert [len(calls) for calls in masks.values()] == [2, 1]
    np.testing.assert_array_equal(masks["a"][1][SLOT], expected[1])
    with dp.replay(model, masks):
        found = [model["a"](), model["a"](), model["b"]()]
    np.testing.assert_array_equal(found, expected)
    assert model["a"].tape is None


def test_what_is_put_in_may_be_recorded_again(model):
    mask = {SLOT: np.full((4, 2, 3), 7.0)}
    with dp.replay(model, {"a": [mask]}), dp.record(model) as again:
        assert model["a"].tape.plays
        assert not model["b"].tape.plays
        model["a"]()
    np.testing.assert_array_equal(again["a"][0][SLOT], 7.0)
    with (
        dp.record(model),
        pytest.raises(dp.PolicyError, match=r"^a: its masks are already recorded or replayed"),
        dp.replay(model, {"a": [mask]}),
    ):
        pass


def test_a_layer_that_is_not_named_draws_its_own(model):
    with dp.replay(model, {"a": []}):
        assert model["b"].tape is None


@pytest.mark.parametrize(
    "masks",
    [None, 3, "a", [("a", [])], {"a": None}, {"a": 3}, {"a": "masks"}, {"a": {SLOT: 1.0}}],
)
def test_what_record_never_gives_cannot_be_put_in(model, masks):
    with (
        pytest.raises(dp.PolicyError, match=r"^replay takes what record gives: .*Received: masks"),
        dp.replay(model, masks),
    ):
        pass
    assert model["a"].tape is None


@pytest.mark.parametrize("name", ["c", 3, None, ("a",)])
def test_masks_of_a_layer_that_is_not_there_are_refused(model, name):
    with (
        pytest.raises(dp.PolicyError, match=r"^There is no layer under a policy called .*'a', 'b'"),
        dp.replay(model, {name: [], "a": []}),
    ):
        pass


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (None, "call 0 needs a dict from dp.Slot to masks. Received: None"),
        ([1], "call 0 needs a dict"),
        ({}, r"needs masks of the shapes {'input of layer 0': \(4, 2, 3\)}. Received: {}"),
        ({SLOT: np.ones((4, 2))}, r"Received: {'input of layer 0': \(4, 2\)}"),
        ({"x": np.ones((4, 2, 3))}, r'Received: {"\'x\'": \(4, 2, 3\)}'),
        ({3: 1.0}, r"Received: {'3': \(\)}"),
        (
            {dp.Slot(dp.Site.CELL, 1, 1): np.ones(1)},
            r"Received: {'cell of layer 1 backward': \(1,\)}",
        ),
        ({SLOT: "mask"}, "needs masks that are arrays of numbers. Received: input of layer 0: 'm"),
        ({SLOT: None}, "arrays of numbers"),
        ({SLOT: [[1.0], [1.0, 2.0]]}, "arrays of numbers"),
        ({SLOT: np.ones((4, 2, 3), complex)}, "arrays of numbers"),
        ({SLOT: np.zeros((4, 2, 3), "i4,f4")}, "arrays of numbers"),
    ],
)
def test_masks_that_do_not_fit_are_refused_by_name(model, call, message):
    with dp.replay(model, {"a": [call]}):
        with pytest.raises(dp.PolicyError, match=f"^a: .*{message}"):
            model["a"]()
        model["a"].tape.position = 1  # the model was to run once


def test_masks_may_be_lists_and_a_slot_a_tuple(model):
    with dp.replay(model, {"a": ({("input", 0, 0): [[[2.0] * 3] * 2] * 4},)}):
        np.testing.assert_array_equal(model["a"](), 2.0)


def test_there_are_as_many_calls_as_masks(model):
    mask = {SLOT: np.ones((4, 2, 3))}
    with (
        pytest.raises(dp.PolicyError, match=r"masks of 2 call\(s\) were given, but 1 call"),
        dp.replay(model, {"a": [mask, mask]}),
    ):
        model["a"]()
    with dp.replay(model, {"a": [mask]}):
        model["a"]()
        with pytest.raises(dp.PolicyError, match=r"masks of 1 call\(s\) were given, and this is o"):
            model["a"]()
    assert model["a"].tape is None


def test_a_call_that_is_run_again_is_recorded_once(model):
    """As activation checkpointing does: the position is set back to the call's number."""
    with dp.monte_carlo(model, hold=True, seed=1), dp.record(model) as masks:
        model["a"]()
        model["a"].tape.position = 0
        model["a"]()
        model["a"]()
    assert len(masks["a"]) == 2


def test_a_recorded_mask_is_a_copy(model):
    given = np.full((4, 2, 3), 7.0)
    with dp.replay(model, {"a": [{SLOT: given}]}), dp.record(model) as masks:
        model["a"]()
    given[:] = 0.0
    np.testing.assert_array_equal(masks["a"][0][SLOT], 7.0)


def test_masks_are_put_in_as_contiguous_arrays(model):
    given = np.ones((3, 2, 4)).T
    with dp.replay(model, {"a": [{SLOT: given}]}):
        assert model["a"]().flags.c_contiguous


def test_a_tape_of_a_policy_that_was_removed_meanwhile_is_left_alone(model):
    with dp.record(model):
        model["a"].placement = None
        tape = model["a"].tape
    assert model["a"].tape is tape
    assert model["b"].tape is None


def test_settings_of_sampling_are_named():
    """So that an order of them is never a part of the interface, and the model may be named too."""
    for function, named in ((dp.monte_carlo, {"hold", "seed"}), (dp.average, {"seed"})):
        kinds = {name: p.kind for name, p in inspect.signature(function).parameters.items()}
        assert kinds["model"] is inspect.Parameter.POSITIONAL_OR_KEYWORD
        assert {name for name, kind in kinds.items() if kind.name == "KEYWORD_ONLY"} == named
