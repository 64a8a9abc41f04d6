"""Columns and windows: the recipe to the letter, and every token of an evaluation counted once."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.ptb.batches import columns, evaluation_windows, starts, window_count, windows
from benchmarks.ptb.corpus import CorpusError

SIZES = [(929_589, 20), (73_760, 20), (82_430, 1), (100, 7), (11, 10), (50, 20), (3, 2)]


def text(count):
    return np.arange(count, dtype=np.int32)


def test_columns_start_where_the_paper_has_them():
    assert starts(929_589, 20)[:3] == [0, 46_479, 92_959]
    assert starts(73_760, 20)[19] == 19 * 3_688


def test_halves_go_up_not_to_the_even_number():
    assert starts(50, 20)[:4] == [0, 3, 5, 8]  # 2.5 and 7.5; round() has 2 and 8
    assert starts(10, 4) == [0, 3, 5, 8]


@pytest.mark.parametrize(("count", "batch"), SIZES)
def test_columns_are_equally_long_and_lie_within_the_text(count, batch):
    rows = columns(text(count), batch)
    assert rows.shape == (batch, count // batch)
    assert rows.dtype == np.int32
    assert rows[:, 0].tolist() == [math.floor(i * count / batch + 0.5) for i in range(batch)]
    assert (np.diff(rows, axis=1) == 1).all()


@pytest.mark.parametrize("length", [7, 10, 11, 12, 13])
def test_windows_go_on_within_a_column_and_the_partial_last_is_dropped(length):
    rows = columns(text(4 * length), 4)
    found = list(windows(rows, 3))
    assert len(found) == window_count(rows, 3) == (length - 1) // 3
    for x, y in found:
        assert x.shape == y.shape == (4, 3)
        assert x.dtype == y.dtype == np.int32
    used = 3 * len(found)
    np.testing.assert_array_equal(np.concatenate([x for x, _ in found], 1), rows[:, :used])
    np.testing.assert_array_equal(np.concatenate([y for _, y in found], 1), rows[:, 1 : used + 1])


def test_windows_can_start_later():
    rows = columns(text(80), 4)
    for whole, later in zip(list(windows(rows, 3))[2:], windows(rows, 3, start=2), strict=True):
        np.testing.assert_array_equal(whole, later)
    assert list(windows(rows, 3, start=window_count(rows, 3))) == []


def check_evaluation(count, batch, steps):
    target_seen, input_seen = np.zeros(count, int), np.zeros(count, int)
    before = [None] * batch
    for x, y, weight in evaluation_windows(text(count), batch, steps):
        assert x.shape == y.shape == weight.shape == (batch, steps)
        assert (x.dtype, y.dtype, weight.dtype) == (np.int32, np.int32, np.float32)
        assert set(weight.ravel().tolist()) <= {0.0, 1.0}
        counted = weight == 1
        np.testing.assert_array_equal(y[counted], x[counted] + 1)
        np.add.at(target_seen, y[counted], 1)
        np.add.at(input_seen, x[counted], 1)
        for row in range(batch):  # a carried state sees a column from its start, without a gap
            mine = x[row, counted[row]]
            assert counted[row, : len(mine)].all()
            if len(mine):
                expected = starts(count, batch)[row] if before[row] is None else before[row] + 1
                assert mine[0] == expected
                before[row] = mine[-1]
    assert target_seen.tolist() == [0] + [1] * (count - 1)
    assert input_seen.tolist() == [1] * (count - 1) + [0]


@pytest.mark.parametrize("steps", [1, 7, 400])
@pytest.mark.parametrize(("count", "batch"), [s for s in SIZES if s[0] <= 100])
def test_an_evaluation_predicts_every_token_but_the_first_once(count, batch, steps):
    check_evaluation(count, batch, steps)


@given(st.integers(1, 30).flatmap(lambda b: st.tuples(st.integers(b + 1, 300), st.just(b))))
def test_an_evaluation_does_so_for_any_text_and_batch(size):
    check_evaluation(*size, steps=9)


@pytest.mark.parametrize(("count", "batch", "steps"), [(73_760, 20, 35), (82_430, 1, 400)])
def test_the_corpus_sized_evaluations_count_every_token(count, batch, steps):
    weights = sum(float(w.sum()) for _, _, w in evaluation_windows(text(count), batch, steps))
    assert weights == count - 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: columns(text(19), 20), r"19 tokens are too few for 20 columns"),
        (lambda: columns(text(19), 0), r"Received: batch=0"),
        (lambda: windows(columns(text(19), 2), 0), r"Received: steps=0"),
        (
            lambda: windows(columns(text(100), 5), 20),
            r"20 steps needs 21 tokens a column.*5 columns has 20.*at least 105 tokens.*shorter",
        ),
        (lambda: windows(columns(text(30), 1), 35), r"35 steps needs 36 .*1 columns has 30"),
        (lambda: evaluation_windows(text(20), 20, 5), r"needs 21 tokens or more.*has 20"),
        (lambda: evaluation_windows(text(1), 1, 5), r"needs 2 tokens or more.*has 1"),
        (lambda: evaluation_windows(text(9), 1, -1), r"Received: steps=-1"),
        (lambda: evaluation_windows(text(9), 0, 1), r"Received: batch=0"),
    ],
)
def test_what_does_not_fit_is_refused_at_once_with_its_numbers(call, message):
    with pytest.raises(CorpusError, match=message):
        call()


def test_a_window_that_just_fits_is_taken():
    assert len(list(windows(columns(text(105), 5), 20))) == 1
