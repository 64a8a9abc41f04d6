"""The example of the guide "Write an adapter": a third framework, connected by its entry point."""

import contextlib
import io
import runpy
import sys
import tomllib
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.metadata import entry_points
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

import dropout_policies as dp
from dropout_policies.auditing.probing.probe import AuditableAdapter
from dropout_policies.masks import keyed
from dropout_policies.placement.adapters import GROUP, Adapter, find_adapter
from dropout_policies.placement.plans import Geometry, Placement, plan_masks
from tests.support import audited, documents
from tests.support.cases import MIXED, Case, Numbers, Outcome, cases, numbers
from tests.support.mutants import MASK_MUTANTS, mutated_masks
from tests.support.properties import (
    corrupted_once_a_layer,
    equals_oracle,
    evaluation_is_what_it_says,
)

FOLDER = documents.ROOT / "examples" / "numpy_adapter"
PAGE = documents.ROOT / "docs" / "guides" / "write-an-adapter.md"
PROJECT = tomllib.loads((FOLDER / "pyproject.toml").read_text(encoding="utf-8"))
EXACT = 1e-12


@dataclass(frozen=True)
class Tiny:
    """The toy framework and its adapter."""

    framework: Any
    adapter: Any

    def chain(self, *widths: int, **more: Any) -> Any:
        """A model of LSTMs, `first`, `second` and so on, with other layers after them."""
        self.framework.seed(0)
        names = ("first", "second", "third")
        pairs = zip(names, widths, widths[1:], strict=False)
        return self.framework.Model(**{n: self.framework.LSTM(*w) for n, *w in pairs}, **more)

    def run(self, case: Case, given: Numbers | None = None) -> Outcome:
        """A case on a chain of LSTMs, one object for each layer."""
        given = given or numbers(case)
        model = self.chain(case.input_size, *[case.hidden_size] * case.layers)
        for layer, (w,) in zip(model.layers.values(), given.weights, strict=True):
            layer.w_ih, layer.w_hh = w.w_ih, w.w_hh
            layer.b = layer.b if w.bias is None else w.bias
        dp.apply(model, case.policy, seed=case.seed)
        model.train(case.training)
        y, ends = given.x, []
        for number, layer in enumerate(model.layers.values()):
            layer.keys.call = case.call
            y, end = layer(y, given.state and tuple(part[number] for part in given.state))
            ends.append(end)
        return Outcome(y, tuple(np.stack(part) for part in zip(*ends, strict=True)))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The example as if it were installed: on the path, with the metadata of its pyproject.toml."""
    folder = tmp_path_factory.mktemp("installed")
    project = PROJECT["project"]
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (info / "METADATA").write_text(metadata, encoding="utf-8")
    lines = []
    for group, entries in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        patch.syspath_prepend(str(folder))
        yield Tiny(import_module("tinyrnn"), import_module("tinyrnn_policies"))
    for name in ("tinyrnn", "tinyrnn_policies"):
        del sys.modules[name]


def state_of(model: Any) -> list[Any]:
    """Everything that layers are: their class, and which objects their attributes are and hold."""
    return [
        (type(layer), {name: (id(value), held(value)) for name, value in vars(layer).items()})
        for layer in model.layers.values()
    ]


def held(value: Any) -> Any:
    return value.tobytes() if isinstance(value, np.ndarray) else value


X = np.random.default_rng(0).standard_normal((6, 4, 3))  # [T, B, D]


# The package, and how it is found.


def test_the_adapter_is_found_by_its_entry_point(tiny):
    entries = {entry.name: entry for entry in entry_points(group=GROUP)}
    assert entries["tinyrnn"].value == "tinyrnn_policies:ADAPTER"
    assert entries["tinyrnn"].name == tiny.framework.__name__
    for model in (tiny.chain(3, 5), tiny.framework.LSTM(3, 5)):
        assert find_adapter(model) is tiny.adapter.ADAPTER
    assert isinstance(tiny.adapter.ADAPTER, Adapter)
    with pytest.raises(dp.PolicyError, match=r"one of these frameworks: .*tinyrnn"):
        dp.apply(object())


def test_the_package_has_what_its_project_file_names():
    files = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["include"]
    assert all((FOLDER / file).is_file() for file in files)
    assert "dropout-policies" in PROJECT["project"]["dependencies"]


# In training mode, the oracle's.


@pytest.mark.parametrize("policy", MIXED)
def test_a_chain_under_a_policy_is_the_oracles(tiny, policy):
    """Output and last states of random geometries, weights and rates, in both modes."""

    @settings(max_examples=20)
    @given(cases((policy,), ("lstm",), ((0,),), projections=False))
    def holds(case: Case) -> None:
        case = replace(case, lengths=None, row_offset=0)
        equals_oracle(tiny.run, case, EXACT)
        evaluation_is_what_it_says(tiny.run, case, EXACT)

    holds()


PLAIN = Case(dp.zaremba(0.5), steps=6, batch=4, hidden_size=5, call=2)

FIXED = [
    replace(PLAIN, policy=policy)
    for policy in (
        dp.zaremba(0.5),
        dp.variational(gates="untied"),
        dp.semeniuta(0.5),
        dp.rnndrop(),
        dp.zoneout(0.5, 0.3),
        dp.awd(),
        dp.Policy(state=dp.drop(0.3)),
        dp.Policy(input_weight=dp.drop(0.5, per="call")),
    )
]
"""Chosen so that each wrong placement shows in one of them."""


def keeps_its_promises(tiny: Tiny) -> None:
    for case in FIXED:
        equals_oracle(tiny.run, case, EXACT)
        evaluation_is_what_it_says(tiny.run, case, EXACT)


def test_the_adapter_keeps_its_promises(tiny):
    keeps_its_promises(tiny)
    corrupted_once_a_layer(tiny.run, layers=2, steps=5, source=1)


def carried_instead(masks, _):
    """The mask that belongs on what leaves falls on the state that is carried."""
    return {
        slot._replace(site=dp.Site.STATE) if slot.site is dp.Site.OUTPUT else slot: mask
        for slot, mask in masks.items()
    }


def _drawn(mutant):
    return lambda adapter: {"draw": mutated_masks(adapter.draw, mutant)}


def _all_numbered_0(adapter):
    original = adapter.place_layers
    return {
        "place_layers": lambda *given: {
            i: replace(p, layer=0) for i, p in original(*given).items()
        },
    }


MUTANTS = {name: _drawn(mutant) for name, mutant in MASK_MUTANTS.items()} | {
    "carried state masked instead of what leaves": _drawn(carried_instead),
    "each layer a stack of its own": lambda _: {"uses": lambda *_: []},
    "layers of one number": _all_numbered_0,
    "the same masks at every call": lambda adapter: {
        "draw": lambda wanted, seed, _, draw=adapter.draw: draw(wanted, seed, 0)
    },
    "masks in evaluation": lambda adapter: {"means": lambda wanted, _: adapter.draw(wanted, 0, 0)},
    "evaluation always the identity": lambda _: {"means": lambda *_: {}},
}
"""Wrong adapters: what each has in the place of the example's functions."""


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_adapter_is_caught(tiny, monkeypatch, name):
    for attribute, wrong in MUTANTS[name](tiny.adapter).items():
        monkeypatch.setattr(tiny.adapter, attribute, wrong)
    with pytest.raises(AssertionError):
        keeps_its_promises(tiny)


# Masks, and random state.


def test_masks_are_the_keyed_ones_of_the_plan(tiny):
    model = tiny.chain(3, 5, 5, head=tiny.framework.Linear(5, 2))
    dp.apply(model, "awd", seed=9)
    with dp.record(model) as masks:
        model(X)
        model(X[:, :2])
    assert list(masks) == ["first", "second"]
    for number, name in enumerate(masks):
        placement = Placement(dp.awd(), number, number == 0, number == 1, number)
        for call, batch in enumerate((4, 2)):
            sizes = Geometry((3, 5)[number], 5, batch=batch, steps=6)
            expected = keyed.masks(plan_masks(placement, sizes), 9, call)
            assert masks[name][call].keys() == expected.keys()
            for slot, mask in expected.items():
                np.testing.assert_array_equal(masks[name][call][slot], mask)


def test_without_a_seed_the_frameworks_generator_rules(tiny):
    model = tiny.chain(3, 5, 5)
    dp.apply(model, "zaremba")
    found = []
    for number in (1, 1, 2):
        tiny.framework.seed(number)
        with dp.record(model) as masks:
            found.append(model(X))
    np.testing.assert_array_equal(found[0], found[1])
    assert (found[0] != found[2]).any()
    slots = [mask for calls in masks.values() for mask in calls[0].values()]
    assert len(slots) == 3
    for mask in slots:
        np.testing.assert_array_equal(np.unique(mask), [0.0, 2.0])
        assert abs((mask > 0).mean() - 0.5) < 5 * 0.5 / np.sqrt(mask.size)
    assert (slots[1] != slots[2]).any()


@pytest.mark.parametrize("policy", dp.names())
@pytest.mark.parametrize("seed", [3, None])
def test_evaluation_advances_nothing(tiny, policy, seed):
    model = tiny.chain(3, 5, 5)
    plain = model(X)
    applied = dp.apply(model, policy, seed=seed)
    model(X)
    model.train(False)
    before = tiny.framework.generator.bit_generator.state
    y = model(X)
    assert tiny.framework.generator.bit_generator.state == before
    assert [layer.keys.call for layer in model.layers.values()] == [1, 1]
    if applied.policy.evaluation == "identity":
        np.testing.assert_array_equal(y, plain)
    else:
        assert (y != plain).any()


def test_rate_0_is_the_stock_layer_bit_for_bit(tiny):
    model = tiny.chain(3, 5, 5)
    plain = model(X)
    before = tiny.framework.generator.bit_generator.state
    dp.apply(model, "naive", rate=0.0)
    np.testing.assert_array_equal(model(X), plain)
    assert tiny.framework.generator.bit_generator.state == before


def test_a_wrong_width_is_refused_before_a_mask_can_hide_it(tiny):
    layer = tiny.framework.LSTM(3, 5)
    dp.apply(layer, "variational", seed=1)
    with pytest.raises(ValueError, match=r"takes \[T, B, 3\]. Received: \[6, 4, 1\]"):
        layer(X[..., :1])
    assert layer.keys.call == 0


# On a model, and off again.


def test_in_place_and_back(tiny):
    model = tiny.chain(3, 5, 5, head=tiny.framework.Linear(5, 2))
    before, names, plain = state_of(model), list(model.parameters()), model(X)
    applied = dp.apply(model, "zaremba", rate=[0.5, 0.25], seed=1)
    assert str(applied) == (
        "policy zaremba: 2 recurrent layers in 1 stack; evaluation: identity\n"
        "  stack 1: L = 2, 3 of 3 vertical connections masked\n"
        "    first (tinyrnn.LSTM): input 0.5 per step\n"
        "    second (tinyrnn.LSTM): between, output 0.25 per step"
    )
    assert list(model.parameters()) == names
    assert isinstance(model.layers["first"], tiny.framework.LSTM)
    assert (model(X) != plain).any()
    applied.remove()
    assert state_of(model) == before
    np.testing.assert_array_equal(model(X), plain)
    with dp.apply(model, "naive"):
        assert state_of(model) != before
    assert state_of(model) == before


def test_other_weights_end_a_stack_and_the_user_has_the_last_word(tiny):
    def built():
        LSTM = tiny.framework.LSTM
        return tiny.framework.Model(low=LSTM(3, 5), mid=tiny.framework.Linear(5, 5), up=LSTM(5, 5))

    def stacks(**said):
        found = dp.apply(built(), "zaremba", **said).stacks
        return [[member.name for member in stack.members] for stack in found]

    assert stacks() == [["low"], ["up"]]
    assert stacks(stacks=[["low", "up"]]) == [["low", "up"]]
    with pytest.raises(dp.PolicyError, match="stacks names 'high'"):
        stacks(stacks=[["low", "high"]])


def test_a_layer_that_runs_twice_has_one_policy(tiny):
    layer, other = tiny.framework.LSTM(3, 3), tiny.framework.Linear(3, 3)
    apart = tiny.framework.Model(once=layer, between=other, again=layer)
    before = state_of(apart)
    with dp.apply(apart, "zaremba") as applied:
        assert [member.name for member in applied.touched] == ["once"]
        apart(X)
    assert state_of(apart) == before
    with pytest.raises(dp.PolicyError, match="'once' is in two places"):
        dp.apply(tiny.framework.Model(once=layer, again=layer), "zaremba")


def forgetful(tiny: Tiny) -> Any:
    """An LSTM as people write it, that masks the state that it carries."""

    class Forgetful(tiny.framework.LSTM):
        def step(self, x, h, c):
            h, c = super().step(x, h, c)
            return tiny.framework.dropout(h, 0.4, self.training), c

    return Forgetful(6, 8)


def under_policy_in_part(tiny: Tiny) -> Any:
    model = tiny.chain(3, 5, 5)
    dp.apply(model.layers["second"], "zaremba")
    return model


REFUSED = {
    "a policy already": (
        under_policy_in_part,
        "naive",
        r"second \(tinyrnn.LSTM\) is under policy 'zaremba' already. Call dropout_policies.remove",
    ),
    "no layer": (
        lambda tiny: tiny.framework.Model(head=tiny.framework.Linear(3, 2)),
        "zaremba",
        r"Model\(head=Linear\(3, 2\)\) has no recurrent layer that a policy can go on",
    ),
    "a subclass": (
        lambda tiny: tiny.framework.Model(mine=forgetful(tiny)),
        "zaremba",
        r"It has mine \(Forgetful\): a subclass, whose own steps would be lost",
    ),
    "a site that the adapter does not mask": (
        lambda tiny: tiny.chain(3, 5, 5),
        "rnndrop",
        r"first \(tinyrnn.LSTM\) has no site 'cell' for policy 'rnndrop'. It has: input, between,",
    ),
    "rates for other layers": (
        lambda tiny: tiny.chain(3, 5, 5),
        dp.zaremba((0.1, 0.2, 0.3)),
        "second: policy 'zaremba' has rates for 3 layers at site 'input', and the stack has 2",
    ),
}
"""What cannot be: a model, a policy, and what the error says."""


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_is_refused_by_name_and_changes_nothing(tiny, monkeypatch, what):
    make, policy, message = REFUSED[what]
    model = make(tiny)
    # An adapter that has not come to that site yet.
    monkeypatch.setattr(tiny.adapter, "SITES", tiny.adapter.SITES - {dp.Site.CELL})
    before = state_of(model)
    with pytest.raises(dp.PolicyError, match=message):
        dp.apply(model, policy)
    assert state_of(model) == before


def test_a_class_that_was_changed_since_is_not_removed(tiny):
    model = tiny.chain(3, 5, 5)
    applied = dp.apply(model, "zaremba")
    model.layers["second"].__class__ = type(forgetful(tiny))
    with pytest.raises(dp.PolicyError, match=r"second has become a .*Forgetful"):
        applied.remove()
    assert type(model.layers["first"]) is tiny.adapter.PolicyLSTM


# Samples, and masks taken out and put back in.


@pytest.mark.parametrize("policy", ["zaremba", "variational", "zoneout", "awd"])
def test_samples_in_evaluation_leave_training_as_it_was(tiny, policy):
    rate = {"hidden_update": dp.schedule({0: 0.1, 1: 0.9})} if policy == "zoneout" else None
    outputs = []
    for sampled in (False, True):
        model = tiny.chain(3, 5, 5)
        dp.apply(model, policy, rate, seed=3)
        model(X)
        if sampled:
            model.train(False)
            plain = model(X)
            with dp.monte_carlo(model, seed=5):
                first, second = model(X), model(X)
            with dp.monte_carlo(model, seed=5, hold=True):
                np.testing.assert_array_equal(model(X), first)
                np.testing.assert_array_equal(model(X), first)
            assert (first != second).any()
            assert (first != plain).any()
            np.testing.assert_array_equal(model(X), plain)
            mean, spread = dp.average(model, lambda m=model: m(X), samples=3)
            assert mean.shape == spread.shape == plain.shape
            model.train()
        outputs.append(model(X))
    np.testing.assert_array_equal(*outputs)


def test_samples_have_masks_of_their_own_at_the_rates_that_hold(tiny):
    model = tiny.chain(3, 5)
    dp.apply(model, dp.Policy(input=dp.drop(dp.schedule({0: 0.0, 2: 0.9, 3: 0.1}))))
    model(X)
    model(X)
    model.train(False)
    with dp.monte_carlo(model), dp.record(model) as masks:
        model(X)
        model(X)
    with dp.monte_carlo(model), dp.record(model) as others:
        model(X)
    found = [mask for call in (*masks["first"], *others["first"]) for mask in call.values()]
    assert [np.unique(mask).round(9).tolist() for mask in found] == [[0.0, 10.0]] * 3
    for one, other in combinations(found, 2):
        assert (one != other).any()


def test_recorded_masks_put_back_give_the_same(tiny):
    model = tiny.chain(3, 5, 5)
    dp.apply(model, "naive")
    with dp.record(model) as masks:
        y = model(X)
    assert (model(X) != y).any()
    model.train(False)
    with dp.replay(model, masks):
        np.testing.assert_array_equal(model(X), y)
    masks["second"][0][dp.Slot(dp.Site.OUTPUT, 1, 0)][:] = 0.0
    with dp.replay(model, masks):
        assert not model(X).any()
    with dp.replay(model, masks):
        model(X)
        with pytest.raises(dp.PolicyError, match="first: masks of 1 call"):
            model(X)


# The audit.


@pytest.mark.parametrize("policy", dp.names())
def test_an_audit_names_each_policy(tiny, policy):
    tiny.framework.seed(0)
    chosen = dp.resolve(policy)

    def make():
        model = tiny.chain(6, 8, 8, head=tiny.framework.Linear(8, 8))
        dp.apply(model, chosen)
        return model

    case = audited.case_of_policy(policy, make, chosen, layers=2)
    assert audited.find_errors(case, dp.audit(make())) == []


def test_an_audit_gives_a_layer_by_itself_an_initial_state(tiny):
    """Only so a mask held on the candidate is told from one on the state."""
    layer = tiny.chain(6, 8).layers["first"]
    dp.apply(layer, dp.semeniuta(per="sequence"))
    found = dp.audit(layer)
    assert found.name == "PolicyLSTM(6, 8, policy='semeniuta')"
    masked = [(f.site, f.per) for f in found.findings if f.verdict != "whole"]
    assert masked == [(dp.Site.CANDIDATE, "sequence")]


def test_an_audit_names_a_wrong_placement(tiny):
    tiny.framework.seed(0)
    model = tiny.framework.Model(mine=forgetful(tiny), head=tiny.framework.Linear(8, 8))
    found = dp.audit(model)
    assert found.policy is None
    assert found.at("state").verdict == "masked"
    assert found.at("state").per == "step"
    low, high = found.at("state").interval
    assert low <= 0.4 <= high
    assert [f.site for f in found.findings if f.verdict != "whole"] == [dp.Site.STATE]
    assert [found.corruptions(distance) for distance in range(3)] == [1, 2, 3]


def test_an_audit_names_a_wrong_adapter(tiny, monkeypatch):
    model = tiny.chain(6, 8, 8)
    dp.apply(model, "zaremba")
    assert dp.audit(model).policy == "zaremba"
    wrong = mutated_masks(tiny.adapter.draw, carried_instead)
    monkeypatch.setattr(tiny.adapter, "draw", wrong)
    found = dp.audit(model)
    assert found.policy is None
    assert found.at("state", layer=1).verdict == "masked"
    assert found.at("output", layer=1).verdict == "whole"


@pytest.mark.parametrize("seed", [3, None])
def test_an_audit_leaves_everything_as_it_was(tiny, seed):
    model = tiny.chain(6, 8, 8, head=tiny.framework.Linear(8, 4))
    dp.apply(model, "awd", seed=seed)
    model(np.ones((2, 3, 6)))
    model.layers["first"].train(False)

    def now():
        return (
            {name: array.tobytes() for name, array in model.parameters().items()},
            [id(array) for array in model.parameters().values()],
            [layer.training for layer in model.layers.values()],
            [layer.keys for layer in tiny.adapter.ADAPTER.under_policy(model).values()],
            tiny.framework.generator.bit_generator.state,
        )

    before = now()
    dp.audit(model)
    assert now() == before


def test_an_audit_of_noise_that_it_does_not_know_is_refused(tiny):
    class Other(tiny.framework.LSTM):
        def step(self, x, h, c):
            h, c = super().step(x, h, c)
            return (h * (own.random(h.shape) >= 0.5) if self.training else h), c

    own = np.random.default_rng(0)
    with pytest.raises(dp.PolicyError, match=r"Other\(6, 8\): its noise cannot be repeated"):
        dp.audit(Other(6, 8))


# The guide.


def strays(page: Path) -> list[int]:
    """The lines of a page at which excerpts begin that stand in no file of the example so."""
    sources = {
        "py": [file.read_text(encoding="utf-8") for file in sorted(FOLDER.glob("*.py"))],
        "toml": [(FOLDER / "pyproject.toml").read_text(encoding="utf-8")],
    }
    return [
        block.line
        for block in documents.blocks(page)
        if block.language in sources
        and not any(f"\n{block.text}" in f"\n{text}" for text in sources[block.language])
    ]


def test_the_pages_code_is_the_examples():
    assert {"py", "toml", "text"} == {block.language for block in documents.blocks(PAGE)}
    assert strays(PAGE) == []


def test_that_check_can_fail(tmp_path):
    page = tmp_path / "page.md"
    good = "```py\n    def restore(self) -> None:\n```\n"
    page.write_text(f"{good}\n```py\ndef restore(self) -> None:\n```\n{good}")
    assert strays(page) == [6]


def test_the_page_lists_what_an_adapter_offers():
    text = PAGE.read_text(encoding="utf-8")
    rows = [line.split("`")[1].partition("(")[0] for line in text.splitlines() if "| `" in line[:3]]
    offered = [name for name in vars(Adapter) | vars(AuditableAdapter) if name[0] != "_"]
    optional = {"describe", "parts"}
    assert set(rows) == {*offered, *Adapter.__annotations__, *optional}


@pytest.mark.usefixtures("tiny")
def test_the_demo_prints_what_the_page_says():
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        runpy.run_path(str(FOLDER / "demo.py"))
    printed = [block.text for block in documents.blocks(PAGE) if block.language == "text"]
    assert out.getvalue() == "".join(printed)
