"""Convolutions as products with matrices: so the oracle's LSTM is a convolutional one too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

import numpy as np
from hypothesis import strategies as st

import dropout_policies as dp
from dropout_policies.placement.plans import Slot
from dropout_policies.reference import Weights

Masks = Mapping[Slot, np.ndarray]


@dataclass(frozen=True)
class Convolution:
    """What a convolutional layer does with its input; without sizes, no convolution.

    The first layer of a stack convolves its input so. All other convolutions, those of states too,
    keep the positions: their padding is "same", their strides and dilation 1.

    Args:
        sizes: of the input's spatial axes.
        kernel: the kernels' size, along each of them.
        stride: along each of them.
        dilation: likewise.
        padding: "same": as few zeros around as give an output for each stride, one more at the end
            where they are odd; "valid": none.
        channels_last: whether a framework that has a choice gets the channels last.
    """

    sizes: tuple[int, ...] = ()
    kernel: tuple[int, ...] = ()
    stride: int = 1
    dilation: int = 1
    padding: Literal["same", "valid"] = "same"
    channels_last: bool = True

    @property
    def output_sizes(self) -> tuple[int, ...]:
        """Of the spatial axes of states and output."""
        if self.padding == "same":
            return tuple(-(-size // self.stride) for size in self.sizes)
        ends = zip(self.sizes, self._reaches, strict=True)
        return tuple((size - reach) // self.stride + 1 for size, reach in ends)

    @property
    def input_positions(self) -> int:
        return prod(self.sizes)

    @property
    def positions(self) -> int:
        return prod(self.output_sizes)

    @property
    def taps(self) -> int:
        return prod(self.kernel)

    @property
    def zeros_around(self) -> tuple[tuple[int, int], ...]:
        """How many zeros come before and after each axis of the input."""
        if self.padding == "valid":
            return ((0, 0),) * len(self.sizes)
        missing = [
            max((out - 1) * self.stride + reach - size, 0)
            for size, out, reach in zip(self.sizes, self.output_sizes, self._reaches, strict=True)
        ]
        return tuple((many // 2, many - many // 2) for many in missing)

    @property
    def of_states(self) -> Convolution:
        """The convolution of what has the positions of a state."""
        return replace(self, sizes=self.output_sizes, stride=1, dilation=1, padding="same")

    @property
    def _reaches(self) -> list[int]:
        """How many positions a kernel reaches over, along each axis."""
        return [self.dilation * (many - 1) + 1 for many in self.kernel]

    def matrix(self, kernel: np.ndarray) -> np.ndarray:
        """The matrix `[G*S', C*S]` of a kernel `[G, C*K]`."""
        into = np.ones((1, 1, 1))
        axes = zip(self.sizes, self.output_sizes, self.kernel, self.zeros_around, strict=True)
        for size, out, many, (before, _) in axes:
            seen = np.zeros((many, out, size))  # 1 where a tap brings a position to an output
            for tap, place in np.ndindex(many, out):
                position = place * self.stride + tap * self.dilation - before
                if 0 <= position < size:
                    seen[tap, place, position] = 1.0
            into = np.kron(into, seen)
        by_tap = kernel.reshape(len(kernel), -1, self.taps)
        matrix = np.einsum("gck,kos->gocs", by_tap, into)
        return matrix.reshape(len(kernel) * into.shape[1], -1)


NO_CONVOLUTION = Convolution()
"""Of layers whose values have no spatial axes."""


def dense_weights(
    convolution: Convolution,
    weights: Sequence[Sequence[Weights]],
    directions: Sequence[int],
    masks: Masks,
) -> list[list[Weights]]:
    """Layers' kernels under their masks, as matrices on flat values."""
    found = []
    for layer, row in enumerate(weights):
        entry = convolution if layer == 0 else convolution.of_states
        dense = []
        for w, direction in zip(row, directions, strict=True):
            hidden = masks.get(Slot(dp.Site.RECURRENT_WEIGHT, layer, direction))
            into = masks.get(Slot(dp.Site.INPUT_WEIGHT, layer, direction))
            dense.append(
                Weights(
                    entry.matrix(w.w_ih if into is None else w.w_ih * into[0]),
                    convolution.of_states.matrix(w.w_hh if hidden is None else w.w_hh * hidden[0]),
                    None if w.bias is None else np.repeat(w.bias, convolution.positions),
                )
            )
        found.append(dense)
    return found


def dense_masks(convolution: Convolution, policy: dp.Policy, masks: Masks) -> dict:
    """Masks on flat values: those of whole channels for each position. Those of weights are in the
    matrices already."""
    found = {}
    for slot, mask in masks.items():
        if slot.site in (dp.Site.RECURRENT_WEIGHT, dp.Site.INPUT_WEIGHT):
            continue
        positions = convolution.positions
        if slot.site is dp.Site.INPUT:
            positions = convolution.input_positions
        is_channel = policy[slot.site].shape == "channel"
        found[slot] = np.repeat(mask, positions, axis=-1) if is_channel else mask
    return found


@st.composite
def convolutions(
    draw: st.DrawFn, axes: int, channels_last: tuple[bool, ...] = (True, False)
) -> Convolution:
    """Convolutions over a number of spatial axes, few positions in all."""
    sizes = tuple(draw(st.integers(2, 5 if axes == 1 else 3)) for _ in range(axes))
    kernel = tuple(draw(st.integers(1, min(size, 3))) for size in sizes)
    stride = draw(st.sampled_from([1, 2]))
    reached = all(2 * (many - 1) < size for many, size in zip(kernel, sizes, strict=True))
    return Convolution(
        sizes,
        kernel,
        stride,
        # Both at once no framework takes.
        draw(st.sampled_from([1, 2])) if stride == 1 and reached else 1,
        draw(st.sampled_from(["same", "valid"])),
        draw(st.sampled_from(channels_last)),
    )
