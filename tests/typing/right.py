"""A user's program in which type checkers find nothing; see `test_typing`."""

import dropout_policies_torch as dpt
import torch
from torch import nn

import dropout_policies as dp
from dropout_policies.testing import assert_placement


class Tagger(nn.Module):
    """An embedding, two stacked layers of this library, and a decoder."""

    def __init__(self, policy: dp.PolicyName | dp.Policy = "zaremba") -> None:
        super().__init__()
        self.embed = dpt.Embedding(100, 8, padding_idx=0, policy="awd", batch_first=True)
        self.low = dpt.LSTM(8, 16, batch_first=True, policy=policy, rate=0.5, seed=1, stack=(0, 2))
        self.high = dpt.GRU(16, 16, batch_first=True, policy="variational", rate={"hidden": 0.2})
        self.decode = nn.Linear(16, 5)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        y, _ = self.low(self.embed(tokens))
        y, _ = self.high(y)
        scores: torch.Tensor = self.decode(y)
        return scores


def rates() -> list[dp.Policy]:
    warm_up: dp.Schedule = dp.ramp(0.0, 0.5, 1000)
    by_layer: list[float] = [0.1, 0.2, 0.3]
    by_site: dict[str, float] = {"input": 0.4, "hidden": 0.3}
    by_place: dict[dp.Site, float] = {dp.Site.INPUT: 0.4}
    return [
        dp.zaremba(warm_up),
        dp.zaremba(by_layer),
        dp.zoneout(0.5, by_layer) | dp.zaremba(0.5),
        dp.variational().with_rates(by_site),
        dp.zaremba().with_rates(by_place),
        dp.Policy(input=dp.drop(by_layer, per="sequence"), name="mine"),
        dp.resolve("awd"),
    ]


def cells() -> None:
    cell = dpt.LSTMCell(3, 4, policy="zaremba", stack=(1, 2))
    h: torch.Tensor = cell.mask_output(cell(torch.zeros(2, 3))[0])
    dpt.RNN(3, 4, nonlinearity="relu", policy="naive", seed=2)
    dpt.Unrolled(nn.RNNCell(3, 4), policy="zaremba", rate=[0.5])
    print(h, dpt.GRUCell(3, 4, bias=False).calls)


def existing() -> None:
    model = nn.Sequential(nn.LSTM(3, 4))
    with dp.apply(model, "zaremba", rate=0.5, seed=3) as applied:
        report: dp.Applied = applied
        with dp.record(model) as masks:
            model(torch.zeros(2, 1, 3))
        for slot, mask in masks["0"][0].items():
            site: dp.Site = slot.site
            print(site, slot.layer, mask.shape)
        mean, spread = dp.average(model, lambda: model(torch.zeros(2, 1, 3))[0], samples=3)
        print(report, mean, spread)
    found: dp.Audit = dp.audit(model[0])
    verdict: str = found.verdict
    print(verdict, assert_placement(dpt.LSTM(3, 4, policy="zaremba"), "zaremba").policy)
    diagram: dp.Diagram = dp.zaremba().diagram(layers=2, path=(1, 3))
    diagram.save("zaremba.svg")
