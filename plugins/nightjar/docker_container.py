"""What a task's container is made of, and what is read out of it."""

import hashlib
import io
import json
import tarfile
import time
from typing import Any

from docker.errors import APIError, NotFound  # type: ignore[import-untyped]
from docker.types import DeviceRequest, LogConfig, Mount  # type: ignore[import-untyped]

from nightjar.docker_settings import SECRETS, WORK, Settings

CONFIG, UNAVAILABLE = 78, 75
"""Exit codes: a person must change something, or a retry may help."""
LARGEST_ANSWER = 16 * 2**20
PROJECT, DAG, RUN, TASK, MAP_INDEX = (f"nightjar.{name}" for name in ("project", "dag", "run", "task", "map_index"))
TRY, REQUEST = "nightjar.try", "nightjar.request"
"""Labels."""
REQUEST_FILE, ANSWER_FILE = f"{WORK}/request.json", f"{WORK}/answer.json"


class Refused(Exception):
    """No container: the message says why, the exit code whether a retry may help."""

    def __init__(self, exit_code: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def labels_of(project: str, task: str, request: str) -> dict[str, str]:
    """Whose a container is, and a digest of what it was asked: the answer to another request must not be adopted."""
    asked = json.loads(request)
    run = asked["run"]
    number = run.pop("try_number", 1)
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
    return {
        PROJECT: project,
        DAG: run["dag_id"],
        RUN: run["run_id"],
        TASK: task,
        MAP_INDEX: str(run.get("map_index", -1)),
        TRY: str(number),
        REQUEST: digest,
    }


def host_config(client: Any, own: Settings) -> Any:
    """Limits and rights: nothing but what a task needs."""
    mounts = [
        Mount(to, of, type="bind" if of.startswith("/") else "volume", read_only=to != "/backup")
        for to, of in own.mounts.items()
    ]
    return client.create_host_config(
        mounts=mounts,
        network_mode=own.network,
        mem_limit=own.memory_bytes,
        memswap_limit=own.memory_bytes,  # no swap: a limit that is reached is told, not crept over
        shm_size=own.shm_bytes,
        read_only=True,
        tmpfs={"/tmp": "size=64m,mode=1777"},
        cap_drop=["ALL"],
        security_opt=["no-new-privileges:true"],
        pids_limit=4096,
        device_requests=devices(own.gpu),
        log_config=LogConfig(type="json-file", config={"max-size": "20m", "max-file": "3"}),
    )


def devices(gpu: str) -> list[Any]:
    """The request for NVIDIA devices: none, all, or those with the ids."""
    if not gpu:
        return []
    which = {"count": -1} if gpu == "all" else {"device_ids": gpu.split(",")}
    return [DeviceRequest(**which, capabilities=[["gpu"]])]


def brought_in(request: str, own: Settings) -> bytes:
    """A tar of the request and the secrets, for their owner's eyes."""
    secrets = {f"{SECRETS.rsplit('/', 1)[1]}/{name}": value for name, value in own.secrets.items()}
    files: dict[str, bytes | None] = {"request.json": request.encode(), "tmp": None, "secrets": None, **secrets}
    uid, _, gid = (own.user or "50000:0").partition(":")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.uid, info.gid, info.mtime = int(uid), int(gid or 0), int(time.time())
            info.type, info.mode = (tarfile.DIRTYPE, 0o700) if content is None else (tarfile.REGTYPE, 0o400)
            info.size = len(content or b"")
            archive.addfile(info, io.BytesIO(content or b""))
    return buffer.getvalue()


def answer_of(client: Any, container: str) -> bytes:
    """The answer's bytes out of a container, which need not run; ValueError where there is no such file."""
    try:
        chunks, _ = client.get_archive(container, ANSWER_FILE)
    except NotFound:
        raise ValueError("there is none") from None
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
        member = archive.next()
        file = archive.extractfile(member) if member and member.isfile() else None
        if member is None or file is None or member.size > LARGEST_ANSWER:
            raise ValueError(f"expected a file of at most {LARGEST_ANSWER} bytes")
        return file.read()


def told(error: Exception) -> str:
    """An error in one line, the engine's own words where it said any."""
    text = error.explanation if isinstance(error, APIError) and error.explanation else error
    return " ".join(str(text).split())


def why_not(own: Settings, error: APIError) -> Refused:
    """Why the engine did not start a container."""
    said = told(error)
    if own.gpu and any(word in said.lower() for word in ("device driver", "nvidia", "cdi", "gpu")):
        return Refused(
            CONFIG,
            f"NIGHTJAR_GPU={own.gpu} demands a GPU, and the engine gives none: {said}; install NVIDIA's driver and "
            "container toolkit, or leave NIGHTJAR_GPU empty to train on the CPU",
        )
    return Refused(UNAVAILABLE, f"cannot start a container of {own.image}: {said}")
