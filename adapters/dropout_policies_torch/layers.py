"""Drop-in recurrent layers: `torch.nn`'s own, plus `policy`, `rate`, `seed` and `stack`."""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from dropout_policies.adapter import (
    Policy,
    PolicyName,
    Rates,
)

from .policy_layer import resolve_policy
from .recurrent_layer import Recurrent
from .scripting import gru_or_rnn_forward, lstm_forward


class LSTM(Recurrent, nn.LSTM):
    """A drop-in `torch.nn.LSTM` that runs under a dropout policy.

    The input is `[T, B, D]` (`[B, T, D]` if `batch_first`), `[T, D]`, or a `PackedSequence`; what
    comes back is what `torch.nn.LSTM` gives. Without a policy, at rate 0, and in evaluation (where
    the policy's evaluation rule is the identity) it is `torch.nn.LSTM`, bit for bit.

    Args:
        input_size: D, the width of the input.
        hidden_size: H, the width of the state.
        num_layers: how many layers are stacked in this object.
        bias: whether there are biases.
        batch_first: whether input and output are `[B, T, ...]`.
        dropout: PyTorch's own dropout between layers; 0 under a policy, which takes its place.
        bidirectional: whether a second direction runs from the end.
        proj_size: P, the width that h is projected to, or 0.
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

    Attributes:
        calls: how many training calls there were, the call in the masks' key.
        row_offset: the number of this process's first row in the whole batch, for a seed.

    Raises:
        PolicyError: an unknown policy, a rate or seed out of range, a site that the layer does not
            have, or native dropout beside a policy.
    """

    forward = lstm_forward  # type: ignore[assignment] # takes packed input too

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
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
            num_layers=num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            proj_size=proj_size,
            device=device,
            dtype=dtype,
        )
        self._start_policy(choice, seed, stack)


class GRU(Recurrent, nn.GRU):
    """A drop-in `torch.nn.GRU` that runs under a dropout policy.

    The input is `[T, B, D]` (`[B, T, D]` if `batch_first`), `[T, D]`, or a `PackedSequence`; what
    comes back is what `torch.nn.GRU` gives. Without a policy, at rate 0, and in evaluation (where
    the policy's evaluation rule is the identity) it is `torch.nn.GRU`, bit for bit.

    Args:
        input_size: D, the width of the input.
        hidden_size: H, the width of the state.
        num_layers: how many layers are stacked in this object.
        bias: whether there are biases.
        batch_first: whether input and output are `[B, T, ...]`.
        dropout: PyTorch's own dropout between layers; 0 under a policy, which takes its place.
        bidirectional: whether a second direction runs from the end.
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

    Attributes:
        calls: how many training calls there were, the call in the masks' key.
        row_offset: the number of this process's first row in the whole batch, for a seed.

    Raises:
        PolicyError: an unknown policy, a rate or seed out of range, a site that the layer does not
            have, or native dropout beside a policy.
    """

    forward = gru_or_rnn_forward  # type: ignore[assignment]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
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
            num_layers=num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            device=device,
            dtype=dtype,
        )
        self._start_policy(choice, seed, stack)


class RNN(Recurrent, nn.RNN):
    """A drop-in `torch.nn.RNN` that runs under a dropout policy.

    The input is `[T, B, D]` (`[B, T, D]` if `batch_first`), `[T, D]`, or a `PackedSequence`; what
    comes back is what `torch.nn.RNN` gives. Without a policy, at rate 0, and in evaluation (where
    the policy's evaluation rule is the identity) it is `torch.nn.RNN`, bit for bit.

    Args:
        input_size: D, the width of the input.
        hidden_size: H, the width of the state.
        num_layers: how many layers are stacked in this object.
        nonlinearity: `"tanh"` or `"relu"`.
        bias: whether there are biases.
        batch_first: whether input and output are `[B, T, ...]`.
        dropout: PyTorch's own dropout between layers; 0 under a policy, which takes its place.
        bidirectional: whether a second direction runs from the end.
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

    Attributes:
        calls: how many training calls there were, the call in the masks' key.
        row_offset: the number of this process's first row in the whole batch, for a seed.

    Raises:
        PolicyError: an unknown policy, a rate or seed out of range, a site that the layer does not
            have, or native dropout beside a policy.
    """

    forward = gru_or_rnn_forward  # type: ignore[assignment]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: Literal["tanh", "relu"] | str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
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
            num_layers=num_layers,
            nonlinearity=nonlinearity,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            device=device,
            dtype=dtype,
        )
        self._start_policy(choice, seed, stack)
