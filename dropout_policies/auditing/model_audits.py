"""The audit of a whole model: one audit for each recurrent layer, where it stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .audits import Audit


@dataclass(frozen=True, repr=False)
class ModelAudit:
    """Where the recurrent layers of a model mask, with the dropout around each.

    Made by `dropout_policies.audit(model, example=...)`.

    Args:
        name: the model's class.
        parts: the audit of each recurrent layer by its name in the model. Its `input` and `output`
            are what comes into that layer and what leaves it, with the model's own dropout there.
        links: pairs of layers of which the first feeds the second.
        refused: by name, why a layer could not be audited.
        notes: dropout that is on the way and was not measured, and why.
    """

    name: str
    parts: Mapping[str, Audit]
    links: tuple[tuple[str, str], ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def doubled(self) -> tuple[tuple[str, str], ...]:
        """The pairs of layers between which two masks fall: one where the first ends, and one where
        the second begins."""

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
        """What a notebook shows: the diagram and the report of each part."""
        return "".join(part._repr_html_() for part in self.parts.values())
