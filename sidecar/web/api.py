"""The API: a thin skin over `control_port.Control`, for the command line, the UI and programs.

It decides nothing. Every answer that is no success is a problem body, and says nothing of us that the client need not
know.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import wraps

import structlog
from aiohttp import hdrs, web
from pydantic import BaseModel, ValidationError

from sidecar.control_port import Control
from sidecar.errors import Refused, Transient
from sidecar.web.auth import Guard, Handler
from sidecar.web.events import EventStream, send_events
from sidecar.web.problem import problem
from sidecar.web.views import (
    HistoryView,
    PlanView,
    ReleaseView,
    ShowView,
    TargetsView,
    UpdateRequest,
    UpdateView,
    WrongCredentialsView,
)

PREFIX = "/api/v1"
# A body says one reference; a query of the history this many rows.
LARGEST_BODY_BYTES = 4096
MOST_ROWS = 1000
_USUAL_ROWS = 50

log = structlog.get_logger()


def api_routes(control: Control, stream: EventStream, guard: Guard) -> list[web.RouteDef]:
    """Give the API's routes, each behind the guard."""
    api = _Api(control, stream)
    table: tuple[tuple[str, str, Handler], ...] = (
        (hdrs.METH_GET, "/targets", api.targets),
        (hdrs.METH_GET, "/show", api.show),
        (hdrs.METH_GET, "/plan", api.plan),
        (hdrs.METH_POST, "/updates", api.update),
        (hdrs.METH_POST, "/releases", api.release),
        (hdrs.METH_GET, "/history", api.history),
        (hdrs.METH_GET, "/wrong-credentials", api.wrong_credentials),
        (hdrs.METH_GET, "/events", api.events),
    )
    return [web.route(method, PREFIX + path, told(guard(handler))) for method, path, handler in table]


def under(prefix: str, routes: Iterable[web.RouteDef]) -> list[web.RouteDef]:
    """Give routes as they are, and again below a prefix: proxies cut it off or pass it on."""
    routes = list(routes)
    if not prefix:
        return routes
    return [*routes, *(web.route(route.method, prefix + route.path, route.handler, **route.kwargs) for route in routes)]


class _Api:
    def __init__(self, control: Control, stream: EventStream) -> None:
        self._control = control
        self._stream = stream

    async def targets(self, _request: web.Request) -> web.Response:
        looked, unmanaged = await self._control.targets()
        return view_response(TargetsView.of(looked, unmanaged))

    async def show(self, request: web.Request) -> web.Response:
        if not (target := request.query.get("target")):
            return problem(422, "target is missing; a target, its name, a reference or a Compose service is accepted")
        shown = await self._control.show(target, with_spec=request.query.get("spec") == "true")
        return view_response(ShowView.of(shown))

    async def plan(self, request: web.Request) -> web.Response:
        return view_response(PlanView.of(await self._control.plan(request.query.get("ref") or None)))

    async def update(self, request: web.Request) -> web.Response:
        match await _read_what(request):
            case str() as what:
                delivery_id, target_ids = await self._control.update(what)
                return view_response(UpdateView(delivery=delivery_id, targets=target_ids), status=202)
            case response:
                return response

    async def release(self, request: web.Request) -> web.Response:
        match await _read_what(request):
            case str() as what:
                delivery_id, released = await self._control.release(what)
                return view_response(ReleaseView(delivery=delivery_id, released=released), status=202)
            case response:
                return response

    async def history(self, request: web.Request) -> web.Response:
        text = request.query.get("limit", str(_USUAL_ROWS))
        if not (text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= MOST_ROWS):
            return problem(422, f"limit is {text[:40]!r}; a whole number from 1 to {MOST_ROWS} is accepted")
        history = await self._control.history(limit=int(text), target_id=request.query.get("target") or None)
        return view_response(HistoryView.of(history, with_bodies=request.query.get("bodies") == "true"))

    async def wrong_credentials(self, _request: web.Request) -> web.Response:
        return view_response(WrongCredentialsView.of(self._control.wrong_credentials()))

    async def events(self, request: web.Request) -> web.StreamResponse:
        return await send_events(request, self._stream)


async def _read_what(request: web.Request) -> str | web.Response:
    """Read which targets are meant; or make the answer that says what is wrong with the body."""
    if (body := await _read(request)) is None:
        return problem(413, f"at most {LARGEST_BODY_BYTES} bytes are accepted")
    try:
        return UpdateRequest.model_validate_json(body).what
    except ValidationError as error:
        return problem(422, _expected(error))


async def _read(request: web.Request) -> bytes | None:
    """Read a body that is not too large; None when it is, whatever it says of itself."""
    body = b""
    while len(body) <= LARGEST_BODY_BYTES:
        if not (more := await request.content.read(LARGEST_BODY_BYTES + 1)):
            return body
        body += more
    return None


def view_response(body: BaseModel, *, status: int = 200) -> web.Response:
    """Answer with a model."""
    return web.Response(
        status=status,
        body=body.model_dump_json().encode(),
        content_type="application/json",
        headers={hdrs.CACHE_CONTROL: "no-store"},
    )


def _expected(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f'expected {{"what": "<image reference or target id>"}}; {place}: {first["msg"]}'


def told(handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Turn what a handler raises into a problem body; what nobody foresaw is logged, and the client told nothing."""

    @wraps(handler)
    async def told(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except Refused as error:
            return problem(404, str(error))
        except Transient as error:
            seconds = max(1, round(error.retry_after_seconds or 5))
            return problem(503, str(error), headers={hdrs.RETRY_AFTER: str(seconds)})
        except web.HTTPException:
            raise
        except Exception:
            resource = request.match_info.route.resource
            log.exception("request.failed", method=request.method, route=resource.canonical if resource else "")
            return problem(500, "a defect of Sidecar; its log says more")

    return told
