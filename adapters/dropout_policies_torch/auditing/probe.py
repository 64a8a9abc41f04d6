"""A `torch.nn.Module` under audit: run on other weights, with the same noise again and again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from torch.overrides import TorchFunctionMode

from dropout_policies.adapter import (
    Array,
    Parameter,
    PolicyError,
)

from ..layers import Recurrent
from . import calling, sources


class Probe:
    """See `dropout_policies.adapter.Probe`.

    Raises:
        PolicyError: the module is one step of a network, has no weights, or more than one
            embedding.
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
                f"{self.name} has {len(embeddings)} embeddings, and the audit can give it one kind "
                f"of tokens. Give it the recurrent layer alone."
            )
        self.embedding: Parameter | None = None
        for embedding in embeddings:
            shape = (embedding.num_embeddings, embedding.embedding_dim)
            own = [p for p in embedding.parameters() if tuple(p.shape) == shape]
            named = (n for n, p in module.named_parameters() if any(p is one for one in own))
            name = next(named, None)
            self.embedding = None if name is None else Parameter(name, shape, False)
        first = next((p for p in module.parameters() if p.dim() == 2), None)
        if first is None:
            raise PolicyError(f"{self.name} has no weights that are matrices: nothing to audit.")
        widths = [embeddings[0].embedding_dim] if embeddings else list(_widths(module, first))
        self._widths = widths
        self._device, self._dtype = first.device, first.dtype
        if self._dtype not in (torch.float32, torch.float64):
            raise PolicyError(
                f"{self.name} is in {str(self._dtype).removeprefix('torch.')}, which is too coarse "
                f"for what the audit measures. Give it copy.deepcopy(module).float()."
            )
        if any(p.is_inference() for p in module.parameters()):
            raise PolicyError(
                f"{self.name} was made in inference mode, and its weights cannot be changed. Give "
                f"it copy.deepcopy(module)."
            )
        self._time_first, self._way = True, calling.Way(widths[0])
        self._softmax: int | None = None  # which of a call's gives the output
        self.takes_states = bool(calling.state_arguments(module))

    def __enter__(self) -> Probe:
        module = self.module
        self._training = [(m, m.training) for m in module.modules()]
        self._values = [(p, p.detach().clone(), p.grad) for p in module.parameters()]
        self._before = self.noise()
        try:
            self._time_first = self._finds_time_first()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        with torch.no_grad():
            for parameter, value, gradient in self._values:
                parameter.copy_(value)
                parameter.grad = gradient
        self.replay(self._before)
        for module, training in self._training:
            module.training = training

    @property
    def features(self) -> int:
        return self._way.features

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
        rows, tokens = np.unique(x, axis=0, return_inverse=True)
        with torch.no_grad():
            own = dict(self.module.named_parameters())
            for name, value in weights.items():
                own[name].copy_(torch.from_numpy(np.asarray(value)))
            if self.embedding is None:
                made = torch.from_numpy(x).to(self._device, self._dtype)
                made = made[:, None].expand(len(x), batch, x.shape[-1])
            else:
                matrix = own[self.embedding.name]
                if len(rows) > len(matrix):
                    raise PolicyError(f"{self.name} knows fewer tokens than the audit needs.")
                matrix[: len(rows)].copy_(torch.from_numpy(rows))
                made = torch.from_numpy(tokens.reshape(-1, 1)).to(self._device)
                made = made.expand(len(x), batch)
            y = self._call(made if self._time_first else made.transpose(0, 1), training, states)
        return y if self._time_first else y.swapaxes(0, 1)

    def _call(
        self, x: Tensor, training: bool, states: Sequence[Array] | None = None
    ) -> npt.NDArray[np.float64]:
        self.module.train(training)
        also = self._way.arguments(self.module, x)
        if states is not None:
            given = [torch.from_numpy(s).to(self._device, self._dtype) for s in states]
            also |= calling.as_arguments(self.module, given[0] if len(given) == 1 else tuple(given))
        sequence: Tensor | PackedSequence = x.contiguous()
        if self._way.packed:
            sequence = pack_padded_sequence(x, [len(x)] * x.shape[1])
        with _Raw(self._softmax) as raw:
            result = self.module(sequence, **also)
        first, second = x.shape[:2]
        for value in _tensors(result, self._way.batch_axis == 0):
            # Some hand back the steps of all samples as one axis.
            if value.shape[:-1] in ((first, second), (first * second,)):
                self._softmax = raw.behind(value) if raw.given is None else raw.given
                return value.double().reshape(first, second, -1).numpy(force=True)
        raise PolicyError(
            f"{self.name} gives no output for every step, and the audit reads it there. Received: "
            f"input {tuple(x.shape)}. Give it the recurrent layer alone."
        )

    def _finds_time_first(self) -> bool:
        """Whether a change goes on along the first axis of the input, or along the second one."""
        for number, parameter in enumerate(self.module.parameters()):
            generator = torch.Generator().manual_seed(number)
            values = torch.rand(parameter.shape, generator=generator, dtype=torch.float64)
            # So that what comes in goes on through many layers.
            matrix = parameter.dim() == 2
            values = (0.5 + values) / parameter.shape[1] if matrix else 0.1 * values
            parameter.data.copy_(values)
        errors = []
        along = (False, False)
        for way in calling.ways(self.module, self._widths):
            self._way = way
            try:
                along = self._goes_on()
            except Exception as error:  # whatever a module has against being called so
                errors.append(error)
                continue
            if way.batch_axis is None or not along[way.batch_axis]:
                break
        else:
            if errors:
                raise self._refusal(errors[0])
        self.replay(self._before)
        if sum(along) != 1:
            where = "along both axes of its output" if all(along) else "nowhere"
            raise PolicyError(
                f"{self.name}: what comes in at one step is seen later {where}. The audit needs a "
                f"recurrent network that gives an output for every step."
            )
        return along[0]

    def _refusal(self, error: Exception) -> PolicyError:
        """For a module that cannot be called in any way."""
        if isinstance(error, PolicyError):
            return error
        widths = " or ".join(map(str, dict.fromkeys(self._widths)))
        given = " and ".join([f"an input of {widths} features", *calling.wanted(self.module)])
        return PolicyError(
            f"{self.name} does not run on {given}: {type(error).__name__}: {error}. Give the audit "
            f"the recurrent layer alone."
        )

    def _goes_on(self) -> tuple[bool, bool]:
        """Whether outputs change along the first axis, and along the second one, with the input at
        (1, 1), of 3 by 5."""
        outputs = []
        for value in (0, 0, 1):  # the first call tells what is behind the output
            if self.embedding is None:
                x = torch.ones(3, 5, self.features, device=self._device, dtype=self._dtype)
            else:
                x = torch.zeros(3, 5, device=self._device, dtype=torch.long)
            x[1, 1] = 1 - value
            self.replay(self._before)
            with torch.no_grad():
                outputs.append(self._call(x, False))
        moved = (outputs[1] != outputs[2]).any(axis=-1)
        if not moved[1, 1]:
            return False, False
        return bool(moved[[0, 2], 1].any()), bool(moved[1, [0, 2, 3, 4]].any())

    def noise(self) -> Any:
        return sources.note(self.module, getattr(self, "_before", None))

    def replay(self, noise: Any) -> None:
        sources.put_back(noise)


class _Raw(TorchFunctionMode):
    """Counts the softmaxes of a call; one of them gives what it would be made of instead: of
    probabilities, small signals cannot be told."""

    def __init__(self, given: int | None) -> None:
        super().__init__()
        self.given = given
        self.made: list[Tensor] = []

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").removeprefix("special_")
        if name not in ("softmax", "log_softmax"):
            return func(*args, **kwargs)
        raw = args[0] if args else kwargs["input"]
        self.made.append(raw if len(self.made) == self.given else func(*args, **kwargs))
        return self.made[-1]

    def behind(self, output: Tensor) -> int | None:
        """The number of the softmax that made an output, or what it is a view of."""
        place = output.untyped_storage().data_ptr()
        made = [m.untyped_storage().data_ptr() == place for m in self.made]
        return made.index(True) if True in made else None


def _tensors(result: Any, batch_first: bool) -> Iterator[Tensor]:
    """The tensors of what a module gives back, from the first on."""
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, PackedSequence):
        yield pad_packed_sequence(result, batch_first)[0]
    elif isinstance(result, Mapping):
        for part in result.values():
            yield from _tensors(part, batch_first)
    elif isinstance(result, tuple | list):
        for part in result:
            yield from _tensors(part, batch_first)
    elif is_dataclass(result):
        for field in fields(result):
            yield from _tensors(getattr(result, field.name), batch_first)


def _widths(module: nn.Module, first: Tensor) -> Iterator[int]:
    """What D may be, by the module's own word or its first matrix."""
    for part in module.modules():
        if isinstance(size := getattr(part, "input_size", None), int):
            yield size
    rows, columns = first.shape
    yield columns
    # One matrix for x and h, side by side; or either that is laid out the other way round.
    yield from (columns - rows // gates for gates in (4, 3, 1) if columns > rows // gates)
    yield rows
    yield from (rows - columns // gates for gates in (4, 3, 1) if rows > columns // gates)


def _title(module: nn.Module) -> str:
    """The class, and, of a recurrent layer, what of its constructor's arguments matters here."""
    kind = type(module)
    where = "nn." if kind.__module__.startswith("torch.nn.") else ""
    said = []
    if isinstance(module, nn.RNNBase):
        said = [f"{module.input_size}, {module.hidden_size}"]
        said += [f"num_layers={module.num_layers}"] if module.num_layers > 1 else []
        said += ["bidirectional=True"] if module.bidirectional else []
        said += [f"dropout={module.dropout:g}"] if module.dropout else []
    if isinstance(module, Recurrent) and module.placement is not None:
        said.append(f"policy={module.placement.policy.name!r}")
    return f"{where}{kind.__qualname__}({', '.join(said)})"
