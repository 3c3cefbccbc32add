"""Work on several blocks at a time, a core each, with the results in order."""

import itertools
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Block = TypeVar("Block")
Result = TypeVar("Result")


def in_order(
    function: Callable[[Block], Result], blocks: Iterable[Block], threads: int | None = None
) -> Iterator[Result]:
    """What the function makes of each block, in order; with a thread a core, of which each does its own arithmetic.

    As many results as there are threads wait to be taken, at most, so that memory stays bounded.
    """
    threads = threads or os.cpu_count() or 1
    left = iter(blocks)
    with ThreadPoolExecutor(threads, initializer=_single) as pool:
        waiting: deque[Future[Result]] = deque(pool.submit(function, one) for one in itertools.islice(left, threads))
        while waiting:
            found = waiting.popleft().result()
            waiting.extend(pool.submit(function, one) for one in itertools.islice(left, 1))
            yield found


def _single() -> None:
    """Makes the arithmetic of the libraries that are loaded run, for this thread, on this thread."""
    if faiss := sys.modules.get("faiss"):
        faiss.omp_set_num_threads(1)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
