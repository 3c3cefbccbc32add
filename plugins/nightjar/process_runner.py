"""Runs a task as a local subprocess, and leaves nothing of it behind.

Standard library only, so that Airflow, `bin/night` and the tests in the tasks' environment share it.

The child gets its own session: a signal reaches everything that it starts.  It also gets the read end of a pipe whose
write end only its parent holds: when the parent is killed outright the pipe closes, and the child ends itself.
"""

import json
import os
import re
import resource
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

GRACE_SECONDS = 3.0
"""Between TERM and KILL.  Airflow gives the task's process five seconds before it is killed itself."""

POLL_SECONDS = 0.05
LONGEST_LINE = 64 * 1024
SKIPPED = 99
TERMINATED = 143
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True)
class Try:
    """Which try of which task, and the folder of its request, answer and record."""

    task: str
    map_index: int
    number: int
    folder: Path

    @classmethod
    def of(cls, home: Path, run_id: str, task: str, map_index: int, number: int) -> "Try":
        name = task if map_index < 0 else f"{task}.{map_index}"
        return cls(task, map_index, number, night_folder(home, run_id) / name / f"try-{number}")


@dataclass(frozen=True)
class Ended:
    """How a try ended, and what it took."""

    state: Literal["success", "failed", "skipped", "killed"]
    seconds: float
    cpu_seconds: float
    peak_memory_bytes: int
    exit_code: int
    """As a shell says it: 128 + the signal for a process that a signal ended."""
    last_line: str
    answer: dict[str, Any] | None


def night_folder(home: Path, run_id: str) -> Path:
    """Where one Airflow run keeps its tries."""
    return home / "work" / re.sub(r"[^A-Za-z0-9_.+-]", "-", run_id)


class ProcessRunner:
    """Runs one try.  `run` blocks until it has ended; `kill` only marks it, and so suits a signal handler."""

    def __init__(self, python: str, this: Try, check: Callable[[bytes], dict[str, Any]]) -> None:
        """check turns the answer's bytes into the artifact, or raises a ValueError that says what is wrong."""
        self.python = python
        self.this = this
        self.check = check
        self.killed = False
        self._usage: resource.struct_rusage
        self._sampled_peak = 0

    def kill(self) -> None:
        """Ends the whole process group, TERM first.  The try cannot count as a success any more."""
        self.killed = True

    def run(self, request: str, on_line: Callable[[str], None]) -> Ended:
        """Runs the task; on_line gets every line that it writes, as it comes.  Leaves record.json, however it ends."""
        self.this.folder.mkdir(parents=True, exist_ok=True)
        self._answer.unlink(missing_ok=True)
        write_whole(self.this.folder / "request.json", request)
        lines = Lines(on_line)
        started = time.monotonic()
        process, lifeline = self._start()
        try:
            self._follow(process, lines)
        except BaseException:  # a time-out, an interrupt: the task must not go on behind Airflow's back
            self.killed = True
            self._follow(process, Lines(lambda line: None))
            raise
        finally:
            os.close(lifeline)
            ended = self._ended(process, lines.last, time.monotonic() - started)
        return ended

    @property
    def _answer(self) -> Path:
        return self.this.folder / "answer.json"

    def _start(self) -> tuple[subprocess.Popen[bytes], int]:
        """The child, and the write end of its lifeline."""
        task = self.this.task
        command = [self.python, "-m", "tasks", task, str(self.this.folder / "request.json"), str(self._answer)]
        # Airflow's settings hold its secrets and are not the task's business.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")}
        read_end, write_end = os.pipe()
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=self.this.folder,  # a library that writes where it stands writes here
                env={**environment, "NIGHTJAR_LIFELINE": str(read_end)},
                pass_fds=(read_end,),
                start_new_session=True,
            )
        except BaseException:
            os.close(write_end)
            raise
        finally:
            os.close(read_end)
        return process, write_end

    def _follow(self, process: subprocess.Popen[bytes], lines: "Lines") -> None:
        """Passes lines on until the child has ended, and ends it when it is to be killed."""
        assert process.stdout is not None
        kill_at: float | None = None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while process.returncode is None:
                if self.killed and kill_at is None:
                    kill_at = time.monotonic() + GRACE_SECONDS
                    _signal_group(process, signal.SIGTERM)
                elif kill_at is not None and time.monotonic() > kill_at:
                    _signal_group(process, signal.SIGKILL)
                if selector.select(POLL_SECONDS) and not lines.read(process.stdout.fileno()):
                    selector.unregister(process.stdout)
                self._sampled_peak = _high_water(process.pid) or self._sampled_peak
                self._reap(process)
            _signal_group(process, signal.SIGKILL)  # whatever the task left running
            while selector.get_map() and selector.select(POLL_SECONDS) and lines.read(process.stdout.fileno()):
                pass
        lines.end()

    def _reap(self, process: subprocess.Popen[bytes]) -> None:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            self._usage = usage

    def _ended(self, process: subprocess.Popen[bytes], last_line: str, seconds: float) -> Ended:
        """What became of the try; also left as record.json."""
        assert process.stdout is not None
        process.stdout.close()
        code = process.returncode if process.returncode >= 0 else 128 - process.returncode
        answer: dict[str, Any] | None = None
        state: Literal["success", "failed", "skipped", "killed"] = "failed"
        if self.killed or process.returncode < 0 or code == TERMINATED:
            state = "killed"
        elif code == SKIPPED:
            state = "skipped"
        elif code == 0:
            try:
                answer, state = self.check(self._answer.read_bytes()), "success"
            except (OSError, ValueError) as error:
                last_line = f"{self.this.task} ended with 0, but its answer is no answer: {_one_line(error)}"
        cpu = self._usage.ru_utime + self._usage.ru_stime
        ended = Ended(state, round(seconds, 3), round(cpu, 3), self._peak(), code, last_line, answer)
        who = {"task": self.this.task, "map_index": self.this.map_index, "try": self.this.number}
        write_whole(self.this.folder / "record.json", json.dumps({**who, **asdict(ended)}, indent=1))
        return ended

    def _peak(self) -> int:
        """Bytes.  A child starts with the high-water mark of the process that forked it; up to that it says nothing."""
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak = self._usage.ru_maxrss
        return self._sampled_peak if self._sampled_peak and own >= peak else peak * _RSS_UNIT


class Lines:
    """Cuts what is read from a pipe into lines, hands each on, and keeps the last that says something."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self.last = ""
        self._on_line = on_line
        self._rest = b""

    def read(self, pipe: int) -> bool:
        """Reads once; False at the pipe's end."""
        data = os.read(pipe, LONGEST_LINE)
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in whole:
            self._hand_on(line)
        if len(self._rest) >= LONGEST_LINE:
            self.end()
        return bool(data)

    def end(self) -> None:
        """Hands on a last line that has no end."""
        if self._rest:
            self._hand_on(self._rest)
            self._rest = b""

    def _hand_on(self, raw: bytes) -> None:
        line = raw.decode("utf-8", errors="replace").rstrip()
        self.last = line or self.last
        self._on_line(line)


def write_whole(path: Path, text: str) -> None:
    """Writes the file whole or not at all; of two writers one wins."""
    partial = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _high_water(pid: int) -> int:
    """Bytes of memory that the process has held at most; 0 where the system does not say."""
    try:
        status = Path(f"/proc/{pid}/status").read_bytes()
    except OSError:
        return 0
    found = re.search(rb"VmHWM:\s*(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0


def _signal_group(process: subprocess.Popen[bytes], signum: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # PermissionError: only zombies are left, on macOS
        os.killpg(process.pid, signum)
