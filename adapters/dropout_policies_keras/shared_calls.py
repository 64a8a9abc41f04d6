"""The state that calls of a layer share inside `dropout_policies.sequence` and `hold`.

If the scope is opened in the same graph as its calls, or if all of them run eagerly, steps are
counted in Python. If it is opened around calls that are compiled, such as `train_on_batch`, no
graph could know the step. Then a variable of the layer holds it (`call_counter`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from keras import ops

from dropout_policies.adapter import (
    Plan,
    PolicyError,
    SharedState,
    check_row_count,
    row_flags,
)

from . import tracing
from .call_counter import CallCounter
from .kept_bits import KeptBits
from .masks import BitSource, derived_seeds
from .tracing import Tensor


@dataclass
class SharedCalls:
    """The state that the calls of a layer share inside a scope.

    The calls take the layer's next number when the first of them is made. So a scope without calls
    takes no number, and an inner scope that is called first comes first.

    Args:
        layer: the layer's name.
        generator: the layer's generator. Its state is (seed, number of the next call).
        moves: whether the next scope has another number. It has not while sampling holds all masks.
        goes_on: whether each call continues at the step where the previous one ended.
        rows: the numbers of the batch's rows, which determine keyed masks. None: 0, 1, ...
        graph: the graph in which the scope was opened. None: it was opened outside of any graph.
        counter: the steps for calls that are compiled on their own. None if there can be no such
            calls.

    Attributes:
        state: (seed, call) of the masks, as two int32 words.
        step: the number of steps so far.
        episodes, starts: for each row, the number of resets and the step of the last reset, `[B]`.
            None if no row was reset.
    """

    layer: str
    generator: Any
    moves: bool
    goes_on: bool
    rows: npt.NDArray[np.int64] | None
    graph: Any
    counter: CallCounter | None = None
    step: int | Tensor = 0
    episodes: Tensor | None = None
    starts: Tensor | None = None
    state: Tensor = field(init=False)
    kept: KeptBits = field(init=False)
    """The bits that calls have drawn."""
    _is_constant: bool = False
    """Whether `state` is a constant in code that JAX compiles."""
    _is_number_owed: bool = False
    """Whether the number was taken in a loop of the graph, and the next one must still be set."""
    _is_state_old: bool = False
    """Whether scopes in a loop of the graph have taken numbers since `state` was read."""
    _is_step_unknown: bool = False
    """Whether calls were made in such a loop, which runs an unknown number of times."""
    _was_compiled: bool = False
    """Whether a call was compiled on its own, without the scope."""
    _calls: int = 0
    """The number of calls that were not compiled on their own."""

    def __post_init__(self) -> None:
        self.kept = KeptBits(self.goes_on)
        self._read_state()

    def _read_state(self) -> None:
        """Read the number of the next call."""
        state = tracing.value_now(self.generator.state)
        self.state = ops.cast(state, "int32")
        self._is_constant = self.graph is not None and tracing.is_constant_in_jax(state)
        self._is_state_old = False

    def _take_number(self) -> None:
        """Take the number of the calls, at the first of them.

        Raises:
            PolicyError: this call is in a loop of the graph, and scopes there have taken numbers.
        """
        if self.has_begun:
            if self.counter is not None:  # the first call may have been compiled on its own
                call = ops.convert_to_tensor(self.counter.call, dtype="int32")
                self.state = ops.stack([self.state[0], call])
        elif tracing.current_graph() is self.graph:
            self._read_state()
            if self.moves:
                self.generator.next()
        elif self._is_state_old:
            raise self._order_error()
        else:  # the loop's body runs many times, and would set the number each time
            self._is_number_owed = self.moves

    def set_next_number(self) -> None:
        """Set the number of the layer's next call if a loop of the graph could not set it.

        Raises:
            PolicyError: this runs in that loop.
        """
        if not self._is_number_owed:
            return
        if tracing.current_graph() is not self.graph:
            raise self._order_error()
        self.generator.next()
        self._is_number_owed = False

    def inner_scope_ended(self) -> None:
        """Note that an inner scope has ended. It may have taken numbers."""
        if tracing.current_graph() is not self.graph:
            self._is_state_old = True
        elif not self.has_begun:
            self._read_state()

    def _order_error(self) -> PolicyError:
        return PolicyError(
            f"{self.layer}: a scope is opened inside a loop that runs in the graph, and calls of "
            "the scope around the loop are in it too. Which of them is the first depends on the "
            "iteration. Make a call before the loop, or write the loop in Python, or RNN(..., "
            "unroll=True)."
        )

    @property
    def has_taken_number(self) -> bool:
        """Whether a number was taken, so that the layer's next call has another one."""
        return self.moves and self.has_begun

    @property
    def _is_in_loop(self) -> bool:
        """Whether a call made now is in a loop of the backend or of Keras."""
        return tracing.current_graph() is not self.graph or tracing.is_in_loop_of_torch()

    @property
    def has_begun(self) -> bool:
        """Whether an earlier call was made."""
        return self._calls > 0 or (self.counter is not None and self.counter.calls > 0)

    @property
    def is_left_to_graph(self) -> bool:
        """Whether a call made now is compiled on its own, without the scope."""
        return self.graph is None and tracing.current_graph() is not None

    @property
    def has_own_rows(self) -> bool:
        """Whether rows have their own numbers or episodes."""
        return self.rows is not None or self.episodes is not None

    def reset(self, rows: Any) -> None:
        """Begin a new episode in some rows. See `SequenceScope.reset`.

        Raises:
            PolicyError: the calls are compiled on their own, the rows are not booleans, or their
                number differs from before.
        """
        calls = 0 if self.counter is None else self.counter.calls
        if self.is_left_to_graph or calls > self._calls:
            raise PolicyError(
                f"{self.layer}: reset(rows) does not reach calls that are compiled by themselves. "
                "Open the scope inside the function that is compiled."
            )
        if tracing.has_no_value(rows):
            flags, count = ops.cast(rows, "int32"), rows.shape[0]
        else:
            known = row_flags(ops.convert_to_numpy(rows) if ops.is_tensor(rows) else rows)
            if not known.any():
                return
            flags, count = ops.convert_to_tensor(known, dtype="int32"), len(known)
        if self.episodes is None or self.starts is None:
            self.episodes = self.starts = ops.zeros_like(flags)
        check_row_count(count, self.episodes.shape[0])
        self.episodes = self.episodes + flags
        self.starts = ops.where(ops.cast(flags, "bool"), self.step, self.starts)

    def source(self, plan: Plan, row_offset: int, is_counted: bool) -> BitSource:
        """Determine the source of the next call's masks.

        Args:
            plan: the masks.
            row_offset: the number of the first row, for rows without numbers of their own.
            is_counted: whether `count` counts the call.

        Raises:
            PolicyError: the scope is open where JAX has no random state. The call is in a loop in
                the graph and has masks per step, or its number is unknown. There are more rows than
                the sequence began with.
        """
        if self._is_constant:
            raise PolicyError(
                f"{self.layer}: the scope is opened inside a function that jax.jit compiles, and "
                f"outside of stateless_call, where the layer's random state is a constant. Open it "
                f"inside the model's call."
            )
        if self.counter is not None:
            self.step = self.counter.step  # calls may have been compiled on their own
        if self.goes_on and (self._is_in_loop or self._is_step_unknown):
            by_step = [slot.site.value for slot, mask in plan.items() if mask.rule.per == "step"]
            if by_step:
                raise PolicyError(
                    f"{self.layer}: it is called inside a loop that Keras runs, where the number "
                    "of the step is not known, and its masks change with each step (site "
                    f"{', '.join(by_step)}). Write the loop in Python, or RNN(..., unroll=True), "
                    "or hold the masks: per='sequence'."
                )
        batch = next((mask.shape[1] for mask in plan.values() if mask.by_sample), None)
        has_rows = self.has_own_rows and batch is not None
        if has_rows:
            self._check_rows(batch)
        if is_counted:
            self._take_number()
        if not has_rows:
            return BitSource(self.state, row_offset, self.step)
        rows = ops.arange(batch, dtype="int32") + row_offset
        if self.rows is not None:
            words = self.rows.astype(np.uint32).astype(np.int32)
            rows = ops.convert_to_tensor(words)[:batch]
        if self.episodes is None or self.starts is None:
            return BitSource(self.state, rows, self.step)
        episodes, starts = self.episodes[:batch], self.starts[:batch]
        seeds = derived_seeds(self.state[0], episodes)
        return BitSource(self.state, rows, ops.maximum(self.step - starts, 0), seeds)

    def _check_rows(self, batch: Any) -> None:
        """Make sure that each row of a call has a number and an episode.

        Raises:
            PolicyError: there are more rows than at the beginning of the sequence.
        """
        known = [x.shape[0] for x in (self.rows, self.episodes) if x is not None]
        if isinstance(batch, int) and batch > min(known):
            raise PolicyError(
                f"The sequence has {min(known)} rows. Received: a call with {batch}. Write "
                f"dp.sequence(model, rows=[...]) with a number for each row."
            )

    def count(self, steps: Any) -> None:
        """Count a call of `steps` steps."""
        self._calls += 1
        if self.counter is not None:
            self.counter.count(steps, self.state[1], self.moves)
        if not self.goes_on:
            return
        self._is_step_unknown |= self._is_in_loop
        self.step = self.step + steps

    def leave_to_graph(self, replica: Tensor | None) -> None:
        """Handle a call that is compiled on its own, without the scope.

        Raises:
            PolicyError: its masks would differ from those of the scope.
        """
        if self.counter is None or replica is not None or self.has_own_rows:
            what = "rows with numbers or episodes of their own" if self.has_own_rows else "this"
            raise PolicyError(
                f"{self.layer}: {what} cannot be in a call that is compiled by itself, inside a "
                f"scope that was opened around it. Open the scope inside the function that is "
                f"compiled, such as the model's call; or compile(run_eagerly=True). (On JAX a loop "
                f"that Keras runs is compiled by itself where the model is called outside of fit.)"
            )
        self._was_compiled = True

    def check_compiled_calls(self, before: Tensor) -> None:
        """Make sure that calls that were compiled on their own followed the scope.

        Args:
            before: the state of the generator when the scope began.

        Raises:
            PolicyError: some did not.
        """
        if self.counter is None:
            return
        first, after = (ops.convert_to_numpy(x)[1] for x in (before, self.generator.state))
        if int(after) != int(first) + self.counter.numbers_taken:
            raise PolicyError(
                f"{self.layer}: a function that was compiled before the first scope ran inside "
                f"this one, and drew masks for each call. Compile it again (as tf.function(step)), "
                f"or open the scope inside it."
            )
        calls = self.counter.calls
        if self._was_compiled and not calls:
            raise PolicyError(
                f"{self.layer}: jax.jit compiled calls inside the scope, and what they counted was "
                f"not written back to the layer's variables. Open the scope inside the function "
                f"that is compiled."
            )
        if calls > self._calls and self.has_own_rows:
            raise PolicyError(
                f"{self.layer}: calls that were compiled by themselves did not see the numbers and "
                f"episodes of the rows. Open the scope inside the function that is compiled, or "
                f"compile(run_eagerly=True)."
            )


SHARED = SharedState[SharedCalls]()
"""The state that the calls of layers share now, by layer."""
