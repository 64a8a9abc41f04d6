"""What a user reads who passes something else: what was received, and what to write instead."""

import functools
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

import dropout_policies as dp
from dropout_policies.argument_checks import number_text, short_repr
from dropout_policies.placement.wrong_models import describe_wrong_model


class Net:
    """A class of models."""

    def run(self):
        return self

    def __call__(self):
        return self


def make_model():
    return Net()


class Linen:
    """Like a model of a framework without an adapter."""


Linen.__module__ = "flax.linen.module"
Linen.__name__ = Linen.__qualname__ = "Module"

MODELS = [
    (None, r"model=None; pass the model itself"),
    (Net, r"the class Net; create the model first: model = Net\(\.\.\.\)"),
    (int, r"the class int; create the model first"),
    ([Net(), Net()], r"a list of 2 items \(Net\); pass one model at a time: for model in models:"),
    ((Net(),), r"a tuple of 1 item \(Net\); pass one model at a time"),
    ({"a": Net()}, r"a dict of 1 item \(Net\); pass one .* in models\.values\(\):"),
    ({"a": Net()}.values(), r"a dict_values of 1 item \(.*; pass one model at a time"),
    ({1, 2}, r"a set of 2 items \(int\); if these are weights"),
    ([], r"an empty list; pass a model"),
    ((Net() for _ in range(2)), r"an iterator \(generator\); pass one model at a time"),
    (iter([Net()]), r"an iterator \(list_iterator\); pass one model at a time"),
    (functools.partial(Net), r"a functools\.partial of Net; call it .*: model = partial\(\)"),
    (make_model, r"the function make_model; call it .*: model = make_model\(\)"),
    (lambda: Net(), r"the function <lambda>; call it if it creates the model"),
    (Net().run, r"the method Net\.run; pass the model itself, and not its method run"),
    ("model.pt", r"model='model\.pt'; load the model first"),
    ("zaremba", r"model='zaremba'; the model comes before the policy: dp\.apply\(model, 'zaremb"),
    (dp.zaremba(), r"the model comes before the policy"),
    ({"rnn.weight": np.zeros(3)}, r"with the keys 'rnn\.weight'; if these are weights, load"),
    ([np.zeros(3)], r"a list of 1 item \(ndarray\); if these are weights, load them"),
    (sys, r"the Python module sys; pass a model that is created with it"),
    (Linen(), r"no adapter for flax is installed\. The guide 'Write an adapter' shows"),
    (3, r"model of type builtins\.int; pass the model itself"),
]


@pytest.mark.parametrize(("model", "words"), MODELS)
@pytest.mark.parametrize(
    "function",
    [dp.apply, dp.remove, dp.wiring, dp.audit, lambda model: dp.record(model).__enter__()],
    ids=["apply", "remove", "wiring", "audit", "record"],
)
def test_a_wrong_model_is_described(function, model, words):
    pattern = (
        rf"^A policy goes on a model of one of these frameworks: .*keras.*\. Received: .*{words}"
    )
    with pytest.raises(dp.PolicyError, match=pattern):
        function(model)


def test_a_model_whose_adapter_is_missing_names_what_to_install():
    net = type("Module", (), {"__module__": "torch.nn.modules.module"})()
    assert "pip install 'dropout-policies[torch]'" in describe_wrong_model(net, ["keras"])
    assert "no adapter is installed" in describe_wrong_model(net, [])


POLICIES = [
    (dp.zaremba, r"Received: policy=<function zaremba>; call it: policy=dp\.zaremba\(\), or"),
    (dp.zoneout, r"call it: policy=dp\.zoneout\(\), or write its name: policy='zoneout'"),
    (functools.partial(dp.zaremba, 0.3), r"if it returns a policy, call it"),
    (lambda: dp.zaremba(), r"if it returns a policy, call it"),
    (dp, r"Received: policy=<module 'dropout_policies'>; this is a module; write: policy='"),
    (dp.Policy, r"this is a class; write: policy='"),
    (dp.drop(0.3), r"a rule belongs to a site: policy=dp\.Policy\(input=dp\.drop"),
    (dp.Site.HIDDEN, r"this is a site; write: policy=dp\.Policy\(hidden=dp\.drop"),
    (dp.schedule({0: 0.5}), r"this is a rate; write: policy='zaremba', rate="),
    (0.3, r"a rate goes with a policy: policy='zaremba', rate=0\.3"),
    (30, r"a rate goes with a policy: policy='zaremba', rate=0\.3"),
    (True, r"Received: policy=True; "),
    (["zaremba"], r"write: policy='zaremba'$"),
    (["zaremba", "zoneout"], r"write: policy=dp\.zaremba\(\) \| dp\.zoneout\(\)"),
    (("zaremba", "zoneout"), r"takes a mapping: policy=\{'encoder"),
    ([dp.zaremba()], r"to combine policies on each layer"),
    ({"input": 0.3}, r"write: policy=dp\.Policy\(input=dp\.drop\(0\.3\)\)"),
    ({dp.Site.INPUT: dp.drop(0.3)}, r"write: policy=dp\.Policy\(input=\.\.\.\)"),
    (dp.zaremba().to_dict(), r"write: policy=dp\.Policy\.from_dict"),
    (dp.zaremba().to_json(), r"write: policy=dp\.Policy\.from_json\(text\)"),
    ("mine.json", r"policy=dp\.Policy\.from_json\(pathlib\.Path\('mine\.json'\)"),
    (b"zaremba", r"write a text: policy='zaremba'"),
    (object(), r"write: policy='zaremba', or policy=dp\.Policy"),
    ("Zaremba", r"There is no policy 'Zaremba'\. Did you mean 'zaremba'\?"),
    (" zaremba ", r"Did you mean 'zaremba'\?"),
    ("Weight-Drop", r"Did you mean 'weight_drop'\?"),
    ("weight drop", r"Did you mean 'weight_drop'\?"),
    ("", r"There is no policy ''\. See dp\.names\(\)"),
    ("zaremba|weight_drop", r"To combine policies, write: policy=dp\.zaremba\(\) \| dp\.weight_d"),
    ("zaremba+zoneout", r"write: policy=dp\.zaremba\(\) \| dp\.zoneout\(\)"),
    ("Zaremba + zoneout", r"write: policy=dp\.zaremba\(\) \| dp\.zoneout\(\)"),
    ("zaremba, zoneout", r"write: policy=dp\.zaremba\(\) \| dp\.zoneout\(\)"),
    ("zaremba+zonout", r"In 'zaremba\+zonout': There is no policy 'zonout'\. Did you mean 'zone"),
    ("zaremba|", r"Did you mean 'zaremba'\?"),
]


@pytest.mark.parametrize(("policy", "words"), POLICIES)
@pytest.mark.parametrize(
    "function", [dp.resolve, lambda policy: dp.apply(object(), policy)], ids=["r", "a"]
)
def test_a_wrong_policy_is_described(function, policy, words):
    with pytest.raises(dp.PolicyError, match=words):
        function(policy)


def test_a_policy_of_a_mapping_is_named_by_its_key():
    with pytest.raises(dp.PolicyError, match=r"^policy\['rnn\*'\] must be .*=dp\.zaremba\(\), or"):
        dp.apply(object(), {"rnn*": dp.zaremba})
    with pytest.raises(dp.PolicyError, match="policy must be a name"):
        dp.apply(object(), None)
    with pytest.raises(dp.PolicyError, match="one of these frameworks"):  # no error of the policy
        dp.apply(object(), {"input": "zaremba"})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"input": 0.3},
            r"Received: \{'input': 0\.3\}; write: dp\.Policy\(input=dp\.drop\(0\.3\)\)",
        ),
        ({"input": 50}, r"write: dp\.Policy\(input=dp\.drop\(0\.5\)\)"),
        ({"input": [0.1, 0.2]}, r"write: dp\.Policy\(input=dp\.drop\(\[0\.1, 0\.2\]\)\)"),
        ({"input": dp.drop(0.3)}, r"write: dp\.Policy\(\*\*rules\)"),
        (dp.zaremba(), r"write: dp\.Policy\(\*\*rules\)"),
        (dp.zaremba().to_dict(), r"write: dp\.Policy\.from_dict"),
        ("zaremba", r"write: dp\.Policy\(input=dp\.drop\(0\.5\), name='zaremba'\)"),
        (0.3, r"write: dp\.Policy\(input=dp\.drop\(0\.3\)\)"),
        ([], r"write: dp\.Policy\(input=dp\.drop\(0\.5\)\)"),
    ],
)
def test_rules_without_a_sites_name_are_shown_with_one(given, words):
    for call in (lambda: dp.Policy(given), lambda: dp.Policy(rules=given)):
        with pytest.raises(dp.PolicyError, match=f"^Policy takes each rule by .*{words}") as caught:
            call()
        assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize("other", ["zoneout", dp.zoneout])
def test_what_is_no_policy_cannot_be_combined_with_one(other):
    for call in (lambda: dp.zaremba() | other, lambda: other | dp.zaremba()):
        with pytest.raises(
            dp.PolicyError, match=r"Only policies can be .* write: dp\.zoneout\(\)$"
        ):
            call()


RATES = [
    (50, r"Received: rate=50; for 50 percent, write: rate=0\.5\.$"),
    (7, r"for 7 percent, write: rate=0\.07\.$"),
    (np.int64(30), r"Received: rate=30; for 30 percent, write: rate=0\.3\.$"),
    (1, r"Received: rate=1; a rate of 1 would drop everything; write: rate="),
    (-0.1, r"Received: rate=-0\.1; write: rate="),
    (float("nan"), r"Received: rate=nan; write: rate="),
    (np.float32(1.3), r"Received: rate=1\.3; write: rate="),
    (1.1 + 2.2, r"Received: rate=3\.3; for 3\.3 percent, write: rate=0\.033\.$"),
    ("0.3", r"Received: rate='0\.3'; write: rate=0\.3, a number without quotes\.$"),
    ("30%", r"write: rate=0\.3, a number without quotes\.$"),
    ("half", r"write: rate=0\.5, a number without quotes\.$"),
    (True, r"Received: rate=True; write: rate="),
    ({0.5}, r"a list with one rate for each layer"),
    (dp.drop(0.3), r"write: rate=0\.5, a number and not a rule"),
    (dp.schedule, r"Received: rate=<function schedule>; write: rate=0\.5, or dp\.schedule\("),
    ([0.5, 50], r"^rate of layer 2 .* Received: 50; for 50 percent, write: 0\.5\.$"),
    ({"input": 50}, r"^rate\['input'\] .* Received: 50; .*write: rate=\{'input': 0\.5\}\.$"),
    ({"input": None}, r"Received: None; write: rate=\{'input': 0\.5\}, or leave it out"),
    ({"input": [0.5, 2]}, r"^rate\['input'\] of layer 2"),
    ({"inptu": 0.5}, r"Did you mean 'input'"),
    ({"hidden": 0.5}, r"has no rule at site 'hidden'\. It has: 'input', 'between', 'output'"),
    (Fraction(3, 2), r"Received: rate=Fraction\(3, 2\); "),
]


@pytest.mark.parametrize(("rate", "words"), RATES)
def test_a_wrong_rate_is_described(rate, words):
    with pytest.raises(dp.PolicyError, match=words):
        dp.apply(object(), "zaremba", rate=rate)


def test_the_rate_of_a_policys_function_is_named_as_its_argument():
    for make, name in [(dp.zoneout, "cell"), (dp.awd, "weight"), (dp.variational, "vertical")]:
        with pytest.raises(dp.PolicyError, match=rf"^{name} is .*: {name}=50; .* {name}=0\.5\.$"):
            make(**{name: 50})


@pytest.mark.parametrize(
    ("rate", "words"),
    [
        (0.1 + 0.2, "write: policy='zaremba', rate=0.3"),
        (np.float32(0.3), "write: policy='zaremba', rate=0.3"),
        (30, "write: policy='zaremba', rate=0.3"),
        ([0.2, 0.3], r"write: policy='zaremba', rate=\[0.2, 0.3\]"),
        (None, ""),
    ],
)
def test_a_rate_beside_a_policy_is_shown_with_the_policys_name(rate, words):
    if rate is None:
        assert dp.resolve(dp.zaremba(), rate) == dp.zaremba()
        return
    with pytest.raises(dp.PolicyError, match=words + "$"):
        dp.resolve(dp.zaremba(), rate)
    with pytest.raises(dp.PolicyError, match=r"write: policy=my_policy\.with_rates\(\S+"):
        dp.resolve(dp.Policy(hidden=dp.drop(0.5)), rate)


@pytest.mark.parametrize(
    ("seed", "other"),
    [(-1, 1), (1.5, 1), ("1", 1), (True, 1), (2**32, 0), (float("nan"), 0), ([1], 0), (1j, 0)],
)
def test_a_wrong_seed_is_shown_with_one_that_can_be_used(seed, other):
    with pytest.raises(dp.PolicyError, match=rf"write: seed={other}, or leave it out") as caught:
        dp.apply(object(), seed=seed)
    assert f"Received: seed={seed!r}; " in str(caught.value)


@pytest.mark.parametrize(
    ("value", "text", "repr_text"),
    [
        (0.1 + 0.2, "0.3", "0.3"),
        (0.5, "0.5", "0.5"),
        (1.0, "1", "1.0"),
        (0.0, "0", "0.0"),
        (float(np.float32(0.3)), "0.3", "0.3"),
        (np.float32(0.65), "0.65", "0.65"),
        (np.float16(0.3), "0.3", "0.3"),
        (0.123456789, "0.123456789", "0.123456789"),
        (1 / 3, "0.333333333333", "0.333333333333"),
        (0.0009765625, "0.0009765625", "0.0009765625"),
        (0.9999999999999999, "0.9999999999999999", "0.9999999999999999"),
        (1e-9, "1e-09", "1e-09"),
        (float("inf"), "inf", "inf"),
    ],
)
def test_numbers_are_shown_as_they_are_typed(value, text, repr_text):
    assert number_text(value) == text
    assert short_repr(value) == short_repr([value])[1:-1] == repr_text


def test_a_rate_is_the_number_that_was_typed():
    assert dp.zaremba(np.float32(0.3)) == dp.zaremba(0.3)
    assert "0.123456789 per step" in str(dp.zaremba(0.123456789)["input"])
    assert str(dp.ramp(0.1, 0.5, 4)) == "0.1 to 0.5 by call 4"
    assert repr(dp.ramp(0.1, 0.5, 4)) == "dp.schedule({0: 0.1, 1: 0.2, 2: 0.3, 3: 0.4, 4: 0.5})"
    assert dp.ramp(0.1, 0.5, 4).at(2) == 0.3


BLOCKED = """
import importlib.abc, sys
class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == sys.argv[1]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Finder())
try:
    __import__(sys.argv[2])
except ModuleNotFoundError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("missing", "package", "words"),
    [
        ("torch", "dropout_policies_torch", "pip install 'dropout-policies[torch]'"),
        ("keras", "dropout_policies_keras", "pip install 'dropout-policies[keras]'"),
        ("jax", "dropout_policies_keras", "Keras needs its backend, jax: install it, or choose"),
    ],
)
def test_a_package_without_its_framework_says_what_to_install(missing, package, words, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    command = [sys.executable, "-c", BLOCKED, missing, package]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert words in done.stdout
