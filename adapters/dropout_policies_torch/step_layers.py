"""Drop-in cells, one step per call: those of `torch.nn`, plus `policy`, `rate`, `seed`, `stack`."""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from dropout_policies.adapter import (
    Policy,
    PolicyName,
    Rates,
)

from .policy_layer import resolve_policy
from .recurrent_cell import RecurrentCell
from .scripting import gru_cell_forward, lstm_cell_forward, rnn_cell_forward


class LSTMCell(RecurrentCell, nn.LSTMCell):
    """A drop-in `torch.nn.LSTMCell` that runs one step under a dropout policy.

    It takes x `[B, D]` or `[D]` and the state (h, c), and returns what `torch.nn.LSTMCell` does.
    Where h leaves the stack, call `mask_output(h)`.

    Each step counts as a call. Inside `dropout_policies.sequence`, all steps together are one call,
    and only there can masks last longer than a step.

    Args:
        input_size: D, the width of the input.
        hidden_size: H, the width of the state.
        bias: whether there are bias vectors.
        device: the device of the weights.
        dtype: the dtype of the weights.
        policy: a policy's name, such as `"zaremba"` (`dropout_policies.names()`), or a `Policy`.
            None: use the stock layer.
        rate: the rates, in [0, 1), for a policy given by name. A number, a `Schedule`, a list with
            one of these for each layer of the stack, or a mapping from names of sites to any of
            these: `{"input": 0.4, "hidden": [0.2, 0.3]}`. None: the policy's defaults.
        seed: an integer in [0, 2**32). Each mask then depends only on (seed, call, site, layer,
            direction, element), and is the same in every framework. None: use PyTorch's generator.
        stack: `(number of the layer, L)`, for a cell that is part of a stack of L layers. Layers
            are numbered from 0. None: the cell is a stack of its own.

    Attributes:
        calls: the number of training calls so far. It is part of the key of the masks.
        row_offset: with a seed, the number of this process's first row in the whole batch.

    Raises:
        PolicyError: the policy is unknown, a rate or the seed is out of range, the cell does not
            have a site of the policy (it has none on weights), `stack` or a list of rates does not
            fit, or `rate`, `seed` or `stack` is given without a policy. In a call outside
            `dropout_policies.sequence`: masks last longer than a step.
    """

    forward = lstm_cell_forward

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        policy: PolicyName | Policy | None = None,
        rate: Rates | None = None,
        seed: int | None = None,
        stack: tuple[int, int] | None = None,
    ) -> None:
        choice = resolve_policy(type(self).__name__, policy, rate, seed, stack=stack)
        super().__init__(
            input_size,
            hidden_size,
            bias=bias,
            device=device,
            dtype=dtype,
        )
        self._start_policy(choice, seed, stack)


class GRUCell(RecurrentCell, nn.GRUCell):
    """A drop-in `torch.nn.GRUCell` that runs one step under a dropout policy.

    It takes x `[B, D]` or `[D]` and the state h, and returns what `torch.nn.GRUCell` does.
    Where h leaves the stack, call `mask_output(h)`.

    Each step counts as a call. Inside `dropout_policies.sequence`, all steps together are one call,
    and only there can masks last longer than a step.

    Args:
        input_size: D, the width of the input.
        hidden_size: H, the width of the state.
        bias: whether there are bias vectors.
        device: the device of the weights.
        dtype: the dtype of the weights.
        policy: a policy's name, such as `"zaremba"` (`dropout_policies.names()`), or a `Policy`.
            None: use the stock layer.
        rate: the rates, in [0, 1), for a policy given by name. A number, a `Schedule`, a list with
            one of these for each layer of the stack, or a mapping from names of sites to any of
            these: `{"input": 0.4, "hidden": [0.2, 0.3]}`. None: the policy's defaults.
        seed: an integer in [0, 2**32). Each mask then depends only on (seed, call, site, layer,
            direction, element), and is the same in every framework. None: use PyTorch's generator.
        stack: `(number of the layer, L)`, for a cell that is part of a stack of L layers. Layers
            are numbered from 0. None: the cell is a stack of its own.

    Attributes:
        calls: the number of training calls so far. It is part of the key of the masks.
        row_offset: with a seed, the number of this process's first row in the whole batch.

    Raises:
        PolicyError: the policy is unknown, a rate or the seed is out of range, the cell does not
            have a site of the policy (it has none on weights), `stack` or a list of rates does not
            fit, or `rate`, `seed` or `stack` is given without a policy. In a call outside
            `dropout_policies.sequence`: masks last longer than a step.
    """

    forward = gru_cell_forward

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        policy: PolicyName | Policy | None = None,
        rate: Rates | None = None,
        seed: int | None = None,
        stack: tuple[int, int] | None = None,
    ) -> None:
        choice = resolve_policy(type(self).__name__, policy, rate, seed, stack=stack)
        super().__init__(
            input_size,
            hidden_size,
            bias=bias,
            device=device,
            dtype=dtype,
        )
        self._start_policy(choice, seed, stack)


class RNNCell(RecurrentCell, nn.RNNCell):
    """A drop-in `torch.nn.RNNCell` that runs one step under a dropout policy.

    It takes x `[B, D]` or `[D]` and the state h, and returns what `torch.nn.RNNCell` does.
    Where h leaves the stack, call `mask_output(h)`.

    Each step counts as a call. Inside `dropout_policies.sequence`, all steps together are one call,
    and only there can masks last longer than a step.

    Args:
        input_size: D, the width of the input.
        hidden_size: H, the width of the state.
        bias: whether there are bias vectors.
        nonlinearity: `"tanh"` or `"relu"`.
        device: the device of the weights.
        dtype: the dtype of the weights.
        policy: a policy's name, such as `"zaremba"` (`dropout_policies.names()`), or a `Policy`.
            None: use the stock layer.
        rate: the rates, in [0, 1), for a policy given by name. A number, a `Schedule`, a list with
            one of these for each layer of the stack, or a mapping from names of sites to any of
            these: `{"input": 0.4, "hidden": [0.2, 0.3]}`. None: the policy's defaults.
        seed: an integer in [0, 2**32). Each mask then depends only on (seed, call, site, layer,
            direction, element), and is the same in every framework. None: use PyTorch's generator.
        stack: `(number of the layer, L)`, for a cell that is part of a stack of L layers. Layers
            are numbered from 0. None: the cell is a stack of its own.

    Attributes:
        calls: the number of training calls so far. It is part of the key of the masks.
        row_offset: with a seed, the number of this process's first row in the whole batch.

    Raises:
        PolicyError: the policy is unknown, a rate or the seed is out of range, the cell does not
            have a site of the policy (it has none on weights), `stack` or a list of rates does not
            fit, or `rate`, `seed` or `stack` is given without a policy. In a call outside
            `dropout_policies.sequence`: masks last longer than a step.
    """

    forward = rnn_cell_forward

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: Literal["tanh", "relu"] | str = "tanh",
        device: Any = None,
        dtype: Any = None,
        *,
        policy: PolicyName | Policy | None = None,
        rate: Rates | None = None,
        seed: int | None = None,
        stack: tuple[int, int] | None = None,
    ) -> None:
        choice = resolve_policy(type(self).__name__, policy, rate, seed, stack=stack)
        super().__init__(
            input_size,
            hidden_size,
            bias=bias,
            nonlinearity=nonlinearity,
            device=device,
            dtype=dtype,
        )
        self._start_policy(choice, seed, stack)
