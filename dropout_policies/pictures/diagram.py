"""What a person is shown of the unrolled network: text, SVG, PNG, and a notebook's cell."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ..argument_checks import short_repr
from ..errors import PolicyError
from .drawing import png, svg
from .grid import Grid


@dataclass(frozen=True, slots=True, repr=False)
class Diagram(Grid):
    """L layers over T steps: `print` it, or `save` it as a picture; a notebook shows it.

    Made by `diagram()` of a policy or an audit, and `diagrams()` of what `apply` returns.

    Args:
        title: what is drawn.
        rows: from the bottom up, connections and layers by turns: the input, layer 1, what is
            between, layer 2, ..., the output.
        steps: T.
        path: `(s, t)`, counted from 1: the path from x_s to y_t to draw heavy; or None.
        wanted: what rows marked as wrong are unlike.

    Raises:
        PolicyError: there are no layers, no steps or too many, or no such path.
    """

    def svg(self) -> str:
        """The diagram as an SVG document, for light and dark pages."""
        return svg(self)

    def save(self, path: str | Path) -> None:
        """Write the diagram to a file, as its name says: `.svg`, `.png` or `.txt`.

        PNG is drawn by Matplotlib, which the extra `pictures` brings.

        Raises:
            PolicyError: another ending, or a PNG without Matplotlib.
            OSError: the file cannot be written.
        """
        suffix = _suffix(path)
        if suffix == ".png":
            png(self, Path(path))
        elif suffix == ".svg":
            Path(path).write_text(self.svg(), encoding="utf-8")
        elif suffix == ".txt":
            Path(path).write_text(f"{self}\n", encoding="utf-8")
        else:
            raise PolicyError(
                f"A diagram is written to a file whose name ends with .svg, .png or .txt. "
                f"Received: {short_repr(path)}"
            )

    def _repr_html_(self) -> str:
        return self.svg()


def _suffix(path: object) -> str:
    """How a file's name ends; "" if no file can have it."""
    try:
        file = Path(path)  # type: ignore[arg-type]
        return "" if b"\0" in os.fsencode(file) else file.suffix
    except (TypeError, ValueError):
        return ""
