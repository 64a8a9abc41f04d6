"""Drop-in recurrent layers: `keras.layers`' own, plus `policy`, `rate`, `seed` and `stack`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import keras
from keras import ops

from dropout_policies.adapter import (
    Placement,
    Policy,
    PolicyError,
    check_sites,
    stack_placement,
)

from .cells import TYPES, native_dropout_error, put_under_policy, type_of
from .custom_cell import check_custom_cell
from .loops import Looped
from .policy_layer import PolicyLayer, resolve_policy
from .recurrence import cells_of, known_cells, parts_of, planned, run
from .tracing import Tensor
from .wiring import producers

POLICY_ATTRIBUTES = ("joins", "loops_generically", "_looping", "_stack")
"""The attributes that a policy adds to a recurrent layer, beside those of `PolicyLayer`."""


class Recurrent(PolicyLayer):
    """What the drop-in layers have in common; a mixin before one of `keras.layers`'.

    Every argument of the stock layer keeps its meaning, and so do its weights and their paths.
    Without a policy, at rate 0, and in evaluation (where the policy's evaluation rule is the
    identity) it is the stock layer, bit for bit.

    A `stateful` layer carries its state on every backend. (Keras 3.15's own loses it between
    compiled calls on JAX, and stops with an error in training on torch.)

    Policy layers that feed one another in a Sequential or functional model join into one stack
    by themselves. Inside `Bidirectional`, and in a model with a `call` of its own, say where a
    layer stands with `stack`, or build the model of stock layers and use `dropout_policies.apply`.

    Args:
        policy: a policy's name, or a `Policy`; None leaves the layer as the stock one.
        rate: the rates for a policy given by name, in any form that `Policy.with_rates` takes.
        seed: with a policy, an integer in [0, 2**32) for keyed masks; None for Keras's own
            generator. Without a policy, as in the stock layer.
        stack: `(number of the object's first layer, L)` in a stack of L layers; None for a layer
            that is a stack of its own, or that joins the one that feeds it.

    Attributes:
        calls: how many training calls the masks have been drawn for; a word of their key. (With
            neither a seed nor a schedule, which need it, how many masks were drawn.)
        row_offset: the number of this process's first row in the whole batch (keyed masks).

    Raises:
        PolicyError: an unknown policy, a rate or seed out of range, a site that the layer does
            not have, or native `dropout` or `recurrent_dropout` beside a policy.
    """

    cell: Any
    stateful: bool
    go_backwards: bool
    return_sequences: bool
    joins: bool = False
    """Whether the layer may still join the stack of the layer that feeds it."""
    loops_generically: bool = False
    """Whether the stock layer would run Keras's generic loop, as it does with a
    `recurrent_dropout`; so that evaluation is the same bit for bit where that was taken over."""

    def __init__(
        self,
        *args: Any,
        policy: str | Policy | None = None,
        rate: Any = None,
        stack: tuple[int, int] | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        name = type(self).__name__
        chosen = resolve_policy(name, policy, rate, seed, stack=stack)
        if chosen is None and seed is not None:
            kwargs["seed"] = seed
        super().__init__(*args, **kwargs)
        if chosen is None:
            return
        check_cells(self, chosen, name)
        if native := native_dropout(self):
            raise PolicyError(
                f"{name}: its own dropout would come on top of the policy's. Received: "
                f"{native}, policy={chosen.name!r}; leave it out."
            )
        placement = stack_placement(chosen, stack, self.layers, name)
        if stack is not None:
            placement.check_rates(self.layers, name)
        self.set_placement(placement, seed)
        self.joins = stack is None

    def set_placement(self, placement: Placement, seed: int | None) -> None:
        super().set_placement(placement, seed)
        for cell in known_cells(self):
            put_under_policy(cell, self.name, placement.policy.name)

    def __setattr__(self, name: str, value: Any) -> None:
        # Keras's layers have these as properties of their cell, which cannot be set.
        native = name in ("dropout", "recurrent_dropout") and hasattr(type(self), name)
        if native and self.placement is not None and value != 0.0:
            raise native_dropout_error(self.name, self.placement.policy.name, name, value)
        super().__setattr__(name, value)

    @property
    def layers(self) -> int:
        """How many layers the object holds."""
        return len(cells_of(self))

    @property
    def native_generator(self) -> Any:
        """As in `PolicyLayer`: that of the first cell, if it is one of Keras's."""
        first = cells_of(self)[0]
        return first.seed_generator if type(first) in TYPES else None

    def __call__(self, sequences: Tensor, *args: Any, **kwargs: Any) -> Any:
        for producer in producers(sequences) if self.joins else ():
            self._join(producer)
        return super().__call__(sequences, *args, **kwargs)  # type: ignore[misc]

    def _join(self, producer: Recurrent) -> None:
        """Become the next layer of the stack that the producer is part of."""
        mine, its = self.placement, producer.placement
        if mine is None or its is None or not producer.joins:
            return
        if mine.policy != its.policy:
            if its.masks_output(producer.layers) and mine.masks_input(self.layers):
                raise PolicyError(
                    f"{self.name} ({mine.policy!r}) takes in what {producer.name} "
                    f"({its.policy!r}) puts out, and both would mask the connection. Give both one "
                    f"policy, or say what is meant: stack=(0, 2) and stack=(1, 2)."
                )
            return
        if producer is self:
            raise PolicyError(
                f"{self.name}: the layer follows itself, and would mask one connection on the way "
                f"out and again on the way in. Use two layers, or say stack=(0, 1) to have both."
            )
        stack = producer.__dict__.setdefault("_stack", Numbers(its.layer + producer.layers))
        if self.__dict__.get("_stack") is not stack:  # a Sequential that grows calls it again
            self.__dict__["_stack"] = stack
            depth = its.depth + producer.layers
            self.placement = replace(mine, layer=stack.next, first=False, depth=depth)
            stack.next += self.layers
        producer.placement = replace(its, last=False)

    def reset_state(self) -> None:
        """Set a stateful layer's states to zero.

        Raises:
            PolicyError: within a batch of `fit` on JAX, where Keras holds the state elsewhere.
        """
        try:
            for state in self._carried():
                state.assign(ops.zeros_like(state.value))
        except TypeError as error:
            raise PolicyError(
                f"{self.name}: on JAX Keras holds a model's variables elsewhere while fit runs. "
                f"Call model.jax_state_sync() before reset_state() in a batch's callback, or reset "
                f"at the start of an epoch."
            ) from error

    def _carried(self: Any) -> list[keras.Variable]:
        return [] if self.states is None else keras.tree.flatten(self.states)

    def inner_loop(
        self,
        sequences: Tensor,
        initial_state: Any,
        mask: Tensor | None,
        training: bool = False,
    ) -> Looped:
        """Keras's loop over the steps: `[B, T, D]` to last output, outputs and states."""
        if self.stateful:
            # The new state is written where the old one lies, and torch's backward pass still
            # needs the old one.
            initial_state = keras.tree.map_structure(ops.copy, initial_state)
        looped = None
        if self.is_active(training):
            looped = self._under_noise(sequences, initial_state, mask, training)
        if looped is not None:
            return looped
        self.__dict__["_looping"] = True
        try:
            if self.loops_generically:
                return keras.layers.RNN.inner_loop(  # type: ignore[no-any-return]
                    self, sequences, initial_state, mask, training=training
                )
            return super().inner_loop(sequences, initial_state, mask, training=training)  # type: ignore[misc, no-any-return]
        finally:
            self.__dict__["_looping"] = False

    def _under_noise(
        self, sequences: Tensor, initial_state: Any, mask: Tensor | None, training: bool
    ) -> Looped | None:
        """The loop under this call's masks; None where there are none."""
        assert self.placement is not None
        if len(sequences.shape) != 3:
            raise PolicyError(
                f"{self.name}: under a policy, the input is [B, T, D]. "
                f"Received: shape {tuple(sequences.shape)}"
            )
        masks_apply = self.masks_apply(training)
        if masks_apply:
            self.placement.check_rates(self.layers, self.name)
        parts = parts_of(self, self.placement)
        batch, steps = ops.shape(sequences)[:2]
        plan = planned(parts, sequences.shape[-1], batch, steps, int(self.go_backwards))
        dtype = self.cell.compute_dtype
        inputs = sequences, initial_state, mask
        drawn = self.masks(plan, training, dtype, inputs)
        if not drawn:
            return None
        padding = mask[0] if isinstance(mask, list | tuple) else mask
        states = initial_state if isinstance(initial_state, list | tuple) else [initial_state]
        x = ops.cast(sequences, dtype)
        # Evaluation needs no more memory than Keras's layers, which see one step after the other.
        return run(self, parts, x, list(states), padding, drawn, training, at_once=masks_apply)

    @property
    def variables(self) -> list[keras.Variable]:
        """As in `PolicyLayer`; on JAX with the state that a `stateful` layer carries.

        A compiled function on JAX hands back the new values of just these. Weights, and so
        checkpoints, do not change.
        """
        carried = self.stateful and keras.backend.backend() == "jax"
        return [*super().variables, *(self._carried() if carried else [])]

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()  # type: ignore[misc]
        if self.placement is not None:
            place = self.placement
            config["placement"] = {
                "policy": place.policy.to_dict(),
                "layer": place.layer,
                "first": place.first,
                "last": place.last,
                "depth": place.depth,
                "seed": self.mask_seed,
                "loops_generically": self.loops_generically,
            }
        return config  # type: ignore[no-any-return]

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *args: Any, **kwargs: Any) -> Self:
        config = dict(config)
        saved = config.pop("placement", None)
        layer = super().from_config(config, *args, **kwargs)  # type: ignore[misc]
        if saved is not None:
            place = [saved[key] for key in ("layer", "first", "last", "depth")]
            layer.set_placement(Placement(Policy.from_dict(saved["policy"]), *place), saved["seed"])
            layer.loops_generically = saved["loops_generically"]
        return layer  # type: ignore[no-any-return]


class Fused(Recurrent):
    """A drop-in layer whose stock layer may use cuDNN."""

    @property
    def use_cudnn(self) -> bool | str | None:
        """As in the stock layer, but None to others while a policy masks this layer.

        `keras.layers.Bidirectional` asks before it runs both directions in one kernel of its
        own, past this layer's loop and its masks. This layer's own loop may still use cuDNN.
        """
        placement = self.placement
        masked = placement is not None and placement.policy.active
        if masked and not self.__dict__.get("_looping"):
            return None
        # Not yet set while Keras builds the layer.
        return self.__dict__.get("use_cudnn", "auto")  # type: ignore[no-any-return]

    @use_cudnn.setter
    def use_cudnn(self, use_cudnn: bool | str | None) -> None:
        # None is what Bidirectional was told of the layer that it copies; see get_config.
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


@keras.saving.register_keras_serializable(package="dropout_policies")
class LSTM(Fused, keras.layers.LSTM):  # type: ignore[misc]
    """A drop-in `keras.layers.LSTM` that runs under a dropout policy; see `Recurrent`."""


@keras.saving.register_keras_serializable(package="dropout_policies")
class GRU(Fused, keras.layers.GRU):  # type: ignore[misc]
    """A drop-in `keras.layers.GRU` that runs under a dropout policy; see `Recurrent`."""


@keras.saving.register_keras_serializable(package="dropout_policies")
class SimpleRNN(Recurrent, keras.layers.SimpleRNN):  # type: ignore[misc]
    """A drop-in `keras.layers.SimpleRNN` that runs under a dropout policy; see `Recurrent`."""


@keras.saving.register_keras_serializable(package="dropout_policies")
class RNN(Recurrent, keras.layers.RNN):  # type: ignore[misc]
    """A drop-in `keras.layers.RNN` that runs its cell under a dropout policy; see `Recurrent`.

    The cell is one of Keras's, several of them (`StackedRNNCells`, or a list: a stack of its own),
    or one of yours. Noise falls around a cell of yours, never inside: on what comes in (`input`
    or `between`), on what leaves (`output`), on the h that the cell is given (`hidden`; h is its
    first state), and on the h that it gives back (`state`, `hidden_update`).
    """


@dataclass
class Numbers:
    """The layers' numbers in a stack that is still growing, handed out one by one: no two layers
    share a mask, even where one feeds both."""

    next: int


def check_cells(layer: Any, policy: Policy, name: str) -> None:
    """Make sure that a policy can go on every cell of a layer.

    Raises:
        PolicyError: it cannot; the message names the cell, the site, and the sites it has.
    """
    for cell in cells_of(layer):
        kind = type(cell).__name__
        inner = f"{name}: {kind}" if isinstance(layer.cell, keras.layers.StackedRNNCells) else name
        if type(layer) in (RNN, keras.layers.RNN) and inner is name:
            inner = f"{name} of {kind}"
        if type(cell) in TYPES:
            check_sites(policy, inner, type_of(cell).sites)
        else:
            check_custom_cell(cell, policy, inner)


def native_dropout(layer: Any) -> str:
    """The layer's own dropout, as its constructor takes it, or ""."""
    found: dict[str, None] = {}
    for cell in cells_of(layer):
        if type(cell) in TYPES:
            rates = {"dropout": cell.dropout, "recurrent_dropout": cell.recurrent_dropout}
            found |= dict.fromkeys(f"{name}={rate:g}" for name, rate in rates.items() if rate)
    return ", ".join(found)
