"""What goes wrong around Sidecar: what runs is not touched, the reason is told, and it goes on by itself."""

from __future__ import annotations

import base64
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path

import pytest

from tests.integration.cutting_proxy import CuttingProxy
from tests.integration.daemon import ADMIN_TOKEN, TOKEN, Daemon
from tests.integration.stack import PATIENT, gated
from tests.integration.world import LABELS, World, free_port, make_world
from tests.testbed import images
from tests.testbed.engine import NEW, Engine
from tests.testbed.parts import Parts
from tests.testbed.registry import Login, Registry

DISK_MEGABYTES = 100
NO_RESYNC = {"SIDECAR_RESYNC_SECONDS": "0"}


@pytest.fixture(scope="module")
def small(testbed: Parts) -> Iterator[Engine]:
    """An engine of this module: with a small disk, and a pull that fails at once."""
    engine = testbed.new_engine(NEW.version, "small", **{"max-download-attempts": 1})
    engine.machine.turn_on()
    data = engine.directory / "data"
    data.mkdir()
    engine.machine.run("mount", "-t", "tmpfs", "-o", f"size={DISK_MEGABYTES}m", "tmpfs", str(data))
    engine.start()
    yield engine
    engine.turn_off()


@pytest.fixture
def world(small: Engine, registry: Callable[..., Registry], tmp_path: Path) -> Iterator[World]:
    """A container on version 1 and a daemon that is not started yet; the registry tells it of pushes."""
    made = make_world(small, registry, tmp_path, **NO_RESYNC)
    (tmp_path / "gate").mkdir()
    made.push("1")
    made.run("web", f"--volume={tmp_path}/gate:/gate:ro")
    yield made
    made.daemon.kill()
    small.wipe()


def seconds(written: str) -> float:
    """Read a time of the log."""
    return datetime.fromisoformat(written).timestamp()


def untouched(world: World) -> tuple[str, str]:
    """Give what would not be the same if anybody had touched the container."""
    inspected = world.inspect()
    return inspected["Id"], inspected["State"]["StartedAt"]


def push_gated(world: World, version: str) -> str:
    """Push a version that is healthy once its gate is opened."""
    return world.push_image(version, images.web(version, health=PATIENT, files={"/health": gated(version)}))


def open_gate(world: World, version: str) -> None:
    (world.daemon.folder / "gate" / version).touch()


def until_in_gate(world: World, version: str) -> None:
    world.daemon.until_told("rollout.stepped", step="Start")
    world.daemon.until(lambda: version == running_version(world), f"version {version} is in its gate")


def running_version(world: World) -> str | None:
    """Give the version that runs under the container's name."""
    found = [each for each in world.engine.api.get("/containers/json") if each["Names"] == ["/web"]]
    return world.version() if found else None


def quiet(registry: Registry) -> None:
    """Let a registry tell nobody of its pushes."""
    registry.stop()
    registry.notifications = []
    registry.start()


# --- the registry ---------------------------------------------------------------------------------------------------


def test_a_registry_that_is_down_holds_and_is_asked_again(world: World) -> None:
    """The reason and the next try are told, nothing is touched; it is rolled out without another hint."""
    quiet(world.registry)
    world.daemon.start()
    world.daemon.until_told("target.kept")
    before = untouched(world)
    digest = world.push("2")
    world.registry.stop()
    world.daemon.post("/api/v1/updates", {"what": "web"})
    held = world.daemon.until_told("target.held")
    assert world.registry.address in held["reason"]
    assert seconds(held["retry_at"]) > time.time()
    assert untouched(world) == before
    assert world.daemon.lines("rollout.started") == []
    world.registry.start()
    world.daemon.until_told("rollout.succeeded", digest=digest)
    assert world.version() == "2"


def test_a_registry_that_fails_in_a_pull_rejects_nothing(
    small: Engine, registry: Callable[..., Registry], tmp_path: Path
) -> None:
    """The engine says so in its stream, nothing is touched, and the same rollout goes on when it is back."""
    real = registry()
    proxy = CuttingProxy(real.port, free_port())
    small.admit(proxy.port)
    daemon = Daemon(small, tmp_path, port=free_port(), environ=NO_RESYNC)
    world = World(small, real, daemon)
    try:
        world.push("1")
        ref = f"127.0.0.1:{proxy.port}/{world.tag}"
        small.docker("pull", "--quiet", ref)
        flags = [f"--label={key}={value}" for key, value in LABELS.items()]
        small.docker("run", "--detach", "--name=web", "--restart=always", *flags, ref)
        daemon.start()
        daemon.until_told("target.kept")
        before = untouched(world)
        digest = world.push("2")
        proxy.cuts = True
        daemon.post("/api/v1/updates", {"what": "web"})
        held = daemon.until_told("target.held", digest=digest)
        assert proxy.cut.is_set()
        assert seconds(held["retry_at"]) > time.time()
        assert untouched(world) == before
        proxy.cuts = False
        daemon.until_told("rollout.succeeded", digest=digest)
        assert len({line["rollout_id"] for line in daemon.lines() if "rollout_id" in line}) == 1
        assert world.names() == ["web"]
    finally:
        daemon.kill()
        proxy.close()
        small.wipe()


def test_a_registry_without_a_layer_rejects_nothing(world: World) -> None:
    """It knows the digest and does not have all of it: nothing is touched, and once it is whole it is rolled out."""
    world.daemon.start()
    world.daemon.until_told("target.kept")
    before = untouched(world)
    quiet(world.registry)
    image = images.web("2", files={"/layer": "lost"})
    digest = world.push_image("2", image)
    layer = images.digest_of(image.layers[-1].content).removeprefix("sha256:")
    blob = world.registry.directory / f"storage/docker/registry/v2/blobs/sha256/{layer[:2]}/{layer}/data"
    kept = blob.with_name("kept")
    blob.rename(kept)
    world.daemon.post("/api/v1/updates", {"what": "web"})
    held = world.daemon.until_told("target.held", digest=digest)
    assert seconds(held["retry_at"]) > time.time()
    assert untouched(world) == before
    kept.rename(blob)
    world.daemon.until_told("rollout.succeeded", digest=digest)


def test_a_wrong_password_holds_and_no_secret_is_told(
    small: Engine, registry: Callable[..., Registry], tmp_path: Path
) -> None:
    """The reason names the registry; the right one is read from the changed file without a restart."""
    login = Login(user="reader", password="the-right-secret-of-a-registry")
    wrong = Login(user="reader", password="the-wrong-secret-of-a-registry")
    config = tmp_path / "config.json"
    made = make_world(
        small,
        lambda **options: registry(login=login, **options),
        tmp_path,
        SIDECAR_REGISTRY_CREDENTIALS=str(config),
        **NO_RESYNC,
    )
    try:
        write_login(config, made.registry, wrong)
        made.push("1")
        images.load(small, images.web("1", health=images.Health()), made.ref)
        flags = [f"--label={key}={value}" for key, value in LABELS.items()]
        small.docker("run", "--detach", "--name=web", "--restart=always", *flags, made.ref)
        made.daemon.start()
        before = untouched(made)
        held = made.daemon.until_told("target.held")
        assert made.registry.address in held["reason"]
        assert untouched(made) == before
        write_login(config, made.registry, login)
        made.daemon.until_told("target.kept", reason="same image for this platform")
        digest = made.push("2")
        made.daemon.until_told("rollout.succeeded", digest=digest)
        written = made.daemon.log.read_text()
        for secret in (login.password, wrong.password, encoded(login), encoded(wrong), TOKEN, ADMIN_TOKEN):
            assert secret not in written
    finally:
        made.daemon.kill()
        small.wipe()


def encoded(login: Login) -> str:
    return base64.b64encode(f"{login.user}:{login.password}".encode()).decode()


def write_login(config: Path, registry: Registry, login: Login) -> None:
    """Write what `docker login` writes."""
    config.write_text(json.dumps({"auths": {registry.address: {"auth": encoded(login)}}}))


# --- the engine -----------------------------------------------------------------------------------------------------


def test_a_full_disk_leaves_the_old_container_alone(world: World) -> None:
    """No space while pulling: held with the reason and a time, and rolled out once there is some."""
    world.daemon.start()
    world.daemon.until_told("target.kept")
    before = untouched(world)
    digest = world.push_image("2", images.web("2", files={"/large": "\0" * (2 * DISK_MEGABYTES * 1024**2)}))
    held = world.daemon.until_told("target.held", digest=digest)
    assert "no space left" in held["reason"]
    assert seconds(held["retry_at"]) > time.time()
    assert untouched(world) == before
    data = str(world.engine.directory / "data")
    world.engine.machine.run("mount", "-o", f"remount,size={5 * DISK_MEGABYTES}m", data)
    world.daemon.until_told("rollout.succeeded", digest=digest)
    assert world.names() == ["web"]


def test_an_engine_that_is_gone_is_waited_for(world: World) -> None:
    """It is not ready meanwhile; what is pushed then is accepted, and rolled out when the engine is back."""
    world.daemon.start()
    world.daemon.until_told("target.kept")
    world.engine.kill()
    world.daemon.until(lambda: world.daemon.get("/readyz")[0] == 503, "it is not ready")
    assert "engine" in world.daemon.get("/readyz")[1]["parts"]
    assert world.daemon.get("/healthz")[0] == 200
    digest = world.push("2")
    world.daemon.until_told("delivery.accepted")
    world.engine.start()
    world.daemon.until_told("rollout.succeeded", digest=digest)
    assert world.daemon.get("/readyz")[0] == 200
    assert world.names() == ["web"]


def test_an_engine_that_restarts_in_the_gate_changes_nothing_of_the_end(world: World) -> None:
    """The new container comes back by its policy, and its gate goes on; nothing is rejected."""
    world.daemon.start()
    digest = push_gated(world, "2")
    until_in_gate(world, "2")
    world.engine.restart()
    open_gate(world, "2")
    world.daemon.until_told("rollout.succeeded", digest=digest)
    assert world.names() == ["web"]
    assert len(world.daemon.lines("rollout.started")) == 1


def test_without_an_engine_it_does_not_start(small: Engine, tmp_path: Path) -> None:
    """It ends with status 3 and a line that says which socket, and what to do."""
    socket = tmp_path / "none.sock"
    daemon = Daemon(small, tmp_path, port=free_port(), environ={"SIDECAR_DOCKER_HOST": f"unix://{socket}"})
    daemon.start(wait=False)
    assert daemon.ended() == 3
    (told,) = daemon.lines()
    assert f"'unix://{socket}': there is no such socket; mount it" in told["reason"]


# --- Sidecar itself -------------------------------------------------------------------------------------------------


def test_a_second_daemon_on_a_state_folder_does_not_start(world: World) -> None:
    """It ends with status 2, says whose folder that is, and the first goes on."""
    world.daemon.start()
    second = Daemon(world.engine, world.daemon.folder / "second", port=free_port(), environ=NO_RESYNC)
    second.folder.mkdir()
    second.start(wait=False, SIDECAR_STATE_DIR=str(world.daemon.folder / "state"))
    assert second.ended() == 2
    assert str(world.daemon.folder / "state") in second.log.read_text()
    world.daemon.until_told("rollout.succeeded", digest=world.push("2"))


def test_told_to_stop_in_the_gate_it_leaves_the_rest_to_the_next_start(world: World) -> None:
    """It ends within its grace and with status 0; both containers stand as they did, and the next start finishes."""
    world.daemon.start()
    digest = push_gated(world, "2")
    until_in_gate(world, "2")
    start = time.monotonic()
    assert world.daemon.stop() == 0
    assert time.monotonic() - start < 8
    assert world.names() == ["web", "web.sidecar-old"]
    assert world.version() == "2"
    assert world.inspect()["State"]["Running"]
    open_gate(world, "2")
    world.daemon.start()
    world.daemon.until_told("rollout.succeeded", digest=digest)
    assert world.names() == ["web"]
    assert len(world.daemon.lines("rollout.started")) == 1


def test_a_full_state_folder_begins_no_rollout(
    small: Engine, registry: Callable[..., Registry], tmp_path: Path
) -> None:
    """Not ready, and deliveries are answered 503 with a time; with space it takes them and does its work again."""
    state = tmp_path / "state"
    state.mkdir()
    # In a mount namespace of its own, so that nothing is left mounted however the test ends.
    mount = f'mount -t tmpfs -o size=2m tmpfs {state} && exec "$@"'
    made = make_world(small, lambda **_: registry(), tmp_path, SIDECAR_RESYNC_SECONDS="2")
    made.daemon.around = ("unshare", "--mount", "--propagation=private", "sh", "-c", mount, "sh")
    try:
        made.push("1")
        made.run()
        made.daemon.start()
        made.daemon.until_told("target.kept")
        before = untouched(made)
        filling = Path(f"/proc/{made.daemon.pid}/root{state}/filling")
        fill(filling)
        digest = made.push("2")
        made.daemon.until(lambda: made.daemon.get("/readyz")[0] == 503, "it is not ready")
        assert "journal" in made.daemon.get("/readyz")[1]["parts"]
        status, headers = send(made.daemon, made.ref)
        assert status == 503
        assert int(headers["Retry-After"]) > 0
        held = made.daemon.until_told("target.held")
        assert "no space is left" in held["reason"]
        assert untouched(made) == before
        assert made.daemon.lines("rollout.started") == []
        filling.unlink()
        made.daemon.until(made.daemon.is_ready, "it is ready again")
        assert send(made.daemon, made.ref)[0] == 202
        made.daemon.until_told("rollout.succeeded", digest=digest)
    finally:
        made.daemon.kill()
        small.wipe()


def fill(file: Path) -> None:
    """Write until the disk is full, to the last byte."""
    size = 1 << 16
    with file.open("wb", buffering=0) as output:
        while size:
            try:
                output.write(b"0" * size)
            except OSError:
                size //= 2


def send(daemon: Daemon, ref: str) -> tuple[int, Mapping[str, str]]:
    """Post a delivery; give the status and the headers of the answer."""
    body = json.dumps({"image": ref}).encode()
    address = f"{daemon.url}/hooks/generic/{TOKEN}"
    request = urllib.request.Request(address, data=body, headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers
