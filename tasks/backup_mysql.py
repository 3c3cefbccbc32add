"""Backs the MySQL database up; a night that publishes to SQLite has none."""

from tasks import publication
from tasks.contracts import Backup, BackupMysqlConfig
from tasks.failures import Skipped
from tasks.tracking import TaskRun


def backup_mysql(config: BackupMysqlConfig, run: TaskRun) -> Backup:
    """Says that there is nothing for MySQL to back up: the embedded runs publish to an SQLite file."""
    raise Skipped(
        f"this night publishes to SQLite ({publication.store().place}), there is no MySQL to back up; "
        "copying that file is its backup"
    )
