"""The API over a real server: who gets in, what it asks of the daemon, and what it answers."""

import asyncio
import json
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from structlog.testing import capture_logs

from sidecar.errors import Misconfigured, Transient
from sidecar.web.api import LARGEST_BODY_BYTES, api_routes, under
from sidecar.web.auth import bearer_guard, open_guard
from sidecar.web.events import EventStream
from sidecar.web.pages import page_routes
from sidecar.web.sockets import control_socket
from tests.web.fake_control import DELIVERY, NEW, OLD, SPEC, FakeControl

ADMIN = {"Authorization": "Bearer the-admin-token-of-this-test"}
BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
ROUTES = [
    ("GET", "/targets"),
    ("GET", "/show"),
    ("GET", "/plan"),
    ("POST", "/updates"),
    ("POST", "/releases"),
    ("GET", "/history"),
    ("GET", "/wrong-credentials"),
    ("GET", "/events"),
]
Client = TestClient[web.Request, web.Application]


@pytest.fixture
def control() -> FakeControl:
    return FakeControl()


@pytest.fixture
async def client(control: FakeControl) -> AsyncIterator[Client]:
    guard = bearer_guard("the-admin-token-of-this-test")
    routes = [
        *page_routes(control, title="Shop <b>", env="production"),
        *api_routes(control, EventStream(), guard),
    ]
    app = web.Application()
    app.add_routes(under("/sidecar", routes))
    async with TestClient(TestServer(app)) as client:
        yield client


@pytest.mark.parametrize("method, path", ROUTES)
async def test_without_the_token_the_api_answers_401(client: Client, control: FakeControl, method: str, path: str):
    """Who sends no credential is told which to send, and the daemon is not asked."""
    async with client.request(method, "/api/v1" + path) as response:
        assert response.status == 401
        assert response.headers["WWW-Authenticate"] == "Bearer"
        assert response.content_type == "application/problem+json"
    assert not control.asked


@pytest.mark.parametrize("method, path", ROUTES)
@pytest.mark.parametrize("sent", ["Bearer wrong", "bearer the-admin-token-of-this-tes", "Bearer größer"])
async def test_with_a_wrong_token_the_api_answers_403(
    client: Client, control: FakeControl, method: str, path: str, sent: str
):
    """A wrong token is 403, whatever it is, and the answer does not say how it was wrong."""
    async with client.request(method, "/api/v1" + path, headers={"Authorization": sent}) as response:
        assert response.status == 403
        assert (await response.json())["detail"] == "this is not the admin token"
    assert not control.asked


async def test_a_token_of_bytes_that_are_no_text_is_wrong(client: Client):
    """Bytes that are no text are a wrong token, no defect."""
    reader, writer = await asyncio.open_connection(client.server.host, client.server.port)
    writer.write(b"GET /api/v1/targets HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\xfe\r\n\r\n")
    assert (await reader.readline()).split()[1] == b"403"
    writer.close()


@pytest.mark.parametrize("sent", ["Basic dGhl", "Bearer", "Bearer  ", "the-admin-token-of-this-test"])
async def test_another_kind_of_credential_is_none(client: Client, sent: str):
    """Anything but a bearer token counts as no credential."""
    async with client.get("/api/v1/targets", headers={"Authorization": sent}) as response:
        assert response.status == 401


async def test_targets_are_shown_with_what_was_judged(client: Client):
    """Targets come with verdict and digests, everything else with the reason why it is left alone."""
    async with client.get("/api/v1/targets", headers=ADMIN) as response:
        assert response.status == 200
        body = await response.json()
    assert body["targets"] == [
        {
            "id": "docker:web",
            "kind": "docker",
            "image": "docker.io/me/app:1",
            "service": "shop/web",
            "project": "shop",
            "verdict": "rollout",
            "reason": "",
            "running": OLD,
            "available": NEW,
            "phase": "",
        }
    ]
    assert body["unmanaged"][0]["name"] == "db"


async def test_all_that_is_known_of_a_target_is_shown(client: Client, control: FakeControl):
    """What runs, what is kept, what happened last and what is not tried again; no environment unless asked for."""
    async with client.get("/api/v1/show?target=web", headers=ADMIN) as response:
        assert response.status == 200
        (shown,) = (await response.json())["shown"]
    assert control.asked == [("show", "web", False)]
    assert shown["target"]["id"] == "docker:web"
    assert (shown["state"], shown["instance"], shown["image_id"], shown["digests"]) == (
        "running",
        "c1",
        "sha256:9",
        [OLD],
    )
    assert (shown["previous_image"], shown["rejected"]) == ("sha256:8", {NEW: "became unhealthy"})
    assert (shown["rollout"]["phase"], shown["policy"]["action"]) == ("rolled_back", "recreate")
    assert shown["spec"] is None


async def test_what_makes_a_container_again_is_shown_when_asked_for(client: Client, control: FakeControl):
    """The create request as it is, and the same as commands."""
    async with client.get("/api/v1/show?target=web&spec=true", headers=ADMIN) as response:
        (shown,) = (await response.json())["shown"]
    assert control.asked == [("show", "web", True)]
    assert shown["spec"] == {"request": SPEC.request, "commands": list(SPEC.commands)}


@pytest.mark.parametrize(
    "query, status, detail", [("", 422, "target is missing"), ("?target=nothing", 404, "nothing is meant by 'nothing'")]
)
async def test_what_cannot_be_shown_is_said(client: Client, query: str, status: int, detail: str):
    """A question without a target, or for one that nothing is."""
    async with client.get("/api/v1/show" + query, headers=ADMIN) as response:
        assert response.status == status
        assert (await response.json())["detail"].startswith(detail)


@pytest.mark.parametrize("query, text", [("", None), ("?ref=", None), ("?ref=me/app:1", "me/app:1")])
async def test_a_plan_is_of_all_or_of_what_is_named(client: Client, control: FakeControl, query: str, text: str | None):
    """A plan without a reference is of every target."""
    async with client.get("/api/v1/plan" + query, headers=ADMIN) as response:
        assert (await response.json())["plan"][0]["available"] == NEW
    assert control.asked == [("plan", text)]


async def test_an_update_is_accepted_and_can_be_followed(client: Client, control: FakeControl):
    """An update is answered 202 with the id to follow it by."""
    async with client.post("/api/v1/updates", headers=ADMIN, json={"what": " docker:web "}) as response:
        assert response.status == 202
        assert await response.json() == {"delivery": "delivery-2", "targets": ["docker:web"]}
    assert control.asked == [("update", "docker:web")]


async def test_an_update_of_nothing_is_404(client: Client):
    """What means no target is a problem that says so."""
    async with client.post("/api/v1/updates", headers=ADMIN, json={"what": "nothing"}) as response:
        assert response.status == 404
        assert (await response.json())["detail"] == "nothing is meant by 'nothing'"


async def test_a_release_is_accepted_and_counted(client: Client, control: FakeControl):
    """A release says how many digests may be tried again, and the id to follow it by."""
    async with client.post("/api/v1/releases", headers=ADMIN, json={"what": "web"}) as response:
        assert response.status == 202
        assert await response.json() == {"delivery": "delivery-3", "released": {"docker:web": 2}}
    assert control.asked == [("release", "web")]


@pytest.mark.parametrize("path", ["/updates", "/releases"])
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"what": ""}', b'{"what": 1}', b'{"what": "x", "force": true}'])
async def test_an_unreadable_body_is_422(client: Client, control: FakeControl, body: bytes, path: str):
    """A body that is none is told what was expected, and the daemon is not asked."""
    async with client.post("/api/v1" + path, headers=ADMIN, data=body) as response:
        assert response.status == 422
        assert '{"what": ' in (await response.json())["detail"]
    assert not control.asked


async def _in_pieces(size: int) -> AsyncIterator[bytes]:
    for _ in range(0, size, 512):
        yield b" " * 512
        await asyncio.sleep(0)


@pytest.mark.parametrize("body", [lambda: b" " * (LARGEST_BODY_BYTES + 1), lambda: _in_pieces(2 * LARGEST_BODY_BYTES)])
async def test_a_large_update_is_413(client: Client, control: FakeControl, body: Callable[[], object]):
    """A body that is too large is refused whether it says its length or not."""
    async with client.post("/api/v1/updates", headers=ADMIN, data=body()) as response:
        assert response.status == 413
    assert not control.asked


async def test_an_update_in_pieces_is_read_whole(client: Client, control: FakeControl):
    """A body arrives in as many pieces as the network likes."""

    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b'{"what": ', b'"docker:', b'web"}'):
            yield piece
            await asyncio.sleep(0.001)

    async with client.post("/api/v1/updates", headers=ADMIN, data=pieces()) as response:
        assert response.status == 202
    assert control.asked == [("update", "docker:web")]


async def test_history_shows_rollouts_and_deliveries(client: Client, control: FakeControl):
    """History has phases and deliveries, times as RFC 3339; bodies and callback addresses stay out of it."""
    async with client.get("/api/v1/history?limit=7&target=docker:web", headers=ADMIN) as response:
        text = await response.text()
    assert control.asked == [("history", 7, "docker:web")]
    body = json.loads(text)
    assert body["rollouts"][0]["phase"] == "rolled_back"
    assert body["rollouts"][0]["recorded_at"] == "2023-11-14T22:13:21.500Z"
    assert body["deliveries"][0]["reason"] == "pusher 'mallory' is not allowed"
    assert body["deliveries"][0]["body"] is None
    assert DELIVERY.callback_url not in text


async def test_wrong_credentials_are_counted_by_source(client: Client):
    """How many requests to a source had a wrong one, and when the last came; never what it was."""
    async with client.get("/api/v1/wrong-credentials", headers=ADMIN) as response:
        assert await response.json() == {
            "sources": [{"source": "generic", "count": 3, "last_at": "2023-11-14T22:13:22.000Z"}]
        }


async def test_history_of_received_bodies(client: Client):
    """The body of a delivery, a refused one too, is kept for a later look and shown when asked for."""
    async with client.get("/api/v1/history?bodies=true", headers=ADMIN) as response:
        assert (await response.json())["deliveries"][0]["body"] == DELIVERY.body.decode()


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "ten", "9" * 5000, "٣", ""])
async def test_a_limit_that_is_none_is_422(client: Client, limit: str):
    """The number of rows is bounded."""
    async with client.get("/api/v1/history", params={"limit": limit}, headers=ADMIN) as response:
        assert response.status == 422
        assert "from 1 to 1000" in (await response.json())["detail"]


async def test_what_may_work_later_is_503(client: Client, control: FakeControl):
    """An engine that is gone is the client's to try again, and when is said."""
    control.fails = Transient("the engine does not answer", retry_after_seconds=12)
    async with client.get("/api/v1/targets", headers=ADMIN) as response:
        assert response.status == 503
        assert response.headers["Retry-After"] == "12"
        assert (await response.json())["detail"] == "the engine does not answer"


async def test_a_defect_is_500_and_tells_nothing(client: Client, control: FakeControl):
    """What nobody foresaw is answered without its text."""
    control.fails = RuntimeError("password is hunter2")
    with capture_logs() as logs:
        async with client.get("/api/v1/targets", headers=ADMIN) as response:
            assert response.status == 500
            assert "hunter2" not in await response.text()
    assert [(entry["event"], entry["route"]) for entry in logs] == [("request.failed", "/api/v1/targets")]


@pytest.mark.parametrize("headers", [{}, {"Accept": "*/*"}, {"Accept": "application/json"}])
async def test_liveness_ping_pong(client: Client, headers: dict[str, str]):
    """A program that asks for the root gets the ping."""
    async with client.get("/", headers=headers) as response:
        assert await response.json() == {"ping": "pong"}


async def test_a_browser_gets_a_page(client: Client):
    """A browser sees title and environment, escaped, and is told to fetch nothing from elsewhere."""
    async with client.get("/", headers=BROWSER) as response:
        assert response.content_type == "text/html"
        assert "Shop &lt;b&gt; (production)" in await response.text()
        assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")


async def test_live_is_not_ready(client: Client, control: FakeControl):
    """A daemon without its engine lives and is not ready; which part is not well is said."""
    control.unwell = {"engine": "does not answer"}
    async with client.get("/healthz") as response:
        assert response.status == 200
    async with client.get("/readyz") as response:
        assert response.status == 503
        assert (await response.json())["parts"] == {"engine": "does not answer"}
    control.unwell = {}
    async with client.get("/readyz") as response:
        assert response.status == 200


async def test_everything_answers_under_the_root_path_too(client: Client):
    """A proxy may cut its prefix off or pass it on."""
    for path in ("/sidecar/", "/sidecar/healthz"):
        async with client.get(path) as response:
            assert response.status == 200
    async with client.get("/sidecar/api/v1/targets") as response:
        assert response.status == 401


@pytest.fixture
async def over_socket(tmp_path: Path, control: FakeControl) -> AsyncIterator[Callable[[str], Awaitable[int]]]:
    app = web.Application()
    app.add_routes(api_routes(control, EventStream(), open_guard))
    runner = web.AppRunner(app)
    await runner.setup()
    await web.SockSite(runner, control_socket(tmp_path)).start()

    async def status(path: str) -> int:
        connector = aiohttp.UnixConnector(str(tmp_path / "control.sock"))
        async with aiohttp.ClientSession(connector=connector) as session, session.get(f"http://d{path}") as response:
            return response.status

    yield status
    await runner.cleanup()


async def test_the_control_socket_needs_no_token(over_socket: Callable[[str], Awaitable[int]], tmp_path: Path):
    """Over the socket the file's permission is the guard: only its owner opens it."""
    assert await over_socket("/api/v1/targets") == 200
    assert stat.S_IMODE((tmp_path / "control.sock").stat().st_mode) == 0o600


async def test_a_socket_that_was_left_is_replaced(tmp_path: Path):
    """A killed daemon leaves its socket, and the next one takes the name."""
    control_socket(tmp_path).close()
    control_socket(tmp_path).close()


async def test_a_socket_that_cannot_be_made_is_a_wrong_setting(tmp_path: Path):
    """A folder that is missing, or too long for a socket, says which it is."""
    with pytest.raises(Misconfigured, match="making the control socket"):
        control_socket(tmp_path / ("x" * 120))
