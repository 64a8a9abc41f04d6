"""The promises of the library, as checks on anything that can run a case.

A subject is a function from a case to an outcome. The same checks run on every adapter, and on
mutants of them that must fail.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

import dropout_policies as dp
from dropout_policies.placement.plans import Placement, Plan, Slot, plan_masks
from dropout_policies.policies.rates import rate_at
from dropout_policies.reference import Weights

from .cases import Case, Numbers, Outcome, evaluated, numbers, oracle
from .convolutions import Convolution

Subject = Callable[[Case, Numbers | None], Outcome]
"""Runs a case on its own numbers, or on given ones."""


def equals_oracle(
    subject: Subject, case: Case, tolerance: float, masks: dict[Slot, np.ndarray] | None = None
) -> None:
    """Output, last states and gradients are those of the NumPy oracle under the same keyed masks.

    The gradients of all numbers at once, as the slope of one loss along one way. `masks` are others
    than those of the case's own plan.
    """
    are_equal(subject(case, None), oracle(case, masks), case, tolerance)


def are_equal(got: Outcome, expected: Outcome, case: Case, tolerance: float) -> None:
    """Two outcomes of a case are equal, as far as both have a slope in that too."""
    assert got.parts.keys() == expected.parts.keys()
    pairs = [(name, got.parts[name], expected.parts[name]) for name in got.parts]
    if got.slope is not None:
        # A sum of many terms, and so compared with the size of what it sums up.
        scale = 1.0 + abs(expected.slope)
        pairs.append(("slope", got.slope / scale, expected.slope / scale))
    for name, one, other in pairs:
        np.testing.assert_allclose(
            one, other, rtol=tolerance, atol=tolerance, err_msg=f"{name} of {case}"
        )


def equals_oracle_under_its_own_masks(
    patch: Callable[[Callable], None],
    outcome: Callable[[Numbers], Outcome],
    case: Case,
    tolerance: float,
) -> None:
    """Output and last states are the oracle's under the very masks that the adapter drew.

    Args:
        patch: puts a function of the adapter's `masks.draw` in its place.
        outcome: runs the case.
    """
    drawn: dict = {}

    def recording(draw: Callable) -> Callable:
        def recorded(wanted, *arguments):
            found = draw(wanted, *arguments)
            drawn.update({slot: np.array(mask) for slot, mask in found.items()})
            return found

        return recorded

    patch(recording)
    given = numbers(case)
    got = outcome(given)
    wanted = plan_masks(Placement(case.policy), case.geometry)
    assert drawn.keys() == wanted.keys()
    for slot, mask in drawn.items():
        values = wanted[slot].rule.values(rate_at(wanted[slot].rate, case.call))
        assert mask.shape == wanted[slot].shape
        assert (np.isclose(mask, values[0]) | np.isclose(mask, values[1])).all()
    are_equal(got, oracle(case, drawn), case, tolerance)


def are_independent(drawn: dict[Slot, np.ndarray], wanted: Plan) -> None:
    """Masks of the planned share and scale; no two slots, steps or samples have the same."""
    assert drawn.keys() == wanted.keys()
    seen = []
    for slot, mask in drawn.items():
        rate = rate_at(wanted[slot].rate, 0)
        assert mask.shape == wanted[slot].shape
        np.testing.assert_allclose(np.unique(mask), [0, 1 / (1 - rate)], rtol=1e-6)
        share = (mask > 0).mean()
        assert abs(share - (1 - rate)) < 5 * np.sqrt(rate * (1 - rate) / mask.size)
        seen += [row.tobytes() for step in mask > 0 for row in step]
    assert len(set(seen)) == len(seen)


def evaluation_is_what_it_says(subject: Subject, case: Case, tolerance: float) -> None:
    """In evaluation no mask falls anywhere; the mean stands for those that are not scaled."""
    equals_oracle(subject, evaluated(case), tolerance)


def corruptions(
    subject: Subject, policy: dp.Policy, layers: int, steps: int, source: int, memory: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """How many masks lie on the way from x_s to each y_t, t >= s, measured through the layer.

    A network of width 1 carries one impulse along a single path: straight up to layer `memory`,
    from step to step through that layer's hidden state, and straight up from there. Gates i and
    o are open, f is shut, so that all that is remembered has gone through h at every step; and
    the signal is so small that tanh is the identity. A mask on the way then either stops the
    impulse or multiplies it by 1/(1 − rate), so the strength that arrives, against evaluation's,
    counts the masks. Every sample of a large batch is a trial of its own, with its own masks.

    Returns:
        The counts `[T - s]` of the samples that arrived, and the share of samples that did.
    """
    rate = max(rule.rate for rule in policy.values())
    batch = 4096
    open_gates = np.array([40.0, -40.0, 0.0, 40.0])  # i, f, g, o
    into_g = np.array([[0.0], [0.0], [1.0], [0.0]])
    weights = [[Weights(into_g, into_g * (layer == memory), open_gates)] for layer in range(layers)]
    x = np.zeros((steps, batch, 1))
    x[source] = 1e-4
    case = Case(
        policy,
        layers=layers,
        input_size=1,
        hidden_size=1,
        batch=batch,
        steps=steps,
        initial_state=False,
        seed=3,
    )
    given = Numbers(x, weights, None)
    whole = subject(evaluated(case), given).y[source:, :, 0]
    masked = subject(case, given).y[source:, :, 0]
    strength = np.abs(masked / whole)
    arrived = strength > 1e-9  # a shut gate leaks some 1e-18
    counts = np.log(strength, where=arrived, out=0 * strength) / -np.log(1.0 - rate)  # [T - s, B]
    found = []
    for t in range(steps - source):
        assert arrived[t].any(), f"nothing arrived at step {source + t}"
        here = counts[t][arrived[t]]
        np.testing.assert_allclose(here, here[0], atol=1e-2, err_msg=f"step {source + t}")
        found.append(here[0])
    return np.array(found), arrived.mean(axis=1)


def corrupted_once_a_layer(
    subject: Subject,
    layers: int,
    steps: int,
    source: int,
    policy: Callable[[float], dp.Policy] | None = None,
) -> None:
    """Under a vertical policy (zaremba if none is given): exactly L+1 masks between any x_s and
    y_t, all of them independent.

    Independent masks let (1 − rate)^(L+1) of the samples arrive.
    """
    rate = 0.3
    expected = (1 - rate) ** (layers + 1)
    for memory in range(layers):
        counts, share = corruptions(
            subject, (policy or dp.zaremba)(rate), layers, steps, source, memory
        )
        np.testing.assert_allclose(counts, layers + 1, atol=1e-2)
        np.testing.assert_allclose(share, expected, atol=5 * np.sqrt(expected / 4096))


COUNTED = {
    "zaremba": dp.zaremba(0.3),
    "naive": dp.naive(0.3),
    "variational": dp.variational(0.3, hidden=0.3, embedding=0.3),
    "semeniuta": dp.semeniuta(0.3),
    "held on the candidate": dp.semeniuta(0.3, per="sequence"),
    "on h": dp.Policy(state=dp.drop(0.3)),
    "on c": dp.Policy(cell=dp.drop(0.3, per="sequence")),
    "everywhere": dp.naive(0.3)
    | dp.semeniuta(0.3)
    | dp.Policy(state=dp.drop(0.3), cell=dp.drop(0.3)),
}
"""Policies with one rate, whose masks on a way can be counted by what arrives at its end."""


def diagrams_count_what_is_passed(subject: Subject, policy: dp.Policy, layers: int) -> None:
    """The masks that a diagram counts between x_s and y_t are those that a signal passes."""
    steps = 3
    counts, _ = corruptions(subject, policy, layers, steps, 0, memory=layers - 1)
    for t, count in enumerate(counts):
        drawn = policy.diagram(layers, steps, path=(1, t + 1))
        np.testing.assert_allclose(drawn.corruptions, count, atol=1e-2, err_msg=str(drawn))


def keeps_every_promise(subject: Subject, tolerance: float) -> None:
    """Every check above on fixed cases, chosen so that each misplacement shows in one of them."""
    plain = Case(dp.zaremba(0.5), steps=6, batch=4, hidden_size=5, call=2)
    ragged = replace(plain, lengths=(2, 6, 3, 5))
    both = replace(plain, directions=(0, 1))
    mixed = dp.Policy(
        input=dp.drop(0.2),
        between=dp.drop(0.4, per="sequence"),
        output=dp.drop(0.3),
        hidden=dp.drop(0.6, per="sequence"),
    )
    rules = replace(ragged, policy=mixed, form="sorted", lengths=(6, 5, 3, 2), row_offset=2)
    turned = replace(plain, policy=dp.Policy(hidden=dp.drop(0.5)), form="batch first")
    one = replace(plain, batch=1, form="unbatched")
    inside = [
        replace(both, policy=dp.zoneout(0.5, 0.3)),
        replace(plain, policy=dp.rnndrop()),
        replace(plain, policy=dp.semeniuta(0.5)),
        replace(plain, policy=dp.awd(), row_offset=3),
        replace(plain, policy=dp.variational(gates="untied")),
        replace(plain, policy=dp.Policy(state=dp.drop(0.3))),
        replace(plain, policy=dp.Policy(input=dp.drop(dp.schedule({0: 0.1, 2: 0.8})))),
    ]
    stays = dp.Policy(state=dp.drop(0.3), cell=dp.drop(0.4)) | dp.zoneout(0.5, 0.3)
    by_layer = dp.resolve("naive", [0.2, 0.7])
    rising = dp.schedule({0: 0.1, 2: 0.6})
    inside += [
        replace(plain, policy=stays),
        replace(plain, policy=dp.Policy(input_weight=dp.drop(0.5, per="call"))),
        replace(both, policy=dp.awd()),
        replace(plain, policy=by_layer),
        replace(plain, policy=dp.zoneout(rising, rising)),
        replace(ragged, policy=dp.zoneout(0.5, 0.3) | dp.variational()),
        replace(
            ragged, policy=dp.Policy(state=dp.drop(0.3)) | dp.zoneout(0.0, 0.3), cell="rnn_tanh"
        ),
        replace(plain, policy=dp.Policy(state=dp.drop(0.3)) | dp.zoneout(0.0, 0.3), cell="gru"),
    ]
    gru = dp.semeniuta(0.5) | dp.Policy(hidden=dp.drop(0.4)) | dp.weight_drop(0.3)
    inside.append(replace(plain, cell="gru", policy=gru | dp.zoneout(0.0, 0.3)))
    for case in (plain, ragged, both, rules, turned, one, *inside):
        equals_oracle(subject, case, tolerance)
        evaluation_is_what_it_says(subject, case, tolerance)
    corrupted_once_a_layer(subject, layers=2, steps=5, source=1)


def convolutions_keep_every_promise(subject: Subject, tolerance: float) -> None:
    """The same for a convolutional LSTM, on images of 3 × 3."""
    plain = Case(
        dp.Policy(
            input=dp.drop(0.5), hidden=dp.drop(0.5, per="sequence"), cell=dp.drop(0.3, per="step")
        ),
        layers=1,
        input_size=4,
        cell="conv_lstm",
        convolution=Convolution((3, 3), (2, 3)),
    )
    untied = dp.drop(0.5, gates="untied")
    weights = dp.drop(0.5, per="call", scaled=False)
    inside = dp.Policy(input=untied, hidden=untied, input_weight=weights, recurrent_weight=weights)
    for case in (
        plain,
        replace(plain, policy=plain.policy.with_shape("channel")),
        replace(plain, policy=inside, layers=2),
        replace(
            plain,
            policy=inside.with_shape("channel") | dp.zoneout(0.3, 0.5),
            convolution=Convolution((3, 3), (2, 3), stride=2, padding="valid"),
        ),
    ):
        equals_oracle(subject, case, tolerance)
        evaluation_is_what_it_says(subject, case, tolerance)
