"""The engine adapter on real engines: what it asks is what they understand, and what they answer is what it says."""

import asyncio
import io
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sidecar.errors import Refused, Transient, Unreachable
from sidecar.targets._engine import Engine, EngineError, NameConflict
from tests.testbed import images
from tests.testbed.engine import Engine as RealEngine
from tests.testbed.images import OTHER_PLATFORM, PLATFORM, Behaviour, web
from tests.testbed.parts import KINDS, Parts
from tests.testbed.registry import Login, Registry

MakeRegistry = Callable[..., Registry]
UNKNOWN = "sha256:" + "0" * 64


@pytest.fixture(params=KINDS)
def any_engine(request: pytest.FixtureRequest, testbed: Parts) -> Iterator[RealEngine]:
    """Every engine there is, the one with containerd's image store too: pulls differ most there."""
    one = testbed.engine(request.param)
    yield one
    one.wipe()


@asynccontextmanager
async def connected(real: RealEngine, **options: float) -> AsyncIterator[Engine]:
    one = await Engine.connect(real.host, **options)
    yield one
    await one.close()


async def pull(
    engine: Engine, store: Registry, digest: str, *, platform: str = PLATFORM, auth: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = []
    login = dict(auth) if auth else None
    await engine.pull(store.reference("app"), digest, platform=platform, auth=login, progress=told.append)
    return told


async def state(engine: Engine, ident: str) -> dict[str, Any]:
    found = await engine.inspect_container(ident)
    assert found is not None
    return dict(found[0]["State"])


async def test_the_engine_introduces_itself(engine: RealEngine):
    """API and platform are those of the engine, and a ping changes nothing about them."""
    async with connected(engine) as one:
        await one.ping()
        assert "{}.{}".format(*one.api_version) == engine.release.api_version
        assert one.platform == PLATFORM
        assert (await one.version())["Version"].startswith(engine.release.version)
        assert (await one.info())["Containers"] == 0


async def test_a_container_lives_and_dies(engine: RealEngine):
    """Each change of a container does what it says, and can be said twice where that makes sense."""
    images.load(engine, web("1", Behaviour.UNCHECKED), "web:1")
    async with connected(engine) as one:
        ident = await one.create_container({"Image": "web:1", "Labels": {"a": "b"}}, name="web", platform=PLATFORM)
        with pytest.raises(NameConflict):
            await one.create_container({"Image": "web:1"}, name="web", platform=None)
        for _ in range(2):
            await one.start(ident)
        assert (await state(one, ident))["Running"]
        await one.pause("web")
        assert (await state(one, ident))["Paused"]
        await one.unpause("web")
        await one.set_restart_policy("web", {"Name": "unless-stopped"})
        await one.rename("web", "old")
        listed = await one.list_containers(filters={"label": ["a=b"], "name": ["old"]})
        assert [(entry["Id"], entry["Names"]) for entry in listed] == [(ident, ["/old"])]
        for _ in range(2):
            await one.stop("old", grace_seconds=5)
        found = await one.inspect_container("old")
        assert found is not None
        assert found[0]["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
        assert found[1] == pytest.approx(time.time(), abs=5)
        for _ in range(2):
            await one.remove_container("old", volumes=True)
        assert await one.inspect_container("old") is None
        assert await one.list_containers() == []


async def test_a_running_container_is_removed_by_force_only(engine: RealEngine):
    """Without force the engine refuses, with it the container is gone."""
    images.load(engine, web("1"), "web:1")
    async with connected(engine) as one:
        await one.start(await one.create_container({"Image": "web:1"}, name="web", platform=None))
        with pytest.raises(EngineError, match="409"):
            await one.remove_container("web", volumes=True)
        await one.remove_container("web", volumes=True, force=True)
        assert await one.inspect_container("web") is None


async def test_an_image_that_is_not_there_cannot_be_created_from(engine: RealEngine):
    """The engine's own words and status are in the error."""
    async with connected(engine) as one:
        with pytest.raises(EngineError, match="No such image: none:1") as error:
            await one.create_container({"Image": "none:1"}, name="web", platform=None)
        assert (error.value.status, error.value.is_missing) == (404, True)


async def test_a_network_is_joined(engine: RealEngine):
    """A container is connected with its aliases."""
    images.load(engine, web("1"), "web:1")
    engine.docker("network", "create", "back")
    async with connected(engine) as one:
        ident = await one.create_container({"Image": "web:1"}, name="web", platform=None)
        await one.connect_network("back", ident, {"Aliases": ["shop"]})
        found = await one.inspect_container("web")
        assert found is not None
        assert "shop" in found[0]["NetworkSettings"]["Networks"]["back"]["Aliases"]


async def test_files_go_from_one_container_to_another(any_engine: RealEngine):
    """A file is described, fetched and put with its owner and mode, out of one that ended into one that never ran."""
    images.load(any_engine, web("1", Behaviour.UNCHECKED), "web:1")
    async with connected(any_engine) as one:
        old = await one.create_container({"Image": "web:1"}, name="old", platform=None)
        await one.start(old)
        assert await one.written_bytes(old) < 100_000
        script = "mkdir -p /a/b; echo x >/a/b/c; busybox chown 7:8 /a/b/c; busybox chmod 640 /a/b/c"
        any_engine.docker("exec", "old", "sh", "-c", script)
        await one.stop(old, grace_seconds=1)
        assert {"Path": "/a/b/c", "Kind": 1} in await one.changes(old)
        new = await one.create_container({"Image": "web:1"}, name="new", platform=None)
        assert await one.stat_file(new, "/a/b/c") is None
        archive = await one.get_archive(old, "/a/b/c")
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            [member] = tar
            assert (member.name, member.uid, member.gid, member.mode & 0o7777) == ("c", 7, 8, 0o640)
        await one.put_archive(new, archive)
        found = await one.stat_file(new, "/c")
        assert found is not None
        assert (found["size"], found["mode"], "." in found["mtime"]) == (2, 0o640, False)


async def test_a_stubborn_container_is_stopped_after_its_grace(engine: RealEngine):
    """The engine waits for the grace and kills; the call outlasts the time that other calls are given."""
    images.load(engine, web("1", Behaviour.STUBBORN), "web:1")
    async with connected(engine) as one, connected(engine, timeout_seconds=1.5) as impatient:
        await one.start(await one.create_container({"Image": "web:1"}, name="web", platform=None))
        begun = time.monotonic()
        await impatient.stop("web", grace_seconds=2)
        assert 2 <= time.monotonic() - begun < 10
        assert (await state(one, "web"))["ExitCode"] == 128 + signal.SIGKILL


@pytest.mark.parametrize("tty", [False, True])
async def test_the_last_lines_of_a_log_are_given(engine: RealEngine, tty: bool):
    """Of both streams, or of a terminal, and no more lines than asked for."""
    images.load(engine, images.base(), "base:1")
    # The engine reads the two streams apart: without a pause their order is anyone's.
    script = "echo first; sleep 0.2; echo second >&2; sleep 0.2; printf 'th\\377rd\\n'"
    async with connected(engine) as one:
        body = {"Image": "base:1", "Cmd": ["sh", "-c", script], "Tty": tty}
        await one.start(await one.create_container(body, name="job", platform=None))
        engine.docker("wait", "job")
        text = await one.logs("job", tail=2)
        assert sorted(text.split()) == ["second", "th\N{REPLACEMENT CHARACTER}rd"]


async def test_images_are_named_and_removed(engine: RealEngine):
    """A tag is set; an image with two names or a container stays."""
    images.load(engine, web("1"), "web:1")
    async with connected(engine) as one:
        await one.tag("web:1", repository="sidecar/keep", tag="web")
        image = await one.inspect_image("web:1")
        assert image is not None
        assert sorted(image["RepoTags"]) == ["sidecar/keep:web", "web:1"]
        assert not await one.remove_image(image["Id"])
        engine.docker("rmi", "sidecar/keep:web")
        await one.create_container({"Image": "web:1"}, name="web", platform=None)
        assert not await one.remove_image(image["Id"])
        await one.remove_container("web", volumes=True)
        assert await one.remove_image(image["Id"])
        assert not await one.remove_image(image["Id"])
        assert await one.inspect_image("web:1") is None


async def test_pruning_removes_what_is_unused_and_no_volume(engine: RealEngine):
    """An image without a tag goes; the system's prune takes stopped containers and networks too."""
    images.load(engine, web("1"), "web:1")
    engine.docker("volume", "create", "data")
    engine.docker("network", "create", "back")
    async with connected(engine) as one:
        kept = await one.create_container({"Image": "web:1"}, name="kept", platform=None)
        await one.start(kept)
        gone = await one.create_container({"Image": "web:1"}, name="gone", platform=None)
        assert not (await one.prune_images())["ImagesDeleted"]
        removed = await one.prune_system()
        assert removed["ContainersDeleted"] == [gone]
        assert removed["NetworksDeleted"] == ["back"]
        assert [entry["Id"] for entry in await one.list_containers()] == [kept]
        assert engine.docker("volume", "ls", "--quiet").split() == ["data"]


async def test_exactly_the_digest_is_pulled(any_engine: RealEngine, registry: MakeRegistry):
    """The image of the digest comes, not that of the tag, and the progress ends with all layers done."""
    store = registry()
    wanted = images.push(store, web("1"), "app:latest")
    images.push(store, web("2"), "app:latest")
    async with connected(any_engine) as one:
        told = await pull(one, store, wanted)
        image = await one.inspect_image(store.reference(f"app@{wanted}"))
        assert image is not None
        assert image["Config"]["Labels"]["org.opencontainers.image.version"] == "1"
        assert await one.inspect_image(store.reference("app:latest")) is None
        assert told[-1]["layers_done"] == told[-1]["layers_total"] > 0
        assert (await pull(one, store, wanted))[-1]["layers_done"] == (await pull(one, store, wanted))[-1][
            "layers_total"
        ]


async def test_what_the_registry_does_not_have_is_refused(any_engine: RealEngine, registry: MakeRegistry):
    """An unknown digest and an unknown repository are refused, and the old image stays what it was."""
    store = registry()
    digest = images.push(store, web("1"), "app:1")
    async with connected(any_engine) as one:
        await pull(one, store, digest)
        with pytest.raises(Refused, match=f"app@{UNKNOWN}"):
            await pull(one, store, UNKNOWN)
        with pytest.raises(Refused):
            await one.pull(store.reference("none"), digest, platform=None, auth=None, progress=lambda _: None)
        assert await one.inspect_image(store.reference(f"app@{digest}")) is not None


async def test_an_image_for_other_machines_is_refused(any_engine: RealEngine, registry: MakeRegistry):
    """An index without this platform is the image's fault, not an outage."""
    store = registry()
    digest = images.push(store, images.Index(images=(web("1", platform=OTHER_PLATFORM),)), "app:1")
    async with connected(any_engine) as one:
        with pytest.raises(Refused):
            await pull(one, store, digest)


async def test_a_registry_that_is_down_is_tried_again(any_engine: RealEngine, registry: MakeRegistry):
    """The pull fails as what may work later, the old image stays, and later it works."""
    store = registry()
    old, new = (images.push(store, web(version), "app:1") for version in "12")
    async with connected(any_engine) as one:
        await pull(one, store, old)
        store.stop()
        with pytest.raises(Transient) as error:
            await pull(one, store, new)
        assert not isinstance(error.value, Unreachable)
        assert await one.inspect_image(store.reference(f"app@{old}")) is not None
        assert await one.inspect_image(store.reference(f"app@{new}")) is None
        store.start()
        await pull(one, store, new)


async def test_a_command_that_goes_on_writing_is_given_up(any_engine: RealEngine):
    """Its output is read as it comes, of which the last is kept; one that ends is told with its exit code."""
    images.load(any_engine, images.base(), "base:1")
    any_engine.docker("run", "--detach", "--name=web", "base:1", "sleep", "600")
    async with connected(any_engine) as one:
        endless = await one.create_exec("web", ["sh", "-c", "while :; do echo y; done"], env={})
        with pytest.raises(TimeoutError):
            await one.start_exec(endless, timeout_seconds=1)
        long = await one.create_exec("web", ["sh", "-c", "seq 100000; exit 3"], env={})
        said = await one.start_exec(long, timeout_seconds=60)
        assert said.splitlines()[-1] == "100000"
        assert len(said) <= 64 * 1024
        assert (await one.inspect_exec(long))["ExitCode"] == 3


async def test_a_login_is_used_and_never_told(any_engine: RealEngine, registry: MakeRegistry):
    """Without the login, or with a wrong one, the pull is refused; with it the image comes."""
    store = registry(login=Login(user="bot", password="hunter2"))
    digest = images.push(store, web("1"), "app:1")
    login = {"username": "bot", "password": "hunter2", "serveraddress": store.address}
    async with connected(any_engine) as one:
        with pytest.raises(Refused):
            await pull(one, store, digest)
        with pytest.raises(Refused) as error:
            await pull(one, store, digest, auth={**login, "password": "hunter3"})
        assert "hunter3" not in str(error.value)
        await pull(one, store, digest, auth=login)


async def test_a_pull_from_a_hanging_registry_can_be_given_up(engine: RealEngine, registry: MakeRegistry):
    """Who gives it up is free at once; the engine's death ends it as well."""
    store = registry()
    digest = images.push(store, web("1"), "app:1")
    async with connected(engine) as one:
        store.freeze()
        try:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(pull(one, store, digest), 0.2)
            pulling = asyncio.create_task(pull(one, store, digest))
            await asyncio.sleep(0.2)
            engine.kill()
            with pytest.raises(Unreachable):
                await pulling
        finally:
            store.thaw()


async def test_events_are_heard(engine: RealEngine):
    """What happens to a container is told in order, and what happens to a network is not."""
    images.load(engine, web("1", Behaviour.UNCHECKED), "web:1")
    async with connected(engine) as one, aclosing(one.events()) as events:
        first = asyncio.create_task(anext(events))
        await asyncio.sleep(0.2)
        engine.docker("network", "create", "back")
        ident = await one.create_container({"Image": "web:1"}, name="web", platform=None)
        await one.start(ident)
        heard = [await first, await anext(events)]
        assert [(event["Action"], event["Actor"]["ID"]) for event in heard] == [("create", ident), ("start", ident)]


async def test_events_are_heard_after_a_silence(engine: RealEngine, monkeypatch: pytest.MonkeyPatch):
    """A stream that was silent for long is asked for anew, and the listener notices nothing."""
    monkeypatch.setattr("sidecar.targets._streams._EVENT_SILENCE_SECONDS", 1)
    images.load(engine, web("1", Behaviour.UNCHECKED), "web:1")
    async with connected(engine) as one, aclosing(one.events()) as events:
        first = asyncio.create_task(anext(events))
        await asyncio.sleep(2.5)
        ident = await one.create_container({"Image": "web:1"}, name="web", platform=None)
        assert (await first)["Actor"]["ID"] == ident


async def test_a_killed_engine_is_unreachable_and_used_on(engine: RealEngine):
    """Calls and events say that it is gone; restarted, it is used without connecting anew."""
    async with connected(engine) as one:
        events = one.events()
        listening = asyncio.create_task(anext(events))
        await asyncio.sleep(0.2)
        engine.kill()
        with pytest.raises(Unreachable):
            await listening
        with pytest.raises(Unreachable, match=re.escape(engine.host)):
            await one.list_containers()
        engine.start()
        await one.ping()
        assert await one.list_containers() == []


async def test_a_frozen_engine_is_unreachable(engine: RealEngine):
    """An engine that takes calls and answers none holds nobody up for ever."""
    async with connected(engine, timeout_seconds=0.5) as one:
        engine.freeze()
        try:
            with pytest.raises(Unreachable, match="did not answer in time"):
                await one.ping()
        finally:
            engine.thaw()


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)


def test_a_process_ends_while_a_call_hangs(engine_26: RealEngine):
    """Neither a call nor the events of a frozen engine hold up the end of the process."""
    script = """
import asyncio, os, signal, sys, time
from sidecar.targets._engine import Engine

async def main():
    one = await Engine.connect(sys.argv[1])
    events = asyncio.create_task(anext(one.events()))
    await asyncio.sleep(0.2)
    os.kill(int(sys.argv[2]), signal.SIGSTOP)
    call = asyncio.create_task(one.info())
    await asyncio.sleep(0.2)
    await one.close()

asyncio.run(main())
"""
    daemon = engine_26.machine.processes("dockerd")[0]
    try:
        begun = time.monotonic()
        done = run(script, engine_26.host, str(daemon.pid))
        assert (done.returncode, done.stderr) == (0, "")
        assert time.monotonic() - begun < 10
    finally:
        engine_26.thaw()


def test_a_denied_socket_names_its_group(engine_26: RealEngine):
    """The engine's own socket belongs to a group; who is not in it is told which one it is."""
    script = """
import asyncio, os, sys
from sidecar.targets._engine import Engine

os.setgroups([])
os.setgid(65534)
os.setuid(65534)
try:
    asyncio.run(Engine.connect(sys.argv[1]))
except Exception as error:
    print(type(error).__name__, error)
"""
    with tempfile.TemporaryDirectory() as folder:
        # The engine's own folder is closed to others.
        Path(folder).chmod(0o755)
        there = Path(folder, "docker.sock")
        there.hardlink_to(engine_26.socket)
        there.chmod(0o660)
        shutil.chown(there, group=4242)
        done = run(script, f"unix://{there}")
        assert done.stdout.startswith("Unreachable"), done.stderr
        assert 'group_add: ["4242"]' in done.stdout
