"""Masks that a PyTorch model's code draws itself: seen, and never doubled without a word."""

# ruff: noqa: ARG001, ARG005 - functions of one kind have one signature

import dropout_policies_torch as dpt
import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from dropout_policies_torch.model_wiring import own_masks
from torch import nn
from torch.autograd import Variable

import dropout_policies as dp

H = 16
KEEP = 0.6
X = torch.randn(9, 4, H, generator=torch.Generator().manual_seed(0))


class Two(nn.Module):
    """Two layers, and what `between` does in training to what goes from one to the other."""

    def __init__(self, between, place="between"):
        super().__init__()
        self.between, self.place = between, place
        self.low, self.high = nn.LSTM(H, H), nn.LSTM(H, H)
        self.front, self.head = nn.Linear(H, H), nn.Linear(H, H)
        self.scale = nn.Parameter(torch.ones(H))
        self.register_buffer("keep", torch.full((H,), KEEP))

    def at(self, place, x):
        return self.between(self, x) if self.training and place == self.place else x

    def forward(self, x):
        x = self.at("front", x)
        x = self.at("input", self.front(x))
        x = self.at("between", self.low(x)[0])
        y, (h, _) = self.high(x)
        y, h = self.at("output", y), self.at("state", h)
        return self.at("head", self.head(y) + self.head(h[-1]))


def in_place(m, x):
    x = x.clone()
    x.mul_(torch.empty_like(x).bernoulli_(KEEP).div_(KEEP))
    return x


def augmented(m, x):
    x = x.clone()
    x *= torch.rand(x.shape) < KEEP
    return x


def set_to_0(m, x):
    x = x.clone()
    x[torch.rand_like(x) > KEEP] = 0
    return x


def fill_in_place(m, x):
    x = x.clone()
    x.masked_fill_(torch.rand_like(x) > KEEP, 0.0)
    return x


def steps(m, x):
    mask = torch.empty(x.shape[1:]).bernoulli_(KEEP) / KEEP
    return torch.stack([step * mask for step in x])


def locked(m, x, dropout=0.4):
    """As AWD-LSTM has it."""
    mask = x.data.new(1, x.size(1), x.size(2)).bernoulli_(1 - dropout)
    mask = Variable(mask, requires_grad=False).div_(1 - dropout)
    return mask.expand_as(x) * x


def stochastic_depth(m, x):
    return x * (KEEP + torch.rand(1, x.shape[1], 1)).floor_() / KEEP


def padded(m, x):
    """With padding, which is no noise."""
    lengths = torch.tensor([9, 7, 9, 5])
    there = torch.arange(len(x))[:, None] < lengths
    return x * ((torch.rand_like(x) < KEEP) & there[..., None])


class Locked(nn.Module):
    """A class of the user's own whose name does not say dropout."""

    def forward(self, x):
        return locked(None, x)


class Mask(nn.Module):
    """A module that only makes a mask."""

    def forward(self, x):
        return (torch.rand_like(x) < KEEP) / KEEP


bernoulli = torch.distributions.Bernoulli

MASKS = {
    "bernoulli": lambda m, x: x * torch.bernoulli(torch.full_like(x, KEEP)) / KEEP,
    "from the left": lambda m, x: torch.bernoulli(torch.full_like(x, KEEP)).div(KEEP) * x,
    "with a rate": lambda m, x: x * torch.bernoulli(torch.ones_like(x), KEEP),
    "of a buffer": lambda m, x: x * torch.bernoulli(m.keep.expand_as(x)) / m.keep,
    "bernoulli_": lambda m, x: x * x.new_empty(1, *x.shape[1:]).bernoulli_(KEEP) / KEEP,
    "bernoulli_ with p": lambda m, x: x * torch.ones(x.shape).bernoulli_(p=KEEP),
    "old constructor": lambda m, x: x * torch.FloatTensor(*x.shape).bernoulli_(KEEP),
    "locked": locked,
    "a module": lambda m, x: Locked()(x),
    "a module that makes it": lambda m, x: Mask()(x) * x,
    "rand_like": lambda m, x: (torch.rand_like(x) > 1 - KEEP).float() * x / KEEP,
    "rand": lambda m, x: torch.mul(x, torch.rand(x.shape).lt(KEEP)),
    "rand itself": lambda m, x: x * torch.rand_like(x),
    "negated": lambda m, x: x * ~(torch.rand_like(x) < 1 - KEEP),
    "the other way round": lambda m, x: x * (1 - torch.bernoulli(torch.full_like(x, 1 - KEEP))),
    "masked_fill": lambda m, x: x.masked_fill(torch.rand(x.shape) > KEEP, 0),
    "masked_fill_": fill_in_place,
    "where": lambda m, x: torch.where(torch.rand_like(x) > KEEP, 0, x),
    "where, a method": lambda m, x: x.where(torch.rand_like(x) < KEEP, torch.zeros(1)),
    "distribution": lambda m, x: x * bernoulli(KEEP).sample(x.shape),
    "distribution of many": lambda m, x: x * bernoulli(torch.full_like(x, KEEP)).sample(),
    "logits": lambda m, x: x * bernoulli(logits=torch.zeros(x.shape)).sample(),
    "uniform_": lambda m, x: x * torch.empty_like(x).uniform_().ge(1 - KEEP),
    "in place": in_place,
    "augmented": augmented,
    "by index": set_to_0,
    "steps": steps,
    "gaussian": lambda m, x: x * (1 + 0.5 * torch.randn_like(x)),
    "gaussian, drawn around 1": lambda m, x: x * torch.normal(torch.ones_like(x), 0.5),
    "normal_": lambda m, x: x * torch.empty_like(x).normal_(1, 0.5),
    "stochastic depth": stochastic_depth,
    "with padding": padded,
    "what is dropped is subtracted": lambda m, x: x - x * (torch.rand_like(x) > KEEP),
    "two masks": lambda m, x: x * (torch.rand_like(x) < 0.9) * (torch.rand(x.shape[1:]) < 0.9),
    "a product of masks": lambda m, x: (
        x * ((torch.rand_like(x) < 0.9) * (torch.rand(x.shape[1:]) < 0.9))
    ),
    "F.dropout of ones": lambda m, x: x * F.dropout(torch.ones_like(x), 0.4),
    "F.dropout in place": lambda m, x: [x, F.dropout(x, 0.4, inplace=True)][0],
    "through an activation": lambda m, x: torch.tanh(x * torch.rand_like(x).gt(0.4)),
    "beside others": lambda m, x: torch.cat(
        [x[..., :8] * torch.rand_like(x[..., :8]).gt(0.4), x[..., 8:]], -1
    ),
}

NO_MASKS = {
    "added": lambda m, x: x + torch.randn_like(x),
    "added, uniform": lambda m, x: x + 0.1 * torch.rand_like(x),
    "added, of a weight's size": lambda m, x: x + torch.randn_like(x) * m.scale,
    "added, of the value's size": lambda m, x: x + torch.randn_like(x) * x.std(),
    "added, uniform of that size": lambda m, x: x + (torch.rand_like(x) - 0.5) * x.std(),
    "added, a variational code": lambda m, x: x + torch.randn_like(x) * torch.exp(0.5 * x),
    "added, from -1 to 1": lambda m, x: x + torch.empty_like(x).uniform_(-1, 1) * x.abs(),
    "added, from -1 to 1 too": lambda m, x: x + (2 * torch.rand_like(x) - 1) * x.abs(),
    "rate 0": lambda m, x: x * torch.empty_like(x).bernoulli_(1 - 0.0) / (1 - 0.0),
    "rate 0 of many": lambda m, x: x * torch.bernoulli(torch.ones_like(x)),
    "rate 0, compared": lambda m, x: (torch.rand_like(x) > 0.0) * x,
    "rate 0, compared from the left": lambda m, x: (torch.rand_like(x) <= 1.0).float() * x,
    "rate 0, filled": lambda m, x: x.masked_fill(torch.rand_like(x) < 0, 0),
    "rate 0, stochastic depth": lambda m, x: x * (1.0 + torch.rand(1, x.shape[1], 1)).floor_(),
    "padding": lambda m, x: x * (torch.arange(9)[:, None, None] < 7),
    "constants": lambda m, x: x * torch.full_like(x, 0.5) * m.keep,
    "attention": lambda m, x: torch.softmax(x @ x.mT, -1) @ x,
    "a weight": lambda m, x: F.linear(x, m.head.weight * torch.rand_like(m.head.weight).gt(0.4)),
    "shuffled": lambda m, x: x[:, torch.randperm(x.shape[1])],
    "values decide": lambda m, x: x * torch.bernoulli(torch.sigmoid(x)),
    "a draw of no use": lambda m, x: [x, torch.rand_like(x) * 2][0],
}


@pytest.mark.parametrize("between", MASKS.values(), ids=MASKS)
def test_a_mask_on_a_masked_connection_is_an_error(between):
    model = Two(between)
    with pytest.raises(dp.PolicyError, match="masks what goes from 'low' into 'high'") as caught:
        dp.apply(model, "zaremba", example=X)
    text = str(caught.value)
    assert "test_own_masks.py:" in text
    assert "delete it from the model's code or set its rate to 0 there" in text
    assert type(model.low) is type(model.high) is nn.LSTM
    dp.apply(model, "zaremba", rate={"between": 0}, example=X).remove()
    kept = str(dp.apply(model, "zaremba", example=X, existing="keep"))
    assert "kept, and it masks what goes from 'low' into 'high' a second time" in kept


@pytest.mark.parametrize("between", NO_MASKS.values(), ids=NO_MASKS)
@pytest.mark.parametrize("place", ["between", "input", "output"])
def test_what_is_no_mask_is_none(between, place):
    applied = dp.apply(Two(between, place), "zaremba", example=X)
    assert not applied.skipped


@pytest.mark.parametrize("name", ["bernoulli", "locked", "masked_fill", "in place", "by index"])
def test_every_place_is_seen_as_that_of_a_function_is(name):
    masked = {
        "input": "the input of 'low'",
        "output": "the output of 'high'",
        "between": "what goes from 'low' into 'high'",
    }
    left = {
        "front": "it is on a connection between other layers, which no mask falls on",
        "head": "it is on a connection between other layers, which no mask falls on",
        "state": "it is on the last state of 'high', which no mask falls on",
    }
    for place, words in masked.items():
        with pytest.raises(dp.PolicyError, match=rf"drawn in code\) masks {words} and cannot be"):
            dp.apply(Two(MASKS[name], place), "zaremba", example=X)
    for place, words in left.items():
        assert words in str(dp.apply(Two(MASKS[name], place), "zaremba", example=X))
    for policy in ("zoneout", "semeniuta", "weight_drop"):
        dp.apply(Two(MASKS[name]), policy, example=X)


def test_a_mask_on_the_models_own_input_is_seen():
    class Body(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.GRU(H, H)

        def forward(self, x):
            return self.rnn(x * torch.empty_like(x).bernoulli_(KEEP) / KEEP)[0]

    model = Body()
    for example in (X, lambda: model(x=X)):
        with pytest.raises(dp.PolicyError, match=r"Tensor.bernoulli_, .* masks the input of 'rnn'"):
            dp.apply(model, "zaremba", example=example)


def test_the_wiring_shows_it_and_where():
    wiring = dp.wiring(Two(MASKS["rand_like"]), example=X)
    (use,) = wiring.dropouts
    assert use.dropout.kind == "a mask by torch.rand_like"
    assert not use.dropout.can_switch_off
    assert "drawn in code): from the output of low to the input of high" in str(wiring)
    assert "drawn in code" in wiring.svg()


def test_a_line_in_a_loop_is_one_dropout():
    with pytest.raises(dp.PolicyError) as caught:
        dp.apply(Two(MASKS["steps"]), "zaremba", example=X)
    assert str(caught.value).count("test_own_masks.py") == 1


def test_in_evaluation_too():
    class Sampled(Two):
        def at(self, place, x):
            return self.between(self, x) if place == self.place else x

    with pytest.raises(dp.PolicyError, match="masks what goes from 'low' into 'high'") as caught:
        dp.apply(Sampled(MASKS["locked"]), "zaremba", example=X)
    assert str(caught.value).count("test_own_masks.py") == 1


def test_a_class_that_is_a_dropout_is_that_alone():
    class LockedDropout(Locked):
        def __init__(self):
            super().__init__()
            self.p = 0.4

        def forward(self, x):
            return locked(None, x, self.p) if self.p else x

    drop = LockedDropout()
    model = nn.Sequential(drop, nn.LSTM(H, H))
    applied = dp.apply(model, "zaremba", example=X)
    assert [(one.name, one.rate) for one in applied.taken_over] == [("0", "p=0.4")]
    assert not applied.skipped
    assert drop.p == 0.0


@pytest.mark.parametrize("place", ["input", "between", "output"])
def test_a_mask_that_a_dropout_module_makes_of_ones_is_taken_over(place):
    class Ones(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop = nn.Dropout(0.4)

        def forward(self, x):
            return x * self.drop(torch.ones_like(x[:1]))

    ones = Ones()
    model = Two(lambda m, x: ones(x), place)
    model.ones = ones
    applied = dp.apply(model, "zaremba", example=X)
    assert [one.name for one in applied.taken_over] == ["ones.drop"]
    assert ones.drop.p == 0.0


class Started(nn.Module):
    """A layer whose first state the code draws."""

    def __init__(self, state):
        super().__init__()
        self.cell, self.state = nn.GRUCell(H, H), state
        self.scale = nn.Parameter(torch.ones(H))

    def forward(self, x):
        h, out = self.state(self, x[0]), []
        for step in x:
            h = self.cell(step, h)
            out.append(h)
        return torch.stack(out)


@pytest.mark.parametrize(
    "state",
    [
        lambda m, x: torch.rand(len(x), H),
        lambda m, x: torch.randn_like(x) * 0.1,
        lambda m, x: torch.rand(len(x), H) * torch.ones(H),
        lambda m, x: torch.rand(len(x), H) * m.scale,
        lambda m, x: nn.init.normal_(torch.empty(len(x), H)),
    ],
)
def test_a_first_state_of_noise_is_no_mask(state):
    applied = dp.apply(Started(state), dp.Policy(hidden=dp.drop(0.5)), example=X)
    assert not applied.skipped


def by_where(new, old):
    return torch.where(torch.rand_like(new) < 0.1, old, new)


def by_products(new, old):
    mask = torch.empty_like(new).bernoulli_(0.1)
    return mask * old + (1 - mask) * new


class OwnZoneout(nn.Module):
    def __init__(self, choose):
        super().__init__()
        self.choose = choose
        self.cell, self.top, self.head = nn.GRUCell(H, H), nn.LSTM(H, H), nn.Linear(H, 2)

    def forward(self, x):
        h, out = x.new_zeros(x.shape[1:]), []
        for step in x:
            new = self.cell(step, h)
            h = self.choose(new, h) if self.training else new
            out.append(h)
        return self.head(self.top(torch.stack(out))[0])


@pytest.mark.parametrize("choose", [by_where, by_products])
def test_a_choice_between_two_states_is_zoneout_and_no_dropout_of_an_output(choose):
    model = OwnZoneout(choose)
    text = str(dp.apply(model, "zaremba", only="top", example=X))
    assert "it is on the state that 'cell' starts from, which no mask falls on" in text
    dp.remove(model)
    with pytest.raises(dp.PolicyError, match=r"drawn in code\) masks the state of 'cell'"):
        dp.apply(model, "zoneout", example=X)


@pytest.mark.parametrize("choose", [by_where, by_products])
def test_scheduled_sampling_is_no_mask(choose):
    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.head = nn.GRUCell(H, H), nn.Linear(H, H)

        def forward(self, x):
            h, y, out = None, x[0], []
            for step in x:
                h = self.cell(choose(step, y), h)
                y = self.head(h)
                out.append(y)
            return torch.stack(out)

    policy = dp.Policy(input=dp.drop(0.5), hidden=dp.drop(0.5))
    assert not dp.apply(Decoder(), policy, example=X).skipped


def test_one_mask_on_two_values_is_a_mask_of_both():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.low, self.high = nn.LSTM(H, H), nn.LSTM(H, H)

        def forward(self, x):
            mask = torch.rand_like(x) < KEEP
            return self.high(self.low(x)[0] * mask + x * mask)[0]

    with pytest.raises(dp.PolicyError, match="masks what goes from 'low' into 'high'"):
        dp.apply(Sum(), "zaremba", example=X)


def test_masks_of_a_policy_are_no_masks_of_the_code():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.words = dpt.Embedding(11, H, policy=dp.Policy(embedding=dp.drop(0.3, per="call")))
            self.rnn = dpt.LSTM(H, H, policy="zaremba")

        def forward(self, tokens):
            return self.rnn(self.words(tokens))[0]

    tokens = torch.randint(11, (9, 4))
    assert not dp.wiring(Words(), example=tokens).dropouts


def test_what_numpy_draws_is_not_seen():
    """As the page says."""
    rng = np.random.default_rng(0)
    model = Two(lambda m, x: x * torch.from_numpy(rng.binomial(1, KEEP, x.shape)).float())
    assert not dp.apply(model, "zaremba", example=X).skipped


def test_an_audit_says_that_it_did_not_measure_it():
    text = str(dp.audit(Two(MASKS["bernoulli"]), example=X))
    assert "a mask of the code's own; it was not measured there" in text


@pytest.mark.parametrize("name", ["bernoulli", "where", "by index", "distribution"])
def test_without_the_marking_these_tests_fail(name, monkeypatch):
    monkeypatch.setattr(own_masks, "DRAWS", {})
    assert not dp.apply(Two(MASKS[name]), "zaremba", example=X).skipped


def test_without_the_ranges_these_tests_fail(monkeypatch):
    monkeypatch.setattr(own_masks, "_range_after", lambda *_: own_masks.EITHER)
    for name in ("rate 0, compared", "added, from -1 to 1 too"):
        with pytest.raises(dp.PolicyError):
            dp.apply(Two(NO_MASKS[name]), "zaremba", example=X)
