import numpy as np
import pytest

from tasks.recsys.interactions import DAY
from tasks.recsys.splits import check, dense_ids, quantile_cuts, ranker_cuts


def test_cuts_leave_their_share_of_the_events_before_them() -> None:
    time = np.arange(100, 200)
    assert quantile_cuts(time, 0.70, 0.85) == (170, 185)


@pytest.mark.parametrize("time", [[5, 5, 5, 5], [1], [1, 1, 1, 1, 1, 1, 1, 1, 1, 2]])
def test_events_that_cannot_be_cut_in_three(time: list[int]) -> None:
    with pytest.raises(ValueError, match="cannot be cut in three"):
        check(np.array(time), *quantile_cuts(np.array(time), 0.70, 0.85))


def test_label_windows_are_equal_and_end_at_the_second_cut() -> None:
    assert ranker_cuts(100, 200, 4) == (100, 125, 150, 175)
    assert ranker_cuts(0, 100 * DAY, 2) == (86 * DAY, 93 * DAY)
    with pytest.raises(ValueError, match="room for 4"):
        ranker_cuts(100, 103, 4)


def test_ids_are_dense_in_order_of_first_appearance_and_a_prefix_of_what_comes_later() -> None:
    early = np.array([30, 10, 30, 20])
    codes, ids = dense_ids(early)
    assert (codes.tolist(), ids.tolist()) == ([0, 1, 0, 2], [30, 10, 20])
    codes, ids = dense_ids(np.append(early, [5, 10]))
    assert (codes.tolist(), ids.tolist()) == ([0, 1, 0, 2, 3, 1], [30, 10, 20, 5])
