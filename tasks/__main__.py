"""python -m tasks NAME REQUEST ANSWER: one JSON document in, the function NAME, one JSON document out.

The answer is written by rename, never to stdout.  Exit codes are those of `tasks.failures`; the last line of stderr
says why a task ended otherwise than with 0.
"""

import errno
import logging
import os
import resource
import signal
import sys
import threading
import time
import traceback
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import NoReturn

from pydantic import ValidationError

from tasks import memory
from tasks.contracts import TASKS, Artifact, Request, Task, first_problem, inputs_model
from tasks.failures import TERMINATED, BadConfig, BadUsage, CannotWrite, TaskFailure, Unavailable

# A waiting thread that spins starves whatever else runs on the machine; read when the libraries are loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

log = logging.getLogger("tasks")

HEARTBEAT_SECONDS = 30.0
GRACE_SECONDS = 5.0
"""Time to end in good order after SIGTERM."""
LIFELINE = "NIGHTJAR_LIFELINE"
"""Environment variable: a pipe's file descriptor; it closes when whoever started this task dies."""


class LastLine(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes log lines to stderr and remembers when the last one was written."""

    at = time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        self.at = time.monotonic()


def main(argv: list[str]) -> int:
    """Runs one task and returns its exit code."""
    memory.keep()
    handler = LastLine(sys.stderr)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    log.setLevel(logging.INFO)
    signal.signal(signal.SIGTERM, _terminate)
    threading.Thread(target=_beat, args=(handler,), daemon=True).start()
    if lifeline := os.environ.get(LIFELINE):
        threading.Thread(target=_watch, args=(int(lifeline),), daemon=True).start()
    try:
        run_task(*_arguments(argv))
        return 0
    except Exception as error:  # noqa: BLE001  every end has its exit code and its line
        failure = _classify(error)
        log.error("%s", str(failure).replace("\n", " "))
        return failure.exit_code
    except SystemExit:
        log.error("ended by SIGTERM: a person, a time-out or the end of whoever started it; nothing is half written")
        raise


def run_task(task: Task, request: Request, answer: Path) -> None:
    """Checks what comes in, runs the task's verb inside its MLflow run, and writes the artifact it returns."""
    try:
        inputs = dict(inputs_model(task.name).model_validate(request.inputs))
        config = task.config.model_validate(request.config)
    except ValidationError as error:
        raise BadConfig(f"{task.name}: {first_problem(error)}") from None
    from tasks import tracking  # slow to import: a bad setting is told at once

    verb = getattr(import_module(f"tasks.{task.name}"), task.name)
    artifacts = [one for value in inputs.values() for one in (value if isinstance(value, list) else [value])]
    with tracking.task_run(task.name, request.run, artifacts) as run:
        run.params(config.model_dump(mode="json"))
        artifact = verb(**inputs, config=config, run=run)
    write_answer(artifact, answer)


def write_answer(artifact: Artifact, path: Path) -> None:
    """Writes the answer whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_text(artifact.model_dump_json(), encoding="utf-8")
    partial.rename(path)


def _arguments(argv: list[str]) -> tuple[Task, Request, Path]:
    if len(argv) != 3 or argv[0] not in TASKS:
        raise BadUsage(
            f"expected: python -m tasks NAME REQUEST ANSWER, with NAME one of {', '.join(TASKS)}; got {argv}"
        )
    name, request, answer = argv
    try:
        return TASKS[name], Request.model_validate_json(Path(request).read_bytes()), Path(answer)
    except OSError as error:
        raise BadUsage(f"cannot read the request {request}: {error.strerror}") from None
    except ValidationError as error:
        raise BadUsage(f"request {request}: {first_problem(error)}") from None


def _classify(error: Exception) -> TaskFailure:
    """The exit class of an error that no verb has translated."""
    if isinstance(error, TaskFailure):
        return error
    traceback.print_exception(error)
    kind = type(error).__name__
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
        return CannotWrite(f"{error.strerror}: {error.filename or 'a file'}; make room or grant access, then retry")
    if isinstance(error, ConnectionError | TimeoutError):
        return Unavailable(f"{kind}: {error}; the other side does not answer for now")
    return TaskFailure(f"unexpected {kind}: {error}; the traceback is above")


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(TERMINATED)


def _beat(handler: LastLine) -> None:
    """Says that the task is alive when it has been silent for long."""
    started = time.monotonic()
    while True:
        time.sleep(1.0)
        if time.monotonic() - handler.at >= HEARTBEAT_SECONDS:
            used = resource.getrusage(resource.RUSAGE_SELF)
            log.info(
                "still at work: %.0f s, %.0f CPU s, peak %.2f GB",
                *(time.monotonic() - started, used.ru_utime + used.ru_stime, used.ru_maxrss / 1e6),
            )


def _watch(lifeline: int) -> None:
    """Ends the task and its children when whoever started it is gone: a retry must not run beside an orphan.

    Whoever gives a lifeline starts the task in a process group of its own.
    """
    with os.fdopen(lifeline, "rb") as pipe:
        pipe.read()
    os.killpg(os.getpgrp(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
