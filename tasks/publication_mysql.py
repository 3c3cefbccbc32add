"""The published recommendations on MySQL: the tables and statements of `publication`, on a server that many share.

The password comes from the file that NIGHTJAR_RECOMMENDATIONS_PASSWORD_FILE names; a URL is shown, logged and kept.
One named lock keeps writers apart, as SQLite's write lock does; readers never wait.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

import pymysql
from pymysql.constants import CR, ER

from tasks.failures import BadConfig, CannotWrite, Unavailable
from tasks.publication import Database, Rows, Store

SCHEMA = (
    """CREATE TABLE IF NOT EXISTS generation (
        name VARCHAR(64) PRIMARY KEY, as_of BIGINT NOT NULL, night VARCHAR(64) NOT NULL, verdict VARCHAR(16) NOT NULL,
        reason TEXT NOT NULL, retriever_version VARCHAR(32) NOT NULL, ranker_version VARCHAR(32),
        default_items TEXT NOT NULL, default_scores TEXT NOT NULL,
        written BIGINT NOT NULL AUTO_INCREMENT INVISIBLE UNIQUE)""",
    """CREATE TABLE IF NOT EXISTS list (
        generation VARCHAR(64) NOT NULL, list INT NOT NULL, items TEXT NOT NULL, scores TEXT NOT NULL,
        PRIMARY KEY (generation, list))""",
    """CREATE TABLE IF NOT EXISTS visitor (
        generation VARCHAR(64) NOT NULL, visitorid BIGINT NOT NULL, list INT NOT NULL,
        PRIMARY KEY (generation, visitorid))""",
    """CREATE TABLE IF NOT EXISTS in_force (
        only INT PRIMARY KEY CHECK (only = 1), generation VARCHAR(64) NOT NULL)""",
    """CREATE VIEW IF NOT EXISTS recommendations AS
        SELECT visitorid, items, scores, generation
        FROM in_force JOIN visitor USING (generation) JOIN list USING (generation, list)""",
)
LOCK, LOCK_SECONDS = "nightjar.recommendations", 60
CONNECT_SECONDS, ANSWER_SECONDS = 10, 600
DENIED = {ER.ACCESS_DENIED_ERROR, ER.DBACCESS_DENIED_ERROR, ER.TABLEACCESS_DENIED_ERROR, ER.BAD_DB_ERROR}
FULL = {ER.DISK_FULL, ER.RECORD_FILE_FULL, 3}
PASSING = {ER.LOCK_WAIT_TIMEOUT, ER.LOCK_DEADLOCK, ER.CON_COUNT_ERROR, ER.SERVER_SHUTDOWN, ER.QUERY_INTERRUPTED} | {
    *(CR.CR_CONNECTION_ERROR, CR.CR_CONN_HOST_ERROR, CR.CR_SERVER_GONE_ERROR, CR.CR_SERVER_LOST, 0)
}
"""Errors after which the same statements may pass."""


class Connected:
    """A pymysql connection with the manners of sqlite3: question marks, and rows from `execute`."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> Rows:
        cursor = self._connection.cursor()
        cursor.execute(sql.replace("?", "%s"), parameters or None)
        rows: Rows = cursor
        return rows

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> object:
        """The driver makes statements of a megabyte of one with VALUES (…); of no rows it can make none."""
        rows = iter(parameters)
        first = list(islice(rows, 1))
        return first and self._connection.cursor().executemany(sql.replace("?", "%s"), chain(first, rows))


@dataclass(frozen=True)
class MysqlStore(Store):
    """A database of a MySQL server.  `path` is its URL as far as a path can say it; `place` is the URL."""

    user: str = ""
    host: str = ""
    port: int = 3306
    database: str = ""
    WRITTEN: ClassVar = "written"

    @classmethod
    def at(cls, url: str) -> "MysqlStore":
        """The store at mysql://user@host:port/database."""
        parts = urlsplit(url)
        shown = "mysql://user@host:3306/database"
        if parts.password is not None:
            raise BadConfig(
                f"NIGHTJAR_RECOMMENDATIONS holds a password, and it is shown to people: expected {shown}; put the "
                "password in a file and its path in NIGHTJAR_RECOMMENDATIONS_PASSWORD_FILE"
            )
        database = parts.path.strip("/")
        if not (parts.username and parts.hostname and database):
            raise BadConfig(f"NIGHTJAR_RECOMMENDATIONS = {url}: expected {shown}")
        return cls(Path(url), unquote(parts.username), parts.hostname, parts.port or 3306, database)

    @property
    def place(self) -> str:
        return f"mysql://{self.user}@{self.host}:{self.port}/{self.database}"

    def exists(self) -> bool:
        return True

    @contextmanager
    def connection(self) -> Iterator[Database]:
        """A connection that commits nothing by itself, to a database whose tables are there."""
        with self._translated():
            raw = pymysql.connect(
                user=self.user,
                password=_password(),
                host=self.host,
                port=self.port,
                database=self.database,
                charset="utf8mb4",
                connect_timeout=CONNECT_SECONDS,
                read_timeout=ANSWER_SECONDS,
                write_timeout=ANSWER_SECONDS,
                autocommit=True,  # a transaction begins and ends where the store says so
            )
            try:
                db = Connected(raw)
                for statement in SCHEMA:
                    db.execute(statement)
                yield db
            finally:
                with suppress(pymysql.Error, OSError):
                    raw.close()

    @contextmanager
    def transaction(self, db: Database) -> Iterator[None]:
        """All or nothing; one writer at a time.  The server takes both back when the connection is lost."""
        (locked,) = db.execute(f"SELECT get_lock('{LOCK}', {LOCK_SECONDS})").fetchone()
        if not locked:
            raise Unavailable(f"{self.place}: another writer has held it for {LOCK_SECONDS} s; try again later")
        db.execute("START TRANSACTION")
        try:
            yield
        except BaseException:
            with suppress(pymysql.Error, OSError):  # a lost connection has rolled back already
                db.execute("ROLLBACK")
                db.execute(f"DO release_lock('{LOCK}')")
            raise
        db.execute("COMMIT")
        db.execute(f"DO release_lock('{LOCK}')")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """The driver's errors as failures of a task: each with its exit class."""
        try:
            yield
        except pymysql.Error as error:
            code, said = (*error.args, "", "")[:2]
            what = f"{self.place}: {said or code} (MySQL error {code})"
            if code in DENIED:
                raise BadConfig(f"{what}; is it the right password file, has this user the rights?") from None
            if code in FULL:
                raise CannotWrite(f"{what}; the old generation is in force; make room on the server") from None
            if code in PASSING or isinstance(error, pymysql.err.InterfaceError):
                raise Unavailable(f"{what}; the old generation is in force, and a retry writes anew") from None
            raise


def _password() -> str:
    name = "NIGHTJAR_RECOMMENDATIONS_PASSWORD_FILE"
    path = os.environ.get(name, "")
    if not path:
        raise BadConfig(f"{name} is not set: expected the path of a file that holds the password alone")
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise BadConfig(f"{name} = {path}: {error.strerror}; expected a file that this process may read") from None
