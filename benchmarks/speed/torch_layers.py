"""What takes part in PyTorch: the stock layer, the stock layer with dropout, cells in a loop."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import dropout_policies_torch as dpt
import torch
from dropout_policies_kernels.cells import CELL_TYPES
from torch import Tensor, nn
from torch.nn import functional

import dropout_policies as dp
from dropout_policies.placement.plans import Geometry, Placement, Plan, plan_masks

from .jobs import Job, Shape, policy_of

RATE = 0.5


def layer(
    job: Job, policy: str, seed: int | None = None, input_size: int | None = None
) -> nn.Module:
    """The library's layer under a policy."""
    shape, kind = job.shape, getattr(dpt, job.cell)
    made: nn.Module = kind(
        input_size or shape.units,
        shape.units,
        shape.layers,
        policy=policy_of(policy, job.cell),
        seed=seed,
    )
    return made


def planned(job: Job, policy: str) -> Plan:
    """The masks of one call."""
    shape, cell = job.shape, CELL_TYPES[job.cell]
    geometry = Geometry(
        shape.units,
        shape.units,
        shape.layers,
        batch=shape.batch,
        steps=shape.steps,
        cell=cell,
    )
    return plan_masks(Placement(policy_of(policy, job.cell)), geometry)


def stock(job: Job, input_size: int | None = None) -> nn.Module:
    """PyTorch's own layer, without dropout."""
    shape, kind = job.shape, getattr(nn, job.cell)
    made: nn.Module = kind(input_size or shape.units, shape.units, shape.layers)
    return made


class WithDropout(nn.Module):
    """The stock kernels with the dropout of a vertical or a weight policy, as one would write it.

    Args:
        job: whose cell and shape.
        vertical: `step` or `sequence`: how long a mask on a vertical connection lives; or None.
        weight: whether recurrent weights are dropped.
        input_size: the width of the input, if it is not that of the layers.
    """

    def __init__(
        self, job: Job, vertical: str | None, weight: bool, input_size: int | None = None
    ) -> None:
        super().__init__()
        self.vertical, self.weight = vertical, weight
        shape, kind = job.shape, getattr(nn, job.cell)
        self.whole = vertical != "sequence" and not weight
        if self.whole:
            rate = RATE if vertical else 0.0
            rate *= shape.layers > 1  # PyTorch warns of dropout between the layers of one
            width = input_size or shape.units
            self.layers = nn.ModuleList([kind(width, shape.units, shape.layers, dropout=rate)])
        else:
            widths = [input_size or shape.units] + [shape.units] * (shape.layers - 1)
            self.layers = nn.ModuleList(kind(width, shape.units) for width in widths)

    def forward(self, x: Tensor) -> tuple[Tensor, Any]:
        end: Any = None
        x = self._dropped(x)
        for one in self.layers:
            x, end = self._without_weights(one, x) if self.weight else one(x)
            x = self._dropped(x)
        return x, end

    def _dropped(self, x: Tensor) -> Tensor:
        if self.vertical is None:
            return x
        if self.vertical == "step":
            return functional.dropout(x, RATE)
        return x * x.new_empty(1, *x.shape[1:]).bernoulli_(1.0 - RATE).div_(1.0 - RATE)

    def _without_weights(self, one: Any, x: Tensor) -> tuple[Tensor, Any]:
        w_ih, w_hh, b_ih, b_hh = one.all_weights[0]
        weights = [w_ih, functional.dropout(w_hh, RATE), b_ih, b_hh]
        h = x.new_zeros(1, x.shape[1], one.hidden_size)
        kernel: Any = getattr(torch, one.mode.lower())
        y, *end = kernel(
            x, (h, h) if one.mode == "LSTM" else h, weights, True, 1, 0.0, True, False, False
        )
        return y, end


def with_dropout(job: Job, policy: str, input_size: int | None = None) -> nn.Module:
    """The stock kernels given the same amount of dropout as a vertical or weight policy."""
    vertical = {"zaremba": "step", "locked": "sequence", "awd": "sequence"}.get(policy)
    return WithDropout(job, vertical, policy in ("weight_drop", "awd"), input_size)


def products(job: Job) -> Callable[[], None]:
    """The matrix products of a training step alone, each of all steps at once: what a step would
    take that does nothing else, and that need not wait for one step's h to compute the next."""
    shape, gates = job.shape, {"LSTM": 4, "GRU": 3}[job.cell] * job.shape.units
    x, grad = (torch.randn(shape.steps * shape.batch, n) for n in (shape.units, gates))
    weight = torch.randn(gates, shape.units)

    def step() -> None:
        for _ in range(2 * shape.layers):  # of the input and of h
            torch.mm(x, weight.t())
            torch.mm(grad, weight)
            torch.mm(grad.t(), x)

    return step


class CellLoop(nn.Module):
    """PyTorch's cells, step by step, with variational masks on the way in and on h."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.shape, kind = job.shape, getattr(nn, f"{job.cell}Cell")
        self.cells = nn.ModuleList(
            kind(job.shape.units, job.shape.units) for _ in range(job.shape.layers)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        for cell in self.cells:
            into, hidden = (
                x.new_empty(x.shape[1:]).bernoulli_(1.0 - RATE).div_(1.0 - RATE) for _ in range(2)
            )
            h = c = x.new_zeros(x.shape[1], self.shape.units)
            outputs = []
            for step in (x * into).unbind(0):
                if isinstance(cell, nn.LSTMCell):
                    h, c = cell(step, (h * hidden, c))
                else:
                    h = cell(step, h * hidden)
                outputs.append(h)
            x = torch.stack(outputs)
        return x, None


class StepLoop(nn.Module):
    """A layer or a cell, called once for every step; perhaps inside `dropout_policies.sequence`.

    Args:
        module: the layer of one layer, or the cell.
        in_scope: whether all steps are one sequence.
    """

    def __init__(self, module: nn.Module, in_scope: bool) -> None:
        super().__init__()
        self.module, self.in_scope = module, in_scope

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        state, outputs = None, []
        with dp.sequence(self.module) if self.in_scope else nullcontext():
            for step in x.unbind(0):
                if isinstance(self.module, nn.RNNCellBase):
                    state = self.module(step, state)
                    outputs.append(state[0] if isinstance(state, tuple) else state)
                else:
                    y, state = self.module(step[None], state)
                    outputs.append(y[0])
        return torch.stack(outputs), None


def training_step(
    module: nn.Module,
    shape: Shape,
    device: str,
    wait: bool = True,
    autocast: torch.dtype | None = None,
    width: int | None = None,
) -> Callable[[], None]:
    """Forward and backward, to every weight and to the input, which an embedding would be; with
    `wait`, until the device is done; the forward pass under autocast, if a type is given; for an
    input as wide as the layer, if no other width is given."""
    generator = torch.Generator().manual_seed(0)
    out = getattr(module, "proj_size", 0) or shape.units
    x, pull = (
        torch.randn(shape.steps, shape.batch, size, generator=generator).to(device)
        for size in (width or shape.units, out)
    )
    x.requires_grad_()
    module.to(device).train()

    pull = pull if autocast is None else pull.to(autocast)

    def step() -> None:
        if autocast is None:
            y, _ = module(x)
        else:
            with torch.autocast(device, autocast):
                y, _ = module(x)
        y.backward(pull)
        module.zero_grad(set_to_none=True)
        x.grad = None
        if wait and device != "cpu":
            torch.cuda.synchronize()

    return step


def evaluation(module: nn.Module, shape: Shape, device: str) -> Callable[[], None]:
    """Forward alone, in evaluation."""
    x = torch.randn(shape.steps, shape.batch, shape.units).to(device)
    module.to(device).eval()

    def step() -> None:
        with torch.no_grad():
            module(x)

    return step
