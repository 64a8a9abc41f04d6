"""Faults that were in the PyTorch layers' compiled code, put back; the fuzz must find each of them.

`python -m tests.support.torch_fuzz_mutants "the name"` ends with `FOUND` if it does, or dies.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from dropout_policies_kernels import kernel_memory, sequence_operator
from dropout_policies_torch import recurrent_layer
from hypothesis import strategies as st
from torch import Tensor

from . import torch_fuzz, torch_fuzz_calls
from .torch_fuzz import fuzz

CONTIGUOUS = {"y": "contiguous"}

FOUND = 3
"""The exit status of a process whose mutant was found by a wrong number or a missing error."""

Patch = pytest.MonkeyPatch


class Mutant(NamedTuple):
    """A fault, and the part of the fuzz that is to find it.

    Args:
        apply: puts it back.
        check: what it fails.
        calls: on which calls.
    """

    apply: Callable[[Patch], None]
    check: Callable[[Any], None]
    calls: st.SearchStrategy[Any]


def _everywhere(patch: Patch, original: Any, replacement: Any) -> None:
    """Put something in the place of a function or class, in every module that has it."""
    for module in list(sys.modules.values()):
        if module.__name__.startswith("dropout_policies_torch"):
            for name, value in list(vars(module).items()):
                if value is original:
                    patch.setattr(module, name, replacement)


def _unchecked(
    patch: Patch, ignored: Callable[[str, Tensor, tuple[int, ...], Tensor], bool]
) -> None:
    """The gate lets some tensors through: ignored(name, tensor, shape, like)."""
    original = kernel_memory.check_memory

    def check_memory(
        name: str, x: Tensor, shape: Any, like: Tensor, contiguous: bool = True
    ) -> Tensor:
        return x if ignored(name, x, shape, like) else original(name, x, shape, like, contiguous)

    _everywhere(patch, original, check_memory)


def _layers_accept(patch: Patch, *words: str) -> None:
    """The check of a layer's tensors raises no error with such words in it."""
    original = recurrent_layer.check_tensors

    def check_tensors(*args: Any) -> None:
        try:
            original(*args)
        except (RuntimeError, TypeError) as error:
            if not any(word in str(error) for word in words):
                raise

    patch.setattr(recurrent_layer, "check_tensors", check_tensors)


def _device_unchecked(patch: Patch) -> None:
    _layers_accept(patch, "device")
    _unchecked(patch, lambda _name, x, _shape, like: x.device != like.device)
    _everywhere(patch, kernel_memory.is_plain, lambda x: x.layout is torch.strided)


def _shapes_unchecked(patch: Patch) -> None:
    _layers_accept(patch, "weight_hh")
    _unchecked(patch, lambda name, *_: name == "recurrent weight")


def _biases_unchecked(patch: Patch) -> None:
    _layers_accept(patch, "bias")
    _unchecked(patch, lambda name, *_: name == "bias")


def _types_unchecked(patch: Patch) -> None:
    _layers_accept(patch, "type")


def _layouts_unchecked(patch: Patch) -> None:
    _layers_accept(patch, "dense tensor")


def _as_given(patch: Patch) -> None:
    """Tensors reach compiled code as they lie in memory."""
    _unchecked(patch, lambda *_: True)
    _everywhere(patch, kernel_memory.make_contiguous, kernel_memory.resolve_bits)


def _saved_as_given(patch: Patch) -> None:
    """What hooks on saved tensors give back is taken for what was saved."""
    _unchecked(patch, lambda *_: True)
    original = sequence_operator.checked_saved_tensors
    _everywhere(patch, original, lambda ctx, *_: ctx.saved_tensors)


def _negative_bit_ignored(patch: Patch) -> None:
    _unchecked(patch, lambda _name, x, *_: x.is_neg())
    _everywhere(patch, kernel_memory.make_contiguous, Tensor.contiguous)
    _everywhere(patch, kernel_memory.resolve_bits, lambda x: x)


class _ForgetfulGates(sequence_operator.SavedGates):
    """Gates that never know that a pass overwrote them."""

    @property
    def is_overwritten(self) -> bool:
        return False

    @is_overwritten.setter
    def is_overwritten(self, is_overwritten: bool) -> None:
        pass


def _retry_reads_what_was_overwritten(patch: Patch) -> None:
    _everywhere(patch, sequence_operator.SavedGates, _ForgetfulGates)


def _overwritten_though_kept(patch: Patch) -> None:
    _retry_reads_what_was_overwritten(patch)
    patch.setattr(_ForgetfulGates, "may_overwrite", lambda *_: True)


def _on_layers(check: Callable[[Any], None], calls: Callable[[str], Any]) -> dict[str, Any]:
    return {"check": check, "calls": calls("LSTM") | calls("GRU") | calls("RNN")}


_RIGHT = _on_layers(torch_fuzz.equals_plain_loop, torch_fuzz_calls.calls)
_WRONG = _on_layers(torch_fuzz.treated_as_by_stock, torch_fuzz_calls.wrong_calls)
_SAVED_ELSEWHERE = _on_layers(
    torch_fuzz.equals_plain_loop,
    lambda kind: torch_fuzz_calls.calls(kind).map(
        lambda call: replace(call, layouts={}, grad_layouts=CONTIGUOUS)
    ),
)
_SAVED = _on_layers(torch_fuzz.equals_plain_loop, torch_fuzz_calls.wrongly_saved)


def _wrong(*faults: str) -> dict[str, Any]:
    """Calls with these faults alone, where another fault would be found as well."""
    calls = partial(torch_fuzz_calls.wrong_calls, faults=faults)
    return _on_layers(torch_fuzz.treated_as_by_stock, calls)


MUTANTS: dict[str, Mutant] = {
    "a state or weight on another device": Mutant(_device_unchecked, **_wrong("meta")),
    "a wrongly shaped weight_hh": Mutant(_shapes_unchecked, **_WRONG),
    "a wrong bias": Mutant(_biases_unchecked, **_WRONG),
    "a state or weight of another type": Mutant(_types_unchecked, **_WRONG),
    "half precision in oneDNN's layout": Mutant(_layouts_unchecked, **_wrong("mkldnn")),
    "the layout of h0": Mutant(_as_given, **_RIGHT),
    "saved tensors in another layout": Mutant(_as_given, **_SAVED_ELSEWHERE),
    "saved tensors of another shape": Mutant(_saved_as_given, **_SAVED),
    "the negative bit": Mutant(_negative_bit_ignored, **_RIGHT),
    "a retry reads overwritten gates": Mutant(_retry_reads_what_was_overwritten, **_RIGHT),
    "gates overwritten that are needed again": Mutant(_overwritten_though_kept, **_RIGHT),
}
"""Each known fault by name."""

EXAMPLES = 600
"""Calls within which a fault is to be found."""


def main(name: str) -> int:
    """Put a fault back and run the fuzz.

    Args:
        name: one of `MUTANTS`; or empty for no fault.

    Returns:
        `FOUND`, or 0 if nothing was found.
    """
    warnings.simplefilter("ignore")
    with pytest.MonkeyPatch.context() as patch:
        if not name:
            fuzz(torch_fuzz.equals_plain_loop, torch_fuzz_calls.calls("LSTM"), 5, shrink=False)
            return 0
        mutant = MUTANTS[name]
        mutant.apply(patch)
        try:
            fuzz(mutant.check, mutant.calls, EXAMPLES, shrink=False)
        except Exception as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            return FOUND
    return 0


if __name__ == "__main__":
    import tests.conftest  # noqa: F401 - Hypothesis's profile

    sys.exit(main(sys.argv[1]))
