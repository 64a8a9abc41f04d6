"""Drop-in recurrent layers: `keras.layers`' own, plus `policy`, `rate` and `stack`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import keras
import numpy as np
from keras import ops

from dropout_policies.catalog import resolve
from dropout_policies.errors import PolicyError
from dropout_policies.keyed import check_seed
from dropout_policies.plan import Geometry, Placement, check_sites, plan
from dropout_policies.policy import Policy
from dropout_policies.stacks import stack_placement

from . import masks
from .masks import Tensor
from .recurrence import Looped, StepMaskedLSTMCell, run
from .wiring import drops


@keras.saving.register_keras_serializable(package="dropout_policies")
class LSTM(keras.layers.LSTM):  # type: ignore[misc]
    """A drop-in `keras.layers.LSTM` that runs under a dropout policy while it trains.

    Every argument of `keras.layers.LSTM` keeps its meaning, and so do its weights and their
    paths. Without a policy, in evaluation and at rate 0 it is `keras.layers.LSTM`, bit for bit.

    A `stateful` layer carries its state on every backend. (Keras 3.15's own loses it between
    compiled calls on JAX, and stops with an error in training on torch.)

    Policy layers that feed one another in a Sequential or functional model join into one stack
    by themselves. Inside `Bidirectional`, and in a model with a `call` of its own, say where a
    layer stands with `stack`, or build the model of stock layers and use `dropout_policies.apply`.

    Args:
        policy: a policy's name, or a `Policy`; None leaves the layer as the stock one.
        rate: the rate, in [0, 1), for a policy given by name.
        seed: with a policy, an integer in [0, 2**32) for keyed masks; None for Keras's own
            generator. Without a policy, as in the stock layer.
        stack: `(number of this layer, L)` in a stack of L layers; None for a layer that is a
            stack of its own, or that joins the one that feeds it.

    Attributes:
        calls: how many training calls the masks have been drawn for; a word of their key.
        row_offset: the number of this process's first row in the whole batch (keyed masks).

    Raises:
        PolicyError: an unknown policy, a rate or seed out of range, a site that the layer does
            not have, or native `dropout` or `recurrent_dropout` beside a policy.
    """

    placement: Placement | None = None
    row_offset: int = 0
    joins: bool = False
    """Whether the layer may still join the stack of the layer that feeds it."""
    loops_generically: bool = False
    """Whether the stock layer would run Keras's generic loop, as it does with a
    `recurrent_dropout`; so that evaluation is the same bit for bit where that was taken over."""

    def __init__(
        self,
        *args: Any,
        policy: str | Policy | None = None,
        rate: float | None = None,
        stack: tuple[int, int] | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        chosen = None if policy is None else resolve(policy, rate)
        for argument, value in (("rate", rate), ("stack", stack)):
            if chosen is None and value is not None:
                raise PolicyError(
                    f"LSTM: {argument} goes with a policy. Received: {argument}={value!r}, "
                    f"policy=None; write: policy='zaremba', {argument}={value!r}"
                )
        if chosen is not None:
            check_sites(chosen, "LSTM")
            if seed is not None:
                check_seed(seed)
        super().__init__(*args, seed=None if chosen is not None else seed, **kwargs)
        if chosen is not None:
            if native := native_dropout(self.cell):
                raise PolicyError(
                    f"LSTM: its own dropout would come on top of the policy's. Received: "
                    f"{native}, policy={chosen.name!r}; leave it out."
                )
            self.settle(stack_placement(chosen, stack, 1, "LSTM"), seed, joins=stack is None)

    def settle(self, placement: Placement, seed: int | None, joins: bool = False) -> None:
        """Put the layer under a policy at a place in a stack; masks are keyed if there is a seed.

        Adds plain attributes only, so that it works on a layer that is built.
        """
        self.placement, self.joins = placement, joins
        self.cell.__class__ = StepMaskedLSTMCell
        self.cell.seed = seed
        if seed is not None:
            self._set_state(seed, 0)

    @property
    def seed(self) -> int | None:
        """The seed of keyed masks, or None."""
        return self.cell.seed  # type: ignore[no-any-return]

    @property
    def calls(self) -> int:
        return int(self._state()[1]) % 2**32

    @calls.setter
    def calls(self, calls: int) -> None:
        self._set_state(int(self._state()[0]), calls)

    def _state(self) -> Any:
        return ops.convert_to_numpy(self.cell.seed_generator.state)

    def _set_state(self, seed: int, call: int) -> None:
        """Set the generator's state (seed, call), whatever integers the backend keeps it in."""
        state = self.cell.seed_generator.state
        words = np.array([seed % 2**32, call % 2**32], np.int64)
        state.assign(words.astype(np.uint32).astype(keras.backend.standardize_dtype(state.dtype)))

    def __call__(self, sequences: Tensor, *args: Any, **kwargs: Any) -> Any:
        for producer in producers(sequences) if self.joins else ():
            self._join(producer)
        return super().__call__(sequences, *args, **kwargs)

    def _join(self, producer: LSTM) -> None:
        """Become the next layer of the stack that the producer is part of."""
        mine, its = self.placement, producer.placement
        if mine is None or its is None or not producer.joins:
            return
        if mine.policy != its.policy:
            if its.masks(1, leaving=True) and mine.masks(1, leaving=False):
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
        stack = producer.__dict__.setdefault("_stack", Numbers(its.layer + 1))
        if self.__dict__.get("_stack") is not stack:  # a Sequential that grows calls it again
            self.__dict__["_stack"] = stack
            self.placement = replace(mine, layer=stack.next, first=False)
            stack.next += 1
        producer.placement = replace(its, last=False)

    def reset_state(self) -> None:
        """Set a stateful layer's state to zero.

        Raises:
            PolicyError: within a batch of `fit` on JAX, where Keras holds the state elsewhere.
        """
        try:
            super().reset_state()
        except TypeError as error:
            raise PolicyError(
                f"{self.name}: on JAX Keras holds a model's variables elsewhere while fit runs. "
                f"Call model.jax_state_sync() before reset_state() in a batch's callback, or reset "
                f"at the start of an epoch."
            ) from error

    def inner_loop(
        self,
        sequences: Tensor,
        initial_state: list[Tensor],
        mask: Tensor | None,
        training: bool = False,
    ) -> Looped:
        """Keras's loop over the steps: `[B, T, D]` to last output, outputs and states."""
        placement = self.placement
        if self.stateful:
            # The new state is written where the old one lies, and torch's backward pass still
            # needs the old one.
            initial_state = [ops.copy(part) for part in initial_state]
        self.__dict__["_looping"] = True
        try:
            if placement is None or not training or not placement.policy.active:
                loop = keras.layers.RNN if self.loops_generically else keras.layers.LSTM
                return loop.inner_loop(self, sequences, initial_state, mask, training=training)  # type: ignore[no-any-return]
            batch, steps = ops.shape(sequences)[:2]
            direction = int(self.go_backwards)
            geometry = Geometry(
                sequences.shape[-1], self.units, 1, (direction,), batch=batch, steps=steps
            )
            wanted = plan(placement, geometry)
            generator, keyed = self.cell.seed_generator, self.cell.seed is not None
            drawn = masks.draw(wanted, generator, keyed, self.row_offset, sequences.dtype)
            return run(self, sequences, initial_state, mask, placement, drawn)
        finally:
            self.__dict__["_looping"] = False

    @property
    def variables(self) -> list[keras.Variable]:
        """As in the stock layer; on JAX with the state that a `stateful` layer carries.

        A compiled function on JAX hands back the new values of just these. Weights, and so
        checkpoints, do not change.
        """
        state = self.states if self.stateful and keras.backend.backend() == "jax" else None
        return [*super().variables, *(state or [])]

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
        if self.placement is not None:
            place = self.placement
            config["placement"] = {
                "policy": place.policy.to_dict(),
                "layer": place.layer,
                "first": place.first,
                "last": place.last,
                "use_cudnn": self.__dict__.get("use_cudnn", "auto"),
                "loops_generically": self.loops_generically,
            }
        return config  # type: ignore[no-any-return]

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        config = dict(config)
        saved = config.pop("placement", None)
        if saved is None:
            return cls(**config)
        seed = config.pop("seed", None)
        layer = cls(**config)
        policy = Policy.from_dict(saved["policy"])
        placement = Placement(policy, saved["layer"], saved["first"], saved["last"])
        layer.settle(placement, seed)
        layer.use_cudnn = saved["use_cudnn"]
        layer.loops_generically = saved["loops_generically"]
        return layer


@dataclass
class Numbers:
    """The layers' numbers in a stack that is still growing, handed out one by one: no two layers
    share a mask, even where one feeds both."""

    next: int


def producers(tensor: Tensor) -> list[LSTM]:
    """The policy layers that a symbolic tensor comes out of, through layers without weights.

    Raises:
        PolicyError: one of the layers that are passed is an active dropout layer.
    """
    found: list[LSTM] = []
    passed: list[Any] = []
    ahead = [tensor] if isinstance(tensor, keras.KerasTensor) else []
    while ahead:
        # Private, because nothing public tells where a tensor comes from before there is a model.
        history = getattr(ahead.pop(), "_keras_history", None)
        if history is None:
            continue
        layer, node, _ = history
        if isinstance(layer, LSTM):
            found += [layer] * (layer.placement is not None and layer.return_sequences)
        elif isinstance(half := getattr(layer, "forward_layer", None), LSTM):
            if half.placement is not None and half.placement.masks(1, leaving=True):
                raise PolicyError(
                    f"{layer.name}: a layer inside Bidirectional does not join the one that it "
                    f"feeds, and both would mask the connection. Say where each stands: "
                    f"LSTM(..., stack=(0, 2)) inside, and stack=(1, 2) for the next."
                )
        elif not getattr(layer, "weights", None) and getattr(layer, "built", True):
            passed += [layer] * drops(layer)
            ahead += layer._inbound_nodes[node].input_tensors
    if found and passed:
        raise PolicyError(
            f"{passed[0].name} ({type(passed[0]).__name__}, rate {float(passed[0].rate):g}) stands "
            f"between {found[0].name} and another layer under a policy, which would mask the same "
            f"connection a second time. Leave it out."
        )
    return list(dict.fromkeys(found))


def native_dropout(cell: keras.layers.LSTMCell) -> str:
    """The layer's own dropout, as its constructor takes it, or ""."""
    rates = {"dropout": cell.dropout, "recurrent_dropout": cell.recurrent_dropout}
    return ", ".join(f"{name}={rate:g}" for name, rate in rates.items() if rate)
