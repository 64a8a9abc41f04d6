"""What the noise of a module's next call depends on: noted, and put back."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn


class Noted(NamedTuple):
    """Everything that the noise of a module's next call depends on.

    Args:
        generators: the states of Python's, NumPy's and PyTorch's.
        cuda: of PyTorch's on GPUs.
        attributes: of each module within, with copies of what may change in them.
        buffers: module, name, buffer and value.
        parameters: of each module within its own, by name.
    """

    generators: list[Any]
    cuda: list[Tensor]
    attributes: list[tuple[nn.Module, dict[str, Any]]]
    buffers: list[tuple[nn.Module, str, Tensor, Tensor]]
    parameters: list[tuple[nn.Module, list[tuple[str, nn.Parameter]]]]


def note(module: nn.Module, first: Noted | None = None) -> Noted:
    """Everything that the noise of a module's next call depends on.

    Args:
        module: which.
        first: what was noted before its first call: a state that it carries from call to call is
            the one that it came with.
    """
    generators: list[Any] = [random.getstate(), np.random.get_state(), torch.get_rng_state()]
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    kept = [(m, _kept(vars(m))) for m in module.modules()]
    buffers = [
        (m, name, b, b.clone())
        for m in module.modules()
        for name, b in m.named_buffers(recurse=False)
    ]
    parameters = [(m, _parameters(m)) for m in module.modules()]
    if first is not None:
        parameters = first.parameters
        at_first = {id(m): attributes for m, attributes in first.attributes}
        kept = [(m, _as_before(now, at_first.get(id(m), {}))) for m, now in kept]
        was = {(id(m), n): (b, v) for m, n, b, v in first.buffers if b.is_floating_point()}
        buffers = [(m, n, *was.get((id(m), n), (b, v))) for m, n, b, v in buffers]
    return Noted(generators, cuda, kept, buffers, parameters)


def put_back(noise: Noted) -> None:
    """Have the next call draw the same noise as the call that came after `note`."""
    python, array, cpu = noise.generators
    random.setstate(python)
    np.random.set_state(array)
    torch.set_rng_state(cpu)
    if noise.cuda:
        torch.cuda.set_rng_state_all(noise.cuda)
    for module, attributes in noise.attributes:
        _put_back(vars(module), attributes)
    with torch.no_grad():
        for module, name, buffer, value in noise.buffers:
            if getattr(module, name) is not buffer:  # one that a module has put there since
                setattr(module, name, buffer)
            buffer.copy_(value)
    for module, named in noise.parameters:
        _name_again(module, named)


def _parameters(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """A module's own, each under every name that it has there."""
    return list(module.named_parameters(recurse=False, remove_duplicate=False))


def _name_again(module: nn.Module, named: list[tuple[str, nn.Parameter]]) -> None:
    """Give a module's own parameters the names that they had, in the same order. What masks weights
    may put a tensor in a parameter's place for one call, and a parameter for another, which then
    is in its way."""
    now = _parameters(module)
    if [(name, id(p)) for name, p in now] == [(name, id(p)) for name, p in named]:
        return
    for name, _ in now:
        delattr(module, name)
    for name, parameter in named:
        setattr(module, name, parameter)


GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)

COUNT = re.compile("call|count|iter|seed|step")
"""What a number is called that masks may be numbered by; others may belong to a state that is put
back, as a batch's size."""

SKIPPED = frozenset(vars(nn.Module()))
"""What every module holds: no state of its noise, or put back by itself."""


def _kept(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes, and copies of what may change within them."""
    return {k: (v, _copy(v)) for k, v in attributes.items() if k not in SKIPPED}


def _copy(value: Any) -> Any:
    if isinstance(value, torch.Generator):
        return value.get_state()
    if isinstance(value, Tensor):
        return None if isinstance(value, nn.Parameter) else value.detach().clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, np.random.Generator):
        return value.bit_generator.state
    if isinstance(value, np.random.RandomState):
        return value.get_state()
    if isinstance(value, random.Random):
        return value.getstate()
    if isinstance(value, list):
        return list(value)
    if isinstance(value, dict):
        return _kept(value)
    return _kept(vars(value)) if _draws(value) else None


def _as_before(now: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as they were at first, but for those that noise may be drawn by: generators and
    counters, in dictionaries too."""
    found = dict(before)
    for key, (value, copied) in now.items():
        if key not in before:
            continue
        if isinstance(value, dict) and value is before[key][0]:
            found[key] = (value, _as_before(copied, before[key][1]))
        elif _is_source(value) or (isinstance(value, int) and COUNT.search(key)):
            found[key] = (value, copied)
    return found


def _is_source(value: Any) -> bool:
    if isinstance(value, Tensor):
        return not value.is_floating_point()
    return isinstance(value, (np.ndarray, *GENERATORS)) or _draws(value)


def _draws(value: Any) -> bool:
    """Whether an object has what it draws by as attributes: this library's, or one that holds a
    generator."""
    if isinstance(value, nn.Module | Tensor | type) or not hasattr(value, "__dict__"):
        return False
    ours = type(value).__module__.startswith("dropout_policies")
    return ours or any(isinstance(part, GENERATORS) for part in vars(value).values())


def _put_back(attributes: dict[str, Any], kept: Mapping[str, Any]) -> None:
    for key in [k for k in attributes if k not in kept and k not in SKIPPED]:
        del attributes[key]
    for key, (value, copied) in kept.items():
        attributes[key] = value
        if copied is None:
            continue
        if isinstance(value, torch.Generator):
            value.set_state(copied)
        elif isinstance(value, Tensor):
            value.data.copy_(copied)
        elif isinstance(value, np.ndarray):
            value[...] = copied
        elif isinstance(value, np.random.Generator):
            value.bit_generator.state = copied
        elif isinstance(value, np.random.RandomState):
            value.set_state(copied)
        elif isinstance(value, random.Random):
            value.setstate(copied)
        elif isinstance(value, list):
            value[:] = copied
        elif isinstance(value, dict):
            _put_back(value, copied)
        else:
            _put_back(vars(value), copied)
