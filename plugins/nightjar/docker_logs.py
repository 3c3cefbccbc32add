"""Follows the log of a container line by line, and goes on where it was when the stream is cut.

A proxy cuts streams after some minutes, an engine that restarts cuts them all; the task behind them runs on.
"""

import queue
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

AGAIN_SECONDS = 0.5
LONGEST_LINE = 64 * 1024

OpenStream = Callable[[int], Iterator[bytes]]
"""Opens the log, each entry with its timestamp in front, from a second (Unix time) on."""


class Follower:
    """Reads the log in a thread of its own; `lines` hands on what has come, in the thread that asks."""

    def __init__(self, open_stream: OpenStream) -> None:
        self.last = ""
        """The last line that says something."""
        self._open = open_stream
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._stamp = ""
        """RFC 3339 with nanoseconds, of fixed width, of the last entry: texts sort as instants do."""
        self._same = 0
        """Entries with that timestamp so far."""
        self._rest = b""
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def lines(self) -> Iterator[str]:
        """The lines that have come since the last call."""
        while True:
            try:
                line = self._lines.get_nowait()
            except queue.Empty:
                return
            self.last = line.strip() or self.last
            yield line

    def finish(self, seconds: float) -> list[str]:
        """Says that the container has ended; the lines that are left, waiting for them at most so long."""
        self._ended.set()
        self._thread.join(seconds)
        return list(self.lines())

    def _follow(self) -> None:
        whole = False
        while not (whole and self._ended.is_set()):
            known = self._ended.is_set()  # a stream opened after the end has everything
            try:
                self._read(self._open(_second(self._stamp)))
                whole = known
            except Exception:  # noqa: BLE001  whatever cut it: what matters is that the reading goes on
                if known:
                    break  # the container is gone: nothing more will come
            if not whole:
                self._ended.wait(AGAIN_SECONDS)
        if self._rest:
            self._hand_on(self._rest)

    def _read(self, entries: Iterator[bytes]) -> None:
        """Takes the entries that are new.  The first ones of a stream opened again have been here before."""
        resumed, seen_before, again = self._stamp, self._same, 0
        for entry in entries:
            stamp, _, text = entry.partition(b" ")
            at = stamp.decode("ascii", errors="replace")
            if at < resumed:
                continue
            if resumed and at == resumed:
                again += 1
                if again <= seen_before:
                    continue
            self._same = self._same + 1 if at == self._stamp else 1
            self._stamp = at
            self._take(text)

    def _take(self, text: bytes) -> None:
        *whole, self._rest = (self._rest + text).split(b"\n")
        for line in whole:
            self._hand_on(line)
        if len(self._rest) >= LONGEST_LINE:
            self._hand_on(self._rest)
            self._rest = b""

    def _hand_on(self, raw: bytes) -> None:
        self._lines.put(raw.decode("utf-8", errors="replace").rstrip())


def _second(stamp: str) -> int:
    """Unix time of the whole second before; 0 for no timestamp."""
    if not stamp:
        return 0
    return int(datetime.fromisoformat(stamp[:19]).replace(tzinfo=UTC).timestamp())
