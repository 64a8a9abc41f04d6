"""What calls of a layer share inside `dropout_policies.sequence` and `hold`.

Where the scope is opened in the graph that its calls are in (or all run eagerly), steps are counted
in Python. Where it is opened around calls that are compiled, such as `train_on_batch`, no graph
could know the step; there a variable of the layer holds it (`CallCounter`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import keras
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
from .kept_bits import KeptBits
from .masks import BitSource, derived_seeds
from .tracing import Tensor

MODES = {True: 1, False: 2}
"""Scopes in a `CallCounter`, by whether each call goes on where the one before ended; 0 is none."""


class CallCounter:
    """What compiled functions know of a scope, in a variable that they read and write: its mode,
    how many steps and calls were made in it, and the number of the call that all of them are."""

    def __init__(self, name: str) -> None:
        self.variable = keras.Variable(
            np.zeros(4, np.int32), dtype="int32", trainable=False, name=f"{name}_shared_calls"
        )

    def begin(self, goes_on: bool, call: Any) -> npt.NDArray[Any]:
        """A scope begins; returns what `end` takes.

        Raises:
            PolicyError: inside of a batch of `fit` on JAX, where Keras holds variables elsewhere.
        """
        try:
            before = self._words.copy()
            self.variable.assign(np.array([MODES[goes_on], 0, 0, int(call)], np.int32))
        except TypeError as error:
            raise PolicyError(
                "On JAX Keras holds a model's variables elsewhere while fit runs. Open the scope "
                "around fit or train_on_batch, or inside the model's call."
            ) from error
        return before

    def end(self, before: npt.NDArray[Any]) -> None:
        """A scope ends, and the one around it goes on."""
        self.variable.assign(before)

    @property
    def step(self) -> int:
        """How many steps were made."""
        return int(self._words[1])

    @property
    def calls(self) -> int:
        """How many calls were made."""
        return int(self._words[2])

    @property
    def _words(self) -> npt.NDArray[Any]:
        return np.asarray(ops.convert_to_numpy(self.variable.value))

    def count(self, steps: Any) -> tuple[Tensor, Tensor, Tensor]:
        """A call of some steps.

        Args:
            steps: T.

        Returns:
            Whether it is inside a scope, its first step, and the number of the call that it is
            part of.
        """
        words = ops.convert_to_tensor(self.variable)
        mode, step, calls, call = words[0], words[1], words[2], words[3]
        is_inside = mode > 0
        goes_on = ops.cast(ops.equal(mode, MODES[True]), "int32")
        new_step = step + goes_on * ops.cast(steps, "int32")
        self.variable.assign(
            ops.stack([mode, new_step, calls + ops.cast(is_inside, "int32"), call])
        )
        return is_inside, step, call


@dataclass
class SharedCalls:
    """What the calls of a layer share inside a scope.

    Args:
        layer: the layer's name.
        goes_on: whether each call goes on at the step at which the one before ended.
        rows: the numbers of the batch's rows, by which masks are keyed; None for 0, 1, ...
        state: (seed, call) of the masks, as two int32 words.
        graph: the graph that the scope was opened in; None outside of any.
        counter: the steps where calls are compiled by themselves; None where they cannot be.

    Attributes:
        is_counted: whether a call was made that counts.
        is_constant: whether `state` is a constant in what JAX compiles.
        moves: by how much the number of the layer's next call has moved on.
        step: how many steps were made.
        episodes, starts: by row, how often it was reset and the step of the last time, `[B]`; None
            where no row was.
    """

    layer: str
    goes_on: bool
    rows: npt.NDArray[np.int64] | None
    state: Tensor
    graph: Any
    counter: CallCounter | None = None
    is_counted: bool = False
    moves: int = 1
    is_constant: bool = False
    step: int | Tensor = 0
    episodes: Tensor | None = None
    starts: Tensor | None = None
    kept: KeptBits = field(init=False)
    """What calls have drawn."""
    _is_step_unknown: bool = False
    """Whether calls were made in such a loop, which runs who knows how often."""
    _was_compiled: bool = False
    """Whether a call was compiled by itself, without the scope."""
    _calls: int = 0
    """How many calls were made that were not."""

    def __post_init__(self) -> None:
        self.kept = KeptBits(self.goes_on)

    @property
    def _is_in_loop(self) -> bool:
        """Whether a call that is made now is in a loop of the backend's or of Keras's."""
        return tracing.current_graph() is not self.graph or tracing.is_in_loop_of_torch()

    @property
    def has_begun(self) -> bool:
        """Whether a call was made before."""
        return self._calls > 0 or (self.counter is not None and self.counter.calls > 0)

    @property
    def is_left_to_graph(self) -> bool:
        """Whether a call that is made now is compiled by itself, without the scope."""
        return self.graph is None and tracing.current_graph() is not None

    @property
    def has_own_rows(self) -> bool:
        """Whether rows have numbers or episodes of their own."""
        return self.rows is not None or self.episodes is not None

    def reset(self, rows: Any) -> None:
        """Begin a new episode in some rows; see `SequenceScope.reset`.

        Raises:
            PolicyError: the calls are compiled by themselves; or the rows are no truth values, or
                others than before.
        """
        calls = 0 if self.counter is None else self.counter.calls
        if self.is_left_to_graph or calls > self._calls:
            raise PolicyError(
                f"{self.layer}: reset(rows) does not reach calls that are compiled by themselves. "
                f"Open the scope inside of the function that is compiled."
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

    def source(self, plan: Plan, row_offset: int) -> BitSource:
        """Where the masks of the next call come from.

        Args:
            plan: the masks.
            row_offset: the number of the first row, where rows have no numbers of their own.

        Raises:
            PolicyError: the scope is open where JAX has no random state; or the call is inside a
                loop that runs in the graph, and has masks per step; or there are more rows than
                the sequence began with.
        """
        if self.is_constant:
            raise PolicyError(
                f"{self.layer}: the scope is opened inside a function that jax.jit compiles, and "
                f"outside of stateless_call, where the layer's random state is a constant. Open it "
                f"inside the model's call."
            )
        if self.counter is not None:
            self.step = self.counter.step  # calls may have been compiled by themselves
        if self.goes_on and (self._is_in_loop or self._is_step_unknown):
            by_step = [slot.site.value for slot, mask in plan.items() if mask.rule.per == "step"]
            if by_step:
                raise PolicyError(
                    f"{self.layer}: it is called inside a loop that Keras runs, in which nobody "
                    f"knows the step that its masks per step belong to (site "
                    f"{', '.join(by_step)}). Write the loop in Python, or RNN(..., unroll=True), "
                    f"or hold the masks: per='sequence'."
                )
        batch = next((mask.shape[1] for mask in plan.values() if mask.by_sample), None)
        if not self.has_own_rows or batch is None:
            return BitSource(self.state, row_offset, self.step)
        known = [x.shape[0] for x in (self.rows, self.episodes) if x is not None]
        if isinstance(batch, int) and batch > min(known):
            raise PolicyError(
                f"The sequence has {min(known)} rows. Received: a call with {batch}. Write "
                f"dp.sequence(model, rows=[...]) with a number for each row."
            )
        rows = ops.arange(batch, dtype="int32") + row_offset
        if self.rows is not None:
            words = self.rows.astype(np.uint32).astype(np.int32)
            rows = ops.convert_to_tensor(words)[:batch]
        if self.episodes is None or self.starts is None:
            return BitSource(self.state, rows, self.step)
        episodes, starts = self.episodes[:batch], self.starts[:batch]
        seeds = derived_seeds(self.state[0], episodes)
        return BitSource(self.state, rows, ops.maximum(self.step - starts, 0), seeds)

    def count(self, steps: Any) -> None:
        """A call of T steps was made that counts."""
        self.is_counted = True
        self._calls += 1
        if self.counter is not None:
            self.counter.count(steps)
        if not self.goes_on:
            return
        self._is_step_unknown |= self._is_in_loop
        self.step = self.step + steps

    def leave_to_graph(self, replica: Tensor | None) -> None:
        """A call is compiled by itself, without the scope.

        Raises:
            PolicyError: its masks would not be those of the scope.
        """
        if self.counter is None or replica is not None or self.has_own_rows:
            what = "rows with numbers or episodes of their own" if self.has_own_rows else "this"
            raise PolicyError(
                f"{self.layer}: {what} cannot be in a call that is compiled by itself, inside a "
                f"scope that was opened around it. Open the scope inside of the function that is "
                f"compiled, such as the model's call; or compile(run_eagerly=True). (On JAX a loop "
                f"that Keras runs is compiled by itself where the model is called outside of fit.)"
            )
        self._was_compiled = True

    def check_compiled_calls(self, generator_state: Any) -> None:
        """Make sure that calls that were compiled by themselves kept to the scope.

        Args:
            generator_state: that of the layer's generator.

        Raises:
            PolicyError: some did not.
        """
        if self.counter is None:
            return
        before, after = (
            ops.convert_to_numpy(ops.cast(x, "int32")) for x in (self.state, generator_state)
        )
        if int(after[1]) != int(before[1]) + self.moves:
            raise PolicyError(
                f"{self.layer}: a function that was compiled before the first scope ran inside "
                f"this one, and drew masks for each call. Compile it again (as tf.function(step)), "
                f"or open the scope inside of it."
            )
        calls = self.counter.calls
        if self._was_compiled and not calls:
            raise PolicyError(
                f"{self.layer}: jax.jit compiled calls inside the scope, and what they counted was "
                f"not written back to the layer's variables. Open the scope inside of the function "
                f"that is compiled."
            )
        if calls > self._calls and self.has_own_rows:
            raise PolicyError(
                f"{self.layer}: calls that were compiled by themselves did not see the numbers and "
                f"episodes of the rows. Open the scope inside of the function that is compiled, or "
                f"compile(run_eagerly=True)."
            )


SHARED = SharedState[SharedCalls]()
"""What the calls of layers share now, by their layer."""
