import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tasks.recsys.interactions import CART, TRANSACTION, VIEW, histories
from tasks.recsys.sequences import Windows, history_windows, last_out, windows
from tests.recsys.made import Row, table

ROWS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(0, 2), st.integers(0, 30)), max_size=50)
LENGTH = st.integers(1, 6)

Step = tuple[int, int]
"""(item, event)"""


def merged(rows: list[Row]) -> dict[int, list[Step]]:
    """Each user's steps, runs of stronger and stronger events with one item merged: the slow way."""
    steps: dict[int, list[Step]] = {}
    for user, item, event, _ in sorted(rows, key=lambda row: (row[0], row[3], row[1], row[2])):
        mine = steps.setdefault(user, [])
        if mine and mine[-1][0] == item and mine[-1][1] < event:
            mine[-1] = (item, event)
        else:
            mine.append((item, event))
    return steps


def unpadded(cut: Windows) -> list[list[Step]]:
    """Windows as lists, after a look at the padding: −1 and 0, at the end only."""
    found = []
    for item, event in zip(cut.item.tolist(), cut.event.tolist(), strict=True):
        length = sum(one >= 0 for one in item)
        assert item[length:] == [-1] * (len(item) - length)
        assert event[length:] == [0] * (len(item) - length)
        found.append(list(zip(item[:length], event[:length], strict=True)))
    return found


def pieces(steps: list[Step], length: int) -> list[list[Step]]:
    """Windows of a user from the newest back, each beginning with the last step of the one before it."""
    found, end = [], len(steps)
    while end > 1:
        low = max(0, end - length - 1)
        found.append(steps[low:end])
        end = low + 1
    return found


def test_windows_by_hand() -> None:
    rows = [(0, item, VIEW, item) for item in range(6)]
    expected = [[(3, 0), (4, 0), (5, 0)], [(1, 0), (2, 0), (3, 0)], [(0, 0), (1, 0)]]
    assert unpadded(windows(table(rows), 2)) == expected


def test_steps_up_the_funnel_are_merged_and_repeats_are_not() -> None:
    rows = [(0, 1, VIEW, 1), (0, 1, CART, 2), (0, 1, TRANSACTION, 3), (0, 2, VIEW, 4), (0, 1, VIEW, 5), (0, 1, VIEW, 6)]
    assert unpadded(windows(table(rows), 5)) == [[(1, TRANSACTION), (2, VIEW), (1, VIEW), (1, VIEW)]]
    assert unpadded(windows(table([(0, 1, CART, 1), (0, 1, VIEW, 2)]), 5)) == [[(1, CART), (1, VIEW)]]


def test_who_did_one_thing_has_no_window() -> None:
    assert len(windows(table([(0, 1, VIEW, 1), (0, 1, CART, 2), (1, 1, VIEW, 1)]), 3)) == 0
    assert windows(table([]), 3).item.shape == (0, 4)


@given(ROWS, LENGTH)
def test_windows_equal_the_slow_way(rows: list[Row], length: int) -> None:
    cut = windows(table(rows), length)
    assert cut.item.shape[1] == length + 1
    assert unpadded(cut) == [piece for steps in merged(rows).values() for piece in pieces(steps, length)]


@given(ROWS, LENGTH)
def test_every_step_but_a_users_first_is_a_target_once(rows: list[Row], length: int) -> None:
    targets = sorted(step for window in unpadded(windows(table(rows), length)) for step in window[1:])
    assert targets == sorted(step for steps in merged(rows).values() for step in steps[1:])


@given(ROWS, LENGTH, st.integers(1, 30))
def test_history_windows_are_the_newest_steps(rows: list[Row], length: int, cut: int) -> None:
    asked = histories(table(rows), cut, 100, users=np.arange(5))
    past = merged([row for row in rows if row[3] < cut])
    assert unpadded(history_windows(asked, length)) == [past.get(user, [])[-length:] for user in range(5)]


def test_history_windows_of_nobody() -> None:
    assert history_windows(histories(table([]), 9, 9), 4).item.shape == (0, 4)


@given(ROWS, LENGTH, st.integers(0, 30))
def test_last_out_asks_the_active_for_their_last_item(rows: list[Row], length: int, start: int) -> None:
    asked, target = last_out(table(rows), start, length, most=100)
    newest = {user: max(row[3] for row in rows if row[0] == user) for user in {row[0] for row in rows}}
    past = merged(rows)
    users = [user for user in sorted(past) if newest[user] >= start and len(past[user]) > 1]
    assert unpadded(asked) == [past[user][:-1][-length:] for user in users]
    assert target.tolist() == [past[user][-1][0] for user in users]


def test_last_out_spreads_its_choice() -> None:
    rows = [(user, item, VIEW, item) for user in range(100) for item in (user, user + 1)]
    _, target = last_out(table(rows), 0, 3, most=5)
    assert target.tolist() == [1, 25, 50, 75, 100]  # users 0 … 99, evenly
