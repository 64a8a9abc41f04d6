"""What calls share inside `sequence` and `hold`: steps, episodes, rows that are drawn together."""

import numpy as np
import pytest

import dropout_policies as dp
from dropout_policies.masks.keyed import derived_seed
from dropout_policies.masks.sequences import RowGroup, SharedMasks, SharedState


def shared(**more):
    return SharedMasks(goes_on=True, seed=7, **more)


def test_steps_go_on_in_a_sequence_and_not_where_masks_are_held():
    masks = shared()
    masks.advance(3)
    assert masks.row_groups(4, 10) == [RowGroup(4, 7, 10, 3)]
    assert masks.row_groups(4, 10, back=1) == [RowGroup(4, 7, 10, 2)]
    held = SharedMasks(goes_on=False, seed=7)
    held.advance(3)
    assert held.row_groups(4, 0) == [RowGroup(4, 7, 0, 0)]


def test_rows_that_are_alike_are_drawn_together():
    masks = shared()
    masks.advance(2)
    masks.reset(np.array([False, True, True, False, False]))
    masks.advance(1)
    new = derived_seed(7, 1)
    assert masks.row_groups(5, 3) == [
        RowGroup(1, 7, 3, 3),
        RowGroup(2, new, 4, 1),
        RowGroup(2, 7, 6, 3),
    ]
    masks.reset(np.array([False, True, False, False, False]))
    assert masks.row_groups(3, 0)[1:] == [
        RowGroup(1, derived_seed(7, 2), 1, 0),
        RowGroup(1, new, 2, 1),
    ]
    assert masks.row_groups(2, 0, back=5)[1].first_step == 0


def test_rows_may_have_numbers_of_their_own():
    masks = shared(rows=np.array([4, 5, 9]))
    assert masks.row_groups(3, 100) == [RowGroup(2, 7, 4, 0), RowGroup(1, 7, 9, 0)]
    assert masks.row_groups(1, 100) == [RowGroup(1, 7, 4, 0)]
    with pytest.raises(dp.PolicyError, match=r"has 3 rows\. Received: a call with 4"):
        masks.row_groups(4, 0)


def test_scopes_end_in_order_and_keep_what_they_are_about():
    state, keys, other = SharedState(), object(), object()
    outer, inner = shared(), shared()
    with state.enter(keys, outer):
        with state.enter(keys, inner), state.enter(other, outer):
            assert state.of(keys) is inner
            assert state.of(other) is outer
            assert state.entered == 3
        assert state.of(keys) is outer
        assert state.of(other) is None
    assert state.of(keys) is None
    assert state.entered == 0
