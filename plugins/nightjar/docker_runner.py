"""Runs a task in a container of its own, by the engine behind DOCKER_HOST; same contract as the process runner.

The container outlives whoever started it.  So it carries labels that say whose it is, and a retry looks for it first:
one that runs is waited for, one that ended well hands over its answer, any other is removed.  One training, never two.
"""

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import docker  # type: ignore[import-untyped]
from docker.errors import APIError, DockerException, NotFound  # type: ignore[import-untyped]
from requests.exceptions import RequestException

from nightjar.docker_container import (
    ANSWER_FILE,
    CONFIG,
    PROJECT,
    REQUEST,
    REQUEST_FILE,
    TRY,
    UNAVAILABLE,
    Refused,
    answer_of,
    brought_in,
    host_config,
    labels_of,
    told,
    why_not,
)
from nightjar.docker_logs import Follower
from nightjar.docker_settings import OUT_OF_MEMORY, WORK, Settings
from nightjar.process_runner import SKIPPED, Ended, Try, write_whole

KILLED = 137
GRACE_SECONDS = 2
"""Between TERM and KILL.  Airflow gives the task's process five seconds before it is killed itself."""
POLL_SECONDS = 0.2
INSPECT_SECONDS = 1.0
ENGINE_SECONDS = 120.0
"""How long the engine may be silent, as it is when it restarts, before the try ends and leaves the rest to a retry."""
LOG_SECONDS = 10.0
LEFT_HOURS = 24.0
"""After so long a container that ended and that nobody fetched is swept."""
CUT = (DockerException, RequestException, OSError)


class DockerRunner:
    """Runs one try.  `run` blocks until it has ended; `kill` only marks it, and so suits a signal handler."""

    def __init__(self, settings: Settings, this: Try, check: Callable[[bytes], dict[str, Any]]) -> None:
        """check turns the answer's bytes into the artifact, or raises a ValueError that says what is wrong."""
        self.settings = settings
        self.this = this
        self.check = check
        self.killed = False
        self._peak = 0
        self._cpu_seconds = 0.0

    def kill(self) -> None:
        """Stops and removes the container, TERM first.  The try cannot count as a success any more."""
        self.killed = True

    def run(self, request: str, on_line: Callable[[str], None]) -> Ended:
        """Runs the task; on_line gets every line that it writes, as it comes.  Leaves record.json, however it ends."""
        started = time.monotonic()
        try:
            self.client = docker.APIClient(**docker.utils.kwargs_from_env(), version="auto", timeout=60)
            labels = labels_of(self.settings.project, self.this.task, request)
            container = self._attach_or_start(labels, request, on_line)
            ended = self._see_through(container, on_line, started)
        except Refused as refusal:
            ended = self._how("failed", started, refusal.exit_code, str(refusal))
        except CUT as error:
            ended = self._how("failed", started, UNAVAILABLE, f"the Docker engine does not do as asked: {told(error)}")
        self._record(ended)
        return ended

    # --- the container: found again, or made ---------------------------------------------------------------------

    def _attach_or_start(self, labels: Mapping[str, str], request: str, on_line: Callable[[str], None]) -> str:
        """Id of the one container of this task; those of earlier tries that are of no use are removed."""
        self._sweep(labels[PROJECT])
        whose = [f"{key}={value}" for key, value in labels.items() if key not in (TRY, REQUEST)]
        mine = None
        for found in self.client.containers(all=True, filters={"label": whose}):
            state = self.client.inspect_container(found["Id"])["State"]
            same = found["Labels"].get(REQUEST) == labels[REQUEST]
            useful = state["Status"] in ("running", "paused", "restarting") or (
                state["Status"] == "exited" and state["ExitCode"] == 0
            )
            if mine is None and same and useful:
                mine = str(found["Id"])
                said = f"found the container of try {found['Labels'].get(TRY)}, {state['Status']}: going on with it"
            else:
                said = f"removed the container of try {found['Labels'].get(TRY)}, {state['Status']}, {mine or 'no'} use"
                self._remove(found["Id"], running=True)
            on_line(f"{said} ({found['Id'][:12]})")
        return mine or self._start(labels, request)

    def _start(self, labels: Mapping[str, str], request: str) -> str:
        own = self.settings
        try:
            made = self.client.create_container(
                own.image,
                [self.this.task, REQUEST_FILE, ANSWER_FILE],
                environment=dict(own.environment),
                labels=dict(labels),
                user=own.user,
                host_config=host_config(self.client, own),
            )["Id"]
        except NotFound as error:
            raise Refused(CONFIG, f"{told(error)}; `make compose-up` builds the images") from None
        try:
            self.client.put_archive(made, WORK, brought_in(request, own))
            if not self.killed:
                self.client.start(made)
        except APIError as error:
            self._remove(made)
            raise why_not(own, error) from None
        return str(made)

    # --- until it ends -------------------------------------------------------------------------------------------

    def _see_through(self, container: str, on_line: Callable[[str], None], started: float) -> Ended:
        reader = docker.APIClient(**docker.utils.kwargs_from_env(), version="auto", timeout=60)
        follower = Follower(
            lambda since: reader.logs(container, stream=True, follow=True, timestamps=True, since=since or None)
        )
        try:
            state = self._wait(container, follower, on_line)
            for line in follower.finish(LOG_SECONDS):
                on_line(line)
        except (*CUT, Refused):  # the engine is away: the container stays, for a retry to find
            follower.finish(0)
            raise
        except BaseException:  # a time-out, an interrupt: the task must not go on behind Airflow's back
            self.killed = True
            with suppress(*CUT):
                self._remove(container, running=True)
            self._record(self._how("killed", started, KILLED, follower.last))
            raise
        ended = self._ended(container, state, follower.last, started)
        with suppress(*CUT):  # the answer is here; what stays is swept one day
            self._remove(container)
        return ended

    def _wait(self, container: str, follower: Follower, on_line: Callable[[str], None]) -> dict[str, Any]:
        """The container's state when it has ended.  Asks again and again: a long wait would be cut."""
        answered = time.monotonic()
        stopping, ask_at = False, 0.0
        while True:
            for line in follower.lines():
                on_line(line)
            if time.monotonic() < ask_at and not (self.killed and not stopping):
                time.sleep(POLL_SECONDS)
                continue
            ask_at = time.monotonic() + INSPECT_SECONDS
            try:
                if self.killed and not stopping:
                    self.client.stop(container, timeout=GRACE_SECONDS)
                    stopping = True
                state: dict[str, Any] = self.client.inspect_container(container)["State"]
                if state["Status"] in ("exited", "dead", "created"):
                    return state
                self._sample(container)
                answered = time.monotonic()
            except NotFound:
                raise Refused(UNAVAILABLE, f"container {container[:12]} was removed by somebody else") from None
            except CUT as error:
                if time.monotonic() - answered > ENGINE_SECONDS:
                    raise Refused(
                        UNAVAILABLE, f"the Docker engine has not answered for {ENGINE_SECONDS:.0f} s: {told(error)}"
                    ) from None

    def _sample(self, container: str) -> None:
        """Memory and CPU so far: the engine forgets them when the container ends."""
        stats = self.client.stats(container, stream=False, one_shot=True)
        memory = stats.get("memory_stats", {})
        cached = memory.get("stats", {}).get("inactive_file", 0)
        self._peak = max(self._peak, memory.get("usage", 0) - cached)
        used = stats.get("cpu_stats", {}).get("cpu_usage", {}).get("total_usage", 0) / 1e9
        self._cpu_seconds = max(self._cpu_seconds, used)

    # --- what became of it ---------------------------------------------------------------------------------------

    def _ended(self, container: str, state: Mapping[str, Any], last_line: str, started: float) -> Ended:
        code = int(state["ExitCode"])
        if self.killed:
            return self._how("killed", started, code or KILLED, last_line)
        if state["OOMKilled"] and code:
            return self._how("killed", started, KILLED, self._out_of_memory(last_line))
        if code > 128:
            return self._how("killed", started, code, last_line)
        if code == SKIPPED:
            return self._how("skipped", started, code, last_line)
        if code:
            return self._how("failed", started, code, last_line or str(state.get("Error", "")))
        try:
            return self._how("success", started, 0, last_line, self.check(answer_of(self.client, container)))
        except ValueError as error:
            said = f"{self.this.task} ended with 0, but its answer is no answer: {told(error)}"
            return self._how("failed", started, 0, said)

    def _out_of_memory(self, last_line: str) -> str:
        own = self.settings
        return (
            f"{OUT_OF_MEMORY}: {self.this.task} reached its limit of {own.memory_bytes / 1e9:.2f} GB (last seen at "
            f"{self._peak / 1e9:.2f} GB); raise {own.memory_variable} in .env; its last line: {last_line}"
        )

    def _how(
        self,
        state: Literal["success", "failed", "skipped", "killed"],
        started: float,
        code: int,
        last_line: str,
        answer: dict[str, Any] | None = None,
    ) -> Ended:
        seconds = round(time.monotonic() - started, 3)
        return Ended(state, seconds, round(self._cpu_seconds, 3), self._peak, code, last_line, answer)

    def _record(self, ended: Ended) -> None:
        who = {"task": self.this.task, "map_index": self.this.map_index, "try": self.this.number}
        self.this.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.this.folder / "record.json", json.dumps({**who, **asdict(ended)}, indent=1))

    def _remove(self, container: str, running: bool = False) -> None:
        """Removes a container and its volume; one that runs only when it is said so, after TERM and a grace."""
        with suppress(NotFound):
            if running:
                self.client.stop(container, timeout=GRACE_SECONDS)
            self.client.remove_container(container, v=True)

    def _sweep(self, project: str) -> None:
        """Removes this installation's containers that ended long ago and that nobody fetched."""
        old = datetime.now(UTC) - timedelta(hours=LEFT_HOURS)
        for found in self.client.containers(filters={"label": f"{PROJECT}={project}", "status": "exited"}):
            finished = self.client.inspect_container(found["Id"])["State"]["FinishedAt"]
            if datetime.fromisoformat(finished[:19]).replace(tzinfo=UTC) < old:
                self._remove(found["Id"])
