"""A small language with a written grammar, for when there is no corpus: its entropy is known.

Sentences are drawn independently, each by rewriting `Sentence` with the rules below. A verb agrees
in number with its subject however much stands between them:

    the farmer that these noisy dogs near some rivers follow sleeps <eos>

The grammar is LL(1): the next word always decides which rule comes next. So a sentence has exactly
one derivation, its probability is the product of its rules' probabilities, and the entropy of the
language is that of its rules. A test checks the property on the table.
"""

from __future__ import annotations

import math
import random
from bisect import bisect
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import accumulate

import numpy as np
import numpy.typing as npt

EOS = "<eos>"
START = "Sentence"

# Alternatives stand between bars, each with its probability; a lone alternative needs none, and
# `-` is nothing at all. A line with # is meant twice: with .s (singular) and with .p (plural)
# in place of every #. What has no line here is a class of words, below, or a word.
RULES = """
Sentence   = Clause Tail
Tail       = .75 <eos> | .25 Link Clause <eos>
Clause     = .6 Agent.s Acts.s | .4 Agent.p Acts.p

Acts#      = .3 Goes# Trail | .3 Meets# Someone | .2 Eats# Dish | .2 Reads# Paper
Trail      = .4 - | .3 Adverb | .3 Where
Where      = Preposition Spot
Spot       = .5 Det.s Place.s | .5 Det.p Place.p

Someone    = .5 Agent.s | .5 Agent.p
Agent#     = Det# Quality Being# Modifier#
Modifier#  = .5 - | .25 Where | .25 that Relative#
Relative#  = .5 Acts# | .25 Agent.s Meets.s | .25 Agent.p Meets.p

Dish       = .5 Det.s Quality Food.s Dished | .5 Det.p Quality Food.p Dished
Dished     = .7 - | .15 Where | .15 that Eater
Eater      = .5 Agent.s Eats.s | .5 Agent.p Eats.p
Paper      = .5 Det.s Quality Text.s Written | .5 Det.p Quality Text.p Written
Written    = .7 - | .15 Where | .15 that Reader
Reader     = .5 Agent.s Reads.s | .5 Agent.p Reads.p

Quality    = .6 - | .4 Adjective
"""

# Each class's words, the frequent ones first: word number r has a weight of 1 / (r + 4).
WORDS = {
    "Det.s": "the a this every",
    "Det.p": "some these many most",
    "Link": "and but while",
    "Preposition": "near behind beside under above",
    "Adverb": "slowly often happily never today quietly badly everywhere tonight still",
    "Adjective": "big small red happy quiet young lazy green noisy clever strange black "
    "shy proud white funny brave tired blue famous gentle hungry wild rude",
}

# Nouns take -s in the plural, verbs in the singular.
NOUNS = {
    "Being": "dog cat farmer teacher king bird doctor horse sailor girl boy driver cook singer "
    "painter lawyer lion bear tiger pilot monkey nurse clown soldier rabbit baker guest writer "
    "goat parrot duck miner hunter poet dancer judge",
    "Place": "river house tree garden tower bridge market school table wall mountain temple "
    "window lake road shop door castle station field",
    "Food": "cake carrot potato-pie sausage lemon cookie banana nut pear melon biscuit bean plum "
    "pancake cheese-roll waffle",
    "Text": "book letter tale poem map report song newspaper novel note recipe list contract "
    "magazine postcard riddle",
}
VERBS = {
    "Goes": "sleep run sing dance laugh swim wait jump work talk smile shiver stumble listen "
    "whisper complain snore wander tremble limp",
    "Meets": "see follow like help visit know chase call admire fear find trust greet meet warn "
    "love blame ignore thank annoy",
    "Eats": "eat want bring steal smell taste slice buy order prefer swallow share",
    "Reads": "read keep write send hide quote praise explain forget burn translate print",
}

Rule = tuple[float, tuple[str, ...]]
"""A probability, and the symbols that take the place of one symbol."""


def _grammar() -> dict[str, tuple[Rule, ...]]:
    """Every symbol's rules; a symbol without rules is a word."""
    grammar: dict[str, tuple[Rule, ...]] = {}
    for line in filter(None, RULES.splitlines()):
        for number in (".s", ".p") if "#" in line else ("",):
            left, right = line.replace("#", number).split("=")
            grammar[left.strip()] = tuple(_alternative(text) for text in right.split("|"))
    for classes, inflected in ((NOUNS, ".p"), (VERBS, ".s")):
        for name, words in classes.items():
            for number in (".s", ".p"):
                ending = "s" if number == inflected else ""
                grammar[name + number] = _words([word + ending for word in words.split()])
    return grammar | {name: _words(words.split()) for name, words in WORDS.items()}


def _alternative(text: str) -> Rule:
    symbols = [symbol for symbol in text.split() if symbol != "-"]
    probability = float(symbols.pop(0)) if symbols and symbols[0].startswith(".") else 1.0
    return probability, tuple(symbols)


def _words(words: list[str]) -> tuple[Rule, ...]:
    weights = [1 / (rank + 4) for rank in range(1, len(words) + 1)]
    return tuple((weight / sum(weights), (w,)) for weight, w in zip(weights, words, strict=True))


GRAMMAR = _grammar()
VOCABULARY = tuple(
    sorted({s for rules in GRAMMAR.values() for _, right in rules for s in right} - set(GRAMMAR))
)


def sentences(seed: int | str) -> Iterator[list[str]]:
    """Sentences without end, each with its `<eos>`; the same for the same seed."""
    # Only `random()` of the standard generator is promised to stay as it is in later Pythons.
    draw = random.Random(seed).random
    sums = {left: list(accumulate(p for p, _ in rules)) for left, rules in GRAMMAR.items()}
    while True:
        words, stack = [], [START]
        while stack:
            symbol = stack.pop()
            if symbol in GRAMMAR:
                rules = GRAMMAR[symbol]
                # Rounding can leave the last sum just below 1.
                chosen = min(bisect(sums[symbol], draw()), len(rules) - 1)
                stack.extend(reversed(rules[chosen][1]))
            else:
                words.append(symbol)
        yield words


def sample(tokens: int, seed: int | str) -> list[str]:
    """Whole sentences, one after the other, until there are at least so many words."""
    text: list[str] = []
    source = sentences(seed)
    while len(text) < tokens:
        text += next(source)
    return text


def probability(sentence: Sequence[str]) -> float:
    """The natural logarithm of a sentence's probability, its `<eos>` included; −inf if it is none.

    Reads from left to right without ever going back, which LL(1) allows.
    """
    stack, log, at = [START], 0.0, 0
    while stack:
        symbol = stack.pop()
        word = sentence[at] if at < len(sentence) else ""
        if symbol not in GRAMMAR:
            if symbol != word:
                return -math.inf
            at += 1
            continue
        table = predictions()[symbol]
        # A word that begins none of a symbol's rules leaves it empty, if it may be.
        rule = table.get(word, table.get(""))
        if rule is None:
            return -math.inf
        log += math.log(rule[0])
        stack.extend(reversed(rule[1]))
    return log if at == len(sentence) else -math.inf


@cache
def predictions() -> dict[str, dict[str, Rule]]:
    """For every symbol, the rule that each possible next word calls for; "" the empty rule's."""
    table: dict[str, dict[str, Rule]] = {left: {} for left in GRAMMAR}
    for left, rules in GRAMMAR.items():
        for rule in rules:
            for word in first(rule[1]):
                if word in table[left]:
                    raise ValueError(f"Not LL(1): {word!r} may begin two rules of {left}.")
                table[left][word] = rule
    return table


@cache
def first(symbols: tuple[str, ...]) -> frozenset[str]:
    """The words that a row of symbols may begin with; "" among them if it may be empty."""
    found: frozenset[str] = frozenset()
    for symbol in symbols:
        rules = GRAMMAR.get(symbol)
        here = {symbol} if rules is None else {word for _, row in rules for word in first(row)}
        found |= here - {""}
        if "" not in here:
            return found
    return found | {""}


def entropy_per_token() -> float:
    """The exact entropy in nats: a sentence's entropy over its expected number of tokens.

    With h and a vectors over symbols, h = a + M h: what a symbol's choice of rule adds, and what
    the symbols it is rewritten to add, M being how many of each there are on average.
    """
    names = list(GRAMMAR)
    choice = [-sum(p * math.log(p) for p, _ in GRAMMAR[name]) for name in names]
    words = [
        sum(p * sum(symbol not in GRAMMAR for symbol in right) for p, right in GRAMMAR[name])
        for name in names
    ]
    totals = np.linalg.solve(np.eye(len(names)) - expected(), np.array([choice, words]).T)
    entropy, length = totals[names.index(START)]
    return float(entropy / length)


def expected() -> npt.NDArray[np.float64]:
    """M `[symbols, symbols]`: how many of the second there are on average in one step's rewrite."""
    index = {name: number for number, name in enumerate(GRAMMAR)}
    matrix = np.zeros((len(index), len(index)))
    for name, rules in GRAMMAR.items():
        for p, right in rules:
            for symbol in right:
                if symbol in index:
                    matrix[index[name], index[symbol]] += p
    return matrix
