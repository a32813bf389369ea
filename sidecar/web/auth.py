"""Who may use the API: whoever sends the admin token. Over the control socket the file's permission is the guard."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import wraps
from hashlib import sha256
from hmac import compare_digest

from aiohttp import hdrs, web

from sidecar.web.problem import problem

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Guard = Callable[[Handler], Handler]


def bearer_guard(token: str) -> Guard:
    """Let only those pass who send this token as ``Authorization: Bearer``."""
    expected = _digest(token)

    def guard(handler: Handler) -> Handler:
        @wraps(handler)
        async def guarded(request: web.Request) -> web.StreamResponse:
            if not (sent := bearer_of(request)):
                detail = "send the admin token: Authorization: Bearer <token>; `sidecar token --admin` prints it"
                return problem(401, detail, headers={hdrs.WWW_AUTHENTICATE: "Bearer"})
            if not compare_digest(_digest(sent), expected):
                return problem(403, "this is not the admin token")
            return await handler(request)

        return guarded

    return guard


def bearer_of(request: web.Request) -> str:
    """Give the bearer token that was sent; empty where none was."""
    scheme, _, sent = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    return sent.strip() if scheme.lower() == "bearer" else ""


def is_one_of(sent: str, tokens: Iterable[str]) -> bool:
    """Say whether a token is among these, in a time that does not tell which."""
    # All are compared, whichever it is.
    return sum(compare_digest(_digest(sent), _digest(token)) for token in tokens) > 0


def _digest(token: str) -> bytes:
    # Compared as digests, so that time tells neither where a wrong one differs nor how long the right one is.
    # Bytes that are no text arrive as surrogates; they are compared like any others.
    return sha256(token.encode(errors="surrogateescape")).digest()


def open_guard(handler: Handler) -> Handler:
    """Let everybody pass: on a socket whose file only its owner can open."""
    return handler
