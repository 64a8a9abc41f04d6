"""`dropout_policies.apply`, `remove` and `wiring`: policies on existing models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..argument_checks import check_seed, short_repr
from ..errors import PolicyError
from ..policies.catalog import PolicyName
from ..policies.policy import Policy
from ..policies.policy_errors import is_mapping_of_rules
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

    The parameters, their names and the model's checkpoints stay the same. Everything is checked
    before anything is changed.

    Args:
        model: a `torch.nn.Module` or a `keras.Model`.
        policy: a name (see `dp.names()`), a `Policy`, or a mapping from names or patterns of layers
            to these; the first key that matches a layer counts. A policy given by name adapts to
            the kind of layer: on a GRU, `"zoneout"` has no rule for the cell state.
        rate: the rates, in [0, 1), for a policy given by name. A number for all sites, a list with
            one for each layer of the stack, a `dp.Schedule`, or a mapping from names of sites to
            these: `{"input": 0.4, "hidden": [0.2, 0.3]}`. None: the policy's defaults.
        only: the layers that get a policy: a name, a pattern such as `"encoder.*"`, a list of
            these, or a function `(name, layer) -> bool`. The name of a module includes everything
            inside it. None: all layers.
        skip: the layers that get no policy, in the same forms.
        example: an input of the model. `apply` runs the model on it to see how its layers are
            connected: without gradients, once in evaluation mode and once in training mode, because
            some code calls dropout only in training. Afterwards the model is as it was. A tuple is
            passed as several inputs, a mapping as keyword arguments. A function without arguments
            is called to run the model. None: read the connections from the model's structure.
        existing: what to do with the model's own dropout where the policy masks too.
            `"take over"` switches it off until `remove()`. `"keep"` leaves it on. `"refuse"` raises
            an error that lists all of it. The report says what was done.
        stacks: which layers feed each other, by name, if the model does not show it:
            `[["lstm1", "lstm2"]]`.
        seed: an integer in [0, 2**32). Each mask then depends only on (seed, call, site, layer,
            direction) and on the position of the element, and is the same in every framework.
            None: use the framework's own random generator.

    Returns:
        A report of what was changed. Its `remove()` undoes everything.

    Raises:
        PolicyError: no adapter handles the model, it has no recurrent layer, or it does not run on
            the example. An argument is invalid: a policy is unknown, a rate or the seed is out of
            range, a rate is for a site that nothing has, or a name or pattern matches nothing. A
            layer already has a policy, or does not have a site of the new one. It is unclear which
            layers form a stack. The model's own dropout would mask a connection a second time and
            cannot be switched off.
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
    """A choice for each pattern. The pattern `"*"` is for all layers."""
    is_for_all = isinstance(policy, Policy) or not isinstance(policy, Mapping)
    if is_for_all or is_mapping_of_rules(policy):  # the second is an error
        return {"*": Choice.of(policy, rate)}
    if rate is not None:
        raise PolicyError(
            f"rate goes with one policy. In a mapping, each policy has its own rates: "
            f"policy={{'encoder.*': dp.zaremba(0.5)}}. Received: rate={short_repr(rate)}"
        )
    if not policy or not all(isinstance(pattern, str) for pattern in policy):
        raise PolicyError(
            f"policy must be a name, a Policy, or a mapping from layers' names or patterns to "
            f"these: policy={{'encoder.*': 'zaremba'}}. Received: policy={short_repr(policy)}"
        )
    return {
        pattern: Choice.of(each, argument=f"policy[{pattern!r}]")
        for pattern, each in policy.items()
    }


def remove(model: Any) -> None:
    """Remove every policy from a model, from `apply` or from the creation of its layers.

    This also works on copies and on loaded models, for which the report of `apply` does not. The
    layers are then stock layers again, with their own dropout as it was.

    Args:
        model: a `torch.nn.Module` or a `keras.Model`.

    Raises:
        PolicyError: no adapter handles the model, or it has no layer under a policy.
    """
    adapter = find_adapter(model)
    if not adapter.under_policy(model):
        raise PolicyError(
            f"{type(model).__name__} has no layer under a policy, so there is none to remove."
        )
    adapter.remove(model)


def wiring(model: Any, example: Any = None) -> Wiring:
    """Show how the recurrent layers of a model are connected. This changes nothing.

    ```python
    print(dp.wiring(model, example=batch))
    ```

    Args:
        model: a `torch.nn.Module` or a `keras.Model`.
        example: an input of the model, as for `apply`. None: read the model's structure only.

    Returns:
        Which layer feeds which, how each is called, and every dropout between them.

    Raises:
        PolicyError: no adapter handles the model, it has no recurrent layer, or it does not run on
            the example.
    """
    return find_adapter(model).wiring(model, example)
