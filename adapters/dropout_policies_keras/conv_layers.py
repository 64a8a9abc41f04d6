"""Drop-in convolutional LSTMs: `keras.layers`' own, plus `policy`, `rate` and `stack`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import keras

from dropout_policies.adapter import Policy, PolicyName, Rates

from .keras_arguments import Activation, Constraint, Initializer, LayerArguments, Regularizer
from .policy_arguments import resolve_policy
from .recurrent_layer import Recurrent


class ConvLSTM(Recurrent):
    """What the drop-in convolutional LSTMs have in common; a mixin before one of Keras's."""

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

    From `[B, T, S, D]` to `[B, S', H]`, or to `[B, T, S', H]` with `return_sequences`; the states
    are h and c, each `[B, S', H]`.
    Without a policy, at rate 0, and in evaluation (where the policy's evaluation rule is the
    identity) it is `keras.layers.ConvLSTM1D`, bit for bit. With `data_format="channels_first"`
    the channels D and H come before the spatial axes.

    A rule with `shape="channel"` masks whole feature maps, and one with `shape="element"` each
    element; masks of weights fall on single entries of the kernels.

    Args:
        filters: H, the channels of the output and of the states.
        kernel_size: K, the size of the convolutions' kernels.
        strides: of the convolution of the input.
        padding: of the convolution of the input, `"valid"` or `"same"`; that of h is `"same"`.
        data_format: `"channels_last"` or `"channels_first"`. None: what Keras is configured for.
        dilation_rate: of the convolution of the input.
        activation: of the candidate and of the cell state on its way into the output.
        recurrent_activation: of the gates i, f and o.
        use_bias: whether the gates have a bias.
        kernel_initializer: of `kernel` `[*K, D, 4*H]`, which the input is convolved with.
        recurrent_initializer: of `recurrent_kernel` `[*K, H, 4*H]`, which h is convolved with.
        bias_initializer: of `bias` `[4*H]`.
        unit_forget_bias: whether the bias of the forget gate starts at 1.
        kernel_regularizer: penalty on `kernel`.
        recurrent_regularizer: penalty on `recurrent_kernel`.
        bias_regularizer: penalty on `bias`.
        activity_regularizer: penalty on the output.
        kernel_constraint: constraint on `kernel`.
        recurrent_constraint: constraint on `recurrent_kernel`.
        bias_constraint: constraint on `bias`.
        dropout: rate of Keras's own dropout on the input; 0 under a policy.
        recurrent_dropout: rate of Keras's own dropout on h; 0 under a policy.
        seed: with a policy, an integer in [0, 2**32). Masks are then a function of (seed, call,
            site, layer, direction, element), the same in every framework. None: Keras's own
            generator. Without a policy: the seed of Keras's own dropout.
        return_sequences: whether to return the output of every step, not only the last.
        return_state: whether to return h and c after the last step too.
        go_backwards: whether to read the sequence from its end, and return it in that order.
        stateful: whether a batch starts from the states that the batch before it ended with.
        policy: a policy's name, such as `"zaremba"` (`dropout_policies.names()`), or a `Policy`.
            None: the stock layer.
        rate: rates for a policy given by name, in [0, 1); its defaults if left out. A number, a
            `Schedule`, a list with one for each layer of the stack, or a mapping from sites' names
            to these: `{"input": 0.4, "hidden": [0.2, 0.3]}`.
        stack: `(number of the layer, L)` for a layer in a stack of L layers, counted from 0. None:
            it joins the policy layer that feeds it, or is a stack of its own. Give it inside
            `Bidirectional`, and in a model with a `call` of its own.
        **kwargs: `name`, `trainable`, `dtype` and `autocast`, as every layer of Keras takes them.

    Attributes:
        calls: how many training calls there were, the call in the masks' key. (With neither a seed
            nor a schedule, which need it, how many masks were drawn.)
        row_offset: the number of this process's first row in the whole batch, for a seed.

    Raises:
        PolicyError: an unknown policy, a rate or seed out of range, a stack that does not hold the
            layer, `rate` or `stack` without a policy, or `dropout` or `recurrent_dropout` with one.
        ValueError: an argument that Keras does not know or accept.
    """


@keras.saving.register_keras_serializable(package="dropout_policies")
class ConvLSTM2D(ConvLSTM, keras.layers.ConvLSTM2D):  # type: ignore[misc]
    """A drop-in `keras.layers.ConvLSTM2D` that runs under a dropout policy.

    From `[B, T, R, C, D]`, with rows and columns, to `[B, R', C', H]`, or to `[B, T, R', C', H]`
    with `return_sequences`; the states are h and c, each `[B, R', C', H]`.
    Without a policy, at rate 0, and in evaluation (where the policy's evaluation rule is the
    identity) it is `keras.layers.ConvLSTM2D`, bit for bit. With `data_format="channels_first"`
    the channels D and H come before the spatial axes.

    A rule with `shape="channel"` masks whole feature maps, and one with `shape="element"` each
    element; masks of weights fall on single entries of the kernels.

    Args:
        filters: H, the channels of the output and of the states.
        kernel_size: K, the size of the convolutions' kernels.
        strides: of the convolution of the input.
        padding: of the convolution of the input, `"valid"` or `"same"`; that of h is `"same"`.
        data_format: `"channels_last"` or `"channels_first"`. None: what Keras is configured for.
        dilation_rate: of the convolution of the input.
        activation: of the candidate and of the cell state on its way into the output.
        recurrent_activation: of the gates i, f and o.
        use_bias: whether the gates have a bias.
        kernel_initializer: of `kernel` `[*K, D, 4*H]`, which the input is convolved with.
        recurrent_initializer: of `recurrent_kernel` `[*K, H, 4*H]`, which h is convolved with.
        bias_initializer: of `bias` `[4*H]`.
        unit_forget_bias: whether the bias of the forget gate starts at 1.
        kernel_regularizer: penalty on `kernel`.
        recurrent_regularizer: penalty on `recurrent_kernel`.
        bias_regularizer: penalty on `bias`.
        activity_regularizer: penalty on the output.
        kernel_constraint: constraint on `kernel`.
        recurrent_constraint: constraint on `recurrent_kernel`.
        bias_constraint: constraint on `bias`.
        dropout: rate of Keras's own dropout on the input; 0 under a policy.
        recurrent_dropout: rate of Keras's own dropout on h; 0 under a policy.
        seed: with a policy, an integer in [0, 2**32). Masks are then a function of (seed, call,
            site, layer, direction, element), the same in every framework. None: Keras's own
            generator. Without a policy: the seed of Keras's own dropout.
        return_sequences: whether to return the output of every step, not only the last.
        return_state: whether to return h and c after the last step too.
        go_backwards: whether to read the sequence from its end, and return it in that order.
        stateful: whether a batch starts from the states that the batch before it ended with.
        policy: a policy's name, such as `"zaremba"` (`dropout_policies.names()`), or a `Policy`.
            None: the stock layer.
        rate: rates for a policy given by name, in [0, 1); its defaults if left out. A number, a
            `Schedule`, a list with one for each layer of the stack, or a mapping from sites' names
            to these: `{"input": 0.4, "hidden": [0.2, 0.3]}`.
        stack: `(number of the layer, L)` for a layer in a stack of L layers, counted from 0. None:
            it joins the policy layer that feeds it, or is a stack of its own. Give it inside
            `Bidirectional`, and in a model with a `call` of its own.
        **kwargs: `name`, `trainable`, `dtype` and `autocast`, as every layer of Keras takes them.

    Attributes:
        calls: how many training calls there were, the call in the masks' key. (With neither a seed
            nor a schedule, which need it, how many masks were drawn.)
        row_offset: the number of this process's first row in the whole batch, for a seed.

    Raises:
        PolicyError: an unknown policy, a rate or seed out of range, a stack that does not hold the
            layer, `rate` or `stack` without a policy, or `dropout` or `recurrent_dropout` with one.
        ValueError: an argument that Keras does not know or accept.
    """


@keras.saving.register_keras_serializable(package="dropout_policies")
class ConvLSTM3D(ConvLSTM, keras.layers.ConvLSTM3D):  # type: ignore[misc]
    """A drop-in `keras.layers.ConvLSTM3D` that runs under a dropout policy.

    From `[B, T, X, Y, Z, D]` to `[B, X', Y', Z', H]`, or to `[B, T, X', Y', Z', H]` with
    `return_sequences`; the states are h and c, each `[B, X', Y', Z', H]`.
    Without a policy, at rate 0, and in evaluation (where the policy's evaluation rule is the
    identity) it is `keras.layers.ConvLSTM3D`, bit for bit. With `data_format="channels_first"`
    the channels D and H come before the spatial axes.

    A rule with `shape="channel"` masks whole feature maps, and one with `shape="element"` each
    element; masks of weights fall on single entries of the kernels.

    Args:
        filters: H, the channels of the output and of the states.
        kernel_size: K, the size of the convolutions' kernels.
        strides: of the convolution of the input.
        padding: of the convolution of the input, `"valid"` or `"same"`; that of h is `"same"`.
        data_format: `"channels_last"` or `"channels_first"`. None: what Keras is configured for.
        dilation_rate: of the convolution of the input.
        activation: of the candidate and of the cell state on its way into the output.
        recurrent_activation: of the gates i, f and o.
        use_bias: whether the gates have a bias.
        kernel_initializer: of `kernel` `[*K, D, 4*H]`, which the input is convolved with.
        recurrent_initializer: of `recurrent_kernel` `[*K, H, 4*H]`, which h is convolved with.
        bias_initializer: of `bias` `[4*H]`.
        unit_forget_bias: whether the bias of the forget gate starts at 1.
        kernel_regularizer: penalty on `kernel`.
        recurrent_regularizer: penalty on `recurrent_kernel`.
        bias_regularizer: penalty on `bias`.
        activity_regularizer: penalty on the output.
        kernel_constraint: constraint on `kernel`.
        recurrent_constraint: constraint on `recurrent_kernel`.
        bias_constraint: constraint on `bias`.
        dropout: rate of Keras's own dropout on the input; 0 under a policy.
        recurrent_dropout: rate of Keras's own dropout on h; 0 under a policy.
        seed: with a policy, an integer in [0, 2**32). Masks are then a function of (seed, call,
            site, layer, direction, element), the same in every framework. None: Keras's own
            generator. Without a policy: the seed of Keras's own dropout.
        return_sequences: whether to return the output of every step, not only the last.
        return_state: whether to return h and c after the last step too.
        go_backwards: whether to read the sequence from its end, and return it in that order.
        stateful: whether a batch starts from the states that the batch before it ended with.
        policy: a policy's name, such as `"zaremba"` (`dropout_policies.names()`), or a `Policy`.
            None: the stock layer.
        rate: rates for a policy given by name, in [0, 1); its defaults if left out. A number, a
            `Schedule`, a list with one for each layer of the stack, or a mapping from sites' names
            to these: `{"input": 0.4, "hidden": [0.2, 0.3]}`.
        stack: `(number of the layer, L)` for a layer in a stack of L layers, counted from 0. None:
            it joins the policy layer that feeds it, or is a stack of its own. Give it inside
            `Bidirectional`, and in a model with a `call` of its own.
        **kwargs: `name`, `trainable`, `dtype` and `autocast`, as every layer of Keras takes them.

    Attributes:
        calls: how many training calls there were, the call in the masks' key. (With neither a seed
            nor a schedule, which need it, how many masks were drawn.)
        row_offset: the number of this process's first row in the whole batch, for a seed.

    Raises:
        PolicyError: an unknown policy, a rate or seed out of range, a stack that does not hold the
            layer, `rate` or `stack` without a policy, or `dropout` or `recurrent_dropout` with one.
        ValueError: an argument that Keras does not know or accept.
    """
