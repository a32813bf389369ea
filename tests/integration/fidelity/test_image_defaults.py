"""What only the old image put there gives way to the new image; what a user said, or no image says, stays."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.engines import OF_ANY_ENGINE
from tests.integration.fidelity.cases import (
    Case,
    is_old,
    made,
    updated,
    updated_from_here,
)
from tests.integration.inspects import changes, differs_from_new
from tests.integration.line import Line, open_line
from tests.integration.versions import LEFT_BY_THE_IMAGE, app
from tests.testbed import images
from tests.testbed.engine import NEW, OLD, Engine
from tests.testbed.images import OTHER_PLATFORM, PLATFORM, Index
from tests.testbed.parts import Parts
from tests.testbed.registry import OCI_MANIFEST, Registry

# Time decides nothing here: on a busy machine an update takes as long as it takes.
pytestmark = pytest.mark.timeout(900)


@pytest.mark.fidelity(4, 5, 7, 9, 10)
async def test_without_options_all_is_as_the_new_image_says(line: Line) -> None:
    """No default of the old image outlives it, whatever it is about."""
    await updated(line, {"plain": made()})


@pytest.mark.fidelity(4)
@OF_ANY_ENGINE
async def test_a_users_environment_stays(line: Line) -> None:
    """Variables of a user stay, over the image's too, and empty ones; the image's own are those of the new one."""
    options = "--env OWN=a=b --env EMPTY= --env VERSION=mine --env ONLY_1=mine"
    cases = {"own": made(options, keeps="Env.VERSION Env.ONLY_1")}
    (_, after), *_ = (await updated(line, cases)).values()
    assert {"OWN=a=b", "EMPTY=", "VERSION=mine", "ONLY_1=mine", "ONLY_2=yes"} <= set(after["Config"]["Env"])


@pytest.mark.fidelity(5)
@OF_ANY_ENGINE
async def test_a_users_command_and_entrypoint_stay(line: Line) -> None:
    """An own command stays beside the new entrypoint, and an own entrypoint never gets the image's command."""
    arguments = {"Args": (["1", "/serve", "mine"], ["2", "/serve", "mine"])}
    cases = {
        "command": made(command="/serve mine", keeps="Cmd", changes=arguments),
        "entrypoint": made("--entrypoint /serve", keeps="Cmd Entrypoint Args"),
        "both": made("--entrypoint /enter", "mine /serve", keeps="Cmd Entrypoint Args"),
    }
    await updated(line, cases)


@pytest.mark.fidelity(6)
@OF_ANY_ENGINE
async def test_a_cleared_entrypoint_stays_cleared(line: Line) -> None:
    """What was run without the image's entrypoint is run without it again, and its first process is the command."""
    await updated(line, {"cleared": made("--entrypoint=", "/serve mine", keeps="Cmd Entrypoint Args")})
    first_process = await line.docker("exec", "cleared", "cat", "/proc/1/cmdline")
    assert first_process.split("\0")[:3] == ["/bin/sh", "/serve", "mine"]


@pytest.mark.fidelity(7, 8, 44)
@OF_ANY_ENGINE
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


@pytest.mark.fidelity(9, 10, 32)
@OF_ANY_ENGINE
async def test_what_else_a_user_set_over_the_image_stays(line: Line) -> None:
    """Stop signal, user, working directory, exposed ports, volumes and labels of a user stay, odd labels verbatim."""
    options = "--stop-signal KILL --user 1009:1009 --workdir /mine --expose 99/tcp --volume /mine"
    labels = ("--label=only-1=mine", "--label=odd=a=b {{.Name}} 'c'", "--label=empty=")
    kept = "StopSignal User WorkingDir Labels.only-1"
    cases = {"mine": Case(options=(*options.split(), *labels), keeps=frozenset(kept.split()))}
    (_, after), *_ = (await updated(line, cases)).values()
    assert after["Config"]["Labels"]["odd"] == "a=b {{.Name}} 'c'"
    assert await line.docker("exec", "mine", "id", "-u") == "1009"


@pytest.mark.fidelity(11)
async def test_defaults_are_those_of_the_image_that_it_runs(line: Line) -> None:
    """Where the tag means the new image already, the defaults are still those of the old one, which has no name."""
    cases = {"behind": made("--env OWN=mine")}
    await cases["behind"].make(line, "behind")
    line.push(app("2"))
    await line.pull()
    await updated_from_here(line, cases)


@pytest.mark.fidelity(25, 31, 44)
@OF_ANY_ENGINE
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


@pytest.mark.fidelity(11)
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


@pytest.mark.fidelity(26)
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


@pytest.mark.fidelity(10)
@OF_ANY_ENGINE
async def test_a_value_just_like_the_old_images_counts_as_the_images(line: Line) -> None:
    """What a user said just like the image cannot be told from it, so the new image's word counts: a known loss."""
    options = "--env VERSION=1 --label only-1=1 --stop-signal SIGINT --user 1001 --workdir /place-1"
    await made(options, "/serve 1").make(line, "same")
    await updated_from_here(line, {"same": made()})


@pytest.mark.fidelity(30)
@OF_ANY_ENGINE
async def test_odd_ports_stay(line: Line) -> None:
    """Keys of ports that name none, as engines take them and publish nothing for, are no obstacle and go over."""
    ports = {key: [{"HostIp": "", "HostPort": ""}] for key in ("80", "80/", "/tcp", "", "80/other", "070/tcp")}
    cases = {"odd": Case(body={"HostConfig": {"PortBindings": ports}, "ExposedPorts": {"abc/tcp": {}}})}
    (_, after), *_ = (await updated(line, cases)).values()
    assert after["HostConfig"]["PortBindings"] == ports


@pytest.mark.fidelity(24)
@OF_ANY_ENGINE
async def test_a_runtime_and_devices_stay(line: Line) -> None:
    """Another runtime than the engine's own, and the GPUs that were asked for, are asked for again."""
    gpus = [{"Driver": "nvidia", "Count": -1, "DeviceIDs": None, "Capabilities": [["gpu"]], "Options": {"a": "b"}}]
    stopped = {"Labels": {"sidecar.when-stopped": "recreate"}}  # there is no GPU here to start it with
    cases = {
        "runtime": Case(body={"HostConfig": {"Runtime": "io.containerd.runc.v2"}}),
        "gpus": Case(body={"HostConfig": {"DeviceRequests": gpus}} | stopped),
    }
    await cases["runtime"].make(line, "runtime")
    await cases["gpus"].make(line, "gpus", "create")
    inspects = await updated_from_here(line, cases)
    assert inspects["gpus"][1]["HostConfig"]["DeviceRequests"] == gpus


@pytest.mark.fidelity(40)
async def test_another_platform_stays(line: Line) -> None:
    """A container of another platform than the engine's own gets the new image for that platform."""
    for version in ("1", "2"):
        by_platform = {PLATFORM: f"{version}-ours", OTHER_PLATFORM: f"{version}-theirs"}
        made_for = (images.web(says, media_type=OCI_MANIFEST, platform=each) for each, says in by_platform.items())
        line.push(Index(images=tuple(made_for)), "multi:1")
        if version == "1":  # it is not run: nothing here can
            await line.docker("pull", "--quiet", "--platform", OTHER_PLATFORM, line.store.reference("multi:1"))
            options = ("--platform", OTHER_PLATFORM, "--label=sidecar.when-stopped=recreate")
            await line.make("create", "theirs", *options, image="multi:1")
    await line.update("theirs")
    assert "VERSION=2-theirs" in (await line.inspect("theirs"))["Config"]["Env"]


@pytest.mark.fidelity(26)
async def test_limits_that_the_engine_sets_by_itself_stay_as_they_are_seen(
    testbed: Parts, registry: Callable[..., Registry]
) -> None:
    """An engine shows its own default limits as if a user had asked for them, so they are kept: a known limit."""
    limits = {"default-ulimits": {"nofile": {"Name": "nofile", "Soft": 3000, "Hard": 4000}}}
    engine = testbed.new_engine(NEW.version, "limited", **limits)
    store = registry()
    engine.start()
    engine.admit(store.port)
    try:
        async with open_line(engine, store) as line:
            line.push(app("1"))
            await line.pull()
            (_, after), *_ = (await updated(line, {"web": made("--ulimit core=0")})).values()
            names = {limit["Name"] for limit in after["HostConfig"]["Ulimits"]}
            assert names == {"nofile", "core"}
    finally:
        engine.turn_off()
