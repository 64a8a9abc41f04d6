"""`dropout_policies.apply`: put a policy on a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..argument_checks import check_seed
from ..policies.catalog import PolicyName, resolve
from ..policies.policy import Policy
from ..policies.rates import Rates
from .adapters import find_adapter
from .report import Applied


def apply(
    model: Any,
    policy: PolicyName | Policy = "zaremba",
    rate: Rates | None = None,
    *,
    seed: int | None = None,
    stacks: Sequence[Sequence[str]] | None = None,
) -> Applied:
    """Put a policy on every recurrent layer of an existing model, in place.

    Parameters, their names and the model's checkpoints stay what they are. Everything is
    checked before anything is changed.

    Args:
        model: a `torch.nn.Module` or a `keras.Model`.
        policy: a name (`dp.names()`), or a `Policy`.
        rate: the rates, in [0, 1), for a policy given by name; its defaults if left out. A number
            for every site, a list with one for each layer of the stack, a `dp.Schedule`, or a
            mapping from names of sites to such rates: `{"input": 0.4, "hidden": [0.2, 0.3]}`.
        seed: makes every mask a pure function of (seed, call, site, layer, direction) and of the
            element's place, equal in every framework; without it the framework's own random
            generator is used. An integer in [0, 2**32).
        stacks: which layers feed one another, by name, where the model does not show it:
            `[["lstm1", "lstm2"]]`.

    Returns:
        The report of what was touched; `remove()` on it undoes everything.

    Raises:
        PolicyError: no adapter owns the model, it has no recurrent layer, a layer has a policy
            already or cannot have a site of this one, or which layers form a stack is unclear.
    """
    resolved = resolve(policy, rate)
    checked = None if seed is None else check_seed(seed)
    return find_adapter(model).apply(model, resolved, checked, stacks)
