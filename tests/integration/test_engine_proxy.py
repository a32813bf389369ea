"""The proxy before the engine: it is not noticed until a call goes wrong, and then exactly as told."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from tests.integration.engine_proxy import EngineProxy, Fault
from tests.testbed import images
from tests.testbed.api import Api, ApiError
from tests.testbed.engine import Engine
from tests.testbed.registry import Registry

BODY = {"Image": "base:1", "Cmd": ["sleep", "60"]}


@pytest.fixture
def proxy(engine_26: Engine, tmp_path: Path) -> Iterator[EngineProxy]:
    """A proxy before an engine that has an image."""
    images.load(engine_26, images.base(), "base:1")
    made = EngineProxy(engine_26.socket, tmp_path / "engine.sock")
    yield made
    made.close()


def test_calls_pass_and_those_that_change_something_are_known_by_name(
    engine_26: Engine, proxy: EngineProxy, registry: Callable[..., Registry]
) -> None:
    """Connections used again, pulls in chunks, answers without a body; a container is named as at that moment."""
    shared = registry()
    images.push(shared, images.base(), "base:2")
    through = {"env": {"DOCKER_HOST": proxy.host}}
    engine_26.docker("pull", shared.reference("base:2"), **through)
    engine_26.docker("run", "--detach", "--name=web", *("base:1", "sleep", "60"), **through)
    engine_26.docker("rename", "web", "old", **through)
    engine_26.docker("stop", "--time=0", "old", **through)
    engine_26.docker("tag", "base:1", "mine:2", **through)
    engine_26.docker("rmi", "mine:2", **through)
    engine_26.docker("rm", "old", **through)
    assert proxy.calls == [
        f"POST pull {shared.reference('base')}",
        "POST create web",
        "POST start web",
        "POST rename old",
        "POST stop old",
        "POST tag mine:2",
        "DELETE image",
        "DELETE old",
    ]
    assert engine_26.api.get("/containers/json", all=True) == []


def test_a_stream_passes_as_it_comes(engine_26: Engine, proxy: EngineProxy) -> None:
    """An event is there while the stream is open."""
    connection = socket.socket(socket.AF_UNIX)
    with connection, connection.makefile("rb") as answer:
        connection.connect(str(proxy.path))
        # From a second ago on: the engine begins to answer before it listens.
        connection.sendall(b"GET /events?since=%d HTTP/1.1\r\nHost: engine\r\n\r\n" % (time.time() - 1))
        assert answer.readline().endswith(b"200 OK\r\n")
        engine_26.api.post("/containers/create", BODY, name="streamed")
        assert any(b'"name":"streamed"' in line for line in iter(answer.readline, b""))


@pytest.mark.parametrize("fault, is_made", [(Fault.CALL_LOST, False), (Fault.ANSWER_LOST, True)])
def test_the_line_is_cut_before_or_after_the_chosen_call(
    engine_26: Engine, proxy: EngineProxy, fault: Fault, is_made: bool
) -> None:
    """The caller gets no answer, and the engine has done it or never heard of it; other calls pass."""
    acts: list[Any] = []
    api = Api(proxy.path)
    api.post("/containers/create", BODY, name="first")
    proxy.arm(2, fault, lambda: acts.append(engine_26.api.get("/containers/json", all=True)))
    with pytest.raises((HTTPException, OSError)):
        api.post("/containers/create", BODY, name="second")
    assert proxy.sprung.is_set()
    assert [len(seen) for seen in acts] == [2 if is_made else 1]
    api.post("/containers/create", BODY, name="third")
    assert len(engine_26.api.get("/containers/json", all=True)) == (3 if is_made else 2)


def test_a_refused_call_is_an_error_and_the_connection_goes_on(proxy: EngineProxy) -> None:
    """The caller reads a message, and nothing was done."""
    proxy.arm(1, Fault.REFUSED)
    with pytest.raises(ApiError, match="refused by the proxy") as refused:
        Api(proxy.path).post("/containers/create", BODY, name="web")
    assert refused.value.status == 500
    assert Api(proxy.path).get("/containers/json", all=True) == []
