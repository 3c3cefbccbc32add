"""What the views in Airflow's UI share: a page without scripts, and an application that wants a login.

Airflow serves a plugin's application to anybody who asks: every route of these wants a person who may read DAGs.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from functools import cache
from html import escape
from typing import Any

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'self'; frame-ancestors 'self'"
HEADERS = {"Content-Security-Policy": POLICY}
STYLE = (
    ":root { color-scheme: light dark } body { font: 15px/1.5 system-ui, sans-serif; margin: 1.5rem }"
    " table { border-collapse: collapse } th, td { text-align: left; padding: .3rem 1rem .3rem 0; vertical-align: top;"
    " border-bottom: 1px solid #8886 } td { font-variant-numeric: tabular-nums } td small { display: block }"
)

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


def page(title: str, body: str) -> str:
    """A whole page; body: HTML."""
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    return f"<!DOCTYPE html>{head}<h1>{escape(title)}</h1>{body}"


def application(add_routes: Callable[[Any], None]) -> Application:
    """What Airflow mounts.

    Made at the first request: each process of Airflow reads the file of a view, and only one serves pages.
    """

    @cache
    def made() -> Any:
        from airflow.api_fastapi.core_api.security import requires_access_dag
        from fastapi import Depends, FastAPI

        found = FastAPI(
            dependencies=[Depends(requires_access_dag("GET"))], docs_url=None, redoc_url=None, openapi_url=None
        )
        add_routes(found)
        return found

    async def answer(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        await made()(scope, receive, send)

    return answer
