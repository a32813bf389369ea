"""The image that the Dockerfile makes, run as a user runs it."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from tests.e2e.shipped import LOCKED_DOWN, SOCKET, STATE, TOKEN, Shipped
from tests.testbed import images
from tests.testbed.engine import Engine
from tests.testbed.errors import PartError
from tests.testbed.images import Health
from tests.testbed.product import ROOT, sidecar_image
from tests.testbed.registry import Registry
from tests.testbed.standin import standin_base

Measured = Callable[[str, str], None]
ORDINARY_USER = "65532"
CONTEXT = ("Dockerfile", ".dockerignore", "pyproject.toml", "README.md", "LICENSE", "NOTICE")
SHELLS = ("/usr/bin/sh", "/usr/bin/dash", "/usr/bin/bash")


def test_it_runs_as_an_ordinary_user_on_a_read_only_file_system(shipped: Shipped, measured: Measured):
    """Without a word about users, with nothing writable but its state and no capability, it works on little memory."""
    shipped.start(*shipped.usual)
    assert shipped.python("import os; print(os.getuid(), os.getgid())") == f"{ORDINARY_USER} {ORDINARY_USER}"
    assert shipped.sidecar("healthcheck", "--ready").status == 0
    assert shipped.sidecar("doctor").status == 0
    started = moment(shipped.inspect()["State"]["StartedAt"])
    ready = moment(shipped.lines("daemon.started")[0]["timestamp"])
    measured("start to ready, as a container", f"{(ready - started).total_seconds():.2f} s")
    status = shipped.python("print(open('/proc/1/status').read())")
    resident, own = (int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) / 1024 for name in ("VmRSS", "RssAnon"))
    memory = shipped.engine.api.get("/containers/sidecar/stats", stream=False)["memory_stats"]
    charged = (memory["usage"] - memory["stats"].get("total_inactive_file", 0)) / 2**20
    measured("memory at rest, resident", f"{resident:.1f} MiB, of which {own:.1f} MiB are its own")
    measured("memory at rest, as docker stats shows it", f"{charged:.1f} MiB")
    assert resident < 150


def test_it_writes_nothing_beside_its_state_where_it_could(shipped: Shipped):
    """With a root file system that can be written, nothing is: no cache, no compiled module, no temporary file."""
    shipped.start(SOCKET, f"--group-add={shipped.group}", STATE)
    assert shipped.sidecar("targets").status == 0
    assert shipped.sidecar("doctor").status == 0
    changed = {line.split()[1] for line in shipped.docker("diff", "sidecar").out.splitlines()}
    # What the engine made to mount the socket on.
    assert changed <= {"/run", "/run/docker.sock"}


def test_without_the_group_it_says_the_line_that_gives_it(shipped: Shipped):
    """The exact line for the Compose file is told by `doctor` and by `run`; both end with 3, and mended, both work."""
    line = f'group_add: ["{shipped.group}"]'
    doctor = shipped.once("doctor", options=(*LOCKED_DOWN, SOCKET, STATE))
    assert doctor.status == 3
    assert line in doctor.out
    run = shipped.once("run", options=(*LOCKED_DOWN, SOCKET, STATE))
    assert run.status == 3
    told = [json.loads(text) for text in run.out.splitlines()]
    assert [each["event"] for each in told] == ["daemon.failed"]
    assert line in told[0]["reason"]
    assert shipped.once("doctor", options=shipped.usual).status == 0


def test_a_socket_that_was_not_there_is_not_taken_for_a_matter_of_groups(shipped: Shipped):
    """Docker makes a folder of what does not exist: that is told, and no group is named that would not help."""
    options = ("--volume=/run/none.sock:/var/run/docker.sock", STATE)
    for command in ("doctor", "run"):
        answer = shipped.once(command, options=options)
        assert answer.status == 3
        assert "no socket" in answer.out
        assert "group_add" not in answer.out


def test_without_a_socket_it_says_how_to_mount_one(shipped: Shipped):
    """The line for the Compose file is told by `doctor` and by `run`."""
    for command in ("doctor", "run"):
        answer = shipped.once(command)
        assert answer.status == 3
        assert "/var/run/docker.sock:/var/run/docker.sock" in answer.out


def test_doctor_warns_where_the_state_is_no_volume(shipped: Shipped):
    """State that is lost with the container is a warning with the line that keeps it; a volume is none."""
    engine_only = (SOCKET, f"--group-add={shipped.group}")
    within = shipped.once("doctor", options=engine_only)
    assert within.status == 0
    assert re.search(r"^warning +state .*lost.*\n.*volumes: \[.*:/data", within.out, re.MULTILINE)
    in_memory = shipped.once("doctor", options=(*engine_only, "--tmpfs=/data:mode=1777"))
    assert re.search(r"^warning +state .*memory", in_memory.out, re.MULTILINE)
    kept = shipped.once("doctor", options=(*engine_only, STATE))
    assert kept.status == 0
    assert re.search(r"^ok +state ", kept.out, re.MULTILINE)
    assert not re.search(r"^warning +state ", kept.out, re.MULTILINE)


def test_a_read_only_file_system_without_a_volume_is_told_to_need_one(shipped: Shipped):
    """No owner of a folder mends a file system that is read-only: a volume does."""
    options = (*LOCKED_DOWN, SOCKET, f"--group-add={shipped.group}")
    doctor = shipped.once("doctor", options=options)
    assert doctor.status == 1
    assert re.search(r"^failed +state .*Read-only.*\n.*volumes: \[.*:/data", doctor.out, re.MULTILINE)
    assert "chown" not in doctor.out
    run = shipped.once("run", options=options)
    assert run.status == 2
    assert "/data" in run.err


def test_it_is_healthy_within_its_own_schedule(shipped: Shipped, measured: Measured):
    """The image's own health check finds the daemon, on another port too."""
    shipped.start(*shipped.usual, "--env=SIDECAR_PORT=9090")
    shipped.until(lambda: shipped.health() == "healthy", "the container is healthy")
    state = shipped.inspect()["State"]
    taken = moment(state["Health"]["Log"][-1]["End"]) - moment(state["StartedAt"])
    measured("start to healthy, by the image's health check", f"{taken.total_seconds():.1f} s")


def moment(text: str) -> datetime:
    """Read a time as the engine or Sidecar writes it; nanoseconds are more digits than Python reads."""
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d*", r"\1", text))


def test_it_stays_healthy_while_only_the_engine_is_away(shipped: Shipped, engine_20: Engine):
    """Liveness is the daemon's own: restarting it mends no engine; readiness says what is missing, until it is back."""
    socket = f"--volume={engine_20.socket}:/var/run/docker.sock"
    group = f"--group-add={engine_20.socket.stat().st_gid}"
    shipped.start(*LOCKED_DOWN, socket, group, STATE, "--health-interval=500ms", "--health-start-period=0s")
    shipped.until(lambda: shipped.health() == "healthy", "the container is healthy")
    engine_20.freeze()
    try:
        shipped.until(lambda: shipped.sidecar("healthcheck", "--ready").status == 1, "it is not ready")
        assert "engine" in shipped.sidecar("healthcheck", "--ready").out
        assert shipped.sidecar("healthcheck").status == 0
        asked = shipped.inspect()["State"]["Health"]["Log"][-1]["End"]
        shipped.until(lambda: shipped.inspect()["State"]["Health"]["Log"][-1]["Start"] > asked, "it is checked again")
        health = shipped.inspect()["State"]["Health"]
        assert (health["Status"], health["FailingStreak"]) == ("healthy", 0)
    finally:
        engine_20.thaw()
    shipped.until(lambda: shipped.sidecar("healthcheck", "--ready").status == 0, "it is ready again")


def test_it_is_unhealthy_once_it_hangs(shipped: Shipped):
    """A daemon that does not answer is found out by the health check, so that an orchestrator may restart it."""
    schedule = ("--health-interval=500ms", "--health-timeout=2s", "--health-retries=2", "--health-start-period=0s")
    shipped.start(*shipped.usual, *schedule)
    shipped.until(lambda: shipped.health() == "healthy", "the container is healthy")
    process = str(shipped.inspect()["State"]["Pid"])
    shipped.engine.machine.run("sh", "-c", f"kill -STOP {process}")
    try:
        shipped.until(lambda: shipped.health() == "unhealthy", "the container is unhealthy")
    finally:
        shipped.engine.machine.run("sh", "-c", f"kill -CONT {process}")
    shipped.until(lambda: shipped.health() == "healthy", "the container is healthy again")


def test_labels_say_what_it_is(shipped: Shipped):
    """The labels of the OCI image specification are there, with the version of the package inside."""
    config = shipped.engine.api.get(f"/images/{shipped.image}/json")["Config"]
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in config["Labels"].items()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert labels["title"] == "Sidecar"
    assert labels["description"]
    assert labels["licenses"] == project["license"]
    assert labels["version"] == project["version"]
    assert "revision" in labels
    assert shipped.once("--version").out == f"sidecar {project['version']}\n"


def test_nothing_in_it_installs_or_compiles(shipped: Shipped):
    """The environment that is shipped has no pip, and nothing was added that compiles."""
    code = (
        "import importlib.util as u, shutil, sys; "
        "print([n for n in ('pip', 'setuptools', 'hatchling', 'wheel') if u.find_spec(n)], "
        "[n for n in ('pip', 'cc', 'gcc', 'make', 'apt') if shutil.which(n, path='/opt/sidecar/bin')], sys.prefix)"
    )
    answer = shipped.docker("run", "--rm", "--entrypoint=/opt/sidecar/bin/python", shipped.image, "-c", code)
    assert answer.out.strip() == "[] [] /opt/sidecar"


def test_no_shell_is_needed(shipped: Shipped):
    """With every shell of the base taken away, the daemon, its health check and its commands work."""
    without = tuple(f"--volume=/dev/null:{path}:ro" for path in SHELLS)
    assert shipped.docker("run", "--rm", *without, "--entrypoint=/bin/sh", shipped.image, "-c", "true").status != 0
    shipped.start(*shipped.usual, *without, "--health-interval=1s")
    assert shipped.sidecar("doctor").status == 0
    shipped.until(lambda: shipped.health() == "healthy", "the container is healthy")


@pytest.mark.parametrize("init", [(), ("--init",)], ids=["alone", "under an init"])
def test_it_ends_when_it_is_told_to(shipped: Shipped, init: tuple[str, ...]):
    """As process 1 and under an init alike, SIGTERM ends it with 0 and its last words, before the engine kills it."""
    shipped.start(*shipped.usual, *init)
    shipped.engine.docker("stop", "sidecar")
    state = shipped.inspect()["State"]
    assert (state["ExitCode"], state["OOMKilled"]) == (0, False)
    assert [line["event"] for line in shipped.lines()][-2:] == ["daemon.stopping", "daemon.stopped"]


def test_it_ends_in_time_in_the_middle_of_an_update(shipped: Shipped, registry: Callable[..., Registry]):
    """Told to stop while it waits for health, it ends within the engine's ten seconds; the next start goes on."""
    from_registry = registry()
    engine, reference = shipped.engine, from_registry.reference("web:1")
    images.push(from_registry, images.web("1"), "web:1")
    engine.docker("pull", "--quiet", reference)
    labels = ("--label=sidecar.enable=true", "--label=sidecar.min-ready=1s")
    engine.docker("run", "--detach", "--name=web", "--restart=always", *labels, reference)
    when_told = {"/health": "#!/bin/sh\n[ -e /tmp/ok ]\n"}
    slow = images.web("2", health=Health(retries=10_000), files=when_told)
    digest = images.push(from_registry, slow, "web:1")
    shipped.start("--network=host", *shipped.usual)
    shipped.until_told("rollout.started", digest=digest)
    shown = "--format={{.State.Running}} {{.Config.Healthcheck.Retries}}"
    shipped.until(lambda: shipped.docker("inspect", shown, "web").out == "true 10000\n", "the new one runs")
    engine.docker("stop", "sidecar")
    assert shipped.inspect()["State"]["ExitCode"] == 0
    assert not shipped.lines("rollout.succeeded")
    engine.docker("exec", "web", "touch", "/tmp/ok")
    engine.docker("start", "sidecar")
    shipped.until_told("rollout.succeeded", digest=digest)
    assert sorted(shipped.docker("ps", "--all", "--format={{.Names}}").out.split()) == ["sidecar", "web"]


def test_it_adds_little_to_its_base(shipped: Shipped, measured: Measured):
    """The package and its requirements are all that is added to the base image."""
    base = shipped.engine.api.get(f"/images/{standin_base(shipped.engine)}/json")
    image = shipped.engine.api.get(f"/images/{shipped.image}/json")
    assert image["RootFS"]["Layers"][: len(base["RootFS"]["Layers"])] == base["RootFS"]["Layers"]
    added = (image["Size"] - base["Size"]) / 1e6
    measured("size over the base image", f"{added:.1f} MB")
    assert added < 60


def test_nothing_unhashed_is_installed():
    """Every install checks hashes, or takes the wheel just made; every requirement is pinned and hashed."""
    dockerfile = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    commands = [part for line in dockerfile.splitlines() if line.startswith("RUN") for part in line.split("&&")]
    installs = [command for command in commands if " install " in command]
    assert installs
    for install in installs:
        fetched = re.findall(r"-r (\S+)", install)
        assert "--require-hashes" in install if fetched else {"--no-deps", "--no-index"} <= set(install.split())
        for name in fetched:
            assert list(unhashed(ROOT / name)) == []
    for wheel in (command for command in commands if "pip wheel" in command):
        assert {"--no-deps", "--no-build-isolation"} <= set(wheel.split())


def unhashed(requirements: Path) -> Iterator[str]:
    """Give the requirements without a version or a hash."""
    for entry in requirements.read_text().replace("\\\n", " ").splitlines():
        if entry.strip() and not entry.lstrip().startswith("#") and not re.search(r"==\S+ .*--hash=sha256:", entry):
            yield entry


def test_a_requirement_that_is_not_what_was_locked_ends_the_build(shipped: Shipped, tmp_path: Path):
    """A file of another content than the locked one is not installed, whoever serves it."""
    for name in (*CONTEXT, "requirements/build.txt", "requirements/run.txt", "sidecar/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    locked = tmp_path / "requirements/build.txt"
    locked.write_text(re.sub(r"sha256:[0-9a-f]{64}", "sha256:" + "0" * 64, locked.read_text()))
    with pytest.raises(PartError, match="DO NOT MATCH THE HASHES"):
        shipped.engine.build(tmp_path, "tampered:1", BASE_IMAGE=standin_base(shipped.engine))


def test_it_is_built_and_runs_on_the_oldest_engine(engine_20: Engine):
    """Engine 20.10 builds it with the builder of its time, and the daemon and its health check work there."""
    old = Shipped(engine_20, sidecar_image(engine_20))
    old.start(*old.usual, "--health-interval=1s", f"--env=SIDECAR_TOKEN={TOKEN}")
    assert old.sidecar("doctor").status == 0
    old.until(lambda: old.health() == "healthy", "the container is healthy")
    engine_20.docker("stop", "sidecar")
    assert old.inspect()["State"]["ExitCode"] == 0
