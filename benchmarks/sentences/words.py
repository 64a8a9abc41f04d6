"""Words as numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

Tokens = npt.NDArray[np.int32]
Words = tuple[str, ...]

END = 0
"""What ends a sentence, and stands before its first word."""
UNKNOWN = 1
"""A word that is in no vocabulary."""


class Vocabulary:
    """The words that a model knows, the frequent ones first, after `</s>` and `<unk>`."""

    def __init__(self, sentences: Iterable[Words], seen: int) -> None:
        """Of those sentences, the words that are in them at least `seen` times."""
        counts = Counter(word for sentence in sentences for word in sentence)
        known = sorted((-count, word) for word, count in counts.items() if count >= seen)
        self.words = ("</s>", "<unk>", *(word for _, word in known))
        self.numbers = {word: number for number, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, sentence: Words) -> Tokens:
        """The numbers of its words and of the end, `[T]`."""
        return np.array([*(self.numbers.get(word, UNKNOWN) for word in sentence), END], np.int32)

    def decode(self, numbers: Sequence[int]) -> str:
        """The words up to the end, with spaces between them."""
        ended = list(numbers).index(END) if END in numbers else len(numbers)
        return " ".join(self.words[number] for number in numbers[:ended])
