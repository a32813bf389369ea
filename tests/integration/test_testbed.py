"""The testbed itself: what other tests take for granted about the real parts."""

import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.testbed import images
from tests.testbed.engine import Engine
from tests.testbed.errors import PartError
from tests.testbed.images import OTHER_PLATFORM, Behaviour, Index, web
from tests.testbed.machine import PROJECT
from tests.testbed.parts import Parts, sweep
from tests.testbed.processes import Process
from tests.testbed.registry import Login, Notification, Registry
from tests.testbed.standin import standin_base

MakeRegistry = Callable[..., Registry]
DEADLINE_SECONDS = 20


def eventually(question: Callable[[], Any], wanted: Any = True) -> None:
    """Ask until the answer is the wanted one, and fail with the last answer."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while (answer := question()) != wanted:
        assert time.monotonic() < deadline, f"{answer!r}, not {wanted!r}"
        time.sleep(0.02)


def body(port: int, path: str = "/") -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode().strip()
    except OSError as error:
        return str(error)
    finally:
        connection.close()


def run_web(engine: Engine, image: str, name: str = "web", *options: str) -> None:
    engine.docker("run", "--detach", "--name", name, *options, image)


def state(engine: Engine, name: str = "web") -> dict[str, Any]:
    found: dict[str, Any] = engine.api.get(f"/containers/{name}/json")["State"]
    return found


def health(engine: Engine, name: str = "web") -> str:
    return str(state(engine, name)["Health"]["Status"])


@contextmanager
def receiver() -> Iterator[tuple[int, list[tuple[str | None, dict[str, Any]]]]]:
    """Listen for events of a registry: the header they were sent with, and each event."""
    events: list[tuple[str | None, dict[str, Any]]] = []

    class Receive(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            events.extend((self.headers["Authorization"], event) for event in content["events"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Receive) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port, events
        server.shutdown()


def test_the_engines_are_those_of_both_versions(engine: Engine):
    """Each engine has the version and the API it is named by."""
    version = engine.api.get("/version")
    assert version["Version"].startswith(engine.release.version)
    assert version["ApiVersion"] == engine.release.api_version


def test_two_engines_do_not_see_each_other(engine_20: Engine, engine_26: Engine):
    """Both publish the same port at once, and each is reached at its own."""
    for one, version in ((engine_20, "old"), (engine_26, "new")):
        images.load(one, web(version), "web:1")
        run_web(one, "web:1", "web", "--publish", "8080:8080")
    eventually(lambda: [body(one.reach(8080)) for one in (engine_20, engine_26)], ["old", "new"])


def test_an_engine_pulls_what_was_pushed(engine: Engine, registry: MakeRegistry):
    """A pushed image has the same digest in the registry and in the engine that pulled it."""
    store = registry()
    digest = images.push(store, web("1"), "app:latest")
    engine.docker("pull", "--quiet", store.reference("app:latest"))
    found = engine.api.get(f"/images/{store.reference('app:latest')}/json")
    assert found["RepoDigests"] == [store.reference(f"app@{digest}")]
    assert store.digest("app:latest") == digest


@pytest.mark.parametrize(
    "behaviour, wanted",
    [(Behaviour.HEALTHY, "healthy"), (Behaviour.STUBBORN, "healthy"), (Behaviour.UNHEALTHY, "unhealthy")],
)
def test_an_image_has_the_health_it_is_made_with(engine: Engine, behaviour: Behaviour, wanted: str):
    """The engine's own health check comes to the wanted result."""
    images.load(engine, web("1", behaviour), "web:1")
    run_web(engine, "web:1")
    eventually(lambda: health(engine), wanted)


def test_a_flapping_image_turns_bad_and_good_again(engine: Engine):
    """A flapping image is healthy, then unhealthy, then healthy."""
    images.load(engine, web("1", Behaviour.FLAPPING), "web:1")
    run_web(engine, "web:1")
    for wanted in ("healthy", "unhealthy", "healthy"):
        eventually(lambda: health(engine), wanted)


@pytest.mark.parametrize("behaviour", [Behaviour.CRASHING, Behaviour.FADING])
def test_an_image_can_end_by_itself(engine: Engine, behaviour: Behaviour):
    """A crashing image ends with status 1 at once, a fading one after a while."""
    images.load(engine, web("1", behaviour), "web:1")
    run_web(engine, "web:1")
    eventually(lambda: (state(engine)["Status"], state(engine)["ExitCode"]), ("exited", 1))


def test_an_image_stops_when_it_is_asked_to(engine: Engine):
    """An image that is not stubborn ends on SIGTERM with status 0; an unchecked one has no health."""
    images.load(engine, web("1", Behaviour.UNCHECKED), "web:1")
    run_web(engine, "web:1")
    assert "Health" not in state(engine)
    eventually(lambda: "serving 1" in engine.docker("logs", "web"))
    engine.api.post("/containers/web/stop", t=10)
    assert state(engine)["ExitCode"] == 0


def test_an_index_pushed_again_may_change_only_the_other_platform(engine: Engine, registry: MakeRegistry):
    """The index has a new digest, but what this platform runs is the same."""
    store = registry()
    mine = web("1", media_type=images.OCI_MANIFEST)
    digests = []
    for version in ("1", "2"):
        other = web(version, platform=OTHER_PLATFORM, media_type=images.OCI_MANIFEST)
        digests.append(images.push(store, Index(images=(mine, other)), "app:latest"))
        engine.docker("pull", "--quiet", store.reference("app:latest"))
    pulled = engine.api.get(f"/images/{store.reference('app:latest')}/json")
    assert digests[0] != digests[1] == store.digest("app:latest")
    assert images.PLATFORM.endswith(pulled["Architecture"])
    assert store.digest(f"app@{mine.digest}") == mine.digest


def test_a_push_is_notified(registry: MakeRegistry):
    """A push sends the event with the headers asked for, and again after the receiver was away."""
    with receiver() as (port, events):
        hook = Notification(url=f"http://127.0.0.1:{port}/hook", headers={"Authorization": "Bearer secret"})
        store = registry(notifications=[hook])
        digest = images.push(store, web("1"), "app:latest")
        pushed = ("Bearer secret", "push", "latest", digest)
        eventually(
            lambda: (
                pushed
                in [
                    (header, event["action"], event["target"].get("tag"), event["target"]["digest"])
                    for header, event in events
                ]
            )
        )


def test_a_registry_keeps_port_and_images_over_a_restart(registry: MakeRegistry):
    """Stopped and started again, a registry has the same address and content."""
    store = registry()
    digest = images.push(store, web("1"), "app:latest")
    store.stop()
    assert not store.is_up()
    store.start()
    assert store.digest("app:latest") == digest
    store.delete("app:latest")
    assert store.digest("app:latest") is None


def test_a_registry_can_want_a_login(engine_20: Engine, registry: MakeRegistry):
    """With a login, a pull without one is refused and one with it goes through."""
    store = registry(login=Login(user="ci", password="s3cret"))
    images.push(store, web("1"), "app:latest")
    with pytest.raises(PartError, match="no basic auth credentials"):
        engine_20.docker("pull", "--quiet", store.reference("app:latest"))
    engine_20.docker("login", "--username", "ci", "--password-stdin", store.address, input="s3cret")
    engine_20.docker("pull", "--quiet", store.reference("app:latest"))
    engine_20.docker("logout", store.address)


def test_an_engine_and_its_containers_reach_a_registry_alike(engine: Engine, registry: MakeRegistry):
    """A registry has one address under which the engine pulls and a container on a bridge asks."""
    store = registry()
    images.push(store, web("1"), "app:latest")
    image = f"{store.address_inside}/app:latest"
    engine.docker("pull", "--quiet", image)
    ask = ["wget", "-q", "-O", "-", f"http://{store.address_inside}/v2/app/tags/list"]
    assert json.loads(engine.docker("run", "--rm", image, *ask)) == {"name": "app", "tags": ["latest"]}


def test_containerd_names_an_image_by_its_index(engine_containerd: Engine, registry: MakeRegistry):
    """With containerd's store an image's id is the digest that was pulled, not that of its configuration."""
    store = registry()
    digest = images.push(store, Index(images=(web("1"), web("1", platform=OTHER_PLATFORM))), "app:latest")
    engine_containerd.docker("pull", "--quiet", store.reference("app:latest"))
    assert engine_containerd.api.get(f"/images/{store.reference('app:latest')}/json")["Id"] == digest


def test_containers_outlive_a_killed_engine(testbed: Parts, registry: MakeRegistry):
    """With live-restore, the engine's death is not that of its containers."""
    one = testbed.new_engine("20.10", "live-restore", **{"live-restore": True})
    one.start()
    images.load(one, web("1"), "web:1")
    run_web(one, "web:1", "web", "--publish", "8080:8080")
    port = one.reach(8080)
    started = state(one)["StartedAt"]
    one.kill()
    assert not one.is_up()
    eventually(lambda: body(port, "/index.html"), "1")
    one.start()
    assert state(one)["StartedAt"] == started
    one.turn_off()


def test_an_engine_starts_again_after_every_end(engine: Engine):
    """Stopped, killed or rebooted, the engine comes back with its containers and opened ports."""
    images.load(engine, web("1"), "web:1")
    run_web(engine, "web:1", "web", "--publish", "8080:8080", "--restart", "always")
    port = engine.reach(8080)
    for end in (engine.stop, engine.kill, engine.turn_off):
        end()
        assert not engine.is_up()
        engine.start()
        eventually(lambda: body(port), "1")


def test_a_reboot_ends_every_process(engine: Engine):
    """After a reboot nothing of before runs: a container without a restart policy is down."""
    images.load(engine, web("1"), "web:1")
    run_web(engine, "web:1")
    before = [*engine.machine.processes("containerd"), *engine.machine.processes("dockerd")]
    engine.reboot()
    assert not [process for process in before if process.is_alive()]
    assert state(engine)["Status"] == "exited"


def test_a_frozen_engine_does_not_answer(engine_20: Engine):
    """A frozen engine takes connections and is silent until it goes on."""
    engine_20.freeze()
    assert not engine_20.is_up()
    engine_20.thaw()
    assert engine_20.is_up()


def test_an_engine_leaves_no_trace_in_its_containers(engine: Engine):
    """The testbed's own settings of the engine do not show in a container's configuration."""
    images.load(engine, web("1"), "web:1")
    run_web(engine, "web:1")
    settings = engine.api.get("/containers/web/json")["HostConfig"]
    assert settings["CgroupParent"] == ""


def test_an_engine_keeps_files_of_a_moment_to_its_machine(engine: Engine):
    """What an engine and its helpers write for a moment goes with the machine, also when that is killed meanwhile."""
    images.load(engine, web("1"), "web:1")
    run_web(engine, "web:1")
    for name in ("dockerd", "containerd", "containerd-shim"):
        for process in engine.machine.processes(name):
            variables = Path(f"/proc/{process.pid}/environ").read_text().split("\0")
            [folder] = [value for key, _, value in (each.partition("=") for each in variables) if key == "TMPDIR"]
            seen = engine.machine.inside(folder)
            assert seen.is_dir()
            assert seen.stat().st_dev != Path(tempfile.gettempdir()).stat().st_dev
        assert engine.machine.processes(name)


def test_podman_comes_back_after_every_end(engine_podman: Engine):
    """Stopped or killed it is only its service that ends; a reboot ends its containers, and leaves no control group."""
    images.load(engine_podman, web("1"), "localhost/web:1")
    run_web(engine_podman, "localhost/web:1")
    for end in (engine_podman.stop, engine_podman.kill):
        end()
        assert not engine_podman.is_up()
        engine_podman.start()
        assert state(engine_podman)["Status"] == "running"
    eventually(lambda: health(engine_podman), "healthy")
    name = engine_podman.machine.name
    engine_podman.turn_off()
    assert list(Path("/sys/fs/cgroup").glob(f"*/{name}/*")) == []
    assert list(Path("/sys/fs/cgroup").glob(f"{name}/*")) == []
    engine_podman.start()
    assert state(engine_podman)["Status"] == "exited"


def test_containers_see_folders_of_the_host(engine: Engine, tmp_path: Path):
    """A folder of the test and the engine's own socket can be mounted into a container."""
    images.load(engine, images.base(), "base:1")
    (tmp_path / "file").write_text("content")
    mounts = ["--volume", f"{tmp_path}:/data", "--volume", "/var/run/docker.sock:/var/run/docker.sock"]
    seen = engine.docker(
        "run", *mounts, "base:1", "sh", "-c", "cat /data/file; test -S /var/run/docker.sock && echo -socket"
    )
    assert seen.strip() == "content-socket"


def test_compose_runs_a_project(engine: Engine, compose: Path, tmp_path: Path):
    """Compose is a plugin of the client and a program of its own, and finds a started project up to date."""
    images.load(engine, web("1"), "web:1")
    (tmp_path / "compose.yaml").write_text("services: {web: {image: 'web:1', ports: ['8080:8080']}}\n")
    engine.compose("up", "--detach", "--wait", cwd=tmp_path)
    command = [str(compose), "up", "--detach"]
    environment = {**os.environ, **engine.environment}
    again = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert "Running" in again.stderr
    assert body(engine.reach(8080)) == "1"


@pytest.mark.sweep
def test_pip_works_in_a_build_on_the_stand_in(engine: Engine, tmp_path: Path):
    """A build on the stand-in for the Python base image installs a package, and survives a wipe."""
    (tmp_path / "Dockerfile").write_text(
        "ARG BASE_IMAGE\nFROM $BASE_IMAGE\n"
        "RUN python -m venv /venv && /venv/bin/pip install --no-deps --no-compile idna\n"
        'CMD ["/venv/bin/python", "-c", "import idna; print(idna.__name__)"]\n'
    )
    base = standin_base(engine)
    engine.build(tmp_path, "built:1", BASE_IMAGE=base)
    engine.wipe()
    assert engine.docker("run", "--rm", "built:1").strip() == "idna"
    engine.docker("image", "rm", "built:1", base)  # others find the engine as it was started


def test_a_wipe_removes_everything(engine: Engine):
    """After a wipe the engine has no container, volume, network of one's own or image, and is in no swarm."""
    engine.api.post("/swarm/init", {"ListenAddr": "127.0.0.1", "AdvertiseAddr": "127.0.0.1"})
    images.load(engine, web("1"), "wiped:1")
    engine.docker("network", "create", "own")
    run_web(engine, "wiped:1", "web", "--volume", "data:/data", "--network", "own")
    engine.wipe()
    assert engine.api.get("/containers/json", all=True) == []
    assert not engine.api.get("/volumes")["Volumes"]
    assert {network["Name"] for network in engine.api.get("/networks")} == {"bridge", "host", "none"}
    assert "wiped:1" not in engine.docker("images", "--format", "{{.Repository}}:{{.Tag}}")
    assert engine.api.get("/info")["Swarm"]["LocalNodeState"] == "inactive"


def test_a_killed_run_leaves_nothing_running(tmp_path: Path):
    """A run that is killed takes its engine and registry along, and the next run removes its folder."""
    script = (
        "import time\nfrom tests.testbed.parts import parts\n"
        "with parts() as run:\n"
        "    engine = run.engine('20.10'); registry = run.registry()\n"
        "    print(run.directory, engine.machine.first.pid, registry.process.pid, flush=True); time.sleep(100)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=PROJECT, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout
        folder, *pids = run.stdout.readline().split()
        processes = [Process.of(int(pid)) for pid in pids]
        run.send_signal(signal.SIGKILL)
    for process in processes:
        assert process
        assert process.wait(10)
    assert Path(folder) in sweep() or not Path(folder).exists()
    assert not Path(folder).exists()


def test_parts_can_be_started_by_hand(tmp_path: Path):
    """`up` leaves engine and registry running for `push` and `reach`, a second changes nothing, `down` ends both."""
    command = [sys.executable, "-m", "tests.testbed"]

    def testbed(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *arguments], cwd=PROJECT, capture_output=True, text=True, check=False)

    try:
        first, second = (testbed("up", "--engine", "26.1", str(tmp_path)) for _ in range(2))
        assert first.stdout == second.stdout
        other = testbed("up", "--engine", "20.10", str(tmp_path))
        assert other.returncode == 1
        assert "end it first" in other.stderr
        assert f"DOCKER_HOST=unix://{tmp_path}/engine/docker.sock" in first.stdout
        assert f"python3 -m tests.testbed down {tmp_path}\n" in first.stdout
        assert testbed("doctor", str(tmp_path)).returncode == 0
        assert testbed("push", str(tmp_path), "shop/web:1", "--version", "seven").stdout.startswith("sha256:")
        registry = first.stdout.splitlines()[0].rpartition(" ")[2]
        script = f'eval "$1"; docker run --detach --publish 8080:8080 {registry}/shop/web:1'
        subprocess.run(["bash", "-ec", script, "-", first.stdout], check=True)
        port = testbed("reach", str(tmp_path), "8080").stdout.rpartition(":")[2]
        assert body(int(port)) == "seven"
    finally:
        assert testbed("down", str(tmp_path)).returncode == 0
    assert testbed("doctor", str(tmp_path)).returncode == 1
