"""Drop-in recurrent layers: those of `keras.layers`, plus `policy`, `rate`, `seed` and `stack`."""

from __future__ import annotations

from typing import Any, Unpack

import keras

from dropout_policies.adapter import Policy, PolicyName, Rates

from .keras_arguments import (
    Activation,
    Constraint,
    GatedArguments,
    Initializer,
    Regularizer,
    RNNArguments,
    SimpleRNNArguments,
)
from .policy_arguments import resolve_policy
from .recurrent_layer import CudnnRecurrent, Recurrent

__all__ = ["GRU", "LSTM", "RNN", "Recurrent", "SimpleRNN"]


@keras.saving.register_keras_serializable(package="dropout_policies")
class LSTM(CudnnRecurrent, keras.layers.LSTM):  # type: ignore[misc]
    """A drop-in `keras.layers.LSTM` that runs under a dropout policy.

    The input is `[B, T, D]`. The output is `[B, H]`, or `[B, T, H]` with `return_sequences`. The
    states are h and c, each `[B, H]`. Without a policy, at rate 0, and in evaluation (if the
    policy's evaluation is the identity), the layer equals `keras.layers.LSTM` bit for bit.

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
        activity_regularizer: the penalty on the output.
        kernel_constraint: the constraint on `kernel`.
        recurrent_constraint: the constraint on `recurrent_kernel`.
        bias_constraint: the constraint on `bias`.
        dropout: the rate of Keras's own dropout on the input. It must be 0 under a policy.
        recurrent_dropout: the rate of Keras's own dropout on h. It must be 0 under a policy.
        seed: with a policy, an integer in [0, 2**32). Each mask then depends only on (seed, call,
            site, layer, direction, element), and is the same in every framework. None: use Keras's
            generator. Without a policy: the seed of Keras's own dropout.
        return_sequences: whether to return the output of every step, not only the last.
        return_state: whether to return h and c after the last step too.
        go_backwards: whether to read the sequence from its end, and return outputs in that order.
        stateful: whether a batch starts from the final states of the previous batch.
        unroll: whether to build the steps one by one instead of as a loop.
        use_cudnn: whether to run all steps in one cuDNN kernel: True, False, or "auto" (wherever
            this is possible).
        policy: a policy's name, such as `"zaremba"` (`dropout_policies.names()`), or a `Policy`.
            None: use the stock layer.
        rate: the rates, in [0, 1), for a policy given by name. A number, a `Schedule`, a list with
            one of these for each layer of the stack, or a mapping from names of sites to any of
            these: `{"input": 0.4, "hidden": [0.2, 0.3]}`. None: the policy's defaults.
        stack: `(number of the layer, L)` for a layer in a stack of L layers, numbered from 0. None:
            the layer joins the policy layer that feeds it, or is a stack of its own. Pass it inside
            `Bidirectional`, and in a model that has its own `call`.
        **kwargs: `name`, `trainable`, `dtype` and `autocast`, as for every Keras layer;
            `zero_output_for_mask`: whether the output of a padded step is zero instead of the
            previous output; `implementation`: how Keras multiplies without a policy.

    Attributes:
        calls: the number of training calls so far. It is part of the key of the masks. (Without a
            seed and without a schedule: the number of masks drawn so far.)
        row_offset: with a seed, the number of this process's first row in the whole batch.

    Raises:
        PolicyError: the policy is unknown, a rate or the seed is out of range, `stack` or a list of
            rates does not fit, the layer does not have a site of the policy, `rate` or `stack` is
            given without a policy, or `dropout` or `recurrent_dropout` is given with one.
        ValueError: Keras does not know or accept an argument.
    """

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
        activity_regularizer: Regularizer = None,
        kernel_constraint: Constraint = None,
        recurrent_constraint: Constraint = None,
        bias_constraint: Constraint = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        use_cudnn: bool | str = "auto",
        *,
        policy: PolicyName | Policy | None = None,
        rate: Rates | None = None,
        stack: tuple[int, int] | None = None,
        **kwargs: Unpack[GatedArguments],
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
            activity_regularizer=activity_regularizer,
            kernel_constraint=kernel_constraint,
            recurrent_constraint=recurrent_constraint,
            bias_constraint=bias_constraint,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            seed=seed if choice is None else None,
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            unroll=unroll,
            use_cudnn=use_cudnn,
            **kwargs,
        )
        self._start_policy(choice, seed, stack)


@keras.saving.register_keras_serializable(package="dropout_policies")
class GRU(CudnnRecurrent, keras.layers.GRU):  # type: ignore[misc]
    """A drop-in `keras.layers.GRU` that runs under a dropout policy.

    The input is `[B, T, D]`. The output is `[B, H]`, or `[B, T, H]` with `return_sequences`. The
    state is h `[B, H]`. Without a policy, at rate 0, and in evaluation (if the policy's evaluation
    is the identity), the layer equals `keras.layers.GRU` bit for bit.

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
        activity_regularizer: the penalty on the output.
        kernel_constraint: the constraint on `kernel`.
        recurrent_constraint: the constraint on `recurrent_kernel`.
        bias_constraint: the constraint on `bias`.
        dropout: the rate of Keras's own dropout on the input. It must be 0 under a policy.
        recurrent_dropout: the rate of Keras's own dropout on h. It must be 0 under a policy.
        seed: with a policy, an integer in [0, 2**32). Each mask then depends only on (seed, call,
            site, layer, direction, element), and is the same in every framework. None: use Keras's
            generator. Without a policy: the seed of Keras's own dropout.
        return_sequences: whether to return the output of every step, not only the last.
        return_state: whether to return h after the last step too.
        go_backwards: whether to read the sequence from its end, and return outputs in that order.
        stateful: whether a batch starts from the final state of the previous batch.
        unroll: whether to build the steps one by one instead of as a loop.
        reset_after: whether the reset gate is applied after the product with `recurrent_kernel`,
            not before it.
        use_cudnn: whether to run all steps in one cuDNN kernel: True, False, or "auto" (wherever
            this is possible).
        policy: a policy's name, such as `"zaremba"` (`dropout_policies.names()`), or a `Policy`.
            None: use the stock layer.
        rate: the rates, in [0, 1), for a policy given by name. A number, a `Schedule`, a list with
            one of these for each layer of the stack, or a mapping from names of sites to any of
            these: `{"input": 0.4, "hidden": [0.2, 0.3]}`. None: the policy's defaults.
        stack: `(number of the layer, L)` for a layer in a stack of L layers, numbered from 0. None:
            the layer joins the policy layer that feeds it, or is a stack of its own. Pass it inside
            `Bidirectional`, and in a model that has its own `call`.
        **kwargs: `name`, `trainable`, `dtype` and `autocast`, as for every Keras layer;
            `zero_output_for_mask`: whether the output of a padded step is zero instead of the
            previous output; `implementation`: how Keras multiplies without a policy.

    Attributes:
        calls: the number of training calls so far. It is part of the key of the masks. (Without a
            seed and without a schedule: the number of masks drawn so far.)
        row_offset: with a seed, the number of this process's first row in the whole batch.

    Raises:
        PolicyError: the policy is unknown, a rate or the seed is out of range, `stack` or a list of
            rates does not fit, the layer does not have a site of the policy, `rate` or `stack` is
            given without a policy, or `dropout` or `recurrent_dropout` is given with one.
        ValueError: Keras does not know or accept an argument.
    """

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
        activity_regularizer: Regularizer = None,
        kernel_constraint: Constraint = None,
        recurrent_constraint: Constraint = None,
        bias_constraint: Constraint = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        reset_after: bool = True,
        use_cudnn: bool | str = "auto",
        *,
        policy: PolicyName | Policy | None = None,
        rate: Rates | None = None,
        stack: tuple[int, int] | None = None,
        **kwargs: Unpack[GatedArguments],
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
            activity_regularizer=activity_regularizer,
            kernel_constraint=kernel_constraint,
            recurrent_constraint=recurrent_constraint,
            bias_constraint=bias_constraint,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            seed=seed if choice is None else None,
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            unroll=unroll,
            reset_after=reset_after,
            use_cudnn=use_cudnn,
            **kwargs,
        )
        self._start_policy(choice, seed, stack)


@keras.saving.register_keras_serializable(package="dropout_policies")
class SimpleRNN(Recurrent, keras.layers.SimpleRNN):  # type: ignore[misc]
    """A drop-in `keras.layers.SimpleRNN` that runs under a dropout policy.

    The input is `[B, T, D]`. The output is `[B, H]`, or `[B, T, H]` with `return_sequences`. The
    state is h `[B, H]`. Without a policy, at rate 0, and in evaluation (if the policy's evaluation
    is the identity), the layer equals `keras.layers.SimpleRNN` bit for bit.

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
        activity_regularizer: the penalty on the output.
        kernel_constraint: the constraint on `kernel`.
        recurrent_constraint: the constraint on `recurrent_kernel`.
        bias_constraint: the constraint on `bias`.
        dropout: the rate of Keras's own dropout on the input. It must be 0 under a policy.
        recurrent_dropout: the rate of Keras's own dropout on h. It must be 0 under a policy.
        return_sequences: whether to return the output of every step, not only the last.
        return_state: whether to return h after the last step too.
        go_backwards: whether to read the sequence from its end, and return outputs in that order.
        stateful: whether a batch starts from the final state of the previous batch.
        unroll: whether to build the steps one by one instead of as a loop.
        seed: with a policy, an integer in [0, 2**32). Each mask then depends only on (seed, call,
            site, layer, direction, element), and is the same in every framework. None: use Keras's
            generator. Without a policy: the seed of Keras's own dropout.
        policy: a policy's name, such as `"zaremba"` (`dropout_policies.names()`), or a `Policy`.
            None: use the stock layer.
        rate: the rates, in [0, 1), for a policy given by name. A number, a `Schedule`, a list with
            one of these for each layer of the stack, or a mapping from names of sites to any of
            these: `{"input": 0.4, "hidden": [0.2, 0.3]}`. None: the policy's defaults.
        stack: `(number of the layer, L)` for a layer in a stack of L layers, numbered from 0. None:
            the layer joins the policy layer that feeds it, or is a stack of its own. Pass it inside
            `Bidirectional`, and in a model that has its own `call`.
        **kwargs: `name`, `trainable`, `dtype` and `autocast`, as for every Keras layer;
            `zero_output_for_mask`: whether the output of a padded step is zero instead of the
            previous output.

    Attributes:
        calls: the number of training calls so far. It is part of the key of the masks. (Without a
            seed and without a schedule: the number of masks drawn so far.)
        row_offset: with a seed, the number of this process's first row in the whole batch.

    Raises:
        PolicyError: the policy is unknown, a rate or the seed is out of range, `stack` or a list of
            rates does not fit, the layer does not have a site of the policy, `rate` or `stack` is
            given without a policy, or `dropout` or `recurrent_dropout` is given with one.
        ValueError: Keras does not know or accept an argument.
    """

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
        activity_regularizer: Regularizer = None,
        kernel_constraint: Constraint = None,
        recurrent_constraint: Constraint = None,
        bias_constraint: Constraint = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        seed: int | None = None,
        *,
        policy: PolicyName | Policy | None = None,
        rate: Rates | None = None,
        stack: tuple[int, int] | None = None,
        **kwargs: Unpack[SimpleRNNArguments],
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
            activity_regularizer=activity_regularizer,
            kernel_constraint=kernel_constraint,
            recurrent_constraint=recurrent_constraint,
            bias_constraint=bias_constraint,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            seed=seed if choice is None else None,
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            unroll=unroll,
            **kwargs,
        )
        self._start_policy(choice, seed, stack)


@keras.saving.register_keras_serializable(package="dropout_policies")
class RNN(Recurrent, keras.layers.RNN):  # type: ignore[misc]
    """A drop-in `keras.layers.RNN` that runs its cell under a dropout policy.

    The input is `[B, T, D]`. The output is the cell's output `[B, H]`, or `[B, T, H]` with
    `return_sequences`. The cell is one of Keras's, a list of them (which is a stack of its own), or
    one of yours. A policy masks around your own cell, never inside: the input (`input` or
    `between`), the output (`output`), the h that the cell receives (`hidden`), and the h that it
    returns (`state`, `hidden_update`). h is the first state of the cell.

    Args:
        cell: a cell, a list of cells, each of which feeds the next, or a `StackedRNNCells`.
        return_sequences: whether to return the output of every step, not only the last.
        return_state: whether to return the states after the last step too.
        go_backwards: whether to read the sequence from its end, and return outputs in that order.
        stateful: whether a batch starts from the final states of the previous batch.
        unroll: whether to build the steps one by one instead of as a loop.
        zero_output_for_mask: whether the output of a padded step is zero instead of the
            previous output.
        policy: a policy's name, such as `"zaremba"` (`dropout_policies.names()`), or a `Policy`.
            None: use the stock layer.
        rate: the rates, in [0, 1), for a policy given by name. A number, a `Schedule`, a list with
            one of these for each layer of the stack, or a mapping from names of sites to any of
            these: `{"input": 0.4, "hidden": [0.2, 0.3]}`. None: the policy's defaults.
        seed: an integer in [0, 2**32). Each mask then depends only on (seed, call, site, layer,
            direction, element), and is the same in every framework. None: use Keras's generator.
        stack: `(number of the first cell's layer, L)` for cells in a stack of L layers, numbered
            from 0. None: the object joins the policy layer that feeds it, or is a stack of its own.
            Pass it inside `Bidirectional`, and in a model that has its own `call`.
        **kwargs: `activity_regularizer`, the penalty on the output; `name`, `trainable`, `dtype`
            and `autocast`, as for every Keras layer.

    Attributes:
        calls: the number of training calls so far. It is part of the key of the masks. (Without a
            seed and without a schedule: the number of masks drawn so far.)
        row_offset: with a seed, the number of this process's first row in the whole batch.

    Raises:
        PolicyError: the policy is unknown, a rate or the seed is out of range, `stack` or a list of
            rates does not fit, the cell does not have a site of the policy, `rate` or `stack` is
            given without a policy, or a cell has dropout of its own under a policy.
        ValueError: Keras does not know or accept an argument.
    """

    def __init__(
        self,
        cell: Any,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        zero_output_for_mask: bool = False,
        *,
        policy: PolicyName | Policy | None = None,
        rate: Rates | None = None,
        seed: int | None = None,
        stack: tuple[int, int] | None = None,
        **kwargs: Unpack[RNNArguments],
    ) -> None:
        choice = resolve_policy(type(self).__name__, policy, rate, seed, stack=stack)
        # Keras's own layer has no seed, and its error says so.
        unknown = {"seed": seed} if choice is None and seed is not None else {}
        super().__init__(
            cell,
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            unroll=unroll,
            zero_output_for_mask=zero_output_for_mask,
            **kwargs,
            **unknown,
        )
        self._start_policy(choice, seed, stack)
