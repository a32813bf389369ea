"""Watchtower's API over a real server: who gets in, what it asks of the daemon, when it answers, and what."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from sidecar.errors import Transient
from sidecar.web.watchtower import Scans, token_guard, watchtower_routes
from tests.fakes import FakeClock
from tests.web.fake_control import TARGET, FakeControl

ADMIN, THEIRS = "the-admin-token-of-this-test", "mytoken"
BEARER = {"Authorization": f"Bearer {THEIRS}"}
DELIVERY = "delivery-4"
Client = TestClient[web.Request, web.Application]
BOTH = pytest.mark.parametrize("method", ["GET", "POST"])


@pytest.fixture
def control() -> FakeControl:
    return FakeControl()


@pytest.fixture
def scans() -> Scans:
    return Scans()


@pytest.fixture
async def make(control: FakeControl, scans: Scans) -> AsyncIterator[Callable[..., Any]]:
    clients = []

    async def start(*, update: bool = True, metrics: bool = True) -> Client:
        app = web.Application()
        routes = watchtower_routes(
            control,
            scans,
            clock=FakeClock(),
            update_guard=token_guard([ADMIN, *([THEIRS] if update else [])]),
            metrics_guard=token_guard([ADMIN, *([THEIRS] if metrics else [])]),
        )
        app.add_routes(routes)
        clients.append(TestClient(TestServer(app)))
        await clients[-1].start_server()
        return clients[-1]

    yield start
    for client in clients:
        await client.close()


@pytest.fixture
async def client(make: Callable[..., Any]) -> Client:
    started: Client = await make()
    return started


def ends(scans: Scans, event: str = "target.kept", **facts: object) -> Callable[[str], None]:
    """End the pass of the one target as soon as it is asked for."""
    return lambda delivery_id: scans.publish(
        event, target=TARGET.id, delivery_ids=[delivery_id], **{"reason": "up to date", **facts}
    )


# --- who gets in ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method, path", [("GET", "/v1/update"), ("POST", "/v1/update"), ("GET", "/v1/metrics")])
@pytest.mark.parametrize("sent", ["", "Bearer", "Bearer wrong", "Basic bXl0b2tlbg==", "mytoken", "Bearer mytoken2"])
async def test_without_a_token_it_answers_401(client: Client, control: FakeControl, method: str, path: str, sent: str):
    """As Watchtower answers both a missing and a wrong one; the daemon is not asked."""
    async with client.request(method, path, headers={"Authorization": sent}) as response:
        assert response.status == 401
        assert response.headers["WWW-Authenticate"] == "Bearer"
    assert not control.asked


@BOTH
@pytest.mark.parametrize("token", [ADMIN, THEIRS])
async def test_either_token_asks_for_an_update(
    client: Client, control: FakeControl, scans: Scans, method: str, token: str
):
    """Watchtower's, which scripts have, and the admin token; by either method."""
    control.on_update = ends(scans)
    async with client.request(method, "/v1/update", headers={"Authorization": f"Bearer {token}"}) as response:
        assert response.status == 200


@pytest.mark.parametrize("update, metrics", [(True, False), (False, True), (False, False)])
async def test_watchtowers_token_opens_what_was_switched_on(
    make: Callable[..., Any], control: FakeControl, scans: Scans, update: bool, metrics: bool
):
    """Whoever may read the metrics may not ask for updates, unless that was asked for; the admin token may both."""
    client = await make(update=update, metrics=metrics)
    control.on_update = ends(scans)
    for path, is_open in (("/v1/update", update), ("/v1/metrics", metrics)):
        async with client.get(path, headers=BEARER) as response:
            assert response.status == (200 if is_open else 401)
        async with client.get(path, headers={"Authorization": f"Bearer {ADMIN}"}) as response:
            assert response.status == 200


# --- what is asked for ------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    "query, images, names",
    [
        ("", (), ()),
        ("?image=me/app", ("me/app",), ()),
        ("?image=me/app:1,b&image=c,%20d,", ("me/app:1", "b", "c", "d"), ()),
        ("?image=a,a&container=web", ("a",), ("web",)),
        ("?image=&container=,", (), ()),
    ],
)
async def test_images_are_repeated_or_between_commas(
    client: Client, control: FakeControl, scans: Scans, method: str, query: str, images: Any, names: Any
):
    """Each once, in their order; without one everything is asked for."""
    control.on_update = ends(scans)
    async with client.request(method, f"/v1/update{query}", headers=BEARER) as response:
        assert response.status == 200
    assert control.asked == [("update_matching", images, names)]


@pytest.mark.parametrize(
    "told, counts, outcome",
    [
        ([("target.kept", {"reason": "up to date"})], (0, 0, 0), "kept"),
        ([("rollout.succeeded", {}), ("target.kept", {"reason": "updated to sha256:2"})], (1, 0, 0), "updated"),
        (
            [("rollout.rolled_back", {"reason": "unhealthy"}), ("target.held", {"reason": "rolled back"})],
            (0, 1, 0),
            "failed",
        ),
        ([("rollout.failed", {"reason": "neither"}), ("target.held", {"reason": "failed"})], (0, 1, 0), "failed"),
        ([("target.held", {"reason": "registry is down", "is_failure": True})], (0, 1, 0), "failed"),
        ([("target.held", {"reason": "label sidecar.action is notify"})], (0, 0, 1), "held"),
    ],
)
async def test_the_answer_says_what_came_of_it(
    client: Client,
    control: FakeControl,
    scans: Scans,
    told: list[tuple[str, dict[str, Any]]],
    counts: tuple[int, int, int],
    outcome: str,
):
    """In the words of Watchtower's forks, and by target in ours."""

    def tell(delivery_id: str) -> None:
        for event, facts in told:
            scans.publish(event, target=TARGET.id, delivery_ids=[delivery_id], **facts)

    control.on_update = tell
    updated, failed, skipped = counts
    async with client.post("/v1/update?image=me/app,nothing", headers=BEARER) as response:
        body = await response.json()
    assert (body["status"], body["scanned"], body["updated"], body["failed"]) == ("completed", 1, updated, failed)
    assert body["summary"] == {
        "scanned": 1,
        "updated": updated,
        "failed": failed,
        "restarted": 0,
        "skipped": skipped,
    }
    assert body["targets"][TARGET.id]["outcome"] == outcome
    assert (body["delivery"], body["unknown"]) == (DELIVERY, ["nothing"])
    assert body["timing"] == {"duration_ms": 0, "duration": "0.000s"}
    assert body["timestamp"].endswith("Z")


@pytest.mark.parametrize(
    "event, facts",
    [
        ("target.kept", {"delivery_ids": ["another"]}),
        ("target.kept", {"target": "docker:another"}),
        ("target.kept", {"delivery_ids": None}),
        ("target.held", {"reason": "waits for its dependency docker:shop/db"}),
        ("target.held", {"reason": "left to the next start: Sidecar stops"}),
        ("rollout.started", {}),
        ("rollout.succeeded", {}),
    ],
)
async def test_it_answers_only_when_its_own_passes_are_over(
    client: Client, control: FakeControl, scans: Scans, event: str, facts: dict[str, object]
):
    """Neither by the end of somebody else's, nor while its own goes on."""
    asked = asyncio.Event()
    control.on_update = lambda _id: asked.set()
    call = asyncio.create_task(client.get("/v1/update?image=me/app", headers=BEARER))
    await asked.wait()
    scans.publish(event, **{"target": TARGET.id, "delivery_ids": [DELIVERY], "reason": "", **facts})
    async with client.get("/v1/metrics", headers=BEARER):  # the server has had its turn
        assert not call.done()
    ends(scans)(DELIVERY)
    async with await call as response:
        assert response.status == 200


async def test_one_that_waited_for_others_ends_on_behalf_of_these(client: Client, control: FakeControl, scans: Scans):
    """Looked at for this call, it is looked at again when what it waits for is done, which somebody else asked for."""

    def tell(delivery_id: str) -> None:
        waits = "waits for its dependency docker:shop/db"
        scans.publish("target.held", target=TARGET.id, delivery_ids=[delivery_id], reason=waits)
        scans.publish("target.kept", target="docker:another", delivery_ids=["another"], reason="up to date")
        scans.publish("target.kept", target=TARGET.id, delivery_ids=["another"], reason="up to date")

    control.on_update = tell
    async with client.get("/v1/update?image=me/app", headers=BEARER) as response:
        assert (await response.json())["targets"] == {TARGET.id: {"outcome": "kept", "reason": "up to date"}}


async def test_everything_is_skipped_while_a_call_waits(client: Client, control: FakeControl, scans: Scans):
    """One that names images is not: it waits for its own passes."""
    asked = asyncio.Event()
    control.on_update = lambda _id: asked.set()
    first = asyncio.create_task(client.get("/v1/update", headers=BEARER))
    await asked.wait()
    async with client.get("/v1/update", headers=BEARER) as response:
        assert response.status == 429
        assert response.headers["Retry-After"] == "30"
        assert await response.json() == {"status": "skipped", "reason": "another call has not been answered yet"}
    assert scans.skipped == 1
    control.on_update = ends(scans)
    async with client.get("/v1/update?image=me/app", headers=BEARER) as response:
        assert response.status == 200
    async with await first as response:
        assert response.status == 200
    async with client.get("/v1/update", headers=BEARER) as response:
        assert response.status == 200


async def test_nobody_has_to_wait(client: Client, control: FakeControl, scans: Scans):
    """Answered at once, a call holds up no other."""
    for _ in range(2):
        async with client.post("/v1/update?async=true", headers=BEARER) as response:
            assert response.status == 202
            assert (await response.json())["status"] == "accepted"
    assert not scans.is_busy


async def test_patience_ends(client: Client, control: FakeControl, scans: Scans):
    """After the time that the client gives it is answered that the update goes on."""
    async with client.post("/v1/update?timeout=0.01s", headers=BEARER) as response:
        assert response.status == 408
        body = await response.json()
    assert (body["status"], body["delivery"]) == ("timeout", DELIVERY)
    assert not scans.is_busy


async def test_a_timeout_that_is_none_is_refused(client: Client, control: FakeControl):
    """With what is accepted, and before anything is asked for."""
    async with client.post("/v1/update?timeout=soon", headers=BEARER) as response:
        assert response.status == 422
        assert "write seconds or a form like 90s" in (await response.json())["detail"]
    assert not control.asked


async def test_an_engine_that_is_away_is_503(client: Client, control: FakeControl, scans: Scans):
    """And the next call is not skipped for it."""
    control.fails = Transient("the engine does not answer")
    async with client.post("/v1/update", headers=BEARER) as response:
        assert response.status == 503
    assert not scans.is_busy


# --- metrics ----------------------------------------------------------------------------------------------------------


async def test_metrics_have_watchtowers_names(client: Client, scans: Scans):
    """Gauges are of the last look at each target; what was updated before it is up to date by the next."""
    scans.publish("rollout.succeeded", target="docker:a")
    scans.publish("target.kept", target="docker:a", reason="updated")
    scans.publish("target.held", target="docker:b", reason="registry is down", is_failure=True)
    scans.publish("target.kept", target="docker:c", reason="up to date")
    scans.publish("target.held", target="docker:c", reason="waits for docker:a, which depends on it")
    scans.publish("daemon.started")
    async with client.get("/v1/metrics", headers=BEARER) as response:
        assert response.content_type == "text/plain"
        text = await response.text()
    assert _values(text) == {"containers_scanned": 3, "containers_updated": 1, "containers_failed": 1} | {
        "scans_total": 3,
        "scans_skipped": 0,
    }
    assert "# TYPE watchtower_containers_scanned gauge" in text
    assert "# TYPE watchtower_scans_total counter" in text
    scans.publish("target.kept", target="docker:a", reason="up to date")
    assert _values(scans.metrics())["containers_updated"] == 0


def _values(text: str) -> dict[str, int]:
    rows = [line.split() for line in text.splitlines() if not line.startswith("#")]
    return {name.removeprefix("watchtower_"): int(value) for name, value in rows}
