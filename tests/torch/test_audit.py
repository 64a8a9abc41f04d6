"""The audit says nothing false of PyTorch modules, whoever wrote them, and leaves no trace."""

import copy
import random
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from dropout_policies_torch import GRU, LSTM, masks
from torch import nn

import dropout_policies as dp
from dropout_policies.probing.resting import wide
from tests.support.audited import errors
from tests.support.mutants import DRAW_MUTANTS, MASK_MUTANTS, mutated_masks
from tests.support.torch_audited import Loop, Model, by_hand, cases
from tests.support.torch_mutants import in_values

CASES = cases()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_no_verdict_is_false(case):
    torch.manual_seed(5)
    audit = dp.audit(case.make())
    assert errors(case, audit) == [], str(audit)


def test_a_false_verdict_is_noticed():
    """The truth about one module does not fit the audit of another."""
    truth = {case.name: case for case in CASES}
    torch.manual_seed(5)
    audit = dp.audit(truth["LSTM, 2 layers: naive"].make())
    for other in ("zaremba", "variational", "none"):
        assert errors(truth[f"LSTM, 2 layers: {other}"], audit)


INPUT_WEIGHTS = dp.Policy(input_weight=dp.drop(0.5, per="call"), name="input weights")
STATE = dp.Policy(state=dp.drop(0.5), name="state")
MATTERS = {
    "weights not masked": "weight_drop",
    "input weights not masked": INPUT_WEIGHTS,
    "state not masked": STATE,
    "candidate not masked": "semeniuta",
    "cell not masked": "rnndrop",
    "cell not zoned": "zoneout",
    "hidden state not zoned": "zoneout",
}
"""A policy that a change of masks matters to, where that is not `zaremba`."""


ALIKE = {"between and output swapped"}
"""Masks of one kind that change places are the same noise to whoever sees no key."""


WRONG = {name: m for name, m in (MASK_MUTANTS | DRAW_MUTANTS).items() if name not in ALIKE}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_masks_are_not_called_by_the_policys_name(name, monkeypatch):
    """Whatever is changed in the masks of a policy is seen."""
    monkeypatch.setattr(masks, "draw", mutated_masks(in_values(masks.draw), WRONG[name]))
    torch.manual_seed(5)
    policy = dp.catalog.resolve(MATTERS.get(name, dp.zaremba(0.3)))
    audit = dp.audit(LSTM(8, 8, num_layers=2, policy=policy))
    assert audit.policy != policy.name or audit.undecided, str(audit)


def everything(module):
    """All that could be left changed of a module and of the process."""
    return (
        {name: value.clone() for name, value in module.state_dict().items()},
        [(name, type(part), part.training) for name, part in module.named_modules()],
        torch.get_rng_state(),
        np.random.get_state()[1].copy(),
        random.getstate(),
        module(torch.ones(3, 2, 9))[0],
    )


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.LSTM(9, 8, 2, dropout=0.5),
        lambda: LSTM(9, 8, policy="zaremba", seed=3),
        lambda: GRU(9, 8, policy=dp.zaremba(dp.ramp(0.1, 0.5, 100))),
    ],
)
def test_nothing_is_left_changed(make, training):
    torch.manual_seed(1)
    module = make().train(training)
    module(torch.ones(3, 2, 9))[0].sum().backward()
    other = copy.deepcopy(module)
    gradients = [p.grad.clone() for p in module.parameters()]
    torch.manual_seed(2)
    before = everything(other)
    torch.manual_seed(2)
    dp.audit(module)
    after = everything(module)
    for a, b in zip(before[0].items(), after[0].items(), strict=True):
        assert a[0] == b[0]
        assert torch.equal(a[1], b[1])
    assert before[1] == after[1]
    assert all(torch.equal(a, p.grad) for a, p in zip(gradients, module.parameters(), strict=True))
    for a, b in zip(before[2:], after[2:], strict=True):
        assert (
            np.array_equal(a, b)
            if isinstance(a, np.ndarray)
            else (torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b)
        )
    assert getattr(module, "calls", 0) == getattr(other, "calls", 0)


def test_nothing_is_left_changed_where_it_cannot_be_seen_into():
    class Strange(Loop):
        def forward(self, x):
            return super().forward(x) ** 2

    module = Strange("zaremba")
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(dp.PolicyError, match="cannot see into"):
        dp.audit(module)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (nn.LSTMCell(3, 4), "one step"),
        (nn.Linear(3, 4), "seen later nowhere"),
        (nn.Dropout(0.5), "no weights"),
        (nn.Sequential(nn.Embedding(5, 8), nn.Embedding(5, 8)), "2 embeddings"),
    ],
)
def test_what_is_no_recurrent_network_is_refused(module, words):
    with pytest.raises(dp.PolicyError, match=words):
        dp.audit(module)


def test_what_only_gives_its_last_step_is_refused():
    class Last(Model):
        def forward(self, tokens):
            return super().forward(tokens)[:, -1]

    with pytest.raises(dp.PolicyError, match="no output for every step"):
        dp.audit(Last())


def test_noise_that_cannot_be_played_again_is_refused():
    class Own(Loop):
        def forward(self, x):
            noise = np.random.default_rng().random(x.shape) < 0.5
            return super().forward(x * torch.from_numpy(noise).to(x) if self.training else x)

    with pytest.raises(dp.PolicyError, match="cannot be played again"):
        dp.audit(Own("none"))


def test_masks_that_fall_in_evaluation_are_refused():
    class Always(LSTM):
        def train(self, mode=True):
            return super().train(mode or True)

    with pytest.raises(dp.PolicyError, match="evaluation is random"):
        dp.audit(Always(9, 8, policy="zaremba"))


def test_layers_without_biases_leave_something_undecided():
    torch.manual_seed(0)
    audit = dp.audit(nn.LSTM(9, 8, 2, dropout=0.4, bias=False))
    assert audit.at("between", 1).verdict == "masked"
    assert audit.at("hidden").verdict == "whole"
    assert audit.at("between", 1).scaled is None
    assert {f.site.value for f in audit.undecided} >= {"cell", "candidate"}


def test_the_same_mask_at_every_call_is_seen():
    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.LSTM(9, 8)
            self.mask = (torch.rand(4, 3, 9) < 0.5).float() * 2

        def forward(self, x):
            held = self.mask[: len(x), : x.shape[1]]
            return self.rnn(x * held if self.training and held.shape == x.shape else x)[0]

    torch.manual_seed(0)
    found = dp.audit(Frozen()).at("input")
    assert found.verdict == "masked"
    assert found.frozen


def test_how_it_reads():
    torch.manual_seed(0)
    audit = dp.audit(nn.LSTM(9, 8, 2, dropout=0.5))
    assert audit.policy is None
    assert audit.nearest == "zaremba"
    assert audit.differences == ("input is whole", "output of layer 2 is whole")
    assert audit.connections == (1, 3)
    assert [audit.corruptions(n) for n in (0, 5)] == [1, 1]
    first, second, *_ = str(audit).splitlines()
    assert first == (
        "nn.LSTM(9, 8, num_layers=2, dropout=0.5): no policy of the catalogue; nearest: zaremba"
    )
    assert second.strip().startswith("1 of 3 vertical connections masked")
    assert audit.to_dict()["findings"][0]["site"] == "input"


def test_what_was_measured_is_drawn_layer_by_layer():
    torch.manual_seed(0)
    audit = dp.audit(LSTM(9, 8, num_layers=2, policy="awd", rate={"between": [0.0, 0.3]}))
    drawn = audit.diagram(path=(1, 3))
    assert [(row.name, row.masked, row.per, row.inside) for row in drawn.rows] == [
        ("input", True, "sequence", False),
        ("layer 1", False, None, True),
        ("between", True, "sequence", False),
        ("layer 2", False, None, True),
        ("output", True, "sequence", False),
    ]
    assert not any(row.wrong for row in drawn.rows)
    assert drawn.corruptions == audit.corruptions(2) == 3
    other = audit.diagram("zaremba")
    assert [row.name for row in other.rows if row.wrong] == [row.name for row in drawn.rows]
    assert "unlike zaremba" in str(other)
    assert "<svg" in audit._repr_html_()


def test_what_is_undecided_is_drawn_so():
    torch.manual_seed(0)
    drawn = dp.audit(nn.LSTM(9, 8, 2, bias=False)).diagram(path=(1, 2))
    layer = drawn.rows[1]
    assert layer.masked is None
    assert "undecided: state, cell" in layer.notes
    assert drawn.corruptions is None
    assert "?: not decided" in str(drawn)


@pytest.mark.parametrize("seed", [3, 6, 10])
def test_what_never_came_in_is_not_called_dropped(seed):
    """Of eight units, all that comes in is dropped now and then while nobody can see it, since all
    that leaves is dropped too."""
    torch.manual_seed(seed)
    audit = dp.audit(LSTM(8, 8, 2, policy="zaremba"))
    assert audit.differences == ()
    assert audit.at("hidden", layer=1).verdict == "whole"


class Around(nn.Module):
    """An LSTM, and what is done to its input and its output in training."""

    def __init__(self, before=lambda x: x, after=lambda y: y, always=False, rnn=None):
        super().__init__()
        self.rnn, self.before = rnn or nn.LSTM(9, 9), before
        self.after, self.always = after, always

    def forward(self, x):
        if not (self.training or self.always):
            return self.rnn(x)[0]
        return self.after(self.rnn(self.before(x))[0])


class ByHand(nn.Module):
    """An LSTM written out, with `pre` for what its gates see."""

    def __init__(self, pre):
        super().__init__()
        self.W, self.U, self.pre = nn.Linear(9, 36), nn.Linear(9, 36), pre

    def forward(self, x):
        h = c = x.new_zeros(x.shape[1], 9)
        outputs = []
        for step in x:
            i, f, g, o = self.pre(self, step, h).chunk(4, -1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            outputs.append(h)
        return torch.stack(outputs)


def dropped(module, value):
    return nn.functional.dropout(value, 0.4, module.training)


NO_MASKS = {
    "Gaussian noise": lambda: Around(lambda x: x * (1 + 0.5 * torch.randn_like(x))),
    "additive noise": lambda: Around(lambda x: x + 0.1 * torch.randn_like(x)),
    "signs": lambda: Around(lambda x: x * (2.0 * (torch.rand_like(x) < 0.5) - 1.0)),
    "features in another order": lambda: Around(lambda x: x[..., torch.randperm(9)]),
    "twice in training": lambda: Around(lambda x: 2 * x),
    "half of what leaves in training": lambda: Around(after=lambda y: y / 2),
    "weights dropped step by step": lambda: ByHand(
        lambda m, x, h: m.W(x) + nn.functional.linear(h, dropped(m, m.U.weight), m.U.bias)
    ),
    "what a gate sees is dropped": lambda: ByHand(lambda m, x, h: m.W(x) + dropped(m, m.U(h))),
}


@pytest.mark.parametrize("name", NO_MASKS)
def test_what_is_no_mask_is_not_called_whole_or_masked(name):
    torch.manual_seed(0)
    audit = dp.audit(NO_MASKS[name]())
    assert {found.verdict for found in audit.findings} == {"undecided"}
    assert audit.policy is None
    assert audit.verdict == audit.evaluation == "undecided"
    assert "by no mask that the audit knows" in str(audit)


def test_a_number_that_is_always_there_is_no_mask():
    audit = dp.audit(Around(lambda x: 4 * x, always=True))
    assert (audit.policy, audit.evaluation) == ("none", "identity")


def test_a_rate_of_some_steps_alone_is_said_to_be():
    torch.manual_seed(0)
    drop = nn.Dropout(0.4)
    found = dp.audit(Around(lambda x: torch.cat([drop(x[:1]), x[1:]])))
    assert found.policy is None
    text = str(found)
    assert "not that of every step" in text or "by no mask that the audit knows" in text


@pytest.mark.parametrize("policy", ["none", "naive", "zoneout"])
@pytest.mark.parametrize("added", [(-1.5, 2.0, 0.7), (0.0, -3.0, 0.0)])
def test_whatever_code_adds_to_the_gates_nothing_is_undecided(policy, added):
    torch.manual_seed(0)
    audit = dp.audit(Loop(policy, added=added))
    assert errors(by_hand(policy, added), audit) == [], str(audit)


def test_of_cells_without_biases_nobody_says_that_evaluation_is_wrong():
    torch.manual_seed(0)
    audit = dp.audit(Loop("naive", added=(0.0, 1.0, 0.0), bias=False))
    assert audit.evaluation == "undecided"
    assert audit.differences == ()


def half(x):
    return torch.cat([nn.functional.dropout(x[..., :4], 0.4), x[..., 4:]], -1)


def noisy(x):
    return nn.functional.dropout(x, 0.4) * (1 + 0.3 * torch.randn_like(x))


@pytest.mark.parametrize(
    ("before", "note"),
    [
        (half, "the rate is not that of every unit"),
        (noisy, "what is kept is multiplied by more than one number"),
    ],
    ids=["half of the features", "noise beside masks"],
)
def test_more_than_a_mask_is_not_called_one(before, note):
    torch.manual_seed(0)
    audit = dp.audit(Around(before))
    found = audit.at("input")
    assert (found.verdict, found.scaled, found.note) == ("masked", None, note)
    assert f"input is otherwise: {note}" in audit.differences


class Decoded(nn.Module):
    """An LSTM and a linear layer behind it."""

    def __init__(self, way, words=20):
        super().__init__()
        self.rnn, self.linear, self.way = nn.LSTM(9, 9), nn.Linear(9, words), way

    def forward(self, x):
        return self.way(self, self.rnn(x)[0])


@pytest.mark.parametrize("words", [9, 20])
@pytest.mark.parametrize(
    "way",
    [
        lambda m, y: dropped(m, m.linear(y)),
        lambda m, y: nn.functional.linear(y, dropped(m, m.linear.weight), m.linear.bias),
        lambda m, y: dropped(m, m.linear(dropped(m, y))),
    ],
    ids=["what it gives", "its weights", "what it sees and gives"],
)
def test_what_falls_behind_the_last_layer_is_not_on_what_leaves_it(way, words):
    torch.manual_seed(0)
    found = dp.audit(Decoded(way, words)).at("output")
    assert found.verdict == "undecided"
    assert "on what comes after the last layer" in found.note


def test_of_one_number_nobody_says_what_it_is_missing_for():
    for way in (lambda m, y: dropped(m, m.linear(y)), lambda m, y: m.linear(dropped(m, y))):
        torch.manual_seed(0)
        assert dp.audit(Decoded(way, words=1)).at("output").verdict == "undecided"
    torch.manual_seed(0)
    whole = dp.audit(Decoded(lambda m, y: m.linear(y), words=1))
    assert (whole.policy, whole.at("output").verdict) == ("none", "whole")


def test_what_leaves_the_last_layer_is_seen_behind_a_linear_one():
    torch.manual_seed(0)
    found = dp.audit(Decoded(lambda m, y: m.linear(dropped(m, y)))).at("output")
    assert (found.verdict, found.per, found.scaled) == ("masked", "step", True)


@pytest.mark.parametrize(("rate", "layers"), [(0.8, 4), (0.9, 2), (0.9, 3)])
def test_of_few_units_at_high_rates_nothing_false_is_said(rate, layers):
    torch.manual_seed(5)
    audit = dp.audit(LSTM(9, 8, layers, policy=dp.zaremba(rate)))
    assert audit.undecided
    assert audit.policy == "zaremba"
    for found in audit.findings:
        if found.verdict == "masked":
            low, high = wide(found)
            assert low <= rate <= high, str(audit)
            assert found.scaled is not False


class Branches(nn.Module):
    def __init__(self, way):
        super().__init__()
        self.a, self.b, self.way = nn.LSTM(9, 9), nn.LSTM(9, 9), way

    def forward(self, x):
        return self.way(self, x)


CHAIN = "one after the other, each once"


@pytest.mark.parametrize(
    ("way", "words"),
    [
        (lambda m, x: dropped(m, m.a(x)[0]) + m.b(x)[0], CHAIN),
        (
            lambda m, x: torch.cat([m.a(dropped(m, x))[0], m.b(x)[0]], -1),
            "its output has 18 features, and 9 leave its last layer",
        ),
        (lambda m, x: m.b(dropped(m, m.a(x)[0]) + x)[0], CHAIN),
        (lambda m, x: m.b(m.a(dropped(m, m.a(x)[0]))[0])[0], CHAIN),
    ],
    ids=["sum", "side by side", "residual", "one layer twice"],
)
def test_what_is_no_chain_is_refused(way, words):
    torch.manual_seed(0)
    with pytest.raises(dp.PolicyError, match=words):
        dp.audit(Branches(way))


class Starts(nn.Module):
    """An LSTM that begins from a state of its own."""

    def __init__(self, start):
        super().__init__()
        self.rnn, self.start = nn.LSTM(9, 9), start

    def forward(self, x):
        start = self.start if isinstance(self.start, nn.Parameter) else self.start(9)
        start = start.expand(1, x.shape[1], 9).contiguous()
        return self.rnn(dropped(self, x), (start, start))[0]


@pytest.mark.parametrize("shape", [(1, 1, 9), (9,)])
def test_a_state_that_is_learned_is_no_weight_of_a_cell(shape):
    torch.manual_seed(0)
    start = nn.Parameter(torch.randn(shape))
    module = Starts(start)
    before = start.detach().clone()
    audit = dp.audit(module)
    assert audit.differences == ("output of layer 1 is whole",)
    assert not audit.undecided
    assert torch.equal(start, before)


class Counts(nn.Module):
    """An LSTM that counts its calls and keeps its masks."""

    def __init__(self):
        super().__init__()
        self.rnn, self.state = nn.LSTM(9, 8), {"calls": 0, "masks": []}
        self.calls = 0

    def forward(self, x):
        if self.training:
            self.calls += 1
            self.state["calls"] += 1
            self.state["last"] = x.shape
            mask = (torch.rand(x.shape) < 0.6) / 0.6
            self.state["masks"].append(mask)
            x = x * mask
        return self.rnn(x)[0]


def test_what_a_module_keeps_in_a_dictionary_is_put_back():
    module = Counts()
    module(torch.ones(2, 3, 9))
    masks = list(module.state["masks"])
    found = dp.audit(module).at("input")
    assert (found.verdict, found.per, found.frozen) == ("masked", "step", False)
    assert module.calls == module.state["calls"] == 1
    assert module.state["last"] == (2, 3, 9)
    assert len(module.state["masks"]) == len(masks) == 1
    assert module.state["masks"][0] is masks[0]


def test_deep_stacks_are_seen_into():
    torch.manual_seed(0)
    audit = dp.audit(nn.LSTM(9, 8, 8))
    assert (audit.policy, audit.layers, audit.undecided) == ("none", 8, ())


@dataclass
class Given:
    loss: torch.Tensor | None
    logits: torch.Tensor


def test_an_output_may_be_a_dataclass():
    torch.manual_seed(0)
    audit = dp.audit(Around(after=lambda y: Given(None, nn.functional.dropout(y, 0.4))))
    assert audit.at("output").verdict == "masked"


def test_the_embedding_is_not_taken_for_a_matrix_of_its_shape():
    class Early(Model):
        def __init__(self):
            super().__init__()
            decoder, embedding = self.decoder, self.embedding
            del self.decoder, self.embedding
            self.decoder, self.embedding = decoder, embedding

    torch.manual_seed(0)
    assert next(iter(dict(Early().named_parameters()))).startswith("lstm")
    audit = dp.audit(Early())
    assert (audit.policy, audit.undecided) == ("zaremba", ())


def test_probabilities_are_what_they_were_after_an_audit():
    module = Model(last=nn.Softmax(-1)).eval()
    tokens = torch.arange(12).reshape(2, 6)
    before = module(tokens)
    dp.audit(module)
    assert torch.equal(module(tokens), before)
    assert torch.allclose(before.sum(-1), torch.ones(2, 6))


def made_in_inference_mode():
    with torch.inference_mode():
        return nn.LSTM(9, 8)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Starts(torch.randn), r"two calls gave different outputs.*random initial state"),
        (made_in_inference_mode, r"inference mode.*copy\.deepcopy\(module\)"),
        (
            lambda: Around(
                after=lambda y: y[..., :9] + y[..., 9:],
                rnn=nn.LSTM(9, 9, bidirectional=True),
                always=True,
            ),
            "its output has 9 features, and 18 leave its last layer",
        ),
        (
            lambda: nn.Sequential(nn.Linear(7, 9), Around()),
            r"0\.weight \(9, 7\) does not fit.*without what comes before",
        ),
        (
            lambda: Model(tied=True, words=10),
            r"embedding\.weight has too few rows for tokens and for its output",
        ),
    ],
    ids=["random state", "inference mode", "merged directions", "linear before", "few words"],
)
def test_a_refusal_says_what_was_seen(make, words):
    with pytest.raises(dp.PolicyError, match=words):
        dp.audit(make())


def test_half_precision_is_refused():
    with pytest.raises(dp.PolicyError, match=r"float16, which is too coarse.*\.float\(\)"):
        dp.audit(nn.LSTM(9, 8, 2, dropout=0.4).half())


def test_what_a_module_raises_is_told_with_a_way_out():
    class Fails(Around):
        def forward(self, x):
            if self.training:
                raise LookupError("targets needed")
            return super().forward(x)

    module = Fails()
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(dp.PolicyError, match=r"LookupError: targets needed.*layer alone"):
        dp.audit(module)
    assert module.training
    for name, value in before.items():
        assert torch.equal(module.state_dict()[name], value)


def test_a_buffer_that_training_puts_there_anew_is_what_it_was():
    class Kept(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.LSTM(9, 8)
            self.register_buffer("mask", torch.ones(1, 9))

        def forward(self, x):
            if self.training:
                self.mask = nn.functional.dropout(torch.ones(x.shape[1], 9), 0.4)
            return self.rnn(x * self.mask if self.training else x)[0]

    module = Kept()
    mask = module.mask
    audit = dp.audit(module)
    assert audit.at("input").per == "sequence"
    assert module.mask is mask
    assert torch.equal(mask, torch.ones(1, 9))
