"""How a layer counts its calls, and shares masks among some of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from keras import ops

from dropout_policies.adapter import PolicyError

from . import tracing
from .masks import BitSource
from .shared_calls import SHARED, CallCounter, SharedCalls
from .tracing import Tensor


class CountingLayer:
    """A layer whose calls are counted, since masks are a function of their number; a mixin."""

    name: str
    sampling: bool
    hold_masks: bool
    row_offset: int
    generator: Any
    keyed: Any

    def prepare_to_share(self) -> bool:
        """Get ready to count the calls of compiled functions; see `SharingLayer` of the core."""
        if "_call_counter" in self.__dict__ or not tracing.may_compile_calls():
            return False
        # Not by setattr: a built layer takes no new state. The counter is no weight.
        self.__dict__["_call_counter"] = CallCounter(self.name)
        return True

    @contextmanager
    def share_masks(
        self, goes_on: bool, rows: npt.NDArray[np.int64] | None
    ) -> Iterator[SharedCalls]:
        """Have calls share masks; see `SharingLayer` of the core."""
        graph, around = tracing.current_graph(), SHARED.of(self)
        counter = self.__dict__.get("_call_counter") if graph is None else None
        outside = tracing.value_outside_scope(self.generator.state)
        before = tracing.value_now(self.generator.state)
        state = ops.cast(before, "int32")
        shared = SharedCalls(self.name, goes_on, rows, state, graph, counter)
        shared.is_constant = graph is not None and tracing.is_constant_in_jax(before)
        counted = None if counter is None else counter.begin(goes_on, state[1])
        if self.hold_masks:
            shared.moves = 0
        else:
            self.generator.next()  # the calls inside are one, whatever is called in scopes inside
        try:
            with SHARED.enter(self, shared):
                yield shared
            shared.check_compiled_calls(self.generator.state)
        finally:
            if counter is not None:
                shared.is_counted |= counter.calls > 0
                counter.end(counted)
            if not shared.is_counted and shared.moves == 1:
                self.generator.state.assign(before)
            elif shared.moves:
                self._check_state_is_returned(outside)
                if around is not None:
                    around.moves += shared.moves

    def _count(
        self, before: Tensor, training: bool, steps: Any, replica: Tensor | None
    ) -> BitSource:
        """Count a call that shares no masks in Python.

        Args:
            before: the generator's state.
            training: whether the call is in training.
            steps: T.
            replica: the number of the replica, if there are several.

        Returns:
            Where its masks come from.

        Raises:
            PolicyError: it is in a sequence, which nothing tells the graph that it is in.
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
        is_inside, first_step, call = counter.count(steps)
        if not self.hold_masks:  # inside a scope all calls are one
            after = tracing.value_now(self.generator.state)
            self.generator.state.assign(ops.where(is_inside, before, after))
        state = ops.stack([state[0], ops.where(is_inside, call, state[1])])
        return BitSource(state, self.row_offset, first_step)

    def _check_state_is_returned(self, before: Any) -> None:
        """Make sure that the next call gets the random state that this one leaves.

        Args:
            before: the state before this call, outside of any `stateless_call`.

        Raises:
            PolicyError: JAX compiles the call as a function that does not return the state.
        """
        if tracing.is_traced_in_jax(tracing.value_outside_scope(self.generator.state)):
            self.generator.state.assign(before)
            raise PolicyError(
                f"{self.name}: jax.jit compiles this training call as a function that does not "
                f"return the layer's random state, and every call of it would get the same masks. "
                f"Write: y, non_trainable_variables = model.stateless_call(trainable_variables, "
                f"non_trainable_variables, x, training=True), and return both."
            )
