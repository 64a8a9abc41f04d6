"""Capturing and restoring everything that the noise of a module's next call depends on.

This covers the states of random generators, and the state that a module keeps in attributes,
buffers and parameters: masks, counters, its own generators.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)

COUNTER_NAME = re.compile("call|count|iter|seed|step")
"""The name of a number that may count masks. Other numbers may belong to a state that is restored,
such as the size of a batch."""

MODULE_ATTRIBUTES = frozenset(vars(nn.Module()))
"""The attributes that every module has. They hold no noise, or are restored separately."""


class ModelState(NamedTuple):
    """Everything that the noise of a module's next call depends on.

    Args:
        generators: the states of the generators of Python, NumPy and PyTorch.
        cuda: the states of PyTorch's generators on GPUs.
        attributes: the attributes of each inner module, with copies of what may change in them.
        buffers: the module, name, buffer and value of each buffer.
        parameters: the own parameters of each inner module, by name.
    """

    generators: list[Any]
    cuda: list[Tensor]
    attributes: list[tuple[nn.Module, dict[str, Any]]]
    buffers: list[tuple[nn.Module, str, Tensor, Tensor]]
    parameters: list[tuple[nn.Module, list[tuple[str, nn.Parameter]]]]


def capture_state(module: nn.Module, initial: ModelState | None = None) -> ModelState:
    """Capture everything that the noise of a module's next call depends on.

    Args:
        module: the module.
        initial: the state captured before the module's first call. The state that the module
            carries from call to call is taken from there. None: take everything as it is now.
    """
    generators: list[Any] = [random.getstate(), np.random.get_state(), torch.get_rng_state()]
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    attributes = [(m, _copy_attributes(vars(m))) for m in module.modules()]
    buffers = [
        (m, name, b, b.clone())
        for m in module.modules()
        for name, b in m.named_buffers(recurse=False)
    ]
    parameters = [(m, _own_parameters(m)) for m in module.modules()]
    if initial is not None:
        parameters = initial.parameters
        before = {id(m): values for m, values in initial.attributes}
        attributes = [(m, _update_sources(before.get(id(m), {}), now)) for m, now in attributes]
        floating = {(id(m), n): (b, v) for m, n, b, v in initial.buffers if b.is_floating_point()}
        buffers = [(m, n, *floating.get((id(m), n), (b, v))) for m, n, b, v in buffers]
    return ModelState(generators, cuda, attributes, buffers, parameters)


def restore_state(noise: ModelState) -> None:
    """Make the next call draw the same noise as the call that followed `capture_state`."""
    python, numpy, cpu = noise.generators
    random.setstate(python)
    np.random.set_state(numpy)
    torch.set_rng_state(cpu)
    if noise.cuda:
        torch.cuda.set_rng_state_all(noise.cuda)
    for module, attributes in noise.attributes:
        _restore_attributes(vars(module), attributes)
    with torch.no_grad():
        for module, name, buffer, value in noise.buffers:
            if getattr(module, name) is not buffer:  # the module has replaced the buffer
                setattr(module, name, buffer)
            buffer.copy_(value)
    for module, parameters in noise.parameters:
        _restore_parameters(module, parameters)


def _own_parameters(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Return a module's own parameters, each under every name that it has in the module."""
    return list(module.named_parameters(recurse=False, remove_duplicate=False))


def _restore_parameters(module: nn.Module, parameters: list[tuple[str, nn.Parameter]]) -> None:
    """Give a module's own parameters their former names, in the same order.

    A module that masks weights may replace a parameter by a tensor for one call and by another
    parameter for the next. That parameter is then in the way.
    """
    now = _own_parameters(module)
    if [(name, id(p)) for name, p in now] == [(name, id(p)) for name, p in parameters]:
        return
    for name, _ in now:
        delattr(module, name)
    for name, parameter in parameters:
        setattr(module, name, parameter)


def _copy_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes, each with a copy of what may change within it."""
    return {k: (v, _copy(v)) for k, v in attributes.items() if k not in MODULE_ATTRIBUTES}


def _copy(value: Any) -> Any:
    """Copy what may change within a value. None if nothing may change."""
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
        return _copy_attributes(value)
    return _copy_attributes(vars(value)) if _holds_generator(value) else None


def _update_sources(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes as they were before, but with the current sources of noise.

    Sources of noise are generators and counters, also within dictionaries.
    """
    updated = dict(before)
    for key, (value, copied) in now.items():
        if key not in before:
            continue
        if isinstance(value, dict) and value is before[key][0]:
            updated[key] = (value, _update_sources(before[key][1], copied))
        elif _is_source(value) or (isinstance(value, int) and COUNTER_NAME.search(str(key))):
            updated[key] = (value, copied)
    return updated


def _is_source(value: Any) -> bool:
    if isinstance(value, Tensor):
        return not value.is_floating_point()
    return isinstance(value, (np.ndarray, *GENERATORS)) or _holds_generator(value)


def _holds_generator(value: Any) -> bool:
    """Whether an object holds the state of its noise in its attributes.

    Objects of this library do, and so do objects that hold a generator.
    """
    if isinstance(value, nn.Module | Tensor | type) or not hasattr(value, "__dict__"):
        return False
    ours = type(value).__module__.startswith("dropout_policies")
    return ours or any(isinstance(part, GENERATORS) for part in vars(value).values())


def _restore_attributes(attributes: dict[str, Any], captured: Mapping[str, Any]) -> None:
    for key in [k for k in attributes if k not in captured and k not in MODULE_ATTRIBUTES]:
        del attributes[key]
    for key, (value, copied) in captured.items():
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
            _restore_attributes(value, copied)
        else:
            _restore_attributes(vars(value), copied)
