"""apply and remove on existing modules: what is found, what is refused, and the way back."""

import copy

import pytest
import torch
from dropout_policies_torch import LSTM, LSTMCell
from torch import nn

import dropout_policies as dp

D = 6


class Model(nn.Module):
    """An embedding, a recurrent part and a head."""

    def __init__(self, recurrent):
        super().__init__()
        self.embedding = nn.Embedding(10, D)
        self.rnn = recurrent
        self.head = nn.Linear(D, 10)

    def forward(self, tokens):
        x = self.embedding(tokens)
        for layer in self.rnn if isinstance(self.rnn, nn.ModuleList) else [self.rnn]:
            x = layer(x)[0]
        return self.head(x)


class First(nn.Module):
    def forward(self, pair):
        return pair[0]


class Pair(nn.Module):
    """Two layers whose wiring only `forward` knows."""

    def __init__(self, between=D, top=D):
        super().__init__()
        self.low = nn.LSTM(D, between)
        self.high = nn.LSTM(D, top)

    def forward(self, x):
        return self.high(self.low(x)[0])[0]


TOKENS = torch.randint(0, 10, (5, 3), generator=torch.Generator().manual_seed(0))


def stacks(applied):
    return [(stack.layers, stack.masked) for stack in applied.stacks]


def state_of(model):
    """Everything that must come back: classes, attributes, parameters."""
    return {
        name: (type(module), {k: v for k, v in vars(module).items() if not k.startswith("_")})
        for name, module in model.named_modules()
    }


@pytest.mark.parametrize(
    "recurrent",
    [
        lambda: nn.LSTM(D, D, 2, dropout=0.3),
        lambda: nn.LSTM(D, D, 1),
        lambda: nn.ModuleList([nn.LSTM(D, D), nn.LSTM(D, D, 2, dropout=0.1)]),
    ],
)
@pytest.mark.parametrize("seed", [None, 5])
def test_apply_masks_in_training_and_remove_brings_back_everything(recurrent, seed):
    model = Model(recurrent())
    parameters = dict(model.named_parameters())
    before, keys = state_of(model), list(model.state_dict())
    model.eval()
    expected = model(TOKENS)

    applied = dp.apply(model, "zaremba", rate=0.5, seed=seed)
    assert torch.equal(model(TOKENS), expected)
    assert list(model.state_dict()) == keys
    assert all(p is parameters[name] for name, p in model.named_parameters())
    model.train()
    assert not torch.equal(model(TOKENS), model(TOKENS))

    applied.remove()
    assert state_of(model) == before | {
        name: (kind, attributes | {"training": True}) for name, (kind, attributes) in before.items()
    }
    torch.manual_seed(1)
    first = model(TOKENS)
    torch.manual_seed(1)
    assert torch.equal(model(TOKENS), first)
    model.eval()
    assert torch.equal(model(TOKENS), expected)


def test_what_apply_does_equals_the_drop_in_layer():
    model = Model(nn.LSTM(D, D, 2))
    drop_in = LSTM(D, D, 2, policy="naive", seed=3)
    drop_in.load_state_dict(model.rnn.state_dict())
    dp.apply(model, "naive", seed=3)
    x = torch.randn(4, 2, D)
    assert torch.equal(model.rnn(x)[0], drop_in(x)[0])


def test_the_context_manager_removes_at_its_end():
    model = Model(nn.LSTM(D, D))
    with dp.apply(model, "zaremba") as applied:
        assert isinstance(model.rnn, LSTM)
        assert applied.active
    assert type(model.rnn) is nn.LSTM
    applied.remove()
    assert not applied.active
    dp.apply(model, "naive").remove()


def test_native_dropout_is_taken_over_reported_and_comes_back():
    model = Model(nn.LSTM(D, D, 2, dropout=0.3))
    applied = dp.apply(model, "zaremba")
    assert model.rnn.dropout == 0.0
    assert "taken over, back on remove(): dropout=0.3" in str(applied)
    applied.remove()
    assert model.rnn.dropout == 0.3


def test_a_module_list_is_one_stack_with_l_plus_one_masks():
    model = Model(nn.ModuleList([nn.LSTM(D, 4), nn.LSTM(4, D, 2)]))
    applied = dp.apply(model, "zaremba", seed=1)
    assert stacks(applied) == [(3, 4)]
    assert "stack 1: L = 3, 4 of 4 vertical connections masked" in str(applied)


def test_a_module_list_whose_widths_do_not_fit_is_stacks_of_its_own():
    applied = dp.apply(nn.ModuleList([nn.LSTM(D, 4), nn.LSTM(D, D)]), "zaremba")
    assert stacks(applied) == [(1, 2), (1, 2)]
    assert [t.placement.layer for t in applied.touched] == [0, 1]


def test_a_sequential_joins_layers_through_modules_without_weights():
    chain = nn.Sequential(nn.LSTM(D, D), First(), nn.LSTM(D, D), First(), nn.Linear(D, D))
    assert stacks(dp.apply(chain, "zaremba")) == [(2, 3)]
    broken = nn.Sequential(nn.LSTM(D, D), First(), nn.Linear(D, D), nn.LSTM(D, D))
    assert stacks(dp.apply(broken, "zaremba")) == [(1, 2), (1, 2)]


def test_a_chain_in_place_equals_one_layer_of_the_same_depth():
    whole = LSTM(D, D, 2, policy="zaremba", seed=2)
    chain = nn.ModuleList([nn.LSTM(D, D), nn.LSTM(D, D)])
    for k, part in enumerate(chain):
        part.load_state_dict(
            {n: getattr(whole, n.replace("l0", f"l{k}")) for n in part.state_dict()}
        )
    dp.apply(chain, "zaremba", seed=2)
    x = torch.randn(5, 3, D)
    torch.testing.assert_close(chain[1](chain[0](x)[0])[0], whole(x)[0])


def test_unseen_wiring_must_be_said():
    model = Pair()
    before = state_of(model)
    with pytest.raises(dp.PolicyError, match=r"stacks=\[\['low', 'high'\]\]") as error:
        dp.apply(model, "zaremba")
    assert "stacks=[['low'], ['high']]" in str(error.value)
    assert state_of(model) == before
    assert stacks(dp.apply(Pair(), "zaremba", stacks=[["low", "high"]])) == [(2, 3)]
    assert stacks(dp.apply(Pair(), "zaremba", stacks=[["low"], ["high"]])) == [(1, 2), (1, 2)]
    assert stacks(dp.apply(Pair(between=4, top=5), "zaremba")) == [(1, 2), (1, 2)]
    with pytest.raises(dp.PolicyError, match="'low' may feed 'high'"):
        dp.apply(Pair(between=4), "zaremba")  # widened, which is as likely as 'high' into 'low'


class Dilated(nn.Module):
    """A module of several layers and no other weights, as dilated RNNs are built."""

    def __init__(self):
        super().__init__()
        self.cells = nn.Sequential(nn.LSTM(D, D), nn.LSTM(D, D))

    def forward(self, x):
        for cell in self.cells:
            x, _ = cell(x)
        return x


def test_modules_of_several_layers_in_a_container_are_asked_about():
    model = nn.Sequential(Dilated(), Dilated())
    with pytest.raises(dp.PolicyError, match=r"'0\.cells\.1' may feed '1\.cells\.0'"):
        dp.apply(model, "zaremba")
    assert stacks(dp.apply(model, "zaremba", example=torch.randn(5, 3, D))) == [(4, 5)]


@pytest.mark.parametrize("said", [[["low", "middle"]], [["low", "high", "low"]]])
def test_stacks_that_do_not_exist_are_refused(said):
    with pytest.raises(dp.PolicyError, match=r"no such recurrent layer|twice"):
        dp.apply(Pair(), "zaremba", stacks=said)


def test_a_second_policy_is_refused_and_changes_nothing():
    model = nn.ModuleList([nn.LSTM(D, D), LSTM(D, D, policy="zaremba")])
    before = state_of(model)
    with pytest.raises(dp.PolicyError, match=r"1 .*under policy 'zaremba' already"):
        dp.apply(model, "naive")
    assert state_of(model) == before


class Reimplemented(nn.LSTM):
    def forward(self, x, hx=None):
        return x, hx


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Linear(2, 2), "no recurrent layer"),
        (
            nn.Sequential(Reimplemented(2, 2)),
            r"no recurrent layer.*0 \(.*Reimplemented\): its forw",
        ),
        ("model", "Received: model='model'; load the model first"),
        (None, "one of these frameworks: keras, torch"),
    ],
)
def test_a_model_without_recurrent_layers_is_refused(model, message):
    with pytest.raises(dp.PolicyError, match=message):
        dp.apply(model, "zaremba")


def test_a_site_that_a_layer_cannot_have_is_refused_and_changes_nothing():
    model = nn.ModuleList([nn.LSTM(D, D), nn.LSTMCell(D, D)])
    before = state_of(model)
    with pytest.raises(dp.PolicyError, match=r"1 \(torch.nn.LSTMCell.*no site 'output'"):
        dp.apply(model, "zaremba")
    with pytest.raises(dp.PolicyError, match=r"1 \(torch.nn.LSTMCell.*no site 'recurrent_weight'"):
        dp.apply(model, "weight_drop")
    with pytest.raises(dp.PolicyError, match=r"1 \(torch.nn.GRU\) has no site 'cell_update'"):
        dp.apply(nn.ModuleList([*model, nn.GRU(D, D)])[::2], dp.zoneout())
    assert state_of(model) == before


def test_a_cell_takes_the_sites_it_has():
    model = nn.ModuleDict({"cell": nn.LSTMCell(D, D)})
    with dp.apply(model, dp.Policy(input=dp.drop(0.9), hidden=dp.drop(0.5)), seed=1):
        assert isinstance(model["cell"], LSTMCell)
        x = torch.ones(3, D)
        assert not torch.equal(model["cell"](x)[0], model["cell"](x)[0])
    assert type(model["cell"]) is nn.LSTMCell


def test_what_cannot_be_touched_is_skipped_with_the_reason():
    model = nn.ModuleDict({"lstm": nn.LSTM(D, D), "own": Reimplemented(D, D)})
    applied = dp.apply(model, "zaremba")
    assert [s.name for s in applied.skipped] == ["own"]
    assert type(model["own"]) is Reimplemented
    assert "its forward does not call super().forward()" in str(applied)


def test_a_shared_layer_is_touched_once():
    lstm = nn.LSTM(D, D)
    model = nn.ModuleDict({"a": lstm, "b": lstm})
    assert len(dp.apply(model, "zaremba").touched) == 1


def test_a_bare_layer_is_a_model_too():
    lstm = nn.LSTM(D, D)
    applied = dp.apply(lstm, dp.zaremba(0.5))
    assert [t.name for t in applied.touched] == ["model"]
    assert isinstance(lstm, LSTM)


def test_hooks_and_copies_live_on():
    model = Model(nn.LSTM(D, D))
    seen = []
    model.rnn.register_forward_hook(lambda *_: seen.append(1))
    dp.apply(model, "zaremba", seed=1)
    other = copy.deepcopy(model)
    assert torch.equal(model(TOKENS), other(TOKENS))
    assert len(seen) == 2


def test_the_report_reads_well():
    model = Model(nn.LSTM(D, D, 2, dropout=0.25))
    assert str(dp.apply(model, "zaremba", rate=0.5)) == (
        "policy zaremba: 1 recurrent layer in 1 stack; evaluation: identity\n"
        "  stack 1: L = 2, 3 of 3 vertical connections masked\n"
        "    rnn (torch.nn.LSTM x2): input, between, output 0.5 per step\n"
        "      taken over, back on remove(): dropout=0.25"
    )


class Block(nn.Module):
    """A layer in a module with a `forward` of its own, and perhaps other weights."""

    def __init__(self, *others):
        super().__init__()
        self.rnn, self.others = nn.LSTM(D, D), nn.ModuleList(others)


class Parts(nn.Module):
    """Attributes in the order given; only `forward`, which is not there, would know their use."""

    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)


def test_sequentials_in_a_sequential_are_one_line():
    nested = [nn.Sequential(nn.LSTM(D, D), First()), nn.Sequential(nn.LSTM(D, D), First())]
    assert stacks(dp.apply(nn.Sequential(*nested), "zaremba")) == [(2, 3)]


@pytest.mark.parametrize(
    ("model", "first", "second"),
    [
        (lambda: nn.ModuleList([Block(), Block()]), "0.rnn", "1.rnn"),
        (lambda: nn.ModuleList([nn.LSTM(D, D), Block()]), "0", "1.rnn"),
        (
            lambda: Parts(first=nn.LSTM(3, D), rest=nn.ModuleList([nn.LSTM(D, 4)])),
            "first",
            "rest.0",
        ),
        (lambda: Parts(high=nn.LSTM(D, 4), low=nn.LSTM(3, D)), "low", "high"),
        (lambda: Parts(a=nn.LSTM(3, 4), other=nn.LSTM(9, 9), b=nn.LSTM(4, D)), "a", "b"),
    ],
)
def test_layers_that_may_feed_one_another_unseen_must_be_said(model, first, second):
    with pytest.raises(dp.PolicyError, match=f"'{first}' may feed '{second}'"):
        dp.apply(model(), "zaremba")
    assert (2, 3) in stacks(dp.apply(model(), "zaremba", stacks=[[first, second]]))


def test_weights_between_two_layers_end_a_stack():
    blocks = nn.ModuleList([Block(nn.LayerNorm(D)), Block(nn.LayerNorm(D))])
    assert stacks(dp.apply(blocks, "zaremba")) == [(1, 2), (1, 2)]
    model = nn.Sequential(nn.LSTM(D, D), First(), nn.Linear(D, D), nn.LSTM(D, D))
    assert stacks(dp.apply(model, "zaremba")) == [(1, 2), (1, 2)]


def test_tied_layers_are_masked_in_one_way_or_refused():
    a, b, c = (nn.LSTM(D, D) for _ in range(3))
    for tied in (nn.ModuleList([a, a]), nn.ModuleList([a, b, a]), nn.ModuleList([c, a, a])):
        with pytest.raises(dp.PolicyError, match="is in two places"):
            dp.apply(tied, "zaremba")
        assert all(type(module) is nn.LSTM for module in tied)
    two = nn.ModuleDict({"x": nn.ModuleList([a, c]), "y": nn.ModuleList([b, c])})
    with pytest.raises(dp.PolicyError, match="may feed"):
        dp.apply(two, "zaremba")
    with dp.apply(two, "zaremba", stacks=[["x.0", "y.1"], ["y.0"]]) as applied:
        assert stacks(applied) == [(2, 3), (1, 2)]
    assert type(c) is nn.LSTM


def test_an_alias_is_a_name_too():
    lstm = nn.LSTM(D, D)
    applied = dp.apply(nn.ModuleDict({"a": lstm, "b": lstm}), "zaremba", stacks=[["b"]])
    assert [t.name for t in applied.touched] == ["a"]


def test_a_class_that_was_changed_since_is_not_overwritten():
    model = nn.ModuleList([nn.LSTM(D, D), nn.LSTM(D, D)])
    applied = dp.apply(model, "zaremba")
    before = state_of(model)
    nn.utils.parametrizations.weight_norm(model[1], "weight_hh_l0")
    with pytest.raises(dp.PolicyError, match=r"1 has become .*ParametrizedLSTM.*nothing was rem"):
        applied.remove()
    assert applied.active
    assert type(model[0]) is LSTM
    nn.utils.parametrize.remove_parametrizations(model[1], "weight_hh_l0")
    assert state_of(model) == before
    applied.remove()
    assert [type(module) for module in model] == [nn.LSTM, nn.LSTM]


def test_a_parametrized_layer_is_skipped_as_what_it_is():
    model = nn.ModuleList([nn.LSTM(D, D), nn.LSTM(D, D)])
    nn.utils.parametrizations.weight_norm(model[1], "weight_hh_l0")
    assert "parametrized: PyTorch's own layer does not use" in str(dp.apply(model, "zaremba"))


def test_copies_and_pickles_of_a_model_take_their_report_along():
    import pickle

    model = Model(nn.LSTM(D, D))
    model.applied = dp.apply(model, "zaremba", seed=1)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        other.applied.remove()
        assert type(other.rnn) is nn.LSTM
        assert type(model.rnn) is LSTM


def test_what_a_policy_added_goes_with_it():
    lstm = nn.LSTM(D, D)
    applied = dp.apply(lstm, "zaremba", seed=1)
    lstm(torch.ones(2, 1, D))
    lstm.row_offset = 7
    applied.remove()
    assert not {"calls", "row_offset", "seed", "placement"} & set(vars(lstm))
    lstm.row_offset = 7
    dp.apply(lstm, "zaremba", seed=1)
    assert (lstm.row_offset, lstm.calls) == (0, 0)


def test_what_was_applied_is_drawn_stack_by_stack():
    model = Pair()
    rate = {"input": 0.1, "between": [0.0, 0.2], "output": 0.3, "hidden": [0.0, 0.4]}
    policy = dp.naive().with_rates(rate)
    with dp.apply(model, policy, stacks=[["low", "high"]]) as applied:
        (drawn,) = applied.diagrams(path=(1, 4))
        shown = applied._repr_html_()
    assert drawn.title == "naive on low and high"
    assert [(row.name, row.masked, row.notes) for row in drawn.rows] == [
        ("input", True, "0.1 per step"),
        ("low", False, ""),
        ("between", True, "0.2 per step"),
        ("high", True, "hidden 0.4 per step"),
        ("output", True, "0.3 per step"),
    ]
    assert drawn.corruptions == 6
    assert drawn.rows[1:] != policy.diagram().rows[1:]
    assert shown.count("<svg") == 1
    assert "low (torch.nn.LSTM): input 0.1 per step" in shown
    with dp.apply(model, "naive", stacks=[["low"], ["high"]]) as applied:
        titles = [drawn.title for drawn in applied.diagrams()]
    assert titles == ["naive on low", "naive on high"]


def test_layers_of_one_object_are_drawn_as_layers_of_it():
    with dp.apply(Model(nn.LSTM(D, D, num_layers=2)), "zaremba") as applied:
        (drawn,) = applied.diagrams()
    names = ["input", "rnn, layer 1", "between", "rnn, layer 2", "output"]
    assert [row.name for row in drawn.rows] == names
    assert [row.masked for row in drawn.rows] == [True, False, True, False, True]


class Wrapped(nn.Module):
    """A layer of which a wrapper makes a weight, as WeightDrop does."""

    def __init__(self, weight):
        super().__init__()
        self.rnn, self.weight = nn.LSTM(D, D), weight
        self.raw = self.rnn._parameters.pop(weight)

    def forward(self, x):
        setattr(self.rnn, self.weight, nn.functional.dropout(self.raw.clone(), 0.5, self.training))
        return self.rnn(x)[0]


@pytest.mark.parametrize("weight", ["weight_hh_l0", "weight_ih_l0"])
@pytest.mark.parametrize("called", [False, True])
def test_a_layer_whose_weights_a_wrapper_makes_is_left_alone(weight, called):
    """Its weights may be masked already, which nobody sees from outside."""
    model = Wrapped(weight)
    if called:
        model(torch.randn(2, 3, D))
    with pytest.raises(dp.PolicyError, match=f"rnn .*: {weight} is no parameter of its own"):
        dp.apply(model, "weight_drop")
    assert type(model.rnn) is nn.LSTM
    both = nn.ModuleDict({"wrapped": model, "plain": nn.LSTM(D, 2 * D)})
    with dp.apply(both, "zaremba") as applied:
        assert [touched.name for touched in applied.touched] == ["plain"]
        assert f"skipped wrapped.rnn (torch.nn.LSTM): {weight} is no parameter" in str(applied)


def test_what_comes_into_a_row_of_rows_comes_into_its_first_layer():
    row = nn.ModuleList([nn.LSTM(D, 5), nn.LSTM(5, 4)])
    model = Parts(low=nn.LSTM(3, D), rest=nn.ModuleList([row, nn.LSTM(4, 9)]))
    with pytest.raises(dp.PolicyError, match=r"These pairs are open: 'low' into 'rest\.0\.0'"):
        dp.apply(model, "zaremba")


@pytest.mark.parametrize("weight", ["weight_hh_l0", "weight_hh_l1_reverse", "weight_ih_l1"])
def test_so_is_a_layer_of_two_directions_whose_weights_a_wrapper_makes(weight):
    model = Parts(rnn=nn.LSTM(D, D, 2, bidirectional=True))
    raw = model.rnn._parameters.pop(weight)
    setattr(model.rnn, weight, raw.detach().clone())
    with pytest.raises(dp.PolicyError, match=f"rnn .*: {weight} is no parameter of its own"):
        dp.apply(model, "zaremba")


def test_layers_that_come_or_go_after_apply_are_in_the_report():
    model = Parts(rnn=nn.LSTM(D, D), other=nn.GRU(D, D), head=nn.Linear(D, D))
    applied = dp.apply(model, "zaremba", 0.5, skip="other")
    assert applied.changes() == []
    model.late = nn.LSTM(D, D)
    assert "added since, without a policy: late" in str(applied)
    del model.late
    model.rnn = nn.LSTM(D, D)  # of the same name, and a stock layer
    assert applied.changes() == ["added since, without a policy: rnn"]
    del model.rnn, model.other
    assert applied.changes() == ["no longer in the model: rnn"]
    applied.remove()
    assert applied.changes() == []


class LiGRU(nn.Module):
    """A recurrent module of somebody's own."""

    def __init__(self):
        super().__init__()
        self.w, self.u = nn.Linear(D, D), nn.Linear(D, D, bias=False)

    def forward(self, x):
        h, out = torch.zeros_like(x[0]), []
        for step in x:
            h = torch.tanh(self.w(step) + self.u(h))
            out.append(h)
        return torch.stack(out)


class CRNN(nn.Module):
    """A whole model that is called after what it has inside."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(D, D)


def test_recurrent_modules_that_no_policy_can_go_on_are_told():
    model = Parts(own=LiGRU(), rnn=CRNN(), scripted=torch.jit.script(nn.LSTM(D, D)))
    applied = dp.apply(model, "zaremba")
    assert [s.name for s in applied.skipped] == ["own", "scripted"]
    assert (
        "own (tests.torch.test_apply.LiGRU): recurrent by its name, but not a layer of PyT"
        in str(applied)
    )
    assert "scripted, and so not Python any more" in str(applied)
    with pytest.raises(dp.PolicyError, match=r"LiGRU has no recurrent layer.*Unrolled"):
        dp.apply(LiGRU(), "zaremba")
