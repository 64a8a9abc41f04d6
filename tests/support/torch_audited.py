"""PyTorch modules that are audited: this library's, PyTorch's, and some written by hand."""

from __future__ import annotations

import torch
from dropout_policies_torch import GRU, LSTM, RNN
from torch import Tensor, nn
from torch.nn.functional import dropout, linear

import dropout_policies as dp
from dropout_policies.policies.sites import Site

from .audited import Case, of_policy

DROP = dp.drop(0.4)


class Loop(nn.Module):
    """An LSTM of one layer as people write it, with a policy's masks drawn by hand.

    Args:
        policy: whose.
        features: D.
        units: H.
        added: what code adds to the gates i, f and o, as older papers' forget bias.
        bias: whether there are biases beside that.
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
        on, name = self.training, self.policy
        h = c = x.new_zeros(batch, self.units)

        def ones(*shape: int) -> Tensor:
            return dropout(x.new_ones(shape), 0.4, on)

        if name in ("zaremba", "naive"):
            x = dropout(x, 0.4, on)
        if name == "variational":
            x = x * ones(batch, features)
            held, leaving = ones(batch, self.units), ones(batch, self.units)
        if name == "rnndrop":
            carried = (ones(batch, self.units) != 0).to(x) if on else torch.tensor(0.6)
        weight, bias = self.gates.weight, self.gates.bias
        if name == "weight_drop":
            into, back = weight.split([features, self.units], dim=1)
            weight = torch.cat([into, dropout(back, 0.4, on)], dim=1)
        outputs = []
        for step in range(steps):
            seen = h
            if name == "naive":
                seen = dropout(h, 0.4, on)
            if name == "variational":
                seen = h * held
            i, f, g, o = linear(torch.cat([x[step], seen], dim=-1), weight, bias).chunk(4, dim=-1)
            g = torch.tanh(g)
            i, f, o = (gate + more for gate, more in zip((i, f, o), self.added, strict=True))
            if name == "semeniuta":
                g = dropout(g, 0.4, on)
            new_c = torch.sigmoid(f) * c + torch.sigmoid(i) * g
            if name == "rnndrop":
                new_c = new_c * carried
            new_h = torch.sigmoid(o) * torch.tanh(new_c)
            if name == "state":
                new_h = dropout(new_h, 0.4, on)
            if name == "zoneout":
                stays = (torch.rand_like(h) < 0.4).to(x) if on else torch.tensor(0.4)
                new_h = stays * h + (1.0 - stays) * new_h
            h, c = new_h, new_c
            outputs.append(h)
        y = torch.stack(outputs)
        if name in ("zaremba", "naive"):
            y = dropout(y, 0.4, on)
        return y * leaving if name == "variational" else y


class Model(nn.Module):
    """A language model with dropout as the paper has it, of PyTorch's own modules; it may have one
    matrix for the words that come in and go out, and give logarithms of probabilities."""

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


def applied(policy: str) -> Model:
    """The same model without dropout of its own, under a policy."""
    model = Model(rate=0.0)
    dp.apply(model, policy)
    return model


def by_hand(name: str, added: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Case:
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
    title = f"by hand{', a forget bias in code' * any(added)}: {name}"
    return of_policy(title, lambda: Loop(name, added=added), policy)


def fitting(name: str, kind: type[nn.Module]) -> dp.Policy | None:
    """A policy as a kind of layer can have it, or None."""
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
            policy = fitting(name, kind)
            if policy is not None:
                found.append(
                    of_policy(
                        f"{kind.__name__}, 2 layers: {name}",
                        lambda kind=kind, policy=policy: kind(9, 8, num_layers=2, policy=policy),
                        policy,
                        layers=2,
                    )
                )
    more = {
        "zaremba and zoneout": dp.zaremba(0.3) | dp.zoneout(),
        "zaremba and semeniuta": dp.zaremba(0.3) | dp.semeniuta(0.4),
        "state, held": dp.Policy(state=dp.drop(0.3, per="sequence")),
        "cell": dp.Policy(cell=dp.drop(0.3)),
        "input weights": dp.Policy(input_weight=dp.drop(0.3, per="call")),
        "unscaled": dp.Policy(input=dp.drop(0.3, scaled=False), hidden=dp.drop(0.4)),
        "untied": dp.variational(gates="untied"),
    }
    for name, policy in more.items():
        evaluation = policy.evaluation
        case = of_policy(f"LSTM: {name}", lambda p=policy: LSTM(9, 8, policy=p), policy)
        found.append(Case(case.name, case.make, case.rules, None, evaluation))
    found += [
        of_policy(
            f"LSTM, both ways, 2 layers: {name}",
            lambda name=name: LSTM(9, 8, num_layers=2, bidirectional=True, policy=name),
            dp.resolve(name),
            2,
            (0, 1),
        )
        for name in ("zaremba", "variational", "awd")
    ]
    found.append(
        of_policy(
            "GRU, keyed", lambda: GRU(9, 8, policy="variational", seed=7), dp.variational(), 1
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
    found.append(Case("nn.LSTM, projected", lambda: nn.LSTM(9, 8, proj_size=5), {}, "none"))
    hand = ("zaremba", "naive", "variational", "semeniuta", "rnndrop", "zoneout", "weight_drop")
    for added in ((0.0, 0.0, 0.0), (0.0, 1.0, 0.0)):
        found += [by_hand(name, added) for name in (*hand, "state")]
    found += [
        of_policy("a model by hand", Model, dp.zaremba(0.3), 2),
        of_policy("a model by hand, tied words", lambda: Model(tied=True), dp.zaremba(0.3), 2),
        of_policy(
            "a model by hand, log-probabilities",
            lambda: Model(last=nn.LogSoftmax(-1)),
            dp.zaremba(0.3),
            2,
        ),
    ]
    found.append(
        of_policy("a model, applied: awd", lambda: applied("awd"), dp.awd(), 2, tokens=True)
    )
    return found
