"""What an adapter offers to the audit: a module that can be run again and again.

Each run may have other weights, and the same noise as an earlier run.
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
"""The name of a parameter that is a learned initial state, as `h0`, `init_hidden`, `start`."""


def no_matrices_error(name: str, has_convolutions: bool) -> PolicyError:
    """The error of a module without weights that the audit could set.

    Args:
        name: what it is called.
        has_convolutions: whether it has weights of more than two axes.
    """
    if not has_convolutions:
        return PolicyError(f"{name} has no weights that are matrices: nothing to audit.")
    return PolicyError(
        f"{name} has no weights that are matrices, and of convolutions the audit takes Keras's "
        f"ConvLSTM1D, ConvLSTM2D and ConvLSTM3D alone. Of a model under a policy, "
        f"dp.record(model) gives the masks themselves."
    )


class Parameter(NamedTuple):
    """A trainable array of a module."""

    name: str
    """Its name in the module."""
    shape: tuple[int, ...]
    """Its shape."""
    transposed: bool
    """Whether a matrix is `[in, out]`, as in Keras, and not `[out, in]`."""

    @property
    def is_matrix(self) -> bool:
        """Whether it may be the weights of a connection. A bias of two rows is not, nor is a
        learned initial state."""
        return (
            len(self.shape) == 2 and "bias" not in self.name and not INITIAL_STATE.search(self.name)
        )


class Probe(Protocol):
    """A module under audit; a context manager that puts it back, bit for bit, at its end.

    `run`, `noise` and `replay` are called hundreds of times for one audit.
    """

    name: str
    """As a report calls it: its class, and what its constructor was given."""
    features: int
    """D, the width of the first layer's input."""
    embedding: Parameter | None
    """The embedding's matrix `[V, D]`, if the module takes tokens."""
    takes_states: bool
    """Whether it may take an initial state."""

    def parameters(self) -> Sequence[Parameter]:
        """The trainable arrays in the order in which they were made, without the embedding."""

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
        """Run the module on given weights; returns its output, `[T, B, F]`.

        Args:
            weights: new values of some parameters; the others stay as they are. Nobody changes an
                array afterwards: one that is in its parameter already need not be written again.
            x: the input of every sample, `[T, D]`; or, where the module takes tokens, the rows of
                the embedding that its tokens stand for: steps of equal rows are one token. They
                are among the embedding's first rows, whatever `weights` have there.
            batch: B.
            states: the parts of the initial state, `[L*K, B, H]` each; None for the module's own.
            training: in which mode.
        """

    def noise(self) -> Any:
        """Everything that the noise of the next call depends on."""

    def replay(self, noise: Any) -> None:
        """Have the next call draw the same noise as the call that came after `noise()`."""

    def __enter__(self) -> Probe: ...

    def __exit__(self, *error: object) -> None: ...


class ModelPart(NamedTuple):
    """A recurrent layer of a model, with the dropout around it, as something to audit."""

    name: str
    """The layer's name in the model."""
    model: Any
    """What the adapter's `probe` takes: the layer with the dropout around it."""
    notes: tuple[str, ...] = ()
    """What of the model is on the way and is not in it."""


@runtime_checkable
class AuditableAdapter(Protocol):
    """An adapter whose models can be audited.

    It may also have a method `parts(model, example) -> Sequence[ModelPart]`: the recurrent layers
    that run when the model runs on an example, for the audit of a whole model.
    """

    def probe(self, model: Any) -> Probe:
        """The model under audit."""
