"""The description of the API, and the page that shows it."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from sidecar.web.api import api_routes, under
from sidecar.web.auth import open_guard
from sidecar.web.events import EventStream
from sidecar.web.openapi import docs_routes, openapi
from sidecar.web.pages import page_routes
from sidecar.web.watchtower import Scans, watchtower_routes
from tests.fakes import FakeClock
from tests.web.fake_control import FakeControl
from tests.web.receiving import World


def _references(value: Any) -> Iterator[str]:
    match value:
        case {"$ref": str(reference)}:
            yield reference
        case dict():
            for item in value.values():
                yield from _references(item)
        case list():
            for item in value:
                yield from _references(item)


@pytest.mark.parametrize("watchtower", [False, True])
def test_every_route_is_described(watchtower: bool):
    """What is served is described, and nothing else is; Watchtower's API where it is served."""
    served = [
        *World().receiver().routes(),
        *page_routes(FakeControl(), title="", env=""),
        *api_routes(FakeControl(), EventStream(), open_guard),
    ]
    if watchtower:
        guards = {"update_guard": open_guard, "metrics_guard": open_guard}
        served += watchtower_routes(FakeControl(), Scans(), clock=FakeClock(), **guards)
    document = openapi("Sidecar", version="1", watchtower=watchtower)
    described = {(method.upper(), path) for path, operations in document["paths"].items() for method in operations}
    assert described == {(route.method, route.path) for route in served}


def test_every_reference_leads_somewhere():
    """The description is whole: no schema is missing."""
    document = openapi("Sidecar", version="1", watchtower=True)
    names = {reference.removeprefix("#/components/schemas/") for reference in _references(document)}
    assert names <= set(document["components"]["schemas"])


def test_only_the_api_needs_the_token():
    """Hooks and probes have no admin token, everything below an API's prefix does."""
    document = openapi("Sidecar", version="1", root_path="/sidecar", watchtower=True)
    guarded = {
        path for path, operations in document["paths"].items() for each in operations.values() if each.get("security")
    }
    assert guarded == {path for path in document["paths"] if path.startswith(("/api/", "/v1/"))}
    assert document["servers"] == [{"url": "/sidecar"}]


@pytest.mark.parametrize("prefix", ["", "/sidecar"])
async def test_the_page_needs_nothing_from_elsewhere(prefix: str):
    """The documentation is one page without a foreign host, under the root path too."""
    app = web.Application()
    app.add_routes(under(prefix, docs_routes("<Mine>", version="1", root_path=prefix)))
    async with TestClient(TestServer(app)) as client:
        async with client.get(prefix + "/docs") as response:
            page = await response.text()
        async with client.get(prefix + "/openapi.json") as response:
            assert json.loads(await response.text())["info"]["title"] == "<Mine>"
    assert "&lt;Mine&gt;" in page
    assert "/hooks/{source}/{token}" in page
    assert not re.findall(r"(?:src|href|action)=[\"']?(?:https?:)?//", page)
