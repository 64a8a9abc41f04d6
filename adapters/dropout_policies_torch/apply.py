"""Finding the recurrent layers of a `torch.nn.Module`, and putting a policy on them in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.nn.utils import parametrize

from dropout_policies.errors import PolicyError
from dropout_policies.plan import Placement, check_sites
from dropout_policies.policy import Policy
from dropout_policies.report import Applied, Skipped, Touched
from dropout_policies.stacks import Found, group, place

from .layers import CELL_SITES, LSTM, LSTMCell, check_cell_rules
from .memory import OWN, Before
from .wiring import beside, check_neighbours, unclear, uses

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
        groups = group(found, uses(model, found), unclear(model, found), stacks)
        places = place(policy, groups)
        check_neighbours(model, found, places)
        skipped += [
            Skipped(name, _kind(module), f"p={module.p}; only forward knows what it falls on")
            for name, module in beside(model, found)
        ]
        touched = [[_touched(member.item, places[member.item]) for member in row] for row in groups]
        before = [Before(item.name, item.layer, SWAPS[type(item.layer)]) for item in found]
        for item in found:
            settle(item.layer, places[item], seed)
        return Applied(policy, touched, skipped, before)


def find(model: nn.Module) -> tuple[list[Found], list[Skipped]]:
    """The recurrent layers that a policy can go on, and those that it cannot, with the reason."""
    names: dict[nn.Module, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        names.setdefault(module, []).append(path or "model")
    found: list[Found] = []
    skipped: list[Skipped] = []
    for module, (name, *aliases) in names.items():
        kind = _kind(module)
        if type(module) in SWAPS:
            layers = getattr(module, "num_layers", 1)
            found.append(Found(name, module, kind, layers, tuple(aliases)))
        elif isinstance(module, nn.LSTM | nn.LSTMCell):
            parametrized = "parametrized, and so of a class of its own" * (
                parametrize.is_parametrized(module)
            )
            why = parametrized or "a subclass; derive it from dropout_policies_torch's instead"
            skipped.append(Skipped(name, kind, why))
        elif isinstance(module, nn.RNNBase | nn.RNNCellBase):
            skipped.append(Skipped(name, kind, "policies run on LSTM and LSTMCell"))
    return found, skipped


def check(
    model: nn.Module, found: Sequence[Found], skipped: Sequence[Skipped], policy: Policy
) -> None:
    """Everything that can be wrong with the layers themselves, before anything is changed."""
    for name, module in model.named_modules():
        placed = getattr(module, "placement", None)
        if isinstance(module, LSTM | LSTMCell) and placed is not None:
            raise PolicyError(
                f"{name or 'model'} ({_kind(module)}) is under policy {placed.policy.name!r} "
                f"already. Call remove() on what apply returned, or make the layer without a "
                f"policy, before applying {policy.name!r}."
            )
    if not found:
        others = "; ".join(f"{s.name} ({s.kind}): {s.why}" for s in skipped)
        raise PolicyError(
            f"{type(model).__name__} has no recurrent layer that policy {policy.name!r} can go on"
            f" (torch.nn.LSTM, torch.nn.LSTMCell).{f' It has {others}.' if others else ''}"
        )
    for item in found:
        if isinstance(item.layer, nn.LSTMCell):
            name = f"{item.name} ({item.kind}, whose h is both output and carried state)"
            check_sites(
                policy,
                name,
                CELL_SITES,
                "Make it a dropout_policies_torch.LSTMCell with the policy, and mask h where it "
                "leaves with mask_output; or apply a policy of those sites alone.",
            )
            check_cell_rules(policy, name)
        else:
            check_sites(policy, f"{item.name} ({item.kind})")


def settle(module: nn.Module, placement: Placement, seed: int | None) -> None:
    """Swap a module's class, and put it under a policy."""
    for name in OWN:
        vars(module).pop(name, None)
    swapped: Any = SWAPS[type(module)]
    module.__class__ = swapped
    if isinstance(module, nn.LSTM):
        module.dropout = 0.0
    vars(module).update(placement=placement, seed=seed)


def native(module: nn.Module) -> str:
    """The layer's own dropout, as its constructor takes it, or ""."""
    dropout = getattr(module, "dropout", 0.0)
    return f"dropout={dropout:g}" if dropout else ""


def _touched(item: Found, placement: Placement) -> Touched:
    return Touched(item.name, item.kind, item.layers, placement, native(item.layer))


def _kind(module: nn.Module) -> str:
    kind = type(module)
    where = "torch.nn" if kind.__module__.startswith("torch.nn.") else kind.__module__
    return f"{where.removesuffix('.layers')}.{kind.__qualname__}"


ADAPTER = TorchAdapter()
