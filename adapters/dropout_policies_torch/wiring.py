"""What can be seen of how a module's recurrent layers feed one another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from torch import nn

from dropout_policies.errors import PolicyError
from dropout_policies.policy import Policy
from dropout_policies.stacks import Found

CONTAINERS = (nn.Sequential, nn.ModuleList)
"""The modules whose order is the order in which values flow."""


def check_neighbours(container: nn.Sequential, found: dict[int, Found], policy: Policy) -> None:
    """A vertical policy must not meet an `nn.Dropout` on the same connection."""
    before: Found | None = None
    waiting: nn.Dropout | None = None
    for module in container:
        item = found.get(id(module))
        if isinstance(module, nn.Dropout) and module.p > 0.0:
            waiting = module
        elif item is None and _joins(module):
            continue
        if waiting is not None and (clash := before or item) is not None:
            raise PolicyError(
                f"{clash.name} ({clash.kind}) stands beside Dropout(p={waiting.p}): policy "
                f"{policy.name!r} would mask the same connection a second time. Remove that "
                f"Dropout, or set its p to 0, first."
            )
        if module is not waiting:
            before, waiting = item, None


def linked(model: nn.Module, found: Sequence[Found]) -> Iterator[tuple[Found, Found]]:
    """Pairs of which the first feeds the second: neighbours of fitting width in a container."""
    by_id = {id(item.layer): item for item in found}
    for container in model.modules():
        if not isinstance(container, CONTAINERS):
            continue
        before: Found | None = None
        for module in container:
            item = by_id.get(id(module))
            if item is not None:
                if before is not None and _fits(before, item):
                    yield before, item
                before = item
            elif not _joins(module):
                before = None


def unclear(model: nn.Module, found: Sequence[Found]) -> Iterator[tuple[Found, Found]]:
    """Neighbouring attributes of one module of fitting width: only its `forward` knows."""
    by_id = {id(item.layer): item for item in found}
    for parent in model.modules():
        if isinstance(parent, CONTAINERS):
            continue
        children = [by_id[id(child)] for child in parent.children() if id(child) in by_id]
        yield from (pair for pair in pairwise(children) if _fits(*pair))


def _fits(a: Found, b: Found) -> bool:
    if isinstance(a.layer, nn.LSTM):
        width = (a.layer.proj_size or a.layer.hidden_size) * (1 + a.layer.bidirectional)
    else:
        width = a.layer.hidden_size
    return bool(width == b.layer.input_size)


def _joins(module: nn.Module) -> bool:
    """Whether a module between two layers only passes values on: it has no weights."""
    return next(module.parameters(), None) is None
