"""Drop-in convolutional LSTMs: those of `keras.layers`, plus `policy`, `rate` and `stack`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import keras

from dropout_policies.adapter import Policy, PolicyName, Rates

from .keras_arguments import Activation, Constraint, Initializer, LayerArguments, Regularizer
from .policy_arguments import resolve_policy
from .recurrent_layer import Recurrent


class ConvLSTM(Recurrent):
    """The common part of the drop-in convolutional LSTMs: a mixin before one of Keras's."""

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: int | Sequence[int] = 1,
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
        *,
        policy: PolicyName | Policy | None = None,
        rate: Rates | None = None,
        stack: tuple[int, int] | None = None,
        **kwargs: Unpack[LayerArguments],
    ) -> None:
        choice = resolve_policy(type(self).__name__, policy, rate, seed, stack=stack)
        super().__init__(  # type: ignore[misc]
            filters,  # type: ignore[call-arg]
            kernel_size,
            strides=strides,
            padding=padding,
            data_format=data_format,
            dilation_rate=dilation_rate,
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
            **kwargs,
        )
        self._start_policy(choice, seed, stack)


@keras.saving.register_keras_serializable(package="dropout_policies")
class ConvLSTM1D(ConvLSTM, keras.layers.ConvLSTM1D):  # type: ignore[misc]
    """A drop-in `keras.layers.ConvLSTM1D` that runs under a dropout policy.

    The input is `[B, T, S, D]`. The output is `[B, S', H]`, or `[B, T, S', H]` with
    `return_sequences`. The states are h and c, each `[B, S', H]`.
    Without a policy, at rate 0, and in evaluation (if the policy's evaluation is the identity), the
    layer equals `keras.layers.ConvLSTM1D` bit for bit. With `data_format="channels_first"`, the
    channels D and H come before the spatial axes.

    A rule with `shape="channel"` masks whole feature maps. A rule with `shape="element"` masks each
    element. Masks of weights are on single entries of the kernels.

    Args:
        filters: H, the number of channels of the output and of the states.
        kernel_size: K, the size of the kernels of both convolutions.
        strides: the strides of the convolution of the input.
        padding: `"valid"` or `"same"`, for the convolution of the input. For h it is `"same"`.
        data_format: `"channels_last"` or `"channels_first"`. None: the setting of Keras.
        dilation_rate: the dilation rate of the convolution of the input.
        activation: the activation of the candidate, and of the cell state before the output gate.
        recurrent_activation: the activation of the gates i, f and o.
        use_bias: whether the gates have a bias.
        kernel_initializer: the initializer of `kernel` `[*K, D, 4*H]`, for the input.
        recurrent_initializer: the initializer of `recurrent_kernel` `[*K, H, 4*H]`, for h.
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
        policy: a policy's name, such as `"zaremba"` (`dropout_policies.names()`), or a `Policy`.
            None: use the stock layer.
        rate: the rates, in [0, 1), for a policy given by name. A number, a `Schedule`, a list with
            one of these for each layer of the stack, or a mapping from names of sites to any of
            these: `{"input": 0.4, "hidden": [0.2, 0.3]}`. None: the policy's defaults.
        stack: `(number of the layer, L)` for a layer in a stack of L layers, numbered from 0. None:
            the layer joins the policy layer that feeds it, or is a stack of its own. Pass it inside
            `Bidirectional`, and in a model that has its own `call`.
        **kwargs: `name`, `trainable`, `dtype` and `autocast`, as for every Keras layer.

    Attributes:
        calls: the number of training calls so far. It is part of the key of the masks. (Without a
            seed and without a schedule: the number of masks drawn so far.)
        row_offset: with a seed, the number of this process's first row in the whole batch.

    Raises:
        PolicyError: the policy is unknown, a rate or the seed is out of range, `stack` or a list of
            rates does not fit, `rate` or `stack` is given without a policy, or `dropout` or
            `recurrent_dropout` is given with one.
        ValueError: Keras does not know or accept an argument.
    """


@keras.saving.register_keras_serializable(package="dropout_policies")
class ConvLSTM2D(ConvLSTM, keras.layers.ConvLSTM2D):  # type: ignore[misc]
    """A drop-in `keras.layers.ConvLSTM2D` that runs under a dropout policy.

    The input is `[B, T, R, C, D]`, with R rows and C columns. The output is `[B, R', C', H]`, or
    `[B, T, R', C', H]` with `return_sequences`. The states are h and c, each `[B, R', C', H]`.
    Without a policy, at rate 0, and in evaluation (if the policy's evaluation is the identity), the
    layer equals `keras.layers.ConvLSTM2D` bit for bit. With `data_format="channels_first"`, the
    channels D and H come before the spatial axes.

    A rule with `shape="channel"` masks whole feature maps. A rule with `shape="element"` masks each
    element. Masks of weights are on single entries of the kernels.

    Args:
        filters: H, the number of channels of the output and of the states.
        kernel_size: K, the size of the kernels of both convolutions.
        strides: the strides of the convolution of the input.
        padding: `"valid"` or `"same"`, for the convolution of the input. For h it is `"same"`.
        data_format: `"channels_last"` or `"channels_first"`. None: the setting of Keras.
        dilation_rate: the dilation rate of the convolution of the input.
        activation: the activation of the candidate, and of the cell state before the output gate.
        recurrent_activation: the activation of the gates i, f and o.
        use_bias: whether the gates have a bias.
        kernel_initializer: the initializer of `kernel` `[*K, D, 4*H]`, for the input.
        recurrent_initializer: the initializer of `recurrent_kernel` `[*K, H, 4*H]`, for h.
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
        policy: a policy's name, such as `"zaremba"` (`dropout_policies.names()`), or a `Policy`.
            None: use the stock layer.
        rate: the rates, in [0, 1), for a policy given by name. A number, a `Schedule`, a list with
            one of these for each layer of the stack, or a mapping from names of sites to any of
            these: `{"input": 0.4, "hidden": [0.2, 0.3]}`. None: the policy's defaults.
        stack: `(number of the layer, L)` for a layer in a stack of L layers, numbered from 0. None:
            the layer joins the policy layer that feeds it, or is a stack of its own. Pass it inside
            `Bidirectional`, and in a model that has its own `call`.
        **kwargs: `name`, `trainable`, `dtype` and `autocast`, as for every Keras layer.

    Attributes:
        calls: the number of training calls so far. It is part of the key of the masks. (Without a
            seed and without a schedule: the number of masks drawn so far.)
        row_offset: with a seed, the number of this process's first row in the whole batch.

    Raises:
        PolicyError: the policy is unknown, a rate or the seed is out of range, `stack` or a list of
            rates does not fit, `rate` or `stack` is given without a policy, or `dropout` or
            `recurrent_dropout` is given with one.
        ValueError: Keras does not know or accept an argument.
    """


@keras.saving.register_keras_serializable(package="dropout_policies")
class ConvLSTM3D(ConvLSTM, keras.layers.ConvLSTM3D):  # type: ignore[misc]
    """A drop-in `keras.layers.ConvLSTM3D` that runs under a dropout policy.

    The input is `[B, T, X, Y, Z, D]`. The output is `[B, X', Y', Z', H]`, or
    `[B, T, X', Y', Z', H]` with `return_sequences`. The states are h and c, each
    `[B, X', Y', Z', H]`.
    Without a policy, at rate 0, and in evaluation (if the policy's evaluation is the identity), the
    layer equals `keras.layers.ConvLSTM3D` bit for bit. With `data_format="channels_first"`, the
    channels D and H come before the spatial axes.

    A rule with `shape="channel"` masks whole feature maps. A rule with `shape="element"` masks each
    element. Masks of weights are on single entries of the kernels.

    Args:
        filters: H, the number of channels of the output and of the states.
        kernel_size: K, the size of the kernels of both convolutions.
        strides: the strides of the convolution of the input.
        padding: `"valid"` or `"same"`, for the convolution of the input. For h it is `"same"`.
        data_format: `"channels_last"` or `"channels_first"`. None: the setting of Keras.
        dilation_rate: the dilation rate of the convolution of the input.
        activation: the activation of the candidate, and of the cell state before the output gate.
        recurrent_activation: the activation of the gates i, f and o.
        use_bias: whether the gates have a bias.
        kernel_initializer: the initializer of `kernel` `[*K, D, 4*H]`, for the input.
        recurrent_initializer: the initializer of `recurrent_kernel` `[*K, H, 4*H]`, for h.
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
        policy: a policy's name, such as `"zaremba"` (`dropout_policies.names()`), or a `Policy`.
            None: use the stock layer.
        rate: the rates, in [0, 1), for a policy given by name. A number, a `Schedule`, a list with
            one of these for each layer of the stack, or a mapping from names of sites to any of
            these: `{"input": 0.4, "hidden": [0.2, 0.3]}`. None: the policy's defaults.
        stack: `(number of the layer, L)` for a layer in a stack of L layers, numbered from 0. None:
            the layer joins the policy layer that feeds it, or is a stack of its own. Pass it inside
            `Bidirectional`, and in a model that has its own `call`.
        **kwargs: `name`, `trainable`, `dtype` and `autocast`, as for every Keras layer.

    Attributes:
        calls: the number of training calls so far. It is part of the key of the masks. (Without a
            seed and without a schedule: the number of masks drawn so far.)
        row_offset: with a seed, the number of this process's first row in the whole batch.

    Raises:
        PolicyError: the policy is unknown, a rate or the seed is out of range, `stack` or a list of
            rates does not fit, `rate` or `stack` is given without a policy, or `dropout` or
            `recurrent_dropout` is given with one.
        ValueError: Keras does not know or accept an argument.
    """
