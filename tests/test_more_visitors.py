"""What benchmarks measure more visitors on."""

import numpy as np

from benchmarks.visitors import more
from tasks.recsys.interactions import DAY, Interactions, distinct, histories
from tests.recsys.made import chance

KNOWN = chance(0, 600, users=80, items=400)


def columns(rows: Interactions) -> list[list[int]]:
    return [column.tolist() for column in (rows.user, rows.item, rows.event, rows.time)]


def test_once_as_many_visitors_are_the_same() -> None:
    assert columns(more(KNOWN, 1)) == columns(KNOWN)


def test_the_others_differ_in_their_newest_item_alone() -> None:
    rows = more(KNOWN, 3)
    assert len(rows) == 3 * len(KNOWN) and rows.users == 3 * KNOWN.users
    known, found = (histories(one, 1 << 60, 50) for one in (KNOWN, rows))
    assert len(distinct(found)[0]) > 2 * len(distinct(known)[0])
    for copy in range(3):
        mine = found.take(np.flatnonzero(found.user % 3 == copy))
        assert mine.length.tolist() == known.length.tolist() and mine.time.tolist() == known.time.tolist()
        older = known.age > 0
        assert mine.item[older].tolist() == known.item[older].tolist()


def test_nobody_meets_an_item_before_it_is_known() -> None:
    rows = more(KNOWN, 3)
    for cut in range(int(KNOWN.time.min()), int(KNOWN.time.max()), DAY):
        assert rows.before(cut).items == KNOWN.before(cut).items
        assert rows.before(cut).users == 3 * KNOWN.before(cut).users
