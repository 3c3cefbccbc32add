"""How a task ends when it does not succeed: one class an exit code (sysexits), each message for a person.

A message says what went wrong, the value that was seen, what was expected and what to do.  The operator turns the
exit code into fail, retry or skip; the last line of the log carries the message.
"""

from typing import ClassVar


class TaskFailure(Exception):
    """A task that cannot go on.  The message is the last line of its log."""

    exit_code: ClassVar[int] = 70


class BadUsage(TaskFailure):
    """The command itself is wrong: an unknown task, a missing file argument."""

    exit_code = 64


class BadData(TaskFailure):
    """The input is not what the format promises.  Permanent: the same bytes fail again."""

    exit_code = 65


class BadModel(TaskFailure):
    """Training went wrong: a loss that is not a number, vectors that collapsed.  Permanent."""

    exit_code = 70


class CannotWrite(TaskFailure):
    """The disk or the store refused the bytes.  Permanent until a person makes room."""

    exit_code = 74


class Unavailable(TaskFailure):
    """Something that is needed does not answer for now.  Temporary: worth a retry."""

    exit_code = 75


class BadConfig(TaskFailure):
    """A setting is out of its range, or two settings contradict each other.  Permanent."""

    exit_code = 78


class Skipped(TaskFailure):
    """There is nothing to do here, and the message says why."""

    exit_code = 99


TERMINATED = 143
"""Exit code after SIGTERM: 128 + 15."""
