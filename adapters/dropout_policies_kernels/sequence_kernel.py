"""The common part of compiled kernels.

A kernel runs all steps of one layer in one direction: in C on a CPU, in Triton on a GPU.
`kernel_selection` chooses a kernel.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from torch import Tensor

from .kernel_memory import check_memory, make_contiguous
from .masked_products import count_masks
from .operator_arguments import Masks
from .products import InputWeight, RecurrentWeight


class KernelArrays(NamedTuple):
    """The arrays that a kernel reads and fills. All are contiguous. `steps.c` uses the same names.

    Args:
        gates: the gates: i, f, g, o of an LSTM `[T, B, 4*H]`, r, z, n of a GRU `[T, B, 3*H]`, or
            the one gate of a simple RNN `[T, B, H]`. Before the forward pass they hold the input's
            part. If the kernel computes that part from `x`, they may have one step, `[1, B, G*H]`.
        hs: h of every step, `[T, B, P]`.
        cs: for an LSTM: c of every step, `[T or 1, B, H]`.
        tanh_cell: for an LSTM: the tanh of each step's new c, `[T or 1, B, H]`.
        c0: for an LSTM: the initial c, `[B, H]`.
        x: for a kernel that computes the input's part of the gates: the input, `[T, B, D]`.
        hidden_n: for a GRU: the hidden state's part of n, `[T or 1, B, H]`.
        grad_hs: for the backward pass: the gradient of the output h of every step, `[T, B, P]`.
        grad_gates: for the backward pass: the gradients of the gates, `[T, B, G*H]`. For a GRU,
            those of n, r, z and `hidden_n`, `[T, B, 4*H]`.
        grad_projected: for the backward pass of an LSTM with a projection: the gradient of every
            step's new h, before mask and zoneout, `[T, B, P]`.
        grad_h: for the backward pass: the gradient of h that passes from step to step, `[B, P]`.
        grad_c: for the backward pass of an LSTM: the gradient of c that passes from step to step,
            `[B, H]`.
    """

    gates: Tensor
    hs: Tensor
    cs: Tensor | None = None
    tanh_cell: Tensor | None = None
    c0: Tensor | None = None
    x: Tensor | None = None
    hidden_n: Tensor | None = None
    grad_hs: Tensor | None = None
    grad_gates: Tensor | None = None
    grad_projected: Tensor | None = None
    grad_h: Tensor | None = None
    grad_c: Tensor | None = None


GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
"""The number of gates of a unit."""

GATE_GRADIENTS = GATES | {"gru": 4}
"""The number of gate gradients of a unit in `grad_gates`."""


class SequenceKernel(ABC):
    """A kernel that runs all steps of one layer in one direction.

    Args:
        mode: "lstm", "gru", "rnn_tanh" or "rnn_relu".
        h0: the initial hidden state, `[B, P]`.
        masks: the masks, each `[T or 1, B or 1, F or 1]`. The mask of h may hold one for each gate.
        order: the steps in the order in which they run.
        arrays: the arrays that the kernel reads and fills.
        saves_every_step: whether `gates`, `cs`, `tanh_cell` and `hidden_n` hold every step.
        input_weight: the weight of the input, for a kernel that computes the input's part of the
            gates. None: `gates` already hold that part.

    Attributes:
        computes_input: whether the kernel is able to compute the input's part of the gates.
        size: H.
        hidden_masks: the number of masked h: 1, or one for each gate.
        masked_hidden: h times its mask, for the next matrix product.
    """

    computes_input: ClassVar[bool] = False

    def __init__(
        self,
        mode: str,
        h0: Tensor,
        masks: Masks,
        order: Sequence[int],
        arrays: KernelArrays,
        saves_every_step: bool,
        input_weight: InputWeight | None = None,
    ) -> None:
        self.mode, self.order, self.saves_every_step = mode, list(order), saves_every_step
        self.input_weight = input_weight
        self.h0 = check_memory("h0", make_contiguous(h0), tuple(h0.shape), h0)
        self.size, (batch, width) = arrays.gates.shape[-1] // GATES[mode], h0.shape
        for_kernel = masks.for_kernel
        self.hidden_masks = count_masks(for_kernel[0], width)
        self.mask_widths = (
            *(self.hidden_masks * width, self.size, self.size),
            *(width, width, self.size),
        )
        """The widths of the masks at `KERNEL_SITES`."""
        self.masks = [
            self._expand_mask(mask, width)
            for mask, width in zip(for_kernel, self.mask_widths, strict=True)
        ]
        self.masked_hidden = self.h0.new_empty(batch, self.hidden_masks * width)
        input_width = 0 if input_weight is None else input_weight.weight.shape[1]
        shapes = self._shapes(input_width)
        self.arrays = {
            name: check_memory(name, array, shapes[name], self.h0)
            for name, array in zip(arrays._fields, arrays, strict=True)
            if array is not None
        }

    def _shapes(self, input_width: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of each array, for an input of this width."""
        steps, (batch, width), size = len(self.order), self.h0.shape, self.size
        saved_steps = steps if self.saves_every_step else 1
        saved = (saved_steps, batch, size)
        gate_steps = steps if self.input_weight is None else saved_steps
        return {
            "x": (steps, batch, input_width),
            "gates": (gate_steps, batch, GATES[self.mode] * size),
            "hs": (steps, batch, width),
            "cs": saved,
            "tanh_cell": saved,
            "c0": (batch, size),
            "hidden_n": saved,
            "grad_hs": (steps, batch, width),
            "grad_gates": (steps, batch, GATE_GRADIENTS[self.mode] * size),
            "grad_projected": (steps, batch, width),
            "grad_h": (batch, width),
            "grad_c": (batch, size),
        }

    def _expand_mask(self, mask: Tensor | None, width: int) -> Tensor | None:
        """Expand a mask `[T or 1, B or 1, F or 1]` to `[T or 1, B, F]`, for a width F."""
        if mask is None:
            return None
        steps, batch = len(self.order), len(self.h0)
        expected_steps = 1 if len(mask) == 1 else steps
        expanded = make_contiguous(mask.expand(len(mask), batch, width))
        return check_memory("mask", expanded, (expected_steps, batch, width), self.h0)

    def check_weights(self, recurrent: RecurrentWeight, projection: Tensor | None) -> None:
        """Make sure that the weights have the right shape, dtype and device.

        Args:
            recurrent: the weight that h is multiplied by.
            projection: the weight of an LSTM's projection, or None.

        Raises:
            RuntimeError: a weight does not.
        """
        width = self.h0.shape[1]
        shape = (GATES[self.mode] * self.size, width)
        check_memory("recurrent weight", recurrent.weight, shape, self.h0, contiguous=False)
        if self.input_weight is not None:
            weight = self.input_weight.weight
            shape = (GATES[self.mode] * self.size, weight.shape[1])
            check_memory("input weight", weight, shape, self.h0, contiguous=False)
        if projection is None:
            check_memory("h0", self.h0, (len(self.h0), self.size), self.h0)
        else:
            shape = (width, self.size)
            check_memory("projection", projection, shape, self.h0, contiguous=False)

    @abstractmethod
    def forward(self, recurrent: RecurrentWeight, projection: Tensor | None = None) -> None:
        """Run the forward pass. It fills all arrays except the gradients.

        Args:
            recurrent: the weight that maps the masked h to its part of the gates.
            projection: the weight of an LSTM's projection, `[P, H]`, or None.
        """

    @abstractmethod
    def backward(self, recurrent: RecurrentWeight, projection: Tensor | None = None) -> Tensor:
        """Run the backward pass.

        It fills `grad_gates` and `grad_projected`. `grad_h` and `grad_c` become the gradients of h0
        and c0, without the part of `grad_h` that goes through the masked h0.

        Args:
            recurrent: the weight that maps the gradients of the gates at a step to the gradient of
                the masked h. It takes the last columns of `grad_gates`. For a GRU, the first
                columns do not belong to the hidden state.
            projection: the weight of an LSTM's projection, `[P, H]`, or None.

        Returns:
            The gradient of the masked h0, `[B, N*P]` for N = `hidden_masks`.
        """


class PerStepKernel(SequenceKernel):
    """A kernel that runs one step after another, with PyTorch's matrix products between them.

    It runs only layers without a projection.
    """

    def forward(self, recurrent: RecurrentWeight, projection: Tensor | None = None) -> None:
        self.check_weights(recurrent, projection)
        self.mask_initial_hidden(self.order[0])
        steps = [-1, *self.order, -1]
        for previous, t, following in zip(steps, steps[1:], steps[2:], strict=False):
            self.step(t, previous, following, recurrent.multiply(self.masked_hidden))

    def backward(self, recurrent: RecurrentWeight, projection: Tensor | None = None) -> Tensor:
        self.check_weights(recurrent, projection)
        grad_masked: Tensor | None = None
        width = len(recurrent.weight)
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
            hidden_gates: the hidden state's part of the gates, `[B, G*H]`.
        """

    @abstractmethod
    def step_backward(self, t: int, later: int, earlier: int, grad_masked: Tensor | None) -> None:
        """Run the backward pass of step t.

        Args:
            t: the number of the step.
            later: the number of the step whose backward pass ran before, -1 if there is none.
            earlier: the number of the step whose backward pass runs next, -1 if there is none.
            grad_masked: the gradient of the masked h of step t, through the gates of `later`,
                `[B, N*H]`. None if there is no later step.
        """
