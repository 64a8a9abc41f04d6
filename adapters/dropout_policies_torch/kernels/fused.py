"""What a step does beside its product, in one pass: compiled C on a CPU, Triton on a GPU.

What both have in common; `engine` chooses one of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from .kernel_memory import check, dense
from .products import Recurrent

Masks = Sequence[Tensor | None]
"""hidden, candidate, cell, state, hidden_update, cell_update."""


class Run(ABC):
    """All steps of one layer in one direction.

    Args:
        mode: `lstm` or `gru`.
        h0: the state to start from, `[B, H]`.
        masks: each `[T or 1, B or 1, H or 1]`.
        order: the steps, as they run.
        kept: whether every step has its part of `cs` and `squashed`.
        arrays: contiguous: `acts`, `hs`, `cs`; of an LSTM `squashed` and `c0`; and for the backward
            pass `d_hs`, `d_gates`, `d_h` and of an LSTM `d_c`. All as in the operators; of a GRU,
            `cs` is what the hidden state brings to n.
    """

    def __init__(
        self,
        mode: str,
        h0: Tensor,
        masks: Masks,
        order: Sequence[int],
        kept: bool,
        **arrays: Tensor,
    ) -> None:
        self.mode, self.order, self.kept = mode, list(order), kept
        batch, size = h0.shape
        self.h0 = check("h0", dense(h0), (batch, size), h0)
        self.masks = [None if mask is None else self._mask_of_steps(mask) for mask in masks]
        self.seen = torch.empty_like(self.h0)  # h on its way into the next step's product
        shapes = self._shapes()
        self.arrays = {
            name: check(name, array, shapes[name], self.h0) for name, array in arrays.items()
        }

    @property
    def gates(self) -> int:
        """How many gates a unit has."""
        return {"lstm": 4, "gru": 3}[self.mode]

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each array."""
        steps, (batch, size) = len(self.order), self.h0.shape
        state, every = (batch, size), (steps, batch, size)
        kept = every if self.kept else (1, batch, size)
        return {
            "acts": (steps, batch, self.gates * size),
            "hs": every,
            "cs": kept,
            "squashed": kept,
            "c0": state,
            "d_hs": every,
            "d_gates": (steps, batch, 4 * size),
            "d_h": state,
            "d_c": state,
        }

    def _mask_of_steps(self, mask: Tensor) -> Tensor:
        """A mask `[T or 1, B or 1, H or 1]` as `[T or 1, B, H]`."""
        steps, (batch, size) = len(self.order), self.h0.shape
        number = 1 if len(mask) == 1 else steps
        whole = dense(mask.expand(len(mask), batch, size))
        return check("mask", whole, (number, batch, size), self.h0)

    def check_weight(self, recurrent: Recurrent, backward: bool) -> None:
        """Make sure that a weight takes h to the gates, or in the backward pass their gradients to
        that of h.

        Raises:
            RuntimeError: it does not.
        """
        size = self.h0.shape[1]
        shape = (self.gates * size, size)
        shape = shape[::-1] if backward else shape
        check("recurrent weight", recurrent.weight, shape, self.h0, contiguous=False)

    @abstractmethod
    def forward(self, recurrent: Recurrent) -> None:
        """Fill `hs`, `acts`, `cs` and `squashed`, of which `acts` holds the input's part.

        Args:
            recurrent: takes h as the gates see it `[B, H]` to its part of them.
        """

    @abstractmethod
    def backward(self, recurrent: Recurrent) -> Tensor:
        """Fill `d_gates`, change `d_h` and `d_c` to what is left for the start.

        Args:
            recurrent: takes the gates' gradients of a step to those of h as the gates saw it: the
                last `F` of them, where a GRU's first are not the hidden state's.

        Returns:
            What reached the gates' h of the first step, `[B, H]`; to be added to `d_h`.
        """


class Steps(Run):
    """One step after another, each beside its product."""

    def forward(self, recurrent: Recurrent) -> None:
        self.check_weight(recurrent, backward=False)
        self.start(self.order[0])
        steps = [-1, *self.order, -1]
        for last, t, after in zip(steps, steps[1:], steps[2:], strict=False):
            self.step(t, last, after, recurrent.by(self.seen))

    def backward(self, recurrent: Recurrent) -> Tensor:
        self.check_weight(recurrent, backward=True)
        product: Tensor | None = None
        through = self.arrays["d_gates"][:, :, -recurrent.weight.shape[1] :].unbind(0)
        steps = [-1, *reversed(self.order), -1]
        for later, t, earlier in zip(steps, steps[1:], steps[2:], strict=False):
            self.step_back(t, later, earlier, product)
            product = recurrent.by(through[t])
        assert product is not None, "there is at least one step"
        return product

    @abstractmethod
    def start(self, t: int) -> None:
        """Fill `seen` with h0 as the step t sees it."""

    @abstractmethod
    def step(self, t: int, last: int, after: int, product: Tensor) -> None:
        """Step t, that comes after the step `last` and before the step `after` (-1: none).

        Args:
            t, last, after: numbers of steps.
            product: what h brings to the gates, `[B, 4*H]`, or of a GRU `[B, 3*H]`.
        """

    @abstractmethod
    def step_back(self, t: int, later: int, earlier: int, product: Tensor | None) -> None:
        """The backward pass of step t; `later` is the step that came after it in time.

        Args:
            t, later, earlier: numbers of steps, -1 where there is none.
            product: what `later` brings back to the h that its gates saw, `[B, H]`.
        """


def through(back: Tensor, masks: Masks, backward: bool) -> Tensor:
    """What a product brings back to the state that the first step had, through its mask."""
    hidden = masks[0]
    return back if hidden is None else back * hidden[-1 if backward else 0]
