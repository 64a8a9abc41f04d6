"""BLEU, as sacreBLEU has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sacrebleu.metrics import BLEU


def bleu(
    said: Sequence[str], references: Sequence[Sequence[str]], order: int = 4, **options: Any
) -> tuple[float, str]:
    """The BLEU of sentences, in percent, and sacreBLEU's signature of it (Papineni et al. 2002;
    Post 2018).

    Args:
        said: the sentences.
        references: of each sentence, what it is held against; as many for each.
        order: the longest n-grams.
        options: of sacreBLEU, as `tokenize`.
    """
    metric = BLEU(max_ngram_order=order, force=True, **options)
    score = metric.corpus_score(list(said), [list(each) for each in zip(*references, strict=True)])
    return float(score.score), str(metric.get_signature())
