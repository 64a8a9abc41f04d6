"""The audit of a whole model by its recurrent layers, each where it stands."""

import dropout_policies_torch as dpt
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import dropout_policies as dp


def masked(audit):
    """By layer of the model, where masks were found: the site and layer, the rate, the lifetime."""
    return {
        name: [
            (f"{f.site.value} {f.layer + 1}", round(f.rate, 1), f.per)
            for f in part.findings
            if f.verdict == "masked"
        ]
        for name, part in audit.parts.items()
    }


class Tagger(nn.Module):
    """A front end, two inputs, two stacks joined by a concatenation, functional dropout."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(4, 16, 3, padding=1)
        self.drop = nn.Dropout(0.3)
        self.low = nn.LSTM(16, 24, batch_first=True)
        self.high = nn.GRU(29, 20, 2, dropout=0.2, batch_first=True)
        self.head = nn.Linear(20, 3)

    def forward(self, x, context):
        y = self.low(self.drop(self.conv(x).transpose(1, 2)))[0]
        y = self.high(torch.cat([self.drop(y), context], -1))[0]
        return self.head(nn.functional.dropout(y, 0.4, self.training)[:, -1])


def test_every_layer_is_audited_with_the_dropout_around_it():
    torch.manual_seed(0)
    model = Tagger()
    audit = dp.audit(model, example=(torch.randn(3, 4, 7), torch.randn(3, 7, 5)))
    assert masked(audit) == {
        "low": [("input 1", 0.3, "step"), ("output 1", 0.3, "step")],
        "high": [("between 2", 0.2, "step"), ("output 2", 0.4, "step")],
    }
    assert audit.parts["low"].policy == "zaremba"
    assert audit.links == (("low", "high"),)
    assert audit.doubled == ()
    assert audit.to_dict()["parts"]["high"]["layers"] == 2
    assert "low: nn.LSTM(16, 24): zaremba" in str(audit)
    assert audit._repr_html_().count("<pre>") == 2


class Doubled(nn.Module):
    def __init__(self):
        super().__init__()
        self.low, self.high = dpt.LSTM(8, 8, policy="zaremba"), dpt.LSTM(8, 8, policy="zaremba")

    def forward(self, x):
        return self.high(self.low(x)[0])[0]


def test_a_connection_that_is_masked_twice_is_said():
    torch.manual_seed(0)
    x = torch.randn(5, 3, 8)
    audit = dp.audit(Doubled(), example=x)
    assert audit.doubled == (("low", "high"),)
    assert "what goes from low into high is masked twice" in str(audit)
    model = Doubled()
    dp.remove(model)
    dp.apply(model, "zaremba", 0.5, example=x)
    audit = dp.audit(model, example=x)
    assert audit.doubled == ()
    assert [site for found in masked(audit).values() for site, *_ in found] == [
        "input 1",
        "input 1",
        "output 1",
    ]


class Words(nn.Module):
    """Tokens with lengths, packed."""

    def __init__(self):
        super().__init__()
        self.embedding, self.drop = nn.Embedding(30, 12), nn.Dropout(0.5)
        self.rnn = nn.LSTM(12, 12, batch_first=True, bidirectional=True)

    def forward(self, words, lengths):
        x = self.drop(self.embedding(words))
        packed = pack_padded_sequence(x, lengths, batch_first=True)
        return self.drop(pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0])


def test_packed_sequences_are_audited_too():
    torch.manual_seed(0)
    model = Words()
    example = {"words": torch.zeros(3, 6, dtype=torch.long), "lengths": torch.tensor([6, 4, 1])}
    (part,) = dp.audit(model, example=example).parts.values()
    assert part.connections == (2, 2)
    assert (part.nearest, part.directions) == ("zaremba", 2)
    assert part.at("input").rate == pytest.approx(0.5, abs=0.1)


class Stepwise(nn.Module):
    """A layer that is called once for every step, and a cell."""

    def __init__(self, policy):
        super().__init__()
        self.rnn, self.cell = dpt.LSTM(8, 8, policy=policy, rate=0.5), nn.GRUCell(8, 8)
        self.drop = nn.Dropout(0.4)

    def forward(self, x):
        state, h, out = None, None, []
        for step in x.split(1):
            y, state = self.rnn(step, state)
            h = self.cell(self.drop(y[0]), h)
            out.append(h)
        return torch.stack(out)


def test_a_layer_that_is_called_step_by_step_is_audited_so():
    torch.manual_seed(0)
    audit = dp.audit(Stepwise("locked"), example=torch.randn(4, 3, 8))
    found = masked(audit)
    # What is held for a sequence is held for a call; and here a call is one step.
    assert found["rnn"] == [("input 1", 0.5, "step"), ("output 1", 0.5, "step")]
    assert found["cell"] == [("input 1", 0.4, "step")]


def test_what_was_not_measured_is_said():
    class Other(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop, self.rnn = nn.Dropout(0.3), nn.LSTM(8, 8)

        def forward(self, x):
            return self.rnn(self.drop(x.transpose(0, 2)).transpose(0, 2))[0]

    audit = dp.audit(Other(), example=torch.randn(5, 3, 8))
    assert "drop (torch.nn.Dropout, p=0.3) is next to rnn with its axes in another" in str(audit)


def test_a_part_that_cannot_be_audited_is_said():
    class Odd(nn.LSTM):
        def forward(self, x, hx=None):
            y, state = super().forward(x, hx)
            return y + torch.rand(()), state

    model = nn.Sequential(nn.LSTM(8, 8))
    model.odd = Odd(8, 8)
    model.forward = lambda x: model.odd(model[0](x)[0])
    audit = dp.audit(model, example=torch.randn(5, 3, 8))
    assert list(audit.parts) == ["0"]
    assert "evaluation is random" in audit.refused["odd"]
    assert "odd: not audited" in str(audit)


def test_the_model_is_as_it_was():
    model = Tagger().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    dp.audit(model, example=(torch.randn(3, 4, 7), torch.randn(3, 7, 5)))
    torch.manual_seed(1)
    assert torch.equal(torch.rand(2), expected)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert model.training
    assert model.low.training


def test_progress_is_told():
    shares = []
    dp.audit(nn.LSTM(8, 8), progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert len(shares) > 5


def test_a_model_that_does_not_run_is_refused():
    with pytest.raises(dp.PolicyError, match="Tagger does not run on the example"):
        dp.audit(Tagger(), example=torch.randn(3, 4, 7))
