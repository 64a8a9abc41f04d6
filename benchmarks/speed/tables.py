"""Tables of the performance page, and how it writes times."""

from __future__ import annotations

from collections.abc import Sequence

from .timing import median, ratio


def table(head: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> str:
    """A table whose first columns are texts, and the others numbers."""
    lines = ["| " + " | ".join(head) + " |"]
    lines.append("|" + "---|" * texts + "---:|" * (len(head) - texts))
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def spread(a: Sequence[float], b: Sequence[float]) -> str:
    """a ÷ b: the median, and the quartiles in brackets."""
    middle, low, high = ratio(a, b)
    return f"{middle:.2f} ({low:.2f}–{high:.2f})"


def ms(seconds: Sequence[float]) -> str:
    """The median in milliseconds."""
    return f"{median(seconds) * 1e3:.3g}"
