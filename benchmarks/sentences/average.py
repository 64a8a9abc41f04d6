"""Trained models that write sentences, averaged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..trained import Trained, averaged


def average(models: Sequence[Trained], backend: str) -> dict[str, Any]:
    """Perplexities and scores of the first 1, 2, ..., N models, their probabilities averaged and
    each with the weights of its best epoch, as a line of results (Zaremba et al. 2014, table 5)."""
    task = models[0].task
    for model in models:
        model.task.to_best()
    engines = [model.engine for model in models]
    valid, test = (task.perplexities(engines, part) for part in ("valid", "test"))
    found = [
        {"valid_perplexity": v, "test_perplexity": t, **task.scores(task.write(engines[:count]))}
        for count, (v, t) in enumerate(zip(valid, test, strict=True), 1)
    ]
    return {**averaged(models, backend, found), **task.record()}
