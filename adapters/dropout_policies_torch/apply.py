"""Finding the recurrent layers of a `torch.nn.Module`, and putting a policy on them in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from dropout_policies.errors import PolicyError
from dropout_policies.plan import check_sites
from dropout_policies.policy import Policy
from dropout_policies.report import Applied, Skipped, Touched
from dropout_policies.sites import VERTICAL
from dropout_policies.stacks import Found, group, place

from .layers import CELL_SITES, LSTM, LSTMCell, check_cell_rules
from .wiring import check_neighbours, linked, unclear

SWAPS: dict[type[nn.Module], type[LSTM] | type[LSTMCell]] = {
    nn.LSTM: LSTM,
    LSTM: LSTM,
    nn.LSTMCell: LSTMCell,
    LSTMCell: LSTMCell,
}
"""Which class takes the place of which. Swapping an instance's `__class__` keeps the module
object, its parameters, hooks and aliases what they are."""


class TorchAdapter:
    """The PyTorch side of `dropout_policies.apply`."""

    precedence = 0

    def owns(self, model: Any) -> bool:
        return isinstance(model, nn.Module)

    def apply(
        self,
        model: nn.Module,
        policy: Policy,
        seed: int | None,
        stacks: Sequence[Sequence[str]] | None,
    ) -> Applied:
        found, skipped = find(model)
        check(model, found, skipped, policy)
        groups = group(found, linked(model, found), unclear(model, found), stacks)
        placements = place(policy, groups)
        before: list[tuple[nn.Module, type[nn.Module], dict[str, Any]]] = []
        touched = []
        for members, row in zip(groups, placements, strict=True):
            report = []
            for item, placement in zip(members, row, strict=True):
                module = item.layer
                before.append((module, type(module), dict(vars(module))))
                report.append(Touched(item.name, item.kind, item.layers, placement, native(module)))
                module.__class__ = SWAPS[type(module)]
                if isinstance(module, nn.LSTM):
                    module.dropout = 0.0
                module.placement, module.seed = placement, seed
            touched.append(report)

        def restore() -> None:
            for module, kind, attributes in before:
                module.__class__ = kind
                for name in ("dropout", "placement", "seed", "calls"):
                    vars(module).pop(name, None)
                    if name in attributes:
                        vars(module)[name] = attributes[name]

        return Applied(policy, touched, skipped, restore)


def find(model: nn.Module) -> tuple[list[Found], list[Skipped]]:
    """The recurrent layers that a policy can go on, and those that it cannot, with the reason."""
    found, skipped = [], []
    for path, module in model.named_modules():
        name, kind = path or "model", _kind(module)
        if type(module) in SWAPS:
            found.append(Found(name, module, kind, getattr(module, "num_layers", 1)))
        elif isinstance(module, nn.LSTM | nn.LSTMCell):
            why = "a subclass with code of its own, which a policy would replace"
            skipped.append(Skipped(name, kind, why))
        elif isinstance(module, nn.RNNBase | nn.RNNCellBase):
            skipped.append(Skipped(name, kind, "policies run on LSTM and LSTMCell"))
    return found, skipped


def check(
    model: nn.Module, found: Sequence[Found], skipped: Sequence[Skipped], policy: Policy
) -> None:
    """Everything that can be wrong, before anything is changed."""
    if not found:
        others = "; ".join(f"{s.name} ({s.kind}): {s.why}" for s in skipped)
        raise PolicyError(
            f"{type(model).__name__} has no recurrent layer that policy {policy.name!r} can go on"
            f" (torch.nn.LSTM, torch.nn.LSTMCell). {f'It has {others}.' if others else ''}"
        )
    for item in found:
        placed = getattr(item.layer, "placement", None)
        if placed is not None:
            raise PolicyError(
                f"{item.name} ({item.kind}) is under policy {placed.policy.name!r} already. "
                f"Call remove() on what apply returned before applying {policy.name!r}."
            )
        if isinstance(item.layer, nn.LSTMCell):
            name = f"{item.name} ({item.kind}, whose h is both output and carried state)"
            check_sites(policy, name, CELL_SITES)
            check_cell_rules(policy, name)
        else:
            check_sites(policy, f"{item.name} ({item.kind})")
    if any(site in VERTICAL and rule.rate > 0.0 for site, rule in policy.items()):
        for container in model.modules():
            if isinstance(container, nn.Sequential):
                check_neighbours(container, {id(item.layer): item for item in found}, policy)


def native(module: nn.Module) -> str:
    """The layer's own dropout, as its constructor takes it, or ""."""
    dropout = getattr(module, "dropout", 0.0)
    return f"dropout={dropout:g}" if dropout else ""


def _kind(module: nn.Module) -> str:
    kind = type(module)
    where = "torch.nn" if kind.__module__.startswith("torch.nn.") else kind.__module__
    return f"{where.removesuffix('.layers')}.{kind.__qualname__}"


ADAPTER = TorchAdapter()
