"""BLEU, as sacreBLEU has it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from sacrebleu.metrics import BLEU


def bleu(
    said: Sequence[str], references: Sequence[Sequence[str]], order: int = 4, **options: Any
) -> tuple[float, str]:
    """The BLEU of sentences, in percent, and sacreBLEU's signature of it (Papineni et al. 2002;
    Post 2018).

    Args:
        said: the sentences.
        references: of each sentence, what it is held against: one or more.
        order: the longest n-grams.
        options: of sacreBLEU, as `tokenize`.
    """
    metric = BLEU(max_ngram_order=order, force=True, **options)
    # Where a sentence has fewer than others, sacreBLEU has None for those that it has not.
    streams = [list(each) for each in zip_longest(*references)]
    score = metric.corpus_score(list(said), streams)
    return float(score.score), str(metric.get_signature())
