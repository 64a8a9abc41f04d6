"""The pictures of the policies' pages: docs/pictures, written by `make pictures`."""

from __future__ import annotations

import dropout_policies as dp
from dropout_policies.policies.catalog import resolve

from .documents import ROOT

FOLDER = ROOT / "docs" / "pictures"


def drawn() -> dict[str, str]:
    """Each policy's picture, by the name of its file."""
    return {f"{name}.svg": resolve(name).diagram(path=(1, 4)).svg() for name in dp.names()}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, picture in drawn().items():
        (FOLDER / name).write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()
