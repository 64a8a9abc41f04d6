"""Sentences: words as numbers, batches, and the search for the likeliest."""

from itertools import pairwise, product

import numpy as np
import pytest

from benchmarks.sentences import batches as batching
from benchmarks.sentences.batches import Pair, batches, order
from benchmarks.sentences.bleu import bleu
from benchmarks.sentences.engine import perplexities
from benchmarks.sentences.search import search
from benchmarks.sentences.words import END, UNKNOWN, Vocabulary

# Words


def test_a_vocabulary_has_the_words_that_are_seen_often_enough_the_frequent_first():
    spoken = [("a", "dog"), ("a", "cat", "a"), ("dog", "bird"), ("cat",)]
    assert Vocabulary(spoken, 1).words == ("</s>", "<unk>", "a", "cat", "dog", "bird")
    assert Vocabulary(spoken, 2).words == ("</s>", "<unk>", "a", "cat", "dog")
    assert len(Vocabulary(spoken, 3)) == 3


def test_a_sentence_is_encoded_with_its_end_and_decoded_up_to_it():
    vocabulary = Vocabulary([("a", "a", "dog")], 1)
    numbers = vocabulary.encode(("a", "dog", "flies"))
    assert numbers.dtype == np.int32
    assert numbers.tolist() == [2, 3, UNKNOWN, END]
    assert vocabulary.encode(()).tolist() == [END]
    assert vocabulary.decode(numbers) == "a dog <unk>"
    assert vocabulary.decode([3, END, 2, END]) == "dog"
    assert vocabulary.decode([3, 2]) == "dog a"
    assert vocabulary.decode([]) == ""


# Batches


def pairs_of(lengths, given=7):
    """Pairs of so many words, the end included, no two of them alike."""
    return [
        Pair(number % given, np.array([*[number + 2] * (length - 1), END], np.int32))
        for number, length in enumerate(lengths)
    ]


def key(pair):
    return pair.given, tuple(pair.words)


@pytest.mark.parametrize("count", [1, 4, 40, 251])
def test_an_order_has_every_pair_once_and_is_the_same_at_the_same_seed(count):
    pairs = pairs_of(np.random.default_rng(0).integers(1, 12, count))
    first, again, other = (
        [key(pair) for pair in order(pairs, 2, np.random.default_rng(seed))] for seed in (1, 1, 2)
    )
    assert sorted(first) == sorted(map(key, pairs))
    assert first == again
    assert first != other or count < 40


def test_sentences_of_like_length_come_together_and_batches_in_any_order():
    pairs = pairs_of(np.random.default_rng(0).integers(1, 30, 43))
    shortest_first = set()
    for seed in range(5):
        ordered = order(pairs, 4, np.random.default_rng(seed))
        lengths = [len(pair.words) for pair in ordered]
        cut = [lengths[at : at + 4] for at in range(0, 43, 4)]
        assert len(cut[-1]) == 3  # what is not full comes last
        assert min(cut[-1]) >= max(map(max, cut[:-1]))
        by_length = sorted(cut)
        assert all(max(a) <= min(b) for a, b in pairwise(by_length))
        shortest_first.add(cut[:-1] == by_length[:-1])
    assert shortest_first == {False}


def test_pools_are_drawn_so_that_neighbours_in_length_part_from_epoch_to_epoch(monkeypatch):
    monkeypatch.setattr(batching, "POOL", 2)
    pairs = pairs_of(range(1, 41))
    ordered = [len(pair.words) for pair in order(pairs, 4, np.random.default_rng(1))]
    spread = [np.ptp(ordered[at : at + 4]) for at in range(0, 40, 4)]
    assert max(spread) > 3  # a pool of all would have 3 everywhere
    assert np.mean(spread) < 30


def test_batches_hold_every_word_once_with_the_word_before_it():
    pairs = pairs_of([3, 1, 5, 6, 11, 2, 4, 9])
    given = np.arange(14, dtype=np.float32).reshape(7, 2)
    made = list(batches(pairs, given, 3))
    assert [batch.words.shape for batch in made] == [(3, 5), (3, 15), (3, 10)]
    rows = [row for batch in made for row in zip(*batch, strict=True)]
    for pair, (about, before, words, weight) in zip(pairs, rows, strict=False):
        length = len(pair.words)
        np.testing.assert_array_equal(about, given[pair.given])
        np.testing.assert_array_equal(words[:length], pair.words)
        np.testing.assert_array_equal(before[:length], [END, *pair.words[:-1]])
        assert weight[:length].tolist() == [1.0] * length
        assert not weight[length:].any()
    ((*_, words, weight),) = rows[len(pairs) :]  # the last batch is filled up
    assert not weight.any()
    assert (words == END).all()


def test_the_perplexity_of_several_models_is_of_their_mean_probabilities():
    rng = np.random.default_rng(0)
    made = list(batches(pairs_of([3, 1, 5, 6, 2]), np.zeros((7, 1), np.float32), 2))
    chances = [rng.uniform(0.05, 0.95, (3, *batch.words.shape)) for batch in made]

    class Fixed:
        def __init__(self, number):
            self.number = number

        def costs(self, batch):
            (place,) = [at for at, one in enumerate(made) if one is batch]
            return -np.log(chances[place][self.number])

    found = perplexities([Fixed(number) for number in range(3)], made)
    for count in (1, 2, 3):
        means = [
            p
            for batch, each in zip(made, chances, strict=True)
            for p in each[:count].mean(axis=0)[batch.weight == 1.0]
        ]
        assert len(means) == 17
        assert found[count - 1] == pytest.approx(np.prod(means) ** (-1 / 17))


# Search

WORDS = 5
"""Of a fake vocabulary: the end, the unknown word, and three to be said."""
LONGEST = 3
ALL = 40
"""A beam that no sentence of at most three of three words falls out of."""


class Fake:
    """An engine whose next word depends on what is given and on the two words before."""

    def __init__(self, chances):
        self.log_p = np.log(chances)

    @classmethod
    def drawn(cls, seed, given=4):
        return cls(np.random.default_rng(seed).dirichlet([0.5] * WORDS, (given, WORDS, WORDS)))

    def begin(self, given):
        return [given, np.zeros((len(given), 1), np.float32)]

    def step(self, before, state):
        given, last = (array[:, 0].astype(int) for array in state)
        return self.log_p[given, last, before], [state[0], before[:, None].astype(np.float32)]

    def after(self, given, said):
        """The log-probabilities of the word after those."""
        last, before = [END, END, *said][-2:]
        return self.log_p[given, last, before]

    def score(self, given, said, penalty):
        total = sum(self.after(given, said[:at])[word] for at, word in enumerate([*said, END]))
        return total / (len(said) + 1) ** penalty


GIVEN = np.arange(4, dtype=np.float32)[:, None]
SENTENCES = [list(s) for n in range(LONGEST + 1) for s in product(range(2, WORDS), repeat=n)]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_search_that_keeps_everything_finds_the_best_of_all_sentences(seed, penalty):
    engine = Fake.drawn(seed)
    wanted = [
        max(SENTENCES, key=lambda said, row=row: engine.score(row, said, penalty))
        for row in range(4)
    ]
    assert len(SENTENCES) == ALL
    assert search([engine], GIVEN, ALL, LONGEST, penalty) == wanted


def greedy(engine, given, longest):
    said = []
    while len(said) < longest:
        chances = engine.after(given, said).copy()
        chances[UNKNOWN] = -np.inf
        word = int(chances.argmax())
        if word == END:
            break
        said.append(word)
    return said


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_search_that_keeps_one_beginning_is_greedy(seed, penalty):
    engine = Fake.drawn(seed)
    wanted = [greedy(engine, row, 6) for row in range(4)]
    assert search([engine], GIVEN, 1, 6, penalty) == wanted


def test_a_wider_search_finds_likelier_sentences():
    found = []
    for beam in (1, 2, 3, ALL):
        scores = [
            Fake.drawn(seed).score(row, said, 0.0)
            for seed in range(8)
            for row, said in enumerate(search([Fake.drawn(seed)], GIVEN, beam, LONGEST, 0.0))
        ]
        found.append(np.mean(scores))
    assert found == sorted(found)
    assert found[0] < found[-1]


@pytest.mark.parametrize("beam", [1, 2, 5])
def test_a_sentence_that_does_not_end_is_ended_at_the_longest(beam):
    chances = np.full((4, WORDS, WORDS, WORDS), 0.3)
    chances[..., :2] = 1e-9
    for longest in (1, 4, 7):
        found = search([Fake(chances)], GIVEN, beam, longest)
        assert [len(said) for said in found] == [longest] * 4
        assert {word for said in found for word in said} <= {2, 3, 4}


@pytest.mark.parametrize("beam", [1, 3])
def test_an_unknown_word_is_never_said_however_likely_it_is(beam):
    chances = np.random.default_rng(0).dirichlet([1.0] * WORDS, (4, WORDS, WORDS))
    chances[..., UNKNOWN] = 50.0
    found = search([Fake(chances)], GIVEN, beam, 6)
    assert UNKNOWN not in {word for said in found for word in said}
    assert any(found)


@pytest.mark.parametrize("beam", [1, 2, 4])
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_what_is_said_about_one_thing_does_not_depend_on_the_others(beam, penalty):
    for seed in range(8):
        engine = Fake.drawn(seed)
        alone = [search([engine], GIVEN[row : row + 1], beam, 6, penalty)[0] for row in range(4)]
        assert search([engine], GIVEN, beam, 6, penalty) == alone
        assert search([engine], GIVEN[::-1], beam, 6, penalty) == alone[::-1]


@pytest.mark.parametrize("beam", [1, 3])
def test_two_models_say_what_one_with_their_mean_probabilities_says(beam):
    differs = False
    for seed in range(8):
        a, b = Fake.drawn(seed), Fake.drawn(seed + 100)
        mean = Fake((np.exp(a.log_p) + np.exp(b.log_p)) / 2)
        found = search([a, b], GIVEN, beam, 6)
        assert found == search([mean], GIVEN, beam, 6)
        differs |= found not in (search([a], GIVEN, beam, 6), search([b], GIVEN, beam, 6))
    assert differs


# BLEU


def test_sentences_that_are_their_references_score_100_and_others_less():
    references = [["a dog runs over there", "a cat"], ["the boat is on the lake", "a boat"]]
    said = [first for first, _ in references]
    score, signature = bleu(said, references, tokenize="none")
    assert score == pytest.approx(100.0)
    assert "nrefs:2" in signature
    assert "tok:none" in signature
    assert "version:" in signature
    worse, _ = bleu(["a dog runs over it", said[1]], references, tokenize="none")
    assert 0.0 < worse < 100.0


def test_single_words_count_whatever_their_order_if_only_they_are_counted():
    said, references = ["there over runs dog a"], [["a dog runs over there"]]
    assert bleu(said, references, order=1, tokenize="none")[0] == pytest.approx(100.0)
    assert bleu(said, references, tokenize="none")[0] < 50.0


def test_a_sentence_may_have_fewer_references_than_another():
    score, signature = bleu(
        ["a b c d", "e f g h"], [["a b c d", "x"], ["e f g h"]], tokenize="none"
    )
    assert score == pytest.approx(100.0)
    assert "nrefs:var" in signature
