"""Training steps in PyTorch: beside the stock layer and peers, as shapes grow, with keyed masks."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import dropout_policies_torch as dpt
import torch
from dropout_policies_torch import masks
from torch import nn

import dropout_policies as dp

from .jobs import DROPPED, IN_LOOP, IN_SCOPE, KINDS, Job
from .timing import Seconds, interleaved
from .torch_layers import (
    CellLoop,
    StepLoop,
    evaluation,
    layer,
    planned,
    products,
    stock,
    training_step,
    with_dropout,
)

T = (35, 70, 140, 350, 700, 1400, 2000)
B = (1, 4, 16, 64, 256)


def steps(job: Job) -> Seconds:
    """A policy, the stock layer, and what else could be done in its stead."""
    (policy,) = job.policies
    modules: dict[str, nn.Module] = {"stock": stock(job), policy: layer(job, policy)}
    if policy not in IN_LOOP:
        modules[DROPPED] = with_dropout(job, policy)
    elif policy == "variational":
        modules["cell loop"] = CellLoop(job)
    made = {name: training_step(each, job.shape, job.device) for name, each in modules.items()}
    return interleaved(made | {"products": products(job)}, job.seconds)


SMALL_SIZES = {"B": (1, 8), "T": (1, 35), "H": (16, 64, 128)}
"""All of these together, with an input as wide as the layer."""

WIDE_INPUT = 512
"""The width of an input that is wider than its layer, for some of them."""


def small(job: Job) -> dict[str, Seconds]:
    """A policy and what it is held against, at each of many small sizes, `B T H D`."""
    (policy,) = job.policies
    sizes = [(*size, size[2]) for size in product(*SMALL_SIZES.values())]
    sizes += [(batch, 35, units, WIDE_INPUT) for batch, units in product((1, 8), (16, 128))]
    found = {}
    for batch, steps, units, width in sizes:
        shape = replace(job.shape, batch=batch, steps=steps, units=units)
        here = replace(job, shape=shape)
        other = stock if policy in IN_LOOP else partial(with_dropout, policy=policy)
        made = {
            name: training_step(module, shape, job.device, width=width)
            for name, module in {
                "stock": other(here, input_size=width),
                policy: layer(here, policy, input_size=width),
            }.items()
        }
        times = interleaved(made, job.seconds / len(sizes))
        found[f"B{batch} T{steps} H{units} D{width}"] = times
    return found


def evaluations(job: Job) -> Seconds:
    """Policies with a rule of their own for evaluation, and the stock layer, in evaluation."""
    modules = {"stock": stock(job)} | {name: layer(job, name) for name in job.policies}
    made = {name: evaluation(each, job.shape, job.device) for name, each in modules.items()}
    return interleaved(made, job.seconds)


def layers(job: Job) -> dict[str, Seconds]:
    """Of each kind of layer in `KINDS` a policy and the stock layer."""
    shape = job.shape
    sizes = (shape.units, shape.units, shape.layers)
    found = {}
    for kind in KINDS[job.cell]:
        arguments: dict[str, Any] = {}
        if kind == "projection":
            arguments["proj_size"] = shape.units // 2
        if kind == "relu":
            arguments["nonlinearity"] = kind
        variational = dp.variational(gates="untied" if kind == "untied" else "tied")
        autocast = torch.bfloat16 if kind == "bfloat16" else None
        modules = {
            "stock": getattr(nn, job.cell)(*sizes, **arguments),
            "variational": getattr(dpt, job.cell)(*sizes, policy=variational, **arguments),
        }
        made = {
            name: training_step(module, shape, job.device, autocast=autocast)
            for name, module in modules.items()
        }
        found[kind] = interleaved(made, job.seconds / len(KINDS[job.cell]))
    return found


def growth(job: Job) -> dict[str, dict[str, Seconds]]:
    """A policy and the stock layer, by T and by B; all sizes take turns."""
    (policy,) = job.policies
    shapes = {
        "T": {steps: replace(job.shape, steps=steps) for steps in T},
        "B": {batch: replace(job.shape, batch=batch) for batch in B},
    }
    found: dict[str, dict[str, Seconds]] = {}
    for axis, by_size in shapes.items():
        modules = {"stock": stock(job), policy: layer(job, policy)}
        made = {
            f"{size} {name}": training_step(module, shape, job.device)
            for size, shape in by_size.items()
            for name, module in modules.items()
        }
        found[axis] = {str(size): {} for size in by_size}
        for which, seconds in interleaved(made, job.seconds).items():
            size, name = which.split(" ")
            found[axis][size][name] = seconds
    return found


def keyed_masks(job: Job) -> dict[str, Seconds]:
    """Of each policy: its masks by `bernoulli_`, without a seed and with one, and its step."""
    device, shape = torch.device(job.device), job.shape
    found = {}
    for policy in job.policies:
        wanted = planned(job, policy)

        def drawn(seed: int | None, wanted: Any = wanted) -> None:
            masks.draw(wanted, seed, 0, 0, device, torch.float32)
            if job.device != "cpu":
                torch.cuda.synchronize()

        def plainly(wanted: Any = wanted) -> None:
            for mask in wanted.values():
                torch.empty(mask.shape, device=device).bernoulli_(0.5)
            if job.device != "cpu":
                torch.cuda.synchronize()

        found[policy] = interleaved(
            {
                "bernoulli_": plainly,
                "unkeyed": lambda drawn=drawn: drawn(None),
                "keyed": lambda drawn=drawn: drawn(1),
                "step": training_step(layer(job, policy, seed=1), shape, job.device),
            },
            job.seconds,
        )
    return found


def scopes(job: Job) -> Seconds:
    """A loop over steps, of a layer and of a cell, inside `dropout_policies.sequence` and outside.

    A cell holds no masks outside; so its policy is one of each step there.
    """
    units, cell = job.shape.units, getattr(dpt, f"{job.cell}Cell")
    modules = {f"layer, {policy}": layer(job, policy) for policy in job.policies}
    modules["cell, input"] = cell(units, units, policy=dp.Policy(input=dp.drop(0.5)))
    loops = {
        f"{name}{IN_SCOPE * inside}": training_step(StepLoop(module, inside), job.shape, job.device)
        for name, module in modules.items()
        for inside in (False, True)
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dp.PolicyWarning)  # a loop outside of a scope is told of it
        return interleaved(loops, job.seconds)


def peers(job: Job) -> dict[str, Any]:
    """Other libraries' layers and this one's, each pair with the same masks at the same places."""
    units, layers = job.shape.units, job.shape.layers
    locked = dp.drop(0.5, per="sequence")
    weight = dp.drop(0.5, per="call")
    pairs: dict[str, tuple[Any, dp.Policy]] = {
        "fastai AWD_LSTM": (
            lambda: _fastai(units, layers),
            dp.Policy(input=locked, between=locked, recurrent_weight=weight),
        ),
        "pytorch-nlp WeightDropLSTM": (
            lambda: _pytorch_nlp(units, layers),
            dp.Policy(recurrent_weight=weight),
        ),
        "opacus DPLSTM": (
            lambda: _opacus(units, layers),
            dp.Policy(between=dp.drop(0.5)),
        ),
    }
    found: dict[str, Any] = {}
    for name, (peer, policy) in pairs.items():
        try:
            theirs = peer()
        except ImportError as error:
            found[name] = {"missing": str(error)}
            continue
        ours = dpt.LSTM(units, units, layers, policy=policy)
        found[name] = interleaved(
            {
                "peer": training_step(theirs, job.shape, job.device),
                "ours": training_step(ours, job.shape, job.device),
            },
            job.seconds,
        )
    return found


def _fastai(units: int, layers: int) -> nn.Module:
    from fastai.text.models.awdlstm import AWD_LSTM

    class OfEmbedded(nn.Module):
        """Its layers alone, as ours are called."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = AWD_LSTM(4, units, units, layers, hidden_p=0.5, input_p=0.5, weight_p=0.5)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
            return self.inner(x.transpose(0, 1), from_embeds=True).transpose(0, 1), None

    return OfEmbedded()


def _pytorch_nlp(units: int, layers: int) -> nn.Module:
    from torchnlp.nn import WeightDropLSTM

    made: nn.Module = WeightDropLSTM(units, units, num_layers=layers, weight_dropout=0.5)
    return made


def _opacus(units: int, layers: int) -> nn.Module:
    from opacus.layers import DPLSTM

    made: nn.Module = DPLSTM(units, units, num_layers=layers, dropout=0.5)
    return made
