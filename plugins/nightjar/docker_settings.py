"""How a task's container is started: its image, limits, mounts and secrets, from the variables that compose sets.

Standard library only.  A secret's value never enters an environment variable, where `docker inspect` would show it:
it travels as a file into the container's own volume.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

WORK = "/scratch"
"""The one place that a task may write to: a volume of its own, gone with the container."""
TMP = f"{WORK}/tmp"
SECRETS = f"{WORK}/secrets"
OUT_OF_MEMORY = "OOMKilled"
"""How the last line of a task begins that is known to have reached its memory limit."""
PASSED_ON = re.compile(
    r"(MLFLOW_|NIGHTJAR_RECOMMENDATIONS|NIGHTJAR_MYSQL_|NIGHTJAR_BACKUP_|OMP_)\w*|"
    r"AWS_DEFAULT_REGION|AWS_ENDPOINT_URL|AWS_SHARED_CREDENTIALS_FILE"
)
"""Variables of the scheduler's environment that are the task's business.  None of them holds a secret."""
UNITS = {"": 1, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


class BadSetting(ValueError):
    """A setting that no container can be started with; the message names it, its value and what was expected."""


@dataclass(frozen=True)
class Settings:
    """What the containers of one image are started with."""

    project: str
    """Tells the containers of two installations on one engine apart."""
    image: str
    network: str | None
    user: str | None
    """uid:gid; None: the image's own."""
    memory_bytes: int
    memory_variable: str
    """The variable to raise when the limit is too low."""
    shm_bytes: int
    gpu: str
    """"" for none, "all", or the ids of devices, with commas."""
    mounts: Mapping[str, str]
    """Path in the container → a volume's name or an absolute folder of the engine's machine; read-only but /backup."""
    environment: Mapping[str, str]
    secrets: Mapping[str, bytes]


def settings_of(image: str, needs_gpu: bool, env: Mapping[str, str] = os.environ) -> Settings:
    """The settings of the image `cpu`, `gpu` or `mysql-backup`."""
    suffix = image.upper().replace("-", "_")
    memory = f"NIGHTJAR_MEMORY_{suffix}"
    places = {"/data": env.get("NIGHTJAR_DATA_FROM", "")}
    if image == "mysql-backup":
        places = {"/backup": env.get("NIGHTJAR_BACKUP_TO", "")}
    passed = {name: value for name, value in env.items() if PASSED_ON.fullmatch(name)}
    return Settings(
        project=env.get("NIGHTJAR_PROJECT", "nightjar"),
        image=_required(env, f"NIGHTJAR_IMAGE_{suffix}", "the name of an image, like nightjar/cpu:0.1.0"),
        network=env.get("NIGHTJAR_NETWORK") or None,
        user=env.get("NIGHTJAR_TASK_USER") or None,
        memory_bytes=size_of(memory, env.get(memory) or "4g"),
        memory_variable=memory,
        shm_bytes=size_of("NIGHTJAR_SHM", env.get("NIGHTJAR_SHM") or "256m"),
        gpu=env.get("NIGHTJAR_GPU", "").strip() if needs_gpu else "",
        mounts={target: source for target, source in places.items() if source},
        # HOME and USER: the uid need not be in the image's /etc/passwd
        environment={**passed, "HOME": WORK, "TMPDIR": TMP, "USER": "nightjar", "LOGNAME": "nightjar"},
        secrets=_secrets(env, f"NIGHTJAR_FILES_{suffix}"),
    )


def size_of(name: str, text: str) -> int:
    """Bytes of a size like 512m or 8g."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([bkmgt]?)b?", text.strip().lower())
    if not found or float(found[1]) <= 0:
        raise BadSetting(f"{name}={text}: expected a size like 512m or 8g")
    return int(float(found[1]) * UNITS[found[2]])


def _required(env: Mapping[str, str], name: str, expected: str) -> str:
    if not env.get(name):
        raise BadSetting(f"{name} is not set: expected {expected}")
    return env[name]


def _secrets(env: Mapping[str, str], variable: str) -> dict[str, bytes]:
    """Name and content of the secret files that the variable names, with commas."""
    folder = Path(env.get("NIGHTJAR_SECRETS_FROM", "/run/secrets"))
    found: dict[str, bytes] = {}
    for name in filter(None, (part.strip() for part in env.get(variable, "").split(","))):
        try:
            found[name] = (folder / name).read_bytes()
        except OSError as error:
            raise BadSetting(f"{variable} names {name}: {folder / name}: {error.strerror}; make compose-up") from None
    return found
