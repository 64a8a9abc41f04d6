"""How many masks fall on each connection of a model, measured on values and gradients of PyTorch.

Nothing here asks the library what it did. A mask before a tensor leaves zeros in its values, and a
mask after it leaves zeros in its gradient. The share that is not zero, in training over evaluation,
is (1 - rate) for one mask, and its square for two. A bidirectional layer masks its input once for
each direction, and an element's gradient is zero where both masks are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

PASSES = 24
"""At most; the elements of all passes are counted together."""

ENOUGH = 20_000
"""Elements of each layer, after which there are no more passes."""

FEWEST = 100
"""With fewer elements that a gradient reaches, a share is not measured."""


@dataclass
class Ends:
    """The tensors at both ends of one layer, in all of its calls: values, and gradients later."""

    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)

    def take_input(self, value: Any) -> Any:
        """What the layer is to take in instead: a tensor that no other connection shares."""
        return _own(value, self.inputs)

    def take_output(self, value: Any, is_state: bool = False) -> Any:
        """What is to leave the layer instead; what is its state too is left as it is."""
        return _own(value, self.outputs, copied=not is_state)


@dataclass(frozen=True)
class Masks:
    """How many masks were measured on a connection; None where no gradient flows."""

    layer: str
    on_input: float | None
    on_output: float | None


Watch = Callable[[Any, Ends], Callable[[], None]]
"""Has a layer give its tensors to `Ends`; returns what undoes that."""


def measure_masks(
    run: Callable[[bool], Any], layers: Mapping[str, Any], watch: Watch, rate: float
) -> list[Masks]:
    """Measure the masks on what comes into each layer and on what leaves it.

    Args:
        run: runs the model; its argument says whether in training.
        layers: its recurrent layers by name.
        watch: has one of them give its tensors away.
        rate: the rate of the policy's masks.
    """
    still = _count(_passes(lambda: run(False), layers, watch, PASSES // 4))
    noisy = _count(_passes(lambda: run(True), layers, watch, PASSES))

    def masks(end: str, name: str) -> float | None:
        before, after = still.get((name, end)), noisy.get((name, end))
        if before is None or after is None or before.reached < FEWEST or not after.reached:
            return None
        values = (after.nonzero / after.elements) / (before.nonzero / before.elements)
        gradients = (after.reached / after.nonzero) / (before.reached / before.nonzero)
        if end == "input" and _is_bidirectional(layers[name]):
            gradients = 1 - math.sqrt(max(1 - gradients, 0.0))
        return (math.log(values) + math.log(gradients)) / math.log(1 - rate)

    return [Masks(name, masks("input", name), masks("output", name)) for name in layers]


def _is_bidirectional(layer: Any) -> bool:
    """Whether it is one of PyTorch's or Keras's that run in both directions."""
    return bool(getattr(layer, "bidirectional", False)) or hasattr(layer, "backward_layer")


def _passes(
    run: Callable[[], Any], layers: Mapping[str, Any], watch: Watch, passes: int
) -> Iterator[dict[str, Ends]]:
    """Run forwards and backwards, and give the tensors at the ends of each layer."""
    for number in range(passes):
        torch.manual_seed(1000 + number)
        seen = {name: Ends() for name in layers}
        undo = [watch(layer, seen[name]) for name, layer in layers.items()]
        try:
            with torch.enable_grad():
                total = sum(map(_weighted, _tensors(run())))
            if isinstance(total, Tensor) and total.requires_grad:
                total.backward()  # type: ignore[no-untyped-call]
        finally:
            for function in undo:
                function()
        yield seen
        fewest = min(sum(tensor.numel() for tensor in ends.inputs) for ends in seen.values())
        if fewest * (number + 1) > ENOUGH:
            return


def _own(value: Any, kept: list[Tensor], copied: bool = True) -> Any:
    if isinstance(value, PackedSequence):
        return value._replace(data=_own(value.data, kept, copied))
    if copied:
        value = value * 1 if value.requires_grad else value.detach().clone().requires_grad_()
    if value.requires_grad:
        value.retain_grad()
        kept.append(value)
    return value


@dataclass
class Count:
    """Of the elements of a connection: how many there are, how many are not zero, and how many of
    these a gradient reaches."""

    elements: int = 0
    nonzero: int = 0
    reached: int = 0

    def add(self, tensor: Tensor) -> None:
        """Count a tensor's."""
        nonzero = tensor != 0
        self.elements += tensor.numel()
        self.nonzero += int(nonzero.sum())
        self.reached += 0 if tensor.grad is None else int((nonzero & (tensor.grad != 0)).sum())


def _count(passes: Iterator[dict[str, Ends]]) -> dict[tuple[str, str], Count]:
    """The counts by layer and end."""
    counts: dict[tuple[str, str], Count] = {}
    for seen in passes:
        for name, ends in seen.items():
            for end, tensors in (("input", ends.inputs), ("output", ends.outputs)):
                count = counts.setdefault((name, end), Count())
                for tensor in tensors:
                    count.add(tensor)
    return counts


def _weighted(tensor: Tensor) -> Tensor | float:
    """A sum with weights of its own, so that nothing cancels out."""
    if not tensor.requires_grad or not tensor.is_floating_point():
        return 0.0
    weights = torch.rand(tensor.shape, generator=torch.Generator().manual_seed(7)) + 0.5
    return (torch.nan_to_num(tensor, posinf=0.0, neginf=0.0) * weights.to(tensor.dtype)).sum()


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in a structure of tuples, lists, mappings and data classes."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)
    elif hasattr(value, "__dataclass_fields__"):
        for name in value.__dataclass_fields__:
            yield from _tensors(getattr(value, name))
