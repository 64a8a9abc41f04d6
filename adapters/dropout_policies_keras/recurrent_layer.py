"""The common base of the drop-in recurrent layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import keras
from keras import ops

from dropout_policies.adapter import (
    Choice,
    Placement,
    Plan,
    PolicyError,
    stack_placement,
    warn_of_steps,
)

from .layer_cells import (
    cells_of,
    check_cells,
    keras_cells,
    native_dropout,
    placed_cells,
    plan_call,
    sites_of_cells,
)
from .loops import LoopResult
from .model_wiring.structure import find_producers
from .policy_arguments import placement_config, restore_placement
from .policy_cells import (
    is_convolutional,
    is_keras_cell,
    native_dropout_error,
    put_under_policy,
    run_in_layer,
)
from .policy_layer import PolicyLayer
from .recurrence import run_cells
from .shared_calls import SHARED
from .tracing import Tensor

POLICY_ATTRIBUTES = (
    *("may_join", "loops_generically", "_in_stock_loop", "_layer_numbers", "_goes_on"),
)
"""The attributes that a policy adds to a recurrent layer, besides those of `PolicyLayer`."""


@dataclass
class LayerNumbers:
    """The number of the next layer in a stack that still grows.

    No two layers get the same number, even if one layer feeds both. So they never share a mask.
    """

    next: int


class Recurrent(PolicyLayer):
    """A recurrent layer that may be under a policy. A mixin before a layer of `keras.layers`.

    Every argument of the stock layer keeps its meaning, and so do its weights and their paths.
    Without a policy, at rate 0, and in evaluation (if the policy's evaluation is the identity), it
    equals the stock layer bit for bit.

    A `stateful` layer carries its state on every backend. (In Keras 3.15, the stock layer loses it
    between compiled calls on JAX, and raises an error in training on torch.)

    Policy layers that feed one another in a Sequential or functional model join one stack
    automatically. Inside `Bidirectional`, and in a model with its own `call`, give the place of a
    layer with `stack`, or build the model of stock layers and use `dropout_policies.apply`.
    """

    cell: Any
    stateful: bool
    go_backwards: bool
    return_sequences: bool
    may_join: bool = False
    """Whether the layer may still join the stack of the layer that feeds it."""
    loops_generically: bool = False
    """Whether the stock layer would run Keras's generic loop, as it does with a
    `recurrent_dropout`. If a policy replaced that, evaluation stays the same bit for bit."""

    def _start_policy(
        self, choice: Choice | None, seed: int | None, stack: tuple[int, int] | None
    ) -> None:
        """Put the layer under the policy in its arguments. The layer must already have its cell."""
        if choice is None:
            return
        name, policy = type(self).__name__, choice.on_one(sites_of_cells(self))
        check_cells(self, policy, name)
        if native := native_dropout(self):
            raise PolicyError(
                f"{name}: its own dropout would come on top of the policy's. Received: "
                f"{native}, policy={policy.name!r}; leave it out."
            )
        placement = stack_placement(policy, stack, self.layers, name)
        if stack is not None:
            placement.check_rates(self.layers, name)
        self.add_generator()
        self.set_placement(placement, seed)
        self.may_join = stack is None

    def set_placement(self, placement: Placement, seed: int | None) -> None:
        super().set_placement(placement, seed)
        for cell in keras_cells(self):
            put_under_policy(cell, self.name, placement.policy.name)

    def __setattr__(self, name: str, value: Any) -> None:
        # On Keras's layers, these are read-only properties of their cell.
        is_native = name in ("dropout", "recurrent_dropout") and hasattr(type(self), name)
        if is_native and self.placement is not None and value != 0.0:
            raise native_dropout_error(self.name, self.placement.policy.name, name, value)
        super().__setattr__(name, value)

    @property
    def layers(self) -> int:
        """The number of layers in the object: one for each cell."""
        return len(cells_of(self))

    @property
    def native_generator(self) -> Any:
        """See `PolicyLayer`. It is that of the first cell, if this is one of Keras's."""
        first = cells_of(self)[0]
        return first.seed_generator if is_keras_cell(first) else None

    def __call__(self, sequences: Tensor, *args: Any, **kwargs: Any) -> Any:
        for producer in find_producers(sequences) if self.may_join else ():
            self._join_stack_of(producer)
        return super().__call__(sequences, *args, **kwargs)  # type: ignore[misc]

    def _join_stack_of(self, producer: Recurrent) -> None:
        """Become the next layer in the stack of a layer that feeds this one."""
        mine, its = self.placement, producer.placement
        if mine is None or its is None or not producer.may_join:
            return
        if mine.policy != its.policy:
            if its.masks_output(producer.layers) and mine.masks_input(self.layers):
                raise PolicyError(
                    f"{self.name} ({mine.policy!r}) receives the output of {producer.name} "
                    f"({its.policy!r}), and both would mask the connection. Give both the same "
                    "policy, or say what you mean: stack=(0, 2) and stack=(1, 2)."
                )
            return
        if producer is self:
            raise PolicyError(
                f"{self.name}: the layer follows itself, and would mask one connection on the way "
                f"out and again on the way in. Use two layers, or say stack=(0, 1) to have both."
            )
        numbers = producer.__dict__.setdefault(
            "_layer_numbers", LayerNumbers(its.layer + producer.layers)
        )
        # A Sequential calls its layers again while it grows.
        if self.__dict__.get("_layer_numbers") is not numbers:
            self.__dict__["_layer_numbers"] = numbers
            depth = its.depth + producer.layers
            self.placement = replace(mine, layer=numbers.next, first=False, depth=depth)
            numbers.next += self.layers
        producer.placement = replace(its, last=False)

    def call(
        self,
        sequences: Tensor,
        initial_state: Any = None,
        mask: Tensor | None = None,
        training: bool = False,
    ) -> Any:
        """Run the layer like the stock layer. See `inner_loop`.

        Args:
            sequences: the input `[B, T, D]`.
            initial_state: the states before the first step. None: zeros, or the states that a
                `stateful` layer carries.
            mask: False where a step is padding, `[B, T]`, or None.
            training: whether the call is in training.
        """
        self.__dict__["_goes_on"] = initial_state is not None or self.stateful
        with run_in_layer():
            return super().call(  # type: ignore[misc]
                sequences, initial_state=initial_state, mask=mask, training=training
            )

    def _check_sequence(self, plan: Plan, steps: Any, training: bool) -> None:
        """Check a call that is one of several over one sequence, and warn about single steps.

        Raises:
            PolicyError: the layer reads from the end, and this is the second call of the sequence.
        """
        shared = SHARED.of(self)
        if shared is not None:
            if shared.goes_on and self.go_backwards and shared.has_begun:
                raise PolicyError(
                    f"{self.name}: a layer that goes backwards needs the whole sequence in one "
                    f"call, because it begins at the end. Call it once inside dp.sequence, or "
                    f"leave it out of the scope."
                )
            return
        held = [slot.site.value for slot, mask in plan.items() if mask.rule.per != "step"]
        is_own = training and self.tape is None and not self.hold_masks and not self.told_of_steps
        if held and is_own and steps == 1 and self.__dict__.get("_goes_on"):
            assert self.placement is not None, "there is a plan under a policy only"
            self.told_of_steps = True
            warn_of_steps(self.name, self.placement.policy.name, held)

    def reset_state(self) -> None:
        """Set the states of a stateful layer to zero.

        Raises:
            PolicyError: `fit` on JAX is running a batch. Keras then holds the state elsewhere.
        """
        try:
            for state in self._carried_states():
                state.assign(ops.zeros_like(state.value))
        except TypeError as error:
            raise PolicyError(
                f"{self.name}: on JAX, Keras keeps a model's variables elsewhere while fit runs. "
                "Call model.jax_state_sync() before reset_state() in a batch's callback, or "
                "reset at the start of an epoch."
            ) from error

    def _carried_states(self: Any) -> list[keras.Variable]:
        return [] if self.states is None else keras.tree.flatten(self.states)

    def inner_loop(
        self,
        sequences: Tensor,
        initial_state: Any,
        mask: Tensor | None,
        training: bool = False,
    ) -> LoopResult:
        """Run the layer's loop over its steps. Keras calls this.

        Args:
            sequences: the input `[B, T, D]`.
            initial_state: the states before the first step.
            mask: False where a step is padding, `[B, T]`, or None.
            training: whether the call is in training.

        Returns:
            The last output, the outputs, and the last states.

        Raises:
            PolicyError: under a policy, the input is not `[B, T, D]`. See also `PolicyLayer.masks`.
        """
        if self.stateful:
            # The new state overwrites the old one, which torch's backward pass still needs.
            initial_state = keras.tree.map_structure(ops.copy, initial_state)
        result = None
        if self.is_active(training):
            result = self._run_under_policy(sequences, initial_state, mask, training)
        if result is not None:
            return result
        self.__dict__["_in_stock_loop"] = True
        try:
            if self.loops_generically:
                return keras.layers.RNN.inner_loop(  # type: ignore[no-any-return]
                    self, sequences, initial_state, mask, training=training
                )
            return super().inner_loop(sequences, initial_state, mask, training=training)  # type: ignore[misc, no-any-return]
        finally:
            self.__dict__["_in_stock_loop"] = False

    def _run_under_policy(
        self, sequences: Tensor, initial_state: Any, mask: Tensor | None, training: bool
    ) -> LoopResult | None:
        """Run the loop under this call's masks. None if there are no masks."""
        assert self.placement is not None
        # Keras itself checks the input of a convolutional layer.
        if len(sequences.shape) != 3 and not is_convolutional(self.cell):
            raise PolicyError(
                f"{self.name}: under a policy, the input is [B, T, D]. "
                f"Received: shape {tuple(sequences.shape)}"
            )
        masks_apply = self.masks_apply(training)
        if masks_apply:
            self.placement.check_rates(self.layers, self.name)
        cells = placed_cells(self, self.placement)
        batch, steps = ops.shape(sequences)[:2]
        plan = plan_call(cells, sequences.shape[-1], batch, steps, int(self.go_backwards))
        dtype = self.cell.compute_dtype
        inputs = sequences, initial_state, mask
        self._check_sequence(plan, steps, training)
        drawn = self.masks(plan, training, dtype, inputs, steps)
        if not drawn:
            return None
        padding = mask[0] if isinstance(mask, list | tuple) else mask
        states = initial_state if isinstance(initial_state, list | tuple) else [initial_state]
        x = ops.cast(sequences, dtype)
        # Evaluation runs step by step like Keras's layers, so it takes no more memory than they do.
        return run_cells(
            self, cells, x, list(states), padding, drawn, training, project_at_once=masks_apply
        )

    @property
    def variables(self) -> list[keras.Variable]:
        """See `PolicyLayer`. On JAX, this includes the state that a `stateful` layer carries.

        A compiled function on JAX returns new values only for these variables. Weights do not
        change, so checkpoints do not either.
        """
        is_carried = self.stateful and keras.backend.backend() == "jax"
        return [*super().variables, *(self._carried_states() if is_carried else [])]

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()  # type: ignore[misc]
        if self.placement is not None:
            config["placement"] = placement_config(self)
            config["placement"]["loops_generically"] = self.loops_generically
        return config  # type: ignore[no-any-return]

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *args: Any, **kwargs: Any) -> Self:
        config = dict(config)
        saved = config.pop("placement", None)
        layer = super().from_config(config, *args, **kwargs)  # type: ignore[misc]
        if saved is not None:
            restore_placement(layer, saved)
            layer.loops_generically = saved["loops_generically"]
        return layer  # type: ignore[no-any-return]


class CudnnRecurrent(Recurrent):
    """A drop-in layer whose stock layer may run in one cuDNN kernel."""

    @property
    def use_cudnn(self) -> bool | str | None:
        """Like the stock layer's, but None outside the stock loop while a policy masks the layer.

        `keras.layers.Bidirectional` reads it before it runs both directions in its own kernel,
        without this layer's loop and masks. The layer's own loop may still use cuDNN.
        """
        placement = self.placement
        is_masked = placement is not None and placement.policy.active
        if is_masked and not self.__dict__.get("_in_stock_loop"):
            return None
        # Keras has not set it yet while it constructs the layer.
        return self.__dict__.get("use_cudnn", "auto")  # type: ignore[no-any-return]

    @use_cudnn.setter
    def use_cudnn(self, use_cudnn: bool | str | None) -> None:
        # Bidirectional sets the value that it read from the layer that it copies: None. See
        # get_config.
        if use_cudnn is not None:
            self.__dict__["use_cudnn"] = use_cudnn

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        if "placement" in config:
            config["placement"]["use_cudnn"] = self.__dict__.get("use_cudnn", "auto")
        return config

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *args: Any, **kwargs: Any) -> Self:
        layer = super().from_config(config, *args, **kwargs)
        if "placement" in config:
            layer.use_cudnn = config["placement"]["use_cudnn"]
        return layer
