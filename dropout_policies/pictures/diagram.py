"""`Diagram`: the unrolled network as text, SVG and PNG, and in a notebook."""

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
    """A picture of L layers over T steps.

    `print` shows it as text, `save` writes it to a file, and a notebook shows it as a picture.
    `diagram()` of a policy or of an audit returns one. `diagrams()` of the result of `apply`
    returns several.

    Args:
        title: the title.
        rows: from the bottom up, connections and layers in turn: the input, layer 1, the connection
            between, layer 2, ..., the output.
        steps: T, from 1 to 26.
        path: `(s, t)`, counted from 1: draw the path from x_s to y_t heavy and count the masks on
            it. None: no path.
        wanted: the name of what the rows marked as wrong differ from.

    Raises:
        PolicyError: there are no layers, `steps` is out of range, or there is no such path.
    """

    def svg(self) -> str:
        """The diagram as an SVG document, for light and dark pages."""
        return svg(self)

    def save(self, path: str | Path) -> None:
        """Write the diagram to a file. The ending decides the format: `.svg`, `.png` or `.txt`.

        PNG needs Matplotlib, which the extra `pictures` installs.

        Args:
            path: the file.

        Raises:
            PolicyError: the name has another ending, or Matplotlib is missing for a PNG.
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
    """The ending of a file's name; "" if no file can have that name."""
    try:
        file = Path(path)  # type: ignore[arg-type]
        return "" if b"\0" in os.fsencode(file) else file.suffix
    except (TypeError, ValueError):
        return ""
