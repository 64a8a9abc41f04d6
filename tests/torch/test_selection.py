"""`apply` on some layers, several policies on one model, policies by name on any kind of layer; and
`remove` on copies."""

import copy
import io

import dropout_policies_torch as dpt
import pytest
import torch
from torch import nn

import dropout_policies as dp

H = 16


class Part(nn.Module):
    def __init__(self, kind=nn.LSTM, **more):
        super().__init__()
        self.rnn = kind(H, H, **more)

    def forward(self, x):
        return self.rnn(x)[0]


class EncoderDecoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = Part(), Part()

    def forward(self, x):
        return self.decoder(self.encoder(x))


def dropped(module, x=None):
    """The share of zeros in what a module gives in training."""
    x = torch.randn(50, 8, H) if x is None else x
    y = module(x)
    y = y[0] if isinstance(y, tuple) else y
    return (y == 0).float().mean().item()


@pytest.mark.parametrize(
    "chosen",
    [
        {"only": "encoder.*"},
        {"only": ["encoder.rnn"]},
        {"only": "encoder"},
        {"skip": "decoder.*"},
        {"skip": lambda name, layer: name == "decoder.rnn" and isinstance(layer, nn.LSTM)},
    ],
)
def test_some_layers_get_the_policy_and_the_others_stay_stock(chosen):
    model = EncoderDecoder().train()
    applied = dp.apply(model, "zaremba", 0.5, **chosen)
    assert type(model.decoder.rnn) is nn.LSTM
    assert 0.4 < dropped(model.encoder) < 0.6
    assert dropped(model.decoder) == 0
    (left,) = applied.skipped
    assert left.name == "decoder.rnn"
    assert "skipped decoder.rnn (torch.nn.LSTM)" in str(applied)
    applied.remove()
    assert dropped(model.encoder) == 0


def test_a_wrong_pattern_changes_nothing():
    model = EncoderDecoder()
    for argument in ("only", "skip"):
        with pytest.raises(dp.PolicyError, match=r"'encodr\.\*'.*'encoder\.rnn'"):
            dp.apply(model, "zaremba", **{argument: "encodr.*"})
    with pytest.raises(dp.PolicyError, match="rate goes with one policy"):
        dp.apply(model, {"encoder.*": "zaremba"}, 0.5)
    for policy in ({}, {3: "zaremba"}):
        with pytest.raises(dp.PolicyError, match="a mapping from layers' names"):
            dp.apply(model, policy)
    assert type(model.encoder.rnn) is type(model.decoder.rnn) is nn.LSTM


def test_each_part_has_the_policy_of_its_pattern():
    model = EncoderDecoder().train()
    applied = dp.apply(model, {"encoder.*": dp.zaremba(0.5), "decoder.*": "zoneout"}, seed=3)
    assert [policy.name for policy in applied.policies] == ["zaremba", "zoneout"]
    assert applied.policy.name == "zaremba"
    assert str(applied).startswith("policies zaremba, zoneout: 2 recurrent layers in 2 stacks")
    assert 0.4 < dropped(model.encoder) < 0.6
    assert dropped(model.decoder) < 0.01, "zoneout drops nothing"
    x = torch.randn(5, 2, H)
    assert not torch.equal(model.decoder(x), model.decoder(x))
    applied.remove()
    assert torch.equal(model(x), model(x))


def test_two_policies_that_may_mask_one_connection_are_asked_about():
    policies = {"encoder.*": dp.zaremba(0.5), "decoder.*": dp.locked(0.5)}
    model = EncoderDecoder()
    with pytest.raises(dp.PolicyError, match="may feed"):
        dp.apply(model, policies)
    joined = [["encoder.rnn", "decoder.rnn"]]
    applied = dp.apply(model, policies, stacks=joined)
    (stack,) = applied.stacks
    assert (stack.masked, stack.connections) == (3, 3)
    texts = [member.sites() for member in stack.members]
    assert texts == ["input 0.5 per step", "between, output 0.5 per sequence"]


def test_layers_in_a_chain_under_two_policies_mask_each_connection_once():
    model = nn.Sequential(nn.LSTM(H, H), nn.LSTM(H, H))
    applied = dp.apply(model, {"0": dp.zaremba(0.5), "1": dp.locked(0.5)})
    (stack,) = applied.stacks
    assert (stack.masked, stack.connections) == (3, 3)
    assert applied.diagrams()[0].title == "zaremba and locked on 0 and 1"


@pytest.mark.parametrize("policy", ["zoneout", "weight_drop", "semeniuta", "rnndrop", "none"])
def test_nothing_is_asked_where_no_connection_is_masked(policy):
    model = EncoderDecoder()
    with dp.apply(model, policy) as applied:
        assert len(applied.touched) == 2
    with pytest.raises(dp.PolicyError, match="may feed"):
        dp.apply(model, dp.naive() if policy == "none" else "zaremba")


def test_everything_open_is_asked_at_once_with_a_likely_answer():
    class Many(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = (nn.LSTM(H, H) for _ in range(3))

    with pytest.raises(dp.PolicyError, match=r"stacks=\[\['a', 'b', 'c'\]\] if each") as error:
        dp.apply(Many(), "zaremba")
    assert "stacks=[['a'], ['b'], ['c']] if none" in str(error.value)
    assert len(dp.apply(Many(), "zaremba", stacks=[["a", "b", "c"]]).stacks) == 1
    with pytest.raises(dp.PolicyError, match="Some layers may feed one another"):
        dp.apply(Many(), dp.zoneout([0.1, 0.2, 0.3]))  # whose rates are whose?


@pytest.mark.parametrize("kind", [nn.GRU, nn.RNN, nn.GRUCell, nn.RNNCell])
@pytest.mark.parametrize("rate", [None, 0.1, {"hidden_update": 0.1}])
def test_zoneout_by_name_goes_on_layers_without_a_cell_state(kind, rate):
    layer = kind(H, H)
    (touched,) = dp.apply(layer, "zoneout", rate).touched
    assert "hidden_update" in touched.sites()
    assert "cell_update" not in touched.sites()
    made = getattr(dpt, kind.__name__)(H, H, policy="zoneout", rate=rate)
    assert set(made.placement.policy) == {dp.Site.HIDDEN_UPDATE}
    x = torch.randn(3, H) if "Cell" in kind.__name__ else torch.randn(5, 3, H)
    state = torch.randn(3, H) if "Cell" in kind.__name__ else torch.randn(1, 3, H)
    once, twice = (module.train()(x, state) for module in (layer, layer))
    assert not torch.equal(*(y[0] if isinstance(y, tuple) else y for y in (once, twice)))
    with pytest.raises(dp.PolicyError, match="no site 'cell_update'"):
        dp.apply(kind(H, H), dp.zoneout())
    with pytest.raises(dp.PolicyError, match="no site 'cell_update'"):
        getattr(dpt, kind.__name__)(H, H, policy="zoneout", rate={"cell_update": 0.1})


def test_zoneout_by_name_is_on_each_layer_of_a_mixed_model_what_it_can_be():
    both = nn.ModuleList([nn.LSTM(H, H), nn.GRU(H, H)])
    lstm, gru = dp.apply(both, "zoneout", {"cell_update": 0.1, "hidden_update": 0.2}).touched
    assert lstm.sites() == "hidden_update 0.2 per step; cell_update 0.1 per step"
    assert gru.sites() == "hidden_update 0.2 per step"


def test_a_rate_that_falls_nowhere_changes_nothing():
    model = nn.Sequential(nn.LSTM(H, H))
    for rate in ({"embedding": 0.9}, {"between": 0.2}):
        with pytest.raises(dp.PolicyError, match=rf"The rate for '{next(iter(rate))}'.*not used"):
            dp.apply(model, "variational", rate)
    assert type(model[0]) is nn.LSTM
    assert "no embedding was found" in str(dp.apply(model, "awd"))


def test_word_types_are_dropped_where_the_pattern_says():
    model = nn.ModuleDict(
        {"source": nn.Embedding(9, H), "target": nn.Embedding(9, H), "rnn": nn.LSTM(H, H)}
    )
    applied = dp.apply(model, "variational", skip="target")
    assert [words.name for words in applied.embeddings] == ["source"]
    assert type(model["target"]) is nn.Embedding
    assert "target" in [left.name for left in applied.skipped]


def copies():
    def pickled(model):
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        return torch.load(file, weights_only=False)

    def averaged(model):
        return torch.optim.swa_utils.AveragedModel(model).module

    return [copy.deepcopy, pickled, averaged]


@pytest.mark.parametrize("make_copy", copies())
def test_a_copy_is_freed_and_the_model_stays_under_the_policy(make_copy):
    model = nn.Sequential(nn.LSTM(H, H, 2, dropout=0.3)).train()
    dp.apply(model, "zaremba", 0.5, seed=1)
    twin = make_copy(model)
    dp.remove(twin)
    assert type(twin[0]) is nn.LSTM
    assert twin[0].dropout == 0.3
    assert type(model[0]) is not nn.LSTM
    assert 0.4 < dropped(model) < 0.6
    dp.apply(twin, "locked")
    with pytest.raises(dp.PolicyError, match=r"is under policy 'zaremba' already.*remove"):
        dp.apply(model, "locked")


def test_removing_from_the_model_itself_makes_the_reports_remove_a_no_op():
    model = nn.Sequential(nn.LSTM(H, H, 2, dropout=0.3))
    before = dict(vars(model[0]))
    applied = dp.apply(model, "zaremba")
    dp.remove(model)
    assert vars(model[0]).keys() == before.keys()
    applied.remove()
    assert (type(model[0]), model[0].dropout) == (nn.LSTM, 0.3)
    with pytest.raises(dp.PolicyError, match="no layer under a policy"):
        dp.remove(model)
    with pytest.raises(dp.PolicyError, match="A policy goes on a model"):
        dp.remove(3)


def test_layers_that_were_made_with_a_policy_become_stock_layers():
    class Mine(dpt.LSTM):
        pass

    model = nn.ModuleList(
        [
            dpt.LSTM(H, H, policy="zaremba"),
            dpt.GRUCell(H, H, policy="naive"),
            dpt.Embedding(5, H, policy="awd", batch_first=True),
            dpt.Unrolled(nn.GRUCell(H, H), policy="zaremba"),
            Mine(H, H, policy="zaremba"),
        ]
    )
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    dp.remove(model)
    kinds = [nn.LSTM, nn.GRUCell, nn.Embedding, dpt.Unrolled, Mine]
    assert [type(module) for module in model] == kinds
    assert all(torch.equal(weights[name], w) for name, w in model.state_dict().items())
    x = torch.randn(5, 2, H)
    for module in (model[0], model[3], model[4]):
        assert torch.equal(module(x)[0], module(x)[0])
    assert "policy" not in repr(model)
