"""What the audit says of PyTorch modules that do something unusual: never more than it can know."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from dropout_policies_torch import LSTM
from torch import nn

import dropout_policies as dp
from dropout_policies.auditing.probing.findings import widened_interval
from tests.support.audited import errors
from tests.support.torch_audited import Loop, Model, by_hand
from tests.support.torch_unusual import Around, ByHand, Decoded, Held, Packed, Starts, dropped


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


def test_masks_that_are_numbered_by_a_count_of_calls_are_not_called_the_same():
    class Numbered(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.calls = nn.LSTM(9, 8), 5

        def forward(self, x):
            if self.training:
                self.calls += 1
                own = torch.Generator().manual_seed(self.calls)
                x = x * (torch.rand(x.shape, generator=own) < 0.6) / 0.6
            return self.rnn(x)[0]

    torch.manual_seed(0)
    module = Numbered()
    found = dp.audit(module).at("input")
    assert (found.verdict, found.per, found.frozen) == ("masked", "step", False)
    assert module.calls == 5


def test_numbers_that_go_with_a_state_are_put_back_with_it():
    """A layer that goes on from its last state, or from zeros where the batch has another size."""

    class Windows(nn.LSTM):
        def __init__(self):
            super().__init__(9, 8)
            self.size, self.state = 1, (torch.zeros(1, 1, 8), torch.zeros(1, 1, 8))

        def forward(self, x):
            if x.shape[1] != self.size:
                self.size = x.shape[1]
                self.state = (x.new_zeros(1, self.size, 8), x.new_zeros(1, self.size, 8))
            y, self.state = super().forward(dropped(self, x), self.state)
            return y

    torch.manual_seed(0)
    module = Windows()
    assert dp.audit(module).differences == ("output of layer 1 is whole",)
    assert (module.size, module.state[0].shape) == (1, (1, 1, 8))


@pytest.mark.parametrize("kind", [np.random.RandomState, np.random.default_rng])
def test_an_object_that_draws_is_put_back(kind):
    class Noise:
        def __init__(self):
            self.random = kind(3)

        def __call__(self, x):
            return x * torch.from_numpy(self.random.random(x.shape) < 0.6).to(x) / 0.6

    torch.manual_seed(0)
    module = Around(Noise())
    found = dp.audit(module).at("input")
    assert (found.verdict, found.per, found.frozen) == ("masked", "step", False)
    other = Noise()
    assert torch.equal(module.before(torch.ones(99)), other(torch.ones(99)))


@pytest.mark.parametrize("seed", [3, 6, 10])
def test_what_never_came_in_is_not_called_dropped(seed):
    """Of eight units, all that comes in is dropped now and then while nobody can see it, since all
    that leaves is dropped too."""
    torch.manual_seed(seed)
    audit = dp.audit(LSTM(8, 8, 2, policy="zaremba"))
    assert audit.differences == ()
    assert audit.at("hidden", layer=1).verdict == "whole"


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


def test_where_nothing_is_missing_it_may_be_otherwise_all_the_same():
    """Noise that is no mask, and masks elsewhere: nobody is to read that the first is whole."""
    torch.manual_seed(0)
    noise = lambda x: x * (1 + 0.3 * torch.randn_like(x))  # noqa: E731
    audit = dp.audit(Around(noise, nn.functional.dropout))
    assert audit.policy is None
    assert audit.at("input").verdict == "undecided"
    assert audit.at("output").verdict == "masked"
    note = "what is kept is multiplied by more than one number"
    assert audit.differences == (f"input is otherwise: {note}",)


@pytest.mark.parametrize("shape", [lambda x: x, lambda x: x[:1]], ids=["per step", "held"])
def test_noise_between_layers_is_seen_beside_masks_below(shape):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.low, self.high = nn.LSTM(9, 12), nn.LSTM(12, 12)

        def forward(self, x):
            y, _ = self.low(dropped(self, x))
            noise = 0.1 * torch.randn_like(shape(y)) * self.training
            return self.high(y * (1 + noise))[0]

    torch.manual_seed(0)
    audit = dp.audit(Two())
    assert audit.at("between", layer=1).verdict == "undecided"
    note = "what is kept is multiplied by more than one number"
    assert f"between of layer 2 is otherwise: {note}" in audit.differences


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
    assert (audit.policy, audit.nearest) in {("zaremba", "zaremba"), (None, "zaremba")}
    assert audit.differences == ()
    for found in audit.findings:
        if found.verdict == "masked":
            low, high = widened_interval(found)
            assert low <= rate <= high, str(audit)
            assert found.scaled is not False


@pytest.mark.parametrize("shape", [(1, 1, 9), (1, 9), (9,)])
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


@pytest.mark.parametrize("site", ["candidate", "state"])
@pytest.mark.parametrize("layers", [1, 2])
def test_a_mask_held_on_h_is_told_from_one_on_the_candidate_by_a_large_signal(site, layers):
    torch.manual_seed(0)
    audit = dp.audit(nn.Sequential(*(Held(site) for _ in range(layers))))
    assert audit.undecided == ()
    masked = [f for f in audit.findings if f.verdict == "masked"]
    assert [(f.site.value, f.layer) for f in masked] == [(site, n) for n in range(layers)]
    assert all(f.per == "sequence" and f.scaled for f in masked)
    assert all(widened_interval(f)[0] < 0.4 < widened_interval(f)[1] for f in masked)


def test_where_several_sites_are_the_same_noise_the_others_are_decided():
    torch.manual_seed(0)
    audit = dp.audit(Held("state", scaled=False))
    assert (audit.verdict, audit.policy) == ("undecided", None)
    why = "candidate, cell, hidden_update, state would do the same here"
    same = {f.site.value for f in audit.findings if f.note == why}
    assert same == {"candidate", "cell", "hidden_update", "state"}
    whole = {f.site.value for f in audit.findings if f.verdict == "whole"}
    assert whole == {"input", "output", "input_weight", "cell_update"}


@pytest.mark.parametrize("policy", ["state", "variational"])
def test_what_takes_packed_sequences_alone_is_given_them(policy):
    torch.manual_seed(0)
    audit = dp.audit(Packed(Loop(policy)))
    assert errors(by_hand(policy), audit) == [], str(audit)


def test_words_may_come_in_packed():
    torch.manual_seed(0)
    model = Model()
    model.lstm.batch_first = False
    audit = dp.audit(Packed(model))
    assert (audit.policy, audit.undecided) == ("zaremba", ())


@pytest.mark.parametrize(
    "end",
    [
        lambda y: nn.functional.log_softmax(y, dim=-1),
        lambda y: torch.softmax(y, -1),
        lambda y: torch.special.log_softmax(input=y, dim=-1),
        lambda y: y.softmax(-1),
        lambda y: y.flatten(0, 1).softmax(-1).unflatten(0, y.shape[:2]),
    ],
    ids=["functional", "torch", "special", "method", "view"],
)
def test_probabilities_may_be_made_in_code(end):
    torch.manual_seed(0)
    audit = dp.audit(Decoded(lambda m, y: end(m.linear(dropped(m, y)))))
    assert audit.differences == ("input is whole",)
    assert audit.undecided == ()


def test_a_softmax_that_gives_no_output_is_left_alone():
    torch.manual_seed(0)

    def end(module, y):
        weights = 9 * torch.softmax(torch.zeros(9, dtype=y.dtype), -1)
        return module.linear(dropped(module, y) * weights).log_softmax(-1)

    audit = dp.audit(Decoded(end))
    assert audit.differences == ("input is whole",)
    assert audit.undecided == ()


def test_probabilities_are_what_they_were_after_an_audit():
    module = Model(last=nn.Softmax(-1)).eval()
    tokens = torch.arange(12).reshape(2, 6)
    before = module(tokens)
    dp.audit(module)
    assert torch.equal(module(tokens), before)
    assert torch.allclose(before.sum(-1), torch.ones(2, 6))


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
