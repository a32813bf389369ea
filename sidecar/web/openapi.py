"""The API's own description, from the models that its bodies are made and read with, and a page that shows it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from html import escape
from typing import Any

from aiohttp import hdrs, web
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from sidecar.sources.distribution import Envelope
from sidecar.sources.dockerhub import Push
from sidecar.sources.generic import Images
from sidecar.web.api import MOST_ROWS, PREFIX
from sidecar.web.pages import html_page
from sidecar.web.views import (
    HistoryView,
    PlanView,
    ReleaseView,
    ScanView,
    ShowView,
    SkippedScanView,
    TargetsView,
    UpdateRequest,
    UpdateView,
    WrongCredentialsView,
)
from sidecar.web.watchtower import METRICS, UPDATE

Json = dict[str, Any]

_MEDIA_TYPES = {PREFIX + "/events": "text/event-stream", METRICS: "text/plain"}
_SCHEMAS = "#/components/schemas/"
_PROBLEM: Json = {
    "type": "object",
    "description": "What went wrong (RFC 9457).",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
    },
}
_HOOK_ANSWER: Json = {
    "type": "object",
    "description": "The delivery is kept; it names what is looked up, or says why nothing follows from it.",
    "properties": {
        "delivery": {"type": "string"},
        "hints": {"type": "array", "items": {"type": "string"}},
        "ignored": {"type": "string"},
    },
    "required": ["delivery"],
}
_HOOK_FAILURES = {401: "no credential", 403: "a wrong one", 404: "unknown source", 413: "too large", 422: "unreadable"}
_API_FAILURES = {401: "no token", 403: "a wrong one", 503: "the engine or the journal is out of reach"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Operation:
    """One thing that can be asked."""

    method: str
    path: str
    summary: str
    status: int = 200
    answer: Json
    sent: Json | None = None
    parameters: tuple[Json, ...] = ()
    failures: Mapping[int, str]
    needs_token: bool = False


def openapi(title: str, *, version: str, root_path: str = "", watchtower: bool = False) -> Json:
    """Describe the API as OpenAPI 3.1 has it; Watchtower's too where that is served."""
    models: list[type[BaseModel]] = [
        TargetsView,
        ShowView,
        PlanView,
        UpdateRequest,
        UpdateView,
        ReleaseView,
        HistoryView,
        WrongCredentialsView,
        Push,
        Envelope,
        Images,
        *((ScanView, SkippedScanView) if watchtower else ()),
    ]
    _, definitions = models_json_schema([(model, "validation") for model in models], ref_template=_SCHEMAS + "{model}")
    paths: dict[str, Json] = {}
    for operation in (*_operations(), *(_watchtower() if watchtower else ())):
        paths.setdefault(operation.path, {})[operation.method] = _described(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version},
        "servers": [{"url": root_path or "/"}],
        "paths": paths,
        "components": {
            "schemas": {**definitions["$defs"], "Problem": _PROBLEM, "HookAnswer": _HOOK_ANSWER},
            "securitySchemes": {"adminToken": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operations() -> Iterator[_Operation]:
    yield from _hooks()
    yield from _looks()
    yield from _acts()


_api = partial(_Operation, failures=_API_FAILURES, needs_token=True)


def _looks() -> Iterator[_Operation]:
    """Describe what shows targets and changes nothing."""
    api, text = _api, {"type": "string"}
    yield api(
        method="get", path=PREFIX + "/targets", summary="What is managed, and what is not", answer=_ref("TargetsView")
    )
    flag = {"type": "boolean"}
    yield api(
        method="get",
        path=PREFIX + "/show",
        summary="All that is known of a target",
        answer=_ref("ShowView"),
        parameters=(
            _query("target", text, "A target, its name, a reference, or a Compose service.") | {"required": True},
            _query("spec", flag, "With what makes its container again, the secrets of its environment included."),
        ),
    )
    yield api(
        method="get",
        path=PREFIX + "/plan",
        summary="What would be done now",
        answer=_ref("PlanView"),
        parameters=(_query("ref", text, "An image reference, a target, or a Compose service; all without it."),),
    )


def _acts() -> Iterator[_Operation]:
    """Describe what is asked for, and what came of it."""
    api = _api
    yield api(
        method="post",
        path=PREFIX + "/updates",
        summary="Look at targets now, and update those that are due",
        status=202,
        answer=_ref("UpdateView"),
        sent=_ref("UpdateRequest"),
    )
    yield api(
        method="post",
        path=PREFIX + "/releases",
        summary="Forget which digests failed on targets, and look at them now",
        status=202,
        answer=_ref("ReleaseView"),
        sent=_ref("UpdateRequest"),
    )
    yield from _memory(api)


def _memory(api: Callable[..., _Operation]) -> Iterator[_Operation]:
    """Describe what is asked of what happened, and of what happens."""
    text = {"type": "string"}
    rows = {"type": "integer", "minimum": 1, "maximum": MOST_ROWS, "default": 50}
    yield api(
        method="get",
        path=PREFIX + "/history",
        summary="What happened of late, newest first",
        answer=_ref("HistoryView"),
        parameters=(
            _query("limit", rows, "At most so many of each."),
            _query("target", text, "Only of this target, or of those of this Compose service."),
            _query("bodies", {"type": "boolean"}, "With the bodies as received."),
        ),
    )
    yield api(
        method="get",
        path=PREFIX + "/wrong-credentials",
        summary="Which sources were sent a wrong credential since the start, and how often",
        answer=_ref("WrongCredentialsView"),
    )
    yield api(
        method="get",
        path=PREFIX + "/events",
        summary="What happens, as server-sent events; resumable by Last-Event-ID",
        answer={"type": "string"},
    )


def _hooks() -> Iterator[_Operation]:
    """Describe what senders and probes ask, which needs no admin token."""
    hook = partial(_Operation, method="post", status=202, answer=_ref("HookAnswer"), failures=_HOOK_FAILURES)
    bodies = {"anyOf": [_ref("Push"), _ref("Envelope"), _ref("Images")]}
    source, token = _in_path("source"), _in_path("token")
    yield hook(path="/hooks/{source}/{token}", summary="A registry's webhook", sent=bodies, parameters=(source, token))
    yield hook(path="/hooks/{source}", summary="The same, of a sender with a header", sent=bodies, parameters=(source,))
    required = _query("token", {"type": "string"}, "The token of webhook addresses.") | {"required": True}
    yield hook(path="/", summary="Docker Hub's webhook at the root", sent=_ref("Push"), parameters=(required,))
    status = {"type": "object", "properties": {"status": {"type": "string"}}}
    probe = partial(_Operation, method="get", answer=status)
    ping: Json = {"type": "object", "properties": {"ping": {"const": "pong"}}}
    yield _Operation(method="get", path="/", summary="The ping", answer=ping, failures={})
    yield probe(path="/healthz", summary="Whether it lives", failures={})
    yield probe(path="/readyz", summary="Whether it can do its work", failures={503: "which part is not well"})


def _watchtower() -> Iterator[_Operation]:
    """Describe Watchtower's API."""
    text = {"type": "string"}
    failures = {401: "no token of these", 408: "it goes on", 422: "timeout is unreadable", 503: _API_FAILURES[503]}
    parameters = (
        _query("image", text, "Images, with their tag or of every tag, between commas or repeated."),
        _query("container", text, "Names of containers or Compose services, between commas or repeated."),
        _query("async", {"type": "boolean"}, "Answer 202 at once."),
        _query("timeout", text, "Answer 408 after this time (90s, 5m); what was asked for goes on."),
    )
    update = partial(_Operation, path=UPDATE, answer=_ref("ScanView"), parameters=parameters, needs_token=True)
    for method in ("get", "post"):
        summary = "Watchtower's: look at images, or at everything, and answer when that is over"
        yield update(method=method, summary=summary, failures=failures | {429: "everything, while another call waits"})
    yield _Operation(
        method="get",
        path=METRICS,
        summary="Watchtower's metrics, for Prometheus",
        answer=text,
        failures={401: "no token of these"},
        needs_token=True,
    )


def _described(operation: _Operation) -> Json:
    problem = {"application/problem+json": {"schema": _ref("Problem")}}
    media_type = _MEDIA_TYPES.get(operation.path, "application/json")
    described: Json = {
        "summary": operation.summary,
        "responses": {
            str(operation.status): {"description": "Done", "content": {media_type: {"schema": operation.answer}}},
            **{str(status): {"description": why, "content": problem} for status, why in operation.failures.items()},
        },
    }
    if operation.parameters:
        described["parameters"] = list(operation.parameters)
    if operation.sent is not None:
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": operation.sent}}}
    if operation.needs_token:
        described["security"] = [{"adminToken": []}]
    return described


def _ref(name: str) -> Json:
    return {"$ref": _SCHEMAS + name}


def _query(name: str, schema: Json, description: str) -> Json:
    return {"name": name, "in": "query", "schema": schema, "description": description}


def _in_path(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def docs_routes(title: str, *, version: str, root_path: str = "", watchtower: bool = False) -> list[web.RouteDef]:
    """Give the routes of the description; it says nothing of what is managed, so it needs no token."""
    document = openapi(title, version=version, root_path=root_path, watchtower=watchtower)

    async def serve_document(_request: web.Request) -> web.Response:
        return web.json_response(document, headers={hdrs.CACHE_CONTROL: "no-store"})

    async def serve_page(_request: web.Request) -> web.Response:
        return html_page(title, _rendered(document))

    return [web.get("/openapi.json", serve_document), web.get("/docs", serve_page)]


def _rendered(document: Json) -> str:
    """Show the description as HTML that needs nothing from anywhere."""
    rows = [
        f"<tr><td>{escape(method.upper())}</td><td><code>{escape(path)}</code></td>"
        f"<td>{escape(operation['summary'])}</td><td>{escape(', '.join(operation['responses']))}</td></tr>"
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]
    schemas = [
        f'<h3 id="{escape(name)}">{escape(name)}</h3>\n<pre>{escape(json.dumps(schema, indent=2))}</pre>'
        for name, schema in sorted(document["components"]["schemas"].items())
    ]
    title = escape(f"{document['info']['title']} {document['info']['version']}")
    return (
        f'<h1>{title}</h1>\n<p>As <a href="openapi.json">OpenAPI</a>.</p>\n'
        f"<table><tr><th>Method</th><th>Path</th><th></th><th>Answers</th></tr>\n{chr(10).join(rows)}</table>\n"
        f"<h2>Bodies</h2>\n{chr(10).join(schemas)}"
    )
