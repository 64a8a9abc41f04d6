"""The layers' `forward`, in a form that TorchScript compiles like that of the stock layer.

TorchScript reads the source of a method and compiles only the branch of `torch.jit.is_scripting()`.
That branch cannot call the stock method. The stock method is overloaded for packed input, which
TorchScript supports only in the class that defines it. So a scripted layer takes no packed input.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from dropout_policies.adapter import (
    PolicyError,
)


def _zero_state(x: Tensor, batch_first: bool, count: int, width: int) -> Tensor:
    """Return zeros `[L*K, B, H]`, the initial state if none is given."""
    batch = x.size(0 if batch_first else 1)
    return torch.zeros(count, batch, width, dtype=x.dtype, device=x.device)


# TorchScript skips the Python branch only if it is an `else`.
# ruff: noqa: RET505


def lstm_forward(
    self: Any, input: Tensor, hx: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Run the layer.

    Args:
        input: `[T, B, D]` (`[B, T, D]` if `batch_first`), `[T, D]`, or packed.
        hx: the initial states h `[L*K, B, P]` and c `[L*K, B, H]`. None: zeros.

    Returns:
        The h of the last layer at every step, laid out like the input, and the last states (h, c).
    """
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        batched, first = input.dim() == 3, self.batch_first
        x = input if batched else input.unsqueeze(0 if first else 1)
        if hx is None:
            count = self.num_layers * (2 if self.bidirectional else 1)
            width = self.proj_size if self.proj_size > 0 else self.hidden_size
            states = (
                _zero_state(x, first, count, width),
                _zero_state(x, first, count, self.hidden_size),
            )
        else:
            states = hx if batched else (hx[0].unsqueeze(1), hx[1].unsqueeze(1))
        self.check_forward_args(x, states, None)
        y, h, c = torch.lstm(
            x, [states[0], states[1]], self._flat_weights, self.bias, self.num_layers,
            self.dropout, self.training, self.bidirectional, first,
        )  # fmt: skip
        if batched:
            return y, (h, c)
        return y.squeeze(0 if first else 1), (h.squeeze(1), c.squeeze(1))
    else:
        return self.call(input, hx)  # type: ignore[no-any-return]


def gru_or_rnn_forward(self: Any, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Run the layer.

    Args:
        input: `[T, B, D]` (`[B, T, D]` if `batch_first`), `[T, D]`, or packed.
        hx: the initial state h `[L*K, B, H]`. None: zeros.

    Returns:
        The h of the last layer at every step, laid out like the input, and the last state.
    """
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        batched, first = input.dim() == 3, self.batch_first
        x = input if batched else input.unsqueeze(0 if first else 1)
        if hx is None:
            count = self.num_layers * (2 if self.bidirectional else 1)
            h = _zero_state(x, first, count, self.hidden_size)
        else:
            h = hx if batched else hx.unsqueeze(1)
        self.check_forward_args(x, h, None)
        weights, layers, both = self._flat_weights, self.num_layers, self.bidirectional
        bias, dropout, training = self.bias, self.dropout, self.training
        if self.mode == "GRU":
            y, h = torch.gru(x, h, weights, bias, layers, dropout, training, both, first)
        elif self.mode == "RNN_TANH":
            y, h = torch.rnn_tanh(x, h, weights, bias, layers, dropout, training, both, first)
        else:
            y, h = torch.rnn_relu(x, h, weights, bias, layers, dropout, training, both, first)
        return (y, h) if batched else (y.squeeze(0 if first else 1), h.squeeze(1))
    else:
        return self.call(input, hx)  # type: ignore[no-any-return]


def _cell_input(input: Tensor) -> Tensor:
    """Return a cell's input as `[B, D]`."""
    if input.dim() not in (1, 2):
        raise ValueError("a cell takes an input of 1 or 2 dimensions")
    return input if input.dim() == 2 else input.unsqueeze(0)


def _cell_state(x: Tensor, h: Tensor | None, size: int) -> Tensor:
    """Return a cell's state as `[B, H]`. If there is none, return zeros."""
    if h is None:
        return torch.zeros(x.size(0), size, dtype=x.dtype, device=x.device)
    return h if h.dim() == 2 else h.unsqueeze(0)


def lstm_cell_forward(
    self: Any, input: Tensor, hx: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Take one step.

    Args:
        input: `[B, D]` or `[D]`.
        hx: the states (h, c), each `[B, H]` or `[H]`. None: zeros.

    Returns:
        The new states (h, c).
    """
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        x = _cell_input(input)
        states = [
            _cell_state(x, None if hx is None else hx[0], self.hidden_size),
            _cell_state(x, None if hx is None else hx[1], self.hidden_size),
        ]
        h, c = torch.lstm_cell(
            x, states, self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh
        )
        return (h, c) if input.dim() == 2 else (h.squeeze(0), c.squeeze(0))
    else:
        return self.call(input, hx)  # type: ignore[no-any-return]


def gru_cell_forward(self: Any, input: Tensor, hx: Tensor | None = None) -> Tensor:
    """Take one step.

    Args:
        input: `[B, D]` or `[D]`.
        hx: the state h `[B, H]` or `[H]`. None: zeros.

    Returns:
        The new state h.
    """
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        x = _cell_input(input)
        h = _cell_state(x, hx, self.hidden_size)
        h = torch.gru_cell(x, h, self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        return h if input.dim() == 2 else h.squeeze(0)
    else:
        return self.call(input, hx)  # type: ignore[no-any-return]


def rnn_cell_forward(self: Any, input: Tensor, hx: Tensor | None = None) -> Tensor:
    """Take one step. The arguments and the result are those of a GRU cell."""
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        x = _cell_input(input)
        h = _cell_state(x, hx, self.hidden_size)
        w_ih, w_hh, b_ih, b_hh = self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh
        if self.nonlinearity == "tanh":
            h = torch.rnn_tanh_cell(x, h, w_ih, w_hh, b_ih, b_hh)
        else:
            h = torch.rnn_relu_cell(x, h, w_ih, w_hh, b_ih, b_hh)
        return h if input.dim() == 2 else h.squeeze(0)
    else:
        return self.call(input, hx)  # type: ignore[no-any-return]


def embedding_forward(self: Any, input: Tensor) -> Tensor:
    """Look up tokens.

    Args:
        input: `[T, B]`, or `[B, T]` if `batch_first`. If all samples drop the same word types, it
            may have any shape.

    Returns:
        A row for each token, `[..., F]`.
    """
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        return torch.nn.functional.embedding(
            input, self.weight, self.padding_idx, self.max_norm, self.norm_type,
            self.scale_grad_by_freq, self.sparse,
        )  # fmt: skip
    else:
        return self.call(input)  # type: ignore[no-any-return]


def check_scriptable(module: Any) -> None:
    """Make sure that a scripted layer, which is the stock layer, computes the same as the module.

    Raises:
        PolicyError: a policy is active.
    """
    if module.is_active:
        policy = module.placement.policy
        ways = (
            "call eval() first"
            if policy.evaluation == "identity"
            else "remove the policy first, or use torch.jit.trace in evaluation"
        )
        raise PolicyError(
            f"{type(module).__name__}: a scripted layer is the stock layer, and policy "
            f"{policy.name!r} would be lost. To script the model, {ways}; to train it, leave it "
            f"as it is."
        )


def symbolic_call(module: Any, *arguments: Any) -> Any:
    """Return a graph node that calls the module as a whole. None if torch.fx is not tracing."""
    for argument in arguments:
        parts = argument if isinstance(argument, tuple | list) else (argument,)
        for part in parts:
            if isinstance(part, fx.Proxy):
                path = part.tracer.path_of_module(module)  # type: ignore[attr-defined]
                given = tuple(each for each in arguments if each is not None)
                return part.tracer.create_proxy("call_module", path, given, {})
    return None
