"""What everybody may see: that it lives, whether it is ready, the ping, and one page for a browser."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape

from aiohttp import hdrs, web

from sidecar.control_port import Control

PING = {"ping": "pong"}
# The pages need nothing from anywhere, so a browser is told to fetch nothing.
PAGE_HEADERS: Mapping[str, str] = {
    hdrs.CONTENT_TYPE: "text/html; charset=utf-8",
    hdrs.CACHE_CONTROL: "no-store",
    hdrs.VARY: hdrs.ACCEPT,
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse }} td, th {{ text-align: left; padding: .2rem 1rem .2rem 0; vertical-align: top }}
pre {{ overflow-x: auto }}</style>
</head>
<body>
{body}
</body>
</html>
"""


def page_routes(control: Control, *, title: str, env: str) -> list[web.RouteDef]:
    """Give the routes that need no token."""
    pages = _Pages(control, title=title, env=env)
    return [
        web.get("/", pages.root),
        web.get("/healthz", pages.live),
        web.get("/readyz", pages.ready),
    ]


def html_page(title: str, body: str) -> web.Response:
    """Make a page that needs nothing from anywhere; the body is HTML."""
    return web.Response(text=_PAGE.format(title=escape(title), body=body), headers=PAGE_HEADERS)


class _Pages:
    def __init__(self, control: Control, *, title: str, env: str) -> None:
        self._control = control
        self._title = title
        self._env = env

    async def root(self, request: web.Request) -> web.Response:
        """Answer the ping, or a browser with a page."""
        if "text/html" not in request.headers.get(hdrs.ACCEPT, ""):
            return _json(PING)
        heading = escape(f"{self._title} ({self._env})" if self._env else self._title)
        return html_page(self._title, f"<h1>{heading}</h1>\n<p>Sidecar runs here and waits for webhooks.</p>")

    async def live(self, _request: web.Request) -> web.Response:
        """Say that the process serves."""
        return _json({"status": "alive"})

    async def ready(self, _request: web.Request) -> web.Response:
        """Say whether it can do its work, and which part cannot."""
        if unwell := await self._control.ready():
            return _json({"status": "not ready", "parts": dict(unwell)}, status=503)
        return _json({"status": "ready"})


def _json(body: Mapping[str, object], *, status: int = 200) -> web.Response:
    return web.Response(
        status=status,
        text=json.dumps(body),
        content_type="application/json",
        headers={hdrs.CACHE_CONTROL: "no-store", hdrs.VARY: hdrs.ACCEPT},
    )
