"""What a user configured survives an update on real engines; what only the old image's defaults put there does not.

Each container is made by the client's own options on an image that says something about everything, is updated by the
real driver to one that says something else about everything, and its whole inspect is compared with the one before, and
with that of a container which the same command makes on the new image.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import ANY
from urllib.request import urlopen

import pytest

from tests.integration.inspects import Changes, changes, differs_from_new
from tests.integration.line import LABELS, Json, Line, open_line
from tests.integration.versions import BY_THE_IMAGE, LEFT_BY_THE_IMAGE, SECOND, SINCE_25, app
from tests.testbed import images
from tests.testbed.api import ApiError
from tests.testbed.engine import NEW, OLD, Engine
from tests.testbed.images import Behaviour
from tests.testbed.parts import Parts
from tests.testbed.registry import Registry

# Time decides nothing here: on a busy machine an update takes as long as it takes.
pytestmark = pytest.mark.timeout(900)

# Says nothing until a file is there, and then that it is ill: so a test holds the gate open and closes it.
ILL_WHEN_TOLD = {
    "Test": ["CMD-SHELL", "while [ ! -e /ill ]; do sleep 0.1; done; exit 1"],
    "Interval": SECOND // 4,
    "Timeout": 3600 * SECOND,
    "Retries": 1,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """How a container is made, and what that means for its update.

    Attributes:
        body: what no option of the client can say, as the engine's own JSON; instead of options.
        joins: networks that it is connected to by hand, with the options of that.
        keeps: which changes of the image do not reach it, for it has its own.
        changes: what changes beside.
        may_change: what may or may not.
    """

    options: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    body: Json | None = None
    joins: tuple[tuple[str, ...], ...] = ()
    keeps: frozenset[str] = frozenset()
    changes: Changes = field(default_factory=dict)
    may_change: frozenset[str] = frozenset()

    async def make(self, line: Line, name: str, verb: str = "run") -> None:
        """Make it with `docker run --detach`, or with `docker create`."""
        if self.body is None:
            await line.make(verb, name, *self.options, command=self.command)
        else:
            await line.post(self.body, name)
        for join in self.joins:
            await line.docker("network", "connect", *join, name)
        if self.body is not None and verb == "run":
            await line.docker("start", name)

    def unexpected(self, found: Changes, line: Line) -> Changes:
        """Give what has changed and was not expected to, or not so; in each pair what is, and what was expected."""
        by_the_image = {path: pair for path, pair in BY_THE_IMAGE.items() if path != SINCE_25 or not is_old(line)}
        kept = self.keeps | {f"Config.{path}" for path in self.keeps}
        wanted = {path: pair for path, pair in by_the_image.items() if path not in kept} | self.changes
        paths = (found.keys() | wanted.keys()) - self.may_change
        return {path: (found.get(path), wanted.get(path)) for path in paths if found.get(path) != wanted.get(path)}


def made(options: str = "", command: str = "", *, keeps: str = "", **more: Any) -> Case:
    """Write a case as on a command line: what has no blanks in it."""
    return Case(options=tuple(options.split()), command=tuple(command.split()), keeps=frozenset(keeps.split()), **more)


@pytest.fixture
async def line(engine: Engine, registry: Callable[..., Registry]) -> AsyncIterator[Line]:
    """The line over one of the engines, with the first version pushed and pulled."""
    async with open_line(engine, registry()) as opened:
        opened.push(app("1"))
        await opened.pull()
        yield opened


async def updated(line: Line, cases: Mapping[str, Case]) -> dict[str, tuple[Json, Json]]:
    """Make containers and update them as `updated_from_here` does."""
    await asyncio.gather(*(case.make(line, name) for name, case in cases.items()))
    return await updated_from_here(line, cases)


async def updated_from_here(line: Line, cases: Mapping[str, Case]) -> dict[str, tuple[Json, Json]]:
    """Update containers, hold that nothing has changed but what that means, and give both inspects of each."""
    before = {name: await line.inspect(name) for name in cases}
    line.push(app("2"))
    await line.update(*cases)
    after = {name: await line.inspect(name) for name in cases}
    unexpected = {name: case.unexpected(changes(before[name], after[name]), line) for name, case in cases.items()}
    assert unexpected == {name: {} for name in cases}
    await asyncio.gather(*(case.make(line, f"{name}-anew", "create") for name, case in cases.items()))
    strange = {name: differs_from_new(await line.inspect(f"{name}-anew"), after[name]) for name in cases}
    assert strange == dict.fromkeys(cases, LEFT_BY_THE_IMAGE)
    assert line.events.named("rollout.changed") == []  # Sidecar's own comparison sees it the same way
    return {name: (before[name], after[name]) for name in cases}


def is_old(line: Line) -> bool:
    """Say whether it is the engine that speaks API 1.41."""
    return line.real.release is OLD


# --- what only the old image put there, and what a user put over it ---------------------------------------------------


async def test_without_options_all_is_as_the_new_image_says(line: Line) -> None:
    """No default of the old image outlives it, whatever it is about."""
    await updated(line, {"plain": made()})


async def test_a_users_environment_stays(line: Line) -> None:
    """Variables of a user stay, over the image's too, and empty ones; the image's own are those of the new one."""
    options = "--env OWN=a=b --env EMPTY= --env VERSION=mine --env ONLY_1=mine"
    cases = {"own": made(options, keeps="Env.VERSION Env.ONLY_1")}
    (_, after), *_ = (await updated(line, cases)).values()
    assert {"OWN=a=b", "EMPTY=", "VERSION=mine", "ONLY_1=mine", "ONLY_2=yes"} <= set(after["Config"]["Env"])


async def test_a_users_command_and_entrypoint_stay(line: Line) -> None:
    """An own command stays beside the new entrypoint, and an own entrypoint never gets the image's command."""
    arguments = {"Args": (["1", "/serve", "mine"], ["2", "/serve", "mine"])}
    cases = {
        "command": made(command="/serve mine", keeps="Cmd", changes=arguments),
        "entrypoint": made("--entrypoint /serve", keeps="Cmd Entrypoint Args"),
        "both": made("--entrypoint /enter", "mine /serve", keeps="Cmd Entrypoint Args"),
    }
    await updated(line, cases)


async def test_a_cleared_entrypoint_stays_cleared(line: Line) -> None:
    """What was run without the image's entrypoint is run without it again, and its first process is the command."""
    await updated(line, {"cleared": made("--entrypoint=", "/serve mine", keeps="Cmd Entrypoint Args")})
    first_process = await line.docker("exec", "cleared", "cat", "/proc/1/cmdline")
    assert first_process.split("\0")[:3] == ["/bin/sh", "/serve", "mine"]


async def test_a_users_health_check_stays(line: Line) -> None:
    """Each field that a user set stays, in the form that it was given, and each other one is the new image's."""
    fields = "Interval Timeout StartPeriod Retries"
    all_fields = "--health-interval 300ms --health-timeout 40s --health-start-period 3s --health-retries 9"
    shell = ("--health-cmd", "/health mine && true")
    if not is_old(line):
        all_fields, fields = f"{all_fields} --health-start-interval 300ms", f"{fields} StartInterval"
    cases = {
        "two fields": made("--health-interval 300ms --health-retries 9", keeps=healthcheck("Interval Retries")),
        "all fields": made(all_fields, keeps=healthcheck(fields)),
        "shell form": Case(options=shell, keeps=frozenset({"Healthcheck.Test"})),
        "exec form": Case(
            body={"Healthcheck": {"Test": ["CMD", "/health", "mine"]}}, keeps=frozenset({"Healthcheck.Test"})
        ),
        "none": made("--no-healthcheck", keeps=healthcheck("Test")),
    }
    inspects = await updated(line, {name.replace(" ", "-"): case for name, case in cases.items()})
    tests = {name: after["Config"]["Healthcheck"]["Test"] for name, (_, after) in inspects.items()}
    assert tests == {
        "two-fields": ["CMD", "/health", "2"],
        "all-fields": ["CMD", "/health", "2"],
        "shell-form": ["CMD-SHELL", "/health mine && true"],
        "exec-form": ["CMD", "/health", "mine"],
        "none": ["NONE"],
    }


def healthcheck(fields: str) -> str:
    """Name fields of a health check."""
    return " ".join(f"Healthcheck.{name}" for name in fields.split())


async def test_what_else_a_user_set_over_the_image_stays(line: Line) -> None:
    """Stop signal, user, working directory, exposed ports, volumes and labels of a user stay, odd labels verbatim."""
    options = "--stop-signal KILL --user 1009:1009 --workdir /mine --expose 99/tcp --volume /mine"
    labels = ("--label=only-1=mine", "--label=odd=a=b {{.Name}} 'c'", "--label=empty=")
    kept = "StopSignal User WorkingDir Labels.only-1"
    cases = {"mine": Case(options=(*options.split(), *labels), keeps=frozenset(kept.split()))}
    (_, after), *_ = (await updated(line, cases)).values()
    assert after["Config"]["Labels"]["odd"] == "a=b {{.Name}} 'c'"
    assert await line.docker("exec", "mine", "id", "-u") == "1009"


async def test_defaults_are_those_of_the_image_that_it_runs(line: Line) -> None:
    """Where the tag means the new image already, the defaults are still those of the old one, which has no name."""
    cases = {"behind": made("--env OWN=mine")}
    await cases["behind"].make(line, "behind")
    line.push(app("2"))
    await line.pull()
    await updated_from_here(line, cases)


async def test_what_no_image_says_stays_and_starts_again(line: Line) -> None:
    """Limits, capabilities, namespaces, logs, names and the rest go over as they are; the engine starts it again so."""
    options = """
        --tty --interactive --init --read-only --shm-size 2m --pid host --ipc shareable --memory 256m --cpus 1.5
        --memory-reservation 64m --cpu-shares 512 --cpuset-cpus 0 --pids-limit 500 --oom-score-adj 100
        --cap-add NET_ADMIN --cap-drop MKNOD --security-opt no-new-privileges --security-opt systempaths=unconfined
        --ulimit nofile=1000:2000 --ulimit core=0 --device /dev/null:/dev/mine:r --group-add 1009
        --sysctl net.core.somaxconn=99 --log-driver json-file --log-opt max-size=1m --restart on-failure:3
        --dns 198.51.100.7 --dns-option ndots:3 --dns-search example.org --tmpfs /t:size=64k,mode=1777
        --add-host db:198.51.100.9 --add-host gate:host-gateway
    """
    # Docker's client knows of annotations, and its engine does since API 1.43.
    cases = {"web": made(options if is_old(line) else f"{options} --annotation a=b")}
    (_, after), *_ = (await updated(line, cases)).values()
    await line.docker("restart", "web")
    assert changes(after, await line.inspect("web")) == {}


async def test_what_is_shared_with_another_container_stays_shared(line: Line) -> None:
    """One that lives in another's network, or has another's volumes, does so afterwards and has none of its own."""
    line.push(images.web("1"), "parent:1")
    parent = line.store.reference("parent:1")
    await line.docker("run", "--detach", "--name=parent", "--hostname=parents", "--volume=/shared", parent)
    await line.docker("exec", "parent", "touch", "/shared/marker")
    # Two cannot listen on one port, so these do not serve.
    options, command = "--entrypoint= --no-healthcheck --stop-signal KILL", "sleep 999"
    keeps = "Cmd Entrypoint Path Args Healthcheck.Test StopSignal"
    cases = {
        "network": made(f"{options} --network container:parent", command, keeps=keeps),
        "volumes": made(f"{options} --volumes-from parent:ro", command, keeps=keeps),
    }
    await updated(line, cases)
    assert await line.docker("exec", "network", "busybox", "hostname") == "parents"
    assert await line.docker("exec", "volumes", "ls", "/shared") == "marker"


async def test_where_the_engine_let_the_old_image_go_it_is_fetched_again(
    engine_containerd: Engine, registry: Callable[..., Registry]
) -> None:
    """On containerd's store a pull by hand takes the old image away; its defaults are known all the same."""
    async with open_line(engine_containerd, registry()) as line:
        line.push(app("1"))
        await line.pull()
        await made("--env OWN=mine").make(line, "behind")
        line.push(app("2"))
        await line.pull()
        await updated_from_here(line, {"behind": made("--env OWN=mine")})


async def test_what_an_older_engine_filled_in_is_not_kept(testbed: Parts, registry: Callable[..., Registry]) -> None:
    """After the engine itself was brought up to date, the new container is as that one makes it: nothing is frozen."""
    store, case = registry(), made("--network one --network-alias here --ip 10.91.0.9 --restart always")
    older = testbed.new_engine(OLD.version, "upgraded")
    older.start()
    older.admit(store.port)
    async with open_line(older, store) as line:
        line.push(app("1"))
        await line.pull()
        await line.docker("network", "create", "--subnet=10.91.0.0/24", "one")
        await case.make(line, "web")
    older.turn_off()
    newer = testbed.new_engine(NEW.version, "upgraded")
    newer.start()
    newer.admit(store.port)
    try:
        async with open_line(newer, store) as line:
            line.push(app("2"))
            await line.update("web")
            await case.make(line, "anew", "create")
            assert differs_from_new(await line.inspect("anew"), await line.inspect("web")) == LEFT_BY_THE_IMAGE
    finally:
        newer.turn_off()


async def test_a_value_just_like_the_old_images_counts_as_the_images(line: Line) -> None:
    """What a user said just like the image cannot be told from it, so the new image's word counts: a known loss."""
    options = "--env VERSION=1 --label only-1=1 --stop-signal SIGINT --user 1001 --workdir /place-1"
    await made(options, "/serve 1").make(line, "same")
    await updated_from_here(line, {"same": made()})


# --- volumes ---------------------------------------------------------------------------------------------------------


async def mark(line: Line, name: str, *places: str) -> None:
    """Write a file into each place, as the user that may."""
    script = "; ".join(f"echo {place} >{place}/marker" for place in places)
    await line.docker("exec", "--user", "0", name, "sh", "-c", script)


async def marks(line: Line, name: str, *places: str) -> list[str]:
    """Read the files that `mark` wrote."""
    return (await line.docker("exec", name, "cat", *(f"{place}/marker" for place in places))).split()


async def volumes(line: Line) -> set[str]:
    """Give the names of all volumes."""
    return set((await line.docker("volume", "ls", "--quiet")).split())


async def test_named_volumes_and_binds_stay(line: Line) -> None:
    """Volumes and binds asked for in either form stay with all their options, and hold what they held."""
    options = """
        --mount type=volume,source=one,target=/a,volume-nocopy --volume two:/b:nocopy
        --mount type=tmpfs,target=/c,tmpfs-size=65536 --tmpfs /f:size=64k
        --mount type=bind,source=/usr,target=/d,readonly,bind-propagation=private --volume /usr:/e:ro
    """
    cases = {"web": made(options)}
    await cases["web"].make(line, "web")
    await mark(line, "web", "/a", "/b")
    (_, after), *_ = (await updated_from_here(line, cases)).values()
    assert await marks(line, "web", "/a", "/b") == ["/a", "/b"]
    assert {mount["Destination"]: mount["RW"] for mount in after["Mounts"] if mount["Type"] == "bind"} == {
        "/d": False,
        "/e": False,
    }


async def test_anonymous_volumes_stay_with_what_is_in_them(line: Line) -> None:
    """A volume without a name, in each of the forms in which one is asked for, is there after two updates in a row."""
    cases = {
        "web": made("--volume /x --mount type=volume,target=/y"),
        "api": Case(body={"HostConfig": {"Binds": ["/x"]}, "Volumes": {"/y": {}}}),
    }
    places = ("/data", "/only-1", "/x", "/y")
    for name, case in cases.items():
        await case.make(line, name)
        await mark(line, name, *places)
    before = await volumes(line)
    await updated_from_here(line, cases)
    left = await volumes(line)
    assert before < left  # the new image has a volume of its own
    for name in cases:
        await line.docker("rm", "--volumes", f"{name}-anew")
        await mark(line, name, "/only-2")
    left = await volumes(line)
    line.push(app("3"))
    await line.update(*cases)
    for name in cases:
        assert await marks(line, name, *places, "/only-2") == [*places, "/only-2"]
    assert left < await volumes(line)


async def test_a_rollback_takes_away_only_what_the_failed_one_made(line: Line) -> None:
    """The failed one's own anonymous volumes go with it; those of the old one stay, and all else of it."""
    cases = {"web": made("--volume /x --restart always"), "off": made("--volume /x --restart on-failure:3")}
    for name, case in cases.items():
        await case.make(line, name)
        await mark(line, name, "/data", "/only-1", "/x")
    before = {name: await line.inspect(name) for name in cases}
    at_first = await volumes(line)
    line.push(app("2", Healthcheck={"Test": ["CMD", "/bin/stat", "/none"], "Interval": SECOND // 4, "Retries": 1}))
    outcomes = await asyncio.gather(*map(line.run_pass, cases))
    assert all(outcome.startswith("hold: rolled_back: became unhealthy") for outcome in outcomes), outcomes
    after = {name: await line.inspect(name) for name in cases}
    for name in cases:
        assert after[name]["Id"] == before[name]["Id"]
        assert changes(before[name], after[name]) == {}
        assert await marks(line, name, "/data", "/only-1", "/x") == ["/data", "/only-1", "/x"]
    assert await volumes(line) == at_first
    assert sorted((await line.docker("ps", "--all", "--format={{.Names}}")).split()) == ["off", "web"]


async def test_an_old_one_that_vanished_is_made_again_as_it_was(line: Line) -> None:
    """Where somebody removes the parked one while the gate is open, a rollback makes one that differs in nothing."""
    await made("--volume /x --restart always --env OWN=own --publish 127.0.0.1:18097:8080").make(line, "web")
    await mark(line, "web", "/data", "/only-1", "/x")
    before = await line.inspect("web")

    def remove_and_close_the_gate() -> None:
        with suppress(ApiError):  # it is not parked yet, or gone already
            line.real.api.delete("/containers/web.sidecar-old", v=True)
            line.real.docker("exec", "--user=0", "web", "touch", "/ill")

    line.hints.on_wait = remove_and_close_the_gate
    line.push(app("2", Healthcheck=ILL_WHEN_TOLD))
    outcome = await line.run_pass("web")
    assert outcome.startswith("hold: rolled_back: became unhealthy"), outcome
    after = await line.inspect("web")
    assert after["Id"] != before["Id"]
    assert changes(before, after) == {}
    assert await marks(line, "web", "/data", "/only-1", "/x") == ["/data", "/only-1", "/x"]
    assert await volumes(line) == {mount["Name"] for mount in before["Mounts"]}


# --- networks --------------------------------------------------------------------------------------------------------


@pytest.fixture
async def networks(line: Line) -> None:
    """Three networks, the second with IPv6 as well, and a container `peer` on all of them."""
    await line.docker("network", "create", "--subnet=10.91.0.0/24", "one")
    await line.docker("network", "create", "--subnet=10.92.0.0/24", "--ipv6", "--subnet=fd00:92::/64", "two")
    await line.docker("network", "create", "three")
    await line.docker("run", "--detach", "--name=peer", "--network=one", line.store.reference("app:1"))
    await line.docker("network", "connect", "two", "peer")
    await line.docker("network", "connect", "three", "peer")


async def served(line: Line, host: str, port: int = 8080) -> str:
    """Ask a container from another one which version it is."""
    return await line.docker("exec", "peer", "wget", "-q", "-O", "-", f"http://{host}:{port}/")


async def published(line: Line, port: int) -> str:
    """Ask a port that the engine's host publishes which version it is."""

    def ask() -> str:
        with urlopen(f"http://127.0.0.1:{line.real.reach(port)}/", timeout=30) as answer:
            return str(answer.read().decode().strip())

    return await asyncio.to_thread(ask)


def addresses(container: Json, network: str) -> tuple[str, str]:
    endpoint = container["NetworkSettings"]["Networks"][network]
    return endpoint["IPAddress"], endpoint["GlobalIPv6Address"]


@pytest.mark.usefixtures("networks")
async def test_static_addresses_stay(line: Line) -> None:
    """Addresses that a user chose, of each kind and on each network, are configured and held; no other is chosen."""
    cases = {
        "web": made(
            "--network two --ip 10.92.0.9 --ip6 fd00:92::9 --link-local-ip 169.254.9.9",
            joins=(("--ip", "10.91.0.9", "one"), ("three",)),
        )
    }
    (_, after), *_ = (await updated(line, cases)).values()
    assert addresses(after, "two") == ("10.92.0.9", "fd00:92::9")
    assert addresses(after, "one") == ("10.91.0.9", "")
    assert not after["NetworkSettings"]["Networks"]["three"]["IPAMConfig"]
    for host in ("10.92.0.9", "10.91.0.9", "[fd00:92::9]", "web"):
        assert await served(line, host) == "2"
    inside = await line.docker("exec", "web", "busybox", "ip", "-o", "addr")
    assert all(address in inside for address in ("10.92.0.9/", "10.91.0.9/", "fd00:92::9/", "169.254.9.9/"))


@pytest.mark.usefixtures("networks")
async def test_an_endpoint_is_free_again_for_each_update(line: Line) -> None:
    """A static address and a published port go from the old one to the new one, and on to the next."""
    await made("--network one --ip 10.91.0.9 --publish 127.0.0.1:18099:8080").make(line, "web")
    for version in ("2", "3"):
        line.push(app(version))
        await line.update("web")
        assert await served(line, "10.91.0.9") == version
        assert await published(line, 18099) == version


@pytest.mark.usefixtures("networks")
async def test_aliases_stay_and_the_old_id_is_none(line: Line) -> None:
    """Names that a user gave are answered to on each network; the id of the old container is no name of the new one."""
    cases = {
        "web": made(
            "--network one --network-alias here --network-alias there", joins=(("--alias", "elsewhere", "two"),)
        ),
        "bare": made("--network bridge"),
    }
    inspects = await updated(line, cases)
    for name in ("here", "there", "elsewhere", "web"):
        assert await served(line, name) == "2"
    before, after = inspects["web"]
    shown = [name for each in after["NetworkSettings"]["Networks"].values() for name in each["Aliases"] or []]
    assert before["Id"][:12] not in shown
    assert not inspects["bare"][1]["NetworkSettings"]["Networks"]["bridge"]["Aliases"]


@pytest.mark.usefixtures("networks")
async def test_all_networks_stay_with_their_options(line: Line) -> None:
    """The first network stays the first, those joined by hand are joined, each with its options and its links."""
    cases = {
        "web": made(
            "--network name=two,driver-opt=some.option=first",
            joins=(
                ("--driver-opt", "some.option=second", "--link", "peer:friend", "one"),
                ("--alias", "third", "three"),
            ),
        ),
        "by-id": made(f"--network {await line.docker('network', 'inspect', '--format={{.Id}}', 'one')} --ip 10.91.0.7"),
        "bridge": made(joins=(("one",),)),
        "none": made("--network none"),
        "off": Case(body={"NetworkDisabled": True}),
    }
    (_, after), *_ = (await updated(line, cases)).values()
    assert sorted(after["NetworkSettings"]["Networks"]) == ["one", "three", "two"]
    found = await line.docker("exec", "web", "wget", "-q", "-O", "-", "http://friend:8080/")
    assert found == "1"


async def test_legacy_links_stay(line: Line) -> None:
    """A link of the default network still leads to where it led, under the name that it had."""
    await line.docker("run", "--detach", "--name=db", line.store.reference("app:1"))
    await updated(line, {"web": made("--link db:store")})
    assert await line.docker("exec", "web", "wget", "-q", "-O", "-", "http://store:8080/") == "1"


@pytest.mark.usefixtures("networks")
async def test_a_mac_address_stays_only_if_a_user_chose_it(line: Line) -> None:
    """A MAC address that was asked for is kept, on each network; a generated one is not made one that was asked for."""
    chosen = "02:42:0a:5b:00:77"
    cases = {
        "chosen": Case(body={"MacAddress": chosen}) if is_old(line) else made(f"--mac-address {chosen}"),
        "generated": made(joins=(("one",),)),
    }
    if not is_old(line):  # which knows one address a container
        second = "--network name=two,mac-address=00:16:3e:00:00:02"
        cases["further"] = made(f"--network name=one,mac-address=00:16:3e:00:00:01 {second}")
    inspects = {name: after for name, (_, after) in (await updated(line, cases)).items()}
    assert mac_addresses(inspects["chosen"]) == [chosen]
    assert not inspects["generated"]["Config"].get("MacAddress")
    assert all(address.startswith("02:42:") for address in mac_addresses(inspects["generated"]))
    if "further" in inspects:
        assert mac_addresses(inspects["further"]) == ["00:16:3e:00:00:01", "00:16:3e:00:00:02"]


def mac_addresses(container: Json) -> list[str]:
    return sorted(endpoint["MacAddress"] for endpoint in container["NetworkSettings"]["Networks"].values())


async def test_a_hostname_stays_only_if_a_user_chose_it(line: Line) -> None:
    """A chosen hostname stays, on the host's network too; the old container's id and the host's name are not kept."""
    on_host = {
        "keeps": "Cmd Healthcheck.Test StopSignal",
        "changes": {"Args": (["1", "sleep", "999"], ["2", "sleep", "999"])},
    }
    options, command = "--network host --no-healthcheck --stop-signal KILL", "sleep 999"
    cases = {
        "generated": made(),
        "chosen": made("--hostname mine --domainname example.org"),
        "hosts": made(options, command, **on_host),
        "own": made(f"{options} --hostname mine", command, **on_host),
        "uts": made("--uts host"),
    }
    inspects = {name: after for name, (_, after) in (await updated(line, cases)).items()}
    assert inspects["generated"]["Config"]["Hostname"] == inspects["generated"]["Id"][:12]
    inside = {name: await line.docker("exec", name, "busybox", "hostname") for name in cases}
    assert (inside["chosen"], inside["own"]) == ("mine", "mine")
    assert inside["hosts"] == inside["uts"] == line.real.machine.name


async def test_a_random_port_stays_random_and_the_log_says_so(line: Line) -> None:
    """A port that the engine chose is chosen anew, published all the same, and the log names the one that is gone."""
    ports = frozenset({"NetworkSettings.Ports.8080/tcp"})
    gone = {"NetworkSettings.Ports.8101/udp": (ANY, None), "NetworkSettings.Ports.8102/udp": (None, ANY)}
    cases = {
        "one": made("--publish 8080", may_change=ports),
        "all": made("--publish-all", may_change=ports, changes=gone),
        "range": made("--publish 18000-18009:8080", may_change=ports),
    }
    inspects = await updated(line, cases)
    for name, (before, after) in inspects.items():
        old, new = (each["NetworkSettings"]["Ports"]["8080/tcp"][0]["HostPort"] for each in (before, after))
        assert f"8080/tcp was published on port {old}, which the engine chose; it chooses anew" in line.noted(name)
        assert await published(line, int(new)) == "2"


# --- stopping --------------------------------------------------------------------------------------------------------

SIGNALLED = "".join(f"trap 'echo {name} >/data/signal; exit 0' {name}\n" for name in ("TERM", "INT", "USR1", "USR2"))


async def test_the_stop_signal_is_the_containers_own(line: Line) -> None:
    """The old one is stopped by the signal of its image, or by that of its user, and can say its last words."""
    script = f"#!/bin/sh\n{SIGNALLED}while :; do sleep 9 & wait; done\n"
    line.push(images.web("1", Behaviour.UNCHECKED, files={"/wait": script}, StopSignal="SIGUSR1", Cmd=["/wait"]))
    await line.pull()
    await line.make("run", "images", "--volume=/data")
    await line.make("run", "users", "--volume=/data", "--stop-signal=SIGUSR2")
    line.push(app("2"))
    await line.update("images", "users")
    said = [await line.docker("exec", name, "cat", "/data/signal") for name in ("images", "users")]
    assert said == ["USR1", "USR2"]


@pytest.mark.parametrize("engine", [NEW.version], indirect=True)
async def test_the_stop_grace_is_the_containers_own(line: Line) -> None:
    """One that takes longer to stop than the engine's ten seconds is waited for, if its user said so."""
    script = "#!/bin/sh\ntrap 'sleep 11; echo done >/data/last; exit 0' TERM\nwhile :; do sleep 9 & wait; done\n"
    line.push(images.web("1", Behaviour.UNCHECKED, files={"/wait": script}, Cmd=["/wait"]))
    await line.pull()
    await line.make("run", "patient", "--volume=/data", "--stop-timeout=120")
    line.push(app("2"))
    await line.update("patient")
    assert await line.docker("exec", "patient", "cat", "/data/last") == "done"
    assert (await line.inspect("patient"))["Config"]["StopTimeout"] == 120


# --- states and restart policies -------------------------------------------------------------------------------------


async def state(line: Line, name: str) -> str:
    return str((await line.inspect(name))["State"]["Status"])


async def test_each_state_comes_back(line: Line) -> None:
    """What runs, runs; what is paused is paused again after the gate; what is stopped is recreated and not run."""
    recreate = "--label=sidecar.when-stopped=recreate"
    line.push(images.web("1", Behaviour.CRASHING), "crash:1")
    await line.pull("crash:1")
    await asyncio.gather(
        line.make("run", "running"),
        line.make("run", "paused"),
        line.make("run", "exited", recreate),
        line.make("create", "created", recreate, "--restart=always"),
        line.make("run", "restarting", "--restart=always", image="crash:1"),
    )
    await line.docker("pause", "paused")
    await line.docker("stop", "exited")
    await line.until(restarted, "restarting")
    line.push(app("2"))
    line.push(images.web("2"), "crash:1")
    wanted = {
        "running": "running",
        "paused": "paused",
        "exited": "created",  # it has not run yet
        "created": "created",
        "restarting": "running",
    }
    await line.update(*wanted)
    assert {name: await state(line, name) for name in wanted} == wanted
    assert (await line.inspect("created"))["HostConfig"]["RestartPolicy"]["Name"] == "always"
    await line.docker("unpause", "paused")
    assert await line.docker("exec", "paused", "wget", "-q", "-O", "-", "http://127.0.0.1:8080/") == "2"


def restarted(container: Json) -> bool:
    return bool(container["RestartCount"])


async def test_what_was_stopped_is_held(line: Line) -> None:
    """Without a label that asks for it, what does not run is not recreated, and the reason says what would do it."""
    await line.make("run", "exited")
    await line.make("create", "created")
    await line.docker("stop", "exited")
    before = {name: await line.inspect(name) for name in ("exited", "created")}
    line.push(app("2"))
    for name, inspected in before.items():
        outcome = await line.run_pass(name)
        assert outcome.startswith(f"hold: {name} is {name}, and what was stopped stays stopped")
        assert "sidecar.when-stopped=recreate" in outcome
        assert_untouched(inspected, await line.inspect(name))


def assert_untouched(before: Json, after: Json) -> None:
    assert (after["Id"], changes(before, after)) == (before["Id"], {})


async def test_the_parked_one_does_not_start_by_itself(line: Line) -> None:
    """While the gate is open a reboot would start one of the two only; after a rollback the policy is what it was."""
    policies = {"always": 0, "unless-stopped": 0, "on-failure": 7, "no": 0}
    for name, count in policies.items():
        await line.make("run", name, f"--restart={name}{f':{count}' if count else ''}")
    before = {name: await line.inspect(name) for name in policies}
    seen: dict[str, list[tuple[str, Json]]] = {}

    def look_and_close_the_gate() -> None:
        for name in policies.keys() - seen.keys():
            with suppress(ApiError):  # it is not parked yet
                pair = [line.real.api.get(f"/containers/{each}/json") for each in (f"{name}.sidecar-old", name)]
                seen[name] = [(each["State"]["Status"], each["HostConfig"]["RestartPolicy"]) for each in pair]
                line.real.docker("exec", "--user=0", name, "touch", "/ill")

    line.hints.on_wait = look_and_close_the_gate
    line.push(images.web("2", Behaviour.UNCHECKED, Healthcheck=ILL_WHEN_TOLD))
    outcomes = await asyncio.gather(*map(line.run_pass, policies))
    assert all(outcome.startswith("hold: rolled_back: became unhealthy") for outcome in outcomes), outcomes
    none = {"Name": "no", "MaximumRetryCount": 0}
    own = {name: {"Name": name, "MaximumRetryCount": count} for name, count in policies.items()}
    assert seen == {name: [("exited", none), ("running", own[name])] for name in policies}
    for name in policies:
        assert_untouched(before[name], await line.inspect(name))
        assert before[name]["HostConfig"]["RestartPolicy"] == own[name]


# --- references, and what is left alone ------------------------------------------------------------------------------


async def test_it_is_made_by_its_tag(line: Line) -> None:
    """The new one names the reference as configured, and the engine's own tag means what it runs."""
    (before, after), *_ = (await updated(line, {"web": made()})).values()
    reference = line.store.reference("app:1")
    assert (before["Config"]["Image"], after["Config"]["Image"]) == (reference, reference)
    assert after["Image"] == await line.docker("image", "inspect", "--format={{.Id}}", reference)
    assert before["Image"] == await line.docker("image", "inspect", "--format={{.Id}}", "sidecar-previous:web")


async def test_what_would_be_lost_is_held_with_the_reason(line: Line) -> None:
    """What cannot be recreated as it is, or is pinned, or would take something from another, is left as it is."""
    reference = line.store.reference("app:1")
    digest = line.push(app("1"))
    await line.docker("network", "create", "one")
    short = (await line.docker("network", "inspect", "--format={{.Id}}", "one"))[:12]
    await line.make("run", "self-removing", "--rm")
    await line.make("run", "swarms", "--label=com.docker.swarm.task.id=some")
    await line.make("run", "alone")
    await line.docker("network", "disconnect", "bridge", "alone")
    await line.make("run", "short", f"--network={short}", "--network-alias=web")
    await line.make("run", "parent")
    await line.make("run", "linked")
    await line.make("run", "lender")
    lender = (await line.inspect("lender"))["Id"]
    others = {
        "child": "--network=container:parent",
        "linker": "--link=linked:it",
        "user": f"--volumes-from={lender[:9]}",
    }
    for name, option in others.items():
        await line.docker("run", "--detach", f"--name={name}", option, "--entrypoint=sleep", reference, "999")
    flags = [f"--label={key}={value}" for key, value in LABELS.items()]
    pinned, ident = f"{line.store.reference('app')}@{digest}", await line.docker("images", "--quiet", reference)
    await line.docker("run", "--detach", "--name=pinned", *flags, pinned)
    await line.docker("run", "--detach", "--name=by-id", *flags, ident)
    reasons = {
        "self-removing": "it was made with --rm",
        "swarms": "it is a task of a Swarm service",
        "alone": "it was disconnected from all its networks",
        "short": "it was made with the shortened id of a network",
        "parent": "child would lose namespace, volumes or link of parent",
        "linked": "linker would lose namespace, volumes or link of linked",
        "lender": "user would lose namespace, volumes or link of lender",
        "pinned": "its reference is pinned to sha256:",
        "by-id": "it runs the image id ",
    }
    before = {name: await line.inspect(name) for name in reasons}
    line.push(app("2"))
    outcomes = {name: await line.run_pass(name) for name in reasons}
    assert {name: outcome for name, outcome in outcomes.items() if reasons[name] not in outcome} == {}
    assert all(outcome.startswith("hold: ") for outcome in outcomes.values())
    for name in reasons:
        assert_untouched(before[name], await line.inspect(name))
    assert line.events.named("rollout.stepped") == []
    assert line.events.named("image.pulled") == []
    names = (await line.docker("ps", "--all", "--format={{.Names}}")).split()
    assert sorted(names) == sorted([*reasons, *others])


async def test_updates_in_a_row_leave_nothing_over(line: Line) -> None:
    """After two updates there is the container, its volumes, its image and the one before, and nothing else."""
    await made("--volume /x --volume named:/named --restart always").make(line, "web")
    first = await line.inspect("web")
    for version in ("2", "3"):
        line.push(app(version))
        await line.update("web")
    after = await line.inspect("web")
    assert (await line.docker("ps", "--all", "--quiet", "--no-trunc")).split() == [after["Id"]]
    used = {mount["Name"] for each in (first, after) for mount in each["Mounts"]}
    places = {mount["Destination"] for mount in after["Mounts"]}
    assert places == {"/x", "/named", "/data", "/only-1", "/only-2", "/only-3"}
    assert await volumes(line) == used
    found = (await line.docker("images", "--all", "--format={{.ID}} {{.Repository}}:{{.Tag}}")).splitlines()
    idents, names = zip(*(row.split() for row in found), strict=True)
    assert len(set(idents)) == 2
    tagged = {name for name in names if not name.endswith("<none>")}
    assert tagged == {line.store.reference("app:1"), "sidecar-previous:web"}
    kept = await line.docker("image", "inspect", "--format={{.Config.User}}", "sidecar-previous:web")
    assert kept == "1002"
    assert line.events.named("rollout.changed") == []


# --- Compose ---------------------------------------------------------------------------------------------------------

IMAGE_LABEL = "Config.Labels.com.docker.compose.image"
COMPOSE = """
name: shop
services:
  db:
    image: {other}
    restart: always
    volumes: [/own, "named:/named"]
  web:
    image: {reference}
    command: [/serve, mine]
    environment: {{OWN: own}}
    labels: {{sidecar.enable: "true", sidecar.min-ready: 0.2s}}
    ports: ["18098:8080"]
    volumes: [/own, "named:/named", {{type: tmpfs, target: /cache, tmpfs: {{size: 65536}}}}]
    networks: {{default: {{aliases: [shopfront]}}, inner: {{ipv4_address: 10.97.0.9}}}}
    depends_on: {{db: {{condition: service_started}}}}
    healthcheck: {{interval: 300ms}}
    stop_grace_period: 20s
    ulimits: {{nofile: {{soft: 2000, hard: 3000}}}}
volumes: {{named: }}
networks: {{inner: {{ipam: {{config: [{{subnet: 10.97.0.0/24}}]}}}}}}
"""


async def test_compose_finds_the_result_up_to_date(line: Line, tmp_path: Path) -> None:
    """Compose's label names the image that runs, and `up` makes nothing anew; what it makes later has the same data."""
    line.push(app("1"), "db:1")
    references = {"reference": line.store.reference("app:1"), "other": line.store.reference("db:1")}
    file = tmp_path / "compose.yaml"
    file.write_text(COMPOSE.format(**references))

    async def up() -> list[Json]:
        await asyncio.to_thread(line.real.compose, "up", "--detach", cwd=tmp_path)
        return [await line.inspect(name) for name in ("shop-web-1", "shop-db-1")]

    before, db = await up()
    await mark(line, "shop-web-1", "/own", "/data")
    for version in ("2", "3"):
        line.push(app(version))
        await line.update("shop-web-1")
        after = await line.inspect("shop-web-1")
        changed = changes(before, after)
        assert changed.pop(IMAGE_LABEL) == (before["Image"], after["Image"])
        assert not {"Config.Cmd", "Config.Env.OWN", "Config.Healthcheck.Interval", "Mounts./own"} & changed.keys()
        assert all(path.startswith(("Config.", "Args", "Mounts./only")) for path in changed), changed
        [again, same_db] = await up()
        assert (again["Id"], same_db["Id"]) == (after["Id"], db["Id"])
        before = again
    file.write_text(COMPOSE.format(**references).replace("OWN: own", "OWN: other"))
    [anew, _] = await up()
    assert anew["Id"] != after["Id"]
    assert await marks(line, "shop-web-1", "/own", "/data") == ["/own", "/data"]
