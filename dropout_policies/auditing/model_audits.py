"""The audit of a whole model: one audit for each recurrent layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .audits import Audit


@dataclass(frozen=True, repr=False)
class ModelAudit:
    """Where the recurrent layers of a model mask, with the dropout around each.

    `dropout_policies.audit(model, example=...)` returns it.

    Args:
        name: the class of the model.
        parts: the audit of each recurrent layer, by the layer's name in the model. `input` and
            `output` of an audit include the model's own dropout before and after the layer.
        links: pairs of layers, of which the first feeds the second.
        refused: the layers that could not be audited, by name, with the reason.
        notes: dropout between layers that was not measured, with the reason.
    """

    name: str
    parts: Mapping[str, Audit]
    links: tuple[tuple[str, str], ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def doubled(self) -> tuple[tuple[str, str], ...]:
        """The pairs of layers with two masks between them: one at the output of the first layer,
        and one at the input of the second."""

        def is_masked(name: str, site: str) -> bool:
            findings = self.parts[name].findings if name in self.parts else ()
            return any(f.site.value == site and f.verdict == "masked" for f in findings)

        return tuple(
            (before, after)
            for before, after in self.links
            if is_masked(before, "output") and is_masked(after, "input")
        )

    def to_dict(self) -> dict[str, Any]:
        """The audit as plain JSON values."""
        return {
            "name": self.name,
            "parts": {name: part.to_dict() for name, part in self.parts.items()},
            "links": [list(link) for link in self.links],
            "doubled": [list(link) for link in self.doubled],
            "refused": dict(self.refused),
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        count = len(self.parts) + len(self.refused)
        lines = [f"{self.name}: {count} recurrent layer{'s' * (count != 1)}"]
        for name, part in self.parts.items():
            lines += [
                f"  {name}: {line}" if n == 0 else f"  {line}"
                for n, line in enumerate(str(part).splitlines())
            ]
        lines += [f"  {name}: not audited: {why}" for name, why in self.refused.items()]
        lines += [
            f"  what goes from {before} into {after} is masked twice"
            for before, after in self.doubled
        ]
        lines += [f"  {note}" for note in self.notes]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<ModelAudit of {self.name}: {len(self.parts)} parts>"

    def _repr_html_(self) -> str:
        """The diagram and the report of each part, which a notebook shows."""
        return "".join(part._repr_html_() for part in self.parts.values())
