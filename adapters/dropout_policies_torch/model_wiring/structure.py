"""What a module's structure shows of how its recurrent layers feed one another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise, permutations

from torch import nn

from dropout_policies.adapter import (
    DropoutUse,
    ExistingDropout,
    LayerUse,
    RecurrentLayer,
    Wiring,
)

from .existing_dropout import find_dropouts

CONTAINERS = (nn.Sequential, nn.ModuleList)
"""The modules whose order is the order in which values flow through them."""


def find_uses(model: nn.Module, found: Sequence[RecurrentLayer]) -> Iterator[LayerUse]:
    """Find where layers run in containers.

    If the widths of two neighbours match, the first feeds the second. Modules without weights may
    stand between the two.
    """
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


def find_possible_pairs(
    model: nn.Module, found: Sequence[RecurrentLayer]
) -> Iterator[tuple[RecurrentLayer, RecurrentLayer]]:
    """Find pairs in one module for which only `forward` shows whether the first feeds the second.

    In a container, these are neighbours of which at least one is a module with its own `forward`
    around a layer. Elsewhere they are any two layers. Pairs in the order in which the layers were
    written come first.
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
            if before is not None and after is not None:
                yield before[1], after[0]


def find_dropout_uses(
    model: nn.Module,
    found: Sequence[RecurrentLayer],
    dropouts: Mapping[nn.Module, ExistingDropout],
) -> list[DropoutUse]:
    """Find where dropout modules run in containers, and between which recurrent layers.

    Modules without weights may stand in between. Some dropouts are left out, because only code
    knows what they mask: those that also stand elsewhere, and those at an end of a container with
    no recurrent layer on the other side.
    """
    by_id = {id(item.layer): item for item in found}
    uses: list[DropoutUse] = []
    is_open: set[ExistingDropout] = set()
    for line in _containers_in_order(model):
        before: RecurrentLayer | None = None
        begins = True  # values still come from outside the container
        waiting: list[ExistingDropout] = []
        for module in [*line, None]:
            item = by_id.get(id(module))
            if module is not None and module in dropouts:
                waiting.append(dropouts[module])
            elif module is None or item is not None or not _has_no_weights(module):
                after = [] if item is None else [item]
                outputs = [] if before is None else [before]
                uses += [DropoutUse(d, outputs, (), after, item is None) for d in waiting]
                is_open |= set(waiting) if begins or module is None else set()
                before, begins, waiting = item, False, []
    places = Counter(use.dropout.layer for use in uses)
    inside = Counter(
        child
        for parent in model.modules()
        for child in parent._modules.values()
        if child in dropouts
    )
    placed = [
        u for u in uses if u.dropout.layer and places[u.dropout.layer] >= inside[u.dropout.layer]
    ]
    return [u for u in placed if u.outputs_of or u.inputs_of or u.dropout not in is_open]


def read_wiring(model: nn.Module, found: Sequence[RecurrentLayer]) -> Wiring:
    """Read from a model's structure how its recurrent layers are connected.

    Args:
        model: the model.
        found: its recurrent layers.
    """
    dropouts = find_dropouts(model, found)
    uses = find_dropout_uses(model, found, dropouts)
    placed = {use.dropout for use in uses}
    pairs = list(find_possible_pairs(model, found))
    asked = {pair for pair in pairs if _widths_match(*pair)}
    # If b may feed a, the question is whether they are joined. Then a may feed b at another width.
    asked |= {pair for pair in pairs if _may_be_widened(*pair) and pair[::-1] in asked}
    return Wiring(
        found,
        list(find_uses(model, found)),
        uses,
        [dropout for dropout in dropouts.values() if dropout not in placed],
        [pair for pair in pairs if pair in asked],
        [pair for pair in pairs if _may_be_widened(*pair) and pair not in asked],
    )


def _containers_in_order(model: nn.Module) -> Iterator[list[nn.Module]]:
    """Find the modules of every container in the order of flow, with inner Sequentials expanded."""
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
    # children() would leave out the second place of a module, but the module also runs there.
    for child in container:  # type: ignore[attr-defined]
        if isinstance(child, nn.Sequential):
            yield from _flattened(child)
        else:
            yield child


def _first_and_last(
    module: nn.Module, by_id: Mapping[int, RecurrentLayer]
) -> tuple[RecurrentLayer, RecurrentLayer] | None:
    """Find the first and the last recurrent layer of a module.

    The module may be such a layer, a container of them, or a module with such layers and no other
    weights. None for any other module.
    """
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
    if layers and weights == {id(w) for item in layers for w in item.layer.parameters()}:
        return layers[0], layers[-1]
    return None


def _widths_match(a: RecurrentLayer, b: RecurrentLayer) -> bool:
    return bool(_width(a) == b.layer.input_size)


def _may_be_widened(a: RecurrentLayer, b: RecurrentLayer) -> bool:
    """Whether a may feed b together with other values, or as the sum of its directions."""
    is_sum = getattr(a.layer, "bidirectional", False) and _width(a) == 2 * b.layer.input_size
    return bool(is_sum or _width(a) < b.layer.input_size)


def _width(item: RecurrentLayer) -> int:
    """Return the width of a layer's output."""
    layer = item.layer
    if isinstance(layer, nn.RNNBase):
        return int((layer.proj_size or layer.hidden_size) * (1 + layer.bidirectional))
    return int(layer.hidden_size)


def _has_no_weights(module: nn.Module) -> bool:
    """Whether a module between two layers has no weights, and so only passes values on."""
    return next(module.parameters(), None) is None
