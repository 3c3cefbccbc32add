"""What a backup of a large database costs: seconds and peak memory of a dump that proves itself by a restore.

make bench NAME=backup SCALE=1: a MySQL of its own with 5 GB in one table, or the share of it, and one run of the image
mysql-backup beside it under the limit of docker-compose.yml, 1 GB.  Needs a Docker engine and the images (bin/images;
NIGHTJAR_VERSION names their tag), and four times the size on disk.  A table, then one line of JSON: data_gb, seconds,
peak_mb, archive_gb.
"""

import argparse
import json
import os
import re
import secrets
import subprocess
import tempfile
import time
from pathlib import Path

FULL, ROW, BATCH, LIMIT = 5e9, 1_000, 100_000, "1g"
UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
NAME = f"nightjar-bench-{secrets.token_hex(3)}"


def main() -> int:
    """Fills a server, backs it up, and removes both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="share of 5 GB")
    rows = round(parser.parse_args().scale * FULL / ROW)
    with tempfile.TemporaryDirectory() as folder:
        key = Path(folder) / "key"
        key.write_text(secrets.token_hex(16))
        try:
            serve(key)
            fill(rows)
            report(rows * ROW, *back_up(key))
        finally:
            for kind in (("rm", "--force", "--volumes", f"{NAME}-backup", NAME), ("network", "rm", NAME)):
                docker(*kind, check=False)
    return 0


def docker(*arguments: str, check: bool = True) -> str:
    """What a command of the engine's client says."""
    ran = subprocess.run(("docker", *arguments), text=True, capture_output=True, check=False)
    if check and ran.returncode:
        raise SystemExit(f"docker {arguments[0]}: {ran.returncode}: {ran.stderr[-500:]}")
    return ran.stdout


def sql(statement: str, check: bool = True) -> str:
    """The answer of the server to its root."""
    ask = 'MYSQL_PWD=$(cat /key) exec mysql -uroot -h127.0.0.1 -BNe "$1" bench'
    return docker("exec", NAME, "sh", "-c", ask, "sh", statement, check=check)


def serve(key: Path) -> None:
    """Starts the server that is backed up, with the buffer and the limit of docker-compose.yml."""
    docker("network", "create", NAME)
    docker(
        *("run", "--detach", "--name", NAME, "--network", NAME, "--memory", LIMIT, "--volume", f"{key}:/key:ro"),
        *("--env", "MYSQL_ROOT_PASSWORD_FILE=/key", "--env", "MYSQL_DATABASE=bench", "mysql:9.7", "mysqld"),
        *("--disable-log-bin", "--mysqlx=OFF", "--performance-schema=OFF", "--innodb-buffer-pool-size=256M"),
    )
    while "1" not in sql("SELECT 1", check=False):
        time.sleep(1)
    sql(f"CREATE USER backup@'%' IDENTIFIED BY '{key.read_text()}'; GRANT ALL ON *.* TO backup@'%'")


def fill(rows: int) -> None:
    """Rows of a kilobyte of text that compresses to less than half, as lists of items do."""
    sql("CREATE TABLE filled (id INT AUTO_INCREMENT PRIMARY KEY, text_ TEXT); INSERT INTO filled () VALUES ()")
    text, made = f"CONCAT({', '.join(['SHA2(RAND(), 256)'] * 8)})", 1
    while made < rows:
        more = min(made, rows - made, BATCH)
        new = f"SELECT {text} AS half FROM filled LIMIT {more}"
        sql(f"INSERT INTO filled (text_) SELECT CONCAT(half, LEFT(half, 450)) FROM ({new}) AS new")
        made += more


def back_up(key: Path) -> tuple[float, float, str]:
    """Seconds, the most bytes of memory that were seen, and what the script said."""
    started, peak = time.monotonic(), 0.0
    docker(
        *("run", "--detach", "--name", f"{NAME}-backup", "--network", NAME, "--memory", LIMIT, "--memory-swap", LIMIT),
        *("--volume", f"{key}:/run/secrets/mysql_backup:ro", "--env", f"NIGHTJAR_MYSQL_HOST={NAME}"),
        *(
            "--env",
            "NIGHTJAR_BACKUP_DATABASES=bench",
            f"nightjar/mysql-backup:{os.environ.get('NIGHTJAR_VERSION') or 'dev'}",
        ),
    )
    while docker("inspect", "--format", "{{.State.Running}}", f"{NAME}-backup").strip() == "true":
        used = docker("stats", "--no-stream", "--format", "{{.MemUsage}}", f"{NAME}-backup", check=False)
        if found := re.match(r"([\d.]+)(\w+) /", used):
            peak = max(peak, float(found[1]) * UNITS[found[2]])
    said = subprocess.run(("docker", "logs", f"{NAME}-backup"), text=True, capture_output=True, check=True).stderr
    code = docker("inspect", "--format", "{{.State.ExitCode}} {{.State.OOMKilled}}", f"{NAME}-backup").strip()
    if code != "0 false":
        raise SystemExit(f"the backup ended with {code}: {said}")
    return time.monotonic() - started, peak, said


def report(size: int, seconds: float, peak: float, said: str) -> None:
    """The table, then the line of JSON."""
    print(said.strip())
    found = re.search(r"(\d+) bytes, (\d+) s\n.*?(\d+) bytes, (\d+) s", said, re.DOTALL)
    if not found:
        raise SystemExit("the backup does not say what it did")
    dumped, archive = int(found[1]), int(found[3])
    print(f"{'':<20}{'GB':>8}{'seconds':>10}")
    print(f"{'dump':<20}{dumped / 1e9:>8.2f}{found[2]:>10}")
    print(f"{'archive, restored':<20}{archive / 1e9:>8.2f}{found[4]:>10}")
    print(f"peak memory of the container: {peak / 1e6:.0f} MB")
    facts = {"data_gb": round(size / 1e9, 3), "seconds": round(seconds, 1), "peak_mb": round(peak / 1e6)}
    print(json.dumps({**facts, "archive_gb": round(archive / 1e9, 3)}))


if __name__ == "__main__":
    raise SystemExit(main())
