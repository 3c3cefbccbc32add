"""backup_mysql.sh by hand against the stack's real MySQL: made, proven, restored, refused."""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.docker.stack import Stack

pytestmark = pytest.mark.docker


def made(stack: Stack) -> str:
    return named(stack.backup_script())


def named(ran: "subprocess.CompletedProcess[str]") -> str:
    """The archive that a backup has made."""
    assert ran.returncode == 0, ran.stderr
    found = re.search(r"(nightjar-\d{8}T\d{6}Z\.tar\.gz)", ran.stderr)
    assert found, ran.stderr
    return found[1]


def in_volume(stack: Stack, command: str) -> str:
    """What a shell command says, with the backup volume at /backup."""
    ran = stack.backup_shell(command)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def files(stack: Stack) -> set[str]:
    return set(in_volume(stack, "ls /backup").split())


@pytest.fixture
def rows(stack: Stack) -> Iterator[None]:
    """A table with rows of every difficult kind."""
    stack.sql("DROP TABLE IF EXISTS odd", user="nightjar")
    stack.sql(
        "CREATE TABLE odd (id INT PRIMARY KEY, text_ TEXT, bytes_ VARBINARY(64), at DATETIME(6))", user="nightjar"
    )
    stack.sql(r"INSERT INTO odd VALUES (1, 'ü 🐦 \' \\', x'00ff27', '2026-02-28 23:59:59.999999')", user="nightjar")
    stack.sql("INSERT INTO odd VALUES (2, NULL, NULL, NULL)", user="nightjar")
    yield
    stack.sql("DROP TABLE IF EXISTS odd", user="nightjar")


@pytest.mark.usefixtures("rows")
def test_a_backup_is_proven_and_restores_over_what_is_there(stack: Stack) -> None:
    before = stack.sql("SELECT * FROM odd ORDER BY id")
    name = made(stack)
    assert {name, f"{name}.sha256"} <= files(stack)
    manifest = json.loads(in_volume(stack, f"tar -xzOf /backup/{name} manifest.json"))
    (odd,) = [table for table in manifest["tables"] if table["table"] == "odd"]
    assert odd["rows"] == 2 and odd["still"] and manifest["server"].startswith("9.7")
    stack.sql("DELETE FROM odd", user="nightjar")

    refused = stack.backup_script("restore", name)
    assert refused.returncode == 73 and "--over" in refused.stderr
    restored = stack.backup_script("restore", name, "--over")
    assert restored.returncode == 0, restored.stderr
    assert stack.sql("SELECT * FROM odd ORDER BY id") == before
    assert any("before-restore" in file for file in files(stack)), "no backup was made of what was there"


@pytest.mark.usefixtures("rows")
def test_a_damaged_archive_is_refused_and_changes_nothing(stack: Stack, tmp_path: Path) -> None:
    name = made(stack)
    in_volume(
        stack,
        f"head -c 2000 /backup/{name} > /backup/cut.tar.gz; cp /backup/{name} /backup/other.tar.gz; "
        f"cp /backup/{name}.sha256 /backup/other.tar.gz.sha256; printf x >> /backup/other.tar.gz",
    )
    for file, words in (("cut.tar.gz", "no whole gzip archive"), ("other.tar.gz", "sha256")):
        for verb in (["verify", file], ["restore", file, "--over"]):
            ran = stack.backup_script(*verb)
            assert ran.returncode == 65 and words in ran.stderr, ran.stderr
    assert len(stack.sql("SELECT * FROM odd")) == 2
    gone = stack.backup_script("verify", "nowhere.tar.gz")
    assert gone.returncode == 66 and name in gone.stderr
    in_volume(stack, "rm /backup/cut.tar.gz /backup/other.tar.gz*")


@pytest.mark.usefixtures("rows")
def test_a_backup_by_hand_and_one_of_the_night_leave_each_other_alone(stack: Stack) -> None:
    left_by_a_kill = "/backup/nightjar-20260101T000000Z.tar.gz.partial"
    in_volume(stack, f"touch -d '3 days ago' {left_by_a_kill}")
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(made, stack)
        time.sleep(1.5)  # names are of a second
        second = pool.submit(made, stack)
        names = {first.result(), second.result()}
    assert len(names) == 2 and names <= files(stack)
    assert not any(file.endswith(".partial") for file in files(stack))


@pytest.mark.usefixtures("rows")
def test_a_dump_that_does_not_restore_as_promised_is_told(stack: Stack) -> None:
    name = made(stack)
    in_volume(
        stack,
        f'cd /scratch && tar -xzf /backup/{name} && sed -i \'/"odd"/s/"rows": 2/"rows": 3/\' manifest.json && '
        "tar -czf /backup/wrong.tar.gz manifest.json dump.sql && rm manifest.json dump.sql",
    )
    ran = stack.backup_script("verify", "wrong.tar.gz")
    in_volume(stack, "rm /backup/wrong.tar.gz")
    assert ran.returncode == 70 and "nightjar.odd has 2 rows" in ran.stderr, ran.stderr


def test_a_wrong_password_is_its_own_exit_code_and_rotates_nothing(stack: Stack) -> None:
    made(stack)
    before = files(stack)
    stack.sql("ALTER USER 'backup'@'%' IDENTIFIED BY 'another'", user="root", database="mysql")
    try:
        ran = stack.backup_script()
    finally:
        secret = stack.secret("mysql_backup")
        stack.sql(f"ALTER USER 'backup'@'%' IDENTIFIED BY '{secret}'", user="root", database="mysql")
    assert ran.returncode == 77 and "Access denied" in ran.stderr, ran.stderr
    assert files(stack) == before


SHIM = """
cat > /scratch/mysqldump << 'END'
#!/bin/sh
[ "$1" != --version ] || exec /usr/bin/mysqldump --version
{}
END
chmod +x /scratch/mysqldump
export PATH=/scratch:$PATH
"""
"""A mysqldump that goes wrong."""
WITHOUT = "ln -s /usr/*bin/* /usr/local/bin/* /scratch/ 2> /scratch/twice || :; rm /scratch/mysqldump; PATH=/scratch"


@pytest.mark.parametrize(
    ("before", "options", "code", "words"),
    [
        (SHIM.format('/usr/bin/mysqldump "$@" | head -c 2000'), (), 65, "the dump is cut"),
        (SHIM.format(":"), (), 65, "the dump is cut"),
        ("", ("-e", "NIGHTJAR_BACKUP_DATABASES=nowhere"), 65, "there is no table in nowhere"),
        (WITHOUT, (), 69, "mysqldump is not here"),
        (
            SHIM.replace("exec /usr/bin/mysqldump --version", "exec echo mysqldump Ver 8.0.40"),
            (),
            69,
            "8.0 is older than",
        ),
        (
            SHIM.format('/usr/bin/mysqldump "$@" | sed "s/^CREATE TABLE/CREATE TABEL/"'),
            (),
            70,
            "MySQL refused to restore it",
        ),
        ("", ("-e", "NIGHTJAR_MYSQLD_ARGS=--no-such-word"), 70, "the throw-away server did not start"),
        ("", ("-e", "NIGHTJAR_BACKUP=/proc"), 74, "cannot write to /proc"),
        ("", ("-e", "NIGHTJAR_MYSQL_HOST=nowhere"), 75, "nowhere:3306 does not answer"),
        ("", ("-e", "NIGHTJAR_MYSQL_PORT=1"), 75, "mysql:1 does not answer"),
    ],
)
@pytest.mark.usefixtures("good")
def test_what_fails_has_its_exit_code_and_leaves_the_older_ones(
    stack: Stack, before: str, options: tuple[str, ...], code: int, words: str
) -> None:
    there = files(stack)
    ran = stack.backup_shell(f"{before}\nexec backup_mysql.sh", "-e", "NIGHTJAR_BACKUP_DAILY=1", *options)
    assert ran.returncode == code and words in ran.stderr, ran.stderr
    now = set(in_volume(stack, "ls /backup; rm -f /backup/*.suspect").split())
    assert there <= now, "rotated"
    assert [Path(file).suffix for file in now - there] == ([".suspect"] if code == 70 else [])


@pytest.fixture(scope="module")
def good(stack: Stack) -> None:
    """A backup of today, and older ones that the next one would rotate out."""
    made(stack)
    in_volume(stack, "for day in 1 2 3; do : > /backup/nightjar-2019010${day}T010203Z.tar.gz; done")


@pytest.fixture(scope="module")
def big(stack: Stack) -> Iterator[None]:
    """A table of 32 MB, 64 in a dump."""
    stack.sql("CREATE TABLE big (id INT AUTO_INCREMENT PRIMARY KEY, bytes_ LONGBLOB)", user="nightjar")
    stack.sql("INSERT INTO big (bytes_) VALUES (repeat('x', 1000000))", user="nightjar")
    for _ in range(5):
        stack.sql("INSERT INTO big (bytes_) SELECT bytes_ FROM big", user="nightjar")
    yield
    stack.sql("DROP TABLE big", user="nightjar")


@pytest.mark.parametrize(
    ("place", "size", "words"),
    [
        ("/backup", "16k", "cannot write"),
        ("/scratch/tmp", "1m", "no room in /scratch/tmp/"),
        ("/scratch/tmp", "40m", "no room in /scratch/tmp/"),
        ("/scratch/tmp", "120m", "for the copy that a dump has to prove itself by"),
    ],
)
@pytest.mark.usefixtures("big")
def test_a_full_disk_is_told_and_leaves_the_older_ones(stack: Stack, place: str, size: str, words: str) -> None:
    older = "/backup/nightjar-20190101T010203Z.tar.gz"
    key = stack.secrets / "mysql_backup"
    ran = stack.attempt(
        *("docker", "run", "--rm", "--network", stack.project, "--user", f"{key.stat().st_uid}:0"),
        *("--volume", f"{key}:/run/secrets/mysql_backup:ro", "--tmpfs", "/backup:mode=1777"),
        *("--tmpfs", f"{place}:size={size},mode=1777", "--entrypoint", "sh"),
        *(f"nightjar/mysql-backup:{stack.environment['NIGHTJAR_VERSION']}", "-c"),
        f"echo good > {older}; backup_mysql.sh; code=$?; ls /backup; exit $code",
    )
    assert ran.returncode == 74 and words in ran.stderr, ran.stderr
    assert ran.stdout.split() == [Path(older).name]


SLOW = """
cat > /scratch/mysqldump << 'END'
#!/bin/bash
set -o pipefail
[ "$1" != --version ] || exec /usr/bin/mysqldump --version
/usr/bin/mysqldump "$@" | { head -c 5000000; sleep 10; cat; }
END
chmod +x /scratch/mysqldump
export PATH=/scratch:$PATH
"""


@pytest.mark.usefixtures("big", "good")
def test_a_connection_that_is_cut_during_the_dump_is_worth_a_retry(stack: Stack) -> None:
    there = files(stack)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(stack.backup_shell, f"{SLOW}\nexec backup_mysql.sh")
        while not running.done() and not cut(stack):
            time.sleep(0.2)
        ran = running.result()
    assert ran.returncode == 75 and "does not answer, or no more" in ran.stderr, ran.stderr
    assert files(stack) == there


def dumping(stack: Stack) -> list[int]:
    """The connections that dump the big table."""
    found = stack.sql(
        "SELECT id FROM information_schema.processlist WHERE user = 'backup' AND info LIKE 'SELECT /*!%FROM `big`'",
        user="root",
        database="mysql",
    )
    return [int(one) for (one,) in found]


def cut(stack: Stack) -> bool:
    """Whether a dump was at work on the big table, and is cut now."""
    found = dumping(stack)
    for one in found:
        stack.sql(f"KILL {one}", user="root", database="mysql")
    return bool(found)


@pytest.mark.usefixtures("big", "rows")
def test_a_table_that_is_written_during_the_dump_is_in_it_as_of_one_instant(stack: Stack) -> None:
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(stack.backup_shell, f"{SLOW}\nexec backup_mysql.sh")
        while not running.done() and not dumping(stack):
            time.sleep(0.2)
        stack.sql("INSERT INTO odd (id) VALUES (3)", user="nightjar")
        stack.sql("DELETE FROM odd WHERE id = 1", user="nightjar")
        ran = running.result()
    name = named(ran)
    manifest = json.loads(in_volume(stack, f"tar -xzOf /backup/{name} manifest.json"))
    still = {table["table"]: table["still"] for table in manifest["tables"] if table["database"] == "nightjar"}
    assert (still["odd"], still["big"]) == (False, True)
    dumped = in_volume(stack, f"tar -xzOf /backup/{name} dump.sql | grep 'INSERT INTO .odd.'")
    assert re.findall(r"[(](\d),", dumped) == ["1", "2"]


def test_rotation_keeps_days_and_weeks(stack: Stack) -> None:
    days = [f"202601{day:02}T010203Z" for day in range(1, 32)]
    in_volume(stack, "cd /backup; " + "; ".join(f": > nightjar-{day}.tar.gz" for day in days))
    newest = made(stack)
    left = {file for file in files(stack) if re.fullmatch(r"nightjar-\d{8}T\d{6}Z\.tar\.gz", file)}
    assert newest in left
    kept = sorted(file[9:17] for file in left if file.startswith("nightjar-202601"))
    # six days beside today's, and of the weeks the newest: today's, and three before
    assert kept == ["20260118", "20260125", "20260126", "20260127", "20260128", "20260129", "20260130", "20260131"]


def test_usage_is_told(stack: Stack) -> None:
    ran = stack.backup_script("restore")
    assert ran.returncode == 64 and "restore FILE" in ran.stderr
