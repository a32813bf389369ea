"""Who may use the API: whoever sends the admin token. Over the control socket the file's permission is the guard."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from hashlib import sha256
from hmac import compare_digest

from aiohttp import hdrs, web

from sidecar.web.problem import problem

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Guard = Callable[[Handler], Handler]


def bearer_guard(token: str) -> Guard:
    """Let only those pass who send this token as ``Authorization: Bearer``."""
    # Compared as digests, so that time tells neither where a wrong one differs nor how long the right one is.
    expected = sha256(token.encode()).digest()

    def guard(handler: Handler) -> Handler:
        @wraps(handler)
        async def guarded(request: web.Request) -> web.StreamResponse:
            scheme, _, sent = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
            if scheme.lower() != "bearer" or not sent.strip():
                detail = "send the admin token: Authorization: Bearer <token>; `sidecar token --admin` prints it"
                return problem(401, detail, headers={hdrs.WWW_AUTHENTICATE: "Bearer"})
            # Bytes that are no text arrive as surrogates; they are compared like any others.
            if not compare_digest(sha256(sent.strip().encode(errors="surrogateescape")).digest(), expected):
                return problem(403, "this is not the admin token")
            return await handler(request)

        return guarded

    return guard


def open_guard(handler: Handler) -> Handler:
    """Let everybody pass: on a socket whose file only its owner can open."""
    return handler
