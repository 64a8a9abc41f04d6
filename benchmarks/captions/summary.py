"""The figures of captions, beside the paper's."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from ..sentences.summary import Report
from ..tables import new_table

REPORT = Report(
    "captions",
    {"BLEU-1": "bleu_1", "BLEU-4": "bleu_4"},
    {"none": (8.47, 23.5), "zaremba": (7.99, 24.3), "10 × none": (7.5, 24.4)},
)
"""The paper's are of MSCOCO, with a stronger network for the images (Zaremba et al. 2014, table
5)."""


def baselines(result: dict[str, Any]) -> Table:
    """What captions score that no model wrote."""
    table = new_table("captions of training images", ("taken",), ("BLEU-1", "BLEU-4"))
    for name, row in result["baselines"].items():
        table.add_row(name, f"{row['bleu_1']:.1f}", f"{row['bleu_4']:.1f}")
    return table
