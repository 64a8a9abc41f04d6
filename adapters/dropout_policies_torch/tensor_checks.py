"""The checks of a layer's tensors before masks are drawn.

If the stock layer refuses a tensor, these checks raise an error of the same type. PyTorch's own
kernels check fewer shapes, and some of them read past the end of a weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from dropout_policies_kernels.cells import CELL_TYPES
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

Shapes = Mapping[str, tuple[int, ...]]
"""The names of parameters, with the shapes that they must have."""


def layer_shapes(layer: nn.RNNBase) -> Shapes:
    """Return the parameters of a recurrent layer, layer by layer and direction by direction."""
    rows = CELL_TYPES[layer.mode].gates * layer.hidden_size
    width = layer.proj_size or layer.hidden_size
    directions = ("", "_reverse")[: 1 + layer.bidirectional]
    shapes: dict[str, tuple[int, ...]] = {}
    for number in range(layer.num_layers):
        input_size = width * len(directions) if number else layer.input_size
        for direction in directions:
            suffix = f"l{number}{direction}"
            shapes |= {
                f"weight_ih_{suffix}": (rows, input_size),
                f"weight_hh_{suffix}": (rows, width),
            }
            if layer.bias:
                shapes |= {f"bias_ih_{suffix}": (rows,), f"bias_hh_{suffix}": (rows,)}
            if layer.proj_size:
                shapes[f"weight_hr_{suffix}"] = (width, layer.hidden_size)
    return shapes


def cell_shapes(cell: nn.RNNCellBase, gates: int) -> Shapes:
    """Return the parameters of a cell with `gates` gates."""
    rows = gates * cell.hidden_size
    shapes: dict[str, tuple[int, ...]] = {
        "weight_ih": (rows, cell.input_size),
        "weight_hh": (rows, cell.hidden_size),
    }
    return shapes | {"bias_ih": (rows,), "bias_hh": (rows,)} if cell.bias else shapes


def check_packed(packed: PackedSequence, has_spatial_axes: bool = False) -> None:
    """Make sure that a packed batch has a row for each step of each sample.

    Args:
        packed: the batch.
        has_spatial_axes: whether the rows may be images as well as vectors.

    Raises:
        RuntimeError: a row is missing or extra, or the data has too few or too many dimensions.
    """
    data, rows = packed.data, int(packed.batch_sizes.sum())
    if data.dim() < 2 or (data.dim() > 2 and not has_spatial_axes):
        raise RuntimeError(f"input must have 2 dimensions, got {data.dim()}")
    if len(data) != rows:
        raise RuntimeError(
            f"a PackedSequence must have a row for each step of each sample, {rows} in all. "
            f"Received: data of shape {list(data.shape)}"
        )


def check_tensors(
    layer: nn.Module, shapes: Shapes, x: Tensor, states: Sequence[Tensor] | None
) -> None:
    """Make sure that a layer can run on an input and initial states.

    Args:
        layer: the layer whose parameters are checked.
        shapes: the names and shapes of its parameters.
        x: the input, of any shape.
        states: the initial states, or None. Their shapes are not checked.

    Raises:
        RuntimeError: a parameter has a wrong shape, dtype or device, or a state has a wrong dtype
            or device. Under autocast, dtypes may differ.
        NotImplementedError: the input, a state or a parameter is sparse, nested, quantized or in
            oneDNN's layout. The weight of the input may be sparse.
        TypeError: a parameter is missing, or a state is not a tensor.
    """
    name = type(layer).__name__
    _check_dense(f"{name}: the input", x)
    autocast = x.device.type != "meta" and torch.is_autocast_enabled(x.device.type)
    for parameter, shape in shapes.items():
        weight = getattr(layer, parameter, None)
        if not isinstance(weight, Tensor):
            raise TypeError(f"{name}: {parameter} must be a tensor. Received: {weight!r}")
        if weight.device != x.device:
            raise RuntimeError(
                f"Input and parameter tensors are not at the same device, found input tensor at "
                f"{x.device} and parameter tensor at {weight.device} ({name}.{parameter})"
            )
        if not parameter.startswith("weight_ih"):
            _check_dense(f"{name}: {parameter}", weight)
        if weight.shape != shape:
            raise RuntimeError(
                f"{name}: {parameter} must have the shape {list(shape)}. Received: "
                f"{list(weight.shape)}"
            )
        if weight.dtype != x.dtype and not autocast:
            raise RuntimeError(
                f"{name}: parameters must be of the input's type. Received: {parameter} of "
                f"{weight.dtype} and an input of {x.dtype}; write: layer.to({x.dtype})"
            )
    for state in states or ():
        if not isinstance(state, Tensor):
            raise TypeError(f"{name}: a state must be a tensor. Received: {state!r}")
        _check_dense(f"{name}: a state", state)
        if state.device != x.device:
            raise RuntimeError(
                f"Input and hidden tensors are not at the same device, found input tensor at "
                f"{x.device} and hidden tensor at {state.device}"
            )
        if state.dtype != x.dtype and not autocast:
            raise RuntimeError(
                f"Input and hidden tensors are not the same dtype, found input tensor with "
                f"{x.dtype} and hidden tensor with {state.dtype}"
            )


def _check_dense(name: str, x: Tensor) -> None:
    if x.layout is torch.strided and not x.is_nested and not x.is_quantized:
        return
    kind = "nested" if x.is_nested else "quantized" if x.is_quantized else str(x.layout)
    raise NotImplementedError(
        f"{name} must be a dense tensor. Received: a tensor that is {kind}; write: x.to_dense(), "
        f"or nn.utils.rnn.pack_padded_sequence for samples of several lengths"
    )
