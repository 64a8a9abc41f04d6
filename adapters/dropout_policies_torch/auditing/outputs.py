"""The tensors in the result of an audited module, and the softmax at its end.

Small signals do not show in probabilities. So the softmax that makes the output is skipped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence
from torch.overrides import TorchFunctionMode


class SoftmaxBypass(TorchFunctionMode):
    """Counts the softmaxes of a call, and replaces one of them by the identity.

    Args:
        replaced: the number of the softmax to replace. None: replace none.
    """

    def __init__(self, replaced: int | None) -> None:
        super().__init__()
        self.replaced = replaced
        self.results: list[Tensor] = []

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
        logits = args[0] if args else kwargs["input"]
        is_replaced = len(self.results) == self.replaced
        self.results.append(logits if is_replaced else func(*args, **kwargs))
        return self.results[-1]

    def number_of(self, output: Tensor) -> int | None:
        """Return the number of the softmax that made an output or the base of an output view."""
        address = output.untyped_storage().data_ptr()
        is_same = [r.untyped_storage().data_ptr() == address for r in self.results]
        return is_same.index(True) if True in is_same else None


def find_tensors(result: Any, batch_first: bool) -> Iterator[Tensor]:
    """Find the tensors in a module's result, in order.

    Args:
        result: a tensor, a packed sequence, or a mapping, sequence or dataclass of them.
        batch_first: whether packed sequences are padded to `[B, T, ...]`.
    """
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, PackedSequence):
        yield pad_packed_sequence(result, batch_first)[0]
    elif isinstance(result, Mapping):
        for part in result.values():
            yield from find_tensors(part, batch_first)
    elif isinstance(result, tuple | list):
        for part in result:
            yield from find_tensors(part, batch_first)
    elif is_dataclass(result):
        for field in fields(result):
            yield from find_tensors(getattr(result, field.name), batch_first)
