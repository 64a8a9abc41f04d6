"""Hypothesis strategies: rates, rules, policies, geometries, and the masks of a call.

```python
from hypothesis import given, strategies as st
from dropout_policies.testing import strategies


@given(st.data())
def test_my_lstm(data):
    geometry = data.draw(strategies.geometries())
    policy = data.draw(strategies.policies(geometry.cell, geometry.layers))
    masks = data.draw(strategies.masks(policy, geometry))
```
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from ..masks import keyed
from ..placement.plans import Geometry, Placement, Slot, plan_masks
from ..policies import cell_types
from ..policies.catalog import names, none, resolve
from ..policies.policy import Policy
from ..policies.rates import Rates, Schedule, schedule
from ..policies.rules import Lifetime, Rule
from ..policies.sites import GATE_INPUTS, UPDATES, WEIGHTS, Site

MIXED = "mixed"
"""Stands for policies from no paper: any rules at some sites."""

_LIFETIMES: tuple[Lifetime, ...] = ("step", "sequence")


def rates() -> st.SearchStrategy[float]:
    """Rates in [0.01, 0.95], so that some elements are dropped and some are kept."""
    return st.sampled_from([0.1, 0.5, 0.65, 0.9]) | st.floats(0.01, 0.95)


def schedules() -> st.SearchStrategy[Schedule]:
    """Rates that change at calls 2 and 3, in [0.01, 0.95]. In calls 0 and 1 they may be 0."""
    return st.builds(
        lambda a, b, c: schedule({0: a, 2: b, 3: c}), st.just(0.0) | rates(), rates(), rates()
    )


def rules(site: Site, layers: int = 1, gates: int = 4) -> st.SearchStrategy[Rule]:
    """Rules that a site accepts.

    Args:
        site: the site.
        layers: L. There may be one rate for each layer.
        gates: the number of gates of a cell; 0 if they cannot have masks of their own.
    """
    if site is Site.EMBEDDING:
        return st.builds(Rule, rates() | schedules(), st.sampled_from(["sequence", "call"]))
    rate = rates() | schedules() | st.lists(rates(), min_size=layers, max_size=layers).map(tuple)
    shape = st.sampled_from(["element"] if site in WEIGHTS else ["element", "channel"])
    if site in UPDATES:
        return st.builds(Rule, rate, st.sampled_from(_LIFETIMES), st.just("zoneout"), shape=shape)
    some = ["tied", "untied"] if site in GATE_INPUTS and gates else ["tied"]
    per = st.just("call") if site in WEIGHTS else st.sampled_from(_LIFETIMES)
    return st.builds(Rule, rate, per, st.just("drop"), st.sampled_from(some), st.booleans(), shape)


def published(
    name: str, cell: cell_types.CellType = cell_types.LSTM, rate: Rates | None = None
) -> Policy | None:
    """A policy of the catalogue, without the sites that a kind of layer does not have.

    Args:
        name: the name of the policy.
        cell: the kind of layer.
        rate: its rates. None: its defaults.

    Returns:
        The policy, or None if no rule is left.

    Raises:
        PolicyError: the name is unknown, or a rate is out of range.
    """
    chosen = resolve(name, rate)
    sites = cell.sites | {Site.EMBEDDING}
    rest: dict[str, Any] = {s.value: rule for s, rule in chosen.items() if s in sites}
    if chosen and not rest:
        return None
    return Policy(name=chosen.name, citation=chosen.citation, **rest)


@st.composite
def policies(
    draw: st.DrawFn,
    cell: cell_types.CellType = cell_types.LSTM,
    layers: int = 1,
    among: Sequence[str] = (),
) -> Policy:
    """Published policies at any rate, and policies with any rules at some sites.

    Args:
        cell: the kind of layer that they run on. Sites that it does not have are left out.
        layers: L, the number of layers in the stack.
        among: the names to choose from; `"mixed"` stands for policies from no paper. Empty: all.
    """
    known = among or (MIXED, *names())
    available = [name for name in known if name == MIXED or published(name, cell) is not None]
    name = draw(st.sampled_from(available))
    if name == MIXED:
        chosen = draw(st.sets(st.sampled_from(sorted(cell.sites)), min_size=1, max_size=5))
        each: dict[str, Any] = {
            site.value: draw(rules(site, layers, cell.gates)) for site in sorted(chosen)
        }
        return Policy(name=MIXED, **each)
    if name == "none":
        return none()
    made = published(name, cell, draw(st.none() | rates()))
    assert made is not None
    return made


@st.composite
def geometries(
    draw: st.DrawFn,
    cell: cell_types.CellType = cell_types.LSTM,
    directions: Sequence[tuple[int, ...]] = ((0,),),
    projections: bool = False,
    layers: int | None = None,
) -> Geometry:
    """Sizes of one call, small enough to run many: D and B up to 5, H up to 6, L to 3, T to 8.

    Args:
        cell: the kind of layer.
        directions: the directions to choose from; `(0, 1)` is both.
        projections: whether h may be projected to P < H.
        layers: L. None: any.
    """
    hidden_size = draw(st.integers(1, 6))
    return Geometry(
        input_size=draw(st.integers(1, 5)),
        hidden_size=hidden_size,
        layers=draw(st.integers(1, 3)) if layers is None else layers,
        directions=draw(st.sampled_from(list(directions))),
        batch=draw(st.integers(1, 5)),
        steps=draw(st.integers(1, 8)),
        proj_size=draw(st.integers(0, hidden_size - 1)) if projections else 0,
        cell=cell,
    )


def masks(
    policy: Policy, geometry: Geometry
) -> st.SearchStrategy[dict[Slot, npt.NDArray[np.float64]]]:
    """The masks of one training call, by slot.

    The arrays are `[T, B, F]`, as `dropout_policies.record` returns them and
    `dropout_policies.reference.run` takes them.

    Args:
        policy: the policy.
        geometry: the sizes of the call.
    """
    plan = plan_masks(Placement(policy), geometry)
    return st.builds(
        lambda seed, call: keyed.masks(plan, seed, call),
        st.integers(0, keyed.SEEDS - 1),
        st.integers(0, 3),
    )
