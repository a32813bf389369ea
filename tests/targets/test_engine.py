"""The engine's answers and faults, played by a small server on a socket."""

import asyncio
import base64
import gc
import json
import os
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from aiohttp import web
from docker import APIClient

from sidecar.errors import Misconfigured, Refused, Transient, Unreachable
from sidecar.targets._engine import Engine, EngineError, NameConflict
from sidecar.targets._session import Session
from sidecar.targets._wire import Wire

DATE = "Wed, 07 Oct 2026 08:00:00 GMT"
DATE_SECONDS = 1791360000.0
DIGEST = "sha256:" + "0" * 64
VERSION = {"ApiVersion": "1.45", "Os": "linux", "Arch": "amd64"}

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class FakeEngine:
    """Answers by a table of method and path, and notes what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "engine.sock"
        self.answers: dict[str, Answer] = {}
        self.says("GET /version", body=VERSION)
        self.asked: list[str] = []
        self.requests: list[web.Request] = []
        self.bodies: list[bytes] = []
        self.hang_ups = asyncio.Semaphore(0)
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def may_be_used_by(self, mode: int) -> None:
        self.socket.chmod(mode)

    def says(self, call: str, status: int = 200, body: Any = None, **headers: str) -> None:
        self.sends(call, status, json.dumps(body), **headers)

    def sends(self, call: str, status: int = 200, text: str | None = None, **headers: str) -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            return web.Response(status=status, text=text, headers=named)

        self.answers[call] = answer

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0)
        await self._runner.setup()
        await web.UnixSite(self._runner, str(self.socket)).start()

    async def listen(self) -> int:
        assert self._runner is not None
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        return int(self._runner.addresses[-1][1])

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self.socket.unlink(missing_ok=True)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        call = f"{request.method} {request.path}"
        self.asked.append(call)
        self.requests.append(request)
        self.bodies.append(await request.read())
        if call not in self.answers:
            return web.json_response({"message": "page not found"}, status=404)
        try:
            return await self.answers[call](request)
        except (asyncio.CancelledError, ConnectionError):
            self.hang_ups.release()
            raise


class BrokenClient:
    """A client that meets an error of the operating system, wrapped as requests wraps it."""

    base_url = "http+docker://localhost"

    def __init__(self, cause: OSError) -> None:
        self._cause = cause

    def request(self, *args: object, **kwargs: object) -> requests.Response:
        try:
            raise self._cause
        except OSError as error:
            raise requests.ConnectionError from error

    def close(self) -> None:
        """Nothing is open."""


def lines(*events: object, then: Callable[[web.Request], Awaitable[None]] | None = None) -> Answer:
    """Answer one JSON object a line, then do something with the connection that is open."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for event in events:
            await response.write(event if isinstance(event, bytes) else json.dumps(event).encode() + b"\r\n")
        if then is not None:
            await then(request)
        return response

    return answer


async def cut(request: web.Request) -> None:
    assert request.transport is not None
    request.transport.abort()


async def hang(request: web.Request) -> None:
    await asyncio.Event().wait()


async def hang_at_once(request: web.Request) -> web.StreamResponse:
    await hang(request)
    return web.Response()


def raw(piece: bytes, *, count: int) -> Answer:
    """Answer as the engine does to the start of a command: with neither a length nor chunks, until it is over."""

    async def answer(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n")
        for _ in range(count):
            if request.transport is None or request.transport.is_closing():
                break
            request.transport.write(b"\1\0\0\0" + len(piece).to_bytes(4) + piece)
            await asyncio.sleep(0.001 if count > 100 else 0)
        if request.transport is not None:
            request.transport.close()
        return web.Response()

    return answer


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[FakeEngine]:
    one = FakeEngine(tmp_path)
    await one.start()
    yield one
    await one.stop()


@pytest.fixture
async def engine(fake: FakeEngine) -> AsyncIterator[Engine]:
    async with connected(fake) as one:
        yield one


@asynccontextmanager
async def connected(fake: FakeEngine, timeout_seconds: float = 1) -> AsyncIterator[Engine]:
    one = await Engine.connect(fake.url, timeout_seconds=timeout_seconds)
    fake.asked.clear()
    fake.requests.clear()
    fake.bodies.clear()
    yield one
    await one.close()


async def pull(engine: Engine, *, auth: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = []
    await engine.pull("r/app", DIGEST, platform="linux/amd64", auth=dict(auth) if auth else None, progress=told.append)
    return told


async def threads_end() -> None:
    for thread in threading.enumerate():
        if thread.name == "engine":
            await asyncio.to_thread(thread.join, 1)
            assert not thread.is_alive()


class TestConnect:
    """Finding the engine."""

    async def test_the_newest_api_is_spoken(self, engine: Engine, fake: FakeEngine):
        """Every call names the version that the engine told."""
        fake.says("GET /v1.45/info", body={"ID": "x"})
        assert engine.api_version == (1, 45)
        assert engine.platform == "linux/amd64"
        assert await engine.info() == {"ID": "x"}

    @pytest.mark.parametrize("machine, platform", [("armv6l", "linux/arm/v6"), ("armv7l", "linux/arm/v7")])
    async def test_an_arm_has_a_variant(self, fake: FakeEngine, machine: str, platform: str):
        """Which 32-bit ARM it is comes from the name of the machine."""
        fake.says("GET /version", body={**VERSION, "Arch": "arm"})
        fake.says("GET /v1.45/info", body={"Architecture": machine})
        async with connected(fake) as engine:
            assert engine.platform == platform

    async def test_an_engine_that_is_too_old_is_named(self, fake: FakeEngine):
        """An API before 1.41 is a matter of configuration, and the message says what is needed."""
        fake.says("GET /version", body={**VERSION, "ApiVersion": "1.40"})
        with pytest.raises(Misconfigured, match=r"API 1\.40; 1\.41 .* is needed"):
            await Engine.connect(fake.url)

    @pytest.mark.parametrize("version", [{}, {"ApiVersion": "new"}])
    async def test_what_tells_no_version_is_no_engine(self, fake: FakeEngine, version: dict[str, str]):
        """Something else may listen there for now."""
        fake.says("GET /version", body=version)
        with pytest.raises(Unreachable, match="API version"):
            await Engine.connect(fake.url)

    @pytest.mark.parametrize("url", ["ssh://host", "nonsense://", "tcp://"])
    async def test_an_address_that_is_none_is_named(self, url: str):
        """What the SDK cannot connect to is a matter of configuration."""
        with pytest.raises(Misconfigured, match=f"'{url}'"):
            await Engine.connect(url)

    async def test_a_missing_socket_says_how_to_mount_it(self, tmp_path: Path):
        """The message holds the line for Compose."""
        path = tmp_path / "none.sock"
        with pytest.raises(Unreachable, match=f'volumes: \\["{path}:{path}"\\]'):
            await Engine.connect(f"unix://{path}")

    async def test_a_dead_socket_says_what_it_may_be(self, tmp_path: Path):
        """A socket that an engine left behind may also be the old one of a mount."""
        path = tmp_path / "dead.sock"
        with socket.socket(socket.AF_UNIX) as left_behind:
            left_behind.bind(str(path))
        with pytest.raises(Unreachable, match="nobody listens; start the engine, and Sidecar after it"):
            await Engine.connect(f"unix://{path}")

    @pytest.mark.parametrize(
        "cause, words",
        [
            (PermissionError(13, "Permission denied"), r'its group is (\d+), in Compose say `group_add: \["\1"\]`'),
            (ConnectionResetError(104, "Connection reset by peer"), "Connection reset by peer"),
            (socket.gaierror("no such name"), "no such name"),
        ],
    )
    async def test_what_is_in_the_way_is_said(self, fake: FakeEngine, cause: OSError, words: str):
        """What the system says is found under the wrappings of the libraries; a denial names the socket's group."""
        fake.may_be_used_by(0o660)
        wire = Wire(fake.url, new_client=lambda: BrokenClient(cause), timeout_seconds=1)
        with pytest.raises(Unreachable, match=words):
            await Session(wire).greet()

    async def test_a_denial_of_the_folder_is_said(self, tmp_path: Path):
        """Where not even the socket can be looked at, there is no group to name."""
        url = f"unix://{tmp_path}/hidden/engine.sock"
        wire = Wire(url, new_client=lambda: BrokenClient(PermissionError()), timeout_seconds=1)
        with pytest.raises(Unreachable, match="folder of the socket"):
            await Session(wire).greet()

    async def test_a_denial_that_no_group_mends_names_the_user(self, fake: FakeEngine):
        """A socket that only its owner may use is not opened by a group."""
        fake.may_be_used_by(0o600)
        wire = Wire(fake.url, new_client=lambda: BrokenClient(PermissionError()), timeout_seconds=1)
        with pytest.raises(Unreachable, match=f'user: "{os.getuid()}"') as caught:
            await Session(wire).greet()
        assert "group_add" not in str(caught.value)

    @pytest.mark.parametrize("cause", [PermissionError(), ConnectionRefusedError()])
    async def test_a_folder_in_the_place_of_the_socket_is_said(self, tmp_path: Path, cause: OSError):
        """Docker makes a folder of a path that is mounted and does not exist; what the system says of it misleads."""
        wire = Wire(f"unix://{tmp_path}", new_client=lambda: BrokenClient(cause), timeout_seconds=1)
        with pytest.raises(Unreachable, match="a folder and no socket"):
            await Session(wire).greet()

    async def test_a_newer_engine_is_noticed(self, engine: Engine, fake: FakeEngine):
        """After an upgrade of the engine its newest API is spoken, without connecting anew."""
        fake.sends("GET /_ping", text="OK", Api_Version="1.51")
        await engine.ping()
        assert engine.api_version == (1, 51)

    async def test_a_ping_without_a_version_changes_nothing(self, engine: Engine, fake: FakeEngine):
        """What stands between may drop headers."""
        fake.sends("GET /_ping", text="OK")
        await engine.ping()
        assert engine.api_version == (1, 45)

    async def test_many_calls_share_few_connections(self, engine: Engine, fake: FakeEngine):
        """Calls one after the other use one connection."""
        fake.says("GET /v1.45/info", body={})
        for _ in range(3):
            await engine.info()
        assert len({id(request.transport) for request in fake.requests}) == 1

    async def test_a_proxy_before_the_engine_is_fine(self, fake: FakeEngine):
        """Over TCP calls and streams work as over the socket."""
        port = await fake.listen()
        fake.says("GET /v1.45/info", body={"ID": "x"})
        fake.sends("GET /_ping")
        fake.answers["GET /v1.45/events"] = lines({"Action": "start"}, then=hang)
        engine = await Engine.connect(f"tcp://127.0.0.1:{port}")
        assert await engine.info() == {"ID": "x"}
        async with aclosing(engine.events()) as events:
            assert await anext(events) == {"Action": "start"}
        await fake.hang_ups.acquire()
        await engine.close()

    @pytest.mark.parametrize("status", [502, 503, 504])
    async def test_a_proxy_without_an_engine_is_unreachable(self, engine: Engine, fake: FakeEngine, status: int):
        """A proxy's word that nobody is behind it is not the engine's."""
        fake.sends("GET /v1.45/info", status, "<html>nobody</html>")
        with pytest.raises(Unreachable, match="<html>nobody</html>"):
            await engine.info()
        fake.says("GET /v1.45/info", status, {"message": "the engine's own"})
        with pytest.raises(EngineError, match="the engine's own"):
            await engine.info()


class TestLook:
    """Asking what there is."""

    async def test_a_list_is_one_request(self, engine: Engine, fake: FakeEngine):
        """Containers are listed with their filters, and none is inspected."""
        fake.says("GET /v1.45/containers/json", body=[{"Id": "1"}, {"Id": "2"}])
        assert await engine.list_containers(filters={"label": ["a=b"]}) == [{"Id": "1"}, {"Id": "2"}]
        assert dict(fake.requests[0].query) == {"all": "1", "filters": '{"label": ["a=b"]}'}
        assert len(fake.asked) == 1

    async def test_a_list_without_filters_sends_none(self, engine: Engine, fake: FakeEngine):
        """An empty filter is left out."""
        fake.says("GET /v1.45/containers/json", body=[])
        assert await engine.list_containers() == []
        assert dict(fake.requests[0].query) == {"all": "1"}

    async def test_the_clock_is_the_engines(self, engine: Engine, fake: FakeEngine):
        """The time is that of the very answer that the container came in."""
        fake.says("GET /v1.45/containers/web/json", body={"Id": "1"}, Date=DATE)
        assert await engine.inspect_container("web") == ({"Id": "1"}, DATE_SECONDS)
        assert len(fake.asked) == 1

    async def test_what_is_in_a_layer_is_asked_for(self, engine: Engine, fake: FakeEngine):
        """Its size and its changes; where there are none, the engine says null."""
        fake.says("GET /v1.45/containers/web/json", body={"SizeRw": 7})
        fake.says("GET /v1.45/containers/web/changes", body=[{"Path": "/x", "Kind": 1}])
        assert await engine.written_bytes("web") == 7
        assert dict(fake.requests[0].query) == {"size": "1"}
        assert await engine.changes("web") == [{"Path": "/x", "Kind": 1}]
        fake.says("GET /v1.45/containers/web/json", body={})
        fake.says("GET /v1.45/containers/web/changes", body=None)
        assert (await engine.written_bytes("web"), await engine.changes("web")) == (0, [])

    async def test_a_file_is_described_without_its_content(self, engine: Engine, fake: FakeEngine):
        """The answer to a HEAD is in its header; a file that is not there is none, any other refusal an error."""
        stat = {"name": "x", "size": 3, "mode": 420, "mtime": "2026-01-01T00:00:00Z"}
        header = base64.b64encode(json.dumps(stat).encode()).decode()
        call = "HEAD /v1.45/containers/web/archive"
        fake.sends(call, X_Docker_Container_Path_Stat=header)
        assert await engine.stat_file("web", "/x") == stat
        assert dict(fake.requests[0].query) == {"path": "/x"}
        fake.sends(call, 404)
        assert await engine.stat_file("web", "/x") is None
        fake.sends(call, 403)
        with pytest.raises(EngineError, match="403"):
            await engine.stat_file("web", "/x")

    async def test_an_answer_without_a_clock_is_none(self, engine: Engine, fake: FakeEngine):
        """A container is not judged by a time that is guessed."""
        fake.says("GET /v1.45/containers/web/json", body={"Id": "1"}, Date="now")
        with pytest.raises(Unreachable, match="cut off or not the JSON expected"):
            await engine.inspect_container("web")

    async def test_what_has_no_name_is_not_there(self, engine: Engine, fake: FakeEngine):
        """Without a name the path would be another call's, so nobody is asked."""
        assert await engine.inspect_image("") is None
        assert await engine.inspect_container("") is None
        assert fake.asked == []

    async def test_podman_is_asked_by_its_own_api_as_well(self, fake: FakeEngine):
        """What it shows comes in Docker's words; a container or an image that is not there is none all the same."""
        fake.says("GET /version", body={**VERSION, "Components": [{"Name": "Podman Engine"}]})
        shown = {"Id": "1", "Config": {"Env": ["container=podman"]}, "HostConfig": {}, "State": {"Status": "stopped"}}
        fake.says("GET /v1.45/containers/web/json", body=shown, Date=DATE)
        fake.says("GET /v4.0.0/libpod/containers/web/json", body={"Config": {}, "HostConfig": {}, "OCIRuntime": "crun"})
        fake.says("GET /v1.45/images/app/json", body={"Id": "2", "Config": {}})
        fake.says("GET /v4.0.0/libpod/images/app/json", body={})
        gone = {"message": "no such thing"}
        for path in ("v1.45/containers/gone", "v1.45/images/gone"):
            fake.says(f"GET /{path}/json", 404, gone)
        fake.says("GET /v1.45/containers/json", body=[])
        async with connected(fake) as engine:
            found = await engine.inspect_container("web")
            assert found is not None
            assert found[0]["Config"]["Env"] == []
            assert found[0]["State"]["Status"] == "exited"
            assert found[0]["HostConfig"]["Runtime"] == "crun"
            image = await engine.inspect_image("app")
            assert image is not None
            assert image["Config"]["WorkingDir"] == "/"
            assert await engine.inspect_container("gone") is None
            assert await engine.inspect_image("gone") is None
            await engine.list_containers(filters={"ancestor": ["sha256:1"]})
            assert json.loads(fake.requests[-1].query["filters"]) == {"ancestor": ["1"]}

    @pytest.mark.fidelity(14, by="record")
    @pytest.mark.parametrize("body, expected", [({"MacAddress": "02:42:00:00:00:01"}, "02:42:00:00:00:01"), ({}, "")])
    async def test_a_hidden_mac_address_is_asked_for(self, fake: FakeEngine, body: dict[str, str], expected: str):
        """From API 1.52 the address that was asked for is read in 1.51."""
        fake.says("GET /version", body={**VERSION, "ApiVersion": "1.52"})
        fake.says("GET /v1.52/containers/web/json", body={"Config": {}}, Date=DATE)
        fake.says("GET /v1.51/containers/web/json", body={"Config": body})
        async with connected(fake) as engine:
            assert await engine.inspect_container("web") == ({"Config": {"MacAddress": expected}}, DATE_SECONDS)

    async def test_an_engine_without_the_old_api_has_no_mac_address(self, fake: FakeEngine):
        """The engine refuses 1.51: there is nothing to put back."""
        fake.says("GET /version", body={**VERSION, "ApiVersion": "1.60"})
        fake.says("GET /v1.60/containers/web/json", body={"Config": {}}, Date=DATE)
        fake.says("GET /v1.51/containers/web/json", 400, {"message": "client version 1.51 is too old"})
        async with connected(fake) as engine:
            assert await engine.inspect_container("web") == ({"Config": {"MacAddress": ""}}, DATE_SECONDS)

    async def test_a_mac_address_is_not_lost_to_a_fault(self, fake: FakeEngine):
        """An error on the second look is an error, not a container without an address."""
        fake.says("GET /version", body={**VERSION, "ApiVersion": "1.52"})
        fake.says("GET /v1.52/containers/web/json", body={"Config": {}}, Date=DATE)
        fake.says("GET /v1.51/containers/web/json", 500, {"message": "boom"})
        async with connected(fake) as engine:
            with pytest.raises(EngineError, match="boom"):
                await engine.inspect_container("web")

    async def test_what_is_missing_is_none(self, engine: Engine, fake: FakeEngine):
        """The engine's own 404 says that there is none."""
        fake.says("GET /v1.45/containers/web/json", 404, {"message": "No such container: web"})
        fake.says("GET /v1.45/images/r/app:1/json", 404, {"message": "No such image: r/app:1"})
        assert await engine.inspect_container("web") is None
        assert await engine.inspect_image("r/app:1") is None

    async def test_a_call_that_is_missing_is_no_missing_container(self, engine: Engine, fake: FakeEngine):
        """A 404 for the path, or of a proxy, never says that a container is gone."""
        with pytest.raises(EngineError, match="page not found") as of_path:
            await engine.inspect_container("web")
        fake.sends("GET /v1.45/images/app/json", 404, "<h1>Not Found</h1>")
        with pytest.raises(EngineError, match="<h1>Not Found</h1>"):
            await engine.inspect_image("app")
        assert of_path.value.status == 404

    async def test_no_name_asks_nothing(self, engine: Engine, fake: FakeEngine):
        """An empty id names no container, and is not the path of another call."""
        assert await engine.inspect_container("") is None
        await engine.remove_container("", volumes=True)
        assert not await engine.remove_image("")
        with pytest.raises(EngineError, match="no name is given"):
            await engine.start("")
        assert not fake.asked

    async def test_a_redirect_is_not_followed(self, engine: Engine, fake: FakeEngine):
        """The engine sends elsewhere whoever asks for a path that it cleans."""
        fake.sends("GET /v1.45/info", 301, Location="/v1.45/containers/json")
        with pytest.raises(EngineError, match="301"):
            await engine.info()

    async def test_an_answer_that_is_no_json_is_unreachable(self, engine: Engine, fake: FakeEngine):
        """Something else than the engine answers."""
        fake.sends("GET /v1.45/info", text="<html>")
        with pytest.raises(Unreachable, match="not the JSON expected"):
            await engine.info()

    async def test_an_answer_that_is_cut_is_unreachable(self, engine: Engine, fake: FakeEngine):
        """The engine ended in the middle of its answer."""
        fake.answers["GET /v1.45/info"] = lines({"ID": "x"}, then=cut)
        with pytest.raises(Unreachable, match="the connection was cut"):
            await engine.info()

    async def test_a_log_is_read_to_its_end(self, engine: Engine, fake: FakeEngine):
        """The last lines of both streams, as text."""
        fake.answers["GET /v1.45/containers/web/logs"] = lines(b"\x01\0\0\0\0\0\0\x03ok\n", b"\x02\0\0\0\0\0\0\x03no\n")
        assert await engine.logs("web", tail=5) == "ok\nno\n"
        assert dict(fake.requests[0].query) == {"stdout": "1", "stderr": "1", "tail": "5"}


class TestChange:
    """Asking for a change."""

    @pytest.mark.parametrize(
        "change, call, query, body",
        [
            pytest.param(
                lambda engine: engine.connect_network("net", "web", {"Aliases": ["a"]}),
                "POST /v1.45/networks/net/connect",
                {},
                {"Container": "web", "EndpointConfig": {"Aliases": ["a"]}},
                id="connect",
            ),
            pytest.param(lambda engine: engine.start("web"), "POST /v1.45/containers/web/start", {}, None, id="start"),
            pytest.param(
                lambda engine: engine.stop("web", grace_seconds=9),
                "POST /v1.45/containers/web/stop",
                {"t": "9"},
                None,
                id="stop",
            ),
            pytest.param(
                lambda engine: engine.rename("web", "old"),
                "POST /v1.45/containers/web/rename",
                {"name": "old"},
                None,
                id="rename",
            ),
            pytest.param(
                lambda engine: engine.set_restart_policy("web", {"Name": "no"}),
                "POST /v1.45/containers/web/update",
                {},
                {"RestartPolicy": {"Name": "no"}},
                id="restart policy",
            ),
            pytest.param(lambda engine: engine.pause("web"), "POST /v1.45/containers/web/pause", {}, None, id="pause"),
            pytest.param(
                lambda engine: engine.unpause("web"), "POST /v1.45/containers/web/unpause", {}, None, id="unpause"
            ),
            pytest.param(
                lambda engine: engine.remove_container("web", volumes=True),
                "DELETE /v1.45/containers/web",
                {"v": "1", "force": "0"},
                None,
                id="remove",
            ),
            pytest.param(
                lambda engine: engine.tag("sha256:1", repository="r/app", tag="1"),
                "POST /v1.45/images/sha256:1/tag",
                {"repo": "r/app", "tag": "1"},
                None,
                id="tag",
            ),
        ],
    )
    async def test_a_change_is_one_call(
        self,
        engine: Engine,
        fake: FakeEngine,
        change: Callable[[Engine], Awaitable[None]],
        call: str,
        query: dict[str, str],
        body: object,
    ):
        """Each change is one request as the engine's API wants it."""
        fake.sends(call, 204)
        await change(engine)
        assert fake.asked == [call]
        assert dict(fake.requests[0].query) == query
        assert (json.loads(fake.bodies[0]) if fake.bodies[0] else None) == body

    async def test_a_container_is_created_from_what_is_given(self, engine: Engine, fake: FakeEngine):
        """Nothing is taken out of the request, not even what is null, and the platform is named."""
        body = {"Image": "app", "Entrypoint": None, "HostConfig": {"Init": None}, "FromTheFuture": 1}
        fake.says("POST /v1.45/containers/create", 201, {"Id": "1", "Warnings": []})
        assert await engine.create_container(body, name="web", platform="linux/arm64") == "1"
        assert dict(fake.requests[0].query) == {"name": "web", "platform": "linux/arm64"}
        assert json.loads(fake.bodies[0]) == body

    async def test_a_name_that_is_taken_has_an_error_of_its_own(self, engine: Engine, fake: FakeEngine):
        """A conflict of names is told apart from the rest, at creation and when renaming."""
        for call in ("create", "web/rename"):
            fake.says(f"POST /v1.45/containers/{call}", 409, {"message": "Conflict."})
        with pytest.raises(NameConflict, match=r"answered 409: Conflict\."):
            await engine.create_container({}, name="web", platform=None)
        with pytest.raises(NameConflict):
            await engine.rename("web", "old")
        assert dict(fake.requests[0].query) == {"name": "web"}

    async def test_a_bad_request_is_the_engines_error(self, engine: Engine, fake: FakeEngine):
        """The engine's own words and its status are kept."""
        fake.says("POST /v1.45/containers/create", 400, {"message": "invalid mount"})
        with pytest.raises(EngineError, match="invalid mount") as error:
            await engine.create_container({}, name="web", platform=None)
        assert (error.value.status, type(error.value)) == (400, EngineError)

    async def test_what_is_so_already_is_fine(self, engine: Engine, fake: FakeEngine):
        """Started, stopped, removed, being removed: done is done."""
        fake.sends("POST /v1.45/containers/web/start", 304)
        fake.sends("POST /v1.45/containers/web/stop", 304)
        fake.says("DELETE /v1.45/containers/web", 404, {"message": "No such container: web"})
        fake.says("DELETE /v1.45/containers/old", 409, {"message": "removal of container old is already in progress"})
        await engine.start("web")
        await engine.stop("web", grace_seconds=1)
        await engine.remove_container("web", volumes=False)
        fake.says("POST /v1.45/containers/old/wait", 200, {"StatusCode": 0})
        await engine.remove_container("old", volumes=False)
        assert dict(fake.requests[-1].query) == {"condition": "removed"}

    async def test_what_is_gone_before_it_is_waited_for_is_fine(self, engine: Engine, fake: FakeEngine):
        """One that was being removed may be gone by the next call."""
        fake.says("DELETE /v1.45/containers/old", 409, {"message": "removal of container old is already in progress"})
        fake.says("POST /v1.45/containers/old/wait", 404, {"message": "No such container: old"})
        await engine.remove_container("old", volumes=False)

    async def test_a_removal_that_cannot_be_waited_for_is_an_error(self, engine: Engine, fake: FakeEngine):
        """What the engine says to that is passed on."""
        fake.says("DELETE /v1.45/containers/old", 409, {"message": "removal of container old is already in progress"})
        fake.says("POST /v1.45/containers/old/wait", 500, {"message": "out of order"})
        with pytest.raises(EngineError, match="out of order"):
            await engine.remove_container("old", volumes=False)

    async def test_what_is_not_so_is_an_error(self, engine: Engine, fake: FakeEngine):
        """A container that runs is not removed, and that is said."""
        fake.says("DELETE /v1.45/containers/web", 409, {"message": "You cannot remove a running container"})
        with pytest.raises(EngineError, match="running container"):
            await engine.remove_container("web", volumes=False)

    @pytest.mark.parametrize("status, is_removed", [(200, True), (404, False), (409, False)])
    async def test_an_image_in_use_stays(self, engine: Engine, fake: FakeEngine, status: int, is_removed: bool):
        """Without force the engine decides whether an image is in use."""
        fake.says("DELETE /v1.45/images/sha256:1", status, {"message": "because"})
        assert await engine.remove_image("sha256:1") is is_removed

    async def test_an_image_that_cannot_be_removed_is_an_error(self, engine: Engine, fake: FakeEngine):
        """Only a conflict means that it is in use."""
        fake.says("DELETE /v1.45/images/sha256:1", 500, {"message": "because"})
        with pytest.raises(EngineError, match="because"):
            await engine.remove_image("sha256:1")

    @pytest.mark.parametrize("status, is_removed", [(204, True), (404, False), (409, False)])
    async def test_a_volume_in_use_stays(self, engine: Engine, fake: FakeEngine, status: int, is_removed: bool):
        """The engine decides whether a container has it."""
        fake.says("DELETE /v1.45/volumes/data", status, {"message": "because"})
        assert await engine.remove_volume("data") is is_removed

    async def test_a_volume_that_cannot_be_removed_is_an_error(self, engine: Engine, fake: FakeEngine):
        """Only a conflict means that it is in use."""
        fake.says("DELETE /v1.45/volumes/data", 500, {"message": "because"})
        with pytest.raises(EngineError, match="because"):
            await engine.remove_volume("data")

    async def test_pruning_the_system_is_what_the_command_does(self, engine: Engine, fake: FakeEngine):
        """Containers, networks, images without a tag and builds, in the order of the command; never volumes."""
        fake.says("POST /v1.45/containers/prune", body={"ContainersDeleted": ["1"], "SpaceReclaimed": 1})
        fake.says("POST /v1.45/networks/prune", body={"NetworksDeleted": None})
        fake.says("POST /v1.45/images/prune", body={"ImagesDeleted": None, "SpaceReclaimed": 2})
        fake.says("POST /v1.45/build/prune", body={"CachesDeleted": None, "SpaceReclaimed": 4})
        assert await engine.prune_system() == {
            "ContainersDeleted": ["1"],
            "NetworksDeleted": None,
            "ImagesDeleted": None,
            "CachesDeleted": None,
            "SpaceReclaimed": 7,
        }
        assert [call.split("/")[2] for call in fake.asked] == ["containers", "networks", "images", "build"]
        assert fake.requests[2].query["filters"] == '{"dangling": ["true"]}'

    async def test_podman_has_words_of_its_own(self, engine: Engine, fake: FakeEngine):
        """A taken name is a 500 there, and there are no builds to prune; anything else missing is an error."""
        fake.says("POST /v1.45/containers/create", 500, {"message": "creating: that name is already in use"})
        with pytest.raises(NameConflict):
            await engine.create_container({}, name="web", platform=None)
        for what in ("containers", "networks", "images"):
            fake.says(f"POST /v1.45/{what}/prune", body={"SpaceReclaimed": 1})
        fake.sends("POST /v1.45/build/prune", 404, "Not Found")
        assert await engine.prune_system() == {"SpaceReclaimed": 3}
        fake.sends("POST /v1.45/images/prune", 404, "Not Found")
        with pytest.raises(EngineError, match="Not Found"):
            await engine.prune_images()

    async def test_a_restart_is_given_the_containers_own_grace(self, engine: Engine, fake: FakeEngine):
        """As a stop is."""
        fake.sends("POST /v1.45/containers/web/restart", 204)
        await engine.restart("web", grace_seconds=7)
        assert dict(fake.requests[-1].query) == {"t": "7"}

    async def test_a_network_is_there_or_not(self, engine: Engine, fake: FakeEngine):
        """What the engine does not know is not there; any other no is an error."""
        fake.says("GET /v1.45/networks/shop", 200, {"Id": "1"})
        assert await engine.has_network("shop")
        fake.says("GET /v1.45/networks/shop", 404, {"message": "network shop not found"})
        assert not await engine.has_network("shop")
        fake.says("GET /v1.45/networks/shop", 500, {"message": "out of order"})
        with pytest.raises(EngineError, match="out of order"):
            await engine.has_network("shop")

    async def test_a_container_leaves_a_network(self, engine: Engine, fake: FakeEngine):
        """What is not on it is left alone; any other no is an error."""
        fake.sends("POST /v1.45/networks/shop/disconnect", 200)
        await engine.disconnect_network("shop", "web")
        assert await fake.requests[-1].json() == {"Container": "web"}
        fake.says(
            "POST /v1.45/networks/shop/disconnect", 403, {"message": "container web is not connected to network shop"}
        )
        await engine.disconnect_network("shop", "web")
        fake.says("POST /v1.45/networks/shop/disconnect", 403, {"message": "not allowed in host network mode"})
        with pytest.raises(EngineError, match="not allowed"):
            await engine.disconnect_network("shop", "web")

    async def test_a_command_is_run_in_a_container(self, engine: Engine, fake: FakeEngine):
        """Its output is both of its streams, and how it ended is asked for by itself."""
        fake.says("POST /v1.45/containers/web/exec", 201, {"Id": "e1"})
        ident = await engine.create_exec("web", ["sh", "-c", "true"], env={"A": "b"})
        asked = await fake.requests[-1].json()
        assert (asked["Cmd"], asked["Env"]) == (["sh", "-c", "true"], ["A=b"])
        fake.sends("POST /v1.45/exec/e1/start", 200, "\1\0\0\0\0\0\0\3out\2\0\0\0\0\0\0\3err")
        assert await engine.start_exec(ident, timeout_seconds=5) == "outerr"
        fake.says("GET /v1.45/exec/e1/json", 200, {"Running": False, "ExitCode": 3})
        assert (await engine.inspect_exec(ident))["ExitCode"] == 3

    async def test_a_command_that_goes_on_writing_is_given_up(self, engine: Engine, fake: FakeEngine):
        """The engine's answer is a raw stream, which is read as it comes, and of which the last is kept."""
        fake.answers["POST /v1.45/exec/e1/start"] = raw(b"y\n" * 4096, count=10**6)
        async with asyncio.timeout(1.5):  # whose own end would be another error in here
            with pytest.raises(TimeoutError):
                await engine.start_exec("e1", timeout_seconds=0.1)
        fake.answers["POST /v1.45/exec/e1/start"] = raw(b"y\n" * 4096, count=64)
        assert 0 < len(await engine.start_exec("e1", timeout_seconds=30)) <= 64 * 1024

    async def test_a_command_that_says_nothing_is_given_up(self, engine: Engine, fake: FakeEngine):
        """It may go on in its container; nobody waits for it any more."""
        fake.answers["POST /v1.45/exec/e1/start"] = hang_at_once
        with pytest.raises(TimeoutError):
            await engine.start_exec("e1", timeout_seconds=0.05)

    async def test_of_a_long_log_the_end_is_kept(self, engine: Engine, fake: FakeEngine):
        """A container may write one line of any length."""
        fake.sends("GET /v1.45/containers/web/logs", 200, "x" * 200_000 + "the end")
        said = await engine.logs("web", tail=30)
        assert said.endswith("the end")
        assert len(said) <= 64 * 1024

    async def test_podman_says_otherwise_that_a_name_is_taken(self, engine: Engine, fake: FakeEngine):
        """By what its database refuses; it is the same for whoever asked."""
        words = "UNIQUE constraint failed: ContainerConfig.Name"
        fake.says("POST /v1.45/containers/c1/rename", 500, {"message": f"adding container: {words}"})
        with pytest.raises(NameConflict):
            await engine.rename("c1", "web")

    async def test_a_stop_that_takes_longer_may_still_work(self, fake: FakeEngine, monkeypatch: pytest.MonkeyPatch):
        """The engine goes on stopping: that is no sign that it is gone."""
        monkeypatch.setattr("sidecar.targets._session.STOP_MARGIN_SECONDS", 0.02)
        fake.answers["POST /v1.45/containers/web/stop"] = hang_at_once
        async with connected(fake) as engine:
            with pytest.raises(Transient, match="did not answer in time") as error:
                await engine.stop("web", grace_seconds=-1)
        assert not isinstance(error.value, Unreachable)


class TestPull:
    """Pulling."""

    CALL = "POST /v1.45/images/create"

    async def test_a_pull_names_digest_and_platform(self, engine: Engine, fake: FakeEngine):
        """The engine is asked for exactly the digest, and the progress ends with the whole."""
        fake.answers[self.CALL] = lines(
            {"id": "a", "status": "Downloading", "progressDetail": {"current": 1, "total": 3}},
            {"id": "a", "status": "Pull complete"},
        )
        told = await pull(engine)
        assert dict(fake.requests[0].query) == {"fromImage": "r/app", "tag": DIGEST, "platform": "linux/amd64"}
        assert "X-Registry-Auth" not in fake.requests[0].headers
        assert told[-1] == {"current_bytes": 3, "total_bytes": 3, "layers_done": 1, "layers_total": 1}

    async def test_an_error_in_the_stream_fails_the_pull(self, engine: Engine, fake: FakeEngine):
        """A failure after the first event is no success because the status was 200."""
        message = "failed to register layer: no space left on device"
        fake.answers[self.CALL] = lines(
            {"id": "a", "status": "Pulling fs layer"}, {"errorDetail": {"message": message}, "error": message}
        )
        with pytest.raises(Transient, match="no space left on device"):
            await pull(engine)

    @pytest.mark.parametrize(
        "status, message, kind",
        [
            (404, "manifest for r/app not found: manifest unknown: manifest unknown", Refused),
            (500, "Head https://r/v2/app: unauthorized: authentication required", Refused),
            (500, "Get https://r/v2/: dial tcp: connect: connection refused", Transient),
            (500, "toomanyrequests: You have reached your pull rate limit", Transient),
        ],
    )
    async def test_a_no_before_the_stream_says_whose_it_is(
        self, engine: Engine, fake: FakeEngine, status: int, message: str, kind: type[Exception]
    ):
        """The registry's no is a refusal, whatever the status; everything else is tried again."""
        fake.says(self.CALL, status, {"message": message})
        with pytest.raises(kind, match=f"pulling r/app@{DIGEST}: .*{message}"):
            await pull(engine)

    async def test_no_secret_is_in_an_error(self, engine: Engine, fake: FakeEngine):
        """The login is sent in its header, and does not come back in a message."""
        fake.says(self.CALL, 500, {"message": "unauthorized: hunter2 is wrong"})
        with pytest.raises(Refused) as error:
            await pull(engine, auth={"username": "bot", "password": "hunter2"})
        sent = json.loads(base64.urlsafe_b64decode(fake.requests[0].headers["X-Registry-Auth"]))
        assert sent == {"username": "bot", "password": "hunter2"}
        assert "hunter2" not in str(error.value)

    async def test_a_pull_that_is_cut_fails(self, engine: Engine, fake: FakeEngine):
        """An engine that ends in the middle has not pulled."""
        fake.answers[self.CALL] = lines({"id": "a", "status": "Pulling fs layer"}, then=cut)
        with pytest.raises(Unreachable, match="the connection was cut"):
            await pull(engine)

    async def test_half_a_line_fails_the_pull(self, engine: Engine, fake: FakeEngine):
        """A stream that ends within an event is not at its end."""
        fake.answers[self.CALL] = lines(b'{"id": "a"')
        with pytest.raises(Unreachable, match="cut off"):
            await pull(engine)

    @pytest.mark.parametrize("answer", [hang_at_once, lines({"id": "a", "status": "Waiting"}, then=hang)])
    async def test_a_pull_that_falls_silent_is_tried_again(
        self, engine: Engine, fake: FakeEngine, monkeypatch: pytest.MonkeyPatch, answer: Answer
    ):
        """Nothing heard for long, from the start or in the middle, says nothing of the engine."""
        monkeypatch.setattr("sidecar.targets._streams._PULL_SILENCE_SECONDS", 0.02)
        fake.answers[self.CALL] = answer
        with pytest.raises(Transient, match="did not answer in time") as error:
            await pull(engine)
        assert not isinstance(error.value, Unreachable)

    async def test_a_pull_that_is_given_up_ends_in_the_engine(self, engine: Engine, fake: FakeEngine):
        """Cancelling closes the connection, and the thread ends."""
        begun = asyncio.Event()
        fake.answers[self.CALL] = lines({"id": "a", "status": "Waiting"}, then=hang)
        pulling = asyncio.create_task(
            engine.pull("r/app", DIGEST, platform=None, auth=None, progress=lambda _: begun.set())
        )
        await begun.wait()
        pulling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pulling
        await fake.hang_ups.acquire()
        await threads_end()

    async def test_a_pull_does_not_succeed_because_the_engine_is_closed(self, engine: Engine, fake: FakeEngine):
        """Closing cuts off what streams, and that is no end of a pull."""
        begun = asyncio.Event()
        fake.answers[self.CALL] = lines({"id": "a", "status": "Waiting"}, then=hang)
        pulling = asyncio.create_task(
            engine.pull("r/app", DIGEST, platform=None, auth=None, progress=lambda _: begun.set())
        )
        await begun.wait()
        await engine.close()
        with pytest.raises(Unreachable):
            await pulling


class TestEvents:
    """Listening."""

    CALL = "GET /v1.45/events"

    @pytest.fixture(autouse=True)
    def ping(self, fake: FakeEngine) -> None:
        fake.sends("GET /_ping", text="OK", Api_Version="1.45")

    async def test_events_come_as_they_happen(self, engine: Engine, fake: FakeEngine):
        """Only those of containers are asked for; closing ends it in the engine."""
        fake.answers[self.CALL] = lines({"Action": "start"}, {"Action": "die"}, then=hang)
        async with aclosing(engine.events()) as events:
            assert [(await anext(events))["Action"] for _ in range(2)] == ["start", "die"]
        assert fake.requests[-1].query["filters"] == '{"type": ["container"]}'
        await fake.hang_ups.acquire()
        await threads_end()

    async def test_an_engine_that_became_another_is_asked_in_its_version(self, engine: Engine, fake: FakeEngine):
        """It may have been replaced while the connection was lost."""
        fake.sends("GET /_ping", text="OK", Api_Version="1.44")
        fake.answers["GET /v1.44/events"] = lines({"Action": "start"}, then=hang)
        async with aclosing(engine.events()) as events:
            assert await anext(events) == {"Action": "start"}

    async def test_events_are_told_apart_however_they_are_cut(self, engine: Engine, fake: FakeEngine):
        """The stream may be cut anywhere, even within the end of a line."""
        fake.answers[self.CALL] = lines(b'{"Action": "sta', b'rt"}\r', b'\n{"Action": "die"}\r\n', then=hang)
        async with aclosing(engine.events()) as events:
            assert [(await anext(events))["Action"] for _ in range(2)] == ["start", "die"]

    @pytest.mark.parametrize("then", [cut, None])
    async def test_a_lost_connection_is_said(self, engine: Engine, fake: FakeEngine, then: Any):
        """However the stream ends, it ends as an error: there are always more events."""
        fake.answers[self.CALL] = lines({"Action": "start"}, then=then)
        events = engine.events()
        assert await anext(events) == {"Action": "start"}
        with pytest.raises(Unreachable):
            await anext(events)

    async def test_a_listener_that_is_cancelled_lets_go(self, engine: Engine, fake: FakeEngine):
        """Waiting for the next event can be given up at any time."""
        fake.answers[self.CALL] = lines({"Action": "start"}, then=hang)
        events = engine.events()
        await anext(events)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(events), 0.01)
        await fake.hang_ups.acquire()
        await threads_end()

    async def test_a_long_silence_is_no_loss(self, engine: Engine, fake: FakeEngine, monkeypatch: pytest.MonkeyPatch):
        """Where nothing is heard for long, the engine is asked anew for what happened since, and the listener waits."""
        monkeypatch.setattr("sidecar.targets._streams._EVENT_SILENCE_SECONDS", 0.1)
        fake.sends("GET /_ping", Date=DATE)
        silent = lines({"Action": "start"}, then=hang)

        async def answer(request: web.Request) -> web.StreamResponse:
            fake.answers[self.CALL] = lines({"Action": "die"}, then=hang)
            return await silent(request)

        fake.answers[self.CALL] = answer
        async with aclosing(engine.events()) as events:
            assert [(await anext(events))["Action"] for _ in range(2)] == ["start", "die"]
        assert fake.requests[-1].query["since"] == str(int(DATE_SECONDS) - 1)

    async def test_a_silence_of_an_engine_that_is_gone_is_a_loss(
        self, engine: Engine, fake: FakeEngine, monkeypatch: pytest.MonkeyPatch
    ):
        """A connection that died without a word is found out, for the engine does not answer either."""
        monkeypatch.setattr("sidecar.targets._streams._EVENT_SILENCE_SECONDS", 0.02)
        fake.answers[self.CALL] = lines({"Action": "start"}, then=hang)
        events = engine.events()
        await anext(events)
        fake.sends("GET /_ping", 503, "nobody is behind this proxy")
        with pytest.raises(Unreachable, match="nobody is behind this proxy"):
            await anext(events)

    async def test_an_end_that_nobody_waits_for_is_quiet(self, engine: Engine, fake: FakeEngine):
        """Who stops listening after the connection was lost hears nothing of it, on no log either."""
        complaints: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        fake.answers[self.CALL] = lines({"Action": "start"}, then=cut)
        async with aclosing(engine.events()) as events:
            await anext(events)
            await threads_end()
        gc.collect()
        assert not complaints

    async def test_an_engine_that_refuses_is_said(self, engine: Engine, fake: FakeEngine):
        """A proxy that does not let events through is an error of its own."""
        fake.says(self.CALL, 403, {"message": "Forbidden"})
        with pytest.raises(EngineError, match="403"):
            await anext(engine.events())


class TestFaults:
    """An engine that hangs, restarts, or is not ours to use."""

    async def test_a_hanging_engine_is_unreachable(self, fake: FakeEngine):
        """A call waits for its answer so long and no longer."""
        fake.answers["GET /v1.45/info"] = hang_at_once
        async with connected(fake, timeout_seconds=0.5) as engine:
            with pytest.raises(Unreachable, match="did not answer in time"):
                await engine.info()

    async def test_a_restarted_engine_is_used_on(self, engine: Engine, fake: FakeEngine):
        """Nothing has to be connected anew."""
        fake.says("GET /v1.45/info", body={})
        await engine.info()
        await fake.stop()
        with pytest.raises(Unreachable):
            await engine.info()
        await fake.start()
        fake.says("GET /v1.45/info", body={})
        assert await engine.info() == {}


class TestWire:
    """Threads, whatever is called."""

    @pytest.fixture
    async def wire(self, fake: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Wire]:
        monkeypatch.setattr("sidecar.targets._wire._MOST_CALLS", 1)
        one = Wire(fake.url, new_client=lambda: APIClient(fake.url, version="1.41"), timeout_seconds=0.3)
        yield one
        one.close()

    async def test_a_call_does_not_wait_for_room_for_ever(self, wire: Wire, fake: FakeEngine):
        """Where so many calls hang that there is no room, the next is told, and later ones find room again."""
        fake.says("GET /info", body={})
        begun, done = threading.Event(), threading.Event()

        def use(_: object) -> bool:
            begun.set()
            return done.wait(1)

        first = asyncio.create_task(wire.fetch("GET", "/info", use=use))
        await asyncio.to_thread(begun.wait, 1)
        with pytest.raises(Unreachable, match="1 calls wait"):
            await wire.fetch("GET", "/info", use=use)
        done.set()
        assert await first
        assert await wire.fetch("GET", "/info", use=use)

    async def test_a_call_that_is_given_up_holds_its_room(self, wire: Wire, fake: FakeEngine):
        """Who cancels is free at once; the thread ends by itself, and its room is taken until then."""
        fake.says("GET /info", body={})
        begun, done = threading.Event(), threading.Event()

        def use(_: object) -> bool:
            begun.set()
            return done.wait(1)

        first = asyncio.create_task(wire.fetch("GET", "/info", use=use))
        await asyncio.to_thread(begun.wait, 1)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        second = asyncio.create_task(wire.fetch("GET", "/info", use=use))
        await asyncio.sleep(0)
        assert len(fake.asked) == 1
        done.set()
        assert await second

    @pytest.mark.parametrize("is_closed", [True, False])
    async def test_nothing_is_read_after_the_end(self, wire: Wire, fake: FakeEngine, is_closed: bool):
        """What came in before a stream was given up is not handed out afterwards, and its end is no success."""
        fake.answers["GET /events"] = lines(b"1\n2\n", then=hang)
        seen: list[object] = []
        first, given_up = asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        def use(events: Iterator[object]) -> None:
            for event in events:
                seen.append(event)
                loop.call_soon_threadsafe(first.set)
                given_up.wait(1)

        async with wire.stream("GET", "/events", use=use, silence_seconds=9) as reading:
            await first.wait()
            if is_closed:
                wire.close()
                given_up.set()
                with pytest.raises(Unreachable, match="given up"):
                    await reading
        given_up.set()
        await threads_end()
        assert seen == [1]
