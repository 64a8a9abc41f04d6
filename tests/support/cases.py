"""One call of a stack, as data: what every adapter and the oracle are run on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from hypothesis import strategies as st

import dropout_policies as dp
from dropout_policies import keyed, reference
from dropout_policies.plan import Geometry, Placement, plan
from dropout_policies.reference import LSTMWeights

POLICIES = ("zaremba", "naive", "locked", "mixed")
FORMS = ("steps first", "batch first", "unbatched", "sorted")
"""How a framework that has a choice is handed the input: unbatched if B is 1 and nothing is padded,
sorted by length if there are lengths."""


@dataclass(frozen=True)
class Case:
    """A geometry, a policy and what the numbers are drawn from.

    `lengths`: the length of each sample, or None; `call`: how many training calls came before;
    `form`: one of `FORMS`.
    """

    policy: dp.Policy
    layers: int = 2
    directions: tuple[int, ...] = (0,)
    input_size: int = 3
    hidden_size: int = 4
    proj_size: int = 0
    batch: int = 3
    steps: int = 5
    bias: bool = True
    initial_state: bool = True
    lengths: tuple[int, ...] | None = None
    seed: int = 7
    call: int = 0
    row_offset: int = 0
    training: bool = True
    draw: int = 0
    form: str = "steps first"

    @property
    def output_size(self) -> int:
        return self.proj_size or self.hidden_size

    @property
    def geometry(self) -> Geometry:
        return Geometry(
            self.input_size,
            self.output_size,
            self.layers,
            self.directions,
            self.batch,
            self.steps,
        )


@dataclass(frozen=True)
class Numbers:
    """The arrays of a case: x `[T, B, D]`, weights by layer and direction, h and c."""

    x: np.ndarray
    weights: list[list[LSTMWeights]]
    state: tuple[np.ndarray, np.ndarray] | None


@dataclass(frozen=True)
class Outcome:
    """What a call gave: y `[T, B, K*P]`, h_n `[L*K, B, P]`, c_n `[L*K, B, H]`."""

    y: np.ndarray
    h: np.ndarray
    c: np.ndarray = field(repr=False)


def numbers(case: Case) -> Numbers:
    """The arrays of a case, in float64, drawn from its `draw`."""
    rng = np.random.default_rng(case.draw)

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        return scale * rng.standard_normal(shape)

    H, P, K = case.hidden_size, case.output_size, len(case.directions)
    weights = []
    for layer in range(case.layers):
        width = case.input_size if layer == 0 else K * P
        weights.append(
            [
                LSTMWeights(
                    normal(4 * H, width, scale=0.6),
                    normal(4 * H, P, scale=0.6),
                    normal(4 * H, scale=0.3) if case.bias else None,
                    normal(P, H, scale=0.6) if case.proj_size else None,
                )
                for _ in case.directions
            ]
        )
    x = normal(case.steps, case.batch, case.input_size)
    rows = case.layers * K
    state = (normal(rows, case.batch, P), normal(rows, case.batch, H))
    return Numbers(x, weights, state if case.initial_state else None)


def oracle(case: Case) -> Outcome:
    """What the case must give: the NumPy stack under the keyed masks of its plan."""
    given = numbers(case)
    masks = {}
    if case.training:
        wanted = plan(Placement(case.policy), case.geometry)
        masks = keyed.masks(wanted, case.seed, case.call, case.row_offset)
    return Outcome(
        *reference.lstm(given.x, given.weights, masks, given.state, case.lengths, case.directions)
    )


rates = st.sampled_from([0.1, 0.5, 0.65, 0.9]) | st.floats(0.01, 0.95)
rules = st.builds(dp.Rule, rates, st.sampled_from(["step", "sequence"]))
mixed = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("input", "between", "output", "hidden"), rules)
).map(lambda some: dp.Policy(**some, name="mixed"))
"""Policies with a rule of its own at each site."""


@st.composite
def cases(
    draw: st.DrawFn,
    policies: tuple[str, ...] = POLICIES,
    directions: tuple[tuple[int, ...], ...] = ((0,), (0, 1)),
    projections: bool = True,
) -> Case:
    """Random cases of a policy, small enough to run many of them."""
    hidden_size = draw(st.integers(1, 6))
    batch, steps = draw(st.integers(1, 5)), draw(st.integers(1, 8))
    lengths = draw(
        st.none()
        | st.lists(st.integers(1, steps), min_size=batch, max_size=batch).map(
            lambda some: tuple([steps, *some[1:]][::-1])
        )
    )
    form = draw(st.sampled_from(FORMS))
    if form == "sorted" and lengths is not None:
        lengths = tuple(sorted(lengths, reverse=True))
    name = draw(st.sampled_from(policies))
    return Case(
        policy=draw(mixed) if name == "mixed" else dp.catalog.resolve(name, draw(rates)),
        form=form,
        row_offset=draw(st.integers(0, 3)),
        layers=draw(st.integers(1, 3)),
        directions=draw(st.sampled_from(directions)),
        input_size=draw(st.integers(1, 5)),
        hidden_size=hidden_size,
        proj_size=draw(st.integers(0, hidden_size - 1)) if projections else 0,
        batch=batch,
        steps=steps,
        bias=draw(st.booleans()),
        initial_state=draw(st.booleans()),
        lengths=lengths,
        seed=draw(st.integers(0, 2**32 - 1)),
        call=draw(st.integers(0, 3)),
        draw=draw(st.integers(0, 2**16)),
    )


def evaluated(case: Case) -> Case:
    """The same case in evaluation."""
    return replace(case, training=False)
