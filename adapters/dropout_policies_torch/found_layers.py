"""Finding the recurrent layers and embeddings of a model, and those that can take no policy."""

from __future__ import annotations

import re

import torch
from torch import nn
from torch.nn.utils import parametrize

from dropout_policies.adapter import RecurrentLayer, Skipped

from .custom_cell import Unrolled
from .policy_classes import REIMPLEMENTED, is_recurrent, swapped_class

PARAMETRIZED = (
    "parametrized: PyTorch's own layer does not use the parametrized weights either, but those "
    "that it was created with"
)

COMPILED = "{done}, and so not Python any more: put the policy on before {function}"

OWN_RECURRENCE = (
    "recurrent by its name, but not a layer of PyTorch: a policy cannot go inside. If it is a "
    "cell, run it with dropout_policies_torch.Unrolled"
)

RECURRENT_NAME = re.compile("RNN|LSTM|GRU|Recurrent")
"""A pattern that the class names of recurrent modules match."""


def find_embeddings(model: nn.Module) -> tuple[list[RecurrentLayer], list[Skipped]]:
    """Find the embeddings that can take a policy, and those that cannot."""
    found: list[RecurrentLayer] = []
    skipped: list[Skipped] = []
    for name, module in model.named_modules():
        if not isinstance(module, nn.Embedding):
            continue
        if swapped_class(module) is None:
            skipped.append(Skipped(name, kind_of(module), REIMPLEMENTED))
        else:
            found.append(RecurrentLayer(name or "model", module, kind_of(module)))
    return found, skipped


def find_layers(model: nn.Module) -> tuple[list[RecurrentLayer], list[Skipped]]:
    """Find the recurrent layers that can take a policy, and those that cannot, with the reason."""
    names: dict[nn.Module, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        names.setdefault(module, []).append(path or "model")
    found: list[RecurrentLayer] = []
    skipped: list[Skipped] = []
    inside = {
        inner for module in names if isinstance(module, Unrolled) for inner in module.cell.modules()
    }
    for module, (name, *aliases) in names.items():
        if module in inside:
            continue
        if not is_recurrent(module):
            why = _looks_recurrent(module)
            skipped += [Skipped(name, kind_of(module), why)] if why else []
        elif why := _reason_to_skip(module):
            skipped.append(Skipped(name, kind_of(module), why))
        else:
            layers = getattr(module, "num_layers", 1)
            found.append(RecurrentLayer(name, module, kind_of(module), layers, tuple(aliases)))
    return found, skipped


def _looks_recurrent(module: nn.Module) -> str:
    """Explain why a module that looks recurrent can take no policy.

    Returns:
        The reason. "" if the module does not look recurrent.
    """
    compiled = how_compiled(module)
    if compiled:
        name = getattr(module, "original_name", type(module).__name__)
        done, function = compiled
        is_layer = hasattr(nn, name) and RECURRENT_NAME.search(name)
        return COMPILED.format(done=done, function=function) if is_layer else ""
    has_others = any(is_recurrent(inner) for inner in module.modules())
    own = any(True for _ in module.parameters())
    inner = any(
        RECURRENT_NAME.search(type(m).__name__) for m in module.modules() if m is not module
    )
    is_named = RECURRENT_NAME.search(type(module).__name__) is not None
    return OWN_RECURRENCE if is_named and own and not has_others and not inner else ""


def how_compiled(module: nn.Module) -> tuple[str, str] | None:
    """Return what has made a module that is no Python code any more, in words, or None.

    Returns:
        What was done to the module, and the function that does it.
    """
    if isinstance(module, torch.jit.ScriptModule):
        is_traced = "Traced" in type(module).__name__
        return ("traced", "torch.jit.trace") if is_traced else ("scripted", "torch.jit.script")
    if isinstance(module, torch.fx.GraphModule) and not any(map(is_recurrent, module.modules())):
        return "a graph of operations", "torch.export"
    if type(module).__module__.startswith(("torch.ao.nn.quantized", "torch.nn.quantized")):
        return "quantized", "torch.ao.quantization"
    return None


def _reason_to_skip(layer: nn.Module) -> str:
    """Explain why a recurrent layer can take no policy. "" if it can take one."""
    if isinstance(layer, nn.RNNBase) and parametrize.is_parametrized(layer):
        return PARAMETRIZED
    if isinstance(layer, nn.RNNBase) and (made := _generated_weight(layer)):
        return f"{made} is no parameter of its own: a wrapper makes it anew, and may mask it"
    return "" if swapped_class(layer) else REIMPLEMENTED


def _generated_weight(layer: nn.RNNBase) -> str:
    """Return the name of a weight matrix that is not a parameter of the layer, or "".

    A WeightDrop wrapper, for example, replaces the parameter.
    """
    own = dict(layer.named_parameters(recurse=False))
    names = [
        f"weight_{which}_l{number}{direction}"
        for number in range(layer.num_layers)
        for which in ("ih", "hh")
        for direction in ("", "_reverse")[: 1 + layer.bidirectional]
    ]
    return next((name for name in names if name not in own), "")


def kind_of(module: nn.Module) -> str:
    """Return a module's class as a user writes it, such as `torch.nn.Dropout`."""
    kind = type(module)
    where = "torch.nn" if kind.__module__.startswith("torch.nn.") else kind.__module__
    return f"{where.removesuffix('.layers')}.{kind.__qualname__}"
