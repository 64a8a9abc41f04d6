"""Drop-in cells, one step per call: those of `keras.layers`, plus `policy`, `rate` and `stack`."""

from __future__ import annotations

from typing import Any, Unpack

import keras

from dropout_policies.adapter import Policy, PolicyName, Rates, cell_types

from .keras_arguments import (
    Activation,
    CellArguments,
    Constraint,
    Initializer,
    LayerArguments,
    Regularizer,
)
from .policy_arguments import resolve_policy
from .recurrent_cell import RecurrentCell
from .tracing import Tensor


@keras.saving.register_keras_serializable(package="dropout_policies.cells")
class LSTMCell(RecurrentCell, keras.layers.LSTMCell):  # type: ignore[misc]
    """A drop-in `keras.layers.LSTMCell` that runs one step under a dropout policy.

    It takes x `[B, D]` and the states (h and c, each `[B, H]`), and returns the output `[B, H]` and
    the new states. A mask at `output` is only on the output, and the states stay unmasked. Without
    a policy, at rate 0, and in evaluation (if the policy's evaluation is the identity), the cell
    equals `keras.layers.LSTMCell` bit for bit.

    Each step counts as a call. Inside `dropout_policies.sequence`, all steps together are one call,
    and only there can masks last longer than a step.

    Args:
        units: H, the width of the state.
        activation: the activation of the candidate, and of the cell state before the output gate.
        recurrent_activation: the activation of the gates i, f and o.
        use_bias: whether the gates have a bias.
        kernel_initializer: the initializer of `kernel` `[D, 4*H]`, which multiplies the input.
        recurrent_initializer: the initializer of `recurrent_kernel` `[H, 4*H]`, which multiplies h.
        bias_initializer: the initializer of `bias` `[4*H]`.
        unit_forget_bias: whether the bias of the forget gate starts at 1.
        kernel_regularizer: the penalty on `kernel`.
        recurrent_regularizer: the penalty on `recurrent_kernel`.
        bias_regularizer: the penalty on `bias`.
        kernel_constraint: the constraint on `kernel`.
        recurrent_constraint: the constraint on `recurrent_kernel`.
        bias_constraint: the constraint on `bias`.
        dropout: the rate of Keras's own dropout on the input. It must be 0 under a policy.
        recurrent_dropout: the rate of Keras's own dropout on h. It must be 0 under a policy.
        seed: with a policy, an integer in [0, 2**32). Each mask then depends only on (seed, call,
            site, layer, direction, element), and is the same in every framework. None: use Keras's
            generator. Without a policy: the seed of Keras's own dropout.
        policy: a policy's name, such as `"zaremba"` (`dropout_policies.names()`), or a `Policy`.
            None: use the stock layer.
        rate: the rates, in [0, 1), for a policy given by name. A number, a `Schedule`, a list with
            one of these for each layer of the stack, or a mapping from names of sites to any of
            these: `{"input": 0.4, "hidden": [0.2, 0.3]}`. None: the policy's defaults.
        stack: `(number of the layer, L)` for a cell in a stack of L layers, numbered from 0. None:
            the cell is a stack of its own.
        **kwargs: `name`, `trainable`, `dtype` and `autocast`, as for every Keras layer;
            `implementation`: how Keras multiplies without a policy.

    Attributes:
        calls: the number of training calls so far. It is part of the key of the masks.
        row_offset: with a seed, the number of this process's first row in the whole batch.

    Raises:
        PolicyError: the policy is unknown, a rate or the seed is out of range, `stack` or a list of
            rates does not fit, the cell does not have a site of the policy, `rate` or `stack` is
            given without a policy, or `dropout` or `recurrent_dropout` is given with one.
        ValueError: Keras does not know or accept an argument.
    """

    cell_type = cell_types.LSTM

    def __init__(
        self,
        units: int,
        activation: Activation = "tanh",
        recurrent_activation: Activation = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Initializer = "glorot_uniform",
        recurrent_initializer: Initializer = "orthogonal",
        bias_initializer: Initializer = "zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer: Regularizer = None,
        recurrent_regularizer: Regularizer = None,
        bias_regularizer: Regularizer = None,
        kernel_constraint: Constraint = None,
        recurrent_constraint: Constraint = None,
        bias_constraint: Constraint = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        *,
        policy: PolicyName | Policy | None = None,
        rate: Rates | None = None,
        stack: tuple[int, int] | None = None,
        **kwargs: Unpack[CellArguments],
    ) -> None:
        choice = resolve_policy(type(self).__name__, policy, rate, seed, stack=stack)
        super().__init__(
            units,
            activation=activation,
            recurrent_activation=recurrent_activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            recurrent_initializer=recurrent_initializer,
            bias_initializer=bias_initializer,
            unit_forget_bias=unit_forget_bias,
            kernel_regularizer=kernel_regularizer,
            recurrent_regularizer=recurrent_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            recurrent_constraint=recurrent_constraint,
            bias_constraint=bias_constraint,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            seed=seed if choice is None else None,
            **kwargs,
        )
        self._start_policy(choice, seed, stack)

    def call(self, inputs: Tensor, states: Any, training: bool = False) -> Any:
        """Run one step.

        Args:
            inputs: x `[B, D]`.
            states: h and c, each `[B, H]`.
            training: whether the call is in training mode.

        Returns:
            The output `[B, H]`, and the new states.

        Raises:
            PolicyError: masks last longer than a step and the call is not inside
                `dropout_policies.sequence`, the call is inside a compiled loop of JAX, or see
                `PolicyLayer.masks`.
        """
        return self.run(inputs, states, training)


@keras.saving.register_keras_serializable(package="dropout_policies.cells")
class GRUCell(RecurrentCell, keras.layers.GRUCell):  # type: ignore[misc]
    """A drop-in `keras.layers.GRUCell` that runs one step under a dropout policy.

    It takes x `[B, D]` and the states (h `[B, H]`), and returns the output `[B, H]` and
    the new states. A mask at `output` is only on the output, and the states stay unmasked. Without
    a policy, at rate 0, and in evaluation (if the policy's evaluation is the identity), the cell
    equals `keras.layers.GRUCell` bit for bit.

    Each step counts as a call. Inside `dropout_policies.sequence`, all steps together are one call,
    and only there can masks last longer than a step.

    Args:
        units: H, the width of the state.
        activation: the activation of the candidate.
        recurrent_activation: the activation of the gates z and r.
        use_bias: whether the gates have a bias.
        kernel_initializer: the initializer of `kernel` `[D, 3*H]`, which multiplies the input.
        recurrent_initializer: the initializer of `recurrent_kernel` `[H, 3*H]`, which multiplies h.
        bias_initializer: the initializer of `bias`: `[2, 3*H]` with `reset_after`, else `[3*H]`.
        kernel_regularizer: the penalty on `kernel`.
        recurrent_regularizer: the penalty on `recurrent_kernel`.
        bias_regularizer: the penalty on `bias`.
        kernel_constraint: the constraint on `kernel`.
        recurrent_constraint: the constraint on `recurrent_kernel`.
        bias_constraint: the constraint on `bias`.
        dropout: the rate of Keras's own dropout on the input. It must be 0 under a policy.
        recurrent_dropout: the rate of Keras's own dropout on h. It must be 0 under a policy.
        reset_after: whether the reset gate is applied after the product with `recurrent_kernel`,
            not before it.
        seed: with a policy, an integer in [0, 2**32). Each mask then depends only on (seed, call,
            site, layer, direction, element), and is the same in every framework. None: use Keras's
            generator. Without a policy: the seed of Keras's own dropout.
        policy: a policy's name, such as `"zaremba"` (`dropout_policies.names()`), or a `Policy`.
            None: use the stock layer.
        rate: the rates, in [0, 1), for a policy given by name. A number, a `Schedule`, a list with
            one of these for each layer of the stack, or a mapping from names of sites to any of
            these: `{"input": 0.4, "hidden": [0.2, 0.3]}`. None: the policy's defaults.
        stack: `(number of the layer, L)` for a cell in a stack of L layers, numbered from 0. None:
            the cell is a stack of its own.
        **kwargs: `name`, `trainable`, `dtype` and `autocast`, as for every Keras layer;
            `implementation`: how Keras multiplies without a policy.

    Attributes:
        calls: the number of training calls so far. It is part of the key of the masks.
        row_offset: with a seed, the number of this process's first row in the whole batch.

    Raises:
        PolicyError: the policy is unknown, a rate or the seed is out of range, `stack` or a list of
            rates does not fit, the cell does not have a site of the policy, `rate` or `stack` is
            given without a policy, or `dropout` or `recurrent_dropout` is given with one.
        ValueError: Keras does not know or accept an argument.
    """

    cell_type = cell_types.GRU

    def __init__(
        self,
        units: int,
        activation: Activation = "tanh",
        recurrent_activation: Activation = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Initializer = "glorot_uniform",
        recurrent_initializer: Initializer = "orthogonal",
        bias_initializer: Initializer = "zeros",
        kernel_regularizer: Regularizer = None,
        recurrent_regularizer: Regularizer = None,
        bias_regularizer: Regularizer = None,
        kernel_constraint: Constraint = None,
        recurrent_constraint: Constraint = None,
        bias_constraint: Constraint = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        reset_after: bool = True,
        seed: int | None = None,
        *,
        policy: PolicyName | Policy | None = None,
        rate: Rates | None = None,
        stack: tuple[int, int] | None = None,
        **kwargs: Unpack[CellArguments],
    ) -> None:
        choice = resolve_policy(type(self).__name__, policy, rate, seed, stack=stack)
        super().__init__(
            units,
            activation=activation,
            recurrent_activation=recurrent_activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            recurrent_initializer=recurrent_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            recurrent_regularizer=recurrent_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            recurrent_constraint=recurrent_constraint,
            bias_constraint=bias_constraint,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            reset_after=reset_after,
            seed=seed if choice is None else None,
            **kwargs,
        )
        self._start_policy(choice, seed, stack)

    def call(self, inputs: Tensor, states: Any, training: bool = False) -> Any:
        """Run one step.

        Args:
            inputs: x `[B, D]`.
            states: h `[B, H]`.
            training: whether the call is in training mode.

        Returns:
            The output `[B, H]`, and the new states.

        Raises:
            PolicyError: masks last longer than a step and the call is not inside
                `dropout_policies.sequence`, the call is inside a compiled loop of JAX, or see
                `PolicyLayer.masks`.
        """
        return self.run(inputs, states, training)


@keras.saving.register_keras_serializable(package="dropout_policies.cells")
class SimpleRNNCell(RecurrentCell, keras.layers.SimpleRNNCell):  # type: ignore[misc]
    """A drop-in `keras.layers.SimpleRNNCell` that runs one step under a dropout policy.

    It takes x `[B, D]` and the states (h `[B, H]`), and returns the output `[B, H]` and
    the new states. A mask at `output` is only on the output, and the states stay unmasked. Without
    a policy, at rate 0, and in evaluation (if the policy's evaluation is the identity), the cell
    equals `keras.layers.SimpleRNNCell` bit for bit.

    Each step counts as a call. Inside `dropout_policies.sequence`, all steps together are one call,
    and only there can masks last longer than a step.

    Args:
        units: H, the width of the state.
        activation: the activation of the new h.
        use_bias: whether there is a bias.
        kernel_initializer: the initializer of `kernel` `[D, H]`, which multiplies the input.
        recurrent_initializer: the initializer of `recurrent_kernel` `[H, H]`, which multiplies h.
        bias_initializer: the initializer of `bias` `[H]`.
        kernel_regularizer: the penalty on `kernel`.
        recurrent_regularizer: the penalty on `recurrent_kernel`.
        bias_regularizer: the penalty on `bias`.
        kernel_constraint: the constraint on `kernel`.
        recurrent_constraint: the constraint on `recurrent_kernel`.
        bias_constraint: the constraint on `bias`.
        dropout: the rate of Keras's own dropout on the input. It must be 0 under a policy.
        recurrent_dropout: the rate of Keras's own dropout on h. It must be 0 under a policy.
        seed: with a policy, an integer in [0, 2**32). Each mask then depends only on (seed, call,
            site, layer, direction, element), and is the same in every framework. None: use Keras's
            generator. Without a policy: the seed of Keras's own dropout.
        policy: a policy's name, such as `"zaremba"` (`dropout_policies.names()`), or a `Policy`.
            None: use the stock layer.
        rate: the rates, in [0, 1), for a policy given by name. A number, a `Schedule`, a list with
            one of these for each layer of the stack, or a mapping from names of sites to any of
            these: `{"input": 0.4, "hidden": [0.2, 0.3]}`. None: the policy's defaults.
        stack: `(number of the layer, L)` for a cell in a stack of L layers, numbered from 0. None:
            the cell is a stack of its own.
        **kwargs: `name`, `trainable`, `dtype` and `autocast`, as for every Keras layer.

    Attributes:
        calls: the number of training calls so far. It is part of the key of the masks.
        row_offset: with a seed, the number of this process's first row in the whole batch.

    Raises:
        PolicyError: the policy is unknown, a rate or the seed is out of range, `stack` or a list of
            rates does not fit, the cell does not have a site of the policy, `rate` or `stack` is
            given without a policy, or `dropout` or `recurrent_dropout` is given with one.
        ValueError: Keras does not know or accept an argument.
    """

    cell_type = cell_types.RNN

    def __init__(
        self,
        units: int,
        activation: Activation = "tanh",
        use_bias: bool = True,
        kernel_initializer: Initializer = "glorot_uniform",
        recurrent_initializer: Initializer = "orthogonal",
        bias_initializer: Initializer = "zeros",
        kernel_regularizer: Regularizer = None,
        recurrent_regularizer: Regularizer = None,
        bias_regularizer: Regularizer = None,
        kernel_constraint: Constraint = None,
        recurrent_constraint: Constraint = None,
        bias_constraint: Constraint = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        *,
        policy: PolicyName | Policy | None = None,
        rate: Rates | None = None,
        stack: tuple[int, int] | None = None,
        **kwargs: Unpack[LayerArguments],
    ) -> None:
        choice = resolve_policy(type(self).__name__, policy, rate, seed, stack=stack)
        super().__init__(
            units,
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            recurrent_initializer=recurrent_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            recurrent_regularizer=recurrent_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            recurrent_constraint=recurrent_constraint,
            bias_constraint=bias_constraint,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            seed=seed if choice is None else None,
            **kwargs,
        )
        self._start_policy(choice, seed, stack)

    def call(self, sequence: Tensor, states: Any, training: bool = False) -> Any:
        """Run one step.

        Args:
            sequence: x `[B, D]`.
            states: h `[B, H]`.
            training: whether the call is in training mode.

        Returns:
            The output `[B, H]`, and the new states.

        Raises:
            PolicyError: masks last longer than a step and the call is not inside
                `dropout_policies.sequence`, the call is inside a compiled loop of JAX, or see
                `PolicyLayer.masks`.
        """
        return self.run(sequence, states, training)
