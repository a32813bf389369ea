"""Podman behind its Docker-compatible socket: what is updated there, what is kept, and what is held and why."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

from sidecar.errors import Refused
from sidecar.targets._engine import Engine, NameConflict
from tests.integration.inspects import Changes, changes
from tests.integration.line import Line, open_line
from tests.integration.versions import BY_THE_IMAGE, app
from tests.integration.world import World, make_world
from tests.testbed import images
from tests.testbed.engine import Engine as RealEngine
from tests.testbed.images import Behaviour
from tests.testbed.podman import Podman
from tests.testbed.registry import Login, Registry

pytestmark = pytest.mark.timeout(300)

# What an update means for a container made without options, and is shown by Podman otherwise than by Docker.
SHOWN_OTHERWISE: Changes = {
    "Config.StopSignal": ("2", "15"),
    "HostConfig.Annotations.org.opencontainers.image.stopSignal": ("2", "15"),
    "HostConfig.Annotations.org.systemd.property.KillSignal": ("2", "15"),
    "HostConfig.Binds./only-2": (None, ANY),
}
NOT_SHOWN = {"Config.Healthcheck.StartInterval", "Config.Volumes./only-1", "Config.Volumes./only-2"}
# Its own name in its environment; and where the image declares a volume, in which order its options are listed.
NEVER_COMPARED = {"Config.Env.HOSTNAME", "HostConfig.Binds./data", "HostConfig.Binds./only-1"}
BY_PODMAN = {path: pair for path, pair in BY_THE_IMAGE.items() if path not in NOT_SHOWN} | SHOWN_OTHERWISE


@pytest.fixture
async def line(engine_podman: RealEngine, registry: Callable[..., Registry]) -> AsyncIterator[Line]:
    """The line over Podman, with the first version pushed and pulled."""
    async with open_line(engine_podman, registry()) as opened:
        opened.push(app("1"))
        await opened.pull()
        yield opened


@pytest.fixture
async def engine(engine_podman: RealEngine) -> AsyncIterator[Engine]:
    """Our own side of the socket."""
    connected = await Engine.connect(engine_podman.host)
    yield connected
    await connected.close()


@pytest.fixture
def world(engine_podman: RealEngine, registry: Callable[..., Registry], tmp_path: Path) -> Iterator[World]:
    """A container on version 1, and a daemon that runs."""
    made = make_world(engine_podman, registry, tmp_path)
    made.push("1")
    made.run()
    made.daemon.start()
    yield made
    made.daemon.kill()


def differences(before: dict[str, Any], after: dict[str, Any]) -> Changes:
    """Give what has changed between two inspects, but for what an update from the first to the second version means."""
    found = changes(before, after)
    paths = (found.keys() | BY_PODMAN.keys()) - NEVER_COMPARED
    return {path: (found.get(path), BY_PODMAN.get(path)) for path in paths if found.get(path) != BY_PODMAN.get(path)}


async def updated(line: Line, *names: str) -> dict[str, dict[str, Any]]:
    """Push the second version, update containers, and give the inspect of each before it."""
    before = {name: await line.inspect(name) for name in names}
    line.push(app("2"))
    await line.update(*names)
    return before


def podman_of(line: Line) -> Callable[..., str]:
    """Give Podman's own command, which makes what the Docker-compatible API cannot."""
    assert isinstance(line.real, Podman)
    return line.real.podman


def leftovers(real: RealEngine) -> set[str]:
    """Name the containers that an update made or parked."""
    names = real.docker("ps", "--all", "--format={{.Names}}").split()
    return {name for name in names if ".sidecar-" in name}


# --- fidelity ---------------------------------------------------------------------------------------------------------

RICH = """
--hostname=host1 --user=web --env=A=b --env=HOME=/x --workdir=/w --label=l=1 --stop-signal=SIGTERM --stop-timeout=5
--restart=on-failure:3 --network=chosen --ip=192.168.77.7 --network-alias=al --publish=127.0.0.1:8081:8080
--volume=named:/named --volume=/anonymous --volume=/tmp:/host:ro --mount=type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=0755
--tmpfs=/t2:size=2m --cap-add=NET_ADMIN --cap-drop=CHOWN --security-opt=no-new-privileges --dns=1.1.1.1 --dns-search=s
--dns-option=ndots:2 --add-host=a:1.2.3.4 --group-add=7 --ulimit=nofile=100:200 --ulimit=core=0 --cpus=0.5
--cpuset-cpus=0 --memory=64m --memory-swap=100m --memory-reservation=32m --memory-swappiness=7 --pids-limit=50
--shm-size=8m --read-only --init --ipc=private --device=/dev/null:/dev/n --log-driver=json-file --log-opt=max-size=1m
--oom-score-adj=10 --tty --interactive
"""
COMMAND = {"Args", "Config.Cmd", "Config.Entrypoint"}
CHECK = {path for path in BY_PODMAN if path.startswith("Config.Healthcheck.")}
SIGNAL = {path for path in BY_PODMAN if path.endswith(("topSignal", "KillSignal"))}
# How a container is made, and which of the image's changes do not reach it, for it has its own.
CASES: dict[str, tuple[str, set[str]]] = {
    "plain": ("--restart=unless-stopped --memory=64m", set()),
    "rich": (RICH, {"Args", "Config.User", "Config.WorkingDir", *SIGNAL}),
    "host": ("--network=host", set()),
    "none": ("--network=none", set()),
    "privileged": ("--privileged", set()),
    "quota": ("--cpu-quota=20000 --cpu-period=50000", set()),
    "open": ("--security-opt=seccomp=unconfined --pid=host --uts=host", set()),
    "checked": ("--health-cmd=true --health-interval=1s --health-retries=4", CHECK),
    "unchecked": ("--no-healthcheck", CHECK),
    "entered": ("--entrypoint=/serve", COMMAND),
}


async def test_what_was_asked_for_survives_and_what_the_image_said_does_not(line: Line) -> None:
    """Every option that Podman shows is the new container's too, and nothing changes beside what the image says."""
    await line.docker("network", "create", "--subnet=192.168.77.0/24", "chosen")
    await line.docker("network", "create", "second")
    await asyncio.gather(*(line.make("run", name, *options.split()) for name, (options, _) in CASES.items()))
    await line.docker("network", "connect", "--alias=other", "second", "rich")
    before = await updated(line, *CASES)
    for name, (_, own) in CASES.items():
        strange = differences(before[name], await line.inspect(name))
        assert strange.keys() == own, (name, strange)
        assert all(found is None for path, (found, _) in strange.items() if path != "Args"), (name, strange)
    assert line.events.named("rollout.changed") == []  # Sidecar's own comparison sees it the same way
    log = line.real.api.get("/v4.0.0/libpod/containers/rich/json")["HostConfig"]["LogConfig"]
    assert log["Size"] == "1MB"  # which the other inspect does not show


@pytest.mark.sweep
async def test_an_address_in_a_subnet_that_somebody_chose_is_kept(line: Line) -> None:
    """Podman does not tell which addresses were asked for: there each is kept, and elsewhere it is said."""
    await line.docker("network", "create", "--subnet=192.168.77.0/24", "chosen")
    await line.docker("network", "create", "pool")
    await line.make("run", "web", "--network=chosen", "--ip=192.168.77.200", "--network-alias=al")
    await line.docker("network", "connect", "--ip=10.89.0.200", "--alias=second", "pool", "web")
    await line.make("run", "default")
    await updated(line, "web", "default")
    networks = (await line.inspect("web"))["NetworkSettings"]["Networks"]
    assert networks["chosen"]["IPAddress"] == "192.168.77.200"
    assert "al" in networks["chosen"]["Aliases"]
    assert "second" in networks["pool"]["Aliases"]
    [note] = line.noted("web")
    assert "10.89.0.200 on pool" in note
    assert line.noted("default") == []


@pytest.mark.sweep
async def test_what_volumes_hold_is_there_after_an_update(line: Line) -> None:
    """Named, anonymous and declared volumes are the same ones, and the old container takes none along."""
    await line.make("run", "web", "--volume=named:/named", "--volume=/anonymous", "--user=0")
    for place in ("/named", "/anonymous", "/data"):
        await line.docker("exec", "web", "sh", "-c", f"echo kept > {place}/file")
    await updated(line, "web")
    seen = await line.docker("exec", "web", "cat", "/named/file", "/anonymous/file", "/data/file")
    assert seen.split() == ["kept"] * 3


async def test_a_container_in_the_network_of_another_is_updated_and_the_other_is_held(line: Line) -> None:
    """What shares a namespace keeps it; what others share is not taken away under them."""
    await line.make("run", "parent")
    await line.make(
        "run", "child", "--network=container:parent", command=("sh", "-c", "trap exit TERM; sleep 1000 & wait")
    )
    await line.make("run", "needy", "--volumes-from=parent", "--network=none")
    before = await updated(line, "child", "needy")
    assert differences(before["child"], await line.inspect("child")).keys() <= COMMAND
    assert differences(before["needy"], await line.inspect("needy")).keys() <= {"Mounts./only-1", "Mounts./data"}
    assert "child, needy would lose" in await line.run_pass("parent")


# --- states and failures ----------------------------------------------------------------------------------------------


@pytest.mark.sweep
async def test_a_paused_container_is_paused_again_and_a_stopped_one_stays_stopped(line: Line) -> None:
    """The state that a person left is the state after the update."""
    await line.make("run", "paused")
    await line.docker("pause", "paused")
    await line.make("run", "stopped", "--restart=always", "--label=sidecar.when-stopped=recreate")
    await line.docker("stop", "--time=1", "stopped")
    await updated(line, "paused", "stopped")
    assert (await line.inspect("paused"))["State"]["Status"] == "paused"
    stopped = await line.inspect("stopped")
    assert stopped["State"]["Status"] == "created"
    assert stopped["HostConfig"]["RestartPolicy"]["Name"] == "always"


@pytest.mark.parametrize("behaviour", [Behaviour.UNHEALTHY, Behaviour.CRASHING])
async def test_a_bad_version_is_rolled_back_to_the_same_container(line: Line, behaviour: Behaviour) -> None:
    """The old container runs again under its name with its policy and its volumes, and nothing is left beside it."""
    line.push(images.web("1"), "own:1")
    await line.pull("own:1")
    await line.make("run", "web", "--restart=always", "--volume=/anonymous", image="own:1")
    before = await line.inspect("web")
    line.push(images.web("2", behaviour), "own:1")
    outcome = await line.run_pass("web")
    assert line.events.named("rollout.rolled_back"), outcome
    after = await line.inspect("web")
    assert after["Id"] == before["Id"]
    assert after["State"]["Running"]
    assert after["HostConfig"]["RestartPolicy"] == before["HostConfig"]["RestartPolicy"]
    assert leftovers(line.real) == set()
    assert len(line.real.docker("volume", "ls", "--quiet").split()) == 1


@pytest.mark.sweep
async def test_replicas_share_a_tag(line: Line) -> None:
    """The tag that one replica was updated by is not moved back while the other one is."""
    for name in ("first", "second"):
        await line.make("run", name)
    await updated(line, "first", "second")
    tagged = line.real.api.get(f"/images/{line.store.reference('app:1')}/json")["Id"]
    assert {(await line.inspect(name))["Image"] for name in ("first", "second")} == {tagged}


async def test_compose_finds_nothing_to_do_after_an_update(line: Line, tmp_path: Path) -> None:
    """Compose makes a project with a network of its own, and takes the new container for the one that it made."""
    labels = {"sidecar.enable": "true", "sidecar.min-ready": "0.2s"}
    web = {
        "image": line.store.reference("app:1"),
        "labels": labels,
        "init": True,
        "ports": ["8080"],
        "volumes": ["kept:/d"],
    }
    (tmp_path / "compose.yaml").write_text(
        json.dumps({"name": "shop", "services": {"web": web}, "volumes": {"kept": {}}})
    )

    def up() -> str:
        return line.real.compose("--progress=plain", "up", "--detach", cwd=tmp_path)

    await asyncio.to_thread(up)
    before = await updated(line, "shop-web-1")
    after = await line.inspect("shop-web-1")
    assert after["Id"] != before["shop-web-1"]["Id"]
    assert "web" in after["NetworkSettings"]["Networks"]["shop_default"]["Aliases"]
    await asyncio.to_thread(up)
    assert (await line.inspect("shop-web-1"))["Id"] == after["Id"]


# --- what cannot be kept ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, reason",
    [
        ("--pod=new:pod1", "it is in the pod "),
        ("--secret=secret1", "it has secrets of Podman (secret1)"),
        ("--health-cmd=true --health-on-failure=kill", "it has --health-on-failure=kill"),
        ("--health-startup-cmd=true --health-cmd=true", "it has a health check for its start"),
        ("--label=PODMAN_SYSTEMD_UNIT=web.service", "it belongs to the systemd unit web.service"),
        ("--ip=10.88.0.77 --sysctl=net.ipv4.ip_forward=1", "it was made with --ip, --sysctl"),
        ("--uidmap=0:100000:65536", "it has a user namespace of its own"),
        ("--timeout=1000", "it has --timeout=1000"),
        ("--rm", "it was made with --rm"),
    ],
)
async def test_what_only_podman_itself_can_give_holds_a_container(line: Line, options: str, reason: str) -> None:
    """Whatever a container has that the Docker-compatible API cannot give to another one is named, and it is left."""
    podman = podman_of(line)
    podman("secret", "create", "--replace", "secret1", "-", input="content")
    podman(
        "run", "--detach", "--name=web", "--label=sidecar.enable=true", *options.split(), line.store.reference("app:1")
    )
    before = await line.inspect("web")
    line.push(app("2"))
    outcome = await line.run_pass("web")
    assert outcome.startswith("hold: web cannot be recreated without a loss: "), outcome
    assert reason in outcome
    assert (await line.inspect("web"))["Id"] == before["Id"]
    assert line.events.named("image.pulled") == []


@pytest.mark.sweep
async def test_what_podman_itself_made_is_updated(line: Line) -> None:
    """A container of `podman run` without what it hides is updated like any other one."""
    options = ("--label=sidecar.enable=true", "--label=sidecar.min-ready=0.2s", "--restart=always", "--publish=8080")
    podman_of(line)("run", "--detach", "--name=web", *options, line.store.reference("app:1"))
    before = await updated(line, "web")
    assert differences(before["web"], await line.inspect("web")) == {}


async def test_a_check_that_nobody_runs_holds_its_container(line: Line) -> None:
    """Without systemd Podman runs no health check: that is seen before anything is touched, and it goes on with one."""
    podman = line.real
    assert isinstance(podman, Podman)
    podman.timers.stop()
    await line.make("run", "web", "--health-cmd=true", "--health-interval=100ms", "--health-timeout=4s")
    await line.make("run", "unchecked", "--no-healthcheck")
    await asyncio.sleep(5.5)  # its first check was due after 4.1 s, by a clock that shows whole seconds
    line.push(app("2"))
    assert "its health check has not run once" in await line.run_pass("web")
    await line.update("unchecked")
    podman.timers.start()
    await line.until(lambda shown: shown["State"]["Health"]["Log"], "web")
    await line.update("web")
    assert None not in [told["from_digest"] for told in line.events.named("rollout.started")]  # its tag had moved


# --- the API ----------------------------------------------------------------------------------------------------------


async def test_the_engine_is_known_for_what_it_is(engine: Engine) -> None:
    """It is Podman, and speaks the oldest API that is spoken here."""
    version = await engine.version()
    assert engine.is_podman
    assert engine.api_version == (1, 41)
    assert version["Version"].startswith("5.4")


def test_the_doctor_calls_it_by_its_name(engine_podman: RealEngine, tmp_path: Path) -> None:
    """It says the version, and that the clocks agree, whichever way Podman writes its time."""
    environ = {"SIDECAR_DOCKER_HOST": engine_podman.host, "SIDECAR_STATE_DIR": str(tmp_path / "state")}
    command = [sys.executable, "-m", "sidecar", "doctor"]
    done = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert re.search(r"engine +debian, Podman 5\.4\.\d+, API 1\.41", done.stdout), done
    assert "the engine's clock agrees with ours" in done.stdout


async def test_a_name_that_is_taken_is_a_conflict(engine: Engine, engine_podman: RealEngine) -> None:
    """Podman answers 500 both to a create and to a rename; it is told from other failures."""
    images.load(engine_podman, images.web("1", Behaviour.UNCHECKED), "localhost/web:1")
    first, second = [
        await engine.create_container({"Image": "localhost/web:1"}, name=name, platform=None) for name in ("a", "b")
    ]
    with pytest.raises(NameConflict):
        await engine.create_container({"Image": "localhost/web:1"}, name="a", platform=None)
    with pytest.raises(NameConflict):
        await engine.rename(second, "a")
    found = await engine.inspect_container("a")
    assert found is not None
    assert found[0]["Id"] == first


async def test_what_is_of_no_use_is_pruned(engine: Engine, engine_podman: RealEngine) -> None:
    """The states that a list is asked for are known, and a prune takes what is down and what has no name."""
    images.load(engine_podman, images.web("1", Behaviour.UNCHECKED), "localhost/web:1")
    engine_podman.docker("create", "--name=web", "localhost/web:1")
    down = await engine.list_containers(filters={"status": ["created", "exited", "dead"]})
    assert [entry["Names"] for entry in down] == [["/web"]]
    image_id = down[0]["ImageID"]
    assert [entry["Id"] for entry in await engine.list_containers(filters={"ancestor": [image_id]})] == [down[0]["Id"]]
    await engine.prune_system()
    assert await engine.list_containers() == []
    assert await engine.inspect_image(image_id) is not None
    await engine.remove_image("localhost/web:1")
    assert await engine.inspect_image(image_id) is None


async def test_events_tell_what_happens_to_containers(engine: Engine, engine_podman: RealEngine) -> None:
    """The stream gives actions and names as Docker's does."""
    images.load(engine_podman, images.web("1", Behaviour.UNCHECKED), "localhost/web:1")
    heard = engine.events()
    listening = asyncio.ensure_future(anext(heard))
    await asyncio.sleep(0.5)
    engine_podman.docker("run", "--detach", "--name=web", "localhost/web:1")
    events = [await listening]
    while events[-1].get("Action") != "start":
        events.append(await anext(heard))
    assert events[-1]["Actor"]["Attributes"]["name"] == "web"
    await heard.aclose()  # type: ignore[attr-defined]


async def test_a_pull_is_of_exactly_the_digest_with_the_credential_it_needs(
    engine: Engine, registry: Callable[..., Registry]
) -> None:
    """What a tag means meanwhile does not matter, and the registry's no is one."""
    store = registry(login=Login(user="ci", password="s3cret"))
    first = images.push(store, images.web("1"), "app:1")
    images.push(store, images.web("2"), "app:1")
    repository = store.reference("app:1").rpartition(":")[0]
    credential = {"username": "ci", "password": "s3cret", "serveraddress": store.address}
    with pytest.raises(Refused):
        await engine.pull(repository, first, platform=None, auth=None, progress=lambda _: None)
    with pytest.raises(Refused):
        await engine.pull(repository, f"sha256:{'0' * 64}", platform=None, auth=credential, progress=lambda _: None)
    await engine.pull(repository, first, platform=None, auth=credential, progress=lambda _: None)
    image = await engine.inspect_image(f"{repository}@{first}")
    assert image is not None
    assert image["RepoDigests"] == [f"{repository}@{first}"]
    assert not image["RepoTags"]


# --- the whole daemon -------------------------------------------------------------------------------------------------


def test_a_push_reaches_the_running_container(world: World) -> None:
    """The registry notifies, the container is recreated and becomes healthy, tags are moved, the old one goes."""
    before = world.inspect()
    digest = world.push("2")
    world.daemon.until_told("rollout.succeeded", digest=digest)
    after = world.inspect()
    assert world.names() == ["web"]
    assert world.version() == "2"
    assert after["HostConfig"]["RestartPolicy"] == before["HostConfig"]["RestartPolicy"]
    assert world.image_id(world.ref) == after["Image"]
    assert any("sidecar-previous:web" in tag for tag in world.tags())
    assert len(world.tags()) == 2


@pytest.mark.sweep
def test_a_version_that_never_becomes_healthy_is_rolled_back_and_not_tried_again(world: World) -> None:
    """The old container runs again under its name, and another hint of the same digest does nothing."""
    before = world.inspect()
    digest = world.push("2", Behaviour.UNHEALTHY)
    world.daemon.until_told("rollout.rolled_back", digest=digest)
    assert world.names() == ["web"]
    assert world.inspect()["Id"] == before["Id"]
    assert world.inspect()["State"]["Running"]
    assert world.tags() == {world.ref}
    world.daemon.post("/api/v1/updates", {"what": "web"})
    world.daemon.until_told("target.held", digest=digest, count=2)
    assert len(world.daemon.lines("rollout.started")) == 1


@pytest.mark.sweep
def test_an_update_goes_on_after_the_service_was_killed(world: World) -> None:
    """Podman's service may die in the middle; containers do not, and the update is finished once it is back."""
    world.push("2")
    world.daemon.until_told("rollout.started")
    world.engine.kill()
    world.engine.start()
    world.daemon.until_told("rollout.succeeded")
    assert world.names() == ["web"]
    assert world.version() == "2"


def test_an_image_that_was_built_here_is_held_with_words_that_say_so(world: World) -> None:
    """Podman's `localhost/` is a registry that there is not: the words say that the image was built on this machine."""
    images.load(world.engine, images.web("1"), "localhost/own:1")
    world.engine.docker("run", "--detach", "--name=own", "--label=sidecar.enable=true", "localhost/own:1")
    world.daemon.post("/api/v1/updates", {"what": "own"})
    held = world.daemon.until_told("target.held", target="docker:own")
    assert held["reason"].startswith("localhost/own:1 was built on this machine")
