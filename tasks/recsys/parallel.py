"""Work on several blocks at a time, a core each, with the results in order."""

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import faiss
import torch

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
    """Makes the libraries' arithmetic of this thread run on this thread."""
    faiss.omp_set_num_threads(1)
    torch.set_num_threads(1)
