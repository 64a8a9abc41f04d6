"""What compiled kernels have in common. A kernel runs all steps of one layer in one direction: in C
on a CPU, in Triton on a GPU; `kernel_selection` chooses one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .kernel_memory import check_memory, make_contiguous
from .operator_arguments import Masks
from .products import RecurrentWeight


class KernelArrays(NamedTuple):
    """The arrays that a kernel reads and fills, all contiguous; the names are those in `steps.c`.

    Args:
        gates: before the forward pass the input's part of the gates, then the gates: of an LSTM
            i, f, g, o `[T, B, 4*H]`, of a GRU r, z, n `[T, B, 3*H]`.
        hs: h of every step, `[T, B, H]`.
        cs: LSTM: c of every step, `[T or 1, B, H]`.
        tanh_cell: LSTM: the tanh of each step's new c, `[T or 1, B, H]`.
        c0: LSTM: the initial c, `[B, H]`.
        hidden_n: GRU: the hidden state's part of n, `[T or 1, B, H]`.
        grad_hs: backward pass: the gradient of the output h of every step, `[T, B, H]`.
        grad_gates: backward pass: the gates' gradients, `[T, B, 4*H]`; of a GRU those of n, r, z
            and `hidden_n`.
        grad_h: backward pass: the gradient of h that passes from step to step, `[B, H]`.
        grad_c: backward pass of an LSTM: the gradient of c that passes from step to step, `[B, H]`.
    """

    gates: Tensor
    hs: Tensor
    cs: Tensor | None = None
    tanh_cell: Tensor | None = None
    c0: Tensor | None = None
    hidden_n: Tensor | None = None
    grad_hs: Tensor | None = None
    grad_gates: Tensor | None = None
    grad_h: Tensor | None = None
    grad_c: Tensor | None = None


class SequenceKernel(ABC):
    """Runs all steps of one layer in one direction.

    Args:
        mode: "lstm" or "gru".
        h0: the initial hidden state, `[B, H]`.
        masks: the masks, each `[T or 1, B or 1, H or 1]`.
        order: the steps in the order in which they run.
        arrays: what the kernel reads and fills.
        saves_every_step: whether `cs`, `tanh_cell` and `hidden_n` hold every step.
    """

    def __init__(
        self,
        mode: str,
        h0: Tensor,
        masks: Masks,
        order: Sequence[int],
        arrays: KernelArrays,
        saves_every_step: bool,
    ) -> None:
        self.mode, self.order, self.saves_every_step = mode, list(order), saves_every_step
        self.h0 = check_memory("h0", make_contiguous(h0), tuple(h0.shape), h0)
        self.masks = [self._expand_mask(mask) for mask in masks.for_kernel]
        self.masked_hidden = torch.empty_like(self.h0)
        """h times its mask, which the next matrix product takes."""
        shapes = self._shapes()
        self.arrays = {
            name: check_memory(name, array, shapes[name], self.h0)
            for name, array in zip(arrays._fields, arrays, strict=True)
            if array is not None
        }

    @property
    def gate_count(self) -> int:
        """How many gates a unit has."""
        return {"lstm": 4, "gru": 3}[self.mode]

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each array."""
        steps, (batch, size) = len(self.order), self.h0.shape
        state, every_step = (batch, size), (steps, batch, size)
        saved = every_step if self.saves_every_step else (1, batch, size)
        return {
            "gates": (steps, batch, self.gate_count * size),
            "hs": every_step,
            "cs": saved,
            "tanh_cell": saved,
            "c0": state,
            "hidden_n": saved,
            "grad_hs": every_step,
            "grad_gates": (steps, batch, 4 * size),
            "grad_h": state,
            "grad_c": state,
        }

    def _expand_mask(self, mask: Tensor | None) -> Tensor | None:
        """A mask `[T or 1, B or 1, H or 1]` as `[T or 1, B, H]`."""
        if mask is None:
            return None
        steps, (batch, size) = len(self.order), self.h0.shape
        expected_steps = 1 if len(mask) == 1 else steps
        expanded = make_contiguous(mask.expand(len(mask), batch, size))
        return check_memory("mask", expanded, (expected_steps, batch, size), self.h0)

    def check_weight(self, recurrent: RecurrentWeight, backward: bool) -> None:
        """Make sure that a weight has the right shape.

        Args:
            recurrent: takes h to its part of the gates, or in the backward pass the gates'
                gradients to that of h.
            backward: whether it is for the backward pass.

        Raises:
            RuntimeError: it is another tensor.
        """
        size = self.h0.shape[1]
        shape = (self.gate_count * size, size)
        shape = shape[::-1] if backward else shape
        check_memory("recurrent weight", recurrent.weight, shape, self.h0, contiguous=False)

    @abstractmethod
    def forward(self, recurrent: RecurrentWeight) -> None:
        """Run the forward pass, which fills all arrays but the gradients.

        Args:
            recurrent: takes the masked h `[B, H]` to its part of the gates.
        """

    @abstractmethod
    def backward(self, recurrent: RecurrentWeight) -> Tensor:
        """Run the backward pass. It fills `grad_gates`; `grad_h` and `grad_c` become the gradients
        of h0 and c0, but for what is returned.

        Args:
            recurrent: takes the gates' gradients of a step to that of the masked h. It takes the
                last columns of `grad_gates`: of a GRU, the first do not belong to the hidden state.

        Returns:
            The gradient of the masked h0, `[B, H]`.
        """


class PerStepKernel(SequenceKernel):
    """Runs one step after another, and between them PyTorch's matrix products."""

    def forward(self, recurrent: RecurrentWeight) -> None:
        self.check_weight(recurrent, backward=False)
        self.mask_initial_hidden(self.order[0])
        steps = [-1, *self.order, -1]
        for previous, t, following in zip(steps, steps[1:], steps[2:], strict=False):
            self.step(t, previous, following, recurrent.multiply(self.masked_hidden))

    def backward(self, recurrent: RecurrentWeight) -> Tensor:
        self.check_weight(recurrent, backward=True)
        grad_masked: Tensor | None = None
        width = recurrent.weight.shape[1]
        grad_hidden_gates = self.arrays["grad_gates"][:, :, -width:].unbind(0)
        steps = [-1, *reversed(self.order), -1]
        for later, t, earlier in zip(steps, steps[1:], steps[2:], strict=False):
            self.step_backward(t, later, earlier, grad_masked)
            grad_masked = recurrent.multiply(grad_hidden_gates[t])
        assert grad_masked is not None, "there is at least one step"
        return grad_masked

    @abstractmethod
    def mask_initial_hidden(self, t: int) -> None:
        """Fill `masked_hidden` with h0 times the mask of step t."""

    @abstractmethod
    def step(self, t: int, previous: int, following: int, hidden_gates: Tensor) -> None:
        """Run step t.

        Args:
            t: the number of the step.
            previous: the number of the step before it, -1 if there is none.
            following: the number of the step after it, -1 if there is none.
            hidden_gates: the hidden state's part of the gates, `[B, 4*H]`, of a GRU `[B, 3*H]`.
        """

    @abstractmethod
    def step_backward(self, t: int, later: int, earlier: int, grad_masked: Tensor | None) -> None:
        """Run the backward pass of step t.

        Args:
            t: the number of the step.
            later: the number of the step whose backward pass ran before, -1 if there is none.
            earlier: the number of the step whose backward pass runs next, -1 if there is none.
            grad_masked: the gradient of the masked h of step t, through the gates of `later`,
                `[B, H]`; None if there is no later step.
        """


def grad_hidden_through_mask(grad_masked: Tensor, mask: Tensor | None, reverse: bool) -> Tensor:
    """The gradient of h0 from that of the masked h0.

    Args:
        grad_masked: the gradient of the masked h0, `[B, H]`.
        mask: the mask at the site `hidden`, `[T or 1, B or 1, H or 1]`.
        reverse: whether steps run from the last to the first.
    """
    return grad_masked if mask is None else grad_masked * mask[-1 if reverse else 0]
