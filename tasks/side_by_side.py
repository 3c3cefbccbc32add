"""Runs calls in processes of their own, so that each may keep a core busy."""

import logging
import multiprocessing
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

from tasks.failures import TaskFailure

T = TypeVar("T")


@dataclass(frozen=True)
class Call(Generic[T]):
    """A call that was started."""

    wait: Callable[[], T]
    """returns or raises what it did"""
    cancel: Callable[[], None]
    """ends it; nobody waits for it any more"""


@contextmanager
def processes(*, apart: bool) -> Iterator[Callable[..., Call[Any]]]:
    """Gives a function that starts calls: start(function, *arguments).

    What is still running at the end of the block is ended.  A process that is killed is a failure.  Not `apart`: a
    call runs here when it is waited for, where starting processes would take longer than the work.
    """
    running: list[multiprocessing.process.BaseProcess] = []
    context = multiprocessing.get_context("spawn")  # a fork would share the threads' locks

    def start(function: Callable[..., T], *arguments: object) -> Call[T]:
        if not apart:
            return Call(lambda: function(*arguments), lambda: None)
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_run, args=(sender, function, arguments), daemon=True)
        process.start()
        sender.close()
        running.append(process)
        return Call(lambda: _result(process, receiver), lambda: _end(process))

    try:
        yield start
    finally:
        for process in running:
            _end(process)


def _end(process: multiprocessing.process.BaseProcess) -> None:
    process.terminate()
    process.join()


def _run(sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """The whole life of a process."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("tasks").setLevel(logging.INFO)
    try:
        sender.send((function(*arguments), None))
    except Exception as error:  # noqa: BLE001  it is raised again where it is waited for
        sender.send((None, error))


def _result(process: multiprocessing.process.BaseProcess, receiver: Connection) -> Any:
    try:
        value, error = receiver.recv()
    except EOFError:
        process.join()
        raise TaskFailure(
            f"a process of this task was killed (exit code {process.exitcode}); −9 means that memory ran out: give the "
            "task more"
        ) from None
    process.join()  # so that its memory is free again
    if error is not None:
        raise error
    return value
