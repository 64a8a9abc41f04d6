"""Dropout that a PyTorch model has already: switched off where a policy masks, or said."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

import dropout_policies as dp

H = 16
X = torch.randn(9, 4, H, generator=torch.Generator().manual_seed(0))


class First(nn.Module):
    def forward(self, pair):
        return pair[0]


class Locked(nn.Module):
    """A dropout of the user's own, with a name for its rate that PyTorch does not use."""

    def __init__(self, rate):
        super().__init__()
        self.drop_rate = rate

    def forward(self, x):
        if not self.training or not self.drop_rate:
            return x
        keep = 1 - self.drop_rate
        return x * x.new_empty(1, *x.shape[1:]).bernoulli_(keep) / keep


class LockedDropout(Locked):
    pass


class MonteCarlo(nn.Dropout):
    """Told by the class that it derives from."""


class RateInEachCall(nn.Module):
    def forward(self, x, rate):
        return F.dropout(x, rate, self.training)


class RateInEachCallDropout(RateInEachCall):
    pass


def rates(model):
    names = ("p", "drop_rate")
    return [
        getattr(m, name)
        for m in model.modules()
        for name in names
        if isinstance(getattr(m, name, None), float)
    ]


def zeros(model, layer, calls=20):
    """The share of zeros in a layer's output in training."""
    seen = []
    hook = layer.register_forward_hook(
        lambda _, __, out: seen.append((out[0] == 0).float().mean().item())
    )
    for _ in range(calls):
        model.train()(torch.randn(9, 4, H))
    hook.remove()
    return sum(seen) / len(seen)


@pytest.mark.parametrize(
    "chain",
    [
        lambda: nn.Sequential(nn.LSTM(H, H), First(), nn.Dropout(0.2), nn.Linear(H, 2)),
        lambda: nn.Sequential(nn.LSTM(H, H), First(), nn.Tanh(), nn.Dropout(0.2), nn.LSTM(H, H)),
        lambda: nn.Sequential(nn.LSTM(H, H), nn.Sequential(First(), nn.Dropout(0.2))),
        lambda: nn.Sequential(nn.Dropout(0.2), nn.LSTM(H, H)),
        lambda: nn.Sequential(nn.AlphaDropout(0.2), nn.LSTM(H, H)),
        lambda: nn.Sequential(MonteCarlo(0.2), nn.LSTM(H, H)),
        lambda: nn.Sequential(LockedDropout(0.2), nn.LSTM(H, H)),
        lambda: nn.Sequential(nn.Sequential(nn.Dropout(0.2)), nn.GRU(H, H)),
        lambda: nn.Sequential(nn.Dropout(0.2), nn.Dropout(0.2), nn.RNN(H, H)),
        lambda: nn.ModuleList([nn.LSTM(H, H), nn.Dropout(0.2), nn.LSTM(H, H), nn.Dropout(0.2)]),
    ],
)
def test_dropout_in_a_container_is_taken_over_and_comes_back(chain):
    model = chain()
    before = rates(model)
    applied = dp.apply(model, "zaremba", 0.5)
    assert rates(model) == [0.0] * len(before)
    assert len(applied.taken_over) == len(before)
    assert str(applied).count("taken over, back on remove()") == len(before)
    applied.remove()
    assert rates(model) == before
    assert not any("rate_before_policy" in vars(m) for m in model.modules())


def test_each_is_reported_with_the_connection_that_it_was_on():
    drops = [nn.Dropout(rate) for rate in (0.1, 0.2, 0.3)]
    model = nn.Sequential(
        drops[0], nn.LSTM(H, H), First(), drops[1], nn.LSTM(H, H), First(), drops[2]
    )
    applied = dp.apply(model, "zaremba")
    assert [(one.name, one.rate, one.place) for one in applied.taken_over] == [
        ("0", "p=0.1", "the input of '1'"),
        ("3", "p=0.2", "what goes from '1' into '4'"),
        ("6", "p=0.3", "the output of '4'"),
    ]
    text = "taken over, back on remove(): 3 (torch.nn.Dropout, p=0.2), which masked what goes from "
    assert text in str(applied)


@pytest.mark.parametrize("policy", ["zoneout", "semeniuta", "weight_drop", "none"])
def test_a_policy_inside_the_layer_leaves_dropout_outside_alone(policy):
    model = nn.Sequential(nn.Dropout(0.2), nn.LSTM(H, H), First(), nn.Dropout(0.3))
    applied = dp.apply(model, policy)
    assert rates(model) == [0.2, 0.3]
    assert not applied.taken_over
    assert not applied.skipped


def test_dropout_on_a_connection_that_the_policy_leaves_whole_stays_and_is_reported():
    model = nn.Sequential(nn.Dropout(0.1), nn.LSTM(H, H, 2), First(), nn.Dropout(0.3))
    applied = dp.apply(model, dp.Policy(input=dp.drop(0.5)))
    assert rates(model) == [0.0, 0.3]
    assert "skipped 3 (torch.nn.Dropout): p=0.3; it is on the output of '1', which no" in str(
        applied
    )
    model = nn.Sequential(nn.Dropout(0.3), nn.Linear(H, H), nn.LSTM(H, H))
    assert not dp.apply(model, "zaremba").taken_over
    assert rates(model) == [0.3]


def test_dropout_may_be_kept():
    model = nn.Sequential(nn.Dropout(0.2), nn.LSTM(H, H))
    applied = dp.apply(model, "zaremba", existing="keep")
    assert rates(model) == [0.2]
    assert "p=0.2; kept, and it masks the input of '1' a second time" in str(applied)


def test_all_refusals_are_one_error_and_change_nothing():
    model = nn.Sequential(nn.Dropout(0.2), nn.LSTM(H, H), First(), nn.Dropout(0.3))
    with pytest.raises(dp.PolicyError, match=r"0 \(.*p=0.2\) masks the.*; 3 \(.*p=0.3\) masks"):
        dp.apply(model, "zaremba", existing="refuse")
    assert type(model[1]) is nn.LSTM
    assert rates(model) == [0.2, 0.3]


@pytest.mark.parametrize("existing", [None, "", "off", True, 3, ["keep"]])
def test_another_word_is_refused(existing):
    with pytest.raises(dp.PolicyError, match=r"'take over'.*'keep' or 'refuse'. Received: exist"):
        dp.apply(nn.LSTM(H, H), "zaremba", existing=existing)


class AboveAndBelow(nn.Module):
    def __init__(self, drop, body):
        super().__init__()
        self.drop, self.body, self.head = drop, body, nn.Linear(H, 2)

    def forward(self, x):
        return self.head(self.drop(self.body(self.drop(x))[0]))


@pytest.mark.parametrize("kind", [nn.Dropout, nn.Dropout1d, LockedDropout, MonteCarlo])
def test_one_module_around_a_layer_is_taken_over_where_an_example_shows_it(kind):
    model = AboveAndBelow(kind(0.4), nn.LSTM(H, H))
    text = str(dp.apply(model, "zaremba"))
    assert "skipped drop" in text
    assert "=0.4; still on, and it may mask a connection a second time; with example=" in text
    dp.remove(model)
    applied = dp.apply(model, "zaremba", 0.5, example=X)
    assert [one.place for one in applied.taken_over] == [
        "the input of 'body' and the output of 'body'"
    ]
    assert abs(zeros(model, model.body) - 0.5) < 0.05
    applied.remove()
    assert rates(model) == [0.4]


class Uses(nn.Module):
    """One dropout in several places, as `places` says."""

    def __init__(self, places):
        super().__init__()
        self.places = places
        self.drop, self.rnn = nn.Dropout(0.3), nn.LSTM(H, H)
        self.front, self.head = nn.Linear(H, H), nn.Linear(H, H)

    def forward(self, x):
        if "front" in self.places:
            x = self.drop(x)
        x = self.front(x)
        skip = x
        if "input" in self.places:
            x = self.drop(x)
        if "skip" in self.places:
            skip = x
        y, (h, _) = self.rnn(x)
        if "output" in self.places:
            y = self.drop(y)
        if "state" in self.places:
            h = self.drop(h)
        y = self.head(y) + self.head(h[-1]) + self.front(skip)
        return self.drop(y) if "head" in self.places else y


@pytest.mark.parametrize(
    ("places", "outcome"),
    [
        ({"input"}, "taken over"),
        ({"output"}, "taken over"),
        ({"input", "output"}, "taken over"),
        ({"front"}, "it is on a connection between other layers, which no mask"),
        ({"head"}, "it is on a connection between other layers, which no mask"),
        ({"state"}, "it is on the last state of 'rnn', which no mask"),
        ({"input", "skip"}, "error"),
        ({"input", "front"}, "error"),
        ({"output", "head"}, "error"),
        ({"output", "state"}, "error"),
    ],
)
def test_a_dropout_is_switched_off_only_where_all_that_it_does_is_done_by_the_policy(
    places, outcome
):
    model = Uses(places)
    if outcome == "error":
        with pytest.raises(dp.PolicyError, match=r"drop \(.*also used where the policy does not m"):
            dp.apply(model, "zaremba", example=X)
        assert type(model.rnn) is nn.LSTM
        assert "kept" in str(dp.apply(model, "zaremba", example=X, existing="keep"))
    else:
        assert outcome in str(dp.apply(model, "zaremba", example=X))
    assert rates(model) == [0.0 if outcome == "taken over" else 0.3]


class Functional(nn.Module):
    """Dropout as a function, in several forms."""

    def __init__(self, form):
        super().__init__()
        self.form, self.low, self.high = form, nn.LSTM(H, H), nn.LSTM(H, H)

    def forward(self, x):
        x = self.low(x)[0]
        if self.form == "F.dropout":
            x = F.dropout(x, 0.4, self.training)
        elif self.form == "keywords":
            x = F.dropout(input=x, p=0.4, training=self.training)
        elif self.form == "in place":
            x = F.dropout_(x, 0.4, self.training) if hasattr(F, "dropout_") else x
            x = torch.dropout_(x, 0.4, self.training) if not hasattr(F, "dropout_") else x
        elif self.form == "alpha":
            x = F.alpha_dropout(x, 0.4, self.training)
        elif self.form == "torch.dropout":
            x = torch.dropout(x, 0.4, self.training)
        elif (self.form == "in training alone" and self.training) or self.form == "always":
            x = F.dropout(x, 0.4)
        elif self.form == "never":
            x = F.dropout(x, 0.4, training=False)
        elif self.form == "rate 0":
            x = F.dropout(x, 0.0, self.training)
        elif self.form == "then a module":
            x = F.dropout(torch.tanh(x).transpose(0, 1), 0.4, self.training).transpose(0, 1)
        return self.high(x)[0]


@pytest.mark.parametrize(
    "form",
    [
        *("F.dropout", "keywords", "in place", "alpha", "torch.dropout"),
        *("in training alone", "always", "then a module"),
    ],
)
def test_a_function_on_a_masked_connection_is_an_error(form):
    model = Functional(form)
    with pytest.raises(
        dp.PolicyError, match=r"test_existing_dropout.py:\d+ .*p=0.4\) masks what g"
    ):
        dp.apply(model, "zaremba", example=X)
    assert type(model.low) is type(model.high) is nn.LSTM
    dp.apply(model, "zaremba", rate={"between": 0}, example=X).remove()
    assert "kept" in str(dp.apply(model, "zaremba", example=X, existing="keep"))


@pytest.mark.parametrize("form", ["never", "rate 0", "none"])
def test_a_function_that_is_never_on_is_none(form):
    applied = dp.apply(Functional(form), "zaremba", example=X)
    assert not applied.skipped
    assert [stack.layers for stack in applied.stacks] == [2]


def test_a_dropout_of_weights_is_none_of_a_connection():
    class Drops(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = nn.LSTM(H, H), nn.Linear(H, H)

        def forward(self, x):
            return F.linear(self.rnn(x)[0], F.dropout(self.head.weight, 0.4, self.training))

    assert not dp.apply(Drops(), "zaremba", example=X).skipped


def test_a_module_without_a_rate_cannot_be_switched_off():
    class Awd(nn.Module):
        def __init__(self):
            super().__init__()
            self.lockdrop, self.rnn = RateInEachCallDropout(), nn.LSTM(H, H)

        def forward(self, x):
            return self.rnn(self.lockdrop(x, 0.65))[0]

    model = Awd()
    assert "skipped lockdrop" in str(dp.apply(model, "locked"))
    dp.remove(model)
    with pytest.raises(
        dp.PolicyError, match=r"lockdrop \(.*rate given in each call\).*cannot be sw"
    ):
        dp.apply(model, "locked", example=X)


def test_dropout_without_an_example_is_reported_wherever_it_stands():
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.ModuleDict({"body": nn.LSTM(H, H), "off": nn.Dropout(0.0)})
            self.blocks = nn.ModuleList([nn.ModuleDict({"d": LockedDropout(0.2)})])
            self.front = nn.Sequential(nn.Linear(H, H), nn.Dropout(0.1))
            self.inner = nn.Sequential(nn.Linear(H, H), nn.Dropout(0.5), nn.Linear(H, H))

    skipped = dp.apply(Deep(), "zaremba").skipped
    assert {s.name: s.why.partition(";")[0] for s in skipped} == {
        "blocks.0.d": "drop_rate=0.2",
        "front.1": "p=0.1",
        "inner.1": "p=0.5",
    }
    whys = {s.name: s.why.partition("; ")[2] for s in skipped}
    assert "between other layers" in whys["inner.1"]
    assert "with example= apply sees" in whys["front.1"]


def test_remove_restores_copies_and_unpickled_models_too():
    model = AboveAndBelow(nn.Dropout(0.4), nn.LSTM(H, H))
    dp.apply(model, "zaremba", example=X)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert rates(other) == [0.0]
        dp.remove(other)
        assert rates(other) == [0.4]
        assert type(other.body) is nn.LSTM
    assert rates(model) == [0.0]


def test_a_schedule_or_two_policies_decide_what_is_masked():
    drop = nn.Dropout(0.2)
    model = nn.Sequential(nn.LSTM(H, H), First(), drop, nn.LSTM(H, H))
    with dp.apply(model, {"0": dp.zaremba(0.5), "3": "zoneout"}) as applied:
        assert not applied.taken_over
    with dp.apply(model, {"0": "zoneout", "3": dp.zaremba(0.5)}) as applied:
        assert [one.name for one in applied.taken_over] == ["2"]
    with dp.apply(model, "zaremba", only="0") as applied:
        assert [one.place for one in applied.taken_over] == ["the output of '0'"]
    assert drop.p == 0.2


class Packed(nn.Module):
    """Words of several lengths, as taggers have them: dropout, packing, LSTM, padding, dropout."""

    def __init__(self):
        super().__init__()
        self.drop, self.rnn, self.head = nn.Dropout(0.3), nn.LSTM(H, H), nn.Linear(H, 2)

    def forward(self, x, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(self.drop(x), lengths, enforce_sorted=False)
        y, _ = nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0])
        return self.head(self.drop(y))


def test_a_dropout_before_packing_is_taken_over():
    model = Packed()
    applied = dp.apply(model, "zaremba", 0.5, example=(X, torch.tensor([7, 9, 2, 5])))
    assert model.drop.p == 0.0, applied
    use = dp.wiring(Packed(), example=(X, torch.tensor([9, 9, 2, 5]))).dropouts[0]
    assert not use.goes_elsewhere


@pytest.mark.parametrize("name", ["p", "rate", "dropprob", "dropout_rate", "drop_prob"])
def test_a_rate_is_found_under_the_names_that_people_give_it(name):
    class OwnDropout(nn.Module):
        def forward(self, x):
            return F.dropout(x, getattr(self, name), self.training)

    drop = OwnDropout()
    setattr(drop, name, 0.3)
    model = nn.Sequential(drop, nn.LSTM(H, H))
    with dp.apply(model, "zaremba", 0.5, example=X):
        assert getattr(drop, name) == 0.0
    assert getattr(drop, name) == 0.3


def test_a_dropout_that_the_example_does_not_run_is_reported_as_such():
    model = AboveAndBelow(nn.Dropout(0.4), nn.LSTM(H, H))
    model.unused = nn.Dropout(0.2)
    text = str(dp.apply(model, "zaremba", example=X))
    assert (
        "skipped unused (torch.nn.Dropout): p=0.2; still on; it did not run on the example" in text
    )


class ByHand(nn.Module):
    """Cells in a loop, with a dropout between them."""

    def __init__(self):
        super().__init__()
        self.low, self.high, self.drop = nn.GRUCell(H, H), nn.GRUCell(H, H), nn.Dropout(0.3)

    def forward(self, x):
        h, g = x.new_zeros(2, x.shape[1], H)
        for step in x:
            h = self.low(step, h)
            g = self.high(self.drop(h), g)
        return g


def test_a_dropout_in_a_loop_is_one_line():
    text = str(dp.wiring(ByHand(), example=X))
    assert text.count("dropout drop") == 1
    assert dp.wiring(ByHand(), example=X).svg().count("drop p=0.3") == 1


class StepByStep(nn.Module):
    """A cell whose h is dropped on its way to the next step, by a module or by a function."""

    def __init__(self, drop=None):
        super().__init__()
        self.cell, self.drop = nn.GRUCell(H, H), drop

    def forward(self, x):
        h, out = None, []
        for step in x:
            h = self.cell(step, h)
            out.append(h)
            h = self.drop(h) if self.drop else F.dropout(h, 0.1, self.training)
        return torch.stack(out)


def test_dropout_on_the_state_of_a_loop_is_seen():
    policy = dp.Policy(hidden=dp.drop(0.5))
    model = StepByStep(nn.Dropout(0.1))
    applied = dp.apply(model, policy, example=X)
    assert [one.place for one in applied.taken_over] == ["the state of 'cell'"]
    applied.remove()
    assert rates(model) == [0.1]
    kept = str(dp.apply(model, dp.Policy(input=dp.drop(0.5)), example=X))
    assert "it is on the state that 'cell' starts from, which no mask falls on" in kept
    with pytest.raises(
        dp.PolicyError, match=r"p=0.1\) masks the state of 'cell' and cannot be swi"
    ):
        dp.apply(StepByStep(), policy, example=X)
