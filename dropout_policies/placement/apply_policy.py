"""`dropout_policies.apply` and `remove`: put policies on a model, and take them off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..argument_checks import check_seed, short_repr
from ..errors import PolicyError
from ..policies.catalog import PolicyName
from ..policies.policy import Policy
from ..policies.rates import Rates
from .adapters import find_adapter
from .existing_dropout import Existing, check_existing
from .report import Applied
from .selection import ApplyRequest, Choice, Selector
from .wirings import Wiring


def apply(
    model: Any,
    policy: PolicyName | Policy | Mapping[str, PolicyName | Policy] = "zaremba",
    rate: Rates | None = None,
    *,
    only: Selector | None = None,
    skip: Selector | None = None,
    example: Any = None,
    existing: Existing = "take over",
    stacks: Sequence[Sequence[str]] | None = None,
    seed: int | None = None,
) -> Applied:
    """Put a policy on the recurrent layers of an existing model, in place.

    ```python
    dp.apply(model, "zaremba", rate=0.5, skip="decoder.*")
    dp.apply(model, {"encoder.*": dp.zaremba(0.5), "decoder.*": "zoneout"})
    ```

    Parameters, their names and the model's checkpoints stay what they are. Everything is
    checked before anything is changed.

    Args:
        model: a `torch.nn.Module` or a `keras.Model`.
        policy: a name (`dp.names()`), a `Policy`, or a mapping from layers' names or patterns to
            these, of which the first that matches a layer counts. A policy given by name adapts to
            the kind of layer: `"zoneout"` on a GRU leaves out the rule for the cell state.
        rate: the rates, in [0, 1), for a policy given by name; its defaults if left out. A number
            for every site, a list with one for each layer of the stack, a `dp.Schedule`, or a
            mapping from names of sites to such rates: `{"input": 0.4, "hidden": [0.2, 0.3]}`.
        only: the layers that get a policy: a name, a pattern such as `"encoder.*"`, a list of
            them, or a function `(name, layer) -> bool`. A module's name stands for all in it.
        skip: the layers that get none, likewise.
        example: an input of the model. The model runs on it without gradients, in evaluation mode
            and, for dropout that code calls only there, in training mode, so that `apply` sees how
            its layers are connected; nothing of that remains. A tuple is taken as several inputs, a
            mapping as inputs by keyword; a function without arguments is called to run the model.
        existing: what to do with dropout of the model's own where the policy masks too:
            `"take over"` switches it off until `remove()`, `"keep"` leaves it on, `"refuse"` is an
            error that names all of it. The report says what was done.
        stacks: which layers feed one another, by name, where the model does not show it:
            `[["lstm1", "lstm2"]]`.
        seed: makes every mask a pure function of (seed, call, site, layer, direction) and of the
            element's place, equal in every framework; without it the framework's own random
            generator is used. An integer in [0, 2**32).

    Returns:
        The report of what was touched; `remove()` on it undoes everything.

    Raises:
        PolicyError: no adapter owns the model, it has no recurrent layer, a layer has a policy
            already or cannot have a site of this one, which layers form a stack is unclear, a name
            or pattern matches nothing, a rate given for a site falls nowhere, dropout of the
            model's own would be doubled and cannot be switched off, or the model does not run on
            the example.
    """
    choices = _choices(policy, rate)
    checked = None if seed is None else check_seed(seed)
    how = check_existing(existing)
    request = ApplyRequest(choices, checked, stacks, only, skip, example, how)
    adapter = find_adapter(model)
    applied = adapter.apply(model, request)
    applied.watch(adapter, model)
    return applied


def _choices(policy: Any, rate: Rates | None) -> dict[str, Choice]:
    """A choice for each pattern; `"*"` for a policy that is for all layers."""
    if isinstance(policy, Policy) or not isinstance(policy, Mapping):
        return {"*": Choice.of(policy, rate)}
    if rate is not None:
        raise PolicyError(
            f"rate goes with one policy; where policy= is a mapping, each has its own: "
            f"policy={{'encoder.*': dp.zaremba(0.5)}}. Received: rate={short_repr(rate)}"
        )
    if not policy or not all(isinstance(pattern, str) for pattern in policy):
        raise PolicyError(
            f"policy must be a name, a Policy, or a mapping from layers' names or patterns to "
            f"these: policy={{'encoder.*': 'zaremba'}}. Received: policy={short_repr(policy)}"
        )
    return {pattern: Choice.of(each) for pattern, each in policy.items()}


def remove(model: Any) -> None:
    """Take every policy off a model, whether `apply` put it there or the layers were made with it.

    It works on copies and on loaded models too, where the report of `apply` is of another object.
    Layers are then stock layers again, with the dropout of their own that they had.

    Args:
        model: a `torch.nn.Module` or a `keras.Model`.

    Raises:
        PolicyError: no adapter owns the model, or it has no layer under a policy.
    """
    adapter = find_adapter(model)
    if not adapter.under_policy(model):
        raise PolicyError(
            f"{type(model).__name__} has no layer under a policy, so there is none to remove."
        )
    adapter.remove(model)


def wiring(model: Any, example: Any = None) -> Wiring:
    """Show how the recurrent layers of a model are connected, and change nothing.

    ```python
    print(dp.wiring(model, example=batch))
    ```

    Args:
        model: a `torch.nn.Module` or a `keras.Model`.
        example: an input of the model, as `apply` takes it; without one, what the structure shows.

    Returns:
        Which layer feeds which, how each is called, and every dropout on the way.

    Raises:
        PolicyError: no adapter owns the model, it has no recurrent layer, or it does not run on the
            example.
    """
    return find_adapter(model).wiring(model, example)
