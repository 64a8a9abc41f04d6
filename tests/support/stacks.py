"""Stacks of recurrent layers with masks anywhere, and what an audit says of them that is not so."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dropout_policies.auditing.audits import Audit
from dropout_policies.auditing.probing.findings import Finding, widened_interval

Noise = dict[int, dict[str, float]]
"""Rates by layer and place: those of `PLACES`, and `activation`, before the tanh of a candidate,
which is no site."""

PLACES = {
    "x": "step",
    "held_x": "sequence",
    "W": "call",
    "U": "call",
    "h": "step",
    "held_h": "sequence",
    "candidate": "step",
    "cell": "step",
    "state": "step",
    "old_h": "step",
    "old_c": "step",
}
"""Where masks may fall in a layer, and how long they live; `old_h` and `old_c` are zoneout."""

SITES = {
    "W": "input_weight",
    "U": "recurrent_weight",
    "h": "hidden",
    "held_h": "hidden",
    "old_h": "hidden_update",
    "old_c": "cell_update",
}
"""Of the places that are not named as the library names their sites, or by the layer."""

GATES = {"lstm": 4, "gru": 3, "rnn": 1}


class Case(NamedTuple):
    """A stack, and the seed of its weights and masks.

    Args:
        kind: `lstm`, `gru` or `rnn`.
        units: H of every layer.
        noise: where masks fall, by layer.
        output: the rate at the output.
        seed: of weights and masks.
        layers: how many there are.
    """

    kind: str
    units: int
    noise: Noise
    output: float = 0.0
    seed: int = 0
    layers: int = 1

    def module(self) -> Stack:
        torch.manual_seed(self.seed)
        return Stack(self)


def kept(rate: float | None, *shape: int) -> Tensor | float:
    """A mask of what is kept, scaled; 1 without a rate."""
    if rate is None:
        return 1.0
    return torch.bernoulli(torch.full(shape, 1.0 - rate)) / (1.0 - rate)


def zoned(rate: float | None, old: Tensor, new: Tensor) -> Tensor:
    return new if rate is None else torch.where(torch.rand(old.shape) < rate, old, new)


class Stack(nn.Module):
    """Cells, step by step, under the masks of a case."""

    def __init__(self, case: Case, features: int = 9) -> None:
        super().__init__()
        self.case, rows = case, GATES[case.kind] * case.units
        widths = [features] + [case.units] * (case.layers - 1)
        self.W = nn.ModuleList([nn.Linear(width, rows) for width in widths])
        self.U = nn.ModuleList([nn.Linear(case.units, rows) for _ in widths])

    def forward(self, x: Tensor) -> Tensor:
        for layer in range(self.case.layers):
            rates = self.case.noise.get(layer, {}) if self.training else {}
            x = self._layer(layer, x, rates)
        return x * kept(self.case.output or None, *x.shape) if self.training else x

    def _layer(self, layer: int, x: Tensor, rates: dict[str, float]) -> Tensor:
        rate, (_, batch, features) = rates.get, x.shape
        W = self.W[layer].weight * kept(rate("W"), *self.W[layer].weight.shape)
        U = self.U[layer].weight * kept(rate("U"), *self.U[layer].weight.shape)
        x = x * kept(rate("x"), *x.shape) * kept(rate("held_x"), 1, batch, features)
        h = c = x.new_zeros(batch, self.case.units)
        held = kept(rate("held_h"), *h.shape)
        outputs = []
        for step in x:
            seen = h * held * kept(rate("h"), *h.shape)
            into, back = step @ W.T + self.W[layer].bias, seen @ U.T + self.U[layer].bias
            new_h, new_c = self._cell(into, back, h, c, rates)
            h = zoned(rate("old_h"), h, new_h) * kept(rate("state"), *h.shape)
            c = zoned(rate("old_c"), c, new_c)
            outputs.append(h)
        return torch.stack(outputs)

    def _cell(
        self, into: Tensor, back: Tensor, h: Tensor, c: Tensor, rates: dict[str, float]
    ) -> tuple[Tensor, Tensor]:
        dropped, before = (
            kept(rates.get(place), *h.shape) for place in ("candidate", "activation")
        )
        if self.case.kind == "rnn":
            return torch.tanh((into + back) * before), c
        if self.case.kind == "gru":
            (r, z, n), (back_r, back_z, back_n) = into.chunk(3, -1), back.chunk(3, -1)
            z = torch.sigmoid(z + back_z)
            n = torch.tanh((n + torch.sigmoid(r + back_r) * back_n) * before) * dropped
            return (1.0 - z) * n + z * h, c
        i, f, g, o = (into + back).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g * before) * dropped
        c = c * kept(rates.get("cell"), *c.shape)
        return torch.sigmoid(o) * torch.tanh(c), c


def drawn(seed: int) -> Case:
    """A case by chance."""
    chance = random.Random(seed)
    kind, layers = chance.choice(["lstm", "lstm", "gru", "rnn"]), chance.choice([1, 1, 2, 3])
    none = {"rnn": ("candidate", "cell", "old_c"), "gru": ("cell", "old_c"), "lstm": ()}[kind]
    places = [place for place in PLACES if place not in none]
    noise = {}
    for layer in range(layers):
        chosen = chance.sample(places, chance.choice([0, 1, 1, 2, 3]))
        for one, other in (("x", "held_x"), ("h", "held_h")):  # not two masks at one site
            if one in chosen and other in chosen:
                chosen.remove(other)
        noise[layer] = {place: chance.choice([0.1, 0.2, 0.3, 0.5]) for place in chosen}
    return Case(
        kind, chance.choice([6, 8, 12]), noise, chance.choice([0.0, 0.0, 0.3]), seed, layers
    )


def untrue(case: Case, audit: Audit) -> list[str]:
    """What an audit says of a stack that is not so; that it does not know is no untruth."""
    truth = {("output", case.layers - 1): (case.output, "step")} if case.output else {}
    for layer, rates in case.noise.items():
        for place, rate in rates.items():
            below = "between" if layer else "input"
            site = below if place in ("x", "held_x") else SITES.get(place, place)
            truth[site, layer] = (rate, PLACES[place])
    said = []
    for found in audit.findings:
        if found.verdict != "undecided":
            wrong = _wrong(found, truth.get((found.site.value, found.layer)))
            if wrong:
                said.append(f"{wrong}: {found.site.value} of layer {found.layer}, {found.text()}")
    if audit.evaluation not in ("identity", "undecided"):
        said.append(f"evaluation: {audit.evaluation}")
    return said


def _wrong(found: Finding, truth: tuple[float, str] | None) -> str:
    """What of a finding is not so, or ""."""
    if found.verdict == "whole" or truth is None:
        return "the verdict" if (found.verdict == "whole") != (truth is None) else ""
    (low, high), (rate, per) = widened_interval(found), truth
    wrong: dict[str, Any] = {
        "the rate": not low <= rate <= high,
        "the lifetime": found.per not in (None, per),
        "the scale": found.scaled is False and found.kind == "drop",
        "the note": found.note,
        "shared": found.shared and per != "call",
        "alike": found.alike,
        "gates": found.gates == "untied",
        "frozen": found.frozen,
    }
    return next((name for name, is_so in wrong.items() if is_so), "")
