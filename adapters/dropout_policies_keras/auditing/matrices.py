"""Convolutional layers as the audit sees them: at one position, where they are plain LSTMs.

The audit gives every position the same input, and reads the first position of the output. Of a
kernel, it uses the matrix of one tap: the tap that leads to that position. The other taps are 0. So
no position sees another, and each one is an LSTM with the channels as its features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from dropout_policies.adapter import Array

from ..layer_cells import spatial_shape_of_state
from ..model_layers import Layer
from ..policy_cells import Cell, is_convolutional


class Matrix(NamedTuple):
    """A weight as the audit sees it.

    Args:
        variable: the weight.
        tap: the index of the matrix in a convolution's kernel `[*K, C, 4*H]`. () for another
            weight, which is used as a whole.
    """

    variable: keras.Variable
    tap: tuple[int, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape `[in, out]` of a matrix, or the shape of a bias."""
        return tuple(self.variable.shape[len(self.tap) :])

    def read(self) -> Array:
        """Read the weight's value."""
        value: Array = ops.convert_to_numpy(self.variable.value).astype(np.float64)[self.tap]
        return value

    def write(self, value: Array) -> None:
        """Write a value to the weight. Other taps become 0."""
        whole = np.zeros(self.variable.shape, np.float32)
        whole[self.tap] = value
        self.variable.assign(whole)


class SpatialAxes(NamedTuple):
    """The spatial axes of the input and output of the audited layer.

    Args:
        sizes: the sizes of the input's axes.
        of_states: the sizes of the axes of the first layer's states.
        channels_last: whether the channels come after the spatial axes.
    """

    sizes: tuple[int, ...] = ()
    of_states: tuple[int, ...] = ()
    channels_last: bool = True

    def spread(self, values: Array, sizes: tuple[int, ...]) -> Array:
        """Copy values `[..., C]` to every position."""
        for size in sizes:
            values = np.repeat(values[..., None], size, axis=-1)
        return np.moveaxis(values, -1 - len(sizes), -1) if self.channels_last else values

    def first_position(self, values: Array) -> Array:
        """Return the first position of a sequence's values `[B, T, ...]`, as `[B, T, C]`."""
        by_channel = np.moveaxis(values, -1, 2) if self.channels_last else values
        first: Array = by_channel.reshape(*by_channel.shape[:3], -1)[..., 0]
        return first


def find_spatial_axes(layers: Sequence[Layer]) -> SpatialAxes:
    """Find the spatial axes of layers. There are none if no layer is convolutional."""
    cells = _convolutional_cells(layers)
    if not cells:
        return SpatialAxes()
    inside, outside = tuple(cells[0].spatial_dims), spatial_shape_of_state(cells[0])
    return SpatialAxes(inside, outside, cells[0].data_format == "channels_last")


def as_matrices(weights: Sequence[keras.Variable], layers: Sequence[Layer]) -> list[Matrix]:
    """Collect the weights that the audit uses: matrices, vectors, and kernels of convolutions.

    Args:
        weights: all weights, in order.
        layers: the layers that the weights belong to.
    """
    taps = {}
    for cell in _convolutional_cells(layers):
        taps[id(cell.kernel)] = _tap_of_input(cell)
        taps[id(cell.recurrent_kernel)] = tuple((size - 1) // 2 for size in cell.kernel_size)
    found = [Matrix(w, taps.get(id(w), ())) for w in weights]
    return [matrix for matrix in found if len(matrix.shape) in (1, 2)]


def _convolutional_cells(layers: Sequence[Layer]) -> list[Cell]:
    cells = (getattr(layer, "cell", None) for layer in layers)
    return [cell for cell in cells if cell is not None and is_convolutional(cell)]


def _tap_of_input(cell: Cell) -> tuple[int, ...]:
    """Return the tap that maps a position of the input to the first position of the output."""
    if cell.padding == "valid":
        return tuple(0 for _ in cell.kernel_size)
    axes = zip(
        *(cell.spatial_dims, spatial_shape_of_state(cell)),
        *(cell.kernel_size, cell.strides, cell.dilation_rate),
        strict=True,
    )
    taps: list[int] = []
    for size, out, taps_there, stride, dilation in axes:
        zeros = max((out - 1) * stride + dilation * (taps_there - 1) + 1 - size, 0)
        taps.append(-(-(zeros // 2) // dilation))
    return tuple(taps)
