"""What can be seen of how a module's recurrent layers feed one another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise, permutations

from torch import nn

from dropout_policies.adapter import (
    LayerUse,
    Placement,
    PolicyError,
    RecurrentLayer,
)

CONTAINERS = (nn.Sequential, nn.ModuleList)
"""The modules whose order is the order in which values flow."""

DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.AlphaDropout, nn.FeatureAlphaDropout)


def find_uses(model: nn.Module, found: Sequence[RecurrentLayer]) -> Iterator[LayerUse]:
    """Where layers run in containers; of two neighbours of fitting width the first feeds the
    second, through modules without weights."""
    by_id = {id(item.layer): item for item in found}
    for line in _containers_in_order(model):
        before: LayerUse | None = None
        for module in line:
            item = by_id.get(id(module))
            if item is not None:
                fed = before is not None and _widths_match(before.item, item)
                before = LayerUse(item, (before,) if fed and before is not None else ())
                yield before
            elif not _has_no_weights(module):
                before = None


def find_ambiguous_pairs(
    model: nn.Module, found: Sequence[RecurrentLayer]
) -> Iterator[tuple[RecurrentLayer, RecurrentLayer]]:
    """Pairs of fitting width in one module of which only its `forward` knows how they are joined.

    In a container, neighbours of which one is a module with a `forward` around a layer; anywhere
    else any two, in the order in which they were written first.
    """
    by_id = {id(item.layer): item for item in found}
    for parent in model.modules():
        if id(parent) in by_id:
            continue
        children = list(parent.children())
        ends = [_first_and_last(child, by_id) for child in children]
        if isinstance(parent, CONTAINERS):
            plain = [isinstance(c, nn.Sequential) or id(c) in by_id for c in children]
            pairs = [(i, i + 1) for i, two in enumerate(pairwise(plain)) if not all(two)]
        else:
            known = [index for index, end in enumerate(ends) if end is not None]
            pairs = sorted(permutations(known, 2), key=lambda ij: ij[0] > ij[1])
        for i, j in pairs:
            before, after = ends[i], ends[j]
            if before is not None and after is not None and _widths_match(before[1], after[0]):
                yield before[1], after[0]


def check_adjacent_dropouts(
    model: nn.Module, found: Sequence[RecurrentLayer], places: Mapping[RecurrentLayer, Placement]
) -> None:
    """A policy must not meet one of PyTorch's dropout modules on a connection that it masks.

    Args:
        model: where the layers are.
        found: the layers.
        places: each layer's placement.
    """
    by_id = {id(item.layer): item for item in found}
    for line in _containers_in_order(model):
        before: RecurrentLayer | None = None
        waiting: nn.Module | None = None
        for module in line:
            item = by_id.get(id(module))
            if isinstance(module, DROPOUTS) and module.p > 0.0:
                waiting = module
            if waiting is not None:
                for clash, is_before in ((before, True), (item, False)):
                    if clash is None:
                        continue
                    masks = Placement.masks_output if is_before else Placement.masks_input
                    if masks(places[clash], clash.layers):
                        raise PolicyError(_clash_message(clash, waiting, places[clash]))
            if item is not None:
                before, waiting = item, None
            elif not _has_no_weights(module):
                before = waiting = None


def adjacent_dropouts(
    model: nn.Module, found: Sequence[RecurrentLayer]
) -> Iterator[tuple[str, nn.Module]]:
    """Dropout modules that are attributes beside a recurrent layer: only `forward` knows where."""
    layers = {id(item.layer) for item in found}
    for path, parent in model.named_modules():
        if not isinstance(parent, CONTAINERS) and any(id(c) in layers for c in parent.children()):
            for name, child in parent.named_children():
                if isinstance(child, DROPOUTS) and child.p > 0.0:
                    yield f"{path}.{name}" if path else name, child


def _containers_in_order(model: nn.Module) -> Iterator[list[nn.Module]]:
    """The modules of every container in the order of flow, a Sequential inside opened."""
    inside = {
        id(child)
        for parent in model.modules()
        if isinstance(parent, CONTAINERS)
        for child in parent
        if isinstance(child, nn.Sequential)
    }
    for container in model.modules():
        if isinstance(container, CONTAINERS) and id(container) not in inside:
            yield list(_flattened(container))


def _flattened(container: nn.Module) -> Iterator[nn.Module]:
    # Not children(), which leaves out a module's second place; it runs there too.
    for child in container:  # type: ignore[attr-defined]
        if isinstance(child, nn.Sequential):
            yield from _flattened(child)
        else:
            yield child


def _first_and_last(
    module: nn.Module, by_id: Mapping[int, RecurrentLayer]
) -> tuple[RecurrentLayer, RecurrentLayer] | None:
    """The first and the last recurrent layer of a module that is one, holds a row of them, or has
    one and no other weights."""
    if id(module) in by_id:
        return by_id[id(module)], by_id[id(module)]
    if isinstance(module, CONTAINERS):
        inner = [
            ends
            for child in _flattened(module)
            if (ends := _first_and_last(child, by_id)) is not None
        ]
        return (inner[0][0], inner[-1][1]) if inner else None
    layers = [by_id[id(inner)] for inner in module.modules() if id(inner) in by_id]
    weights = {id(weight) for weight in module.parameters()}
    if len(layers) == 1 and weights == {id(weight) for weight in layers[0].layer.parameters()}:
        return layers[0], layers[0]
    return None


def _clash_message(item: RecurrentLayer, dropout: nn.Module, placement: Placement) -> str:
    return (
        f"{item.name} ({item.kind}) stands beside {type(dropout).__name__}(p={dropout.p}): policy "
        f"{placement.policy.name!r} would mask the same connection a second time. Remove that "
        f"{type(dropout).__name__}, or set its p to 0, first."
    )


def _widths_match(a: RecurrentLayer, b: RecurrentLayer) -> bool:
    if isinstance(a.layer, nn.RNNBase):
        width = (a.layer.proj_size or a.layer.hidden_size) * (1 + a.layer.bidirectional)
    else:
        width = a.layer.hidden_size
    return bool(width == b.layer.input_size)


def _has_no_weights(module: nn.Module) -> bool:
    """Whether a module between two layers only passes values on: it has no weights."""
    return next(module.parameters(), None) is None
