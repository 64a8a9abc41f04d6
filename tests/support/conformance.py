"""One suite for every adapter: each layer under each policy equals the oracle, in training mode.

Every check is counted, and what was counted becomes the table in the docs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

import dropout_policies as dp
from dropout_policies.masks import keyed
from dropout_policies.placement.plans import Placement, Slot, plan_masks
from dropout_policies.testing.strategies import published

from .cases import CELLS, Case, cases
from .properties import Subject, equals_oracle, evaluation_is_what_it_says

FOLDER = Path(__file__).parents[2] / "build" / "conformance"
"""Where the counts of a run are left, one file for each adapter, backend, layer and policy."""

EXAMPLES = int(os.environ.get("CONFORMANCE_EXAMPLES", "0"))
"""Cases for each layer and policy; 0 for what the suite itself says."""

POLICIES = (*dp.names(), "mixed")
"""Every published policy, and "mixed": random rules at random sites."""

GAPS: dict[tuple[str, str, str], str] = {}
"""(backend, layer, policy) → why the adapter does not do what the oracle does. A gap that is not
here fails; so does one that is here and has been closed."""


@dataclass(frozen=True)
class Layer:
    """A kind of layer of a framework, as a subject of the suite.

    Args:
        name: as a user of the framework writes it.
        kind: one of `CELLS`.
        run: runs a case on it.
        directions: the directions that it may run.
        projections: whether it may have projections.
        by_step: whether it sees one step at a time, and so has no policy that lives longer; each
            of its steps is a call.
        takes_padding: whether samples may be of different lengths.
        spatial_axes: how many spatial axes its values may have.
        channels_last: whether the channels come after these.
    """

    name: str
    kind: str
    run: Subject
    directions: tuple[tuple[int, ...], ...] = ((0,), (0, 1))
    projections: bool = False
    by_step: bool = False
    takes_padding: bool = True
    spatial_axes: tuple[int, ...] = (0,)
    channels_last: tuple[bool, ...] = (True, False)

    def has(self, policy: str) -> bool:
        """Whether there is something of the policy that can fall on it."""
        if policy == "mixed":
            return not self.by_step
        chosen = published(policy, CELLS[self.kind].type)
        return chosen is not None and not (
            self.by_step and any(rule.per != "step" for rule in chosen.values())
        )

    def cases(self, policy: str):
        """Cases of one policy on this layer."""
        found = cases(
            (policy,),
            (self.kind,),
            self.directions,
            self.projections,
            self.spatial_axes,
            self.channels_last,
        )
        if self.by_step or not self.takes_padding:
            found = found.filter(lambda case: case.lengths is None)
        return found


def pairs(layers: Sequence[Layer]) -> list[object]:
    """Each layer with each policy that it can have, as pytest parameters."""
    return [
        pytest.param(layer, policy, id=f"{layer.name}-{policy}")
        for layer in layers
        for policy in POLICIES
        if layer.has(policy)
    ]


def masks_by_step(case: Case) -> dict[Slot, np.ndarray]:
    """The keyed masks of a case whose every step is a call of its own."""
    wanted = plan_masks(Placement(case.policy), replace(case.geometry, steps=1))
    steps = [
        keyed.masks(wanted, case.seed, case.call + t, case.row_offset) for t in range(case.steps)
    ]
    return {slot: np.concatenate([masks[slot] for masks in steps]) for slot in wanted}


def check(backend: str, layer: Layer, policy: str, tolerance: float, examples: int) -> None:
    """Hold a layer under a policy to the oracle, in training and in evaluation, and count it.

    Raises:
        AssertionError: it is not the oracle's, or it is and `GAPS` says otherwise.
    """
    counted = 0

    @settings(max_examples=EXAMPLES or examples, database=None)
    @given(layer.cases(policy))
    def holds(case: Case) -> None:
        nonlocal counted
        equals_oracle(layer.run, case, tolerance, masks_by_step(case) if layer.by_step else None)
        evaluation_is_what_it_says(layer.run, case, tolerance)
        counted += 1

    reason = GAPS.get((backend, layer.name, policy), "")
    if not reason:
        holds()
    else:
        with pytest.raises((AssertionError, dp.PolicyError)):
            holds()
    FOLDER.mkdir(parents=True, exist_ok=True)
    name = f"{backend}-{layer.name}-{policy}".replace("/", "-").replace(" ", "-")
    line = {"backend": backend, "layer": layer.name, "policy": policy, "cases": counted}
    (FOLDER / f"{name}.json").write_text(json.dumps(line | {"gap": reason}), encoding="utf-8")
