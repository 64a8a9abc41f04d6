"""The result of `dropout_policies.wiring`: a model's connections as an object, text and picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from ..argument_checks import short_repr
from ..errors import PolicyError
from .connections import DropoutUse, ExistingDropout, LayerUse, RecurrentLayer
from .wiring_picture import draw_wiring


@dataclass(frozen=True)
class Wiring:
    """How the recurrent layers of a model are connected.

    `dropout_policies.wiring` returns it. `print` shows it as text.

    Args:
        layers: the recurrent layers of the model.
        uses: where they run, and what feeds them there.
        dropouts: where the model's own dropout layers run.
        unplaced_dropouts: dropout layers for which nothing shows where they run.
        ambiguous_pairs: pairs of layers for which nothing shows whether the first feeds the second.
        unlikely_pairs: pairs that are treated as separate because their widths differ. The first
            may still feed the second, together with something else.
        notes: other observations, one sentence each.
        observed: True: it was observed in a run. False: it was read from the structure.
    """

    layers: Sequence[RecurrentLayer]
    uses: Sequence[LayerUse]
    dropouts: Sequence[DropoutUse] = ()
    unplaced_dropouts: Sequence[ExistingDropout] = ()
    ambiguous_pairs: Sequence[tuple[RecurrentLayer, RecurrentLayer]] = ()
    unlikely_pairs: Sequence[tuple[RecurrentLayer, RecurrentLayer]] = ()
    notes: Sequence[str] = ()
    observed: bool = False

    def pairs_among(
        self, layers: Sequence[RecurrentLayer]
    ) -> list[tuple[RecurrentLayer, RecurrentLayer]]:
        """The ambiguous pairs of which both layers are among `layers`."""
        return [(a, b) for a, b in self.ambiguous_pairs if a in layers and b in layers]

    def __str__(self) -> str:
        return "\n".join(_lines(self))

    def svg(self) -> str:
        """The picture as an SVG document, for light and dark pages."""
        return draw_wiring(self.uses, self.dropouts)

    def save(self, path: str | Path) -> None:
        """Write the picture to an SVG file.

        Args:
            path: the file. Its name ends with `.svg`.

        Raises:
            PolicyError: the name has another ending.
            OSError: the file cannot be written.
        """
        if Path(path).suffix != ".svg":
            raise PolicyError(
                f"A picture of the wiring is written to a file whose name ends with .svg. "
                f"Received: {short_repr(path)}"
            )
        Path(path).write_text(self.svg(), encoding="utf-8")

    def _repr_html_(self) -> str:
        """The picture and the text that a notebook shows."""
        return f"{self.svg()}<pre>{escape(str(self))}</pre>"


def _lines(wiring: Wiring) -> Iterator[str]:
    """The layers in the order in which they run, with what feeds each; then the dropouts."""
    how = "seen in a run on the example" if wiring.observed else "read from the model's structure"
    count = len(wiring.layers)
    yield f"{count} recurrent layer{'s' * (count != 1)}, {how}"
    for use in wiring.uses:
        yield f"  {use.item.name} ({use.item.kind}){_calls_text(use)}"
        yield from (f"    {fact}" for fact in _facts(use))
    used = {use.item for use in wiring.uses}
    unseen = (
        "did not run on the example" if wiring.observed else "only the code knows what feeds it"
    )
    for item in wiring.layers:
        if item not in used:
            yield f"  {item.name} ({item.kind})"
            yield f"    {unseen}"
    for a, b in wiring.ambiguous_pairs:
        yield f"  {a.name} may feed {b.name}: only the code knows"
    # One line for a dropout that a loop runs at every step.
    yield from dict.fromkeys(
        f"  dropout {use.dropout}: {_dropout_text(use)}" for use in wiring.dropouts
    )
    for dropout in wiring.unplaced_dropouts:
        not_run = "it did not run on the example"
        where = not_run if wiring.observed else "only the code knows what it falls on"
        yield f"  dropout {dropout}: {where}"
    yield from (f"  {note}" for note in wiring.notes)


def _calls_text(use: LayerUse) -> str:
    """How a layer is called, if a run showed it; else ""."""
    if use.calls is None:
        return ""
    steps = "" if use.steps is None else f" over {use.steps} step{'s' * (use.steps != 1)}"
    if use.calls == 1:
        return f": one call{steps}"
    return f": {use.calls} calls{steps}, each from the state that the one before left"


def _facts(use: LayerUse) -> Iterator[str]:
    if use.fed_by:
        yield f"input from {_names(source for source in use.fed_by)}"
    if use.initial_state_from:
        yield f"initial state from {_names(source for source in use.initial_state_from)}"
    if use.output_goes == {"state"}:
        yield "its output is used as a state only"
    if use.calls is not None and not use.output_goes:
        yield "its output is not used" + ", its last state is" * use.state_is_used


def _dropout_text(use: DropoutUse) -> str:
    before = [f"the output of {item.name}" for item in use.outputs_of]
    before += [f"the last state of {item.name}" for item in use.states_of]
    after = [f"the input of {item.name}" for item in use.inputs_of]
    after += [f"the initial state of {item.name}" for item in use.initial_states_of]
    after += ["other layers"] * (use.goes_elsewhere and bool(before or after))
    if not before and not after:
        return "not next to a recurrent layer"
    return f"from {' and '.join(before) or 'other layers'} to {' and '.join(after) or 'nothing'}"


def _names(uses: Iterable[LayerUse]) -> str:
    return " and ".join(dict.fromkeys(use.item.name for use in uses))
