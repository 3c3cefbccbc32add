"""Scripts in Airflow's own environment, which the tests do not run in."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

REPO = Path(__file__).parents[1]


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
