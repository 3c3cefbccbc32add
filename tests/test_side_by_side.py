import os
import signal
import time

import pytest

from tasks import side_by_side
from tasks.failures import BadModel, TaskFailure


def add(one: int, other: int) -> tuple[int, int]:
    return one + other, os.getpid()


def refuse() -> None:
    raise BadModel("the vectors collapsed")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def sleep_for_ever() -> None:
    time.sleep(3600)


def test_calls_run_in_processes_of_their_own_and_their_results_come_back() -> None:
    with side_by_side.processes(apart=True) as start:
        calls = [start(add, 1, 2), start(add, 3, 4)]
        (three, one), (seven, other) = (call.wait() for call in calls)
    assert (three, seven) == (3, 7)
    assert len({one, other, os.getpid()}) == 3


def test_what_is_not_worth_a_process_runs_here() -> None:
    with side_by_side.processes(apart=False) as start:
        assert start(add, 1, 2).wait() == (3, os.getpid())


def test_a_failure_is_raised_where_it_is_waited_for() -> None:
    with side_by_side.processes(apart=True) as start, pytest.raises(BadModel, match="collapsed"):
        start(refuse).wait()


def test_a_process_that_is_killed_is_a_failure_and_the_others_are_ended() -> None:
    started = time.monotonic()
    with pytest.raises(TaskFailure, match="was killed \\(exit code -9\\)"), side_by_side.processes(apart=True) as start:
        start(sleep_for_ever)
        start(die).wait()
    assert time.monotonic() - started < 600  # not the hour that the other one would have slept


@pytest.mark.parametrize("apart", [True, False])
def test_a_call_that_is_cancelled_ends_and_does_no_harm(apart: bool) -> None:
    started = time.monotonic()
    with side_by_side.processes(apart=apart) as start:
        ahead = start(sleep_for_ever)
        ahead.cancel()
        assert start(add, 1, 2).wait()[0] == 3
    assert time.monotonic() - started < 600
