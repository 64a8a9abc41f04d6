"""The figures of translation, beside the paper's."""

from __future__ import annotations

from ..sentences.summary import Report

REPORT = Report("translation", {"BLEU": "bleu"}, {"none": (5.8, 25.9), "zaremba 0.2": (5.0, 29.03)})
"""The paper's are of WMT'14 English to French (Zaremba et al. 2014, table 4)."""
