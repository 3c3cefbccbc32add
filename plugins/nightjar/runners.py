"""Which runner a task gets: NIGHTJAR_RUNNER=process (the default) or docker."""

import os
from collections.abc import Callable
from typing import Any, Protocol

from nightjar.process_runner import Ended, ProcessRunner, Try
from tasks.contracts import Task


class Runner(Protocol):
    """Runs one try of a task."""

    def run(self, request: str, on_line: Callable[[str], None]) -> Ended:
        """Blocks until the task has ended."""

    def kill(self) -> None:
        """Marks the try as killed; suits a signal handler."""


def runner_of(task: Task, this: Try, check: Callable[[bytes], dict[str, Any]]) -> Runner:
    """The runner that the installation uses."""
    chosen = os.environ.get("NIGHTJAR_RUNNER") or "process"
    if chosen == "docker":
        # Late: the process runner's world need not load the Docker library.
        from nightjar.docker_runner import DockerRunner
        from nightjar.docker_settings import settings_of

        return DockerRunner(settings_of(task.image, task.needs_gpu), this, check)
    if chosen != "process":
        raise ValueError(f"NIGHTJAR_RUNNER={chosen}: expected process or docker")
    return ProcessRunner(os.environ["NIGHTJAR_TASKS_PYTHON"], this, check)
