"""What compiled functions know of an outer scope of `dropout_policies.sequence` or `hold`."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from dropout_policies.adapter import PolicyError

from .tracing import Tensor


class CountedCall(NamedTuple):
    """What a `CallCounter` knows of a call.

    Args:
        takes_number: whether the call takes a number. It does if it is the first of its scope, or
            in no scope.
        first_step: the number of its first step.
        call: the number of the call that it belongs to.
    """

    takes_number: Tensor
    first_step: Tensor
    call: Tensor


MODES = {True: 1, False: 2}
"""The mode of a scope in a `CallCounter`, by whether calls continue where the last one ended. 0
means no scope."""


class CallCounter:
    """The state of a scope, in a variable that compiled functions read and write.

    It holds the mode of the scope; how many steps and calls were made in it; the number of the
    call that all these calls are; and how many numbers were taken since the scope began, also by
    inner scopes.
    """

    def __init__(self, name: str) -> None:
        self.variable = keras.Variable(
            np.zeros(5, np.int32), dtype="int32", trainable=False, name=f"{name}_shared_calls"
        )

    def begin(self, goes_on: bool) -> npt.NDArray[Any]:
        """Begin a scope, and return the argument of `end`.

        Raises:
            PolicyError: `fit` on JAX is running a batch. Keras then holds variables elsewhere.
        """
        try:
            before = self._words.copy()
            self.variable.assign(np.array([MODES[goes_on], 0, 0, 0, 0], np.int32))
        except TypeError as error:
            raise PolicyError(
                "On JAX, Keras keeps a model's variables elsewhere while fit runs. Open the "
                "scope around fit or train_on_batch, or inside the model's call."
            ) from error
        return before

    def end(self, before: npt.NDArray[Any]) -> None:
        """End a scope, and continue the scope around it."""
        before[4] += self.numbers_taken
        self.variable.assign(before)

    @property
    def step(self) -> int:
        """The number of steps made."""
        return int(self._words[1])

    @property
    def calls(self) -> int:
        """The number of calls made."""
        return int(self._words[2])

    @property
    def call(self) -> int:
        """The number of the call that all calls are, once there is one."""
        return int(self._words[3])

    @property
    def numbers_taken(self) -> int:
        """How many numbers were taken since the scope began."""
        return int(self._words[4])

    @property
    def _words(self) -> npt.NDArray[Any]:
        return np.asarray(ops.convert_to_numpy(self.variable.value))

    def count(self, steps: Any, number: Tensor, moves: bool) -> CountedCall:
        """Count a call.

        Args:
            steps: T.
            number: the number of the layer's next call.
            moves: whether the call after that has another number.
        """
        words = ops.convert_to_tensor(self.variable)
        mode, step, calls, call, taken = (words[n] for n in range(5))
        is_inside = mode > 0
        takes_number = ops.logical_or(ops.logical_not(is_inside), ops.equal(calls, 0))
        call = ops.where(takes_number, number, call)
        goes_on = ops.cast(ops.equal(mode, MODES[True]), "int32")
        new_step = step + goes_on * ops.cast(steps, "int32")
        calls = calls + ops.cast(is_inside, "int32")
        taken = taken + int(moves) * ops.cast(takes_number, "int32")
        self.variable.assign(ops.stack([mode, new_step, calls, call, taken]))
        return CountedCall(takes_number, step, call)

    def count_number(self) -> None:
        """Count a number that an inner scope has taken."""
        one = ops.convert_to_tensor(np.array([0, 0, 0, 0, 1], np.int32))
        self.variable.assign(ops.convert_to_tensor(self.variable) + one)
