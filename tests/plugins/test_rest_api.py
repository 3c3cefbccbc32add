import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from nightjar import rest_api
from nightjar.command_line import Refused

LOCKED = {"detail": "Database is locked. Backfill creation is not supported on SQLite under concurrent access."}


@contextmanager
def answering(home: Path, *answers: int) -> Iterator[list[str]]:
    """A server that says so, one after another, to what follows the login; yields the paths that were asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            login = self.path == "/auth/token"
            code = 201 if login else answers[min(len(asked), len(answers) - 1)]
            if not login:
                asked.append(self.path)
            body = json.dumps({"access_token": "t"} if login else {"id": 7} if code == 200 else LOCKED).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        (home / "airflow").mkdir()
        (home / "secrets").mkdir()
        (home / "airflow" / "up.airflow").write_text(f"http://127.0.0.1:{server.server_port}\n")
        (home / "secrets" / "passwords.json").write_text('{"admin": "secret"}')
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield asked
        finally:
            server.shutdown()
            thread.join()


def test_a_database_that_is_locked_for_a_moment_is_asked_again(tmp_path: Path) -> None:
    with answering(tmp_path, 503, 200) as asked:
        assert rest_api.Airflow(tmp_path).rest("POST", "/backfills", {}) == {"id": 7}
    assert asked == ["/api/v2/backfills"] * 2


def test_a_database_that_stays_locked_is_told_in_airflows_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest_api, "BUSY_SECONDS", 0.5)
    with answering(tmp_path, 503) as asked, pytest.raises(Refused, match="answers 503: Database is locked"):
        rest_api.Airflow(tmp_path).rest("POST", "/backfills", {})
    assert len(asked) > 1


def test_a_refusal_is_not_asked_again(tmp_path: Path) -> None:
    with answering(tmp_path, 409) as asked, pytest.raises(Refused, match="answers 409"):
        rest_api.Airflow(tmp_path).rest("POST", "/backfills", {})
    assert len(asked) == 1
