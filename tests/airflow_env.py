"""Scripts in Airflow's own environment, which the tests do not run in."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

REPO = Path(__file__).parents[1]

SERVED = """
import json, os
from airflow.utils.db import initdb
from airflow.api_fastapi.app import create_app, get_auth_manager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from starlette.testclient import TestClient

initdb()
client = TestClient(create_app(apps="core"))
token = get_auth_manager().generate_jwt(SimpleAuthManagerUser(username="admin", role="admin"))
people = {"nobody": {}, "forger": {"Authorization": "Bearer x.y.z"}, "admin": {"Authorization": f"Bearer {token}"}}

def ask(path, who):
    answer = client.get(path, headers=people[who])
    return [answer.status_code, answer.text, answer.headers.get("content-security-policy", "")]

found = {f"{who} {path}": ask(path, who) for path in json.loads(os.environ["PATHS"]) for who in people}
menu = client.get("/api/v2/plugins", headers=people["admin"]).json()["plugins"]
found["views"] = [view for plugin in menu for view in plugin["external_views"]]
"""
"""What Airflow's application answers to nobody, a forger and admin at PATHS: who and path → status, text, policy."""


def in_airflow(script: str, home: Path, **environment: str) -> Any:
    """The JSON that the script prints last."""
    ran = subprocess.run(
        [REPO / "bin" / "env", "python", "-c", f"import sys; sys.path.insert(0, 'plugins')\n{script}"],
        env={**os.environ, "NIGHTJAR_HOME": str(home), "PYTHONPATH": "", "NIGHTJAR_DATA": "", **environment},
        capture_output=True,
        cwd=REPO,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])
