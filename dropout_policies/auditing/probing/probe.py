"""What an adapter provides to the audit: a module that can be run again and again.

Each run can have other weights, and the same noise as an earlier run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ...errors import PolicyError

Array = npt.NDArray[np.float64]

INITIAL_STATE = re.compile(
    r"(^|[./])(init\w*|start\w*|(h|c|hidden|cell|state)_?(0|init\w*))(#\d+)?$"
)
"""The name of a parameter that is a learned initial state, such as `h0`, `init_hidden`, `start`."""


def no_matrices_error(name: str, has_convolutions: bool) -> PolicyError:
    """The error for a module that has no weights that the audit could set.

    Args:
        name: the name of the module.
        has_convolutions: whether it has weights with more than two axes.
    """
    if not has_convolutions:
        return PolicyError(f"{name} has no weights that are matrices: nothing to audit.")
    return PolicyError(
        f"{name} has no weights that are matrices, and among convolutions the audit takes only "
        "Keras's ConvLSTM1D, ConvLSTM2D and ConvLSTM3D. For a model under a policy, "
        "dp.record(model) gives the masks themselves."
    )


class Parameter(NamedTuple):
    """A trainable array of a module."""

    name: str
    """Its name in the module."""
    shape: tuple[int, ...]
    """Its shape."""
    transposed: bool
    """Whether a matrix is `[in, out]`, as in Keras, instead of `[out, in]`."""

    @property
    def is_matrix(self) -> bool:
        """Whether it may be the weights of a connection.

        A bias with two rows is not, and neither is a learned initial state.
        """
        return (
            len(self.shape) == 2 and "bias" not in self.name and not INITIAL_STATE.search(self.name)
        )


class Probe(Protocol):
    """A module under audit. It is a context manager that restores the module bit for bit.

    One audit calls `run`, `noise` and `replay` hundreds of times.
    """

    name: str
    """The name for reports: the module's class, and what its constructor received."""
    features: int
    """D, the width of the first layer's input."""
    embedding: Parameter | None
    """The embedding's matrix `[V, D]`, if the module takes tokens."""
    takes_states: bool
    """Whether it may accept an initial state."""

    def parameters(self) -> Sequence[Parameter]:
        """The trainable arrays in the order in which they were created, without the embedding."""

    def own(self, name: str) -> Array:
        """The module's own value of a parameter."""

    def run(
        self,
        weights: Mapping[str, Array],
        x: Array,
        batch: int,
        states: Sequence[Array] | None,
        training: bool,
    ) -> Array:
        """Run the module with given weights.

        Args:
            weights: new values of some parameters. The others stay as they are. Nobody changes
                these arrays afterwards, so an array that its parameter already has need not be
                written again.
            x: the input of every sample, `[T, D]`. If the module takes tokens: the rows of the
                embedding that stand for its tokens, where steps with equal rows are one token.
                They are among the first rows of the embedding, whatever `weights` have there.
            batch: B.
            states: the parts of the initial state, `[L*K, B, H]` each. None: the module's own.
            training: True for training mode, False for evaluation mode.

        Returns:
            The output of the module, `[T, B, F]`.
        """

    def noise(self) -> Any:
        """Everything that determines the noise of the next call."""

    def replay(self, noise: Any) -> None:
        """Make the next call draw the same noise as the call that came after `noise()`."""

    def __enter__(self) -> Probe: ...

    def __exit__(self, *error: object) -> None: ...


class ModelPart(NamedTuple):
    """A recurrent layer of a model, together with the dropout around it, to be audited."""

    name: str
    """The layer's name in the model."""
    model: Any
    """The layer with the dropout around it, in a form that the adapter's `probe` accepts."""
    notes: tuple[str, ...] = ()
    """Dropout of the model at this layer that is not included, one sentence each."""


@runtime_checkable
class AuditableAdapter(Protocol):
    """An adapter whose models can be audited.

    It may also have a method `parts(model, example) -> Sequence[ModelPart]` for the audit of a
    whole model. It returns the recurrent layers that run when the model runs on the example.
    """

    def probe(self, model: Any) -> Probe:
        """The model, ready for the audit."""
