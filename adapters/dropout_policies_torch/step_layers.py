"""Drop-in cells: `torch.nn`'s own, one step a call, plus `policy`, `rate`, `seed` and `stack`."""

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

    Takes x `[B, D]` or `[D]` and the state (h, c); gives what `torch.nn.LSTMCell` gives. Where h
    leaves the stack, call `mask_output(h)`.

    Args:
        input_size: D, the width of the input.
        hidden_size: H, the width of the state.
        bias: whether there are biases.
        device: where the weights lie.
        dtype: their type.
        policy: a policy's name, such as `"zaremba"` (`dropout_policies.names()`), or a `Policy`.
            None: the stock layer.
        rate: rates for a policy given by name, in [0, 1); its defaults if left out. A number, a
            `Schedule`, a list with one for each layer of the stack, or a mapping from sites' names
            to these: `{"input": 0.4, "hidden": [0.2, 0.3]}`.
        seed: an integer in [0, 2**32). Masks are then a function of (seed, call, site, layer,
            direction, element), the same in every framework. None: PyTorch's own generator.
        stack: `(number of the first layer, L)` for a layer object that is part of a stack of L
            layers, counted from 0. None: the object is a whole stack.

    Raises:
        PolicyError: what `LSTM` raises, or a rule that lives longer than a step.
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

    Takes x `[B, D]` or `[D]` and the state h; gives what `torch.nn.GRUCell` gives. Where h
    leaves the stack, call `mask_output(h)`.

    Args:
        input_size: D, the width of the input.
        hidden_size: H, the width of the state.
        bias: whether there are biases.
        device: where the weights lie.
        dtype: their type.
        policy: a policy's name, such as `"zaremba"` (`dropout_policies.names()`), or a `Policy`.
            None: the stock layer.
        rate: rates for a policy given by name, in [0, 1); its defaults if left out. A number, a
            `Schedule`, a list with one for each layer of the stack, or a mapping from sites' names
            to these: `{"input": 0.4, "hidden": [0.2, 0.3]}`.
        seed: an integer in [0, 2**32). Masks are then a function of (seed, call, site, layer,
            direction, element), the same in every framework. None: PyTorch's own generator.
        stack: `(number of the first layer, L)` for a layer object that is part of a stack of L
            layers, counted from 0. None: the object is a whole stack.

    Raises:
        PolicyError: what `GRU` raises, or a rule that lives longer than a step.
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

    Takes x `[B, D]` or `[D]` and the state h; gives what `torch.nn.RNNCell` gives. Where h
    leaves the stack, call `mask_output(h)`.

    Args:
        input_size: D, the width of the input.
        hidden_size: H, the width of the state.
        bias: whether there are biases.
        nonlinearity: `"tanh"` or `"relu"`.
        device: where the weights lie.
        dtype: their type.
        policy: a policy's name, such as `"zaremba"` (`dropout_policies.names()`), or a `Policy`.
            None: the stock layer.
        rate: rates for a policy given by name, in [0, 1); its defaults if left out. A number, a
            `Schedule`, a list with one for each layer of the stack, or a mapping from sites' names
            to these: `{"input": 0.4, "hidden": [0.2, 0.3]}`.
        seed: an integer in [0, 2**32). Masks are then a function of (seed, call, site, layer,
            direction, element), the same in every framework. None: PyTorch's own generator.
        stack: `(number of the first layer, L)` for a layer object that is part of a stack of L
            layers, counted from 0. None: the object is a whole stack.

    Raises:
        PolicyError: what `RNN` raises, or a rule that lives longer than a step.
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
