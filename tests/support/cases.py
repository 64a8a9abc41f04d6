"""One call of a stack, as data: what every adapter and the oracle are run on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

import dropout_policies as dp
from dropout_policies import reference
from dropout_policies.masks import keyed
from dropout_policies.placement.plans import Geometry, Placement, plan_in_evaluation, plan_masks
from dropout_policies.policies import cell_types
from dropout_policies.policies.rates import rate_at
from dropout_policies.reference import Weights
from dropout_policies.testing import strategies

from .convolutions import NO_CONVOLUTION, Convolution, convolutions, dense_masks, dense_weights

FORMS = ("steps first", "batch first", "unbatched", "sorted")
"""How a framework that has a choice is handed the input: unbatched if B is 1 and nothing is padded,
sorted by length if there are lengths."""


class Cell(NamedTuple):
    """A kind of layer: what it is, the oracle's step of it, and whose weights that has."""

    type: cell_types.CellType
    step: reference.Step
    inside: cell_types.CellType


CELLS = {
    "lstm": Cell(cell_types.LSTM, reference.lstm, cell_types.LSTM),
    "gru": Cell(cell_types.GRU, reference.gru, cell_types.GRU),
    "gru_reset_before": Cell(cell_types.GRU, reference.gru_reset_before, cell_types.GRU),
    "rnn_tanh": Cell(cell_types.RNN, reference.rnn_tanh, cell_types.RNN),
    "rnn_relu": Cell(cell_types.RNN, reference.rnn_relu, cell_types.RNN),
    "own_lstm": Cell(cell_types.CUSTOM, reference.lstm, cell_types.LSTM),
    "conv_lstm": Cell(cell_types.LSTM, reference.lstm, cell_types.LSTM),
    "own_conv_lstm": Cell(cell_types.CUSTOM, reference.lstm, cell_types.LSTM),
}


@dataclass(frozen=True)
class Case:
    """A geometry, a policy and what the numbers are drawn from.

    `lengths`: the length of each sample, or None; `call`: how many training calls came before;
    `form`: one of `FORMS`; `cell`: one of `CELLS`; `convolution`: what a convolutional layer does
    with its input. Its values have spatial axes, and are flat here: all positions of the first
    channel, then of the next.
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
    cell: str = "lstm"
    convolution: Convolution = NO_CONVOLUTION

    @property
    def output_size(self) -> int:
        return self.proj_size or self.hidden_size

    @property
    def geometry(self) -> Geometry:
        return Geometry(
            self.input_size,
            self.hidden_size,
            self.layers,
            self.directions,
            self.batch,
            self.steps,
            self.proj_size,
            CELLS[self.cell].type,
            self.convolution.input_positions,
            self.convolution.positions,
            self.convolution.taps,
        )

    @property
    def valid(self) -> np.ndarray:
        """Which steps of which samples are no padding, `[T, B]`."""
        lengths = np.array(self.lengths or [self.steps] * self.batch)
        return np.arange(self.steps)[:, None] < lengths[None, :]


@dataclass(frozen=True)
class Numbers:
    """The arrays of a case: x `[T, B, D*S]`, weights by layer and direction, and the states.

    S: the positions of spatial axes, 1 where there are none. A convolution's kernel is a weight
    `[G*H, C*K]` of K taps.
    """

    x: np.ndarray
    weights: list[list[Weights]]
    state: tuple[np.ndarray, ...] | None

    def moved(self, random_direction: Numbers, distance: complex) -> Numbers:
        """These numbers, and a bit of another's added to each of them."""

        def add(a: np.ndarray | None, b: np.ndarray | None) -> np.ndarray | None:
            return None if a is None else a + distance * b

        weights = [
            [
                Weights(
                    *(add(getattr(a, name), getattr(b, name)) for name in Weights.__annotations__)
                )
                for a, b in zip(row, other, strict=True)
            ]
            for row, other in zip(self.weights, random_direction.weights, strict=True)
        ]
        state = self.state and tuple(map(add, self.state, random_direction.state))
        return Numbers(add(self.x, random_direction.x), weights, state)


@dataclass(frozen=True)
class Outcome:
    """What a call gave: y `[T, B, K*P]` and the states: h_n `[L*K, B, P]`, c_n `[L*K, B, H]`; with
    spatial axes P and H are times their positions.

    `slope`: how fast `loss` rises when all numbers of the case move along `way`; None where
    it was not asked for.
    """

    y: np.ndarray
    state: tuple[np.ndarray, ...] = field(repr=False)
    slope: float | None = None

    @property
    def parts(self) -> dict[str, np.ndarray]:
        return {"y": self.y, **dict(zip(("h", "c"), self.state, strict=False))}


def numbers(case: Case) -> Numbers:
    """The arrays of a case, in float64, drawn from its `draw`."""
    return _numbers(case, np.random.default_rng(case.draw))


def random_direction(case: Case) -> Numbers:
    """The way along which a case's numbers move where slopes are compared."""
    return _numbers(case, np.random.default_rng([case.draw, 1]))


def _numbers(case: Case, rng: np.random.Generator) -> Numbers:
    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        return scale * rng.standard_normal(shape)

    H, P, K = case.hidden_size, case.output_size, len(case.directions)
    G = CELLS[case.cell].inside.gates
    taps, convolution = case.convolution.taps, case.convolution
    weights = []
    for layer in range(case.layers):
        width = case.input_size if layer == 0 else K * P
        weights.append(
            [
                Weights(
                    normal(G * H, width * taps, scale=0.6),
                    normal(G * H, P * taps, scale=0.6),
                    normal(G * H, scale=0.3) if case.bias else None,
                    # Only there does a second bias not add up with the first.
                    normal(G * H, scale=0.3) if case.bias and case.cell == "gru" else None,
                    normal(P, H, scale=0.6) if case.proj_size else None,
                )
                for _ in case.directions
            ]
        )
    x = normal(case.steps, case.batch, case.input_size * convolution.input_positions)
    widths = (P, H)[: CELLS[case.cell].inside.states]
    state = tuple(
        normal(case.layers * K, case.batch, width * convolution.positions) for width in widths
    )
    return Numbers(x, weights, state if case.initial_state else None)


def loss_weights(case: Case, part: str, shape: tuple[int, ...]) -> np.ndarray:
    """How much each element of an outcome's part counts in the loss; padding does not."""
    rng = np.random.default_rng([case.draw, 2, ord(part)])
    counts = rng.standard_normal(shape)
    return counts * case.valid[:, :, None] if part == "y" else counts


def loss(case: Case, parts: dict[str, np.ndarray]) -> complex:
    """One number that depends on everything that a call gave."""
    return sum((part * loss_weights(case, name, part.shape)).sum() for name, part in parts.items())


def oracle(case: Case, masks: dict | None = None, given: Numbers | None = None) -> Outcome:
    """What the case must give: the NumPy stack under the keyed masks of its plan, or under given
    ones; with the slope of its loss, exact to the last digits (a complex step)."""
    given = given or numbers(case)
    if masks is None:
        wanted = plan_masks(Placement(case.policy), case.geometry)
        if case.training:
            masks = keyed.masks(wanted, case.seed, case.call, case.row_offset)
        else:
            masks = means(wanted, case.call)
    cell = CELLS[case.cell]

    def run(on: Numbers) -> Outcome:
        weights, rest = on.weights, masks
        if case.convolution.sizes:
            weights = dense_weights(case.convolution, weights, case.directions, masks)
            rest = dense_masks(case.convolution, case.policy, masks)
        arguments = on.state, case.lengths, case.directions
        return Outcome(*reference.run(cell.step, on.x, weights, rest, *arguments))

    tiny = 1e-30
    slope = loss(case, run(given.moved(random_direction(case), tiny * 1j)).parts).imag / tiny
    return replace(run(given), slope=slope)


def means(wanted, call: int) -> dict:
    """The masks of evaluation: each one's mean, of its planned shape."""
    return {
        slot: np.full(mask.shape, mask.rule.mean(rate_at(mask.rate, call)))
        for slot, mask in plan_in_evaluation(wanted).items()
    }


MIXED = (strategies.MIXED, *dp.names())
"""The names of all policies to draw from."""


@st.composite
def cases(
    draw: st.DrawFn,
    names: tuple[str, ...] = MIXED,
    kinds: tuple[str, ...] = ("lstm",),
    directions: tuple[tuple[int, ...], ...] = ((0,), (0, 1)),
    projections: bool = True,
    spatial_axes: tuple[int, ...] = (0,),
    channels_last: tuple[bool, ...] = (True, False),
) -> Case:
    """Random cases of policies and kinds of layer, small enough to run many of them.

    A published policy on values with spatial axes has masks of elements or of whole channels.
    """
    cell = draw(st.sampled_from(kinds))
    kind = CELLS[cell].type
    projected = projections and cell == "lstm"
    axes = draw(st.sampled_from(spatial_axes))
    layers = draw(st.integers(1, 2)) if axes else None
    sizes = draw(strategies.geometries(kind, directions, projected, layers))
    batch, steps = sizes.batch, sizes.steps
    lengths = draw(
        st.none()
        | st.lists(st.integers(1, steps), min_size=batch, max_size=batch).map(
            lambda some: tuple([steps, *some[1:]][::-1])
        )
    )
    form = draw(st.sampled_from(FORMS))
    if form == "sorted" and lengths is not None:
        lengths = tuple(sorted(lengths, reverse=True))
    policy = draw(strategies.policies(kind, sizes.layers, names))
    if axes and policy.name != strategies.MIXED:
        policy = policy.with_shape(draw(st.sampled_from(["element", "channel"])))
    return Case(
        policy=policy,
        convolution=draw(convolutions(axes, channels_last)) if axes else NO_CONVOLUTION,
        cell=cell,
        form=form,
        row_offset=draw(st.integers(0, 3)),
        layers=sizes.layers,
        directions=sizes.directions,
        input_size=sizes.input_size,
        hidden_size=sizes.hidden_size,
        proj_size=sizes.proj_size,
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
