"""Drop-in recurrent layers: those of `torch.nn`, plus `policy`, `rate`, `seed` and `stack`."""

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

    The input is `[T, B, D]` (`[B, T, D]` if `batch_first`), `[T, D]`, or a `PackedSequence`. The
    output is that of `torch.nn.LSTM`. Without a policy, at rate 0, and in evaluation (if the
    policy's evaluation is the identity), it equals `torch.nn.LSTM` bit for bit.

    Args:
        input_size: D, the width of the input.
        hidden_size: H, the width of the state.
        num_layers: how many layers are stacked in this object.
        bias: whether there are bias vectors.
        batch_first: whether input and output are `[B, T, ...]`.
        dropout: PyTorch's own dropout between layers. It must be 0 under a policy.
        bidirectional: whether a second direction reads the sequence from its end.
        proj_size: P, the width that h is projected to. 0: no projection.
        device: the device of the weights.
        dtype: the dtype of the weights.
        policy: a policy's name, such as `"zaremba"` (`dropout_policies.names()`), or a `Policy`.
            None: use the stock layer.
        rate: the rates, in [0, 1), for a policy given by name. A number, a `Schedule`, a list with
            one of these for each layer of the stack, or a mapping from names of sites to any of
            these: `{"input": 0.4, "hidden": [0.2, 0.3]}`. None: the policy's defaults.
        seed: an integer in [0, 2**32). Each mask then depends only on (seed, call, site, layer,
            direction, element), and is the same in every framework. None: use PyTorch's generator.
        stack: `(number of the first layer, L)`, for an object that is part of a larger stack of L
            layers. Layers are numbered from 0. None: the object is a stack of its own.

    Attributes:
        calls: the number of training calls so far. It is part of the key of the masks.
        row_offset: with a seed, the number of this process's first row in the whole batch.

    Raises:
        PolicyError: the policy is unknown, a rate or the seed is out of range, the layer does not
            have a site of the policy, `stack` or a list of rates does not fit, `dropout` is given
            with a policy, or `rate`, `seed` or `stack` is given without one.
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

    The input is `[T, B, D]` (`[B, T, D]` if `batch_first`), `[T, D]`, or a `PackedSequence`. The
    output is that of `torch.nn.GRU`. Without a policy, at rate 0, and in evaluation (if the
    policy's evaluation is the identity), it equals `torch.nn.GRU` bit for bit.

    Args:
        input_size: D, the width of the input.
        hidden_size: H, the width of the state.
        num_layers: how many layers are stacked in this object.
        bias: whether there are bias vectors.
        batch_first: whether input and output are `[B, T, ...]`.
        dropout: PyTorch's own dropout between layers. It must be 0 under a policy.
        bidirectional: whether a second direction reads the sequence from its end.
        device: the device of the weights.
        dtype: the dtype of the weights.
        policy: a policy's name, such as `"zaremba"` (`dropout_policies.names()`), or a `Policy`.
            None: use the stock layer.
        rate: the rates, in [0, 1), for a policy given by name. A number, a `Schedule`, a list with
            one of these for each layer of the stack, or a mapping from names of sites to any of
            these: `{"input": 0.4, "hidden": [0.2, 0.3]}`. None: the policy's defaults.
        seed: an integer in [0, 2**32). Each mask then depends only on (seed, call, site, layer,
            direction, element), and is the same in every framework. None: use PyTorch's generator.
        stack: `(number of the first layer, L)`, for an object that is part of a larger stack of L
            layers. Layers are numbered from 0. None: the object is a stack of its own.

    Attributes:
        calls: the number of training calls so far. It is part of the key of the masks.
        row_offset: with a seed, the number of this process's first row in the whole batch.

    Raises:
        PolicyError: the policy is unknown, a rate or the seed is out of range, the layer does not
            have a site of the policy, `stack` or a list of rates does not fit, `dropout` is given
            with a policy, or `rate`, `seed` or `stack` is given without one.
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

    The input is `[T, B, D]` (`[B, T, D]` if `batch_first`), `[T, D]`, or a `PackedSequence`. The
    output is that of `torch.nn.RNN`. Without a policy, at rate 0, and in evaluation (if the
    policy's evaluation is the identity), it equals `torch.nn.RNN` bit for bit.

    Args:
        input_size: D, the width of the input.
        hidden_size: H, the width of the state.
        num_layers: how many layers are stacked in this object.
        nonlinearity: `"tanh"` or `"relu"`.
        bias: whether there are bias vectors.
        batch_first: whether input and output are `[B, T, ...]`.
        dropout: PyTorch's own dropout between layers. It must be 0 under a policy.
        bidirectional: whether a second direction reads the sequence from its end.
        device: the device of the weights.
        dtype: the dtype of the weights.
        policy: a policy's name, such as `"zaremba"` (`dropout_policies.names()`), or a `Policy`.
            None: use the stock layer.
        rate: the rates, in [0, 1), for a policy given by name. A number, a `Schedule`, a list with
            one of these for each layer of the stack, or a mapping from names of sites to any of
            these: `{"input": 0.4, "hidden": [0.2, 0.3]}`. None: the policy's defaults.
        seed: an integer in [0, 2**32). Each mask then depends only on (seed, call, site, layer,
            direction, element), and is the same in every framework. None: use PyTorch's generator.
        stack: `(number of the first layer, L)`, for an object that is part of a larger stack of L
            layers. Layers are numbered from 0. None: the object is a stack of its own.

    Attributes:
        calls: the number of training calls so far. It is part of the key of the masks.
        row_offset: with a seed, the number of this process's first row in the whole batch.

    Raises:
        PolicyError: the policy is unknown, a rate or the seed is out of range, the layer does not
            have a site of the policy, `stack` or a list of rates does not fit, `dropout` is given
            with a policy, or `rate`, `seed` or `stack` is given without one.
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
