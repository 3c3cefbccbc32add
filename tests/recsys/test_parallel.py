import os
import threading
import time

import pytest

from tasks.recsys.parallel import in_order


def test_results_come_in_the_order_of_the_blocks_whoever_is_first() -> None:
    def slower_at_first(block: int) -> int:
        time.sleep(0.02 * (block == 0))
        return 10 * block

    assert list(in_order(slower_at_first, range(7))) == [0, 10, 20, 30, 40, 50, 60]
    assert list(in_order(slower_at_first, [])) == []


def test_work_waits_until_its_results_are_taken() -> None:
    cores = os.cpu_count() or 1
    begun: list[int] = []
    results = in_order(begun.append, range(cores + 100))
    next(results)
    time.sleep(0.05)
    assert max(begun) <= cores
    results.close()  # type: ignore[attr-defined]


def test_with_one_thread_the_next_result_is_made_while_this_one_is_used() -> None:
    begun: list[int] = []
    results = in_order(begun.append, range(100), threads=1)
    for taken in range(3):
        next(results)
        while len(begun) < taken + 2:  # hangs if nothing is made ahead
            time.sleep(0.001)
        assert begun == list(range(taken + 2))
    results.close()  # type: ignore[attr-defined]


def test_blocks_are_worked_on_beside_the_caller_and_failures_come_out() -> None:
    assert threading.get_ident() not in set(in_order(lambda _: threading.get_ident(), range(3)))
    with pytest.raises(ZeroDivisionError):
        list(in_order(lambda block: 1 // block, [1, 0, 1]))
