"""How a layer counts its calls, and how some of its calls share masks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from keras import ops

from dropout_policies.adapter import PolicyError

from . import tracing
from .call_counter import CallCounter
from .masks import BitSource
from .shared_calls import SHARED, SharedCalls
from .tracing import Tensor


class CountingLayer:
    """A mixin for a layer that counts its calls, because their number determines the masks."""

    name: str
    sampling: bool
    hold_masks: bool
    row_offset: int
    generator: Any
    keyed: Any

    def prepare_to_share(self) -> bool:
        """Prepare to count the calls of compiled functions. See `SharingLayer` of the core."""
        if "_call_counter" in self.__dict__ or not tracing.may_compile_calls():
            return False
        # This avoids setattr, as a built layer takes no new state. The counter is not a weight.
        self.__dict__["_call_counter"] = CallCounter(self.name)
        return True

    @contextmanager
    def share_masks(
        self, goes_on: bool, rows: npt.NDArray[np.int64] | None
    ) -> Iterator[SharedCalls]:
        """Make calls share masks. See `SharingLayer` of the core."""
        graph, around = tracing.current_graph(), SHARED.of(self)
        counter = self.__dict__.get("_call_counter")
        own_counter = counter if graph is None else None
        outside = tracing.value_outside_scope(self.generator.state)
        if around is not None:
            around.set_next_number()
        counted = None if own_counter is None else own_counter.begin(goes_on)
        moves = not self.hold_masks
        shared = SharedCalls(self.name, self.generator, moves, goes_on, rows, graph, own_counter)
        before = shared.state
        try:
            with SHARED.enter(self, shared):
                yield shared
            shared.check_compiled_calls(before)
        finally:
            shared.set_next_number()
            if own_counter is not None:
                own_counter.end(counted)
            elif shared.has_taken_number:
                self._check_state_is_returned(outside)
                if counter is not None:
                    counter.count_number()
            if around is not None:
                around.inner_scope_ended()

    def _count(
        self, before: Tensor, training: bool, steps: Any, replica: Tensor | None
    ) -> BitSource:
        """Count a call whose masks are not shared in Python.

        Args:
            before: the state of the generator before the call.
            training: whether the call is in training.
            steps: T.
            replica: the number of the replica, if there are several.

        Returns:
            The source of its masks.

        Raises:
            PolicyError: the call is in a scope, and its graph cannot follow that scope.
        """
        counter = None
        if tracing.current_graph() is not None:
            counter = self.__dict__.get("_call_counter")
            shared = SHARED.of(self)
            if shared is not None:
                shared.leave_to_graph(replica)
        if not self.keyed and counter is None:
            return BitSource(None, self.row_offset)
        if not training and not self.sampling:
            return BitSource(ops.cast(before, "int32"), self.row_offset)
        if not self.hold_masks:
            self.generator.next()
        state = ops.cast(before, "int32")
        if counter is None:
            return BitSource(state, self.row_offset)
        call = counter.count(steps, state[1], not self.hold_masks)
        if not self.hold_masks:  # all calls in a scope share one number
            after = tracing.value_now(self.generator.state)
            self.generator.state.assign(ops.where(call.takes_number, after, before))
        return BitSource(ops.stack([state[0], call.call]), self.row_offset, call.first_step)

    def _check_state_is_returned(self, before: Any) -> None:
        """Make sure that the next call gets the random state that this call leaves behind.

        Args:
            before: the state before this call, outside of any `stateless_call`.

        Raises:
            PolicyError: JAX compiles the call in a function that does not return the state.
        """
        if tracing.is_traced_in_jax(tracing.value_outside_scope(self.generator.state)):
            self.generator.state.assign(before)
            raise PolicyError(
                f"{self.name}: jax.jit compiles this training call as a function that does not "
                f"return the layer's random state, and every call of it would get the same masks. "
                f"Write: y, non_trainable_variables = model.stateless_call(trainable_variables, "
                f"non_trainable_variables, x, training=True), and return both."
            )
