"""Runs a `torch.nn.Module` under audit with other weights, and repeatedly with the same noise.

The probe first finds out how to call the module (`calling`), and which axis of its input is time.
`model_state` captures and restores the state of the noise. `outputs` reads the module's result.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from dropout_policies.adapter import (
    Array,
    Parameter,
    PolicyError,
    no_matrices_error,
    number_text,
)

from ..model_wiring.model_state import capture_state, restore_state
from ..recurrent_layer import Recurrent
from .calling import (
    CallStyle,
    possible_call_styles,
    required_arguments,
    state_arguments,
    state_as_arguments,
    without_onednn,
)
from .outputs import SoftmaxBypass, find_tensors
from .parts import RecurrentPart


class WrittenValue(NamedTuple):
    """A value that was written into a parameter."""

    value: Array
    parameter: nn.Parameter
    version: int
    """The version of the parameter after the write."""

    def is_there(self, parameter: nn.Parameter) -> bool:
        """Whether this parameter still holds the value."""
        return self.parameter is parameter and self.version == parameter._version


class Probe:
    """The PyTorch implementation of `dropout_policies.adapter.Probe`.

    Raises:
        PolicyError: the module is one step of a network, has no weight matrix or more than one
            embedding, or is in half precision or from inference mode.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.name = _title(module)
        if isinstance(module, nn.RNNCellBase):
            raise PolicyError(
                f"{self.name} is one step of a recurrent network. Give the audit the module that "
                f"runs it over the steps of a sequence."
            )
        embeddings = [m for m in module.modules() if isinstance(m, nn.Embedding)]
        if len(embeddings) > 1:
            raise PolicyError(
                f"{self.name} has {len(embeddings)} embeddings, and the audit can pass tokens to "
                "one only. Give it the recurrent layer alone."
            )
        self.embedding: Parameter | None = None
        for embedding in embeddings:
            shape = (embedding.num_embeddings, embedding.embedding_dim)
            tables = [p for p in embedding.parameters() if tuple(p.shape) == shape]
            names = (n for n, p in module.named_parameters() if any(p is t for t in tables))
            name = next(names, None)
            self.embedding = None if name is None else Parameter(name, shape, False)
        first = next((p for p in module.parameters() if p.dim() == 2), None)
        if first is None:
            raise no_matrices_error(self.name, any(p.dim() > 2 for p in module.parameters()))
        widths = [embeddings[0].embedding_dim] if embeddings else _possible_widths(module, first)
        self._widths = list(widths)
        self._device, self._dtype = first.device, first.dtype
        if self._dtype not in (torch.float32, torch.float64):
            raise PolicyError(
                f"{self.name} is in {str(self._dtype).removeprefix('torch.')}, which is too coarse "
                f"for what the audit measures. Give it copy.deepcopy(module).float()."
            )
        if any(p.is_inference() for p in module.parameters()):
            raise PolicyError(
                f"{self.name} was created in inference mode, and its weights cannot be changed. "
                "Give it copy.deepcopy(module)."
            )
        self._time_first, self._call_style = True, CallStyle(self._widths[0])
        self._written: dict[str, WrittenValue] = {}
        self._last_softmax: int | None = None  # the number of the softmax that makes the output
        # The call styles and modes without a softmax. Watching such a call would slow down loops.
        self._without_softmax: set[tuple[CallStyle, bool]] = set()
        self.takes_states = bool(state_arguments(module))

    def __enter__(self) -> Probe:
        module = self.module
        self._modes = [(m, m.training) for m in module.modules()]
        self._values = [(p, p.detach().clone(), p.grad) for p in module.parameters()]
        self._initial_noise = self.noise()
        try:
            self._time_first = self._find_time_axis() == 0
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        with torch.no_grad():
            for parameter, value, gradient in self._values:
                parameter.copy_(value)
                parameter.grad = gradient
        self.replay(self._initial_noise)
        for module, training in self._modes:
            module.training = training

    @property
    def features(self) -> int:
        return self._call_style.features

    def parameters(self) -> list[Parameter]:
        return [
            Parameter(name, tuple(value.shape), False)
            for name, value in self.module.named_parameters()
            if self.embedding is None or name != self.embedding.name
        ]

    def own(self, name: str) -> Array:
        parameter = self.module.get_parameter(name)
        value = next(value for p, value, _ in self._values if p is parameter)
        return value.double().numpy(force=True)

    def run(
        self,
        weights: Mapping[str, Array],
        x: Array,
        batch: int,
        states: Sequence[Array] | None,
        training: bool,
    ) -> Array:
        with torch.no_grad():
            parameters = dict(self.module.named_parameters())
            for name, value in weights.items():
                self._write(name, parameters[name], value)
            if self.embedding is None:
                inputs = torch.from_numpy(x).to(self._device, self._dtype)
                inputs = inputs[:, None].expand(len(x), batch, x.shape[-1])
            else:
                rows, tokens = np.unique(x, axis=0, return_inverse=True)
                matrix = parameters[self.embedding.name]
                if len(rows) > len(matrix):
                    raise PolicyError(f"{self.name} knows fewer tokens than the audit needs.")
                matrix[: len(rows)].copy_(torch.from_numpy(rows))
                inputs = torch.from_numpy(tokens.reshape(-1, 1)).to(self._device)
                inputs = inputs.expand(len(x), batch)
            inputs = inputs if self._time_first else inputs.transpose(0, 1)
            y = self._call(inputs, training, states)
        return y if self._time_first else y.swapaxes(0, 1)

    def _write(self, name: str, parameter: nn.Parameter, value: Array) -> None:
        """Write a value to a parameter, unless the parameter still holds it from the last run."""
        written = self._written.get(name)
        if written is not None and written.value is value and written.is_there(parameter):
            return
        parameter.copy_(torch.from_numpy(np.asarray(value)))
        self._written[name] = WrittenValue(value, parameter, parameter._version)

    def _call(
        self, x: Tensor, training: bool, states: Sequence[Array] | None = None
    ) -> npt.NDArray[np.float64]:
        self.module.train(training)
        style = self._call_style
        arguments = style.extra_arguments(self.module, x)
        if states is not None:
            parts = [torch.from_numpy(s).to(self._device, self._dtype) for s in states]
            state = parts[0] if len(parts) == 1 else tuple(parts)
            arguments |= state_as_arguments(self.module, state)
        sequence: Tensor | PackedSequence = x.contiguous()
        if style.is_packed:
            sequence = pack_padded_sequence(x, [len(x)] * x.shape[1])
        softmaxes = SoftmaxBypass(self._last_softmax)
        is_watched = (style, training) not in self._without_softmax
        with softmaxes if is_watched else nullcontext(), without_onednn():
            result = self.module(sequence, **arguments)
        if not softmaxes.results:
            self._without_softmax.add((style, training))
        first, second = x.shape[:2]
        for value in find_tensors(result, style.batch_axis == 0):
            # Some modules return the steps of all samples as one axis.
            if value.shape[:-1] in ((first, second), (first * second,)):
                if self._last_softmax is None:
                    self._last_softmax = softmaxes.number_of(value)
                return value.double().reshape(first, second, -1).numpy(force=True)
        raise PolicyError(
            f"{self.name} does not return an output for every step, which the audit needs. "
            f"Received: input {tuple(x.shape)}. Give it the recurrent layer alone."
        )

    def _find_time_axis(self) -> int:
        """Find out how to call the module, and which axis of its input is time.

        Along the axis of time, an input affects other outputs.

        Returns:
            The index of the axis: 0 or 1.

        Raises:
            PolicyError: the module cannot be called, or there is no such axis, or there are two.
        """
        for number, parameter in enumerate(self.module.parameters()):
            generator = torch.Generator().manual_seed(number)
            values = torch.rand(parameter.shape, generator=generator, dtype=torch.float32)
            # These values let the input pass through many layers.
            is_matrix = parameter.dim() == 2
            values = (0.5 + values) / parameter.shape[1] if is_matrix else 0.1 * values
            parameter.data.copy_(values)
        errors = []
        affects = (False, False)
        for style in possible_call_styles(self.module, self._widths):
            self._call_style = style
            try:
                affects = self._affected_axes()
            except Exception as error:  # a module may raise anything if it is called wrongly
                errors.append(error)
                continue
            if style.batch_axis is None or not affects[style.batch_axis]:
                break
        else:
            if errors:
                raise self._refusal(errors[0])
        self.replay(self._initial_noise)
        if sum(affects) != 1:
            problem = "never affects a later output"
            if all(affects):
                problem = "affects later outputs along both axes"
            raise PolicyError(
                f"{self.name}: the input at one step {problem}. The audit needs a recurrent "
                f"network that gives an output for every step."
            )
        return affects.index(True)

    def _refusal(self, error: Exception) -> PolicyError:
        """Make the error for a module that cannot be called in any way."""
        if isinstance(error, PolicyError):
            return error
        widths = " or ".join(map(str, dict.fromkeys(self._widths)))
        inputs = [f"an input of {widths} features", *required_arguments(self.module)]
        return PolicyError(
            f"{self.name} does not run on {' and '.join(inputs)}: {type(error).__name__}: {error}. "
            f"Give the audit the recurrent layer alone."
        )

    def _affected_axes(self) -> tuple[bool, bool]:
        """Find the axes along which an input affects other outputs.

        Returns:
            Whether the input at (1, 1), of 3 by 5, affects other outputs along the first axis, and
            whether it does along the second.
        """
        outputs = []
        for value in (0, 0, 1):  # the first call finds the softmax that makes the output
            if self.embedding is None:
                x = torch.ones(3, 5, self.features, device=self._device, dtype=self._dtype)
            else:
                x = torch.zeros(3, 5, device=self._device, dtype=torch.long)
            x[1, 1] = 1 - value
            self.replay(self._initial_noise)
            with torch.no_grad():
                outputs.append(self._call(x, False))
        changed = (outputs[1] != outputs[2]).any(axis=-1)
        if not changed[1, 1]:
            return False, False
        return bool(changed[[0, 2], 1].any()), bool(changed[1, [0, 2, 3, 4]].any())

    def noise(self) -> Any:
        return capture_state(self.module, getattr(self, "_initial_noise", None))

    def replay(self, noise: Any) -> None:
        restore_state(noise)


def _possible_widths(module: nn.Module, first: Tensor) -> Iterator[int]:
    """List the possible values of D, from an `input_size` or from the first matrix."""
    for part in module.modules():
        if isinstance(size := getattr(part, "input_size", None), int):
            yield size
    rows, columns = first.shape
    yield columns
    # The matrix may be for x and h side by side, and either kind may be transposed.
    yield from (columns - rows // gates for gates in (4, 3, 1) if columns > rows // gates)
    yield rows
    yield from (rows - columns // gates for gates in (4, 3, 1) if rows > columns // gates)


def _title(module: nn.Module) -> str:
    """Return the class, and for a recurrent layer the arguments that matter here."""
    module = module.layer if isinstance(module, RecurrentPart) else module
    kind = type(module)
    prefix = "nn." if kind.__module__.startswith("torch.nn.") else ""
    arguments = []
    if isinstance(module, nn.RNNBase):
        arguments = [f"{module.input_size}, {module.hidden_size}"]
        arguments += [f"num_layers={module.num_layers}"] if module.num_layers > 1 else []
        arguments += ["bidirectional=True"] if module.bidirectional else []
        arguments += [f"dropout={number_text(module.dropout)}"] if module.dropout else []
    if isinstance(module, Recurrent) and module.placement is not None:
        arguments.append(f"policy={module.placement.policy.name!r}")
    return f"{prefix}{kind.__qualname__}({', '.join(arguments)})"
