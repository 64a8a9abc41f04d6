"""Strange values for every argument of the core: the library's own error, or the right thing."""

import contextlib
import dataclasses
import inspect
import json
import math
import warnings
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dropout_policies as dp
from dropout_policies.argument_checks import (
    as_integer,
    check_integer,
    check_seed,
    check_text,
    short_repr,
)
from dropout_policies.masks import keyed
from dropout_policies.pictures.grid import Row
from dropout_policies.placement.adapters import find_adapter
from dropout_policies.placement.plans import Geometry, Placement, plan_masks
from dropout_policies.placement.stacks import RecurrentLayer, find_stacks, stack_placement
from dropout_policies.policies import catalog
from dropout_policies.policies.catalog import resolve
from dropout_policies.policies.rates import Schedule


class Text(str):
    """A text of a class of its own."""

    __slots__ = ()


class Broken:
    """Whatever is asked of it, it fails."""

    def _fail(self, *_):
        raise RuntimeError("broken")

    __eq__ = __lt__ = __float__ = __index__ = __int__ = __len__ = __iter__ = __repr__ = _fail
    __getitem__ = __bool__ = __contains__ = _fail
    __hash__ = None


class BrokenFloat(float):
    """A number that cannot be one."""

    def __float__(self):
        raise RuntimeError("broken")


class BrokenText(str):
    """A text that cannot be compared."""

    __slots__ = ()

    def __eq__(self, other):
        raise RuntimeError("broken")

    __hash__ = str.__hash__


def deep(depth):
    nested = 0.5
    for _ in range(depth):
        nested = [nested]
    return nested


STRANGE = [
    *(None, True, False, -1, 0, 1, 10**400, -(10**5000), 0.5, -0.0, 1.0, math.nan, math.inf, 1j),
    *(Fraction(1, 3), Fraction(10**400), Decimal("0.5"), Decimal("NaN"), Decimal("sNaN")),
    *(Decimal("1e999999"), np.float16(0.5), np.float64(2), np.int8(0), np.bool_(True)),
    *(np.array(0.5), np.array(True), np.array([0.25, 0.5]), np.zeros((2, 2)), np.array([])),
    *(np.array(["a"]), np.array(None), np.complex64(1), np.timedelta64(3, "s")),
    *("", "0.5", "input", "nonsense", "\ud800", "a\0b", "x" * 10_000, Text("input"), b"", b"\0"),
    *(bytearray(b"\1"), memoryview(b"\0"), BrokenText("input"), BrokenFloat(0.5), Broken()),
    *([], [0.5], [[0.5]], [Broken()], (0.5, "a"), deep(100_000), range(10**12), iter([0.5])),
    *({}, {"input": 0.5}, {1: 0.5}, {"x": {}}, {0: 0.1, "x": 0.2}, {np.int64(0): 0.5}, set()),
    *({0: 0.1, None: 0.2}, {Broken: 1}, frozenset({1}), object(), int, lambda: 0.5, Ellipsis),
    *(dp.Site.INPUT, dp.drop(0.5), dp.zaremba(), dp.Slot(dp.Site.INPUT, 0, 0)),
    dp.schedule({0: 0.5}),
]
strange = st.sampled_from(STRANGE) | st.floats() | st.integers() | st.text() | st.binary()
strange |= st.lists(strange, max_size=3) | st.dictionaries(st.text(), strange, max_size=3)

RULE = {"kind": "drop", "rate": 0.5, "per": "step", "gates": "tied", "scaled": True}
RULE["shape"] = "element"
SAVED = {"version": 3, "name": "", "citation": "", "rules": {"input": RULE}}
A = RecurrentLayer("a", object(), "LSTM")

CALLS = {
    "drop": dp.drop,
    "drop a list": lambda x: dp.drop([x, 0.5]),
    "drop per": lambda x: dp.drop(0.5, per=x),
    "drop gates": lambda x: dp.drop(0.5, gates=x),
    "drop scaled": lambda x: dp.drop(0.5, scaled=x),
    "drop shape": lambda x: dp.drop(0.5, shape=x),
    "Policy.with_shape": lambda x: dp.zaremba().with_shape(x),
    "Rule kind": lambda x: dp.Rule(0.5, kind=x),
    "Rule scaled": lambda x: dp.Rule(0.5, kind="zoneout", scaled=x),
    "Rule.with_rate": lambda x: dp.drop(0.5).with_rate(x),
    "Rule.from_dict": dp.Rule.from_dict,
    "Rule.check_at": lambda x: dp.drop(0.5).check_at(x),
    "Rule.of_layer": lambda x: dp.drop([0.5, 0.1]).of_layer(x),
    "a rule's rate": lambda x: dp.Rule.from_dict({**RULE, "rate": x}),
    "a rule's rates": lambda x: dp.Rule.from_dict({**RULE, "rate": [x, 0.5]}),
    "a rule's schedule": lambda x: dp.Rule.from_dict({**RULE, "rate": {"schedule": x}}),
    "a rule's point": lambda x: dp.Rule.from_dict({**RULE, "rate": {"schedule": [[0, 0.5], x]}}),
    "a rule's words": lambda x: [dp.Rule.from_dict({**RULE, word: x}) for word in ("per", "kind")],
    "a rule's scale": lambda x: dp.Rule.from_dict({**RULE, "scaled": x}),
    "Schedule": Schedule,
    "Schedule.at": lambda x: dp.schedule({0: 0.5}).at(x),
    "a schedule's call": lambda x: Schedule(((0, 0.5), (x, 0.5))),
    "schedule": dp.schedule,
    "a schedule's rate": lambda x: dp.schedule({0: 0.5, 10: x}),
    "ramp": lambda x: dp.ramp(x, 0.5, 10),
    "ramp's end": lambda x: dp.ramp(0.5, x, 10),
    "ramp's calls": lambda x: dp.ramp(0.1, 0.5, x),
    "ramp's levels": lambda x: dp.ramp(0.1, 0.5, 100, levels=x),
    "Site.of": dp.Site.of,
    "Policy": lambda x: dp.Policy(input=x),
    "Policy name": lambda x: dp.Policy(name=x),
    "Policy citation": lambda x: dp.Policy(citation=x),
    "Policy.masks": lambda x: dp.zaremba().masks(x),
    "with_rates": lambda x: dp.zaremba().with_rates(x),
    "with_rates of none": lambda x: dp.none().with_rates(x),
    "with_rates by site": lambda x: dp.zaremba().with_rates({"input": x}),
    "from_dict": dp.Policy.from_dict,
    "from_json": dp.Policy.from_json,
    "diagram": lambda x: dp.zaremba().diagram(x),
    "diagram's steps": lambda x: dp.zaremba().diagram(steps=x),
    "diagram's path": lambda x: dp.zaremba().diagram(path=x),
    "diagram's end": lambda x: dp.zaremba().diagram(path=(1, x)),
    "Diagram": lambda x: dp.Diagram("", x),
    "Diagram's title": lambda x: str(dp.Diagram(x, [Row("a"), Row("b"), Row("c")])),
    "Diagram's rows": lambda x: dp.Diagram("", [Row("a"), x, Row("c")]),
    "register": dp.register,
    "resolve": resolve,
    "resolve's rate": lambda x: resolve("zaremba", x),
    "apply": dp.apply,
    "apply's policy": lambda x: dp.apply(object(), x),
    "apply's rate": lambda x: dp.apply(object(), "zaremba", x),
    "apply's seed": lambda x: dp.apply(object(), seed=x),
    "audit": dp.audit,
    "average": lambda x: dp.average(x, lambda: 0.5),
    "average's samples": lambda x: dp.average(object(), lambda: 0.5, x),
    "record": lambda x: dp.record(x).__enter__(),
    "stacks": lambda x: find_stacks({A: dp.zaremba()}, [], [], x),
    "a stack": lambda x: find_stacks({A: dp.zaremba()}, [], [], [x]),
    "a stack's name": lambda x: find_stacks({A: dp.zaremba()}, [], [], [[x]]),
    "stack": lambda x: stack_placement(dp.zaremba(), x, 1, "LSTM"),
    "stack's layer": lambda x: stack_placement(dp.zaremba(), (x, 2), 1, "LSTM"),
    "seed": check_seed,
    "check_integer": lambda x: check_integer(x, "layers", 1, 5),
    "check_text": lambda x: check_text(x, "name"),
    **{
        f"{make.__name__}": make
        for make in (dp.zaremba, dp.naive, dp.variational, dp.locked, dp.semeniuta, dp.rnndrop)
    },
    **{make.__name__: make for make in (dp.zoneout, dp.weight_drop, dp.awd)},
    "awd's rates": lambda x: dp.awd(0.1, x, x, x, x),
    "semeniuta's lifetime": lambda x: dp.semeniuta(per=x),
    "variational's gates": lambda x: dp.variational(gates=x),
}


@pytest.fixture(autouse=True)
def _catalogue(monkeypatch):
    monkeypatch.setattr(catalog, "_CATALOG", dict(catalog._CATALOG))


@pytest.mark.parametrize("call", CALLS)
def test_a_strange_value_gives_the_librarys_error_or_the_right_thing(call):
    for value in STRANGE:
        with contextlib.suppress(dp.PolicyError):
            CALLS[call](value)


@pytest.mark.parametrize("call", CALLS)
def test_so_does_any_value_that_can_be_thought_of(call):
    @settings(max_examples=20)
    @given(strange)
    def holds(value):
        with contextlib.suppress(dp.PolicyError):
            CALLS[call](value)

    holds()


@given(strange)
def test_an_error_shows_any_value_in_a_few_lines(value):
    assert len(short_repr(value)) < 2000


def test_an_error_shows_what_it_received():
    assert short_repr(0.5) == "0.5"
    assert short_repr({"input": [0.5, Broken()]}) == "{'input': [0.5, <Broken>]}"
    assert short_repr(10**5000) == "<int>"
    assert short_repr(object).startswith("<class")


def test_what_is_long_is_cut_in_its_middle():
    assert short_repr("x" * 198) == repr("x" * 198)
    assert short_repr("x" * 199) == f"'{'x' * 97}...{'x' * 98}'"
    assert short_repr(10**199) == str(10**199)
    assert short_repr(10**200) == f"1{'0' * 97}...{'0' * 99}"
    assert short_repr(b"x" * 197) == repr(b"x" * 197)
    assert short_repr(b"x" * 198) == f"b'{'x' * 98}...{'x' * 99}'"
    assert short_repr([0] * 20) == repr([0] * 20)
    assert short_repr((0,) * 20) == repr((0,) * 20)
    assert short_repr([0] * 21) == f"[{'0, ' * 20}...]"
    assert short_repr((0,) * 21) == f"({'0, ' * 20}...)"
    for kind in (set, frozenset, dict.fromkeys):
        assert "..." not in short_repr(kind(range(20)))
        assert "..." in short_repr(kind(range(21)))


@given(st.text() | st.sampled_from([value for value in STRANGE if not isinstance(value, Broken)]))
def test_a_policy_is_looked_up_as_any_mapping(key):
    policy = dp.zaremba(0.3)
    sites = {"input", "between", "output"}
    there = isinstance(key, str) and str.__str__(key) in sites
    assert (key in policy) == there
    assert (policy.get(key) is not None) == there
    if there:
        assert policy[key] == dp.drop(0.3)
    else:
        with pytest.raises(KeyError) as caught:
            policy[key]
        assert isinstance(caught.value, dp.PolicyError)


def test_a_site_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(dp.PolicyError, match=r"^There is no site 'hiden'. Did you mean 'hidden'"):
        dp.zaremba()["hiden"]
    with pytest.raises(
        KeyError, match=r"^Policy 'zaremba' has no rule at site 'hidden'. It has: 'input', 'bet"
    ):
        dp.zaremba()["hidden"]
    with pytest.raises(dp.PolicyError, match=r"'none' has no rule at site 'input'. It has: no si"):
        dp.none()[dp.Site.INPUT]
    with pytest.raises(dp.PolicyError, match="no site 'hiden'"):
        dp.zaremba().masks("hiden")
    assert dp.zaremba().masks("input")
    assert not dp.zaremba().masks("hidden")


@pytest.mark.parametrize(
    "rate",
    [
        *(np.float16(0.5), np.float32(0.5), np.float64(0.5), np.longdouble(0.5), np.array(0.5)),
        *(Fraction(1, 2), Decimal("0.5"), Decimal("5e-1")),
    ],
)
def test_a_rate_may_be_a_number_of_any_kind(rate):
    for made in (dp.drop(rate), dp.drop(0.1).with_rate(rate), resolve("zaremba", rate)["input"]):
        assert made.rate == 0.5
        assert type(made.rate) is float
    assert dp.drop([rate, 0.25]).rate == (0.5, 0.25)
    assert dp.schedule({0: rate}).points == ((0, 0.5),)
    assert dp.Policy.from_json(dp.zaremba(rate).to_json()) == dp.zaremba(0.5)


def test_zero_is_a_rate_of_every_kind_and_has_no_sign():
    for zero in (0, -0.0, np.int8(0), Fraction(0), Decimal(0), np.array(0)):
        rate = dp.drop(zero).rate
        assert type(rate) is float
        assert str(rate) == "0.0"


@pytest.mark.parametrize(
    ("rate", "shown"),
    [
        *((rate, repr(rate)) for rate in (1, 1.0, -1e-300, Fraction(3, 2), Decimal("1"))),
        *((np.float32(1.3), "1.3"), (float(np.float32(1.3)), "1.3"), (np.int64(50), "50")),
        *((0.1 + 0.2 - 1, "-0.7"), (1.1 + 2.2, "3.3"), (np.float64(1.5), "1.5")),
        *((np.nextafter(1, 2), "1.0000000000000002"), (1e300, "1e+300"), (math.inf, "inf")),
    ],
)
def test_a_number_outside_is_shown_as_it_was_typed(rate, shown):
    with pytest.raises(dp.PolicyError, match=r"must lie in \[0, 1\). Received: rate=") as caught:
        dp.drop(rate)
    assert f"Received: rate={shown}; " in str(caught.value)


def test_rates_by_layer_may_be_an_array_and_not_bytes():
    assert dp.drop(np.array([0.25, 0.5])).rate == (0.25, 0.5)
    assert dp.drop(range(1)).rate == (0.0,)
    for wrong in (b"\0", bytearray(b"\0"), memoryview(b"\0"), range(10**12), np.zeros((1, 1))):
        with pytest.raises(dp.PolicyError, match="Received: rate="):
            dp.drop(wrong)


def test_calls_may_be_numpys_integers():
    made = dp.schedule({np.int64(10): 0.5, np.int32(0): 0.1})
    assert made.points == ((0, 0.1), (10, 0.5))
    assert all(type(call) is int for call, _ in made.points)
    assert dp.ramp(0.0, 0.5, np.int64(10)) == dp.ramp(0.0, 0.5, 10)
    assert dp.Policy.from_json(dp.zaremba(made).to_json()) == dp.zaremba(made)
    assert check_seed(np.uint32(7)) == 7
    drawn = dp.zaremba().diagram(np.int64(2), np.int8(4), path=(np.int64(1), np.int64(3)))
    assert str(drawn) == str(dp.zaremba().diagram(2, 4, path=(1, 3)))


def test_integers_are_of_python_or_numpy_and_no_truth_values():
    for value in (3, np.int8(3), np.uint64(3), np.array(3)):
        assert (as_integer(value), type(as_integer(value))) == (3, int)
    for value in (3.0, True, np.bool_(True), "3", None, np.array([3]), np.array(3.0)):
        assert as_integer(value) is None


@pytest.mark.parametrize("layers", [0, -1, 1001, 10**9, 10**400, "2", 2.0, True, None])
def test_a_diagram_has_a_number_of_layers_that_can_be_drawn(layers):
    with pytest.raises(dp.PolicyError, match=r"layers must be an integer from 1 to 1,000"):
        dp.zaremba().diagram(layers=layers)


def test_a_thousand_layers_can_be_drawn():
    assert dp.zaremba().diagram(layers=1000, steps=1).layers == 1000


@pytest.mark.parametrize(("name", "most"), [("calls", "2,147,483,647"), ("levels", "100,000")])
def test_a_ramp_has_a_number_of_steps_that_can_be_held(name, most):
    given = {"calls": 10**6, name: int(most.replace(",", "")) + 1}
    with pytest.raises(dp.PolicyError, match=f"{name} must be an integer from 1 to {most}"):
        dp.ramp(0.0, 0.5, **given)
    assert dp.ramp(0.0, 0.5, 2**31 - 1, levels=2).points == (
        (0, 0.0),
        (2**30 - 1, 0.25),
        (2**31 - 1, 0.5),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 200_000, "This is not JSON"),
        ('{"a": ' * 100_000, "This is not JSON"),
        ('{"rate": ' + "1" * 5000 + "}", "This is not JSON"),
        ('{"rules": {}, "rules": {}}', "the name 'rules' is given twice"),
        (json.dumps(SAVED).replace('"rate": 0.5', '"rate": 0.5, "rate": 0.1'), "'rate' is given"),
        (json.dumps(SAVED).replace("0.5", "NaN"), "must lie in"),
        (json.dumps(SAVED).replace("0.5", "1" * 400), "must lie in"),
        (json.dumps(SAVED).replace("0.5", "-Infinity"), "must lie in"),
        (json.dumps(SAVED).replace("0.5", '"0.5"'), "must be a number"),
        (json.dumps(SAVED).replace("0.5", "[[0.5]]"), "one number for each layer"),
        (json.dumps(SAVED).replace("0.5", '{"schedule": 3}'), "ascending integers"),
        (json.dumps(SAVED).replace("0.5", '{"points": []}'), "ascending integers"),
        (json.dumps(SAVED).replace("3", "true"), "not a saved policy"),
        (json.dumps(SAVED).replace("3", "2.0"), "not a saved policy"),
        (json.dumps(SAVED).replace("3", "0"), "format version 0"),
        (json.dumps(SAVED).replace('"name": ""', '"name": "\\ud800"'), "surrogate"),
        (json.dumps({**SAVED, "rules": [["input", RULE]]}), "not a saved policy"),
        (json.dumps({**SAVED, "rules": {"name": RULE}}), "not a saved policy"),
        (json.dumps({**SAVED, "rules": {"hiden": RULE}}), "no site 'hiden'"),
        ("\ud800", "This is not JSON"),
        (b"\xff\xfe\xfd", "This is not JSON"),
        (None, "This is not JSON"),
        (3, "This is not JSON"),
    ],
    ids=range(23),
)
def test_json_of_any_kind_is_read_or_refused(text, message):
    with pytest.raises(dp.PolicyError, match=message):
        dp.Policy.from_json(text)


def test_json_may_be_bytes():
    assert dp.Policy.from_json(dp.zaremba().to_json().encode()) == dp.zaremba()


def test_a_saved_rule_that_lacks_a_field_is_refused_with_its_name():
    for field in RULE:
        data = {name: value for name, value in RULE.items() if name != field}
        with pytest.raises(dp.PolicyError, match=f"This is not a saved rule: it has no '{field}'"):
            dp.Rule.from_dict(data)
    assert dp.Rule.from_dict(RULE) == dp.drop(0.5)


@pytest.mark.parametrize("scaled", [0, 1, "no", None, np.bool_(False)])
def test_scaled_is_a_truth_value(scaled):
    with pytest.raises(dp.PolicyError, match=r"^scaled must be True or False\. Received: scaled="):
        dp.drop(0.5, scaled=scaled)


def test_a_bare_value_is_refused_with_what_to_write():
    with pytest.raises(dp.PolicyError, match=r"Received: input=0.25; write: input=dp.drop\(0.25"):
        dp.Policy(input=0.25)
    with pytest.raises(dp.PolicyError, match=r"Received: input='a'; write: input=dp.drop\(0.5\)"):
        dp.Policy(input="a")


@pytest.mark.parametrize("name", [3, None, b"a", "\ud800"])
def test_a_name_is_a_text_that_can_be_written(name):
    for word in ("name", "citation"):
        with pytest.raises(dp.PolicyError, match=f"^{word} "):
            dp.Policy(**{word: name})


def test_a_policy_without_a_name_is_not_registered():
    for name in ("", "custom"):
        with pytest.raises(dp.PolicyError, match="a name first"):
            dp.register(dp.Policy(input=dp.drop(0.2), name=name))


@pytest.mark.parametrize("path", [None, 3, b"a.svg", "a\0.svg", "\ud800.svg", "", ".", "svg", []])
def test_a_diagram_is_saved_under_a_name_that_a_file_can_have(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(dp.PolicyError, match=r"\.svg, \.png or \.txt"):
        dp.zaremba().diagram().save(path)
    assert not list(tmp_path.iterdir())


def test_a_name_of_any_letters_can_be_drawn(tmp_path):
    from xml.etree import ElementTree

    pytest.importorskip("matplotlib")
    policy = dp.Policy(name="$a_{ <b>&\x00\x1b\ufffe", input=dp.drop(0.5))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a letter that the font lacks
        policy.diagram().save(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000
    shown = ElementTree.fromstring(policy._repr_html_())
    title = shown.find("{http://www.w3.org/2000/svg}title").text
    assert title == "$a_{ <b>&\ufffd\ufffd\ufffd, 2 layers over 4 steps"


def test_a_notebook_shows_as_many_layers_as_there_are_rates():
    for rates in ([0.5], [0.1, 0.2, 0.3]):
        shown = dp.zaremba(rates)._repr_html_()
        assert shown == dp.zaremba(rates).diagram(len(rates)).svg()
    with pytest.raises(dp.PolicyError, match="rates for 2 layers"):
        dp.zaremba([0.1, 0.2]).diagram(layers=3)
    several = dp.Policy(input=dp.drop([0.1, 0.2, 0.3]), output=dp.drop([0.1, 0.2]))
    assert several._repr_html_() == several.diagram(2).svg()
    assert "1000 layers" in dp.zaremba([0.5] * 1001)._repr_html_()


@pytest.mark.parametrize("slot", [(dp.Site.INPUT, -1, 0), (dp.Site.INPUT, 0, 2)])
def test_a_key_has_fields_that_hold_what_they_are_given(slot):
    with pytest.raises(dp.PolicyError, match="Received"):
        keyed.tag(dp.Slot(*slot))


def test_a_layer_has_a_rate_from_number_0_on():
    rule = dp.drop([0.1, 0.2])
    assert [rule.of_layer(depth) for depth in (0, 1)] == [0.1, 0.2]
    for depth in (-1, 2):
        with pytest.raises(dp.PolicyError, match=r"depth|layer number 3"):
            rule.of_layer(depth)
    with pytest.raises(dp.PolicyError, match="layer number 3"):
        plan_masks(Placement(dp.Policy(hidden=rule)), Geometry(2, 2, layers=3))


def test_what_a_mask_holds_is_asked_at_a_rate():
    for rate in (1.0, -0.5, math.nan):
        with pytest.raises(dp.PolicyError, match=r"\[0, 1\)"):
            dp.drop(0.5).values(rate)


class BrokenInteger(int):
    """An integer that cannot be one."""

    def __int__(self):
        raise RuntimeError("broken")


def test_an_integer_of_a_broken_class_is_none():
    assert as_integer(BrokenInteger(3)) is None
    with pytest.raises(dp.PolicyError, match="layers must be an integer from 1 to 5"):
        check_integer(BrokenInteger(3), "layers", 1, 5)


@dataclasses.dataclass
class Entry:
    """An entry point of an adapter, which is loaded once its framework is imported."""

    name: str
    adapter: object = None

    def load(self):
        assert self.adapter is not None, f"{self.name} is not imported"
        return self.adapter


@dataclasses.dataclass
class Owner:
    """An adapter of the models of one class."""

    precedence: int
    owned: type = int

    def owns(self, model):
        return isinstance(model, self.owned)


def test_a_model_belongs_to_the_adapter_that_owns_it_and_comes_first(monkeypatch):
    low, high, other = Owner(0), Owner(10), Owner(20, str)
    entries = [Entry("json", low), Entry("math", high), Entry("warnings", other), Entry("zoo")]
    for order in (1, -1):
        found = entries[::order]
        monkeypatch.setattr("importlib.metadata.entry_points", lambda found=found, **_: found)
        assert find_adapter(3) is high
        assert find_adapter("a") is other
        with pytest.raises(dp.PolicyError) as caught:
            dp.apply(0.5)
        assert str(caught.value) == (
            "A policy goes on a model of one of these frameworks: json, math, warnings, zoo. "
            "Received: model of type builtins.float; pass the model itself"
        )


def test_what_goes_beside_a_policy_and_its_rate_must_be_named():
    kinds = {n: p.kind.name for n, p in inspect.signature(dp.apply).parameters.items()}
    named = [name for name, kind in kinds.items() if kind == "KEYWORD_ONLY"]
    assert named == ["only", "skip", "example", "existing", "stacks", "seed"]
    assert list(kinds)[:3] == ["model", "policy", "rate"]
