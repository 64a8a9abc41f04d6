"""PyTorch modules that the tests audit: this library's, PyTorch's, and some written by hand."""

from __future__ import annotations

import torch
from dropout_policies_torch import GRU, LSTM, RNN
from torch import Tensor, nn
from torch.nn.functional import dropout, linear

import dropout_policies as dp
from dropout_policies.policies.sites import Site

from .audited import Case, case_of_policy

DROP = dp.drop(0.4)


class Loop(nn.Module):
    """An LSTM of one layer as people write it, with a policy's masks drawn by hand.

    Args:
        policy: the policy's name.
        features: D.
        units: H.
        added: what the code adds to the gates i, f and o, as older papers' forget bias.
        bias: whether there are biases besides.
    """

    def __init__(
        self,
        policy: str,
        features: int = 9,
        units: int = 10,
        added: tuple[float, float, float] = (0.0, 0.0, 0.0),
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.policy, self.units, self.added = policy, units, added
        self.gates = nn.Linear(features + units, 4 * units, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        steps, batch, features = x.shape
        training, name = self.training, self.policy
        h = c = x.new_zeros(batch, self.units)

        def scaled_mask(*shape: int) -> Tensor:
            return dropout(x.new_ones(shape), 0.4, training)

        if name in ("zaremba", "naive"):
            x = dropout(x, 0.4, training)
        if name == "variational":
            x = x * scaled_mask(batch, features)
            hidden_mask, output_mask = (
                scaled_mask(batch, self.units),
                scaled_mask(batch, self.units),
            )
        if name == "rnndrop":
            cell_mask = (
                (scaled_mask(batch, self.units) != 0).to(x) if training else torch.tensor(0.6)
            )
        weight, bias = self.gates.weight, self.gates.bias
        if name == "weight_drop":
            w_ih, w_hh = weight.split([features, self.units], dim=1)
            weight = torch.cat([w_ih, dropout(w_hh, 0.4, training)], dim=1)
        outputs = []
        for step in range(steps):
            masked_h = h
            if name == "naive":
                masked_h = dropout(h, 0.4, training)
            if name == "variational":
                masked_h = h * hidden_mask
            i, f, g, o = linear(torch.cat([x[step], masked_h], dim=-1), weight, bias).chunk(
                4, dim=-1
            )
            g = torch.tanh(g)
            i, f, o = (gate + number for gate, number in zip((i, f, o), self.added, strict=True))
            if name == "semeniuta":
                g = dropout(g, 0.4, training)
            new_c = torch.sigmoid(f) * c + torch.sigmoid(i) * g
            if name == "rnndrop":
                new_c = new_c * cell_mask
            new_h = torch.sigmoid(o) * torch.tanh(new_c)
            if name == "state":
                new_h = dropout(new_h, 0.4, training)
            if name == "zoneout":
                stays = (torch.rand_like(h) < 0.4).to(x) if training else torch.tensor(0.4)
                new_h = stays * h + (1.0 - stays) * new_h
            h, c = new_h, new_c
            outputs.append(h)
        y = torch.stack(outputs)
        if name in ("zaremba", "naive"):
            y = dropout(y, 0.4, training)
        return y * output_mask if name == "variational" else y


class Model(nn.Module):
    """A language model of PyTorch's own modules, with dropout as in the paper.

    Args:
        rate: of all dropout.
        tied: whether the embedding and the decoder have one matrix.
        last: a module after the decoder, as a softmax.
        words: the number of word types.
    """

    def __init__(
        self,
        rate: float = 0.3,
        tied: bool = False,
        last: nn.Module | None = None,
        words: int = 40,
    ) -> None:
        super().__init__()
        self.embedding, self.dropout = nn.Embedding(words, 16), nn.Dropout(rate)
        self.lstm = nn.LSTM(16, 16, 2, dropout=rate, batch_first=True)
        self.decoder, self.last = nn.Linear(16, words), last or nn.Identity()
        if tied:
            self.decoder.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        y, _ = self.lstm(self.dropout(self.embedding(tokens)))
        return self.last(self.decoder(self.dropout(y)))


def model_under(policy: str) -> Model:
    """The same model without dropout of its own, under a policy."""
    model = Model(rate=0.0)
    dp.apply(model, policy)
    return model


def case_by_hand(name: str, added: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Case:
    held = dp.drop(0.4, per="sequence")
    sites: dict[str, dict[str, dp.Rule]] = {
        "none": {},
        "zaremba": {"input": DROP, "output": DROP},
        "naive": {"input": DROP, "output": DROP, "hidden": DROP},
        "variational": {"input": held, "output": held, "hidden": held},
        "semeniuta": {"candidate": DROP},
        "rnndrop": {"cell": dp.drop(0.4, per="sequence", scaled=False)},
        "zoneout": {"hidden_update": dp.Rule(0.4, kind="zoneout")},
        "weight_drop": {"recurrent_weight": dp.drop(0.4, per="call")},
        "state": {"state": DROP},
    }
    # The paper's zoneout has the cell state too.
    known = None if name in ("state", "zoneout") else name
    policy = dp.Policy(name=known or "custom", **sites[name])
    title = f"hand-written loop{', forget bias in code' * any(added)}: {name}"
    return case_of_policy(title, lambda: Loop(name, added=added), policy)


def fit_policy(name: str, kind: type[nn.Module]) -> dp.Policy | None:
    """A policy without the sites that a kind of layer lacks; None if that is no policy."""
    policy = dp.resolve(name)
    if kind is not LSTM:
        if name == "rnndrop" or (name == "semeniuta" and kind is RNN):
            return None
        policy = dp.zoneout(cell=0.0) if name == "zoneout" else policy
    return policy


def cases() -> list[Case]:
    found = []
    for kind in (LSTM, GRU, RNN):
        for name in dp.names():
            policy = fit_policy(name, kind)
            if policy is not None:
                found.append(
                    case_of_policy(
                        f"{kind.__name__}, 2 layers: {name}",
                        lambda kind=kind, policy=policy: kind(9, 8, num_layers=2, policy=policy),
                        policy,
                        layers=2,
                    )
                )
    more = {
        "zaremba and zoneout": dp.zaremba(0.3) | dp.zoneout(),
        "zaremba and semeniuta": dp.zaremba(0.3) | dp.semeniuta(0.4),
        "state, per sequence": dp.Policy(state=dp.drop(0.3, per="sequence")),
        "cell": dp.Policy(cell=dp.drop(0.3)),
        "input weights": dp.Policy(input_weight=dp.drop(0.3, per="call")),
        "masks not scaled": dp.Policy(input=dp.drop(0.3, scaled=False), hidden=dp.drop(0.4)),
        "separate masks for each gate": dp.variational(gates="untied"),
    }
    for name, policy in more.items():
        evaluation = policy.evaluation
        case = case_of_policy(f"LSTM: {name}", lambda p=policy: LSTM(9, 8, policy=p), policy)
        found.append(Case(case.name, case.make, case.rules, None, evaluation))
    found += [
        case_of_policy(
            f"LSTM, bidirectional, 2 layers: {name}",
            lambda name=name: LSTM(9, 8, num_layers=2, bidirectional=True, policy=name),
            dp.resolve(name),
            2,
            (0, 1),
        )
        for name in ("zaremba", "variational", "awd")
    ]
    found.append(
        case_of_policy(
            "GRU, keyed masks", lambda: GRU(9, 8, policy="variational", seed=7), dp.variational(), 1
        )
    )
    for kind in (nn.LSTM, nn.GRU, nn.RNN):
        found.append(Case(f"nn.{kind.__name__}", lambda k=kind: k(9, 8, 2), {}, "none"))
        between = {(Site.BETWEEN, n, 0): dp.drop(0.4) for n in (1, 2)}
        found.append(
            Case(
                f"nn.{kind.__name__}, 3 layers, dropout",
                lambda k=kind: k(9, 8, 3, dropout=0.4, batch_first=True),
                between,
            )
        )
    found.append(Case("nn.LSTM, projection", lambda: nn.LSTM(9, 8, proj_size=5), {}, "none"))
    hand = ("zaremba", "naive", "variational", "semeniuta", "rnndrop", "zoneout", "weight_drop")
    for added in ((0.0, 0.0, 0.0), (0.0, 1.0, 0.0)):
        found += [case_by_hand(name, added) for name in (*hand, "state")]
    found += [
        case_of_policy("hand-written model", Model, dp.zaremba(0.3), 2),
        case_of_policy(
            "hand-written model, tied embedding", lambda: Model(tied=True), dp.zaremba(0.3), 2
        ),
        case_of_policy(
            "hand-written model, log-probabilities",
            lambda: Model(last=nn.LogSoftmax(-1)),
            dp.zaremba(0.3),
            2,
        ),
    ]
    found.append(
        case_of_policy(
            "model after apply: awd", lambda: model_under("awd"), dp.awd(), 2, tokens=True
        )
    )
    return found
